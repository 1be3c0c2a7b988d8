//! `forget --prune`: freeing the space that only forgotten points took.

use crate::exit_code::ExitCode;
use crate::output::json;
use crate::run::Run;
use crate::text;
use lastgood_model::Result;
use lastgood_repo::Repository;
use lastgood_repo::gc::{PruneOptions, PruneReport, prune};
use serde_json::{Map, Value};
use std::time::Duration;

/// How long others who are at work may take to end; after that the packs wait for the next prune.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Prunes as `lastgood prune` does by default, and adds what came of it to the report.
pub(super) fn free(run: &Run, repository: &Repository, fields: &mut Map<String, Value>) -> Result<ExitCode> {
    let monitor = run.monitor();
    let progress = run.progress("Pruning", &monitor);
    let outcome = prune(repository, &monitor, &PruneOptions { lock_wait: LOCK_WAIT, ..PruneOptions::default() });
    drop(progress);
    let report = outcome?;
    if run.out.is_human() {
        tell(run, &report)?;
    }
    fields.insert("prune".into(), json(&report));
    Ok(if report.kept.is_empty() { ExitCode::Ok } else { ExitCode::Problems })
}

fn tell(run: &Run, report: &PruneReport) -> Result<()> {
    let sized = |packs: u64, bytes: u64| format!("{} with {}", text::counted(packs, "pack"), text::size(bytes));
    if let Some(deferred) = &report.deferred {
        let packs = sized(deferred.packs, deferred.bytes);
        run.out.line(format!("{packs} wait to be removed: {}. The next prune does it", deferred.reason))?;
    } else {
        run.out.line(format!("Pruned: {} removed", sized(report.packs_removed, report.bytes_removed)))?;
    }
    if report.packs_held > 0 {
        let why = report.held.as_deref().unwrap_or("the store holds them");
        run.out.line(format!("{} cannot go yet: {why}", sized(report.packs_held, report.bytes_held)))?;
    }
    report.kept.iter().try_for_each(|kept| run.out.line(format!("Kept: pack {}: {}", kept.pack, kept.reason)))
}
