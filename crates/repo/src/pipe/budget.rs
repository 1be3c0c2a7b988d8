//! The memory budget of a session: bytes of content that may wait between a source and the workers.

use std::sync::{Condvar, Mutex};

/// A counting semaphore over bytes. A single request larger than the whole budget is granted when nothing else is out,
/// so that an oversized chunk slows the run down but never stops it.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: Mutex<usize>,
    freed: Condvar,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, used: Mutex::new(0), freed: Condvar::new() }
    }

    /// Takes `bytes` if they are to be had at once.
    pub(crate) fn try_take(&self, bytes: usize) -> bool {
        let mut used = self.used.lock().unwrap_or_else(|e| e.into_inner());
        let granted = *used == 0 || *used + bytes <= self.limit;
        if granted {
            *used += bytes;
        }
        granted
    }

    /// Takes `bytes`, waiting while others hold too much.
    pub(crate) fn take(&self, bytes: usize) {
        let mut used = self.used.lock().unwrap_or_else(|e| e.into_inner());
        while *used != 0 && *used + bytes > self.limit {
            used = self.freed.wait(used).unwrap_or_else(|e| e.into_inner());
        }
        *used += bytes;
    }

    /// Gives `bytes` back.
    pub(crate) fn give(&self, bytes: usize) {
        let mut used = self.used.lock().unwrap_or_else(|e| e.into_inner());
        *used -= bytes;
        drop(used);
        self.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_limit_is_granted_only_alone() {
        let budget = Budget::new(10);
        assert!(budget.try_take(6));
        assert!(!budget.try_take(5));
        assert!(budget.try_take(4));
        budget.give(10);
        assert!(budget.try_take(100));
        assert!(!budget.try_take(1));
        budget.give(100);
        assert!(budget.try_take(1));
    }
}
