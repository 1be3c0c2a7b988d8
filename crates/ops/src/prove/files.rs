//! Reading restored files back and comparing them.

use super::{ProofReport, printable};
use lastgood_model::{Monitor, Node, NodeKind, Result};
use lastgood_repo::BlobReader;
use lastgood_repo::sha256::sha256;
use lastgood_sources::files::target::{Seen, TreeView, ViewDir};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// Mismatches told in full.
const KEPT_MAX: usize = 1000;

#[derive(Default)]
pub(crate) struct Tally {
    files: AtomicU64,
    equal: AtomicU64,
    bytes: AtomicU64,
    mismatches: Mutex<(Vec<String>, u64)>,
}

impl Tally {
    fn mismatch(&self, text: String) {
        let mut mismatches = self.mismatches.lock().unwrap_or_else(|e| e.into_inner());
        mismatches.1 += 1;
        if mismatches.0.len() < KEPT_MAX {
            mismatches.0.push(text);
        }
    }

    /// Files that are as they should be, their bytes, and how much is not.
    pub(crate) fn sums(&self) -> (u64, u64, u64) {
        let mismatches = self.mismatches.lock().unwrap_or_else(|e| e.into_inner()).1;
        (self.files.load(Relaxed), self.bytes.load(Relaxed), mismatches)
    }

    pub(super) fn add_to(self, report: &mut ProofReport) {
        report.files += self.files.into_inner();
        report.files_equal_to_original += self.equal.into_inner();
        report.bytes += self.bytes.into_inner();
        let (texts, total) = self.mismatches.into_inner().unwrap_or_else(|e| e.into_inner());
        report.mismatches.extend(texts);
        report.mismatches_total += total;
    }
}

/// A comparison of many entries below a folder, done batch by batch on all cores. Entries are found by open directories,
/// so that no path is too long. Counts into the monitor what was read back.
pub(crate) struct Comparison<'a> {
    reader: &'a BlobReader,
    monitor: &'a Monitor,
    folder: PathBuf,
    /// `None` when there is no such folder.
    view: Option<TreeView>,
    batch: Vec<Entry>,
    /// The directory of the entry added last, and how many directories the batch holds open.
    dir: Option<Arc<ViewDir>>,
    dirs: usize,
    tally: Tally,
}

/// One restored entry to compare.
struct Entry {
    /// The directory it should be in; the reason in words when that cannot be looked into.
    dir: Result<Option<Arc<ViewDir>>, String>,
    /// Below the folder.
    path: Vec<u8>,
    original: Option<PathBuf>,
    node: Node,
}

impl<'a> Comparison<'a> {
    const BATCH: usize = 2048;
    /// Directories held open by one batch.
    const BATCH_DIRS: usize = 400;

    pub(crate) fn new(reader: &'a BlobReader, folder: &Path, monitor: &'a Monitor) -> Result<Self> {
        let view = TreeView::open(folder)?;
        let (folder, tally) = (folder.to_owned(), Tally::default());
        Ok(Self { reader, monitor, folder, view, batch: Vec::new(), dir: None, dirs: 0, tally })
    }

    /// Has the entry at `path` below the folder compared, now or with the others of its batch.
    pub(crate) fn add(&mut self, path: &[u8], original: Option<PathBuf>, node: Node) -> Result<()> {
        let (above, _) = split(path);
        let dir = match self.view.as_mut().map(|view| view.dir(above)).transpose() {
            Ok(dir) => Ok(dir.flatten()),
            Err(error) => Err(error.chain()),
        };
        if let Ok(Some(dir)) = &dir
            && !self.dir.as_ref().is_some_and(|last| Arc::ptr_eq(last, dir))
        {
            self.dirs += 1;
            self.dir = Some(dir.clone());
        }
        self.batch.push(Entry { dir, path: path.to_vec(), original, node });
        if self.batch.len() >= Self::BATCH || self.dirs >= Self::BATCH_DIRS { self.run() } else { Ok(()) }
    }

    /// Compares what is left and tells what was found.
    pub(crate) fn finish(mut self) -> Result<Tally> {
        self.run()?;
        Ok(self.tally)
    }

    fn run(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        (self.dir, self.dirs) = (None, 0);
        let next = AtomicUsize::new(0);
        let this = &*self;
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(|| {
                    while let Some(entry) = batch.get(next.fetch_add(1, Relaxed)) {
                        if this.monitor.is_cancelled() {
                            return;
                        }
                        this.compare(entry);
                    }
                });
            }
        });
        self.monitor.check_cancelled()
    }

    /// Compares one restored entry with what the recovery point says, and with its original if that stood still.
    fn compare(&self, entry: &Entry) {
        let Entry { node, .. } = entry;
        let (dir, seen) = match self.look(entry) {
            Ok(found) => found,
            Err(reason) => return self.mismatch(entry, &reason),
        };
        if seen.kind != node.kind {
            return self.mismatch(entry, "is of another kind");
        }
        if node.kind != NodeKind::Symlink && seen.mode != node.mode && rustix::process::geteuid().is_root() {
            self.mismatch(entry, &format!("has mode {:o}, not {:o}", seen.mode, node.mode));
        }
        if seen.mtime != node.mtime {
            self.mismatch(entry, "has another modification time");
        }
        match node.kind {
            NodeKind::Symlink => {
                let leads_there = dir.read_link(name_of(&entry.path)).is_ok_and(|text| text == node.link_target);
                if !leads_there {
                    self.mismatch(entry, "leads elsewhere");
                }
            }
            NodeKind::File => {
                self.tally.files.fetch_add(1, Relaxed);
                self.monitor.counters.files.fetch_add(1, Relaxed);
                if let Err(reason) = self.compare_content(dir, entry) {
                    self.mismatch(entry, &reason);
                }
            }
            _ => {}
        }
    }

    fn look<'e>(&self, entry: &'e Entry) -> Result<(&'e ViewDir, Seen), String> {
        let absent = || "is not there".to_owned();
        let dir = entry.dir.as_ref().map_err(|reason| format!("cannot be looked at: {reason}"))?;
        let dir = dir.as_ref().ok_or_else(absent)?;
        let seen = dir.look(name_of(&entry.path)).map_err(|e| format!("cannot be looked at: {}", e.chain()))?;
        Ok((dir, seen.ok_or_else(absent)?))
    }

    fn mismatch(&self, entry: &Entry, reason: &str) {
        let path = self.folder.join(OsStr::from_bytes(&entry.path));
        self.tally.mismatch(format!("{} {reason}", printable(&path)));
    }

    fn compare_content(&self, dir: &ViewDir, entry: &Entry) -> Result<(), String> {
        let Entry { node, original, .. } = entry;
        let original = original.as_deref();
        let unreadable = |error: std::io::Error| format!("cannot be read back: {error}");
        let mut file =
            dir.open_file(name_of(&entry.path)).map_err(|e| format!("cannot be read back: {}", e.chain()))?;
        let mut twin = original.and_then(|path| steady(path, node));
        let mut data = Vec::new();
        let mut other = Vec::new();
        let mut length = 0u64;
        for id in node.content.as_deref().unwrap_or_default() {
            // A single file may be most of a recovery point. Whoever ended the comparison says so.
            if self.monitor.is_cancelled() {
                return Ok(());
            }
            let location = self.reader.locate(*id).map_err(|error| format!("cannot be compared: {}", error.chain()))?;
            data.resize(location.plain_length() as usize, 0);
            file.read_exact(&mut data).map_err(unreadable)?;
            if sha256(&data) != id.0.0 {
                return Err(format!("differs from the recovery point at byte {length}"));
            }
            if let Some(original_file) = &mut twin {
                other.resize(data.len(), 0);
                // An original that was cut short meanwhile has changed and says nothing.
                if original_file.read_exact(&mut other).is_err() {
                    twin = None;
                } else if other != data && original.is_some_and(|path| steady(path, node).is_some()) {
                    return Err(format!("differs from its original at byte {length}"));
                }
            }
            length += data.len() as u64;
            self.monitor.counters.bytes.fetch_add(data.len() as u64, Relaxed);
        }
        let rest = file.read(&mut [0; 1]).map_err(unreadable)?;
        if rest != 0 || length != node.size {
            return Err("has another length than the recovery point says".to_owned());
        }
        self.tally.bytes.fetch_add(length, Relaxed);
        if twin.is_some() {
            self.tally.equal.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

/// The directory of a path, and the name in it.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    }
}

fn name_of(path: &[u8]) -> &[u8] {
    split(path).1
}

/// The original, if it is still as it was when it was captured.
fn steady(path: &Path, node: &Node) -> Option<fs_err::File> {
    let file = fs_err::File::open(path).ok()?;
    let meta = file.metadata().ok()?;
    let same = meta.is_file()
        && meta.len() == node.size
        && (meta.mtime(), meta.mtime_nsec()) == (node.mtime.secs, i64::from(node.mtime.nanos))
        && (meta.ctime(), meta.ctime_nsec()) == (node.ctime.secs, i64::from(node.ctime.nanos));
    same.then_some(file)
}
