//! Repairs. Each only ever adds: index files, packs, recovery points. What was there stays as it was, damaged or not, and
//! `prune` clears away what nobody needs once something sound has taken its place. What cannot be saved is named.

mod packs;
mod snapshots;

pub use packs::{PackRepair, PacksReport, packs};
pub use snapshots::{SnapshotRepair, SnapshotsReport, snapshots};

use crate::lock::LockMode;
use crate::repository::Repository;
use crate::session::leftovers::Found;
use lastgood_model::{Monitor, PackId, Result};
use serde::Serialize;
use std::time::Duration;

/// Something that could not be saved, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Unsaved {
    /// The object or blob.
    pub object: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What came of listing packs anew.
#[derive(Clone, Debug, Serialize)]
pub struct IndexReport {
    /// Always `lastgood.repair-index`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Version of this layout.
    pub schema: u32,
    /// Packs that no readable index file listed and one lists now.
    pub packs_listed: Vec<PackId>,
    /// True when an index file was damaged or gone.
    pub index_was_lost: bool,
    /// Packs that no index file lists and whose own lists cannot be read.
    pub unsaved: Vec<Unsaved>,
}

/// Lists packs that no readable index file lists by what their own headers tell. No index file is removed.
///
/// # Errors
/// [`lastgood_model::ErrorKind::Locked`] while somebody deletes; whatever keeps the store from answering.
pub fn index(repository: &Repository, monitor: &Monitor, lock_wait: Duration) -> Result<IndexReport> {
    let lock = repository.lock_within(LockMode::Shared, lock_wait, monitor)?;
    let snapshots = repository.snapshots(|_, _| ())?;
    let (index, present) = repository.load_index_of_present_packs()?;
    let found = Found {
        repository,
        index: &index,
        present: &present,
        snapshots: &snapshots,
        locks: lock.findings,
        dry_run: false,
        all: true,
    };
    let adopted = found.adopt()?;
    let unsaved = adopted.passed_over.into_iter();
    Ok(IndexReport {
        kind: "lastgood.repair-index",
        schema: 1,
        packs_listed: adopted.packs.into_iter().map(|(id, _)| id).collect(),
        index_was_lost: adopted.index_was_lost,
        unsaved: unsaved.map(|(pack, reason)| Unsaved { object: format!("pack {pack}"), reason }).collect(),
    })
}
