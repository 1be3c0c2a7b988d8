//! Servers, sessions and engines that fail in the middle, and people who have seen enough.

use super::server::Server;
use super::{Gate, capture_aside, rows_of};
use lastgood_model::source::Source;
use lastgood_model::{Error, ErrorKind, Monitor};
use lastgood_sources::postgres::PostgresSource;
use lastgood_testkit::memory_sink::MemorySink;
use std::sync::Arc;
use std::time::{Duration, Instant};

const OURS: &str = "FROM pg_stat_activity WHERE application_name = 'lastgood' AND pid <> pg_backend_pid() \
                    AND backend_type = 'client backend' AND query NOT LIKE '%EXISTS%'";

fn filled() -> Server {
    let server = Server::start();
    server.psql(
        "postgres",
        "CREATE TABLE t (a int, b text); INSERT INTO t SELECT g, repeat('b', 500) FROM generate_series(1, 20000) g",
    );
    server
}

#[test]
fn a_server_that_is_killed_fails_the_source() {
    let mut server = filled();
    let gate = Gate::default();
    let mut source = rows_of(&server, "postgres");
    // Long enough that no socket holds what is left of it.
    source.options.slab_pages = 1000;
    let capture = capture_aside(source, gate.sink());
    gate.wait_until_reached();
    server.kill();
    gate.open();
    let (result, sink) = capture.join().unwrap();
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
    assert!(sink.stream_paths().iter().all(|path| !path.ends_with("tables.json")));
}

#[test]
fn a_snapshot_whose_holder_is_ended_fails_the_source() {
    let server = filled();
    let gate = Gate::default();
    let capture = capture_aside(rows_of(&server, "postgres"), gate.sink());
    gate.wait_until_reached();
    let ended = server.psql(
        "postgres",
        // The workers came after it.
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lastgood' \
         ORDER BY backend_start LIMIT 1",
    );
    assert_eq!(ended, "t");
    gate.open();
    let (result, sink) = capture.join().unwrap();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Retry);
    assert!(sink.stream_at("postgres/tables.json").is_none());
}

#[test]
fn a_worker_that_is_ended_fails_the_source() {
    let server = filled();
    let gate = Gate::default();
    let mut source = rows_of(&server, "postgres");
    source.options.slab_pages = 1000;
    let capture = capture_aside(source, gate.sink());
    // The server has more to say than anybody takes.
    server.wait_until("EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'COPY%' AND wait_event = 'ClientWrite')");
    server.psql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lastgood' AND query LIKE 'COPY%'",
    );
    gate.open();
    let error = capture.join().unwrap().0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
    assert!(error.chain().contains("public.t"), "{error:?}");
}

#[test]
fn an_engine_that_fails_is_told_as_it_said() {
    let server = filled();
    let sink = MemorySink::new().before_write(|bytes| match bytes {
        0 => Ok(()),
        _ => Err(Error::new(ErrorKind::NoSpace, "the store is full")),
    });
    let mut source = rows_of(&server, "postgres");
    source.options.slab_pages = 1000;
    let error = source.capture(&sink, &Monitor::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    server.wait_until(&format!("NOT EXISTS (SELECT {OURS})"));
}

/// A capture that has come so far as `is_reached` says is stopped within two seconds and leaves no session behind.
fn check_cancelled(server: &Server, source: PostgresSource, is_reached: &str) {
    let monitor = Arc::new(Monitor::new());
    let theirs = Arc::clone(&monitor);
    let capture = std::thread::spawn(move || source.capture(&MemorySink::new(), &theirs));
    server.wait_until(is_reached);
    let begun = Instant::now();
    monitor.cancel();
    let error = capture.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    server.wait_until(&format!("NOT EXISTS (SELECT {OURS})"));
    assert!(begun.elapsed() < Duration::from_secs(3), "sessions stayed for {:?}", begun.elapsed());
}

#[test]
fn a_capture_is_cancelled_while_a_server_says_nothing() {
    let server = Server::start();
    server.psql(
        "postgres",
        "CREATE TABLE slow (a int); INSERT INTO slow VALUES (1); ALTER EXTENSION plpgsql ADD TABLE slow;
         UPDATE pg_extension SET extconfig = ARRAY['slow'::regclass]::oid[],
           extcondition = ARRAY['WHERE pg_sleep(100) IS NOT NULL']",
    );
    let is_reached = "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')";
    check_cancelled(&server, rows_of(&server, "postgres"), is_reached);
}

#[test]
fn a_capture_is_cancelled_while_it_waits_for_a_lock() {
    let server = Server::start();
    server.psql("postgres", "CREATE TABLE t (a int)");
    let mut holder = server.client("postgres");
    holder.batch("SET application_name = 'another'; BEGIN; LOCK TABLE t").unwrap();
    let is_reached = "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock')";
    check_cancelled(&server, rows_of(&server, "postgres"), is_reached);
}

#[test]
fn a_capture_is_cancelled_while_rows_pour_in() {
    let server = filled();
    server.psql("postgres", "CREATE TABLE v AS SELECT t.a, t.b FROM t, generate_series(1, 20)");
    let mut source = rows_of(&server, "postgres");
    source.options.slab_pages = 100_000;
    source.options.jobs = std::num::NonZeroUsize::new(1);
    let is_reached = "EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'COPY%' AND state = 'active')";
    check_cancelled(&server, source, is_reached);
}

#[test]
fn a_wish_to_stop_from_before_is_heard_at_once() {
    let monitor = Monitor::new();
    monitor.cancel();
    let nowhere = lastgood_sources::postgres::conninfo::Conninfo::parse("host=/nonexistent", &|_| None).unwrap();
    let error = PostgresSource::new("db", nowhere).capture(&MemorySink::new(), &monitor).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn too_few_connections_make_it_slower_only() {
    let server = filled();
    server.psql("postgres", "CREATE ROLE narrow LOGIN CONNECTION LIMIT 2; GRANT pg_read_all_data TO narrow");
    let mut source = rows_of(&server, "postgres");
    source.conninfo = server.info_as("narrow", "postgres");
    source.options.jobs = std::num::NonZeroUsize::new(8);
    source.options.slab_pages = 50;
    let (_, facts) = super::capture(&source);
    assert_eq!(facts.databases[0].rows, 20_000);
}
