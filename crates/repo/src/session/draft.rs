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
    /// What was in its place in the parent snapshot.
    previous: Option<Node>,
    children: BTreeMap<Vec<u8>, Child>,
    /// Paths of streams that are being written.
    streams: BTreeSet<Vec<u8>>,
    pub(super) open_streams: usize,
    pub(super) dropped_streams: usize,
    pub(super) finished_streams: usize,
}

#[derive(Debug)]
enum Child {
    Finished(Box<Node>),
    /// A file whose times stay as long as the rest of it does.
    Undated(Box<Node>),
    Open(Box<Draft>),
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

    /// With `is_undated` its times are only those of this capture.
    pub(super) fn end_stream(&mut self, path: &[u8], node: Node, is_undated: bool) -> Result<()> {
        let child = |node| match is_undated {
            true => Child::Undated(Box::new(node)),
            false => Child::Finished(Box::new(node)),
        };
        self.put(path, Vec::new(), node, child)?;
        self.open_streams -= 1;
        self.finished_streams += 1;
        Ok(())
    }

    /// Puts a finished node at `path`; `parents` gives metadata of the directories on the way, outermost first.
    pub(super) fn insert(&mut self, path: &[u8], parents: Vec<Node>, node: Node) -> Result<()> {
        self.put(path, parents, node, |node| Child::Finished(Box::new(node)))
    }

    fn put(
        &mut self,
        path: &[u8],
        parents: Vec<Node>,
        mut node: Node,
        child: impl FnOnce(Node) -> Child,
    ) -> Result<()> {
        if path.is_empty() {
            return self.become_tree(node);
        }
        if self.node.as_ref().is_some_and(|own| own.subtree.is_some()) {
            // A walked tree is complete: what came on top of it would be nowhere.
            return Err(taken(path));
        }
        let components = split(path)?;
        let Some((last, above)) = components.split_last() else { return Err(taken(path)) };
        let mut here = self;
        let mut parents = parents.into_iter();
        for component in above {
            let known = parents.next().filter(|p| p.kind == NodeKind::Dir);
            let child = here.children.entry(component.to_vec()).or_insert_with(|| Child::Open(Box::default()));
            let Child::Open(draft) = child else { return Err(taken(path)) };
            draft.node = draft.node.take().or(known);
            here = draft;
        }
        node.name = last.to_vec();
        match here.children.get(*last) {
            None => {
                here.children.insert(last.to_vec(), child(node));
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

    /// Takes another draft in as the directory `name`, which the parent snapshot has as `previous`.
    pub(super) fn graft(&mut self, name: &[u8], draft: Self, previous: Option<Node>) -> Result<()> {
        if self.children.contains_key(name) {
            return Err(taken(name));
        }
        let child = match draft.node {
            Some(mut node) if node.subtree.is_some() => {
                node.name = name.to_vec();
                Child::Finished(Box::new(node))
            }
            _ => Child::Open(Box::new(Self { previous, ..draft })),
        };
        self.children.insert(name.to_vec(), child);
        Ok(())
    }

    /// Saves all open directories through `store`, deepest first, and returns the tree of this one. `read` gives trees of
    /// the parent snapshot: what is the same there keeps its times, so that an unchanged directory is an unchanged tree.
    pub(super) fn save(
        self,
        time: Time,
        read: &dyn Fn(TreeId) -> Option<Vec<Node>>,
        store: &mut impl FnMut(&[u8]) -> Result<TreeId>,
    ) -> Result<TreeId> {
        let before = self.previous.and_then(|node| node.subtree).and_then(read).unwrap_or_default();
        let before: BTreeMap<Vec<u8>, Node> = before.into_iter().map(|node| (node.name.clone(), node)).collect();
        let mut encoder = TreeEncoder::new();
        for (name, child) in self.children {
            let old = before.get(&name);
            let node = match child {
                Child::Finished(node) => *node,
                Child::Undated(node) => dated_as(old, *node),
                Child::Open(mut draft) => {
                    draft.previous = draft.previous.take().or_else(|| old.cloned());
                    let old = draft.previous.clone();
                    let known = draft.node.take();
                    let is_known = known.is_some();
                    let mut node = known.unwrap_or_else(|| {
                        let mut node = Node::new(&name[..], NodeKind::Dir);
                        node.mode = 0o755;
                        (node.mtime, node.atime, node.ctime) = (time, time, time);
                        node
                    });
                    node.name = name;
                    node.subtree = Some(draft.save(time, read, store)?);
                    if is_known { node } else { dated_as(old.as_ref(), node) }
                }
            };
            encoder.push(&node)?;
        }
        store(&encoder.finish())
    }
}

/// `new` with the times of `old`, if that is the same otherwise.
fn dated_as(old: Option<&Node>, mut new: Node) -> Node {
    let Some(old) = old else { return new };
    let own = (new.mtime, new.atime, new.ctime);
    (new.mtime, new.atime, new.ctime) = (old.mtime, old.atime, old.ctime);
    if new != *old {
        (new.mtime, new.atime, new.ctime) = own;
    }
    new
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::decode_tree;
    use lastgood_model::Id;
    use std::collections::HashMap;

    fn file(size: u64) -> Node {
        let mut node = Node::new("renamed by its path", NodeKind::File);
        node.size = size;
        node
    }

    fn folder(mode: u32, subtree: Option<TreeId>) -> Node {
        let mut node = Node::new("x", NodeKind::Dir);
        (node.mode, node.subtree) = (mode, subtree);
        node
    }

    /// Saves a draft and reads it back: every path with its node.
    fn saved(draft: Draft) -> Vec<(String, Node)> {
        let mut trees: HashMap<TreeId, Vec<Node>> = HashMap::new();
        let mut count = 0u8;
        let mut store = |json: &[u8]| {
            count += 1;
            let id = TreeId(Id([count; 32]));
            trees.insert(id, decode_tree(json)?);
            Ok(id)
        };
        let root = draft.save(Time::new(5, 0), &|_| None, &mut store).unwrap();
        let mut found = Vec::new();
        let mut open = vec![(String::new(), root)];
        while let Some((path, id)) = open.pop() {
            for node in trees.get(&id).into_iter().flatten() {
                let path = format!("{path}{}", node.display_name());
                open.extend(node.subtree.map(|below| (format!("{path}/"), below)));
                found.push((path, node.clone()));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    #[test]
    fn directories_on_the_way_take_what_is_known_of_them_from_whoever_knows_it_first() {
        let mut draft = Draft::default();
        draft.insert(b"a/b/one", Vec::new(), file(1)).unwrap();
        draft.insert(b"a/b/two", vec![folder(0o711, None), folder(0o722, None)], file(2)).unwrap();
        draft.insert(b"a/three", vec![folder(0o733, None)], file(3)).unwrap();
        draft.insert(b"z", Vec::new(), file(4)).unwrap();
        let found = saved(draft);
        let paths: Vec<&str> = found.iter().map(|(path, _)| &**path).collect();
        assert_eq!(paths, ["a", "a/b", "a/b/one", "a/b/two", "a/three", "z"]);
        assert_eq!((found[0].1.mode, found[1].1.mode), (0o711, 0o722));
        assert_eq!(found.iter().map(|(_, node)| node.size).collect::<Vec<_>>(), [0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_place_is_taken_once_and_a_file_is_no_directory() {
        let mut draft = Draft::default();
        draft.insert(b"a/b", Vec::new(), file(1)).unwrap();
        for path in [&b"a/b"[..], b"a", b"a/b/c", b""] {
            let node = if path.is_empty() { folder(0o700, None) } else { file(2) };
            assert_eq!(draft.insert(path, Vec::new(), node).unwrap_err().kind(), ErrorKind::Conflict, "{path:?}");
        }
        for path in [&b"/"[..], b"a//b", b"..", b"a/../c", b"a/"] {
            assert_eq!(draft.insert(path, Vec::new(), file(2)).unwrap_err().kind(), ErrorKind::Invalid, "{path:?}");
        }
        draft.begin_stream(b"s").unwrap();
        assert_eq!(draft.begin_stream(b"s").unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(saved(draft).len(), 2);
    }

    #[test]
    fn a_walked_tree_may_be_the_whole_folder_and_is_grafted_as_it_is() {
        let walked = TreeId(Id([99; 32]));
        let mut draft = Draft::default();
        draft.insert(b"", Vec::new(), folder(0o750, Some(walked))).unwrap();
        for path in [&b""[..], b"a", b"a/b"] {
            let more = draft.insert(path, Vec::new(), folder(0o750, Some(walked)));
            assert_eq!(more.unwrap_err().kind(), ErrorKind::Conflict, "{path:?}");
        }
        let mut root = Draft::default();
        root.graft(b"files", draft, None).unwrap();
        assert_eq!(root.graft(b"files", Draft::default(), None).unwrap_err().kind(), ErrorKind::Conflict);
        root.graft(b"empty", Draft::default(), None).unwrap();
        let found = saved(root);
        assert_eq!(found.iter().map(|(path, _)| &**path).collect::<Vec<_>>(), ["empty", "files"]);
        assert_eq!((found[1].1.mode, found[1].1.subtree), (0o750, Some(walked)));
        assert_eq!((found[0].1.mode, found[0].1.mtime), (0o755, Time::new(5, 0)));
    }

    #[test]
    fn what_is_the_same_keeps_its_times_and_what_changed_does_not() {
        let mut trees: HashMap<TreeId, Vec<Node>> = HashMap::new();
        let mut texts: Vec<Vec<u8>> = Vec::new();
        let mut capture = |time: i64, last: &[u8], previous: Option<TreeId>| {
            let mut draft = Draft::default();
            for (path, content, is_undated) in
                [(&b"a/same"[..], &b"s"[..], true), (b"b/changes", last, true), (b"c/own", b"o", false)]
            {
                let mut node = file(content.len() as u64);
                node.content = Some(vec![lastgood_model::BlobId(Id([content[0]; 32]))]);
                (node.mtime, node.atime, node.ctime) = (Time::new(time, 7), Time::new(time, 7), Time::new(time, 7));
                draft.begin_stream(path).unwrap();
                draft.end_stream(path, node, is_undated).unwrap();
            }
            let mut root = Draft::default();
            let mut old = folder(0o755, previous);
            old.name = b"db".to_vec();
            root.graft(b"db", draft, previous.map(|_| old)).unwrap();
            let known = trees.clone();
            let mut store = |json: &[u8]| {
                let known = texts.iter().position(|text| text == json);
                let number = known.unwrap_or_else(|| {
                    texts.push(json.to_vec());
                    texts.len() - 1
                });
                let id = TreeId(Id([number as u8; 32]));
                trees.insert(id, decode_tree(json)?);
                Ok(id)
            };
            let root = root.save(Time::new(time, 0), &|id| known.get(&id).cloned(), &mut store).unwrap();
            let db = trees[&root][0].subtree.unwrap();
            let inner: Vec<Node> = trees[&db].iter().map(|node| trees[&node.subtree.unwrap()][0].clone()).collect();
            (db, trees[&db].clone(), inner)
        };
        let (first, dirs, files) = capture(5, b"x", None);
        let (second, dirs_then, files_then) = capture(6, b"y", Some(first));
        assert_eq!((&dirs_then[0], &files_then[0]), (&dirs[0], &files[0]));
        for at in [1, 2] {
            assert_eq!((files_then[at].mtime, dirs_then[at].mtime), (Time::new(6, 7), Time::new(6, 0)), "{at}");
        }
        let (third, ..) = capture(6, b"y", Some(second));
        assert_eq!(third, second);
    }
}
