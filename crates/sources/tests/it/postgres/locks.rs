//! Others change tables while they are captured.

use super::server::Server;
use super::{Gate, capture_aside, facts, rows, rows_of, table, tables};
use lastgood_model::source::Source;
use lastgood_model::{ErrorKind, Monitor};
use lastgood_testkit::memory_sink::MemorySink;
use std::time::{Duration, Instant};

/// Somebody waits for a lock, in a statement like this one.
fn waits(statement: &str) -> String {
    format!(
        "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '{statement}%' \
         AND pid <> pg_backend_pid())"
    )
}

#[test]
fn whoever_wants_to_change_a_table_waits_but_nobody_stalls() {
    let server = Server::start();
    server.psql(
        "postgres",
        "CREATE TABLE t (a int PRIMARY KEY, b text); INSERT INTO t SELECT g, repeat('b', 500) FROM generate_series(1, 1000) g;
         CREATE TABLE u (a int); INSERT INTO u SELECT generate_series(1, 5000)",
    );
    let gate = Gate::default();
    let capture = capture_aside(rows_of(&server, "postgres"), gate.sink());
    gate.wait_until_reached();
    let mut changer = server.client("postgres");
    let changing = std::thread::spawn(move || {
        changer.batch("ALTER TABLE t ADD COLUMN c int").unwrap();
        changer.batch("DROP TABLE u").unwrap();
    });
    // And one who wants an index of it anew: readers plan with the index, and so would wait behind.
    let mut indexer = server.client("postgres");
    server.wait_until(&waits("ALTER TABLE t"));
    let indexing = std::thread::spawn(move || indexer.batch("REINDEX INDEX t_pkey").unwrap());
    server.wait_until(&waits("REINDEX"));
    gate.open();
    let (result, sink) = capture.join().unwrap();
    assert_eq!(facts(&result.unwrap()).databases[0].rows, 6000);
    let t = table(&sink, "postgres", "t");
    assert!(t.parts.len() > 20 && t.columns.len() == 2);
    changing.join().unwrap();
    indexing.join().unwrap();
    assert_eq!(server.psql("postgres", "SELECT count(c) FROM t"), "0");
}

#[test]
fn an_index_made_anew_meanwhile_stalls_nobody() {
    let server = Server::start();
    server.psql(
        "postgres",
        "CREATE TABLE t (a int PRIMARY KEY, b text); INSERT INTO t SELECT g, repeat('b', 500) FROM generate_series(1, 1000) g",
    );
    let gate = Gate::default();
    let capture = capture_aside(rows_of(&server, "postgres"), gate.sink());
    gate.wait_until_reached();
    // A worker has planned its reading, for which it looks at all indexes.
    server.wait_until("EXISTS (SELECT FROM pg_locks WHERE relation = 't_pkey'::regclass)");
    let mut indexer = server.client("postgres");
    let indexing = std::thread::spawn(move || indexer.batch("REINDEX INDEX t_pkey").unwrap());
    server.wait_until(&waits("REINDEX"));
    gate.open();
    let (result, _) = capture.join().unwrap();
    assert_eq!(facts(&result.unwrap()).databases[0].rows, 1000);
    indexing.join().unwrap();
}

#[test]
fn a_table_dropped_while_it_is_waited_for_lets_the_capture_begin_anew() {
    let server = Server::start();
    server.psql("postgres", "CREATE TABLE a (a int); CREATE TABLE victim (a int); INSERT INTO a VALUES (1)");
    let mut dropper = server.client("postgres");
    dropper.batch("BEGIN; LOCK TABLE victim").unwrap();
    let capture = capture_aside(rows_of(&server, "postgres"), MemorySink::new());
    server.wait_until(&waits("LOCK TABLE ONLY"));
    dropper.batch("DROP TABLE victim; COMMIT").unwrap();
    let (result, sink) = capture.join().unwrap();
    assert_eq!(facts(&result.unwrap()).databases[0].begun_anew, 1);
    assert_eq!(tables(&sink, "postgres").len(), 1);
}

#[test]
fn a_table_replaced_while_it_is_waited_for_is_captured_as_the_new_one() {
    let server = Server::start();
    server.psql("postgres", "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let mut changer = server.client("postgres");
    changer.batch("BEGIN; LOCK TABLE t").unwrap();
    let capture = capture_aside(rows_of(&server, "postgres"), MemorySink::new());
    server.wait_until(&waits("LOCK TABLE ONLY"));
    changer
        .batch("ALTER TABLE t RENAME TO old; CREATE TABLE t (b text); INSERT INTO t VALUES ('new'); COMMIT")
        .unwrap();
    let (result, sink) = capture.join().unwrap();
    result.unwrap();
    assert_eq!(rows(&sink, "postgres", &table(&sink, "postgres", "t")), b"new\n");
    assert_eq!(rows(&sink, "postgres", &table(&sink, "postgres", "old")), b"1\n");
}

/// With the snapshot taken before the lock, the table would be read as empty: neither the rows that were, nor those that
/// are.
#[test]
fn a_table_truncated_while_it_is_waited_for_is_captured_as_it_is_afterwards() {
    let server = Server::start();
    server.psql("postgres", "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)");
    let mut changer = server.client("postgres");
    changer.batch("BEGIN; TRUNCATE t; INSERT INTO t VALUES (3)").unwrap();
    let capture = capture_aside(rows_of(&server, "postgres"), MemorySink::new());
    server.wait_until(&waits("LOCK TABLE ONLY"));
    changer.batch("COMMIT").unwrap();
    let (result, sink) = capture.join().unwrap();
    result.unwrap();
    assert_eq!(rows(&sink, "postgres", &table(&sink, "postgres", "t")), b"3\n");
}

#[test]
fn a_table_locked_for_long_is_an_error_that_names_it() {
    let server = Server::start();
    server.psql("postgres", "CREATE TABLE a (a int); CREATE TABLE \"Held\" (a int)");
    let mut holder = server.client("postgres");
    holder.batch("BEGIN; LOCK TABLE \"Held\"").unwrap();
    let mut source = rows_of(&server, "postgres");
    source.options.lock_timeout = Duration::from_millis(200);
    let begun = Instant::now();
    let error = source.capture(&MemorySink::new(), &Monitor::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
    assert!(error.chain().contains("\"public\".\"Held\""), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(holder);
}

#[test]
fn sequences_are_never_behind_the_rows_and_cannot_vanish() {
    let server = Server::start();
    server.psql(
        "postgres",
        "CREATE TABLE t (a serial, b int); INSERT INTO t (b) SELECT generate_series(1, 10); CREATE SEQUENCE s",
    );
    let gate = Gate::default();
    let capture = capture_aside(rows_of(&server, "postgres"), gate.sink());
    gate.wait_until_reached();
    server.psql("postgres", "INSERT INTO t (b) SELECT generate_series(1, 5)");
    let mut dropper = server.client("postgres");
    let dropping = std::thread::spawn(move || dropper.batch("DROP SEQUENCE s").unwrap());
    server.wait_until(&waits("DROP SEQUENCE"));
    gate.open();
    let (result, sink) = capture.join().unwrap();
    result.unwrap();
    assert_eq!(table(&sink, "postgres", "t").total.unwrap().rows, 10);
    let sequences = String::from_utf8(sink.stream_at("postgres/sequences.sql").unwrap().content).unwrap();
    assert_eq!(
        sequences,
        "SELECT pg_catalog.setval('\"public\".\"s\"', 1, false);\n\
         SELECT pg_catalog.setval('\"public\".\"t_a_seq\"', 15, true);\n"
    );
    dropping.join().unwrap();
}
