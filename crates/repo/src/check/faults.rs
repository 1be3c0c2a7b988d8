//! Which places of the repository cannot be read, and which finding says why.

use super::findings::lock;
use crate::index::Location;
use lastgood_model::TreeId;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The blobs of one pack that cannot be read.
#[derive(Debug)]
pub(super) enum Extent {
    /// All of them.
    Whole,
    /// Those at these offsets.
    Blobs(HashSet<u32>),
}

/// What is known to be unreadable; filled in from several threads, then looked up.
#[derive(Debug, Default)]
pub(super) struct Faults {
    packs: Mutex<HashMap<u32, (u32, Extent)>>,
    bad_trees: Mutex<HashMap<u64, (TreeId, String)>>,
    dangling: AtomicBool,
}

impl Faults {
    pub(super) fn lose(&self, ordinal: u32, finding: u32, extent: Extent) {
        lock(&self.packs).insert(ordinal, (finding, extent));
    }

    /// A tree that opens but is no valid tree. Only if a snapshot needs it is that damage.
    pub(super) fn bad_tree(&self, place: u64, id: TreeId, why: String) {
        lock(&self.bad_trees).insert(place, (id, why));
    }

    /// Something refers to a blob that is not in the index. Only if a snapshot needs it is that damage: what an earlier
    /// removal of old snapshots left may refer to what it removed.
    pub(super) fn dangle(&self) {
        self.dangling.store(true, Relaxed);
    }

    pub(super) fn is_dangling(&self) -> bool {
        self.dangling.load(Relaxed)
    }

    /// True when anything here could concern a snapshot.
    pub(super) fn matter(&self) -> bool {
        self.is_dangling() || !lock(&self.packs).is_empty() || !lock(&self.bad_trees).is_empty()
    }

    /// The finding that makes the blob at `location` unreadable.
    pub(super) fn at(&self, location: &Location) -> Option<u32> {
        let packs = lock(&self.packs);
        let (finding, extent) = packs.get(&location.pack)?;
        match extent {
            Extent::Whole => Some(*finding),
            Extent::Blobs(offsets) => offsets.contains(&location.offset).then_some(*finding),
        }
    }

    pub(super) fn take_bad_tree(&self, place: u64) -> Option<(TreeId, String)> {
        lock(&self.bad_trees).remove(&place)
    }

    pub(super) fn bad_trees_left(&self) -> usize {
        lock(&self.bad_trees).len()
    }
}

/// A place in the repository as one number.
pub(super) fn place(ordinal: u32, offset: u32) -> u64 {
    u64::from(ordinal) << 32 | u64::from(offset)
}
