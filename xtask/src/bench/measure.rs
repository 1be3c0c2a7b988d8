//! One process, or one pipeline of processes, from start to end: wall time, processor time, peak memory.
//!
//! GNU time is asked for the latter two: it forks, waits, and reports what the kernel counted for exactly that child and
//! its own children. Our own memory is no part of it, as it would be in a child forked from us.

use crate::shell;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What to run.
#[derive(Clone, Debug)]
pub(super) struct Job {
    words: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Job {
    /// A program and its arguments.
    pub(super) fn new(words: Vec<OsString>) -> Self {
        Self { words, environment: Vec::new() }
    }

    /// A line for the shell, with `"$1"`, `"$2"` … for `arguments`. The last part of a pipeline and every other must
    /// succeed.
    pub(super) fn shell<S: AsRef<OsStr>>(line: &str, arguments: impl IntoIterator<Item = S>) -> Self {
        let mut words: Vec<OsString> =
            ["bash", "-o", "pipefail", "-e", "-c", line, "bash"].map(OsString::from).to_vec();
        words.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        Self::new(words)
    }

    /// Sets a variable.
    pub(super) fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }
}

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// From start to end, in seconds.
    pub(super) wall_s: f64,
    /// Processor time of all its processes, user and system, in seconds.
    pub(super) cpu_s: f64,
    /// Largest resident memory of any one of its processes, in bytes.
    pub(super) rss_bytes: u64,
}

/// All runs of one thing.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<Sample>);

impl Samples {
    /// Adds a run.
    pub(super) fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// Median of the wall times in seconds.
    pub(super) fn wall_s(&self) -> f64 {
        median(self.0.iter().map(|sample| sample.wall_s))
    }

    /// Median of the processor times in seconds.
    pub(super) fn cpu_s(&self) -> f64 {
        median(self.0.iter().map(|sample| sample.cpu_s))
    }

    /// The largest memory of all runs, in bytes.
    pub(super) fn rss_bytes(&self) -> u64 {
        self.0.iter().map(|sample| sample.rss_bytes).max().unwrap_or(0)
    }

    /// Every run.
    pub(super) fn json(&self) -> Value {
        let one = |s: &Sample| json!({"wall_s": s.wall_s, "cpu_s": s.cpu_s, "rss_bytes": s.rss_bytes});
        self.0.iter().map(one).collect()
    }
}

/// The middle value, or the mean of the two in the middle; NaN without values.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// Runs a job once, after all that was written before has reached the disk and everything at `warm` has been read, so
/// that it is in the file cache for whoever comes next, however long the one before took.
pub(super) fn measure<P: AsRef<OsStr>>(label: &str, job: &Job, scratch: &Path, warm: &[P]) -> Result<Sample> {
    const TIME: &str = "/usr/bin/time";
    if !Path::new(TIME).is_file() {
        bail!("{TIME} is missing: run `cargo xtask setup`");
    }
    let (counts, said) = (scratch.join("time.txt"), scratch.join("said.txt"));
    rustix::fs::sync();
    if !warm.is_empty() {
        // Through `cat`, or tar would notice that nobody reads and skip the content.
        prepare(&Job::shell("tar -cf - \"$@\" 2>/dev/null | cat >/dev/null", warm))?;
    }
    let log = fs_err::File::create(&said)?;
    let mut command = Command::new(TIME);
    command.args(["-q", "-f", "%U %S %M", "-o"]).arg(&counts).arg("--").args(&job.words);
    command.envs(job.environment.iter().map(|(key, value)| (key, value))).stdin(Stdio::null());
    command.stdout(log.file().try_clone()?).stderr(log.into_file());
    let started = Instant::now();
    let status = command.status().with_context(|| format!("start {label}"))?;
    let wall_s = started.elapsed().as_secs_f64();
    if !status.success() {
        let text = String::from_utf8_lossy(&fs_err::read(&said)?).into_owned();
        let from = text.char_indices().rev().nth(4000).map_or(0, |(at, _)| at);
        bail!("{label} ended with {status}:\n{}", &text[from..]);
    }
    let text = fs_err::read_to_string(&counts)?;
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [user, system, kib] = numbers[..] else { bail!("{TIME} said {text:?}") };
    let sample = Sample { wall_s, cpu_s: user + system, rss_bytes: kib as u64 * 1024 };
    eprintln!("  {label:<40} {wall_s:>8.2} s  cpu {:>8.2} s  peak {:>5} MiB", sample.cpu_s, sample.rss_bytes >> 20);
    Ok(sample)
}

/// Runs a job that is not measured.
pub(super) fn prepare(job: &Job) -> Result<()> {
    let mut command = Command::new(&job.words[0]);
    command.args(&job.words[1..]).envs(job.environment.iter().map(|(key, value)| (key, value)));
    shell::output(&mut command).map(drop)
}

/// Bytes of all files below a path, or of a file.
pub(super) fn bytes_of(path: &Path) -> Result<u64> {
    let metadata = fs_err::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Ok(if metadata.is_file() { metadata.len() } else { 0 });
    }
    fs_err::read_dir(path)?.map(|entry| bytes_of(&entry?.path())).sum()
}

/// Removes whatever is there, a tree with read-only directories too.
pub(super) fn remove(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        shell::output(Command::new("rm").arg("-rf").arg("--").arg(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }

    #[test]
    fn memory_and_time_are_of_the_process_and_failure_is_told_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let job = Job::shell("head -c \"$1\" /dev/zero | tail -c \"$1\" | cksum >/dev/null", ["50000000"]);
        let sample = measure("tail", &job, dir.path(), &[""; 0]).unwrap();
        assert!((40 << 20..300 << 20).contains(&sample.rss_bytes), "{sample:?}");
        assert!(sample.wall_s > 0.0 && sample.cpu_s < 60.0);
        let error = measure("broken", &Job::shell("echo why; false | cat", [""; 0]), dir.path(), &[""; 0]).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }
}
