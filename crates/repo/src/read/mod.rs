//! Reading: single blobs and trees, and many blobs in the order in which they lie.

mod ahead;
mod fetch;
mod header;
mod unlisted;

pub use fetch::{Fetch, FetchRequest};
pub(crate) use header::{header_of, read_header};
pub(crate) use unlisted::enter_unlisted;

use crate::crypto::Sealer;
use crate::format::decode_tree;
use crate::index::{BlobKind, BlobRef, Index, Location};
use crate::sha256::sha256;
use crate::work::calls_at_once;
use ahead::Ahead;
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{BlobId, Context, Error, ErrorKind, Node, Result, TreeId};
use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use zstd::zstd_safe::{self, DCtx, DParameter};

/// No plaintext may be longer, whatever an index claims.
pub(crate) const BLOB_BYTES_MAX: usize = 1 << 30;
/// Largest window a frame may ask for: 2^27 bytes, what zstd's own command allows by default.
const WINDOW_LOG_MAX: u32 = 27;

/// Reads blobs of a repository; shared by all threads.
pub struct BlobReader {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sealer: Arc<Sealer>,
    /// Where the blobs are.
    pub index: Arc<Index>,
    /// Whether packs that no index file lists were asked for what they hold; absent when they must not be.
    beyond: Option<Mutex<bool>>,
    /// Trees that were read along with others.
    ahead: Ahead,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobReader").field("store", &self.store).finish_non_exhaustive()
    }
}

thread_local! {
    static DECODER: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

impl BlobReader {
    /// A reader over an index that was loaded from the same store.
    pub fn new(store: Arc<dyn Store>, sealer: Arc<Sealer>, index: Arc<Index>) -> Self {
        Self { store, sealer, index, beyond: None, ahead: Ahead::default() }
    }

    /// The same, but a blob that the index does not know is looked for in packs that no index file lists, too. Not for
    /// writers: what they rely on must be listed.
    #[must_use]
    pub(crate) fn beyond_the_index(self) -> Self {
        Self { beyond: Some(Mutex::new(false)), ..self }
    }

    /// Where a blob is.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it is nowhere.
    pub fn locate(&self, blob: impl Into<BlobRef>) -> Result<Location> {
        let blob = blob.into();
        if let Some(location) = self.index.find(blob) {
            return Ok(location);
        }
        if let Some(beyond) = &self.beyond {
            let mut asked = beyond.lock().unwrap_or_else(|e| e.into_inner());
            if !*asked {
                let packs = enter_unlisted(&*self.store, &self.sealer, &self.index)?;
                if packs > 0 {
                    tracing::warn!(
                        "an index file is missing: {packs} packs that none lists are found by their own lists; the next `lastgood backup` lists them anew"
                    );
                }
                *asked = true;
            }
        }
        self.index.find(blob).ok_or_else(|| missing(&blob))
    }

    /// The plaintext of a blob, verified against its id. Of one that is stored more than once, any sound place serves.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the index does not know it, or what is stored is not it.
    pub fn blob(&self, blob: impl Into<BlobRef>) -> Result<Vec<u8>> {
        let blob = blob.into();
        let location = self.locate(blob)?;
        self.blob_at(&blob, &location).or_else(|error| self.read_spare(&blob, error))
    }

    /// Looks for a blob at its other places after the first has failed with `error`, which is returned when none has it.
    pub(crate) fn read_spare(&self, blob: &BlobRef, error: Error) -> Result<Vec<u8>> {
        if error.kind() != ErrorKind::Corrupt {
            return Err(error);
        }
        let spares = self.index.spares(*blob);
        let found = spares.iter().find_map(|location| self.blob_at(blob, location).ok());
        if found.is_some() {
            tracing::debug!(error = %error.chain(), "{} {} was read from another pack", noun(blob.kind), blob.id.short());
        }
        found.ok_or(error)
    }

    pub(crate) fn blob_at(&self, blob: &BlobRef, location: &Location) -> Result<Vec<u8>> {
        let key = StoreKey::new(ObjectKind::Pack, self.index.pack(location.pack));
        let act = || format!("read {} {} from pack {}", noun(blob.kind), blob.id.short(), key.id);
        let mut envelope = Vec::new();
        self.store
            .get_range(&key, u64::from(location.offset), location.length as usize, &mut envelope)
            .map_err(pack_is_gone)
            .with_context(act)?;
        let mut plain = Vec::new();
        self.open(blob, location, &mut envelope, &mut plain).with_context(act)?;
        Ok(plain)
    }

    /// The nodes of a tree.
    pub fn tree(&self, id: TreeId) -> Result<Vec<Node>> {
        let bytes = match self.tree_ahead(id)? {
            Some(bytes) => bytes,
            None => self.blob(id)?,
        };
        decode_tree(&bytes).with_context(|| format!("read tree {}", id.short()))
    }

    /// How many threads suit [`Fetch::run`]: one more than there are cores, so that one may wait for the disk; of a far
    /// store as many as it likes calls at once, since most of them wait.
    pub fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        calls_at_once(&*self.store).max(cores + 1)
    }

    /// The plaintext of a file's blob.
    pub fn data(&self, id: BlobId) -> Result<Vec<u8>> {
        self.blob(id)
    }

    /// Opens one envelope into `plain` and verifies it: tag, then decompression bounded by the promised length, then id.
    pub(crate) fn open(
        &self,
        blob: &BlobRef,
        location: &Location,
        envelope: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<()> {
        let content = self.sealer.open_in_place(envelope)?;
        plain.clear();
        if location.raw_length == 0 {
            plain.extend_from_slice(content);
        } else {
            decompress(content, location.raw_length as usize, plain)?;
        }
        if sha256(plain) != blob.id.0 {
            return Err(Error::corrupt(format!(
                "the content of {} {} is not what its name says",
                noun(blob.kind),
                blob.id.short()
            )));
        }
        Ok(())
    }

    /// Opens what was just sealed and compares: memory that flips a bit must not be believed.
    pub(crate) fn self_check(&self, sealed: &[u8], raw_length: u32, plain: &[u8]) -> Result<()> {
        let mut copy = sealed.to_vec();
        let content = self.sealer.open_in_place(&mut copy)?;
        let mut decoded = Vec::new();
        let content = if raw_length == 0 {
            &*content
        } else {
            decompress(content, raw_length as usize, &mut decoded)?;
            &decoded
        };
        if content != plain {
            return Err(Error::new(ErrorKind::Bug, "a sealed blob does not open to what was sealed").with_hint(
                "nothing of this run was kept; this machine's memory may be faulty, test it before the next run",
            ));
        }
        Ok(())
    }
}

pub(crate) fn noun(kind: BlobKind) -> &'static str {
    match kind {
        BlobKind::Data => "data blob",
        BlobKind::Tree => "tree blob",
    }
}

fn missing(blob: &BlobRef) -> Error {
    Error::corrupt(format!("{} {} is in no index: it is missing from the repository", noun(blob.kind), blob.id))
        .with_hint("`lastgood check` tells which recovery points need it")
}

/// A pack that the index names and the store does not have is damage to whoever reads, not a wish for something that
/// never was.
pub(crate) fn pack_is_gone(error: Error) -> Error {
    if error.kind() != ErrorKind::Absent {
        return error;
    }
    Error::corrupt("the pack is missing from the repository").with_source(error)
}

/// Decompresses one zstd frame into `plain`, whose length must come out as `length`.
pub(crate) fn decompress(frame: &[u8], length: usize, plain: &mut Vec<u8>) -> Result<()> {
    if length > BLOB_BYTES_MAX {
        return Err(Error::corrupt(format!("blob claims {length} bytes")));
    }
    plain.clear();
    plain.reserve_exact(length);
    decode(frame, length, plain)
}

/// Decompresses one zstd frame into `plain`, which it must fill.
pub(crate) fn decompress_into(frame: &[u8], plain: &mut [u8]) -> Result<()> {
    decode(frame, plain.len(), plain)
}

fn decode(frame: &[u8], length: usize, plain: &mut (impl zstd_safe::WriteBuf + ?Sized)) -> Result<()> {
    DECODER.with_borrow_mut(|slot| {
        let decoder = match slot {
            Some(decoder) => decoder,
            None => {
                let mut decoder = DCtx::create();
                decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(|code| {
                    Error::new(ErrorKind::Bug, format!("set window limit: {}", zstd_safe::get_error_name(code)))
                })?;
                slot.insert(decoder)
            }
        };
        let written = decoder
            .decompress(plain, frame)
            .map_err(|code| Error::corrupt(format!("decompress: {}", zstd_safe::get_error_name(code))))?;
        if written != length {
            return Err(Error::corrupt(format!("blob of {written} bytes where {length} were promised")));
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_must_hold_exactly_what_was_promised() {
        let plain = vec![5; 100_000];
        let frame = zstd::bulk::compress(&plain, 3).unwrap();
        let mut out = vec![1, 2, 3];
        decompress(&frame, plain.len(), &mut out).unwrap();
        assert!(out == plain);
        let mut exact = vec![0; plain.len()];
        decompress_into(&frame, &mut exact).unwrap();
        assert!(exact == plain);
        for length in [0, 1, 99_999, 100_001, BLOB_BYTES_MAX + 1] {
            assert_eq!(decompress(&frame, length, &mut out).unwrap_err().kind(), ErrorKind::Corrupt, "{length}");
        }
        for cut in [0, 1, 4, frame.len() - 1] {
            assert_eq!(
                decompress(&frame[..cut], plain.len(), &mut out).unwrap_err().kind(),
                ErrorKind::Corrupt,
                "{cut}"
            );
        }
        // The decoder is kept between calls, and what went wrong before must not matter to the next.
        decompress(&frame, plain.len(), &mut out).unwrap();
        assert!(out == plain);
    }
}
