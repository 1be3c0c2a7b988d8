//! Proving that a database file is what was captured.

use super::guest::{behave, sidecar};
use super::header::{HEADER_BYTES, Header, read_head};
use super::{DigestLevel, Facts, digest, errors};
use aws_lc_rs::digest::{Context as Sha256, SHA256};
use lastgood_model::{Context, Error, ErrorKind, Result};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// How many findings of `integrity_check` and `foreign_key_check` are kept.
const FINDINGS_MAX: usize = 100;

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Each comparison that was made, with both sides.
    pub checks: Vec<Check>,
    /// What `PRAGMA integrity_check` complained of; empty when the structure is sound.
    pub integrity: Vec<String>,
    /// Rows whose foreign key points nowhere, as `table (rowid) -> parent`. Told and not held against the file: SQLite
    /// does not enforce foreign keys unless asked, so many applications have such rows.
    pub foreign_keys: Vec<String>,
    /// Facts that could not be compared, with the reason.
    pub not_compared: Vec<String>,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was compared.
    pub what: String,
    /// What the manifest says.
    pub expected: String,
    /// What the file says.
    pub found: String,
}

impl Check {
    /// Both sides are the same.
    pub fn is_ok(&self) -> bool {
        self.expected == self.found
    }
}

impl VerifyReport {
    /// The file is sound and is what was captured.
    pub fn is_ok(&self) -> bool {
        self.integrity.is_empty() && self.checks.iter().all(Check::is_ok)
    }

    /// The comparisons that failed.
    pub fn differences(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.is_ok())
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        if let Some(first) = self.integrity.first() {
            return format!("integrity check: {first} ({} findings)", self.integrity.len());
        }
        if let Some(check) = self.differences().next() {
            return format!("{}: {} expected, {} found", check.what, check.expected, check.found);
        }
        format!("integrity check ok, {} facts as captured", self.checks.len())
    }

    fn check(&mut self, what: impl Into<String>, expected: impl ToString, found: impl ToString) {
        let (expected, found) = (expected.to_string(), found.to_string());
        self.checks.push(Check { what: what.into(), expected, found });
    }
}

/// Opens the database file at `path` without changing anything (nobody may be writing it) and compares it with `facts`.
/// A file that is no database, or that has a log or journal of its own beside it, is an error.
pub fn verify_file(path: &Path, facts: &Facts) -> Result<VerifyReport> {
    verify_file_until(path, facts, &|| false)
}

/// The same until somebody wants it to stop: [`ErrorKind::Cancelled`] then, within a fraction of a second.
pub fn verify_file_until(path: &Path, facts: &Facts, is_cancelled: &(dyn Fn() -> bool + Sync)) -> Result<VerifyReport> {
    examine(path, Some(facts), is_cancelled)
}

/// How often somebody looks whether a verification is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The same; without facts, structure and foreign keys only.
pub(super) fn examine(
    path: &Path,
    facts: Option<&Facts>,
    is_cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<VerifyReport> {
    let conn = open_alone(path)?;
    let interrupt = conn.get_interrupt_handle();
    let (done, is_done) = mpsc::channel::<()>();
    let report = std::thread::scope(|scope| {
        // Each statement has to be interrupted anew, so this goes on until the end.
        scope.spawn(move || {
            while is_done.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                if is_cancelled() {
                    interrupt.interrupt();
                }
            }
        });
        let report = look(path, &conn, facts, is_cancelled);
        drop(done);
        report
    });
    // What was interrupted says nothing about the file.
    if is_cancelled() { Err(Error::new(ErrorKind::Cancelled, "interrupted")) } else { report }
}

/// Opens a file that has no log or journal of its own.
fn open_alone(path: &Path) -> Result<Connection> {
    let act = || format!("verify {}", path.display());
    for suffix in ["-wal", "-journal"] {
        let beside = sidecar(path, suffix);
        if fs_err::metadata(&beside).is_ok_and(|m| m.len() > 0) {
            return Err(Error::new(ErrorKind::Conflict, act())
                .with_source(format!("{} lies beside it and would be taken for a part of it", beside.display()))
                .with_hint("verify the restored file before anything opens it, in a folder of its own"));
        }
    }
    open_immutable(path).map_err(|e| errors::explain(path, "verify", e))
}

fn look(
    path: &Path,
    conn: &Connection,
    facts: Option<&Facts>,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<VerifyReport> {
    let bytes = fs_err::metadata(path).with_context(|| format!("verify {}", path.display()))?.len();
    let mut report = VerifyReport::default();
    let failed = |e| errors::explain(path, "verify", e);
    if let Some(facts) = facts {
        compare_header(&mut report, path, facts, bytes, is_cancelled)?;
    }
    report.integrity = findings(conn, &format!("PRAGMA integrity_check({FINDINGS_MAX})"), |row| {
        row.get_ref(0)?.as_bytes().map(|b| String::from_utf8_lossy(b).into_owned()).map_err(Into::into)
    })
    .or_else(as_finding)
    .map_err(failed)?;
    report.integrity.retain(|line| line != "ok");
    report.foreign_keys = findings(conn, "PRAGMA foreign_key_check", |row| {
        let rowid: Option<i64> = row.get(1)?;
        let rowid = rowid.map_or_else(|| "no rowid".to_owned(), |id| id.to_string());
        Ok(format!("{} ({rowid}) -> {}", row.get::<_, String>(0)?, row.get::<_, String>(2)?))
    })
    .unwrap_or_else(|e| {
        report.not_compared.push(format!("foreign keys: {e}"));
        Vec::new()
    });
    if let Some(facts) = facts {
        compare_content(&mut report, conn, path, facts)?;
    }
    Ok(report)
}

/// Opens a file that nobody writes, touching neither it nor its folder.
pub(super) fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:");
    for byte in std::path::absolute(path).as_deref().unwrap_or(path).as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let conn = Connection::open_with_flags(uri, flags)?;
    behave(&conn, Duration::ZERO)?;
    // Opening is lazy; this reads the header.
    conn.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0))?;
    Ok(conn)
}

fn compare_header(
    report: &mut VerifyReport,
    path: &Path,
    facts: &Facts,
    bytes: u64,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<()> {
    report.check("file size in bytes", facts.bytes, bytes);
    if bytes > 0 {
        let head = read_head(path, HEADER_BYTES)?;
        let header = Header::parse(&head)
            .ok_or_else(|| Error::corrupt(format!("{} is not a SQLite database", path.display())))?;
        report.check("page size", facts.page_size, header.page_size);
        report.check("user_version", facts.user_version, header.user_version);
        report.check("application_id", facts.application_id, header.application_id);
        report.check("encoding", &facts.encoding, header.encoding());
        report.check("journal mode", &facts.journal_mode, header.journal_mode());
        report.check("auto_vacuum", &facts.auto_vacuum, header.auto_vacuum());
        if let Some(pages) = header.page_count {
            report.check("page count", facts.page_count, pages);
        }
    }
    if let Some(want) = &facts.image_sha256 {
        let mut file = fs_err::File::open(path).with_context(|| format!("verify {}", path.display()))?;
        let mut sha256 = Sha256::new(&SHA256);
        let mut buffer = vec![0; 1 << 20];
        while !is_cancelled() {
            match file.read(&mut buffer).with_context(|| format!("verify {}", path.display()))? {
                0 => break,
                n => sha256.update(&buffer[..n]),
            }
        }
        report.check("SHA-256 of the file", want, digest::hex(sha256.finish().as_ref()));
    }
    Ok(())
}

fn compare_content(report: &mut VerifyReport, conn: &Connection, path: &Path, facts: &Facts) -> Result<()> {
    if facts.schema_digest.is_empty() {
        report.not_compared.push("schema and rows: they could not be read when it was captured".to_owned());
        return Ok(());
    }
    let level = if facts.logical_digest.is_some() { DigestLevel::Full } else { DigestLevel::Schema };
    let content = match level {
        DigestLevel::Full => digest::logical_digest(conn, path),
        _ => digest::row_counts(conn, path),
    };
    let content = match content {
        Ok(content) => content,
        Err(e) => {
            report.integrity.push(e.chain());
            return Ok(());
        }
    };
    report.check("digest of the schema", &facts.schema_digest, &content.schema_digest);
    for (table, rows) in &facts.rows {
        let found = content.rows.get(table).map_or_else(|| "no such table".to_owned(), u64::to_string);
        report.check(format!("rows of {table}"), rows, found);
    }
    for table in content.rows.keys().filter(|t| !facts.rows.contains_key(*t) && !facts.unread.contains_key(*t)) {
        report.check(format!("table {table}"), "absent", "present");
    }
    for (table, reason) in &facts.unread {
        report.not_compared.push(format!("table {table}: when captured: {reason}"));
    }
    if let Some(want) = &facts.logical_digest {
        let found = content.logical_digest.unwrap_or_else(|| format!("unreadable tables: {:?}", content.unread));
        report.check("digest of all rows", want, found);
    }
    Ok(())
}

/// Damage that stops a check is what the check found.
fn as_finding(error: rusqlite::Error) -> rusqlite::Result<Vec<String>> {
    match errors::code(&error) {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::Unknown) => Ok(vec![error.to_string()]),
        _ => Err(error),
    }
}

fn findings(
    conn: &Connection,
    sql: &str,
    read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<String>,
) -> rusqlite::Result<Vec<String>> {
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if found.len() == FINDINGS_MAX {
            break;
        }
        found.push(read(row)?);
    }
    Ok(found)
}
