//! `backup`: one recovery point of every source, in every repository that is meant.

use super::{report, spread};
use crate::args::{Backup, CompressionLevel};
use crate::config::Config;
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::local;
use crate::output::{json, object};
use crate::protection::{LastGood, last_good, now};
use crate::run::{Chosen, Run};
use crate::{text, usage, wiring};
use lastgood_model::manifest::SourceOutcome;
use lastgood_model::{Error, ErrorKind, Result};
use lastgood_ops::backup::{BackupOptions, BackupReport};
use lastgood_ops::emptied::{Had, databases_without_tables};
use lastgood_repo::{Compression, Repository};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::Arc;

pub(super) fn run(run: &Run, args: &Backup) -> Outcome {
    let config = run.need_config()?;
    if config.sources.is_empty() {
        return Err(Error::invalid("the config names nothing to protect")
            .with_hint("add a [source.NAME] section, or use `lastgood protect PATH…`")
            .into());
    }
    let all = run.repositories(Some(&config))?;
    // Mistakes in the names of sources are found before the first run.
    drop(wiring::sources(&config, &args.sources, &[])?);
    if let [chosen] = all.as_slice() {
        let taken = take(run, &config, chosen, args)?;
        if run.out.is_human() {
            tell(run, chosen, &taken)?;
        } else {
            let mut fields = taken.fields(chosen);
            fields.extend(object([("type", taken.report.kind.into()), ("schema", taken.report.schema.into())]));
            run.out.object(&fields)?;
        }
        usage::warn_if_near_full(run, &taken.repository, chosen, now());
        return Ok(taken.exit_code());
    }
    spread::run(run, &config, all, args)
}

/// A recovery point that was taken.
pub(super) struct Taken {
    pub(super) report: BackupReport,
    pub(super) repository: Arc<Repository>,
    /// The newest complete recovery point, which may be this one.
    pub(super) last_good: Option<LastGood>,
    pub(super) dry_run: bool,
}

impl Taken {
    pub(super) fn exit_code(&self) -> ExitCode {
        if self.report.complete { ExitCode::Ok } else { ExitCode::Problems }
    }

    pub(super) fn fields(&self, chosen: &Chosen) -> Map<String, Value> {
        let mut fields = match json(&self.report) {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        fields.insert("repository".into(), chosen.place.to_string().into());
        fields.insert("last_good".into(), json(&self.last_good));
        fields.insert("dry_run".into(), self.dry_run.into());
        fields
    }
}

/// Takes a recovery point in one repository.
pub(super) fn take(run: &Run, config: &Config, chosen: &Chosen, args: &Backup) -> Result<Taken> {
    let repository = run.open(chosen)?;
    let sources = wiring::sources(config, &args.sources, &never(Some(config), chosen))?;
    let options = BackupOptions {
        compression: args.compression.map_or(chosen.compression, level),
        force: args.force,
        reason: args.reason.clone(),
        tags: args.tags.clone(),
        dry_run: args.dry_run,
        lock_wait: args.lock_wait,
    };
    let monitor = run.monitor();
    let progress = run.progress("Backing up", &monitor);
    let outcome = lastgood_ops::backup::run(&repository, &config.app, &sources, &monitor, &options);
    drop(progress);
    let report = outcome.map_err(|error| of_repository(error, run, chosen))?;
    let last_good = last_good(&repository, Some(&config.app))?;
    Ok(Taken { report, repository, last_good, dry_run: args.dry_run })
}

/// Says so when it is the repository that cannot be written to.
fn of_repository(error: Error, run: &Run, chosen: &Chosen) -> Error {
    if error.kind() != ErrorKind::Denied {
        return error;
    }
    match chosen.place.store(&run.monitor()).and_then(|store| store.probe()) {
        Err(refused) if refused.kind() == ErrorKind::Denied => error.with_hint(format!(
            "the repository at {} cannot be written to, so nothing can be saved there; restores from it work. Mount its disk \
             for writing or give this user the permission, or back up into another one with --repo",
            chosen.place
        )),
        _ => error,
    }
}

/// What must never be captured, nor removed: the repositories, their keys, and our own cache.
pub(super) fn never(config: Option<&Config>, chosen: &Chosen) -> Vec<PathBuf> {
    let configured = config.map(|c| c.repositories.as_slice()).unwrap_or_default();
    let places = configured.iter().map(|r| &r.place).chain([&chosen.place]);
    let keys = configured.iter().filter_map(|r| r.key.as_ref()).chain(&chosen.key);
    let mut never: Vec<PathBuf> = places.filter_map(|place| place.folder().map(PathBuf::from)).collect();
    never.extend(keys.filter_map(|key| key.file()));
    never.extend(local::cache_folder());
    never.into_iter().filter_map(|path| std::path::absolute(path).ok()).collect()
}

fn level(level: CompressionLevel) -> Compression {
    match level {
        CompressionLevel::Fast => Compression::Fast,
        CompressionLevel::Balanced => Compression::Balanced,
        CompressionLevel::Max => Compression::Max,
        CompressionLevel::Off => Compression::Off,
    }
}

/// Tells a recovery point to people.
pub(super) fn tell(run: &Run, chosen: &Chosen, taken: &Taken) -> Result<()> {
    let (out, report) = (&run.out, &taken.report);
    let took = text::duration(text::between(report.started, report.finished));
    let state = if report.complete { "complete" } else { "INCOMPLETE" };
    match report.snapshot {
        Some(id) => {
            out.line(format!("Recovery point {} of {} in {}: {state}, {took}", id.short(), report.app, chosen.place))?
        }
        None => {
            out.line(format!("Rehearsal of {} into {}: {state}, {took}; nothing was stored", report.app, chosen.place))?
        }
    }
    out.line(report::sources(&report.sources))?;
    let unchanged = match report.files_unchanged {
        0 => String::new(),
        files => format!("; {} unchanged", text::counted(files, "file")),
    };
    let stored = if report.snapshot.is_some() { "stored in" } else { "would take" };
    out.line(format!(
        "Read {} of {}: {} new, {stored} {}{unchanged}.",
        text::size(report.bytes_read),
        text::size(report.bytes),
        text::size(report.bytes_new),
        text::size(report.bytes_stored),
    ))?;
    for line in report.sources.iter().flat_map(report::of_databases) {
        out.line(line)?;
    }
    for record in &report.sources {
        for database in report::databases_inside(record) {
            out.note(format!("note: [{}] {database} is a SQLite database; it was captured as one", record.name));
        }
    }
    if let Some(later) = &report.dated_later {
        out.line(format!(
            "WARNING: recovery point {} is dated {}, later than this one: `latest` means that one. Restore this one by its \
             id; where that date is wrong, `lastgood forget {}` takes the other away",
            later.snapshot.short(),
            text::moment(later.time),
            later.snapshot.short()
        ))?;
    }
    for emptied in &report.emptied {
        let (gone, had, look) = match emptied.had {
            Had::Folder { files } => ("files", text::counted(files, "file"), "Is its disk mounted?".to_owned()),
            Had::Database { tables, rows } => (
                "tables",
                format!("{} with {}", text::counted(tables, "table"), text::counted(rows, "row")),
                format!(
                    "Is its disk mounted, and is this the file that the application writes? If not on purpose: \
                     `lastgood restore {} --in-place --source {}`",
                    emptied.snapshot.short(),
                    emptied.source
                ),
            ),
            Had::OnServer { tables, rows } => (
                "tables",
                format!("{} with {}", text::counted(tables, "table"), text::counted(rows, "row")),
                format!(
                    "If that was not on purpose: `lastgood restore {} --source {} --database {} --to \
                     postgres://…/NEW_NAME`",
                    emptied.snapshot.short(),
                    emptied.source,
                    text::shell_word(&emptied.path),
                ),
            ),
        };
        out.line(format!(
            "WARNING: [{}] {} has no {gone} any more. In recovery point {} of {} the source had {had}. {look}",
            emptied.source,
            emptied.path,
            emptied.snapshot.short(),
            text::moment(emptied.time),
        ))?;
    }
    for record in &report.sources {
        for database in databases_without_tables(record) {
            if !report.emptied.iter().any(|emptied| emptied.source == record.name && emptied.path == database) {
                out.note(format!("note: [{}] database {database} has no tables", record.name));
            }
        }
        for path in report::folders_without_files(record) {
            if !report.emptied.iter().any(|emptied| emptied.source == record.name && emptied.path == path) {
                out.note(format!("note: [{}] {path} has no files", record.name));
            }
        }
    }
    let packs = text::counted(report.packs_adopted, "pack");
    if report.index_was_lost {
        let made = if taken.dry_run { "The next backup makes it" } else { "It was made" };
        out.line(format!(
            "WARNING: a part of the repository's index was damaged or gone. {made} anew from {packs} by their own lists, so \
             that every recovery point stays readable. Look for the cause, such as a failing disk or somebody's hand, and \
             run `lastgood check`"
        ))?;
    } else if report.packs_adopted > 0 {
        out.note(format!(
            "note: {packs} that no index file listed, as an interrupted run leaves them, were taken over"
        ));
    }
    if !report.complete {
        tell_incomplete(run, taken)?;
    }
    Ok(())
}

fn tell_incomplete(run: &Run, taken: &Taken) -> Result<()> {
    let (out, report) = (&run.out, &taken.report);
    out.line("")?;
    let mut unprotected = Vec::new();
    for record in &report.sources {
        match &record.outcome {
            SourceOutcome::Failed { error } => {
                out.line(format!("Failed: source {} is not in this recovery point: {error}", record.name))?;
                unprotected.push(format!("all of {}", record.name));
            }
            SourceOutcome::Partial => unprotected.push(format!("parts of {}", record.name)),
            SourceOutcome::Complete => {}
        }
    }
    if report.problems_total > 0 {
        out.line(format!("{}:", text::counted(report.problems_total, "problem")))?;
        let all = match report.snapshot {
            Some(id) => format!("see all with `lastgood cat {} .lastgood/manifest.json`", id.short()),
            None => "see all with --output json".to_owned(),
        };
        report::problems(out, &report.problems, report.problems_total, &all)?;
    }
    out.line(format!("Unprotected now: {}", unprotected.join(", ")))?;
    match &taken.last_good {
        Some(last) => out.line(format!(
            "Last good recovery point: {} of {} ({})",
            last.snapshot.short(),
            text::moment(last.time),
            text::age(last.time, report.finished)
        ))?,
        None => out.line("Last good recovery point: none")?,
    }
    out.line("Next: mend what is named above, or exclude it, and run `lastgood backup` again; `lastgood doctor` helps to find the cause")
}
