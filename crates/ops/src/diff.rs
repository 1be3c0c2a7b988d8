//! The difference between two recovery points, at a cost that follows what changed: equal trees are never opened.

use crate::browse::{Descend, Walked, walk};
use lastgood_model::{Monitor, Node, NodeKind, Result, TreeId};
use lastgood_repo::BlobReader;
use serde::Serialize;

/// How an entry differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only the newer point has it.
    Added,
    /// Only the older point has it.
    Removed,
    /// Its content differs.
    Modified,
    /// Only its metadata differs.
    Metadata,
    /// It became another kind of entry.
    Type,
}

/// One difference.
#[derive(Clone, Debug)]
pub struct Difference<'a> {
    /// Path in the recovery points.
    pub path: &'a [u8],
    /// How it differs.
    pub change: Change,
    /// Its state in the older point.
    pub old: Option<&'a Node>,
    /// Its state in the newer point.
    pub new: Option<&'a Node>,
}

/// Tells every difference between two trees to `tell`, in the order of paths.
pub fn diff(
    reader: &BlobReader,
    old: TreeId,
    new: TreeId,
    prefix: &[u8],
    monitor: &Monitor,
    tell: &mut dyn FnMut(Difference<'_>) -> Result<()>,
) -> Result<()> {
    let mut stack =
        vec![(reader.tree(old)?.into_iter().peekable(), reader.tree(new)?.into_iter().peekable(), prefix.to_vec())];
    if old == new {
        return Ok(());
    }
    while let Some((olds, news, prefix)) = stack.last_mut() {
        monitor.check_cancelled()?;
        let order = match (olds.peek(), news.peek()) {
            (None, None) => {
                stack.pop();
                continue;
            }
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.name.cmp(&b.name),
        };
        let old = if order.is_le() { olds.next() } else { None };
        let new = if order.is_ge() { news.next() } else { None };
        let Some(name) = old.as_ref().or(new.as_ref()).map(|n| n.name.clone()) else { continue };
        let path = if prefix.is_empty() { name } else { [&prefix[..], b"/", &name].concat() };
        match (&old, &new) {
            (Some(a), Some(b)) => {
                if let Some(change) = compare(a, b) {
                    tell(Difference { path: &path, change, old: Some(a), new: Some(b) })?;
                }
                match (a.subtree, b.subtree) {
                    (Some(x), Some(y)) if x != y => {
                        stack.push((
                            reader.tree(x)?.into_iter().peekable(),
                            reader.tree(y)?.into_iter().peekable(),
                            path,
                        ));
                    }
                    (Some(x), None) => whole(reader, x, &path, Change::Removed, monitor, tell)?,
                    (None, Some(y)) => whole(reader, y, &path, Change::Added, monitor, tell)?,
                    _ => {}
                }
            }
            (Some(a), None) => {
                tell(Difference { path: &path, change: Change::Removed, old: Some(a), new: None })?;
                if let Some(tree) = a.subtree {
                    whole(reader, tree, &path, Change::Removed, monitor, tell)?;
                }
            }
            (None, Some(b)) => {
                tell(Difference { path: &path, change: Change::Added, old: None, new: Some(b) })?;
                if let Some(tree) = b.subtree {
                    whole(reader, tree, &path, Change::Added, monitor, tell)?;
                }
            }
            (None, None) => {}
        }
    }
    Ok(())
}

fn whole(
    reader: &BlobReader,
    tree: TreeId,
    path: &[u8],
    change: Change,
    monitor: &Monitor,
    tell: &mut dyn FnMut(Difference<'_>) -> Result<()>,
) -> Result<()> {
    walk(reader, tree, path, monitor, |Walked { path, node }| {
        let (old, new) = if change == Change::Added { (None, Some(node)) } else { (Some(node), None) };
        tell(Difference { path, change, old, new }).map(|()| Descend::Yes)
    })
}

/// How two entries of one name differ, apart from what lies below them. Access times, inode numbers and change times
/// alone are no difference to anybody.
fn compare(a: &Node, b: &Node) -> Option<Change> {
    if a.kind != b.kind {
        return Some(Change::Type);
    }
    if a.content != b.content || a.link_target != b.link_target || a.device != b.device {
        return Some(Change::Modified);
    }
    let meta = |n: &Node| (n.mode, n.uid, n.gid, n.xattrs.clone(), (n.kind != NodeKind::Dir).then_some(n.mtime));
    (meta(a) != meta(b)).then_some(Change::Metadata)
}
