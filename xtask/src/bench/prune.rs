//! Two hundred recovery points of which a fourth goes: forgetting and pruning beside restic, and a backup beside a prune.

use super::Bench;
use super::measure::{Job, Samples, bytes_of, measure as time, prepare, remove};
use super::report::{PEAK_BYTES_MAX, Row, Table};
use crate::program::{Lastgood, Source};
use crate::shell;
use anyhow::{Context, Result, bail};
use lastgood_testkit::rng::Rng;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Recovery points in the repository, and how many of them stay.
const POINTS: usize = 200;
const KEPT: usize = 150;
/// The application: so many files of one length, of which a few are written anew before each backup.
const FILES: u64 = 2000;
const FILE_BYTES: usize = 400_000;
const CHANGED: u64 = 5;

pub(super) fn measure(bench: &Bench<'_>) -> Result<Table> {
    let folder = bench.fresh("lastgood")?;
    let tree = folder.join("tree");
    let files = FILES / bench.options.shrink;
    let mut rng = Rng::new(7);
    (0..files).try_for_each(|number| write(&tree, number, &mut rng))?;
    let source = Source::Files { name: "tree", paths: vec![tree.clone()] };
    let lastgood = Lastgood::new(&bench.lastgood, &folder, &folder.join("repo"), &[source])?;
    let run = |words| prepare(&bench.lastgood(&lastgood, words));
    run(lastgood.init())?;
    eprintln!("making {POINTS} recovery points of {files} files");
    for _ in 0..POINTS {
        run(lastgood.backup(false))?;
        (0..CHANGED).try_for_each(|_| write(&tree, rng.below(files), &mut rng))?;
    }
    let made = folder.join("made");
    fs_err::rename(&lastgood.repository, &made)?;
    let before = packs(&made)?;
    let bytes = bytes_of(&made)?;

    let (mut ours, mut restics, mut beside) = (Samples::default(), Samples::default(), Samples::default());
    let mut alone = Samples::default();
    let (mut our_effect, mut restics_effect) = (Effect::default(), Effect::default());
    let keep = KEPT.to_string();
    for turn in 0..bench.options.runs {
        eprintln!("run {} of {}", turn + 1, bench.options.runs);
        lay(&made, &lastgood.repository)?;
        let words = lastgood.forget(&["--keep-last", &keep, "--prune", "--yes"]);
        ours.push(time("lastgood, forget --prune", &bench.lastgood(&lastgood, words), bench.scratch, &[&made])?);
        our_effect = Effect::of(&before, &lastgood.repository)?;
        run(lastgood.check())?;

        lay(&made, &lastgood.repository)?;
        restics.push(time(
            "restic, forget --prune",
            &restic(bench, &lastgood, &["forget", "--keep-last", &keep, "--group-by", "", "--prune"]),
            bench.scratch,
            &[&made],
        )?);
        restics_effect = Effect::of(&before, &lastgood.repository)?;

        lay(&made, &lastgood.repository)?;
        let backup = bench.lastgood(&lastgood, lastgood.backup(false));
        alone.push(time("lastgood, backup alone", &backup, bench.scratch, &[&made])?);
        // While a prune is at work; it is given the time to begin.
        let words = lastgood.forget(&["--keep-last", &keep, "--prune", "--yes"]);
        let mut prune = Command::new(&words[0]);
        prune.args(&words[1..]).envs(lastgood.environment()).stdout(std::process::Stdio::null());
        let mut prune = prune.stderr(std::process::Stdio::null()).spawn().context("start a prune")?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        beside.push(time("lastgood, backup beside a prune", &backup, bench.scratch, &[""; 0])?);
        let status = prune.wait()?;
        if !status.success() {
            bail!("the prune beside a backup ended with {status}");
        }
        run(lastgood.check())?;
    }
    remove(&made)?;

    let rows = vec![
        Row::time("forget and prune", &ours).beside("restic", &restics, Some(0.5)),
        Row::size("moved", our_effect.written).beside_value("restic", restics_effect.written, Some(1.1)),
        Row::size("freed", our_effect.freed).beside_value("restic", restics_effect.freed, None),
        Row::time("backup beside a prune", &beside).beside("alone", &alone, None),
    ];
    let subject = format!(
        "A repository of {:.2} GB with {POINTS} recovery points of {files} files of {FILE_BYTES} bytes, of which {CHANGED} \
         were written anew before each; {KEPT} stay.",
        bytes as f64 / 1e9
    );
    let notes = vec![
        "*moved* is the length of packs that are there afterwards and were not before; *freed*, by how much the packs \
         became less. `lastgood check` was clean after each."
            .to_owned(),
    ];
    Ok(Table { name: "prune", subject, rows, notes, peak_bytes_max: PEAK_BYTES_MAX })
}

/// What a prune did to the packs.
#[derive(Clone, Copy, Debug, Default)]
struct Effect {
    written: f64,
    freed: f64,
}

impl Effect {
    fn of(before: &BTreeMap<String, u64>, repository: &Path) -> Result<Self> {
        let after = packs(repository)?;
        let sum = |packs: &BTreeMap<String, u64>| packs.values().sum::<u64>() as f64;
        let new = after.iter().filter(|(name, _)| !before.contains_key(*name)).map(|(_, bytes)| *bytes as f64);
        Ok(Self { written: new.sum(), freed: sum(before) - sum(&after) })
    }
}

/// Packs and their lengths.
fn packs(repository: &Path) -> Result<BTreeMap<String, u64>> {
    let mut out = BTreeMap::new();
    for folder in fs_err::read_dir(repository.join("data"))? {
        for pack in fs_err::read_dir(folder?.path())? {
            let pack = pack?;
            out.insert(pack.file_name().to_string_lossy().into_owned(), pack.metadata()?.len());
        }
    }
    Ok(out)
}

/// A fresh copy of the repository.
fn lay(made: &Path, repository: &Path) -> Result<()> {
    remove(repository)?;
    shell::output(Command::new("cp").arg("-a").arg("--").arg(made).arg(repository)).map(drop)
}

/// restic with the key of lastgood's repository and a cache of its own.
fn restic(bench: &Bench<'_>, lastgood: &Lastgood, arguments: &[&str]) -> Job {
    let mut words = vec![bench.restic.clone().into(), "--repo".into(), lastgood.repository.clone().into()];
    words.extend(["--password-file".into(), lastgood.key.clone().into(), "--quiet".into()]);
    words.extend(arguments.iter().map(std::ffi::OsString::from));
    Job::new(words).env("RESTIC_CACHE_DIR", lastgood.repository.with_extension("cache"))
}

fn write(tree: &Path, number: u64, rng: &mut Rng) -> Result<()> {
    let folder = tree.join(format!("{:02}", number / 100));
    fs_err::create_dir_all(&folder)?;
    Ok(fs_err::write(folder.join(format!("{number:05}.txt")), rng.text(FILE_BYTES))?)
}
