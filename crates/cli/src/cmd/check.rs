//! `check`: is everything there, and does it fit together.

use super::each::{Told, over_all};
use super::report;
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::output::Out;
use crate::protection::last_good_but;
use crate::run::Run;
use crate::text;
use lastgood_model::{Result, SnapshotId};
use lastgood_repo::Repository;
use lastgood_repo::check::{CheckOptions, Counts, check};
use std::sync::Arc;
use std::time::Instant;

pub(super) fn run(run: &Run) -> Outcome {
    let each = |repository: &Arc<Repository>, app: Option<&str>, list: &mut Told<'_>| one(run, repository, app, list);
    over_all(run, "lastgood.checks", "lastgood.check", each)
}

fn one(run: &Run, repository: &Arc<Repository>, app: Option<&str>, told: &mut Told<'_>) -> Result<ExitCode> {
    let monitor = run.monitor();
    let began = Instant::now();
    let progress = run.progress("Checking", &monitor);
    let outcome = check(repository, &monitor, &CheckOptions::default());
    drop(progress);
    let found = outcome?;
    if !run.out.is_human() {
        told.object(&found)?;
    } else {
        report::damage(&run.out, &found.damage, found.damage_total)?;
        notes(&run.out, &found.notes);
        let took = text::duration(began.elapsed());
        if found.is_sound() {
            run.out.line(format!("Sound: {}, {took}", counts(&found.counts)))?;
            run.out.line("Every reference is there. `lastgood verify` reads every byte, too.")?;
        } else {
            run.out.line(format!(
                "DAMAGED: {} in {}, {took}",
                text::counted(found.damage_total, "finding"),
                counts(&found.counts)
            ))?;
            affected(&run.out, &found.snapshots_affected, found.counts.snapshots)?;
            let last = last_good_but(repository, app, &found.snapshots_affected)?;
            run.out.line(format!(
                "Last good recovery point: {}",
                last.map_or_else(|| "none".to_owned(), |last| last.describe())
            ))?;
        }
    }
    Ok(if found.is_sound() { ExitCode::Ok } else { ExitCode::Damage })
}

pub(super) fn counts(counts: &Counts) -> String {
    format!(
        "{}, {}, {}, {}",
        text::counted(counts.snapshots, "recovery point"),
        text::counted(counts.packs, "pack"),
        text::counted(counts.blobs, "blob"),
        text::size(counts.bytes_stored)
    )
}

pub(super) fn notes(out: &Out, notes: &[String]) {
    for note in notes {
        out.note(format!("note: {note}"));
    }
}

/// Which recovery points are affected, and what to do.
pub(super) fn affected(out: &Out, affected: &[SnapshotId], all: u64) -> Result<()> {
    if affected.is_empty() {
        out.line("All recovery points can be restored in full.")?;
        return out.line("Next: as said with each finding. Look for the cause, such as a failing disk");
    }
    let ids: Vec<String> = affected.iter().map(|id| id.short()).collect();
    let others = match all.saturating_sub(affected.len() as u64) {
        0 => "there is no other".to_owned(),
        1 => "the other one can".to_owned(),
        sound => format!("the other {} can", text::count(sound)),
    };
    out.line(format!("Cannot be restored in full: {}; {others}", ids.join(", ")))?;
    out.line("Next: as said with each finding; another copy of the repository helps best. Look for the cause, such as a failing disk")
}
