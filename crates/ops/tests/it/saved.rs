//! A source's folder read back for a server: in order, whole, and never wrong.

use crate::rig::Rig;
use lastgood_model::saved::SavedFiles;
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{ErrorKind, Monitor};
use lastgood_ops::saved::SourceFolder;
use lastgood_ops::snapshots::find_node;
use lastgood_testkit::rng::Rng;
use std::sync::Arc;

fn folder(rig: &Rig, monitor: &Arc<Monitor>) -> (SourceFolder, String) {
    let repository = rig.open();
    let snapshot = repository.snapshot(*rig.snapshots().last().unwrap()).unwrap();
    let reader = repository.reader().unwrap();
    let top = find_node(&reader, &snapshot, b"files").unwrap().unwrap().subtree.unwrap();
    let below = rig.path("tree").display().to_string().trim_start_matches('/').to_owned();
    (SourceFolder::new(reader, top, monitor.clone()), below)
}

#[test]
fn files_of_many_windows_come_back_in_order_and_a_repeated_blob_each_time() {
    let (rig, _) = Rig::in_memory();
    let mut large = Rng::new(1).bytes(9 << 20);
    large.extend_from_within(..);
    rig.plant(&[("large", &large), ("dir/small", b"small"), ("dir/empty", b"")]);
    rig.backup_tree();
    let (folder, below) = folder(&rig, &Arc::new(Monitor::new()));
    let read = |name: &str| folder.read(format!("{below}/{name}").as_bytes());
    assert!(read("large").unwrap() == large);
    assert_eq!(read("dir/small").unwrap(), b"small");
    assert_eq!(read("dir/empty").unwrap(), b"");
    for absent in ["dir", "dir/none", "none/small", "large/x", ""] {
        assert_eq!(read(absent).unwrap_err().kind(), ErrorKind::Absent, "{absent:?}");
    }
    let names = |path: &str| -> Vec<Vec<u8>> {
        folder.list(format!("{below}{path}").as_bytes()).unwrap().into_iter().map(|node| node.name).collect()
    };
    assert_eq!(names("/dir"), [b"empty".to_vec(), b"small".to_vec()]);
    assert_eq!(names(""), [b"dir".to_vec(), b"large".to_vec()]);
    assert_eq!(folder.list(b"nowhere").unwrap_err().kind(), ErrorKind::Absent);
}

#[test]
fn damage_and_a_wish_to_stop_end_the_reading_with_an_error() {
    let (rig, store) = Rig::in_memory();
    rig.plant(&[("large", &Rng::new(2).bytes(9 << 20))]);
    rig.backup_tree();
    let monitor = Arc::new(Monitor::new());
    let (folder, below) = folder(&rig, &monitor);
    let path = format!("{below}/large").into_bytes();
    let mut reader = folder.open(&path).unwrap();
    let mut bytes = Vec::new();
    assert!(reader.read(&mut bytes).unwrap());
    for (id, size) in store.list(ObjectKind::Pack).unwrap() {
        let key = StoreKey::new(ObjectKind::Pack, id);
        let mut pack = store.get(&key).unwrap();
        if size > 1 << 20 {
            pack.iter_mut().step_by(1000).for_each(|byte| *byte ^= 1);
            store.remove(&key).unwrap();
            store.put(&key, &[&pack]).unwrap();
        }
    }
    let before = bytes.len();
    let error = std::iter::repeat_with(|| reader.read(&mut bytes)).find_map(Result::err).unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(bytes.len(), before, "nothing of a damaged window is handed out");
    monitor.cancel();
    assert_eq!(folder.read(&path).unwrap_err().kind(), ErrorKind::Cancelled);
}
