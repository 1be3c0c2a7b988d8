//! What all directories of one capture share.

use super::FilesOptions;
use super::exclude::{LeftOut, Patterns};
use super::owners::Owners;
use crate::held::Descriptor;
use lastgood_model::node::display_path;
use rustix::fs::{AtFlags, CWD, Stat};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many paths of a sort the facts name; later ones are only counted.
const PATHS_NAMED_MAX: usize = 1000;

/// How many descriptors may wait between [`Scope::keep_open`] and [`Scope::take_open`].
const OPEN_KEPT_MAX: usize = 16;

/// The settings and tallies of one capture.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) patterns: Arc<Patterns>,
    pub(super) one_file_system: bool,
    pub(super) exclude_caches: bool,
    pub(super) larger_than: Option<u64>,
    /// Device and inode of what must not be captured.
    never: Vec<(u64, u64)>,
    pub(super) owners: Owners,
    /// Effective user, to know whose access times may be left alone.
    euid: u32,
    /// `/proc/self/fd` is there to reach entries of a directory by path.
    pub(super) has_proc: bool,
    pub(super) left_out: LeftOut,
    kept_open: Mutex<Vec<((u64, u64), Descriptor)>>,
    databases: Mutex<Named>,
    mount_points: Mutex<Named>,
}

#[derive(Debug, Default)]
struct Named {
    paths: BTreeSet<String>,
    total: u64,
}

impl Named {
    fn add(&mut self, path: &[u8]) {
        let path = display_path(path);
        if self.paths.contains(&path) {
            return;
        }
        self.total += 1;
        if self.paths.len() < PATHS_NAMED_MAX {
            self.paths.insert(path);
        }
    }

    fn facts(&self, name: &str, out: &mut Map<String, Value>) {
        if self.total > 0 {
            out.insert(name.to_owned(), json!(self.paths));
        }
        if self.total > self.paths.len() as u64 {
            out.insert(format!("{name}_total"), json!(self.total));
        }
    }
}

impl Scope {
    /// Reads what a capture needs to know of this host.
    pub(super) fn begin(options: &FilesOptions, patterns: Arc<Patterns>) -> Self {
        let identity = |path: &std::path::PathBuf| {
            let stat = rustix::fs::statat(CWD, path.as_os_str().as_bytes(), AtFlags::empty()).ok()?;
            Some((stat.st_dev, stat.st_ino))
        };
        Self {
            patterns,
            one_file_system: options.one_file_system,
            exclude_caches: options.exclude_caches,
            larger_than: options.exclude_larger_than,
            never: options.never.iter().filter_map(identity).collect(),
            owners: Owners::of_this_host(),
            euid: rustix::process::geteuid().as_raw(),
            has_proc: rustix::fs::access("/proc/self/fd", rustix::fs::Access::EXISTS).is_ok(),
            left_out: LeftOut::default(),
            kept_open: Mutex::default(),
            databases: Mutex::default(),
            mount_points: Mutex::default(),
        }
    }

    /// True for what must not be captured, such as the repository itself.
    pub(super) fn is_never(&self, device: u64, inode: u64) -> bool {
        self.never.iter().any(|&(d, i)| i == inode && d == device)
    }

    /// True when reading a file of this owner may leave its access time alone.
    pub(super) fn may_be_quiet(&self, uid: u32) -> bool {
        self.euid == 0 || self.euid == uid
    }

    /// Keeps a descriptor that describing an entry opened, for reading it next. Reaching attributes by path costs ten
    /// times what a descriptor costs, and opening twice is dear as well.
    pub(super) fn keep_open(&self, key: (u64, u64), fd: Descriptor) {
        let mut kept = lock(&self.kept_open);
        let oldest = (kept.len() >= OPEN_KEPT_MAX).then(|| kept.remove(0));
        kept.push((key, fd));
        drop(kept);
        // Closed outside the lock.
        drop(oldest);
    }

    /// The descriptor kept for this device and inode, if it still is.
    pub(super) fn take_open(&self, key: (u64, u64)) -> Option<Descriptor> {
        let mut kept = lock(&self.kept_open);
        let at = kept.iter().rposition(|(k, _)| *k == key)?;
        Some(kept.remove(at).1)
    }

    /// Notes that the file at `path` was captured as a database.
    pub(super) fn note_database(&self, path: &[u8]) {
        lock(&self.databases).add(path.strip_prefix(b"/").unwrap_or(path));
    }

    /// Notes a mount point whose content was left out.
    pub(super) fn note_mount_point(&self, path: &[u8]) {
        lock(&self.mount_points).add(path);
    }

    /// What there is to tell about the capture.
    pub(super) fn facts(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        let left_out = self.left_out.counts();
        if !left_out.is_empty() {
            facts.insert("left_out".to_owned(), json!(left_out));
        }
        lock(&self.databases).facts("sqlite_inside", &mut facts);
        lock(&self.mount_points).facts("mount_points_left_out", &mut facts);
        facts
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pair that names a file on this host.
pub(super) fn key(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
