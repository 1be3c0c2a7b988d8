//! The hand-over of pages from the thread that holds the read transaction to the one that feeds the engine.
//!
//! It is bounded in bytes. Over the bound the producer either waits, or, when waiting would keep an application's writers
//! locked out, puts what is beyond the bound into an unlinked scratch file, so that reading ends at the speed of the disk
//! and not at that of the engine. Order is first in, first out whichever way a buffer went. Buffers are used again.

use lastgood_model::{Error, Result};
use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many used buffers are kept for the producer.
const SPARE_BUFFERS_MAX: usize = 4;

/// What the producer does when the consumer falls behind.
#[derive(Debug)]
pub(super) enum Overflow {
    /// It waits.
    Wait,
    /// It goes on, into a scratch file; when that fails or is full, it waits.
    Spill {
        /// Where the scratch file is made; it has no name there.
        folder: PathBuf,
        /// How long it may become. Room is used again once the consumer has caught up.
        bytes_max: u64,
    },
}

/// The queue; `T` is the producer's last word.
#[derive(Debug)]
pub(super) struct Queue<T> {
    bytes_max: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<Item>,
    bytes_in_memory: usize,
    /// End of the scratch file's used part.
    spill_end: u64,
    /// Spilled buffers not read back yet, the one being read included.
    spilled: usize,
    spare: Vec<Vec<u8>>,
    overflow: Overflow,
    spill: Option<Arc<fs_err::File>>,
    abandoned: bool,
    end: Option<Result<T>>,
}

#[derive(Debug)]
enum Item {
    Memory(Vec<u8>),
    Spilled { offset: u64, length: usize },
}

/// What the consumer got.
#[derive(Debug)]
pub(super) enum Next<T> {
    /// The next bytes.
    Bytes(Vec<u8>),
    /// The producer's last word; nothing follows.
    End(Result<T>),
    /// Nothing came in time.
    Nothing,
}

impl<T> Queue<T> {
    /// An empty queue that keeps about `bytes_max` bytes in memory.
    pub(super) fn new(bytes_max: usize, overflow: Overflow) -> Self {
        Self {
            bytes_max,
            state: Mutex::new(State {
                items: VecDeque::new(),
                bytes_in_memory: 0,
                spill_end: 0,
                spilled: 0,
                spare: Vec::new(),
                overflow,
                spill: None,
                abandoned: false,
                end: None,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty buffer for the producer to fill.
    pub(super) fn buffer(&self, capacity: usize) -> Vec<u8> {
        self.lock().spare.pop().unwrap_or_else(|| Vec::with_capacity(capacity))
    }

    /// Appends a filled buffer. False when the consumer is gone and the producer should stop.
    pub(super) fn push(&self, buffer: Vec<u8>) -> bool {
        let mut state = self.lock();
        loop {
            if state.abandoned {
                return false;
            }
            if state.items.is_empty() || state.bytes_in_memory + buffer.len() <= self.bytes_max {
                state.bytes_in_memory += buffer.len();
                state.items.push_back(Item::Memory(buffer));
                self.changed.notify_all();
                return true;
            }
            if state.spilled == 0 {
                state.spill_end = 0;
            }
            if let Overflow::Spill { folder, bytes_max } = &state.overflow
                && state.spill_end + buffer.len() as u64 <= *bytes_max
            {
                let file = match &state.spill {
                    Some(file) => Some(Arc::clone(file)),
                    None => scratch_file(folder).map(Arc::new),
                };
                let offset = state.spill_end;
                state.spill = file.clone();
                drop(state);
                // Written without the lock, so that the consumer goes on; only this thread appends.
                let written = file.is_some_and(|file| file.file().write_all_at(&buffer, offset).is_ok());
                state = self.lock();
                if written {
                    let length = buffer.len();
                    state.spill_end = offset + length as u64;
                    state.spilled += 1;
                    state.items.push_back(Item::Spilled { offset, length });
                    recycle(&mut state, buffer);
                    self.changed.notify_all();
                    return true;
                }
                // No room to spill: better to hold the transaction for longer than to fail.
                state.overflow = Overflow::Wait;
                continue;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The producer's last word.
    pub(super) fn end(&self, last: Result<T>) {
        self.lock().end = Some(last);
        self.changed.notify_all();
    }

    /// Waits up to `patience` for the next bytes.
    pub(super) fn next(&self, patience: Duration) -> Next<T> {
        let mut state = self.lock();
        if state.items.is_empty() && state.end.is_none() {
            state = self.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
        match state.items.pop_front() {
            Some(Item::Memory(buffer)) => {
                state.bytes_in_memory -= buffer.len();
                self.changed.notify_all();
                Next::Bytes(buffer)
            }
            Some(Item::Spilled { offset, length }) => {
                let mut buffer = state.spare.pop().unwrap_or_default();
                let file = state.spill.clone();
                drop(state);
                buffer.resize(length, 0);
                let read = match file {
                    Some(file) => file.file().read_exact_at(&mut buffer, offset),
                    None => Err(std::io::ErrorKind::NotFound.into()),
                };
                self.lock().spilled -= 1;
                self.changed.notify_all();
                match read {
                    Ok(()) => Next::Bytes(buffer),
                    Err(e) => Next::End(Err(Error::io("read back pages from the scratch file", e))),
                }
            }
            None => match state.end.take() {
                Some(last) => Next::End(last),
                None => Next::Nothing,
            },
        }
    }

    /// Gives a used buffer back.
    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        recycle(&mut self.lock(), buffer);
    }

    /// The consumer will take no more.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.items.clear();
        self.changed.notify_all();
    }
}

fn recycle<T>(state: &mut State<T>, mut buffer: Vec<u8>) {
    if state.spare.len() < SPARE_BUFFERS_MAX {
        buffer.clear();
        state.spare.push(buffer);
    }
}

fn scratch_file(folder: &Path) -> Option<fs_err::File> {
    let file = tempfile::tempfile_in(folder).ok()?;
    Some(fs_err::File::from_parts(file, folder.join("scratch file")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &Queue<u32>) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            match queue.next(Duration::from_secs(10)) {
                Next::Bytes(bytes) => {
                    out.extend_from_slice(&bytes);
                    queue.give_back(bytes);
                }
                Next::End(last) => {
                    assert_eq!(last.unwrap(), 7);
                    return out;
                }
                Next::Nothing => panic!("the producer has ended"),
            }
        }
    }

    #[test]
    fn a_spilling_producer_ends_before_anything_is_taken_and_order_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::new(100, Overflow::Spill { folder: folder.path().to_owned(), bytes_max: 1 << 20 });
        let mut want = Vec::new();
        for i in 0..50u8 {
            let bytes = vec![i; 37];
            want.extend_from_slice(&bytes);
            assert!(queue.push(bytes));
        }
        queue.end(Ok(7));
        assert!(queue.lock().bytes_in_memory <= 100 && queue.lock().spilled > 40);
        assert_eq!(drain(&queue), want);
    }

    #[test]
    fn a_waiting_producer_never_holds_more_than_the_bound() {
        let queue = Queue::new(100, Overflow::Wait);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..50u8 {
                    assert!(queue.push(vec![i; 37]));
                    assert!(queue.lock().bytes_in_memory <= 100);
                }
                queue.end(Ok(7));
            });
            assert_eq!(drain(&queue).len(), 50 * 37);
        });
    }

    #[test]
    fn without_room_to_spill_the_producer_waits() {
        let queue = Queue::new(100, Overflow::Spill { folder: "/nowhere/at/all".into(), bytes_max: 1 << 20 });
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..9u8 {
                    assert!(queue.push(vec![i; 37]));
                }
                queue.end(Ok(7));
            });
            assert_eq!(drain(&queue).len(), 9 * 37);
        });
    }

    #[test]
    fn a_full_scratch_file_makes_the_producer_wait_and_its_room_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::new(100, Overflow::Spill { folder: folder.path().to_owned(), bytes_max: 200 });
        let mut want = Vec::new();
        for i in 0..200u8 {
            want.extend_from_slice(&[i; 37]);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..200u8 {
                    assert!(queue.push(vec![i; 37]));
                    assert!(queue.lock().spill_end <= 200);
                }
                queue.end(Ok(7));
            });
            assert_eq!(drain(&queue), want);
        });
    }

    #[test]
    fn an_abandoned_producer_is_told_to_stop() {
        let queue: Queue<u32> = Queue::new(10, Overflow::Wait);
        assert!(queue.push(vec![0; 10]));
        queue.abandon();
        assert!(!queue.push(vec![0; 10]));
    }
}
