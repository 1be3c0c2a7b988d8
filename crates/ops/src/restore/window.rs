//! A window of files being restored: so many at once that packs are read in long runs, so few that memory and
//! descriptors stay bounded.

use lastgood_model::{Error, Monitor, Node, Result};
use lastgood_repo::BlobReader;
use lastgood_repo::index::BlobRef;
use lastgood_sources::files::target::{DirHandle, FileHandle, Target, is_zero};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Zeros at least this long are left out as holes; shorter ones lie within a block of most file systems.
const HOLE_BYTES_MIN: usize = 4096;

/// One file being restored.
pub(super) struct Pending {
    pub(super) dir: Arc<DirHandle>,
    pub(super) node: Node,
    /// Where each blob begins, and the end of the last.
    pub(super) offsets: Vec<u64>,
    /// Blobs not yet written, and one for whoever is still adding blobs to a window.
    left: AtomicU64,
    /// Opened by whoever first has something to write.
    handle: Mutex<Option<Arc<FileHandle>>>,
    failed: Mutex<Option<Error>>,
    pub(super) finished: AtomicBool,
}

impl Pending {
    pub(super) fn new(dir: Arc<DirHandle>, node: Node, reader: &BlobReader) -> Self {
        let content = node.content.as_deref().unwrap_or_default();
        let mut offsets = Vec::with_capacity(content.len() + 1);
        let mut offset = 0;
        for id in content {
            offsets.push(offset);
            offset += reader.index.find(BlobRef::from(*id)).map_or(0, |l| u64::from(l.plain_length()));
        }
        offsets.push(offset);
        let left = AtomicU64::new(content.len() as u64 + 1);
        Self {
            dir,
            node,
            offsets,
            left,
            handle: Mutex::new(None),
            failed: Mutex::new(None),
            finished: AtomicBool::new(false),
        }
    }

    pub(super) fn blobs(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The file to write to, or compare with, when one is open.
    pub(super) fn set_handle(&self, handle: FileHandle) {
        *lock(&self.handle) = Some(Arc::new(handle));
    }

    pub(super) fn opened(&self) -> Option<Arc<FileHandle>> {
        lock(&self.handle).clone()
    }

    fn handle(&self, target: &Target) -> Result<Arc<FileHandle>> {
        let mut handle = lock(&self.handle);
        if let Some(open) = &*handle {
            return Ok(open.clone());
        }
        let created = Arc::new(target.create_file(&self.dir, &self.node)?);
        *handle = Some(created.clone());
        Ok(created)
    }

    /// Writes one blob. Errors of the file system end the restore; the file's own misfortunes are noted by [`Self::fail`].
    pub(super) fn write(&self, blob: usize, data: &[u8], target: &Target, monitor: &Monitor) -> Result<()> {
        if self.is_failed() {
            return self.settle(target, monitor);
        }
        let hole = data.len() >= HOLE_BYTES_MIN && is_zero(data);
        if self.blobs() == 1 && !hole && self.opened().is_none() {
            // The usual small file: made, filled and given its metadata in one go.
            target.write_small(&self.dir, &self.node, &[data], monitor)?;
            self.left.store(0, Ordering::Relaxed);
            self.finished.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let handle = self.handle(target)?;
        if hole {
            handle.hole(self.offsets[blob], data.len() as u64)?;
        } else {
            handle.write_at(self.offsets[blob], data)?;
        }
        self.settle(target, monitor)
    }

    /// Notes that the file cannot be whole.
    pub(super) fn fail(&self, error: Error) {
        lock(&self.failed).get_or_insert(error);
    }

    pub(super) fn is_failed(&self) -> bool {
        lock(&self.failed).is_some()
    }

    pub(super) fn take_failure(&self) -> Option<Error> {
        lock(&self.failed).take()
    }

    /// Counts one blob (or the adding of blobs) as done; the last one closes the file.
    pub(super) fn settle(&self, target: &Target, monitor: &Monitor) -> Result<()> {
        if self.finished.load(Ordering::Relaxed) || self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        if self.is_failed() {
            if let Some(handle) = lock(&self.handle).take() {
                target.discard(&self.dir, &handle)?;
            }
            return Ok(());
        }
        let handle = self.handle(target)?;
        target.finish_file(&handle, &self.node, monitor)?;
        *lock(&self.handle) = None;
        self.finished.store(true, Ordering::Relaxed);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
