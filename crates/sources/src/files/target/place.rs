//! Directories below the root: the open descriptor, and the chain of names that led to it.
//!
//! A path is never resolved twice as text. Every operation goes through the descriptor of the directory it concerns; the
//! names are kept for messages and for opening a parked directory again, where device and inode must then be the same.

use super::metadata::Seen;
use lastgood_model::node::display_path;
use rustix::fd::OwnedFd;
use std::sync::Arc;

/// A directory's name and its parent's place; the outermost holds the root's own path. Costs no descriptor.
#[derive(Debug)]
pub(super) struct Place {
    parent: Option<Arc<Place>>,
    name: Box<[u8]>,
}

impl Place {
    pub(super) fn root(path: &[u8]) -> Arc<Self> {
        Arc::new(Self { parent: None, name: path.into() })
    }

    pub(super) fn child(self: &Arc<Self>, name: &[u8]) -> Arc<Self> {
        Arc::new(Self { parent: Some(Arc::clone(self)), name: name.into() })
    }

    /// The names from the root down to here, without the root's path.
    pub(super) fn names(&self) -> Vec<&[u8]> {
        let mut names = Vec::new();
        let mut at = self;
        while let Some(parent) = &at.parent {
            names.push(&*at.name);
            at = parent;
        }
        names.reverse();
        names
    }

    /// The root's path and all names, joined by `/`.
    pub(super) fn path(&self) -> Vec<u8> {
        let mut root = self;
        while let Some(parent) = &root.parent {
            root = parent;
        }
        let mut path = root.name.to_vec();
        for name in self.names() {
            if path.last() != Some(&b'/') {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        path
    }

    /// The path of an entry in this directory, or of the directory itself when `name` is empty.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.path();
        if !name.is_empty() {
            if path.last() != Some(&b'/') {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        path
    }

    pub(super) fn display(&self, name: &[u8]) -> String {
        display_path(&self.path_of(name))
    }
}

/// Dropping the innermost of a very long chain must not recurse once per level.
impl Drop for Place {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut place) = next.and_then(Arc::into_inner) {
            next = place.parent.take();
        }
    }
}

/// An open directory at or below the root of a [`super::Target`]. Share it in an `Arc`; all calls take it by reference and
/// from any thread. Holds one descriptor: where a tree is deeper than descriptors last, [`DirHandle::park`] it.
#[derive(Debug)]
pub struct DirHandle {
    pub(super) fd: OwnedFd,
    pub(super) place: Arc<Place>,
    pub(super) traits: Traits,
}

/// What was found when the directory was opened and holds for as long as it is being filled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Made by us in this restore: empty but for what we put there.
    pub(super) created: bool,
    /// New entries get a group that is not ours.
    pub(super) setgid: bool,
    /// New entries inherit an ACL that their snapshot does not know.
    pub(super) default_acl: bool,
}

impl DirHandle {
    pub(super) fn new(fd: OwnedFd, place: Arc<Place>, seen: &Seen, created: bool, default_acl: bool) -> Self {
        let traits =
            Traits { device: seen.device_id, inode: seen.inode, created, setgid: seen.mode & 0o2000 != 0, default_acl };
        Self { fd, place, traits }
    }

    /// True when this restore made the directory, so that nothing can be in it but what was restored.
    pub fn is_created(&self) -> bool {
        self.traits.created
    }

    /// The path of an entry (or with an empty name of the directory itself), root included, for messages.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        self.place.path_of(name)
    }

    /// What is needed to open this very directory again with [`super::Target::reopen`], without its descriptor.
    pub fn park(&self) -> ParkedDir {
        ParkedDir { place: Arc::clone(&self.place), traits: self.traits }
    }
}

/// A directory known by its names and its identity, holding no descriptor.
#[derive(Clone, Debug)]
pub struct ParkedDir {
    pub(super) place: Arc<Place>,
    pub(super) traits: Traits,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_levels_are_dropped_without_recursion_and_paths_join_once() {
        let root = Place::root(b"/");
        let mut place = root.child(b"a").child(b"b");
        assert_eq!(place.path_of(b"c"), b"/a/b/c");
        assert_eq!(place.path_of(b""), b"/a/b");
        for _ in 0..1_000_000 {
            place = place.child(b"d");
        }
        assert_eq!(place.names().len(), 1_000_002);
        drop(place);
        assert_eq!(root.path(), b"/");
    }
}
