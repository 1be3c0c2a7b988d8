//! What a prune did, or would do.

use lastgood_model::PackId;
use serde::Serialize;

/// What came of a prune.
#[derive(Clone, Debug, Serialize)]
pub struct PruneReport {
    /// [`Self::TYPE`].
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// [`Self::SCHEMA`].
    pub schema: u32,
    /// True when nothing was changed.
    pub dry_run: bool,
    /// True when only what an earlier run had decided was carried on.
    pub resumed: bool,
    /// Recovery points that were followed.
    pub snapshots: u64,
    /// Packs that were there.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that recovery points need.
    pub bytes_used: u64,
    /// Bytes that were there and not needed.
    pub bytes_unused: u64,
    /// Packs that were removed, or would be.
    pub packs_removed: u64,
    /// Their bytes.
    pub bytes_removed: u64,
    /// Packs out of which what is needed was moved, or would be; they are among those removed.
    pub packs_repacked: u64,
    /// Bytes that were moved, or would be.
    pub bytes_moved: u64,
    /// Bytes that are not needed and stay: moving what is beside them is not worth it, or the budget was spent.
    pub bytes_unused_left: u64,
    /// Doomed packs that a recovery point made meanwhile needs, so that they stay.
    pub packs_rescued: u64,
    /// True when the time was up before all was moved.
    pub out_of_time: bool,
    /// What waits for somebody else to end.
    pub deferred: Option<Deferred>,
    /// Packs that the store holds until a date; a later prune removes them.
    pub packs_held: u64,
    /// Their bytes.
    pub bytes_held: u64,
    /// What the store says about them, with the date if it tells one.
    pub held: Option<String>,
    /// Packs that stay because something is wrong with them.
    pub kept: Vec<KeptPack>,
}

/// A removal that waits.
#[derive(Clone, Debug, Serialize)]
pub struct Deferred {
    /// Packs that will be removed.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Who is waited for, or what.
    pub reason: String,
}

/// A pack that was not touched.
#[derive(Clone, Debug, Serialize)]
pub struct KeptPack {
    /// Its name.
    pub pack: PackId,
    /// Why.
    pub reason: String,
}

impl PruneReport {
    /// What its JSON begins with.
    pub const TYPE: &'static str = "lastgood.prune";
    /// Its version.
    pub const SCHEMA: u32 = 1;

    pub(super) fn new(dry_run: bool) -> Self {
        Self {
            kind: Self::TYPE,
            schema: Self::SCHEMA,
            dry_run,
            resumed: false,
            snapshots: 0,
            packs: 0,
            bytes: 0,
            bytes_used: 0,
            bytes_unused: 0,
            packs_removed: 0,
            bytes_removed: 0,
            packs_repacked: 0,
            bytes_moved: 0,
            bytes_unused_left: 0,
            packs_rescued: 0,
            out_of_time: false,
            deferred: None,
            packs_held: 0,
            bytes_held: 0,
            held: None,
            kept: Vec::new(),
        }
    }

    pub(super) fn keep(&mut self, pack: PackId, reason: impl Into<String>) {
        if !self.kept.iter().any(|kept| kept.pack == pack) {
            self.kept.push(KeptPack { pack, reason: reason.into() });
        }
    }
}
