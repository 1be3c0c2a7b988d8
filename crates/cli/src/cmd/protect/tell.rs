//! What `protect` says at its end: what is safe now, how that is known, how to get it back, and where the key is.

use super::super::doctor::source_on_same_disk;
use super::super::init::KEY_WARNING;
use super::super::{backup, copy, report};
use super::Protected;
use super::proof::Proof;
use crate::config::{Config, SecretRef, SourceSpec};
use crate::exit_code::ExitCode;
use crate::output::{json, object};
use crate::run::{Chosen, Run};
use crate::{text, wiring};
use lastgood_model::Result;
use lastgood_ops::prove::ProofReport;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

pub(super) fn tell(
    run: &Run,
    config: &Config,
    path: &Path,
    written: bool,
    passwords: &[String],
    all: &[Protected],
    code: ExitCode,
) -> Result<()> {
    if !run.out.is_human() {
        return object_for_programs(run, path, written, passwords, all, code);
    }
    for one in all {
        match (&one.copied, one.taken.report.snapshot) {
            (Some((report, took)), Some(point)) => run.out.line(format!(
                "Copied to {} as {}. {}",
                one.chosen.word(),
                point.short(),
                copy::traffic(report, *took)
            ))?,
            _ => backup::tell(run, &one.chosen, &one.taken)?,
        }
        tell_proof(run, &one.proof)?;
        run.out.line("")?;
    }
    for one in all {
        if one.repository_made {
            run.out.line(format!("Repository:  {} (made now)", one.chosen.place))?;
        }
        match &one.key_made {
            Some(key) => {
                run.out.line(format!("Key:         {} (made now)", key.display()))?;
                run.out.line(format!("             {KEY_WARNING}"))?;
            }
            None => run.out.line(format!("Key:         {}", one.chosen.key()?.describe()))?,
        }
    }
    run.out.line(format!("Config:      {}{}", path.display(), if written { " (written now)" } else { "" }))?;
    for password in passwords {
        run.out.line(format!("Password:    {password}"))?;
    }
    run.out.line("Restore:     lastgood restore latest --to ./restored")?;
    for source in &config.sources {
        if let Some(command) = into_server(&source.name, &source.spec) {
            run.out.line(format!("             {command}"))?;
        }
    }
    if let Some(one) = all.first() {
        run.out.line("             from an empty machine, with only the repository and the key:")?;
        run.out.line(format!("             {}", from_nothing(&one.chosen)))?;
    }
    run.out.line("Next:        lastgood backup       the next recovery point (put it into cron or a systemd timer)")?;
    run.out.line("             lastgood snapshots    what there is")?;
    run.out.line("             lastgood verify       read every byte in the repository")?;
    for one in all {
        let beside = one.chosen.place.folder().and_then(|folder| source_on_same_disk(config, folder));
        if let Some(source) = beside {
            run.out.note(format!(
                "note: the repository {} is on the same file system as source {source}: one broken disk takes both; keep another one elsewhere",
                one.chosen.place
            ));
        }
    }
    Ok(())
}

fn tell_proof(run: &Run, proof: &Proof) -> Result<()> {
    match proof {
        Proof::NotDone(reason) => run.out.line(format!("NOT PROVEN: {reason}")),
        Proof::Done(report) if report.mismatches_total == 0 => {
            for name in &report.swept {
                run.out.note(format!("note: {name}, which a killed proof had left on the server, was dropped"));
            }
            if !report.unproven.is_empty() {
                for reason in &report.unproven {
                    run.out.line(format!("NOT PROVEN: {reason}"))?;
                }
                if report.files == 0 && report.databases.is_empty() {
                    return Ok(());
                }
            }
            run.out.line(format!(
                "Proven: restored in {} and compared: {}",
                text::duration(Duration::from_millis(report.restore_ms)),
                compared(report)
            ))
        }
        Proof::Done(report) => {
            run.out.line(format!(
                "NOT PROVEN: {} of the restored recovery point {} are not as they should be:",
                text::counted(report.mismatches_total, "thing"),
                report.snapshot.short()
            ))?;
            for mismatch in report.mismatches.iter().take(report::TOLD_MAX) {
                run.out.line(format!("  {mismatch}"))?;
            }
            run.out.line("Next: `lastgood check` and `lastgood verify` tell whether the repository is damaged; do not rely on this recovery point")
        }
    }
}

fn compared(report: &ProofReport) -> String {
    let mut parts = Vec::new();
    if report.files > 0 || report.databases.is_empty() {
        parts.push(format!("{} ({}) by their digests", text::counted(report.files, "file"), text::size(report.bytes)));
    }
    if report.files_equal_to_original > 0 {
        parts.push(format!("{} of them with the originals, byte by byte", text::count(report.files_equal_to_original)));
    }
    for database in &report.databases {
        if let (Some(name), Some(place)) = (&database.database, &database.restored_to) {
            parts.push(format!(
                "database {name} of {} in {place}: {} in {}, by their digests, and its schema",
                database.source,
                text::counted(database.rows, "row"),
                text::counted(database.tables, "table")
            ));
            continue;
        }
        parts.push(format!(
            "database {} opened, sound, with {} in {}",
            database.source,
            text::counted(database.rows, "row"),
            text::counted(database.tables, "table")
        ));
    }
    parts.join("; ")
}

/// The command that restores a source into a server.
fn into_server(name: &str, spec: &SourceSpec) -> Option<String> {
    let SourceSpec::Postgres(config) = spec else { return None };
    let target = wiring::target_beside(config).ok()?;
    let (name, target) = (text::shell_word(name), text::shell_word(&target));
    Some(format!("lastgood restore latest --source {name} --to {target}"))
}

/// The command that restores without config.
fn from_nothing(chosen: &Chosen) -> String {
    let key = match &chosen.key {
        Some(SecretRef::File(path)) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            format!("--key-file {}", text::shell_word(&path.to_string_lossy()))
        }
        _ => "--key-file KEY".to_owned(),
    };
    format!("lastgood restore latest --repo {} {key} --to ./restored", text::shell_word(&chosen.place.to_string()))
}

fn object_for_programs(
    run: &Run,
    path: &Path,
    written: bool,
    passwords: &[String],
    all: &[Protected],
    code: ExitCode,
) -> Result<()> {
    let runs: Vec<Value> = all
        .iter()
        .map(|one| {
            let (proof, reason) = match &one.proof {
                Proof::Done(report) => (json(report), Value::Null),
                Proof::NotDone(reason) => (Value::Null, reason.as_str().into()),
            };
            Value::Object(object([
                ("repository", one.chosen.place.to_string().into()),
                ("repository_made", one.repository_made.into()),
                ("key_made", json(&one.key_made)),
                ("backup", Value::Object(one.taken.fields(&one.chosen))),
                ("proof", proof),
                ("not_proven_because", reason),
                ("restore_command", from_nothing(&one.chosen).into()),
            ]))
        })
        .collect();
    run.out.object(&object([
        ("type", "lastgood.protect".into()),
        ("schema", 1.into()),
        ("config", json(&path)),
        ("config_written", written.into()),
        ("passwords", passwords.into()),
        ("runs", runs.into()),
        ("exit_code", code.number().into()),
    ]))
}
