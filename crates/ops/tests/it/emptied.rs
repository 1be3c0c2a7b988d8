//! Paths that are missing and folders that have become empty: a disk that is not mounted never looks like success.

use crate::rig::{Rig, files, make_database, sqlite};
use lastgood_model::manifest::{ProblemKind, SourceOutcome};
use lastgood_model::{ErrorKind, Monitor};
use lastgood_ops::emptied::{Had, last_with_tables};
use lastgood_ops::restore::{self, Destination, RestoreRequest};
use serde_json::json;
use std::sync::Arc;

#[test]
fn a_missing_path_is_a_problem_and_the_others_are_captured_and_restored_in_place() {
    let (rig, _) = Rig::in_memory();
    let tree = rig.plant(&[("a/x", b"kept"), ("b/y", b"y")]);
    let source = || [files("files", [tree.join("a"), tree.join("b")])];
    assert!(rig.backup(&source()).unwrap().complete);
    fs_err::remove_dir_all(tree.join("b")).unwrap();
    let report = rig.backup(&source()).unwrap();
    assert!(!report.complete);
    let (record, missing) = (&report.sources[0], tree.join("b").to_str().unwrap().to_owned());
    assert_eq!((&record.outcome, record.entries), (&SourceOutcome::Partial, 1));
    assert_eq!(record.origins, [tree.join("a").to_str().unwrap()], "where what is in the point was");
    assert_eq!(record.facts["missing"], json!([missing]));
    let problem = &report.problems[0];
    assert_eq!((problem.source.as_str(), &problem.path, problem.what), ("files", &missing, ProblemKind::Unreadable));

    fs_err::write(tree.join("a/x"), "changed").unwrap();
    let (repository, monitor) = (rig.open(), Arc::new(Monitor::new()));
    let snapshot = repository.snapshot(report.snapshot.unwrap()).unwrap();
    let request = RestoreRequest { to: Destination::InPlace, ..RestoreRequest::all_to("nowhere") };
    restore::plan(&repository, snapshot, request, &monitor).unwrap().execute(&monitor).unwrap();
    assert_eq!(fs_err::read(tree.join("a/x")).unwrap(), b"kept");

    fs_err::remove_dir_all(tree.join("a")).unwrap();
    let error = rig.backup(&source()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "there is no point without a source: {error:?}");
    assert_eq!(rig.snapshots().len(), 2);
}

#[test]
fn a_folder_that_became_empty_is_told_of_as_long_as_a_recent_point_had_files() {
    let (rig, _) = Rig::in_memory();
    let tree = rig.plant(&[("disk/x", b"x"), ("disk/sub/y", b"y"), ("other/z", b"z")]);
    fs_err::create_dir(tree.join("never")).unwrap();
    let source = || [files("files", ["disk", "never", "other"].map(|path| tree.join(path)))];
    let good = rig.backup(&source()).unwrap();
    assert!(good.emptied.is_empty(), "what never had files has lost none: {:?}", good.emptied);
    fs_err::rename(tree.join("disk"), tree.join("unmounted")).unwrap();
    fs_err::create_dir(tree.join("disk")).unwrap();
    for _ in 0..2 {
        let report = rig.backup(&source()).unwrap();
        assert!(report.complete && report.problems.is_empty());
        let [emptied] = report.emptied.as_slice() else { panic!("{:?}", report.emptied) };
        assert_eq!(
            (emptied.path.as_str(), emptied.had),
            (tree.join("disk").to_str().unwrap(), Had::Folder { files: 3 })
        );
        assert_eq!(Some(emptied.snapshot), good.snapshot, "the newest point in which it had files");
        assert_eq!(report.sources[0].facts["emptied"][0]["snapshot"], json!(good.snapshot));
    }
    // Other sources are not asked about it, and files that are back end it.
    assert!(rig.backup(&[files("others", [tree.join("disk")])]).unwrap().emptied.is_empty());
    fs_err::write(tree.join("disk/x"), "x").unwrap();
    assert!(rig.backup(&source()).unwrap().emptied.is_empty());
}

#[test]
fn a_database_that_became_empty_is_told_of_with_the_last_point_that_had_its_tables() {
    let (rig, _) = Rig::in_memory();
    let database = rig.path("app.db");
    fs_err::write(rig.path("new.db"), "").unwrap();
    make_database(&database, 7);
    let source = || [sqlite("db", &database), sqlite("new", &rig.path("new.db"))];
    let good = rig.backup(&source()).unwrap();
    assert!(good.emptied.is_empty(), "what never had tables has lost none: {:?}", good.emptied);
    for side in ["", "-wal", "-shm"] {
        fs_err::remove_file(rig.path(&format!("app.db{side}"))).ok();
    }
    fs_err::write(&database, "").unwrap();
    let report = rig.backup(&source()).unwrap();
    assert!(report.complete, "{report:?}");
    let [emptied] = report.emptied.as_slice() else { panic!("{:?}", report.emptied) };
    assert_eq!((emptied.source.as_str(), emptied.had), ("db", Had::Database { tables: 1, rows: 7 }));
    assert_eq!(Some(emptied.snapshot), good.snapshot);
    let manifest = rig.manifest(report.snapshot.unwrap());
    assert_eq!(manifest.source("db").unwrap().facts["emptied"][0]["tables"], json!(1));
    let last = last_with_tables(&rig.open(), "shop", "db").unwrap();
    assert_eq!(last.map(|(id, _)| id), good.snapshot);
    assert_eq!(last_with_tables(&rig.open(), "shop", "new").unwrap(), None);
    // A database with a table but no row in it is not empty.
    fs_err::remove_file(&database).unwrap();
    make_database(&database, 0);
    assert!(rig.backup(&source()).unwrap().emptied.is_empty());
}
