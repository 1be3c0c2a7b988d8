//! Symbolic links, named pipes, sockets, device nodes, and further names of files.

use super::metadata::{self, Held, Seen, Subject};
use super::place::DirHandle;
use super::{Overwrite, Target, io_error};
use lastgood_model::manifest::{Problem, ProblemKind};
use lastgood_model::{Error, ErrorKind, Monitor, Node, NodeKind, Result};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

impl Target {
    /// Creates `node.name` in `dir` as the symbolic link, named pipe, socket or device node it is, with its metadata. A
    /// link's text is restored as it was, wherever it points: it is never followed here. False, with a problem
    /// reported, for a device node that the options leave out. What is there already and is the same gets its metadata.
    pub fn special(&self, dir: &DirHandle, node: &Node, monitor: &Monitor) -> Result<bool> {
        let name = node.name.as_slice();
        self.check_name(dir, name)?;
        let file_type = match node.kind {
            NodeKind::Symlink => FileType::Symlink,
            NodeKind::Fifo => FileType::Fifo,
            NodeKind::Socket => FileType::Socket,
            NodeKind::BlockDevice | NodeKind::CharDevice => {
                if !self.options.devices {
                    let message = "device nodes are not restored unless asked for";
                    monitor.problem(Problem::new(dir.place.display(name), ProblemKind::Unsupported, message));
                    return Ok(false);
                }
                if node.kind == NodeKind::BlockDevice { FileType::BlockDevice } else { FileType::CharacterDevice }
            }
            NodeKind::File | NodeKind::Dir => {
                let act = self.act("restore", dir, name);
                return Err(Error::new(ErrorKind::Bug, format!("{act}: a {:?} is not special", node.kind)));
            }
        };
        let fresh = !self.is_same(dir, node)?;
        if fresh {
            self.make(dir, name, "create", || match file_type {
                FileType::Symlink => rustix::fs::symlinkat(node.link_target.as_slice(), &dir.fd, name),
                _ => rustix::fs::mknodat(&dir.fd, name, file_type, Mode::RUSR | Mode::WUSR, rdev(node)),
            })?;
        }

        // From here on the inode itself is held. Were the name swapped for another file's, the wrong one would be given
        // away: so it must be what was just made, and have no other name.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let error = |e| io_error(self.act("open new", dir, name), e);
        let fd = rustix::fs::openat(&dir.fd, name, flags, Mode::empty()).map_err(error)?;
        let held = Held::Pinned(fd.as_fd());
        let seen = held.stat().map_err(error)?;
        if seen.kind != node.kind || seen.links != 1 || (is_device(node.kind) && seen.device != rdev(node)) {
            let act = self.act("restore", dir, name);
            return Err(Error::new(ErrorKind::Conflict, format!("{act}: it was replaced meanwhile")));
        }
        let path = || dir.place.display(name);
        let subject = Subject { held, seen, fresh, inherited_acl: dir.traits.default_acl, path: &path };
        metadata::apply(&subject, node, &self.owners, self.options.xattrs, monitor);
        Ok(true)
    }

    /// Makes `name` in `dir` another name of `from_name` in `from`, no link followed on either side. The metadata is that
    /// of the first name. [`ErrorKind::Unsupported`] where the file system refuses such a link: restore the entry as a
    /// file of its own then. Succeeds when it is so already.
    pub fn hardlink(&self, from: &DirHandle, from_name: &[u8], dir: &DirHandle, name: &[u8]) -> Result<()> {
        self.check_name(from, from_name)?;
        self.check_name(dir, name)?;
        let link = || rustix::fs::linkat(&from.fd, from_name, &dir.fd, name, AtFlags::empty());
        let refused = |e: Errno| {
            let act = format!("{} as another name of {}", self.act("create", dir, name), from.place.display(from_name));
            match e {
                Errno::PERM | Errno::XDEV | Errno::MLINK | Errno::OPNOTSUPP => {
                    Error::new(ErrorKind::Unsupported, act).with_source(std::io::Error::from(e))
                }
                e => io_error(act, e),
            }
        };
        match link() {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(refused(e)),
        }
        let identity = |seen: Option<Seen>| seen.map(|seen| (seen.device_id, seen.inode));
        let there = identity(self.look(dir, name)?);
        if there.is_some() && there == identity(self.look(from, from_name)?) {
            return Ok(());
        }
        self.clear(dir, name)?;
        link().map_err(refused)
    }

    /// True when the very same link, pipe, socket or device is there and may be kept.
    fn is_same(&self, dir: &DirHandle, node: &Node) -> Result<bool> {
        if self.options.overwrite == Overwrite::Never {
            return Ok(false);
        }
        let Some(seen) = self.existing(dir, &node.name)? else { return Ok(false) };
        if seen.kind != node.kind || seen.links != 1 {
            return Ok(false);
        }
        Ok(match node.kind {
            NodeKind::Symlink => match rustix::fs::readlinkat(&dir.fd, node.name.as_slice(), Vec::new()) {
                Ok(text) => text.as_bytes() == node.link_target,
                // Replaced or gone since it was looked at.
                Err(Errno::INVAL | Errno::NOENT) => false,
                Err(e) => return Err(io_error(self.act("read link", dir, &node.name), e)),
            },
            kind if is_device(kind) => seen.device == rdev(node),
            _ => true,
        })
    }
}

fn is_device(kind: NodeKind) -> bool {
    matches!(kind, NodeKind::BlockDevice | NodeKind::CharDevice)
}

/// A snapshot may carry a device number on anything; only device nodes have one.
fn rdev(node: &Node) -> u64 {
    if is_device(node.kind) { node.device } else { 0 }
}
