//! `ls`: what is in a recovery point.

use super::entry;
use crate::args::Ls;
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::output::{json, object};
use crate::run::{Run, path_bytes};
use lastgood_model::{Error, ErrorKind, NodeKind};
use lastgood_ops::browse::{Descend, resolve, walk};

pub(super) fn run(run: &Run, args: &Ls) -> Outcome {
    let (held, snapshot) = run.open_with(&[&args.snapshot])?.one()?;
    let reader = held.repository.reader()?;
    let path = args.path.as_deref().map(path_bytes).unwrap_or_default();
    let (path, node) = resolve(&reader, &snapshot, path)?;
    let line = |path: &[u8], node: &_| Some(if args.long { entry::long(path, node) } else { entry::short(path, node) });
    let head = object([("snapshot", json(&snapshot.id))]);
    let mut list = run.out.list("lastgood.entries", "lastgood.entry", "entries", head)?;
    let tree = match &node {
        None => Some(snapshot.file.tree),
        Some(node) if node.kind == NodeKind::Dir => {
            Some(node.subtree.ok_or_else(|| Error::corrupt("directory without a tree"))?)
        }
        Some(node) => {
            list.item(|| entry::fields(&path, node), || line(&path, node))?;
            None
        }
    };
    if let Some(tree) = tree {
        let monitor = run.monitor();
        let walked = walk(&reader, tree, &path, &monitor, |walked| {
            list.item(|| entry::fields(walked.path, walked.node), || line(walked.path, walked.node))?;
            // Nobody reads any more: no use to go on.
            if run.out.is_closed() {
                return Err(Error::new(ErrorKind::Cancelled, "standard output was closed"));
            }
            Ok(if args.recursive { Descend::Yes } else { Descend::No })
        });
        if !run.out.is_closed() {
            walked?;
        }
    }
    list.end(object([]))?;
    Ok(ExitCode::Ok)
}
