//! Folders and databases that have become empty. A disk that is not mounted leaves an empty folder behind, an
//! application that finds no database makes an empty one, a migration drops all tables, and a backup of either succeeds: nothing in it failed. Whether
//! somebody emptied it on purpose cannot be told from here, so the point is complete, and whoever took it is told what
//! was there before.

use crate::snapshots::{app_of, manifest};
use lastgood_model::manifest::{Manifest, SourceOutcome, SourceRecord};
use lastgood_model::{Result, SnapshotId, Time};
use lastgood_repo::{BlobReader, Repository};
use serde::Serialize;
use serde_json::{Value, json};

/// How many of the newest points are asked. So long a folder that was emptied on purpose is told of, at most.
const POINTS_ASKED_MAX: usize = 32;

/// The kind of a source that is one SQLite database.
const SQLITE: &str = "sqlite";
/// The kind of a source that is databases of a server.
const POSTGRES: &str = "postgres";

/// A configured folder that has no files now, or a database without tables, that had some in an earlier recovery point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Emptied {
    /// The source it belongs to.
    pub source: String,
    /// The folder, the database's file, or the name of a server's database.
    pub path: String,
    /// The newest point in which it had content.
    pub snapshot: SnapshotId,
    /// Its moment.
    pub time: Time,
    /// What it had then.
    #[serde(flatten)]
    pub had: Had,
}

/// What was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Had {
    /// A folder.
    Folder {
        /// How many files the source had.
        files: u64,
    },
    /// A database.
    Database {
        /// Its tables.
        tables: u64,
        /// Rows of them all.
        rows: u64,
    },
    /// A database of a server.
    OnServer {
        /// Its tables.
        tables: u64,
        /// Rows of them all.
        rows: u64,
    },
}

/// Finds the folders and databases of `records` that have become empty since one of `points` (newest first), and notes
/// them in the facts of their source as `emptied`. A point that cannot be read is passed over.
pub(crate) fn note(repository: &Repository, points: &[SnapshotId], records: &mut [SourceRecord]) -> Vec<Emptied> {
    let mut empty: Vec<(usize, String)> = Vec::new();
    for (at, record) in records.iter().enumerate().filter(|(_, r)| !is_failed(r)) {
        empty.extend(without_files(record).map(|path| (at, path.to_owned())));
        empty.extend(without_tables(record).map(|path| (at, path.to_owned())));
        empty.extend(databases(record).filter(|one| one.is_empty()).map(|one| (at, one.name.to_owned())));
    }
    if empty.is_empty() || points.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    match repository.reader() {
        Ok(reader) => {
            for id in points.iter().take(POINTS_ASKED_MAX) {
                match earlier(repository, &reader, *id) {
                    Ok(Some((time, manifest))) => empty.retain(|(at, path)| {
                        let Some(had) = had(&manifest, &records[*at], path) else { return true };
                        let source = records[*at].name.clone();
                        found.push((*at, Emptied { source, path: path.clone(), snapshot: *id, time, had }));
                        false
                    }),
                    Ok(None) => {}
                    Err(error) => tracing::debug!(snapshot = %id, error = %error.chain(), "not compared with"),
                }
                if empty.is_empty() {
                    break;
                }
            }
        }
        Err(error) => {
            tracing::warn!(error = %error.chain(), "whether what is empty now had content before could not be found out");
        }
    }
    for (at, emptied) in &found {
        let mut fact = json!({ "path": emptied.path, "snapshot": emptied.snapshot, "time": emptied.time });
        match emptied.had {
            Had::Folder { files } => fact["files"] = json!(files),
            Had::Database { tables, rows } | Had::OnServer { tables, rows } => {
                (fact["tables"], fact["rows"]) = (json!(tables), json!(rows));
            }
        }
        match records[*at].facts.entry("emptied").or_insert_with(|| json!([])) {
            Value::Array(list) => list.push(fact),
            other => *other = json!([fact]),
        }
    }
    found.into_iter().map(|(_, emptied)| emptied).collect()
}

fn earlier(repository: &Repository, reader: &BlobReader, id: SnapshotId) -> Result<Option<(Time, Manifest)>> {
    let snapshot = repository.snapshot(id)?;
    Ok(manifest(reader, &snapshot)?.map(|manifest| (snapshot.file.time, manifest)))
}

/// What the source of `now` had at `path`, when there was something.
fn had(manifest: &Manifest, now: &SourceRecord, path: &str) -> Option<Had> {
    match now.kind.as_str() {
        SQLITE => manifest.source(&now.name).and_then(tables_of),
        POSTGRES => databases(manifest.source(&now.name).filter(|record| !is_failed(record))?)
            .find(|one| one.name == path && one.tables > 0)
            .map(|one| Had::OnServer { tables: one.tables, rows: one.rows }),
        _ => files_at(manifest, &now.name, path).map(|files| Had::Folder { files }),
    }
}

/// A database of a server, as a manifest tells of it.
struct OnServer<'a> {
    name: &'a str,
    tables: u64,
    rows: u64,
    /// Tables whose rows were not asked for.
    described: u64,
}

impl OnServer<'_> {
    fn is_empty(&self) -> bool {
        self.tables == 0 && self.described == 0
    }
}

fn databases(record: &SourceRecord) -> impl Iterator<Item = OnServer<'_>> {
    let all = record.facts.get("databases").and_then(Value::as_array).filter(|_| record.kind == POSTGRES);
    all.into_iter().flatten().filter_map(|database| {
        let number = |key: &str| database.get(key).and_then(Value::as_u64);
        Some(OnServer {
            name: database.get("name")?.as_str()?,
            tables: number("tables")?,
            rows: number("rows")?,
            described: number("tables_described").unwrap_or(0),
        })
    })
}

/// The databases of a server without any table in a recovery point.
pub fn databases_without_tables(record: &SourceRecord) -> impl Iterator<Item = &str> {
    databases(record).filter(OnServer::is_empty).map(|database| database.name)
}

/// The tables of a database, when it is one and has some.
fn tables_of(record: &SourceRecord) -> Option<Had> {
    if record.kind != SQLITE || is_failed(record) {
        return None;
    }
    let rows = record.facts.get("rows").and_then(Value::as_object).filter(|rows| !rows.is_empty())?;
    Some(Had::Database { tables: rows.len() as u64, rows: rows.values().filter_map(Value::as_u64).sum() })
}

/// A database in which nothing is: its path. One whose tables could not be read is not known to be empty.
fn without_tables(record: &SourceRecord) -> impl Iterator<Item = &str> {
    let is_none = |key: &str| record.facts.get(key).and_then(Value::as_object).is_none_or(serde_json::Map::is_empty);
    let is_empty = record.kind == SQLITE && is_none("rows") && is_none("unread");
    record.origins.iter().map(String::as_str).take(usize::from(is_empty))
}

/// The newest recovery point of an application in which the database of a source had tables.
///
/// # Errors
/// Those of listing and reading. A point that cannot be read is passed over.
pub fn last_with_tables(repository: &Repository, app: &str, source: &str) -> Result<Option<(SnapshotId, Time)>> {
    let snapshots = repository.snapshots(|_, _| {})?;
    let own = snapshots.iter().rev().filter(|s| app_of(&s.file).as_deref() == Some(app));
    let reader = repository.reader()?;
    for snapshot in own.take(POINTS_ASKED_MAX) {
        match manifest(&reader, snapshot) {
            Ok(Some(manifest)) if manifest.source(source).and_then(tables_of).is_some() => {
                return Ok(Some((snapshot.id, snapshot.file.time)));
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(snapshot = %snapshot.id, error = %error.chain(), "passed over"),
        }
    }
    Ok(None)
}

/// How many files the source `name` had, when there were some below `path`.
fn files_at(manifest: &Manifest, name: &str, path: &str) -> Option<u64> {
    let record = manifest.source(name).filter(|record| !is_failed(record))?;
    let had = record.entries > 0
        && record.origins.iter().any(|origin| origin == path)
        && !without_files(record).any(|empty| empty == path);
    had.then_some(record.entries)
}

/// The configured folders without files, as the source said.
fn without_files(record: &SourceRecord) -> impl Iterator<Item = &str> {
    record.facts.get("without_files").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn is_failed(record: &SourceRecord) -> bool {
    matches!(record.outcome, SourceOutcome::Failed { .. })
}
