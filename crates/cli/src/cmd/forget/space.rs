//! `forget --prune`: freeing the space that only forgotten points took.

use crate::cmd::prune::tell;
use crate::exit_code::ExitCode;
use crate::output::json;
use crate::run::Run;
use crate::text;
use lastgood_model::Result;
use lastgood_repo::Repository;
use lastgood_repo::gc::{PruneOptions, prune};
use serde_json::{Map, Value};
use std::time::{Duration, Instant};

/// How long others who are at work may take to end; after that the packs wait for the next prune.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Prunes as `lastgood prune` does by default, and adds what came of it to the report.
pub(super) fn free(run: &Run, repository: &Repository, fields: &mut Map<String, Value>) -> Result<ExitCode> {
    let monitor = run.monitor();
    let began = Instant::now();
    let progress = run.progress("Pruning", &monitor);
    let outcome = prune(repository, &monitor, &PruneOptions { lock_wait: LOCK_WAIT, ..PruneOptions::default() });
    drop(progress);
    let report = outcome?;
    if run.out.is_human() {
        tell(run, &report, &text::duration(began.elapsed()))?;
    }
    fields.insert("prune".into(), json(&report));
    Ok(if report.kept.is_empty() { ExitCode::Ok } else { ExitCode::Problems })
}
