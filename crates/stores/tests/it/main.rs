//! Stores against the contract, the file system, and faults.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod faults;
mod local;
mod model;
mod mounts;
#[cfg(feature = "s3")]
mod net;
#[cfg(feature = "s3")]
mod object;
#[cfg(feature = "rest")]
mod rest;
#[cfg(feature = "rest")]
mod scripted;
#[cfg(feature = "sftp")]
mod sftp;
#[cfg(feature = "sftp")]
mod stalling;
mod suite;

use lastgood_model::Id;
use lastgood_model::store::{ObjectKind, StoreKey};

fn pack(n: u8) -> StoreKey {
    StoreKey::new(ObjectKind::Pack, Id([n; 32]))
}
