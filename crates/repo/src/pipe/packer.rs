//! Sealed blobs into packs, packs into the store, finished packs into index files.
//!
//! Blobs go to one of several open packs at random, as in restic since 0.18: an observer of the store cannot read a
//! file's chunk lengths off one pack in order. Full packs are hashed and written by their own threads, a fixed number
//! at a time, so that a slow disk holds the workers back instead of filling memory. A pack becomes known to the index,
//! and to an index file, only after the store has said that it is written.

use crate::crypto::{IV_BYTES, Sealer, random};
use crate::format::pack::{encode_header, trailer};
use crate::format::{IndexBlob, encode_index};
use crate::index::{BlobKind, Index, IndexCache};
use crate::index_files::enter_pack;
use crate::repository::put_unpacked;
use crate::sha256::sha256;
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{Error, Id, IndexId, PackId, Result};
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// A pack is closed when it has reached this size; restic's default target.
const PACK_BYTES: usize = 16 << 20;
/// Or when it holds so many blobs, which keeps its header far from the format's limit of 16 MiB.
const PACK_BLOBS: usize = 100_000;
/// Open packs of data; blobs are spread over them.
const OPEN_DATA_PACKS: usize = 2;
/// Packs being written at once, and waiting to be: enough to keep a disk busy,
const WRITES_IN_FLIGHT: usize = 2;
/// and of a store that takes more calls at once, of which each waits for a round trip. Each holds a pack in memory, and
/// its way into the store another.
const WRITES_IN_FLIGHT_FAR: usize = 3;
/// A store that likes so many calls at once is reached over a network.
const FAR_CONNECTIONS: usize = 8;
/// Blobs in an index file; restic keeps about as many.
pub(crate) const INDEX_BLOBS: usize = 50_000;

#[derive(Default)]
struct OpenPack {
    bytes: Vec<u8>,
    blobs: Vec<IndexBlob>,
}

#[derive(Default)]
struct Queue {
    full: VecDeque<OpenPack>,
    writing: usize,
    spare: Vec<Vec<u8>>,
    failed: Option<Error>,
    closed: bool,
}

#[derive(Default)]
struct Written {
    packs: Vec<(PackId, Vec<IndexBlob>)>,
    blobs: usize,
    all: Vec<(PackId, u64)>,
}

struct Shared {
    store: Arc<dyn Store>,
    sealer: Arc<Sealer>,
    index: Arc<Index>,
    cache: IndexCache,
    /// Packs being written at once, and waiting to be.
    in_flight: usize,
    /// Packs are put together and dropped.
    dry_run: bool,
    queue: Mutex<Queue>,
    changed: Condvar,
    written: Mutex<Written>,
}

/// Takes sealed blobs from many threads. `finish` or `salvage` must be called at the end.
pub(crate) struct Packer {
    shared: Arc<Shared>,
    data: [Mutex<OpenPack>; OPEN_DATA_PACKS],
    tree: Mutex<OpenPack>,
    writers: Vec<JoinHandle<()>>,
    placement: Mutex<Placement>,
}

/// Random bits for the placement, drawn in blocks.
struct Placement {
    bits: [u8; 64],
    used: usize,
}

impl Packer {
    pub(crate) fn start(
        store: Arc<dyn Store>,
        sealer: Arc<Sealer>,
        index: Arc<Index>,
        cache: IndexCache,
        dry_run: bool,
    ) -> Result<Self> {
        let connections = store.capabilities().connections.max(1);
        let in_flight = match connections {
            FAR_CONNECTIONS.. => WRITES_IN_FLIGHT_FAR,
            _ => WRITES_IN_FLIGHT.min(connections),
        };
        let shared = Arc::new(Shared {
            store,
            in_flight,
            dry_run,
            sealer,
            index,
            cache,
            queue: Mutex::default(),
            changed: Condvar::new(),
            written: Mutex::default(),
        });
        let writers = (0..in_flight)
            .map(|n| {
                let shared = shared.clone();
                std::thread::Builder::new()
                    .name(format!("pack-{n}"))
                    .spawn(move || shared.write_packs())
                    .map_err(|e| Error::io("start pack writer", e))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            shared,
            data: Default::default(),
            tree: Mutex::default(),
            writers,
            placement: Mutex::new(Placement { bits: [0; 64], used: 64 }),
        })
    }

    /// Adds one sealed blob. May wait for the store. Fails once any pack could not be written.
    pub(crate) fn append(&self, kind: BlobKind, id: Id, sealed: &[u8], raw_length: u32) -> Result<()> {
        let full = {
            let mut pack = match kind {
                BlobKind::Tree => lock(&self.tree),
                BlobKind::Data => lock(&self.data[self.draw()?]),
            };
            if pack.bytes.capacity() == 0 {
                pack.bytes = self.shared.spare_buffer();
            }
            let offset = pack.bytes.len() as u32;
            pack.bytes.extend_from_slice(sealed);
            pack.blobs.push(IndexBlob {
                id,
                kind,
                offset,
                length: sealed.len() as u32,
                uncompressed: NonZeroU32::new(raw_length),
            });
            if pack.bytes.len() < PACK_BYTES && pack.blobs.len() < PACK_BLOBS {
                return Ok(());
            }
            std::mem::take(&mut *pack)
        };
        self.shared.submit(full)
    }

    /// Takes in a pack of `bytes` that the caller has put into the store as it was, with all its blobs.
    pub(crate) fn enter_whole(&self, id: PackId, bytes: u64, blobs: Vec<IndexBlob>) -> Result<()> {
        self.shared.enter(id, bytes, blobs)
    }

    fn draw(&self) -> Result<usize> {
        let mut placement = lock(&self.placement);
        if placement.used == placement.bits.len() {
            random(&mut placement.bits)?;
            placement.used = 0;
        }
        let byte = placement.bits[placement.used];
        placement.used += 1;
        Ok(usize::from(byte) % OPEN_DATA_PACKS)
    }

    /// Closes all packs, waits until they are written and durable, and writes the last index file. Returns the packs
    /// written with their sizes. After a failure, what was written is made known all the same, as by
    /// [`Packer::salvage`].
    pub(crate) fn finish(self) -> Result<Vec<(PackId, u64)>> {
        match self.submit_open() {
            Ok(()) => {}
            Err(error) => {
                self.salvage();
                return Err(error);
            }
        }
        let mut this = self;
        this.stop_writers();
        if let Err(error) = this.shared.check() {
            this.salvage();
            return Err(error);
        }
        this.shared.flush_index()?;
        Ok(std::mem::take(&mut lock(&this.shared.written).all))
    }

    /// Hands on all packs that are not full.
    fn submit_open(&self) -> Result<()> {
        let mut open: Vec<OpenPack> = self.data.iter().map(|p| std::mem::take(&mut *lock(p))).collect();
        // Half-empty packs are joined, so that a small run leaves one pack and not several.
        open.sort_by_key(|p| p.bytes.len());
        let mut joined: Vec<OpenPack> = Vec::new();
        for pack in open.into_iter().filter(|p| !p.blobs.is_empty()) {
            match joined.last_mut() {
                Some(last) if last.bytes.len() + pack.bytes.len() <= PACK_BYTES + PACK_BYTES / 4 => last.absorb(pack),
                _ => joined.push(pack),
            }
        }
        for pack in joined {
            self.shared.submit(pack)?;
        }
        let tree = std::mem::take(&mut *lock(&self.tree));
        if tree.blobs.is_empty() { Ok(()) } else { self.shared.submit(tree) }
    }

    /// After a failure: makes what is already written known to an index file, so that the next run need not store it
    /// again. Open packs are dropped. Best effort by nature.
    pub(crate) fn salvage(mut self) {
        self.stop_writers();
        if let Err(error) = self.shared.flush_index() {
            tracing::debug!(error = %error.chain(), "packs of a failed run stay without an index");
        }
    }

    fn stop_writers(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.changed.notify_all();
        for writer in self.writers.drain(..) {
            // A writer that panicked has left its pack unwritten; `check` reports the missing one as a failure.
            if writer.join().is_err() {
                lock(&self.shared.queue)
                    .failed
                    .get_or_insert_with(|| Error::new(lastgood_model::ErrorKind::Bug, "pack writer panicked"));
            }
        }
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        self.stop_writers();
    }
}

impl OpenPack {
    fn absorb(&mut self, other: OpenPack) {
        let shift = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&other.bytes);
        self.blobs.extend(other.blobs.into_iter().map(|b| IndexBlob { offset: b.offset + shift, ..b }));
    }
}

impl Shared {
    fn check(&self) -> Result<()> {
        match &lock(&self.queue).failed {
            Some(error) => Err(again(error)),
            None => Ok(()),
        }
    }

    fn spare_buffer(&self) -> Vec<u8> {
        lock(&self.queue).spare.pop().unwrap_or_else(|| Vec::with_capacity(PACK_BYTES + (9 << 20)))
    }

    fn submit(&self, full: OpenPack) -> Result<()> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(error) = &queue.failed {
                return Err(again(error));
            }
            if queue.full.len() + queue.writing < self.in_flight {
                break;
            }
            queue = self.changed.wait(queue).unwrap_or_else(|e| e.into_inner());
        }
        queue.full.push_back(full);
        drop(queue);
        self.changed.notify_all();
        Ok(())
    }

    fn write_packs(&self) {
        loop {
            let full = {
                let mut queue = lock(&self.queue);
                loop {
                    if let Some(full) = queue.full.pop_front() {
                        queue.writing += 1;
                        break full;
                    }
                    if queue.closed {
                        return;
                    }
                    queue = self.changed.wait(queue).unwrap_or_else(|e| e.into_inner());
                }
            };
            let outcome = self.write_pack(full);
            let mut queue = lock(&self.queue);
            queue.writing -= 1;
            match outcome {
                Ok(mut buffer) => {
                    buffer.clear();
                    queue.spare.push(buffer);
                }
                Err(error) => {
                    queue.failed.get_or_insert(error);
                    queue.full.clear();
                }
            }
            drop(queue);
            self.changed.notify_all();
        }
    }

    fn write_pack(&self, full: OpenPack) -> Result<Vec<u8>> {
        let OpenPack { mut bytes, blobs } = full;
        if self.dry_run {
            return Ok(bytes);
        }
        let start = bytes.len();
        bytes.resize(start + IV_BYTES, 0);
        bytes.extend_from_slice(&encode_header(&blobs)?);
        self.sealer.seal_in_place(&mut bytes, start)?;
        let trailer = trailer(bytes.len() - start)?;
        bytes.extend_from_slice(&trailer);
        let id = PackId(Id(sha256(&bytes)));
        put_pack(&*self.store, id, &bytes, &blobs)?;
        self.enter(id, bytes.len() as u64, blobs)?;
        Ok(bytes)
    }

    /// Makes a written pack known to the index, and in time to an index file.
    fn enter(&self, id: PackId, bytes: u64, blobs: Vec<IndexBlob>) -> Result<()> {
        enter_pack(&self.index, id, &blobs)?;
        let index_is_full = {
            let mut written = lock(&self.written);
            written.all.push((id, bytes));
            written.blobs += blobs.len();
            written.packs.push((id, blobs));
            written.blobs >= INDEX_BLOBS
        };
        if index_is_full { self.flush_index() } else { Ok(()) }
    }

    /// Writes an index file of all packs written since the last one. The packs are made durable first: an index that
    /// names a pack which a power cut then takes away would let later runs skip blobs that are not there.
    fn flush_index(&self) -> Result<()> {
        let packs = {
            let mut written = lock(&self.written);
            written.blobs = 0;
            std::mem::take(&mut written.packs)
        };
        if packs.is_empty() {
            return Ok(());
        }
        self.store.sync()?;
        let json = encode_index(packs.iter().map(|(id, blobs)| (*id, &blobs[..])));
        let id = put_unpacked(&*self.store, &self.sealer, ObjectKind::Index, &json)?;
        self.cache.keep(&IndexId(id), &packs);
        Ok(())
    }
}

/// Writes a pack. Those that hold trees are read by every run; all others may be kept where reading is dear.
pub(crate) fn put_pack(store: &dyn Store, id: PackId, bytes: &[u8], blobs: &[IndexBlob]) -> Result<()> {
    let key = StoreKey::new(ObjectKind::Pack, id);
    match blobs.iter().any(|blob| blob.kind == BlobKind::Tree) {
        true => store.put(&key, &[bytes]),
        false => store.put_cold(&key, &[bytes]),
    }
}

/// The first failure, told again to everyone who comes later.
fn again(error: &Error) -> Error {
    let told = Error::new(error.kind(), error.chain());
    match error.hint() {
        Some(hint) => told.with_hint(hint),
        None => told,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::MasterKey;
    use crate::index::BlobRef;
    use crate::read::header_of;
    use lastgood_model::ErrorKind;
    use lastgood_stores::{Fault, FaultStore, MemoryStore, Op};

    struct Bench {
        memory: MemoryStore,
        store: Arc<FaultStore<MemoryStore>>,
        sealer: Arc<Sealer>,
        index: Arc<Index>,
    }

    impl Bench {
        fn new() -> Self {
            let memory = MemoryStore::new();
            let store = Arc::new(FaultStore::new(memory.clone()));
            let sealer = Arc::new(Sealer::new(&MasterKey::generate().unwrap()).unwrap());
            Self { memory, store, sealer, index: Arc::new(Index::new().unwrap()) }
        }

        fn packer(&self, dry_run: bool) -> Packer {
            let cache = IndexCache::default();
            Packer::start(self.store.clone(), self.sealer.clone(), self.index.clone(), cache, dry_run).unwrap()
        }

        fn fill(&self, packer: &Packer, kind: BlobKind, blobs: u32, bytes: usize) -> Result<()> {
            for n in 0..blobs {
                let sealed = self.sealer.seal(&vec![n as u8; bytes])?;
                packer.append(kind, id_of(kind, n), &sealed, 0)?;
            }
            Ok(())
        }

        fn packs(&self) -> Vec<Vec<u8>> {
            let keys = self.memory.keys().into_iter().filter(|key| key.kind == ObjectKind::Pack);
            keys.map(|key| self.memory.get(&key).unwrap()).collect()
        }

        fn indexes(&self) -> usize {
            self.memory.keys().iter().filter(|key| key.kind == ObjectKind::Index).count()
        }
    }

    fn id_of(kind: BlobKind, n: u32) -> Id {
        let mut id = [kind as u8; 32];
        id[..4].copy_from_slice(&n.to_le_bytes());
        Id(id)
    }

    #[test]
    fn a_small_run_leaves_one_pack_of_each_kind_that_tells_of_every_blob() {
        let bench = Bench::new();
        let packer = bench.packer(false);
        bench.fill(&packer, BlobKind::Data, 200, 1000).unwrap();
        bench.fill(&packer, BlobKind::Tree, 30, 100).unwrap();
        let written = packer.finish().unwrap();
        assert_eq!((written.len(), bench.packs().len(), bench.indexes()), (2, 2, 1));
        for pack in bench.packs() {
            let blobs = header_of(&pack, &bench.sealer).unwrap();
            assert!(blobs.len() == 200 || blobs.len() == 30);
            for blob in blobs {
                let found = bench.index.find(BlobRef { kind: blob.kind, id: blob.id }).unwrap();
                assert_eq!((found.offset, found.length), (blob.offset, blob.length));
                let mut sealed = pack[blob.offset as usize..blob.end() as usize].to_vec();
                let plain = bench.sealer.open_in_place(&mut sealed).unwrap();
                assert_eq!(plain[0], blob.id.0[0], "the blob is another's");
            }
        }
    }

    #[test]
    fn nothing_appended_writes_nothing_and_a_dry_run_neither() {
        let bench = Bench::new();
        assert!(bench.packer(false).finish().unwrap().is_empty());
        let packer = bench.packer(true);
        bench.fill(&packer, BlobKind::Data, 40, 1 << 20).unwrap();
        assert!(packer.finish().unwrap().is_empty());
        assert!(bench.memory.keys().is_empty());
    }

    #[test]
    fn after_a_failure_nothing_more_is_taken_and_what_was_written_is_listed() {
        let bench = Bench::new();
        bench.store.add(Fault::on(Op::Put).of(ObjectKind::Pack).from_nth(3).fails_before(ErrorKind::NoSpace));
        let packer = bench.packer(false);
        let error = bench.fill(&packer, BlobKind::Data, 300, 1 << 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(
            packer.append(BlobKind::Data, Id([7; 32]), &[0; 20 << 20], 0).unwrap_err().kind(),
            ErrorKind::NoSpace
        );
        assert_eq!(packer.finish().unwrap_err().kind(), ErrorKind::NoSpace);
        assert_eq!((bench.packs().len(), bench.indexes()), (2, 1));
        // A failure in the very last step, too.
        let bench = Bench::new();
        bench.store.add(Fault::on(Op::Put).of(ObjectKind::Pack).nth(2).fails_before(ErrorKind::Io));
        let packer = bench.packer(false);
        bench.fill(&packer, BlobKind::Data, 3, 1000).unwrap();
        bench.fill(&packer, BlobKind::Tree, 3, 1000).unwrap();
        assert_eq!(packer.finish().unwrap_err().kind(), ErrorKind::Io);
        assert_eq!((bench.packs().len(), bench.indexes()), (1, 1));
    }
}
