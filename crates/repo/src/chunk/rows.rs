//! Content-defined chunks of about 64 KiB for database rows and text, which shift when rows are put in or taken out.
//!
//! A gear hash in the manner of FastCDC (Xia and others, USENIX ATC 2016): each byte shifts the hash left by one and
//! adds a word chosen by the byte, so that the top bits depend on the last 64 bytes. A chunk ends where some top bits
//! are zero: many bits while it is shorter than [`NORMAL_BYTES`], few afterwards ("normalised chunking"), which keeps
//! most lengths near the average. Nothing is cut up to 16 KiB; at 256 KiB a cut is forced.
//!
//! The 256 words come from a seed that belongs to the repository. Without it nobody can tell from blob lengths which
//! known rows a repository holds. Two repositories with different seeds do not deduplicate against each other, which
//! costs nothing, for they never share blobs but by copying. Any reader takes these chunks: the format leaves
//! boundaries free.
//!
//! Changing a constant or the derivation keeps every repository readable, but the next backup of each stream stores
//! all of it again.

use crate::sha256::Sha256;
use std::sync::Arc;

/// Every chunk but the last of a stream is longer.
pub(super) const MIN_BYTES: usize = 16 * 1024;
/// Where the test turns from strict to lenient.
pub(super) const NORMAL_BYTES: usize = 56 * 1024;
/// No chunk is longer.
pub(super) const MAX_BYTES: usize = 256 * 1024;
/// How many bytes decide about a cut: one per bit of the hash.
const WINDOW: usize = 64;
/// Below [`NORMAL_BYTES`] one place in 256 Ki is a cut.
pub(super) const STRICT: u64 = !0 << (64 - 18);
/// From there on one in 16 Ki.
pub(super) const LENIENT: u64 = !0 << (64 - 14);
/// Sets the derivation apart from other uses of the same seed.
const DOMAIN: &[u8] = b"lastgood gear table 1\0";

/// The words of one seed, made once and shared by all cutters.
pub struct GearTable([u64; 256]);

impl GearTable {
    /// Derives the words: each SHA-256 of domain, seed and a counter byte gives four of them, little-endian.
    pub fn new(seed: &[u8; 32]) -> Arc<Self> {
        let mut words = [0; 256];
        for (counter, four) in words.chunks_exact_mut(4).enumerate() {
            let mut hash = Sha256::new();
            hash.update(DOMAIN);
            hash.update(seed);
            hash.update(&[counter as u8]);
            for (word, bytes) in four.iter_mut().zip(hash.finish().as_chunks().0) {
                *word = u64::from_le_bytes(*bytes);
            }
        }
        Arc::new(Self(words))
    }

    #[inline(always)]
    pub(super) fn step(&self, hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(self.0[usize::from(byte)])
    }
}

impl std::fmt::Debug for GearTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GearTable")
    }
}

/// Finds the ends of chunks in one stream of rows.
#[derive(Clone, Debug)]
pub struct Rows {
    table: Arc<GearTable>,
    /// Bytes of the current chunk seen so far, less than [`MAX_BYTES`].
    count: usize,
    /// Hash of the bytes since `MIN_BYTES - WINDOW`; older than 64 bytes they have left it.
    hash: u64,
}

impl Rows {
    /// A cutter at the start of a stream.
    pub fn new(table: Arc<GearTable>) -> Self {
        Self { table, count: 0, hash: 0 }
    }

    /// Looks at the bytes that follow those already seen of the current chunk. `Some(n)`: the chunk ends after `n` of
    /// them (at least one), and the next call begins a new chunk with the byte after. `None`: all belong to the chunk.
    pub fn next_cut(&mut self, data: &[u8]) -> Option<usize> {
        // The position in `data` where the chunk would have so many bytes.
        let place = |bytes: usize| bytes.saturating_sub(self.count).min(data.len());
        let (window, min, normal, max) =
            (place(MIN_BYTES - WINDOW), place(MIN_BYTES), place(NORMAL_BYTES), place(MAX_BYTES));
        let mut hash = self.hash;
        for &byte in &data[window..min] {
            hash = self.table.step(hash, byte);
        }
        let cut = self
            .scan::<STRICT>(&mut hash, &data[min..normal])
            .map(|n| min + n)
            .or_else(|| self.scan::<LENIENT>(&mut hash, &data[normal..max]).map(|n| normal + n))
            .or_else(|| (self.count + data.len() >= MAX_BYTES).then_some(max));
        match cut {
            Some(_) => self.reset(),
            None => (self.count, self.hash) = (self.count + data.len(), hash),
        }
        cut
    }

    /// Bytes of the current chunk seen so far.
    pub fn pending(&self) -> usize {
        self.count
    }

    /// Forgets the current chunk, as after a cut.
    pub fn reset(&mut self) {
        (self.count, self.hash) = (0, 0);
    }

    /// Four bytes at a time: their own sums do not depend on the hash before them, so that it has to be waited for once
    /// in four bytes only.
    fn scan<const MASK: u64>(&self, hash: &mut u64, data: &[u8]) -> Option<usize> {
        let mut before = *hash;
        let (fours, rest) = data.as_chunks();
        for (i, &[a, b, c, d]) in fours.iter().enumerate() {
            let after_a = self.table.step(0, a);
            let after_b = self.table.step(after_a, b);
            let after_c = self.table.step(after_b, c);
            let after_d = self.table.step(after_c, d);
            if (before << 1).wrapping_add(after_a) & MASK == 0 {
                return Some(4 * i + 1);
            }
            if (before << 2).wrapping_add(after_b) & MASK == 0 {
                return Some(4 * i + 2);
            }
            if (before << 3).wrapping_add(after_c) & MASK == 0 {
                return Some(4 * i + 3);
            }
            before = (before << 4).wrapping_add(after_d);
            if before & MASK == 0 {
                return Some(4 * i + 4);
            }
        }
        for (i, &byte) in rest.iter().enumerate() {
            before = self.table.step(before, byte);
            if before & MASK == 0 {
                return Some(4 * fours.len() + i + 1);
            }
        }
        *hash = before;
        None
    }
}
