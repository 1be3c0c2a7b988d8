//! From original absolute paths to paths in recovery points. A file tree lies below its source by its absolute path, a
//! database is the one file of its source, so the manifest is needed to tell where something came from.

use crate::snapshots::find_node;
use lastgood_model::manifest::{Manifest, SourceRecord};
use lastgood_model::node::display_path;
use lastgood_model::{Error, Node, NodeKind, Result};
use lastgood_repo::{BlobReader, Snapshot};

/// The places in a recovery point that a path with a slash in front may mean: that of the source it begins with, and
/// those of the sources that have it by its original path. None lies in another. `top` is the recovery point's root,
/// `wanted` says which sources count.
pub(crate) fn places(
    reader: &BlobReader,
    snapshot: &Snapshot,
    top: &[Node],
    manifest: Option<&Manifest>,
    path: &[u8],
    wanted: &dyn Fn(&[u8]) -> bool,
) -> Result<Vec<Vec<u8>>> {
    let clean = clean(path);
    // Damage to one source must not hide what is in another, nor be taken for absence.
    let mut damage = None;
    let mut is_there = |path: &[u8]| match find_node(reader, snapshot, path) {
        Ok(node) => node.is_some(),
        Err(error) => {
            damage.get_or_insert(error);
            false
        }
    };
    let mut within = Vec::new();
    let mut above = Vec::new();
    for source in top.iter().filter(|n| n.name != Manifest::FOLDER.as_bytes() && wanted(&n.name)) {
        let record = manifest.and_then(|m| m.sources.iter().find(|s| s.name.as_bytes() == source.name));
        if let Some(record) = record.filter(|record| record.kind == "sqlite") {
            if record.origins.iter().any(|origin| origin.trim_start_matches('/') == display_path(&clean)) {
                within.push(database(reader, source)?);
            }
            continue;
        }
        let below = [&source.name[..], b"/", &clean].concat();
        if source.kind == NodeKind::Dir && is_there(&below) {
            // Directories above what a source protects are in it only as the way there.
            match record.is_none_or(|record| is_origin(record, &clean)) {
                true => within.push(below),
                false => above.push(below),
            }
        }
    }
    let mut places = if within.is_empty() { above } else { within };
    let source = clean.split(|b| *b == b'/').next().unwrap_or_default();
    if wanted(source)
        && is_there(&clean)
        && !places.iter().any(|place| place.starts_with(&clean) && place.get(clean.len()) == Some(&b'/'))
    {
        places.push(clean);
    }
    match damage {
        Some(error) if places.is_empty() => Err(error),
        _ => Ok(places),
    }
}

/// The only one of `places`; `None` when there is none.
///
/// # Errors
/// [`lastgood_model::ErrorKind::Invalid`] when there are several.
pub(crate) fn only(path: &[u8], mut places: Vec<Vec<u8>>) -> Result<Option<Vec<u8>>> {
    if places.len() > 1 {
        let told: Vec<String> = places.iter().map(|place| display_path(place)).collect();
        return Err(Error::invalid(format!("{:?} is in the recovery point more than once", display_path(path)))
            .with_hint(format!("say which one is meant: {}", told.join(", "))));
    }
    Ok(places.pop())
}

/// A path without slashes in front, at the end, and in a row.
pub(crate) fn clean(path: &[u8]) -> Vec<u8> {
    path.split(|b| *b == b'/').filter(|c| !c.is_empty()).collect::<Vec<_>>().join(&b'/')
}

/// True when the path, given without its slash in front, is one that the source protects, or below such a one.
fn is_origin(record: &SourceRecord, clean: &[u8]) -> bool {
    let path = format!("/{}", display_path(clean));
    record.origins.iter().any(|origin| {
        let origin = origin.trim_end_matches('/');
        path.strip_prefix(origin).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The file of a database's source, or what there is in its stead.
fn database(reader: &BlobReader, source: &Node) -> Result<Vec<u8>> {
    let nodes = source.subtree.map(|tree| reader.tree(tree)).transpose()?.unwrap_or_default();
    Ok(match &nodes[..] {
        [file] => [&source.name[..], b"/", &file.name].concat(),
        _ => source.name.clone(),
    })
}
