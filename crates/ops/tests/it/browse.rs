//! Looking into recovery points, and what differs between two.

use crate::rig::{Rig, backup_with, files};
use lastgood_model::selector::Selector;
use lastgood_model::{ErrorKind, Monitor, SnapshotId};
use lastgood_ops::backup::{self, BackupOptions};
use lastgood_ops::browse::{Descend, cat, resolve, walk};
use lastgood_ops::diff::{Change, diff};
use lastgood_ops::snapshots::pick;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

fn differences(rig: &Rig, old: SnapshotId, new: SnapshotId) -> Vec<(String, Change)> {
    let repository = rig.open();
    let reader = repository.reader().unwrap();
    let tree = |id| {
        let snapshot = repository.snapshot(id).unwrap();
        let top = format!("files{}", rig.path("tree").display());
        resolve(&reader, &snapshot, top.as_bytes()).unwrap().1.unwrap().subtree.unwrap()
    };
    let mut found = Vec::new();
    diff(&reader, tree(old), tree(new), b"", &Monitor::new(), &mut |difference| {
        let sides = (difference.old.is_some(), difference.new.is_some());
        let expected = match difference.change {
            Change::Added => (false, true),
            Change::Removed => (true, false),
            _ => (true, true),
        };
        assert_eq!(sides, expected, "{difference:?}");
        found.push((String::from_utf8(difference.path.to_vec()).unwrap(), difference.change));
        Ok(())
    })
    .unwrap();
    found
}

#[test]
fn every_kind_of_change_is_told_once_and_in_order() {
    let (rig, _) = Rig::in_memory();
    let tree = rig.plant(&[
        ("content", b"one"),
        ("dir-to-file/inside", b"x"),
        ("file-to-dir", b"x"),
        ("gone/a", b"a"),
        ("gone/b/c", b"c"),
        ("mode", b"m"),
        ("same/untouched", b"u"),
        ("touched", b"t"),
    ]);
    symlink("here", tree.join("link")).unwrap();
    let old = rig.backup_tree().snapshot.unwrap();
    assert_eq!(differences(&rig, old, old), []);
    rig.plant(&[("content", b"two"), ("new/x/y", b"y")]);
    fs_err::remove_dir_all(tree.join("dir-to-file")).unwrap();
    fs_err::write(tree.join("dir-to-file"), "now a file").unwrap();
    fs_err::remove_file(tree.join("file-to-dir")).unwrap();
    rig.plant(&[("file-to-dir/inside", b"x")]);
    fs_err::remove_dir_all(tree.join("gone")).unwrap();
    fs_err::set_permissions(tree.join("mode"), PermissionsExt::from_mode(0o600)).unwrap();
    fs_err::remove_file(tree.join("link")).unwrap();
    symlink("there", tree.join("link")).unwrap();
    fs_err::File::options()
        .write(true)
        .open(tree.join("touched"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    let new = rig.backup_tree().snapshot.unwrap();
    let expected = [
        ("content", Change::Modified),
        ("dir-to-file", Change::Type),
        ("dir-to-file/inside", Change::Removed),
        ("file-to-dir", Change::Type),
        ("file-to-dir/inside", Change::Added),
        ("gone", Change::Removed),
        ("gone/a", Change::Removed),
        ("gone/b", Change::Removed),
        ("gone/b/c", Change::Removed),
        ("link", Change::Modified),
        ("mode", Change::Metadata),
        ("new", Change::Added),
        ("new/x", Change::Added),
        ("new/x/y", Change::Added),
        ("touched", Change::Metadata),
    ];
    assert_eq!(differences(&rig, old, new), expected.map(|(path, change)| (path.to_owned(), change)));
    let back = differences(&rig, new, old);
    assert_eq!(back.len(), expected.len());
    let turned = |change| match change {
        Change::Added => Change::Removed,
        Change::Removed => Change::Added,
        same => same,
    };
    for ((path, change), (was, had)) in back.iter().zip(expected) {
        assert_eq!((&**path, *change), (was, turned(had)));
    }
}

#[test]
fn entries_are_found_read_and_told_apart_from_what_is_not_there() {
    let (rig, _) = Rig::in_memory();
    let content = lastgood_testkit::rng::Rng::new(1).bytes(3 << 20);
    let tree = rig.plant(&[("a/large", &content), ("a/z", b"z"), ("b", b"b")]);
    let id = rig.backup_tree().snapshot.unwrap();
    let repository = rig.open();
    let (reader, snapshot) = (repository.reader().unwrap(), repository.snapshot(id).unwrap());
    let path = format!("//files{}/a/large/", tree.display());
    let (clean, node) = resolve(&reader, &snapshot, path.as_bytes()).unwrap();
    assert_eq!(clean, path.trim_matches('/').as_bytes());
    let mut out = Vec::new();
    let length = cat(&reader, node.as_ref().unwrap(), &Monitor::new(), &mut out).unwrap();
    assert!(length == content.len() as u64 && out == content);
    assert!(resolve(&reader, &snapshot, b"/").unwrap().1.is_none());
    for missing in ["files/none", "none", "files/..", &format!("{path}/below")] {
        assert_eq!(resolve(&reader, &snapshot, missing.as_bytes()).unwrap_err().kind(), ErrorKind::Absent, "{missing}");
    }
    let folder = resolve(&reader, &snapshot, b"files").unwrap().1.unwrap();
    let refused = cat(&reader, &folder, &Monitor::new(), &mut Vec::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let mut seen = Vec::new();
    walk(&reader, folder.subtree.unwrap(), b"", &Monitor::new(), |walked| {
        let name = walked.node.display_name();
        let descend = if name == "a" { Descend::No } else { Descend::Yes };
        seen.push(name);
        Ok(descend)
    })
    .unwrap();
    assert_eq!(seen[seen.len() - 2..], ["a", "b"]);
}

#[test]
fn selectors_prefer_the_application_and_do_not_guess_past_a_damaged_point() {
    let (rig, store) = Rig::in_memory();
    let tree = rig.plant(&[("a", b"1")]);
    let first = rig.backup_tree().snapshot.unwrap();
    let second = rig.backup_tree().snapshot.unwrap();
    let other = {
        let monitor = Arc::new(Monitor::new());
        let sources = [files("files", [tree])];
        backup::run(&rig.open(), "other", &sources, &monitor, &BackupOptions::default()).unwrap().snapshot.unwrap()
    };
    let picked = |selector: &str, app: Option<&str>| {
        let selector: Selector = selector.parse().unwrap();
        pick(&rig.open(), &selector, app).map(|snapshot| snapshot.id).map_err(|error| error.kind())
    };
    assert_eq!(picked("latest", Some("shop")), Ok(second));
    assert_eq!(picked("latest", None), Ok(other));
    assert_eq!(picked("latest~1", Some("shop")), Ok(first));
    assert_eq!(picked("app:other", Some("shop")), Ok(other));
    assert_eq!(picked(&first.short(), Some("other")), Ok(first));
    assert_eq!(picked("latest~9", Some("shop")), Err(ErrorKind::Absent));
    // The parent of a run is the newest of its own application.
    let report = backup_with(&rig.open(), &[files("files", [rig.path("tree")])], &BackupOptions::default()).unwrap();
    assert_eq!(report.parent, Some(second));
    let key = lastgood_model::store::StoreKey::new(lastgood_model::store::ObjectKind::Snapshot, second);
    store.damage(&key, |bytes| bytes[40] ^= 1).unwrap();
    for guess in ["latest", "latest~1", "app:other"] {
        assert_eq!(picked(guess, Some("shop")), Err(ErrorKind::Corrupt), "{guess}");
    }
    assert_eq!(picked(&first.short(), Some("shop")), Ok(first));
    assert_eq!(picked(&second.to_string(), Some("shop")), Err(ErrorKind::Corrupt));
}
