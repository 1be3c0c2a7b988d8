//! `snapshots`: recovery points, newest last, each with the state of its sources.

use super::{hold, removed, report};
use crate::args::Snapshots;
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::output::{json, object, table};
use crate::protection::{INCOMPLETE_TAG, now};
use crate::run::Run;
use crate::text;
use lastgood_model::manifest::Manifest;
use lastgood_model::{Error, ErrorKind, Result, SnapshotId};
use lastgood_ops::holds::{self, HoldNote};
use lastgood_ops::snapshots::{APP_TAG, app_of, manifest};
use lastgood_repo::{BlobReader, Snapshot};
use serde_json::{Map, Value};

/// A recovery point with its manifest, as far as that can be read.
struct Point {
    snapshot: Snapshot,
    manifest: Result<Option<Manifest>>,
    hold: Option<HoldNote>,
}

pub(super) fn run(run: &Run, args: &Snapshots) -> Outcome {
    let (repository, _) = run.open_one()?;
    if args.removed {
        return removed::run(run, args, &repository);
    }
    let mut damaged: Vec<(SnapshotId, Error)> = Vec::new();
    let mut snapshots = repository.snapshots(|id, error| damaged.push((id, error)))?;
    if let Some(app) = &args.app {
        snapshots.retain(|s| app_of(&s.file).as_ref() == Some(app));
    }
    let all = snapshots.len();
    if let Some(limit) = args.limit {
        snapshots.drain(..all.saturating_sub(limit));
    }
    let mut index_damage = None;
    let reader = if snapshots.is_empty() {
        None
    } else {
        match repository.reader() {
            Ok(reader) => Some(reader),
            // Recovery points can be listed without it, only not looked into.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                index_damage = Some(error);
                None
            }
            Err(error) => return Err(error.into()),
        }
    };
    let held = match holds::list(&repository) {
        Ok(holds) => holds,
        // What is held is beside the matter; `hold list` and `forget` insist on knowing.
        Err(error) => {
            run.out.note(format!("warning: holds cannot be read: {}", error.chain()));
            Vec::new()
        }
    };
    let points: Vec<Point> = snapshots
        .into_iter()
        .map(|snapshot| Point {
            manifest: reader.as_deref().map_or(Ok(None), |r| read(r, &snapshot)),
            hold: held.iter().find(|hold| hold.snapshot == snapshot.id).cloned(),
            snapshot,
        })
        .collect();
    let unreadable = index_damage.is_some() || points.iter().any(|p| p.manifest.is_err());
    if run.out.is_human() {
        tell(run, &points, all)?;
    } else {
        let mut list = run.out.list(
            "lastgood.snapshots",
            "lastgood.snapshot",
            "snapshots",
            object([("repository", repository.location().into())]),
        )?;
        for point in &points {
            list.item(|| fields(point), || None)?;
        }
        let broken: Vec<Value> = damaged
            .iter()
            .map(|(id, error)| Value::Object(object([("id", json(id)), ("error", error.chain().into())])))
            .collect();
        list.end(object([("total", all.into()), ("damaged", broken.into())]))?;
    }
    for (id, error) in &damaged {
        run.out.note(format!("damaged: recovery point {} cannot be read: {}", id.short(), error.chain()));
    }
    if let Some(error) = index_damage {
        run.out.note(format!("damaged: the index: {}; the state of sources is not known", error.chain()));
    }
    if damaged.is_empty() && !unreadable {
        return Ok(ExitCode::Ok);
    }
    run.out.note("next: `lastgood check` tells all that is damaged and what it means");
    Ok(ExitCode::Damage)
}

fn read(reader: &BlobReader, snapshot: &Snapshot) -> Result<Option<Manifest>> {
    manifest(reader, snapshot)
}

fn is_incomplete(snapshot: &Snapshot) -> bool {
    snapshot.file.tags.iter().any(|tag| tag == INCOMPLETE_TAG)
}

fn fields(point: &Point) -> Map<String, Value> {
    let file = &point.snapshot.file;
    let mut fields = object([
        ("id", json(&point.snapshot.id)),
        ("time", json(&file.time)),
        ("app", json(&app_of(file))),
        ("host", file.hostname.as_str().into()),
        ("user", file.username.as_str().into()),
        ("program", file.program_version.as_str().into()),
        ("tags", json(&user_tags(&point.snapshot))),
        ("paths", json(&file.paths)),
        ("parent", json(&file.parent)),
        ("complete", (!is_incomplete(&point.snapshot)).into()),
    ]);
    if let Some(summary) = &file.summary {
        fields.insert("bytes".into(), summary.total_bytes_processed.into());
        fields.insert("files".into(), summary.total_files_processed.into());
        fields.insert("bytes_stored".into(), summary.data_added_packed.into());
    }
    fields.insert("hold".into(), json(&point.hold));
    match &point.manifest {
        Ok(Some(manifest)) => {
            fields.insert("reason".into(), json(&manifest.reason));
            fields.insert("sources".into(), json(&manifest.sources));
            fields.insert("problems_total".into(), manifest.problems_total.into());
        }
        Ok(None) => {}
        Err(error) => {
            fields.insert("error".into(), error.chain().into());
        }
    }
    fields
}

/// The tags a person gave.
fn user_tags(snapshot: &Snapshot) -> Vec<&str> {
    let tags = snapshot.file.tags.iter().map(String::as_str);
    tags.filter(|tag| *tag != INCOMPLETE_TAG && !tag.starts_with(APP_TAG)).collect()
}

fn tell(run: &Run, points: &[Point], all: usize) -> Result<()> {
    if points.is_empty() {
        run.out.line("There is no recovery point yet; take one with `lastgood backup`")?;
        return Ok(());
    }
    let now = now();
    let rows = points
        .iter()
        .map(|point| {
            let file = &point.snapshot.file;
            let sources = match &point.manifest {
                Ok(Some(manifest)) => {
                    let each = manifest.sources.iter().map(|s| {
                        let position =
                            s.position.as_ref().map(|position| format!(" at {position}")).unwrap_or_default();
                        format!("{} {}{position}", s.name, report::state(&s.outcome))
                    });
                    each.collect::<Vec<_>>().join(", ")
                }
                Ok(None) => file.paths.join(", "),
                Err(_) => "DAMAGED".to_owned(),
            };
            let summary = file.summary.as_ref();
            let mut notes = user_tags(&point.snapshot).join(", ");
            if let Ok(Some(Manifest { reason: Some(reason), .. })) = &point.manifest {
                notes = if notes.is_empty() { reason.clone() } else { format!("{reason} [{notes}]") };
            }
            if let Some(hold) = &point.hold {
                let held = format!("held {}: {}", hold::until_when(hold), hold.reason);
                notes = if notes.is_empty() { held } else { format!("{notes}; {held}") };
            }
            vec![
                point.snapshot.id.short(),
                text::moment(file.time),
                text::age(file.time, now),
                app_of(file).unwrap_or_else(|| "-".to_owned()),
                file.hostname.clone(),
                sources,
                summary.map_or_else(String::new, |s| text::size(s.total_bytes_processed)),
                summary.map_or_else(String::new, |s| text::size(s.data_added_packed)),
                notes,
            ]
        })
        .collect();
    let header = ["ID", "TIME", "AGE", "APP", "HOST", "SOURCES", "SIZE", "ADDED", "NOTES"];
    run.out.line(table(&header, rows, &[6, 7]))?;
    for point in points {
        if let Err(error) = &point.manifest {
            run.out.line(format!("damaged: the manifest of {}: {}", point.snapshot.id.short(), error.chain()))?;
        }
    }
    if points.len() < all {
        run.out.line(format!("{} of {} recovery points", points.len(), all))?;
    }
    Ok(())
}
