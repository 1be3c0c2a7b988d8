//! `snapshots --removed`: recovery points that were forgotten, as it was written down when they went.

use crate::args::Snapshots;
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::output::{json, object, table};
use crate::run::Run;
use crate::text;
use lastgood_model::Error;
use lastgood_ops::forget::{Removal, RemovedPoint, removals};
use lastgood_repo::Repository;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

pub(super) fn run(run: &Run, args: &Snapshots, repository: &Repository) -> Outcome {
    let mut damaged: Vec<(String, Error)> = Vec::new();
    let removals = removals(repository, |name, error| damaged.push((name.to_owned(), error)))?;
    // A note that was begun and not finished: what it names may still be there.
    let mut unreadable = Vec::new();
    let there = repository.snapshots(|id, _| unreadable.push(id))?;
    let there: BTreeSet<_> = there.into_iter().map(|snapshot| snapshot.id).chain(unreadable).collect();
    let mut rows: Vec<(&Removal, &RemovedPoint)> = Vec::new();
    for removal in &removals {
        let own = |point: &&RemovedPoint| args.app.as_ref().is_none_or(|app| *app == point.app);
        rows.extend(removal.points.iter().filter(own).map(|point| (removal, point)));
    }
    let all = rows.len();
    if let Some(limit) = args.limit {
        rows.drain(..all.saturating_sub(limit));
    }
    if run.out.is_human() {
        if rows.is_empty() {
            let note = if repository.takes_notes() { "" } else { ": the store has no room for notes" };
            run.out.line(format!("No removal is written down{note}"))?;
        } else {
            let cells = rows.iter().map(|(removal, point)| {
                let gone = match (point.removed, there.contains(&point.id)) {
                    (_, true) => "STILL THERE".to_owned(),
                    (Some(at), _) => text::moment(at),
                    // The run was killed before it could say so.
                    (None, false) => format!("after {}", text::moment(removal.begun)),
                };
                let sources: Vec<&str> = point.sources.iter().map(|source| source.name.as_str()).collect();
                vec![
                    gone,
                    point.id.short(),
                    text::moment(point.time),
                    point.app.clone(),
                    if point.complete { sources.join(", ") } else { format!("{} (incomplete)", sources.join(", ")) },
                    point.bytes.map_or_else(String::new, text::size),
                    removal.by.clone(),
                    point.reasons.join("; "),
                ]
            });
            let header = ["REMOVED", "ID", "TIME", "APP", "SOURCES", "SIZE", "BY", "WHY"];
            run.out.line(table(&header, cells.collect(), &[5]))?;
        }
    } else {
        let head = object([("repository", repository.location().into())]);
        let mut list = run.out.list("lastgood.removals", "lastgood.removed-point", "removed", head)?;
        for (removal, point) in &rows {
            list.item(|| fields(removal, point, there.contains(&point.id)), || None)?;
        }
        list.end(object([("total", all.into())]))?;
    }
    for (name, error) in &damaged {
        run.out.note(format!("damaged: the note {name} of a removal cannot be read: {}", error.chain()));
    }
    Ok(if damaged.is_empty() { ExitCode::Ok } else { ExitCode::Damage })
}

fn fields(removal: &Removal, point: &RemovedPoint, is_there: bool) -> Map<String, Value> {
    let mut fields = match json(point) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.extend(object([
        ("still_there", is_there.into()),
        ("begun", json(&removal.begun)),
        ("finished", json(&removal.finished)),
        ("by", removal.by.as_str().into()),
        ("rules", removal.rules.as_str().into()),
        ("even_though", json(&removal.even_though)),
    ]));
    fields
}
