//! Strangers judge our bytes, and we read theirs: restic and rustic, on a tree with every oddity and a database.

use crate::rig::{Rig, backup_with, count_rows, files, folder, make_database, restore_with, sqlite};
use lastgood_model::{Monitor, NodeKind, SnapshotId, TreeId};
use lastgood_ops::backup::BackupOptions;
use lastgood_ops::restore::RestoreRequest;
use lastgood_repo::crypto::Password;
use lastgood_repo::{OpenOptions, Repository};
use lastgood_stores::LocalStore;
use lastgood_testkit::compare::{Aspects, Holes, What, assert_identical, compare_states, describe, scan};
use lastgood_testkit::restic::{Restic, is_limit_of_restic};
use lastgood_testkit::rustic::Rustic;
use lastgood_testkit::tree_fixture::{self, Options};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

fn odd_tree(root: &Path) {
    let options = Options { small_files: 120, large_bytes: 5 << 20, sparse_bytes: 20 << 20, ..Options::default() };
    tree_fixture::build(root, &options).unwrap();
}

/// The same but for what restic's own restore does not bring back.
#[track_caller]
fn assert_as_restic_restores(original: &Path, restored: &Path) {
    let (original, restored) = (scan(original).unwrap(), scan(restored).unwrap());
    let mut differences = compare_states(&original, &restored, Aspects::ALL);
    differences.retain(|difference| !is_limit_of_restic(difference, &original));
    assert!(differences.is_empty(), "{}", describe(&differences));
}

/// Opens a repository of restic's or rustic's making.
fn open_theirs(repository: &Path, password_file: &Path) -> Arc<Repository> {
    let password = Password::new(&fs_err::read_to_string(password_file).unwrap()).unwrap();
    let store = Arc::new(LocalStore::new(repository).unwrap());
    Arc::new(Repository::open(store, &password, OpenOptions::default()).unwrap())
}

#[test]
fn strangers_read_check_copy_and_rewrite_what_we_wrote_and_we_restore_it_exactly() {
    let rig = Rig::on_disk();
    let (tree, database) = (rig.path("tree"), rig.path("app.db"));
    odd_tree(&tree);
    make_database(&database, 3000);
    let sources = [files("files", [tree.clone()]), sqlite("db", &database)];
    let report = rig.backup(&sources).unwrap();
    assert!(report.complete && report.problems_total == 0, "{:?}", report.problems);
    let id = report.snapshot.unwrap();

    // Ours: everything, to the last attribute.
    let restored = rig.restore(id, "ours").unwrap();
    assert_eq!((restored.failures_total, restored.problems_total), (0, 0), "{restored:?}");
    assert_identical(&tree, &rig.restored("ours", "files", &tree));
    assert_eq!(count_rows(&rig.path("ours/db/app.db")), 3000);

    // Theirs.
    let restic = Restic::newest(rig.path("repo"), rig.path("password"));
    restic.check_read_data().unwrap();
    let listed = &restic.snapshots().unwrap()[0];
    assert_eq!(listed.id, id.to_string());
    assert!(listed.tags.contains(&"app:shop".to_owned()) && listed.paths.len() == 2, "{listed:?}");
    restic.restore("latest", &rig.path("theirs")).unwrap();
    assert_as_restic_restores(&tree, &rig.restored("theirs", "files", &tree));
    let ours = fs_err::read(rig.path("ours/db/app.db")).unwrap();
    assert!(fs_err::read(rig.path("theirs/db/app.db")).unwrap() == ours);
    assert!(restic.dump("latest", "/db/app.db").unwrap() == ours);
    assert_eq!(restic.dump("latest", &format!("/files{}/names/plain", tree.display())).unwrap(), b"named plain");
    let manifest: serde_json::Value =
        serde_json::from_slice(&restic.dump("latest", "/.lastgood/manifest.json").unwrap()).unwrap();
    assert_eq!(manifest["type"], "lastgood.manifest");
    let notes = restic.dump("latest", "/.lastgood/RESTORE.md").unwrap();
    assert!(String::from_utf8(notes).unwrap().contains("restic -r"));
    assert!(Restic::old(rig.path("repo"), rig.path("password")).check_read_data().is_ok());
    Rustic::new(rig.path("repo"), rig.path("password")).check_read_data().unwrap();

    // Copied elsewhere, and there rewritten: restic refuses to rewrite a tree that it would not write the same.
    let copy = Restic::newest(rig.path("copy"), rig.path("password"));
    copy.init_like(&restic).unwrap();
    restic.copy_to(&copy, &[]).unwrap();
    copy.check_read_data().unwrap();
    let theirs = open_theirs(&copy.repository, &copy.password_file);
    let copied = theirs.snapshots(|id, e| panic!("{id} {e:?}")).unwrap().remove(0);
    assert_eq!(copied.file.tree, theirs.snapshot(copied.id).unwrap().file.tree);
    restore_with(&theirs, copied.id, RestoreRequest::all_to(rig.path("of-copy"))).unwrap();
    assert_identical(&tree, &rig.restored("of-copy", "files", &tree));
    copy.rewrite("**/sizes", &[]).unwrap();
    copy.check_read_data().unwrap();
    let rewritten = theirs.snapshots(|id, e| panic!("{id} {e:?}")).unwrap().remove(0);
    assert_ne!(rewritten.id, copied.id);
    restore_with(&theirs, rewritten.id, RestoreRequest::all_to(rig.path("rewritten"))).unwrap();
    assert!(!rig.restored("rewritten", "files", &tree).join("sizes").exists());
    assert_identical(&tree.join("names"), &rig.restored("rewritten", "files", &tree).join("names"));
    copy.run(["prune", "--max-unused", "0"]).unwrap();
    copy.check_read_data().unwrap();
    restore_with(&theirs, rewritten.id, RestoreRequest::all_to(rig.path("pruned"))).unwrap();
    assert_identical(&tree.join("links"), &rig.restored("pruned", "files", &tree).join("links"));
}

/// Every directory of a snapshot below `top` by its path, with its tree.
fn directories(repository: &Repository, id: SnapshotId, top: &str) -> BTreeMap<Vec<u8>, TreeId> {
    let reader = repository.reader().unwrap();
    let snapshot = repository.snapshot(id).unwrap();
    let node = lastgood_ops::snapshots::find_node(&reader, &snapshot, top.as_bytes()).unwrap().unwrap();
    let mut found = BTreeMap::from([(Vec::new(), node.subtree.unwrap())]);
    lastgood_ops::browse::walk(&reader, node.subtree.unwrap(), b"", &Monitor::new(), |walked| {
        if walked.node.kind == NodeKind::Dir {
            found.insert(walked.path.to_vec(), walked.node.subtree.unwrap());
        }
        Ok(lastgood_ops::browse::Descend::Yes)
    })
    .unwrap();
    found
}

#[test]
fn restic_finds_our_blobs_and_our_directories_to_be_its_own() {
    let rig = Rig::on_disk();
    let tree = rig.path("tree");
    odd_tree(&tree);
    let ours = rig.backup_tree().snapshot.unwrap();
    let restic = Restic::newest(rig.path("repo"), rig.path("password"));
    let mut command = restic.command();
    command.env("TZ", "UTC").args(["backup", "--json"]).arg(&tree);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut summary = output.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let summary: serde_json::Value = summary.rfind(|m: &serde_json::Value| m["message_type"] == "summary").unwrap();
    let theirs: SnapshotId = summary["snapshot_id"].as_str().unwrap().parse().unwrap();

    let repository = rig.open();
    let our_dirs = directories(&repository, ours, &format!("files{}", tree.display()));
    let their_dirs = directories(&repository, theirs, &tree.display().to_string());
    // restic passes over sockets, and cuts sparse files as if they had no holes: these directories and all above them
    // must differ, all others must not.
    let apart: BTreeSet<Vec<u8>> = [&b""[..], b"special", b"sparse"].map(<[u8]>::to_vec).into();
    let paths: Vec<_> = our_dirs.keys().collect();
    assert_eq!(paths, their_dirs.keys().collect::<Vec<_>>());
    for (path, id) in &our_dirs {
        assert_eq!(*id == their_dirs[path], !apart.contains(path), "{}", lastgood_model::node::display_path(path));
    }
    assert!(our_dirs.len() > 40, "{}", our_dirs.len());
    // Only around the islands of sparse files did restic find data that was not there.
    let sparse_data = 16;
    assert!(summary["data_blobs"].as_u64().unwrap() <= sparse_data, "{summary}");
    restic.check_read_data().unwrap();

    // And without sparse files nothing at all.
    let plain = rig.path("plain");
    fs_err::create_dir(&plain).unwrap();
    for part in ["names", "links", "sizes", "many", "attributes", "modes", "times"] {
        fs_err::rename(tree.join(part), plain.join(part)).unwrap();
    }
    rig.backup(&[files("plain", [plain.clone()])]).unwrap();
    let output = restic.command().env("TZ", "UTC").args(["backup", "--json"]).arg(&plain).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find(|line| line.contains(r#""message_type":"summary""#)).unwrap();
    let summary: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(summary["data_blobs"], 0, "{summary}");
}

#[test]
fn a_repository_that_restic_began_is_read_restored_and_continued() {
    let dir = folder();
    let tree = dir.path().join("tree");
    odd_tree(&tree);
    let restic = Restic::newest(dir.path().join("repo"), dir.path().join("password"));
    restic.init().unwrap();
    let first = restic.backup([&tree], &["--tag", "theirs"]).unwrap();
    fs_err::write(tree.join("names/plain"), "changed since").unwrap();
    fs_err::write(tree.join("new"), vec![9; 3 << 20]).unwrap();
    let second = restic.backup([&tree], &[]).unwrap();

    let repository = open_theirs(&restic.repository, &restic.password_file);
    let listed = repository.snapshots(|id, e| panic!("{id} {e:?}")).unwrap();
    assert_eq!(listed.iter().map(|s| s.id.to_string()).collect::<Vec<_>>(), [first.clone(), second.clone()]);
    for (id, name) in [(&first, "one"), (&second, "two")] {
        let target = dir.path().join(name);
        let report = restore_with(&repository, id.parse().unwrap(), RestoreRequest::all_to(&target)).unwrap();
        assert_eq!((report.failures_total, report.problems_total), (0, 0), "{report:?}");
        // As restic restores it, and holes at least where restic makes them.
        let theirs = dir.path().join(format!("{name}-theirs"));
        restic.restore(id, &theirs).unwrap();
        let below = tree.strip_prefix("/").unwrap();
        let (theirs, ours) = (scan(&theirs.join(below)).unwrap(), scan(&target.join(below)).unwrap());
        let mut differences = compare_states(&theirs, &ours, Aspects { holes: Holes::Ignored, ..Aspects::ALL });
        // restic makes no hard links but those of files.
        differences.retain(|d| d.what != What::HardLinks || !is_limit_of_restic(d, &theirs));
        assert!(differences.is_empty(), "{}", describe(&differences));
        if name == "two" {
            assert_as_restic_restores(&tree, &target.join(below));
        }
    }

    let sources = [files("files", [tree.clone()])];
    let report = backup_with(&repository, &sources, &BackupOptions::default()).unwrap();
    assert!(report.complete, "{:?}", report.problems);
    assert!(report.bytes > 30 << 20 && report.bytes_new < 3 << 20, "{} of {} were new", report.bytes_new, report.bytes);
    restic.check_read_data().unwrap();
    assert_eq!(restic.snapshots().unwrap().len(), 3);
    let target = dir.path().join("three");
    restore_with(&repository, report.snapshot.unwrap(), RestoreRequest::all_to(&target)).unwrap();
    assert_identical(&tree, &target.join("files").join(tree.strip_prefix("/").unwrap()));
    // restic goes on in its turn.
    restic.backup([&tree], &[]).unwrap();
    restic.forget_and_prune(&[&first]).unwrap();
    restic.check_read_data().unwrap();
    let again = dir.path().join("four");
    restore_with(&repository, report.snapshot.unwrap(), RestoreRequest::all_to(&again)).unwrap();
    assert_identical(&tree, &again.join("files").join(tree.strip_prefix("/").unwrap()));
}

#[test]
fn a_repository_that_rustic_made_is_read_restored_and_continued() {
    let dir = folder();
    let tree = dir.path().join("tree");
    odd_tree(&tree);
    let rustic = Rustic::new(dir.path().join("repo"), dir.path().join("password"));
    rustic.init().unwrap();
    rustic.backup(&tree).unwrap();
    let repository = open_theirs(&rustic.repository, &rustic.password_file);
    let listed = repository.snapshots(|id, e| panic!("{id} {e:?}")).unwrap();
    assert_eq!(listed.len(), 1);
    let target = dir.path().join("ours");
    let report = restore_with(&repository, listed[0].id, RestoreRequest::all_to(&target)).unwrap();
    assert_eq!(report.failures_total, 0, "{report:?}");
    let (original, restored) = (scan(&tree).unwrap(), scan(&target.join(tree.strip_prefix("/").unwrap())).unwrap());
    // rustic keeps no metadata of the directory it was given.
    let aspects = Aspects { holes: Holes::Ignored, top: false, ..Aspects::ALL };
    let mut differences = compare_states(&original, &restored, aspects);
    differences.retain(|d| !is_limit_of_restic(d, &original));
    assert!(differences.is_empty(), "{}", describe(&differences));

    let report = backup_with(&repository, &[files("files", [tree.clone()])], &BackupOptions::default()).unwrap();
    assert!(report.complete, "{:?}", report.problems);
    assert!(report.bytes_new < 3 << 20, "{} of {} were new", report.bytes_new, report.bytes);
    rustic.check_read_data().unwrap();
    Restic::newest(&rustic.repository, &rustic.password_file).check_read_data().unwrap();
}
