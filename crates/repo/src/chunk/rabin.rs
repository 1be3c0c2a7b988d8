//! restic's chunker: Rabin fingerprints over a window of 64 bytes, bit for bit the same cuts.
//!
//! A chunk ends after its *n*-th byte when *n* ≥ 512 KiB and the low 20 bits of the fingerprint of its last 64 bytes
//! are zero, or when *n* = 8 MiB. restic words the rule differently (it slides a window through which a 1 was pushed
//! first, and starts it 64 bytes before the minimum), but that 1 has left the window when the first cut is allowed, so
//! the decision is a pure function of 64 bytes. Two consequences are used here: bytes below the minimum less the window
//! are never looked at, and the rest of a buffer is searched in several places at once (see [`super::scan`]).
//!
//! The fingerprint of zeros is zero, so a run of zeros is cut into chunks of exactly 512 KiB. `restic restore --sparse`
//! knows that blob and makes holes of it; no rule of our own is needed for that.
//!
//! Facts from restic's chunker library (`chunker.go`); the fingerprint is that of M. O. Rabin, *Fingerprinting by
//! Random Polynomials* (1981).

use super::polynomial::Polynomial;
use super::scan;
use lastgood_model::{Error, ErrorKind, Result};
use std::sync::Arc;

/// No chunk but the last of a stream is shorter.
pub(super) const MIN_BYTES: usize = 512 * 1024;
/// No chunk is longer.
pub(super) const MAX_BYTES: usize = 8 * 1024 * 1024;
/// How many bytes decide about a cut.
pub(super) const WINDOW: usize = 64;
/// A cut is where these bits of the fingerprint are zero: once in a MiB.
pub(super) const MASK: u64 = (1 << 20) - 1;
/// The bits of a fingerprint above this one index the reduction table.
pub(super) const SHIFT: u32 = Polynomial::DEGREE - 8;

/// The tables of one polynomial, 4 KiB, made once and shared by all cutters.
pub struct RabinTables {
    /// What byte `b` contributes to a fingerprint 64 bytes after it came in: `b · x^(8·64) mod P`.
    pub(super) out: [u64; 256],
    /// For the top byte `t` of a fingerprint that is about to move up by a byte: `t · x^53 mod P`, together with
    /// `t · x^53` itself, which cancels what was moved out of range.
    pub(super) reduce: [u64; 256],
}

impl RabinTables {
    /// Tables for `polynomial`, which must be of degree 53 as all that restic makes are.
    pub fn new(polynomial: Polynomial) -> Result<Arc<Self>> {
        if polynomial.degree() != Some(Polynomial::DEGREE) {
            return Err(Error::new(ErrorKind::Unsupported, "the chunker polynomial is not of degree 53"));
        }
        let x_8 = Polynomial(1 << 8);
        let x_512 = (0..WINDOW).fold(Polynomial(1), |power, _| power.mul_mod(x_8, polynomial));
        let x_53 = Polynomial(polynomial.0 ^ 1 << Polynomial::DEGREE);
        let byte = |b: usize| Polynomial(b as u64);
        Ok(Arc::new(Self {
            out: std::array::from_fn(|b| byte(b).mul_mod(x_512, polynomial).0),
            reduce: std::array::from_fn(|b| byte(b).mul_mod(x_53, polynomial).0 | (b as u64) << Polynomial::DEGREE),
        }))
    }

    /// The fingerprint after `incoming` has joined the window and `outgoing` has left it.
    #[inline(always)]
    pub(super) fn slide(&self, digest: u64, incoming: u8, outgoing: u8) -> u64 {
        // A fingerprint has 53 bits, so the index has 8; the mask tells the compiler.
        let top = (digest >> SHIFT) as usize & 255;
        (digest << 8 | u64::from(incoming)) ^ self.out[usize::from(outgoing)] ^ self.reduce[top]
    }
}

impl std::fmt::Debug for RabinTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RabinTables")
    }
}

/// Finds the ends of restic's chunks in one stream.
#[derive(Clone, Debug)]
pub struct Rabin {
    tables: Arc<RabinTables>,
    /// Bytes of the current chunk seen so far, less than [`MAX_BYTES`].
    count: usize,
    /// Fingerprint of the last 64 bytes, or of all since `MIN_BYTES - WINDOW` while those are fewer.
    digest: u64,
    /// The last 64 bytes, valid as far back as the digest reaches.
    tail: [u8; WINDOW],
}

impl Rabin {
    /// A cutter at the start of a stream.
    pub fn new(tables: Arc<RabinTables>) -> Self {
        Self { tables, count: 0, digest: 0, tail: [0; WINDOW] }
    }

    /// Looks at the bytes that follow those already seen of the current chunk. `Some(n)`: the chunk ends after `n` of
    /// them (at least one), and the next call begins a new chunk with the byte after. `None`: all belong to the chunk.
    pub fn next_cut(&mut self, data: &[u8]) -> Option<usize> {
        let cut = self.search(data);
        match cut {
            Some(_) => self.reset(),
            None => self.count += data.len(),
        }
        cut
    }

    /// Bytes of the current chunk seen so far.
    pub fn pending(&self) -> usize {
        self.count
    }

    /// Forgets the current chunk, as after a cut.
    pub fn reset(&mut self) {
        (self.count, self.digest) = (0, 0);
    }

    fn search(&mut self, data: &[u8]) -> Option<usize> {
        let mut at = (MIN_BYTES - WINDOW).saturating_sub(self.count);
        if at >= data.len() {
            return None;
        }
        // Fill the window. Nothing leaves it yet.
        let full = MIN_BYTES.saturating_sub(self.count);
        for &byte in &data[at..full.clamp(at, data.len())] {
            self.digest = self.tables.slide(self.digest, byte, 0);
        }
        if full > data.len() {
            self.remember(data);
            return None;
        }
        if full > 0 && self.digest & MASK == 0 {
            return Some(full);
        }
        at = at.max(full);

        // While the byte that leaves the window came with an earlier call.
        let longest = MAX_BYTES - self.count;
        let end = data.len().min(longest);
        for (i, (&incoming, &outgoing)) in data[..end].iter().zip(&self.tail).enumerate().skip(at) {
            self.digest = self.tables.slide(self.digest, incoming, outgoing);
            if self.digest & MASK == 0 {
                return Some(i + 1);
            }
        }
        at = at.max(end.min(WINDOW));
        match scan::first_cut(&self.tables, self.digest, &data[..end], at) {
            Ok(cut) => return Some(cut),
            Err(digest) => self.digest = digest,
        }
        if end == longest {
            return Some(end);
        }
        self.remember(data);
        None
    }

    fn remember(&mut self, data: &[u8]) {
        if let Some(last) = data.last_chunk() {
            self.tail = *last;
        } else {
            self.tail.copy_within(data.len().., 0);
            self.tail[WINDOW - data.len()..].copy_from_slice(data);
        }
    }
}
