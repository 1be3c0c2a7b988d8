//! restic reads, checks, writes and prunes what we pruned, and we what it did.

use super::{run, thorough};
use crate::rig::save;
use lastgood_model::Monitor;
use lastgood_model::source::Chunking;
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_repo::Repository;
use lastgood_repo::crypto::Password;
use lastgood_repo::gc::{PruneOptions, prune};
use lastgood_stores::LocalStore;
use lastgood_testkit::restic::Restic;
use lastgood_testkit::rng::Rng;
use std::sync::Arc;

#[test]
fn restic_finds_no_fault_with_what_we_prune_and_we_none_with_what_it_prunes() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (root, password) = (dir.path().join("repo"), dir.path().join("password"));
    let tree = dir.path().join("tree");
    fs_err::create_dir(&tree).unwrap();
    let restic = Restic::newest(&root, &password);
    restic.init().unwrap();
    let mut rng = Rng::new(40);
    let mut theirs = Vec::new();
    for n in 0..4 {
        fs_err::write(tree.join(format!("file-{n}")), rng.bytes(1 << 20)).unwrap();
        if n > 0 {
            fs_err::write(tree.join("changing"), rng.bytes(2 << 20)).unwrap();
        }
        theirs.push(restic.backup([&tree], &[]).unwrap());
    }
    let store = Arc::new(LocalStore::new(&root).unwrap());
    let key = Password::new(&fs_err::read_to_string(&password).unwrap()).unwrap();
    let repository = Arc::new(Repository::open(store.clone(), &key, Default::default()).unwrap());
    let mine = save(&repository, Chunking::Rows, &[("a", &rng.bytes(3 << 20))]).unwrap().id();
    let also = save(&repository, Chunking::Rows, &[("b", &rng.bytes(1 << 20))]).unwrap().id();

    let forget =
        |id: &str| store.remove(&StoreKey::new(ObjectKind::Snapshot, id.parse::<lastgood_model::Id>().unwrap()));
    for id in [&theirs[1], &theirs[2], &mine.to_string()] {
        forget(id).unwrap();
        let report = prune(&repository, &Monitor::new(), &thorough()).unwrap();
        assert!(report.packs_removed > 0 && report.kept.is_empty(), "{report:?}");
        restic.check_read_data().unwrap();
    }
    for id in [&theirs[0], &theirs[3]] {
        let target = dir.path().join(format!("restored-{id}"));
        restic.restore(id, &target).unwrap();
    }
    let target = dir.path().join(format!("restored-{}", theirs[3]));
    let restored = target.join(tree.strip_prefix("/").unwrap());
    for name in ["file-0", "file-1", "file-2", "file-3", "changing"] {
        assert!(fs_err::read(restored.join(name)).unwrap() == fs_err::read(tree.join(name)).unwrap(), "{name}");
    }

    // restic's prune finds next to nothing to do, and does not mind the side directory; then ours comes after its.
    restic.run(["prune", "--max-unused", "0"]).unwrap();
    restic.check_read_data().unwrap();
    restic.forget_and_prune(&[&theirs[0]]).unwrap();
    restic.backup([&tree], &[]).unwrap();
    let report = run(&repository).unwrap();
    assert!(report.kept.is_empty() && report.deferred.is_none(), "{report:?}");
    restic.check_read_data().unwrap();
    assert!(crate::rig::contents(&repository, also).unwrap().contains_key("db/b"));
}

#[test]
fn we_move_no_more_bytes_than_restic_would() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (root, password) = (dir.path().join("repo"), dir.path().join("password"));
    let tree = dir.path().join("tree");
    fs_err::create_dir(&tree).unwrap();
    let restic = Restic::newest(&root, &password);
    restic.init().unwrap();
    let mut rng = Rng::new(41);
    let mut theirs = Vec::new();
    for n in 0..8 {
        for file in 0..10 {
            if n == 0 || file == n || file == n + 1 {
                fs_err::write(tree.join(format!("file-{file}")), rng.bytes(3 << 20)).unwrap();
            }
        }
        theirs.push(restic.backup([&tree], &[]).unwrap());
    }
    let store = Arc::new(LocalStore::new(&root).unwrap());
    let key = Password::new(&fs_err::read_to_string(&password).unwrap()).unwrap();
    let repository = Repository::open(store.clone(), &key, Default::default()).unwrap();
    for id in &theirs[..7] {
        store.remove(&StoreKey::new(ObjectKind::Snapshot, id.parse::<lastgood_model::Id>().unwrap())).unwrap();
    }
    let told = restic.run(["prune", "--dry-run", "--verbose=2"]).unwrap();
    let told = String::from_utf8_lossy(&told).into_owned();
    // "to repack:            40 blobs / 60.000 MiB"
    let line = told.lines().find(|line| line.starts_with("to repack:")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let amount: f64 = words[words.len() - 2].parse().unwrap();
    let unit = match words[words.len() - 1] {
        "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        other => panic!("{other} in {line:?}"),
    };
    let report = prune(&repository, &Monitor::new(), &PruneOptions::default()).unwrap();
    assert!(report.bytes_moved as f64 <= 1.1 * amount * unit, "{} bytes, restic {line:?}", report.bytes_moved);
    assert!(report.packs_removed > 0 && report.bytes_unused_left as f64 <= 0.06 * report.bytes_used as f64);
    restic.check_read_data().unwrap();
}
