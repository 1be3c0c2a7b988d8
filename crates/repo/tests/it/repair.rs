//! Repairs add and never take: what was sound stays so, what can be saved is, and the rest is named.

use crate::rig::{Contents, Rig, contents, save};
use lastgood_model::manifest::Manifest;
use lastgood_model::source::Chunking;
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{Monitor, PackId, SnapshotId};
use lastgood_repo::check::{CheckOptions, check};
use lastgood_repo::gc::{MaxUnused, PruneOptions, prune};
use lastgood_repo::repair;
use lastgood_testkit::rng::Rng;
use std::time::Duration;

const NO_WAIT: Duration = Duration::ZERO;

/// Two points with two files each.
fn two_points(seed: u64) -> (Rig, Vec<(SnapshotId, Contents)>) {
    let rig = Rig::new();
    let mut rng = Rng::new(seed);
    let (a, b, c) = (rng.bytes(600_000), rng.bytes(500_000), rng.bytes(400_000));
    let mut points = Vec::new();
    for files in [[("a", &a), ("b", &b)], [("a", &a), ("c", &c)]] {
        let files = files.map(|(name, content)| (name, &content[..]));
        let id = save(&rig.open(), Chunking::Rows, &files).unwrap().id();
        points.push((id, contents(&rig.open(), id).unwrap()));
    }
    (rig, points)
}

fn all_there(rig: &Rig, before: &[StoreKey]) {
    let after = rig.store.keys();
    assert!(before.iter().all(|key| after.contains(key)), "a repair removed something");
}

#[test]
fn packs_that_lost_their_index_file_are_listed_anew() {
    let (rig, points) = two_points(1);
    for key in rig.keys_of(ObjectKind::Index) {
        let fork = rig.over(rig.store.fork());
        fork.store.remove(&key).unwrap();
        let before = fork.store.keys();
        let report = repair::index(&fork.open(), &Monitor::new(), NO_WAIT).unwrap();
        assert!(!report.packs_listed.is_empty() && report.unsaved.is_empty(), "{report:?}");
        all_there(&fork, &before);
        fork.assert_sound();
        let again = repair::index(&fork.open(), &Monitor::new(), NO_WAIT).unwrap();
        assert!(again.packs_listed.is_empty(), "{again:?}");
        for (id, expected) in &points {
            assert!(contents(&fork.open(), *id).unwrap() == *expected);
        }
    }
}

#[test]
fn what_is_sound_in_a_damaged_pack_is_saved_and_prune_then_clears_the_pack_away() {
    let (rig, points) = two_points(2);
    for pack in rig.keys_of(ObjectKind::Pack) {
        let fork = rig.over(rig.store.fork());
        // Cut in the middle: the header is gone, and half of the blobs.
        fork.store.damage(&pack, |bytes| bytes.truncate(bytes.len() / 2)).unwrap();
        let before = fork.store.keys();
        let report = repair::packs(&fork.open(), &Monitor::new(), &[PackId(pack.id)], NO_WAIT).unwrap();
        all_there(&fork, &before);
        let one = &report.packs[0];
        assert!(!one.unsaved.is_empty(), "{report:?}");
        if fork.store.size(&pack).unwrap() > 150_000 {
            assert!(one.blobs_saved > 1, "{report:?}");
        }
        let again = repair::packs(&fork.open(), &Monitor::new(), &[PackId(pack.id)], NO_WAIT).unwrap();
        assert_eq!((again.packs[0].blobs_saved, again.packs_written.len()), (0, 0), "{again:?}");
        assert_eq!(again.packs[0].blobs_elsewhere, one.blobs_saved);
    }
    // Where another copy of everything turns up, the damaged pack goes.
    let fork = rig.over(rig.store.fork());
    let pack = fork.keys_of(ObjectKind::Pack).into_iter().max_by_key(|key| rig.store.size(key).unwrap()).unwrap();
    fork.store.damage(&pack, |bytes| bytes[100..200].fill(1)).unwrap();
    repair::packs(&fork.open(), &Monitor::new(), &[PackId(pack.id)], NO_WAIT).unwrap();
    let lost = points.iter().filter(|(id, _)| contents(&fork.open(), *id).is_err()).count();
    assert!(lost > 0, "one blob is lost for good");
    fork.store.remove(&pack).unwrap();
    fork.store.put(&pack, &[&rig.store.get(&pack).unwrap()]).unwrap();
    for (id, expected) in &points {
        assert!(contents(&fork.open(), *id).unwrap() == *expected, "what was saved serves with what came back");
    }
    let options = PruneOptions { max_unused: MaxUnused::Percent(0.0), ..PruneOptions::default() };
    prune(&fork.open(), &Monitor::new(), &options).unwrap();
    fork.assert_sound();
}

#[test]
fn a_damaged_point_gets_a_sound_one_beside_it_that_names_what_it_lacks() {
    let (rig, points) = two_points(3);
    let before = rig.store.keys();
    let report = repair::snapshots(&rig.open(), &Monitor::new(), true, NO_WAIT).unwrap();
    assert_eq!((report.sound, report.repaired.len(), report.unsaved.len()), (2, 0, 0));
    assert_eq!(rig.store.keys(), before, "a repair of what is sound wrote something");

    // The pack with what the second point alone has.
    let sizes = |key: &StoreKey| rig.store.size(key).unwrap();
    let pack = rig.keys_of(ObjectKind::Pack).into_iter().find(|k| (400_000..450_000).contains(&sizes(k))).unwrap();
    for read_data in [false, true] {
        let fork = rig.over(rig.store.fork());
        if read_data {
            fork.store.damage(&pack, |bytes| bytes[..200_000].fill(0)).unwrap();
        } else {
            fork.store.remove(&pack).unwrap();
        }
        let before = fork.store.keys();
        let report = repair::snapshots(&fork.open(), &Monitor::new(), read_data, NO_WAIT).unwrap();
        all_there(&fork, &before);
        assert_eq!((report.sound, report.repaired.len(), report.unsaved.len()), (1, 1, 0), "{report:?}");
        let repaired = &report.repaired[0];
        assert_eq!(repaired.snapshot, points[1].0);
        assert!(repaired.left_out.iter().any(|path| path == "db/c"), "{repaired:?}");
        let file = fork.open().snapshot(repaired.new).unwrap().file;
        assert_eq!(file.original, Some(points[1].0));
        assert!(file.tags.iter().any(|tag| tag == "repaired") && file.tags.iter().any(|tag| tag == "incomplete"));
        let found = contents(&fork.open(), repaired.new).unwrap();
        assert!(found["db/a"] == points[1].1["db/a"] && !found.contains_key("db/c"));
        if let Some(manifest) = manifest(&fork, repaired.new) {
            assert!(!manifest.complete);
            assert!(manifest.problems.iter().any(|problem| problem.path == "db/c"), "{manifest:?}");
        }
        let again = repair::snapshots(&fork.open(), &Monitor::new(), read_data, NO_WAIT).unwrap();
        assert!(again.repaired.iter().all(|repaired| repaired.was_there), "{again:?}");
        // With the damaged one forgotten, the repository is sound again.
        fork.store.remove(&StoreKey::new(ObjectKind::Snapshot, points[1].0)).unwrap();
        let options = PruneOptions { max_unused: MaxUnused::Percent(0.0), ..PruneOptions::default() };
        prune(&fork.open(), &Monitor::new(), &options).unwrap();
        let found = check(&fork.open(), &Monitor::new(), &CheckOptions::default()).unwrap();
        assert!(found.snapshots_affected.is_empty(), "{:?}", found.damage);
    }
}

/// The manifest of a point, where it is there.
fn manifest(rig: &Rig, id: SnapshotId) -> Option<Manifest> {
    let repository = rig.open();
    let reader = repository.reader().unwrap();
    let root = reader.tree(repository.snapshot(id).unwrap().file.tree).unwrap();
    let folder = root.into_iter().find(|node| node.name == Manifest::FOLDER.as_bytes())?;
    let file = reader.tree(folder.subtree?).unwrap().into_iter().find(|node| node.name == b"manifest.json")?;
    let bytes: Vec<u8> = file.content?.iter().flat_map(|id| reader.data(*id).unwrap()).collect();
    Some(serde_json::from_slice(&bytes).unwrap())
}
