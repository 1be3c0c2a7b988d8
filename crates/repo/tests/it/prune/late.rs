//! What happens during a sleep: at one call to the store, everything else in the world goes on first.

use crate::rig::Rig;
use lastgood_model::store::{Capabilities, ObjectKind, SideName, SidePut, SideStore, Store, StoreKey};
use lastgood_model::{Id, Result};
use lastgood_stores::{MemoryStore, Op};
use std::sync::{Arc, Mutex};

/// Whoever finds a lock that nobody refreshed clears it away.
pub(super) fn lose_locks(rig: &Rig) {
    for key in rig.keys_of(ObjectKind::Lock) {
        rig.store.remove(&key).unwrap();
    }
}

type Happening = Box<dyn FnOnce() + Send>;

/// Something happens just before the first call of one sort.
pub(super) struct AsLateAs {
    inner: MemoryStore,
    call: (Op, ObjectKind),
    late: Mutex<Option<Happening>>,
}

impl AsLateAs {
    pub(super) fn new(
        store: &MemoryStore,
        op: Op,
        kind: ObjectKind,
        happening: impl FnOnce() + Send + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { inner: store.clone(), call: (op, kind), late: Mutex::new(Some(Box::new(happening))) })
    }

    /// What is to happen before the next listing beside the repository's own objects, once [`Self::arm`] told what.
    pub(super) fn list_side(store: &MemoryStore) -> Arc<Self> {
        Arc::new(Self { inner: store.clone(), call: (Op::ListSide, ObjectKind::Config), late: Mutex::new(None) })
    }

    pub(super) fn arm(&self, happening: impl FnOnce() + Send + 'static) {
        *self.late.lock().unwrap() = Some(Box::new(happening));
    }

    fn before(&self, op: Op, key: &StoreKey) {
        if (op, key.kind) != self.call {
            return;
        }
        let late = self.late.lock().unwrap().take();
        if let Some(late) = late {
            late();
        }
    }
}

impl std::fmt::Debug for AsLateAs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AsLateAs")
    }
}

impl Store for AsLateAs {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn create(&self) -> Result<()> {
        self.inner.create()
    }
    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        self.before(Op::Put, key);
        self.inner.put(key, parts)
    }
    fn sync(&self) -> Result<()> {
        self.inner.sync()
    }
    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        self.inner.get(key)
    }
    fn get_range(&self, key: &StoreKey, at: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        self.inner.get_range(key, at, length, out)
    }
    fn size(&self, key: &StoreKey) -> Result<u64> {
        self.inner.size(key)
    }
    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        self.inner.list(kind)
    }
    fn remove(&self, key: &StoreKey) -> Result<()> {
        self.before(Op::Remove, key);
        self.inner.remove(key)
    }
    fn side(&self) -> Option<&dyn SideStore> {
        Some(self)
    }
}

impl SideStore for AsLateAs {
    fn put_side(&self, name: &SideName, bytes: &[u8], how: SidePut) -> Result<()> {
        self.inner.put_side(name, bytes, how)
    }
    fn get_side(&self, name: &SideName) -> Result<Vec<u8>> {
        self.inner.get_side(name)
    }
    fn list_side(&self, folder: &str) -> Result<Vec<(SideName, u64)>> {
        self.before(Op::ListSide, &StoreKey::CONFIG);
        self.inner.list_side(folder)
    }
    fn remove_side(&self, name: &SideName) -> Result<()> {
        self.inner.remove_side(name)
    }
}
