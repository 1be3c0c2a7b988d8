//! PostgreSQL databases, captured while they are used and restored while everything fails: client, server, network.
//!
//! After each failure: a run that failed said so and published nothing of the database; whatever was published restores
//! whole, which the database itself can tell (see `shop`); a restore that failed has left its target marked, and the
//! same words again end with an equal database; and nothing of lastgood is left on the server. The next backup succeeds
//! without anybody's help.

mod disk;
mod harm;
mod proxy;
mod rounds;
mod shop;

use super::started_seed;
use super::stats::upper95;
use crate::{program, setup, shell};
use anyhow::{Result, bail};
use lastgood_testkit::postgres::Version;
use rounds::Proof;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many failures to cause.
    #[arg(long, default_value_t = 50)]
    n: u64,
    /// Decides all failures and moments; taken from the clock when not given, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Use this program instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Rows of the largest table, of about 1 KiB each.
    #[arg(long, default_value_t = 45_000)]
    rows: u64,
    /// Cause only failures of this kind.
    #[arg(long)]
    only: Option<harm::Harm>,
}

/// So many runs may end before their failure for each that does not.
const TRIES_FOR_EACH: u64 = 5;
/// As many failures end it.
const FAILURES_MAX: usize = 10;

pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let tools = setup::run(&setup::Options::PRESENT)?;
    let binary = match &options.binary {
        Some(binary) => fs_err::canonicalize(binary)?,
        None => program::build()?,
    };
    let seed = options.seed.unwrap_or_else(|| started_seed().unwrap_or(1));
    println!("seed {seed}");
    let dir = shell::target().join("proof");
    fs_err::create_dir_all(&dir)?;
    let scratch = tempfile::Builder::new().prefix("postgres-").tempdir_in(fs_err::canonicalize(dir)?)?;
    // One half each on the oldest and the newest version.
    let mut proofs = Vec::new();
    for (at, version) in Version::ALL.into_iter().enumerate() {
        let folder = scratch.path().join(version.major().to_string());
        let proof = Proof::begin(version, &folder, &binary, &tools.restic, seed ^ (at as u64) << 40, options)?;
        println!("PostgreSQL {} is in use, {:.0} s", version.major(), started.elapsed().as_secs_f64());
        proofs.push(proof);
    }
    let mut failures: Vec<String> = Vec::new();
    let (mut tries, mut cases) = (0, 0);
    while cases < options.n && failures.len() < FAILURES_MAX {
        tries += 1;
        if tries > options.n * TRIES_FOR_EACH {
            bail!("only {cases} of {tries} runs were still going when they were to fail");
        }
        let servers = proofs.len() as u64;
        if let Err(error) = proofs[(cases % servers) as usize].round(cases / servers) {
            eprintln!("failure in try {tries}: {error:#}");
            failures.push(format!("{error:#}"));
        }
        let now = proofs.iter().map(Proof::cases).sum();
        if now > cases && now % 10 == 0 {
            println!("{now} cases, {} failures, {:.0} s", failures.len(), started.elapsed().as_secs_f64());
        }
        cases = now;
    }
    for proof in &mut proofs {
        if let Err(error) = proof.end() {
            eprintln!("failure at the end: {error:#}");
            failures.push(format!("{error:#}"));
        }
    }
    let failed = failures.len() as u64;
    let kinds = harm::counts(proofs.iter().flat_map(|proof| proof.done.iter().copied()));
    let in_restore = proofs.iter().flat_map(|proof| &proof.done).filter(|(phase, _)| phase.is_restore()).count();
    println!(
        "{}",
        json!({"type": "lastgood.proof", "schema": 1, "proof": "postgres", "commit": shell::commit(), "seed": seed,
            "cases": cases, "in_restore": in_restore, "kinds": kinds,
            "points": proofs.iter().map(|proof| proof.points.len()).sum::<usize>(), "failures": failed,
            "upper95": upper95(cases, failed), "wall_s": started.elapsed().as_secs_f64().round()})
    );
    if !failures.is_empty() {
        // What is left shows why.
        bail!("{failed} failures; everything is kept in {}", scratch.keep().display());
    }
    Ok(())
}
