//! `forget`: which recovery points go, why the others stay, and their removal.

mod future;
mod space;
mod tell;

use super::plan::confirm;
use crate::args::Forget;
use crate::config::{Config, keep};
use crate::errors::{Failure, Outcome};
use crate::exit_code::ExitCode;
use crate::local::state_folder;
use crate::output::{json, object};
use crate::protection::now;
use crate::run::{Chosen, Run};
use crate::text;
use lastgood_model::retention::Policies;
use lastgood_model::{Error, ErrorKind, Result, SnapshotId};
use lastgood_ops::forget::{ForgetPlan, ForgetRequest, Forgotten, prepare};
use lastgood_ops::seen::Seen;
use lastgood_ops::snapshots::app_of;
use lastgood_repo::Repository;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

pub(super) fn run(run: &Run, args: &Forget) -> Outcome {
    let config = run.config()?;
    let all = match args.snapshots.is_empty() {
        true => run.repositories(config.as_ref())?,
        // The same recovery point has another id in each repository.
        false => vec![run.repository(config.as_ref())?],
    };
    let ruled: Vec<&Chosen> = all.iter().filter(|chosen| has_rules(config.as_ref(), chosen, args)).collect();
    if ruled.is_empty() {
        return Err(Error::invalid("nothing says which recovery points to keep, so all are kept")
            .with_hint("add `keep = { daily = 14, monthly = 12 }` to the repository in the config, or say --keep-daily N and the like")
            .into());
    }
    for chosen in all.iter().filter(|chosen| !ruled.iter().any(|other| std::ptr::eq(*other, *chosen))) {
        run.out.note(format!("note: everything is kept in {}, since its `keep` says nothing", chosen.place));
    }
    if let [chosen] = ruled.as_slice() {
        let (code, mut fields) = one(run, config.as_ref(), chosen, args)?;
        if !run.out.is_human() {
            fields.extend(object([("type", "lastgood.forget".into()), ("schema", 1.into())]));
            run.out.object(&fields)?;
        }
        return Ok(code);
    }
    let mut list = match run.out.is_human() {
        true => None,
        false => Some(run.out.list("lastgood.forgets", "lastgood.forget", "repositories", object([]))?),
    };
    let mut code = ExitCode::Ok;
    for chosen in ruled {
        if run.stop.is_stopped() {
            code = code.or(ExitCode::Interrupted);
            break;
        }
        let fields = match one(run, config.as_ref(), chosen, args) {
            Ok((ended, fields)) => {
                code = code.or(ended);
                fields
            }
            Err(failure) => {
                code = code.or(failure.exit_code());
                if list.is_none() {
                    failure.tell(&run.out, None);
                }
                let mut fields = failure.object(None);
                fields.insert("repository".into(), chosen.place.to_string().into());
                fields
            }
        };
        if let Some(list) = &mut list {
            list.item(|| fields, || None)?;
        }
    }
    if let Some(list) = list {
        list.end(object([("exit_code", code.number().into())]))?;
    }
    Ok(code)
}

/// What the config keeps in a repository; the application that it speaks of is the config's.
fn policies(config: Option<&Config>, chosen: &Chosen, args: &Forget) -> Policies {
    let flags = args.keep.policy();
    let own = config.filter(|config| args.app.as_ref().is_none_or(|app| *app == config.app));
    match own {
        Some(config) if flags.is_empty() => {
            let repository = config.repositories.iter().find(|r| Some(&r.name) == chosen.name.as_ref());
            repository.map(|repository| config.policies(repository)).unwrap_or_default()
        }
        _ => Policies::all(flags),
    }
}

fn has_rules(config: Option<&Config>, chosen: &Chosen, args: &Forget) -> bool {
    !args.snapshots.is_empty() || !policies(config, chosen, args).is_empty()
}

fn zone(config: Option<&Config>, chosen: &Chosen, args: &Forget) -> Result<jiff::tz::TimeZone> {
    let configured = || {
        let repository = config?.repositories.iter().find(|r| Some(&r.name) == chosen.name.as_ref());
        repository?.keep.as_ref()?.time_zone.clone()
    };
    match args.keep.time_zone.clone().or_else(configured) {
        Some(name) => keep::time_zone(&name),
        None => Ok(jiff::tz::TimeZone::system()),
    }
}

/// Whose points are meant: named, or of the config, or the only one that there is.
pub(super) fn app(repository: &Repository, flag: Option<&String>, config: Option<&Config>) -> Result<String> {
    if let Some(app) = flag.or(config.map(|config| &config.app)) {
        return Ok(app.clone());
    }
    let apps: BTreeSet<String> = repository.snapshots(|_, _| {})?.iter().filter_map(|s| app_of(&s.file)).collect();
    let mut names = apps.into_iter();
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(only),
        (first, second) => {
            let known: Vec<String> = first.into_iter().chain(second).chain(names).collect();
            Err(Error::invalid("nothing says whose recovery points are meant")
                .with_hint(format!("say --app NAME; the repository has: {}", known.join(", "))))
        }
    }
}

/// A name that was typed must be the right one.
fn typed(args: &Forget, app: &str, chosen: &Chosen) -> Result<Option<String>> {
    match &args.even_though {
        Some(name) if name == app || Some(name) == chosen.name.as_ref() => Ok(Some(name.clone())),
        Some(name) => {
            let own = chosen.name.as_ref().map_or_else(String::new, |name| format!(", or {name:?}, the repository's"));
            Err(Error::invalid(format!("--even-though {name:?} is not the name that is asked for"))
                .with_hint(format!("type {app:?}, the application's name{own}, exactly")))
        }
        None => Ok(None),
    }
}

fn one(
    run: &Run,
    config: Option<&Config>,
    chosen: &Chosen,
    args: &Forget,
) -> Result<(ExitCode, Map<String, Value>), Failure> {
    let repository = run.open(chosen)?;
    let app = app(&repository, args.app.as_ref(), config)?;
    let mut named = BTreeSet::new();
    for selector in &args.snapshots {
        named.insert(run.pick(&repository, selector, Some(&app))?.id);
    }
    let request = ForgetRequest {
        policies: policies(config, chosen, args),
        zone: zone(config, chosen, args)?,
        named: (!args.snapshots.is_empty()).then_some(named),
        even_though: typed(args, &app, chosen)?,
        app,
    };
    let path = state_folder().map(|folder| folder.join("seen").join(format!("{}.json", repository.id())));
    let mut seen = Seen::open(path, repository.id());
    let prepared = prepare(&repository, request, &mut seen, now())?;
    if let Err(error) = seen.keep() {
        run.out.note(format!("note: what was seen in the repository is not remembered: {}", error.chain()));
    }
    if let Some(span) = args.simulate {
        let every = args.every.map(|every| i64::try_from(every.as_secs()).unwrap_or(i64::MAX));
        let fields = future::show(run, chosen, &prepared, every, span, args.every.is_none())?;
        return Ok((ExitCode::Ok, fields));
    }
    if run.out.is_human() {
        tell::plan(run, chosen, &prepared)?;
    }
    tell::notes(run, &prepared);
    let mut fields = tell::fields(chosen, &prepared);
    fields.insert("dry_run".into(), args.dry_run.into());
    fields.insert("gone".into(), Value::Array(Vec::new()));
    if let Some(code) = refused(run, &prepared)? {
        return Ok((code, fields));
    }
    let removals = prepared.plan.removals();
    if removals.is_empty() {
        // What went before may still wait to be freed.
        let code = match args.prune && !args.dry_run {
            true => space::free(run, &repository, &mut fields)?,
            false => ExitCode::Ok,
        };
        return Ok((code, fields));
    }
    if args.dry_run {
        if run.out.is_human() {
            run.out.line("Nothing was removed: this was a rehearsal")?;
        }
        return Ok((ExitCode::Ok, fields));
    }
    let those = text::counted(removals.len() as u64, "recovery point");
    confirm(&run.out, args.yes, &format!("Remove {those} from {}?", chosen.place))?;
    let monitor = run.monitor();
    let forgotten = prepared.execute(&repository, &monitor)?;
    let mut code = done(run, chosen, &forgotten, args.prune, &mut fields)?;
    if args.prune {
        code = code.or(space::free(run, &repository, &mut fields)?);
    }
    Ok((code, fields))
}

/// Says why nothing is removed, when anything stands in the way.
fn refused(run: &Run, prepared: &ForgetPlan) -> Result<Option<ExitCode>> {
    let stays: Vec<String> = tell::refusals(prepared);
    let obstacles = prepared.obstacles();
    if stays.is_empty() && obstacles.is_empty() {
        return Ok(None);
    }
    if run.out.is_human() {
        let app = &prepared.request().app;
        run.out.line("")?;
        run.out.line("REFUSED: nothing is removed")?;
        for obstacle in &obstacles {
            run.out.line(format!("  {obstacle}"))?;
        }
        for line in &stays {
            run.out.line(format!("  {line}"))?;
        }
        if obstacles.is_empty() {
            return Ok(Some(ExitCode::Refused));
        }
        run.out.line(format!(
            "Next: look at what is named (`lastgood snapshots`, `lastgood diff`). When it is as it should be: --even-though {}",
            text::shell_word(app)
        ))?;
    }
    Ok(Some(ExitCode::Refused))
}

fn done(
    run: &Run,
    chosen: &Chosen,
    forgotten: &Forgotten,
    prunes: bool,
    fields: &mut Map<String, Value>,
) -> Result<ExitCode> {
    fields.insert("gone".into(), json(&forgotten.gone));
    fields.insert("noted_as".into(), json(&forgotten.noted_as));
    let kept: Vec<(SnapshotId, &Error)> = forgotten.kept_by_store.iter().map(|(id, error)| (*id, error)).collect();
    let told = kept.iter().map(|(id, error)| object([("id", json(id)), ("message", error.chain().into())]));
    fields.insert("kept_by_store".into(), told.map(Value::Object).collect::<Vec<_>>().into());
    if run.out.is_human() {
        let gone = text::counted(forgotten.gone.len() as u64, "recovery point");
        let noted = match forgotten.noted_as {
            Some(_) => "`lastgood snapshots --removed` tells what went",
            None => "the store has no room for a note of what went",
        };
        let space = if prunes { "" } else { ". `lastgood prune` frees the space that only they took" };
        run.out.line(format!("Forgot {gone} in {}; {noted}{space}", chosen.place))?;
        for (id, error) in &kept {
            run.out.line(format!("{} stays for now: the store keeps it ({})", id.short(), error.chain()))?;
        }
    }
    Ok(if kept.is_empty() { ExitCode::Ok } else { ErrorKind::Held.into() })
}
