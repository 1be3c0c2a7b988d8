//! Looking at a tree that is there, by open directories: what is found is found below the root that was opened, no link
//! is followed, and no depth or length of path is too much. Nothing is changed.

use super::metadata::{Held, Seen};
use super::{io_error, open_dir, remove};
use lastgood_model::node::display_path;
use lastgood_model::{Error, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Directories on the way to a deep one are held open up to this depth; those above are opened again when needed.
const OPEN_DEPTH: usize = 64;

/// A tree that is looked at. Cheap when asked for directories in the order of a walk.
#[derive(Debug)]
pub struct TreeView {
    root: Arc<ViewDir>,
    /// The directory asked for last, name by name.
    names: Vec<Vec<u8>>,
    /// The innermost of them, open.
    open: VecDeque<Arc<ViewDir>>,
}

/// One directory of a [`TreeView`]. Holds one descriptor.
#[derive(Debug)]
pub struct ViewDir {
    fd: OwnedFd,
}

impl TreeView {
    /// Opens `root`, following links in this path. `None` when there is no such directory.
    pub fn open(root: &Path) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let act = || format!("look into {}", display_path(root.as_os_str().as_bytes()));
        match rustix::fs::openat(CWD, root, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { root: Arc::new(ViewDir { fd }), names: Vec::new(), open: VecDeque::new() })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(io_error(act(), e)),
        }
    }

    /// The directory at `path` below the root: names joined by `/`, empty for the root. `None` when there is no such
    /// directory, which a link to one is not.
    pub fn dir(&mut self, path: &[u8]) -> Result<Option<Arc<ViewDir>>> {
        let wanted: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|name| !name.is_empty()).collect();
        let common = self.names.iter().zip(&wanted).take_while(|(a, b)| a == *b).count();
        let left = self.open.len().saturating_sub(self.names.len() - common);
        self.names.truncate(if left == 0 { 0 } else { common });
        self.open.truncate(left);
        for name in wanted.iter().skip(self.names.len()) {
            if matches!(*name, b"." | b"..") {
                return Ok(None);
            }
            let parent = self.open.back().unwrap_or(&self.root);
            let fd = match open_dir(parent.fd.as_fd(), name, false) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(e) => return Err(io_error(format!("look into {}", display_path(path)), e)),
            };
            self.names.push(name.to_vec());
            self.open.push_back(Arc::new(ViewDir { fd }));
            if self.open.len() > OPEN_DEPTH {
                self.open.pop_front();
            }
        }
        Ok(Some(self.open.back().unwrap_or(&self.root).clone()))
    }
}

impl ViewDir {
    /// What is there by that name, links not followed; `None` when nothing is.
    pub fn look(&self, name: &[u8]) -> Result<Option<Seen>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(error("look at", name, e)),
        }
    }

    /// What it is itself.
    pub fn seen(&self) -> Result<Seen> {
        Held::Open(self.fd.as_fd()).stat().map_err(|e| error("look at", b".", e))
    }

    /// The names in it, sorted.
    pub fn names(&self) -> Result<Vec<Vec<u8>>> {
        let names = remove::names(self.fd.as_fd()).map_err(|e| error("list", b".", e))?;
        let mut names: Vec<Vec<u8>> = names.into_iter().map(|(name, _)| name).collect();
        names.sort();
        Ok(names)
    }

    /// The text of a symbolic link.
    pub fn read_link(&self, name: &[u8]) -> Result<Vec<u8>> {
        let text = rustix::fs::readlinkat(&self.fd, name, Vec::new()).map_err(|e| error("read link", name, e))?;
        Ok(text.into_bytes())
    }

    /// Opens a regular file for reading. Anything else is not waited for.
    pub fn open_file(&self, name: &[u8]) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|e| error("open", name, e))?;
        Ok(File::from(fd))
    }
}

fn error(act: &str, name: &[u8], errno: Errno) -> Error {
    io_error(format!("{act} {:?}", display_path(name)), errno)
}
