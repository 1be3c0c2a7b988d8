//! Restoring trees into a file system: the only code that writes restored entries anywhere.
//!
//! **Promise.** Nothing is created, changed or removed outside the root that was opened, whatever names the snapshot
//! holds, whatever links are planted below the root, and whoever swaps directories for links meanwhile. Nothing that
//! was there before is replaced unless the options say so.
//!
//! **Why that holds.** Names are checked to be one path component. Every call names its entry relative to the descriptor
//! of an open directory and follows no link: directories are opened with `O_NOFOLLOW` one component at a time, or in
//! longer strides with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)`; files are created with
//! `O_EXCL`; everything else is created by calls that fail on an existing name. Metadata is set through the descriptor
//! of the thing itself. A directory that somebody moves elsewhere while it is being filled keeps being filled: it is
//! the directory that was opened, and only who may write on both sides can move it.
//!
//! **How to use it.** Open directories from the top with [`Target::subdir`], fill them ([`Target::write_small`],
//! [`Target::create_file`], [`Target::special`], [`Target::hardlink`]) and call [`Target::finish_dir`] once everything
//! below is done, deepest first: a new directory is private and writable until then, so that read-only directories can
//! be filled, and its times survive. All calls may come from many threads at once.
//!
//! A run that dies leaves files that are short or lack their metadata. A second run with [`Overwrite::IfDifferent`]
//! opens them ([`Target::open_existing`]), lets the caller compare the content, and completes them.

mod file;
mod metadata;
mod owners;
mod place;
mod remove;
mod scratch;
mod special;
#[cfg(test)]
mod tests;
mod view;

pub use file::{FileHandle, is_zero};
pub use metadata::Seen;
pub use place::{DirHandle, ParkedDir};
pub use scratch::{Scratch, remove_left_behind};
pub use view::{TreeView, ViewDir};

use lastgood_model::node::{display_path, is_safe_name};
use lastgood_model::{Context, Error, ErrorKind, Monitor, Node, NodeKind, Result};
use metadata::{ACL_DEFAULT, Held, Subject};
use owners::Owners;
use place::Place;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whom restored entries belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerPolicy {
    /// The recorded numbers.
    Numeric,
    /// The recorded names as this host knows them, else the recorded numbers.
    ByName,
    /// Whoever restores. Files lose setuid and setgid where that would lend the wrong user's rights.
    Skip,
}

/// What may happen to an entry that is already there. Directories are merged in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// It stays and the restored one fails with [`ErrorKind::Conflict`]. Directories that were there keep their metadata.
    Never,
    /// It is kept where it is the same and replaced or rewritten where not. Comparing content is the caller's part.
    IfDifferent,
    /// It is replaced.
    Always,
}

/// How a [`Target`] restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetOptions {
    /// Whom entries belong to. By default the recorded numbers for root, and nobody else for anyone else.
    pub owners: OwnerPolicy,
    /// Whether extended attributes (ACLs and capabilities included) are restored. By default they are.
    pub xattrs: bool,
    /// Whether device nodes are made; if not, each is reported. By default only for root.
    pub devices: bool,
    /// What happens to entries in the way. By default they stay.
    pub overwrite: Overwrite,
    /// Whether [`Target::remove_extra`] may remove what the snapshot does not have, and whole directories may be removed
    /// where it has something else. Off by default.
    pub delete_extra: bool,
}

impl Default for TargetOptions {
    fn default() -> Self {
        let root = rustix::process::geteuid().is_root();
        Self {
            owners: if root { OwnerPolicy::Numeric } else { OwnerPolicy::Skip },
            xattrs: true,
            devices: root,
            overwrite: Overwrite::Never,
            delete_extra: false,
        }
    }
}

/// A directory that is being restored into. See the module for what it promises.
#[derive(Debug)]
pub struct Target {
    root: Arc<DirHandle>,
    options: TargetOptions,
    owners: Owners,
    /// User and group that new entries have by themselves.
    own: (u32, u32),
    /// Cleared at the first sign that this kernel (or a filter in front of it) does not do `openat2`.
    strides: AtomicBool,
}

impl Target {
    /// Opens `root`, making it and its parents where they are missing. The path is the user's own word, so links in it
    /// are followed here, once, and never again.
    pub fn open(root: &Path, options: TargetOptions) -> Result<Self> {
        let act = || format!("open restore target {}", display_path(root.as_os_str().as_bytes()));
        fs_err::create_dir_all(root).with_context(act)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, root, flags, Mode::empty()).map_err(|e| io_error(act(), e))?;
        let target = Self {
            root: Arc::new(Self::handle(fd, Place::root(root.as_os_str().as_bytes()), None)?),
            options,
            owners: Owners::new(options.owners),
            own: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            strides: AtomicBool::new(true),
        };
        target.make_writable(&target.root)?;
        Ok(target)
    }

    /// The options it was opened with.
    pub fn options(&self) -> &TargetOptions {
        &self.options
    }

    /// The root itself.
    pub fn root(&self) -> &Arc<DirHandle> {
        &self.root
    }

    /// Opens the directory at `path` below the root (names joined by `/`, empty for the root), making what is missing.
    /// Directories made on the way are private (0700) until [`Target::finish_dir`] is called for them. Any depth and
    /// length of path will do.
    pub fn dir(&self, path: &[u8]) -> Result<DirHandle> {
        let names: Vec<&[u8]> = if path.is_empty() { Vec::new() } else { path.split(|b| *b == b'/').collect() };
        for name in &names {
            self.check_name(&self.root, name)?;
        }
        let (mut at, rest) = self.stride(&names)?;
        for name in rest {
            at = Some(self.subdir(at.as_ref().unwrap_or(&self.root), name)?);
        }
        match at {
            Some(dir) => Ok(dir),
            None => {
                let fd = self.root.fd.try_clone().with_context(|| self.act("open", &self.root, b""))?;
                Ok(DirHandle { fd, place: Arc::clone(&self.root.place), traits: self.root.traits })
            }
        }
    }

    /// Opens the directory `name` in `parent`, making it when it is missing. Something else by that name, a symbolic link
    /// above all, is a [`ErrorKind::Conflict`], or when overwriting is allowed removed (the link, not what it leads to).
    pub fn subdir(&self, parent: &DirHandle, name: &[u8]) -> Result<DirHandle> {
        self.check_name(parent, name)?;
        if !parent.traits.created
            && let Some(dir) = self.open_subdir(parent, name)?
        {
            return Ok(dir);
        }
        self.make(parent, name, "create directory", || rustix::fs::mkdirat(&parent.fd, name, Mode::RWXU))?;
        let fd = open_dir(parent.fd.as_fd(), name, false)
            .map_err(|e| io_error(self.act("open new directory", parent, name), e))?;
        let dir = Self::handle(fd, parent.place.child(name), Some(parent.traits.default_acl))?;
        if parent.traits.default_acl {
            for acl in [ACL_DEFAULT, "system.posix_acl_access"] {
                match rustix::fs::fremovexattr(&dir.fd, acl) {
                    Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                    Err(e) => return Err(io_error(self.act("remove inherited ACL of", parent, name), e)),
                }
            }
        }
        Ok(dir)
    }

    /// Opens a parked directory again. [`ErrorKind::Conflict`] when what is there now is another one.
    pub fn reopen(&self, parked: &ParkedDir) -> Result<DirHandle> {
        let names = parked.place.names();
        let (stridden, rest) = self.stride(&names)?;
        let mut fd = match stridden {
            Some(dir) => dir.fd,
            None => self.root.fd.try_clone().with_context(|| self.act("open", &self.root, b""))?,
        };
        let act = || format!("reopen directory {}", parked.place.display(b""));
        for name in rest {
            fd = open_dir(fd.as_fd(), name, false).map_err(|e| io_error(act(), e))?;
        }
        let seen = Held::Open(fd.as_fd()).stat().map_err(|e| io_error(act(), e))?;
        if (seen.device_id, seen.inode) != (parked.traits.device, parked.traits.inode) {
            return Err(Error::new(ErrorKind::Conflict, format!("{}: another directory took its place", act())));
        }
        Ok(DirHandle { fd, place: Arc::clone(&parked.place), traits: parked.traits })
    }

    /// What is there by that name, links not followed. Costs nothing in a directory made by this restore.
    pub fn existing(&self, dir: &DirHandle, name: &[u8]) -> Result<Option<Seen>> {
        self.check_name(dir, name)?;
        if dir.traits.created {
            return Ok(None);
        }
        self.look(dir, name)
    }

    /// Gives a directory the metadata of `node`. Call it when everything below is finished. What is refused is reported
    /// to `monitor`. A directory that was there before keeps its own metadata under [`Overwrite::Never`].
    pub fn finish_dir(&self, dir: &DirHandle, node: &Node, monitor: &Monitor) -> Result<()> {
        self.check_kind(node, NodeKind::Dir, dir, b"")?;
        if !dir.traits.created && self.options.overwrite == Overwrite::Never {
            return Ok(());
        }
        let held = Held::Open(dir.fd.as_fd());
        let seen = held.stat().map_err(|e| io_error(self.act("look at", dir, b""), e))?;
        let path = || dir.place.display(b"");
        let subject = Subject { held, seen, fresh: dir.traits.created, inherited_acl: false, path: &path };
        metadata::apply(&subject, node, &self.owners, self.options.xattrs, monitor);
        Ok(())
    }

    /// Removes everything in `dir` whose name `keep` does not know, directories with all below, and returns how many
    /// entries that were. Does nothing unless `delete_extra` is set. Links are removed, never followed, and other file
    /// systems mounted below are left alone with a [`ErrorKind::Conflict`].
    pub fn remove_extra(&self, dir: &DirHandle, keep: &dyn Fn(&[u8]) -> bool) -> Result<u64> {
        if !self.options.delete_extra || dir.traits.created {
            return Ok(0);
        }
        let names = remove::names(dir.fd.as_fd()).map_err(|e| io_error(self.act("list", dir, b""), e))?;
        let mut removed = 0;
        for (name, _) in names.iter().filter(|(name, _)| !keep(name)) {
            removed +=
                remove::remove_tree(dir.fd.as_fd(), name).map_err(|e| e.context(self.act("remove", dir, name)))?;
        }
        Ok(removed)
    }

    /// Makes everything restored so far durable, on the root's file system.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.root.fd).map_err(|e| io_error(self.act("sync", &self.root, b""), e))
    }

    /// Opens as much of `names` as exists in few calls, and returns it with what is left to do one by one.
    fn stride<'n>(&self, names: &'n [&'n [u8]]) -> Result<(Option<DirHandle>, &'n [&'n [u8]])> {
        /// Below PATH_MAX (4096), the most a single call takes.
        const STRIDE_BYTES_MAX: usize = 4000;
        let mut at: Option<DirHandle> = None;
        let mut rest = names;
        while rest.len() > 1 && self.strides.load(Ordering::Relaxed) {
            let mut path = Vec::new();
            let mut count = 0;
            for name in rest {
                if count > 0 && path.len() + name.len() >= STRIDE_BYTES_MAX {
                    break;
                }
                if count > 0 {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                count += 1;
            }
            let from = at.as_ref().unwrap_or(&self.root);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(&from.fd, path, flags, Mode::empty(), resolve) {
                Ok(fd) => {
                    let place = rest[..count].iter().fold(Arc::clone(&from.place), |place, name| place.child(name));
                    let dir = Self::handle(fd, place, None)?;
                    self.make_writable(&dir)?;
                    at = Some(dir);
                    rest = &rest[count..];
                }
                Err(Errno::NOSYS | Errno::PERM) => self.strides.store(false, Ordering::Relaxed),
                // Missing, in the way or closed to us: going one by one finds out what and where.
                Err(_) => break,
            }
        }
        Ok((at, rest))
    }

    /// Opens an existing sub-directory; `None` when there is none, or none any more.
    fn open_subdir(&self, parent: &DirHandle, name: &[u8]) -> Result<Option<DirHandle>> {
        let unlock = self.options.overwrite != Overwrite::Never;
        match open_dir(parent.fd.as_fd(), name, unlock) {
            Ok(fd) => {
                let dir = Self::handle(fd, parent.place.child(name), None)?;
                self.make_writable(&dir)?;
                Ok(Some(dir))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                self.clear(parent, name)?;
                Ok(None)
            }
            Err(e) => Err(io_error(self.act("open directory", parent, name), e)),
        }
    }

    /// Wraps an open directory. `born_with_acl` is `None` for one that was there before.
    fn handle(fd: OwnedFd, place: Arc<Place>, born_with_acl: Option<bool>) -> Result<DirHandle> {
        let act = || format!("look at directory {}", place.display(b""));
        let seen = Held::Open(fd.as_fd()).stat().map_err(|e| io_error(act(), e))?;
        let default_acl = match born_with_acl {
            // An ACL it was born with is removed by the caller.
            Some(_) => false,
            None => rustix::fs::fgetxattr_query(&fd, ACL_DEFAULT).is_ok_and(|length| length > 0),
        };
        Ok(DirHandle::new(fd, place, &seen, born_with_acl.is_some(), default_acl))
    }

    /// A directory left read-only by an earlier run must be filled again; its mode is set anew at the end.
    fn make_writable(&self, dir: &DirHandle) -> Result<()> {
        if self.own.0 == 0 || self.options.overwrite == Overwrite::Never {
            return Ok(());
        }
        let act = || self.act("make writable", dir, b"");
        let held = Held::Open(dir.fd.as_fd());
        let seen = held.stat().map_err(|e| io_error(act(), e))?;
        if seen.uid == self.own.0 && seen.mode & 0o700 != 0o700 {
            held.chmod(seen.mode | 0o700).map_err(|e| io_error(act(), e))?;
        }
        Ok(())
    }

    fn look(&self, dir: &DirHandle, name: &[u8]) -> Result<Option<Seen>> {
        match rustix::fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(io_error(self.act("look at", dir, name), e)),
        }
    }

    /// Runs a creating call, making room when the name is taken and the options allow it.
    fn make<T>(
        &self,
        dir: &DirHandle,
        name: &[u8],
        act: &str,
        mut create: impl FnMut() -> std::result::Result<T, Errno>,
    ) -> Result<T> {
        const TRIES_MAX: u32 = 8;
        for _ in 0..TRIES_MAX {
            match create() {
                Ok(made) => return Ok(made),
                Err(Errno::EXIST) => self.clear(dir, name)?,
                Err(Errno::INTR) => {}
                Err(e) => return Err(io_error(self.act(act, dir, name), e)),
            }
        }
        Err(Error::new(ErrorKind::Conflict, format!("{}: the name is taken again and again", self.act(act, dir, name))))
    }

    /// Removes what is in the way of an entry, or says why not.
    fn clear(&self, dir: &DirHandle, name: &[u8]) -> Result<()> {
        let conflict =
            |why: &str| Error::new(ErrorKind::Conflict, format!("{}: {why}", self.act("restore", dir, name)));
        if dir.traits.created {
            return Err(conflict("two entries of the snapshot have this name here"));
        }
        if self.options.overwrite == Overwrite::Never {
            return Err(conflict("something is already there")
                .with_hint("restore into an empty directory, or allow overwriting"));
        }
        let error = |e| io_error(self.act("remove", dir, name), e);
        match rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(error(e)),
        }
        match rustix::fs::unlinkat(&dir.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // It was no directory after all, so the first refusal was about something else.
            Err(Errno::NOTDIR) => Err(error(Errno::PERM)),
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.options.delete_extra => {
                remove::remove_tree(dir.fd.as_fd(), name).map_err(|e| e.context(self.act("remove", dir, name)))?;
                Ok(())
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(conflict("a directory with content is in the way")
                .with_hint("move it away, or allow removing what the snapshot does not have")),
            Err(e) => Err(error(e)),
        }
    }

    fn check_name(&self, dir: &DirHandle, name: &[u8]) -> Result<()> {
        if is_safe_name(name) {
            return Ok(());
        }
        let (name, dir) = (display_path(name), dir.place.display(b""));
        Err(Error::invalid(format!("refuse the name {name:?} in {dir}: it is not one path component")))
    }

    fn check_kind(&self, node: &Node, kind: NodeKind, dir: &DirHandle, name: &[u8]) -> Result<()> {
        if node.kind == kind {
            return Ok(());
        }
        let act = self.act("restore", dir, name);
        Err(Error::new(ErrorKind::Bug, format!("{act}: asked for {kind:?}, given {:?}", node.kind)))
    }

    fn act(&self, what: &str, dir: &DirHandle, name: &[u8]) -> String {
        format!("{what} {}", dir.place.display(name))
    }
}

/// Opens a directory by one name, no link followed. With `unlock`, one of our own that is closed to us is opened up.
fn open_dir(parent: BorrowedFd<'_>, name: &[u8], unlock: bool) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::ACCESS) if unlock => {
            let pinned = rustix::fs::openat(parent, name, flags | OFlags::PATH, Mode::empty())?;
            let held = Held::Pinned(pinned.as_fd());
            held.chmod(held.stat()?.mode | 0o700).map_err(|_| Errno::ACCESS)?;
            rustix::fs::openat(parent, name, flags | OFlags::RDONLY, Mode::empty())
        }
        done => done,
    }
}

/// An error whose kind tells a caller that something is in the way where that is so.
fn io_error(act: impl Into<String>, errno: Errno) -> Error {
    let source = std::io::Error::from(errno);
    match errno {
        Errno::EXIST | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::NOTEMPTY | Errno::XDEV => {
            Error::new(ErrorKind::Conflict, act).with_source(source)
        }
        _ => Error::io(act, source),
    }
}
