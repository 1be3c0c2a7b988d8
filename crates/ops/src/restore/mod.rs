//! Restore: a recovery point, or part of one, back into a folder or to where it came from.
//!
//! A restore is planned first and the plan is a value: what will be written where, and what is in the way. Only
//! [`RestorePlan::execute`] changes anything, and it consumes the plan. Into a folder, each source gets a folder of its
//! own that must not exist yet, so nothing is overwritten unless that was asked for. A restore that was interrupted
//! leaves a mark in its folder; repeating it then compares what is there and writes only what is missing.

mod abandon;
mod already;
mod compare;
mod in_place;
mod interrupted;
mod mark;
mod place;
mod removals;
mod select;
mod sidecars;
mod window;
mod write;

pub(crate) use in_place::SCRATCH_PREFIX;
pub use in_place::{InPlaceReport, PlaceState};
pub use removals::{Kept, Removal, Removals};

use crate::snapshots::{is_loss, manifest};
use lastgood_model::manifest::{Manifest, Problem, ProblemKind, SourceOutcome};
use lastgood_model::node::display_path;
use lastgood_model::{ErrorKind, Monitor, NodeKind, Result, SnapshotId};
use lastgood_repo::{BlobReader, LockGuard, LockMode, Repository, Snapshot};
use lastgood_sources::files::target::{Overwrite, OwnerPolicy, TargetOptions};
use mark::Mark;
use select::{Root, Selection};
use serde::Serialize;
use sidecars::Sidecars;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use write::Writer;

/// Where to restore to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `<folder>/<source>/…`
    Folder(PathBuf),
    /// The original places.
    InPlace,
}

impl Destination {
    /// Where a path of the recovery point goes that is not swapped in.
    fn place_of(&self, path: &[u8]) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(OsStr::from_bytes(path)),
            Self::InPlace => PathBuf::from(OsStr::from_bytes(&[b"/", without_source(path)].concat())),
        }
    }
}

/// What to restore and how.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// Where to.
    pub to: Destination,
    /// Only these sources; empty for all.
    pub sources: Vec<String>,
    /// Only these paths and what is below them: `<source>/…`, or an original absolute path. Empty for all.
    pub paths: Vec<Vec<u8>>,
    /// Overwrite what is there and differs.
    pub overwrite: bool,
    /// Remove what is there and not in the recovery point, within restored directories.
    pub delete_extra: bool,
    /// Places that are never removed, nor what holds them: repositories and their keys. The repository that is restored
    /// from is always among them.
    pub never_remove: Vec<PathBuf>,
    /// Whom files belong to; `None` for the default of [`TargetOptions`].
    pub owners: Option<OwnerPolicy>,
    /// Replace a database although somebody has it open.
    pub force: bool,
    /// Only the plan is wanted: that nobody may write to the place now is told in it, and no error.
    pub dry_run: bool,
}

impl RestoreRequest {
    /// All of it, into a folder.
    pub fn all_to(folder: impl Into<PathBuf>) -> Self {
        Self {
            to: Destination::Folder(folder.into()),
            sources: Vec::new(),
            paths: Vec::new(),
            overwrite: false,
            delete_extra: false,
            never_remove: Vec::new(),
            owners: None,
            force: false,
            dry_run: false,
        }
    }
}

/// A restore that could begin now.
#[derive(Debug)]
pub struct RestorePlan {
    repository: Arc<Repository>,
    reader: Arc<BlobReader>,
    snapshot: Snapshot,
    manifest: Option<Manifest>,
    manifest_damaged: bool,
    request: RestoreRequest,
    roots: Vec<Root>,
    resumes: bool,
    already: Option<already::Found>,
    /// What it comes to.
    pub summary: PlanSummary,
    lock: Option<LockGuard>,
}

/// What a plan comes to, for people and programs.
#[derive(Clone, Debug, Serialize)]
pub struct PlanSummary {
    /// Always `lastgood.restore-plan`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Version of this layout.
    pub schema: u32,
    /// The recovery point.
    pub snapshot: SnapshotId,
    /// What is restored, with the place it goes to.
    pub items: Vec<PlanItem>,
    /// Files in all.
    pub files: u64,
    /// Directories in all.
    pub dirs: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// True when an interrupted restore is taken up again.
    pub resumes: bool,
    /// Of a plan that was only wanted to be shown: why the restore could not write to its place now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
    /// For a restore in place: how what is there compares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_place: Option<InPlaceReport>,
    /// Side files of databases that would spoil restored ones, and will be moved aside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub side_files: Vec<String>,
    /// What will be removed, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removals: Option<Removals>,
}

/// One thing to restore.
#[derive(Clone, Debug, Serialize)]
pub struct PlanItem {
    /// Path in the recovery point.
    pub from: String,
    /// Path it goes to.
    pub to: String,
    /// True when a database is to be swapped in.
    pub swap: bool,
}

/// What came of a restore.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreReport {
    /// Always `lastgood.restore`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Version of this layout.
    pub schema: u32,
    /// The recovery point.
    pub snapshot: SnapshotId,
    /// Where to.
    pub to: String,
    /// Files restored or found the same.
    pub files: u64,
    /// Of them, found the same.
    pub files_same: u64,
    /// Directories restored.
    pub dirs: u64,
    /// Bytes of all these files.
    pub bytes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Entries removed because the recovery point does not have them.
    pub removed: u64,
    /// Files that could not be restored whole; nothing of them was left behind.
    pub failures: Vec<RestoreFailure>,
    /// How many there were in all.
    pub failures_total: u64,
    /// Lesser trouble, such as metadata that could not be set.
    pub problems: Vec<Problem>,
    /// How many there were in all.
    pub problems_total: u64,
    /// Databases swapped in, and where the old ones went.
    pub swapped: Vec<Swapped>,
    /// True when the recovery point's own manifest is damaged in the repository: what it told of the files is not known.
    pub manifest_damaged: bool,
    /// What the recovery point itself lacks: sources that failed when it was taken, or in which something was unreadable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub incomplete: Vec<String>,
    /// Side files of databases that would have spoilt restored ones, and where they are now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moved_aside: Vec<String>,
}

/// A file that could not be restored.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreFailure {
    /// Where it was to go.
    pub path: String,
    /// Why.
    pub error: String,
    /// True when bytes in the repository are damaged or missing.
    pub damage: bool,
}

/// A database that was replaced.
#[derive(Clone, Debug, Serialize)]
pub struct Swapped {
    /// The database.
    pub path: String,
    /// What was done, step by step.
    pub steps: Vec<String>,
}

/// Plans a restore.
///
/// # Errors
/// [`ErrorKind::Absent`] for a source or path that is not there, [`ErrorKind::Conflict`] when something is in the way or
/// the target can be no folder, [`ErrorKind::Unsupported`] for a source that has no original place.
pub fn plan(
    repository: &Arc<Repository>,
    snapshot: Snapshot,
    mut request: RestoreRequest,
    monitor: &Monitor,
) -> Result<RestorePlan> {
    let lock = reading_lock(repository)?;
    let reader = repository.reader()?;
    let mut manifest_damaged = false;
    let manifest = match manifest(&reader, &snapshot) {
        Ok(manifest) => manifest,
        // Into a folder everything can be restored without it.
        Err(error)
            if request.to != Destination::InPlace && (is_loss(&error) || error.kind() == ErrorKind::Unsupported) =>
        {
            let path = format!("{}/manifest.json", Manifest::FOLDER);
            manifest_damaged = error.kind() == ErrorKind::Corrupt;
            monitor.problem(Problem::new(path, ProblemKind::Unreadable, error.chain()));
            None
        }
        Err(error) => return Err(error),
    };
    let selection = Selection { sources: &request.sources, paths: &request.paths };
    let roots = select::roots(&reader, &snapshot, manifest.as_ref(), &selection, &request.to)?;
    let obstacle = place::judge(&roots, &request, &repository.location())?;
    request.never_remove.push(PathBuf::from(repository.location()));
    let mut already = None;
    let resumes = match &request.to {
        Destination::Folder(folder) => match mark::may_begin(folder, snapshot.id, &roots, request.overwrite) {
            Ok(resumes) => resumes,
            Err(occupied) if request.delete_extra => return Err(occupied),
            // A restore that was killed at its very end is done; repeating it must not be an error.
            Err(occupied) => match already::look(&reader, folder, &roots, monitor)? {
                Some(found) => {
                    already = Some(found);
                    false
                }
                None => return Err(occupied),
            },
        },
        Destination::InPlace => false,
    };
    let mut summary = PlanSummary {
        kind: "lastgood.restore-plan",
        schema: 1,
        snapshot: snapshot.id,
        items: roots
            .iter()
            .map(|root| PlanItem {
                from: display_path(&root.path),
                to: root.destination(&request.to),
                swap: root.is_swap(&request.to),
            })
            .collect(),
        files: 0,
        dirs: 0,
        bytes: 0,
        resumes,
        obstacle,
        in_place: None,
        side_files: Vec::new(),
        removals: None,
    };
    for root in &roots {
        root.for_each(&reader, monitor, &mut |walked| {
            match walked.node.kind {
                NodeKind::Dir => summary.dirs += 1,
                _ => {
                    summary.files += 1;
                    summary.bytes = summary.bytes.saturating_add(walked.node.size);
                }
            }
            Ok(())
        })?;
    }
    let overwrites = request.overwrite || resumes || request.to == Destination::InPlace;
    let sides = if overwrites {
        let trees: Vec<&Root> = roots.iter().filter(|root| !root.is_swap(&request.to)).collect();
        sidecars::find(&reader, &snapshot, &trees, monitor, |path| request.to.place_of(path))?
    } else {
        Sidecars::default()
    };
    let spared = sides.paths();
    let mut side_files: Vec<String> = spared.iter().map(|path| display_path(path)).collect();
    side_files.sort_unstable();
    summary.side_files = side_files;
    if request.to == Destination::InPlace {
        summary.in_place = Some(in_place::compare(&reader, &roots, &sides.logs(), monitor)?);
    }
    if request.delete_extra {
        summary.removals = Some(removals::find(&reader, &roots, &request, &spared, monitor)?);
    }
    Ok(RestorePlan {
        repository: repository.clone(),
        reader,
        snapshot,
        manifest,
        manifest_damaged,
        request,
        roots,
        resumes,
        already,
        summary,
        lock,
    })
}

impl RestorePlan {
    /// The recovery point.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Its manifest, when lastgood wrote it.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Carries the plan out.
    ///
    /// # Errors
    /// When nothing more can be restored: the target is full or gone, or a stop was asked for. What was restored stays
    /// and the restore can be repeated. Single files that fail are in the report instead.
    pub fn execute(self, monitor: &Arc<Monitor>) -> Result<RestoreReport> {
        use std::sync::atomic::Ordering::Relaxed;
        monitor.counters.bytes_expected.store(self.summary.bytes, Relaxed);
        let overwrite = self.request.overwrite || self.resumes || self.request.to == Destination::InPlace;
        let defaults = TargetOptions::default();
        let options = TargetOptions {
            overwrite: if overwrite { Overwrite::IfDifferent } else { Overwrite::Never },
            delete_extra: self.request.delete_extra,
            owners: self.request.owners.unwrap_or(defaults.owners),
            ..defaults
        };
        let mut report = RestoreReport {
            kind: "lastgood.restore",
            schema: 1,
            snapshot: self.snapshot.id,
            to: match &self.request.to {
                Destination::Folder(folder) => folder.display().to_string(),
                Destination::InPlace => "original places".to_owned(),
            },
            files: 0,
            files_same: 0,
            dirs: 0,
            bytes: 0,
            bytes_written: 0,
            removed: 0,
            failures: Vec::new(),
            failures_total: 0,
            problems: Vec::new(),
            problems_total: 0,
            swapped: Vec::new(),
            manifest_damaged: self.manifest_damaged,
            incomplete: self.manifest.iter().flat_map(lacks).collect(),
            moved_aside: Vec::new(),
        };
        if let Err(error) = self.carry_out(options, monitor, &mut report) {
            return Err(match error.kind() {
                ErrorKind::Cancelled => error.with_hint(interrupted::left(&self, &report)),
                ErrorKind::NoSpace => {
                    let hint = interrupted::out_of_room(&self, error.hint());
                    error.with_hint(hint)
                }
                _ => error,
            });
        }
        let (problems, total) = monitor.problems();
        report.problems = problems;
        report.problems_total = total;
        drop(self.lock);
        tracing::debug!(repository = %self.repository.location(), "restored");
        Ok(report)
    }

    fn carry_out(&self, options: TargetOptions, monitor: &Arc<Monitor>, report: &mut RestoreReport) -> Result<()> {
        match &self.request.to {
            Destination::Folder(_) if self.already.is_some() => {
                let found = self.already.unwrap_or_default();
                (report.files, report.files_same) = (found.files, found.files);
                (report.dirs, report.bytes) = (self.summary.dirs, found.bytes);
            }
            Destination::Folder(folder) => {
                let mut replaced = HashSet::new();
                if options.overwrite != Overwrite::Never {
                    let place = |path: &[u8]| self.request.to.place_of(path);
                    let roots: Vec<&Root> = self.roots.iter().collect();
                    let sidecars = sidecars::find(&self.reader, &self.snapshot, &roots, monitor, place)?;
                    if !self.request.force {
                        sidecars.require_unused()?;
                    }
                    replaced = sidecars.databases();
                    report.moved_aside = sidecars.move_aside()?;
                }
                let target = place::open(folder, options)?;
                let mark = Mark::set(folder, self.snapshot.id)?;
                let made_before = self.resumes && !self.request.overwrite;
                let mut writer = Writer::new(&self.reader, &target, monitor)
                    .resuming(made_before)
                    .removing(self.summary.removals.as_ref())
                    .replacing(replaced);
                for root in &self.roots {
                    writer.restore(root, &root.path)?;
                }
                writer.finish(report)?;
                mark.clear()?;
            }
            Destination::InPlace => in_place::execute(self, options, monitor, report)?,
        }
        Ok(())
    }
}

/// How long a restore waits for somebody who deletes.
const PRUNE_WAIT: Duration = Duration::from_secs(60);

/// A lock that keeps others from deleting what is being read. Where none can be written, because the store is read-only
/// or full, a restore goes on without: that is when it is needed most.
pub(crate) fn reading_lock(repository: &Repository) -> Result<Option<LockGuard>> {
    // Whoever prunes needs to be alone for a moment only.
    match repository.lock_within(LockMode::Reading, PRUNE_WAIT, &Monitor::new()) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::NoSpace | ErrorKind::Unsupported) => {
            tracing::warn!(error = %error.chain(), "restoring without a lock; nobody may prune the repository meanwhile");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A source's original place cannot be told apart from its path in the snapshot but for the source's name in front.
fn without_source(path: &[u8]) -> &[u8] {
    match path.iter().position(|b| *b == b'/') {
        Some(slash) => &path[slash + 1..],
        None => b"",
    }
}

/// What a recovery point lacks, in words.
fn lacks(manifest: &Manifest) -> Vec<String> {
    let told = manifest.sources.iter().filter_map(|source| match &source.outcome {
        SourceOutcome::Complete => None,
        SourceOutcome::Partial => Some(format!("source {} is partial", source.name)),
        SourceOutcome::Failed { error } => Some(format!("source {} is missing: {error}", source.name)),
    });
    let problems = manifest.problems.iter().take(5).map(|p| format!("{}: {}", p.path, p.message));
    told.chain(problems).collect()
}
