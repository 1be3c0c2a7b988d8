//! Databases of a real application: the `sqlite3` program in a process of its own, which is both the second process and a
//! stranger's judgement of what was captured.

mod capture;
mod content;
mod refusals;
mod swap;

use lastgood_model::Monitor;
use lastgood_model::source::Source;
use lastgood_sources::sqlite::{DigestLevel, Facts, SqliteSource};
use lastgood_testkit::memory_sink::MemorySink;
use rusqlite::Connection;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The `sqlite3` program with a database open.
struct App {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    turn: u32,
}

impl App {
    fn open(db: &Path) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", "exec sqlite3 -batch \"$0\" 2>&1"])
            .arg(db)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need the sqlite3 program");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout, turn: 0 }
    }

    /// Runs SQL to its end and gives what was printed, errors included.
    fn run(&mut self, sql: &str) -> String {
        self.turn += 1;
        let mark = format!("end of turn {}", self.turn);
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{sql}\n;SELECT '{mark}';").unwrap();
        stdin.flush().unwrap();
        let mut out = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "sqlite3 ended after {sql}: {out}");
            if line.trim_end() == mark {
                return out.trim_end().to_owned();
            }
            out.push_str(&line);
        }
    }

    /// Runs SQL that prints nothing when all is well.
    fn must(&mut self, sql: &str) {
        let out = self.run(sql);
        assert_eq!(out, "", "{sql}");
    }

    /// Ends it as a power cut would.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.wait();
    }
}

/// Accounts whose balances always sum up to [`SUM`], a log of transfers, and filler so that reading takes a while.
fn bank(db: &Path, journal_mode: &str) {
    bank_with_filler(db, journal_mode, 2000);
}

/// [`bank`] with so many pages of filler.
fn bank_with_filler(db: &Path, journal_mode: &str, pages: u32) {
    let conn = Connection::open(db).unwrap();
    conn.pragma_update(None, "journal_mode", journal_mode).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA synchronous = off;
         CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note TEXT);
         CREATE TABLE transfer(id INTEGER PRIMARY KEY, at TEXT);
         CREATE TABLE filler(id INTEGER PRIMARY KEY, b BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
           INSERT INTO account SELECT i, 100, printf('%0400d', i) FROM n;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {pages})
           INSERT INTO filler SELECT i, randomblob(4000) FROM n;",
    ))
    .unwrap();
}

const SUM: i64 = 100_000;

/// One transaction: a pseudo-random amount from one account to another, both far apart in the file, and a log entry.
fn transfer(n: u64) -> String {
    let (from, to) = (n * 37 % 1000 + 1, n * 701 % 1000 + 1);
    format!(
        "BEGIN IMMEDIATE; UPDATE account SET balance = balance - {n} WHERE id = {from};
         UPDATE account SET balance = balance + {n} WHERE id = {to};
         INSERT INTO transfer(at) VALUES ('now'); COMMIT;"
    )
}

/// Sum of balances, number of transfers.
fn state_of(db: &Path) -> (i64, i64) {
    let conn = Connection::open(db).unwrap();
    let check: String = conn.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
    assert_eq!(check, "ok", "{}", db.display());
    conn.query_row("SELECT (SELECT sum(balance) FROM account), (SELECT count(*) FROM transfer)", [], |r| {
        Ok((r.get(0)?, r.get(1)?))
    })
    .unwrap()
}

/// A source with small buffers, so that what happens in the middle of a capture does.
fn source(db: &Path, digest: DigestLevel) -> SqliteSource {
    let mut source = SqliteSource::new("db", db);
    source.options.digest = digest;
    source.options.read_ahead_bytes = 1 << 18;
    source
}

/// Captures and writes what was stored to a file of its own.
fn capture(source: &SqliteSource, sink: &MemorySink, folder: &Path) -> (PathBuf, Facts) {
    let monitor = Monitor::new();
    let captured = source.capture(sink, &monitor).unwrap();
    let facts = Facts::from_map(&captured.facts).unwrap();
    let stored = sink.stream_at(&facts.file).expect("the stream is finished");
    assert_eq!(stored.content.len() as u64, facts.bytes);
    let copy = folder.join("captured.db");
    fs_err::write(&copy, &stored.content).unwrap();
    (copy, facts)
}

/// Name, size, content digest (std's hasher is enough to see change) and modification time of everything in a folder.
fn listing(folder: &Path) -> Vec<(String, u64, u64, std::time::SystemTime)> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut all: Vec<_> = fs_err::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mut hasher = DefaultHasher::new();
            let content = fs_err::read(entry.path()).unwrap();
            content.hash(&mut hasher);
            let meta = entry.metadata().unwrap();
            (entry.file_name().into_string().unwrap(), meta.len(), hasher.finish(), meta.modified().unwrap())
        })
        .collect();
    all.sort();
    all
}

/// The same without an index of a log, which readers write their marks into.
fn listing_without_index(folder: &Path) -> Vec<(String, u64, u64, std::time::SystemTime)> {
    listing(folder).into_iter().filter(|(name, ..)| !name.ends_with("-shm")).collect()
}
