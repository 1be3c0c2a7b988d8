//! The repository engine: restic's repository format, version 2, written and read at the speed of the machine.
//!
//! This crate alone knows the on-disk format. It stores through [`lastgood_model::store::Store`] and is fed through
//! [`lastgood_model::source::Sink`]; it knows no database and no cloud.

pub mod check;
pub mod chunk;
pub mod copy;
pub mod crypto;
pub mod format;
pub mod gc;
pub mod index;
mod index_files;
pub mod lock;
mod notes;
pub mod pipe;
#[doc(hidden)]
pub mod planted;
pub mod read;
pub mod repair;
pub mod repository;
pub mod session;
pub mod sha256;
mod work;

pub use lock::{LockGuard, LockMode};
pub use pipe::Compression;
pub use read::{BlobReader, Fetch, FetchRequest};
pub use repository::{OpenOptions, Repository, Snapshot};
pub use session::{PublishSpec, Published, Session, SessionOptions, SourceSink};
