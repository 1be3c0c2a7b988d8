//! Mistakes that can be planted on purpose.
//!
//! The campaign that tries broken networks (`cargo xtask proof net`) must find each of these, so that finding nothing means
//! something. They can be planted only where the feature `planted-bugs` was asked for, which nothing that is shipped does.

use crate::{Access, side_of};
use lastgood_model::store::{Capabilities, ObjectKind, SideName, SidePut, SideStore, Store, StoreKey, Swept};
use lastgood_model::{Error, ErrorKind, Id, Result};
use std::sync::Arc;
use std::time::Duration;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// No call is ever given up.
    NoDeadline,
    /// An answer that breaks off is taken for a whole one.
    TrustShortBody,
    /// A write whose answer did not come is told as done.
    LostWriteIsDone,
    /// What goes wrong is told together with the credentials that were used.
    TellSecrets,
}

impl Planted {
    /// All of them, with the names by which they are asked for.
    pub const ALL: [(&'static str, Self); 4] = [
        ("no-deadline", Self::NoDeadline),
        ("trust-short-body", Self::TrustShortBody),
        ("lost-write-is-done", Self::LostWriteIsDone),
        ("tell-secrets", Self::TellSecrets),
    ];
}

/// What a store is opened with when this mistake is made.
pub(crate) fn access(access: &Access) -> Access {
    let mut access = access.clone();
    if access.planted == Some(Planted::NoDeadline) {
        let never = Duration::from_secs(86_400);
        access.timeouts = crate::Timeouts { connect: never, idle: never, slowest_bytes_per_second: 1 };
    }
    access
}

/// The store as it is when this mistake is made.
pub(crate) fn wrap(store: Arc<dyn Store>, access: &Access) -> Arc<dyn Store> {
    match access.planted {
        Some(Planted::LostWriteIsDone | Planted::TellSecrets) => {
            Arc::new(Careless { inner: store, access: access.clone() })
        }
        _ => store,
    }
}

/// A store that makes one of the mistakes.
#[derive(Debug)]
struct Careless {
    inner: Arc<dyn Store>,
    access: Access,
}

impl Careless {
    fn told<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match self.access.planted {
            Some(Planted::TellSecrets) => {
                let names = Access::NAMES.iter().filter_map(|name| self.access.secret(name).ok().flatten());
                let secrets: Vec<String> = names.map(|secret| secret.to_string()).collect();
                error.context(format!("with {secrets:?}"))
            }
            _ => error,
        })
    }

    fn is_done(&self, error: &Error) -> bool {
        self.access.planted == Some(Planted::LostWriteIsDone) && error.kind() == ErrorKind::Retry
    }
}

impl Store for Careless {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn create(&self) -> Result<()> {
        self.told(self.inner.create())
    }
    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        match self.inner.put(key, parts) {
            Err(error) if self.is_done(&error) => Ok(()),
            other => self.told(other),
        }
    }
    fn sync(&self) -> Result<()> {
        self.told(self.inner.sync())
    }
    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        self.told(self.inner.get(key))
    }
    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        self.told(self.inner.get_range(key, offset, length, out))
    }
    fn size(&self, key: &StoreKey) -> Result<u64> {
        self.told(self.inner.size(key))
    }
    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        self.told(self.inner.list(kind))
    }
    fn remove(&self, key: &StoreKey) -> Result<()> {
        self.told(self.inner.remove(key))
    }
    fn sweep(&self, older_than: Duration) -> Result<Swept> {
        self.told(self.inner.sweep(older_than))
    }
    fn probe(&self) -> Result<()> {
        self.told(self.inner.probe())
    }
    fn fills_up(&self) -> bool {
        self.inner.fills_up()
    }
    fn side(&self) -> Option<&dyn SideStore> {
        self.inner.side().map(|_| self as &dyn SideStore)
    }
}

impl SideStore for Careless {
    fn put_side(&self, name: &SideName, bytes: &[u8], how: SidePut) -> Result<()> {
        self.told(side_of(&self.inner)?.put_side(name, bytes, how))
    }
    fn get_side(&self, name: &SideName) -> Result<Vec<u8>> {
        self.told(side_of(&self.inner)?.get_side(name))
    }
    fn list_side(&self, folder: &str) -> Result<Vec<(SideName, u64)>> {
        self.told(side_of(&self.inner)?.list_side(folder))
    }
    fn remove_side(&self, name: &SideName) -> Result<()> {
        self.told(side_of(&self.inner)?.remove_side(name))
    }
}
