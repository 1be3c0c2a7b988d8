//! Opening somebody else's database as a guest.
//!
//! The promise: nothing the application can see changes. The connection is opened read-only, so SQLite can neither write
//! pages, nor roll back a crashed application's journal, nor change the journal mode; closing it neither checkpoints nor
//! removes a write-ahead log (`SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE`). Opening an idle database in WAL mode makes SQLite create
//! an empty `-wal` and a `-shm`; when they were not there before, they are removed again, by SQLite itself and only while
//! the log is still empty.
//!
//! While a [`Guest`] lives, no other part of this process closes a descriptor on the database (see [`crate::held`]).

use super::errors::{self, explain};
use super::{Options, aside, header};
use crate::held::{self, Hold};
use lastgood_model::{Error, ErrorKind, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a database that was replaced while being opened is opened anew.
const OPEN_ATTEMPTS_MAX: usize = 3;

/// A database open for reading, with a read transaction begun.
#[derive(Debug)]
pub(super) struct Guest {
    // Dropped in this order: SQLite closes its descriptors before the holds end and before a scratch copy goes.
    pub(super) conn: Connection,
    _shm_hold: Option<Hold>,
    _hold: Hold,
    _scratch: Option<tempfile::TempDir>,
    /// The file that is open: the database itself or its copy in the scratch folder.
    pub(super) file: PathBuf,
    /// It is a copy that SQLite may recover.
    pub(super) recovered: bool,
    /// The database has a write-ahead log.
    pub(super) wal: bool,
    /// Bytes of that log when it was opened.
    pub(super) wal_bytes: u64,
    /// When the read transaction began.
    pub(super) begun: Instant,
    tidy: bool,
}

/// Opens the database at `path` and begins a read transaction.
pub(super) fn open(path: &Path, options: &Options) -> Result<Guest> {
    let act = || format!("open {}", path.display());
    for _ in 0..OPEN_ATTEMPTS_MAX {
        // SQLite resolves links and looks for the log beside the real file.
        let file = fs_err::canonicalize(path).map_err(|e| Error::io(act(), e))?;
        let before = fs_err::metadata(&file).map_err(|e| Error::io(act(), e))?;
        if before.is_dir() {
            return Err(Error::invalid(format!("{} is a directory, not a database", path.display()))
                .with_hint("name the database file; keep whole folders as a `files` source"));
        }
        if !before.is_file() {
            return Err(Error::invalid(format!("{} is not a regular file", path.display())));
        }
        if before.len() == 0 {
            refuse_orphaned_log(path, &file)?;
        }
        match open_live(&file, options) {
            Ok(guest) => match fs_err::metadata(&file) {
                Ok(after) if (after.dev(), after.ino()) == (before.dev(), before.ino()) => return Ok(guest),
                // Replaced meanwhile, as an application does that restores its own file: open what is there now.
                _ => continue,
            },
            Err(error) if needs_copy(&error, &file) => match aside::copy(&file, options)? {
                Some(scratch) => return open_copy(scratch, &file, options),
                // Somebody recovered or wrote it while it was copied: it can be read live now.
                None => continue,
            },
            Err(error) => return Err(explain(path, "read", error)),
        }
    }
    Err(Error::new(ErrorKind::Retry, act())
        .with_source(format!("it was replaced or written {OPEN_ATTEMPTS_MAX} times while it was being opened")))
}

/// SQLite takes the log of an empty file for a leftover and removes it, even for a reader; but no database in this mode
/// is ever empty. Whatever cut the file, what was committed last may be in the log alone.
fn refuse_orphaned_log(path: &Path, file: &Path) -> Result<()> {
    let wal = sidecar(file, "-wal");
    let bytes = fs_err::metadata(&wal).map_or(0, |m| m.len());
    if bytes == 0 {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "{} is empty, but its log {} holds {bytes} bytes: the database was cut off or replaced",
        path.display(),
        wal.display()
    ))
    .with_hint(
        "copy both files aside before any program opens the database, which would remove the log; then restore the \
         database from a recovery point, or remove the log if the new database is meant to be empty",
    ))
}

/// True when a read-only guest cannot read the file though it is sound: a crashed writer left a journal that must be
/// rolled back first, or the folder cannot take the log's index.
fn needs_copy(error: &rusqlite::Error, file: &Path) -> bool {
    match errors::extended_code(error) {
        Some(
            ffi::SQLITE_READONLY_ROLLBACK
            | ffi::SQLITE_READONLY_RECOVERY
            | ffi::SQLITE_READONLY_CANTINIT
            | ffi::SQLITE_READONLY_CANTLOCK
            | ffi::SQLITE_READONLY_DIRECTORY,
        ) => true,
        // The folder is not writable and there is no index for the log yet.
        Some(code) if code & 0xff == ffi::SQLITE_CANTOPEN => is_wal(file),
        _ => false,
    }
}

fn open_live(file: &Path, options: &Options) -> rusqlite::Result<Guest> {
    let hold = hold_of(file);
    let shm = sidecar(file, "-shm");
    let shm_before = try_hold(&shm);
    let wal_before = fs_err::metadata(sidecar(file, "-wal")).map(|m| m.len()).ok();
    let conn = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    behave(&conn, options.busy_timeout)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    begin(&conn)?;
    let wal = is_wal(file);
    Ok(Guest {
        begun: Instant::now(),
        _shm_hold: shm_before.or_else(|| try_hold(&shm)),
        _hold: hold,
        _scratch: None,
        file: file.to_owned(),
        recovered: false,
        wal,
        wal_bytes: wal_before.unwrap_or(0),
        tidy: wal && wal_before.is_none(),
        conn,
    })
}

fn open_copy(scratch: tempfile::TempDir, original: &Path, options: &Options) -> Result<Guest> {
    let file = scratch.path().join(original.file_name().unwrap_or_default());
    let wal_bytes = fs_err::metadata(sidecar(&file, "-wal")).map_or(0, |m| m.len());
    let opened = || -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&file, flags)?;
        behave(&conn, options.busy_timeout)?;
        begin(&conn)?;
        Ok(conn)
    };
    let conn = opened().map_err(|e| explain(original, "recover a copy of", e))?;
    Ok(Guest {
        begun: Instant::now(),
        conn,
        _shm_hold: None,
        _hold: hold_of(&file),
        _scratch: Some(scratch),
        recovered: true,
        wal: is_wal(&file),
        wal_bytes,
        tidy: false,
        file,
    })
}

impl Guest {
    /// Ends the read transaction and closes the database.
    pub(super) fn close(self) -> Result<()> {
        let Self { conn, file, tidy, _shm_hold, _hold, _scratch, .. } = self;
        let ended = conn.execute_batch("ROLLBACK").map_err(|e| explain(&file, "end reading", e));
        drop(conn);
        if tidy {
            remove_empty_log(&file);
        }
        ended
    }
}

/// Has SQLite remove the empty log that our own reading made. Failing changes nothing that matters: an empty log and its
/// index are what any reader leaves behind.
fn remove_empty_log(file: &Path) {
    let wal = sidecar(file, "-wal");
    let is_empty = || fs_err::metadata(&wal).is_ok_and(|m| m.len() == 0);
    if !is_empty() {
        return;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(conn) = Connection::open_with_flags(file, flags) else { return };
    let looked = behave(&conn, Duration::ZERO).is_ok() && begin(&conn).is_ok() && conn.execute_batch("COMMIT").is_ok();
    // Closing the last connection checkpoints, which is nothing for an empty log. If somebody has written meanwhile,
    // leave it to them.
    if !looked || !is_empty() {
        let _ = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }
}

/// Settings of every connection to a database that is not ours: it may be hostile, and it must not be written.
pub(super) fn behave(conn: &Connection, busy_timeout: Duration) -> rusqlite::Result<()> {
    conn.busy_timeout(busy_timeout)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    // Never map the file: another program truncating it would kill this process.
    conn.pragma_update(None, "mmap_size", 0)?;
    // Tables may use collations that only the application has. None is ever asked to compare anything here.
    conn.collation_needed(|conn, name| conn.create_collation(name, |a: &str, b: &str| a.cmp(b)))
}

/// Begins a read transaction and really takes its snapshot. Does not parse the schema, so that a database with a schema
/// this SQLite does not understand can still be read.
fn begin(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("BEGIN")?;
    conn.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0)).map(drop)
}

/// True when the file's header says that it has a write-ahead log. It cannot change while a read transaction is open.
fn is_wal(file: &Path) -> bool {
    header::read_head(file, header::HEADER_BYTES)
        .is_ok_and(|head| header::Header::parse(&head).is_some_and(|h| h.journal_mode() == "wal"))
}

/// The name of a file that belongs to a database: `-wal`, `-shm` or `-journal` appended.
pub(super) fn sidecar(file: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(file.as_os_str());
    name.push(suffix);
    PathBuf::from(name)
}

fn try_hold(file: &Path) -> Option<Hold> {
    fs_err::metadata(file).ok().map(|m| held::hold(m.dev(), m.ino()))
}

/// A hold on `file`; one on nothing when it is gone, which opening will tell.
fn hold_of(file: &Path) -> Hold {
    try_hold(file).unwrap_or_else(|| held::hold(0, 0))
}
