//! The manifest's facts hold for the captured file and for no other content.

use super::*;
use lastgood_model::ErrorKind;
use lastgood_sources::sqlite::{Method, verify_file};

/// Tables of every kind: without rowid, full text, R-Tree, generated columns, sequences, invalid text, all value types.
fn zoo(db: &Path) {
    Connection::open(db)
        .unwrap()
        .execute_batch(
            "CREATE TABLE plain(a, b TEXT, c REAL);
             INSERT INTO plain VALUES (NULL, '', 1), (1, 'a' || char(0) || 'b', 1.5), (x'00ff', CAST(x'ff41' AS TEXT), -0.0);
             CREATE TABLE pairs(k TEXT, n INTEGER, v BLOB, PRIMARY KEY(k, n)) WITHOUT ROWID;
             INSERT INTO pairs VALUES ('x', 1, zeroblob(9000)), ('x', 2, NULL), ('y', 1, 'text');
             CREATE TABLE computed(a INTEGER, twice AS (a * 2), thrice AS (a * 3) STORED);
             INSERT INTO computed(a) VALUES (1), (2);
             CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, t);
             INSERT INTO counted(t) VALUES ('one'), ('two'); DELETE FROM counted WHERE id = 1;
             CREATE VIRTUAL TABLE page USING fts5(title, body);
             INSERT INTO page VALUES ('one', 'the quick brown fox'), ('two', 'jumps over');
             CREATE VIRTUAL TABLE box USING rtree(id, x0, x1);
             INSERT INTO box VALUES (1, 0, 1), (2, 1, 2);
             CREATE VIEW both AS SELECT a FROM plain UNION SELECT a FROM computed;
             CREATE INDEX plain_b ON plain(b);
             DELETE FROM plain WHERE a = 1; INSERT INTO plain VALUES (1, 'again', 2);
             PRAGMA user_version = 3;",
        )
        .unwrap();
}

fn facts_of(db: &Path) -> Facts {
    let scratch = tempfile::tempdir().unwrap();
    let (copy, facts) = capture(&source(db, DigestLevel::Full), &MemorySink::new(), scratch.path());
    let report = verify_file(&copy, &facts).unwrap();
    assert!(report.is_ok(), "{}", report.summary());
    facts
}

#[test]
fn rows_of_every_kind_of_table_are_counted_and_digested() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("zoo.db");
    zoo(&db);
    let facts = facts_of(&db);
    assert!(facts.unread.is_empty() && facts.logical_digest.is_some(), "{facts:?}");
    let rows = |table: &str| facts.rows.get(table).copied();
    assert_eq!(rows("plain"), Some(3));
    assert_eq!(rows("pairs"), Some(3));
    assert_eq!(rows("counted"), Some(1));
    assert_eq!(rows("sqlite_sequence"), Some(1));
    assert_eq!(rows("page_content"), Some(2));
    assert_eq!(rows("box_rowid"), Some(2));
    assert_eq!(rows("page"), None, "a virtual table holds nothing itself");
    assert_eq!(facts.user_version, 3);
}

#[test]
fn vacuum_and_another_page_size_leave_the_digest_and_any_change_of_content_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("zoo.db");
    zoo(&db);
    let before = facts_of(&db);
    Connection::open(&db).unwrap().execute_batch("PRAGMA page_size = 1024; VACUUM").unwrap();
    let vacuumed = facts_of(&db);
    assert_ne!(vacuumed.page_size, before.page_size);
    assert_ne!(vacuumed.image_sha256, before.image_sha256);
    assert_eq!(vacuumed.logical_digest, before.logical_digest);
    assert_eq!(vacuumed.rows, before.rows);

    let mut last = vacuumed.logical_digest;
    for change in [
        "UPDATE plain SET c = 2.5 WHERE b = 'again'",
        "UPDATE pairs SET v = 'texT' WHERE k = 'y'",
        "UPDATE plain SET a = 1.0 WHERE a = 1",
        "UPDATE plain SET b = NULL WHERE b = ''",
        "UPDATE computed SET a = 5 WHERE a = 2",
        "INSERT INTO computed(a) VALUES (5)",
        "UPDATE sqlite_sequence SET seq = 9",
        "INSERT INTO page VALUES ('three', 'lazy dog')",
        "DROP VIEW both",
        "PRAGMA user_version = 4",
    ] {
        Connection::open(&db).unwrap().execute_batch(change).unwrap();
        let now = facts_of(&db).logical_digest;
        assert_ne!(now, last, "{change}");
        last = now;
    }
}

#[test]
fn tables_that_only_the_application_understands_are_still_digested() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("own.db");
    let conn = Connection::open(&db).unwrap();
    conn.create_collation("reversed", |a: &str, b: &str| b.cmp(a)).unwrap();
    conn.execute_batch(
        "CREATE TABLE words(w TEXT COLLATE reversed PRIMARY KEY) WITHOUT ROWID; INSERT INTO words VALUES ('a'), ('b');
         PRAGMA writable_schema = on;
         INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING nosuchmodule(x)');",
    )
    .unwrap();
    drop(conn);
    let scratch = tempfile::tempdir().unwrap();
    let (_, facts) = capture(&source(&db, DigestLevel::Full), &MemorySink::new(), scratch.path());
    assert_eq!(facts.rows["words"], 2);
    assert!(facts.unread.is_empty() && facts.logical_digest.is_some(), "{facts:?}");
}

#[test]
fn a_schema_that_cannot_be_parsed_is_captured_whole_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("future.db");
    Connection::open(&db)
        .unwrap()
        .execute_batch(
            "CREATE TABLE t(a); INSERT INTO t VALUES (1), (2); PRAGMA writable_schema = on;
             UPDATE sqlite_schema SET sql = 'CREATE TABLE t(a) FROM THE FUTURE';",
        )
        .unwrap();
    let sink = MemorySink::new();
    let monitor = Monitor::new();
    let captured = source(&db, DigestLevel::Full).capture(&sink, &monitor).unwrap();
    let facts = Facts::from_map(&captured.facts).unwrap();
    assert_eq!(facts.method, Method::BackupApi);
    let (problems, total) = monitor.problems();
    assert_eq!(total, 1);
    assert!(problems[0].message.contains("all pages are stored"), "{problems:?}");
    // What SQLite may still do with the schema ignored, it can do with the copy: the rows are there.
    let copy = folder.path().join("copy.db");
    let mut content = sink.stream_at("future.db").unwrap().content;
    let at = content.windows(6).position(|w| w == b" FROM ").unwrap();
    content[at..at + 16].copy_from_slice(b"                ");
    fs_err::write(&copy, content).unwrap();
    let rows: i64 = Connection::open(&copy).unwrap().query_row("SELECT sum(a) FROM t", [], |r| r.get(0)).unwrap();
    assert_eq!(rows, 3);
}

#[test]
fn a_restored_file_that_differs_in_anything_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("bank.db");
    bank(&db, "delete");
    let (copy, facts) = capture(&source(&db, DigestLevel::Full), &MemorySink::new(), folder.path());
    assert!(verify_file(&copy, &facts).unwrap().is_ok());
    let good = fs_err::read(&copy).unwrap();
    let differences = |change: &dyn Fn()| {
        fs_err::write(&copy, &good).unwrap();
        change();
        let report = verify_file(&copy, &facts).unwrap();
        assert!(!report.is_ok());
        (report.integrity.len(), report.differences().map(|c| c.what.clone()).collect::<Vec<_>>())
    };
    let sql = |sql: &str| Connection::open(&copy).unwrap().execute_batch(sql).unwrap();

    let (_, found) = differences(&|| sql("UPDATE account SET note = 'x' WHERE id = 500"));
    assert_eq!(found, ["SHA-256 of the file", "digest of all rows"]);
    let (_, found) = differences(&|| sql("DELETE FROM account WHERE id = 500"));
    assert!(found.contains(&"rows of account".to_owned()), "{found:?}");
    let (_, found) = differences(&|| sql("CREATE TABLE extra(a)"));
    assert!(
        found.contains(&"table extra".to_owned()) && found.contains(&"digest of the schema".to_owned()),
        "{found:?}"
    );
    let (_, found) = differences(&|| sql("PRAGMA user_version = 9"));
    assert!(found.contains(&"user_version".to_owned()), "{found:?}");
    // A page of one table's tree overwritten: structure, not only content.
    let (integrity, _) = differences(&|| {
        let mut bytes = good.clone();
        let page = facts.page_size as usize;
        bytes[page * 20..page * 21].fill(0xee);
        fs_err::write(&copy, bytes).unwrap();
    });
    assert!(integrity > 0);

    fs_err::write(&copy, &good[..good.len() / 2]).unwrap();
    assert!(verify_file(&copy, &facts).is_err() || !verify_file(&copy, &facts).unwrap().is_ok());
    fs_err::write(&copy, &good).unwrap();
    fs_err::write(folder.path().join("captured.db-wal"), b"stale").unwrap();
    assert_eq!(verify_file(&copy, &facts).unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn foreign_keys_that_point_nowhere_are_told_and_not_held_against_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("fk.db");
    Connection::open(&db)
        .unwrap()
        .execute_batch(
            "PRAGMA foreign_keys = off; CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p);
             INSERT INTO c VALUES (7);",
        )
        .unwrap();
    let (copy, facts) = capture(&source(&db, DigestLevel::Image), &MemorySink::new(), folder.path());
    let report = verify_file(&copy, &facts).unwrap();
    assert!(report.is_ok());
    assert_eq!(report.foreign_keys, ["c (1) -> p"]);
}

#[test]
fn a_damaged_database_is_captured_with_what_is_wrong_in_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("bank.db");
    bank(&db, "delete");
    let mut bytes = fs_err::read(&db).unwrap();
    let root: i64 = Connection::open(&db)
        .unwrap()
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'account'", [], |r| r.get(0))
        .unwrap();
    let at = (root as usize - 1) * 4096;
    bytes[at..at + 8].fill(0xee);
    fs_err::write(&db, &bytes).unwrap();
    let sink = MemorySink::new();
    let monitor = Monitor::new();
    let captured = source(&db, DigestLevel::Image).capture(&sink, &monitor).unwrap();
    let facts = Facts::from_map(&captured.facts).unwrap();
    assert_eq!(sink.stream_at("bank.db").unwrap().content, bytes);
    assert_eq!(facts.unread.keys().collect::<Vec<_>>(), ["account"]);
    assert_eq!(monitor.problems().1, 1);
}
