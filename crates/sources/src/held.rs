//! Databases this process is reading, and the descriptors that must not be closed meanwhile.
//!
//! POSIX locks belong to the process and the inode: closing *any* descriptor on a file drops every lock the process has
//! there, also those that SQLite took through a descriptor of its own ("How To Corrupt An SQLite Database File",
//! section 2.2). A tree walk opens and closes every file, so it could take the lock away from a capture of the same
//! database in another thread, and a writer would then change pages under it.
//!
//! The promise: while a [`Hold`] on an inode lives, no [`Descriptor`] on that inode is closed; it is put aside and closed
//! with the last hold. It is kept because closing and the beginning of a hold exclude one another through one lock, and
//! because whoever reads a database takes the hold *before* SQLite opens it and releases it after SQLite closed it.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::collections::HashMap;
use std::fs::File;
use std::sync::{LazyLock, PoisonError, RwLock};

/// Device and inode number.
type Key = (u64, u64);

#[derive(Debug, Default)]
struct Held {
    holds: usize,
    put_aside: Vec<File>,
}

static HELD: LazyLock<RwLock<HashMap<Key, Held>>> = LazyLock::new(RwLock::default);

/// A database's locks are in use until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold(Key);

/// Begins a hold on the file with this device and inode number. Call it before SQLite opens the file.
pub(crate) fn hold(device: u64, inode: u64) -> Hold {
    let key = (device, inode);
    HELD.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().holds += 1;
    Hold(key)
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = HELD.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = held.get_mut(&self.0) {
            entry.holds -= 1;
            if entry.holds == 0 {
                held.remove(&self.0);
            }
        }
    }
}

/// An open regular file that is closed only when no hold on it is alive.
#[derive(Debug)]
pub(crate) struct Descriptor(Option<File>);

impl Descriptor {
    /// Takes over `fd`.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(Some(fd.into()))
    }

    /// The file, for the standard library's calls.
    pub(crate) fn file(&self) -> &File {
        // It is taken out only when the value is consumed.
        self.0.as_ref().expect("a descriptor in use is open")
    }

    /// Gives the descriptor away, for directories, on which nobody holds locks.
    pub(crate) fn into_inner(mut self) -> Option<OwnedFd> {
        self.0.take().map(OwnedFd::from)
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file().as_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let Some(fd) = self.0.take() else { return };
        let held = HELD.read().unwrap_or_else(PoisonError::into_inner);
        if held.is_empty() {
            drop(fd);
            return;
        }
        drop(held);
        let mut held = HELD.write().unwrap_or_else(PoisonError::into_inner);
        // Closed while the lock is held, so that no hold can begin between the look and the close.
        match rustix::fs::fstat(&fd) {
            Ok(stat) => match held.get_mut(&(stat.st_dev, stat.st_ino)) {
                Some(entry) => entry.put_aside.push(fd),
                None => drop(fd),
            },
            Err(_) => drop(fd),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{fstat, statat};
    use std::os::fd::AsRawFd;

    #[test]
    fn a_held_file_stays_open_until_the_last_hold_ends_and_others_close_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (db, other) = (folder.path().join("db"), folder.path().join("other"));
        let open = |path: &std::path::Path| Descriptor::new(fs_err::File::create(path).unwrap().into_parts().0.into());
        let (fd, other) = (open(&db), open(&other));
        let proc = |fd: &Descriptor| format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
        let (fd_path, other_path) = (proc(&fd), proc(&other));
        let stat = fstat(&fd).unwrap();
        let is_open = |path: &str, name: &str| {
            fs_err::read_link(path).is_ok_and(|target| target == folder.path().join(name))
                && statat(rustix::fs::CWD, path, rustix::fs::AtFlags::empty()).is_ok()
        };

        let first = hold(stat.st_dev, stat.st_ino);
        let second = hold(stat.st_dev, stat.st_ino);
        drop(fd);
        drop(other);
        assert!(is_open(&fd_path, "db"), "put aside while held");
        assert!(!is_open(&other_path, "other"), "not held, so closed");
        drop(first);
        assert!(is_open(&fd_path, "db"), "still one hold");
        drop(second);
        assert!(!is_open(&fd_path, "db"), "closed with the last hold");
    }
}
