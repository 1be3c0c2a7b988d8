//! The search loop of the Rabin chunker.
//!
//! Sliding the window by one byte takes six or seven cycles, of which the processor only waits: each step needs the one
//! before. Since a cut depends on 64 bytes alone, long stretches are searched in several lanes, each in its own part of
//! the stretch after reading in the 64 bytes before it. The first cut of the foremost lane that has one is the first
//! cut of the stretch; what the lanes behind it did was in vain, which bounds how long a stretch should be.

use super::rabin::{MASK, RabinTables, WINDOW};

/// Lanes searched side by side. Four reach nine tenths of the speed of eight, twelve fall back behind four.
const LANES: usize = 8;
/// Bytes searched by each lane in one stretch. Longer ones waste more behind a cut (one in about a MiB), shorter ones
/// read in the window more often.
const LANE_BYTES: usize = 4096;
/// The same for what is left of a buffer.
const SHORT_LANE_BYTES: usize = 512;

/// Searches `data[from..]` for the first place after which a chunk ends by its content: `Ok(length of data up to
/// there)`, or `Err(fingerprint at the end of data)`. `from` must be at least 64; `digest` is the fingerprint of the 64
/// bytes before it.
pub(super) fn first_cut(tables: &RabinTables, mut digest: u64, data: &[u8], mut from: usize) -> Result<usize, u64> {
    while from < data.len() {
        let stretch = &data[from - WINDOW..];
        let left = data.len() - from;
        let (searched, outcome) = if left >= LANES * LANE_BYTES {
            (LANES * LANE_BYTES, in_lanes::<LANE_BYTES>(tables, digest, stretch))
        } else if left >= LANES * SHORT_LANE_BYTES {
            (LANES * SHORT_LANE_BYTES, in_lanes::<SHORT_LANE_BYTES>(tables, digest, stretch))
        } else {
            (left, in_order(tables, digest, stretch))
        };
        match outcome {
            Ok(length) => return Ok(from + length),
            Err(last) => digest = last,
        }
        from += searched;
    }
    Err(digest)
}

/// Searches all of `stretch` but its first 64 bytes.
fn in_order(tables: &RabinTables, mut digest: u64, stretch: &[u8]) -> Result<usize, u64> {
    for (i, (&incoming, &outgoing)) in stretch[WINDOW..].iter().zip(stretch).enumerate() {
        digest = tables.slide(digest, incoming, outgoing);
        if digest & MASK == 0 {
            return Ok(i + 1);
        }
    }
    Err(digest)
}

/// Searches as many bytes of `stretch`, after its first 64, as the lanes have together.
#[expect(clippy::needless_range_loop, reason = "one index for several arrays reads better, and compiles to the same")]
fn in_lanes<const LANE: usize>(tables: &RabinTables, digest: u64, stretch: &[u8]) -> Result<usize, u64> {
    let outgoing: [&[u8; LANE]; LANES] = parts(stretch, 0);
    let incoming: [&[u8; LANE]; LANES] = parts(stretch, WINDOW);
    let mut digests = [0; LANES];
    digests[0] = digest;
    for i in 0..WINDOW {
        for lane in 1..LANES {
            digests[lane] = tables.slide(digests[lane], outgoing[lane][i], 0);
        }
    }
    let mut cuts = [None; LANES];
    for i in 0..LANE {
        for lane in 0..LANES {
            digests[lane] = tables.slide(digests[lane], incoming[lane][i], outgoing[lane][i]);
        }
        if digests.iter().any(|digest| digest & MASK == 0) {
            for lane in 0..LANES {
                if digests[lane] & MASK == 0 && cuts[lane].is_none() {
                    cuts[lane] = Some(lane * LANE + i + 1);
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
fn parts<const LANE: usize>(stretch: &[u8], offset: usize) -> [&[u8; LANE]; LANES] {
    let (lanes, _) = stretch[offset..].as_chunks();
    std::array::from_fn(|lane| &lanes[lane])
}
