//! The seam to objects beside the repository's own: leases, lists of what is about to go, ledgers.
//!
//! They lie below `lastgood/`, which restic and rustic neither see nor touch. What stands in them is ours to specify; see
//! `docs/format.md`. Whatever says anything about content is sealed with the repository's key before it comes here.

use crate::{Error, Result};
use std::fmt;

/// The name of an object beside the repository's own, below `lastgood/`: `folder/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SideName {
    folder: String,
    name: String,
}

impl SideName {
    /// The folder below the repository's root in which all of them lie.
    pub const ROOT: &'static str = "lastgood";

    /// The object `name` in `folder`; each 1 to 128 of `a`–`z`, `0`–`9`, `.`, `_`, `-`, and none begins with a dot.
    /// [`crate::ErrorKind::Invalid`] for all else.
    pub fn new(folder: &str, name: &str) -> Result<Self> {
        for part in [folder, name] {
            if !Self::is_part(part.as_bytes()) {
                return Err(Error::invalid(format!("not a name for an object beside the repository's: {part:?}")));
            }
        }
        Ok(Self { folder: folder.to_owned(), name: name.to_owned() })
    }

    /// True for what can be a folder or a name.
    pub fn is_part(part: &[u8]) -> bool {
        let legal = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        (1..=128).contains(&part.len()) && part[0] != b'.' && part.iter().all(legal)
    }

    /// The folder below [`Self::ROOT`].
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// The name within its folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path below the repository's root, with `/` between parts.
    pub fn path(&self) -> String {
        format!("{}/{}/{}", Self::ROOT, self.folder, self.name)
    }
}

impl fmt::Display for SideName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", Self::ROOT, self.folder, self.name)
    }
}

impl fmt::Debug for SideName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What [`SideStore::put_side`] does about an object that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SidePut {
    /// Leaves it, and says [`crate::ErrorKind::Conflict`]. Of several that try at once one wins, as far as
    /// [`super::Capabilities::exclusive_create`] goes.
    Create,
    /// Replaces it.
    Replace,
}

/// Objects beside the repository's own. Every call may block and may come from several threads at once.
pub trait SideStore: Send + Sync {
    /// Writes the object whole and atomically; bytes and name are durable on return. After any error but
    /// [`crate::ErrorKind::Conflict`] it may or may not have happened. A `Create` whose reply was lost and that is
    /// repeated knows its own object by its bytes: who uses it to win a race puts something random in.
    fn put_side(&self, name: &SideName, bytes: &[u8], how: SidePut) -> Result<()>;

    /// The whole object. [`crate::ErrorKind::Absent`] when there is none.
    fn get_side(&self, name: &SideName) -> Result<Vec<u8>>;

    /// All objects in `folder` with their lengths in bytes, in no order; none when there is no such folder. Names that
    /// cannot be a [`SideName`] are passed over.
    fn list_side(&self, folder: &str) -> Result<Vec<(SideName, u64)>>;

    /// Removes the object, durably on return; removing what is not there succeeds.
    fn remove_side(&self, name: &SideName) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_two_plain_parts() {
        assert_eq!(SideName::new("gc", "doom-1.v2_x").unwrap().path(), "lastgood/gc/doom-1.v2_x");
        assert!(SideName::new(&"a".repeat(128), &"b".repeat(128)).is_ok());
        for bad in ["", ".", "..", ".hidden", "A", "a/b", "a b", "ä", "a\0", &"a".repeat(129)] {
            assert!(SideName::new(bad, "name").is_err(), "{bad:?}");
            assert!(SideName::new("folder", bad).is_err(), "{bad:?}");
        }
    }
}
