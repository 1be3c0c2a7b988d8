//! What an entry costs. Run by hand with `--release` on a quiet machine:
//! `cargo nextest run --release -p lastgood-sources --run-ignored only speed --no-capture`.

use super::walk::open_top;
use lastgood_model::source::TreeDir;
use lastgood_model::{Monitor, NodeKind};
use rustix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Entries, directories, and bytes read when `reading`.
fn walk(top: Arc<dyn TreeDir>, reading: bool) -> (u64, u64, u64) {
    let monitor = Monitor::new();
    let (mut entries, mut dirs, mut bytes) = (0, 0, 0);
    let mut out = Vec::with_capacity(1 << 20);
    let mut stack = vec![top];
    while let Some(dir) = stack.pop() {
        dirs += 1;
        for mut entry in dir.list(&monitor).unwrap() {
            entries += 1;
            if reading {
                dir.describe(&mut entry.node, &monitor).unwrap();
                if entry.node.kind == NodeKind::File {
                    let mut reader = dir.open_file(&entry, &monitor).unwrap();
                    loop {
                        out.clear();
                        match reader.read(&mut out, 1 << 20).unwrap() {
                            lastgood_model::source::Read::Data(length) => bytes += length as u64,
                            lastgood_model::source::Read::Hole(_) => {}
                            lastgood_model::source::Read::End => break,
                        }
                    }
                    reader.finish(&mut entry.node).unwrap();
                }
            }
            if entry.node.kind == NodeKind::Dir {
                stack.push(dir.open_dir(&entry).unwrap());
            }
        }
    }
    (entries, dirs, bytes)
}

#[test]
#[ignore = "a measurement: run by hand with --release on a quiet machine"]
fn listing_and_reading_cost_so_much_per_entry() {
    let top = std::env::var("LASTGOOD_MEASURE").unwrap_or_else(|_| "/usr/lib".into());
    for reading in [false, false, false, true, true] {
        let dir = open_top(Path::new(&top), crate::files::FilesOptions::default());
        let (begun, cpu) = (Instant::now(), cpu_us());
        let (entries, dirs, bytes) = walk(dir, reading);
        let (took, cpu) = (begun.elapsed(), cpu_us() - cpu);
        println!(
            "{top}: reading {reading}: {entries} entries in {dirs} directories, {bytes} bytes, {took:?}; each {:.2} µs, of \
             which {:.2} µs of this thread's time",
            took.as_secs_f64() * 1e6 / entries as f64,
            cpu / entries as f64
        );
    }
}

/// Processor time of this thread, which tells more than the clock on a machine that is not quiet.
fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
