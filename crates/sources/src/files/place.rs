//! Where a directory lies, for messages and patterns.
//!
//! A tree may be deeper than `PATH_MAX`, and a path per level would cost memory in the square of the depth, so a place
//! keeps its own name and its parent only. It holds no descriptor: a child keeps its ancestors' names alive, not their
//! open directories.

use std::sync::Arc;

/// One directory of a captured tree.
#[derive(Debug)]
pub(super) struct Place {
    parent: Option<Arc<Self>>,
    /// The component; at the top of a tree its absolute path.
    name: Box<[u8]>,
}

impl Place {
    /// The top of a tree, at an absolute path.
    pub(super) fn top(path: &[u8]) -> Arc<Self> {
        Arc::new(Self { parent: None, name: path.into() })
    }

    /// The sub-directory `name`.
    pub(super) fn below(self: &Arc<Self>, name: &[u8]) -> Arc<Self> {
        Arc::new(Self { parent: Some(Arc::clone(self)), name: name.into() })
    }

    /// The absolute path of the entry `leaf`, or of this directory when `leaf` is empty.
    pub(super) fn path_of(&self, leaf: &[u8]) -> Vec<u8> {
        let mut path = Vec::new();
        self.each_from_top(true, &mut |name| {
            join(&mut path, name);
        });
        if !leaf.is_empty() {
            join(&mut path, leaf);
        }
        path
    }

    /// Replaces `out` by the path below the top of the tree, with a `/` at its end unless empty.
    pub(super) fn prefix_below_top(&self, out: &mut Vec<u8>) {
        out.clear();
        self.each_from_top(false, &mut |name| {
            out.extend_from_slice(name);
            out.push(b'/');
        });
    }

    /// Calls `visit` for each component from the outermost to this one. A loop, since recursion would spend a stack
    /// frame per level.
    fn each_from_top(&self, with_top: bool, visit: &mut dyn FnMut(&[u8])) {
        let mut chain: Vec<&Self> = Vec::new();
        let mut next = Some(self);
        while let Some(place) = next {
            next = place.parent.as_deref();
            if next.is_some() || with_top {
                chain.push(place);
            }
        }
        for place in chain.into_iter().rev() {
            visit(&place.name);
        }
    }
}

fn join(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() && path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

impl Drop for Place {
    /// Unlinks the chain in a loop: the last holder of a very deep place would otherwise drop its ancestors by recursion
    /// and overflow its stack.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(place) = next {
            next = Arc::into_inner(place).and_then(|mut owned| owned.parent.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_with_one_slash_also_below_the_root_of_the_file_system() {
        let top = Place::top(b"/srv/up");
        let deep = top.below(b"a").below(b"\xff\n");
        assert_eq!(deep.path_of(b"x"), b"/srv/up/a/\xff\n/x");
        assert_eq!(deep.path_of(b""), b"/srv/up/a/\xff\n");
        assert_eq!(Place::top(b"/").below(b"etc").path_of(b"x"), b"/etc/x");
        assert_eq!(Place::top(b"/").path_of(b""), b"/");
        let mut prefix = b"left over".to_vec();
        deep.prefix_below_top(&mut prefix);
        assert_eq!(prefix, b"a/\xff\n/");
        top.prefix_below_top(&mut prefix);
        assert_eq!(prefix, b"");
    }

    #[test]
    fn a_million_levels_are_dropped_without_a_deep_stack() {
        let worker = std::thread::Builder::new().stack_size(128 * 1024);
        let handle = worker.spawn(|| {
            let mut place = Place::top(b"/");
            for _ in 0..1_000_000 {
                place = place.below(b"d");
            }
            place.path_of(b"").len()
        });
        assert_eq!(handle.unwrap().join().unwrap(), 2_000_000);
    }
}
