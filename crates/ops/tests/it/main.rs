//! Whole operations, through real sources, stores and file systems.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod backup;
mod browse;
mod emptied;
mod faults;
#[path = "../../../repo/tests/it/forge.rs"]
mod forge;
mod forget;
mod full_disk;
mod hostile;
mod interop;
mod meddle;
mod postgres;
mod prove;
mod restore;
mod resume;
mod rig;
mod saved;
mod sidecars;
