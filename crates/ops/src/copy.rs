//! Copy: recovery points of one repository into another. Which points are meant; `repo::copy` moves them.

use crate::snapshots::{app_of, pick};
use lastgood_model::selector::Selector;
use lastgood_model::{Error, Result, SnapshotId};
use lastgood_repo::copy::missing_points;
use lastgood_repo::{Repository, Snapshot};

/// Points that a backup sends along beside its own; more are left to `copy`.
pub const CATCH_UP_MAX: usize = 100;

/// The points that `selectors` name, oldest first; all of them when nothing is named. One that is damaged goes to
/// `damaged`.
///
/// # Errors
/// As [`pick`], when a selector names nothing.
pub fn chosen(
    from: &Repository,
    selectors: &[Selector],
    app: Option<&str>,
    damaged: impl FnMut(SnapshotId, Error),
) -> Result<Vec<SnapshotId>> {
    if selectors.is_empty() {
        return Ok(from.snapshots(damaged)?.into_iter().map(|snapshot| snapshot.id).collect());
    }
    let mut picked = Vec::new();
    for selector in selectors {
        let snapshot = pick(from, selector, app)?;
        if !picked.iter().any(|known: &Snapshot| known.id == snapshot.id) {
            picked.push(snapshot);
        }
    }
    picked.sort_by_key(|snapshot| (snapshot.file.time, snapshot.id));
    Ok(picked.into_iter().map(|snapshot| snapshot.id).collect())
}

/// What a repository lacks that another one has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Points to send, oldest first.
    pub send: Vec<SnapshotId>,
    /// Points that it lacks, too, and that are not sent: all older ones when it is new, and what is too much for one backup.
    /// Those older than its newest are not among them: it may have forgotten them on purpose.
    pub older: usize,
}

/// The points of `app` in `other` that came after the newest of `known`, its own before this run: what it missed. None
/// when it never had one.
///
/// # Errors
/// When `other` cannot be listed.
pub fn since(other: &Repository, known: &[Snapshot], app: &str) -> Result<Vec<SnapshotId>> {
    let of_app = |snapshot: &&Snapshot| app_of(&snapshot.file).as_deref() == Some(app);
    let Some(newest) = known.iter().filter(of_app).map(|snapshot| snapshot.file.time).max() else {
        return Ok(Vec::new());
    };
    let mut theirs = other.snapshots(|_, _| {})?;
    theirs.retain(|snapshot| of_app(&snapshot) && snapshot.file.time > newest);
    let mut missed: Vec<SnapshotId> = missing_points(&theirs, known).into_iter().map(|point| point.id).collect();
    missed.drain(..missed.len().saturating_sub(CATCH_UP_MAX));
    Ok(missed)
}

/// What `to` lacks of the points of `app` in `from`: those that came after its own newest one, while it could not be
/// reached, and whatever is in `new`. Older ones are only counted.
///
/// # Errors
/// When either cannot be listed.
pub fn behind(from: &Repository, to: &Repository, app: &str, new: &[SnapshotId]) -> Result<Behind> {
    let of_app = |snapshot: &Snapshot| app_of(&snapshot.file).as_deref() == Some(app);
    // A damaged point is no business of the one that lacks it; `check` tells of it.
    let mut theirs = from.snapshots(|_, _| {})?;
    theirs.retain(of_app);
    let there = to.snapshots(|_, _| {})?;
    let newest = there.iter().filter(|snapshot| of_app(snapshot)).map(|snapshot| snapshot.file.time).max();
    let missing = missing_points(&theirs, &there);
    let is_due = |point: &&&Snapshot| newest.is_some_and(|newest| point.file.time > newest) || new.contains(&point.id);
    let mut send: Vec<SnapshotId> = missing.iter().filter(is_due).map(|point| point.id).collect();
    let due = if newest.is_some() { send.len() } else { missing.len() };
    // The newest matter most.
    send.drain(..send.len().saturating_sub(CATCH_UP_MAX));
    Ok(Behind { older: due - send.len(), send })
}
