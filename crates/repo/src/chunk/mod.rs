//! Where one blob ends and the next begins.
//!
//! A [`Cutter`] never holds content: it is shown the bytes of a stream in pieces of any size and tells where chunks
//! end, so that the caller may keep them in its own buffers. The cuts depend on the bytes alone, not on the pieces.
//! Chunks are never empty and at most [`Cutter::max_bytes`] long; what is pending at the end of a stream is its last
//! chunk.
//!
//! The repository format leaves boundaries free. Files are cut as restic cuts them, to share blobs with its snapshots;
//! rows and pages are cut finer (see [`Chunking`]).

mod fixed;
mod polynomial;
mod rabin;
mod rows;
mod scan;
mod zero;

pub use fixed::Fixed;
pub use polynomial::Polynomial;
pub use rabin::{Rabin, RabinTables};
pub use rows::{GearTable, Rows};
pub use zero::{ZERO_CHUNK_BYTES, is_zero, zero_blob_id};

use lastgood_model::source::Chunking;
use lastgood_model::{Error, Result};
use std::sync::Arc;

/// No chunk of any cutter is longer.
pub const MAX_CHUNK_BYTES: usize = rabin::MAX_BYTES;

/// Shorter content under [`Chunking::Files`] is one chunk, and so is content of this length.
pub const FILE_CHUNK_MIN_BYTES: usize = rabin::MIN_BYTES;

/// What cutters of one repository have in common. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ChunkParams {
    rabin: Arc<RabinTables>,
    rows: Arc<GearTable>,
}

impl ChunkParams {
    /// `polynomial` from the repository's config; `rows_seed` any 32 bytes that are the same in every run on it and
    /// secret like its key.
    pub fn new(polynomial: Polynomial, rows_seed: &[u8; 32]) -> Result<Self> {
        Ok(Self { rabin: RabinTables::new(polynomial)?, rows: GearTable::new(rows_seed) })
    }
}

/// Finds the ends of chunks in one stream.
#[derive(Clone, Debug)]
pub enum Cutter {
    /// For [`Chunking::Files`].
    Files(Rabin),
    /// For [`Chunking::Rows`].
    Rows(Rows),
    /// For [`Chunking::Fixed`].
    Fixed(Fixed),
}

impl Cutter {
    /// A cutter at the start of a stream. Fails for extents of no bytes or more than [`MAX_CHUNK_BYTES`].
    pub fn new(chunking: Chunking, params: &ChunkParams) -> Result<Self> {
        Ok(match chunking {
            Chunking::Files => Self::Files(Rabin::new(params.rabin.clone())),
            Chunking::Rows => Self::Rows(Rows::new(params.rows.clone())),
            Chunking::Fixed(size) => match usize::try_from(size) {
                Ok(size @ 1..=MAX_CHUNK_BYTES) => Self::Fixed(Fixed::new(size)),
                _ => return Err(Error::invalid(format!("fixed extents of {size} bytes, not 1 to {MAX_CHUNK_BYTES}"))),
            },
        })
    }

    /// Looks at the bytes that follow those already seen of the current chunk. `Some(n)`: the chunk ends after `n` of
    /// them (at least one), and the next call begins a new chunk with the byte after. `None`: all belong to the chunk.
    pub fn next_cut(&mut self, data: &[u8]) -> Option<usize> {
        match self {
            Self::Files(cutter) => cutter.next_cut(data),
            Self::Rows(cutter) => cutter.next_cut(data),
            Self::Fixed(cutter) => cutter.next_cut(data),
        }
    }

    /// As [`Self::next_cut`] for `length` zero bytes that need not exist. Takes time for at most one chunk, and hardly
    /// any for [`Chunking::Files`] and [`Chunking::Fixed`].
    pub fn next_cut_zeros(&mut self, length: u64) -> Option<u64> {
        if let Self::Files(cutter) = self
            && cutter.pending() == 0
            && length >= ZERO_CHUNK_BYTES as u64
        {
            return Some(ZERO_CHUNK_BYTES as u64);
        }
        let mut seen = 0;
        while seen < length {
            let piece = (length - seen).min(zero::ZEROS.len() as u64);
            if let Some(cut) = self.next_cut(&zero::ZEROS[..piece as usize]) {
                return Some(seen + cut as u64);
            }
            seen += piece;
        }
        None
    }

    /// Bytes of the current chunk seen so far.
    pub fn pending(&self) -> usize {
        match self {
            Self::Files(cutter) => cutter.pending(),
            Self::Rows(cutter) => cutter.pending(),
            Self::Fixed(cutter) => cutter.pending(),
        }
    }

    /// Forgets the current chunk: the next byte begins a new one. Also makes the cutter fit for another stream.
    pub fn reset(&mut self) {
        match self {
            Self::Files(cutter) => cutter.reset(),
            Self::Rows(cutter) => cutter.reset(),
            Self::Fixed(cutter) => cutter.reset(),
        }
    }

    /// No chunk is longer.
    pub fn max_bytes(&self) -> usize {
        match self {
            Self::Files(_) => rabin::MAX_BYTES,
            Self::Rows(_) => rows::MAX_BYTES,
            Self::Fixed(cutter) => cutter.size(),
        }
    }
}

#[cfg(test)]
mod tests;
