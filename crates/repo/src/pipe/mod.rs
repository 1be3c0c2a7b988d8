//! The pipeline: many streams and one or more trees into one pool of workers, and from there into packs.
//!
//! A small file goes through a single worker from `open` to the sealed blob, so that its bytes stay in that core's
//! cache. Long content (large files, streams) is cut where it is read and its chunks spread over all workers. What
//! waits between the two is bounded by one budget in bytes; a worker that finds the budget used up does the work
//! itself, so nothing can wait in a circle. Finished chunks come before new files, and files before further
//! directories, which keeps the walk depth first and its memory bounded.

mod budget;
mod compress;
mod content;
mod packer;
mod pool;
mod stream;
mod tree;

pub use compress::Compression;
pub(crate) use packer::{INDEX_BLOBS, Packer, put_pack};
pub(crate) use stream::Stream;

use crate::chunk::ChunkParams;
use crate::crypto::Sealer;
use crate::index::{BlobKind, BlobRef, Claim, Index};
use crate::read::BlobReader;
use crate::sha256::sha256;
use budget::Budget;
use compress::Scratch;
use content::Buffers;
use lastgood_model::{Error, ErrorKind, Id, Monitor, Result, Time};
use pool::Pool;
use std::sync::{Arc, Mutex};

/// Content that may wait between a source and the workers, in bytes.
const CONTENT_BUDGET_BYTES: usize = 24 << 20;
/// One in so many data blobs is opened again right after it was sealed: a check on this machine's memory and ours.
const SELF_CHECK_EVERY: u64 = 64;

/// How a session treats what it is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineOptions {
    pub(crate) compression: Compression,
    /// Read every file, whatever the parent snapshot says.
    pub(crate) force: bool,
    /// When the parent snapshot was begun: what changed at or after that is read again, since its change may share a
    /// time stamp with the state that was stored.
    pub(crate) parent_started: Option<Time>,
}

/// What the workers share.
pub(crate) struct Engine {
    pub(crate) index: Arc<Index>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) reader: Arc<BlobReader>,
    pub(crate) params: ChunkParams,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) options: EngineOptions,
    packer: Packer,
    budget: Budget,
    buffers: Buffers,
    pool: Pool,
    failure: Mutex<Option<Error>>,
}

impl Engine {
    pub(crate) fn start(
        packer: Packer,
        reader: Arc<BlobReader>,
        params: ChunkParams,
        monitor: Arc<Monitor>,
        options: EngineOptions,
    ) -> Result<Arc<Self>> {
        let engine = Arc::new(Self {
            index: reader.index.clone(),
            sealer: reader.sealer.clone(),
            reader,
            params,
            monitor,
            options,
            packer,
            budget: Budget::new(CONTENT_BUDGET_BYTES),
            buffers: Buffers::default(),
            pool: Pool::default(),
            failure: Mutex::new(None),
        });
        pool::start(&engine)?;
        Ok(engine)
    }

    /// Lets the workers end, and returns the packer for its last packs. All streams and trees must be done.
    pub(crate) fn stop(self: Arc<Self>) -> Result<Packer> {
        self.pool.stop();
        let engine = Arc::into_inner(self)
            .ok_or_else(|| Error::new(ErrorKind::Bug, "end session while a stream or tree is still being written"))?;
        match engine.failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
            None => Ok(engine.packer),
            Some(error) => {
                engine.packer.salvage();
                Err(error)
            }
        }
    }

    /// Records the first failure; from then on workers pass over everything.
    pub(crate) fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
    }

    /// The failure of the session, if there is one, as an error for one more caller.
    pub(crate) fn check(&self) -> Result<()> {
        self.monitor.check_cancelled()?;
        match &*self.failure.lock().unwrap_or_else(|e| e.into_inner()) {
            None => Ok(()),
            Some(error) => {
                let told = Error::new(error.kind(), error.chain());
                Err(match error.hint() {
                    Some(hint) => told.with_hint(hint),
                    None => told,
                })
            }
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.monitor.is_cancelled() || self.failure.lock().unwrap_or_else(|e| e.into_inner()).is_some()
    }

    /// Stores one blob unless it is known: hash, look up, compress, seal, pack.
    pub(crate) fn store(&self, kind: BlobKind, plain: &[u8], scratch: &mut Scratch) -> Result<Id> {
        let id = Id(sha256(plain));
        self.store_hashed(kind, id, plain, scratch)?;
        Ok(id)
    }

    pub(crate) fn store_hashed(&self, kind: BlobKind, id: Id, plain: &[u8], scratch: &mut Scratch) -> Result<()> {
        if self.index.claim(BlobRef { kind, id }) == Claim::Known {
            return Ok(());
        }
        let (sealed, raw_length) = scratch.seal(plain, self.options.compression, kind, &self.sealer)?;
        let counters = &self.monitor.counters;
        use std::sync::atomic::Ordering::Relaxed;
        let nth = match kind {
            BlobKind::Data => counters.blobs_data_new.fetch_add(1, Relaxed),
            BlobKind::Tree => counters.blobs_tree_new.fetch_add(1, Relaxed),
        };
        counters.bytes_new.fetch_add(plain.len() as u64, Relaxed);
        counters.bytes_stored.fetch_add(sealed.len() as u64, Relaxed);
        if kind == BlobKind::Tree || nth.is_multiple_of(SELF_CHECK_EVERY) {
            self.reader.self_check(sealed, raw_length, plain)?;
        }
        self.packer.append(kind, id, sealed, raw_length)
    }

    /// Stores a blob from a thread that is not a worker.
    pub(crate) fn store_here(&self, kind: BlobKind, plain: &[u8]) -> Result<Id> {
        self.check()?;
        self.store(kind, plain, &mut Scratch::new())
    }
}
