//! Every object of a small repository, damaged in every way.
//!
//! For each case one thing is changed in a copy of the repository, and the program is run as a user would: `check`,
//! `verify`, `restore`. The damage must be found with the exit status for damage (a key or config that no longer opens may
//! say so in its own way), the object must be named, nothing may crash, and a restore ends either with an error or with
//! exactly what was saved. The caches are warm: what they remember must not hide what is gone.

use super::app::{App, State};
use super::stats::upper95;
use crate::program::{self, DAMAGE, Lastgood, NO_SNAPSHOT, OK};
use crate::shell;
use anyhow::{Context, Result, bail};
use lastgood_testkit::rng::Rng;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Flip a bit of every byte of packs, too, which takes long.
    #[arg(long)]
    exhaustive: bool,
    /// Only so many of the cases: all that are no flips, which are few, and flips chosen by the seed.
    #[arg(long)]
    cases: Option<usize>,
    /// Decides contents, sampled places and bits.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Use this program instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Objects up to this size have every byte flipped.
const EVERY_BYTE_UP_TO: usize = 640;
/// Places sampled in larger ones, beside both ends.
const PLACES: usize = 48;
/// Bytes at both ends that are always flipped; a pack's header and its length are at the end.
const ENDS: usize = 40;

/// One kind of damage.
#[derive(Clone, Debug)]
enum Damage {
    Flip { at: usize, bit: u8 },
    Truncate(usize),
    Append,
    SwapWith(String),
    Remove,
}

/// One damaged object.
#[derive(Clone, Debug)]
struct Case {
    object: String,
    damage: Damage,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let binary = match &options.binary {
        Some(binary) => fs_err::canonicalize(binary)?,
        None => program::build()?,
    };
    let dir = shell::target().join("proof");
    fs_err::create_dir_all(&dir)?;
    let scratch = tempfile::Builder::new().prefix("bitflip-").tempdir_in(fs_err::canonicalize(dir)?)?;
    let original = scratch.path().join("original");
    let mut app = App::new(&scratch.path().join("app"), options.seed, 40, 20_000)?;
    let lastgood = Lastgood::new(&binary, &original, &original.join("repo"), &app.sources())?;
    lastgood.run(&lastgood.init())?.ok()?;
    let mut points = vec![];
    for _ in 0..3 {
        let state = app.state()?;
        points.push((lastgood.backup_id()?, state));
        app.live_on(10, 20_000)?;
    }
    lastgood.run(&lastgood.verify())?.ok().context("before any damage")?;
    let objects = objects(&lastgood.repository)?;
    let mut cases = cases(&objects, options.exhaustive, options.seed);
    if let Some(wanted) = options.cases {
        let mut rng = Rng::new(options.seed);
        let (mut flips, others): (Vec<Case>, Vec<Case>) =
            cases.into_iter().partition(|case| matches!(case.damage, Damage::Flip { .. }));
        while !flips.is_empty() && flips.len() + others.len() > wanted {
            flips.swap_remove(rng.below(flips.len() as u64) as usize);
        }
        cases = others;
        cases.append(&mut flips);
    }
    println!("{} objects, {} cases", objects.len(), cases.len());

    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| -> Result<()> {
        let mut running = Vec::new();
        for number in 0..workers {
            let folder = scratch.path().join(format!("worker-{number}"));
            let worker = Worker::new(&binary, &original, &folder, &app, &points, &objects)?;
            let (next, failures, cases) = (&next, &failures, &cases);
            running.push(scope.spawn(move || -> Result<()> {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = worker.try_case(case) {
                        let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                        let line = format!("{} {:?}: {error:#}", case.object, case.damage);
                        if failures.len() < 40 {
                            eprintln!("failure: {line}");
                        }
                        failures.push((case.clone(), line));
                        worker.renew()?;
                    }
                }
                Ok(())
            }));
        }
        for thread in running {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(())
    })?;
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (total, failed) = (cases.len() as u64, failures.len() as u64);
    let mut kinds: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    let kind = |case: &Case| format!("{} {}", folder_of(&case.object), case.damage.word());
    for case in &cases {
        kinds.entry(kind(case)).or_default()[0] += 1;
    }
    for (case, _) in &failures {
        kinds.entry(kind(case)).or_default()[1] += 1;
    }
    for (kind, [cases, failed]) in &kinds {
        println!("{kind:<24} {cases:>7} cases {failed:>5} failures");
    }
    println!(
        "{}",
        json!({"type": "lastgood.proof", "schema": 1, "proof": "bitflip", "commit": shell::commit(),
            "seed": options.seed, "cases": total, "objects": objects.len(), "failures": failed,
            "upper95": upper95(total, failed), "wall_s": started.elapsed().as_secs_f64().round()})
    );
    if failed > 0 {
        bail!("{failed} failures");
    }
    Ok(())
}

/// Every object by its path below the repository, with its bytes.
fn objects(repository: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![repository.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(repository)?.to_str().context("an object's name is not text")?;
                found.insert(name.to_owned(), fs_err::read(&path)?);
            }
        }
    }
    Ok(found)
}

fn folder_of(object: &str) -> &str {
    object.split('/').next().unwrap_or(object)
}

/// The id in an object's path; `config` for the config.
fn id_of(object: &str) -> &str {
    object.rsplit('/').next().unwrap_or(object)
}

fn cases(objects: &BTreeMap<String, Vec<u8>>, exhaustive: bool, seed: u64) -> Vec<Case> {
    let mut rng = Rng::new(seed ^ 0x666c_6970);
    let mut cases = Vec::new();
    for (object, bytes) in objects {
        let mut add = |damage| cases.push(Case { object: object.clone(), damage });
        let length = bytes.len();
        let mut places: Vec<usize> = if exhaustive || length <= EVERY_BYTE_UP_TO {
            (0..length).collect()
        } else {
            let sampled = (0..PLACES).map(|_| rng.below(length as u64) as usize);
            (0..ENDS).chain(length - ENDS..length).chain(sampled).collect()
        };
        places.sort_unstable();
        places.dedup();
        for at in places {
            add(Damage::Flip { at, bit: rng.below(8) as u8 });
        }
        let mut lengths = vec![0, 1, length / 2, length.saturating_sub(1)];
        lengths.retain(|&cut| cut < length);
        lengths.dedup();
        for cut in lengths {
            add(Damage::Truncate(cut));
        }
        add(Damage::Append);
        add(Damage::Remove);
        let same_kind = objects.keys().filter(|other| *other > object && folder_of(other) == folder_of(object));
        for other in same_kind {
            add(Damage::SwapWith(other.clone()));
        }
    }
    cases
}

impl Damage {
    fn word(&self) -> &'static str {
        match self {
            Self::Flip { .. } => "flipped",
            Self::Truncate(_) => "truncated",
            Self::Append => "lengthened",
            Self::SwapWith(_) => "swapped",
            Self::Remove => "removed",
        }
    }
}

/// A copy of the repository with its caches, and what is known about it.
struct Worker<'a> {
    lastgood: Lastgood,
    original: &'a Path,
    folder: PathBuf,
    app: &'a App,
    points: &'a [(String, State)],
    objects: &'a BTreeMap<String, Vec<u8>>,
}

impl<'a> Worker<'a> {
    fn new(
        binary: &Path,
        original: &'a Path,
        folder: &Path,
        app: &'a App,
        points: &'a [(String, State)],
        objects: &'a BTreeMap<String, Vec<u8>>,
    ) -> Result<Self> {
        let lastgood = Lastgood::new(binary, folder, &folder.join("repo"), &app.sources())?;
        let worker = Self { lastgood, original, folder: folder.to_owned(), app, points, objects };
        worker.renew()?;
        Ok(worker)
    }

    /// Repository, key and caches as they were.
    fn renew(&self) -> Result<()> {
        for name in ["repo", "home", "repository.key"] {
            let (from, to) = (self.original.join(name), self.folder.join(name));
            shell::output(Command::new("rm").arg("-rf").arg(&to))?;
            if from.exists() {
                shell::output(Command::new("cp").arg("-a").arg(&from).arg(&to))?;
            }
        }
        Ok(())
    }

    fn put(&self, object: &str, bytes: Option<&[u8]>) -> Result<()> {
        let path = self.lastgood.repository.join(object);
        // Objects are read-only; a new file takes their place.
        if path.exists() {
            fs_err::remove_file(&path)?;
        }
        if let Some(bytes) = bytes {
            fs_err::write(&path, bytes)?;
        }
        Ok(())
    }

    fn try_case(&self, case: &Case) -> Result<()> {
        let object = &case.object;
        let good = &self.objects[object];
        let mut touched = vec![object.as_str()];
        match &case.damage {
            Damage::Flip { at, bit } => {
                let mut bytes = good.clone();
                bytes[*at] ^= 1 << bit;
                self.put(object, Some(&bytes))?;
            }
            Damage::Truncate(length) => self.put(object, Some(&good[..*length]))?,
            Damage::Append => self.put(object, Some(&[good, &b"\0"[..]].concat()))?,
            Damage::SwapWith(other) => {
                self.put(object, Some(&self.objects[other]))?;
                self.put(other, Some(good))?;
                touched.push(other);
            }
            Damage::Remove => self.put(object, None)?,
        }
        self.judge(case, &touched)?;
        for object in touched {
            self.put(object, Some(&self.objects[object]))?;
        }
        Ok(())
    }

    fn judge(&self, case: &Case, touched: &[&str]) -> Result<()> {
        let kind = folder_of(&case.object);
        let is_removed = matches!(case.damage, Damage::Remove);
        if kind == "snapshots" && is_removed {
            return self.judge_removed_snapshot(id_of(&case.object));
        }
        let check = self.lastgood.run(&self.lastgood.check())?;
        let verify = self.lastgood.run(&self.lastgood.verify())?;
        let restores = self.restores()?;
        for ran in [&check, &verify] {
            if ran.has_crashed() {
                bail!("crashed with {}: {}", ran.status, ran.said);
            }
        }
        // `check` reads no file content, so a pack's data may pass it; `verify` lets nothing pass.
        let opens = !matches!(kind, "config" | "keys");
        let code = verify.code().context("ended by a signal")?;
        if code == OK {
            bail!("verify found nothing");
        }
        if opens && code != DAMAGE {
            bail!("verify ended with {code} instead of {DAMAGE}: {}", verify.said);
        }
        // A removed index or key has no name any more that anybody could know; what it leaves behind is named instead.
        let must_name = !(is_removed && matches!(kind, "index" | "keys"));
        let said = format!("{}{}", check.said, verify.said);
        for object in touched.iter().filter(|_| must_name) {
            let id = id_of(object);
            if !said.contains(&id[..id.len().min(8)]) {
                bail!("{id} is not named: {}", verify.said);
            }
        }
        restores.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    }

    /// The newest and the oldest point: each identical, or an error and no wrong byte.
    fn restores(&self) -> Result<Vec<Result<()>>> {
        let mut verdicts = Vec::new();
        for (id, state) in [self.points.first(), self.points.last()].into_iter().flatten() {
            let to = self.folder.join("restored");
            shell::output(Command::new("rm").arg("-rf").arg(&to))?;
            let ran = self.lastgood.run(&self.lastgood.restore(id, &to))?;
            verdicts.push(if ran.has_crashed() {
                Err(anyhow::anyhow!("restore crashed with {}: {}", ran.status, ran.said))
            } else if ran.code() == Some(OK) {
                self.app.compare(&to, state).context("a restore that said all was well")
            } else {
                let wrong = self.app.wrong_files(&to, state)?;
                if wrong.is_empty() { Ok(()) } else { Err(anyhow::anyhow!("wrong bytes left: {}", wrong.join("; "))) }
            });
        }
        Ok(verdicts)
    }

    /// A snapshot that is gone looks like one that was forgotten: it must be missed by name, and the others must be whole.
    fn judge_removed_snapshot(&self, id: &str) -> Result<()> {
        let to = self.folder.join("restored");
        shell::output(Command::new("rm").arg("-rf").arg(&to))?;
        let gone = self.lastgood.run(&self.lastgood.restore(id, &to))?;
        if gone.code() != Some(NO_SNAPSHOT) {
            bail!("restoring it ended with {} instead of {NO_SNAPSHOT}: {}", gone.status, gone.said);
        }
        for (other, state) in self.points.iter().filter(|(other, _)| other != id) {
            shell::output(Command::new("rm").arg("-rf").arg(&to))?;
            self.lastgood.run(&self.lastgood.restore(other, &to))?.ok()?;
            self.app.compare(&to, state)?;
        }
        self.lastgood.run(&self.lastgood.verify())?.ok().map(drop)
    }
}
