//! One shard of the index: a sorted array without slack, and a small map of recent additions.

use super::Location;
use hashbrown::HashMap;

/// 96 bits of a keyed hash; the first word's top byte chose the shard.
pub(super) type Key = [u32; 3];

/// 28 bytes a blob, all of 32 bits so that arrays have no padding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) pack: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) raw_length: u32,
}

impl Entry {
    pub(super) fn location(&self) -> Location {
        Location { pack: self.pack, offset: self.offset, length: self.length, raw_length: self.raw_length }
    }
}

/// Keys are hashes already; hashing them again would be waste.
#[derive(Clone, Copy, Default)]
struct TakeKey(u64);

impl std::hash::Hasher for TakeKey {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(4) {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u32(u32::from_le_bytes(word));
        }
    }
    fn write_u32(&mut self, word: u32) {
        self.0 = self.0.rotate_left(32) ^ u64::from(word);
    }
}

type Recent = HashMap<Key, Entry, std::hash::BuildHasherDefault<TakeKey>>;

#[derive(Default)]
pub(super) struct Shard {
    /// Ascending by key, each key once, capacity equal to length or, after a load, little more.
    sorted: Vec<Entry>,
    /// Not in `sorted`. Blobs on their way stay here until they have a place.
    recent: Recent,
    in_flight: usize,
}

impl Shard {
    /// Of entries that ascend by key, each key once.
    pub(super) fn of_sorted(sorted: Vec<Entry>) -> Self {
        Self { sorted, ..Self::default() }
    }

    pub(super) fn find(&self, key: Key) -> Option<Entry> {
        if let Some(entry) = self.recent.get(&key) {
            return Some(*entry);
        }
        self.position(key).map(|i| self.sorted[i])
    }

    /// Interpolation to the neighbourhood, then binary search: keys are uniform by construction.
    fn position(&self, key: Key) -> Option<usize> {
        let n = self.sorted.len();
        if n == 0 {
            return None;
        }
        let guess = ((u64::from(key[0] & 0x00ff_ffff) * n as u64) >> 24) as usize;
        let mut reach = 8;
        let (mut low, mut high) = (guess, guess.min(n - 1));
        while low > 0 && self.sorted[low.min(n - 1)].key > key {
            low = low.saturating_sub(reach);
            reach *= 2;
        }
        reach = 8;
        while high < n && self.sorted[high].key < key {
            high = (high + reach).min(n);
            reach *= 2;
        }
        let low = low.min(n);
        let high = (high + 1).min(n);
        self.sorted[low..high].binary_search_by_key(&key, |e| e.key).ok().map(|i| low + i)
    }

    /// What is sorted, which is all once [`Self::merge`] has run and nothing is on its way.
    pub(super) fn sorted(&self) -> &[Entry] {
        &self.sorted
    }

    /// The place of a key in [`Self::sorted`], and its entry.
    pub(super) fn numbered(&self, key: Key) -> Option<(usize, Entry)> {
        self.position(key).map(|i| (i, self.sorted[i]))
    }

    /// Adds an entry for a key that is not there.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.in_flight += usize::from(entry.pack == super::IN_FLIGHT);
        self.recent.insert(entry.key, entry);
    }

    /// Gives a blob its place, unless it has one, which is then returned.
    pub(super) fn settle(&mut self, entry: Entry) -> Option<Entry> {
        if let Some(known) = self.recent.get_mut(&entry.key) {
            if known.pack != super::IN_FLIGHT {
                return Some(*known);
            }
            self.in_flight -= 1;
            *known = entry;
        } else if let Some(known) = self.position(entry.key) {
            return Some(self.sorted[known]);
        } else {
            self.recent.insert(entry.key, entry);
        }
        if self.recent.len() - self.in_flight > 64 + self.sorted.len() / 8 {
            self.merge();
        }
        None
    }

    pub(super) fn merge(&mut self) {
        let mut settled: Vec<Entry> = self.recent.values().filter(|e| e.pack != super::IN_FLIGHT).copied().collect();
        if settled.is_empty() {
            return;
        }
        self.recent.retain(|_, e| e.pack == super::IN_FLIGHT);
        self.recent.shrink_to_fit();
        settled.sort_unstable_by_key(|e| e.key);
        // From the back, in place: the array grows by exactly what is new.
        let mut old = self.sorted.len();
        let mut new = settled.len();
        self.sorted.reserve_exact(new);
        self.sorted.resize(old + new, settled[0]);
        for slot in (0..old + new).rev() {
            if new == 0 {
                break;
            }
            if old > 0 && self.sorted[old - 1].key > settled[new - 1].key {
                old -= 1;
                self.sorted[slot] = self.sorted[old];
            } else {
                new -= 1;
                self.sorted[slot] = settled[new];
            }
        }
    }

    pub(super) fn reserve(&mut self, more: usize) {
        self.sorted.reserve_exact(more);
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len() + self.recent.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.sorted.capacity() * size_of::<Entry>() + self.recent.allocation_size()
    }
}
