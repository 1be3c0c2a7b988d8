//! `status`: how well the application is protected, in one sentence, and the facts that it rests on.

mod medium;

use crate::config::{Config, SourceSpec};
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::local::state_folder;
use crate::output::{json, object, table};
use crate::protection::now;
use crate::run::{Chosen, Run};
use crate::wiring::abilities;
use crate::{text, usage};
use lastgood_model::manifest::SourceOutcome;
use lastgood_model::status::{Copy, Facts, Judgement, Known, Usage, Wanted, current, judge};
use lastgood_model::{Error, Result, Time};
use lastgood_ops::drills::newest_passed;
use lastgood_ops::points::{KnownPoint, of_app};
use lastgood_repo::check::longest_unverified;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// A repository with what is told of it beside the facts.
struct Told {
    chosen: Chosen,
    points: usize,
}

pub(super) fn run(run: &Run) -> Outcome {
    let config = run.need_config()?;
    let all = match config.repositories.is_empty() && run.global.repo.is_none() {
        true => Vec::new(),
        false => run.repositories(Some(&config))?,
    };
    let now = now();
    let data = places_of_data(&config);
    let names: Vec<String> = config.sources.iter().map(|source| source.name.clone()).collect();
    let mut covered = BTreeSet::new();
    let mut told = Vec::new();
    let mut copies = Vec::new();
    for chosen in all {
        let (copy, points) = look(run, &config, &chosen, &data, &names, now, &mut covered);
        copies.push(copy);
        told.push(Told { chosen, points });
    }
    let rpo_secs = config.rpo.map(|rpo| rpo.as_secs());
    let facts = Facts {
        uncovered: names.iter().filter(|name| !covered.contains(*name)).cloned().collect(),
        sources: names,
        copies,
        now,
        wanted: config.policy.as_ref().map(|policy| Wanted {
            rpo_secs,
            copies: policy.copies,
            media: policy.media,
            offsite: policy.offsite,
            immutable: policy.immutable,
            verified_secs: policy.verified_within.map(|within| within.as_secs()),
        }),
        rpo_secs,
    };
    let judged = judge(&facts);
    if run.out.is_human() {
        tell(run, &facts, &judged, &told)?;
    } else {
        run.out.object(&fields(&config, &facts, &judged, &told))?;
    }
    Ok(if judged.is_met() { ExitCode::Ok } else { ExitCode::Policy })
}

/// Where the data lies on this machine.
fn places_of_data(config: &Config) -> Vec<PathBuf> {
    let paths = config.sources.iter().flat_map(|source| match &source.spec {
        SourceSpec::Files { paths, .. } => paths.clone(),
        SourceSpec::Sqlite { path, .. } => vec![path.clone()],
        _ => Vec::new(),
    });
    paths.collect()
}

/// Looks into a repository; what goes wrong is a fact like others.
fn look(
    run: &Run,
    config: &Config,
    chosen: &Chosen,
    data: &[PathBuf],
    sources: &[String],
    now: Time,
    covered: &mut BTreeSet<String>,
) -> (Copy, usize) {
    let mut copy = Copy {
        name: chosen.name.clone().unwrap_or_else(|| chosen.place.to_string()),
        trouble: None,
        newest_good: None,
        newest: None,
        medium: "unknown".to_owned(),
        beside_data: Known::Unknown,
        offsite: Known::Unknown,
        immutable: Known::Unknown,
        locked_until: None,
        drilled: None,
        usage: None,
        verified_secs: None,
    };
    let mut points = 0;
    let mut look = || -> Result<()> {
        let repository = run.open(chosen)?;
        let medium = medium::of_location(&repository.location(), data);
        let said = config.repositories.iter().find(|r| Some(&r.name) == chosen.name.as_ref()).and_then(|r| r.offsite);
        (copy.medium, copy.beside_data, copy.immutable) = (medium.name, medium.beside_data, medium.immutable);
        copy.offsite = said.map_or(medium.offsite, |yes| if yes { Known::Yes } else { Known::No });
        let found = of_app(&repository, &config.app)?;
        points = found.points.len();
        copy.newest = found.points.last().map(|point| (point.snapshot.file.time, is_good(point, &[])));
        // A date that has not come yet says nothing of how old what is in the point is.
        let known = || found.points.iter().filter(|point| point.snapshot.file.time <= now);
        copy.newest_good = known().filter(|p| is_good(p, sources)).map(|p| p.snapshot.file.time).max();
        if let (Some(keep), Some(good)) = (chosen.place.lock(), copy.newest_good)
            && let Some(record) = abilities(&*chosen.place.store(&run.monitor())?)
        {
            let until = Time::new(good.secs.saturating_add_unsigned(keep.as_secs()), 0);
            let holds = record.locks == Some(true) && until > now;
            copy.immutable = if holds { Known::Yes } else { Known::No };
            copy.locked_until = holds.then_some(until);
        }
        copy.drilled = newest_passed(&repository, now)?.map(|drill| drill.time);
        copy.usage = Some(usage::of(&repository, chosen, now)?);
        for point in known().filter(|point| point.damage.is_none()) {
            let records = point.manifest.iter().flat_map(|manifest| &manifest.sources);
            covered.extend(records.filter(|r| r.outcome == SourceOutcome::Complete).map(|r| r.name.clone()));
        }
        if let Some(folder) = state_folder() {
            let ledger = folder.join("verify").join(format!("{}.ledger", repository.id()));
            copy.verified_secs = longest_unverified(&ledger, &repository)?;
        }
        Ok(())
    };
    if let Err(error) = look() {
        copy.trouble = Some(told_trouble(&error));
        (copy.newest_good, copy.newest) = (None, None);
    }
    (copy, points)
}

fn told_trouble(error: &Error) -> String {
    error.message().to_owned()
}

/// Whether a point is complete and can be read, and has all of these sources.
fn is_good(point: &KnownPoint, sources: &[String]) -> bool {
    let whole = point.for_retention(None);
    let has = |name: &String| whole.sources.iter().any(|source| source.name == *name && source.complete);
    whole.complete && !whole.damaged && sources.iter().all(has)
}

fn verified(copy: &Copy) -> String {
    match copy.verified_secs {
        None => "never".to_owned(),
        Some(secs) => format!("{} ago", text::duration(Duration::from_secs(secs))),
    }
}

fn tell(run: &Run, facts: &Facts, judged: &Judgement, told: &[Told]) -> Result<()> {
    run.out.line(format!("{}: {}", judged.standing, judged.because))?;
    if facts.rpo_secs.is_none() && !facts.copies.is_empty() {
        run.out.line("How old the newest point may be is not known: the config has no `rpo` in [app]")?;
    }
    if !facts.copies.is_empty() {
        run.out.line("")?;
        let rows = facts.copies.iter().zip(told).map(|(copy, told)| {
            let unknown = copy.trouble.is_some();
            let or_unknown = |text: String| if unknown { "unknown".to_owned() } else { text };
            let newest = match copy.newest_good {
                Some(time) => text::age(time, facts.now),
                None => or_unknown("none".to_owned()),
            };
            let medium = match copy.beside_data {
                Known::Yes => format!("{}, where the data is", copy.medium),
                _ => copy.medium.clone(),
            };
            vec![
                copy.name.clone(),
                newest,
                or_unknown(text::count(told.points as u64)),
                medium,
                copy.offsite.to_string(),
                match copy.locked_until {
                    Some(until) => format!("until {}", text::moment(until)),
                    None => copy.immutable.to_string(),
                },
                or_unknown(verified(copy)),
                or_unknown(copy.drilled.map_or("never".to_owned(), |time| text::age(time, facts.now))),
                copy.usage.map_or_else(|| or_unknown(String::new()), |usage| text::size(usage.bytes)),
            ]
        });
        let header =
            ["REPOSITORY", "NEWEST GOOD", "POINTS", "ON", "OFF-SITE", "IMMUTABLE", "VERIFIED", "DRILLED", "SIZE"];
        run.out.line(table(&header, rows.collect(), &[2, 8]))?;
    }
    for copy in &facts.copies {
        if let Some(trouble) = &copy.trouble {
            run.out.line(format!("{} cannot be looked into: {trouble}", copy.name))?;
        } else if let Some((time, false)) = copy.newest {
            run.out.line(format!("{}: the newest point of {} is incomplete", copy.name, text::moment(time)))?;
        }
        if let Some(usage) = copy.usage.filter(Usage::is_near_full) {
            run.out.line(format!("{} will soon be full: {}", copy.name, usage::told(&usage)))?;
        }
    }
    let list = |title: &str, lines: &[String]| -> Result<()> {
        if !lines.is_empty() {
            run.out.line("")?;
            run.out.line(title)?;
            lines.iter().try_for_each(|line| run.out.line(format!("  {line}")))?;
        }
        Ok(())
    };
    list("Missing:", &judged.unmet)?;
    let beyond =
        if judged.unmet.is_empty() { "To be safe (3-2-1-1-0):" } else { "Beyond that, to be safe (3-2-1-1-0):" };
    list(beyond, &judged.lacking)
}

fn fields(config: &Config, facts: &Facts, judged: &Judgement, told: &[Told]) -> Map<String, Value> {
    let newest = current(facts);
    let repositories = facts.copies.iter().zip(told).map(|(copy, told)| {
        let known = |known: Known| match known {
            Known::Yes => Value::from(true),
            Known::No => false.into(),
            Known::Unknown => Value::Null,
        };
        Value::Object(object([
            ("name", copy.name.as_str().into()),
            ("repository", told.chosen.place.to_string().into()),
            ("trouble", json(&copy.trouble)),
            ("points", if copy.trouble.is_some() { Value::Null } else { told.points.into() }),
            ("newest_good", json(&copy.newest_good)),
            ("newest", json(&copy.newest.map(|(time, _)| time))),
            ("newest_complete", json(&copy.newest.map(|(_, complete)| complete))),
            ("current", newest.iter().any(|other| std::ptr::eq(*other, copy)).into()),
            ("medium", copy.medium.as_str().into()),
            ("beside_data", known(copy.beside_data)),
            ("offsite", known(copy.offsite)),
            ("immutable", known(copy.immutable)),
            ("verified_secs", json(&copy.verified_secs)),
            ("locked_until", json(&copy.locked_until)),
            ("drilled", json(&copy.drilled)),
            ("bytes", json(&copy.usage.map(|usage| usage.bytes))),
            ("limit_bytes", json(&copy.usage.and_then(|usage| usage.limit_bytes))),
            ("daily_bytes", json(&copy.usage.and_then(|usage| usage.daily_bytes))),
            ("days_left", json(&copy.usage.and_then(|usage| usage.days_left()))),
        ]))
    });
    object([
        ("type", "lastgood.status".into()),
        ("schema", 1.into()),
        ("app", config.app.as_str().into()),
        ("standing", judged.standing.to_string().to_lowercase().into()),
        ("sentence", format!("{}: {}", judged.standing, judged.because).into()),
        ("met", judged.is_met().into()),
        ("unmet", json(&judged.unmet)),
        ("lacking", json(&judged.lacking)),
        ("rpo_secs", json(&facts.rpo_secs)),
        ("repositories", repositories.collect::<Vec<_>>().into()),
    ])
}
