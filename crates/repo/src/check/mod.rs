//! Check and verification: is everything there, and is every byte what it must be.
//!
//! [`check`] reads all metadata: config, keys, snapshots, index files, and every directory; it holds the packs that are
//! there against the index by name and size. [`verify`] does the same and reads packs in full: the hash of the pack, its
//! own list of blobs against the index, and for every blob its tag, its decompression and its hash.
//!
//! Damage never ends a run. Each damaged object is a finding of its own, and in the end the snapshots are followed down
//! to it, so that the report says what can no longer be restored: every snapshot, and some of the paths. Only a store that
//! cannot be reached, or a wish to stop, ends a run early, with an error: that says nothing about the repository.
//!
//! Nothing is believed on the word of a cache: all is read from the store. A lock keeps others from deleting meanwhile;
//! where none can be written, such as on a read-only disk, the run goes on without and says so.

mod attribute;
mod choose;
mod examine;
mod faults;
mod findings;
mod ledger;
mod objects;
mod packs;
mod pass;
mod report;
mod run;
mod trees;

pub use choose::Scope;
pub use report::{
    CheckReport, Counts, Coverage, DAMAGE_MAX, Damage, DamageKind, DamagedObject, PATHS_MAX, VerifyReport,
};

use crate::lock::{LockGuard, LockMode};
use crate::repository::Repository;
use attribute::Attribution;
use choose::choose;
use faults::Faults;
use lastgood_model::{Error, ErrorKind, Monitor, PackId, Result, SnapshotId};
pub use ledger::longest_unverified;
use ledger::{Ledger, LedgerKeeper};
use pass::{Pass, Totals};
use run::Run;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use trees::Seen;

/// What a check is told beforehand.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// Snapshots that were made and never forgotten, as the caller remembers. A repository does not know what it should
    /// hold: that a snapshot object is gone can be found only by who remembers it.
    pub expected: Vec<SnapshotId>,
}

/// What a verification is told beforehand.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// How much to read.
    pub scope: Scope,
    /// Where it is kept which pack was verified when; a file of this repository alone, made when missing.
    pub ledger: Option<PathBuf>,
    /// What the check that is part of it is told.
    pub check: CheckOptions,
}

impl VerifyOptions {
    /// Reads every pack.
    pub fn all() -> Self {
        Self { scope: Scope::All, ledger: None, check: CheckOptions::default() }
    }

    /// Reads packs drawn by chance, the larger ones more likely, until they have `percent` of all bytes.
    pub fn sample(percent: f64, seed: u64) -> Self {
        Self { scope: Scope::Sample { percent, seed }, ..Self::all() }
    }

    /// Reads what has waited longest, so much of it that regular runs read every byte once `every` so often.
    pub fn rolling(every: Duration, ledger: impl Into<PathBuf>) -> Self {
        Self { scope: Scope::Rolling { every }, ledger: Some(ledger.into()), ..Self::all() }
    }

    /// Keeps track in this ledger.
    #[must_use]
    pub fn with_ledger(mut self, ledger: impl Into<PathBuf>) -> Self {
        self.ledger = Some(ledger.into());
        self
    }
}

/// Checks that everything is there and fits together.
///
/// # Errors
/// [`ErrorKind::Locked`] while somebody deletes from the repository; whatever keeps the store from answering;
/// [`ErrorKind::Cancelled`]. Damage is no error but in the report.
pub fn check(repository: &Repository, monitor: &Monitor, options: &CheckOptions) -> Result<CheckReport> {
    let (keeper, _) = LedgerKeeper::open(None, repository.id(), repository.options.clock.clone());
    let found = look(repository, monitor, options, None, &keeper)?;
    Ok(CheckReport {
        kind: CheckReport::TYPE,
        schema: CheckReport::SCHEMA,
        counts: found.counts,
        damage: found.damage,
        damage_total: found.damage_total,
        snapshots_affected: found.snapshots_affected,
        notes: found.notes,
    })
}

/// Checks, and reads packs in full.
///
/// # Errors
/// As [`check`]; [`ErrorKind::Invalid`] for a rolling verification without a ledger, and for a sample that is no part.
pub fn verify(repository: &Repository, monitor: &Monitor, options: &VerifyOptions) -> Result<VerifyReport> {
    match options.scope {
        Scope::Rolling { .. } if options.ledger.is_none() => {
            return Err(Error::invalid("a rolling verification needs a ledger to know what was verified when"));
        }
        Scope::Sample { percent, .. } if !(percent > 0.0 && percent <= 100.0) => {
            return Err(Error::invalid(format!("a sample of {percent} % is none"))
                .with_hint("choose a part above 0 % and up to 100 %"));
        }
        _ => {}
    }
    let clock = repository.options.clock.clone();
    let (keeper, ledger_note) = LedgerKeeper::open(options.ledger.as_deref(), repository.id(), clock);
    let began = keeper.now();
    let found = match look(repository, monitor, &options.check, Some(options.scope), &keeper) {
        Ok(found) => found,
        Err(error) => {
            if let Err(second) = keeper.interrupt() {
                tracing::warn!(error = %second.chain(), "ledger not written");
            }
            return Err(error);
        }
    };
    let mut notes = found.notes;
    notes.extend(ledger_note);
    let mut coverage = None;
    if options.ledger.is_some() {
        match keeper.finish(began) {
            Ok(ledger) => {
                let within = match options.scope {
                    Scope::Rolling { every } => Some(every),
                    _ => None,
                };
                coverage = Some(ledger.coverage(&found.packs, within, keeper.now()));
            }
            Err(error) => notes.push(format!("{}; the next run will not know what was verified", error.chain())),
        }
    }
    Ok(VerifyReport {
        kind: VerifyReport::TYPE,
        schema: VerifyReport::SCHEMA,
        counts: found.counts,
        packs_verified: found.totals.packs.into_inner(),
        bytes_verified: found.totals.bytes.into_inner(),
        blobs_verified: found.totals.blobs.into_inner(),
        bytes_plain: found.totals.bytes_plain.into_inner(),
        coverage,
        damage: found.damage,
        damage_total: found.damage_total,
        snapshots_affected: found.snapshots_affected,
        notes,
    })
}

/// All that was found.
struct Found {
    counts: Counts,
    /// Packs with their sizes.
    packs: Vec<(PackId, u64)>,
    totals: Totals,
    damage: Vec<Damage>,
    damage_total: u64,
    snapshots_affected: Vec<SnapshotId>,
    notes: Vec<String>,
}

/// The story of both: small objects, index, packs, what it means.
fn look(
    repository: &Repository,
    monitor: &Monitor,
    options: &CheckOptions,
    scope: Option<Scope>,
    keeper: &LedgerKeeper,
) -> Result<Found> {
    let run = Run::new(repository, monitor);
    let _lock = take_lock(&run)?;
    run.look_at_config()?;
    let keys = run.look_at_keys()?;
    run.look_at_locks()?;
    // Snapshots before the index and the index before the packs, so that all that one names is in the next.
    let snapshots = run.look_at_snapshots(&options.expected)?;
    let mut packs = run.look_at_packs()?;
    let (packs_stored, bytes_stored) = packs.stored();
    if !packs.unindexed.is_empty() {
        let bytes: u64 = packs.unindexed.iter().map(|(_, size)| size).sum();
        run.note(format!(
            "{} packs with {bytes} bytes are in no readable index file; interrupted or running backups leave such packs",
            packs.unindexed.len()
        ));
    }

    let (faults, seen, totals) = (Faults::default(), Seen::default(), Totals::default());
    let pass = Pass { run: &run, faults: &faults, seen: &seen, totals: &totals, ledger: keeper };
    if !packs.lost_index_files.is_empty() {
        run.add_by_headers(&mut packs)?;
    }
    let sizes = sizes(&packs);
    let ledger = if scope.is_some() { keeper.follow(&sizes) } else { Ledger::default() };
    let chosen = scope.map(|scope| choose(scope, &sizes, &ledger, keeper.now())).unwrap_or_default();
    drop(ledger);
    pass.over(&packs, 0, |pack| chosen.contains(&pack.id))?;
    if snapshots.readable.iter().any(|s| packs.index.find(s.file.tree).is_none()) {
        faults.dangle();
    }
    if faults.is_dangling() && !packs.unindexed.is_empty() {
        // Perhaps an index file is gone: what it told of is still there to ask.
        let first = run.add_by_headers(&mut packs)?;
        pass.over(&packs, first, |_| scope == Some(Scope::All))?;
    }
    if faults.matter() {
        Attribution::new(&run, &packs, &faults).settle(&snapshots.readable)?;
    }
    if faults.bad_trees_left() > 0 {
        run.note(format!("{} directories that no snapshot needs are not valid", faults.bad_trees_left()));
    }
    seen.tell(&run);

    let counts = Counts {
        keys,
        snapshots: snapshots.listed,
        index_files: packs.index_files,
        packs: packs_stored,
        bytes_stored,
        blobs: packs.index.len() as u64,
        trees: seen.trees.load(Relaxed),
        bytes_read: run.bytes_read.load(Relaxed),
    };
    let notes = run.take_notes();
    let (damage, damage_total) = run.findings.into_list();
    let order: Vec<SnapshotId> = snapshots.readable.iter().map(|s| s.id).collect();
    let snapshots_affected = affected(&damage, &order);
    Ok(Found { counts, packs: sizes, totals, damage, damage_total, snapshots_affected, notes })
}

/// The packs that are there, with their sizes.
fn sizes(packs: &packs::Packs) -> Vec<(PackId, u64)> {
    packs.all.iter().filter_map(|pack| Some((pack.id, pack.bytes_stored?))).collect()
}

/// The snapshots of all findings, in the order given, and then those that cannot be read at all.
fn affected(damage: &[Damage], order: &[SnapshotId]) -> Vec<SnapshotId> {
    let mut all: HashSet<SnapshotId> = damage.iter().flat_map(|d| d.snapshots.iter().copied()).collect();
    let mut list: Vec<SnapshotId> = order.iter().copied().filter(|id| all.remove(id)).collect();
    let mut rest: Vec<SnapshotId> = all.into_iter().collect();
    rest.sort_unstable();
    list.extend(rest);
    list
}

fn take_lock(run: &Run<'_>) -> Result<Option<LockGuard>> {
    match run.repository.lock(LockMode::Reading) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::NoSpace | ErrorKind::Unsupported) => {
            run.note(format!(
                "no lock could be taken ({}); had somebody deleted from the repository meanwhile, it would look damaged",
                error.chain()
            ));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
