//! Repositories made by others, and others' words on ours.

use lastgood_model::Monitor;
use lastgood_repo::Repository;
use lastgood_repo::check::{CheckOptions, VerifyOptions, check, verify};
use lastgood_repo::crypto::Password;
use lastgood_stores::LocalStore;
use lastgood_testkit::restic::Restic;
use lastgood_testkit::rng::Rng;
use lastgood_testkit::rustic::Rustic;
use lastgood_testkit::tree_fixture::{self, Options};
use std::path::Path;
use std::sync::Arc;

fn open(root: &Path, password_file: &Path) -> Repository {
    let password = Password::new(&fs_err::read_to_string(password_file).unwrap()).unwrap();
    Repository::open(Arc::new(LocalStore::new(root).unwrap()), &password, Default::default()).unwrap()
}

#[test]
fn what_restic_and_rustic_made_is_sound_and_counted_as_they_count() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (root, password) = (dir.path().join("repo"), dir.path().join("password"));
    let tree = dir.path().join("tree");
    let options = Options { small_files: 60, large_bytes: 5 << 20, sparse_bytes: 3 << 20, ..Options::default() };
    tree_fixture::build(&tree, &options).unwrap();
    let restic = Restic::newest(&root, &password);
    restic.init().unwrap();
    restic.backup([&tree], &[]).unwrap();
    fs_err::write(tree.join("more"), Rng::new(3).bytes(2 << 20)).unwrap();
    let second = restic.backup([&tree], &[]).unwrap();

    let repository = open(&root, &password);
    let report = verify(&repository, &Monitor::new(), &VerifyOptions::all()).unwrap();
    assert!(report.is_sound() && report.notes.is_empty(), "{:#?} {:?}", report.damage, report.notes);
    let count = |kind: &str| restic.list(kind).unwrap().len() as u64;
    assert_eq!(report.counts.snapshots, 2);
    assert_eq!(report.counts.packs, count("packs"));
    assert_eq!(report.counts.index_files, count("index"));
    assert_eq!(report.packs_verified, count("packs"));
    assert_eq!(report.blobs_verified, count("blobs"));
    assert!(fs_err::read_dir(root.join("locks")).unwrap().next().is_none());

    // Forgotten, rewritten in part, and written to by a third.
    restic.forget_and_prune(&[&second]).unwrap();
    let rustic = Rustic::new(&root, &password);
    rustic.backup(&tree.join("sizes")).unwrap();
    let report = verify(&repository, &Monitor::new(), &VerifyOptions::all()).unwrap();
    assert!(report.is_sound(), "{:#?}", report.damage);
    assert_eq!(report.counts.snapshots, 2);
}

#[test]
fn restic_and_we_agree_on_what_is_damaged() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (root, password) = (dir.path().join("repo"), dir.path().join("password"));
    let tree = dir.path().join("tree");
    fs_err::create_dir(&tree).unwrap();
    fs_err::write(tree.join("file"), Rng::new(4).bytes(3 << 20)).unwrap();
    let restic = Restic::newest(&root, &password);
    restic.init().unwrap();
    restic.backup([&tree], &[]).unwrap();
    restic.check_read_data().unwrap();
    for pack in restic.list("packs").unwrap() {
        let path = root.join("data").join(&pack[..2]).join(&pack);
        let whole = fs_err::read(&path).unwrap();
        let mut bad = whole.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        // restic makes its packs read-only, and opened ones may still be in somebody's hand.
        let replace = |bytes: &[u8]| {
            fs_err::remove_file(&path).unwrap();
            fs_err::write(&path, bytes).unwrap();
        };
        replace(&bad);
        assert!(restic.check_read_data().is_err());
        let report = verify(&open(&root, &password), &Monitor::new(), &VerifyOptions::all()).unwrap();
        assert_eq!(report.damage_total, 1, "{:#?}", report.damage);
        assert!(report.damage[0].object.to_string().ends_with(&pack));
        fs_err::remove_file(&path).unwrap();
        assert!(restic.check().is_err());
        let report = check(&open(&root, &password), &Monitor::new(), &CheckOptions::default()).unwrap();
        assert_eq!(report.damage_total, 1);
        fs_err::write(&path, &whole).unwrap();
    }
    restic.check_read_data().unwrap();
}
