//! Removing a tree by descriptors: no link is followed, no other file system entered, no depth is too deep.
//!
//! One descriptor is open at a time. The way back up is `..` of a directory that is held open, and only taken when it
//! leads to the device and inode that were seen on the way down; a directory that was moved elsewhere ends the removal.

use super::metadata::Held;
use super::{io_error, open_dir};
use lastgood_model::node::display_path;
use lastgood_model::{Error, ErrorKind, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The names in a directory, with whether each may be a directory.
pub(super) fn names(dir: BorrowedFd<'_>) -> std::result::Result<Vec<(Vec<u8>, bool)>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), matches!(entry.file_type(), FileType::Directory | FileType::Unknown)));
        }
    }
    Ok(names)
}

/// A directory on the way down.
struct Level {
    name: Vec<u8>,
    device: u64,
    inode: u64,
    /// Sub-directories still to remove.
    pending: Vec<Vec<u8>>,
}

/// Asked now and then while a tree is removed, with the entries removed so far: whether to go on.
pub(super) type GoOn<'a> = &'a mut dyn FnMut(u64) -> bool;

/// How many entries may be removed between two questions whether to go on.
const ASK_EVERY: u64 = 256;

/// Removes `name` in `parent` with everything below and returns how many entries that were. Nothing there is success.
/// [`ErrorKind::Conflict`] when another file system is mounted below, or somebody fills or moves the tree meanwhile;
/// what was removed until then is gone.
pub(super) fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<u64> {
    remove_tree_while(parent, name, &mut |_| true)
}

/// The same for as long as `go_on` says so; then [`ErrorKind::Cancelled`], and what was removed until then is gone.
pub(super) fn remove_tree_while(parent: BorrowedFd<'_>, name: &[u8], go_on: GoOn<'_>) -> Result<u64> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) => return Ok(1),
        Err(Errno::NOENT) => return Ok(0),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(error("remove", name, e)),
    }
    let home = Held::Open(parent).stat().map_err(|e| error("look at directory of", name, e))?.device_id;
    let mut removed = Removed { entries: 0, asked_at: 0, go_on };
    let Some((mut at, top)) = enter(parent, name, home, &mut removed)? else { return Ok(0) };
    let mut levels = vec![top];
    while let Some(level) = levels.last_mut() {
        if let Some(child) = level.pending.pop() {
            if let Some((fd, level)) = enter(at.as_fd(), &child, home, &mut removed)? {
                at = fd;
                levels.push(level);
            }
            continue;
        }
        let Some(level) = levels.pop() else { break };
        let empty = match levels.last() {
            None => rustix::fs::unlinkat(parent, level.name.as_slice(), AtFlags::REMOVEDIR),
            Some(above) => {
                at = climb(&at, above)?;
                rustix::fs::unlinkat(&at, level.name.as_slice(), AtFlags::REMOVEDIR)
            }
        };
        match empty {
            Ok(()) => removed.one()?,
            Err(Errno::NOENT) => {}
            Err(e) => return Err(error("remove directory", &level.name, e)),
        }
    }
    (removed.go_on)(removed.entries);
    Ok(removed.entries)
}

/// What was removed so far, and who is to be asked whether to go on.
struct Removed<'a> {
    entries: u64,
    asked_at: u64,
    go_on: GoOn<'a>,
}

impl Removed<'_> {
    fn one(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries - self.asked_at < ASK_EVERY {
            return Ok(());
        }
        self.asked_at = self.entries;
        if (self.go_on)(self.entries) { Ok(()) } else { Err(Error::new(ErrorKind::Cancelled, "interrupted")) }
    }
}

/// Opens a directory and removes everything from it but its sub-directories. `None` when it is gone.
fn enter(
    parent: BorrowedFd<'_>,
    name: &[u8],
    home: u64,
    removed: &mut Removed<'_>,
) -> Result<Option<(OwnedFd, Level)>> {
    let fd = match open_on_same_mount(parent, name) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(error("open directory", name, e)),
    };
    let held = Held::Open(fd.as_fd());
    let seen = held.stat().map_err(|e| error("look at", name, e))?;
    if seen.device_id != home {
        return Err(error("enter", name, Errno::XDEV));
    }
    if seen.mode & 0o700 != 0o700 {
        // If this is refused, removing what is in it says so.
        held.chmod(seen.mode | 0o700).ok();
    }
    let mut pending = Vec::new();
    for (child, may_be_dir) in names(fd.as_fd()).map_err(|e| error("list", name, e))? {
        if may_be_dir {
            pending.push(child);
            continue;
        }
        match rustix::fs::unlinkat(&fd, child.as_slice(), AtFlags::empty()) {
            Ok(()) => removed.one()?,
            Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => pending.push(child),
            Err(e) => return Err(error("remove", &child, e)),
        }
    }
    let level = Level { name: name.to_vec(), device: seen.device_id, inode: seen.inode, pending };
    Ok(Some((fd, level)))
}

/// Opens a sub-directory unless something is mounted on it, bind mounts of the same file system included where the
/// kernel tells them (`openat2`).
fn open_on_same_mount(parent: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let open = || rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve);
    match open() {
        Err(Errno::ACCESS) => {
            open_dir(parent, name, true)?;
            open()
        }
        Err(Errno::NOSYS | Errno::PERM) => open_dir(parent, name, true),
        done => done,
    }
}

/// The way back up, if it leads where we came from.
fn climb(from: &OwnedFd, above: &Level) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let up = rustix::fs::openat(from, c"..", flags, Mode::empty()).map_err(|e| error("return to", &above.name, e))?;
    let seen = Held::Open(up.as_fd()).stat().map_err(|e| error("look at", &above.name, e))?;
    if (seen.device_id, seen.inode) != (above.device, above.inode) {
        let message = format!("remove {:?}: it was moved meanwhile", display_path(&above.name));
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    Ok(up)
}

fn error(act: &str, name: &[u8], errno: Errno) -> Error {
    io_error(format!("{act} {:?}", display_path(name)), errno)
}
