//! Restoring to the original places: looked at first, so that a person sees what will change; databases swapped in
//! whole, files compared and only differences written.

use super::place::Base;
use super::select::Root;
use super::sidecars::{self, Logs};
use super::write::Writer;
use super::{Destination, RestorePlan, RestoreReport, Swapped};
use crate::prove::files::split;
use lastgood_model::node::display_path;
use lastgood_model::{Context, Error, Monitor, Node, NodeKind, Result};
use lastgood_repo::BlobReader;
use lastgood_sources::files::target::{Scratch, Target, TargetOptions, TreeView};
use lastgood_sources::sqlite::{self, SwapOptions, plan_swap};
use serde::Serialize;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Databases are restored into folders called so, beside their originals.
pub(crate) const SCRATCH_PREFIX: &str = ".lastgood-restore";
/// How many examples of each state a report names.
const EXAMPLES: usize = 20;

/// How the original places compare with a recovery point, by kind, size and modification time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InPlaceReport {
    /// Entries that seem the same.
    pub same: u64,
    /// Entries that differ and will be written.
    pub differing: u64,
    /// Entries that are not there and will be made.
    pub missing: u64,
    /// Some of those that differ or are missing.
    pub examples: Vec<PlaceState>,
}

/// One entry that a restore will change.
#[derive(Clone, Debug, Serialize)]
pub struct PlaceState {
    /// Where it is.
    pub path: String,
    /// `differs` or `missing`.
    pub state: &'static str,
    /// What tells that it differs, where its own length and time do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// `logs` are those of databases within trees.
pub(super) fn compare(reader: &BlobReader, roots: &[Root], logs: &Logs, monitor: &Monitor) -> Result<InPlaceReport> {
    let mut report = InPlaceReport::default();
    for root in roots {
        let origin = root.origin_file().filter(|_| root.is_swap(&Destination::InPlace));
        let base = Base::of(root, &Destination::InPlace);
        let mut view = base.view()?;
        root.for_each(reader, monitor, &mut |walked| {
            let full = match &origin {
                Some(origin) => origin.as_os_str().as_bytes().to_vec(),
                None => base.full(base.below(walked.path)),
            };
            let state = match (&origin, &mut view) {
                (Some(origin), _) => {
                    let folder = TreeView::open(origin.parent().unwrap_or(Path::new("/")))?;
                    folder.map_or(Ok(MISSING), |mut view| state(&mut view, split(&full).1, walked.node))?
                }
                (None, Some(view)) => state(view, base.below(walked.path), walked.node)?,
                (None, None) => MISSING,
            };
            let log = match &origin {
                _ if state == MISSING || walked.node.kind != NodeKind::File => None,
                Some(origin) => sidecars::log_of(origin),
                None => logs.of(&full).map(Path::to_owned),
            };
            let because = log.map(|log| {
                let log = log.file_name().map_or(log.as_os_str().as_bytes(), OsStr::as_bytes);
                format!("its log {} holds more than the file itself", display_path(log))
            });
            let state = if because.is_some() { DIFFERS } else { state };
            match state {
                SAME => report.same += 1,
                MISSING => report.missing += 1,
                _ => report.differing += 1,
            }
            if state != SAME && report.examples.len() < EXAMPLES {
                report.examples.push(PlaceState { path: display_path(&full), state, because });
            }
            Ok(())
        })?;
    }
    Ok(report)
}

const SAME: &str = "same";
const MISSING: &str = "missing";
const DIFFERS: &str = "differs";

/// How what is at `path` compares, as far as a look tells. What cannot be looked at differs.
fn state(view: &mut TreeView, path: &[u8], node: &Node) -> Result<&'static str> {
    let (above, name) = split(path);
    let Ok(dir) = view.dir(above) else { return Ok(DIFFERS) };
    let Some(dir) = dir else { return Ok(MISSING) };
    let seen = match dir.look(name) {
        Ok(Some(seen)) => seen,
        Ok(None) => return Ok(MISSING),
        Err(_) => return Ok(DIFFERS),
    };
    let fits = match node.kind {
        NodeKind::Dir => seen.kind == NodeKind::Dir,
        NodeKind::File => seen.kind == NodeKind::File && seen.size == node.size && seen.mtime == node.mtime,
        NodeKind::Symlink => {
            seen.kind == NodeKind::Symlink && dir.read_link(name).is_ok_and(|text| text == node.link_target)
        }
        _ => !matches!(seen.kind, NodeKind::Dir | NodeKind::File),
    };
    Ok(if fits { SAME } else { DIFFERS })
}

pub(super) fn execute(
    plan: &RestorePlan,
    options: TargetOptions,
    monitor: &Monitor,
    report: &mut RestoreReport,
) -> Result<()> {
    // Databases first: a swap that is refused, because somebody has the database open, must not leave files restored
    // that belong to another state of it.
    let trees: Vec<&Root> = plan.roots.iter().filter(|r| !r.is_swap(&Destination::InPlace)).collect();
    let place = |path: &[u8]| plan.request.to.place_of(path);
    let sidecars = sidecars::find(&plan.reader, &plan.snapshot, &trees, monitor, place)?;
    if !plan.request.force {
        sidecars.require_unused()?;
    }
    for root in plan.roots.iter().filter(|r| r.is_swap(&Destination::InPlace)) {
        swap(plan, root, options, monitor, report)?;
    }
    let replaced = sidecars.databases();
    report.moved_aside = sidecars.move_aside()?;
    for root in trees {
        let base = Base::of(root, &plan.request.to);
        let target = Target::open(base.folder(), options)?;
        let mut writer = Writer::new(&plan.reader, &target, monitor)
            .removing(plan.summary.removals.as_ref())
            .replacing(replaced.clone());
        let root = Root { above: Vec::new(), ..root.clone() };
        writer.restore(&root, base.below(&root.path))?;
        writer.finish(report)?;
    }
    Ok(())
}

/// Restores a database beside its original, has SQLite check it, and swaps it in.
fn swap(
    plan: &RestorePlan,
    root: &Root,
    options: TargetOptions,
    monitor: &Monitor,
    report: &mut RestoreReport,
) -> Result<()> {
    let origin = root.origin_file().ok_or_else(|| Error::corrupt("the manifest names no original place"))?;
    let folder = origin.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("/"));
    fs_err::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    crate::prove::remove_leftovers(folder, SCRATCH_PREFIX, monitor)?;
    let scratch = Scratch::create(folder, SCRATCH_PREFIX)?;
    let target = Target::open(scratch.path(), options)?;
    let mut writer = Writer::new(&plan.reader, &target, monitor);
    let root = Root { above: Vec::new(), ..root.clone() };
    writer.restore(&root, &root.node.name)?;
    let failures = report.failures_total;
    writer.finish(report)?;
    if report.failures_total > failures {
        return Err(Error::corrupt(format!(
            "{} could not be restored whole; the original was not touched",
            origin.display()
        ))
        .with_hint("`lastgood verify` tells which recovery points are sound"));
    }
    let record = root.source.as_ref().and_then(|s| plan.manifest.as_ref()?.source(&s.name));
    let facts = record.filter(|r| !r.facts.is_empty()).map(|r| sqlite::Facts::from_map(&r.facts)).transpose()?;
    let restored = scratch.path().join(std::ffi::OsStr::from_bytes(&root.node.name));
    let swap_options = SwapOptions { facts, force: plan.request.force, ..SwapOptions::default() };
    if !may_be_database(&restored)? {
        return Err(Error::corrupt(format!(
            "what the recovery point holds for {} is no SQLite database; the original was not touched",
            origin.display()
        ))
        .with_hint("restore it with --to FOLDER to look at it"));
    }
    let swap = plan_swap(&restored, &origin, swap_options)?;
    let steps = swap.steps.iter().map(ToString::to_string).collect();
    let done = swap.execute()?;
    for warning in done.warnings {
        tracing::warn!("{warning}");
    }
    report.swapped.push(Swapped { path: done.destination.display().to_string(), steps });
    scratch.remove()?;
    Ok(())
}

/// SQLite itself takes a file of a few odd bytes for an empty database.
fn may_be_database(path: &Path) -> Result<bool> {
    let mut head = Vec::new();
    let file = fs_err::File::open(path).context("look at the restored database")?;
    file.take(sqlite::HEADER_BYTES as u64).read_to_end(&mut head).context("look at the restored database")?;
    Ok(head.is_empty() || sqlite::looks_like_database(&head))
}
