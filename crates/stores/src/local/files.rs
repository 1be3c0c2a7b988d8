//! Reading object files: exact ranges, and a few descriptors kept open.

use super::{failed, open_to_read, shown};
use crate::lock;
use lastgood_model::{Error, ErrorKind, Id, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Opens an object; gives its length too.
pub(super) fn open_object(path: &Path) -> Result<(OwnedFd, u64)> {
    let file = open_to_read(path, OFlags::empty()).map_err(|errno| failed("open", path, absent(errno)))?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| failed("examine", path, errno))?;
    Ok((file, object_length(path, &stat)?))
}

/// The length of the object at `path`, `None` when nothing is there.
pub(super) fn stat_object(path: &Path) -> Result<Option<u64>> {
    match rustix::fs::stat(path).map_err(absent) {
        Ok(stat) => object_length(path, &stat).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(failed("examine", path, errno)),
    }
}

/// A file where a folder should be means that the object is not there.
fn absent(errno: Errno) -> Errno {
    if errno == Errno::NOTDIR { Errno::NOENT } else { errno }
}

fn object_length(path: &Path, stat: &Stat) -> Result<u64> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(stat.st_size as u64),
        _ => Err(Error::corrupt(format!("{} is not a regular file", shown(path)))),
    }
}

/// Reads exactly `length` bytes from `offset` of an object of `total` bytes into `out`, which is cleared first. `path` is
/// asked for when there is an error to tell.
pub(super) fn read_exact_at(
    file: &OwnedFd,
    total: u64,
    offset: u64,
    length: usize,
    out: &mut Vec<u8>,
    path: impl Fn() -> PathBuf,
) -> Result<()> {
    out.clear();
    // Before any memory is taken: a damaged index may ask for anything.
    if offset.checked_add(length as u64).is_none_or(|end| end > total) {
        return Err(shorter(&path(), total, offset, length));
    }
    if out.try_reserve_exact(length).is_err() {
        return Err(Error::new(ErrorKind::Io, format!("no memory for {length} bytes of {}", shown(&path()))));
    }
    // Reading into spare capacity spares zeroing it, but fills all of it: worth it only where it is not much too large.
    let fitting = out.capacity() <= length + length / 8 + 4096;
    if !fitting {
        out.resize(length, 0);
    }
    let mut done = 0;
    while done < length {
        let at = offset + done as u64;
        let read = if fitting {
            rustix::io::pread(file, rustix::buffer::spare_capacity(out), at)
        } else {
            rustix::io::pread(file, &mut out[done..], at)
        };
        let error = match read {
            Ok(0) => shorter(&path(), at, offset, length),
            Ok(count) => {
                done += count;
                continue;
            }
            Err(Errno::INTR) => continue,
            Err(errno) => failed("read", &path(), errno),
        };
        out.clear();
        return Err(error);
    }
    out.truncate(length);
    Ok(())
}

fn shorter(path: &Path, total: u64, offset: u64, length: usize) -> Error {
    Error::corrupt(format!(
        "{} is {total} bytes, shorter than the {} needed",
        shown(path),
        u128::from(offset) + length as u128
    ))
}

/// The packs read last, newest first. A file that was removed or replaced since is closed instead of used, so that a
/// removed object is absent and its space is freed.
#[derive(Debug, Default)]
pub(super) struct OpenFiles(Mutex<Vec<(Id, Arc<OwnedFd>)>>);

impl OpenFiles {
    /// Descriptors kept at most.
    const KEPT_MAX: usize = 32;

    /// An open file that is still the object of that name, with its length.
    pub(super) fn get(&self, id: &Id) -> Option<(Arc<OwnedFd>, u64)> {
        let file = {
            let mut kept = lock(&self.0);
            let at = kept.iter().position(|(other, _)| other == id)?;
            kept[..=at].rotate_right(1);
            kept[0].1.clone()
        };
        // A descriptor gone stale on a network file system fails here and is opened anew, which tells why if it fails.
        match rustix::fs::fstat(&*file) {
            Ok(stat) if stat.st_nlink > 0 => Some((file, stat.st_size as u64)),
            _ => {
                self.forget(id);
                None
            }
        }
    }

    pub(super) fn keep(&self, id: Id, file: Arc<OwnedFd>) {
        let mut kept = lock(&self.0);
        kept.retain(|(other, _)| *other != id);
        kept.truncate(Self::KEPT_MAX - 1);
        kept.insert(0, (id, file));
    }

    pub(super) fn forget(&self, id: &Id) {
        lock(&self.0).retain(|(other, _)| other != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(text: &str) -> (tempfile::NamedTempFile, Arc<OwnedFd>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), text).unwrap();
        let fd = Arc::new(open_to_read(file.path(), OFlags::empty()).unwrap());
        (file, fd)
    }

    #[test]
    fn only_so_many_descriptors_are_kept_and_the_least_used_goes_first() {
        let files = OpenFiles::default();
        let (_keep, fd) = file_with("pack");
        let id = |n: usize| Id([n as u8; 32]);
        for n in 0..OpenFiles::KEPT_MAX {
            files.keep(id(n), fd.clone());
        }
        assert!(files.get(&id(0)).is_some(), "all fit");
        files.keep(id(99), fd.clone());
        assert!(files.get(&id(0)).is_some(), "used a moment ago");
        assert!(files.get(&id(1)).is_none(), "not used for longest");
        assert_eq!(lock(&files.0).len(), OpenFiles::KEPT_MAX);
    }

    #[test]
    fn a_file_that_was_removed_is_closed_and_not_used() {
        let files = OpenFiles::default();
        let (file, fd) = file_with("pack");
        files.keep(Id([1; 32]), fd);
        assert!(files.get(&Id([1; 32])).is_some());
        file.close().unwrap();
        assert!(files.get(&Id([1; 32])).is_none());
        assert!(lock(&files.0).is_empty());
    }

    #[test]
    fn reads_are_exact_into_small_and_large_buffers() {
        let (file, fd) = file_with("0123456789");
        for capacity in [0, 4, 1 << 20] {
            let mut out = Vec::with_capacity(capacity);
            out.extend_from_slice(b"old");
            let path = || file.path().to_owned();
            read_exact_at(&fd, 10, 3, 4, &mut out, path).unwrap();
            assert_eq!(out, b"3456", "capacity {capacity}");
            // Also when the file shrank after its length was taken.
            for total in [10, 20] {
                let error = read_exact_at(&fd, total, 8, 4, &mut out, path).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                assert!(error.message().ends_with("is 10 bytes, shorter than the 12 needed"), "{error}");
                assert!(out.is_empty());
            }
        }
    }
}
