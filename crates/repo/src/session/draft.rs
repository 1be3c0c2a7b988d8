//! A source's folder while it is being put together: the few directories above and around what the engine walks.

use crate::format::tree::TreeEncoder;
use lastgood_model::node::{display_path, is_safe_name};
use lastgood_model::{Error, ErrorKind, Node, NodeKind, Result, Time, TreeId};
use std::collections::{BTreeMap, BTreeSet};

/// A directory that is not finished.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Its metadata, when the source knew it.
    node: Option<Node>,
    children: BTreeMap<Vec<u8>, Child>,
    /// Paths of streams that are being written.
    streams: BTreeSet<Vec<u8>>,
    pub(super) open_streams: usize,
    pub(super) dropped_streams: usize,
    pub(super) finished_streams: usize,
}

#[derive(Debug)]
enum Child {
    Finished(Node),
    Open(Draft),
}

impl Draft {
    pub(super) fn begin_stream(&mut self, path: &[u8]) -> Result<()> {
        split(path)?;
        if !self.streams.insert(path.to_vec()) {
            return Err(taken(path));
        }
        self.open_streams += 1;
        Ok(())
    }

    pub(super) fn drop_stream(&mut self) {
        self.open_streams -= 1;
        self.dropped_streams += 1;
    }

    pub(super) fn end_stream(&mut self, path: &[u8], node: Node) -> Result<()> {
        self.insert(path, Vec::new(), node)?;
        self.open_streams -= 1;
        self.finished_streams += 1;
        Ok(())
    }

    /// Puts a finished node at `path`; `parents` gives metadata of the directories on the way, outermost first.
    pub(super) fn insert(&mut self, path: &[u8], parents: Vec<Node>, mut node: Node) -> Result<()> {
        if path.is_empty() {
            return self.become_tree(node);
        }
        let components = split(path)?;
        let Some((last, above)) = components.split_last() else { return Err(taken(path)) };
        let mut here = self;
        let mut parents = parents.into_iter();
        for component in above {
            let known = parents.next().filter(|p| p.kind == NodeKind::Dir);
            let child = here.children.entry(component.to_vec()).or_insert_with(|| Child::Open(Self::default()));
            let Child::Open(draft) = child else { return Err(taken(path)) };
            draft.node = draft.node.take().or(known);
            here = draft;
        }
        node.name = last.to_vec();
        match here.children.get(*last) {
            None => {
                here.children.insert(last.to_vec(), Child::Finished(node));
                Ok(())
            }
            Some(_) => Err(taken(path)),
        }
    }

    /// The walked tree is the source's folder itself.
    fn become_tree(&mut self, node: Node) -> Result<()> {
        if !self.children.is_empty() || self.node.is_some() || node.kind != NodeKind::Dir {
            return Err(taken(b""));
        }
        self.node = Some(node);
        Ok(())
    }

    /// Takes another draft in as the directory `name`.
    pub(super) fn graft(&mut self, name: &[u8], draft: Self) -> Result<()> {
        let child = match draft.node {
            Some(mut node) if node.subtree.is_some() => {
                node.name = name.to_vec();
                Child::Finished(node)
            }
            _ => Child::Open(draft),
        };
        match self.children.insert(name.to_vec(), child) {
            None => Ok(()),
            Some(_) => Err(taken(name)),
        }
    }

    /// Saves all open directories through `store`, deepest first, and returns the tree of this one.
    pub(super) fn save(self, time: Time, store: &mut impl FnMut(&[u8]) -> Result<TreeId>) -> Result<TreeId> {
        let mut encoder = TreeEncoder::new();
        for (name, child) in self.children {
            let node = match child {
                Child::Finished(node) => node,
                Child::Open(mut draft) => {
                    let mut node = draft.node.take().unwrap_or_else(|| {
                        let mut node = Node::new(&name[..], NodeKind::Dir);
                        node.mode = 0o755;
                        (node.mtime, node.atime, node.ctime) = (time, time, time);
                        node
                    });
                    node.name = name;
                    node.subtree = Some(draft.save(time, store)?);
                    node
                }
            };
            encoder.push(&node)?;
        }
        store(&encoder.finish())
    }
}

fn split(path: &[u8]) -> Result<Vec<&[u8]>> {
    let components: Vec<_> = path.split(|b| *b == b'/').collect();
    if components.iter().all(|c| is_safe_name(c)) {
        Ok(components)
    } else {
        Err(Error::invalid(format!("{:?} cannot be a path in a recovery point", display_path(path))))
    }
}

fn taken(path: &[u8]) -> Error {
    Error::new(ErrorKind::Conflict, format!("{:?} is written twice in one source", display_path(path)))
}
