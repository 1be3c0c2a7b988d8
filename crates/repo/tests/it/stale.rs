//! A store whose lists show what was there a while ago. What is asked for by its name is never stale.

use lastgood_model::store::{Capabilities, ObjectKind, SideStore, Store, StoreKey};
use lastgood_model::{Id, Result};
use lastgood_stores::MemoryStore;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Its lists, but those of locks, are as they were when [`Self::freeze`] was called, if it was.
pub(crate) struct StaleStore {
    inner: MemoryStore,
    is_stale: bool,
    frozen: Mutex<HashMap<ObjectKind, Vec<(Id, u64)>>>,
    /// Happens before a snapshot is written.
    before_snapshot: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for StaleStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StaleStore")
    }
}

impl StaleStore {
    pub(crate) fn new(inner: &MemoryStore) -> Arc<Self> {
        Self::make(inner, true)
    }

    /// One that is as good as any other, and only tells when a snapshot is to be written.
    pub(crate) fn with_true_lists(inner: &MemoryStore) -> Arc<Self> {
        Self::make(inner, false)
    }

    fn make(inner: &MemoryStore, is_stale: bool) -> Arc<Self> {
        Arc::new(Self { inner: inner.clone(), is_stale, frozen: Mutex::default(), before_snapshot: Mutex::default() })
    }

    pub(crate) fn freeze(&self) {
        let kinds = [ObjectKind::Snapshot, ObjectKind::Index, ObjectKind::Pack];
        *self.frozen.lock().unwrap() = kinds.map(|kind| (kind, self.inner.list(kind).unwrap())).into();
    }

    pub(crate) fn before_snapshot(&self, happening: impl FnOnce() + Send + 'static) {
        *self.before_snapshot.lock().unwrap() = Some(Box::new(happening));
    }
}

impl Store for StaleStore {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities { list_after_write: !self.is_stale, ..self.inner.capabilities() }
    }
    fn create(&self) -> Result<()> {
        self.inner.create()
    }
    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        if key.kind == ObjectKind::Snapshot
            && let Some(happening) = self.before_snapshot.lock().unwrap().take()
        {
            happening();
        }
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
        let frozen = self.frozen.lock().unwrap().get(&kind).cloned();
        frozen.map_or_else(|| self.inner.list(kind), Ok)
    }
    fn remove(&self, key: &StoreKey) -> Result<()> {
        self.inner.remove(key)
    }
    fn side(&self) -> Option<&dyn SideStore> {
        self.inner.side()
    }
}
