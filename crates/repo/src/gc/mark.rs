//! What recovery points need: one bit for each blob, set while every tree is walked once.

use crate::format::TreeReader;
use crate::index::{BlobKind, BlobRef, Location, Numbers};
use crate::read::BlobReader;
use crate::repository::Snapshot;
use lastgood_model::{Context, Error, Monitor, Result, TreeId};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard};

/// One bit for each of so many things.
#[derive(Debug)]
pub(super) struct Bits(Vec<AtomicU64>);

impl Bits {
    pub(super) fn new(len: u64) -> Self {
        Self((0..len.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Sets a bit; true when it was not set.
    pub(super) fn set(&self, number: u64) -> bool {
        let mask = 1 << (number % 64);
        self.0[(number / 64) as usize].fetch_or(mask, Relaxed) & mask == 0
    }

    pub(super) fn get(&self, number: u64) -> bool {
        self.0[(number / 64) as usize].load(Relaxed) >> (number % 64) & 1 == 1
    }
}

/// A walk over all that recovery points need.
pub(super) struct Walk<'a> {
    pub(super) reader: &'a BlobReader,
    pub(super) numbers: &'a Numbers,
    /// What was met so far.
    pub(super) needed: &'a Bits,
    pub(super) threads: usize,
    pub(super) monitor: &'a Monitor,
}

#[derive(Default)]
struct Queue {
    /// The last is read first, which keeps the list about as long as the deepest path is wide.
    waiting: Vec<TreeId>,
    working: usize,
    failed: Option<Error>,
}

impl Walk<'_> {
    /// Follows every snapshot. `met` is told of each blob once, with the place where it is found first.
    ///
    /// # Errors
    /// [`lastgood_model::ErrorKind::Corrupt`] when anything that is referred to is in no index, or a directory cannot be
    /// read: then nobody can say what is not needed.
    pub(super) fn follow(&self, snapshots: &[Snapshot], met: impl Fn(BlobRef, Location) + Sync) -> Result<()> {
        let mut roots = Vec::new();
        for snapshot in snapshots {
            let root = BlobRef::from(snapshot.file.tree);
            if self.meet(root, &met).with_context(|| format!("follow recovery point {}", snapshot.id.short()))? {
                roots.push(snapshot.file.tree);
            }
        }
        let (queue, wake) = (Mutex::new(Queue { waiting: roots, ..Queue::default() }), Condvar::new());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| self.work(&queue, &wake, &met));
            }
        });
        queue.into_inner().unwrap_or_else(|e| e.into_inner()).failed.map_or(Ok(()), Err)
    }

    fn work(&self, queue: &Mutex<Queue>, wake: &Condvar, met: &(impl Fn(BlobRef, Location) + Sync)) {
        let mut state = lock(queue);
        loop {
            if state.failed.is_some() || state.waiting.is_empty() && state.working == 0 {
                break;
            }
            let Some(tree) = state.waiting.pop() else {
                state = wake.wait(state).unwrap_or_else(|e| e.into_inner());
                continue;
            };
            state.working += 1;
            drop(state);
            let found = self.monitor.check_cancelled().and_then(|()| self.open(tree, met));
            state = lock(queue);
            state.working -= 1;
            match found {
                Ok(below) => state.waiting.extend(below),
                Err(error) => drop(state.failed.get_or_insert(error)),
            }
            wake.notify_all();
        }
        drop(state);
        wake.notify_all();
    }

    /// Meets everything in a tree; gives the trees below that nobody met before.
    fn open(&self, tree: TreeId, met: &(impl Fn(BlobRef, Location) + Sync)) -> Result<Vec<TreeId>> {
        let act = || format!("read directory {}", tree.short());
        let json = self.reader.blob(tree).with_context(act)?;
        let mut below = Vec::new();
        for node in TreeReader::lenient(&json).with_context(act)? {
            let node = node.with_context(act)?;
            for id in node.content.iter().flatten() {
                self.meet((*id).into(), met).with_context(act)?;
            }
            if let Some(subtree) = node.subtree
                && self.meet(subtree.into(), met).with_context(act)?
            {
                below.push(subtree);
            }
        }
        self.monitor.add(|c| &c.dirs, 1);
        Ok(below)
    }

    /// True when the blob was not met before.
    fn meet(&self, blob: BlobRef, met: &(impl Fn(BlobRef, Location) + Sync)) -> Result<bool> {
        let Some((number, location)) = self.reader.index.numbered(self.numbers, blob) else {
            let noun = if blob.kind == BlobKind::Tree { "directory" } else { "content" };
            return Err(Error::corrupt(format!("{noun} {} is in no index that can be used", blob.id)).with_hint(
                "nothing was deleted, since it cannot be told what is not needed. `lastgood check` tells which recovery \
                 points are damaged; `lastgood repair` says what can be saved, and once the damaged ones are forgotten, \
                 prune works again",
            ));
        };
        let fresh = self.needed.set(number);
        if fresh {
            met(blob, location);
        }
        Ok(fresh)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_is_set_once_and_alone() {
        let bits = Bits::new(130);
        for n in [0, 63, 64, 129] {
            assert!(!bits.get(n));
            assert!(bits.set(n) && !bits.set(n) && bits.get(n));
        }
        assert_eq!((0..130).filter(|n| bits.get(*n)).count(), 4);
    }
}
