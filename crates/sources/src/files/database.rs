//! SQLite databases inside a tree.
//!
//! Copying the file of a database that is in use gives a broken one: pages change between the first byte and the last,
//! and the newest data is in a side file. So a file that begins as a SQLite database does is read through
//! [`crate::sqlite`], as one consistent state, and its side files (`-wal`, `-shm`, `-journal`) are left out, since what
//! they hold is in that state.
//!
//! A file that only looks like a database, is too damaged for SQLite, or is kept locked by its application, is still the
//! user's file: it and its side files are stored byte for byte, and the trouble is reported.

use super::dir::{Dir, as_path};
use super::open;
use super::reader::PlainReader;
use super::scope::key;
use super::stat::size;
use crate::held::Descriptor;
use crate::sqlite::{HEADER_BYTES, Options, capture_file_with, looks_like_database};
use lastgood_model::manifest::{Problem, ProblemKind};
use lastgood_model::node::display_path;
use lastgood_model::source::{Entry, FileReader, TreeDir};
use lastgood_model::{Error, ErrorKind, Monitor, Result};
use rustix::fs::{AtFlags, CWD, Stat, statat};
use std::time::Duration;

/// Pages are at least this long and files are whole pages.
const PAGE_BYTES_MIN: u64 = 512;

/// How long to wait for an application that keeps a database locked. A tree may hold many databases, and one that cannot
/// be read is stored anyway.
const BUSY_WAIT: Duration = Duration::from_secs(3);

/// The endings of side files.
const SIDES: [&[u8]; 3] = [b"-wal", b"-shm", b"-journal"];

/// The database that a file of this name would be a side file of.
pub(super) fn base_of(name: &[u8]) -> Option<&[u8]> {
    // Nearly every name ends otherwise.
    if !matches!(name.last(), Some(b'l' | b'm')) {
        return None;
    }
    SIDES.iter().find_map(|side| name.strip_suffix(*side)).filter(|base| !base.is_empty())
}

/// The database whose side file a restore has moved aside under this name (`app.db-wal.before-restore-0`).
pub(super) fn moved_aside_of(name: &[u8]) -> Option<&[u8]> {
    const ASIDE: &[u8] = b".before-restore-";
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    base_of(name[..name.len() - digits].strip_suffix(ASIDE)?)
}

/// The names of the side files a database of this name may have.
pub(super) fn sides_of(name: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    SIDES.iter().map(move |side| [name, side].concat())
}

/// True when the entry is a regular file that begins as a database does.
pub(super) fn is_one(dir: &Dir, name: &[u8]) -> bool {
    open::head_of::<HEADER_BYTES>(dir, name).is_some_and(|head| looks_like_database(&head))
}

/// True when the open file begins as a database does. Files that cannot be whole databases are not looked into, unless
/// `suspected`.
pub(super) fn looks_like_one(fd: &Descriptor, stat: &Stat, suspected: bool) -> bool {
    let size = size(stat);
    (suspected || (size > 0 && size.is_multiple_of(PAGE_BYTES_MIN)))
        && open::head::<HEADER_BYTES>(fd).is_some_and(|head| looks_like_database(&head))
}

/// Decides, when the directory is listed, about a database with side files: true when SQLite can read it, so that the side
/// files are to be left out. Otherwise the directory remembers to store the database and its side files byte for byte,
/// and the trouble is reported. The decision is made once, because a database captured by SQLite must not be kept
/// together with the side files of its bytes.
pub(super) fn is_captured_with_sides(dir: &Dir, name: &[u8], monitor: &Monitor) -> bool {
    let Ok(stat) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
    let path = dir.path_of(name);
    match capture(&path, &stat) {
        Ok(_) => true,
        Err(error) => {
            report(&path, "stored byte for byte with its side files", &error, monitor);
            dir.keep_plain(name);
            false
        }
    }
}

/// Opens a file that looks like a database: as one consistent state, or else as the bytes it has.
pub(super) fn open(
    dir: &Dir,
    entry: &Entry,
    fd: Descriptor,
    stat: Stat,
    monitor: &Monitor,
) -> Result<Box<dyn FileReader>> {
    let plain = |fd| Ok(Box::new(PlainReader::new(dir, &entry.node, fd, stat)) as Box<dyn FileReader>);
    if dir.is_kept_plain(&entry.node.name) {
        return plain(fd);
    }
    let path = dir.path_of(&entry.node.name);
    match capture(&path, &stat) {
        Ok(reader) => {
            dir.scope.note_database(&path);
            // Our own descriptor is not closed while SQLite reads; see [`crate::held`].
            drop(fd);
            Ok(reader)
        }
        Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
        Err(error) => {
            report(&path, "stored byte for byte without side files", &error, monitor);
            plain(fd)
        }
    }
}

/// Tells that a database is not kept as a consistent state: because it is damaged or something else altogether, or
/// because it cannot be read now, and then its bytes may be of several moments.
fn report(path: &[u8], how: &str, error: &Error, monitor: &Monitor) {
    let (what, why) = match error.kind() {
        ErrorKind::Corrupt | ErrorKind::Unsupported => {
            (ProblemKind::Metadata, "looks like a SQLite database but is none")
        }
        _ => (ProblemKind::Changed, "is a SQLite database that could not be read as one"),
    };
    monitor.problem(Problem::new(display_path(path), what, format!("{why}; {how}: {}", error.chain())));
}

/// A capture of the database at `path`, which must be the file of `stat`: SQLite goes by path, and somebody might have
/// put a link to another database there.
fn capture(path: &[u8], stat: &Stat) -> Result<Box<dyn FileReader>> {
    let same_file = || match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) if key(&there) == key(stat) => Ok(()),
        Ok(_) => {
            Err(Error::new(ErrorKind::Conflict, format!("open {}: another file took its place", display_path(path))))
        }
        Err(errno) => Err(open::failed("open", path, errno)),
    };
    same_file()?;
    let options = Options { busy_timeout: BUSY_WAIT, ..Options::default() };
    let reader = capture_file_with(&as_path(path.to_vec()), &options)?;
    same_file()?;
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn side_files_that_were_moved_aside_are_known_by_their_names() {
        let table: [(&[u8], Option<&[u8]>); 6] = [
            (b"a.db-wal.before-restore-0", Some(b"a.db")),
            (b"a-shm.before-restore-12", Some(b"a")),
            (b"a.db-wal.before-restore-", None),
            (b"a.db.before-restore-0", None),
            (b"a.db-wal", None),
            (b"7", None),
        ];
        for (name, base) in table {
            assert_eq!(moved_aside_of(name), base, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn side_files_are_known_by_their_endings() {
        let table: [(&[u8], Option<&[u8]>); 7] = [
            (b"a.db-wal", Some(b"a.db")),
            (b"a-shm", Some(b"a")),
            (b"\xff-journal", Some(b"\xff")),
            (b"-wal", None),
            (b"a.wal", None),
            (b"a-wal2", None),
            (b"animal", None),
        ];
        for (name, base) in table {
            assert_eq!(base_of(name), base, "{}", name.escape_ascii());
        }
        for side in sides_of(b"x") {
            assert_eq!(base_of(&side), Some(&b"x"[..]));
        }
    }
}
