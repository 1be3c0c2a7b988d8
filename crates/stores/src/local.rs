//! A folder on a mounted file system, laid out as restic lays it out: `config`, `keys/`, `locks/`, `snapshots/`,
//! `index/` and `data/00` to `data/ff`. Objects beside the repository's own lie in `lastgood/`.
//!
//! Promises, and what they rest on:
//! - *An object is there whole or not at all.* It is written to a temporary in the folder where it belongs, flushed, and
//!   only then renamed; see [`temporary`]. A flush that failed is never tried again on the same file, since the kernel
//!   may have dropped the pages it could not write and would report success the second time.
//! - *Names survive a power cut after `sync`.* Every folder in which a name came or went is remembered and flushed. Two
//!   threads that sync at once wait for each other, so neither returns while its folder is still being flushed.
//! - *A disk that is not mounted is told apart from an object that is missing.* An empty mount point never looks like a
//!   repository without snapshots, and nothing is ever written into it: every "no such file" is followed by a look at
//!   whether the repository is there at all.
//! - *Reading changes nothing.* A repository on a read-only mount can be read.

mod direct;
mod files;
mod folders;
mod side;
mod temporary;

use crate::{length_of, lock};
use files::{OpenFiles, read_exact_at, stat_object};
use lastgood_model::node::display_path;
use lastgood_model::store::{Capabilities, ObjectKind, SideStore, Store, StoreKey, Swept};
use lastgood_model::{Context, Error, ErrorKind, Id, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use temporary::Temporary;

/// A repository's objects in a local folder.
#[derive(Debug)]
pub struct LocalStore {
    /// Absolute, so that a later change of the working directory changes nothing.
    root: PathBuf,
    /// Packs read last; restore reads many ranges of the same pack.
    packs: OpenFiles,
    /// Folders in which a name came or went since they were last flushed.
    touched: Mutex<BTreeSet<PathBuf>>,
    /// Held for the whole of `sync`.
    syncing: Mutex<()>,
}

impl LocalStore {
    /// The store at `root`, which need not exist yet. Touches nothing.
    pub fn new(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let root = std::path::absolute(root).with_context(|| format!("find the folder {}", shown(root)))?;
        Ok(Self { root, packs: OpenFiles::default(), touched: Mutex::default(), syncing: Mutex::default() })
    }

    /// The repository's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an object belongs.
    fn path(&self, key: &StoreKey) -> PathBuf {
        self.root.join(key.path())
    }

    /// Where an object may be: where it belongs, and for packs also directly in `data/`, where some tools that flatten
    /// folders leave them and restic finds them too.
    fn candidates(&self, key: &StoreKey) -> impl Iterator<Item = PathBuf> {
        let flat = (key.kind == ObjectKind::Pack).then(|| self.root.join("data").join(key.id.to_string()));
        std::iter::once(self.path(key)).chain(flat)
    }

    /// Path and length of an object that is there.
    fn find(&self, key: &StoreKey) -> Result<Option<(PathBuf, u64)>> {
        for path in self.candidates(key) {
            if let Some(length) = stat_object(&path)? {
                return Ok(Some((path, length)));
            }
        }
        Ok(None)
    }

    /// Runs `read` on the first place where the object is.
    fn at_object<T>(&self, key: &StoreKey, mut read: impl FnMut(&Path) -> Result<T>) -> Result<T> {
        let mut absent = None;
        for path in self.candidates(key) {
            match read(&path) {
                Err(error) if error.kind() == ErrorKind::Absent => absent = absent.or(Some(error)),
                other => return other,
            }
        }
        if key.kind != ObjectKind::Config {
            self.require_presence()?;
        }
        Err(absent.unwrap_or_else(|| Error::new(ErrorKind::Absent, format!("read {}", shown(&self.path(key))))))
    }

    /// True when the folder holds a repository, or one about to be made.
    fn is_present(&self) -> Result<bool> {
        for name in ["config", "data"] {
            let path = self.root.join(name);
            match rustix::fs::stat(&path) {
                Ok(_) => return Ok(true),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(failed("examine", &path, errno)),
            }
        }
        Ok(false)
    }

    fn require_presence(&self) -> Result<()> {
        if self.is_present()? {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NoRepository, format!("there is no repository in {}", shown(&self.root)))
            .with_hint("check that its disk is mounted there"))
    }

    fn touch(&self, folder: &Path) {
        let mut touched = lock(&self.touched);
        if !touched.contains(folder) {
            touched.insert(folder.to_owned());
        }
    }

    /// A temporary beside `path`. Folders that a copying tool left out because they were empty are made anew, but only
    /// in a repository that is there.
    fn temporary_beside(&self, path: &Path) -> Result<Temporary> {
        let folder = path.parent().unwrap_or(&self.root);
        match Temporary::create(folder) {
            Err(error) if error.kind() == ErrorKind::Absent => {
                self.require_presence()?;
                self.make_folders(folder)?;
                Temporary::create(folder)
            }
            other => other,
        }
    }
}

impl Store for LocalStore {
    fn location(&self) -> String {
        shown(&self.root)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { connections: 4, coalesce_gap_bytes: 64 << 10, exclusive_create: true, list_after_write: true }
    }

    fn create(&self) -> Result<()> {
        self.make_folders(&self.root)?;
        for kind in ObjectKind::LISTED {
            self.make_folders(&self.root.join(kind.folder()))?;
        }
        let data = self.root.join(ObjectKind::Pack.folder());
        for byte in 0..=u8::MAX {
            self.make_folders(&data.join(format!("{byte:02x}")))?;
        }
        Ok(())
    }

    /// An object of another length under the same name is damaged, whatever it is, and is replaced.
    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.root);
        let is_config = key.kind == ObjectKind::Config;
        if let Some((found, length)) = self.find(key)? {
            if is_config {
                return Err(taken(&path));
            }
            if length == length_of(parts) {
                // Whoever wrote it may not have made its name durable yet; our next `sync` must.
                self.touch(found.parent().unwrap_or(folder));
                return Ok(());
            }
        }
        if is_config {
            // It lies in the root itself, which an empty mount point has too; all else fails there for want of a folder.
            self.require_presence()?;
        }
        let mut temporary = self.temporary_beside(&path)?;
        temporary.write(parts)?;
        temporary.flush()?;
        if is_config {
            temporary.publish_new(&path).map_err(|e| if e.kind() == ErrorKind::Conflict { taken(&path) } else { e })?;
        } else {
            temporary.publish(&path)?;
            self.packs.forget(&key.id);
        }
        self.touch(folder);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let _turn = lock(&self.syncing);
        let mut left: Vec<PathBuf> = std::mem::take(&mut *lock(&self.touched)).into_iter().collect();
        while let Some(folder) = left.last() {
            if let Err(error) = folders::flush(folder) {
                lock(&self.touched).extend(left);
                return Err(error);
            }
            left.pop();
        }
        Ok(())
    }

    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        self.at_object(key, |path| {
            let (file, total) = files::open_object(path)?;
            let length = usize::try_from(total).map_err(|_| {
                Error::new(ErrorKind::Unsupported, format!("{} is too long to read whole", shown(path)))
            })?;
            let mut out = Vec::new();
            read_exact_at(&file, total, 0, length, &mut out, || path.to_owned())?;
            Ok(out)
        })
    }

    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let is_pack = key.kind == ObjectKind::Pack;
        // The common case in a restore, so it makes no path.
        if let Some((file, total)) = is_pack.then(|| self.packs.get(&key.id)).flatten() {
            return read_exact_at(&file, total, offset, length, out, || self.path(key));
        }
        self.at_object(key, |path| {
            let (file, total) = files::open_object(path)?;
            let file = Arc::new(file);
            if is_pack {
                self.packs.keep(key.id, file.clone());
            }
            read_exact_at(&file, total, offset, length, out, || path.to_owned())
        })
    }

    fn size(&self, key: &StoreKey) -> Result<u64> {
        self.at_object(key, |path| stat_object(path)?.ok_or_else(|| failed("examine", path, Errno::NOENT)))
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        match kind {
            ObjectKind::Config => {
                Ok(self.find(&StoreKey::CONFIG)?.map(|(_, length)| (StoreKey::CONFIG.id, length)).into_iter().collect())
            }
            ObjectKind::Pack => self.list_packs(),
            kind => self.list_folder(&self.root.join(kind.folder())),
        }
    }

    fn remove(&self, key: &StoreKey) -> Result<()> {
        let mut removed = false;
        for path in self.candidates(key) {
            match rustix::fs::unlink(&path) {
                Ok(()) => {
                    removed = true;
                    self.touch(path.parent().unwrap_or(&self.root));
                }
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(failed("remove", &path, errno)),
            }
        }
        self.packs.forget(&key.id);
        if removed { Ok(()) } else { self.require_presence() }
    }

    fn sweep(&self, older_than: Duration) -> Result<Swept> {
        self.require_presence()?;
        let mut swept = Swept::default();
        for folder in self.all_folders()? {
            temporary::sweep_folder(&folder, older_than, &mut swept)?;
        }
        Ok(swept)
    }

    fn probe(&self) -> Result<()> {
        self.require_presence()?;
        for kind in [ObjectKind::Lock, ObjectKind::Snapshot, ObjectKind::Index] {
            self.probe_folder(&self.root.join(kind.folder()))?;
        }
        // One folder for packs stands for the space there is; of the others only the permission is asked for.
        let packs = self.pack_folders()?;
        match packs.first() {
            Some((_, folder)) => self.probe_folder(folder)?,
            None => self.probe_folder(&self.root.join(ObjectKind::Pack.folder()))?,
        }
        packs.iter().try_for_each(|(_, folder)| may_write(folder))
    }

    fn fills_up(&self) -> bool {
        true
    }

    fn side(&self) -> Option<&dyn SideStore> {
        Some(self)
    }
}

/// How much is written to find out whether writing works.
const PROBE_BYTES: usize = 64 << 10;

impl LocalStore {
    /// Writes a temporary in `folder`, or in the nearest folder above it in which it would be made, and removes it.
    fn probe_folder(&self, folder: &Path) -> Result<()> {
        let there = folder.ancestors().take_while(|f| f.starts_with(&self.root)).find(|f| f.exists());
        let mut temporary = Temporary::create(there.unwrap_or(&self.root))?;
        temporary.write(&[&[0; PROBE_BYTES]])?;
        temporary.flush()?;
        temporary.discard()
    }
}

/// Whether this user may make names in `folder`.
fn may_write(folder: &Path) -> Result<()> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    match accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        Err(errno) => Err(failed("write in", folder, errno)),
        Ok(()) => Ok(()),
    }
}

fn taken(path: &Path) -> Error {
    Error::new(ErrorKind::Conflict, format!("{} is there already", shown(path)))
        .with_hint("this place holds a repository; use it, or choose another place")
}

/// A path for people.
fn shown(path: &Path) -> String {
    display_path(path.as_os_str().as_bytes())
}

fn failed(act: &str, path: &Path, errno: Errno) -> Error {
    Error::io(format!("{act} {}", shown(path)), errno.into())
}

/// Opens for reading. Never blocks on a pipe that lies where an object should be.
fn open_to_read(path: &Path, extra: OFlags) -> rustix::io::Result<rustix::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | extra;
    rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))
}
