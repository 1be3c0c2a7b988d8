//! SQLite's errors in the project's words: what kind, which file, what to do.

use super::header;
use lastgood_model::{Error, ErrorKind};
use rusqlite::ErrorCode;
use std::path::Path;

/// SQLite's extended code of an error, where it has one.
pub(super) fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => Some(failure.extended_code),
        _ => None,
    }
}

/// SQLite's primary code of an error, where it has one.
pub(super) fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    error.sqlite_error_code()
}

/// Turns SQLite's error about the database at `path` into ours. `act` names what was being done. May look at the file
/// to tell an encrypted one from a damaged one.
pub(super) fn explain(path: &Path, act: &str, error: rusqlite::Error) -> Error {
    let shown = path.display();
    let act = format!("{act} {shown}");
    let said = |kind: ErrorKind| Error::new(kind, act.clone());
    match code(&error) {
        Some(ErrorCode::NotADatabase) => header::explain_not_a_database(path).context(act),
        Some(ErrorCode::DatabaseCorrupt) => match truncation(path) {
            Some(truncated) => truncated.context(act),
            None => said(ErrorKind::Corrupt).with_hint(header::DAMAGED_HINT).with_source(error),
        },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => said(ErrorKind::Locked)
            .with_hint(
                "another program keeps the database locked: `fuser` or `lsof` with its path tells which; let that finish \
                 its transaction, or stop it, and run the same command again",
            )
            .with_source(error),
        Some(ErrorCode::CannotOpen) => match fs_err::metadata(path) {
            Err(io) => Error::io(act, io),
            Ok(meta) if meta.is_dir() => Error::invalid(format!("{shown} is a directory, not a database")),
            Ok(_) => match header::read_head(path, 1) {
                Err(denied) => denied.context(act),
                Ok(_) => said(ErrorKind::Denied)
                    .with_hint("reading a database with a write-ahead log needs write access to its folder")
                    .with_source(error),
            },
        },
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::AuthorizationForStatementDenied) => {
            said(ErrorKind::Denied).with_source(error)
        }
        Some(ErrorCode::OperationInterrupted) => Error::new(ErrorKind::Cancelled, "interrupted"),
        Some(ErrorCode::DiskFull) => said(ErrorKind::NoSpace).with_source(error),
        Some(ErrorCode::FileLockingProtocolFailed | ErrorCode::SchemaChanged) => {
            said(ErrorKind::Retry).with_source(error)
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) => said(ErrorKind::Io).with_source(error),
        _ => said(ErrorKind::Unsupported).with_source(error),
    }
}

/// A file shorter than its header says, without a write-ahead log that could hold the rest.
fn truncation(path: &Path) -> Option<Error> {
    let size = fs_err::metadata(path).ok()?.len();
    let parsed = header::Header::parse(&header::read_head(path, header::HEADER_BYTES).ok()?)?;
    let want = u64::from(parsed.page_count?) * u64::from(parsed.page_size);
    (size < want).then(|| {
        Error::corrupt(format!("{} is cut short: {size} bytes where its header says {want}", path.display()))
            .with_hint(header::DAMAGED_HINT)
    })
}
