//! Restoring to the original places: looked at first, so that a person sees what will change; databases swapped in
//! whole, files compared and only differences written.

use super::select::Root;
use super::sidecars;
use super::write::Writer;
use super::{Destination, RestorePlan, RestoreReport, Swapped, without_source};
use lastgood_model::node::display_path;
use lastgood_model::{Context, Error, Monitor, NodeKind, Result};
use lastgood_repo::BlobReader;
use lastgood_sources::files::target::{Scratch, Target, TargetOptions};
use lastgood_sources::sqlite::{self, SwapOptions, plan_swap};
use serde::Serialize;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Databases are restored into folders called so, beside their originals.
const SCRATCH_PREFIX: &str = ".lastgood-restore";
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
}

pub(super) fn compare(reader: &BlobReader, roots: &[Root], monitor: &Monitor) -> Result<InPlaceReport> {
    let mut report = InPlaceReport::default();
    for root in roots {
        let swap = root.is_swap(&Destination::InPlace);
        root.for_each(reader, monitor, &mut |walked| {
            let path = match root.origin_file().filter(|_| swap) {
                Some(origin) => origin,
                None => place_of(walked.path),
            };
            let state = match fs_err::symlink_metadata(&path) {
                Err(_) => {
                    report.missing += 1;
                    "missing"
                }
                Ok(meta) => {
                    let kind_fits = match walked.node.kind {
                        NodeKind::Dir => meta.is_dir(),
                        NodeKind::File => meta.is_file() && meta.len() == walked.node.size,
                        NodeKind::Symlink => {
                            fs_err::read_link(&path).is_ok_and(|t| t.as_os_str().as_bytes() == walked.node.link_target)
                        }
                        _ => !meta.is_dir() && !meta.is_file(),
                    };
                    let mtime = (meta.mtime(), meta.mtime_nsec());
                    let time_fits = walked.node.kind != NodeKind::File
                        || mtime == (walked.node.mtime.secs, i64::from(walked.node.mtime.nanos));
                    if kind_fits && time_fits {
                        report.same += 1;
                        return Ok(());
                    }
                    report.differing += 1;
                    "differs"
                }
            };
            if report.examples.len() < EXAMPLES {
                report.examples.push(PlaceState { path: display_path(path.as_os_str().as_bytes()), state });
            }
            Ok(())
        })?;
    }
    Ok(report)
}

fn place_of(path: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(&[b"/", without_source(path)].concat()))
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
    let sidecars = sidecars::find(&plan.reader, &plan.snapshot, &trees, monitor, place_of)?;
    if !plan.request.force {
        sidecars.require_unused()?;
    }
    for root in plan.roots.iter().filter(|r| r.is_swap(&Destination::InPlace)) {
        swap(plan, root, options, monitor, report)?;
    }
    report.moved_aside = sidecars.move_aside()?;
    for root in trees {
        let path = without_source(&root.path);
        let (above, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        let parent = PathBuf::from(std::ffi::OsStr::from_bytes(&[b"/", above].concat()));
        let target = Target::open(&parent, options)?;
        let mut writer = Writer::new(&plan.reader, &target, monitor);
        let root = Root { above: Vec::new(), ..root.clone() };
        writer.restore(&root, name)?;
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
    crate::prove::remove_leftovers(folder, SCRATCH_PREFIX);
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
