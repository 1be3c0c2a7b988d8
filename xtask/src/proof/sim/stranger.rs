//! A stranger that behaves as restic does: it takes locks by the protocol, believes the index, and deletes what it finds
//! unneeded under an exclusive lock. It clears stale locks away first (`restic unlock`), and gives up when it could not
//! refresh its own lock for too long.

use super::oracle::{entries_of, short};
use super::verbs::{Hand, content};
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{BlobId, Error, ErrorKind, Id, Node, NodeKind, PackId, Result, SnapshotId, Time, TreeId};
use lastgood_repo::crypto::Sealer;
use lastgood_repo::format::pack::{encode_header, trailer};
use lastgood_repo::format::{BlobKind, IndexBlob, LockFile, TreeEncoder, encode_index};
use lastgood_repo::sha256::sha256;
use lastgood_repo::{BlobReader, Repository};
use lastgood_testkit::sim::{Renewal, SimStore};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const STALE_SECS: i64 = 30 * 60;
/// restic gives up when its lock was not refreshed for so long.
const GIVES_UP_SECS: i64 = STALE_SECS - 5 * 60 * 3 / 2;

/// Renews a lock: given the time before somebody slept, and after it.
type Renewing = Box<dyn FnMut(Time, Time) -> Option<Renewal> + Send>;

/// A stranger at work in one place.
pub(crate) struct Stranger {
    hand: Hand,
    place: usize,
    store: Arc<SimStore>,
    sealer: Arc<Sealer>,
    repository: Arc<Repository>,
}

/// Its lock: when it was refreshed, and its name.
struct Held {
    at: Mutex<(i64, StoreKey)>,
}

impl Stranger {
    /// One that acts as `hand` does; `sealer` has the key of the place.
    pub(crate) fn new(hand: &Hand, place: usize, sealer: &Arc<Sealer>) -> Result<Self> {
        let store = Arc::new(hand.world.store(hand.actor, place));
        let repository = hand.open(place)?;
        Ok(Self { hand: hand.clone(), place, store, sealer: sealer.clone(), repository })
    }

    fn now(&self) -> i64 {
        (self.hand.world.clock(self.hand.actor))().secs
    }

    fn put(&self, kind: ObjectKind, bytes: &[u8]) -> Result<StoreKey> {
        let key = StoreKey::new(kind, Id(sha256(bytes)));
        self.store.put(&key, &[bytes])?;
        self.store.sync()?;
        Ok(key)
    }

    /// Locks of others. As long as one is gone when it is read, since it was refreshed, all are read again.
    fn others(&self, mine: Option<Id>) -> Result<Vec<(Id, LockFile)>> {
        loop {
            let (mut found, mut has_moved) = (Vec::new(), false);
            for (id, _) in self.store.list(ObjectKind::Lock)?.into_iter().filter(|(id, _)| Some(*id) != mine) {
                match self.repository.lock_file(id) {
                    Ok(file) => found.push((id, file)),
                    Err(error) if error.kind() == ErrorKind::Absent => has_moved = true,
                    Err(error) if error.kind() == ErrorKind::Corrupt => {}
                    Err(error) => return Err(error),
                }
            }
            if !has_moved {
                return Ok(found);
            }
        }
    }

    fn lock(&self, exclusive: bool) -> Result<Arc<Held>> {
        for (id, file) in self.others(None)? {
            if self.now() - file.time.secs > STALE_SECS {
                self.store.remove(&StoreKey::new(ObjectKind::Lock, id))?;
            }
        }
        self.look(exclusive, None)?;
        let (held, renew) = self.write_lock(exclusive)?;
        let mine = held.key();
        self.hand.world.keeper(self.hand.actor, renew);
        (self.hand.world.pause(self.hand.actor))(Duration::from_millis(200));
        let outcome = self.look(exclusive, Some(held.key().id));
        if outcome.is_err() {
            self.store.remove(&mine)?;
            self.store.remove(&held.key())?;
        }
        outcome.map(|()| held)
    }

    fn look(&self, exclusive: bool, mine: Option<Id>) -> Result<()> {
        match self.others(mine)?.into_iter().any(|(_, file)| exclusive || file.exclusive) {
            true => Err(Error::new(ErrorKind::Locked, "the stranger finds another's lock")),
            false => Ok(()),
        }
    }

    fn write_lock(&self, exclusive: bool) -> Result<(Arc<Held>, Renewing)> {
        let name = format!("stranger-{}", self.hand.actor);
        let seal = move |sealer: &Sealer, time: Time| -> Result<(StoreKey, Vec<u8>)> {
            let file = LockFile {
                time,
                exclusive,
                hostname: name.clone(),
                username: "them".into(),
                pid: 1,
                uid: 1,
                gid: 1,
                reading: false,
            };
            let bytes = sealer.seal(&file.encode()?)?;
            Ok((StoreKey::new(ObjectKind::Lock, Id(sha256(&bytes))), bytes))
        };
        let now = (self.hand.world.clock(self.hand.actor))();
        let (key, bytes) = seal(&self.sealer, now)?;
        self.store.put(&key, &[&bytes])?;
        let held = Arc::new(Held { at: Mutex::new((now.secs, key)) });
        let (renewing, sealer, place) = (held.clone(), self.sealer.clone(), self.place);
        let renew = move |before: Time, time: Time| {
            let mut at = renewing.at.lock().unwrap_or_else(PoisonError::into_inner);
            // restic does not renew what it could not renew for too long: it gives up.
            if (before.secs - at.0).abs() > GIVES_UP_SECS {
                return None;
            }
            let (new, bytes) = seal(&sealer, time).ok()?;
            let old = std::mem::replace(&mut *at, (time.secs, new)).1;
            Some(Renewal { place, old, new, bytes })
        };
        Ok((held, Box::new(renew)))
    }

    /// Fails when the lock may have been taken for stale. From then on the caller must be steady.
    fn check(&self, held: &Held) -> Result<()> {
        let age = self.now() - held.at.lock().unwrap_or_else(PoisonError::into_inner).0;
        if age.abs() > GIVES_UP_SECS {
            return Err(Error::new(ErrorKind::Cancelled, "the stranger could not refresh its lock"));
        }
        Ok(())
    }

    fn unlock(&self, held: &Held) -> Result<()> {
        self.hand.world.steady(self.hand.actor, false);
        self.store.remove(&held.key())
    }

    /// Saves a recovery point of these files.
    pub(crate) fn backup(&self, files: &[u64]) -> Result<SnapshotId> {
        let held = self.lock(false)?;
        let saved = self.save(files, &held);
        if let Ok(point) = saved {
            self.hand.oracle.acknowledge(&self.hand.world, self.place, point);
            self.hand.world.say(self.hand.actor, format!("saved {} with {files:?}", short(point.0)));
        }
        self.unlock(&held)?;
        saved
    }

    fn save(&self, files: &[u64], held: &Held) -> Result<SnapshotId> {
        let index = self.repository.load_index()?;
        let (mut nodes, mut data) = (Vec::new(), Vec::new());
        let mut names: Vec<(String, Vec<u8>)> = files.iter().map(|file| (file.to_string(), content(*file))).collect();
        names.sort();
        for (name, bytes) in &names {
            let id = Id(sha256(bytes));
            if index.find(BlobId(id)).is_none() {
                data.push((BlobKind::Data, id, bytes.clone()));
            }
            let mut node = Node::new(name.as_str(), NodeKind::File);
            (node.size, node.mode, node.mtime) = (bytes.len() as u64, 0o600, Time::new(1, 0));
            node.content = Some(vec![id.into()]);
            nodes.push(node);
        }
        let mut encoder = TreeEncoder::new();
        for node in &nodes {
            encoder.push(node)?;
        }
        let json = encoder.finish();
        let root = Id(sha256(&json));
        let trees = match index.find(TreeId(root)) {
            Some(_) => Vec::new(),
            None => vec![(BlobKind::Tree, root, json)],
        };
        let mut listed = Vec::new();
        for blobs in [data, trees].into_iter().filter(|blobs| !blobs.is_empty()) {
            listed.push(self.pack(&blobs)?);
        }
        if !listed.is_empty() {
            self.index(&listed)?;
        }
        self.hand.world.steady(self.hand.actor, true);
        self.check(held)?;
        let time = (self.hand.world.clock(self.hand.actor))();
        let nanos = time.nanos;
        let json = format!(r#"{{"time":"2026-01-02T03:04:05.{nanos:09}Z","tree":"{root}","paths":[]}}"#);
        let key = self.put(ObjectKind::Snapshot, &self.sealer.seal(json.as_bytes())?)?;
        Ok(SnapshotId(key.id))
    }

    fn pack(&self, blobs: &[(BlobKind, Id, Vec<u8>)]) -> Result<(PackId, Vec<IndexBlob>)> {
        let (mut bytes, mut entries) = (Vec::new(), Vec::new());
        for (kind, id, content) in blobs {
            let sealed = self.sealer.seal(content)?;
            let (offset, length) = (bytes.len() as u32, sealed.len() as u32);
            entries.push(IndexBlob { id: *id, kind: *kind, offset, length, uncompressed: None });
            bytes.extend(sealed);
        }
        let header = self.sealer.seal(&encode_header(&entries)?)?;
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&trailer(header.len())?);
        Ok((PackId(self.put(ObjectKind::Pack, &bytes)?.id), entries))
    }

    fn index(&self, packs: &[(PackId, Vec<IndexBlob>)]) -> Result<()> {
        let json = encode_index(packs.iter().map(|(id, blobs)| (*id, &blobs[..])));
        self.put(ObjectKind::Index, &self.sealer.seal(&json)?).map(drop)
    }

    /// Removes a recovery point.
    pub(crate) fn forget(&self, point: SnapshotId) -> Result<()> {
        let held = self.lock(false)?;
        let _leaving = self.hand.oracle.release(self.place, point);
        let removed = self.store.remove(&StoreKey::new(ObjectKind::Snapshot, point));
        self.unlock(&held)?;
        removed
    }

    /// Removes what nobody needs, alone with the repository.
    pub(crate) fn prune(&self) -> Result<()> {
        let held = self.lock(true)?;
        let pruned = self.sweep(&held);
        self.unlock(&held)?;
        self.hand.world.say(self.hand.actor, "pruned as a stranger");
        pruned
    }

    fn sweep(&self, held: &Held) -> Result<()> {
        let index = self.repository.load_index()?;
        let index_files = self.store.list(ObjectKind::Index)?;
        let reader = BlobReader::new(self.store.clone(), self.sealer.clone(), index.clone());
        let damaged = Mutex::new(None);
        let points = self.repository.snapshots(|_, error| drop(damaged.lock().map(|mut d| *d = Some(error))))?;
        if let Some(error) = damaged.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let (mut open, mut used) = (Vec::new(), HashSet::new());
        open.extend(points.iter().map(|point| point.file.tree));
        while let Some(tree) = open.pop() {
            if !used.insert(tree.0) {
                continue;
            }
            for node in reader.tree(tree)? {
                open.extend(node.subtree);
                used.extend(node.content.iter().flatten().map(|blob| blob.0));
            }
        }
        let missing = |id: &Id| index.find(BlobId(*id)).is_none() && index.find(TreeId(*id)).is_none();
        if used.iter().any(missing) {
            return Err(Error::corrupt("the stranger misses a blob"));
        }
        let listed: HashSet<PackId> = index.packs().into_iter().collect();
        let (mut kept, mut gone) = (HashMap::new(), Vec::new());
        for (id, _) in self.store.list(ObjectKind::Pack)? {
            let key = StoreKey::new(ObjectKind::Pack, id);
            if !listed.contains(&PackId(id)) {
                gone.push(key);
                continue;
            }
            let entries = entries_of(&self.store.get(&key)?, &self.sealer)
                .map_err(|error| Error::corrupt(format!("the stranger reads a pack: {error:#}")))?;
            if entries.iter().any(|blob| used.contains(&blob.id)) {
                kept.insert(PackId(id), entries);
            } else {
                gone.push(key);
            }
        }
        self.hand.world.steady(self.hand.actor, true);
        self.check(held)?;
        let kept: Vec<_> = kept.into_iter().collect();
        if !kept.is_empty() {
            let json = encode_index(kept.iter().map(|(id, blobs): &(PackId, Vec<IndexBlob>)| (*id, &blobs[..])));
            self.put(ObjectKind::Index, &self.sealer.seal(&json)?)?;
        }
        for (id, _) in index_files {
            self.store.remove(&StoreKey::new(ObjectKind::Index, id))?;
        }
        self.store.sync()?;
        for key in gone {
            self.store.remove(&key)?;
        }
        self.store.sync()
    }
}

impl Held {
    fn key(&self) -> StoreKey {
        self.at.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}
