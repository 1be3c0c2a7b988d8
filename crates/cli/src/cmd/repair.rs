//! `repair …`: saves what can be saved, removes nothing.

use crate::args::{LOCK_WAIT_DEFAULT, Repair};
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::run::Run;
use crate::text;
use lastgood_model::store::ObjectKind;
use lastgood_model::{Monitor, PackId, Result};
use lastgood_repo::Repository;
use lastgood_repo::check::{DamagedObject, VerifyOptions, verify};
use lastgood_repo::repair::{self, IndexReport, PacksReport, SnapshotsReport, Unsaved};

pub(super) fn run(run: &Run, what: &Repair) -> Outcome {
    let (repository, _) = run.open_one()?;
    let monitor = run.monitor();
    let progress = run.progress("Repairing", &monitor);
    match what {
        Repair::Index => {
            let report = repair::index(&repository, &monitor, LOCK_WAIT_DEFAULT);
            drop(progress);
            let report = report?;
            if run.out.is_human() {
                tell_index(run, &report)?
            } else {
                run.out.object(&report)?
            }
            Ok(code(report.unsaved.is_empty()))
        }
        Repair::Packs { packs } => {
            let report = damaged(&repository, &monitor, packs)
                .and_then(|packs| repair::packs(&repository, &monitor, &packs, LOCK_WAIT_DEFAULT));
            drop(progress);
            let report = report?;
            if run.out.is_human() {
                tell_packs(run, &report)?
            } else {
                run.out.object(&report)?
            }
            Ok(code(report.packs.iter().all(|pack| pack.unsaved.is_empty())))
        }
        Repair::Snapshots { read_data } => {
            let report = repair::snapshots(&repository, &monitor, *read_data, LOCK_WAIT_DEFAULT);
            drop(progress);
            let report = report?;
            if run.out.is_human() {
                tell_snapshots(run, &report)?
            } else {
                run.out.object(&report)?
            }
            Ok(code(report.unsaved.is_empty() && report.repaired.is_empty()))
        }
    }
}

fn code(all_saved: bool) -> ExitCode {
    if all_saved { ExitCode::Ok } else { ExitCode::Problems }
}

/// The packs that were named, else those that are found damaged.
fn damaged(repository: &Repository, monitor: &Monitor, named: &[PackId]) -> Result<Vec<PackId>> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    let found = verify(repository, monitor, &VerifyOptions::all())?;
    let packs = found.damage.iter().filter_map(|damage| match &damage.object {
        DamagedObject::Stored(key) if key.kind == ObjectKind::Pack => Some(PackId(key.id)),
        _ => None,
    });
    Ok(packs.collect())
}

fn tell_unsaved(run: &Run, unsaved: &[Unsaved]) -> Result<()> {
    for one in unsaved {
        run.out.line(format!("Not saved: {}: {}", one.object, one.reason))?;
    }
    Ok(())
}

fn tell_index(run: &Run, report: &IndexReport) -> Result<()> {
    tell_unsaved(run, &report.unsaved)?;
    run.out.line(match report.packs_listed.len() as u64 {
        0 => "Nothing to repair: an index file lists every pack".to_owned(),
        packs => format!("Listed anew: {}. `lastgood check` tells whether all is there", text::counted(packs, "pack")),
    })
}

fn tell_packs(run: &Run, report: &PacksReport) -> Result<()> {
    for pack in &report.packs {
        tell_unsaved(run, &pack.unsaved)?;
        run.out.line(format!(
            "Pack {}: {} saved, {} found in other packs, {} not saved",
            pack.pack,
            text::counted(pack.blobs_saved, "blob"),
            text::count(pack.blobs_elsewhere),
            text::count(pack.unsaved.len() as u64)
        ))?;
    }
    if report.packs.is_empty() {
        return run.out.line("Nothing to repair: no pack is damaged");
    }
    run.out.line("Next: `lastgood backup` stores again what the sources still have; `lastgood repair snapshots --read-data` makes recovery points without the rest")
}

fn tell_snapshots(run: &Run, report: &SnapshotsReport) -> Result<()> {
    tell_unsaved(run, &report.unsaved)?;
    for one in &report.repaired {
        let made = if one.was_there { "was made before" } else { "made" };
        run.out.line(format!(
            "Recovery point {}: {} {made} beside it, without {}:",
            one.snapshot.short(),
            one.new.short(),
            text::counted(one.left_out_total, "path")
        ))?;
        for path in &one.left_out {
            run.out.line(format!("  {}", text::printable(path)))?;
        }
    }
    run.out.line(format!("{} whole", text::counted(report.sound, "recovery point")))
}
