//! One story per verb: backup, restore, prove, check, verify, list, find, diff. Each takes an open repository and plain
//! values, reports as data, and prints nothing.

mod originals;
mod restore_notes;

pub mod backup;
pub mod browse;
pub mod copy;
pub mod diff;
pub mod diff_tables;
pub mod drills;
pub mod emptied;
pub mod forget;
pub mod holds;
pub mod points;
pub mod prove;
pub mod restore;
pub mod restore_server;
pub mod saved;
pub mod seen;
pub mod snapshots;
