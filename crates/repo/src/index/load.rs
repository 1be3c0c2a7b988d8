//! An index of a whole repository at once, on all processors.
//!
//! Entries are dealt out to the shards as they come, each thread gathering a few for every shard before it takes the
//! shard's lock, and sorted when all are there. That costs a third of entering them one by one, and no more memory than
//! the finished index has.

use super::shard::{Entry, Shard};
use super::{BlobKind, BlobRef, Index, SHARDS, lock};
use crate::format::blob::IndexBlob;
use lastgood_model::{PackId, Result};
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Entries that a thread gathers for a shard: 56 KiB for all shards, which the second cache of a core holds.
const GATHERED: usize = 8;

/// Shared by all threads that load.
pub(crate) struct Loader {
    index: Index,
    shards: Vec<Mutex<Vec<Entry>>>,
}

impl Loader {
    /// For about so many blobs; 0 when that is not known.
    pub(crate) fn new(blobs: usize) -> Result<Self> {
        let each = blobs / SHARDS;
        // Keys are uniform: a shard gets more than four deviations above the mean once in thirty thousand times.
        let room = each + 4 * each.isqrt();
        let shards = (0..SHARDS).map(|_| Mutex::new(Vec::with_capacity(room))).collect();
        Ok(Self { index: Index::new()?, shards })
    }

    /// What is loaded into. Nothing can be found in it yet.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// A thread's way in. What it gathered is there once it has ended by [`Lane::finish`].
    pub(crate) fn lane(&self) -> Lane<'_> {
        Lane { loader: self, gathered: (0..SHARDS).map(|_| Vec::with_capacity(GATHERED)).collect() }
    }

    /// The index with all that was entered. Of several places of a blob the one in the pack of the lowest id is the first.
    pub(crate) fn finish(self) -> Index {
        let Self { index, shards } = self;
        let packs = index.packs();
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(shard) = shards.get(number) else { break };
                        let mut entries = std::mem::take(&mut *lock(shard));
                        entries.sort_unstable_by_key(|entry| entry.key);
                        let spares = take_spares(&mut entries, &packs);
                        *lock(&index.shards[number]) = Shard::of_sorted(entries);
                        for entry in spares {
                            index.add_spare(entry.key, entry.location());
                        }
                    }
                });
            }
        });
        index
    }
}

/// Leaves one entry for each key, and gives the others.
fn take_spares(entries: &mut Vec<Entry>, packs: &[PackId]) -> Vec<Entry> {
    let pack = |entry: &Entry| packs.get(entry.pack as usize);
    let mut spares = Vec::new();
    entries.dedup_by(|next, kept| {
        if next.key != kept.key {
            return false;
        }
        if pack(next) < pack(kept) {
            std::mem::swap(next, kept);
        }
        spares.push(*next);
        true
    });
    spares
}

/// One thread's way into a [`Loader`].
pub(crate) struct Lane<'a> {
    loader: &'a Loader,
    gathered: Vec<Vec<Entry>>,
}

impl Lane<'_> {
    /// Enters a pack's blobs.
    ///
    /// # Errors
    /// Those of [`Index::add_pack`].
    pub(crate) fn enter(&mut self, pack: PackId, blobs: impl IntoIterator<Item = IndexBlob>) -> Result<()> {
        let ordinal = self.loader.index.add_pack(pack)?;
        let mut tree_end = 0;
        for blob in blobs {
            if blob.kind == BlobKind::Tree {
                tree_end = tree_end.max(blob.offset.saturating_add(blob.length));
            }
            let key = self.loader.index.key(&BlobRef { kind: blob.kind, id: blob.id });
            let raw_length = blob.uncompressed.map_or(0, NonZeroU32::get);
            let shard = (key[0] >> 24) as usize;
            let gathered = &mut self.gathered[shard];
            gathered.push(Entry { key, pack: ordinal, offset: blob.offset, length: blob.length, raw_length });
            if gathered.len() == GATHERED {
                lock(&self.loader.shards[shard]).append(gathered);
            }
        }
        if tree_end > 0 {
            self.loader.index.note_tree_end(ordinal, tree_end);
        }
        Ok(())
    }

    /// Hands over what is left.
    pub(crate) fn finish(mut self) {
        for (gathered, shard) in self.gathered.iter_mut().zip(&self.loader.shards) {
            lock(shard).append(gathered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::blob::BlobKind;
    use crate::index::Location;
    use lastgood_model::Id;

    fn blob(n: u32, offset: u32) -> IndexBlob {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_le_bytes());
        IndexBlob { id: Id(id), kind: BlobKind::Data, offset, length: 40, uncompressed: NonZeroU32::new(n % 3) }
    }

    fn place(blob: &IndexBlob) -> BlobRef {
        BlobRef { kind: blob.kind, id: blob.id }
    }

    #[test]
    fn what_several_threads_enter_is_found_as_if_entered_one_by_one() {
        let loader = Loader::new(10).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let loader = &loader;
                scope.spawn(move || {
                    let mut lane = loader.lane();
                    for pack in 0..50u32 {
                        let first = (thread * 50 + pack) * 100;
                        let id = PackId(Id([(thread * 50 + pack) as u8; 32]));
                        lane.enter(id, (0..100).map(|n| blob(first + n, n))).unwrap();
                    }
                    lane.finish();
                });
            }
        });
        let index = loader.finish();
        assert_eq!(index.len(), 20_000);
        for n in 0..20_000 {
            let found = index.find(place(&blob(n, 0))).unwrap();
            assert_eq!((found.offset, found.raw_length), (n % 100, n % 3));
            assert_eq!(index.pack(found.pack), PackId(Id([(n / 100) as u8; 32])));
        }
        assert!(index.find(place(&blob(20_000, 0))).is_none());
        index.add(place(&blob(20_000, 0)), Location { pack: 0, offset: 7, length: 40, raw_length: 0 });
        assert_eq!(index.find(place(&blob(20_000, 0))).unwrap().offset, 7);
    }

    #[test]
    fn further_places_are_spares_and_a_place_told_twice_is_not() {
        let loader = Loader::new(0).unwrap();
        let mut lane = loader.lane();
        for (pack, offset) in [(3u8, 1), (1, 2), (2, 3), (1, 2)] {
            lane.enter(PackId(Id([pack; 32])), [blob(5, offset)]).unwrap();
        }
        lane.finish();
        let index = loader.finish();
        assert_eq!(index.len(), 1);
        assert_eq!(index.find(place(&blob(5, 0))).unwrap().offset, 2);
        let mut spares: Vec<u32> = index.spares(place(&blob(5, 0))).iter().map(|at| at.offset).collect();
        spares.sort_unstable();
        assert_eq!(spares, [1, 3]);
    }
}
