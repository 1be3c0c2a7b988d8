//! `hold`: recovery points that nothing removes.

use crate::args::Hold;
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::output::{json, object, table};
use crate::protection::now;
use crate::run::Run;
use crate::text;
use jiff::tz::TimeZone;
use lastgood_model::retention::{Span, calendar, has_run_out};
use lastgood_model::{Error, ErrorKind, Result, SnapshotId, Time};
use lastgood_ops::holds::{self, HoldNote};
use lastgood_repo::Repository;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub(super) fn run(run: &Run, command: Hold) -> Outcome {
    let (repository, app) = run.open_one()?;
    match command {
        Hold::Add { snapshot, reason, until, span } => {
            let until = end(until.as_deref(), span)?;
            let snapshot = run.pick(&repository, &snapshot, app.as_deref())?;
            add(run, &repository, snapshot.id, &reason, until)?;
        }
        Hold::List => list(run, &repository)?,
        Hold::Remove { snapshot } => {
            let id = held(run, &repository, &snapshot, app.as_deref())?;
            let was = holds::remove(&repository, id)?;
            if !was {
                return Err(Error::new(ErrorKind::Absent, format!("there is no hold on {}", id.short()))
                    .with_hint("see `lastgood hold list`")
                    .into());
            }
            if run.out.is_human() {
                run.out.line(format!("Lifted the hold on {}: rules may remove it now", id.short()))?;
            } else {
                let fields = [("type", "lastgood.hold-removed".into()), ("schema", 1.into()), ("snapshot", json(&id))];
                run.out.object(&object(fields))?;
            }
        }
    }
    Ok(ExitCode::Ok)
}

/// When a hold ends.
fn end(until: Option<&str>, span: Option<Span>) -> Result<Option<Time>> {
    let zone = TimeZone::system();
    let end = match (until, span) {
        (Some(text), _) => {
            let moment =
                calendar::start_of_day(text, &zone).or_else(|| Time::parse_rfc3339(text)).ok_or_else(|| {
                    Error::invalid(format!("not a date: {text:?}"))
                        .with_hint("write a date such as 2027-01-31, or a moment such as 2027-01-31T12:00:00Z")
                })?;
            Some(moment)
        }
        (None, Some(span)) => Some(span.after(now(), &zone)),
        (None, None) => None,
    };
    match end {
        Some(end) if end <= now() => Err(Error::invalid(format!("{} is past already", text::moment(end)))),
        end => Ok(end),
    }
}

fn add(run: &Run, repository: &Repository, id: SnapshotId, reason: &str, until: Option<Time>) -> Result<()> {
    if reason.trim().is_empty() {
        return Err(Error::invalid("a hold needs a reason").with_hint("say why, so that others know when to lift it"));
    }
    let (hold, before) = holds::add(repository, id, reason, until)?;
    if run.out.is_human() {
        run.out.line(format!("Holding {} {}: {reason}", id.short(), until_when(&hold)))?;
        if let Some(before) = before {
            run.out.line(format!("It was held {}: {}; this takes its place", until_when(&before), before.reason))?;
        }
        return Ok(());
    }
    let mut fields = fields(&hold, None);
    fields.insert("replaced".into(), json(&before));
    run.out.object(&fields)
}

/// How long, in words.
pub(super) fn until_when(hold: &HoldNote) -> String {
    hold.until.map_or_else(|| "for good".to_owned(), |until| format!("until {}", text::moment(until)))
}

/// The point that is meant, also when it is gone and only its hold is left.
fn held(run: &Run, repository: &Repository, text: &str, app: Option<&str>) -> Result<SnapshotId> {
    let error = match run.pick(repository, text, app) {
        Ok(snapshot) => return Ok(snapshot.id),
        Err(error) => error,
    };
    let mut fitting = match holds::list(repository) {
        Ok(holds) => holds.into_iter().map(|hold| hold.snapshot).filter(|id| id.to_string().starts_with(text)),
        Err(_) => return Err(error),
    };
    match (fitting.next(), fitting.next()) {
        (Some(only), None) if text.len() >= 4 => Ok(only),
        _ => Err(error),
    }
}

/// Points with their moments; those that cannot be read have none.
fn moments(repository: &Repository) -> Result<BTreeMap<SnapshotId, Option<Time>>> {
    let mut damaged = Vec::new();
    let snapshots = repository.snapshots(|id, _| damaged.push(id))?;
    let known = snapshots.iter().map(|snapshot| (snapshot.id, Some(snapshot.file.time)));
    Ok(known.chain(damaged.into_iter().map(|id| (id, None))).collect())
}

fn list(run: &Run, repository: &Repository) -> Result<()> {
    let holds = holds::list(repository)?;
    let moments = moments(repository)?;
    let now = now();
    let newest = moments.values().flatten().filter(|time| **time <= now).max().copied();
    let state = |hold: &HoldNote| match moments.get(&hold.snapshot) {
        None => "the recovery point is gone",
        Some(_) if has_run_out(&hold.for_retention(), now, newest) => "ran out",
        Some(_) => "holds",
    };
    if !run.out.is_human() {
        let mut list = run.out.list("lastgood.holds", "lastgood.hold", "holds", object([]))?;
        for hold in &holds {
            list.item(|| fields(hold, Some(state(hold))), || None)?;
        }
        return list.end(object([]));
    }
    if holds.is_empty() {
        let room = if repository.takes_notes() { "" } else { "; the store has no room for any" };
        return run.out.line(format!("Nothing is held{room}"));
    }
    let rows = holds
        .iter()
        .map(|hold| {
            let time = moments.get(&hold.snapshot).copied().flatten();
            vec![
                hold.snapshot.short(),
                time.map_or_else(|| "-".to_owned(), text::moment),
                hold.until.map_or_else(|| "for good".to_owned(), text::moment),
                state(hold).to_owned(),
                hold.by.clone(),
                hold.reason.clone(),
            ]
        })
        .collect();
    run.out.line(table(&["ID", "TIME", "UNTIL", "", "BY", "REASON"], rows, &[]))
}

fn fields(hold: &HoldNote, state: Option<&str>) -> Map<String, Value> {
    let mut fields = match json(hold) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    if let Some(state) = state {
        fields.insert("state".into(), state.into());
    }
    fields
}
