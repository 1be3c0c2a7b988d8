//! Backup: every source of an application into one recovery point.
//!
//! Databases come first and file trees after them, so that a row that refers to an uploaded file finds the file in the
//! same point. A source that fails is left out as a whole and named in the manifest; the others are still saved, and
//! the report says that the point is incomplete. When every source failed there is no point.

use crate::emptied::{self, Emptied};
use crate::restore_notes;
use crate::snapshots::{APP_TAG, app_of};
use lastgood_model::manifest::{Manifest, Problem, SourceOutcome, SourceRecord};
use lastgood_model::source::Source;
use lastgood_model::{Error, ErrorKind, Monitor, PackId, Result, SnapshotId, Time};
use lastgood_repo::lock::system_clock;
use lastgood_repo::{Compression, PublishSpec, Repository, Session, SessionOptions};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What to do beyond the usual.
#[derive(Clone, Debug, Default)]
pub struct BackupOptions {
    /// How hard to compress.
    pub compression: Compression,
    /// Read every file, also those that seem unchanged.
    pub force: bool,
    /// Why this point is taken, kept in the manifest.
    pub reason: Option<String>,
    /// Tags beside `app:<name>`.
    pub tags: Vec<String>,
    /// Read and count, store nothing.
    pub dry_run: bool,
    /// How long to wait while somebody removes things from the repository.
    pub lock_wait: Duration,
}

/// A recovery point with its moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DatedPoint {
    /// It.
    pub snapshot: SnapshotId,
    /// Its moment.
    pub time: Time,
}

/// What came of a backup.
#[derive(Clone, Debug, Serialize)]
pub struct BackupReport {
    /// Always `lastgood.backup`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Version of this layout.
    pub schema: u32,
    /// The application.
    pub app: String,
    /// The recovery point; absent after a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// The point it was compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotId>,
    /// A point of this application with a later date than this one: a clock was or is wrong, and `latest` means that point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dated_later: Option<DatedPoint>,
    /// False when something that should be in it is not.
    pub complete: bool,
    /// When it began; the time of the recovery point.
    pub started: Time,
    /// When the last source was finished.
    pub finished: Time,
    /// Every source, failed ones too.
    pub sources: Vec<SourceRecord>,
    /// Configured folders that have no files now, and databases without tables, that had some before. They do not make the
    /// point incomplete.
    pub emptied: Vec<Emptied>,
    /// What went wrong.
    pub problems: Vec<Problem>,
    /// How many problems there were in all.
    pub problems_total: u64,
    /// Files in the point.
    pub files: u64,
    /// Of them, new since the parent.
    pub files_new: u64,
    /// Of them, taken over from the parent without reading.
    pub files_unchanged: u64,
    /// Directories in the point.
    pub dirs: u64,
    /// Logical bytes in the point.
    pub bytes: u64,
    /// Bytes read from the sources.
    pub bytes_read: u64,
    /// Plaintext bytes that the repository did not have.
    pub bytes_new: u64,
    /// What they take in the repository.
    pub bytes_stored: u64,
    /// Packs written.
    pub packs: u64,
    /// Packs that no index file listed and that were listed anew: a run that had died left them, or an index file is lost.
    pub packs_adopted: u64,
    /// True when an index file was damaged or gone. It was made anew, from the packs' own lists of their content.
    pub index_was_lost: bool,
}

/// Takes one recovery point of `sources`.
///
/// # Errors
/// When every source failed, or the repository could not be written; then no new point exists.
pub fn run(
    repository: &Arc<Repository>,
    app: &str,
    sources: &[Box<dyn Source>],
    monitor: &Arc<Monitor>,
    options: &BackupOptions,
) -> Result<BackupReport> {
    if sources.is_empty() {
        return Err(
            Error::invalid("there is no source to protect").with_hint("add a [source.NAME] section to the config")
        );
    }
    let known = points_of(repository, app)?;
    let parents: Vec<SnapshotId> = known.iter().map(|point| point.snapshot).collect();
    let parent = parents.first().copied();
    let session_options = SessionOptions {
        compression: options.compression,
        force: options.force,
        parents: parents.clone(),
        sources: sources.iter().map(|s| s.name().to_owned()).collect(),
        dry_run: options.dry_run,
        lock_wait: options.lock_wait,
    };
    let session = Session::begin(repository.clone(), monitor.clone(), session_options)?;
    let started = session.started();
    let packs_adopted = session.adopted_packs() as u64;
    let index_was_lost = session.index_was_lost();

    let mut records = Vec::new();
    let mut failures = Vec::new();
    for source in in_order(sources) {
        let (record, failure) = capture(&session, source, monitor)?;
        records.push(record);
        failures.extend(failure);
    }
    monitor.check_cancelled()?;
    if failures.len() == records.len() {
        return Err(all_failed(&records, &failures));
    }

    let emptied = emptied::note(repository, &parents, &mut records);
    let clock = system_clock();
    let (problems, problems_total) = monitor.problems();
    let complete = problems_total == 0 && records.iter().all(|r| r.outcome == SourceOutcome::Complete);
    let manifest = Manifest {
        kind: Manifest::TYPE.to_owned(),
        schema: Manifest::SCHEMA,
        app: app.to_owned(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        host: lastgood_repo::lock::hostname(),
        started,
        finished: clock(),
        reason: options.reason.clone(),
        sources: records.clone(),
        complete,
        problems: problems.clone(),
        problems_total,
    };
    let finished = manifest.finished;
    let published = if options.dry_run {
        session.rehearse()?;
        None
    } else {
        let mut tags = vec![format!("{APP_TAG}{app}")];
        if !complete {
            tags.push("incomplete".to_owned());
        }
        tags.extend(options.tags.iter().cloned());
        let paths = records
            .iter()
            .filter(|r| !matches!(r.outcome, SourceOutcome::Failed { .. }))
            .flat_map(|r| r.origins.iter().cloned())
            .collect();
        let restore_notes = restore_notes::write(&manifest, &repository.location());
        Some(session.publish(PublishSpec { manifest, restore_notes, paths, tags })?)
    };
    let c = &monitor.counters;
    Ok(BackupReport {
        kind: "lastgood.backup",
        schema: 1,
        app: app.to_owned(),
        snapshot: published.as_ref().map(|p| p.snapshot.id),
        parent,
        dated_later: known.into_iter().next().filter(|newest| newest.time > started),
        complete,
        started,
        finished,
        sources: records,
        emptied,
        problems,
        problems_total,
        files: c.files.load(Relaxed),
        files_new: c.files_new.load(Relaxed),
        files_unchanged: c.files_unchanged.load(Relaxed),
        dirs: c.dirs.load(Relaxed),
        bytes: c.bytes.load(Relaxed),
        bytes_read: c.bytes_read.load(Relaxed),
        bytes_new: c.bytes_new.load(Relaxed),
        bytes_stored: c.bytes_stored.load(Relaxed),
        packs: published.map_or(0, |p: lastgood_repo::Published| pack_count(&p.packs)),
        packs_adopted,
        index_was_lost,
    })
}

fn pack_count(packs: &[(PackId, u64)]) -> u64 {
    packs.len() as u64
}

/// The points of this application, newest first, whatever host they are from: files carry their own marks of identity.
fn points_of(repository: &Repository, app: &str) -> Result<Vec<DatedPoint>> {
    let snapshots = repository.snapshots(|id, error| {
        tracing::warn!(snapshot = %id, error = %error.chain(), "damaged snapshot is passed over");
    })?;
    let own = snapshots.iter().rev().filter(|s| app_of(&s.file).as_deref() == Some(app));
    Ok(own.map(|s| DatedPoint { snapshot: s.id, time: s.file.time }).collect())
}

/// Databases and commands first, files last, else as configured.
fn in_order(sources: &[Box<dyn Source>]) -> Vec<&dyn Source> {
    let mut ordered: Vec<&dyn Source> = sources.iter().map(|s| &**s).collect();
    ordered.sort_by_key(|s| s.kind() == "files");
    ordered
}

/// Captures one source; a failure of its own comes back beside the record, an end of the session as an error.
fn capture(session: &Session, source: &dyn Source, monitor: &Monitor) -> Result<(SourceRecord, Option<Error>)> {
    let clock = system_clock();
    let started = clock();
    let before = (monitor.counters.bytes.load(Relaxed), monitor.counters.files.load(Relaxed));
    let (_, problems_before) = monitor.problems();
    let sink = session.source(source.name())?;
    let outcome = source.capture(&sink, monitor);
    drop(sink);
    monitor.label_problems(source.name());
    let (_, problems_after) = monitor.problems();
    let mut record = SourceRecord {
        name: source.name().to_owned(),
        kind: source.kind().to_owned(),
        origins: source.origins(),
        outcome: if problems_after > problems_before { SourceOutcome::Partial } else { SourceOutcome::Complete },
        started,
        finished: clock(),
        bytes: monitor.counters.bytes.load(Relaxed) - before.0,
        entries: monitor.counters.files.load(Relaxed) - before.1,
        position: None,
        facts: serde_json::Map::new(),
    };
    let mut failure = None;
    match outcome {
        Ok(captured) => {
            record.position = captured.position;
            record.facts = captured.facts;
            // Where it was is where what is here was: a restore in place goes by that.
            if let Some(missing) = record.facts.get("missing").and_then(|missing| missing.as_array()) {
                record.origins.retain(|origin| !missing.iter().any(|path| path.as_str() == Some(origin)));
            }
        }
        Err(error) => {
            // The end of the session itself is not the misfortune of one source.
            session.check()?;
            session.discard(source.name());
            tracing::debug!(source = source.name(), error = %error.chain(), "source failed");
            let mut text = error.chain();
            if let Some(hint) = error.hint() {
                text.push_str(" (");
                text.push_str(hint);
                text.push(')');
            }
            record.outcome = SourceOutcome::Failed { error: text };
            (record.bytes, record.entries) = (0, 0);
            failure = Some(error);
        }
    }
    Ok((record, failure))
}

/// How an error begins that is about all sources.
const NONE_CAPTURED: &str = "no source could be captured";

/// True when [`run`] failed because no source could be captured: into another repository it would be the same.
pub fn is_of_sources(error: &Error) -> bool {
    error.message().starts_with(NONE_CAPTURED)
}

/// One error for all, of the kind they share.
fn all_failed(records: &[SourceRecord], failures: &[Error]) -> Error {
    let mut told = Vec::new();
    for record in records {
        if let SourceOutcome::Failed { error } = &record.outcome {
            told.push(format!("{}: {error}", record.name));
        }
    }
    let first = failures.first().map_or(ErrorKind::Io, Error::kind);
    // Of these the caller can make something; that a source does not exist is no answer to what was asked.
    let telling = matches!(first, ErrorKind::Locked | ErrorKind::Denied | ErrorKind::Retry | ErrorKind::NoSpace);
    let kind = if telling && failures.iter().all(|f| f.kind() == first) { first } else { ErrorKind::Io };
    Error::new(kind, format!("{NONE_CAPTURED}, so no recovery point was made: {}", told.join("; ")))
        .with_hint("earlier recovery points are untouched; mend the source and run `lastgood backup` again")
}
