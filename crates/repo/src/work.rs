//! The same step for many items, on several threads.

use lastgood_model::store::Store;
use lastgood_model::{Monitor, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Each thread may hold a pack in memory, so that more of them must be worth it.
const THREADS_FOR_STORE_MAX: usize = 8;

/// A store that would rather read so much in vain than be asked twice is far away.
const FAR_GAP_BYTES: u64 = 128 << 10;
/// Calls at once to a far store.
const CALLS_AT_ONCE_MAX: usize = 8;

/// True for a store of which every call is a round trip.
pub(crate) fn is_far(store: &dyn Store) -> bool {
    store.capabilities().coalesce_gap_bytes >= FAR_GAP_BYTES
}

/// How many small calls to make at once: one after the other where they cost nothing, and as many as help where each is
/// a round trip.
pub(crate) fn calls_at_once(store: &dyn Store) -> usize {
    if is_far(store) { store.capabilities().connections.clamp(1, CALLS_AT_ONCE_MAX) } else { 1 }
}

/// How many threads suit a store: one more than there are cores, so that one may wait for the disk; more for a distant
/// store, which likes more calls at once; and a single one where more calls than one are said not to help.
pub(crate) fn threads_for(store: &dyn Store) -> usize {
    if store.capabilities().connections <= 1 {
        return 1;
    }
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    (store.capabilities().connections / 2).min(THREADS_FOR_STORE_MAX).max(cores + 1)
}

/// Calls `step` for every item on up to `threads` threads, each with a state of its own from `start`. The first error
/// stops all of them and is returned; so does the wish to stop.
pub(crate) fn each<T: Sync, S>(
    threads: usize,
    monitor: &Monitor,
    items: &[T],
    start: impl Fn() -> S + Sync,
    step: impl Fn(&mut S, &T) -> Result<()> + Sync,
) -> Result<()> {
    if threads.min(items.len()) <= 1 {
        let mut state = start();
        return items.iter().try_for_each(|item| monitor.check_cancelled().and_then(|()| step(&mut state, item)));
    }
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                let mut state = start();
                while let Some(item) = items.get(next.fetch_add(1, Relaxed)) {
                    if let Err(error) = monitor.check_cancelled().and_then(|()| step(&mut state, item)) {
                        failed.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
                        next.store(items.len(), Relaxed);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
}
