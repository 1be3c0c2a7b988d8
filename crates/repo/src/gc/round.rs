//! One round: look, decide, move, doom, and hand over to the sweep.

use super::mark::{Bits, Walk, lock};
use super::packs::{Places, Table};
use super::plan::{Decision, decide};
use super::repack::{Until, repack};
use super::report::PruneReport;
use super::state::{DoomList, DoomedPack, Ledger, State, random_id};
use super::sweep::{Outcome, Sweep};
use super::{PruneOptions, threads};
use crate::index::{BlobRef, Location};
use crate::index_files::Believed;
use crate::lock::{LockGuard, LockMode};
use crate::planted::Planted;
use crate::read::BlobReader;
use crate::repository::{Repository, Snapshot};
use lastgood_model::store::ObjectKind;
use lastgood_model::{Error, ErrorKind, Id, IndexId, Monitor, PackId, Result, SnapshotId};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

/// What follows a round.
pub(super) enum Next {
    Done,
    /// Room was made and more can be moved now, or somebody else pruned meanwhile.
    Again,
}

/// Runs one round; adds to `sum` what was done.
pub(super) fn run(
    repository: &Repository,
    monitor: &Monitor,
    options: &PruneOptions,
    until: Until,
    sum: &mut PruneReport,
) -> Result<Next> {
    let guard = take_lock(repository, options, monitor)?;
    let ledger = Ledger::of(repository);
    let state = ledger.as_ref().map_or(Ok(State::default()), Ledger::read)?;
    let seen = Seen::look(repository, monitor)?;
    let numbers = seen.reader.index.number();
    let needed = Bits::new(numbers.len);
    let several = Mutex::new(Vec::new());
    let met = |blob: BlobRef, _: Location| {
        if !seen.reader.index.spares(blob).is_empty() {
            lock(&several).push(blob);
        }
    };
    let threads = threads(repository);
    Walk { reader: &seen.reader, numbers: &numbers, needed: &needed, threads, monitor }.follow(&seen.snapshots, met)?;
    let mut several = several.into_inner().unwrap_or_else(|e| e.into_inner());
    several.sort_unstable();

    let mut table = Table::new(&seen.reader.index, &numbers, &seen.present, &state.going());
    for pack in table.odd() {
        sum.keep(pack, "its size is not what the index makes it: `lastgood check` tells more");
    }
    let places = Places::choose(&seen.reader, &numbers, &needed, &table, &several, threads)?;
    if places.spare_unsound(&mut table, &several) > 0 {
        table.odd().into_iter().for_each(|pack| sum.keep(pack, "it holds one of several damaged copies of a blob"));
    }
    places.weigh(&mut table);
    let decision = decide(&table.uses, options.max_unused, options.max_repack_bytes);
    let loose = seen.loose(&guard, &state);
    let bytes_loose: u64 = loose.iter().map(|pack| pack.bytes).sum();

    sum.snapshots = seen.snapshots.len() as u64;
    sum.packs = seen.present.len() as u64;
    sum.bytes = seen.present.values().sum();
    sum.bytes_used = decision.used_bytes;
    sum.bytes_unused = decision.unused_bytes + bytes_loose;
    sum.bytes_unused_left = decision.unused_after;
    let pack = |n: &usize| DoomedPack { id: table.uses[*n].id, bytes: table.uses[*n].bytes };
    let mut doomed: Vec<DoomedPack> = decision.dead.iter().map(pack).chain(loose).collect();
    if options.dry_run {
        tell_plan(sum, &doomed, &decision, &table);
        return Ok(Next::Done);
    }

    let sources: Vec<(PackId, u64)> = decision.repack.iter().map(pack).map(|pack| (pack.id, pack.bytes)).collect();
    let moved = repack(repository, &seen.reader, &places, &sources, threads, until, monitor)?;
    let sizes: HashMap<PackId, u64> = sources.into_iter().collect();
    doomed.extend(moved.emptied.iter().map(|id| DoomedPack { id: *id, bytes: sizes.get(id).copied().unwrap_or(0) }));
    for (pack, reason) in &moved.damaged {
        sum.keep(*pack, format!("something in it is damaged: {reason}"));
    }
    sum.packs_repacked += moved.emptied.len() as u64;
    sum.bytes_moved += moved.bytes;
    sum.out_of_time |= moved.out_of_time;
    for pack in &decision.repack {
        let pack = &table.uses[*pack];
        if !moved.emptied.contains(&pack.id) && !pack.is_going {
            sum.bytes_unused_left += pack.bytes - pack.live_bytes;
        }
    }
    if doomed.is_empty() && state.lists.is_empty() {
        return match moved.full {
            Some(error) => Err(full(error)),
            None => Ok(Next::Done),
        };
    }
    doomed.sort_unstable_by_key(|pack| pack.id);
    doomed.dedup_by_key(|pack| pack.id);

    let mut list = DoomList {
        generation: 0,
        published: (repository.options.clock)(),
        hostname: repository.hostname(),
        pid: std::process::id(),
        nonce: random_id()?,
        packs: doomed,
        moved_to: moved.written.iter().map(|(id, bytes)| DoomedPack { id: *id, bytes: *bytes }).collect(),
        snapshots: seen.snapshots.iter().map(|snapshot| snapshot.id).collect(),
        index_files: index_files(repository, &seen.index_files, !moved.written.is_empty())?,
        locks: guard.findings.others,
    };
    // What was looked at and moved holds only if nobody deleted meanwhile.
    if !guard.is_sound() {
        return Err(Error::new(ErrorKind::Retry, "the lock was lost while the repository was looked through")
            .with_hint("nothing was removed; prune again. This happens when the machine sleeps meanwhile"));
    }
    if let Some(ledger) = ledger.as_ref().filter(|_| !repository.has(Planted::DeleteBeforePublishing)) {
        ledger.publish(&mut list)?;
        // What is still doomed is on the new list, and nobody has begun an old one: whoever was about to finds out.
        for old in state.lists.iter().filter(|old| !state.is_claimed(old)) {
            ledger.remove(old.generation)?;
        }
    }
    drop(guard);
    let superseded = state.lists.iter().map(|list| list.generation).collect();
    let sweep =
        Sweep { repository, ledger: ledger.as_ref(), monitor, wait: options.lock_wait, superseded, fresh: true };
    match sweep.run(list, sum)? {
        Outcome::Void => Ok(Next::Again),
        Outcome::Done if moved.full.is_some() && sum.packs_removed > 0 => Ok(Next::Again),
        Outcome::Done => moved.full.map_or(Ok(Next::Done), |error| Err(full(error))),
        Outcome::Waits => Ok(Next::Done),
    }
}

/// The lock of phase A. A rehearsal only reads.
fn take_lock(repository: &Repository, options: &PruneOptions, monitor: &Monitor) -> Result<LockGuard> {
    let mode = if options.dry_run { LockMode::Reading } else { LockMode::Shared };
    repository.lock_within(mode, options.lock_wait, monitor)
}

fn full(error: Error) -> Error {
    error.context("move what is needed out of packs that are mostly not").with_hint(
        "the store is full and nothing more can be removed without moving something first: make room for at least one \
         pack of 16 MiB, or prune with --max-unused unlimited after forgetting more recovery points",
    )
}

fn tell_plan(sum: &mut PruneReport, doomed: &[DoomedPack], decision: &Decision, table: &Table) {
    sum.packs_repacked = decision.repack.len() as u64;
    sum.bytes_moved = decision.move_bytes;
    sum.packs_removed = (doomed.len() + decision.repack.len()) as u64;
    let repacked: u64 = decision.repack.iter().map(|n| table.uses[*n].bytes).sum();
    sum.bytes_removed = doomed.iter().map(|pack| pack.bytes).sum::<u64>() + repacked;
}

/// The index files that stand for what was decided: those that were read, and those with what was moved.
fn index_files(repository: &Repository, read: &[IndexId], moved: bool) -> Result<Vec<IndexId>> {
    if !moved {
        return Ok(read.to_vec());
    }
    // Others may have added some meanwhile, which then count as seen although they were not read: they name packs that
    // are not doomed, since they were not known.
    let mut all: HashSet<IndexId> = read.iter().copied().collect();
    all.extend(repository.store.list(ObjectKind::Index)?.into_iter().map(|(id, _)| IndexId(id)));
    Ok(all.into_iter().collect())
}

/// What there is, in the order in which it must be looked at.
struct Seen {
    snapshots: Vec<Snapshot>,
    index_files: Vec<IndexId>,
    /// Packs with their sizes.
    present: HashMap<Id, u64>,
    reader: BlobReader,
}

impl Seen {
    /// Recovery points first, so that the index knows all they need; one that comes later is followed by the sweep. Packs
    /// before the index, so that a pack which is being written counts as unlisted only until the sweep looks.
    fn look(repository: &Repository, monitor: &Monitor) -> Result<Self> {
        let mut damaged: Option<(SnapshotId, Error)> = None;
        let snapshots = repository.snapshots(|id, error| {
            damaged.get_or_insert((id, error));
        })?;
        if let Some((id, error)) = damaged {
            return Err(error.context(format!("read recovery point {}", id.short())).with_hint(format!(
                "nothing was removed: what it needs is not known. Bring the object snapshots/{id} back from another copy \
                 of the repository, or remove that one object if there is none"
            )));
        }
        monitor.check_cancelled()?;
        let present: HashMap<Id, u64> = repository.store.list(ObjectKind::Pack)?.into_iter().collect();
        let mut index_files: Vec<IndexId> =
            repository.store.list(ObjectKind::Index)?.into_iter().map(|(id, _)| IndexId(id)).collect();
        index_files.sort_unstable();
        let index = repository.load_index_of(&Believed { present: Some(&present), doomed: None, quiet: true })?;
        if let Some(pack) = index.unlisted().first() {
            return Err(Error::corrupt(format!(
                "an index file is damaged: {} packs are in none that can be read, among them {pack}",
                index.unlisted().len()
            ))
            .with_hint(
                "nothing was removed. The next `lastgood backup`, or `lastgood repair index`, lists them anew",
            ));
        }
        let reader = BlobReader::new(repository.store.clone(), repository.sealer.clone(), Arc::clone(&index));
        Ok(Self { snapshots, index_files, present, reader })
    }

    /// Packs that no index file lists and that may go: those of lists that were begun, and, when nobody who writes is
    /// there and nobody has died since the last run that could tell, what dead runs left behind.
    fn loose(&self, guard: &LockGuard, state: &State) -> Vec<DoomedPack> {
        let index = &self.reader.index;
        let mut known: HashSet<PackId> = index.packs().into_iter().collect();
        known.extend(index.unusable());
        let going = state.going();
        let found = guard.findings;
        let is_alone = found.writers == 0 && found.unreadable == 0 && found.stale_removed == 0;
        let loose = self.present.iter().map(|(id, bytes)| DoomedPack { id: PackId(*id), bytes: *bytes });
        loose.filter(|pack| !known.contains(&pack.id) && (is_alone || going.contains(&pack.id))).collect()
    }
}
