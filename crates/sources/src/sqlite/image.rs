//! One database at one moment, as the stream of its pages.
//!
//! A thread of its own holds the read transaction, reads every page through `sqlite_dbpage` (so that pages still in the
//! write-ahead log come from there, by SQLite's own judgement) and passes them on in buffers. It lets go of the
//! transaction as soon as it has read what is wanted. In rollback mode that is soon, however slow the engine is: what
//! the engine has not taken yet goes to memory and then to a scratch file, because nobody can commit meanwhile. With a
//! write-ahead log it keeps pace with the engine, since writers go on.

use super::errors::{code, explain};
use super::facts::{DigestLevel, Facts, Method};
use super::guest::{self, Guest};
use super::header::{HEADER_BYTES, Header};
use super::queue::{Next, Overflow, Queue};
use super::{Options, digest, locks};
use aws_lc_rs::digest::{Context as Sha256, SHA256};
use lastgood_model::source::Verdict;
use lastgood_model::{Context, Error, ErrorKind, Result, Time};
use rusqlite::{Connection, InterruptHandle, OpenFlags};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// The extents a page file is cut into are this long, or one page long where pages are longer. The one place that says so.
pub const EXTENT_BYTES: u32 = 16 << 10;

/// How many bytes change threads at once; a multiple of every extent.
const BUFFER_BYTES: usize = 256 << 10;

/// How often a waiting consumer looks whether it was told to stop.
const LOOK_UP: Duration = Duration::from_millis(100);

/// The extent for a page size.
pub(super) fn extent_bytes(page_size: u32) -> u32 {
    EXTENT_BYTES.max(page_size)
}

/// A database being read. Dropping it stops the reading and closes the database.
pub(super) struct Image {
    /// How to cut it.
    pub(super) extent_bytes: u32,
    /// What `stat` said of the file, and the younger of its and its log's modification times.
    pub(super) meta: std::fs::Metadata,
    pub(super) mtime: Time,
    queue: Arc<Queue<Outcome>>,
    /// Until the first read.
    idle: Option<(Work, Guest)>,
    /// From the first read on.
    thread: Option<JoinHandle<()>>,
    interrupt: InterruptHandle,
    sha256: Option<Sha256>,
    bytes: u64,
    outcome: Option<Outcome>,
}

/// The reading thread's last word.
#[derive(Debug)]
struct Outcome {
    facts: Facts,
    evidence: String,
}

impl Image {
    /// Opens the database at `path` and begins a read transaction: what is read is of this moment. `level` is what to
    /// find out beside the pages; `None` for nothing.
    pub(super) fn open(path: &Path, options: &Options, level: Option<DigestLevel>) -> Result<Self> {
        let act = || format!("read {}", path.display());
        let guest = guest::open(path, options)?;
        let meta = fs_err::metadata(path).with_context(act)?;
        let mtime = newest_mtime(&fs_err::canonicalize(path).with_context(act)?, &meta);
        let page_size: u32 =
            guest.conn.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(|e| explain(path, "read", e))?;
        let overflow = match (guest.wal, guest.recovered) {
            // Nobody waits for a copy, and nobody waits for a reader of a log.
            (true, _) | (_, true) => Overflow::Wait,
            _ => spill(options),
        };
        let queue = Arc::new(Queue::new(options.read_ahead_bytes, overflow));
        let interrupt = guest.conn.get_interrupt_handle();
        let work = Work {
            path: path.to_owned(),
            scratch: options.scratch_folder(),
            page_size,
            level,
            queue: Arc::clone(&queue),
        };
        Ok(Self {
            extent_bytes: extent_bytes(page_size),
            meta,
            mtime,
            queue,
            idle: Some((work, guest)),
            thread: None,
            interrupt,
            sha256: level.filter(|l| *l >= DigestLevel::Image).map(|_| Sha256::new(&SHA256)),
            bytes: 0,
            outcome: None,
        })
    }

    fn start(&mut self) -> Result<()> {
        let Some((work, guest)) = self.idle.take() else { return Ok(()) };
        let thread = std::thread::Builder::new().name("sqlite-pages".to_owned()).spawn(move || {
            // A panic would leave the consumer waiting; the guard speaks the last word instead.
            let guard = LastWord(Arc::clone(&work.queue));
            let outcome = work.run(guest);
            guard.0.end(outcome);
        });
        self.thread = Some(thread.with_context(|| "start a thread")?);
        Ok(())
    }

    /// The next pages, or `None` after the last, when everything about them is known too. Give the buffer back with
    /// [`Image::give_back`]. All buffers but the last are a whole number of extents.
    pub(super) fn next(&mut self, is_cancelled: &dyn Fn() -> bool) -> Result<Option<Vec<u8>>> {
        self.start()?;
        loop {
            if is_cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "interrupted"));
            }
            match self.queue.next(LOOK_UP) {
                Next::Bytes(bytes) => {
                    if let Some(sha256) = &mut self.sha256 {
                        sha256.update(&bytes);
                    }
                    self.bytes += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Next::End(outcome) => {
                    self.outcome = Some(outcome?);
                    return Ok(None);
                }
                Next::Nothing => {}
            }
        }
    }

    /// Gives a used buffer back.
    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        self.queue.give_back(buffer);
    }

    /// After the end: the facts and the verdict.
    pub(super) fn finish(mut self) -> Result<(Facts, Verdict)> {
        let bug = |what: &str| Error::new(ErrorKind::Bug, what.to_owned());
        let Outcome { mut facts, evidence } =
            self.outcome.take().ok_or_else(|| bug("pages were not read to the end"))?;
        if facts.bytes != self.bytes {
            return Err(bug("pages were lost between reading and storing"));
        }
        facts.image_sha256 = self.sha256.take().map(|sha256| digest::hex(sha256.finish().as_ref()));
        Ok((facts, Verdict { evidence }))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.queue.abandon();
        if self.outcome.is_none() {
            self.interrupt.interrupt();
        }
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was reported through the queue.
            let _ = thread.join();
        }
        if let Some((_, guest)) = self.idle.take() {
            // Nothing was read; there is nothing to be said about how it ended.
            let _ = guest.close();
        }
    }
}

/// Room for what the engine has not taken: what the options allow, and never more than half of what is free.
fn spill(options: &Options) -> Overflow {
    let folder = options.scratch_folder();
    let free = rustix::fs::statvfs(&folder).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
    Overflow::Spill { folder, bytes_max: options.spill_bytes_max.min(free / 2) }
}

/// Ends the queue with an error when the reading thread dies.
struct LastWord(Arc<Queue<Outcome>>);

impl Drop for LastWord {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(Err(Error::new(ErrorKind::Bug, "the thread reading pages panicked")));
        }
    }
}

/// What the reading thread needs.
#[derive(Debug)]
struct Work {
    path: PathBuf,
    scratch: PathBuf,
    page_size: u32,
    level: Option<DigestLevel>,
    queue: Arc<Queue<Outcome>>,
}

impl Work {
    fn run(self, guest: Guest) -> Result<Outcome> {
        let watch = locks::Watch::begin(&guest.file, guest.wal && !guest.recovered);
        let mut head = Vec::new();
        let (bytes, method) = match self.copy_pages(&guest.conn, &mut head) {
            Ok(bytes) if guest.recovered => (bytes, Method::RecoveredCopy),
            Ok(bytes) => (bytes, Method::Pages),
            Err(PagesError::NoTable(_)) => (self.copy_by_backup(&guest.conn, &mut head)?, Method::BackupApi),
            Err(PagesError::Failed(e)) => return Err(e),
        };
        let mut facts = self.facts(&head, bytes, method, guest.wal);
        facts.wal_bytes = guest.wal_bytes;
        if let Some(level) = self.level {
            self.read_content(&guest.conn, level, &mut facts)?;
        }
        let locks = watch.end(&self.path)?;
        let held = guest.begun.elapsed();
        let (wal, recovered) = (guest.wal, guest.recovered);
        guest.close()?;
        facts.held_ms = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
        let how = match (recovered, wal) {
            (true, _) => "of a recovered copy",
            (_, true) => "on a write-ahead log snapshot",
            (_, false) => "with a shared lock",
        };
        let checked = if locks { ", its locks in place at the end" } else { "" };
        let evidence = format!(
            "read transaction {how} held from the first to the last of {} pages, for {} ms{checked}",
            facts.page_count, facts.held_ms
        );
        Ok(Outcome { facts, evidence })
    }

    /// Pushes every page in order. `head` becomes the first page's beginning.
    fn copy_pages(&self, conn: &Connection, head: &mut Vec<u8>) -> Result<u64, PagesError> {
        let mut statement = conn.prepare("SELECT data FROM sqlite_dbpage('main')").map_err(|e| match code(&e) {
            // The table is not compiled in, or this SQLite cannot parse the schema.
            Some(rusqlite::ErrorCode::Unknown | rusqlite::ErrorCode::DatabaseCorrupt) => PagesError::NoTable(e),
            _ => PagesError::Failed(explain(&self.path, "read", e)),
        })?;
        let failed = |e: rusqlite::Error| PagesError::Failed(explain(&self.path, "read pages of", e));
        let mut rows = statement.query([]).map_err(failed)?;
        let mut pages = 0u64;
        let mut buffer = self.queue.buffer(BUFFER_BYTES);
        while let Some(row) = rows.next().map_err(failed)? {
            let page = row.get_ref(0).map_err(failed)?.as_blob().unwrap_or_default();
            if page.len() != self.page_size as usize {
                return Err(PagesError::Failed(Error::new(
                    ErrorKind::Corrupt,
                    format!("page {} of {} is not {} bytes long", pages + 1, self.path.display(), self.page_size),
                )));
            }
            if pages == 0 {
                head.extend_from_slice(&page[..HEADER_BYTES]);
            }
            pages += 1;
            buffer.extend_from_slice(page);
            if buffer.len() >= BUFFER_BYTES {
                self.push(buffer).map_err(PagesError::Failed)?;
                buffer = self.queue.buffer(BUFFER_BYTES);
            }
        }
        if !buffer.is_empty() {
            self.push(buffer).map_err(PagesError::Failed)?;
        }
        Ok(pages * u64::from(self.page_size))
    }

    /// The twin for when pages cannot be had one by one: a copy made by SQLite's backup API in one step, under the same
    /// read transaction, in a scratch file.
    fn copy_by_backup(&self, conn: &Connection, head: &mut Vec<u8>) -> Result<u64> {
        let failed = |e| explain(&self.path, "copy", e);
        let act = || format!("copy {} to a scratch folder", self.path.display());
        let folder = tempfile::Builder::new().prefix("lastgood-").tempdir_in(&self.scratch).with_context(act)?;
        let file = folder.path().join("copy.db");
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut copy = Connection::open_with_flags(&file, flags).map_err(failed)?;
        copy.execute_batch("PRAGMA journal_mode = off; PRAGMA synchronous = off").map_err(failed)?;
        let backup = rusqlite::backup::Backup::new(conn, &mut copy).map_err(failed)?;
        match backup.step(-1).map_err(failed)? {
            rusqlite::backup::StepResult::Done => {}
            other => {
                return Err(Error::new(ErrorKind::Locked, act()).with_source(format!("the copy ended as {other:?}")));
            }
        }
        drop(backup);
        drop(copy);
        let mut file = fs_err::File::open(&file).with_context(act)?;
        let mut bytes = 0u64;
        loop {
            let mut buffer = self.queue.buffer(BUFFER_BYTES);
            let read = Read::by_ref(&mut file).take(BUFFER_BYTES as u64).read_to_end(&mut buffer).with_context(act)?;
            if read == 0 {
                return Ok(bytes);
            }
            if bytes == 0 {
                head.extend_from_slice(&buffer[..HEADER_BYTES.min(read)]);
            }
            bytes += read as u64;
            self.push(buffer)?;
        }
    }

    fn push(&self, buffer: Vec<u8>) -> Result<()> {
        if self.queue.push(buffer) { Ok(()) } else { Err(Error::new(ErrorKind::Cancelled, "interrupted")) }
    }

    fn facts(&self, head: &[u8], bytes: u64, method: Method, wal: bool) -> Facts {
        let header = Header::parse(head);
        let header = header.as_ref();
        Facts {
            file: self.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes,
            page_size: self.page_size,
            page_count: bytes / u64::from(self.page_size),
            freelist_count: header.map_or(0, |h| h.freelist_count.into()),
            user_version: header.map_or(0, |h| h.user_version.into()),
            application_id: header.map_or(0, |h| h.application_id.into()),
            encoding: header.map_or("UTF-8", Header::encoding).to_owned(),
            journal_mode: header.map_or(if wal { "wal" } else { "rollback" }, Header::journal_mode).to_owned(),
            auto_vacuum: header.map_or("none", Header::auto_vacuum).to_owned(),
            sqlite_version: rusqlite::version().to_owned(),
            method,
            ..Facts::default()
        }
    }

    fn read_content(&self, conn: &Connection, level: DigestLevel, facts: &mut Facts) -> Result<()> {
        let content = match level {
            DigestLevel::Full => digest::logical_digest(conn, &self.path),
            DigestLevel::Schema | DigestLevel::Image => digest::row_counts(conn, &self.path),
        };
        match content {
            Ok(content) => {
                facts.schema_digest = content.schema_digest;
                facts.rows = content.rows;
                facts.logical_digest = content.logical_digest;
                facts.unread = content.unread;
            }
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
            // The pages are all there; that their schema cannot be read is told, and does not take them away.
            Err(e) => {
                facts.unread.insert("sqlite_schema".to_owned(), e.chain());
            }
        }
        Ok(())
    }
}

enum PagesError {
    NoTable(#[expect(dead_code, reason = "kept for debugging: why the twin was used")] rusqlite::Error),
    Failed(Error),
}

/// When the content last changed: the younger of the file's and its log's times.
fn newest_mtime(path: &Path, meta: &std::fs::Metadata) -> Time {
    let time = |m: &std::fs::Metadata| Time::new(m.mtime(), u32::try_from(m.mtime_nsec()).unwrap_or(0));
    let wal = fs_err::metadata(guest::sidecar(path, "-wal")).ok().filter(|m| m.len() > 0);
    wal.as_ref().map_or(time(meta), |wal| time(wal).max(time(meta)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_through(read: impl FnOnce(&Work, &Guest, &mut Vec<u8>) -> u64, db: &Path) -> Vec<u8> {
        let options = Options { read_ahead_bytes: usize::MAX, ..Options::default() };
        let guest = guest::open(db, &options).unwrap();
        let queue = Arc::new(Queue::new(usize::MAX, Overflow::Wait));
        let work = Work {
            path: db.to_owned(),
            scratch: options.scratch_folder(),
            page_size: 4096,
            level: None,
            queue: Arc::clone(&queue),
        };
        let mut head = Vec::new();
        let bytes = read(&work, &guest, &mut head);
        let mut all = Vec::new();
        while let Next::Bytes(bytes) = queue.next(Duration::ZERO) {
            all.extend_from_slice(&bytes);
        }
        assert_eq!(all.len() as u64, bytes);
        assert_eq!(head, all[..HEADER_BYTES]);
        all
    }

    #[test]
    fn the_twin_reads_the_same_pages_but_for_counters_in_the_header() {
        for mode in ["delete", "wal"] {
            let folder = tempfile::tempdir().unwrap();
            let db = folder.path().join("a.db");
            let app = Connection::open(&db).unwrap();
            app.pragma_update(None, "journal_mode", mode).unwrap();
            app.execute_batch(
                "CREATE TABLE t(a); CREATE INDEX i ON t(a);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
                   INSERT INTO t SELECT hex(randomblob(100)) FROM n;
                 DELETE FROM t WHERE rowid % 2",
            )
            .unwrap();
            let pages = read_through(|w, g, head| w.copy_pages(&g.conn, head).ok().unwrap(), &db);
            let mut twin = read_through(|w, g, head| w.copy_by_backup(&g.conn, head).unwrap(), &db);
            assert_eq!(twin.len(), pages.len());
            // Change counter, schema cookie, "version valid for" and SQLite's version (file format, section 1.3).
            for counter in [24..28, 40..44, 92..96, 96..100] {
                twin[counter.clone()].copy_from_slice(&pages[counter]);
            }
            assert!(twin == pages, "{mode}");
        }
    }
}
