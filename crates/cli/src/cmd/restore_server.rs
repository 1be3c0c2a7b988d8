//! `restore --to postgres://…`: a PostgreSQL source into a server.

use super::plan;
use crate::args::{Format, Restore};
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::output::Out;
use crate::protection::last_good;
use crate::run::Run;
use crate::several::Holding;
use crate::text;
use crate::wiring::{self, Server};
use lastgood_model::{Error, ErrorKind, Result};
use lastgood_ops::restore_server::{DatabaseFate, ServerPlanSummary, ServerRestoreReport, plan as plan_restore};
use std::time::{Duration, Instant};

pub(super) fn run(run: &Run, args: &Restore, url: &str) -> Outcome {
    refuse_flags_of_files(args)?;
    let server = Server::parse(url).map_err(|error| error.context("understand --to"))?;
    if wiring::holds_password(url) {
        run.out.note("note: others on this machine can see a password in a command line; ~/.pgpass or PGPASSWORD keep it from them");
    }
    let (Holding { repository, app, .. }, snapshot) = run.open_with(&[&args.snapshot])?.one()?;
    let request = wiring::server_request(args, &server)?;
    run.remember_restore();
    let monitor = run.monitor();
    let planned = plan_restore(&repository, &snapshot, request, &monitor).map_err(|error| match error.kind() {
        ErrorKind::Cancelled => error.with_hint("nothing was restored or changed yet; run the same command again"),
        _ => error,
    })?;
    let refusal = planned.refusal();
    let is_destructive = planned.is_destructive();
    if args.dry_run || planned.replaces_something() || refusal.is_some() {
        let told =
            args.dry_run || (is_destructive && !args.yes && refusal.is_none() && run.out.format == Format::Ndjson);
        if run.out.is_human() {
            tell_plan(&run.out, &planned.summary, &server)?;
        } else if told {
            run.out.object(&planned.summary)?;
        }
    }
    match refusal {
        Some(refusal) if args.dry_run && !run.out.is_human() => return Ok(refusal.kind().into()),
        Some(refusal) => return Err(refusal.into()),
        None if args.dry_run => return Ok(ExitCode::Ok),
        None => {}
    }
    if is_destructive {
        plan::confirm(&run.out, args.yes, "Do it?")?;
    }
    // Told with the report when all goes well.
    let warnings: Vec<String> = planned.summary.databases.iter().flat_map(|one| one.warnings.clone()).collect();
    let began = Instant::now();
    let progress = run.progress("Restoring", &monitor);
    let outcome = planned.execute(&monitor);
    drop(progress);
    let restored = outcome.map_err(|error| match (error.kind(), last_good(&repository, app.as_deref())) {
        (ErrorKind::Cancelled, Ok(Some(last))) => {
            let left = error.hint().unwrap_or_default().to_owned();
            error.with_hint(format!("{left}. The last good recovery point is {}", last.describe()))
        }
        (ErrorKind::Corrupt, _) => error,
        _ => {
            let mut left = error.hint().map(|left| format!("{left}. ")).unwrap_or_default();
            warnings.iter().for_each(|warning| left.push_str(&format!("The plan warned: {warning}. ")));
            error.with_hint(format!("{left}Recovery point {} is as it was", snapshot.id.short()))
        }
    })?;
    if run.out.is_human() {
        tell(&run.out, &restored, began.elapsed())?;
    } else {
        run.out.object(&restored)?;
    }
    let is_whole = restored.incomplete.is_empty() && restored.databases.iter().all(|one| one.failed.is_empty());
    Ok(match (restored.manifest_damaged, is_whole) {
        (true, _) => ExitCode::Damage,
        (false, true) => ExitCode::Ok,
        (false, false) => ExitCode::Problems,
    })
}

/// Flags that mean nothing for a server.
fn refuse_flags_of_files(args: &Restore) -> Result<()> {
    let given = [
        ("--path", !args.paths.is_empty(), "say --table or --schema for a part of a database"),
        ("--delete", args.delete, "say --overwrite to have the database replaced as a whole"),
        ("--owners", args.owners.is_some(), "say --no-owner to have everything belong to the role that restores"),
    ];
    match given.iter().find(|(_, given, _)| *given) {
        Some((flag, _, hint)) => {
            Err(Error::invalid(format!("{flag} is for files and does not go with a server as the target"))
                .with_hint(*hint))
        }
        None if args.sources.len() > 1 => {
            Err(Error::invalid("only one source at a time can be restored into a server")
                .with_hint("run the command once for each source"))
        }
        None => Ok(()),
    }
}

/// Flags that mean nothing for a folder.
pub(super) fn refuse_flags_of_servers(args: &Restore) -> Result<()> {
    match args.server.given().first() {
        None => Ok(()),
        Some(flag) => Err(Error::invalid(format!("{flag} is for a restore into a server, and the target is none"))
            .with_hint(
                "say --to postgres://HOST/DATABASE; into a folder a PostgreSQL source is restored as files, of which --path names a part",
            )),
    }
}

fn tell_plan(out: &Out, summary: &ServerPlanSummary, server: &Server) -> Result<()> {
    out.line(format!(
        "Plan: restore source {} of recovery point {} to {}",
        summary.source,
        summary.snapshot.short(),
        server.shown()
    ))?;
    for database in &summary.databases {
        let fate = match (&database.replaces, database.fate) {
            (Some(replaced), _) => format!("in the place of what is there, which is taken away: {replaced}"),
            (None, DatabaseFate::Made) => "which is made".to_owned(),
            (None, DatabaseFate::Used) => "which is there and empty".to_owned(),
            (None, DatabaseFate::Replaced) => "in the place of what is there, which is taken away".to_owned(),
            (None, DatabaseFate::AddedTo) => "which stays, with this added to it".to_owned(),
        };
        out.line(format!(
            "  {}  ->  {} on {} (PostgreSQL {}), {fate}",
            database.source, database.database, database.server, database.server_version
        ))?;
        let mut parts = vec![
            text::counted(database.steps, "definition"),
            text::counted(database.tables, "table"),
            text::counted(database.rows, "row"),
            text::size(database.bytes),
        ];
        if database.sequences > 0 {
            parts.push(text::counted(database.sequences, "sequence"));
        }
        if database.large_objects > 0 {
            parts.push(text::counted(database.large_objects, "large object"));
        }
        out.line(format!("    {}; {} at once", parts.join(", "), text::counted(database.jobs as u64, "connection")))?;
        if !database.roles_made.is_empty() {
            out.line(format!("    roles that are made: {}", database.roles_made.join(", ")))?;
        }
        for note in database.meanwhile.iter().chain(&database.notes) {
            out.line(format!("    note: {note}"))?;
        }
        for warning in &database.warnings {
            out.line(format!("    WARNING: {warning}"))?;
        }
        for obstacle in &database.obstacles {
            out.line(format!("    IN THE WAY: {}", obstacle.message))?;
        }
    }
    Ok(())
}

fn tell(out: &Out, report: &ServerRestoreReport, took: Duration) -> Result<()> {
    out.line(format!(
        "Restored source {} of recovery point {} to {}, {}",
        report.source,
        report.snapshot.short(),
        report.to,
        text::duration(took)
    ))?;
    for database in &report.databases {
        out.line(format!(
            "  database {}: {}, {}, {}, {}; every row was counted and digested on its way",
            database.database,
            text::counted(database.steps, "definition"),
            text::counted(database.tables, "table"),
            text::counted(database.rows, "row"),
            text::size(database.bytes)
        ))?;
        if !database.roles_made.is_empty() {
            out.line(format!("  roles made: {}", database.roles_made.join(", ")))?;
        }
        for notice in &database.notices {
            out.line(format!("  note: {}", text::printable(notice)))?;
        }
        if !database.failed.is_empty() {
            let failed = text::counted(database.failed.len() as u64, "definition");
            out.line(format!("  FAILED in database {}, and left out: {failed}", database.database))?;
        }
        for failed in &database.failed {
            out.line(format!("  {}: {}", failed.what, text::printable(&failed.error)))?;
            for line in failed.sql.lines() {
                out.line(format!("    {}", text::printable(line)))?;
            }
        }
    }
    if !report.incomplete.is_empty() {
        out.line("This source is INCOMPLETE in this recovery point:")?;
        for line in &report.incomplete {
            out.line(format!("  {}", text::printable(line)))?;
        }
    }
    Ok(())
}
