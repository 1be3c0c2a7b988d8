//! A directory of a captured tree.
//!
//! Everything goes through its descriptor and one name, so neither depth nor a link put in the way leads elsewhere. The
//! descriptor is open as long as the directory is held; its ancestors may be closed before.

use super::place::Place;
use super::reader::PlainReader;
use super::scope::{Scope, key};
use super::stat;
use super::{attributes, database, listing, open};
use crate::held::Descriptor;
use lastgood_model::manifest::{Problem, ProblemKind};
use lastgood_model::node::display_path;
use lastgood_model::source::{Entry, FileReader, TreeDir};
use lastgood_model::{Context, Error, ErrorKind, Monitor, Node, NodeKind, Result};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Stat, fstat, fstatfs};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// See the module.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    pub(super) place: Arc<Place>,
    pub(super) scope: Arc<Scope>,
    device: u64,
    /// Device and inode by which its parent listed it: its own node carries them.
    listed_as: (u64, u64),
    /// Device of the top of this tree.
    pub(super) top_device: u64,
    /// Its content is left out: it is a mount point that is not crossed.
    closed: bool,
    listed: AtomicBool,
    alias: Option<Alias>,
    /// Databases that are stored byte for byte together with their side files.
    plain: Mutex<Vec<Vec<u8>>>,
}

/// Gives a single file that was reached through a link the name it was configured by.
#[derive(Debug)]
pub(super) struct Alias {
    /// The last component of the configured path.
    pub(super) shown: Vec<u8>,
    /// The name in this directory.
    pub(super) real: Vec<u8>,
}

impl Dir {
    /// The top of a tree, which the configured path led to as `listed_as`.
    pub(super) fn top(fd: OwnedFd, stat: &Stat, listed_as: (u64, u64), place: Arc<Place>, scope: Arc<Scope>) -> Self {
        Self {
            fd,
            place,
            scope,
            device: stat.st_dev,
            listed_as,
            top_device: stat.st_dev,
            closed: false,
            listed: AtomicBool::new(false),
            alias: None,
            plain: Mutex::default(),
        }
    }

    /// The same, with one of its entries under another name.
    pub(super) fn with_alias(mut self, alias: Alias) -> Self {
        self.alias = Some(alias);
        self
    }

    /// Has a database stored byte for byte when it is opened.
    pub(super) fn keep_plain(&self, name: &[u8]) {
        self.plain.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
    }

    /// True after [`Dir::keep_plain`].
    pub(super) fn is_kept_plain(&self, name: &[u8]) -> bool {
        self.plain.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|n| n == name)
    }

    /// The name to use in calls for the entry shown as `name`.
    fn real<'a>(&'a self, name: &'a [u8]) -> &'a [u8] {
        match &self.alias {
            Some(alias) if alias.shown == name => &alias.real,
            _ => name,
        }
    }

    fn open_file_at(&self, node: &Node) -> rustix::io::Result<Descriptor> {
        let quiet = self.scope.may_be_quiet(node.uid);
        open::file(&self.fd, self.real(&node.name), quiet).map(Descriptor::new)
    }

    /// The attributes of an entry, or of this directory when the node is its own; leaves what it opened to [`Scope::take_open`].
    fn attributes_of(&self, node: &Node) -> rustix::io::Result<attributes::Attributes> {
        let opened = match node.kind {
            NodeKind::Dir if (node.device_id, node.inode) == self.listed_as => return attributes::of_fd(&self.fd),
            NodeKind::File => self.open_file_at(node),
            NodeKind::Dir => {
                open::directory(&self.fd, self.real(&node.name), self.scope.may_be_quiet(node.uid)).map(Descriptor::new)
            }
            _ => return attributes::of_entry(&self.path_for_calls(&node.name)),
        };
        match opened {
            Ok(fd) => {
                let attributes = attributes::of_fd(&fd);
                self.scope.keep_open((node.device_id, node.inode), fd);
                attributes
            }
            // Listing attributes takes no right to read the content. That the content cannot be read is told by whoever
            // tries.
            Err(_) => attributes::of_entry(&self.path_for_calls(&node.name)),
        }
    }

    /// A path that leads through the descriptor, for calls that take no descriptor.
    fn path_for_calls(&self, name: &[u8]) -> Vec<u8> {
        if !self.scope.has_proc {
            return self.path_of(name);
        }
        let mut path = format!("/proc/self/fd/{}/", self.fd.as_raw_fd()).into_bytes();
        path.extend_from_slice(self.real(name));
        path
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl TreeDir for Dir {
    fn list(&self, monitor: &Monitor) -> Result<Vec<Entry>> {
        monitor.check_cancelled()?;
        if self.closed {
            return Ok(Vec::new());
        }
        if self.listed.swap(true, Ordering::Relaxed) {
            rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::Start(0))
                .map_err(|errno| open::failed("list", &self.path_of(b""), errno))?;
        }
        listing::list(self, monitor)
    }

    fn open_dir(&self, entry: &Entry) -> Result<Arc<dyn TreeDir>> {
        let node = &entry.node;
        let failed = |errno| open::failed("open", &self.path_of(&node.name), errno);
        let kept = self.scope.take_open((node.device_id, node.inode)).and_then(Descriptor::into_inner);
        let fd = match kept {
            Some(fd) => fd,
            None => {
                open::directory(&self.fd, self.real(&node.name), self.scope.may_be_quiet(node.uid)).map_err(failed)?
            }
        };
        // Looked at again rather than taken from the entry: opening may have mounted something here.
        let stat = fstat(&fd).map_err(failed)?;
        let place = self.place.below(&node.name);
        let closed = if stat.st_dev == self.device {
            false
        } else if self.scope.one_file_system && stat.st_dev != self.top_device {
            true
        } else {
            is_pseudo(&fd)
        };
        if closed {
            self.scope.note_mount_point(&place.path_of(b""));
        }
        Ok(Arc::new(Self {
            fd,
            place,
            scope: Arc::clone(&self.scope),
            device: stat.st_dev,
            listed_as: (node.device_id, node.inode),
            top_device: self.top_device,
            closed,
            listed: AtomicBool::new(false),
            alias: None,
            plain: Mutex::default(),
        }))
    }

    fn describe(&self, node: &mut Node, monitor: &Monitor) -> Result<()> {
        node.user = self.scope.owners.user(node.uid);
        node.group = self.scope.owners.group(node.gid);
        if node.kind == NodeKind::Symlink {
            node.link_target = rustix::fs::readlinkat(&self.fd, self.real(&node.name), Vec::new())
                .map_err(|errno| match errno {
                    // It is no link any more.
                    rustix::io::Errno::INVAL => rustix::io::Errno::LOOP,
                    other => other,
                })
                .map_err(|errno| open::failed("read link", &self.path_of(&node.name), errno))?
                .into_bytes();
        }
        let report = |what: String| {
            let path = display_path(&self.path_of(&node.name));
            monitor.problem(Problem::new(path, ProblemKind::Metadata, what));
        };
        match self.attributes_of(node) {
            Ok(found) => {
                found.trouble.into_iter().for_each(report);
                node.xattrs = found.xattrs;
            }
            Err(errno @ (rustix::io::Errno::NOENT | rustix::io::Errno::STALE)) => {
                return Err(open::failed("read extended attributes of", &self.path_of(&node.name), errno));
            }
            Err(errno) => report(format!("list extended attributes: {}", std::io::Error::from(errno))),
        }
        Ok(())
    }

    fn open_file(&self, entry: &Entry, monitor: &Monitor) -> Result<Box<dyn FileReader>> {
        let node = &entry.node;
        let failed = |errno| open::failed("open", &self.path_of(&node.name), errno);
        let fd = match self.scope.take_open((node.device_id, node.inode)) {
            Some(fd) => fd,
            None => self.open_file_at(node).map_err(failed)?,
        };
        let stat = fstat(&fd).map_err(failed)?;
        if stat::kind_of(&stat) != Some(NodeKind::File) {
            return Err(failed(rustix::io::Errno::LOOP));
        }
        if self.scope.is_never(stat.st_dev, stat.st_ino) {
            let text = format!("open {}", display_path(&self.path_of(&node.name)));
            return Err(
                Error::new(ErrorKind::Conflict, text).context("a file that must not be captured took its place")
            );
        }
        if database::looks_like_one(&fd, &stat, entry.volatile) {
            return database::open(self, entry, fd, stat, monitor);
        }
        Ok(Box::new(PlainReader::new(self, node, fd, stat)))
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        self.place.path_of(self.real(name))
    }
}

/// True for file systems that show the kernel's state rather than keep anything: reading them is endless, blocks, or
/// has effects, and nothing of them can be restored.
fn is_pseudo(fd: &OwnedFd) -> bool {
    fstatfs(fd).is_ok_and(|fs| is_of_kernel(&fs))
}

/// True for a folder of a file system that shows the kernel's state, such as `/proc` and `/sys`: nothing can be kept
/// there. False where that cannot be found out.
pub fn keeps_nothing(folder: &std::path::Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|fs| is_of_kernel(&fs))
}

fn is_of_kernel(fs: &rustix::fs::StatFs) -> bool {
    // From linux/magic.h: proc, sysfs, cgroup, cgroup2, devpts, debugfs, tracefs, securityfs, selinuxfs, bpf, pstore,
    // mqueue, configfs, binfmt_misc, efivarfs, fusectl, rpc_pipefs, nsfs, autofs (not yet mounted).
    const MAGICS: [u32; 19] = [
        0x9fa0,
        0x6265_6572,
        0x27_e0eb,
        0x6367_7270,
        0x1cd1,
        0x6462_6720,
        0x7472_6163,
        0x7363_6673,
        0xf97c_ff8c,
        0xcafe_4a11,
        0x6165_676c,
        0x1980_0202,
        0x6265_6570,
        0x4249_4e4d,
        0xde5e_81e4,
        0x6573_5543,
        0x6759_6969,
        0x6e73_6673,
        0x0187,
    ];
    // The field's width and sign differ between architectures; every magic fits its low 32 bits.
    MAGICS.contains(&(fs.f_type as u64 as u32))
}

/// The node of a directory or file outside any [`Dir`], fully described, through the links in `path`.
pub(super) fn node_at(path: &[u8], scope: &Scope, monitor: &Monitor) -> Result<Node> {
    let act = || format!("examine {}", display_path(path));
    let stat = rustix::fs::statat(rustix::fs::CWD, path, rustix::fs::AtFlags::empty())
        .map_err(std::io::Error::from)
        .with_context(act)?;
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
    let mut node = stat::node_of(name, &stat)
        .ok_or_else(|| Error::new(ErrorKind::Unsupported, format!("{}: of no kind a snapshot can keep", act())))?;
    node.user = scope.owners.user(node.uid);
    node.group = scope.owners.group(node.gid);
    let trouble = match attributes::of_target(path) {
        Ok(found) => {
            node.xattrs = found.xattrs;
            found.trouble
        }
        Err(errno) => vec![format!("list extended attributes: {}", std::io::Error::from(errno))],
    };
    for line in trouble {
        monitor.problem(Problem::new(display_path(path), ProblemKind::Metadata, line));
    }
    debug_assert_eq!(key(&stat), (node.device_id, node.inode));
    Ok(node)
}

/// A path for the standard library.
pub(super) fn as_path(path: Vec<u8>) -> std::path::PathBuf {
    OsString::from_vec(path).into()
}
