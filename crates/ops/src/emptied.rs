//! Folders that have become empty. A disk that is not mounted leaves an empty folder behind, and a backup of it
//! succeeds: nothing in it failed. Whether somebody emptied it on purpose cannot be told from here, so the point is
//! complete, and whoever took it is told what the folder held before.

use crate::snapshots::manifest;
use lastgood_model::manifest::{Manifest, SourceOutcome, SourceRecord};
use lastgood_model::{Result, SnapshotId, Time};
use lastgood_repo::{BlobReader, Repository};
use serde::Serialize;
use serde_json::{Value, json};

/// How many of the newest points are asked. So long a folder that was emptied on purpose is told of, at most.
const POINTS_ASKED_MAX: usize = 32;

/// A configured folder that has no files now and had some in an earlier recovery point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Emptied {
    /// The source it belongs to.
    pub source: String,
    /// The folder.
    pub path: String,
    /// The newest point in which it had files.
    pub snapshot: SnapshotId,
    /// Its moment.
    pub time: Time,
    /// How many files the source had then.
    pub files: u64,
}

/// Finds the folders of `records` that have become empty since one of `points` (newest first), and notes them in the
/// facts of their source as `emptied`. A point that cannot be read is passed over.
pub(crate) fn note(repository: &Repository, points: &[SnapshotId], records: &mut [SourceRecord]) -> Vec<Emptied> {
    let mut empty: Vec<(usize, String)> = Vec::new();
    for (at, record) in records.iter().enumerate().filter(|(_, r)| !is_failed(r)) {
        empty.extend(without_files(record).map(|path| (at, path.to_owned())));
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
                        let Some(files) = files_at(&manifest, &records[*at].name, path) else { return true };
                        let source = records[*at].name.clone();
                        found.push((*at, Emptied { source, path: path.clone(), snapshot: *id, time, files }));
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
            tracing::warn!(error = %error.chain(), "whether empty folders had files before could not be found out");
        }
    }
    for (at, emptied) in &found {
        let fact = json!({
            "path": emptied.path, "snapshot": emptied.snapshot, "time": emptied.time, "files": emptied.files
        });
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
