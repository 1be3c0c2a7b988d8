use super::walk::{Kept, Taken, take};
use crate::files::FilesOptions;
use crate::held::{self, Hold};
use lastgood_model::manifest::ProblemKind;
use lastgood_model::source::Chunking;
use rusqlite::Connection;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A database that an application in this process works on, with what the application needs to keep its locks: another
/// process's would not be touched by our closing files.
struct Application {
    conn: Connection,
    _hold: Hold,
}

fn application(path: &Path, mode: &str) -> Application {
    fs_err::write(path, b"").unwrap();
    let stat = fs_err::metadata(path).unwrap();
    let hold = held::hold(stat.dev(), stat.ino());
    let conn = Connection::open(path).unwrap();
    conn.pragma_update(None, "journal_mode", mode).unwrap();
    conn.execute_batch("CREATE TABLE t(x); INSERT INTO t SELECT value FROM json_each('[1,2,3,4,5,6,7]')").unwrap();
    Application { conn, _hold: hold }
}

/// The rows of a captured database, restored to another place.
#[track_caller]
fn rows(kept: &Kept) -> i64 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("restored");
    fs_err::write(&path, &kept.content).unwrap();
    assert_eq!(kept.node.size, kept.content.len() as u64);
    let conn = Connection::open(&path).unwrap();
    let check: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

fn inside(taken: &Taken, folder: &Path) -> Vec<String> {
    let top = format!("{}/", folder.to_str().unwrap().trim_start_matches('/'));
    let Some(found) = taken.captured.facts.get("sqlite_inside") else { return Vec::new() };
    let paths = found.as_array().unwrap().iter().map(|p| p.as_str().unwrap());
    paths.map(|p| p.strip_prefix(&top).unwrap().to_owned()).collect()
}

#[test]
fn a_database_in_use_is_captured_with_what_is_in_its_log_and_without_its_side_files() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::create_dir(folder.path().join("sub")).unwrap();
    let path = folder.path().join("sub/app.db");
    let app = application(&path, "wal");
    // Names that sort between a database and its side files, and one that only looks like a side file.
    for other in ["sub/app.db-a", "sub/app.db-wal2", "sub/notes", "sub/notes-wal"] {
        fs_err::write(folder.path().join(other), b"text").unwrap();
    }
    assert!(fs_err::metadata(folder.path().join("sub/app.db-wal")).unwrap().len() > 0, "rows are in the log");
    let taken = take(folder.path(), FilesOptions::default());
    assert_eq!(taken.names(), ["sub", "sub/app.db", "sub/app.db-a", "sub/app.db-wal2", "sub/notes", "sub/notes-wal"]);
    let kept = taken.get("sub/app.db");
    assert_eq!(rows(kept), 7);
    assert!(kept.volatile, "is read each time, since its own times do not tell of the log");
    assert!(taken.problems().is_empty(), "{:?}", taken.problems);
    assert_eq!(inside(&taken, folder.path()), ["sub/app.db"]);
    drop(app);
}

#[test]
fn what_a_restore_moved_aside_from_a_database_is_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let app = application(&folder.path().join("app.db"), "delete");
    for name in ["app.db-wal.before-restore-0", "app.db-shm.before-restore-10", "notes-wal.before-restore-0", "notes"] {
        fs_err::write(folder.path().join(name), b"text").unwrap();
    }
    let taken = take(folder.path(), FilesOptions::default());
    assert_eq!(taken.names(), ["app.db", "notes", "notes-wal.before-restore-0"]);
    let left_out = &taken.captured.facts["left_out"];
    assert_eq!(left_out["side files of databases that a restore moved aside"], 2, "{left_out}");
    drop(app);
}

#[test]
fn excluding_side_files_does_not_make_their_database_torn() {
    let folder = tempfile::tempdir().unwrap();
    let app = application(&folder.path().join("app.db"), "wal");
    let taken = take(folder.path(), FilesOptions { exclude: vec!["*-wal".into()], ..FilesOptions::default() });
    assert_eq!(taken.names(), ["app.db"]);
    assert_eq!(rows(taken.get("app.db")), 7);
    assert!(taken.get("app.db").volatile);
    drop(app);
}

#[test]
fn an_idle_database_is_read_as_one_and_keeps_its_page_cuts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("idle");
    drop(application(&path, "delete"));
    let taken = take(folder.path(), FilesOptions::default());
    assert_eq!(rows(taken.get("idle")), 7);
    assert!(!taken.get("idle").volatile, "its times tell");
    assert_eq!(inside(&taken, folder.path()), ["idle"]);

    let dir = super::walk::open_top(folder.path(), FilesOptions::default());
    let entry = super::walk::entry(&*dir, b"idle");
    let reader = dir.open_file(&entry, &lastgood_model::Monitor::new()).unwrap();
    assert!(matches!(reader.chunking(), Chunking::Fixed(_)));
}

#[test]
fn a_database_named_as_the_configured_path_itself_is_captured_consistently() {
    let folder = tempfile::tempdir().unwrap();
    let path = fs_err::canonicalize(folder.path()).unwrap().join("app.db");
    let app = application(&path, "wal");
    app.conn.execute_batch("INSERT INTO t VALUES (8)").unwrap();
    let taken = take(&path, FilesOptions::default());
    let kept = taken.kept.values().next().unwrap();
    assert_eq!((rows(kept), taken.kept.len(), kept.volatile), (8, 1, true));
}

#[test]
fn what_only_looks_like_a_database_is_stored_byte_for_byte_with_its_side_files_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken");
    drop(application(&path, "delete"));
    let mut bytes = fs_err::read(&path).unwrap();
    let cut_short = bytes[..4096].to_vec();
    // A number that must be 64 in every database.
    bytes[21] = 1;
    fs_err::write(&path, &bytes).unwrap();
    fs_err::write(folder.path().join("broken-wal"), b"log").unwrap();
    fs_err::write(folder.path().join("lonely"), &cut_short).unwrap();
    // The magic alone is not enough to be taken for a database.
    fs_err::write(folder.path().join("note"), [&b"SQLite format 3\0"[..], &[0; 496]].concat()).unwrap();
    let taken = take(folder.path(), FilesOptions::default());
    assert_eq!(taken.names(), ["broken", "broken-wal", "lonely", "note"]);
    assert!(taken.get("broken").content == bytes && taken.get("lonely").content == cut_short);
    assert_eq!(taken.get("broken-wal").content, b"log");
    assert_eq!(taken.problems(), [(ProblemKind::Metadata, "broken"), (ProblemKind::Metadata, "lonely")]);
    assert!(inside(&taken, folder.path()).is_empty());
}

#[test]
fn a_database_kept_locked_is_stored_with_its_journal_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let app = application(&path, "persist");
    app.conn.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (8)").unwrap();
    // More than the cache holds is written into the file itself, so that its bytes alone are of two moments.
    app.conn.pragma_update(None, "cache_size", 1).unwrap();
    app.conn.execute_batch("INSERT INTO t SELECT hex(zeroblob(3000)) FROM t").unwrap();
    let taken = take(folder.path(), FilesOptions::default());
    assert_eq!(taken.names(), ["app.db", "app.db-journal"]);
    assert_eq!(taken.problems(), [(ProblemKind::Changed, "app.db")]);
    assert!(taken.problems[0].message.contains("side files"), "{:?}", taken.problems);
    assert!(taken.get("app.db").content == fs_err::read(&path).unwrap());
    // Restored together, SQLite rolls the unfinished transaction back.
    let restored = tempfile::tempdir().unwrap();
    for name in taken.names() {
        fs_err::write(restored.path().join(&name), &taken.get(&name).content).unwrap();
    }
    let conn = Connection::open(restored.path().join("app.db")).unwrap();
    assert_eq!(conn.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 7);
}
