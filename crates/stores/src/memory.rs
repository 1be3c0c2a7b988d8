//! A store in memory, for tests and for trying things out. Nothing outlives the process.

use crate::{length_of, lock};
use lastgood_model::store::{Capabilities, ObjectKind, SideName, SidePut, SideStore, Store, StoreKey};
use lastgood_model::{Error, ErrorKind, Id, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

/// Objects in memory. A clone shares them; a [`fork`](Self::fork) goes its own way.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Inner>>);

#[derive(Clone, Default)]
struct Inner {
    objects: BTreeMap<StoreKey, Arc<Vec<u8>>>,
    side: BTreeMap<SideName, Vec<u8>>,
    /// Sum of all lengths in `objects` and `side`.
    used_bytes: u64,
    quota_bytes: Option<u64>,
}

impl MemoryStore {
    /// An empty store without a quota.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that holds at most `bytes`.
    pub fn with_quota(bytes: u64) -> Self {
        let store = Self::new();
        store.set_quota(Some(bytes));
        store
    }

    /// From now on holds at most so many bytes; what is there stays.
    pub fn set_quota(&self, bytes: Option<u64>) {
        lock(&self.0).quota_bytes = bytes;
    }

    /// Bytes of all objects together.
    pub fn used_bytes(&self) -> u64 {
        lock(&self.0).used_bytes
    }

    /// The names of all objects, in order.
    pub fn keys(&self) -> Vec<StoreKey> {
        lock(&self.0).objects.keys().copied().collect()
    }

    /// A store that begins with the same objects and shares nothing afterwards: the state at this moment.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(lock(&self.0).clone())))
    }

    /// Changes an object's bytes under its unchanged name, as a failing disk would. [`ErrorKind::Absent`] when there is
    /// none.
    pub fn damage(&self, key: &StoreKey, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut bytes = self.get(key)?;
        change(&mut bytes);
        lock(&self.0).set(*key, bytes);
        Ok(())
    }

    fn object(&self, key: &StoreKey) -> Result<Arc<Vec<u8>>> {
        let object = lock(&self.0).objects.get(key).cloned();
        object.ok_or_else(|| Error::new(ErrorKind::Absent, format!("{key} is not in memory")))
    }
}

impl Inner {
    fn set(&mut self, key: StoreKey, bytes: Vec<u8>) {
        self.used_bytes += bytes.len() as u64;
        if let Some(old) = self.objects.insert(key, Arc::new(bytes)) {
            self.used_bytes -= old.len() as u64;
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = lock(&self.0);
        write!(f, "MemoryStore({} objects, {} bytes)", inner.objects.len(), inner.used_bytes)
    }
}

impl Store for MemoryStore {
    fn location(&self) -> String {
        "memory:".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { connections: 4, coalesce_gap_bytes: 4096, exclusive_create: true, list_after_write: true }
    }

    fn create(&self) -> Result<()> {
        Ok(())
    }

    /// As in a local folder, an object of another length under the same name is replaced.
    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        let length = length_of(parts);
        let mut inner = lock(&self.0);
        let replaced = match inner.objects.get(key) {
            Some(_) if key.kind == ObjectKind::Config => {
                return Err(Error::new(ErrorKind::Conflict, "config is in memory already"));
            }
            Some(old) if old.len() as u64 == length => return Ok(()),
            Some(old) => old.len() as u64,
            None => 0,
        };
        if inner.quota_bytes.is_some_and(|quota| inner.used_bytes - replaced + length > quota) {
            return Err(Error::new(ErrorKind::NoSpace, format!("write {key}: the quota in memory is used up")));
        }
        inner.set(*key, parts.concat());
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        Ok(self.object(key)?.to_vec())
    }

    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let object = self.object(key)?;
        let range = usize::try_from(offset).ok().and_then(|from| object.get(from..from.checked_add(length)?));
        let Some(range) = range else {
            return Err(Error::corrupt(format!(
                "{key} is {} bytes, shorter than the {} needed",
                object.len(),
                u128::from(offset) + length as u128
            )));
        };
        out.extend_from_slice(range);
        Ok(())
    }

    fn size(&self, key: &StoreKey) -> Result<u64> {
        Ok(self.object(key)?.len() as u64)
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        let inner = lock(&self.0);
        let of_kind = inner.objects.iter().filter(|(key, _)| key.kind == kind);
        Ok(of_kind.map(|(key, bytes)| (key.id, bytes.len() as u64)).collect())
    }

    fn remove(&self, key: &StoreKey) -> Result<()> {
        let mut inner = lock(&self.0);
        if let Some(old) = inner.objects.remove(key) {
            inner.used_bytes -= old.len() as u64;
        }
        Ok(())
    }

    fn fills_up(&self) -> bool {
        true
    }

    fn side(&self) -> Option<&dyn SideStore> {
        Some(self)
    }
}

impl SideStore for MemoryStore {
    fn put_side(&self, name: &SideName, bytes: &[u8], how: SidePut) -> Result<()> {
        let mut inner = lock(&self.0);
        let replaced = match inner.side.get(name) {
            Some(_) if how == SidePut::Create => {
                return Err(Error::new(ErrorKind::Conflict, format!("{name} is in memory already")));
            }
            old => old.map_or(0, Vec::len) as u64,
        };
        let used = inner.used_bytes - replaced + bytes.len() as u64;
        if inner.quota_bytes.is_some_and(|quota| used > quota) {
            return Err(Error::new(ErrorKind::NoSpace, format!("write {name}: the quota in memory is used up")));
        }
        inner.used_bytes = used;
        inner.side.insert(name.clone(), bytes.to_vec());
        Ok(())
    }

    fn get_side(&self, name: &SideName) -> Result<Vec<u8>> {
        let found = lock(&self.0).side.get(name).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::Absent, format!("{name} is not in memory")))
    }

    fn list_side(&self, folder: &str) -> Result<Vec<(SideName, u64)>> {
        let inner = lock(&self.0);
        let in_folder = inner.side.iter().filter(|(name, _)| name.folder() == folder);
        Ok(in_folder.map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect())
    }

    fn remove_side(&self, name: &SideName) -> Result<()> {
        let mut inner = lock(&self.0);
        if let Some(old) = inner.side.remove(name) {
            inner.used_bytes -= old.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(n: u8) -> StoreKey {
        StoreKey::new(ObjectKind::Pack, Id([n; 32]))
    }

    #[test]
    fn a_quota_refuses_what_does_not_fit_and_takes_what_does() {
        let store = MemoryStore::with_quota(10);
        store.put(&pack(1), &[b"123456"]).unwrap();
        assert_eq!(store.put(&pack(2), &[b"12345"]).unwrap_err().kind(), ErrorKind::NoSpace);
        assert_eq!(store.get(&pack(2)).unwrap_err().kind(), ErrorKind::Absent);
        store.put(&pack(1), &[b"123456"]).unwrap();
        store.put(&pack(2), &[b"1234"]).unwrap();
        assert_eq!(store.used_bytes(), 10);
        store.remove(&pack(1)).unwrap();
        store.put(&pack(3), &[b"123456"]).unwrap();
    }

    #[test]
    fn a_clone_shares_and_a_fork_does_not() {
        let store = MemoryStore::new();
        let (clone, fork) = (store.clone(), store.fork());
        store.put(&pack(1), &[b"x"]).unwrap();
        assert_eq!(clone.keys(), [pack(1)]);
        assert_eq!(fork.keys(), []);
    }

    #[test]
    fn damage_changes_bytes_under_an_unchanged_name() {
        let store = MemoryStore::new();
        store.put(&pack(1), &[b"whole"]).unwrap();
        let fork = store.fork();
        store.damage(&pack(1), |bytes| bytes.truncate(2)).unwrap();
        assert_eq!(store.get(&pack(1)).unwrap(), b"wh");
        assert_eq!(store.used_bytes(), 2);
        assert_eq!(fork.get(&pack(1)).unwrap(), b"whole");
        assert_eq!(store.damage(&pack(2), |_| ()).unwrap_err().kind(), ErrorKind::Absent);
    }
}
