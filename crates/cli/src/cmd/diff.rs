//! `diff`: what differs between two recovery points.

mod tables;

use super::entry;
use crate::args::Diff;
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::output::{json, object};
use crate::run::{Run, path_bytes};
use crate::text;
use lastgood_model::manifest::Manifest;
use lastgood_model::{Error, ErrorKind, Node, NodeKind, Result, TreeId};
use lastgood_ops::browse::resolve;
use lastgood_ops::diff::{Change, Difference, diff};
use lastgood_ops::diff_tables::{applies, require_source};
use lastgood_ops::snapshots::manifest;
use lastgood_repo::{BlobReader, Snapshot};
use serde::Serialize;
use serde_json::{Map, Value};

/// What it comes to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Totals {
    added: u64,
    removed: u64,
    modified: u64,
    metadata: u64,
    r#type: u64,
    bytes_added: u64,
    bytes_removed: u64,
}

pub(super) fn run(run: &Run, args: &Diff) -> Outcome {
    let mut held = run.open_with(&[&args.old, &args.new])?;
    let reader = held.repository.reader()?;
    let (Some(new), Some(old)) = (held.snapshots.pop(), held.snapshots.pop()) else {
        return Err(Error::new(ErrorKind::Bug, "two recovery points were to be picked").into());
    };
    if let Some(source) = &args.source {
        let manifests = (manifest(&reader, &old)?, manifest(&reader, &new)?);
        require_source(manifests.0.as_ref(), source)?;
        require_source(manifests.1.as_ref(), source)?;
        if applies(manifests.0.as_ref(), manifests.1.as_ref(), source) {
            return tables::run(run, args, &reader, source, (&old, &new));
        }
    }
    let below = args.source.as_deref().map(str::as_bytes);
    let path = below.or(args.path.as_deref().map(path_bytes)).unwrap_or_default();
    let (clean, old_tree) = tree_at(&reader, &old, path)?;
    let (_, new_tree) = tree_at(&reader, &new, path)?;
    let mut totals = Totals::default();
    let head = object([("old", json(&old.id)), ("new", json(&new.id))]);
    let mut list = run.out.list("lastgood.diff", "lastgood.difference", "differences", head)?;
    let monitor = run.monitor();
    let mut tell = |difference: Difference<'_>| -> Result<()> {
        // Manifests always differ, and are lastgood's own.
        if difference.path.split(|b| *b == b'/').next() == Some(Manifest::FOLDER.as_bytes()) {
            return Ok(());
        }
        totals.count(&difference);
        if run.out.is_closed() {
            return Err(Error::new(ErrorKind::Cancelled, "standard output was closed"));
        }
        if args.stat {
            return Ok(());
        }
        list.item(|| fields(&difference), || Some(line(&difference)))
    };
    let walked = diff(&reader, old_tree, new_tree, &clean, &monitor, &mut tell);
    if !run.out.is_closed() {
        walked?;
    }
    list.end(object([("totals", json(&totals))]))?;
    if run.out.is_human() {
        run.out.line(totals.line())?;
    }
    Ok(ExitCode::Ok)
}

fn tree_at(reader: &BlobReader, snapshot: &Snapshot, path: &[u8]) -> Result<(Vec<u8>, TreeId)> {
    match resolve(reader, snapshot, path)? {
        (clean, None) => Ok((clean, snapshot.file.tree)),
        (clean, Some(Node { kind: NodeKind::Dir, subtree: Some(tree), .. })) => Ok((clean, tree)),
        _ => Err(Error::invalid("only folders can be compared").with_hint("name the folder the file is in")),
    }
}

fn letter(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Modified => 'M',
        Change::Metadata => 'U',
        Change::Type => 'T',
    }
}

fn line(difference: &Difference<'_>) -> String {
    let sizes = match (difference.old, difference.new) {
        (Some(old), Some(new)) if old.size != new.size => {
            format!("  ({} -> {})", text::size(old.size), text::size(new.size))
        }
        (None, Some(node)) | (Some(node), None) if node.kind == NodeKind::File => {
            format!("  ({})", text::size(node.size))
        }
        _ => String::new(),
    };
    let node = difference.new.or(difference.old);
    let path = node.map_or_else(String::new, |node| entry::short(difference.path, node));
    format!("{}  {path}{sizes}", letter(difference.change))
}

fn fields(difference: &Difference<'_>) -> Map<String, Value> {
    let side = |node: Option<&Node>| match node {
        Some(node) => Value::Object(entry::fields(difference.path, node)),
        None => Value::Null,
    };
    object([
        ("change", json(&difference.change)),
        ("path", lastgood_model::node::display_path(difference.path).into()),
        ("old", side(difference.old)),
        ("new", side(difference.new)),
    ])
}

impl Totals {
    fn count(&mut self, difference: &Difference<'_>) {
        let counter = match difference.change {
            Change::Added => &mut self.added,
            Change::Removed => &mut self.removed,
            Change::Modified => &mut self.modified,
            Change::Metadata => &mut self.metadata,
            Change::Type => &mut self.r#type,
        };
        *counter += 1;
        if difference.change != Change::Metadata {
            self.bytes_added += difference.new.map_or(0, |n| n.size);
            self.bytes_removed += difference.old.map_or(0, |n| n.size);
        }
    }

    fn line(self) -> String {
        format!(
            "{} added, {} removed, {} modified, {} with other metadata, {} of another kind; {} now for {} before",
            text::count(self.added),
            text::count(self.removed),
            text::count(self.modified),
            text::count(self.metadata),
            text::count(self.r#type),
            text::size(self.bytes_added),
            text::size(self.bytes_removed)
        )
    }
}
