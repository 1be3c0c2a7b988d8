//! Whether SQLite's locks were still there when a capture ended.
//!
//! SQLite takes POSIX locks, and any part of this process that closes a descriptor on the same file drops them without a
//! word. [`crate::held`] keeps that from happening; this is the check that it did not. A lock that was lost is never
//! taken again within one transaction, so one look at the end covers the whole time.
//!
//! Linux tells all locks in `/proc/locks`. Where that is missing or does not show ours at the beginning, nothing can be
//! said and nothing is claimed.

use super::guest::sidecar;
use lastgood_model::{Error, ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// First byte of the range that readers lock in a database file (`PENDING_BYTE + 2` in SQLite's `os.h`).
const SHARED_FIRST: u64 = 0x4000_0002;

/// The bytes of a log index that readers lock: `WAL_READ_LOCK(0)` to `WAL_READ_LOCK(4)` (`wal.c`, "walindex lock bytes").
const WAL_READ_LOCKS: std::ops::RangeInclusive<u64> = 123..=127;

/// A look at the locks when reading began.
#[derive(Debug)]
pub(super) struct Watch {
    database: Option<u64>,
    index: Option<u64>,
}

impl Watch {
    /// Notes which locks of this process can be seen on `file`, and on its log's index when it has one in use.
    pub(super) fn begin(file: &Path, wal: bool) -> Self {
        let Some(table) = read_table() else { return Self { database: None, index: None } };
        let inode = |path: &Path| fs_err::metadata(path).ok().map(|m| m.ino());
        let database = inode(file).filter(|ino| database_locked(&table, *ino));
        let index = inode(&sidecar(file, "-shm")).filter(|ino| wal && index_locked(&table, *ino));
        Self { database, index }
    }

    /// True when the locks seen at the beginning are still there, false when none could be seen then. An error when one
    /// was lost: the pages read may not belong together.
    pub(super) fn end(self, path: &Path) -> Result<bool> {
        if self.database.is_none() && self.index.is_none() {
            return Ok(false);
        }
        // The kernel prints the table piece by piece, and while others take and give back theirs a lock that is held may
        // be missing from it (one look in two hundred on a busy machine). One that is really lost never comes back.
        for _ in 0..LOOKS {
            let Some(table) = read_table() else { return Ok(false) };
            let kept = self.database.is_none_or(|ino| database_locked(&table, ino))
                && self.index.is_none_or(|ino| index_locked(&table, ino));
            if kept {
                return Ok(true);
            }
        }
        Err(Error::new(ErrorKind::Retry, format!("read {}", path.display()))
            .with_source("its read lock was lost: another part of this program closed the file")
            .with_hint("capture it again"))
    }
}

/// Looks at the table of locks before one counts as lost.
const LOOKS: usize = 8;

fn read_table() -> Option<Vec<Lock>> {
    Some(parse(&fs_err::read_to_string("/proc/locks").ok()?))
}

fn database_locked(table: &[Lock], inode: u64) -> bool {
    own(table, inode).any(|lock| (lock.first..=lock.last).contains(&SHARED_FIRST))
}

fn index_locked(table: &[Lock], inode: u64) -> bool {
    own(table, inode).any(|lock| WAL_READ_LOCKS.clone().any(|byte| (lock.first..=lock.last).contains(&byte)))
}

fn own(table: &[Lock], inode: u64) -> impl Iterator<Item = &Lock> {
    let pid = std::process::id();
    table.iter().filter(move |lock| lock.pid == pid && lock.inode == inode)
}

#[derive(Debug, PartialEq, Eq)]
struct Lock {
    pid: u32,
    inode: u64,
    first: u64,
    last: u64,
}

/// Lines such as `7: POSIX  ADVISORY  READ 1234 08:02:131 1073741826 1073742335`; waiters (`->`) and other kinds are
/// passed over. The device is not compared: on btrfs and overlays `stat` shows another one.
fn parse(text: &str) -> Vec<Lock> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            if words.next()? != "POSIX" {
                return None;
            }
            let (_, _, pid, place) = (words.next()?, words.next()?, words.next()?, words.next()?);
            let (first, last) = (words.next()?.parse().ok()?, words.next()?);
            let last = if last == "EOF" { u64::MAX } else { last.parse().ok()? };
            Some(Lock { pid: pid.parse().ok()?, inode: place.rsplit(':').next()?.parse().ok()?, first, last })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read_and_waiters_are_passed_over() {
        let text = "1: POSIX  ADVISORY  READ  42 fe:00:131 1073741826 1073742335\n\
                    2: FLOCK  ADVISORY  WRITE 42 fe:00:131 0 EOF\n\
                    2: -> POSIX  ADVISORY  WRITE 43 fe:00:131 1 1\n\
                    3: POSIX  ADVISORY  WRITE 44 00:1f:9 0 EOF\nnonsense\n";
        assert_eq!(
            parse(text),
            [
                Lock { pid: 42, inode: 131, first: 1_073_741_826, last: 1_073_742_335 },
                Lock { pid: 44, inode: 9, first: 0, last: u64::MAX },
            ]
        );
    }
}
