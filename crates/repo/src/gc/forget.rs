//! Forgetting a recovery point: its snapshot object goes, and nothing else. The data that only it needed is freed by a
//! prune, which looks at what the remaining snapshots need.

use crate::lock::LockGuard;
use crate::repository::Repository;
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Context, Result, SnapshotId};

impl Repository {
    /// Removes a snapshot object, durably on return. One that is gone already is no error. The lock, of any mode, keeps
    /// a prune of others away meanwhile.
    ///
    /// Who calls this has made sure that a good point remains, and has noted what goes ([`Repository::put_note`]).
    ///
    /// # Errors
    /// [`lastgood_model::ErrorKind::Denied`] from a store that only takes additions, [`lastgood_model::ErrorKind::Held`]
    /// while the store itself keeps the object. It is there then.
    pub fn forget_snapshot(&self, _lock: &LockGuard, id: SnapshotId) -> Result<()> {
        let act = || format!("remove snapshot {}", id.short());
        self.store.remove(&StoreKey::new(ObjectKind::Snapshot, id)).with_context(act)?;
        self.store.sync().with_context(act)
    }
}
