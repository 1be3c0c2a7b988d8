//! Where one blob lies in a pack: what both a pack's own header and the index tell.

use lastgood_model::{Error, Id, Result};
use std::num::NonZeroU32;

/// Bytes that sealing adds to a blob: a 16-byte nonce before it and a 16-byte tag behind it.
pub const SEAL_BYTES: u32 = crate::crypto::ENVELOPE_OVERHEAD as u32;

/// What a blob holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlobKind {
    /// A piece of a file's content.
    Data,
    /// The JSON of one directory.
    Tree,
}

impl BlobKind {
    /// Its word in index files.
    pub fn word(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Tree => "tree",
        }
    }
}

/// One blob in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexBlob {
    /// SHA-256 of its plaintext: a `BlobId` or a `TreeId`, as `kind` tells.
    pub id: Id,
    /// What it holds.
    pub kind: BlobKind,
    /// Where its sealed bytes begin in the pack.
    pub offset: u32,
    /// Sealed bytes, at least [`SEAL_BYTES`]; `offset + length` is at most `u32::MAX`.
    pub length: u32,
    /// Plaintext bytes where the blob is compressed, `None` where it is stored as it is.
    pub uncompressed: Option<NonZeroU32>,
}

impl IndexBlob {
    /// Plaintext bytes, after unsealing and decompression.
    pub fn plain_length(&self) -> u32 {
        self.uncompressed.map_or(self.length.saturating_sub(SEAL_BYTES), NonZeroU32::get)
    }

    /// The first byte behind it in the pack.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }

    /// Refuses a place that no pack can have.
    pub(super) fn check_bounds(&self) -> Result<()> {
        let fact = if self.length < SEAL_BYTES {
            "is shorter than its seal"
        } else if self.end() > u64::from(u32::MAX) {
            "lies beyond 4 GiB"
        } else {
            return Ok(());
        };
        Err(Error::corrupt(format!("blob {} at {} of {} bytes {fact}", self.id.short(), self.offset, self.length)))
    }
}
