//! The last step: snapshot objects, of points that are whole in the target.

use super::walk::{Lost, references};
use super::{CopyReport, Ends, Hold, PointState};
use crate::index::{BlobKind, BlobRef};
use crate::lock::LockMode;
use crate::repository::{Repository, Snapshot, put_unpacked};
use crate::sha256::sha256;
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Context, Error, Id, Monitor, Result, SnapshotId, TreeId};
use std::collections::HashMap;

/// Directories below one another; deeper ones nobody makes.
const DEPTH_MAX: usize = 4096;

/// Tells whole points from others, by walking them once more. Only needed when something was lost.
pub(super) struct Judge<'a> {
    ends: &'a Ends,
    lost: &'a Lost,
    /// Blobs were sent: what the target does not have by now is lost.
    sent: bool,
    /// Why a directory is not whole, or that it is.
    known: HashMap<TreeId, Option<String>>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(ends: &'a Ends, lost: &'a Lost, sent: bool) -> Self {
        Self { ends, lost, sent, known: HashMap::new() }
    }

    /// Why a directory with all below it is not whole; `None` when it is.
    fn look_at(&mut self, tree: TreeId, depth: usize, monitor: &Monitor) -> Result<Option<String>> {
        if let Some(known) = self.known.get(&tree) {
            return Ok(known.clone());
        }
        monitor.check_cancelled()?;
        let reason = self.judge(tree, depth, monitor)?;
        self.known.insert(tree, reason.clone());
        Ok(reason)
    }

    fn judge(&mut self, tree: TreeId, depth: usize, monitor: &Monitor) -> Result<Option<String>> {
        if depth > DEPTH_MAX {
            return Ok(Some(format!("directories lie more than {DEPTH_MAX} deep")));
        }
        if let Some(reason) = self.is_lost(tree.into()) {
            return Ok(Some(reason));
        }
        let json = match self.ends.source.blob(tree).or_else(|error| self.ends.target.blob(tree).map_err(|_| error)) {
            Ok(json) => json,
            Err(error) if super::is_loss(&error) => return Ok(Some(error.chain())),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        if let Err(error) = references(&json, |reference| found.push(reference)) {
            return Ok(Some(error.chain()));
        }
        for reference in found {
            let reason = match reference.kind {
                BlobKind::Data => self.is_lost(reference),
                BlobKind::Tree => self.look_at(TreeId(reference.id), depth + 1, monitor)?,
            };
            if reason.is_some() {
                return Ok(reason);
            }
        }
        Ok(None)
    }

    fn is_lost(&self, blob: BlobRef) -> Option<String> {
        if let Some(reason) = self.lost.get(&blob) {
            return Some(reason.clone());
        }
        let is_there = !self.sent || self.ends.target.index.find(blob).is_some();
        (!is_there).then(|| format!("{} {} could not be read", crate::read::noun(blob.kind), blob.id.short()))
    }
}

/// Says which points could not be sent, as far as that is known without reading them.
pub(super) fn rehearse(
    mut judge: Judge<'_>,
    lacking: &[(usize, Snapshot)],
    mut report: CopyReport,
    monitor: &Monitor,
) -> Result<CopyReport> {
    if !judge.lost.is_empty() {
        for (place, snapshot) in lacking {
            fail(&mut report, *place, judge.look_at(snapshot.file.tree, 0, monitor)?);
        }
    }
    Ok(report)
}

/// Publishes every point that is whole: `judge` tells, and without one all are.
pub(super) fn publish(
    from: &Repository,
    mut hold: Hold<'_>,
    mut judge: Option<Judge<'_>>,
    lacking: &[(usize, Snapshot)],
    mut report: CopyReport,
    monitor: &Monitor,
) -> Result<CopyReport> {
    let to = hold.to;
    hold.secure(monitor)?;
    to.store.sync()?;
    let mut written = Vec::new();
    for (place, snapshot) in lacking {
        if let Some(judge) = &mut judge {
            let reason = judge.look_at(snapshot.file.tree, 0, monitor)?;
            if fail(&mut report, *place, reason) {
                continue;
            }
        }
        let act = || format!("write snapshot {}", snapshot.id.short());
        let id = if report.same_key { move_object(from, to, snapshot) } else { write_anew(to, snapshot) };
        written.push((*place, snapshot, id.with_context(act)?));
    }
    to.store.sync().context("write snapshots")?;
    // The machine may have slept since the last look.
    if let Err(error) = hold.secure(monitor) {
        withdraw(&mut hold, &written, report.same_key, monitor, error)?;
    }
    for (place, snapshot, id) in written {
        let read_back = to.snapshot(id).context("read back snapshot")?;
        if read_back.file.tree != snapshot.file.tree {
            return Err(Error::corrupt("the snapshot read back is not the one written"));
        }
        report.points[place].copy = Some(id);
    }
    Ok(report)
}

/// Takes back snapshot objects that were just written, as far as something of them is gone by now: nobody was told that they
/// are there. Where somebody else can have sent the same point under the same name, and told of it, that is done alone with
/// the repository, or not at all; nor where lists may be stale, and whether they are whole cannot be told. Fails with
/// `error` unless all are whole.
fn withdraw(
    hold: &mut Hold<'_>,
    written: &[(usize, &Snapshot, SnapshotId)],
    is_shared: bool,
    monitor: &Monitor,
    error: Error,
) -> Result<()> {
    let to = hold.to;
    let told = |error: Error, what: String, ids: &[SnapshotId]| {
        let ids: Vec<String> = ids.iter().map(|id| format!("snapshots/{id}")).collect();
        error.with_hint(format!("{what}; run `lastgood copy --mend`, which sends what they lack: {}", ids.join(", ")))
    };
    let can_tell = to.store.capabilities().list_after_write;
    if is_shared {
        hold.lock = None;
        match to.lock_within(LockMode::Exclusive, hold.wait, monitor) {
            Ok(lock) if can_tell => hold.lock = Some(lock),
            _ => {
                let ids: Vec<SnapshotId> = written.iter().map(|(_, _, id)| *id).collect();
                return Err(told(error, "these objects stay and may lack data".into(), &ids));
            }
        }
    }
    let (ends, none) = (Ends::as_they_are(&hold.ends.source_repository, to)?, Lost::new());
    let mut judge = Judge::new(&ends, &none, true);
    let mut broken = Vec::new();
    for (_, snapshot, id) in written {
        if !can_tell || judge.look_at(snapshot.file.tree, 0, monitor)?.is_some() {
            broken.push(*id);
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    let remove = |id: &SnapshotId| to.store.remove(&StoreKey::new(ObjectKind::Snapshot, *id));
    let removed: Result<()> = broken.iter().try_for_each(remove).and_then(|()| to.store.sync());
    Err(match removed {
        Ok(()) => error,
        Err(second) => {
            let what = format!("these objects could not be taken back ({}) and may lack data", second.chain());
            told(error, what, &broken)
        }
    })
}

/// Marks a point as failed when there is a reason; true when there is.
fn fail(report: &mut CopyReport, place: usize, reason: Option<String>) -> bool {
    let Some(reason) = reason else { return false };
    let point = &mut report.points[place];
    (point.state, point.error) = (PointState::Failed, Some(reason));
    true
}

/// The object as it is, under the name it has: then the point has one id in both repositories.
fn move_object(from: &Repository, to: &Repository, snapshot: &Snapshot) -> Result<SnapshotId> {
    let key = StoreKey::new(ObjectKind::Snapshot, snapshot.id);
    let bytes = from.store.get(&key)?;
    if sha256(&bytes) != snapshot.id.0.0 {
        return Err(Error::corrupt(format!("{key} is damaged: its content is not what its name says")));
    }
    to.store.put(&key, &[&bytes])?;
    Ok(snapshot.id)
}

/// A new object, which tells of the first one as restic's copies do. The parent may not be there, and says nothing there.
fn write_anew(to: &Repository, snapshot: &Snapshot) -> Result<SnapshotId> {
    let mut file = snapshot.file.clone();
    file.original = file.original.or(Some(snapshot.id));
    file.parent = None;
    let id: Id = put_unpacked(&*to.store, &to.sealer, ObjectKind::Snapshot, &file.encode()?)?;
    Ok(SnapshotId(id))
}
