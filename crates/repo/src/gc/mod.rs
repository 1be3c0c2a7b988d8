//! Deletion that cannot lose: what no recovery point needs is found, doomed in public, and only then removed.
//!
//! # The two phases
//! *Phase A* runs beside backups, under a shared lock. Recovery points are listed, then the index is read, then packs are
//! listed; every tree is walked once and a bit set for each blob that is needed (`mark`). Packs in which nothing is
//! needed are dead; out of those in which little is, what is needed is moved (`repack`) and listed in new index files.
//! Then the list of doomed packs is published (`state`). From that moment no writer of ours relies on a doomed pack: it
//! stores again what it needs of it.
//!
//! *Phase B* runs under restic's exclusive lock, briefly (`sweep`). Recovery points that were not followed in phase A
//! are followed now; a doomed pack that one of them needs leaves the list. The list is claimed. New index files take the
//! place of those that name doomed packs, the old ones are removed, all is made durable, and only then packs are removed.
//!
//! # Why nothing that is needed goes
//! - *A writer that began before the list was published* may rely on doomed packs. Its lock keeps phase B from
//!   beginning; when it is over, its recovery point is there to be followed. If it slept so long that its lock was
//!   cleared away, it takes a new one and looks again at everything it relies on before it publishes, and once more
//!   afterwards (`session`): then it fails, and does not publish what lacks something.
//! - *A writer that began afterwards* sees the list. Writers of other programs do not; they are held off by locks.
//! - *A pruner that slept* in phase B goes on removing packs that nobody has begun to rely on since: doomed packs of a
//!   list that was claimed never come back into use, what is needed of them is moved out instead. Before the claim it
//!   finds out, since of several pruners only one can claim a generation, and none an older one after it.
//! - *Another program's prune* between the phases replaces index files. The list names those that were there: when one is
//!   gone it is void, and everything is marked anew.
//! - *A blob that is stored more than once* is kept at a place that was read and found sound; its other places are dead.
//! - *A blob that is moved* is opened and held against its id before.
//! - No age and no clock decides anything; where lists may be stale, time is an additional belt.
//!
//! A death at any step leaves a list that the next run carries on, or puts aside.

mod forget;
pub(crate) mod mark;
mod packs;
mod plan;
mod repack;
mod report;
mod reserve;
mod round;
mod state;
mod sweep;

pub use report::{Deferred, KeptPack, PruneReport};

use crate::planted::Planted;
use crate::repository::Repository;
use crate::work::{each, threads_for};
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Error, ErrorKind, Id, Monitor, PackId, Result, Time};
use repack::Until;
use state::Ledger;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

/// How much of what is stored may stay although nobody needs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxUnused {
    /// A part of all that is stored afterwards, in percent from 0 to 100.
    Percent(f64),
    /// Bytes.
    Bytes(u64),
    /// Any amount: nothing is moved, only packs that are dead as a whole go.
    Unlimited,
}

impl Default for MaxUnused {
    /// restic's.
    fn default() -> Self {
        Self::Percent(5.0)
    }
}

impl MaxUnused {
    /// Bytes that may stay unused beside `used` bytes.
    fn limit(self, used: u64) -> u64 {
        match self {
            Self::Percent(percent) if percent >= 100.0 => u64::MAX,
            Self::Percent(percent) => (used as f64 * percent.max(0.0) / (100.0 - percent)) as u64,
            Self::Bytes(bytes) => bytes,
            Self::Unlimited => u64::MAX,
        }
    }
}

/// How to prune.
#[derive(Clone, Copy, Debug, Default)]
pub struct PruneOptions {
    /// How much unused space may stay.
    pub max_unused: MaxUnused,
    /// At most so many bytes are moved.
    pub max_repack_bytes: Option<u64>,
    /// After so long no further pack is begun to be moved.
    pub max_time: Option<Duration>,
    /// Say what would be done, do nothing.
    pub dry_run: bool,
    /// How long to wait for whoever holds a lock that excludes ours: before everything, and before removing.
    pub lock_wait: Duration,
}

/// Rounds at most: a further one follows when room had to be made first, or another program pruned meanwhile.
const ROUNDS_MAX: usize = 4;

/// Removes what no recovery point needs.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when something that recovery points refer to is missing: then nobody can say what is not
/// needed, and nothing is removed. [`ErrorKind::Locked`] while somebody else deletes. Whatever keeps the store from
/// answering; then the next run goes on where this one ended.
pub fn prune(repository: &Repository, monitor: &Monitor, options: &PruneOptions) -> Result<PruneReport> {
    let report = match attempt(repository, monitor, options) {
        Err(error) if error.kind() == ErrorKind::NoSpace && !options.dry_run && reserve::give_up(repository)? => {
            attempt(repository, monitor, options)?
        }
        outcome => outcome?,
    };
    if !options.dry_run {
        reserve::set_aside(repository, report.bytes.saturating_sub(report.bytes_removed));
    }
    Ok(report)
}

fn attempt(repository: &Repository, monitor: &Monitor, options: &PruneOptions) -> Result<PruneReport> {
    let until = Until::within(options.max_time);
    let mut sum = PruneReport::new(options.dry_run);
    if !options.dry_run && sweep::resume(repository, monitor, options, &mut sum)? {
        return Ok(sum);
    }
    for _ in 0..ROUNDS_MAX {
        match round::run(repository, monitor, options, until, &mut sum)? {
            round::Next::Done => return Ok(sum),
            round::Next::Again => {}
        }
    }
    Err(Error::new(
        ErrorKind::Retry,
        format!("the repository at {} was changed again and again while it was pruned", repository.location()),
    )
    .with_hint("nothing that is needed was removed; prune again when no other program prunes there"))
}

/// Packs that are about to be deleted, which no writer may rely on.
pub(crate) fn doomed(repository: &Repository) -> Result<HashSet<PackId>> {
    let ledger = Ledger::of(repository).filter(|_| !repository.has(Planted::IgnoreDoomed));
    let Some(ledger) = ledger else { return Ok(HashSet::new()) };
    match ledger.read() {
        Ok(state) => Ok(state.doomed()),
        // Whoever may not look there cannot have been meant to; locks still hold pruners off.
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unsupported) => {
            tracing::warn!("the list of doomed packs cannot be read: {}", error.chain());
            Ok(HashSet::new())
        }
        Err(error) => Err(error),
    }
}

/// Packs that whoever wrote may be removing at this moment, or has removed.
pub(crate) fn going(repository: &Repository) -> Result<HashSet<PackId>> {
    Ledger::of(repository).map_or(Ok(HashSet::new()), |ledger| ledger.read().map(|state| state.going()))
}

/// Whether a writer that looked at `since` for what it may rely upon can still go by that, as long as its lock is sound. Where
/// lists may be stale a pruner may not see that lock; there it leaves a list of doomed packs alone for a day, and so
/// whoever has worked for longer than half of that looks again.
pub(crate) fn still_holds(repository: &Repository, since: Time) -> bool {
    let passed = (repository.options.clock)().secs.saturating_sub(since.secs);
    repository.store.capabilities().list_after_write || (0..sweep::STALE_LIST_MARGIN_SECS / 2).contains(&passed)
}

/// The first of these packs, each with its length where that is known, that is not there or may be removed at this moment;
/// for whoever had lost its lock and holds one again. Where lists may be stale, that is any pack on any list of doomed ones:
/// a pruner might not see in time that it is needed.
pub(crate) fn first_lost(
    repository: &Repository,
    packs: impl Iterator<Item = (PackId, Option<u64>)>,
    monitor: &Monitor,
) -> Result<Option<PackId>> {
    let lists_are_true = repository.store.capabilities().list_after_write;
    // Before the packs are listed: who is removing them at this moment takes the list away when it is done.
    let going = if lists_are_true { going(repository)? } else { doomed(repository)? };
    let is_lost = |id: &PackId, length: Option<u64>, size: Option<u64>| {
        size.is_none() || length.is_some() && size != length || going.contains(id)
    };
    let store = &repository.store;
    if lists_are_true {
        let stored: HashMap<Id, u64> = store.list(ObjectKind::Pack)?.into_iter().collect();
        let mut packs = packs;
        return Ok(packs.find(|(id, length)| is_lost(id, *length, stored.get(&id.0).copied())).map(|(id, _)| id));
    }
    // A list that may be stale proves nothing, whether it shows a pack or not.
    let (packs, lost) = (packs.collect::<Vec<_>>(), Mutex::new(None));
    let look = |_: &mut (), (id, length): &(PackId, Option<u64>)| {
        let size = match store.size(&StoreKey::new(ObjectKind::Pack, *id)) {
            Ok(size) => Some(size),
            Err(error) if error.kind() == ErrorKind::Absent => None,
            Err(error) => return Err(error.context(format!("look for pack {id}"))),
        };
        if is_lost(id, *length, size) {
            mark::lock(&lost).get_or_insert(*id);
        }
        Ok(())
    };
    each(threads_for(&**store), monitor, &packs, || (), look)?;
    Ok(lost.into_inner().unwrap_or_else(|e| e.into_inner()))
}

/// As many as help with waiting for the store, and one more than there are cores.
fn threads(repository: &Repository) -> usize {
    const THREADS_FOR_STORE_MAX: usize = 16;
    if repository.store.capabilities().connections <= 1 {
        return 1;
    }
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    (repository.store.capabilities().connections / 2).min(THREADS_FOR_STORE_MAX).max(cores + 1)
}
