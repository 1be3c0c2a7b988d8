//! `forget --simulate`: which recovery points there will be.

use super::tell;
use crate::output::{json, object, table};
use crate::run::{Chosen, Run};
use crate::text;
use lastgood_model::retention::{Span, Step};
use lastgood_model::{Result, Time};
use lastgood_ops::forget::ForgetPlan;
use serde_json::{Map, Value};
use std::time::Duration;

const DAY: i64 = 86_400;
/// How points are counted: no older than so many seconds.
const CLASSES: [(i64, &str); 5] =
    [(DAY, "1 D"), (7 * DAY, "1 W"), (30 * DAY, "30 D"), (365 * DAY, "1 Y"), (i64::MAX, "OLDER")];

/// Shows it, and gives it back as data.
pub(super) fn show(
    run: &Run,
    chosen: &Chosen,
    prepared: &ForgetPlan,
    every: Option<i64>,
    span: Span,
    observed: bool,
) -> Result<Map<String, Value>> {
    let seen = prepared.simulate(every, span)?;
    if run.out.is_human() {
        let every = text::duration(Duration::from_secs(seen.every_secs.unsigned_abs()));
        let as_until_now = if observed { ", as until now," } else { "" };
        run.out.line(format!(
            "{} in {}: keep {}; calendar of {}",
            prepared.request().app,
            chosen.place,
            tell::rules(prepared),
            tell::zone(prepared)
        ))?;
        run.out.line(format!(
            "With a complete recovery point every {every}{as_until_now} and `lastgood forget` after each there will be:"
        ))?;
        let header: Vec<&str> =
            ["ON", "POINTS"].into_iter().chain(CLASSES.map(|(_, name)| name)).chain(["OLDEST"]).collect();
        run.out.line(table(&header, seen.steps.iter().map(row).collect(), &[1, 2, 3, 4, 5, 6]))?;
        run.out.line("")?;
        let mut today: Vec<(Time, Vec<String>)> = Vec::new();
        for point in &prepared.points.points {
            let (id, time) = (point.snapshot.id, point.snapshot.file.time);
            let goes = match seen.gone.iter().find(|(gone, _)| *gone == id) {
                Some((_, at)) if seen.steps.first().is_some_and(|step| step.at == *at) => "now".to_owned(),
                Some((_, at)) => text::day(*at),
                None => "still there at the end".to_owned(),
            };
            today.push((time, vec![id.short(), text::moment(time), goes]));
        }
        today.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        run.out.line("Of those that are there now, each goes:")?;
        run.out.line(table(&["ID", "TIME", "GOES"], today.into_iter().map(|(_, row)| row).collect(), &[]))?;
    }
    let steps = seen.steps.iter().map(|step| {
        let counts = counts(step).into_iter().zip(CLASSES).map(|(count, (secs, _))| {
            let within = if secs == i64::MAX { Value::Null } else { (secs / DAY).into() };
            Value::Object(object([("within_days", within), ("points", count.into())]))
        });
        Value::Object(object([
            ("at", json(&step.at)),
            ("points", json(&step.points)),
            ("by_age", counts.collect::<Vec<_>>().into()),
        ]))
    });
    let gone = seen.gone.iter().map(|(id, at)| Value::Object(object([("id", json(id)), ("at", json(at))])));
    Ok(object([
        ("repository", chosen.place.to_string().into()),
        ("app", prepared.request().app.as_str().into()),
        ("rules", tell::rules(prepared).into()),
        ("every_secs", seen.every_secs.into()),
        ("steps", steps.collect::<Vec<_>>().into()),
        ("goes", gone.collect::<Vec<_>>().into()),
    ]))
}

/// Points by age, each counted in the first class that it fits.
fn counts(step: &Step) -> [u64; CLASSES.len()] {
    let mut counts = [0; CLASSES.len()];
    for point in &step.points {
        let age = step.at.secs.saturating_sub(point.secs);
        if let Some(class) = CLASSES.iter().position(|(limit, _)| age <= *limit) {
            counts[class] += 1;
        }
    }
    counts
}

fn row(step: &Step) -> Vec<String> {
    let mut row = vec![text::day(step.at), text::count(step.points.len() as u64)];
    row.extend(counts(step).map(|count| if count == 0 { "-".to_owned() } else { text::count(count) }));
    row.push(step.points.last().map_or_else(String::new, |oldest| text::day(*oldest)));
    row
}
