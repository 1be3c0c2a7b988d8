//! Which points the target has already.
//!
//! A point is the same in two repositories when it has the same id, or the same tree at the same moment: the root of a
//! tree is a hash over everything below it, so that this holds whoever copied it, and whatever tags it got since.

use super::{CopiedPoint, CopyReport, PointState, is_loss};
use crate::repository::{Repository, Snapshot};
use lastgood_model::{ErrorKind, Result, SnapshotId, TreeId};

/// Whether two snapshots, of whichever repositories, stand for the same recovery point.
pub fn is_same_point(a: &Snapshot, b: &Snapshot) -> bool {
    a.id == b.id || a.file.tree == b.file.tree && a.file.time == b.file.time
}

/// Those of `points` that are not among `there`.
pub fn missing_points<'a>(points: &'a [Snapshot], there: &[Snapshot]) -> Vec<&'a Snapshot> {
    points.iter().filter(|point| !there.iter().any(|other| is_same_point(point, other))).collect()
}

/// The roots of those wanted points that the target has already.
pub(super) fn roots_there(from: &Repository, report: &CopyReport) -> Result<Vec<TreeId>> {
    let there = report.points.iter().filter(|point| point.state == PointState::There);
    there.map(|point| from.snapshot(point.snapshot).map(|snapshot| snapshot.file.tree)).collect()
}

/// Looks at one wanted point. When it is to be sent, its snapshot comes along.
pub(super) fn compare(
    from: &Repository,
    id: SnapshotId,
    there: &[Snapshot],
) -> Result<(CopiedPoint, Option<Snapshot>)> {
    let point = |state| CopiedPoint { snapshot: id, time: None, state, copy: None, error: None };
    let snapshot = match from.snapshot(id) {
        Ok(snapshot) => snapshot,
        Err(error) if is_loss(&error) || error.kind() == ErrorKind::Unsupported => {
            return Ok((CopiedPoint { error: Some(error.chain()), ..point(PointState::Failed) }, None));
        }
        Err(error) => return Err(error),
    };
    let time = Some(snapshot.file.time);
    Ok(match there.iter().find(|other| is_same_point(other, &snapshot)) {
        Some(other) => (CopiedPoint { time, copy: Some(other.id), ..point(PointState::There) }, None),
        None => (CopiedPoint { time, ..point(PointState::Sent) }, Some(snapshot)),
    })
}
