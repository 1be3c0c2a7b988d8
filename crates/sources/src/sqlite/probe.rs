//! Looking whether a database could be captured now.

use super::guest::{self, sidecar};
use super::header::{HEADER_BYTES, Header, read_head};
use super::{Options, file_name};
use lastgood_model::source::{Finding, FindingLevel};
use lastgood_model::{Error, ErrorKind, Result};
use std::path::Path;

/// A log longer than this was not checkpointed for long: every reader of the database is slow, and so is a restart after
/// a crash. SQLite checkpoints by itself at about 4 MiB.
const WAL_BYTES_HUGE: u64 = 256 << 20;

/// Opens the database as a capture would, and closes it again. That somebody or something does not let us is an error and
/// no finding: nothing was seen of the database, and the kind of the error says more to a caller.
pub(super) fn probe(path: &Path, options: &Options) -> Result<Vec<Finding>> {
    Ok(match look(path, options) {
        Ok(findings) => findings,
        Err(error) if matches!(error.kind(), ErrorKind::Locked | ErrorKind::Denied | ErrorKind::Retry) => {
            return Err(error);
        }
        Err(error) => vec![Finding {
            level: FindingLevel::Failure,
            message: error.chain(),
            hint: error.hint().map(str::to_owned),
        }],
    })
}

fn look(path: &Path, options: &Options) -> Result<Vec<Finding>> {
    let shown = path.display();
    file_name(path)?;
    let guest = guest::open(path, options)?;
    let file = guest.file.clone();
    let (wal, wal_bytes, recovered) = (guest.wal, guest.wal_bytes, guest.recovered);
    let counted =
        guest.conn.query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |r| r.get::<_, i64>(0));
    let header = Header::parse(&read_head(&file, HEADER_BYTES)?);
    let bytes = fs_err::metadata(&file).map_or(0, |m| m.len());
    guest.close()?;

    let mode = if wal { "write-ahead log" } else { "rollback journal" };
    let mut findings = Vec::new();
    findings.push(match header {
        None => finding(FindingLevel::Ok, format!("{shown} is an empty database"), None),
        Some(header) => {
            let pages = format!("{bytes} bytes, pages of {}, {mode}", header.page_size);
            finding(FindingLevel::Ok, format!("{shown} is a SQLite database: {pages}"), None)
        }
    });
    if let Err(e) = counted {
        let error: Error = super::errors::explain(path, "read the schema of", e);
        findings.push(finding(
            FindingLevel::Warning,
            format!("its pages can be captured, but not its row counts: {}", error.chain()),
            error.hint(),
        ));
    }
    if recovered {
        findings.push(finding(
            FindingLevel::Warning,
            format!("{shown} cannot be read in place: it was left by a crash, or its folder is read-only"),
            Some("a copy is recovered and captured; start the application once to have it recover the original"),
        ));
    }
    if wal_bytes > WAL_BYTES_HUGE {
        findings.push(finding(
            FindingLevel::Warning,
            format!("{} is {wal_bytes} bytes long", sidecar(&file, "-wal").display()),
            Some("look for a connection that keeps a read transaction open; the application should checkpoint"),
        ));
    }
    if !wal && bytes > WAL_BYTES_HUGE {
        findings.push(finding(
            FindingLevel::Warning,
            format!("{shown} has a rollback journal: nobody can commit while it is read"),
            Some("where the application allows, PRAGMA journal_mode=WAL lets it write during captures"),
        ));
    }
    Ok(findings)
}

fn finding(level: FindingLevel, message: String, hint: Option<&str>) -> Finding {
    Finding { level, message, hint: hint.map(str::to_owned) }
}
