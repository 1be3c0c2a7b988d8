//! Two million small files, for memory alone: what grows with the number of files shows here.

use super::Bench;
use super::measure::{Samples, measure as time, prepare, remove};
use super::report::{PEAK_BYTES_MAX, Row, Table};
use crate::program::{Lastgood, Source};
use anyhow::Result;
use lastgood_testkit::rng::Rng;
use std::path::Path;

const FOLDERS: u64 = 2000;
const FILES_IN_FOLDER: u64 = 1000;

pub(super) fn measure(bench: &Bench<'_>) -> Result<Table> {
    let folders = FOLDERS / bench.options.shrink;
    let top = bench.corpus.join(format!("many-1-{folders}"));
    let done = bench.corpus.join(format!("many-1-{folders}.done"));
    if !done.exists() {
        remove(&top)?;
        eprintln!("making {} files in {}", folders * FILES_IN_FOLDER, top.display());
        make(&top, folders)?;
        fs_err::write(&done, "")?;
    }
    let folder = bench.fresh("lastgood")?;
    let source = Source::Files { name: "many", paths: vec![top] };
    let lastgood = Lastgood::new(&bench.lastgood, &folder, &folder.join("repo"), &[source])?;
    prepare(&bench.lastgood(&lastgood, lastgood.init()))?;
    let target = folder.join("restored");
    let mut rows = Vec::new();
    for (what, words) in [
        ("many, first", lastgood.backup(false)),
        ("many, unchanged", lastgood.backup(false)),
        ("many, --force", lastgood.backup(true)),
        ("many, check", lastgood.check()),
        ("many, verify", lastgood.verify()),
        ("many, restore", lastgood.restore("latest", &target)),
    ] {
        let mut samples = Samples::default();
        samples.push(time(what, &bench.lastgood(&lastgood, words), bench.scratch, &[""; 0])?);
        rows.push(Row::memory(what, &samples));
    }
    let subject = format!("{} files of about 100 bytes in {folders} folders, once.", folders * FILES_IN_FOLDER);
    Ok(Table { name: "many", subject, rows, notes: Vec::new(), peak_bytes_max: PEAK_BYTES_MAX })
}

/// Made by two threads; making them is the slowest part of it all.
fn make(top: &Path, folders: u64) -> Result<()> {
    let half = |parity: u64| -> Result<()> {
        for number in (0..folders).filter(|number| number % 2 == parity) {
            let mut rng = Rng::new(number);
            let folder = top.join(format!("{:03}/{:02}", number / 40, number % 40));
            fs_err::create_dir_all(&folder)?;
            for file in 0..FILES_IN_FOLDER {
                let length = 60 + rng.below(80) as usize;
                fs_err::write(folder.join(format!("{file:04}.txt")), rng.text(length))?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        half(0)?;
        other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
