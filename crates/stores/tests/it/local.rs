//! What a local folder promises beyond the contract.

use crate::pack;
use lastgood_model::store::{ObjectKind, Store, StoreKey, Swept};
use lastgood_model::{ErrorKind, Id};
use lastgood_stores::LocalStore;
use rustix::fs::{FlockOperation, Timespec, Timestamps};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn created() -> (tempfile::TempDir, LocalStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path().join("repository")).unwrap();
    store.create().unwrap();
    (folder, store)
}

/// Every path below `root`.
fn below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs_err::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if fs_err::symlink_metadata(&path).unwrap().is_dir() {
                todo.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    fs_err::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_layout_is_that_of_restic_and_for_the_owner_alone() {
    let (_folder, store) = created();
    let all = below(store.root());
    assert_eq!(all.len(), 5 + 256);
    for path in all.iter().map(PathBuf::as_path).chain([store.root()]) {
        assert_eq!(mode(path), 0o700, "{}", path.display());
    }
    for name in ["keys", "locks", "snapshots", "index", "data/00", "data/7f", "data/ff"] {
        assert!(store.root().join(name).is_dir(), "{name}");
    }
    store.put(&StoreKey::CONFIG, &[b"c"]).unwrap();
    store.put(&pack(0xab), &[b"p"]).unwrap();
    for path in ["config".to_owned(), format!("data/ab/{}", "ab".repeat(32))] {
        assert_eq!(mode(&store.root().join(path)), 0o600);
    }
    assert_eq!(below(store.root()).len(), 5 + 256 + 2, "no temporary is left");
}

#[test]
fn opening_and_reading_make_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("none");
    let store = LocalStore::new(&root).unwrap();
    assert_eq!(store.get(&StoreKey::CONFIG).unwrap_err().kind(), ErrorKind::Absent);
    assert_eq!(store.size(&StoreKey::CONFIG).unwrap_err().kind(), ErrorKind::Absent);
    assert!(!root.exists());
}

#[test]
fn a_repository_whose_disk_vanished_is_told_apart_and_nothing_is_written_in_its_place() {
    let (folder, store) = created();
    store.put(&StoreKey::CONFIG, &[b"c"]).unwrap();
    store.put(&pack(1), &[b"p"]).unwrap();
    store.sync().unwrap();
    fs_err::rename(store.root(), folder.path().join("away")).unwrap();
    for is_empty_mount_point in [false, true] {
        if is_empty_mount_point {
            fs_err::create_dir(store.root()).unwrap();
        }
        let check = |result: lastgood_model::Result<()>| {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoRepository, "{error:?}");
            assert!(error.chain().contains(&store.location()), "{error:?}");
            assert!(error.hint().unwrap().contains("mounted"));
        };
        check(store.put(&pack(2), &[b"p"]));
        check(store.put(&StoreKey::CONFIG, &[b"p"]));
        check(store.get(&pack(1)).map(drop));
        check(store.size(&pack(1)).map(drop));
        check(store.remove(&pack(1)));
        check(store.sweep(Duration::ZERO).map(drop));
        for kind in ObjectKind::LISTED {
            check(store.list(kind).map(drop));
        }
        assert_eq!(store.get(&StoreKey::CONFIG).unwrap_err().kind(), ErrorKind::Absent);
        assert_eq!(store.root().exists(), is_empty_mount_point);
    }
    assert_eq!(below(store.root()), Vec::<PathBuf>::new());
    fs_err::remove_dir(store.root()).unwrap();
    fs_err::rename(folder.path().join("away"), store.root()).unwrap();
    assert_eq!(store.get(&pack(1)).unwrap(), b"p", "and all is well when it is back");
}

#[test]
fn a_probe_writes_where_objects_go_and_leaves_nothing() {
    let (folder, store) = created();
    let root = folder.path().join("repository");
    let before = below(&root);
    store.probe().unwrap();
    assert_eq!(below(&root).len(), before.len());
    fs_err::remove_dir(root.join("index")).unwrap();
    store.probe().expect("it would be made when needed");
    fs_err::write(root.join("index"), "").unwrap();
    let error = store.probe().unwrap_err();
    assert!(error.chain().contains("repository/index"), "{}", error.chain());
    fs_err::rename(&root, folder.path().join("elsewhere")).unwrap();
    fs_err::create_dir(&root).unwrap();
    assert_eq!(store.probe().unwrap_err().kind(), ErrorKind::NoRepository);
    assert!(below(&root).is_empty());
}

#[test]
fn a_sync_that_failed_is_due_again() {
    let (folder, store) = created();
    store.sync().unwrap();
    store.put(&pack(1), &[b"p"]).unwrap();
    fs_err::rename(store.root(), folder.path().join("away")).unwrap();
    let error = store.sync().unwrap_err();
    assert!(error.message().ends_with("data/01"), "{error}");
    store.sync().unwrap_err();
    fs_err::rename(folder.path().join("away"), store.root()).unwrap();
    store.sync().unwrap();
    fs_err::rename(store.root(), folder.path().join("away")).unwrap();
    store.sync().expect("nothing is left to flush, so nothing is looked at");
}

#[test]
fn folders_left_out_by_a_copying_tool_are_empty_and_come_back_when_needed() {
    let (_folder, store) = created();
    store.put(&StoreKey::CONFIG, &[b"c"]).unwrap();
    for kind in ObjectKind::LISTED {
        fs_err::remove_dir_all(store.root().join(kind.folder())).unwrap();
    }
    for kind in ObjectKind::LISTED {
        assert_eq!(store.list(kind).unwrap(), []);
        assert_eq!(store.get(&StoreKey::new(kind, Id([1; 32]))).unwrap_err().kind(), ErrorKind::Absent);
    }
    store.sweep(Duration::ZERO).unwrap();
    for kind in ObjectKind::LISTED {
        store.put(&StoreKey::new(kind, Id([1; 32])), &[b"x"]).unwrap();
        assert_eq!(store.list(kind).unwrap(), [(Id([1; 32]), 1)]);
    }
    store.sync().unwrap();
}

#[test]
fn packs_directly_in_data_are_read_and_removed_like_others() {
    let (_folder, store) = created();
    let flat = store.root().join("data").join(pack(5).id.to_string());
    fs_err::write(&flat, b"flat").unwrap();
    store.put(&pack(6), &[b"deep"]).unwrap();
    let mut packs = store.list(ObjectKind::Pack).unwrap();
    packs.sort_unstable();
    assert_eq!(packs, [(pack(5).id, 4), (pack(6).id, 4)]);
    assert_eq!(store.get(&pack(5)).unwrap(), b"flat");
    assert_eq!(store.size(&pack(5)).unwrap(), 4);
    let mut out = Vec::new();
    store.get_range(&pack(5), 1, 2, &mut out).unwrap();
    assert_eq!(out, b"la");
    store.put(&pack(5), &[b"flat"]).unwrap();
    assert_eq!(store.list(ObjectKind::Pack).unwrap().len(), 2, "known, so not written a second time");
    fs_err::copy(&flat, store.root().join("data/05").join(pack(5).id.to_string())).unwrap();
    assert_eq!(store.list(ObjectKind::Pack).unwrap().len(), 2, "listed once though there twice");
    store.remove(&pack(5)).unwrap();
    assert_eq!(store.get(&pack(5)).unwrap_err().kind(), ErrorKind::Absent);
    assert_eq!(store.list(ObjectKind::Pack).unwrap(), [(pack(6).id, 4)]);
}

#[test]
fn a_pack_in_a_folder_where_it_does_not_belong_is_not_listed() {
    let (_folder, store) = created();
    fs_err::write(store.root().join("data/01").join(pack(2).id.to_string()), b"lost").unwrap();
    assert_eq!(store.list(ObjectKind::Pack).unwrap(), []);
}

#[test]
fn an_object_cut_short_is_replaced_by_a_whole_one() {
    let (_folder, store) = created();
    let path = store.root().join(pack(3).path());
    store.put(&pack(3), &[b"whole"]).unwrap();
    fs_err::write(&path, b"who").unwrap();
    let mut out = Vec::new();
    let error = store.get_range(&pack(3), 1, 4, &mut out).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.message(), format!("{} is 3 bytes, shorter than the 5 needed", path.display()));
    store.put(&pack(3), &[b"whole"]).unwrap();
    store.get_range(&pack(3), 1, 4, &mut out).unwrap();
    assert_eq!(out, b"hole", "also where the old file was kept open");
}

#[test]
fn a_pack_removed_behind_our_back_is_absent_though_it_was_open() {
    let (_folder, store) = created();
    store.put(&pack(4), &[b"bytes"]).unwrap();
    let mut out = Vec::new();
    store.get_range(&pack(4), 0, 5, &mut out).unwrap();
    fs_err::remove_file(store.root().join(pack(4).path())).unwrap();
    assert_eq!(store.get_range(&pack(4), 0, 5, &mut out).unwrap_err().kind(), ErrorKind::Absent);
    assert!(out.is_empty());
}

#[test]
fn what_is_no_regular_file_is_damage_and_never_blocks() {
    let (_folder, store) = created();
    for (n, kind) in [(1, "folder"), (2, "pipe")] {
        let path = store.root().join(pack(n).path());
        if kind == "folder" {
            fs_err::create_dir(&path).unwrap();
        } else {
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        }
        let mut out = Vec::new();
        assert_eq!(store.get(&pack(n)).unwrap_err().kind(), ErrorKind::Corrupt, "{kind}");
        assert_eq!(store.get_range(&pack(n), 0, 1, &mut out).unwrap_err().kind(), ErrorKind::Corrupt, "{kind}");
        assert_eq!(store.size(&pack(n)).unwrap_err().kind(), ErrorKind::Corrupt, "{kind}");
        assert_eq!(store.put(&pack(n), &[b"x"]).unwrap_err().kind(), ErrorKind::Corrupt, "{kind}");
    }
    assert_eq!(store.list(ObjectKind::Pack).unwrap(), []);
}

#[test]
fn folders_and_objects_behind_symbolic_links_are_found() {
    let (folder, store) = created();
    let other_disk = folder.path().join("other");
    fs_err::create_dir(&other_disk).unwrap();
    fs_err::remove_dir(store.root().join("data/07")).unwrap();
    symlink(&other_disk, store.root().join("data/07")).unwrap();
    store.put(&pack(7), &[b"far"]).unwrap();
    store.sync().unwrap();
    symlink(other_disk.join(pack(7).id.to_string()), store.root().join(pack(8).path())).unwrap();
    symlink("nowhere", store.root().join(pack(9).path())).unwrap();
    let mut packs = store.list(ObjectKind::Pack).unwrap();
    packs.sort_unstable();
    assert_eq!(packs, [(pack(7).id, 3), (pack(8).id, 3)]);
    assert_eq!(store.get(&pack(8)).unwrap(), b"far");
    assert_eq!(store.get(&pack(9)).unwrap_err().kind(), ErrorKind::Absent);
    assert_eq!(fs_err::read_dir(&other_disk).unwrap().count(), 1);
}

#[test]
fn a_root_that_is_a_file_is_refused_with_its_path() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let store = LocalStore::new(file.path()).unwrap();
    let error = store.create().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains(&file.path().display().to_string()), "{error}");
    assert_eq!(store.get(&StoreKey::CONFIG).unwrap_err().kind(), ErrorKind::Absent);
    assert_eq!(store.list(ObjectKind::Key).unwrap_err().kind(), ErrorKind::NoRepository);
    LocalStore::new(file.path().join("below")).unwrap().create().unwrap_err();
}

#[test]
fn leftovers_of_killed_writers_are_swept_once_old_and_nothing_else_is() {
    let (_folder, store) = created();
    store.put(&StoreKey::CONFIG, &[b"c"]).unwrap();
    let hour = Duration::from_secs(3600);
    let plant = |path: &str, age: Duration| {
        let path = store.root().join(path);
        fs_err::write(&path, b"half").unwrap();
        let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - age;
        let time = Timespec { tv_sec: moment.as_secs() as i64, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        path
    };
    let old = [".tmp-7-0-00000001", "keys/.tmp-7-1-00000002", "data/.tmp-7-2-00000003", "data/ff/.tmp-7-3-00000004"]
        .map(|path| plant(path, 2 * hour));
    let kept = [
        plant("data/ff/.tmp-7-4-00000005", hour / 2),
        plant("data/ff/.tmp-other", 2 * hour),
        plant("snapshots/notes", 2 * hour),
        plant(&pack(1).path(), 2 * hour),
    ];
    // A writer that is alive, though slow, holds its lock.
    let living = plant("index/.tmp-7-5-00000006", 2 * hour);
    let writer = fs_err::File::open(&living).unwrap();
    rustix::fs::flock(&writer, FlockOperation::LockExclusive).unwrap();

    assert_eq!(store.sweep(hour).unwrap(), Swept { leftovers: 4, bytes: 16 });
    assert!(old.iter().all(|path| !path.exists()));
    assert!(kept.iter().chain([&living]).all(|path| path.exists()));
    assert_eq!(store.sweep(hour).unwrap(), Swept::default());

    drop(writer);
    assert_eq!(store.sweep(hour).unwrap(), Swept { leftovers: 1, bytes: 4 });
    assert!(!living.exists());
}

#[test]
fn a_change_of_the_working_directory_does_not_move_the_store() {
    let store = LocalStore::new("relative/repository").unwrap();
    assert!(store.root().is_absolute());
    assert_eq!(store.location(), store.root().display().to_string());
}
