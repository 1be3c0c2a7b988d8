//! Backups and restores killed with SIGKILL at random moments.
//!
//! After each: the next backup succeeds without anybody's help, lastgood's and restic's checks of every byte are green,
//! every recovery point that was ever acknowledged is listed, and one of them restores to exactly what was saved. At the
//! end every one of them is restored. A restore that was killed is run again with the same words and must end identical.

use super::app::{App, State};
use super::started_seed;
use super::stats::upper95;
use crate::program::{self, Lastgood};
use crate::{setup, shell};
use anyhow::{Context, Result, bail};
use lastgood_testkit::restic::Restic;
use lastgood_testkit::rng::Rng;
use serde_json::json;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many times to kill.
    #[arg(long, default_value_t = 200)]
    n: u64,
    /// Decides all changes and moments; taken from the clock when not given, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Use this program instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// One in so many kills hits a restore.
const RESTORE_EVERY: u64 = 4;
/// So many runs may end before their kill for each that does not.
const TRIES_FOR_EACH: u64 = 5;

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
    let scratch = tempfile::Builder::new().prefix("kill9-").tempdir_in(fs_err::canonicalize(dir)?)?;
    let mut proof = Proof::begin(scratch.path(), &binary, &tools.restic, seed)?;
    let mut failures = Vec::new();
    let mut tries = 0;
    while proof.killed < options.n {
        tries += 1;
        if tries > options.n * TRIES_FOR_EACH {
            bail!("only {} of {tries} runs were still going when their kill came", proof.killed);
        }
        if let Err(error) = proof.round() {
            eprintln!("failure in round {tries}: {error:#}");
            failures.push(format!("{error:#}"));
            if failures.len() >= 10 {
                break;
            }
        }
        if tries % 10 == 0 {
            println!(
                "{} killed ({} in backup, {} in restore), {} recovery points, {} failures, {:.0} s",
                proof.killed,
                proof.killed - proof.killed_restores,
                proof.killed_restores,
                proof.points.len(),
                failures.len(),
                started.elapsed().as_secs_f64()
            );
        }
    }
    println!("restoring all {} recovery points", proof.points.len());
    for index in 0..proof.points.len() {
        if let Err(error) = proof.restore_and_compare(index) {
            eprintln!("failure at the end: {error:#}");
            failures.push(format!("{error:#}"));
        }
    }
    let cases = proof.killed;
    let failed = failures.len() as u64;
    println!(
        "{}",
        json!({"type": "lastgood.proof", "schema": 1, "proof": "kill9", "commit": shell::commit(), "seed": seed,
            "cases": cases, "in_restore": proof.killed_restores, "points": proof.points.len(), "failures": failed,
            "upper95": upper95(cases, failed), "wall_s": started.elapsed().as_secs_f64().round()})
    );
    if !failures.is_empty() {
        // What is left shows why.
        bail!("{failed} failures; everything is kept in {}", scratch.keep().display());
    }
    Ok(())
}

struct Point {
    id: String,
    state: State,
}

struct Proof {
    app: App,
    lastgood: Lastgood,
    restic: Restic,
    scratch: PathBuf,
    rng: Rng,
    points: Vec<Point>,
    killed: u64,
    killed_restores: u64,
    backup_took: Duration,
    restore_took: Duration,
}

impl Proof {
    fn begin(scratch: &Path, binary: &Path, restic: &Path, seed: u64) -> Result<Self> {
        let app = App::new(&scratch.join("app"), seed, 200, 40_000)?;
        let repository = scratch.join("repo");
        let lastgood = Lastgood::new(binary, &scratch.join("lastgood"), &repository, &app.sources())?;
        lastgood.run(&lastgood.init())?.ok()?;
        let mut proof = Self {
            restic: Restic::with_program(restic, &repository, &lastgood.key),
            scratch: scratch.to_owned(),
            rng: Rng::new(seed ^ 0x6b69_6c6c),
            points: Vec::new(),
            killed: 0,
            killed_restores: 0,
            backup_took: Duration::ZERO,
            restore_took: Duration::ZERO,
            app,
            lastgood,
        };
        proof.acknowledged_backup()?;
        let restore = Instant::now();
        proof.restore_and_compare(0)?;
        proof.restore_took = restore.elapsed();
        Ok(proof)
    }

    /// A backup that runs to its end.
    fn acknowledged_backup(&mut self) -> Result<()> {
        let state = self.app.state()?;
        let started = Instant::now();
        let id = self.lastgood.backup_id()?;
        self.backup_took = started.elapsed();
        self.points.push(Point { id, state });
        Ok(())
    }

    fn round(&mut self) -> Result<()> {
        if self.rng.below(RESTORE_EVERY) == 0 { self.kill_restore() } else { self.kill_backup() }
    }

    fn kill_backup(&mut self) -> Result<()> {
        self.app.live_on(30, 60_000)?;
        let state = self.app.state()?;
        let before = self.lastgood.snapshot_ids()?;
        let words = self.lastgood.backup(false);
        match self.kill(&words, self.backup_took)? {
            Ended::Killed => self.killed += 1,
            Ended::Finished(0) => {
                // It was faster than the kill, and has said so: from now on this point must never be lost.
                let after = self.lastgood.snapshot_ids()?;
                let new: Vec<_> = after.into_iter().filter(|id| !before.contains(id)).collect();
                let [id] = &new[..] else { bail!("a backup that said 0 left {} new points", new.len()) };
                self.points.push(Point { id: id.clone(), state });
            }
            Ended::Finished(code) => bail!("a backup nobody had killed yet ended with {code}"),
        }
        // Without any manual step.
        self.app.live_on(5, 20_000)?;
        self.acknowledged_backup().context("the next backup after a kill")?;
        self.judge()
    }

    fn kill_restore(&mut self) -> Result<()> {
        let index = self.rng.below(self.points.len() as u64) as usize;
        let to = self.fresh_target()?;
        let words = self.lastgood.restore(&self.points[index].id, &to);
        match self.kill(&words, self.restore_took)? {
            Ended::Killed => {
                self.killed += 1;
                self.killed_restores += 1;
            }
            Ended::Finished(0) => {}
            Ended::Finished(code) => bail!("a restore nobody had killed yet ended with {code}"),
        }
        let started = Instant::now();
        self.lastgood.run(&words)?.ok().context("the same restore again after a kill")?;
        self.restore_took = self.restore_took.max(started.elapsed());
        self.app.compare(&to, &self.points[index].state).context("a restore that went on after a kill")?;
        self.judge()
    }

    /// Everything that must hold after every kill.
    fn judge(&mut self) -> Result<()> {
        self.lastgood.run(&self.lastgood.check())?.ok()?;
        self.restic.check_read_data().map_err(|error| anyhow::anyhow!("{}", error.chain()))?;
        let listed = self.lastgood.snapshot_ids()?;
        if let Some(lost) = self.points.iter().find(|point| !listed.contains(&point.id)) {
            bail!("the acknowledged recovery point {} is no longer listed", lost.id);
        }
        let index = self.rng.below(self.points.len() as u64) as usize;
        self.restore_and_compare(index)
    }

    fn restore_and_compare(&self, index: usize) -> Result<()> {
        let point = &self.points[index];
        let to = self.fresh_target()?;
        self.lastgood.run(&self.lastgood.restore(&point.id, &to))?.ok()?;
        self.app.compare(&to, &point.state).with_context(|| format!("recovery point {}", point.id))
    }

    fn fresh_target(&self) -> Result<PathBuf> {
        let to = self.scratch.join("restored");
        if to.exists() {
            fs_err::remove_dir_all(&to)?;
        }
        Ok(to)
    }

    /// Starts a command and kills it at a moment anywhere in (and a little beyond) the time it is expected to take.
    fn kill(&mut self, words: &[OsString], expected: Duration) -> Result<Ended> {
        let moment = expected.mul_f64(self.rng.unit() * 1.05);
        let mut child = self.lastgood.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(moment);
        child.kill()?;
        let status = child.wait()?;
        match (status.code(), status.signal()) {
            (Some(code), _) => Ok(Ended::Finished(code)),
            (None, Some(9)) => Ok(Ended::Killed),
            _ => bail!("ended with {status} and not by our signal"),
        }
    }
}

enum Ended {
    Killed,
    Finished(i32),
}
