//! The whole index of a repository, read from its index files on all processors: from the local cache where it can be.
//!
//! The local cache of twenty million blobs is read in less than two seconds and held in 28 bytes a blob
//! (`cargo xtask bench scale`).

use crate::format::blob::IndexBlob;
use crate::format::decode_index;
use crate::format::pack::pack_size;
use crate::index::{BlobRef, Index, IndexCache, Lane, Loader, Location};
use crate::read::enter_unlisted;
use crate::repository::{Repository, is_damage};
use lastgood_model::store::ObjectKind;
use lastgood_model::{Context, ErrorKind, Id, IndexId, PackId, Result};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// What an index file takes for a blob, about, compressed: so much room is made before it is read.
const BYTES_PER_BLOB: u64 = 47;

/// Which packs an index is to be read of; all, unless something is said.
#[derive(Clone, Copy, Default)]
pub(crate) struct Believed<'a> {
    /// Only packs that are there, by name and size.
    pub(crate) present: Option<&'a HashMap<Id, u64>>,
    /// None of these.
    pub(crate) doomed: Option<&'a HashSet<PackId>>,
    /// Whether what is missing is worth no word: whoever asks only looks for what can go.
    pub(crate) quiet: bool,
}

impl Repository {
    /// Reads the whole index. Snapshots that are to be read with it must be listed before, so that all they need is
    /// there. What a damaged index file listed is found again from the packs' own headers: the data is what counts.
    pub fn load_index(&self) -> Result<Arc<Index>> {
        self.load_index_of(&Believed::default())
    }

    /// The index of what is really there: packs that are missing from the store, or have another length than their blobs
    /// make up, are passed over. A writer that believed in them would publish points that cannot be restored; this way
    /// it stores their content again. The same goes for packs that are about to be deleted. Beside it come the packs that
    /// are there, with their sizes.
    pub(crate) fn load_index_of_present_packs(&self) -> Result<(Arc<Index>, HashMap<Id, u64>)> {
        let doomed = crate::gc::doomed(self)?;
        let present = self.store.list(ObjectKind::Pack)?.into_iter().collect();
        let believed = Believed { present: Some(&present), doomed: Some(&doomed), quiet: false };
        Ok((self.load_index_of(&believed)?, present))
    }

    pub(crate) fn load_index_of(&self, believed: &Believed<'_>) -> Result<Arc<Index>> {
        let cache = self.cache();
        let mut listed = self.store.list(ObjectKind::Index)?;
        listed.sort_unstable();
        let ids: Vec<IndexId> = listed.iter().map(|(id, _)| IndexId(*id)).collect();
        let expected = listed.iter().map(|(id, bytes)| match cache.blobs(&IndexId(*id)) {
            0 => (bytes / BYTES_PER_BLOB) as usize,
            blobs => blobs,
        });
        let loading = Loading { repository: self, cache: &cache, believed, loader: Loader::new(expected.sum())? };
        // Also those that no index file names any more: nobody is to take them for what a dead run left behind.
        believed.doomed.into_iter().flatten().for_each(|pack| loading.loader.index().note_unusable(*pack));
        let damaged = loading.files(&ids)?;
        let index = loading.loader.finish();
        if damaged > 0 {
            enter_unlisted(&*self.store, &self.sealer, &index)?;
            index.compact();
        }
        cache.retain(&ids);
        Ok(Arc::new(index))
    }

    /// What one index file lists.
    pub(crate) fn index_listing(&self, id: IndexId) -> Result<Vec<(PackId, Vec<IndexBlob>)>> {
        let mut packs = Vec::new();
        let cached = self.cache().load(&id, &mut Vec::new(), |pack, blobs| {
            packs.push((pack, blobs.collect()));
            Ok(())
        });
        if let Some(outcome) = cached {
            return outcome.map(|()| packs);
        }
        let act = || format!("read index {}", id.short());
        let json = self.get_unpacked(ObjectKind::Index, id.0).with_context(act)?;
        decode_index(&json, |pack, blobs| {
            packs.push((pack, blobs.to_vec()));
            Ok(())
        })
        .with_context(act)?;
        Ok(packs)
    }
}

/// Index files on their way into memory.
struct Loading<'a> {
    repository: &'a Repository,
    cache: &'a IndexCache,
    believed: &'a Believed<'a>,
    loader: Loader,
}

impl Loading<'_> {
    /// Reads all of them, and gives how many are damaged.
    fn files(&self, ids: &[IndexId]) -> Result<usize> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.max(self.repository.store.capabilities().connections).min(ids.len());
        let (next, damaged, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(None));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let (mut lane, mut buffer) = (self.loader.lane(), Vec::new());
                    while let Some(id) = ids.get(next.fetch_add(1, Relaxed)) {
                        match self.file(*id, &mut lane, &mut buffer) {
                            Ok(()) => {}
                            Err(error) if is_damage(&error) => {
                                tracing::warn!(
                                    "index {} is damaged ({}); reading the packs' own headers instead. `lastgood check` tells more",
                                    id.short(),
                                    error.chain()
                                );
                                damaged.fetch_add(1, Relaxed);
                            }
                            Err(error) => {
                                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                                next.store(ids.len(), Relaxed);
                            }
                        }
                    }
                    lane.finish();
                });
            }
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(damaged.into_inner()), Err)
    }

    fn file(&self, id: IndexId, lane: &mut Lane<'_>, buffer: &mut Vec<u8>) -> Result<()> {
        let cached = self.cache.load(&id, buffer, |pack, blobs| match self.is_present(&pack, || blobs.clone()) {
            true => lane.enter(pack, blobs),
            false => Ok(()),
        });
        if let Some(outcome) = cached {
            return outcome;
        }
        let json = match self.repository.get_unpacked(ObjectKind::Index, id.0) {
            Ok(json) => json,
            // Replaced by somebody else since the listing; what replaced it is listed too, or holds more.
            Err(error) if error.kind() == ErrorKind::Absent => return Ok(()),
            Err(error) => return Err(error.context(format!("read index {}", id.short()))),
        };
        let mut packs = Vec::new();
        decode_index(&json, |pack, blobs| {
            packs.push((pack, blobs.to_vec()));
            match self.is_present(&pack, || blobs.iter().copied()) {
                true => lane.enter(pack, blobs.iter().copied()),
                false => Ok(()),
            }
        })
        .with_context(|| format!("read index {}", id.short()))?;
        self.cache.keep(&id, &packs);
        Ok(())
    }

    fn is_present<I: Iterator<Item = IndexBlob>>(&self, pack: &PackId, blobs: impl FnOnce() -> I) -> bool {
        if self.believed.doomed.is_some_and(|doomed| doomed.contains(pack)) {
            return false;
        }
        let Some(present) = self.believed.present else { return true };
        // Hints of an index that lists only a part of a pack make up less than the whole.
        if present.get(&pack.0).is_some_and(|size| *size >= pack_size(blobs())) {
            return true;
        }
        if !self.believed.quiet {
            tracing::warn!("pack {pack} is missing or cut short; what the sources still have of it is stored again");
        }
        self.loader.index().note_unusable(*pack);
        false
    }
}

/// Enters a pack's blobs into an index.
pub(crate) fn enter_pack(index: &Index, pack: PackId, blobs: &[IndexBlob]) -> Result<()> {
    let ordinal = index.add_pack(pack)?;
    for blob in blobs {
        let location = Location {
            pack: ordinal,
            offset: blob.offset,
            length: blob.length,
            raw_length: blob.uncompressed.map_or(0, NonZeroU32::get),
        };
        index.add(BlobRef { kind: blob.kind, id: blob.id }, location);
    }
    Ok(())
}
