//! A private directory for the time of one drill.

use super::io_error;
use super::metadata::Held;
use super::remove::{GoOn, remove_tree_while};
use lastgood_model::node::{display_path, is_safe_name};
use lastgood_model::{Context, Error, ErrorKind, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory of its own (0700), removed with everything in it by [`Scratch::remove`]. Dropping it removes it too, but
/// cannot tell when that fails.
#[derive(Debug)]
pub struct Scratch {
    parent: OwnedFd,
    name: Vec<u8>,
    path: PathBuf,
    identity: (u64, u64),
    armed: bool,
}

impl Scratch {
    /// Makes a new directory `prefix-<number>-<number>` in `below`, which must exist. Nobody else can have made it, or can
    /// look into it.
    pub fn create(below: &Path, prefix: &str) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        /// Leftovers of dead processes of the same number are stepped over.
        const TRIES_MAX: u32 = 10_000;
        if !is_safe_name(prefix.as_bytes()) {
            return Err(Error::invalid(format!("refuse the scratch prefix {prefix:?}: it is not one path component")));
        }
        let act = || format!("make scratch directory in {}", display_path(below.as_os_str().as_bytes()));
        // The path must still lead here when somebody changes the working directory.
        let below = std::path::absolute(below).with_context(act)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat(CWD, &below, flags, Mode::empty()).map_err(|e| io_error(act(), e))?;
        let pid = std::process::id();
        for _ in 0..TRIES_MAX {
            let name = format!("{prefix}-{pid}-{}", NEXT.fetch_add(1, Ordering::Relaxed)).into_bytes();
            match rustix::fs::mkdirat(&parent, name.as_slice(), Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(e) => return Err(io_error(act(), e)),
            }
            let seen = rustix::fs::statat(&parent, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
                .map(super::Seen::from)
                .map_err(|e| io_error(act(), e))?;
            let path = below.join(std::ffi::OsString::from_vec(name.clone()));
            return Ok(Self { parent, name, path, identity: (seen.device_id, seen.inode), armed: true });
        }
        Err(Error::new(ErrorKind::Conflict, format!("{}: every name is taken", act())))
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it with everything below, without following links or entering other mounts, and returns how many entries
    /// that were. [`ErrorKind::Conflict`] when another directory has taken its name; that one is left alone.
    pub fn remove(self) -> Result<u64> {
        self.remove_while(&mut |_| true)
    }

    /// The same for as long as `go_on`, asked now and then with the number of entries removed so far, says so. Then
    /// [`ErrorKind::Cancelled`], and the rest stays where it is.
    pub fn remove_while(mut self, go_on: &mut dyn FnMut(u64) -> bool) -> Result<u64> {
        self.armed = false;
        self.clean(go_on).map_err(|e| {
            e.context(format!("remove scratch directory {}", display_path(self.path.as_os_str().as_bytes())))
        })
    }

    /// Leaves it in place, for somebody to look into.
    pub fn keep(mut self) -> PathBuf {
        self.armed = false;
        std::mem::take(&mut self.path)
    }

    fn clean(&self, go_on: GoOn<'_>) -> Result<u64> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let there = match rustix::fs::openat(&self.parent, self.name.as_slice(), flags, Mode::empty()) {
            Ok(fd) => Held::Pinned(fd.as_fd()).stat().map_err(|e| io_error("look at it", e))?,
            Err(Errno::NOENT) => return Ok(0),
            Err(e) => return Err(io_error("open it", e)),
        };
        if (there.device_id, there.inode) != self.identity {
            return Err(Error::new(ErrorKind::Conflict, "another directory took its place"));
        }
        remove_tree_while(self.parent.as_fd(), &self.name, go_on)
    }
}

/// Removes the directory `name` in `below` that a dead process left behind, with everything in it, without following
/// links or entering other mounts, for as long as `go_on` says so ([`ErrorKind::Cancelled`] then). Returns how many
/// entries that were.
pub fn remove_left_behind(below: &Path, name: &[u8], go_on: &mut dyn FnMut(u64) -> bool) -> Result<u64> {
    let act = || format!("remove {} left behind in {}", display_path(name), display_path(below.as_os_str().as_bytes()));
    if !is_safe_name(name) {
        return Err(Error::invalid(act()));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::openat(CWD, below, flags, Mode::empty()).map_err(|e| io_error(act(), e))?;
    remove_tree_while(parent.as_fd(), name, go_on).map_err(|e| e.context(act()))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.armed {
            // The last resort on a path that has an error of its own to tell.
            self.clean(&mut |_| true).ok();
        }
    }
}
