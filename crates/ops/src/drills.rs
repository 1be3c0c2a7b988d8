//! Drills: when a recovery point was restored from a repository and compared, and what came of it.
//!
//! A drill is a note beside the repository's objects, `lastgood/drills/<snapshot id>`: the last one of each point.

use crate::holds::whoami;
use lastgood_model::store::SidePut;
use lastgood_model::{Result, SnapshotId, Time};
use lastgood_repo::Repository;
use lastgood_repo::lock::system_clock;
use serde::{Deserialize, Serialize};

const FOLDER: &str = "drills";

/// One drill as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillNote {
    /// Always `lastgood.drill`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Version of this layout.
    pub schema: u32,
    /// The point that was restored.
    pub snapshot: SnapshotId,
    /// When the comparison had ended.
    pub time: Time,
    /// Everything could be restored, and was as it should be.
    pub passed: bool,
    /// Files compared.
    pub files: u64,
    /// Databases compared.
    pub databases: u64,
    /// What was not as it should be, or could not be tried.
    pub failures: u64,
    /// Who, as `user@host`.
    pub by: String,
}

impl DrillNote {
    /// A drill that has just ended.
    pub fn now(snapshot: SnapshotId, files: u64, databases: u64, failures: u64) -> Self {
        Self {
            kind: "lastgood.drill".to_owned(),
            schema: 1,
            snapshot,
            time: system_clock()(),
            passed: failures == 0,
            files,
            databases,
            failures,
            by: whoami(),
        }
    }
}

/// Takes note of a drill. Where the store has no room for notes, nothing is kept.
pub fn record(repository: &Repository, drill: &DrillNote) -> Result<()> {
    if !repository.takes_notes() {
        return Ok(());
    }
    repository.put_note(FOLDER, &drill.snapshot.to_string(), drill, SidePut::Replace)
}

/// The newest drill that passed. Notes that cannot be read prove nothing, and are passed over.
pub fn newest_passed(repository: &Repository, now: Time) -> Result<Option<DrillNote>> {
    let notes = repository.notes::<DrillNote>(FOLDER, |_, _| ())?;
    let passed = notes.into_iter().map(|(_, drill)| drill).filter(|drill| drill.passed && drill.time <= now);
    Ok(passed.max_by_key(|drill| drill.time))
}
