//! What a restore does to the place it restores to: only what was asked for, whole or not at all.

use crate::forge::{Forge, dir, file};
use crate::rig::{Rig, add_rows, backup_with, count_rows, files, make_database, restore_watched, restore_with, sqlite};
use lastgood_model::manifest::ProblemKind;
use lastgood_model::source::{Captured, Chunking, Finding, Sink, Source, StreamSpec, Verdict};
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{ErrorKind, Monitor, Node, Result, SnapshotId, Time};
use lastgood_ops::backup::BackupOptions;
use lastgood_ops::restore::{self, Destination, RestoreReport, RestoreRequest};
use lastgood_repo::Repository;
use lastgood_stores::{MemoryStore, ReadOnlyStore};
use lastgood_testkit::compare::{assert_identical, scan};
use lastgood_testkit::rng::Rng;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Rig {
    fn request(&self, to: &str) -> RestoreRequest {
        RestoreRequest::all_to(self.path(to))
    }

    fn in_place(&self) -> RestoreRequest {
        RestoreRequest { to: Destination::InPlace, ..self.request("nowhere") }
    }

    fn run(&self, id: SnapshotId, request: RestoreRequest) -> Result<RestoreReport> {
        restore_with(&self.open(), id, request)
    }
}

/// Every file below a folder by its path, with its content; none where there is no folder.
fn files_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    if !folder.exists() {
        return found;
    }
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs_err::read_dir(&next).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                let path = entry.path().strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                found.insert(path, fs_err::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// Where the first blob of a file, or the tree of a directory, lies.
fn place_of(repository: &Repository, id: SnapshotId, path: &str) -> (StoreKey, usize, usize) {
    let reader = repository.reader().unwrap();
    let snapshot = repository.snapshot(id).unwrap();
    let node = lastgood_ops::snapshots::find_node(&reader, &snapshot, path.as_bytes()).unwrap().unwrap();
    let location = match node.subtree {
        Some(tree) => reader.index.find(tree),
        None => reader.index.find(node.content.unwrap()[0]),
    };
    let location = location.unwrap();
    let key = StoreKey::new(ObjectKind::Pack, reader.index.pack(location.pack));
    (key, location.offset as usize, location.length as usize)
}

/// Spoils the first blob of a file, or the tree of a directory.
fn spoil(rig: &Rig, store: &MemoryStore, id: SnapshotId, path: &str) {
    let (key, offset, length) = place_of(&rig.open(), id, path);
    store.damage(&key, |bytes| bytes[offset + length / 2] ^= 1).unwrap();
}

/// The tree's place in a snapshot of the source `files`.
fn inside(tree: &Path, below: &str) -> String {
    format!("files{}/{below}", tree.display())
}

#[test]
fn nothing_that_is_there_is_overwritten_unless_that_was_asked_for() {
    let (rig, _) = Rig::in_memory();
    let tree = rig.plant(&[("a", b"from the backup"), ("b/c", b"also")]);
    let id = rig.backup_tree().snapshot.unwrap();
    let mine = rig.restored("to", "files", &tree).join("a");
    fs_err::create_dir_all(mine.parent().unwrap()).unwrap();
    fs_err::write(&mine, "mine").unwrap();
    fs_err::write(rig.path("to/unrelated"), "mine too").unwrap();
    let before = scan(&rig.path("to")).unwrap();
    let error = rig.run(id, rig.request("to")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.hint().is_some() && error.chain().contains("/to/files"), "{error:?}");
    assert!(scan(&rig.path("to")).unwrap() == before, "a refused restore changed something");
    // Beside it, and into an empty folder of the source's name, there is room.
    fs_err::create_dir_all(rig.path("beside/files")).unwrap();
    fs_err::write(rig.path("beside/unrelated"), "x").unwrap();
    assert_eq!(rig.run(id, rig.request("beside")).unwrap().files, 2);
    assert_identical(&tree, &rig.restored("beside", "files", &tree));
    // A file in the way of the target folder is no folder.
    fs_err::write(rig.path("file"), "x").unwrap();
    assert!(rig.run(id, rig.request("file")).is_err());
    assert_eq!(fs_err::read(rig.path("file")).unwrap(), b"x");
}

#[test]
fn overwriting_writes_what_differs_and_deletes_only_when_told() {
    let (rig, _) = Rig::in_memory();
    let large = Rng::new(1).bytes(8 << 20);
    let tree =
        rig.plant(&[("large", &large), ("same", b"same"), ("longer", b"1234"), ("shorter", b"1234"), ("gone", b"g")]);
    let id = rig.backup_tree().snapshot.unwrap();
    rig.restore(id, "to").unwrap();
    let at = rig.restored("to", "files", &tree);
    let mut altered = large.clone();
    altered[5_000_000] ^= 1;
    fs_err::write(at.join("large"), &altered).unwrap();
    fs_err::write(at.join("longer"), "123456789").unwrap();
    fs_err::write(at.join("shorter"), "12").unwrap();
    fs_err::remove_file(at.join("gone")).unwrap();
    fs_err::create_dir_all(at.join("extra/dir")).unwrap();
    fs_err::write(at.join("extra/dir/file"), "mine").unwrap();
    fs_err::write(rig.path("to/files/stray"), "mine").unwrap();

    let overwrite = RestoreRequest { overwrite: true, ..rig.request("to") };
    let report = rig.run(id, overwrite.clone()).unwrap();
    assert_eq!((report.files, report.failures_total, report.removed), (5, 0, 0), "{report:?}");
    assert!(report.bytes_written < 6 << 20, "{} bytes were written", report.bytes_written);
    assert!(report.files_same >= 1);
    assert_eq!(fs_err::read(at.join("extra/dir/file")).unwrap(), b"mine");
    for (path, content) in files_in(&tree) {
        assert!(fs_err::read(at.join(&path)).unwrap() == content, "{path}");
    }
    let exact = RestoreRequest { delete_extra: true, ..overwrite };
    let report = rig.run(id, exact).unwrap();
    assert!(report.removed >= 2, "{report:?}");
    assert_eq!(report.bytes_written, 0);
    assert_identical(&tree, &at);
    assert!(!rig.path("to/files/stray").exists());
}

#[test]
fn an_entry_of_another_kind_in_the_way_is_replaced_only_when_overwriting() {
    let (rig, _) = Rig::in_memory();
    let tree = rig.plant(&[("file", b"a file"), ("dir/inside", b"inside")]);
    std::os::unix::fs::symlink("file", tree.join("link")).unwrap();
    let id = rig.backup_tree().snapshot.unwrap();
    rig.restore(id, "to").unwrap();
    let at = rig.restored("to", "files", &tree);
    fs_err::write(rig.path("outside"), "outside").unwrap();
    for name in ["file", "link"] {
        fs_err::remove_file(at.join(name)).unwrap();
    }
    // A link out of the tree where a file belongs, and a file where a link belongs.
    std::os::unix::fs::symlink(rig.path("outside"), at.join("file")).unwrap();
    fs_err::write(at.join("link"), "no link").unwrap();
    let report = rig.run(id, RestoreRequest { overwrite: true, ..rig.request("to") }).unwrap();
    assert_eq!(report.failures_total, 0, "{report:?}");
    assert_identical(&tree, &at);
    assert_eq!(fs_err::read(rig.path("outside")).unwrap(), b"outside", "a link was written through");
}

#[test]
fn chosen_paths_and_sources_are_restored_and_nothing_else() {
    let (rig, _) = Rig::in_memory();
    let tree =
        rig.plant(&[("one/a", b"1a"), ("one/b", b"1b"), ("one/deep/c", b"1c"), ("onetwo/x", b"x"), ("two", b"2")]);
    make_database(&rig.path("app.db"), 50);
    let id =
        rig.backup(&[files("files", [tree.clone()]), sqlite("db", &rig.path("app.db"))]).unwrap().snapshot.unwrap();
    let names = |to: &str| {
        let all = files_in(&rig.path(to)).into_keys();
        let prefix = inside(&tree, "");
        all.map(|path| path.strip_prefix(&prefix).map(ToOwned::to_owned).unwrap_or(path)).collect::<Vec<_>>()
    };
    let mut count = 0;
    let mut restored = |paths: &[&str], sources: &[&str]| {
        count += 1;
        let to = format!("to-{count}");
        let paths = paths.iter().map(|p| p.as_bytes().to_vec()).collect();
        let sources = sources.iter().map(|s| (*s).to_owned()).collect();
        rig.run(id, RestoreRequest { paths, sources, ..rig.request(&to) }).map(|_| names(&to)).map_err(|e| e.kind())
    };
    let absolute = |below: &str| format!("{}/{below}", tree.display());
    let one = ["one/a", "one/b", "one/deep/c"].map(ToOwned::to_owned).to_vec();
    assert_eq!(restored(&[&inside(&tree, "one")], &[]), Ok(one.clone()));
    assert_eq!(restored(&[&format!("/{}/", inside(&tree, "one"))], &[]), Ok(one.clone()));
    assert_eq!(restored(&[&absolute("one")], &[]), Ok(one.clone()));
    // What lies in another chosen path is not restored twice.
    assert_eq!(restored(&[&absolute("one"), &absolute("one/deep"), &absolute("one/deep/c")], &[]), Ok(one));
    assert_eq!(restored(&[&absolute("two"), &absolute("one/deep")], &[]), Ok(vec!["one/deep/c".into(), "two".into()]));
    assert_eq!(restored(&[], &["db"]), Ok(vec!["db/app.db".to_owned()]));
    assert_eq!(restored(&["db/app.db"], &[]), Ok(vec!["db/app.db".to_owned()]));
    assert_eq!(restored(&[&absolute("two")], &["files"]), Ok(vec!["two".to_owned()]));
    for (paths, sources) in [
        (vec![absolute("three")], vec![]),
        (vec![absolute("on")], vec![]),
        (vec![absolute("two")], vec!["db"]),
        (vec![], vec!["none"]),
        (vec!["../files".to_owned()], vec![]),
    ] {
        let paths: Vec<&str> = paths.iter().map(|p| &**p).collect();
        assert_eq!(restored(&paths, &sources), Err(ErrorKind::Absent), "{paths:?} {sources:?}");
    }
    // Directories above a chosen path come with their own metadata.
    use std::os::unix::fs::PermissionsExt;
    fs_err::set_permissions(tree.join("one"), PermissionsExt::from_mode(0o751)).unwrap();
    let id = rig.backup_tree().snapshot.unwrap();
    // Also when several lie below the same directory, and the second is written when the first is done.
    let paths = ["one/deep/c", "one/b", "two"].map(|path| absolute(path).into_bytes()).to_vec();
    rig.run(id, RestoreRequest { paths, ..rig.request("above") }).unwrap();
    for path in ["one/deep", "one", "."] {
        let is = fs_err::metadata(rig.restored("above", "files", &tree).join(path)).unwrap();
        let was = fs_err::metadata(tree.join(path)).unwrap();
        let of = |meta: &std::fs::Metadata| (meta.mode(), meta.mtime(), meta.mtime_nsec());
        assert_eq!(of(&is), of(&was), "{path}");
    }
}

#[test]
fn in_place_files_become_what_they_were_and_databases_are_swapped_whole() {
    let (rig, _) = Rig::in_memory();
    let tree = rig.plant(&[("a", b"one"), ("b/c", b"two")]);
    let single = rig.path("single");
    fs_err::write(&single, "alone").unwrap();
    let database = rig.path("app.db");
    make_database(&database, 100);
    let sources = [files("files", [tree.clone(), single.clone()]), sqlite("db", &database)];
    let id = rig.backup(&sources).unwrap().snapshot.unwrap();
    let original = scan(&tree).unwrap();
    fs_err::write(tree.join("a"), "changed").unwrap();
    fs_err::write(tree.join("new"), "since").unwrap();
    fs_err::remove_file(tree.join("b/c")).unwrap();
    fs_err::write(&single, "ruined").unwrap();
    fs_err::write(rig.path("neighbour"), "untouched").unwrap();
    let beside = fs_err::metadata(rig.dir.path()).unwrap().mode();
    add_rows(&database, 30);
    assert_eq!(count_rows(&database), 130);

    let repository = rig.open();
    let monitor = Arc::new(Monitor::new());
    let plan = restore::plan(&repository, repository.snapshot(id).unwrap(), rig.in_place(), &monitor).unwrap();
    let summary = plan.summary.in_place.clone().unwrap();
    assert!(summary.differing >= 2 && summary.missing == 1, "{summary:?}");
    assert_eq!(fs_err::read(&single).unwrap(), b"ruined", "a plan changed something");
    let report = plan.execute(&monitor).unwrap();
    assert_eq!((report.failures_total, report.problems_total), (0, 0), "{report:?}");
    assert_eq!(fs_err::read(&single).unwrap(), b"alone");
    assert_eq!(fs_err::read(tree.join("new")).unwrap(), b"since");
    assert_eq!(fs_err::read(rig.path("neighbour")).unwrap(), b"untouched");
    assert_eq!(fs_err::metadata(rig.dir.path()).unwrap().mode(), beside);
    assert_eq!(count_rows(&database), 100);
    assert_eq!(report.swapped.len(), 1);
    // The state before is kept beside it, whole.
    let kept: Vec<PathBuf> = fs_err::read_dir(rig.dir.path()).unwrap().flatten().map(|e| e.path()).collect();
    let kept = kept.iter().find(|p| {
        let name = p.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("app.db.before-") && !name.ends_with("-wal") && !name.ends_with("-shm")
    });
    assert_eq!(count_rows(kept.expect("the old database is gone")), 130);
    // With extra entries removed, the tree is exactly what it was.
    rig.run(id, RestoreRequest { delete_extra: true, sources: vec!["files".into()], ..rig.in_place() }).unwrap();
    let now = scan(&tree).unwrap();
    assert!(
        now == original,
        "{:?}",
        lastgood_testkit::compare::compare_states(&original, &now, lastgood_testkit::compare::Aspects::ALL)
    );
    // A database that somebody has open is not swapped, and then nothing else is restored either.
    fs_err::write(&single, "again").unwrap();
    let user = rusqlite::Connection::open(&database).unwrap();
    user.execute_batch("begin immediate; insert into item (body) values ('busy')").unwrap();
    assert!(rig.run(id, rig.in_place()).is_err());
    assert_eq!(fs_err::read(&single).unwrap(), b"again", "files were restored beside a database that was not");
}

#[test]
fn damage_costs_the_files_it_hits_and_leaves_nothing_half_done() {
    let (rig, store) = Rig::in_memory();
    let mut rng = Rng::new(2);
    let (one, two) = (rng.bytes(6 << 20), rng.bytes(300_000));
    let tree = rig.plant(&[("hit/large", &one), ("hit/small", &two), ("whole", &two[1..]), ("z/text", b"text")]);
    fs_err::hard_link(tree.join("hit/small"), tree.join("z/other-name")).unwrap();
    let id = rig.backup_tree().snapshot.unwrap();
    spoil(&rig, &store, id, &inside(&tree, "hit/large"));
    spoil(&rig, &store, id, &inside(&tree, "hit/small"));
    let report = rig.run(id, rig.request("to")).unwrap();
    let mut failed: Vec<_> = report.failures.iter().map(|f| f.path.rsplit('/').next().unwrap()).collect();
    failed.sort_unstable();
    assert_eq!(failed, ["large", "other-name", "small"], "{report:?}");
    assert!(report.failures.iter().all(|f| f.damage && f.error.contains("pack")), "{report:?}");
    assert_eq!(report.failures_total, 3);
    let at = rig.restored("to", "files", &tree);
    let left = files_in(&at);
    assert_eq!(left.keys().collect::<Vec<_>>(), ["whole", "z/text"]);
    assert!(left["whole"] == two[1..]);
    // The restore ended, so its mark is gone; once the repository is mended, the rest can be restored over it.
    assert!(!rig.path("to/.lastgood-restore").exists());
    spoil(&rig, &store, id, &inside(&tree, "hit/large"));
    spoil(&rig, &store, id, &inside(&tree, "hit/small"));
    let report = rig.run(id, RestoreRequest { overwrite: true, ..rig.request("to") }).unwrap();
    assert_eq!(report.failures_total, 0, "{report:?}");
    assert_identical(&tree, &at);
}

#[test]
fn a_lost_pack_or_index_entry_is_told_as_damage() {
    let (rig, store) = Rig::in_memory();
    let tree = rig.plant(&[("a", b"in a pack of its own")]);
    rig.backup_tree();
    rig.plant(&[("b", b"in another")]);
    let id = rig.backup_tree().snapshot.unwrap();
    let (pack, ..) = place_of(&rig.open(), id, &inside(&tree, "b"));
    store.remove(&pack).unwrap();
    let report = rig.run(id, rig.request("to")).unwrap();
    assert_eq!(report.failures_total, 1, "{report:?}");
    assert!(report.failures[0].damage && report.failures[0].path.ends_with("/b"), "{report:?}");
    assert_eq!(files_in(&rig.restored("to", "files", &tree)).keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn an_unreadable_directory_costs_itself_alone_and_deletes_nothing() {
    let (rig, store) = Rig::in_memory();
    let tree = rig.plant(&[("lost/a", b"a"), ("lost/b/c", b"c"), ("kept/d", b"d")]);
    let id = rig.backup_tree().snapshot.unwrap();
    rig.restore(id, "to").unwrap();
    let at = rig.restored("to", "files", &tree);
    fs_err::write(at.join("lost/mine"), "mine").unwrap();
    fs_err::write(at.join("kept/extra"), "extra").unwrap();
    spoil(&rig, &store, id, &inside(&tree, "lost"));
    let report = rig.run(id, rig.request("fresh")).unwrap();
    assert_eq!(report.failures_total, 1, "{report:?}");
    assert!(report.failures[0].path.ends_with("/lost") && report.failures[0].damage);
    assert_eq!(fs_err::read(rig.restored("fresh", "files", &tree).join("kept/d")).unwrap(), b"d");

    // To an existing place with everything else removed: what the directory should hold is not known, so all of it stays.
    let exact = RestoreRequest { overwrite: true, delete_extra: true, ..rig.request("to") };
    let report = rig.run(id, exact).unwrap();
    assert_eq!((report.failures_total, report.removed), (1, 1), "{report:?}");
    let left = files_in(&at);
    assert_eq!(left.keys().collect::<Vec<_>>(), ["kept/d", "lost/a", "lost/b/c", "lost/mine"]);
}

#[test]
fn a_file_that_is_there_survives_damage_to_what_should_replace_it() {
    let (rig, store) = Rig::in_memory();
    let mut rng = Rng::new(3);
    let (one, two) = (rng.bytes(100_000), rng.bytes(5 << 20));
    let tree = rig.plant(&[("small", &one), ("large", &two)]);
    let id = rig.backup_tree().snapshot.unwrap();
    spoil(&rig, &store, id, &inside(&tree, "small"));
    fs_err::write(tree.join("small"), "the newest work, and the only copy left").unwrap();
    let report = rig.run(id, rig.in_place()).unwrap();
    assert_eq!(report.failures_total, 1, "{report:?}");
    assert_eq!(fs_err::read(tree.join("small")).unwrap(), b"the newest work, and the only copy left");
    // Where not even the index knows the content, it is the same for a file of many pieces.
    let forge = Forge::new(rig.store.clone(), &rig.password);
    let lost = [1, 2, 3].map(|n| lastgood_model::Id([n; 32]));
    let top = forge.tree(&[dir("x", forge.tree(&[file("large", 3 << 20, &lost)]))]);
    let hollow = forge.snapshot(top);
    fs_err::create_dir_all(rig.path("to/x")).unwrap();
    fs_err::write(rig.path("to/x/large"), "mine").unwrap();
    let report = rig.run(hollow, RestoreRequest { overwrite: true, ..rig.request("to") }).unwrap();
    assert_eq!(report.failures_total, 1, "{report:?}");
    assert_eq!(fs_err::read(rig.path("to/x/large")).unwrap(), b"mine");
}

/// One stream cut into many tiny blobs.
struct Crumbs(Vec<u8>);

impl Source for Crumbs {
    fn name(&self) -> &str {
        "crumbs"
    }
    fn kind(&self) -> &'static str {
        "test"
    }
    fn origins(&self) -> Vec<String> {
        Vec::new()
    }
    fn probe(&self) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }
    fn capture(&self, sink: &dyn Sink, _: &Monitor) -> Result<Captured> {
        let path = b"stream".to_vec();
        let spec = StreamSpec {
            path,
            chunking: Chunking::Fixed(32),
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            time_follows_content: false,
        };
        let mut writer = sink.stream(spec)?;
        writer.write(&self.0)?;
        writer.finish(Verdict { evidence: "all written".into() })?;
        Ok(Captured::default())
    }
}

#[test]
fn a_file_of_more_blobs_than_a_window_is_whole_or_absent() {
    let (rig, store) = Rig::in_memory();
    let content = Rng::new(4).bytes(32 * 110_000);
    let sources: [Box<dyn Source>; 1] = [Box::new(Crumbs(content.clone()))];
    let id = backup_with(&rig.open(), &sources, &BackupOptions::default()).unwrap().snapshot.unwrap();
    let whole = rig.run(id, rig.request("whole")).unwrap();
    assert_eq!((whole.files, whole.failures_total), (1, 0));
    assert!(fs_err::read(rig.path("whole/crumbs/stream")).unwrap() == content);
    // Spoilt in the first window, while the later ones are whole.
    spoil(&rig, &store, id, "crumbs/stream");
    let report = rig.run(id, rig.request("to")).unwrap();
    assert_eq!((report.files, report.failures_total), (0, 1), "{report:?}");
    assert!(!rig.path("to/crumbs/stream").exists(), "a damaged file was left behind");
}

#[test]
fn a_repository_that_is_full_or_read_only_is_restored_from_all_the_same() {
    let (rig, store) = Rig::in_memory();
    let tree = rig.plant(&[("a", b"needed now")]);
    let id = rig.backup_tree().snapshot.unwrap();
    let keys = store.keys();
    store.set_quota(Some(store.used_bytes()));
    rig.run(id, rig.request("full")).unwrap();
    assert_identical(&tree, &rig.restored("full", "files", &tree));
    let repository = rig.open_through(Arc::new(ReadOnlyStore::new(store.clone()))).unwrap();
    restore_with(&repository, id, rig.request("read-only")).unwrap();
    assert_identical(&tree, &rig.restored("read-only", "files", &tree));
    assert_eq!(store.keys(), keys);
}

#[test]
fn a_spoilt_manifest_does_not_stand_between_anybody_and_the_files() {
    let (rig, store) = Rig::in_memory();
    let tree = rig.plant(&[("a", &[5; 4000])]);
    let id = rig.backup_tree().snapshot.unwrap();
    for what in [".lastgood/manifest.json", ".lastgood"] {
        spoil(&rig, &store, id, what);
        let to = format!("to{}", what.len());
        let report = rig.run(id, rig.request(&to)).unwrap();
        assert_eq!(report.failures_total, 0, "{report:?}");
        assert!(report.problems.iter().any(|p| p.path.contains("manifest.json")), "{report:?}");
        assert!(report.manifest_damaged, "{report:?}");
        assert_identical(&tree, &rig.restored(&to, "files", &tree));
        // Without it nobody knows where things came from.
        assert_eq!(rig.run(id, rig.in_place()).unwrap_err().kind(), ErrorKind::Corrupt);
        spoil(&rig, &store, id, what);
    }
}

#[test]
fn all_that_a_point_holds_of_a_file_is_restored_whatever_length_it_claims() {
    let (rig, _) = Rig::in_memory();
    let forge = Forge::new(rig.store.clone(), &rig.password);
    let ids = forge.data(&[b"ten bytes!", &[7; 5000]]);
    let nodes = [
        file("less", 3, &ids),
        file("more", 1 << 40, &ids),
        file("most", i64::MAX as u64, &ids[..1]),
        file("right", 5010, &ids),
    ];
    let id = forge.snapshot(forge.tree(&[dir("x", forge.tree(&nodes))]));
    let report = rig.run(id, rig.request("to")).unwrap();
    assert_eq!((report.files, report.failures_total, report.problems_total), (4, 0, 3), "{report:?}");
    assert!(report.problems.iter().all(|p| p.what == ProblemKind::Changed && p.message.contains("was restored")));
    let lengths: Vec<usize> = files_in(&rig.path("to/x")).values().map(Vec::len).collect();
    assert_eq!(lengths, [5010, 5010, 10, 5010]);
}

#[test]
fn names_of_one_inode_are_linked_only_where_their_content_agrees() {
    let (rig, _) = Rig::in_memory();
    let forge = Forge::new(rig.store.clone(), &rig.password);
    let ids = forge.data(&[b"one", b"two"]);
    let named = |name: &str, id| {
        let mut node: Node = file(name, 3, &[id]);
        (node.links, node.inode, node.device_id) = (3, 4711, 9);
        node
    };
    let nodes = [named("a", ids[0]), named("b", ids[1]), named("c", ids[0]), named("d", ids[1])];
    let id = forge.snapshot(forge.tree(&[dir("x", forge.tree(&nodes))]));
    let report = rig.run(id, rig.request("to")).unwrap();
    assert_eq!((report.files, report.failures_total), (4, 0), "{report:?}");
    let left = files_in(&rig.path("to/x"));
    assert_eq!(left.values().map(|c| &c[..]).collect::<Vec<_>>(), [b"one", b"two", b"one", b"two"]);
    let inode = |name: &str| fs_err::metadata(rig.path("to/x").join(name)).unwrap().ino();
    assert_eq!((inode("a") == inode("c"), inode("b") == inode("d"), inode("a") == inode("b")), (true, true, false));
}

#[test]
fn names_of_one_file_whose_first_cannot_be_restored_are_not_linked_to_what_lies_there() {
    let (rig, _) = Rig::in_memory();
    let forge = Forge::new(rig.store.clone(), &rig.password);
    let gone = lastgood_model::Id([6; 32]);
    let named = |name: &str| {
        let mut node: Node = file(name, 3, &[gone]);
        (node.links, node.inode, node.device_id) = (2, 4711, 9);
        node
    };
    let id = forge.snapshot(forge.tree(&[dir("x", forge.tree(&[named("a"), named("b")]))]));
    fs_err::create_dir_all(rig.path("to/x")).unwrap();
    fs_err::write(rig.path("to/x/a"), "of another time").unwrap();
    let report = rig.run(id, RestoreRequest { overwrite: true, ..rig.request("to") }).unwrap();
    assert_eq!((report.files, report.failures_total), (0, 2), "{report:?}");
    let left = files_in(&rig.path("to/x"));
    assert_eq!(left.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(left["a"], b"of another time");
}

#[test]
fn a_store_that_flips_bits_or_ends_early_costs_files_and_never_a_wrong_byte() {
    use lastgood_stores::{Fault, FaultStore, Op};
    let (rig, store) = Rig::in_memory();
    let mut rng = Rng::new(5);
    let planted: Vec<(String, Vec<u8>)> =
        (0..40).map(|i| (format!("d{}/f{i}", i % 5), rng.bytes(30_000 * (i % 7)))).collect();
    let borrowed: Vec<(&str, &[u8])> = planted.iter().map(|(p, c)| (&**p, &**c)).collect();
    let tree = rig.plant(&borrowed);
    let id = rig.backup_tree().snapshot.unwrap();
    let original = files_in(&tree);
    let mut failures = 0;
    for (round, fault) in (0..30)
        .flat_map(|n| {
            [
                Fault::on(Op::GetRange).nth(n + 1).flips_bit(n * 7919 + 3),
                Fault::on(Op::GetRange).nth(n + 1).cuts_short(20_000),
                Fault::on(Op::GetRange).nth(n + 1).fails_before(ErrorKind::Io),
            ]
        })
        .enumerate()
    {
        let faulty = Arc::new(FaultStore::new(store.clone()).with(fault));
        let repository = rig.open_through(faulty.clone()).unwrap();
        let to = format!("to-{round}");
        match restore_with(&repository, id, rig.request(&to)) {
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Io), "{error:?}"),
            Ok(report) => {
                let left = files_in(&rig.restored(&to, "files", &tree));
                assert!(left.iter().all(|(path, content)| original[path] == *content), "round {round}");
                let lost = (original.len() - left.len()) as u64;
                assert!(report.failures_total >= u64::from(lost > 0), "round {round}: {lost} missing, {report:?}");
                assert_eq!(report.files, left.len() as u64, "round {round}");
                failures += report.failures_total;
            }
        }
        fs_err::remove_dir_all(rig.path(&to)).unwrap_or_default();
        if faulty.fired() == 0 {
            break;
        }
    }
    assert!(failures > 5, "{failures}");
}

#[test]
fn a_tree_deeper_than_any_path_may_be_long_is_restored_exactly() {
    use lastgood_testkit::tree_fixture::{Options, build};
    let (rig, _) = Rig::in_memory();
    let tree = rig.path("tree");
    let options = Options { small_files: 16, large_bytes: 1000, beyond_path_max: true, ..Options::default() };
    build(&tree, &options).unwrap();
    let report = rig.backup_tree();
    assert!(report.complete, "{:?}", report.problems);
    let restored = rig.restore(report.snapshot.unwrap(), "to").unwrap();
    assert_eq!((restored.failures_total, restored.problems_total), (0, 0), "{restored:?}");
    assert_identical(&tree, &rig.restored("to", "files", &tree));
}

#[test]
fn a_restore_watches_for_the_wish_to_stop() {
    let (rig, _) = Rig::in_memory();
    rig.plant(&[("a", b"x")]);
    let id = rig.backup_tree().snapshot.unwrap();
    let monitor = Arc::new(Monitor::new());
    monitor.cancel();
    let error = restore_watched(&rig.open(), id, rig.request("to"), &monitor).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn a_stopped_restore_says_what_it_left_and_is_taken_up_by_the_same_command() {
    let (rig, _) = Rig::in_memory();
    let tree = rig.plant(&[("a", b"x"), ("b", b"y")]);
    let id = rig.backup_tree().snapshot.unwrap();
    fs_err::remove_file(tree.join("a")).unwrap();
    for (request, says) in
        [(rig.request("to"), "/to now holds a part of"), (rig.in_place(), "original places are now partly")]
    {
        let repository = rig.open();
        let monitor = Arc::new(Monitor::new());
        let snapshot = repository.snapshot(id).unwrap();
        let plan = restore::plan(&repository, snapshot, request.clone(), &monitor).unwrap();
        monitor.cancel();
        let error = plan.execute(&monitor).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        let hint = error.hint().unwrap();
        for word in [says, "same command", &id.short()] {
            assert!(hint.contains(word), "{word:?} is not in {hint:?}");
        }
        rig.run(id, request).unwrap();
    }
    assert_eq!(files_in(&tree), files_in(&rig.restored("to", "files", &tree)));
}

#[test]
fn what_is_removed_was_planned_and_never_holds_the_repository() {
    let rig = Rig::on_disk();
    let tree = rig.plant(&[("keep/a", b"a"), ("was-file", b"f")]);
    let id = rig.backup_tree().snapshot.unwrap();
    rig.plant(&[("extra/deep/x", b"12345"), ("keep/extra", b"123"), ("secrets/key", b"k"), ("db-wal", b"")]);
    fs_err::remove_file(tree.join("was-file")).unwrap();
    rig.plant(&[("was-file/inside", b"1")]);
    let request = RestoreRequest {
        delete_extra: true,
        never_remove: vec![tree.join("secrets/key"), rig.path("none")],
        ..rig.in_place()
    };
    let plan_of = |request: &RestoreRequest| {
        let repository = rig.open();
        let snapshot = repository.snapshot(id).unwrap();
        restore::plan(&repository, snapshot, request.clone(), &Monitor::new())
    };
    let plan = plan_of(&request).unwrap();
    let removals = plan.summary.removals.clone().unwrap();
    let below = |path: &str| path.strip_prefix(&format!("{}/", tree.display())).unwrap().to_owned();
    let mut items: Vec<_> = removals.items.iter().map(|i| (below(&i.path), i.entries, i.bytes, i.folder)).collect();
    items.sort();
    let expected =
        [("db-wal", 1, 0, false), ("extra", 3, 5, true), ("keep/extra", 1, 3, false), ("was-file", 2, 1, true)];
    assert_eq!(items, expected.map(|(path, entries, bytes, folder)| (path.to_owned(), entries, bytes, folder)));
    assert_eq!((removals.entries, removals.bytes), (7, 9));
    let mut paths: Vec<String> = removals.paths.iter().map(|path| below(path)).collect();
    paths.sort();
    let all = ["db-wal", "extra", "extra/deep", "extra/deep/x", "keep/extra", "was-file", "was-file/inside"];
    assert_eq!(paths, all);
    assert_eq!(removals.kept.len(), 1, "{:?}", removals.kept);
    assert_eq!(below(&removals.kept[0].path), "secrets");
    // What comes after the plan was made stays, also under a name that was in it.
    rig.plant(&[("later", b"l")]);
    fs_err::rename(tree.join("keep/extra"), rig.path("aside")).unwrap();
    rig.plant(&[("keep/extra", b"another")]);
    let report = plan.execute(&Arc::new(Monitor::new())).unwrap();
    assert_eq!((report.failures_total, report.removed), (0, 4), "{report:?}");
    let left: Vec<String> = files_in(&tree).into_keys().collect();
    assert_eq!(left, ["keep/a", "keep/extra", "later", "secrets/key", "was-file"]);

    // The repository itself needs no naming, and a folder with it in it makes no room for a file.
    fs_err::remove_file(tree.join("was-file")).unwrap();
    fs_err::create_dir(tree.join("was-file")).unwrap();
    fs_err::rename(rig.path("repo"), tree.join("was-file/repo")).unwrap();
    std::os::unix::fs::symlink(tree.join("was-file/repo"), rig.path("repo")).unwrap();
    let refused = plan_of(&request).unwrap_err();
    assert!(refused.kind() == ErrorKind::Conflict && refused.chain().contains("repository"), "{refused:?}");
    fs_err::rename(tree.join("was-file"), tree.join("new-folder")).unwrap();
    fs_err::remove_file(rig.path("repo")).unwrap();
    std::os::unix::fs::symlink(tree.join("new-folder/repo"), rig.path("repo")).unwrap();
    plan_of(&request).unwrap().execute(&Arc::new(Monitor::new())).unwrap();
    rig.assert_sound();
}

#[test]
fn an_original_path_in_several_sources_is_not_guessed_at() {
    let (rig, _) = Rig::in_memory();
    let tree = rig.plant(&[("in/a", b"a"), ("b", b"b")]);
    make_database(&tree.join("app.db"), 3);
    let sources = [files("all", [tree.clone()]), files("part", [tree.join("in")]), sqlite("db", &tree.join("app.db"))];
    let id = rig.backup(&sources).unwrap().snapshot.unwrap();
    let repository = rig.open();
    let (reader, snapshot) = (repository.reader().unwrap(), repository.snapshot(id).unwrap());
    let place = |below: &str| {
        let path = format!("{}{below}", tree.display());
        let found = lastgood_ops::browse::resolve(&reader, &snapshot, path.as_bytes());
        found.map(|(path, _)| String::from_utf8(path).unwrap())
    };
    // `part` holds this directory only as the way to its own.
    assert_eq!(place("").unwrap(), format!("all{}", tree.display()));
    assert_eq!(place("/b").unwrap(), format!("all{}/b", tree.display()));
    for below in ["/in/a", "/app.db"] {
        let refused = place(below).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused:?}");
        assert!(refused.hint().unwrap().contains("all/"), "{:?}", refused.hint());
    }
    assert_eq!(place("/none").unwrap_err().kind(), ErrorKind::Absent);
    let paths = vec![format!("{}/app.db", tree.display()).into_bytes()];
    let request =
        |source: &str| RestoreRequest { paths: paths.clone(), sources: vec![source.to_owned()], ..rig.request(source) };
    rig.run(id, request("db")).unwrap();
    assert_eq!(count_rows(&rig.path("db/db/app.db")), 3);
    rig.run(id, request("all")).unwrap();
    assert_eq!(count_rows(&rig.restored("all", "all", &tree.join("app.db"))), 3);
}

#[test]
fn a_source_that_is_the_whole_file_system_goes_back_below_the_root() {
    let (rig, _) = Rig::in_memory();
    let forge = rig.smith();
    let time = "2026-01-02T03:04:05Z";
    let json = serde_json::json!({
        "type": "lastgood.manifest", "schema": 1, "app": "shop", "program": "0", "host": "h",
        "started": time, "finished": time, "complete": true,
        "sources": [{"name": "all", "kind": "files", "origins": ["/"], "outcome": {"state": "complete"},
                     "started": time, "finished": time, "facts": {}}],
    });
    let json = json.to_string().into_bytes();
    let own = forge.tree(&[file("manifest.json", json.len() as u64, &[forge.data(&[&json])[0]])]);
    let below = forge.tree(&[file("here", 1, &[forge.data(&[b"x"])[0]])]);
    let all = forge.tree(&[dir("lastgood-test-a", below), dir("lastgood-test-b", below)]);
    let id = forge.snapshot(forge.tree(&[dir(".lastgood", own), dir("all", all)]));
    let goes_to = |paths: &[&[u8]]| {
        let repository = rig.open();
        let snapshot = repository.snapshot(id).unwrap();
        let paths = paths.iter().map(|path| path.to_vec()).collect();
        let plan = restore::plan(&repository, snapshot, RestoreRequest { paths, ..rig.in_place() }, &Monitor::new());
        plan.unwrap().summary.items.into_iter().map(|item| item.to).collect::<Vec<_>>()
    };
    assert_eq!(goes_to(&[]), ["/lastgood-test-a", "/lastgood-test-b"]);
    assert_eq!(goes_to(&[b"/lastgood-test-b/here"]), ["/lastgood-test-b/here"]);
}
