//! Recovery points from one repository into another.
//!
//! # What makes a copy whole
//! The trees of the wanted points are walked once each, and everything they name that the target lacks is collected.
//! Blobs are read pack by pack in the order in which they lie. No byte is believed: a blob is opened and compared with
//! its id before it goes into a pack of the target, and a pack that moves as the object it is has the hash that is its
//! name, and a header that tells what the index does. Where both repositories have the same master key, sealed bytes
//! move as they are, and packs of which everything is wanted move whole; else blobs are opened and sealed again, and
//! stay as they were compressed. Then come index files, everything is made durable, and only then are snapshot objects
//! written, made durable and read back: the order of a backup, with its consequences. A copy that is killed leaves packs
//! that nobody refers to, and the next one finds them by their index file, or adopts them, and goes on from there.
//!
//! A blob that can be read nowhere in the source stops the points that need it, and no others: before anything is
//! published, what was to be sent is compared with what came, and where they differ every point is walked once more and
//! is published only when the target has all that it names.
//!
//! # Memory
//! Nothing is kept for each blob but its place in the target's index (28 bytes; somewhat more until it is stored), and
//! two numbers for each pack of the source. Which blobs of a pack are wanted is asked of the target's index again when
//! the pack's own list is read.

mod points;
mod publish;
mod send;
mod walk;

use crate::index::Index;
use crate::index_files::Believed;
use crate::lock::{LockGuard, LockMode};
use crate::pipe::Packer;
use crate::read::BlobReader;
use crate::repository::{Repository, Snapshot};
use crate::session::leftovers::{Adopted, Found};
use lastgood_model::store::ObjectKind;
use lastgood_model::{Error, ErrorKind, Id, Monitor, PackId, Result, SnapshotId, Time};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

pub use points::{is_same_point, missing_points};

/// How to copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct CopyOptions {
    /// Find out what would be sent, write nothing.
    pub dry_run: bool,
    /// Look at points that the target has already, too, and send what is missing of them there: packs that are gone, or cut
    /// short.
    pub mend: bool,
    /// How long to wait for somebody who deletes from either repository.
    pub lock_wait: Duration,
}

/// What became of one point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PointState {
    /// The target had it before.
    There,
    /// It was sent, is durable in the target and was read back; or would be sent, in a dry run.
    Sent,
    /// Something of it cannot be read in the source; the target does not have it.
    Failed,
}

/// One recovery point of a copy.
#[derive(Clone, Debug, Serialize)]
pub struct CopiedPoint {
    /// Its id in the source.
    pub snapshot: SnapshotId,
    /// Its moment; absent when the snapshot itself cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// What became of it.
    pub state: PointState,
    /// Its id in the target; the same where both repositories have one master key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<SnapshotId>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What came of a copy.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CopyReport {
    /// Every point that was wanted, in the order of the request.
    pub points: Vec<CopiedPoint>,
    /// Both repositories have the same master key, so that sealed bytes moved as they are.
    pub same_key: bool,
    /// Nothing was written.
    pub dry_run: bool,
    /// Directories that were walked, each once.
    pub trees: u64,
    /// Blobs that the target lacked and that were sent.
    pub blobs: u64,
    /// Sealed bytes of those blobs.
    pub bytes: u64,
    /// Packs that moved as the objects they are.
    pub packs_whole: u64,
    /// Packs written in the target, those included.
    pub packs: u64,
    /// Their bytes.
    pub bytes_written: u64,
    /// Packs of the target that no index file listed and that were taken over.
    pub packs_adopted: u64,
    /// An index file of the target was damaged or gone, and was made anew.
    pub index_was_lost: bool,
}

impl CopyReport {
    /// Points of one state.
    pub fn count(&self, state: PointState) -> usize {
        self.points.iter().filter(|point| point.state == state).count()
    }
}

/// Copies the points `wanted` of `from` that `to` lacks. Progress is told in sealed bytes.
///
/// # Errors
/// [`ErrorKind::Invalid`] when both are the same repository, [`ErrorKind::Locked`] while somebody deletes from either;
/// whatever keeps the target from being written or the source from answering. A point that is damaged in the source is
/// no error, but [`PointState::Failed`] in the report.
pub fn copy(
    from: &Arc<Repository>,
    to: &Arc<Repository>,
    wanted: &[SnapshotId],
    monitor: &Monitor,
    options: CopyOptions,
) -> Result<CopyReport> {
    if from.id() == to.id() && from.location() == to.location() {
        return Err(Error::invalid(format!("{} cannot be copied into itself", from.location())));
    }
    let _source_lock = reading_lock(from, options.lock_wait, monitor)?;
    let mode = if options.dry_run { LockMode::Reading } else { LockMode::Shared };
    let lock = to.lock_within(mode, options.lock_wait, monitor)?;
    let looked = (to.options.clock)();
    // Snapshots before indexes, so that an index knows all that they refer to.
    let there = to.snapshots(|id, error| {
        tracing::warn!("recovery point {} at {} is damaged: {}", id.short(), to.location(), error.chain());
    })?;
    let mut report = CopyReport { same_key: from.has_key_of(to), dry_run: options.dry_run, ..CopyReport::default() };
    let mut lacking = Vec::new();
    for id in wanted {
        let (point, snapshot) = points::compare(from, *id, &there)?;
        lacking.extend(snapshot.map(|snapshot| (report.points.len(), snapshot)));
        report.points.push(point);
    }
    let mendable = match options.mend {
        true => points::roots_there(from, &report)?,
        false => Vec::new(),
    };
    if lacking.is_empty() && mendable.is_empty() {
        return Ok(report);
    }
    let ends = Ends::open(from, to)?;
    let adopted = ends.adopt(to, &there, &lock, options.dry_run)?;
    report.packs_adopted = adopted.packs.len() as u64;
    report.index_was_lost = adopted.index_was_lost;

    let roots: Vec<_> = lacking.iter().map(|(_, snapshot)| snapshot.file.tree).chain(mendable).collect();
    let wanted = walk::walk(&ends, &roots, monitor)?;
    report.trees = wanted.trees;
    let bytes: u64 = wanted.needs.iter().map(|need| need.bytes).sum();
    monitor.add(|c| &c.bytes_expected, bytes);
    if options.dry_run {
        report.blobs = wanted.blobs();
        report.bytes = bytes;
        let verdict = publish::Judge::new(&ends, &wanted.lost, false);
        return publish::rehearse(verdict, &lacking, report, monitor);
    }
    if lock.findings.stale_removed > 0 {
        // Whoever still writes holds its temporary files locked; what is not was left by a run that died.
        to.store.sweep(std::time::Duration::ZERO)?;
    }
    let packer = Packer::start(to.store.clone(), to.sealer.clone(), ends.target.index.clone(), to.cache(), false)?;
    let sent = send::send(&ends, &wanted, &packer, report.same_key, monitor);
    let sent = match sent {
        Ok(sent) => sent,
        Err(error) => {
            packer.salvage();
            return Err(error);
        }
    };
    let packs = packer.finish()?;
    report.blobs = sent.blobs;
    report.bytes = sent.bytes;
    report.packs_whole = sent.packs_whole;
    report.packs = packs.len() as u64;
    report.bytes_written = packs.iter().map(|(_, bytes)| bytes).sum();
    monitor.check_cancelled()?;
    let hold = Hold { to, ends: &ends, lock: Some(lock), looked, wait: options.lock_wait };
    let is_whole = wanted.lost.is_empty() && sent.blobs == wanted.blobs();
    let mut lost = wanted.lost;
    lost.extend(sent.lost);
    let judge = (!is_whole).then(|| publish::Judge::new(&ends, &lost, true));
    publish::publish(from, hold, judge, &lacking, report, monitor)
}

/// A lock that keeps others from deleting what is being read. Where none can be written, because the store is read-only
/// or full, the copy goes on without: every blob is verified anyway.
fn reading_lock(from: &Repository, wait: Duration, monitor: &Monitor) -> Result<Option<LockGuard>> {
    match from.lock_within(LockMode::Reading, wait, monitor) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::NoSpace | ErrorKind::Unsupported) => {
            tracing::warn!(error = %error.chain(), "copying without a lock on the source; nobody may prune it meanwhile");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Both repositories with their indexes.
struct Ends {
    source: Arc<BlobReader>,
    source_repository: Arc<Repository>,
    target: BlobReader,
    /// Packs in the target, listed before its index was read.
    present: HashMap<Id, u64>,
    /// Packs that somebody is about to delete from the target. One of these must not come back under its name: it would be
    /// deleted all the same.
    doomed: HashSet<PackId>,
}

impl Ends {
    fn open(from: &Arc<Repository>, to: &Repository) -> Result<Self> {
        let source = from.reader()?;
        let doomed = crate::gc::doomed(to)?;
        let (index, present) = to.load_index_of_present_packs()?;
        let target = BlobReader::new(to.store.clone(), to.sealer.clone(), index);
        Ok(Self { source, source_repository: from.clone(), target, present, doomed })
    }

    /// With everything that is there in the target, also what is doomed and was not begun to be removed.
    fn as_they_are(from: &Arc<Repository>, to: &Repository) -> Result<Self> {
        let doomed = crate::gc::going(to)?;
        let present = to.store.list(ObjectKind::Pack)?.into_iter().collect();
        let believed = Believed { present: Some(&present), doomed: Some(&doomed), quiet: true };
        let target = BlobReader::new(to.store.clone(), to.sealer.clone(), to.load_index_of(&believed)?);
        Ok(Self { source: from.reader()?, source_repository: from.clone(), target, present, doomed })
    }

    fn adopt(&self, to: &Repository, there: &[Snapshot], lock: &LockGuard, dry_run: bool) -> Result<Adopted> {
        let index: &Index = &self.target.index;
        let locks = lock.findings;
        Found { repository: to, index, present: &self.present, snapshots: there, locks, dry_run, all: false }.adopt()
    }
}

/// Our lock in the target.
struct Hold<'a> {
    to: &'a Repository,
    ends: &'a Ends,
    lock: Option<LockGuard>,
    /// When it was looked at last what may be relied upon.
    looked: Time,
    wait: Duration,
}

impl Hold<'_> {
    /// Makes sure that everything the new points rely upon is there and stays. When our lock may have been taken for stale
    /// meanwhile, another one is taken, and everything is looked at again.
    fn secure(&mut self, monitor: &Monitor) -> Result<()> {
        let to = self.to;
        if self.lock.as_ref().is_some_and(LockGuard::is_sound) && crate::gc::still_holds(to, self.looked) {
            return Ok(());
        }
        self.lock = Some(to.lock_within(LockMode::Shared, self.wait, monitor)?);
        self.looked = (to.options.clock)();
        let packs = self.ends.target.index.packs();
        match crate::gc::first_lost(to, packs.into_iter().map(|id| (id, None)), monitor)? {
            None => Ok(()),
            Some(id) => Err(Error::new(
                ErrorKind::Retry,
                format!("pack {id} was removed from {}, or is about to be, since this copy looked at it; no point was confirmed", to.location()),
            )
            .with_hint("run the copy again; this happens when the machine slept during a copy and another program pruned meanwhile")),
        }
    }
}

/// True for errors that say that something stored cannot be had, and nothing of what else can be.
fn is_loss(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Absent | ErrorKind::Io | ErrorKind::Denied)
}

/// Adds to the bytes that were dealt with.
fn advance(monitor: &Monitor, bytes: u64) {
    monitor.counters.bytes.fetch_add(bytes, Relaxed);
}
