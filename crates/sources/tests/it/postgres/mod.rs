//! Captures of real servers.

mod capture;
mod failures;
mod locks;
mod memory;
mod rights;
mod server;
mod standby;

use lastgood_model::source::{Captured, Source};
use lastgood_model::{Monitor, Result};
use lastgood_sources::postgres::layout::{TableRecord, database_folder};
use lastgood_sources::postgres::{Facts, PostgresSource};
use lastgood_testkit::memory_sink::MemorySink;
use server::Server;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What begins a session of psql whose text of values is to be compared with a capture's.
const SETTINGS: &str = "SET TimeZone = 'UTC'; SET extra_float_digits = 3; SET synchronize_seqscans = off;\n";

/// The database as a source, its rows only, in parts of two pages.
fn rows_of(server: &Server, database: &str) -> PostgresSource {
    let mut source = PostgresSource::new("db", server.info(database));
    source.options.bin = Some(server.bin());
    source.options.data_only = true;
    source.options.slab_pages = 2;
    source.options.jobs = std::num::NonZeroUsize::new(3);
    source
}

fn capture(source: &PostgresSource) -> (MemorySink, Facts) {
    let sink = MemorySink::new();
    let monitor = Monitor::new();
    let captured = source.capture(&sink, &monitor).unwrap();
    assert_eq!(monitor.problems().1, 0, "{:?}", monitor.problems());
    (sink, facts(&captured))
}

fn facts(captured: &Captured) -> Facts {
    Facts::from_map(&captured.facts).unwrap()
}

fn tables(sink: &MemorySink, database: &str) -> Vec<TableRecord> {
    let path = format!("{}/tables.json", database_folder(database));
    let content = sink.stream_at(&path).expect("no tables.json").content;
    content.split_inclusive(|b| *b == b'\n').map(|line| TableRecord::from_line(line).unwrap()).collect()
}

fn table(sink: &MemorySink, database: &str, name: &str) -> TableRecord {
    tables(sink, database).into_iter().find(|table| table.name == name).unwrap_or_else(|| panic!("no table {name}"))
}

/// The parts of a table, one after another, as `cat` would have them.
fn rows(sink: &MemorySink, database: &str, table: &TableRecord) -> Vec<u8> {
    let folder = database_folder(database);
    let part = |number| sink.stream_at(&format!("{folder}/data/{}/{number:08}.copy", table.oid)).unwrap().content;
    (0..table.parts.len()).flat_map(part).collect()
}

/// Holds every write back until it is opened.
#[derive(Clone, Default)]
struct Gate {
    is_open: Arc<AtomicBool>,
    is_reached: Arc<AtomicBool>,
}

impl Gate {
    fn sink(&self) -> MemorySink {
        let gate = self.clone();
        MemorySink::new().before_write(move |_| {
            gate.is_reached.store(true, Ordering::SeqCst);
            while !gate.is_open.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        })
    }

    fn wait_until_reached(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.is_reached.load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline, "nothing was written");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }
}

/// A capture in a thread of its own.
fn capture_aside(source: PostgresSource, sink: MemorySink) -> std::thread::JoinHandle<(Result<Captured>, MemorySink)> {
    std::thread::spawn(move || {
        let result = source.capture(&sink, &Monitor::new());
        (result, sink)
    })
}
