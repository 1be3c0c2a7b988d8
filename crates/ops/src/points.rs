//! The recovery points of an application as retention looks at them.

use crate::snapshots::{APP_TAG, app_of, is_loss, manifest};
use lastgood_model::manifest::{Manifest, SourceOutcome};
use lastgood_model::retention::{Point, PointSource};
use lastgood_model::{Error, ErrorKind, Result, SnapshotId, Time};
use lastgood_repo::{BlobReader, Repository, Snapshot};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The tag of a recovery point in which something is missing.
pub const INCOMPLETE_TAG: &str = "incomplete";
/// Manifests are small, and far away each costs some round trips: so many are read at once.
const READERS: usize = 8;

/// A snapshot with what is known of it.
#[derive(Debug)]
pub struct KnownPoint {
    /// It.
    pub snapshot: Snapshot,
    /// Its manifest, when it has one that can be read.
    pub manifest: Option<Manifest>,
    /// Why it cannot be read.
    pub damage: Option<Error>,
}

/// All that a repository holds of one application.
#[derive(Debug, Default)]
pub struct Points {
    /// Its points, oldest first.
    pub points: Vec<KnownPoint>,
    /// Snapshots that cannot be read at all; whose they are nobody can say.
    pub damaged: Vec<(SnapshotId, Error)>,
    /// How many readable snapshots are of other applications or programs.
    pub others: usize,
    /// All snapshots that can be read, whosever.
    pub all: Vec<SnapshotId>,
}

/// Reads all points of an application with their manifests.
///
/// # Errors
/// When the repository cannot be read. A single point that cannot be is among the points, as damaged.
pub fn of_app(repository: &Repository, app: &str) -> Result<Points> {
    let mut found = Points::default();
    let mut snapshots = repository.snapshots(|id, error| found.damaged.push((id, error)))?;
    found.all = snapshots.iter().map(|snapshot| snapshot.id).collect();
    snapshots.retain(|snapshot| app_of(&snapshot.file).as_deref() == Some(app));
    found.others = found.all.len() - snapshots.len();
    if snapshots.is_empty() {
        return Ok(found);
    }
    let reader = repository.reader()?;
    found.points = read_all(&reader, snapshots)?;
    Ok(found)
}

fn read_all(reader: &BlobReader, snapshots: Vec<Snapshot>) -> Result<Vec<KnownPoint>> {
    type Slot = Mutex<Option<Result<Option<Manifest>>>>;
    let slots: Vec<Slot> = snapshots.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..READERS.min(snapshots.len()) {
            scope.spawn(|| {
                while let Some((snapshot, slot)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    snapshots.get(index).zip(slots.get(index))
                } {
                    let read = manifest(reader, snapshot);
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
                }
            });
        }
    });
    let mut points = Vec::with_capacity(snapshots.len());
    for (snapshot, slot) in snapshots.into_iter().zip(slots) {
        let read = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (manifest, damage) = match read {
            Some(Ok(manifest)) => (manifest, None),
            Some(Err(error)) if is_loss(&error) || error.kind() == ErrorKind::Unsupported => (None, Some(error)),
            Some(Err(error)) => return Err(error),
            None => return Err(Error::new(ErrorKind::Bug, "a manifest was not read")),
        };
        points.push(KnownPoint { snapshot, manifest, damage });
    }
    Ok(points)
}

impl KnownPoint {
    /// As retention takes it. `absent_at` is known from earlier looks into the repository.
    pub fn for_retention(&self, absent_at: Option<Time>) -> Point {
        let file = &self.snapshot.file;
        let summary = file.summary.as_ref();
        let sources = self.manifest.iter().flat_map(|manifest| &manifest.sources).map(|source| PointSource {
            name: source.name.clone(),
            complete: source.outcome == SourceOutcome::Complete,
            bytes: source.bytes,
            files: source.entries,
        });
        let tagged_incomplete = file.tags.iter().any(|tag| tag == INCOMPLETE_TAG);
        Point {
            id: self.snapshot.id,
            time: file.time,
            app: app_of(file).unwrap_or_default(),
            tags: self.user_tags().map(str::to_owned).collect(),
            sources: sources.collect(),
            complete: !tagged_incomplete && self.manifest.as_ref().is_none_or(|manifest| manifest.complete),
            damaged: self.damage.is_some(),
            bytes: summary.map(|summary| summary.total_bytes_processed),
            files: summary.map(|summary| summary.total_files_processed),
            absent_at,
        }
    }

    /// The tags that a person gave.
    pub fn user_tags(&self) -> impl Iterator<Item = &str> {
        let tags = self.snapshot.file.tags.iter().map(String::as_str);
        tags.filter(|tag| *tag != INCOMPLETE_TAG && !tag.starts_with(APP_TAG))
    }
}
