//! Which parts of a recovery point are meant, and where each goes.

use super::{Destination, without_source};
use crate::browse::{Descend, Walked, absent, resolve, walk_past};
use crate::originals;
use crate::snapshots::{find_node, is_loss};
use lastgood_model::manifest::{Manifest, SourceOutcome};
use lastgood_model::node::display_path;
use lastgood_model::{Error, ErrorKind, Monitor, Node, NodeKind, Result};
use lastgood_repo::{BlobReader, Snapshot};
use std::path::PathBuf;

/// What the user named.
pub(super) struct Selection<'a> {
    pub(super) sources: &'a [String],
    pub(super) paths: &'a [Vec<u8>],
}

/// One entry with all below it.
#[derive(Clone, Debug)]
pub(super) struct Root {
    /// Path in the snapshot, components joined by `/`.
    pub(super) path: Vec<u8>,
    pub(super) node: Node,
    /// Nodes of the directories above it in the snapshot, outermost first.
    pub(super) above: Vec<Node>,
    /// The source it belongs to, when a manifest tells.
    pub(super) source: Option<RootSource>,
}

#[derive(Clone, Debug)]
pub(super) struct RootSource {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) origins: Vec<String>,
}

impl Root {
    /// Visits the entry and all below it. A directory that cannot be read is passed over: whoever restores it tells.
    pub(super) fn for_each(
        &self,
        reader: &BlobReader,
        monitor: &Monitor,
        visit: &mut dyn FnMut(Walked<'_>) -> Result<()>,
    ) -> Result<()> {
        self.for_each_past(reader, monitor, &mut |_| (), visit)
    }

    /// The same, telling `unreadable` of each directory that was passed over.
    pub(super) fn for_each_past(
        &self,
        reader: &BlobReader,
        monitor: &Monitor,
        unreadable: &mut dyn FnMut(&[u8]),
        visit: &mut dyn FnMut(Walked<'_>) -> Result<()>,
    ) -> Result<()> {
        visit(Walked { path: &self.path, node: &self.node })?;
        let Some(tree) = self.node.subtree else { return Ok(()) };
        let pass = |path: &[u8], error: Error| {
            tracing::debug!(path = %display_path(path), error = %error.chain(), "directory is unreadable");
            unreadable(path);
            if is_loss(&error) { Ok(()) } else { Err(error) }
        };
        walk_past(reader, tree, &self.path, monitor, pass, |walked| visit(walked).map(|()| Descend::Yes))
    }

    /// True when it is a database that must be swapped in instead of written over.
    pub(super) fn is_swap(&self, to: &Destination) -> bool {
        *to == Destination::InPlace && self.source.as_ref().is_some_and(|s| s.kind == "sqlite")
    }

    /// Where it goes, for people.
    pub(super) fn destination(&self, to: &Destination) -> String {
        match to {
            Destination::Folder(folder) => format!("{}/{}", folder.display(), display_path(&self.path)),
            Destination::InPlace if self.is_swap(to) => {
                self.source.as_ref().and_then(|s| s.origins.first()).cloned().unwrap_or_default()
            }
            Destination::InPlace => format!("/{}", display_path(without_source(&self.path))),
        }
    }

    /// The original file of a database.
    pub(super) fn origin_file(&self) -> Option<PathBuf> {
        self.source.as_ref()?.origins.first().map(PathBuf::from)
    }
}

/// Finds what is meant. Roots never lie in one another.
pub(super) fn roots(
    reader: &BlobReader,
    snapshot: &Snapshot,
    manifest: Option<&Manifest>,
    selection: &Selection<'_>,
    to: &Destination,
) -> Result<Vec<Root>> {
    let top = reader.tree(snapshot.file.tree)?;
    check_sources(manifest, &top, selection.sources)?;
    let wanted = |name: &[u8]| {
        name != Manifest::FOLDER.as_bytes()
            && (selection.sources.is_empty() || selection.sources.iter().any(|s| s.as_bytes() == name))
    };
    let mut found = Vec::new();
    if selection.paths.is_empty() {
        found.extend(top.iter().filter(|n| wanted(&n.name)).map(|n| n.name.clone()));
    }
    for path in selection.paths {
        if path.is_empty() {
            return Err(Error::invalid("the path is empty").with_hint("leave --path out to restore everything"));
        }
        if path.iter().all(|b| *b == b'/') {
            found.extend(top.iter().filter(|n| wanted(&n.name)).map(|n| n.name.clone()));
            continue;
        }
        found.push(find_path(reader, snapshot, &top, manifest, path, &wanted)?);
    }
    found.sort();
    found.dedup();
    let mut outer: Vec<Vec<u8>> = Vec::new();
    for path in found {
        let inside = outer.iter().any(|o| path.starts_with(o) && path.get(o.len()) == Some(&b'/'));
        if !inside {
            outer.push(path);
        }
    }
    let mut roots = Vec::new();
    for path in outer {
        let source = path.split(|b| *b == b'/').next().and_then(|name| {
            let record = manifest?.sources.iter().find(|s| s.name.as_bytes() == name)?;
            Some(RootSource { name: record.name.clone(), kind: record.kind.clone(), origins: record.origins.clone() })
        });
        roots.push(root_at(reader, snapshot, path, source)?);
    }
    if *to == Destination::InPlace {
        roots = in_place_roots(reader, snapshot, roots)?;
    }
    if roots.is_empty() {
        return Err(Error::new(ErrorKind::Absent, "there is nothing to restore in what was selected"));
    }
    Ok(roots)
}

fn root_at(reader: &BlobReader, snapshot: &Snapshot, path: Vec<u8>, source: Option<RootSource>) -> Result<Root> {
    let mut above = Vec::new();
    for (slash, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
        if let (_, Some(node)) = resolve(reader, snapshot, &path[..slash])? {
            above.push(node);
        }
    }
    match resolve(reader, snapshot, &path)? {
        (path, Some(node)) => Ok(Root { path, node, above, source }),
        (path, None) => Err(Error::new(ErrorKind::Absent, format!("there is no {:?}", display_path(&path)))),
    }
}

fn check_sources(manifest: Option<&Manifest>, top: &[Node], sources: &[String]) -> Result<()> {
    for name in sources {
        if let Some(SourceOutcome::Failed { error }) = manifest.and_then(|m| m.source(name)).map(|s| &s.outcome) {
            return Err(Error::new(
                ErrorKind::Absent,
                format!("source {name:?} is not in this recovery point: its capture failed ({error})"),
            )
            .with_hint("restore it from an earlier point: `latest~1`, or see `lastgood snapshots`"));
        }
        if !top.iter().any(|n| n.name == name.as_bytes()) {
            let known: Vec<String> =
                top.iter().filter(|n| n.name != Manifest::FOLDER.as_bytes()).map(Node::display_name).collect();
            return Err(Error::new(ErrorKind::Absent, format!("there is no source {name:?} in this recovery point"))
                .with_hint(format!("it has: {}", known.join(", "))));
        }
    }
    Ok(())
}

/// A path as given: with its source in front, below the selected source, or an original absolute path.
fn find_path(
    reader: &BlobReader,
    snapshot: &Snapshot,
    top: &[Node],
    manifest: Option<&Manifest>,
    path: &[u8],
    wanted: &dyn Fn(&[u8]) -> bool,
) -> Result<Vec<u8>> {
    let clean = originals::clean(path);
    let is_there = |path: &[u8]| find_node(reader, snapshot, path).map(|node| node.is_some());
    if path.starts_with(b"/") {
        let places = originals::places(reader, snapshot, top, manifest, path, wanted)?;
        return originals::only(path, places)?.ok_or_else(|| absent(path, snapshot));
    }
    if clean.split(|b| *b == b'/').next().is_some_and(wanted) && is_there(&clean)? {
        return Ok(clean);
    }
    for source in top.iter().filter(|n| n.kind == NodeKind::Dir && wanted(&n.name)) {
        let below = [&source.name[..], b"/", &clean].concat();
        if is_there(&below)? {
            return Ok(below);
        }
    }
    Err(absent(path, snapshot))
}

/// In place, a files source begins at its configured paths: the directories above are not its own to change.
fn in_place_roots(reader: &BlobReader, snapshot: &Snapshot, roots: Vec<Root>) -> Result<Vec<Root>> {
    let mut placed = Vec::new();
    for root in roots {
        let Some(source) = root.source.clone() else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{:?} has no original place on record: another program made this snapshot",
                    display_path(&root.path)
                ),
            )
            .with_hint("restore it with --to FOLDER"));
        };
        match source.kind.as_str() {
            "files" => {
                for origin in &source.origins {
                    let full = [source.name.as_bytes(), origin.trim_end_matches('/').as_bytes()].concat();
                    // The root directory has no name to be restored by, and no directory above it: what is in it does.
                    if root.path == full && origin == "/" {
                        for node in root.node.subtree.map(|tree| reader.tree(tree)).transpose()?.unwrap_or_default() {
                            let path = [&full[..], b"/", &node.name].concat();
                            placed.push(Root { path, node, above: Vec::new(), source: Some(source.clone()) });
                        }
                        break;
                    }
                    if root.path.starts_with(&full) && matches!(root.path.get(full.len()), None | Some(b'/')) {
                        placed.push(root.clone());
                        break;
                    }
                    let below = full.starts_with(&root.path) && matches!(full.get(root.path.len()), Some(b'/'));
                    if below {
                        placed.push(root_at(reader, snapshot, full, Some(source.clone()))?);
                    }
                }
            }
            "sqlite" => {
                let files = match root.node.subtree {
                    Some(tree) => reader.tree(tree)?,
                    None => vec![root.node.clone()],
                };
                for file in files {
                    let path = match root.node.subtree {
                        Some(_) => [&root.path[..], b"/", &file.name].concat(),
                        None => root.path.clone(),
                    };
                    placed.push(Root { path, node: file, above: Vec::new(), source: Some(source.clone()) });
                }
            }
            "postgres" => {
                let target = source.origins.first().map_or("postgres://HOST/DATABASE", String::as_str);
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "source {:?} is a database of a server that others may be using, so it is not restored in place",
                        source.name
                    ),
                )
                .with_hint(format!(
                    "restore it beside the old one under a new name, look at it, and then rename both: \
                     `lastgood restore SNAPSHOT --source {0} --to {1}`; or over the old one by adding --overwrite to that \
                     with its own name; other sources are restored in place when they are named by --source",
                    source.name,
                    beside(target)
                )));
            }
            kind => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("source {:?} of kind {kind} has no original place to restore to", source.name),
                )
                .with_hint("restore it with --to FOLDER, or leave it out with --source"));
            }
        }
    }
    Ok(placed)
}

/// A connection's URL with another name for its database.
fn beside(url: &str) -> String {
    match url.split_once('?') {
        Some((place, parameters)) => format!("'{place}_restored?{parameters}'"),
        None => format!("{url}_restored"),
    }
}
