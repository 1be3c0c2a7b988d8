//! The search loop of the Rabin chunker.
//!
//! Sliding the window by one byte takes six or seven cycles, of which the processor only waits: each step needs the one
//! before. Since a cut depends on 64 bytes alone, long stretches are searched in several lanes, each in its own part of
//! the stretch after reading in the 64 bytes before it. The first cut of the foremost lane that has one is the first
//! cut of the stretch; what the lanes behind it did was in vain, which bounds how long a stretch should be.

use super::rabin::{MASK, RabinTables, WINDOW};

/// Lanes searched side by side.
const LANES: usize = 8;
/// Bytes searched by each lane in one stretch. Longer ones waste more behind a cut (one in about a MiB), shorter ones
/// read in the window more often.
const LANE_BYTES: usize = 4096;

/// Searches `data[from..]` for the first place after which a chunk ends by its content: `Ok(length of data up to
/// there)`, or `Err(fingerprint at the end of data)`. `from` must be at least 64; `digest` is the fingerprint of the 64
/// bytes before it.
pub(super) fn first_cut(tables: &RabinTables, mut digest: u64, data: &[u8], mut from: usize) -> Result<usize, u64> {
    while data.len().saturating_sub(from) >= LANES * LANE_BYTES {
        let stretch = &data[from - WINDOW..from + LANES * LANE_BYTES];
        match in_lanes(tables, digest, stretch) {
            Ok(n) => return Ok(from + n),
            Err(last) => digest = last,
        }
        from += LANES * LANE_BYTES;
    }
    if from >= data.len() {
        return Err(digest);
    }
    for (i, (&incoming, &outgoing)) in data[from..].iter().zip(&data[from - WINDOW..]).enumerate() {
        digest = tables.slide(digest, incoming, outgoing);
        if digest & MASK == 0 {
            return Ok(from + i + 1);
        }
    }
    Err(digest)
}

/// Searches all of `stretch` but its first 64 bytes.
fn in_lanes(tables: &RabinTables, digest: u64, stretch: &[u8]) -> Result<usize, u64> {
    let outgoing: [&[u8; LANE_BYTES]; LANES] = parts(stretch, 0);
    let incoming: [&[u8; LANE_BYTES]; LANES] = parts(stretch, WINDOW);
    let mut digests = [0; LANES];
    digests[0] = digest;
    for i in 0..WINDOW {
        for lane in 1..LANES {
            digests[lane] = tables.slide(digests[lane], outgoing[lane][i], 0);
        }
    }
    let mut cuts = [None; LANES];
    for i in 0..LANE_BYTES {
        for lane in 0..LANES {
            digests[lane] = tables.slide(digests[lane], incoming[lane][i], outgoing[lane][i]);
        }
        if digests.iter().any(|digest| digest & MASK == 0) {
            for lane in 0..LANES {
                if digests[lane] & MASK == 0 && cuts[lane].is_none() {
                    cuts[lane] = Some(lane * LANE_BYTES + i + 1);
                }
            }
            if cuts[0].is_some() {
                break;
            }
        }
    }
    cuts.into_iter().flatten().next().ok_or(digests[LANES - 1])
}

/// The part of each lane in `stretch`, beginning at `offset`.
fn parts(stretch: &[u8], offset: usize) -> [&[u8; LANE_BYTES]; LANES] {
    let (lanes, _) = stretch[offset..].as_chunks();
    std::array::from_fn(|lane| &lanes[lane])
}
