//! What the sources promise, shown on real files, processes and servers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod postgres;
mod sqlite;
