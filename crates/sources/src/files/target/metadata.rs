//! Owner, mode, extended attributes and times, set through a descriptor so that no name is resolved again.
//!
//! The order is forced by the kernel. Changing the owner clears setuid, setgid and `security.capability`, so it comes
//! first. `user.*` attributes need write permission, which the final mode may take away, so they come before it. An ACL
//! contains the permission bits and a later chmod would rewrite its mask, so ACLs come after the mode, which is then
//! looked at again. Everything before touches the times, so they come last.

use super::owners::Owners;
use lastgood_model::manifest::{Problem, ProblemKind};
use lastgood_model::{Monitor, Node, NodeKind, Time};
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

const ACL_ACCESS: &str = "system.posix_acl_access";
pub(super) const ACL_DEFAULT: &str = "system.posix_acl_default";

/// What `stat` says about an entry that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its kind.
    pub kind: NodeKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// Last modification of the content.
    pub mtime: Time,
    /// Last access.
    pub atime: Time,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Hard link count.
    pub links: u64,
    /// Device number of its file system.
    pub device_id: u64,
    /// Inode number.
    pub inode: u64,
    /// Device number of a device node.
    pub device: u64,
}

impl From<Stat> for Seen {
    // The field types of `Stat` differ between architectures.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    fn from(stat: Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => NodeKind::Dir,
            FileType::Symlink => NodeKind::Symlink,
            FileType::BlockDevice => NodeKind::BlockDevice,
            FileType::CharacterDevice => NodeKind::CharDevice,
            FileType::Fifo => NodeKind::Fifo,
            FileType::Socket => NodeKind::Socket,
            FileType::RegularFile | FileType::Unknown => NodeKind::File,
        };
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            size: stat.st_size as u64,
            mtime: Time::new(stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            atime: Time::new(stat.st_atime as i64, stat.st_atime_nsec as u32),
            uid: stat.st_uid,
            gid: stat.st_gid,
            links: stat.st_nlink as u64,
            device_id: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            device: stat.st_rdev as u64,
        }
    }
}

/// A descriptor whose metadata can be changed.
#[derive(Clone, Copy)]
pub(super) enum Held<'a> {
    /// A file or directory open for reading or writing.
    Open(BorrowedFd<'a>),
    /// Anything at all opened with `O_PATH`, symbolic links themselves included. What the kernel does not do on such
    /// descriptors goes through `/proc/self/fd`, whose links lead to the inode that is held, not to a name.
    Pinned(BorrowedFd<'a>),
}

impl Held<'_> {
    fn proc_path(fd: BorrowedFd<'_>) -> String {
        format!("/proc/self/fd/{}", fd.as_raw_fd())
    }

    pub(super) fn stat(self) -> Result<Seen, Errno> {
        match self {
            Self::Open(fd) | Self::Pinned(fd) => rustix::fs::fstat(fd).map(Seen::from),
        }
    }

    fn chown(self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        let (uid, gid) = (uid.map(Uid::from_raw_unchecked), gid.map(Gid::from_raw_unchecked));
        match self {
            Self::Open(fd) => rustix::fs::fchown(fd, uid, gid),
            Self::Pinned(fd) => rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    pub(super) fn chmod(self, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        match self {
            Self::Open(fd) => rustix::fs::fchmod(fd, mode),
            Self::Pinned(fd) => rustix::fs::chmodat(CWD, Self::proc_path(fd), mode, AtFlags::empty()),
        }
    }

    fn set_xattr(self, name: &str, value: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Pinned(fd) => rustix::fs::setxattr(Self::proc_path(fd), name, value, XattrFlags::empty()),
        }
    }

    /// True when the attribute is there and is exactly this.
    fn has_xattr(self, name: &str, value: &[u8]) -> bool {
        // One byte more, to see that it is not longer.
        let mut there = vec![0; value.len() + 1];
        let length = match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, &mut there[..]),
            Self::Pinned(fd) => rustix::fs::getxattr(Self::proc_path(fd), name, &mut there[..]),
        };
        length == Ok(value.len()) && there[..value.len()] == *value
    }

    fn remove_xattr(self, name: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Pinned(fd) => rustix::fs::removexattr(Self::proc_path(fd), name),
        }
    }

    /// The names of all attributes, each ended by NUL.
    fn list_xattrs(self) -> Result<Vec<u8>, Errno> {
        /// The kernel never lists more (`XATTR_LIST_MAX`).
        const LIST_MAX: usize = 65_536;
        let none = match self {
            Self::Open(fd) => rustix::fs::flistxattr_query(fd),
            Self::Pinned(fd) => rustix::fs::listxattr_query(Self::proc_path(fd)),
        }? == 0;
        if none {
            return Ok(Vec::new());
        }
        let mut names = vec![0; LIST_MAX];
        let length = match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, &mut names[..]),
            Self::Pinned(fd) => rustix::fs::listxattr(Self::proc_path(fd), &mut names[..]),
        }?;
        names.truncate(length);
        Ok(names)
    }

    fn set_times(self, atime: Time, mtime: Time) -> Result<(), Errno> {
        let spec = |time: Time| Timespec { tv_sec: time.secs, tv_nsec: i64::from(time.nanos.min(999_999_999)) as _ };
        let times = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
        match self {
            Self::Open(fd) => rustix::fs::futimens(fd, &times),
            Self::Pinned(fd) => match rustix::fs::utimensat(fd, c"", &times, AtFlags::EMPTY_PATH) {
                // Before Linux 5.8 `utimensat` does not know AT_EMPTY_PATH.
                Err(Errno::INVAL) => rustix::fs::utimensat(CWD, Self::proc_path(fd), &times, AtFlags::empty()),
                done => done,
            },
        }
    }
}

/// An entry about to get its metadata.
pub(super) struct Subject<'a> {
    pub(super) held: Held<'a>,
    /// As it is now.
    pub(super) seen: Seen,
    /// Made by this restore, so that it has no attributes of its own.
    pub(super) fresh: bool,
    /// Made in a directory with a default ACL, which the kernel copied to it.
    pub(super) inherited_acl: bool,
    /// Its path for messages; only asked for when something goes wrong.
    pub(super) path: &'a dyn Fn() -> String,
}

/// Gives `subject` the metadata of `node`. What the system refuses is reported to `monitor`, and the rest still done: a
/// file with the wrong owner is worth more than no file.
pub(super) fn apply(subject: &Subject<'_>, node: &Node, owners: &Owners, xattrs: bool, monitor: &Monitor) {
    let held = subject.held;
    let problem = |what: &str, errno: Errno| {
        let message = format!("{what}: {}", std::io::Error::from(errno));
        monitor.problem(Problem::new((subject.path)(), ProblemKind::Metadata, message));
    };

    let mut owner = (subject.seen.uid, subject.seen.gid);
    let mut mode_known = true;
    if let Some(wanted) = owners.wanted(node)
        && wanted != owner
    {
        if let Err(errno) = give_to(held, wanted, &mut owner) {
            problem(&format!("set owner {}:{}", wanted.0, wanted.1), errno);
        }
        mode_known = subject.fresh;
    }

    if subject.inherited_acl && node.kind != NodeKind::Symlink {
        for name in [ACL_ACCESS, ACL_DEFAULT] {
            match held.remove_xattr(name.as_bytes()) {
                Ok(()) => mode_known = false,
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => problem("remove inherited ACL", errno),
            }
        }
    }
    if xattrs {
        if !subject.fresh {
            mode_known &= !remove_stale(held, node, &problem);
        }
        for xattr in node.xattrs.iter().filter(|x| !is_acl(&x.name)) {
            if !subject.fresh && held.has_xattr(&xattr.name, &xattr.value) {
                continue;
            }
            if let Err(errno) = held.set_xattr(&xattr.name, &xattr.value) {
                problem(&format!("set attribute {:?}", xattr.name), errno);
            }
        }
    }

    if node.kind != NodeKind::Symlink {
        let mode = safe_mode(node, owners.wanted(node), owner);
        if mode != node.mode & 0o7777 {
            let message = "setuid or setgid left off: the file does not belong to its recorded owner";
            monitor.problem(Problem::new((subject.path)(), ProblemKind::Metadata, message));
        }
        if !(mode_known && subject.seen.mode == mode)
            && let Err(errno) = held.chmod(mode)
        {
            problem(&format!("set mode {mode:04o}"), errno);
        }
        if xattrs && node.xattrs.iter().any(|x| is_acl(&x.name)) {
            for xattr in node.xattrs.iter().filter(|x| is_acl(&x.name)) {
                if !subject.fresh && held.has_xattr(&xattr.name, &xattr.value) {
                    continue;
                }
                if let Err(errno) = held.set_xattr(&xattr.name, &xattr.value) {
                    problem(&format!("set attribute {:?}", xattr.name), errno);
                }
            }
            // An ACL that disagrees with the mode must not widen it.
            let again = held.stat().and_then(|now| if now.mode == mode { Ok(()) } else { held.chmod(mode) });
            if let Err(errno) = again {
                problem(&format!("set mode {mode:04o}"), errno);
            }
        }
    }

    let same_times = (subject.seen.atime, subject.seen.mtime) == (node.atime, node.mtime);
    if (subject.fresh || !same_times)
        && let Err(errno) = held.set_times(node.atime, node.mtime)
    {
        // Looking at somebody else's entry changes when it was last read, which is no loss.
        let only_read = !subject.fresh && subject.seen.mtime == node.mtime && errno == Errno::PERM;
        if !only_read {
            problem("set times", errno);
        }
    }
}

/// True when an entry that is there has owner, mode, modification time and attributes as they were recorded.
pub(super) fn is_recorded(held: Held<'_>, seen: &Seen, node: &Node, xattrs: bool) -> bool {
    let same = (seen.uid, seen.gid, seen.mode, seen.mtime) == (node.uid, node.gid, node.mode & 0o7777, node.mtime);
    if !same || !xattrs {
        return same;
    }
    let has_stale = match held.list_xattrs() {
        Ok(names) => stale(&names, node).next().is_some(),
        Err(errno) => errno != Errno::OPNOTSUPP,
    };
    !has_stale && node.xattrs.iter().all(|x| held.has_xattr(&x.name, &x.value))
}

/// Changes owner and group, or the group alone where only that is permitted, and tells in `owner` what is so now.
fn give_to(held: Held<'_>, wanted: (u32, u32), owner: &mut (u32, u32)) -> Result<(), Errno> {
    // The number -1 means "leave as it is" to the kernel and can be nobody's.
    if wanted.0 == u32::MAX || wanted.1 == u32::MAX {
        return Err(Errno::INVAL);
    }
    match held.chown(Some(wanted.0), Some(wanted.1)) {
        Ok(()) => {
            *owner = wanted;
            Ok(())
        }
        Err(errno) => {
            if held.chown(None, Some(wanted.1)).is_ok() {
                owner.1 = wanted.1;
            }
            Err(errno)
        }
    }
}

/// The node's mode, without setuid (setgid) on a file that could not be given to its user (group): the bit would lend
/// the rights of somebody else, in the worst case root's.
fn safe_mode(node: &Node, wanted: Option<(u32, u32)>, owner: (u32, u32)) -> u32 {
    let mut mode = node.mode & 0o7777;
    let recorded = wanted.unwrap_or((node.uid, node.gid));
    if node.kind != NodeKind::Dir {
        if recorded.0 != owner.0 {
            mode &= !0o4000;
        }
        if recorded.1 != owner.1 {
            mode &= !0o2000;
        }
    }
    mode
}

fn is_acl(name: &str) -> bool {
    name == ACL_ACCESS || name == ACL_DEFAULT
}

/// Removes attributes the node does not have from an entry that was there before; true when the mode may have changed.
/// What the system itself maintains (security labels, ACLs of network file systems) is left alone.
fn remove_stale(held: Held<'_>, node: &Node, problem: &dyn Fn(&str, Errno)) -> bool {
    let names = match held.list_xattrs() {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => return false,
        Err(errno) => {
            problem("list attributes", errno);
            return false;
        }
    };
    let mut removed_acl = false;
    for name in stale(&names, node) {
        let text = String::from_utf8_lossy(name);
        match held.remove_xattr(name) {
            Ok(()) => removed_acl |= is_acl(&text),
            Err(Errno::NODATA) => {}
            Err(errno) => problem(&format!("remove attribute {text:?}"), errno),
        }
    }
    removed_acl
}

/// Of a list of attributes those that the node does not have and that are not the system's own.
fn stale<'n>(names: &'n [u8], node: &'n Node) -> impl Iterator<Item = &'n [u8]> {
    names.split(|b| *b == 0).filter(|name| !name.is_empty()).filter(|name| {
        let text = String::from_utf8_lossy(name);
        let ours =
            text.starts_with("user.") || text.starts_with("trusted.") || text == "security.capability" || is_acl(&text);
        ours && !node.xattrs.iter().any(|x| x.name.as_bytes() == *name)
    })
}
