//! Looking into recovery points: listing, finding, and reading single files.

use crate::originals;
use crate::snapshots::{content_of, find_node, manifest};
use lastgood_model::node::display_path;
use lastgood_model::{Error, ErrorKind, Monitor, Node, NodeKind, Result, TreeId};
use lastgood_repo::{BlobReader, Snapshot};
use std::io::Write;

/// One entry met while walking, with its path below the snapshot's root.
#[derive(Clone, Debug)]
pub struct Walked<'a> {
    /// Components joined by `/`, without a leading one.
    pub path: &'a [u8],
    /// The entry.
    pub node: &'a Node,
}

/// What a visitor wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descend {
    /// Look into it, when it is a directory.
    Yes,
    /// Do not.
    No,
}

/// Walks a tree depth first in the order of names; memory is that of the directories along one path.
///
/// # Errors
/// Those of reading, and whatever `visit` returns.
pub fn walk(
    reader: &BlobReader,
    root: TreeId,
    prefix: &[u8],
    monitor: &Monitor,
    visit: impl FnMut(Walked<'_>) -> Result<Descend>,
) -> Result<()> {
    walk_past(reader, root, prefix, monitor, |_, error| Err(error), visit)
}

/// The same, telling `unreadable` of each directory that cannot be read, by its path; the walk goes on behind it unless
/// that returns an error.
///
/// # Errors
/// Whatever `unreadable` and `visit` return.
pub fn walk_past(
    reader: &BlobReader,
    root: TreeId,
    prefix: &[u8],
    monitor: &Monitor,
    mut unreadable: impl FnMut(&[u8], Error) -> Result<()>,
    mut visit: impl FnMut(Walked<'_>) -> Result<Descend>,
) -> Result<()> {
    let mut path = prefix.to_vec();
    let mut open = |id: TreeId, path: &[u8]| match reader.tree(id) {
        Ok(nodes) => Ok(nodes.into_iter()),
        Err(error) => unreadable(path, error).map(|()| Vec::new().into_iter()),
    };
    let mut stack = vec![(open(root, &path)?, path.len())];
    while let Some((nodes, length)) = stack.last_mut() {
        path.truncate(*length);
        let Some(node) = nodes.next() else {
            stack.pop();
            continue;
        };
        monitor.check_cancelled()?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&node.name);
        let descend = visit(Walked { path: &path, node: &node })?;
        if let (Descend::Yes, NodeKind::Dir, Some(subtree)) = (descend, node.kind, node.subtree) {
            stack.push((open(subtree, &path)?, path.len()));
        }
    }
    Ok(())
}

/// Resolves a path as a person gives it: `/`, `source/…`, with or without a leading slash, or an original absolute path.
///
/// # Errors
/// [`ErrorKind::Absent`] when there is no such entry, [`ErrorKind::Invalid`] when an original path is in several sources.
pub fn resolve(reader: &BlobReader, snapshot: &Snapshot, path: &[u8]) -> Result<(Vec<u8>, Option<Node>)> {
    let mut clean = originals::clean(path);
    if clean.is_empty() {
        return Ok((clean, None));
    }
    if path.starts_with(b"/") {
        // A lost manifest does not stand between anybody and the files.
        let manifest = manifest(reader, snapshot).unwrap_or_default();
        let top = reader.tree(snapshot.file.tree)?;
        let places = originals::places(reader, snapshot, &top, manifest.as_ref(), path, &|_| true)?;
        clean = originals::only(path, places)?.unwrap_or(clean);
    }
    match find_node(reader, snapshot, &clean)? {
        Some(node) => Ok((clean, Some(node))),
        None => Err(absent(path, snapshot)),
    }
}

/// There is no such path in a recovery point.
pub(crate) fn absent(path: &[u8], snapshot: &Snapshot) -> Error {
    Error::new(
        ErrorKind::Absent,
        format!("there is no {:?} in recovery point {}", display_path(path), snapshot.id.short()),
    )
    .with_hint(
        "a path is the original absolute one, or begins with the source's name; `lastgood ls` shows what is there, and \
         `lastgood find NAME` where",
    )
}

/// Writes a file's content to `out`.
///
/// # Errors
/// [`ErrorKind::Invalid`] when it is not a regular file; nothing was written then.
pub fn cat(reader: &BlobReader, node: &Node, monitor: &Monitor, out: &mut dyn Write) -> Result<u64> {
    if node.kind != NodeKind::File {
        return Err(Error::invalid(format!("{:?} is not a regular file", node.display_name())));
    }
    let mut length = 0;
    for id in content_of(node) {
        monitor.check_cancelled()?;
        let data = reader.data(*id)?;
        out.write_all(&data).map_err(|e| Error::io("write to output", e))?;
        length += data.len() as u64;
    }
    out.flush().map_err(|e| Error::io("write to output", e))?;
    Ok(length)
}
