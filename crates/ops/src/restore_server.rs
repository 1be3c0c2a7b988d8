//! Restore of a PostgreSQL source into a server: the plan for each of its databases, and carrying them out.
//!
//! Which objects go where, and what the server must have, is the source's own knowledge
//! (`lastgood_sources::postgres::restore`). Here it is found in the recovery point, read from the repository, and, where
//! several databases are restored, taken one after another.

pub use lastgood_sources::postgres::restore::DatabaseFate;

use crate::restore::reading_lock;
use crate::saved::SourceFolder;
use crate::snapshots::{find_node, is_loss, manifest};
use lastgood_model::manifest::{Manifest, SourceOutcome, SourceRecord};
use lastgood_model::{Error, ErrorKind, Monitor, Result, SnapshotId};
use lastgood_repo::{BlobReader, LockGuard, Repository, Snapshot};
use lastgood_sources::postgres::Facts;
use lastgood_sources::postgres::conninfo::Conninfo;
use lastgood_sources::postgres::restore::{
    self, DatabaseRestorePlan, DatabaseRestoreReport, Origin, RestoreOptions, RestoreSummary,
};
use serde::Serialize;
use std::sync::Arc;

/// The kind of source that this is about.
pub const KIND: &str = "postgres";

/// What to restore and where to.
#[derive(Clone, Debug)]
pub struct ServerRequest {
    /// The source; needed when the recovery point has several of this kind.
    pub source: Option<String>,
    /// The server. Its database counts only together with `database`.
    pub server: Conninfo,
    /// The database on the server; `None` for the name it was saved under.
    pub database: Option<String>,
    /// Which parts, and how. What it is called and where it came from is filled in here.
    pub options: RestoreOptions,
}

/// A restore that could begin now, if nothing is in its way.
#[derive(Debug)]
pub struct ServerRestorePlan {
    folder: SourceFolder,
    server: Conninfo,
    databases: Vec<Database>,
    manifest_damaged: bool,
    incomplete: Vec<String>,
    /// What it comes to.
    pub summary: ServerPlanSummary,
    lock: Option<LockGuard>,
}

/// One database, on its way to a place.
#[derive(Debug)]
struct Database {
    to: String,
    options: RestoreOptions,
    plan: DatabaseRestorePlan,
}

/// What a plan comes to, for people and programs.
#[derive(Clone, Debug, Serialize)]
pub struct ServerPlanSummary {
    /// Always `lastgood.database-restore-plan`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Version of this layout.
    pub schema: u32,
    /// The recovery point.
    pub snapshot: SnapshotId,
    /// The source.
    pub source: String,
    /// Each database, with what is in its way.
    pub databases: Vec<RestoreSummary>,
}

/// What came of a restore.
#[derive(Clone, Debug, Serialize)]
pub struct ServerRestoreReport {
    /// Always `lastgood.database-restore`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Version of this layout.
    pub schema: u32,
    /// The recovery point.
    pub snapshot: SnapshotId,
    /// The source.
    pub source: String,
    /// Where to, without secrets.
    pub to: String,
    /// Each database.
    pub databases: Vec<DatabaseRestoreReport>,
    /// True when the recovery point's own manifest is damaged in the repository: what it told of the source is not known.
    pub manifest_damaged: bool,
    /// What the recovery point itself lacks of this source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub incomplete: Vec<String>,
}

/// Plans a restore; changes nothing.
///
/// # Errors
/// [`ErrorKind::Absent`] for a source, database or table that is not there, [`ErrorKind::Invalid`] when it is not said
/// which is meant or options contradict each other, and those of the connection. What is in the way on the server is in
/// the summary.
pub fn plan(
    repository: &Arc<Repository>,
    snapshot: &Snapshot,
    request: ServerRequest,
    monitor: &Arc<Monitor>,
) -> Result<ServerRestorePlan> {
    let lock = reading_lock(repository)?;
    let reader = repository.reader()?;
    let mut manifest_damaged = false;
    let manifest = match manifest(&reader, snapshot) {
        Ok(manifest) => manifest,
        // What was saved tells enough by itself, once somebody says which source is meant.
        Err(error) if request.source.is_some() && is_loss(&error) => {
            manifest_damaged = error.kind() == ErrorKind::Corrupt;
            tracing::warn!("the recovery point's manifest cannot be read: {}", error.chain());
            None
        }
        Err(error) => return Err(error),
    };
    let record = match (&manifest, &request.source) {
        (Some(manifest), wanted) => Some(find_source(manifest, wanted.as_deref())?),
        (None, Some(_)) => None,
        (None, None) => {
            return Err(Error::new(ErrorKind::Absent, "this recovery point has no manifest: another program made it")
                .with_hint("name the folder of the database with --source"));
        }
    };
    let source = record.map(|record| record.name.clone()).or(request.source).unwrap_or_default();
    let folder = open_source(&reader, snapshot, &source, monitor)?;
    let saved = restore::databases(&folder)?;
    let wanted = chosen(&source, &saved, &request.options, request.database.is_some())?;
    let origin = record
        .and_then(|record| Facts::from_map(&record.facts).ok()?.system_identifier)
        .map(|system_identifier| Origin { system_identifier });
    let mut databases = Vec::new();
    for name in wanted {
        let options = RestoreOptions {
            recovery_point: snapshot.id.short(),
            database: Some(name.clone()),
            origin: origin.clone(),
            ..request.options.clone()
        };
        let to = request.database.clone().unwrap_or(name);
        let plan = restore::plan(&folder, &request.server.with_database(&to), &options)?;
        databases.push(Database { to, options, plan });
    }
    let summary = ServerPlanSummary {
        kind: "lastgood.database-restore-plan",
        schema: 1,
        snapshot: snapshot.id,
        source: source.clone(),
        databases: databases.iter().map(|database| database.plan.summary().clone()).collect(),
    };
    let problems = manifest.iter().flat_map(|manifest| &manifest.problems).filter(|problem| problem.source == source);
    let incomplete = problems.map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
    Ok(ServerRestorePlan { folder, server: request.server, databases, manifest_damaged, incomplete, summary, lock })
}

/// The folder of a source, to be read from.
///
/// # Errors
/// [`ErrorKind::Absent`] when the recovery point has no such folder.
pub fn open_source(
    reader: &Arc<BlobReader>,
    snapshot: &Snapshot,
    source: &str,
    monitor: &Arc<Monitor>,
) -> Result<SourceFolder> {
    let node = find_node(reader, snapshot, source.as_bytes())?;
    let tree = node.and_then(|node| node.subtree).ok_or_else(|| {
        Error::new(ErrorKind::Absent, format!("there is no source {source:?} in this recovery point"))
    })?;
    Ok(SourceFolder::new(reader.clone(), tree, monitor.clone()))
}

/// The source that is meant.
fn find_source<'m>(manifest: &'m Manifest, wanted: Option<&str>) -> Result<&'m SourceRecord> {
    let databases: Vec<&SourceRecord> = manifest.sources.iter().filter(|source| source.kind == KIND).collect();
    let names = || databases.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", ");
    let record = match (wanted, databases.as_slice()) {
        (Some(name), _) => manifest.source(name).ok_or_else(|| {
            let known: Vec<&str> = manifest.sources.iter().map(|source| source.name.as_str()).collect();
            Error::new(ErrorKind::Absent, format!("there is no source {name:?} in this recovery point"))
                .with_hint(format!("it has: {}", known.join(", ")))
        })?,
        (None, [only]) => only,
        (None, []) => {
            return Err(Error::new(ErrorKind::Absent, "this recovery point has no PostgreSQL source")
                .with_hint("restore it into a folder: --to FOLDER"));
        }
        (None, _) => {
            return Err(Error::invalid("this recovery point has several PostgreSQL sources, and none is named")
                .with_hint(format!("say --source NAME: {}", names())));
        }
    };
    if record.kind != KIND {
        let error =
            Error::invalid(format!("source {:?} is of kind {}, which no server takes", record.name, record.kind));
        return Err(match databases.is_empty() {
            true => error.with_hint("restore it into a folder: --to FOLDER"),
            false => error.with_hint(format!("restore it into a folder; into a server can go: {}", names())),
        });
    }
    if let SourceOutcome::Failed { error } = &record.outcome {
        let message = format!("source {:?} is not in this recovery point: its capture failed ({error})", record.name);
        return Err(Error::new(ErrorKind::Absent, message)
            .with_hint("restore it from an earlier point: `latest~1`, or see `lastgood snapshots`"));
    }
    Ok(record)
}

/// The saved databases that are meant.
fn chosen(source: &str, saved: &[String], options: &RestoreOptions, has_target: bool) -> Result<Vec<String>> {
    let listed = || saved.join(", ");
    match (&options.database, saved) {
        (_, []) => {
            Err(Error::new(ErrorKind::Absent, format!("source {source:?} has no database in this recovery point")))
        }
        (Some(name), _) if saved.contains(name) => Ok(vec![name.clone()]),
        (Some(name), _) => Err(Error::new(ErrorKind::Absent, format!("source {source:?} has no database {name:?}"))
            .with_hint(format!("it has: {}", listed()))),
        (None, [only]) => Ok(vec![only.clone()]),
        (None, _) if has_target => Err(Error::invalid(format!(
            "source {source:?} has {} databases, and the target is one",
            saved.len()
        ))
        .with_hint(format!(
            "say --database NAME for one of {}; or give a URL without a database to restore each under its own name",
            listed()
        ))),
        (None, _) if is_selective(options) => Err(Error::invalid(format!(
            "source {source:?} has {} databases, and it is not said whose tables are meant",
            saved.len()
        ))
        .with_hint(format!("say --database NAME: {}", listed()))),
        (None, _) => Ok(saved.to_vec()),
    }
}

fn is_selective(options: &RestoreOptions) -> bool {
    !options.tables.is_empty() || !options.schemas.is_empty() || options.rename.is_some()
}

impl ServerRestorePlan {
    /// Something that somebody has made would be taken away.
    pub fn is_destructive(&self) -> bool {
        self.databases.iter().any(|database| database.plan.is_destructive())
    }

    /// Something that is there would be taken away, if only what an unfinished restore has left.
    pub fn replaces_something(&self) -> bool {
        self.is_destructive() || self.summary.databases.iter().any(|database| database.replaces.is_some())
    }

    /// What is in the way, as the error it would end with.
    pub fn refusal(&self) -> Option<Error> {
        self.databases.iter().find_map(|database| {
            let refusal = database.plan.refusal()?;
            Some(if self.databases.len() > 1 {
                refusal.context(format!("database {:?}", database.to))
            } else {
                refusal
            })
        })
    }

    /// Carries it out, one database after another; one that fails does not keep the others from being restored.
    ///
    /// # Errors
    /// What is in the way, before anything was changed; else the first failure. The message says which databases are
    /// restored, and what of others failed.
    pub fn execute(self, monitor: &Arc<Monitor>) -> Result<ServerRestoreReport> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let several = self.databases.len() > 1;
        let mut done: Vec<DatabaseRestoreReport> = Vec::new();
        let mut failed: Vec<(String, Error)> = Vec::new();
        for Database { to, options, plan } in self.databases {
            let outcome = match done.is_empty() && failed.is_empty() {
                true => plan.execute(&self.folder, monitor),
                // The one before may have made roles that this one needs, too.
                false => restore::plan(&self.folder, &self.server.with_database(&to), &options)
                    .and_then(|plan| plan.execute(&self.folder, monitor)),
            };
            match outcome {
                Ok(report) => done.push(report),
                Err(error) if !several => return Err(error),
                Err(error) => {
                    let is_over = matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Retry);
                    failed.push((to, error));
                    if is_over {
                        break;
                    }
                }
            }
        }
        let several_failed: Vec<String> =
            failed.iter().skip(1).map(|(to, error)| format!("{to:?}: {}", error.chain())).collect();
        if let Some((to, error)) = failed.into_iter().next() {
            let names: Vec<&str> = done.iter().map(|report| report.database.as_str()).collect();
            let mut act = match names.is_empty() {
                true => format!("restore database {to:?}; none was restored"),
                false => format!("restore database {to:?}; restored were {}", names.join(", ")),
            };
            if !several_failed.is_empty() {
                act.push_str(&format!("; others failed, too: {}", several_failed.join("; ")));
            }
            return Err(error.context(act));
        }
        drop(self.lock);
        let to = match done.as_slice() {
            [only] => self.server.with_database(&only.database).to_string_without_secrets(),
            _ => self.server.host_shown(),
        };
        Ok(ServerRestoreReport {
            kind: "lastgood.database-restore",
            schema: 1,
            snapshot: self.summary.snapshot,
            source: self.summary.source,
            to,
            databases: done,
            manifest_damaged: self.manifest_damaged,
            incomplete: self.incomplete,
        })
    }
}
