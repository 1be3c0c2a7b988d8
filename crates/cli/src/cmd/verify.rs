//! `verify`: every byte in the repository, or a part of it in turn.

use super::each::{Told, over_all};
use super::{check, report};
use crate::args::Verify;
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::local::state_folder;
use crate::protection::last_good_but;
use crate::run::Run;
use crate::text;
use lastgood_model::{Error, ErrorKind, Result};
use lastgood_repo::Repository;
use lastgood_repo::check::{VerifyOptions, verify};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) fn run(run: &Run, args: &Verify) -> Outcome {
    let each =
        |repository: &Arc<Repository>, app: Option<&str>, told: &mut Told<'_>| one(run, args, repository, app, told);
    over_all(run, "lastgood.verifications", "lastgood.verify", each)
}

fn one(
    run: &Run,
    args: &Verify,
    repository: &Arc<Repository>,
    app: Option<&str>,
    told: &mut Told<'_>,
) -> Result<ExitCode> {
    let ledger = state_folder().map(|folder| folder.join("verify").join(format!("{}.ledger", repository.id())));
    let mut options = match (args.sample, args.within) {
        (Some(percent), _) => VerifyOptions::sample(percent, std::hash::RandomState::new().build_hasher().finish()),
        (None, Some(every)) => {
            let ledger = ledger.clone().ok_or_else(|| {
                Error::new(ErrorKind::Absent, "there is no folder to remember in what was verified when")
                    .with_hint("set HOME or XDG_STATE_HOME")
            })?;
            VerifyOptions::rolling(every, ledger)
        }
        (None, None) => VerifyOptions::all(),
    };
    if let Some(ledger) = ledger {
        options = options.with_ledger(ledger);
    }
    let monitor = run.monitor();
    let began = Instant::now();
    let progress = run.progress("Verifying", &monitor);
    let outcome = verify(repository, &monitor, &options);
    drop(progress);
    let found = outcome?;
    if !run.out.is_human() {
        told.object(&found)?;
    } else {
        report::damage(&run.out, &found.damage, found.damage_total)?;
        check::notes(&run.out, &found.notes);
        let took = began.elapsed();
        let speed = found.bytes_verified as f64 / took.as_secs_f64().max(0.001);
        let read = format!(
            "read {} in {} ({} of {}), {}, {}/s",
            text::size(found.bytes_verified),
            text::counted(found.packs_verified, "pack"),
            text::count(found.packs_verified),
            text::count(found.counts.packs),
            text::duration(took),
            text::size(speed as u64)
        );
        if found.is_sound() {
            run.out.line(format!("Sound: {}; {read}", check::counts(&found.counts)))?;
        } else {
            run.out.line(format!("DAMAGED: {}; {read}", text::counted(found.damage_total, "finding")))?;
            check::affected(&run.out, &found.snapshots_affected, found.counts.snapshots)?;
            let last = last_good_but(repository, app, &found.snapshots_affected)?;
            run.out.line(format!(
                "Last good recovery point: {}",
                last.map_or_else(|| "none".to_owned(), |last| last.describe())
            ))?;
        }
        if let Some(coverage) = &found.coverage {
            let waited = match coverage.packs_never_verified {
                0 => format!(
                    "; the longest any has waited is {}",
                    text::duration(Duration::from_secs(coverage.oldest_unverified_secs))
                ),
                packs => format!("; {} not verified yet", text::counted(packs, "pack")),
            };
            run.out.line(format!("Verified so far: {:.1} % of all bytes{waited}", coverage.covered_percent))?;
        }
    }
    Ok(if found.is_sound() { ExitCode::Ok } else { ExitCode::Damage })
}
