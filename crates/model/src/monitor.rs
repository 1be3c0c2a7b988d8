//! What a running operation tells and hears: counters to show, problems to report, and the wish to stop.

use crate::manifest::Problem;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Running totals of one operation. Read at any time; never decremented.
#[derive(Debug, Default)]
pub struct Counters {
    /// Files finished, unchanged ones included.
    pub files: AtomicU64,
    /// Files whose content was taken over from the parent snapshot without reading.
    pub files_unchanged: AtomicU64,
    /// Files that the parent snapshot did not have.
    pub files_new: AtomicU64,
    /// Directories finished.
    pub dirs: AtomicU64,
    /// Directories whose tree equals the parent's.
    pub dirs_unchanged: AtomicU64,
    /// Directories that the parent snapshot did not have.
    pub dirs_new: AtomicU64,
    /// Logical bytes finished (read, or known unchanged, or restored).
    pub bytes: AtomicU64,
    /// Bytes actually read from the source.
    pub bytes_read: AtomicU64,
    /// New data blobs stored.
    pub blobs_data_new: AtomicU64,
    /// New tree blobs stored.
    pub blobs_tree_new: AtomicU64,
    /// Plaintext bytes of new blobs.
    pub bytes_new: AtomicU64,
    /// Stored bytes of new blobs, after compression and sealing.
    pub bytes_stored: AtomicU64,
    /// Expected total of `bytes`, 0 while unknown.
    pub bytes_expected: AtomicU64,
}

/// Shared by everyone working on one operation.
#[derive(Debug, Default)]
pub struct Monitor {
    /// Running totals.
    pub counters: Counters,
    cancelled: AtomicBool,
    problems: Mutex<Problems>,
}

#[derive(Debug, Default)]
struct Problems {
    kept: Vec<Problem>,
    total: u64,
}

impl Monitor {
    /// How many problems are kept in full; later ones are only counted.
    pub const PROBLEMS_KEPT_MAX: usize = 10_000;

    /// A monitor with everything at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everyone to stop at the next safe moment.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// True once a stop was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Fails with [`crate::ErrorKind::Cancelled`] once a stop was asked for.
    pub fn check_cancelled(&self) -> crate::Result<()> {
        if self.is_cancelled() {
            return Err(crate::Error::new(crate::ErrorKind::Cancelled, "interrupted"));
        }
        Ok(())
    }

    /// Records a problem; the run goes on and ends as incomplete.
    pub fn problem(&self, problem: Problem) {
        let mut problems = self.problems.lock().unwrap_or_else(|e| e.into_inner());
        problems.total += 1;
        if problems.kept.len() < Self::PROBLEMS_KEPT_MAX {
            problems.kept.push(problem);
        }
    }

    /// Names the source of all problems that have none yet: sources report without knowing their own name in the run.
    pub fn label_problems(&self, source: &str) {
        let mut problems = self.problems.lock().unwrap_or_else(|e| e.into_inner());
        for problem in problems.kept.iter_mut().rev().take_while(|p| p.source.is_empty()) {
            problem.source = source.to_owned();
        }
    }

    /// The problems so far, and how many there were in all.
    pub fn problems(&self) -> (Vec<Problem>, u64) {
        let problems = self.problems.lock().unwrap_or_else(|e| e.into_inner());
        (problems.kept.clone(), problems.total)
    }

    /// Adds to a counter.
    pub fn add(&self, counter: impl FnOnce(&Counters) -> &AtomicU64, amount: u64) {
        counter(&self.counters).fetch_add(amount, Ordering::Relaxed);
    }
}
