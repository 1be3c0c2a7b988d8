//! The seam to the place where a repository's objects are kept.

mod side;

pub use side::{SideName, SidePut, SideStore};

use crate::{Id, Result};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The kinds of object in a repository, each with a folder of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// `config`, the one object without an id.
    Config,
    /// `keys/<id>`.
    Key,
    /// `locks/<id>`.
    Lock,
    /// `snapshots/<id>`.
    Snapshot,
    /// `index/<id>`.
    Index,
    /// `data/<two hex digits>/<id>`.
    Pack,
}

impl ObjectKind {
    /// Every kind that is listed by id.
    pub const LISTED: [Self; 5] = [Self::Key, Self::Lock, Self::Snapshot, Self::Index, Self::Pack];

    /// The folder (or for the config the name) of this kind in a repository.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Key => "keys",
            Self::Lock => "locks",
            Self::Snapshot => "snapshots",
            Self::Index => "index",
            Self::Pack => "data",
        }
    }
}

/// The name of one object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreKey {
    /// Which folder it lives in.
    pub kind: ObjectKind,
    /// SHA-256 of its stored bytes; all zero for the config.
    pub id: Id,
}

impl StoreKey {
    /// The config object.
    pub const CONFIG: Self = Self { kind: ObjectKind::Config, id: Id([0; 32]) };

    /// The object of `kind` named `id`.
    pub fn new(kind: ObjectKind, id: impl Into<Id>) -> Self {
        Self { kind, id: id.into() }
    }

    /// The path below the repository's root, with `/` between parts.
    pub fn path(&self) -> String {
        match self.kind {
            ObjectKind::Config => "config".to_owned(),
            ObjectKind::Pack => {
                let hex = self.id.to_string();
                format!("data/{}/{hex}", &hex[..2])
            }
            kind => format!("{}/{}", kind.folder(), self.id),
        }
    }
}

impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// How a store differs from the ideal one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Parallel calls that help; readers and writers keep about this many in flight.
    pub connections: usize,
    /// A round trip costs so much that nearby ranges should be fetched in one call, up to this gap in bytes.
    pub coalesce_gap_bytes: u64,
    /// `put` refuses an existing name atomically, also against another host.
    pub exclusive_create: bool,
    /// A list shows every object whose `put` has returned, wherever it was asked for. Where it does not, absence from a
    /// list proves nothing, and whoever deletes waits longer.
    pub list_after_write: bool,
}

/// What [`Store::sweep`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Leftovers removed.
    pub leftovers: u64,
    /// Bytes they took.
    pub bytes: u64,
}

/// Where objects are kept. Every call may block and may come from several threads at once.
///
/// Objects are immutable: a name is written once and, but for `config`, is the SHA-256 of the bytes, so repeating a
/// write is harmless. Wrap a store to add behaviour (retry, faults, records); never reach around it.
pub trait Store: Send + Sync + fmt::Debug {
    /// Where this is, for people: a path or URL without secrets.
    fn location(&self) -> String;

    /// What to expect of it.
    fn capabilities(&self) -> Capabilities;

    /// Makes the folders of a new repository. Idempotent.
    fn create(&self) -> Result<()>;

    /// Writes a whole object from `parts` in order. Atomic: other readers see all of it or nothing, also after a crash.
    /// On return the bytes are durable, but the *name* is promised to survive a power cut only after [`Store::sync`].
    /// An object already there under that name is left as it is, with [`crate::ErrorKind::Conflict`] for the config and
    /// success for all else. After any error the object may or may not be there.
    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()>;

    /// As [`Store::put`], for what only a restore or a verification reads again: contents of files, not trees. A store with
    /// storage classes may keep it in one that is cheaper to keep and dearer to read. Whoever wraps a store passes this on.
    fn put_cold(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        self.put(key, parts)
    }

    /// Makes all names put and all removals so far durable.
    fn sync(&self) -> Result<()>;

    /// The whole object. [`crate::ErrorKind::Absent`] when there is none.
    fn get(&self, key: &StoreKey) -> Result<Vec<u8>>;

    /// Exactly `length` bytes from `offset` into `out` (cleared first, its capacity reused).
    /// [`crate::ErrorKind::Corrupt`] when the object is shorter than that.
    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()>;

    /// Length in bytes. [`crate::ErrorKind::Absent`] when there is none.
    fn size(&self, key: &StoreKey) -> Result<u64>;

    /// All objects of a kind with their sizes, in no order. Names that are not ids are passed over.
    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>>;

    /// Removes an object; removing what is not there succeeds.
    fn remove(&self, key: &StoreKey) -> Result<()>;

    /// Removes what killed writers left behind (half-written temporaries, unfinished uploads) and nobody has touched for
    /// `older_than`. Never removes an object, nor the work of a writer that is alive.
    fn sweep(&self, older_than: Duration) -> Result<Swept> {
        let _ = older_than;
        Ok(Swept::default())
    }

    /// Tries whether objects of every kind could be written now: writes some bytes in the way in which objects are
    /// written, and takes them away again. Readers never see them, and [`Store::sweep`] removes what a killed probe
    /// leaves.
    fn probe(&self) -> Result<()> {
        Ok(())
    }

    /// True for a place with bounds of its own, such as a disk, on which room set aside today is room tomorrow.
    fn fills_up(&self) -> bool {
        false
    }

    /// The objects beside the repository's own. `None` where the protocol has no room for any (restic's REST server
    /// takes the repository's kinds and nothing else).
    fn side(&self) -> Option<&dyn SideStore> {
        None
    }
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn location(&self) -> String {
        (**self).location()
    }
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }
    fn create(&self) -> Result<()> {
        (**self).create()
    }
    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        (**self).put(key, parts)
    }
    fn put_cold(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        (**self).put_cold(key, parts)
    }
    fn sync(&self) -> Result<()> {
        (**self).sync()
    }
    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        (**self).get(key)
    }
    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        (**self).get_range(key, offset, length, out)
    }
    fn size(&self, key: &StoreKey) -> Result<u64> {
        (**self).size(key)
    }
    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        (**self).list(kind)
    }
    fn remove(&self, key: &StoreKey) -> Result<()> {
        (**self).remove(key)
    }
    fn sweep(&self, older_than: Duration) -> Result<Swept> {
        (**self).sweep(older_than)
    }
    fn probe(&self) -> Result<()> {
        (**self).probe()
    }
    fn fills_up(&self) -> bool {
        (**self).fills_up()
    }
    fn side(&self) -> Option<&dyn SideStore> {
        (**self).side()
    }
}

impl From<crate::BlobId> for Id {
    fn from(id: crate::BlobId) -> Self {
        id.0
    }
}

macro_rules! into_id {
    ($($name:ident),*) => {$(
        impl From<crate::$name> for Id {
            fn from(id: crate::$name) -> Self {
                id.0
            }
        }
    )*};
}
into_id!(TreeId, PackId, SnapshotId, IndexId, KeyId, LockId);
