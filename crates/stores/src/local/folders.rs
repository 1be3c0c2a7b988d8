//! The folders of a repository: making, walking and flushing them.

use super::{LocalStore, failed, open_to_read, shown};
use lastgood_model::store::ObjectKind;
use lastgood_model::{Error, ErrorKind, Id, Result};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

impl LocalStore {
    /// Makes `folder` and what is missing above it, for its owner alone. Every new name is durable after `sync`.
    pub(super) fn make_folders(&self, folder: &Path) -> Result<()> {
        match rustix::fs::mkdir(folder, Mode::RWXU) {
            Ok(()) => {
                if let Some(parent) = folder.parent() {
                    self.touch(parent);
                }
                Ok(())
            }
            Err(Errno::EXIST) => match rustix::fs::stat(folder) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(()),
                Ok(_) => Err(Error::new(ErrorKind::Conflict, format!("{} is not a folder", shown(folder)))),
                Err(errno) => Err(failed("examine", folder, errno)),
            },
            Err(Errno::NOENT) => match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                Some(parent) => {
                    self.make_folders(parent)?;
                    rustix::fs::mkdir(folder, Mode::RWXU).or_else(|errno| match errno {
                        Errno::EXIST => Ok(()),
                        errno => Err(failed("make folder", folder, errno)),
                    })?;
                    self.touch(parent);
                    Ok(())
                }
                None => Err(failed("make folder", folder, Errno::NOENT)),
            },
            // A read-only mount answers so even for a folder that is there.
            Err(errno) => match rustix::fs::stat(folder) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(()),
                _ => Err(failed("make folder", folder, errno)),
            },
        }
    }

    /// Objects in one folder. A folder missing from a repository that is there is an empty one.
    pub(super) fn list_folder(&self, folder: &Path) -> Result<Vec<(Id, u64)>> {
        let mut found = Vec::new();
        if !objects_in(folder, &mut found)? {
            self.require_presence()?;
        }
        Ok(found)
    }

    /// Packs below `data/`. One that lies in a folder where it does not belong could not be read by its name, and is
    /// passed over.
    pub(super) fn list_packs(&self) -> Result<Vec<(Id, u64)>> {
        let data = self.root.join(ObjectKind::Pack.folder());
        let mut packs = Vec::new();
        for (prefix, folder) in self.pack_folders()? {
            let start = packs.len();
            objects_in(&folder, &mut packs)?;
            let mut kept = start;
            for at in start..packs.len() {
                if packs[at].0.0[0] == prefix {
                    packs.swap(kept, at);
                    kept += 1;
                }
            }
            packs.truncate(kept);
        }
        let mut flat = Vec::new();
        objects_in(&data, &mut flat)?;
        if !flat.is_empty() {
            let known: HashSet<Id> = packs.iter().map(|(id, _)| *id).collect();
            packs.extend(flat.into_iter().filter(|(id, _)| !known.contains(id)));
        }
        Ok(packs)
    }

    /// The folders `data/00` to `data/ff` that are there.
    pub(super) fn pack_folders(&self) -> Result<Vec<(u8, PathBuf)>> {
        let data = self.root.join(ObjectKind::Pack.folder());
        let mut folders = Vec::new();
        let walked = walk(&data, |_, name| {
            if let (2, Some(prefix)) = (name.len(), hex_byte(name)) {
                folders.push((prefix, data.join(OsStr::from_bytes(name))));
            }
            Ok(())
        })?;
        if !walked {
            self.require_presence()?;
        }
        Ok(folders)
    }

    /// Every folder in which a writer puts temporaries.
    pub(super) fn all_folders(&self) -> Result<Vec<PathBuf>> {
        let mut folders = vec![self.root.clone()];
        folders.extend(ObjectKind::LISTED.iter().map(|kind| self.root.join(kind.folder())));
        folders.extend(self.pack_folders()?.into_iter().map(|(_, folder)| folder));
        folders.extend(self.side_folders()?);
        Ok(folders)
    }
}

fn hex_byte(name: &[u8]) -> Option<u8> {
    if !name.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(name).ok()?, 16).ok()
}

/// Calls `each` with the folder's descriptor and every name in it; false when there is no such folder.
pub(super) fn walk(folder: &Path, mut each: impl FnMut(&rustix::fd::OwnedFd, &[u8]) -> Result<()>) -> Result<bool> {
    let fd = match open_to_read(folder, OFlags::DIRECTORY) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
        Err(errno) => return Err(failed("list", folder, errno)),
    };
    let dir = Dir::read_from(&fd).map_err(|errno| failed("list", folder, errno))?;
    for entry in dir {
        let entry = entry.map_err(|errno| failed("list", folder, errno))?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => each(&fd, name)?,
        }
    }
    Ok(true)
}

/// Appends the objects lying in `folder`; false when there is no such folder.
fn objects_in(folder: &Path, found: &mut Vec<(Id, u64)>) -> Result<bool> {
    walk(folder, |fd, name| {
        let Some(id) = Id::from_hex(name) else { return Ok(()) };
        match rustix::fs::statat(fd, name, AtFlags::empty()) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                found.push((id, stat.st_size as u64));
                Ok(())
            }
            // A folder or pipe with an id's name is no object; a name that is gone was removed meanwhile.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("examine", &folder.join(OsStr::from_bytes(name)), errno)),
        }
    })
}

/// Makes the names in a folder durable.
pub(super) fn flush(folder: &Path) -> Result<()> {
    let fd = open_to_read(folder, OFlags::DIRECTORY).map_err(|errno| failed("flush folder", folder, errno))?;
    match rustix::fs::fsync(&fd) {
        // Some network and FUSE file systems cannot flush a folder by itself; flushing all of it does the same.
        Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => rustix::fs::syncfs(&fd),
        other => other,
    }
    .map_err(|errno| failed("flush folder", folder, errno))
}
