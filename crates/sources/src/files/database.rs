//! SQLite databases inside a tree.
//!
//! Copying the file of a database that is in use gives a broken one: pages change between the first byte and the last,
//! and the newest data is in a side file. So a file that begins as a SQLite database does is read through
//! [`crate::sqlite`], as one consistent state, and its side files (`-wal`, `-shm`, `-journal`) are left out, since what
//! they hold is in that state.
//!
//! A file that only looks like a database, or is too damaged for SQLite, is still the user's file: it and its side files
//! are stored byte for byte, and the trouble is reported.

use super::dir::{Dir, as_path};
use super::open;
use super::reader::PlainReader;
use super::scope::key;
use super::stat::size;
use crate::held::Descriptor;
use lastgood_model::manifest::{Problem, ProblemKind};
use lastgood_model::node::display_path;
use lastgood_model::source::{Entry, FileReader, TreeDir};
use lastgood_model::{Error, ErrorKind, Monitor, Result};
use rustix::fs::{AtFlags, CWD, Stat, statat};

/// The first bytes of every SQLite 3 database (sqlite.org/fileformat2.html, section 1.3).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Pages are at least this long and files are whole pages.
const PAGE_BYTES_MIN: u64 = 512;

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

/// The names of the side files a database of this name may have.
pub(super) fn sides_of(name: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    SIDES.iter().map(move |side| [name, side].concat())
}

/// True when the entry is a regular file that begins as a database does.
pub(super) fn is_one(dir: &Dir, name: &[u8]) -> bool {
    open::begins_with(dir, name, MAGIC)
}

/// True when the open file begins as a database does. Files that cannot be whole databases are not looked into, unless
/// `suspected`.
pub(super) fn looks_like_one(fd: &Descriptor, stat: &Stat, suspected: bool) -> bool {
    let size = size(stat);
    (suspected || (size > 0 && size.is_multiple_of(PAGE_BYTES_MIN))) && open::holds_at_start(fd, MAGIC)
}

/// True when SQLite can read the database now.
pub(super) fn is_capturable(dir: &Dir, name: &[u8]) -> bool {
    let Ok(stat) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
    capture(&dir.path_of(name), &stat).is_ok()
}

/// Opens a file that looks like a database: as one consistent state, or else as the bytes it has.
pub(super) fn open(
    dir: &Dir,
    entry: &Entry,
    fd: Descriptor,
    stat: Stat,
    monitor: &Monitor,
) -> Result<Box<dyn FileReader>> {
    let path = dir.path_of(&entry.node.name);
    match capture(&path, &stat) {
        Ok(reader) => {
            dir.scope.note_database(&path);
            // Closing our own descriptor must not cost SQLite its locks; see [`crate::held`].
            drop(fd);
            Ok(reader)
        }
        Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
        Err(error) => {
            let message = format!(
                "begins as a SQLite database does but could not be captured as one; stored byte for byte: {}",
                error.chain()
            );
            monitor.problem(Problem::new(display_path(&path), ProblemKind::Metadata, message));
            Ok(Box::new(PlainReader::new(dir, &entry.node, fd, stat)))
        }
    }
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
    let reader = stub::capture_file(&as_path(path.to_vec()))?;
    same_file()?;
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use super::*;

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

mod stub {
    pub(super) fn capture_file(
        path: &std::path::Path,
    ) -> lastgood_model::Result<Box<dyn lastgood_model::source::FileReader>> {
        Err(lastgood_model::Error::new(lastgood_model::ErrorKind::Unsupported, path.display().to_string()))
    }
}
