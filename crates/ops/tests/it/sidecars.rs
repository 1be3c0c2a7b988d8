//! Databases inside of a file tree, restored over what their application left, and sources backed up in turns.

use crate::rig::{Rig, files, restore_with};
use lastgood_model::ErrorKind;
use lastgood_model::Monitor;
use lastgood_ops::restore::{self, Destination, RestoreRequest};
use rusqlite::Connection;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    connection.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    connection
}

fn rows(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection.prepare("select text from notes order by id").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn an_old_log_never_spoils_a_restored_database() {
    let rig = Rig::on_disk();
    let tree = rig.plant(&[("other.txt", b"kept")]);
    let database = tree.join("app.db");
    let application = open(&database);
    application
        .execute_batch("create table notes(id integer primary key, text); insert into notes(text) values('one')")
        .unwrap();
    let point = rig.backup_tree().snapshot.unwrap();
    application
        .execute_batch("insert into notes(text) values('two'); insert into notes(text) values('three')")
        .unwrap();

    let request = || RestoreRequest { to: Destination::InPlace, ..RestoreRequest::all_to("") };
    let refused = restore_with(&rig.open(), point, request()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Locked, "{}", refused.chain());

    // The application dies: its log stays behind, with commits that the recovery point does not have.
    let wal = tree.join("app.db-wal");
    let left = (fs_err::read(&wal).unwrap(), fs_err::read(tree.join("app.db-shm")).unwrap());
    drop(application);
    fs_err::write(&wal, left.0).unwrap();
    fs_err::write(tree.join("app.db-shm"), left.1).unwrap();

    let report = restore_with(&rig.open(), point, request()).unwrap();
    assert_eq!(report.moved_aside.len(), 2, "{:?}", report.moved_aside);
    assert!(!wal.exists());
    assert!(tree.join("app.db-wal.before-restore-0").exists());
    assert_eq!(rows(&database), ["one"]);
}

#[test]
fn a_source_is_compared_with_the_newest_point_that_holds_it() {
    let rig = Rig::on_disk();
    rig.plant(&[("a", b"first"), ("b", b"second")]);
    fs_err::create_dir(rig.path("more")).unwrap();
    fs_err::write(rig.path("more/c"), b"third").unwrap();
    let both = || vec![files("files", [rig.path("tree")]), files("more", [rig.path("more")])];
    rig.backup(&both()).unwrap();
    rig.backup(&[files("more", [rig.path("more")])]).unwrap();
    let third = rig.backup(&both()).unwrap();
    assert_eq!(third.files, 3);
    assert_eq!(third.files_new, 0, "every file has a parent");
}

#[test]
fn a_database_that_only_its_log_tells_apart_differs_and_its_user_cannot_spoil_the_restored_one() {
    let rig = Rig::on_disk();
    let tree = rig.plant(&[("other.txt", b"kept")]);
    let database = tree.join("app.db");
    let application = open(&database);
    application
        .execute_batch("create table notes(id integer primary key, text); insert into notes(text) values('one')")
        .unwrap();
    application.pragma_update(None, "wal_checkpoint", "truncate").unwrap();
    let point = rig.backup_tree().snapshot.unwrap();
    // The file itself stays what it was: the commit is in the log alone.
    application.execute_batch("insert into notes(text) values('two')").unwrap();
    let inode = fs_err::metadata(&database).unwrap().ino();

    let repository = rig.open();
    let request = || RestoreRequest { to: Destination::InPlace, force: true, ..RestoreRequest::all_to("") };
    let plan = |id| {
        let monitor = Arc::new(Monitor::new());
        restore::plan(&repository, repository.snapshot(id).unwrap(), request(), &monitor).unwrap().summary
    };
    let summary = plan(point);
    let places = summary.in_place.unwrap();
    assert_eq!((places.differing, places.missing), (1, 0), "{places:?}");
    let told = places.examples[0].because.as_deref().unwrap_or_default();
    assert!(places.examples[0].path.ends_with("app.db") && told.contains("app.db-wal"), "{places:?}");
    assert!(summary.side_files.iter().any(|side| side.ends_with("app.db-wal")), "{:?}", summary.side_files);

    restore_with(&repository, point, request()).unwrap();
    assert_ne!(
        fs_err::metadata(&database).unwrap().ino(),
        inode,
        "a user of the old file writes into the restored one"
    );
    assert_eq!(rows(&database), ["one"]);
    // What the application does now happens to the file that it has.
    application.execute_batch("insert into notes(text) values('three'); pragma wal_checkpoint(truncate)").ok();
    drop(application);
    assert_eq!(rows(&database), ["one"]);
    assert_eq!(plan(point).in_place.unwrap().differing, 0);
}

#[test]
fn a_database_without_a_log_is_replaced_and_never_rewritten_under_its_user() {
    let rig = Rig::on_disk();
    let tree = rig.plant(&[("other.txt", b"kept")]);
    let database = tree.join("app.db");
    let application = Connection::open(&database).unwrap();
    application
        .execute_batch("create table notes(id integer primary key, text); insert into notes(text) values('one')")
        .unwrap();
    let point = rig.backup_tree().snapshot.unwrap();
    application.execute_batch("insert into notes(text) values('two')").unwrap();
    let inode = fs_err::metadata(&database).unwrap().ino();

    let request = || RestoreRequest { to: Destination::InPlace, ..RestoreRequest::all_to("") };
    let refused = restore_with(&rig.open(), point, request()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Locked, "{}", refused.chain());
    restore_with(&rig.open(), point, RestoreRequest { force: true, ..request() }).unwrap();
    assert_ne!(fs_err::metadata(&database).unwrap().ino(), inode);
    assert_eq!(rows(&database), ["one"]);
    drop(application);
    // The same once more has nothing to do.
    let inode = fs_err::metadata(&database).unwrap().ino();
    let report = restore_with(&rig.open(), point, request()).unwrap();
    assert_eq!((report.bytes_written, fs_err::metadata(&database).unwrap().ino()), (0, inode), "{report:?}");
}
