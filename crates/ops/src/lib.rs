//! One story per verb: backup, restore, prove, check, verify, list, find, diff. Each takes an open repository and plain
//! values, reports as data, and prints nothing.

pub mod backup;
pub mod browse;
pub mod diff;
pub mod diff_tables;
pub mod emptied;
mod originals;
pub mod prove;
pub mod restore;
mod restore_notes;
pub mod restore_server;
pub mod saved;
pub mod snapshots;
