//! Which blobs a repository holds and where: 28 bytes of memory for each.
//!
//! The table is cut into 256 shards by a keyed hash of the blob's id. A shard is one exactly filled sorted array plus a
//! small map of what was added since, merged in place when it has grown; so an index of a hundred million blobs needs
//! no second copy of itself at any moment.
//!
//! Ids are kept as 96 bits of a keyed hash whose secret is drawn when the process starts. Two blobs are confused with a
//! chance of n²/2⁹⁷ (a hundred million blobs: 6·10⁻¹⁴), and nobody can prepare files to collide, not knowing the
//! secret. Whatever is read is verified against its full id, so a confusion could not restore a wrong byte.
//!
//! A blob that is stored more than once is found at the place that was entered first; the other places are remembered
//! aside ([`Index::spares`]), for when that one turns out to be lost or damaged.
//!
//! [`Index::claim`] also settles which of several threads stores a new blob, so that none is stored twice in one run.

mod cache;
mod load;
mod numbers;
mod shard;

pub use cache::IndexCache;
pub(crate) use load::{Lane, Loader};
pub(crate) use numbers::Numbers;

pub use crate::format::blob::BlobKind;

use crate::crypto::random;
use crate::format::IndexBlob;
use lastgood_model::{BlobId, Error, ErrorKind, Id, PackId, Result, TreeId};
use shard::{Entry, Key, Shard};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, RwLock};

const SHARDS: usize = 256;
/// `Entry::pack` of a blob that is being stored.
const IN_FLIGHT: u32 = u32::MAX;

/// A blob by kind and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobRef {
    /// Its kind.
    pub kind: BlobKind,
    /// SHA-256 of its plaintext.
    pub id: Id,
}

impl From<BlobId> for BlobRef {
    fn from(id: BlobId) -> Self {
        Self { kind: BlobKind::Data, id: id.0 }
    }
}

impl From<TreeId> for BlobRef {
    fn from(id: TreeId) -> Self {
        Self { kind: BlobKind::Tree, id: id.0 }
    }
}

/// Where a blob is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Ordinal of its pack in this index; see [`Index::pack`].
    pub pack: u32,
    /// First byte of its envelope in the pack.
    pub offset: u32,
    /// Length of its envelope.
    pub length: u32,
    /// Length of its plaintext when it is compressed, else 0.
    pub raw_length: u32,
}

impl Location {
    /// The same as an entry of an index file.
    pub(crate) fn entry(&self, blob: &BlobRef) -> IndexBlob {
        let uncompressed = NonZeroU32::new(self.raw_length);
        IndexBlob { id: blob.id, kind: blob.kind, offset: self.offset, length: self.length, uncompressed }
    }

    /// Length of the plaintext.
    pub fn plain_length(&self) -> u32 {
        if self.raw_length != 0 {
            self.raw_length
        } else {
            self.length.saturating_sub(crate::crypto::ENVELOPE_OVERHEAD as u32)
        }
    }
}

/// The answer to [`Index::claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is stored, or another thread of this run is storing it.
    Known,
    /// The caller must store it.
    Mine,
}

/// The index in memory; shared by all threads.
pub struct Index {
    shards: Vec<Mutex<Shard>>,
    packs: RwLock<Vec<PackId>>,
    /// Packs that no readable index file lists; they are known by their own headers.
    unlisted: Mutex<Vec<PackId>>,
    /// Packs that are listed and were passed over: missing, or not as long as they must be.
    unusable: Mutex<HashSet<PackId>>,
    /// Further places of blobs that are stored more than once: few, and asked for only when the first is of no use.
    spares: Mutex<HashMap<Key, Vec<Location>>>,
    /// By the ordinals of packs with trees, where the last tree in each ends: so far a reader may read ahead.
    tree_ends: Mutex<HashMap<u32, u32>>,
    secret: [u128; 3],
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("blobs", &self.len()).finish_non_exhaustive()
    }
}

impl Index {
    /// An empty index with a fresh secret.
    pub fn new() -> Result<Self> {
        let mut bytes = [0u8; 48];
        random(&mut bytes)?;
        let mut secret = [0u128; 3];
        for (word, chunk) in secret.iter_mut().zip(bytes.as_chunks::<16>().0) {
            *word = u128::from_le_bytes(*chunk) | 1;
        }
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect();
        Ok(Self {
            shards,
            packs: RwLock::new(Vec::new()),
            unlisted: Mutex::default(),
            unusable: Mutex::default(),
            spares: Mutex::default(),
            tree_ends: Mutex::default(),
            secret,
        })
    }

    /// Multiplicative universal hashing over the two halves of an id (Dietzfelbinger et al., 1997), of which the upper,
    /// well-mixed bits are kept.
    fn key(&self, blob: &BlobRef) -> Key {
        let (halves, _) = blob.id.0.as_chunks::<16>();
        let low = u128::from_le_bytes(halves[0]);
        let high = u128::from_le_bytes(halves[1]);
        let mut mixed = low.wrapping_mul(self.secret[0]).wrapping_add(high.wrapping_mul(self.secret[1]));
        if blob.kind == BlobKind::Tree {
            mixed = mixed.wrapping_add(self.secret[2] << 32);
        }
        [(mixed >> 96) as u32, (mixed >> 64) as u32, (mixed >> 32) as u32]
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        lock(&self.shards[(key[0] >> 24) as usize])
    }

    /// Where a blob is; `None` when it is not stored, or only on its way.
    pub fn find(&self, blob: impl Into<BlobRef>) -> Option<Location> {
        let key = self.key(&blob.into());
        let entry = self.shard(key).find(key)?;
        (entry.pack != IN_FLIGHT).then(|| entry.location())
    }

    /// The places of a blob beside the one that [`Index::find`] tells.
    pub fn spares(&self, blob: impl Into<BlobRef>) -> Vec<Location> {
        let spares = lock(&self.spares);
        if spares.is_empty() {
            return Vec::new();
        }
        spares.get(&self.key(&blob.into())).cloned().unwrap_or_default()
    }

    /// True when somebody has promised to store a blob, and it has no place yet.
    pub(crate) fn is_claimed(&self, blob: impl Into<BlobRef>) -> bool {
        let key = self.key(&blob.into());
        self.shard(key).find(key).is_some_and(|entry| entry.pack == IN_FLIGHT)
    }

    /// True when a blob is stored or on its way.
    pub fn knows(&self, blob: impl Into<BlobRef>) -> bool {
        let key = self.key(&blob.into());
        self.shard(key).find(key).is_some()
    }

    /// Asks whether a blob must be stored, and promises to store it if so.
    pub fn claim(&self, blob: impl Into<BlobRef>) -> Claim {
        let key = self.key(&blob.into());
        let mut shard = self.shard(key);
        if shard.find(key).is_some() {
            return Claim::Known;
        }
        shard.insert(Entry { key, pack: IN_FLIGHT, offset: 0, length: 0, raw_length: 0 });
        Claim::Mine
    }

    /// Registers a pack and returns its ordinal.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] beyond 2³² - 2 packs.
    pub fn add_pack(&self, id: PackId) -> Result<u32> {
        let mut packs = self.packs.write().unwrap_or_else(|e| e.into_inner());
        let ordinal = u32::try_from(packs.len())
            .ok()
            .filter(|n| *n != IN_FLIGHT)
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, "index of more than 2^32 packs"))?;
        packs.push(id);
        Ok(ordinal)
    }

    /// Remembers that a pack is in no index file that can be read.
    pub(crate) fn note_unlisted(&self, pack: PackId) {
        lock(&self.unlisted).push(pack);
    }

    /// The packs so remembered, which a writer should list anew before it relies on them.
    pub(crate) fn unlisted(&self) -> Vec<PackId> {
        lock(&self.unlisted).clone()
    }

    /// Remembers that a pack is listed and cannot be used.
    pub(crate) fn note_unusable(&self, pack: PackId) {
        lock(&self.unusable).insert(pack);
    }

    /// The packs so remembered.
    pub(crate) fn unusable(&self) -> HashSet<PackId> {
        lock(&self.unusable).clone()
    }

    /// Enters where a blob is stored. A blob that already has a place keeps it, and this one becomes a spare.
    pub fn add(&self, blob: impl Into<BlobRef>, location: Location) {
        let blob = blob.into();
        let key = self.key(&blob);
        let Location { pack, offset, length, raw_length } = location;
        if blob.kind == BlobKind::Tree {
            self.note_tree_end(pack, offset.saturating_add(length));
        }
        let known = self.shard(key).settle(Entry { key, pack, offset, length, raw_length });
        if known.is_some() {
            self.add_spare(key, location);
        }
    }

    /// Remembers a further place of a blob that has one.
    fn add_spare(&self, key: Key, location: Location) {
        let known = self.shard(key).find(key).map(|entry| entry.location());
        if known.is_none_or(|known| self.is_same_place(&known, &location)) {
            return;
        }
        let mut spares = lock(&self.spares);
        let spares = spares.entry(key).or_default();
        if !spares.iter().any(|spare| self.is_same_place(spare, &location)) {
            spares.push(location);
        }
    }

    /// Whether two entries tell of the same bytes; index files that overlap list a pack twice.
    fn is_same_place(&self, a: &Location, b: &Location) -> bool {
        a.offset == b.offset && (a.pack == b.pack || self.pack(a.pack) == self.pack(b.pack))
    }

    fn note_tree_end(&self, pack: u32, end: u32) {
        let mut ends = lock(&self.tree_ends);
        let known = ends.entry(pack).or_default();
        *known = end.max(*known);
    }

    /// Where the last tree in a pack ends, by the pack's ordinal; 0 when there is none.
    pub(crate) fn tree_end(&self, pack: u32) -> u32 {
        lock(&self.tree_ends).get(&pack).copied().unwrap_or_default()
    }

    /// The name of a pack by ordinal.
    ///
    /// # Panics
    /// When the ordinal is not of this index.
    pub fn pack(&self, ordinal: u32) -> PackId {
        self.packs.read().unwrap_or_else(|e| e.into_inner())[ordinal as usize]
    }

    /// All packs in order of their ordinals.
    pub fn packs(&self) -> Vec<PackId> {
        self.packs.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Number of blobs, those on their way included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| lock(s).len()).sum()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory held by the tables.
    pub fn memory_bytes(&self) -> usize {
        self.shards.iter().map(|s| lock(s).memory_bytes()).sum()
    }

    /// Makes room for `blobs` more, evenly spread.
    pub fn reserve(&self, blobs: usize) {
        for shard in &self.shards {
            lock(shard).reserve(blobs / SHARDS);
        }
    }

    /// Merges what was added into the sorted arrays; worth calling after a load.
    pub fn compact(&self) {
        for shard in &self.shards {
            lock(shard).merge();
        }
    }
}

/// Locks for a short section, which no panic can leave half done: none calls out.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(n: u32) -> BlobRef {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_le_bytes());
        BlobRef { kind: BlobKind::Data, id: Id(id) }
    }

    #[test]
    fn what_was_added_is_found_and_nothing_else() {
        let index = Index::new().unwrap();
        let pack = index.add_pack(PackId::default()).unwrap();
        for n in 0..50_000 {
            index.add(blob(n), Location { pack, offset: n, length: n + 32, raw_length: 0 });
        }
        for n in 0..50_000 {
            assert_eq!(index.find(blob(n)).unwrap().offset, n);
            assert!(index.find(blob(n + 50_000)).is_none());
            assert!(index.find(BlobRef { kind: BlobKind::Tree, id: blob(n).id }).is_none());
        }
        assert_eq!(index.len(), 50_000);
    }

    #[test]
    fn a_blob_is_claimed_once_and_found_only_when_it_has_a_place() {
        let index = Index::new().unwrap();
        assert_eq!(index.claim(blob(1)), Claim::Mine);
        assert_eq!(index.claim(blob(1)), Claim::Known);
        assert!(index.find(blob(1)).is_none());
        let pack = index.add_pack(PackId::default()).unwrap();
        let place = Location { pack, offset: 7, length: 40, raw_length: 9 };
        index.add(blob(1), place);
        assert_eq!(index.find(blob(1)), Some(place));
        index.add(blob(1), Location { offset: 8, ..place });
        assert_eq!(index.find(blob(1)), Some(place));
    }

    #[test]
    fn further_places_are_spares_and_the_same_place_told_twice_is_not() {
        let index = Index::new().unwrap();
        let pack = index.add_pack(PackId(Id([1; 32]))).unwrap();
        let same = index.add_pack(PackId(Id([1; 32]))).unwrap();
        let other = index.add_pack(PackId(Id([2; 32]))).unwrap();
        let first = Location { pack, offset: 7, length: 40, raw_length: 9 };
        index.add(blob(1), first);
        index.add(blob(1), Location { pack: same, ..first });
        assert!(index.spares(blob(1)).is_empty());
        let second = Location { pack: other, ..first };
        for _ in 0..2 {
            index.add(blob(1), second);
            index.compact();
        }
        assert_eq!(index.find(blob(1)), Some(first));
        assert_eq!(index.spares(blob(1)), [second]);
        assert!(index.spares(blob(2)).is_empty());
    }

    #[test]
    fn a_million_blobs_take_28_bytes_each() {
        let index = Index::new().unwrap();
        let pack = index.add_pack(PackId::default()).unwrap();
        for n in 0..1_000_000 {
            index.add(blob(n), Location { pack, offset: n, length: 32, raw_length: 0 });
        }
        index.compact();
        assert_eq!(index.len(), 1_000_000);
        let per_blob = index.memory_bytes() as f64 / 1e6;
        assert!(per_blob <= 28.2, "{per_blob} bytes a blob");
    }

    #[test]
    fn threads_racing_for_the_same_blobs_claim_each_once() {
        let index = Index::new().unwrap();
        let mine: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..20_000).filter(|n| index.claim(blob(*n)) == Claim::Mine).count()))
                .collect();
            workers.into_iter().map(|w| w.join().unwrap()).sum()
        });
        assert_eq!(mine, 20_000);
    }
}
