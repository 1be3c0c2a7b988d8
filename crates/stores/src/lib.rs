//! Where a repository's bytes are kept, and what can be wrapped around such a place.
//!
//! A store promises what [`lastgood_model::store::Store`] says and nothing about what the bytes mean. Wrappers add one
//! behaviour each and are stores themselves, so they stack in any order: [`RetryStore`] outlasts passing trouble,
//! [`RecordStore`] counts calls, [`LimitStore`] keeps within a rate, [`DeadlineStore`] gives up what hangs,
//! [`ReadOnlyStore`] refuses changes, [`FaultStore`] breaks on purpose for tests.

mod access;
#[cfg_attr(
    not(any(feature = "object", feature = "rest", feature = "sftp")),
    allow(dead_code, reason = "nobody awaits in such a build")
)]
mod bridge;
mod deadline;
mod fault;
mod limit;
mod local;
mod location;
mod memory;
mod mounts;
#[cfg(feature = "object")]
mod object;
mod op;
#[cfg(feature = "planted-bugs")]
pub mod planted;
mod read_only;
mod record;
#[cfg(feature = "rest")]
mod rest;
mod retry;
#[cfg(feature = "sftp")]
mod sftp;
#[cfg(any(feature = "rest", feature = "sftp"))]
mod together;

pub use access::{Access, LockMode, ObjectLock, Secret, Secrets, Timeouts};
pub use deadline::DeadlineStore;
pub use fault::{Fault, FaultStore};
pub use limit::{LimitStore, Rates};
pub use local::LocalStore;
pub use location::{Location, ObjectPlace, Service, Style, open_url, parse_location};
pub use memory::MemoryStore;
pub use mounts::Mount;
#[cfg(feature = "object")]
pub use object::CapabilityRecord;
pub use op::Op;
pub use read_only::ReadOnlyStore;
pub use record::{Call, Count, Counts, Meter, RecordStore};
#[cfg(feature = "rest")]
pub use rest::{RestPlace, RestStore};
pub use retry::{Pace, RetryPolicy, RetryStore, SystemPace};
#[cfg(feature = "sftp")]
pub use sftp::{SftpPlace, SftpStore, Transport};

use lastgood_model::store::{SideStore, Store};
use lastgood_model::{Error, ErrorKind, Result};
use std::sync::{Mutex, MutexGuard};

/// Locks for a short section. A panic elsewhere cannot leave our state half-changed: no section calls out.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What is beside the repository's objects in the store below a wrapper, which asked before whether there is any.
fn side_of(store: &impl Store) -> Result<&dyn SideStore> {
    store.side().ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, format!("{} takes no objects beside a repository's own", store.location()))
    })
}

/// The bytes of all parts together.
fn length_of(parts: &[&[u8]]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}
