//! A window of files being restored: so many at once that packs are read in long runs, so few that memory and
//! descriptors stay bounded.

use lastgood_model::{Error, ErrorKind, Monitor, Node, Result};
use lastgood_repo::BlobReader;
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
    /// The length that the recovery point told of, where its own blobs tell another; `node.size` is theirs then.
    pub(super) claimed: Option<u64>,
    /// Blobs not yet written, and one for whoever is still adding blobs to a window.
    left: AtomicU64,
    /// Opened by whoever first has something to write.
    handle: Mutex<Option<Arc<FileHandle>>>,
    /// Something was written to it.
    touched: AtomicBool,
    /// Set once and for good: the windows after the one that met the failure must not complete the file.
    failed: AtomicBool,
    /// The first failure, until it is told.
    failure: Mutex<Option<Error>>,
    pub(super) finished: AtomicBool,
    /// For others that are to be linked to it: set once it is whole.
    whole: Option<Arc<AtomicBool>>,
}

impl Pending {
    pub(super) fn new(
        dir: Arc<DirHandle>,
        mut node: Node,
        whole: Option<Arc<AtomicBool>>,
        reader: &BlobReader,
    ) -> Self {
        let content = node.content.as_deref().unwrap_or_default();
        let mut offsets = Vec::with_capacity(content.len() + 1);
        let mut offset = 0;
        let mut all_known = true;
        for id in content {
            offsets.push(offset);
            let location = reader.locate(*id).ok();
            all_known &= location.is_some();
            offset += location.map_or(0, |l| u64::from(l.plain_length()));
        }
        offsets.push(offset);
        let left = AtomicU64::new(content.len() as u64 + 1);
        let claimed = Some(node.size).filter(|size| all_known && *size != offset);
        if claimed.is_some() {
            node.size = offset;
        }
        Self {
            dir,
            node,
            offsets,
            claimed,
            left,
            handle: Mutex::new(None),
            touched: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            finished: AtomicBool::new(false),
            whole,
        }
    }

    pub(super) fn blobs(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The file to write to, or compare with, when one is open.
    pub(super) fn set_handle(&self, handle: FileHandle) {
        *lock(&self.handle) = Some(Arc::new(handle));
    }

    /// Has the next write make a file anew.
    pub(super) fn drop_handle(&self) {
        *lock(&self.handle) = None;
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

    /// Writes one blob. What goes wrong with this file alone is for the caller to note by [`Self::fail`].
    pub(super) fn write(&self, blob: usize, data: &[u8], target: &Target, monitor: &Monitor) -> Result<()> {
        if self.is_failed() {
            return Ok(());
        }
        let hole = data.len() >= HOLE_BYTES_MIN && is_zero(data);
        if self.blobs() == 1 && !hole && self.opened().is_none() {
            // The usual small file: made, filled and given its metadata in one go.
            target.write_small(&self.dir, &self.node, &[data], monitor)?;
            self.is_whole();
            return Ok(());
        }
        let handle = self.handle(target)?;
        self.touched.store(true, Ordering::Relaxed);
        if hole {
            handle.hole(self.offsets[blob], data.len() as u64)
        } else {
            handle.write_at(self.offsets[blob], data)
        }
    }

    /// Removes what there is of a file that was written to and will not be completed by this run; true when there was
    /// something.
    pub(super) fn abandon(&self, target: &Target) -> Result<bool> {
        let Some(handle) = lock(&self.handle).take() else { return Ok(false) };
        if !handle.is_fresh() && !self.touched.load(Ordering::Relaxed) {
            return Ok(false);
        }
        target.discard(&self.dir, &handle).map(|()| true)
    }

    fn is_whole(&self) {
        self.finished.store(true, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that the file cannot be whole. Later failures add nothing to the first.
    pub(super) fn fail(&self, error: Error) {
        let mut failure = lock(&self.failure);
        if !self.failed.swap(true, Ordering::Relaxed) {
            *failure = Some(error);
        }
    }

    pub(super) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn take_failure(&self) -> Option<Error> {
        lock(&self.failure).take()
    }

    /// Counts one blob (or the adding of blobs) as done, whatever came of it; the last one closes the file, or removes
    /// what there is of it when it failed. A file that was there before and that nothing was written to is left alone.
    ///
    /// # Errors
    /// Only those that end the whole restore.
    pub(super) fn settle(&self, target: &Target, monitor: &Monitor) -> Result<()> {
        if self.left.fetch_sub(1, Ordering::AcqRel) != 1 || self.finished.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !self.is_failed() {
            let closed = self.handle(target).and_then(|handle| target.finish_file(&handle, &self.node, monitor));
            match closed {
                Ok(()) => {
                    *lock(&self.handle) = None;
                    self.is_whole();
                    return Ok(());
                }
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => self.fail(error),
            }
        }
        let Some(handle) = lock(&self.handle).take() else { return Ok(()) };
        if (handle.is_fresh() || self.touched.load(Ordering::Relaxed))
            && let Err(error) = target.discard(&self.dir, &handle)
        {
            let mut failure = lock(&self.failure);
            let first = failure.take().map_or_else(String::new, |first| format!("{}; ", first.chain()));
            *failure =
                Some(Error::new(error.kind(), format!("{first}and what there is of it stays: {}", error.chain())));
        }
        Ok(())
    }
}

/// Errors that no further entry would escape.
pub(super) fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::Cancelled | ErrorKind::Bug)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
