//! Holds: recovery points that no rule and no name removes, with a reason and, where wanted, an end.
//!
//! A hold is a note beside the repository's objects, `lastgood/holds/<snapshot id>`. Only lastgood heeds it: who forgets
//! with another program, or removes objects by hand, is not held back.

use lastgood_model::retention::Hold;
use lastgood_model::store::SidePut;
use lastgood_model::{Error, ErrorKind, Result, SnapshotId, Time};
use lastgood_repo::Repository;
use lastgood_repo::lock::{hostname, system_clock};
use serde::{Deserialize, Serialize};

const FOLDER: &str = "holds";

/// One hold as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldNote {
    /// Always `lastgood.hold`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Version of this layout.
    pub schema: u32,
    /// The point that is held.
    pub snapshot: SnapshotId,
    /// Why.
    pub reason: String,
    /// Until when; for good when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Since when.
    pub since: Time,
    /// Who, as `user@host`.
    pub by: String,
}

impl HoldNote {
    /// As retention takes it.
    pub fn for_retention(&self) -> Hold {
        Hold { snapshot: self.snapshot, reason: self.reason.clone(), until: self.until }
    }
}

/// Who runs this, as `user@host`.
pub fn whoami() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let user = user.unwrap_or_else(|_| format!("uid {}", rustix::process::getuid().as_raw()));
    format!("{user}@{}", hostname())
}

/// Holds a point. A hold that is on it already is replaced and given back.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where the store has no room for holds.
pub fn add(
    repository: &Repository,
    snapshot: SnapshotId,
    reason: &str,
    until: Option<Time>,
) -> Result<(HoldNote, Option<HoldNote>)> {
    let before = match repository.note::<HoldNote>(FOLDER, &snapshot.to_string()) {
        Ok(before) => Some(before),
        // A damaged one holds as well as none can; this one takes its place.
        Err(error) if matches!(error.kind(), ErrorKind::Absent | ErrorKind::Corrupt) => None,
        Err(error) => return Err(error),
    };
    let hold = HoldNote {
        kind: "lastgood.hold".to_owned(),
        schema: 1,
        snapshot,
        reason: reason.to_owned(),
        until,
        since: system_clock()(),
        by: whoami(),
    };
    repository.put_note(FOLDER, &snapshot.to_string(), &hold, SidePut::Replace)?;
    Ok((hold, before))
}

/// All holds, by point.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when one cannot be read: what it holds must not be taken for free.
pub fn list(repository: &Repository) -> Result<Vec<HoldNote>> {
    let mut broken = None;
    let notes = repository.notes::<HoldNote>(FOLDER, |name, error| broken = Some((name.to_owned(), error)))?;
    if let Some((name, error)) = broken {
        return Err(error.context(format!("a hold on {name} cannot be read")).with_hint(format!(
            "`lastgood hold add {} --reason TEXT` puts a new one in its place, `lastgood hold remove {}` lifts it",
            &name[..name.len().min(12)],
            &name[..name.len().min(12)],
        )));
    }
    notes
        .into_iter()
        .map(|(name, hold)| match hold.snapshot.to_string() == name {
            true => Ok(hold),
            false => Err(Error::corrupt(format!("the hold {name} is on {} by its own words", hold.snapshot.short()))),
        })
        .collect()
}

/// Lifts the hold on a point; true when there was one.
pub fn remove(repository: &Repository, snapshot: SnapshotId) -> Result<bool> {
    let name = snapshot.to_string();
    match repository.note::<serde_json::Value>(FOLDER, &name) {
        Err(error) if error.kind() == ErrorKind::Absent => return Ok(false),
        Err(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
        _ => {}
    }
    repository.remove_note(FOLDER, &name)?;
    Ok(true)
}
