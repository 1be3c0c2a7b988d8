//! What a check or a verification found, in a form that people read and programs parse.

use crate::format::BlobKind;
use crate::index::BlobRef;
use lastgood_model::SnapshotId;
use lastgood_model::store::StoreKey;
use serde::{Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// Sample paths kept for each finding; `paths_total` tells how many there are.
pub const PATHS_MAX: usize = 20;
/// Findings told one by one; what is beyond them is counted and attributed together, as [`DamagedObject::Further`].
pub const DAMAGE_MAX: usize = 10_000;

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DamagedObject {
    /// An object of the store.
    Stored(StoreKey),
    /// A blob that no pack is known to hold.
    Blob(BlobRef),
    /// All that is damaged beside the first [`DAMAGE_MAX`] findings.
    Further,
}

impl fmt::Display for DamagedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored(key) => fmt::Display::fmt(key, f),
            Self::Blob(BlobRef { kind: BlobKind::Data, id }) => write!(f, "data blob {id}"),
            Self::Blob(BlobRef { kind: BlobKind::Tree, id }) => write!(f, "tree blob {id}"),
            Self::Further => f.write_str("further objects"),
        }
    }
}

impl Serialize for DamagedObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is wrong with it. Where several things are, the one that explains most is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DamageKind {
    /// It is referred to and not there.
    Missing,
    /// The store has it but cannot read it.
    Unreadable,
    /// It is shorter than it was written.
    Truncated,
    /// It is longer than it was written.
    TooLong,
    /// Its bytes are not those that its name is the hash of.
    WrongHash,
    /// A pack's own list of its blobs is unusable.
    BadHeader,
    /// A pack's own list of its blobs and the index tell different things.
    IndexMismatch,
    /// Something sealed does not open.
    WrongTag,
    /// It opens, but what is in it is not what it must be.
    BadContent,
    /// A directory of a snapshot opens, but is no valid directory.
    BadTree,
    /// A blob that snapshots need is neither in the index nor in any pack.
    MissingBlob,
    /// A pack that snapshots need is there but in no index.
    Unindexed,
}

/// One damaged object and what it means.
#[derive(Clone, Debug, Serialize)]
pub struct Damage {
    /// What is damaged.
    pub object: DamagedObject,
    /// In which way.
    pub what: DamageKind,
    /// The facts in words.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Every snapshot that cannot be restored in full because of it, oldest first.
    #[serde(serialize_with = "as_list")]
    pub snapshots: Arc<[SnapshotId]>,
    /// Some of the paths in them that are affected, printable; a directory stands for all that is below it.
    pub paths: Vec<String>,
    /// How many such paths there are. What several snapshots share is counted once.
    pub paths_total: u64,
}

fn as_list<S: Serializer>(ids: &[SnapshotId], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ids)
}

impl Damage {
    pub(super) fn new(object: DamagedObject, what: DamageKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { object, what, message, hint: None, snapshots: Arc::default(), paths: Vec::new(), paths_total: 0 }
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// How much there was to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Key objects.
    pub keys: u64,
    /// Snapshots, unreadable ones included.
    pub snapshots: u64,
    /// Index files, unreadable ones included.
    pub index_files: u64,
    /// Packs in the store.
    pub packs: u64,
    /// Bytes of those packs.
    pub bytes_stored: u64,
    /// Different blobs in the index.
    pub blobs: u64,
    /// Directories opened and read.
    pub trees: u64,
    /// Bytes fetched from the store.
    pub bytes_read: u64,
}

/// What [`super::check`] found.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// Always `lastgood.check`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Version of this layout.
    pub schema: u32,
    /// How much there was.
    pub counts: Counts,
    /// What is damaged, in the order of objects.
    pub damage: Vec<Damage>,
    /// How many findings there were, those in [`DamagedObject::Further`] included.
    pub damage_total: u64,
    /// Every snapshot that cannot be restored in full, oldest first.
    pub snapshots_affected: Vec<SnapshotId>,
    /// Worth knowing, but no damage.
    pub notes: Vec<String>,
}

impl CheckReport {
    /// The `type` of these reports.
    pub const TYPE: &'static str = "lastgood.check";
    /// The `schema` of these reports.
    pub const SCHEMA: u32 = 1;

    /// True when nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damage_total == 0
    }
}

/// What [`super::verify`] found.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// Always `lastgood.verify`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Version of this layout.
    pub schema: u32,
    /// How much there was.
    pub counts: Counts,
    /// Packs of which every byte was read, sound or not.
    pub packs_verified: u64,
    /// Bytes of those packs.
    pub bytes_verified: u64,
    /// Blobs in them that were opened, sound or not.
    pub blobs_verified: u64,
    /// Plaintext bytes of the sound ones.
    pub bytes_plain: u64,
    /// How far the ledger says all is verified; absent without a ledger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// What is damaged, in the order of objects.
    pub damage: Vec<Damage>,
    /// How many findings there were, those in [`DamagedObject::Further`] included.
    pub damage_total: u64,
    /// Every snapshot that cannot be restored in full, oldest first.
    pub snapshots_affected: Vec<SnapshotId>,
    /// Worth knowing, but no damage.
    pub notes: Vec<String>,
}

impl VerifyReport {
    /// The `type` of these reports.
    pub const TYPE: &'static str = "lastgood.verify";
    /// The `schema` of these reports.
    pub const SCHEMA: u32 = 1;

    /// True when nothing of what was looked at is damaged.
    pub fn is_sound(&self) -> bool {
        self.damage_total == 0
    }
}

/// How much of a repository was verified, over all runs that share a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Coverage {
    /// Of all bytes in packs, those verified at any time, or for a rolling verification within its period.
    pub covered_percent: f64,
    /// For how long the pack that has waited longest has gone unverified: since it was last verified, or else since it
    /// was first seen.
    pub oldest_unverified_secs: u64,
    /// Packs never verified.
    pub packs_never_verified: u64,
}
