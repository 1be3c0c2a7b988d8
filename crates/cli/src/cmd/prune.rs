//! `prune`: removes what no recovery point needs any more.

use crate::args::Prune;
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::run::Run;
use crate::text;
use lastgood_model::Result;
use lastgood_repo::gc::{PruneOptions, PruneReport, prune};
use std::time::Instant;

pub(super) fn run(run: &Run, args: &Prune) -> Outcome {
    let (repository, _) = run.open_one()?;
    let options = PruneOptions {
        max_unused: args.max_unused,
        max_repack_bytes: args.max_repack,
        max_time: args.max_time,
        dry_run: args.dry_run,
        lock_wait: args.lock_wait,
    };
    let monitor = run.monitor();
    let began = Instant::now();
    let progress = run.progress("Pruning", &monitor);
    let outcome = prune(&repository, &monitor, &options);
    drop(progress);
    let report = outcome?;
    if run.out.is_human() {
        tell(run, &report, &text::duration(began.elapsed()))?;
    } else {
        run.out.object(&report)?;
    }
    Ok(if report.kept.is_empty() { ExitCode::Ok } else { ExitCode::Problems })
}

pub(super) fn tell(run: &Run, report: &PruneReport, took: &str) -> Result<()> {
    let out = &run.out;
    for kept in &report.kept {
        out.line(format!("Kept: pack {}: {}", kept.pack, kept.reason))?;
    }
    let removed = format!("{} with {}", text::counted(report.packs_removed, "pack"), text::size(report.bytes_removed));
    let moved = match report.packs_repacked {
        0 => String::new(),
        packs => {
            format!(", after {} were moved out of {}", text::size(report.bytes_moved), text::counted(packs, "pack"))
        }
    };
    let waiting = report.deferred.as_ref();
    match (report.dry_run, waiting) {
        (true, _) => out.line(format!("Would remove {removed}{moved}"))?,
        (false, None) if report.packs_removed == 0 => out.line(format!("Nothing to remove, {took}"))?,
        (false, None) => out.line(format!("Removed {removed}{moved}, {took}"))?,
        (false, Some(deferred)) => {
            let packs = text::counted(deferred.packs, "pack");
            out.line(format!("{packs} with {} wait to be removed: {}", text::size(deferred.bytes), deferred.reason))?;
            out.line("Next: `lastgood prune` once more when that is over. Nobody relies on them any more")?;
        }
    }
    if report.packs_rescued > 0 {
        let packs = text::counted(report.packs_rescued, "pack");
        out.line(format!("{packs} stay: a recovery point made meanwhile needs them"))?;
    }
    if report.packs_held > 0 {
        let (packs, size) = (text::counted(report.packs_held, "pack"), text::size(report.bytes_held));
        let why = report.held.as_deref().unwrap_or("the store holds them");
        out.line(format!("{packs} with {size} cannot go yet: {why}"))?;
    }
    if report.out_of_time {
        out.line("The time was up before everything worth it was moved; the next prune goes on")?;
    }
    if !report.resumed {
        out.line(format!(
            "{} needed by {}; {} that nobody needs stay",
            text::size(report.bytes_used),
            text::counted(report.snapshots, "recovery point"),
            text::size(report.bytes_unused_left)
        ))?;
    }
    Ok(())
}
