//! A store through which nothing can be changed.

use crate::side_of;
use lastgood_model::store::{Capabilities, ObjectKind, SideName, SidePut, SideStore, Store, StoreKey, Swept};
use lastgood_model::{Error, ErrorKind, Id, Result};
use std::time::Duration;

/// Passes reads on and answers every change with [`ErrorKind::Denied`].
#[derive(Clone, Debug)]
pub struct ReadOnlyStore<S>(S);

impl<S: Store> ReadOnlyStore<S> {
    /// Guards `inner`.
    pub fn new(inner: S) -> Self {
        Self(inner)
    }

    fn refuse(&self, act: &str) -> Error {
        Error::new(ErrorKind::Denied, format!("{act} in {}: opened for reading only", self.0.location()))
    }
}

impl<S: Store> Store for ReadOnlyStore<S> {
    fn location(&self) -> String {
        self.0.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn create(&self) -> Result<()> {
        Err(self.refuse("make folders"))
    }

    fn put(&self, key: &StoreKey, _parts: &[&[u8]]) -> Result<()> {
        Err(self.refuse(&format!("write {key}")))
    }

    /// Nothing was put, so nothing is left to do.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        self.0.get(key)
    }

    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        self.0.get_range(key, offset, length, out)
    }

    fn size(&self, key: &StoreKey) -> Result<u64> {
        self.0.size(key)
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        self.0.list(kind)
    }

    fn remove(&self, key: &StoreKey) -> Result<()> {
        Err(self.refuse(&format!("remove {key}")))
    }

    fn sweep(&self, _older_than: Duration) -> Result<Swept> {
        Err(self.refuse("sweep"))
    }

    fn probe(&self) -> Result<()> {
        Err(self.refuse("write"))
    }

    fn fills_up(&self) -> bool {
        self.0.fills_up()
    }

    fn side(&self) -> Option<&dyn SideStore> {
        self.0.side().map(|_| self as &dyn SideStore)
    }
}

impl<S: Store> SideStore for ReadOnlyStore<S> {
    fn put_side(&self, name: &SideName, _bytes: &[u8], _how: SidePut) -> Result<()> {
        Err(self.refuse(&format!("write {name}")))
    }

    fn get_side(&self, name: &SideName) -> Result<Vec<u8>> {
        side_of(&self.0)?.get_side(name)
    }

    fn list_side(&self, folder: &str) -> Result<Vec<(SideName, u64)>> {
        side_of(&self.0)?.list_side(folder)
    }

    fn remove_side(&self, name: &SideName) -> Result<()> {
        Err(self.refuse(&format!("remove {name}")))
    }
}
