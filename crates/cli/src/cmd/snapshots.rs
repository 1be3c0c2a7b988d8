//! `snapshots`: recovery points, newest last, each with the state of its sources.

use super::{hold, removed, report};
use crate::args::Snapshots;
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::output::{json, object, table};
use crate::protection::{INCOMPLETE_TAG, now};
use crate::run::Run;
use crate::several::{Opened, none_reachable};
use crate::text;
use lastgood_model::manifest::Manifest;
use lastgood_model::{Error, ErrorKind, Result, SnapshotId};
use lastgood_ops::holds::{self, HoldNote};
use lastgood_ops::snapshots::{APP_TAG, app_of, manifest};
use lastgood_repo::Snapshot;
use lastgood_repo::copy::is_same_point;
use serde_json::{Map, Value};

/// A recovery point with its manifest, as far as that can be read.
struct Point {
    snapshot: Snapshot,
    manifest: Result<Option<Manifest>>,
    /// Which of several repositories have it, by ordinal, with its id there.
    places: Vec<(usize, SnapshotId)>,
    hold: Option<HoldNote>,
}

pub(super) fn run(run: &Run, args: &Snapshots) -> Outcome {
    if args.removed {
        let (repository, _) = run.open_one()?;
        return removed::run(run, args, &repository);
    }
    let config = run.config()?;
    let all = run.repositories(config.as_ref())?;
    let (opened, failed) = match all.as_slice() {
        [chosen] => (vec![Opened { repository: run.open(chosen)?, chosen: chosen.clone() }], Vec::new()),
        _ => run.open_reachable(all)?,
    };
    run.tell_unreachable(&failed);
    let is_several = opened.len() + failed.len() > 1;
    let mut code = if failed.is_empty() { ExitCode::Ok } else { ExitCode::Problems };
    if opened.is_empty() {
        return Err(none_reachable(failed).into());
    }
    let mut damaged: Vec<(SnapshotId, Error)> = Vec::new();
    let mut points = merge(&opened, &mut damaged)?;
    if let Some(app) = &args.app {
        points.retain(|p| app_of(&p.snapshot.file).as_ref() == Some(app));
    }
    let all = points.len();
    if let Some(limit) = args.limit {
        points.drain(..all.saturating_sub(limit));
    }
    let index_damage = read_manifests(&opened, &mut points)?;
    find_holds(run, &opened, &mut points);
    let unreadable = index_damage.is_some() || points.iter().any(|p| p.manifest.is_err());
    let names: Vec<String> = opened.iter().map(|opened| opened.chosen.word()).collect();
    if run.out.is_human() {
        tell(run, &points, all, is_several.then_some(&names))?;
    } else {
        let mut head = object([("repository", opened[0].repository.location().into())]);
        if is_several {
            let places: Vec<String> = opened.iter().map(|opened| opened.repository.location()).collect();
            head = object([("repositories", json(&places))]);
            let missing: Vec<String> = failed.iter().map(|(chosen, _)| chosen.place.to_string()).collect();
            head.insert("unreachable".into(), json(&missing));
        }
        let mut list = run.out.list("lastgood.snapshots", "lastgood.snapshot", "snapshots", head)?;
        for point in &points {
            let in_several = || {
                let place = |(ordinal, id): &(usize, SnapshotId)| {
                    Value::Object(object([("name", names[*ordinal].as_str().into()), ("id", json(id))]))
                };
                point.places.iter().map(place).collect::<Vec<_>>()
            };
            let fields = || {
                let mut fields = fields(point);
                if is_several {
                    fields.insert("repositories".into(), in_several().into());
                }
                fields
            };
            list.item(fields, || None)?;
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
    if !damaged.is_empty() || unreadable {
        run.out.note("next: `lastgood check` tells all that is damaged and what it means");
        code = code.or(ExitCode::Damage);
    }
    Ok(code)
}

/// The points of all repositories, oldest first, each once.
fn merge(opened: &[Opened], damaged: &mut Vec<(SnapshotId, Error)>) -> Result<Vec<Point>> {
    let mut points: Vec<Point> = Vec::new();
    for (ordinal, opened) in opened.iter().enumerate() {
        let known = points.len();
        for snapshot in opened.repository.snapshots(|id, error| damaged.push((id, error)))? {
            let place = (ordinal, snapshot.id);
            match points[..known].iter_mut().find(|point| is_same_point(&point.snapshot, &snapshot)) {
                Some(point) => point.places.push(place),
                None => points.push(Point { snapshot, manifest: Ok(None), places: vec![place], hold: None }),
            }
        }
    }
    points.sort_by_key(|point| (point.snapshot.file.time, point.snapshot.id));
    Ok(points)
}

/// Finds which points are held, in whichever repository.
fn find_holds(run: &Run, opened: &[Opened], points: &mut [Point]) {
    for (ordinal, opened) in opened.iter().enumerate() {
        let held = match holds::list(&opened.repository) {
            Ok(holds) => holds,
            // What is held is beside the matter; `hold list` and `forget` insist on knowing.
            Err(error) => {
                run.out.note(format!("warning: holds cannot be read: {}", error.chain()));
                continue;
            }
        };
        for hold in held {
            let place = (ordinal, hold.snapshot);
            for point in points.iter_mut().filter(|point| point.hold.is_none() && point.places.contains(&place)) {
                point.hold = Some(hold.clone());
            }
        }
    }
}

/// Reads each point's manifest where the point was found first. Returns what is wrong with an index, if anything is:
/// recovery points can be listed without it, only not looked into.
fn read_manifests(opened: &[Opened], points: &mut [Point]) -> Result<Option<Error>> {
    let mut damage = None;
    for (ordinal, opened) in opened.iter().enumerate() {
        let mut own = points.iter_mut().filter(|p| p.places.first().is_some_and(|p| p.0 == ordinal)).peekable();
        if own.peek().is_none() {
            continue;
        }
        match opened.repository.reader() {
            Ok(reader) => own.for_each(|point| point.manifest = manifest(&reader, &point.snapshot)),
            Err(error) if error.kind() == ErrorKind::Corrupt => damage = Some(error),
            Err(error) => return Err(error),
        }
    }
    Ok(damage)
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

/// `names` are those of the repositories, when there are several.
fn tell(run: &Run, points: &[Point], all: usize, names: Option<&Vec<String>>) -> Result<()> {
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
            let mut row = vec![
                point.snapshot.id.short(),
                text::moment(file.time),
                text::age(file.time, now),
                app_of(file).unwrap_or_else(|| "-".to_owned()),
                file.hostname.clone(),
                sources,
                summary.map_or_else(String::new, |s| text::size(s.total_bytes_processed)),
                summary.map_or_else(String::new, |s| text::size(s.data_added_packed)),
                notes,
            ];
            if let Some(names) = names {
                let places: Vec<&str> = point.places.iter().map(|(ordinal, _)| names[*ordinal].as_str()).collect();
                row.insert(8, places.join(", "));
            }
            row
        })
        .collect();
    let mut header = vec!["ID", "TIME", "AGE", "APP", "HOST", "SOURCES", "SIZE", "ADDED", "NOTES"];
    if names.is_some() {
        header.insert(8, "IN");
    }
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
