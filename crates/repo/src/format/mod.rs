//! The repository's file formats as types and codecs: restic's repository format, version 2. Nothing here does I/O,
//! seals or compresses; everything read is taken for hostile until it was checked, and everything written is what
//! restic itself would write. The choices that the format leaves open are told in `docs/format.md`.

pub mod blob;
pub mod config;
mod go_print;
mod go_quote;
mod hex;
pub mod index_file;
mod json_read;
mod json_write;
pub mod key_file;
pub mod lock;
pub mod pack;
mod serde_forms;
pub mod snapshot;
pub mod tree;
pub mod tree_reader;

pub use blob::{BlobKind, IndexBlob, SEAL_BYTES};
pub use config::ConfigFile;
pub use index_file::{decode_index, encode_index};
pub use key_file::KeyFile;
pub use lock::LockFile;
pub use snapshot::{SnapshotFile, SnapshotSummary};
pub use tree::TreeEncoder;
pub use tree_reader::{TreeReader, decode_tree};
