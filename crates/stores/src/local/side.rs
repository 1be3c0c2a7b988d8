//! Objects beside the repository's own: `lastgood/<folder>/<name>`, in folders made when they are first needed.
//!
//! They are few and small, so each is durable on return: the object's folder is flushed, and so are those above it, which
//! another process may have made without having flushed them yet.

use super::files::{open_object, read_exact_at};
use super::folders::{flush, walk};
use super::{LocalStore, failed, shown};
use lastgood_model::store::{SideName, SidePut, SideStore};
use lastgood_model::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

impl LocalStore {
    fn side_folder(&self, folder: &str) -> PathBuf {
        self.root.join(SideName::ROOT).join(folder)
    }

    fn side_path(&self, name: &SideName) -> PathBuf {
        self.side_folder(name.folder()).join(name.name())
    }

    /// Folders for objects beside the repository's own that are there.
    pub(super) fn side_folders(&self) -> Result<Vec<PathBuf>> {
        let root = self.root.join(SideName::ROOT);
        let mut folders = Vec::new();
        walk(&root, |fd, name| {
            if !SideName::is_part(name) {
                return Ok(());
            }
            let path = root.join(OsStr::from_bytes(name));
            match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => folders.push(path),
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed("examine", &path, errno)),
            }
            Ok(())
        })?;
        Ok(folders)
    }
}

impl SideStore for LocalStore {
    fn put_side(&self, name: &SideName, bytes: &[u8], how: SidePut) -> Result<()> {
        let path = self.side_path(name);
        let folder = self.side_folder(name.folder());
        let mut temporary = self.temporary_beside(&path)?;
        temporary.write(&[bytes])?;
        temporary.flush()?;
        match how {
            SidePut::Create => temporary.publish_new(&path)?,
            SidePut::Replace => temporary.publish(&path)?,
        }
        flush(&folder)?;
        flush(&self.root.join(SideName::ROOT))?;
        flush(&self.root)
    }

    fn get_side(&self, name: &SideName) -> Result<Vec<u8>> {
        let path = self.side_path(name);
        let (file, total) = match open_object(&path) {
            Err(error) if error.kind() == ErrorKind::Absent => {
                self.require_presence()?;
                return Err(error);
            }
            other => other?,
        };
        let length = usize::try_from(total)
            .map_err(|_| Error::new(ErrorKind::Unsupported, format!("{} is too long to read whole", shown(&path))))?;
        let mut out = Vec::new();
        read_exact_at(&file, total, 0, length, &mut out, || path.clone())?;
        Ok(out)
    }

    fn list_side(&self, folder: &str) -> Result<Vec<(SideName, u64)>> {
        let path = self.side_folder(folder);
        let mut found = Vec::new();
        let walked = walk(&path, |fd, name| {
            let Some(side) = std::str::from_utf8(name).ok().and_then(|name| SideName::new(folder, name).ok()) else {
                return Ok(());
            };
            match rustix::fs::statat(fd, name, AtFlags::empty()) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                    found.push((side, stat.st_size as u64));
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed("examine", &path.join(OsStr::from_bytes(name)), errno)),
            }
            Ok(())
        })?;
        if !walked {
            self.require_presence()?;
        }
        Ok(found)
    }

    fn remove_side(&self, name: &SideName) -> Result<()> {
        let path = self.side_path(name);
        match rustix::fs::unlink(&path) {
            Ok(()) => flush(&self.side_folder(name.folder())),
            Err(Errno::NOENT | Errno::NOTDIR) => self.require_presence(),
            Err(errno) => Err(failed("remove", &path, errno)),
        }
    }
}
