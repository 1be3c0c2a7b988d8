//! Opening entries of a directory without following links, without waiting, and without touching access times.

use lastgood_model::node::display_path;
use lastgood_model::{Error, ErrorKind};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::{Errno, Result};

/// For directories below the top of a tree.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// For files: never waits for the other end of a fifo, never takes a terminal over.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Opens the sub-directory `name`; `quiet` asks to leave its access time alone.
pub(super) fn directory(parent: impl AsFd, name: &[u8], quiet: bool) -> Result<OwnedFd> {
    at(parent, name, DIRECTORY, quiet)
}

/// Opens the file `name` for reading; `quiet` asks to leave its access time alone. The caller must look whether it is
/// a regular file.
pub(super) fn file(parent: impl AsFd, name: &[u8], quiet: bool) -> Result<OwnedFd> {
    match at(&parent, name, FILE, quiet) {
        // Somebody has a lease on it (a file server's oplock). Asking without waiting has told them to give it up; now
        // wait for that, through a descriptor that pins the inode, so that it cannot have become a fifo meanwhile.
        Err(Errno::AGAIN) => {
            let pinned = at(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, false)?;
            if FileType::from_raw_mode(fstat(&pinned)?.st_mode as _) != FileType::RegularFile {
                return Err(Errno::AGAIN);
            }
            let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
            at(&pinned, path.as_bytes(), FILE.difference(OFlags::NONBLOCK | OFlags::NOFOLLOW), quiet)
        }
        other => other,
    }
}

/// Opens the top of a tree by its path, following links.
pub(super) fn top(path: &[u8]) -> Result<OwnedFd> {
    at(rustix::fs::CWD, path, DIRECTORY.difference(OFlags::NOFOLLOW), true)
}

/// Opens a directory only to reach its entries, which takes no right to read it.
pub(super) fn anchor(path: &[u8]) -> Result<OwnedFd> {
    at(rustix::fs::CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, false)
}

fn at(parent: impl AsFd, name: &[u8], flags: OFlags, quiet: bool) -> Result<OwnedFd> {
    let mut flags = if quiet { flags | OFlags::NOATIME } else { flags };
    loop {
        match openat(&parent, name, flags, Mode::empty()) {
            // Leaving the access time alone is for the owner and for root only.
            Err(Errno::PERM) if flags.contains(OFlags::NOATIME) => flags.remove(OFlags::NOATIME),
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// The first `N` bytes of the regular file `name` of `parent`; `None` when it is none, is shorter, or cannot be read.
pub(super) fn head_of<const N: usize>(parent: impl AsFd, name: &[u8]) -> Option<[u8; N]> {
    let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size < N as _ {
        return None;
    }
    head(crate::held::Descriptor::new(file(parent, name, true).ok()?))
}

/// The first `N` bytes of an open file; `None` when it is shorter or cannot be read.
pub(super) fn head<const N: usize>(fd: impl AsFd) -> Option<[u8; N]> {
    let mut start = [0; N];
    let mut have = 0;
    while have < N {
        match rustix::io::pread(&fd, &mut start[have..], have as u64) {
            Ok(0) => return None,
            Ok(n) => have += n,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(start)
}

/// The error of an act, such as "open", on `path`.
pub(super) fn failed(act: &str, path: &[u8], errno: Errno) -> Error {
    let text = format!("{act} {}", display_path(path));
    match errno {
        // Another kind of thing has taken its name since it was listed.
        Errno::LOOP | Errno::NOTDIR | Errno::NXIO => Error::new(ErrorKind::Conflict, text)
            .with_source(Error::new(ErrorKind::Conflict, "it became another kind of entry after it was listed")),
        Errno::STALE => Error::new(ErrorKind::Absent, text).with_source(std::io::Error::from(errno)),
        Errno::MFILE | Errno::NFILE => Error::io(text, errno.into())
            .with_hint("raise the limit on open files (ulimit -n); a tree takes one for each level of its depth"),
        _ => Error::io(text, errno.into()),
    }
}
