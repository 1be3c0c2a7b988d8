//! What a running operation shows: a bar on a terminal, a line now and then in a pipe, nothing when quiet. All of it on
//! standard error.

use crate::text;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lastgood_model::Monitor;
use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a bar is drawn anew.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// How often a line is printed into a pipe.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// The time over which speed is averaged.
const SPEED_OVER: Duration = Duration::from_secs(5);

/// Before this there is too little to guess the time left from.
const GUESS_AFTER: Duration = Duration::from_secs(2);

/// The bar that is on the terminal now, so that other lines can be printed above it.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn bar() -> Option<ProgressBar> {
    BAR.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Prints a line on standard error, above the bar when there is one.
pub(crate) fn say(line: &str) {
    write_above(format!("{}\n", text::printable(line)).as_bytes());
}

/// Writes to standard error, above the bar. That nobody reads standard error stops nothing.
pub(crate) fn write_above(bytes: &[u8]) {
    let write = || {
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
    };
    match bar() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Shows an operation until it is dropped.
pub(crate) struct Progress {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to show `act`, such as "Backing up".
    pub(crate) fn start(act: &str, monitor: &Arc<Monitor>, quiet: bool) -> Self {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        if quiet {
            return Self { stop, thread: None };
        }
        let is_terminal = std::io::stderr().is_terminal();
        if is_terminal {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(spinner());
            *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
        }
        let shared = Shown { act: act.to_owned(), monitor: monitor.clone(), is_terminal, began: Instant::now() };
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || shared.run(&stopped)).ok();
        Self { stop, thread }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Some(bar) = BAR.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn with_bar() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {bar:24} {percent:>3}%  {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

struct Shown {
    act: String,
    monitor: Arc<Monitor>,
    is_terminal: bool,
    began: Instant,
}

impl Shown {
    fn run(&self, stop: &(Mutex<bool>, Condvar)) {
        let every = if self.is_terminal { DRAW_EVERY } else { LINE_EVERY };
        let mut speed = Speed::new(self.began);
        let mut has_bar = false;
        let mut stopped = stop.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stopped {
            stopped = stop.1.wait_timeout(stopped, every).unwrap_or_else(PoisonError::into_inner).0;
            if *stopped {
                return;
            }
            let counters = &self.monitor.counters;
            let (done, expected) = (counters.bytes.load(Relaxed), counters.bytes_expected.load(Relaxed));
            let rate = speed.update(Instant::now(), done);
            let message = line(&self.act, counters.files.load(Relaxed), done, expected, rate, self.began.elapsed());
            match bar() {
                Some(bar) => {
                    if expected > 0 {
                        if !has_bar {
                            bar.set_style(with_bar());
                            has_bar = true;
                        }
                        bar.set_length(expected);
                        bar.set_position(done.min(expected));
                    }
                    bar.set_message(message);
                    bar.tick();
                }
                None => say(&message),
            }
        }
    }
}

/// What is told of an operation under way.
fn line(act: &str, files: u64, done: u64, expected: u64, bytes_per_sec: f64, elapsed: Duration) -> String {
    let mut out = format!("{act}: ");
    if files > 0 {
        out.push_str(&format!("{}, ", text::counted(files, "file")));
    }
    out.push_str(&text::size(done));
    if expected > 0 {
        out.push_str(&format!(" of {}", text::size(expected)));
    }
    if bytes_per_sec >= 1.0 {
        out.push_str(&format!(", {}/s", text::size(bytes_per_sec as u64)));
    }
    if expected > done && bytes_per_sec >= 1.0 && elapsed >= GUESS_AFTER {
        let left = Duration::from_secs_f64(((expected - done) as f64 / bytes_per_sec).min(1e9));
        out.push_str(&format!(", {} left", text::duration(Duration::from_secs(left.as_secs().max(1)))));
    } else {
        out.push_str(&format!(", {}", text::duration(elapsed)));
    }
    out
}

/// Bytes a second, averaged so that it does not jump about.
struct Speed {
    at: Instant,
    done: u64,
    average: Option<f64>,
}

impl Speed {
    fn new(began: Instant) -> Self {
        Self { at: began, done: 0, average: None }
    }

    fn update(&mut self, now: Instant, done: u64) -> f64 {
        let span = now.duration_since(self.at).as_secs_f64();
        if span <= 0.0 {
            return self.average.unwrap_or(0.0);
        }
        let rate = done.saturating_sub(self.done) as f64 / span;
        let weight = (span / SPEED_OVER.as_secs_f64()).min(1.0);
        let average = self.average.map_or(rate, |average| average + (rate - average) * weight);
        (self.at, self.done, self.average) = (now, done, Some(average));
        average
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_is_known_and_nothing_else() {
        let secs = Duration::from_secs;
        assert_eq!(line("Backing up", 1, 2048, 0, 0.0, secs(1)), "Backing up: 1 file, 2.00 KiB, 1.0 s");
        assert_eq!(
            line("Restoring", 3, 1 << 20, 3 << 20, 1_048_576.0, secs(2)),
            "Restoring: 3 files, 1.00 MiB of 3.00 MiB, 1.00 MiB/s, 2.0 s left"
        );
    }

    #[test]
    fn speed_follows_slowly_and_survives_a_standstill() {
        let began = Instant::now();
        let mut speed = Speed::new(began);
        assert_eq!(speed.update(began, 0), 0.0);
        assert_eq!(speed.update(began + Duration::from_secs(1), 1000), 1000.0);
        assert_eq!(speed.update(began + Duration::from_secs(2), 1000), 800.0);
        assert_eq!(speed.update(began + Duration::from_secs(12), 1000), 0.0);
    }
}
