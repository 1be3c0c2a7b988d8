//! Whether a folder holds exactly what would be restored into it: the trace of a restore that was stopped after its last
//! write, or is asked for twice. Looked at without changing anything.

use super::select::Root;
use crate::prove::files::{Comparison, split};
use lastgood_model::{Monitor, NodeKind, Result};
use lastgood_repo::BlobReader;
use lastgood_sources::files::target::TreeView;
use std::path::Path;

/// What is there already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// `None` when anything is missing or differs; the content is read only when all lengths are right.
pub(super) fn look(reader: &BlobReader, folder: &Path, roots: &[Root], monitor: &Monitor) -> Result<Option<Found>> {
    let Some(mut view) = TreeView::open(folder)? else { return Ok(None) };
    let mut fits = true;
    for root in roots {
        let mut unreadable = false;
        root.for_each_past(reader, monitor, &mut |_| unreadable = true, &mut |walked| {
            let (above, name) = split(walked.path);
            let seen = view.dir(above).ok().flatten().and_then(|dir| dir.look(name).ok().flatten());
            fits = fits
                && seen.is_some_and(|seen| {
                    (seen.kind == NodeKind::Dir) == (walked.node.kind == NodeKind::Dir)
                        && (walked.node.kind != NodeKind::File || seen.size == walked.node.size)
                });
            Ok(())
        })?;
        if !fits || unreadable {
            return Ok(None);
        }
    }
    let mut comparison = Comparison::new(reader, folder, monitor)?;
    for root in roots {
        root.for_each(reader, monitor, &mut |walked| comparison.add(walked.path, None, walked.node.clone()))?;
    }
    let (files, bytes, mismatches) = comparison.finish()?.sums();
    Ok((mismatches == 0).then_some(Found { files, bytes }))
}
