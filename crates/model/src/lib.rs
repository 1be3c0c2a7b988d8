//! The vocabulary of lastgood and its pure decisions: ids, nodes, manifests, selectors, error kinds, and the
//! seams between the crates. Nothing here does I/O, starts a thread or reads a clock.

pub mod error;
pub mod id;
pub mod manifest;
pub mod monitor;
pub mod node;
pub mod retention;
pub mod saved;
pub mod selector;
pub mod source;
pub mod status;
pub mod store;
pub mod time;

pub use error::{Context, Error, ErrorKind, Result};
pub use id::{BlobId, Id, IndexId, KeyId, LockId, PackId, SnapshotId, TreeId};
pub use monitor::{Counters, Monitor};
pub use node::{Node, NodeKind, Xattr};
pub use time::Time;
