//! How much of each pack is needed, and which of several places of a blob is the one that counts.

use super::mark::{Bits, lock};
use super::plan::PackUse;
use crate::format::pack::EMPTY_PACK_BYTES;
use crate::index::{BlobRef, Index, Location, Numbers};
use crate::read::BlobReader;
use lastgood_model::{ErrorKind, Id, PackId, Result};
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What a blob takes in its pack beside its sealed bytes: its entry in the header.
fn taken(location: &Location) -> u64 {
    u64::from(location.length) + if location.raw_length == 0 { 37 } else { 41 }
}

/// Every pack once, whatever number of index files list it.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) uses: Vec<PackUse>,
    /// Place in `uses` by the pack's ordinal in the index.
    of: Vec<u32>,
    /// Bytes that all blobs make up, by place in `uses`.
    due: Vec<u64>,
}

impl Table {
    /// The packs of an index. `present` tells sizes, `going` which are named by a list that was begun.
    pub(super) fn new(index: &Index, numbers: &Numbers, present: &HashMap<Id, u64>, going: &HashSet<PackId>) -> Self {
        let mut places: HashMap<PackId, u32> = HashMap::new();
        let mut table = Self { uses: Vec::new(), of: Vec::new(), due: Vec::new() };
        for id in index.packs() {
            let place = *places.entry(id).or_insert(table.uses.len() as u32);
            if place as usize == table.uses.len() {
                let bytes = present.get(&id.0).copied().unwrap_or(0);
                table.uses.push(PackUse { id, bytes, is_going: going.contains(&id), ..PackUse::default() });
                table.due.push(EMPTY_PACK_BYTES);
            }
            table.of.push(place);
        }
        index.each_first(numbers, |_, location| {
            table.due[table.of[location.pack as usize] as usize] += taken(&location)
        });
        index.each_spare(|location| table.due[table.of[location.pack as usize] as usize] += taken(&location));
        for (pack, due) in table.uses.iter_mut().zip(&table.due) {
            // An index that tells of a part only, or lies, is no ground for deleting anything.
            pack.is_odd = pack.bytes != *due;
        }
        table
    }

    /// Place in [`Self::uses`] of the pack of a location.
    pub(super) fn pack_of(&self, location: &Location) -> usize {
        self.of[location.pack as usize] as usize
    }

    /// Packs whose blobs do not make up their size.
    pub(super) fn odd(&self) -> Vec<PackId> {
        self.uses.iter().filter(|pack| pack.is_odd).map(|pack| pack.id).collect()
    }
}

/// Where a blob that is stored more than once is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// Here; this place was read, and what lies there is the blob.
    At(Location),
    /// Wherever it is: no place was found to be sound.
    Everywhere,
}

/// Which places count.
pub(super) struct Places<'a> {
    index: &'a Index,
    numbers: &'a Numbers,
    needed: &'a Bits,
    /// Needed blobs with several places, by number.
    kept: HashMap<u64, Kept>,
}

impl<'a> Places<'a> {
    /// Chooses a place for each of `several`, needed blobs that are stored more than once: one that is sound, by reading
    /// it, and best in a pack of which much is needed.
    pub(super) fn choose(
        reader: &'a BlobReader,
        numbers: &'a Numbers,
        needed: &'a Bits,
        table: &Table,
        several: &[BlobRef],
        threads: usize,
    ) -> Result<Self> {
        let index = &*reader.index;
        let mut wanted = vec![0u64; table.uses.len()];
        index.each_first(numbers, |number, location| {
            if needed.get(number) {
                wanted[table.pack_of(&location)] += taken(&location);
            }
        });
        let (kept, failed, next) = (Mutex::new(HashMap::new()), Mutex::new(None), AtomicUsize::new(0));
        let work = || {
            while let Some(blob) = several.get(next.fetch_add(1, Relaxed)) {
                let Some((number, first)) = index.numbered(numbers, *blob) else { continue };
                let mut places = index.spares(*blob);
                places.insert(0, first);
                // Packs that must go come last, then those of which less is needed.
                places.sort_by_key(|location| {
                    let pack = &table.uses[table.pack_of(location)];
                    let share = u128::from(wanted[table.pack_of(location)]) * (1 << 32) / u128::from(pack.bytes.max(1));
                    (pack.is_going, std::cmp::Reverse(share))
                });
                match sound_place(reader, blob, &places) {
                    Ok(kept_at) => drop(lock(&kept).insert(number, kept_at)),
                    Err(error) => {
                        lock(&failed).get_or_insert(error);
                        next.store(several.len(), Relaxed);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads.clamp(1, several.len().max(1)) {
                scope.spawn(work);
            }
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
            return Err(error);
        }
        Ok(Self { index, numbers, needed, kept: kept.into_inner().unwrap_or_else(|e| e.into_inner()) })
    }

    /// Enters into `table` how much of each pack is needed.
    pub(super) fn weigh(&self, table: &mut Table) {
        let mut live = vec![0u64; table.uses.len()];
        self.index.each_first(self.numbers, |number, location| {
            if self.needed.get(number) && !self.kept.contains_key(&number) {
                live[table.pack_of(&location)] += taken(&location);
            }
        });
        for kept in self.kept.values() {
            if let Kept::At(location) = kept {
                live[table.pack_of(location)] += taken(location);
            }
        }
        for (pack, live) in table.uses.iter_mut().zip(live) {
            // What a pack takes beside its blobs is no waste as long as one of them is needed.
            pack.live_bytes = if live == 0 { 0 } else { live + EMPTY_PACK_BYTES };
        }
    }

    /// Marks every pack that has one of several places of a blob of which none is sound: none of them may go.
    pub(super) fn spare_unsound(&self, table: &mut Table, several: &[BlobRef]) -> usize {
        let mut unsound = 0;
        for blob in several {
            let Some((number, first)) = self.index.numbered(self.numbers, *blob) else { continue };
            if self.kept.get(&number) != Some(&Kept::Everywhere) {
                continue;
            }
            unsound += 1;
            for location in self.index.spares(*blob).iter().chain([&first]) {
                let place = table.pack_of(location);
                table.uses[place].is_odd = true;
            }
        }
        unsound
    }

    /// True when this is the place that counts of a blob that is needed.
    pub(super) fn is_live_at(&self, blob: BlobRef, pack: PackId, offset: u32) -> bool {
        let Some((number, first)) = self.index.numbered(self.numbers, blob) else { return false };
        let is_here = |location: &Location| self.index.pack(location.pack) == pack && location.offset == offset;
        self.needed.get(number)
            && match self.kept.get(&number) {
                None => is_here(&first),
                Some(Kept::At(location)) => is_here(location),
                Some(Kept::Everywhere) => true,
            }
    }
}

fn sound_place(reader: &BlobReader, blob: &BlobRef, places: &[Location]) -> Result<Kept> {
    for location in places {
        match reader.blob_at(blob, location) {
            Ok(_) => return Ok(Kept::At(*location)),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Absent) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Kept::Everywhere)
}
