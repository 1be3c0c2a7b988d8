//! A capture is one moment of the database, and the application does not notice it.

use super::*;
use lastgood_model::source::Chunking;
use lastgood_model::{Error, ErrorKind, Node, NodeKind};
use lastgood_sources::sqlite::{EXTENT_BYTES, Method, capture_file, capture_file_with};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A sink in whose middle `sql(n)` is run by the application, n counting up; the application must never fail.
fn busy_sink(db: &Path, prelude: &str, sql: fn(u64) -> String) -> (MemorySink, Arc<AtomicU64>) {
    let app = Mutex::new(App::open(db));
    app.lock().unwrap().run(prelude);
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let sink = MemorySink::new().before_write(move |_| {
        let n = counted.fetch_add(1, Ordering::Relaxed) + 1;
        let out = app.lock().unwrap().run(&sql(n));
        assert!(!out.contains("rror"), "the application failed in transfer {n}: {out}");
        Ok(())
    });
    (sink, count)
}

#[test]
fn with_a_log_writers_go_on_and_the_capture_is_the_moment_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("bank.db");
    bank(&db, "wal");
    let mut app = App::open(&db);
    for n in 1..=20 {
        app.must(&transfer(n));
    }
    // No busy time-out: the application would fail at once if it ever had to wait.
    let (sink, count) = busy_sink(&db, "PRAGMA busy_timeout = 0", transfer);
    let scratch = tempfile::tempdir().unwrap();
    let (copy, facts) = capture(&source(&db, DigestLevel::Full), &sink, scratch.path());
    let during = count.load(Ordering::Relaxed) as i64;
    assert!(during > 10, "only {during} transfers happened during the capture");
    assert_eq!(facts.method, Method::Pages);
    assert_eq!(facts.rows["transfer"], 20);
    assert_eq!(state_of(&copy), (SUM, 20));
    assert_eq!(state_of(&db), (SUM, 20 + during));
}

#[test]
fn checkpoints_and_restarts_of_the_log_during_a_capture_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("bank.db");
    bank(&db, "wal");
    let mut app = App::open(&db);
    // An empty log: the capture reads from the file alone, and writers begin the log anew under it.
    app.run("PRAGMA wal_checkpoint(TRUNCATE)");
    let sql = |n| {
        format!("{} PRAGMA wal_checkpoint({})", transfer(n), ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][n as usize % 4])
    };
    for before in [0, 3] {
        for n in 0..before {
            app.must(&transfer(n));
        }
        let (_, done) = state_of(&db);
        let (sink, count) = busy_sink(&db, "PRAGMA busy_timeout = 0", sql);
        let scratch = tempfile::tempdir().unwrap();
        let (copy, _) = capture(&source(&db, DigestLevel::Schema), &sink, scratch.path());
        assert!(count.load(Ordering::Relaxed) > 10);
        assert_eq!(state_of(&copy), (SUM, done));
    }
    assert_eq!(state_of(&db).0, SUM);
}

#[test]
fn in_rollback_mode_a_slow_engine_does_not_keep_writers_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("bank.db");
    bank(&db, "delete");
    // Each transfer runs to its end inside a write of the engine: it could not, if reading waited for the engine.
    let (sink, count) = busy_sink(&db, "PRAGMA busy_timeout = 60000", transfer);
    let scratch = tempfile::tempdir().unwrap();
    let (copy, facts) = capture(&source(&db, DigestLevel::Image), &sink, scratch.path());
    let during = count.load(Ordering::Relaxed) as i64;
    assert!(during > 10);
    assert_eq!(facts.journal_mode, "rollback");
    assert_eq!(state_of(&copy), (SUM, 0));
    assert_eq!(state_of(&db), (SUM, during));
}

#[test]
fn a_database_in_a_tree_is_read_as_one_moment_too() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("bank.db");
    bank(&db, "wal");
    let mut app = App::open(&db);
    app.must(&transfer(1));
    let options = source(&db, DigestLevel::Image).options;
    let mut reader = capture_file_with(&db, &options).unwrap();
    assert_eq!(reader.chunking(), Chunking::Fixed(EXTENT_BYTES));
    let mut content = Vec::new();
    let mut n = 1;
    while reader.read(&mut content, 100_000).unwrap() != lastgood_model::source::Read::End {
        n += 1;
        app.must(&transfer(n));
    }
    assert!(n > 10);
    let mut node = Node::new("bank.db", NodeKind::File);
    assert_eq!(reader.finish(&mut node).unwrap(), lastgood_model::source::Steady::Yes);
    assert_eq!(node.size, content.len() as u64);
    let copy = folder.path().join("copy.db");
    fs_err::write(&copy, content).unwrap();
    assert_eq!(state_of(&copy), (SUM, 1));
    // One that is opened and never read lets go of the database.
    drop(capture_file(&db).unwrap());
    assert_eq!(app.run("PRAGMA wal_checkpoint(TRUNCATE)"), "0|0|0");
}

#[test]
fn two_captures_of_one_database_in_one_process_do_not_take_each_others_locks() {
    for mode in ["wal", "delete"] {
        let folder = tempfile::tempdir().unwrap();
        let db = folder.path().join("bank.db");
        bank(&db, mode);
        let inner = source(&db, DigestLevel::Image);
        let sink = MemorySink::new().before_write(move |bytes| {
            if bytes == 0 {
                // Begun and ended while the outer one is under way, which checks its locks at its end.
                inner.capture(&MemorySink::new(), &Monitor::new())?;
                drop(capture_file(&inner.path)?);
            }
            Ok(())
        });
        let scratch = tempfile::tempdir().unwrap();
        let (copy, facts) = capture(&source(&db, DigestLevel::Full), &sink, scratch.path());
        assert_eq!(state_of(&copy), (SUM, 0));
        assert!(lastgood_sources::sqlite::verify_file(&copy, &facts).unwrap().is_ok());
    }
}

#[test]
fn log_and_file_of_a_running_application_are_left_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("bank.db");
    bank(&db, "wal");
    let mut app = App::open(&db);
    app.must(&transfer(1));
    let before = listing_without_index(folder.path());
    assert_eq!(before.len(), 2, "file and log: {before:?}");
    let scratch = tempfile::tempdir().unwrap();
    let (copy, facts) = capture(&source(&db, DigestLevel::Full), &MemorySink::new(), scratch.path());
    assert!(facts.wal_bytes > 0);
    assert_eq!(listing_without_index(folder.path()), before);
    assert_eq!(state_of(&copy), (SUM, 1));
    assert_eq!(app.run("PRAGMA journal_mode"), "wal");
    app.must(&transfer(2));
}

#[test]
fn the_log_of_a_crashed_application_is_captured_and_neither_checkpointed_nor_removed() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("bank.db");
    bank(&db, "wal");
    let mut app = App::open(&db);
    app.must(&transfer(1));
    app.kill();
    let before = listing_without_index(folder.path());
    let scratch = tempfile::tempdir().unwrap();
    let (copy, _) = capture(&source(&db, DigestLevel::Schema), &MemorySink::new(), scratch.path());
    assert_eq!(state_of(&copy), (SUM, 1));
    assert_eq!(listing_without_index(folder.path()), before);
}

#[test]
fn an_idle_database_with_log_mode_has_no_new_files_beside_it_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("bank.db");
    bank(&db, "wal");
    let before = listing(folder.path());
    assert_eq!(before.len(), 1, "{before:?}");
    let scratch = tempfile::tempdir().unwrap();
    let (copy, facts) = capture(&source(&db, DigestLevel::Schema), &MemorySink::new(), scratch.path());
    assert_eq!(listing(folder.path()), before);
    assert_eq!(facts.journal_mode, "wal");
    assert_eq!(fs_err::read(&copy).unwrap(), fs_err::read(&db).unwrap());
}

#[test]
fn every_page_size_and_vacuum_mode_comes_out_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    for page_size in [512u32, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        for auto_vacuum in ["none", "full", "incremental"] {
            let db = folder.path().join(format!("{page_size}-{auto_vacuum}.db"));
            let conn = Connection::open(&db).unwrap();
            conn.execute_batch(&format!(
                "PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum}; PRAGMA synchronous = off;
                 PRAGMA user_version = 7; PRAGMA application_id = -5;
                 CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
                   INSERT INTO t SELECT i, randomblob(i * 10) FROM n;
                 DELETE FROM t WHERE a % 3 = 0;"
            ))
            .unwrap();
            let free: i64 = conn.query_row("PRAGMA freelist_count", [], |r| r.get(0)).unwrap();
            drop(conn);
            let sink = MemorySink::new();
            let scratch = tempfile::tempdir().unwrap();
            let (copy, facts) = capture(&source(&db, DigestLevel::Image), &sink, scratch.path());
            assert_eq!(fs_err::read(&copy).unwrap(), fs_err::read(&db).unwrap(), "{page_size} {auto_vacuum}");
            assert_eq!((facts.page_size, facts.auto_vacuum.as_str()), (page_size, auto_vacuum));
            assert_eq!((facts.user_version, facts.application_id, facts.rows["t"]), (7, -5, 200));
            assert_eq!(facts.freelist_count, free as u64);
            let extent = sink.stream_at(&facts.file).unwrap().spec.chunking;
            assert_eq!(extent, Chunking::Fixed(page_size.max(EXTENT_BYTES)));
        }
    }
}

#[test]
fn the_page_at_one_gibibyte_that_holds_locks_is_kept_as_zeros_and_what_follows_is_in_its_place() {
    /// Takes bytes and forgets them.
    struct Nowhere;
    impl lastgood_model::source::Sink for Nowhere {
        fn stream(
            &self,
            _: lastgood_model::source::StreamSpec,
        ) -> lastgood_model::Result<Box<dyn lastgood_model::source::StreamWriter>> {
            Ok(Box::new(Length(0)))
        }
        fn tree(
            &self,
            _: &[u8],
            _: Node,
            _: Vec<Node>,
            _: Arc<dyn lastgood_model::source::TreeDir>,
        ) -> lastgood_model::Result<()> {
            panic!("a database is a stream")
        }
        fn entry(
            &self,
            _: &[u8],
            _: lastgood_model::source::Entry,
            _: Vec<Node>,
            _: Arc<dyn lastgood_model::source::TreeDir>,
        ) -> lastgood_model::Result<()> {
            panic!("a database is a stream")
        }
    }
    struct Length(u64);
    impl lastgood_model::source::StreamWriter for Length {
        fn write(&mut self, data: &[u8]) -> lastgood_model::Result<()> {
            self.0 += data.len() as u64;
            Ok(())
        }
        fn zeros(&mut self, length: u64) -> lastgood_model::Result<()> {
            self.0 += length;
            Ok(())
        }
        fn finish(self: Box<Self>, _: lastgood_model::source::Verdict) -> lastgood_model::Result<u64> {
            Ok(self.0)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("big.db");
    let conn = Connection::open(&db).unwrap();
    conn.execute_batch(
        "PRAGMA page_size = 65536; PRAGMA journal_mode = off; PRAGMA synchronous = off;
         CREATE TABLE big(b BLOB); CREATE TABLE after(id INTEGER PRIMARY KEY, t TEXT);
         INSERT INTO big VALUES (zeroblob(900000000)), (zeroblob(173000000));
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
           INSERT INTO after SELECT i, hex(randomblob(100)) FROM n;",
    )
    .unwrap();
    drop(conn);
    let captured = source(&db, DigestLevel::Image).capture(&Nowhere, &Monitor::new()).unwrap();
    let facts = Facts::from_map(&captured.facts).unwrap();
    assert!(facts.bytes > 1 << 30, "{}", facts.bytes);
    assert_eq!(facts.rows["after"], 20000);
    // The digest is of what was passed on, and the file holds a hole where the lock page is.
    let report = lastgood_sources::sqlite::verify_file(&db, &facts).unwrap();
    assert!(report.is_ok(), "{report:?}");
}

#[test]
fn a_crash_in_a_transaction_is_recovered_in_a_copy_and_the_original_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("bank.db");
    bank(&db, "delete");
    let mut app = App::open(&db);
    app.must(&transfer(1));
    // A tiny cache makes SQLite write changed pages to the file before the transaction ends.
    app.must("PRAGMA cache_size = 1; BEGIN; UPDATE account SET balance = balance + 1, note = 'torn'; UPDATE filler SET b = randomblob(4000) WHERE id < 1000");
    app.kill();
    let before = listing(folder.path());
    assert_eq!(before.len(), 2, "file and hot journal: {before:?}");
    let scratch = tempfile::tempdir().unwrap();
    let (copy, facts) = capture(&source(&db, DigestLevel::Image), &MemorySink::new(), scratch.path());
    assert_eq!(facts.method, Method::RecoveredCopy);
    assert_eq!(state_of(&copy), (SUM, 1));
    assert_eq!(listing(folder.path()), before);
    let findings = source(&db, DigestLevel::Image).probe().unwrap();
    assert!(findings.iter().any(|f| f.message.contains("left by a crash")), "{findings:?}");
    assert_eq!(listing(folder.path()), before);
}

#[test]
fn mode_owner_and_time_of_the_original_are_kept_and_the_verdict_says_how_it_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("a b%?#.db");
    bank(&db, "delete");
    fs_err::set_permissions(&db, std::fs::Permissions::from_mode(0o640)).unwrap();
    let meta = fs_err::metadata(&db).unwrap();
    let sink = MemorySink::new();
    let scratch = tempfile::tempdir().unwrap();
    let (_, facts) = capture(&source(&db, DigestLevel::Image), &sink, scratch.path());
    let stored = sink.stream_at("a b%?#.db").unwrap();
    assert_eq!((stored.spec.mode, stored.spec.uid, stored.spec.gid), (0o640, meta.uid(), meta.gid()));
    assert_eq!((stored.spec.mtime.secs, i64::from(stored.spec.mtime.nanos)), (meta.mtime(), meta.mtime_nsec()));
    let evidence = &stored.verdict.evidence;
    assert!(
        evidence.contains("shared lock") && evidence.contains(&format!("{} pages", facts.page_count)),
        "{evidence}"
    );
}

#[test]
fn a_failing_engine_and_a_stopped_run_publish_nothing_and_let_go_of_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("bank.db");
    bank(&db, "wal");
    let mut app = App::open(&db);
    let sink = MemorySink::new().before_write(|bytes| {
        if bytes > 1 << 20 { Err(Error::new(ErrorKind::NoSpace, "store is full")) } else { Ok(()) }
    });
    let error = source(&db, DigestLevel::Full).capture(&sink, &Monitor::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);

    let monitor = Arc::new(Monitor::new());
    let stop = Arc::clone(&monitor);
    let stopped = MemorySink::new().before_write(move |bytes| {
        if bytes > 1 << 20 {
            stop.cancel();
        }
        Ok(())
    });
    let error = source(&db, DigestLevel::Full).capture(&stopped, &monitor).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(sink.stream_paths().is_empty() && stopped.stream_paths().is_empty());
    // A reader still there would keep the log from being truncated.
    assert_eq!(app.run("PRAGMA wal_checkpoint(TRUNCATE)"), "0|0|0");
}

#[test]
fn a_lock_lost_to_another_part_of_the_program_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("bank.db");
    bank(&db, "wal");
    let _app = App::open(&db);
    let opened = db.clone();
    let sink = MemorySink::new().before_write(move |bytes| {
        if bytes == 0 {
            // Closing any descriptor drops the whole process's locks on the file.
            drop(fs_err::File::open(&opened).unwrap());
        }
        Ok(())
    });
    let error = source(&db, DigestLevel::Schema).capture(&sink, &Monitor::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
    assert!(error.chain().contains("lock was lost"), "{error:?}");
    assert!(sink.stream_paths().is_empty());
}
