//! lastgood as a user meets it: the real program, on a real database and folder, in a home of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod backup;
mod browse;
mod buckets;
mod cluster;
mod config;
mod copies;
mod doctor;
mod endings;
mod forget;
mod keys;
mod lost_index;
mod machine;
mod postgres;
mod processes;
mod protect;
mod prune;
mod remote;
mod restic;
mod restore;
mod status;
mod support;
