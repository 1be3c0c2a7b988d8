//! Databases inside of a file tree, restored over what their application left, and sources backed up in turns.

use crate::rig::{Rig, files, restore_with};
use lastgood_model::ErrorKind;
use lastgood_ops::restore::{Destination, RestoreRequest};
use rusqlite::Connection;
use std::path::Path;

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
