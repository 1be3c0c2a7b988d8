//! The engine against independent judges.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod check;
mod copy;
mod crash;
mod cuts;
mod far;
mod forge;
mod hostile;
mod locks;
mod prune;
mod repair;
mod restic_trees;
mod retention;
mod rig;
mod session;
mod stale;
