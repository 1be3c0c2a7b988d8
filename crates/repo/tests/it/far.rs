//! A store that is far away: each call is a round trip, so that few are made.

use crate::rig::{Rig, contents, save};
use lastgood_model::source::Chunking;
use lastgood_model::store::{Capabilities, ObjectKind, Store, StoreKey};
use lastgood_model::{ErrorKind, Id, Result, SnapshotId, TreeId};
use lastgood_repo::lock::system_clock;
use lastgood_repo::{BlobReader, Repository};
use lastgood_stores::{MemoryStore, Op, RecordStore};
use std::sync::Arc;

/// Memory that says it is far away.
#[derive(Debug)]
struct Far(MemoryStore);

impl Store for Far {
    fn location(&self) -> String {
        "far".to_owned()
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities { connections: 8, coalesce_gap_bytes: 512 << 10, ..self.0.capabilities() }
    }
    fn create(&self) -> Result<()> {
        self.0.create()
    }
    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        self.0.put(key, parts)
    }
    fn sync(&self) -> Result<()> {
        self.0.sync()
    }
    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        self.0.get(key)
    }
    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        self.0.get_range(key, offset, length, out)
    }
    fn size(&self, key: &StoreKey) -> Result<u64> {
        self.0.size(key)
    }
    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        self.0.list(kind)
    }
    fn remove(&self, key: &StoreKey) -> Result<()> {
        self.0.remove(key)
    }
}

const FOLDERS: usize = 60;

/// A point of many folders.
fn saved(rig: &Rig) -> SnapshotId {
    let files: Vec<(String, Vec<u8>)> =
        (0..FOLDERS).map(|n| (format!("folder-{n}/file"), format!("content {n}").into_bytes())).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    save(&rig.open(), Chunking::Rows, &files).unwrap().id()
}

/// All trees of a point: how many can be read, and what kinds of errors others meet.
fn walk(reader: &BlobReader, tree: TreeId, errors: &mut Vec<ErrorKind>) -> usize {
    match reader.tree(tree) {
        Ok(nodes) => {
            1 + nodes.iter().filter_map(|node| node.subtree).map(|tree| walk(reader, tree, errors)).sum::<usize>()
        }
        Err(error) => {
            errors.push(error.kind());
            0
        }
    }
}

fn root(repository: &Repository, point: SnapshotId) -> TreeId {
    repository.snapshot(point).unwrap().file.tree
}

#[test]
fn trees_of_a_far_store_are_read_together() {
    let rig = Rig::new();
    let point = saved(&rig);
    let store = Arc::new(RecordStore::new(Far(rig.store.clone())));
    let meter = store.meter();
    let far = rig.open_through(store, system_clock()).unwrap();
    let reader = far.reader().unwrap();
    let before = meter.counts();
    let mut errors = Vec::new();
    let trees = walk(&reader, root(&far, point), &mut errors);
    assert!(trees > FOLDERS && errors.is_empty(), "{trees} {errors:?}");
    let reads = meter.counts().since(&before).of(Op::GetRange).calls;
    assert_eq!(reads, 1, "all trees of a small point lie in one region");
    assert_eq!(contents(&far, point).unwrap(), contents(&rig.open(), point).unwrap());
}

#[test]
fn a_damaged_tree_of_a_far_store_is_told_and_spoils_no_other() {
    let rig = Rig::new();
    let point = saved(&rig);
    let far = rig.open_through(Arc::new(Far(rig.store.clone())), system_clock()).unwrap();
    let top = root(&far, point);
    let index = far.load_index().unwrap();
    let folders: Vec<TreeId> = {
        let db = far
            .reader()
            .unwrap()
            .tree(top)
            .unwrap()
            .into_iter()
            .find_map(|node| (node.display_name() == "db").then_some(node.subtree).flatten());
        let nodes = far.reader().unwrap().tree(db.unwrap()).unwrap();
        nodes.iter().filter_map(|node| node.subtree).collect()
    };
    let location = index.find(folders[7]).unwrap();
    let key = StoreKey::new(ObjectKind::Pack, index.pack(location.pack));
    let mut pack = rig.store.get(&key).unwrap();
    pack[location.offset as usize + 20] ^= 1;
    rig.store.remove(&key).unwrap();
    rig.store.put(&key, &[&pack]).unwrap();
    let mut errors = Vec::new();
    let reader = far.reader().unwrap();
    let trees = walk(&reader, top, &mut errors);
    assert!(trees >= FOLDERS, "{trees}");
    assert_eq!(errors, [ErrorKind::Corrupt]);
}

#[test]
fn all_points_of_a_far_store_are_listed_in_order_and_the_damaged_one_is_told() {
    let rig = Rig::new();
    let mut made: Vec<SnapshotId> =
        (0..12u8).map(|n| save(&rig.open(), Chunking::Rows, &[("file", &[n][..])]).unwrap().id()).collect();
    let key = StoreKey::new(ObjectKind::Snapshot, made.remove(5));
    let mut bytes = rig.store.get(&key).unwrap();
    bytes[30] ^= 1;
    rig.store.remove(&key).unwrap();
    rig.store.put(&key, &[&bytes]).unwrap();
    let far = rig.open_through(Arc::new(Far(rig.store.clone())), system_clock()).unwrap();
    let mut damaged = Vec::new();
    let listed = far.snapshots(|id, _| damaged.push(id)).unwrap();
    assert_eq!(listed.iter().map(|snapshot| snapshot.id).collect::<Vec<_>>(), made);
    assert_eq!(damaged, [SnapshotId(key.id)]);
    // Nobody answers: an error, and not a shorter list.
    let broken = lastgood_stores::FaultStore::new(Far(rig.store.clone()))
        .with(lastgood_stores::Fault::on(Op::Get).of(ObjectKind::Snapshot).nth(3).fails_before(ErrorKind::Retry));
    let broken = rig.open_through(Arc::new(broken), system_clock()).unwrap();
    assert_eq!(broken.snapshots(|_, _| ()).unwrap_err().kind(), ErrorKind::Retry);
}
