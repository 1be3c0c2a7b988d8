//! Reading restored files back and comparing them.

use super::{ProofReport, printable};
use lastgood_model::{Monitor, Node, NodeKind, Result};
use lastgood_repo::BlobReader;
use lastgood_repo::index::BlobRef;
use lastgood_repo::sha256::sha256;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

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

/// A comparison of many entries, done batch by batch on all cores.
pub(crate) struct Comparison<'a> {
    reader: &'a BlobReader,
    monitor: &'a Monitor,
    batch: Vec<(PathBuf, Option<PathBuf>, Node)>,
    tally: Tally,
}

impl<'a> Comparison<'a> {
    const BATCH: usize = 2048;

    pub(crate) fn new(reader: &'a BlobReader, monitor: &'a Monitor) -> Self {
        Self { reader, monitor, batch: Vec::new(), tally: Tally::default() }
    }

    /// Has an entry compared, now or with the others of its batch.
    pub(crate) fn add(&mut self, restored: PathBuf, original: Option<PathBuf>, node: Node) -> Result<()> {
        self.batch.push((restored, original, node));
        if self.batch.len() >= Self::BATCH { self.run() } else { Ok(()) }
    }

    /// Compares what is left and tells what was found.
    pub(crate) fn finish(mut self) -> Result<Tally> {
        self.run()?;
        Ok(self.tally)
    }

    fn run(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(|| {
                    while let Some((restored, original, node)) = batch.get(next.fetch_add(1, Relaxed)) {
                        if self.monitor.is_cancelled() {
                            return;
                        }
                        compare_file(self.reader, restored, original.as_deref(), node, &self.tally);
                    }
                });
            }
        });
        self.monitor.check_cancelled()
    }
}

/// Compares one restored entry with what the recovery point says, and with its original if that stood still.
fn compare_file(reader: &BlobReader, restored: &Path, original: Option<&Path>, node: &Node, tally: &Tally) {
    let meta = match fs_err::symlink_metadata(restored) {
        Ok(meta) => meta,
        Err(error) => return tally.mismatch(format!("{} is not there: {error}", printable(restored))),
    };
    let kind = meta.file_type();
    let same_kind = match node.kind {
        NodeKind::File => kind.is_file(),
        NodeKind::Dir => kind.is_dir(),
        NodeKind::Symlink => kind.is_symlink(),
        NodeKind::Fifo => kind.is_fifo(),
        NodeKind::Socket => kind.is_socket(),
        NodeKind::BlockDevice => kind.is_block_device(),
        NodeKind::CharDevice => kind.is_char_device(),
    };
    if !same_kind {
        return tally.mismatch(format!("{} is of another kind", printable(restored)));
    }
    if node.kind != NodeKind::Symlink && meta.mode() & 0o7777 != node.mode && rustix::process::geteuid().is_root() {
        tally.mismatch(format!("{} has mode {:o}, not {:o}", printable(restored), meta.mode() & 0o7777, node.mode));
    }
    if (meta.mtime(), meta.mtime_nsec()) != (node.mtime.secs, i64::from(node.mtime.nanos)) {
        tally.mismatch(format!("{} has another modification time", printable(restored)));
    }
    match node.kind {
        NodeKind::Symlink => {
            let target = fs_err::read_link(restored).unwrap_or_default();
            if target.as_os_str().as_bytes() != node.link_target {
                tally.mismatch(format!("{} leads elsewhere", printable(restored)));
            }
        }
        NodeKind::File => {
            tally.files.fetch_add(1, Relaxed);
            if let Err(text) = compare_content(reader, restored, original, node, tally) {
                tally.mismatch(text);
            }
        }
        _ => {}
    }
}

fn compare_content(
    reader: &BlobReader,
    restored: &Path,
    original: Option<&Path>,
    node: &Node,
    tally: &Tally,
) -> Result<(), String> {
    let unreadable = |error: std::io::Error| format!("{} cannot be read back: {error}", printable(restored));
    let mut file = fs_err::File::open(restored).map_err(unreadable)?;
    let mut twin = original.and_then(|path| steady(path, node));
    let mut data = Vec::new();
    let mut other = Vec::new();
    let mut length = 0u64;
    for id in node.content.as_deref().unwrap_or_default() {
        let location = reader
            .index
            .find(BlobRef::from(*id))
            .ok_or_else(|| format!("{}: blob {} is in no index", printable(restored), id.short()))?;
        data.resize(location.plain_length() as usize, 0);
        file.read_exact(&mut data).map_err(unreadable)?;
        if sha256(&data) != id.0.0 {
            return Err(format!("{} differs from the recovery point at byte {length}", printable(restored)));
        }
        if let Some(original_file) = &mut twin {
            other.resize(data.len(), 0);
            // An original that was cut short meanwhile has changed and says nothing.
            if original_file.read_exact(&mut other).is_err() {
                twin = None;
            } else if other != data && original.is_some_and(|path| steady(path, node).is_some()) {
                return Err(format!("{} differs from its original at byte {length}", printable(restored)));
            }
        }
        length += data.len() as u64;
    }
    let rest = file.read(&mut [0; 1]).map_err(unreadable)?;
    if rest != 0 || length != node.size {
        return Err(format!("{} has another length than the recovery point says", printable(restored)));
    }
    tally.bytes.fetch_add(length, Relaxed);
    if twin.is_some() {
        tally.equal.fetch_add(1, Relaxed);
    }
    Ok(())
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
