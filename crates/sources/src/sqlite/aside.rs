//! Copying a database with its journal and log to a scratch folder, for when reading it in place would mean writing to it.
//!
//! The copy is good because nobody wrote meanwhile: device, inode, size and times of all its files are the same before
//! and after, and no file is so young that a further write could have left its time unchanged.

use super::Options;
use super::guest::sidecar;
use crate::held::Descriptor;
use fs_err::os::unix::fs::OpenOptionsExt;
use lastgood_model::{Context, Error, ErrorKind, Result};
use rustix::fs::{Mode, OFlags};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// File systems stamp times by the kernel's tick, at most 10 ms; a file older than this shows a new time when written.
const SETTLED: Duration = Duration::from_millis(50);

/// How often to look again at a database that keeps changing.
const ATTEMPTS_MAX: usize = 5;

/// What belongs to a database. The log's index is made anew by whoever opens the copy.
const PARTS: [&str; 3] = ["", "-journal", "-wal"];

type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// Copies the database and returns the folder it is in, under its own name. `None` when it would not stand still: then
/// somebody is using it, and it can be read in place.
pub(super) fn copy(file: &Path, options: &Options) -> Result<Option<tempfile::TempDir>> {
    let act = || format!("copy {} to a scratch folder", file.display());
    let name = file.file_name().ok_or_else(|| Error::new(ErrorKind::Invalid, act()))?;
    let root = options.scratch_folder();
    for _ in 0..ATTEMPTS_MAX {
        let before = stamps(file).with_context(act)?;
        if !settled(file) {
            std::thread::sleep(SETTLED);
            continue;
        }
        // Made with mode 0700: the copy holds what the original holds.
        let scratch = tempfile::Builder::new().prefix("lastgood-").tempdir_in(&root).with_context(act)?;
        for (part, stamp) in PARTS.iter().zip(&before) {
            if stamp.is_some() {
                let to = sidecar(&scratch.path().join(name), part);
                copy_file(&sidecar(file, part), &to).with_context(act)?;
            }
        }
        if stamps(file).with_context(act)? == before {
            return Ok(Some(scratch));
        }
    }
    Ok(None)
}

fn stamps(file: &Path) -> std::io::Result<[Stamp; 3]> {
    let mut stamps = [None; 3];
    for (part, stamp) in PARTS.iter().zip(&mut stamps) {
        match fs_err::metadata(sidecar(file, part)) {
            Ok(m) => *stamp = Some((m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !part.is_empty() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(stamps)
}

/// True when no part was written within the last tick of the file system's clock.
fn settled(file: &Path) -> bool {
    let now = SystemTime::now();
    PARTS.iter().all(|part| match fs_err::metadata(sidecar(file, part)).and_then(|m| m.modified()) {
        // A time in the future is no reason to wait.
        Ok(time) => now.duration_since(time).map_or(true, |age| age > SETTLED),
        Err(_) => true,
    })
}

/// Copies one file to a new one that only its owner may read.
pub(super) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let act = || format!("copy {}", from.display());
    let fd = rustix::fs::open(from, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io(act(), e.into()))?;
    // Not closed while a capture in another thread relies on SQLite's locks on this file.
    let fd = Descriptor::new(fd);
    let mut out = fs_err::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).with_context(act)?;
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0u64;
    loop {
        match rustix::io::pread(&fd, &mut buffer[..], offset) {
            Ok(0) => break,
            Ok(n) => {
                out.write_all(&buffer[..n]).with_context(act)?;
                offset += n as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::io(act(), e.into())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_and_log_come_along_and_the_index_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let db = folder.path().join("a.db");
        for part in ["", "-journal", "-wal", "-shm"] {
            fs_err::write(sidecar(&db, part), format!("content{part}")).unwrap();
        }
        let scratch = copy(&db, &Options::default()).unwrap().expect("nobody writes");
        let copied = scratch.path().join("a.db");
        for part in PARTS {
            assert_eq!(fs_err::read_to_string(sidecar(&copied, part)).unwrap(), format!("content{part}"));
        }
        assert!(!sidecar(&copied, "-shm").exists());
    }
}
