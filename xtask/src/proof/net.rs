//! Stores of every kind behind a network that stalls, resets and cuts, and before servers that are busy, broken, lie about
//! lengths, or stop to know the credentials in the midst of a run.
//!
//! The engine in this process works against real servers. After each run: it has ended in time, done or failed; if it
//! failed, it said so without telling a secret and without calling sound data damaged, and the same run through a sound
//! network succeeds by itself; every recovery point that was ever told to be saved reads byte for byte.

mod ground;
mod hand;
mod trouble;

use super::started_seed;
use super::stats::upper95;
use crate::{setup, shell};
use anyhow::{Result, bail};
use clap::ValueEnum;
use ground::{Ground, Kind};
use hand::Case;
use lastgood_stores::planted::Planted;
use lastgood_testkit::rng::Rng;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many runs are to meet trouble.
    #[arg(long, default_value_t = 1000)]
    n: u64,
    /// Decides all troubles; taken from the clock when not given, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Ends after so long, whatever was tried by then.
    #[arg(long)]
    seconds: Option<u64>,
    /// Only stores of this kind.
    #[arg(long)]
    store: Option<Kind>,
    /// Plants a mistake, which must be found.
    #[arg(long, value_parser = planted)]
    planted: Option<Planted>,
    /// Plays the one case of this seed; to be given with --store.
    #[arg(long, requires = "store")]
    only: Option<u64>,
}

fn planted(name: &str) -> Result<Planted, String> {
    let known = Planted::ALL.iter().find(|(known, _)| *known == name);
    known.map(|(_, planted)| *planted).ok_or_else(|| {
        let names: Vec<_> = Planted::ALL.iter().map(|(name, _)| *name).collect();
        format!("one of {}", names.join(", "))
    })
}

fn name_of(planted: Planted) -> &'static str {
    Planted::ALL.iter().find(|(_, known)| *known == planted).map_or("", |(name, _)| name)
}

/// Cases at once: most of their time is waiting.
const WORKERS: usize = 6;
/// As many failures end it.
const FAILURES_MAX: usize = 10;

/// What a campaign came to.
#[derive(Debug, Default)]
struct Outcome {
    /// Runs that met trouble, and how they ended.
    runs: u64,
    done: u64,
    failed: u64,
    slowest: Duration,
    /// By kind of store, and by kind of trouble.
    stores: BTreeMap<String, u64>,
    troubles: BTreeMap<String, u64>,
    failures: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    setup::run(&setup::Options::PRESENT)?;
    let kinds = options.store.map_or_else(|| Kind::value_variants().to_vec(), |kind| vec![kind]);
    if let Some(seed) = options.only {
        let ground = Ground::new(kinds[0], options.planted)?;
        let played = Case::new(&ground, seed)?.play();
        println!("{played:#?}");
        return played.verdict.map_err(|failure| anyhow::anyhow!(failure));
    }
    let seed = options.seed.unwrap_or_else(|| started_seed().unwrap_or(1));
    println!("seed {seed}");
    let outcome = campaign(&kinds, seed, options.n, options.seconds.map(Duration::from_secs), options.planted)?;
    let failed = outcome.failures.len() as u64;
    println!(
        "{}",
        json!({"type": "lastgood.proof", "schema": 1, "proof": "net", "commit": shell::commit(), "seed": seed,
            "cases": outcome.runs, "done": outcome.done, "failed": outcome.failed,
            "slowest_s": (outcome.slowest.as_secs_f64() * 10.0).round() / 10.0, "stores": outcome.stores,
            "troubles": outcome.troubles, "planted": options.planted.map(name_of), "failures": failed,
            "upper95": upper95(outcome.runs, failed), "wall_s": started.elapsed().as_secs_f64().round()})
    );
    match options.planted {
        None if failed > 0 => bail!("{failed} failures:\n{}", outcome.failures.join("\n")),
        Some(planted) if failed == 0 => bail!("{} was planted and not found", name_of(planted)),
        _ => Ok(()),
    }
}

/// Plays cases until `n` runs have met trouble. With a mistake planted it ends at the first failure.
fn campaign(kinds: &[Kind], seed: u64, n: u64, within: Option<Duration>, planted: Option<Planted>) -> Result<Outcome> {
    let grounds = kinds.iter().map(|kind| Ground::new(*kind, planted)).collect::<Result<Vec<_>>>()?;
    let (outcome, next, stop) = (Mutex::new(Outcome::default()), AtomicU64::new(0), AtomicBool::new(false));
    let started = Instant::now();
    let work = || {
        while !stop.load(Relaxed) && within.is_none_or(|within| started.elapsed() < within) {
            let number = next.fetch_add(1, Relaxed);
            let ground = &grounds[(number % grounds.len() as u64) as usize];
            let seed = Rng::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).next_u64();
            let played = Case::new(ground, seed).map(|mut case| case.play());
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            let verdict = match played {
                Ok(played) => {
                    for run in &played.runs {
                        outcome.runs += 1;
                        *(if run.is_done { &mut outcome.done } else { &mut outcome.failed }) += 1;
                        outcome.slowest = outcome.slowest.max(run.took);
                        *outcome.stores.entry(ground.kind.to_string()).or_default() += 1;
                        *outcome.troubles.entry(run.trouble.to_owned()).or_default() += 1;
                    }
                    played.verdict
                }
                Err(error) => Err(format!("before anything was broken: {error:#}")),
            };
            if let Err(failure) = verdict {
                let failure = format!("--store {} --only {seed}: {failure}", ground.kind);
                if planted.is_none() {
                    eprintln!("failure, {failure}");
                }
                outcome.failures.push(failure);
            }
            let is_enough = outcome.failures.len() >= if planted.is_some() { 1 } else { FAILURES_MAX };
            stop.fetch_or(is_enough || outcome.runs >= n, Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(work);
        }
    });
    Ok(outcome.into_inner().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_trouble_of_network_or_server_hangs_a_run_or_makes_it_lie() {
        let outcome = campaign(Kind::value_variants(), 1, 20, Some(Duration::from_secs(30)), None).unwrap();
        assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
        // Which of them trouble strikes in time depends on the machine.
        assert!(outcome.runs >= 8 && outcome.stores.len() >= 4, "{outcome:?}");
    }

    #[test]
    #[ignore = "takes minutes: `cargo xtask test --full`, or the campaign itself"]
    fn mistakes_that_are_planted_are_found() {
        for (name, planted) in Planted::ALL {
            let outcome = campaign(&[Kind::S3], 1, 400, None, Some(planted)).unwrap();
            assert!(!outcome.failures.is_empty(), "{name} was not found in {} runs", outcome.runs);
        }
    }
}
