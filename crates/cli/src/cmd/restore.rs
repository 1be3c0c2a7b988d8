//! `restore`: a recovery point, or part of one, into a folder or back to where it came from.

use super::{backup, plan, report, restore_server};
use crate::args::{Format, Restore};
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::output::Out;
use crate::protection::last_good;
use crate::run::{Run, path_bytes};
use crate::several::Holding;
use crate::{text, wiring};
use lastgood_model::{Error, ErrorKind, Result, SnapshotId};
use lastgood_ops::restore::{Destination, PlanSummary, Removals, RestoreReport, RestoreRequest, plan as plan_restore};
use lastgood_repo::Repository;
use std::time::Instant;

/// How many entries to be removed a plan names; programs get all of them.
const REMOVALS_TOLD: usize = 20;

/// How many side files of databases a plan names.
const SIDE_FILES_TOLD: usize = 20;

pub(super) fn run(run: &Run, args: &Restore) -> Outcome {
    if let Some(url) = args.to.as_ref().filter(|to| wiring::is_postgres_url(to.as_os_str())).and_then(|to| to.to_str())
    {
        return restore_server::run(run, args, url);
    }
    restore_server::refuse_flags_of_servers(args)?;
    let to = match &args.to {
        Some(folder) => Destination::Folder(folder.clone()),
        None if args.in_place => Destination::InPlace,
        None => {
            return Err(Error::invalid("nothing says where to restore to")
                .with_hint(
                    "say --to DIR to restore into a folder, --to postgres://HOST/DATABASE to restore a PostgreSQL source \
                     into a server, or --in-place to restore to where everything came from, which shows a plan first",
                )
                .into());
        }
    };
    let config = run.config()?;
    let (Holding { chosen, repository, app, also, .. }, snapshot) =
        run.open_holding(config.as_ref(), &[&args.snapshot])?.one()?;
    let mut request = RestoreRequest {
        to,
        sources: args.sources.clone(),
        paths: args.paths.iter().map(|path| path_bytes(path).to_vec()).collect(),
        overwrite: args.overwrite,
        delete_extra: args.delete,
        never_remove: if args.delete { backup::never(config.as_ref(), &chosen) } else { Vec::new() },
        owners: None,
        force: args.force,
        dry_run: args.dry_run,
    };
    wiring::set_owners(&mut request, args.owners);
    let monitor = run.monitor();
    let began = Instant::now();
    let planned = plan_restore(&repository, snapshot, request, &monitor).map_err(|error| match error.kind() {
        ErrorKind::Cancelled => error.with_hint("nothing was restored or changed yet; run the same command again"),
        _ => error,
    })?;
    let planning = began.elapsed();
    // What goes over existing data, or away with it, is shown first.
    let is_destructive = args.in_place || args.delete;
    if args.dry_run || is_destructive {
        // In `json` there is one document: the refusal, or with --dry-run the plan.
        let told = args.dry_run || (!args.yes && run.out.format == Format::Ndjson);
        if run.out.is_human() {
            tell_plan(&run.out, &planned.summary)?;
        } else if told {
            run.out.object(&planned.summary)?;
        }
        if args.dry_run {
            return Ok(ExitCode::Ok);
        }
        plan::confirm(&run.out, args.yes, "Do it?")?;
    }
    if planned.summary.resumes {
        run.out.note("note: an interrupted restore is taken up again; what is there already is compared and kept");
    }
    // The time a person took to say yes is not ours.
    let began = Instant::now();
    let progress = run.progress("Restoring", &monitor);
    let outcome = planned.execute(&monitor);
    drop(progress);
    let restored = outcome.map_err(|error| interrupted(error, &repository, app.as_deref()))?;
    if run.out.is_human() {
        tell(&run.out, &restored, planning + began.elapsed())?;
        if let (ExitCode::Damage, Some(other)) = (exit_code(&restored), also.first()) {
            run.out.line(format!("{other} has this recovery point, too: run the same command with --repo {other}"))?;
        }
    } else {
        run.out.object(&restored)?;
    }
    Ok(exit_code(&restored))
}

/// Adds to what a stopped restore left which recovery point is the last good one.
fn interrupted(error: Error, repository: &Repository, app: Option<&str>) -> Error {
    if error.kind() != ErrorKind::Cancelled {
        return error;
    }
    let left = error.hint().unwrap_or_default().to_owned();
    match last_good(repository, app) {
        Ok(Some(last)) => error.with_hint(format!("{left}. The last good recovery point is {}", last.describe())),
        _ => error.with_hint(left),
    }
}

fn exit_code(report: &RestoreReport) -> ExitCode {
    if report.manifest_damaged || report.failures.iter().any(|f| f.damage) {
        ExitCode::Damage
    } else if report.failures_total > 0 || report.problems_total > 0 {
        ExitCode::Problems
    } else {
        ExitCode::Ok
    }
}

fn tell_plan(out: &Out, summary: &PlanSummary) -> Result<()> {
    out.line(format!(
        "Plan: restore recovery point {}: {}, {}, {}",
        summary.snapshot.short(),
        text::counted(summary.files, "file"),
        text::counted(summary.dirs, "folder"),
        text::size(summary.bytes)
    ))?;
    for item in &summary.items {
        let how = if item.swap { "swapped in as a whole; the old database is kept beside it" } else { "written" };
        out.line(format!("  {}  ->  {}  ({how})", item.from, item.to))?;
    }
    if let Some(places) = &summary.in_place {
        out.line(format!(
            "There now: {} the same, {} different and overwritten, {} missing and made",
            text::count(places.same),
            text::count(places.differing),
            text::count(places.missing)
        ))?;
        for place in &places.examples {
            let because = place.because.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            out.line(format!("  {} {}{because}", place.state, place.path))?;
        }
        let told = places.examples.len() as u64;
        let all = places.differing + places.missing;
        if all > told {
            out.line(format!("  and {} more", text::count(all - told)))?;
        }
    }
    if let Some(obstacle) = &summary.obstacle {
        out.line(format!("WARNING: the restore itself would be refused now: {obstacle}"))?;
    }
    for side in summary.side_files.iter().take(SIDE_FILES_TOLD) {
        out.line(format!("To be moved aside, since it belongs to a database that is replaced: {side}"))?;
    }
    if summary.side_files.len() > SIDE_FILES_TOLD {
        let more = text::count((summary.side_files.len() - SIDE_FILES_TOLD) as u64);
        out.line(format!("  and {more} more; --dry-run --output json names every one"))?;
    }
    match &summary.removals {
        Some(removals) => tell_removals(out, removals),
        None => Ok(()),
    }
}

fn tell_removals(out: &Out, removals: &Removals) -> Result<()> {
    if removals.entries == 0 {
        out.line("Nothing is there that the recovery point does not have, so nothing is removed")?;
    } else {
        out.line(format!(
            "To be REMOVED, since the recovery point does not have it: {}, {}",
            text::counted(removals.entries, "entry"),
            text::size(removals.bytes)
        ))?;
        for item in removals.items.iter().take(REMOVALS_TOLD) {
            let what = match item.folder {
                true => format!("/  (folder with all in it: {}, ", text::counted(item.entries, "entry")),
                false => "  (".to_owned(),
            };
            out.line(format!("  {}{what}{})", item.path, text::size(item.bytes)))?;
        }
        let told = removals.items.len().min(REMOVALS_TOLD);
        if removals.items.len() > told {
            let more = text::count((removals.items.len() - told) as u64);
            out.line(format!("  and {more} more; --dry-run --output json names every entry"))?;
        }
    }
    for kept in &removals.kept {
        out.line(format!("Not removed: {}: {}", kept.path, kept.reason))?;
    }
    Ok(())
}

fn tell(out: &Out, report: &RestoreReport, took: std::time::Duration) -> Result<()> {
    out.line(format!(
        "Restored recovery point {} to {}: {}, {}, {}, {}",
        report.snapshot.short(),
        report.to,
        text::counted(report.files, "file"),
        text::counted(report.dirs, "folder"),
        text::size(report.bytes),
        text::duration(took)
    ))?;
    if report.files_same > 0 {
        out.line(format!("{} were the same already", text::counted(report.files_same, "file")))?;
    }
    if report.removed > 0 {
        out.line(format!(
            "{} that the recovery point does not have were removed",
            text::counted(report.removed, "entry")
        ))?;
    }
    for swapped in &report.swapped {
        out.line(format!("Swapped in {}:", swapped.path))?;
        for step in &swapped.steps {
            out.line(format!("  {step}"))?;
        }
    }
    if !report.incomplete.is_empty() {
        out.line("This recovery point is INCOMPLETE: it never had all of the application.")?;
        for line in &report.incomplete {
            out.line(format!("  {}", text::printable(line)))?;
        }
    }
    for line in &report.moved_aside {
        out.line(format!("Side file of a database: {line}"))?;
    }
    if !report.moved_aside.is_empty() || !report.swapped.is_empty() {
        out.line(
            "What was kept of the old databases stays there; remove it when you are sure. `lastgood doctor` names it",
        )?;
    }
    if report.failures_total > 0 {
        tell_failures(out, report, report.snapshot)?;
    }
    if report.problems_total > 0 {
        out.line(format!("{} with what was restored:", text::counted(report.problems_total, "problem")))?;
        report::problems(out, &report.problems, report.problems_total, "--output json lists them")?;
    }
    if report.manifest_damaged {
        out.line("The manifest of this recovery point is damaged, so that nobody can tell whether it ever had all of the application")?;
        out.line("Next: `lastgood verify` names all that is damaged, and which recovery points are whole")?;
    }
    Ok(())
}

fn tell_failures(out: &Out, report: &RestoreReport, snapshot: SnapshotId) -> Result<()> {
    out.line(format!("NOT restored: {}", text::counted(report.failures_total, "entry")))?;
    for failure in report.failures.iter().take(report::TOLD_MAX) {
        let damage = if failure.damage { " (damaged in the repository)" } else { "" };
        out.line(format!("  {}: {}{damage}", failure.path, failure.error))?;
    }
    let told = report.failures.len().min(report::TOLD_MAX) as u64;
    if report.failures_total > told {
        out.line(format!("  and {} more; --output json lists them", text::count(report.failures_total - told)))?;
    }
    if report.failures.iter().any(|f| f.damage) {
        out.line(format!(
            "Next: `lastgood verify` names all that is damaged; an earlier recovery point than {} may have these files whole",
            snapshot.short()
        ))
    } else {
        out.line("Next: mend the cause and run the same command again; only what is missing will be written")
    }
}
