//! A file on its way to becoming an object.
//!
//! It is called `.tmp-<pid>-<counter>-<8 hex digits>`, which no reader takes for an object, and lies in the folder of
//! the object, so that publishing is one rename. Its writer holds a lock on it (`flock`) until it is published or given
//! up. The lock, not the process id in its name, tells whether the writer is alive: it is right across containers that
//! number their processes separately, and vanishes with the process however that ends.

use super::direct::write_blocks;
use super::{failed, shown};
use crate::length_of;
use crate::local::folders::walk;
use lastgood_model::store::Swept;
use lastgood_model::{Error, ErrorKind, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::hash::{BuildHasher, Hasher};
use std::io::IoSlice;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where a file system has no locks, age alone tells that a temporary was left behind; then at least this much of it.
const STALE_WITHOUT_LOCK: Duration = Duration::from_secs(7 * 24 * 3600);

/// `writev` takes no more pieces than this at once (`IOV_MAX`).
const PIECES_MAX: usize = 1024;

/// Removed when dropped unpublished.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    file: OwnedFd,
    published: bool,
}

impl Temporary {
    /// A new, empty, locked file in `folder`.
    pub(super) fn create(folder: &Path) -> Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        // A name can be taken by a process of the same number elsewhere; eight times in a row it cannot.
        let mut last = Errno::EXIST;
        for _ in 0..8 {
            let random = std::hash::RandomState::new().build_hasher().finish() as u32;
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!(".tmp-{}-{count}-{random:08x}", std::process::id()));
            match rustix::io::retry_on_intr(|| rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)) {
                Ok(file) => {
                    let temporary = Self { path, file, published: false };
                    match rustix::fs::flock(&temporary.file, FlockOperation::NonBlockingLockExclusive) {
                        // A sweep got at it between our two calls and is about to remove it.
                        Err(Errno::WOULDBLOCK) => last = Errno::WOULDBLOCK,
                        // Without locks on this file system a sweep goes by age alone, see `STALE_WITHOUT_LOCK`.
                        Ok(()) | Err(_) => return Ok(temporary),
                    }
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed("write in", folder, errno)),
            }
        }
        Err(failed("write in", folder, last))
    }

    /// Writes all parts in order, without copying them together.
    pub(super) fn write(&mut self, parts: &[&[u8]]) -> Result<()> {
        let mut left = length_of(parts);
        // Packs come as one part.
        let direct = match parts {
            [only] => write_blocks(&self.file, only).map_err(|errno| failed("write", &self.path, errno))?,
            _ => 0,
        };
        left -= direct as u64;
        let rest = parts.first().map(|first| &first[direct..]);
        let parts = rest.into_iter().chain(parts.iter().skip(1).copied());
        let mut pieces: Vec<IoSlice<'_>> = parts.filter(|p| !p.is_empty()).map(IoSlice::new).collect();
        let mut pieces = pieces.as_mut_slice();
        while left > 0 {
            match rustix::io::writev(&self.file, &pieces[..pieces.len().min(PIECES_MAX)]) {
                Ok(0) => return Err(failed("write", &self.path, Errno::IO)),
                Ok(count) => {
                    left -= count as u64;
                    IoSlice::advance_slices(&mut pieces, count);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("write", &self.path, errno)),
            }
        }
        Ok(())
    }

    /// Makes the bytes durable. After an error this file must be given up: see the parent module.
    pub(super) fn flush(&mut self) -> Result<()> {
        rustix::fs::fsync(&self.file).map_err(|errno| failed("flush", &self.path, errno))
    }

    /// Removes it, and says so when that fails.
    pub(super) fn discard(mut self) -> Result<()> {
        self.published = true;
        rustix::fs::unlink(&self.path).map_err(|errno| failed("remove", &self.path, errno))
    }

    /// Gives it its name, replacing what has that name.
    pub(super) fn publish(mut self, path: &Path) -> Result<()> {
        rustix::fs::rename(&self.path, path).map_err(|errno| failed("publish", path, errno))?;
        self.published = true;
        Ok(())
    }

    /// Gives it its name unless that is taken, then [`ErrorKind::Conflict`]; of several that try, one wins.
    pub(super) fn publish_new(mut self, path: &Path) -> Result<()> {
        match rustix::fs::renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.published = true;
                Ok(())
            }
            // NFS and some FUSE file systems cannot rename so, but can link.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => self.publish_by_link(path),
            Err(errno) => Err(failed("publish", path, errno)),
        }
    }

    /// As [`Self::publish_new`], by a hard link. Dropping `self` then removes the temporary name.
    fn publish_by_link(self, path: &Path) -> Result<()> {
        match rustix::fs::link(&self.path, path) {
            Ok(()) => Ok(()),
            // Over NFS a repeated request can be told "exists" about its own first success; two links prove that.
            Err(_) if rustix::fs::fstat(&self.file).is_ok_and(|stat| stat.st_nlink == 2) => Ok(()),
            Err(Errno::PERM | Errno::NOSYS | Errno::NOTSUP) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("the file system of {} can neither rename without replacing nor link", shown(path)),
            )
            .with_hint("put the repository on another file system")),
            Err(errno) => Err(failed("publish", path, errno)),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed now is left to a sweep, which reports trouble; the error that brought us here is
            // the one to return.
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

/// True for names made by [`Temporary::create`].
fn is_temporary(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b".tmp-") else { return false };
    let parts: Vec<&[u8]> = rest.split(|b| *b == b'-').collect();
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    matches!(parts[..], [pid, count, random]
        if digits(pid) && digits(count) && random.len() == 8 && random.iter().all(u8::is_ascii_hexdigit))
}

/// Removes temporaries in `folder` that are older than `older_than` and whose writer is gone.
pub(super) fn sweep_folder(folder: &Path, older_than: Duration, swept: &mut Swept) -> Result<()> {
    walk(folder, |fd, name| {
        if !is_temporary(name) {
            return Ok(());
        }
        let path = folder.join(OsStr::from_bytes(name));
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match rustix::fs::openat(fd, name, flags, Mode::empty()) {
            Ok(file) => file,
            // Published or given up meanwhile.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed("sweep", &path, errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|errno| failed("sweep", &path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let modified = UNIX_EPOCH + Duration::new(u64::try_from(stat.st_mtime).unwrap_or(0), 0);
        // A time in the future is no age at all: the clocks disagree, so wait.
        let Ok(age) = SystemTime::now().duration_since(modified) else { return Ok(()) };
        let limit = match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => older_than,
            Err(Errno::WOULDBLOCK) => return Ok(()),
            Err(_) => older_than.max(STALE_WITHOUT_LOCK),
        };
        if age < limit {
            return Ok(());
        }
        // The lock may have been had just after its writer published the file; then this name is gone, which is well.
        match rustix::fs::unlinkat(fd, name, AtFlags::empty()) {
            Ok(()) => {
                swept.leftovers += 1;
                swept.bytes += stat.st_size as u64;
                Ok(())
            }
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("sweep", &path, errno)),
        }
    })
    .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_temporaries() {
        assert!(is_temporary(b".tmp-1-0-deadbeef"));
        for foreign in [
            &b".tmp"[..],
            b".tmp-",
            b".tmp-1-0",
            b".tmp-1-0-deadbee",
            b".tmp-1-0-deadbeefs",
            b".tmp-x-0-deadbeef",
            b".tmp-1-0-deadbeef-1",
            b"tmp-1-0-deadbeef",
            b"00ff-tmp-123",
        ] {
            assert!(!is_temporary(foreign), "{}", String::from_utf8_lossy(foreign));
        }
    }

    #[test]
    fn more_parts_than_the_kernel_takes_at_once_are_all_written() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
        let parts: Vec<&[u8]> = bytes.chunks(1).chain([&b""[..], b"end"]).collect();
        let mut temporary = Temporary::create(folder.path()).unwrap();
        temporary.write(&parts).unwrap();
        temporary.flush().unwrap();
        let path = folder.path().join("object");
        temporary.publish(&path).unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), parts.concat());
    }

    #[test]
    fn a_link_publishes_as_exclusively_as_a_rename() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let make = |text: &str| {
            let mut temporary = Temporary::create(folder.path()).unwrap();
            temporary.write(&[text.as_bytes()]).unwrap();
            temporary
        };
        make("first").publish_by_link(&path).unwrap();
        assert_eq!(make("second").publish_by_link(&path).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(make("third").publish_new(&path).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(fs_err::read(&path).unwrap(), b"first");
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1, "temporary names are gone");
    }

    #[test]
    fn a_temporary_that_is_not_published_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        drop(Temporary::create(folder.path()).unwrap());
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_sweep_spares_the_work_of_a_living_writer_whatever_its_age() {
        let folder = tempfile::tempdir().unwrap();
        let mut living = Temporary::create(folder.path()).unwrap();
        living.write(&[b"half an object"]).unwrap();
        let mut swept = Swept::default();
        sweep_folder(folder.path(), Duration::ZERO, &mut swept).unwrap();
        assert_eq!(swept, Swept::default());
        living.publish(&folder.path().join("object")).unwrap();
    }
}
