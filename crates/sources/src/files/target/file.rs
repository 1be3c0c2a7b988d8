//! Regular files: created or opened for comparison, written at any offset by any thread, finished once.

use super::metadata::{self, Held, Seen, Subject};
use super::place::{DirHandle, Place};
use super::{Overwrite, Target, io_error};
use crate::sqlite::{HEADER_BYTES, looks_like_database};
use lastgood_model::{Error, Monitor, Node, NodeKind, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A regular file being restored. Threads may write different parts of it at once. It is whole only after
/// [`Target::finish_file`]; one that cannot be completed goes to [`Target::discard`].
#[derive(Debug)]
pub struct FileHandle {
    fd: OwnedFd,
    place: Arc<Place>,
    name: Box<[u8]>,
    fresh: bool,
    /// Its content must not be changed under this inode.
    only_to_compare: bool,
    inherited_acl: bool,
    /// End of the furthest write.
    end: AtomicU64,
}

impl FileHandle {
    /// True for a new and empty file, false for one that was there and may hold the right content already.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// True for one that was there and must not be written to, though it may hold the right content already. Where it
    /// does not, drop it and let [`Target::create_file`] put another in its place.
    pub fn is_only_to_compare(&self) -> bool {
        self.only_to_compare
    }

    /// Its path, root included, for messages.
    pub fn path(&self) -> Vec<u8> {
        self.place.path_of(&self.name)
    }

    /// Writes all of `data` at `offset`.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.end.fetch_max(offset.saturating_add(data.len() as u64), Ordering::Relaxed);
        write_all(&self.fd, offset, data).map_err(|e| self.error("write", e))
    }

    /// Makes `length` bytes at `offset` read as zeros, as a hole where the file system can. Costs nothing in a fresh file,
    /// where ranges not written are holes.
    pub fn hole(&self, offset: u64, length: u64) -> Result<()> {
        if self.fresh || length == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.fd, flags, offset, length) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let (mut at, end) = (offset, offset.saturating_add(length));
                while at < end {
                    let piece = &ZEROS[..ZEROS.len().min(usize::try_from(end - at).unwrap_or(usize::MAX))];
                    self.write_at(at, piece)?;
                    at += piece.len() as u64;
                }
                Ok(())
            }
            Err(e) => Err(self.error("punch hole into", e)),
        }
    }

    /// Fills `out` from `offset` and returns how much there was, less than asked only at the end of the file. Only for
    /// files from [`Target::open_existing`].
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < out.len() {
            match rustix::io::pread(&self.fd, &mut out[done..], offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(e) => return Err(self.error("read", e)),
            }
        }
        Ok(done)
    }

    /// Length in bytes now.
    pub fn len(&self) -> Result<u64> {
        Ok(self.seen()?.size)
    }

    /// True when it holds no byte now.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    fn begins_as_database(&self) -> Result<bool> {
        let mut head = [0; HEADER_BYTES];
        let length = self.read_at(0, &mut head)?;
        Ok(looks_like_database(&head[..length]))
    }

    fn seen(&self) -> Result<Seen> {
        Held::Open(self.fd.as_fd()).stat().map_err(|e| self.error("look at", e))
    }

    fn error(&self, act: &str, errno: Errno) -> Error {
        io_error(format!("{act} {}", self.place.display(&self.name)), errno)
    }
}

impl Target {
    /// Creates the file `node.name` in `dir`, empty. What is in the way is treated as the options say.
    pub fn create_file(&self, dir: &DirHandle, node: &Node) -> Result<FileHandle> {
        Ok(FileHandle {
            fd: self.create(dir, node)?,
            place: Arc::clone(&dir.place),
            name: node.name.as_slice().into(),
            fresh: true,
            only_to_compare: false,
            inherited_acl: dir.traits.default_acl,
            end: AtomicU64::new(0),
        })
    }

    /// Opens the file `node.name` in `dir` for comparing and rewriting in place. `None` when there is none, or when it can
    /// only be replaced ([`Target::create_file`] does that): it is no regular file, has other names that would change with
    /// it, or belongs to somebody else who may hold it open.
    ///
    /// Some may be compared and not rewritten ([`FileHandle::is_only_to_compare`]): a SQLite database, because whoever has
    /// it open would go on writing what belongs to its old content; and a file that cannot be written to, or belongs to
    /// somebody else, and has the metadata of `node` already.
    /// [`ErrorKind::Conflict`](lastgood_model::ErrorKind::Conflict) when nothing may be overwritten and something is there.
    pub fn open_existing(&self, dir: &DirHandle, node: &Node) -> Result<Option<FileHandle>> {
        self.check_kind(node, NodeKind::File, dir, &node.name)?;
        let Some(seen) = self.existing(dir, &node.name)? else { return Ok(None) };
        if self.options.overwrite == Overwrite::Never {
            self.clear(dir, &node.name)?;
        }
        let owner = self.owners.wanted(node).map_or(self.own.0, |(uid, _)| uid);
        let single = |seen: &Seen| seen.kind == NodeKind::File && seen.links == 1;
        let usable = |seen: &Seen| single(seen) && (seen.uid == self.own.0 || seen.uid == owner);
        if usable(&seen)
            && let Some(mut file) = self.open_there(dir, node, OFlags::RDWR)?
        {
            file.only_to_compare = file.begins_as_database()?;
            return Ok(usable(&file.seen()?).then_some(file));
        }
        if !single(&seen) || (seen.mode, seen.mtime) != (node.mode & 0o7777, node.mtime) {
            return Ok(None);
        }
        let Some(mut file) = self.open_there(dir, node, OFlags::RDONLY)? else { return Ok(None) };
        file.only_to_compare = true;
        let seen = file.seen()?;
        let fits =
            single(&seen) && metadata::is_recorded(Held::Open(file.fd.as_fd()), &seen, node, self.options.xattrs);
        Ok(fits.then_some(file))
    }

    /// Opens a regular file that is there; `None` when it is another thing by now, or closed to us.
    fn open_there(&self, dir: &DirHandle, node: &Node, access: OFlags) -> Result<Option<FileHandle>> {
        // Should a fifo or device have taken its place since, opening it must neither wait nor become our terminal.
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = |flags| rustix::fs::openat(&dir.fd, node.name.as_slice(), flags, Mode::empty());
        // Looking at a file that is the same need not change when it was last read; others' files do not allow that.
        let opened = match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => open(flags),
            opened => opened,
        };
        let fd = match opened {
            Ok(fd) => fd,
            Err(
                Errno::NOENT
                | Errno::LOOP
                | Errno::ISDIR
                | Errno::NXIO
                | Errno::TXTBSY
                | Errno::ACCESS
                | Errno::PERM
                | Errno::ROFS,
            ) => {
                return Ok(None);
            }
            Err(e) => return Err(io_error(self.act("open", dir, &node.name), e)),
        };
        Ok(Some(FileHandle {
            fd,
            place: Arc::clone(&dir.place),
            name: node.name.as_slice().into(),
            fresh: false,
            only_to_compare: false,
            inherited_acl: false,
            end: AtomicU64::new(0),
        }))
    }

    /// Gives the file its length (`node.size`; beyond what was written a hole) and its metadata. Call it once, after the
    /// last write has returned. Metadata that is refused is reported to `monitor`.
    pub fn finish_file(&self, file: &FileHandle, node: &Node, monitor: &Monitor) -> Result<()> {
        let mut seen = file.seen()?;
        if seen.size != node.size {
            rustix::fs::ftruncate(&file.fd, node.size).map_err(|e| file.error("set length of", e))?;
            seen = file.seen()?;
        }
        let path = || file.place.display(&file.name);
        let held = Held::Open(file.fd.as_fd());
        let subject = Subject { held, seen, fresh: file.fresh, inherited_acl: file.inherited_acl, path: &path };
        metadata::apply(&subject, node, &self.owners, self.options.xattrs, monitor);
        Ok(())
    }

    /// Creates the file `node.name` in `dir` with the content `data` (parts in order; they alone decide its length) and
    /// its metadata, in as few calls as there can be. A file that could not be written whole is removed again.
    pub fn write_small(&self, dir: &DirHandle, node: &Node, data: &[&[u8]], monitor: &Monitor) -> Result<()> {
        let fd = self.create(dir, node)?;
        let held = Held::Open(fd.as_fd());
        let seen = write_parts(&fd, data).and_then(|()| held.stat());
        let seen = match seen {
            Ok(seen) => seen,
            Err(e) => {
                let error = io_error(self.act("write", dir, &node.name), e);
                return Err(match self.unlink_same(dir, &node.name, &fd) {
                    Ok(()) => error,
                    Err(_) => error.with_hint("an incomplete file was left behind"),
                });
            }
        };
        let path = || dir.place.display(&node.name);
        let subject = Subject { held, seen, fresh: true, inherited_acl: dir.traits.default_acl, path: &path };
        metadata::apply(&subject, node, &self.owners, self.options.xattrs, monitor);
        Ok(())
    }

    /// Removes a file that could not be completed, if `dir` still has it under its name.
    pub fn discard(&self, dir: &DirHandle, file: &FileHandle) -> Result<()> {
        self.unlink_same(dir, &file.name, &file.fd).map_err(|e| file.error("remove incomplete", e))
    }

    fn unlink_same(&self, dir: &DirHandle, name: &[u8], fd: &OwnedFd) -> std::result::Result<(), Errno> {
        let ours = Held::Open(fd.as_fd()).stat()?;
        let there = match rustix::fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Seen::from(stat),
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e),
        };
        if (there.device_id, there.inode) == (ours.device_id, ours.inode) {
            rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Creates an empty file and nothing else.
    fn create(&self, dir: &DirHandle, node: &Node) -> Result<OwnedFd> {
        self.check_name(dir, &node.name)?;
        self.check_kind(node, NodeKind::File, dir, &node.name)?;
        // Usually the file can be born with its final mode, which saves a call. Where owner, group or ACL are still to
        // come, the final mode would let the wrong people read meanwhile.
        let own = self.owners.wanted(node).is_none_or(|wanted| wanted == self.own);
        let plain = own && !dir.traits.setgid && !dir.traits.default_acl && node.xattrs.is_empty();
        let mode = Mode::from_raw_mode(if plain { node.mode & 0o777 } else { 0o600 });
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self
            .make(dir, &node.name, "create file", || rustix::fs::openat(&dir.fd, node.name.as_slice(), flags, mode))?;
        Ok(fd)
    }
}

fn write_all(fd: &OwnedFd, mut offset: u64, mut data: &[u8]) -> std::result::Result<(), Errno> {
    while !data.is_empty() {
        match rustix::io::pwrite(fd, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                offset += count as u64;
                data = &data[count..];
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Writes parts one after the other from the start of the file, together where the kernel takes them so.
fn write_parts(fd: &OwnedFd, parts: &[&[u8]]) -> std::result::Result<(), Errno> {
    /// The kernel takes no more slices at once (`UIO_MAXIOV`).
    const SLICES_MAX: usize = 1024;
    let mut offset = 0;
    for parts in parts.chunks(SLICES_MAX) {
        let mut written = 0;
        if parts.len() > 1 {
            let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            written = match rustix::io::pwritev(fd, &slices, offset) {
                Ok(count) => count,
                Err(Errno::INTR) => 0,
                Err(e) => return Err(e),
            };
        }
        for part in parts {
            let skip = written.min(part.len());
            written -= skip;
            write_all(fd, offset + skip as u64, &part[skip..])?;
            offset += part.len() as u64;
        }
    }
    Ok(())
}

static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// True when every byte is zero, as of a block that can be restored as a hole. Compares with known zeros, which the
/// platform's `memcmp` does a vector at a time; data that starts otherwise is told by its first bytes.
pub fn is_zero(data: &[u8]) -> bool {
    data.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}
