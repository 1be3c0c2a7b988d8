//! Restores against real servers: captured by the source, held in memory, restored, compared.

mod addition;
mod busy;
mod bytes;
mod failures;
mod refusals;
mod roles;
mod whole;

use super::super::conninfo::Conninfo;
use super::super::layout::{TABLES, TableRecord};
use super::super::{Options, PostgresSource};
use super::{DatabaseRestoreReport, RestoreOptions, VerifyOptions, plan, verify};
use lastgood_model::saved::{SavedFiles, SavedReader};
use lastgood_model::source::Source;
use lastgood_model::{Error, ErrorKind, Monitor, Node, NodeKind, Result};
use lastgood_testkit::memory_sink::MemorySink;
use lastgood_testkit::postgres::PgServer;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Read at a time.
const PIECE_BYTES: usize = 64 * 1024;

type Hook = Box<dyn FnMut(&str) -> Result<()> + Send>;

/// A source's folder in memory.
#[derive(Default)]
pub(super) struct Saved {
    files: BTreeMap<String, Vec<u8>>,
    /// Called before each piece is read, with the file's path.
    hook: Mutex<Option<Hook>>,
    reads: AtomicUsize,
}

impl Saved {
    pub(super) fn capture(server: &PgServer, database: &str) -> Self {
        Self::capture_with(server, database, Options::default())
    }

    pub(super) fn capture_with(server: &PgServer, database: &str, options: Options) -> Self {
        Self::capture_through(server, database, options, &MemorySink::new())
    }

    pub(super) fn capture_through(server: &PgServer, database: &str, options: Options, sink: &MemorySink) -> Self {
        // pg_dumpall writes dates of roles in the style that a database sets for itself.
        let url = format!("{}?options=-c%20DateStyle%3DISO", server.url(database));
        let mut source = PostgresSource::new("db", Conninfo::parse(&url, &|_| None).unwrap());
        source.options = Options { bin: server.bin("pg_dump").parent().map(Into::into), ..options };
        source.capture(sink, &Monitor::new()).unwrap();
        let files = sink.stream_paths().into_iter().map(|path| {
            let content = sink.stream_at(&path).unwrap().content;
            (path, content)
        });
        Self { files: files.collect(), ..Self::default() }
    }

    /// What was kept of the table of this name, in the only database.
    pub(super) fn table(&self, name: &str) -> TableRecord {
        let lines = self.files.iter().find(|(path, _)| path.ends_with(TABLES)).unwrap().1;
        let mut records =
            lines.split_inclusive(|byte| *byte == b'\n').map(|line| TableRecord::from_line(line).unwrap());
        records.find(|record| record.name == name).unwrap()
    }

    /// The same with text exchanged in a file; it must be there.
    pub(super) fn with(mut self, path: &str, from: &str, to: &str) -> Self {
        let file = self.files.get_mut(path).unwrap();
        let text = String::from_utf8(file.clone()).unwrap();
        assert!(text.contains(from), "{path} has no {from:?}:\n{text}");
        *file = text.replacen(from, to, 1).into_bytes();
        self
    }

    pub(super) fn on_read(&self, hook: impl FnMut(&str) -> Result<()> + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }

    pub(super) fn off_read(&self) {
        *self.hook.lock().unwrap() = None;
    }
}

struct Reader<'a> {
    saved: &'a Saved,
    path: String,
    rest: &'a [u8],
}

impl SavedFiles for Saved {
    fn list(&self, path: &[u8]) -> Result<Vec<Node>> {
        let path = String::from_utf8(path.to_vec()).unwrap();
        let prefix = if path.is_empty() { path } else { format!("{path}/") };
        let mut names: BTreeMap<String, NodeKind> = BTreeMap::new();
        for rest in self.files.keys().filter_map(|file| file.strip_prefix(&prefix)) {
            match rest.split_once('/') {
                Some((dir, _)) => drop(names.insert(dir.to_owned(), NodeKind::Dir)),
                None => drop(names.insert(rest.to_owned(), NodeKind::File)),
            }
        }
        Ok(names.into_iter().map(|(name, kind)| Node::new(name, kind)).collect())
    }

    fn open(&self, path: &[u8]) -> Result<Box<dyn SavedReader + '_>> {
        let path = String::from_utf8(path.to_vec()).unwrap();
        let rest = self.files.get(&path).ok_or_else(|| Error::new(ErrorKind::Absent, format!("no {path}")))?;
        Ok(Box::new(Reader { saved: self, path, rest }))
    }
}

impl SavedReader for Reader<'_> {
    fn read(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        self.saved.reads.fetch_add(1, Ordering::Relaxed);
        if let Some(hook) = self.saved.hook.lock().unwrap().as_mut() {
            hook(&self.path)?;
        }
        let (piece, rest) = self.rest.split_at(PIECE_BYTES.min(self.rest.len()));
        self.rest = rest;
        out.extend_from_slice(piece);
        Ok(!piece.is_empty())
    }
}

pub(super) fn info(server: &PgServer, database: &str) -> Conninfo {
    Conninfo::parse(&server.url(database), &|_| None).unwrap()
}

pub(super) fn options() -> RestoreOptions {
    RestoreOptions { recovery_point: "a1b2c3d4".to_owned(), jobs: 3, ..RestoreOptions::default() }
}

pub(super) fn restore(
    saved: &Saved,
    server: &PgServer,
    database: &str,
    options: &RestoreOptions,
) -> Result<DatabaseRestoreReport> {
    plan(saved, &info(server, database), options)?.execute(saved, &Monitor::new())
}

/// What differs, one a line; nothing when the database is what was saved.
pub(super) fn mismatches(saved: &Saved, server: &PgServer, database: &str, options: VerifyOptions) -> String {
    let options = VerifyOptions { tools: server.bin("pg_dump").parent().map(Into::into), ..options };
    let report = verify(saved, &info(server, database), &options, &Monitor::new()).unwrap();
    let lines = report.mismatches.iter().map(|one| format!("{}: {} / {}\n", one.what, one.expected, one.found));
    lines.collect()
}

pub(super) fn comment(server: &PgServer, database: &str) -> String {
    server.psql(
        "postgres",
        &format!("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{database}'"),
    )
}

/// A small shop: keys, a foreign key, an index, a view, a sequence, and a comment on the database.
pub(super) const SHOP: &str = "
    COMMENT ON DATABASE shop IS 'our shop';
    CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int NOT NULL REFERENCES customers,
        note text DEFAULT 'x', total numeric(10,2));
    CREATE INDEX orders_note ON orders USING btree (note);
    CREATE VIEW rich AS SELECT c.id, c.name, sum(total) FROM customers c JOIN orders o ON o.customer = c.id GROUP BY c.id;
    INSERT INTO customers (name) SELECT 'customer ' || i FROM generate_series(1, 1000) i;
    INSERT INTO orders (customer, note, total) SELECT 1 + i % 1000, md5(i::text), i / 7.0 FROM generate_series(1, 5000) i;";

pub(super) fn shop(server: &PgServer) -> Saved {
    server.create_database("shop");
    server.psql("shop", SHOP);
    Saved::capture(server, "shop")
}
