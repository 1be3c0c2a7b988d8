//! Figures as a table for people and as JSON.

use super::Bench;
use super::measure::Samples;
use crate::shell;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// The most memory any row may take, unless its table says otherwise.
pub(super) const PEAK_BYTES_MAX: u64 = 256 << 20;

/// One table.
pub(super) struct Table {
    /// Its name in markers.
    pub(super) name: &'static str,
    /// What was protected, in a sentence.
    pub(super) subject: String,
    /// Its rows.
    pub(super) rows: Vec<Row>,
    /// Remarks below it.
    pub(super) notes: Vec<String>,
    /// The most memory any row may take.
    pub(super) peak_bytes_max: u64,
}

/// One thing measured, with what stands beside it.
pub(super) struct Row {
    what: String,
    unit: Unit,
    ours: f64,
    cpu_s: Option<f64>,
    peak_bytes: Option<u64>,
    beside: Vec<Beside>,
    raw: Value,
}

struct Beside {
    name: String,
    value: f64,
    ratio_max: Option<f64>,
}

/// What a row's numbers are.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    /// Seconds.
    Time,
    /// Bytes.
    Size,
    /// Peak memory alone.
    Memory,
}

impl Row {
    /// A row of times.
    pub(super) fn time(what: impl Into<String>, ours: &Samples) -> Self {
        let mut row = Self::size(what, ours.wall_s());
        row.unit = Unit::Time;
        row.cpu_s = Some(ours.cpu_s());
        row.peak_bytes = Some(ours.rss_bytes());
        row.raw = json!({"lastgood": ours.json()});
        row
    }

    /// A row of which only memory counts.
    pub(super) fn memory(what: impl Into<String>, ours: &Samples) -> Self {
        Self { unit: Unit::Memory, ..Self::time(what, ours) }
    }

    /// A row of bytes.
    pub(super) fn size(what: impl Into<String>, ours: f64) -> Self {
        let (cpu_s, peak_bytes) = (None, None);
        Self { what: what.into(), unit: Unit::Size, ours, cpu_s, peak_bytes, beside: Vec::new(), raw: json!({}) }
    }

    /// A row of what could not be done; the reason belongs into the table's notes.
    pub(super) fn failed(what: impl Into<String>) -> Self {
        Self::size(what, f64::NAN)
    }

    /// What another took, and how much of that we may take.
    pub(super) fn beside(mut self, name: &str, samples: &Samples, ratio_max: Option<f64>) -> Self {
        self.raw[name] = samples.json();
        self.beside_value(name, samples.wall_s(), ratio_max)
    }

    /// The same with a plain number.
    pub(super) fn beside_value(mut self, name: &str, value: f64, ratio_max: Option<f64>) -> Self {
        self.beside.push(Beside { name: name.to_owned(), value, ratio_max });
        self
    }

    fn is_met(&self, peak_bytes_max: u64) -> bool {
        let ratios = self.beside.iter().all(|b| b.ratio_max.is_none_or(|max| self.ours / b.value <= max));
        ratios && !self.ours.is_nan() && self.peak_bytes.is_none_or(|peak| peak <= peak_bytes_max)
    }

    fn show(&self, value: f64) -> String {
        match self.unit {
            _ if value.is_nan() => "failed".to_owned(),
            Unit::Time => format!("{value:.2} s"),
            Unit::Size => format!("{:.1} MB", value / 1e6),
            Unit::Memory => format!("{value:.0} s"),
        }
    }
}

impl Table {
    /// Rows that are above a target.
    pub(super) fn missed(&self) -> Vec<&str> {
        self.rows.iter().filter(|row| !row.is_met(self.peak_bytes_max)).map(|row| row.what.as_str()).collect()
    }

    /// The table as GitHub shows it.
    pub(super) fn markdown(&self, machine: &Value) -> String {
        let mut out = format!("{}\n\n", self.subject);
        out.push_str("| | lastgood | beside it | ratio (target) | CPU | peak | |\n|---|--:|---|---|--:|--:|---|\n");
        for row in &self.rows {
            let beside: Vec<String> = row.beside.iter().map(|b| format!("{} {}", b.name, row.show(b.value))).collect();
            let ratios: Vec<String> = row
                .beside
                .iter()
                .map(|b| {
                    let ratio = row.ours / b.value;
                    let digits = if ratio < 0.1 { 3 } else { 2 };
                    match b.ratio_max {
                        // Beside what failed there is nothing to compare with.
                        _ if ratio.is_nan() => "–".to_owned(),
                        Some(max) => format!("{ratio:.digits$} (≤ {max})"),
                        None => format!("{ratio:.digits$}"),
                    }
                })
                .collect();
            let cpu = row.cpu_s.map_or(String::new(), |cpu| format!("{cpu:.1} s"));
            let peak = row.peak_bytes.map_or(String::new(), |peak| format!("{} MiB", peak.div_ceil(1 << 20)));
            let verdict = if row.is_met(self.peak_bytes_max) { "met" } else { "**above**" };
            let (what, ours) = (&row.what, row.show(row.ours));
            let (beside, ratios) = (beside.join("<br>"), ratios.join("<br>"));
            // Writing into a string cannot fail.
            let _ = writeln!(out, "| {what} | {ours} | {beside} | {ratios} | {cpu} | {peak} | {verdict} |");
        }
        for note in &self.notes {
            let _ = write!(out, "\n{note}\n");
        }
        let _ = write!(out, "\nTarget for memory: {} MiB in each row. ", self.peak_bytes_max >> 20);
        let fields = machine.as_object().into_iter().flatten();
        let facts: Vec<String> =
            fields.map(|(key, value)| format!("{key} {}", value.as_str().unwrap_or_default())).collect();
        let _ = writeln!(out, "Measured with {}.", facts.join("; "));
        out
    }

    /// Everything, each run included, on one line.
    pub(super) fn json(&self, machine: &Value) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let beside: Vec<Value> = row
                    .beside
                    .iter()
                    .map(|b| {
                        json!({"name": b.name, "value": b.value, "ratio": row.ours / b.value, "ratio_max": b.ratio_max})
                    })
                    .collect();
                let unit = match row.unit {
                    Unit::Time => "seconds",
                    Unit::Size => "bytes",
                    Unit::Memory => "memory",
                };
                json!({"what": row.what, "unit": unit, "lastgood": row.ours, "cpu_s": row.cpu_s,
                    "peak_bytes": row.peak_bytes, "beside": beside, "met": row.is_met(self.peak_bytes_max), "runs": row.raw})
            })
            .collect();
        json!({"type": "lastgood.bench", "schema": 1, "name": self.name, "subject": self.subject, "machine": machine,
            "rows": rows, "notes": self.notes})
    }
}

/// What the figures depend on beside the code.
pub(super) fn machine(bench: &Bench<'_>) -> Result<Value> {
    let line = |path: &str, key: &str| {
        let text = fs_err::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let said = |program: &str, arguments: &[&str]| shell::first_line(program, arguments).unwrap_or_default();
    let kib: u64 = line("/proc/meminfo", "MemTotal").split_whitespace().next().unwrap_or_default().parse().unwrap_or(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let day = said("date", &["--utc", "+%Y-%m-%d"]);
    let zstd = said("zstd", &["--version"]);
    let zstd = zstd.split_whitespace().find(|word| word.starts_with('v')).unwrap_or_default().trim_matches(',');
    let restic = shell::first_line(&bench.restic, &["version"]).unwrap_or_default();
    let restic = restic.split_whitespace().nth(1).unwrap_or_default();
    Ok(json!({
        "lastgood": shell::commit(),
        "restic": restic,
        "zstd": zstd,
        "processor": format!("{} × {cores}", line("/proc/cpuinfo", "model name")),
        "memory": format!("{} GiB", kib.div_ceil(1 << 20)),
        "file system": file_system(&fs_err::read_to_string("/proc/mounts")?, bench.scratch),
        "kernel": said("uname", &["-r"]),
        "runs": bench.options.runs.to_string(),
        "on": day,
    }))
}

/// The kind of file system a path is on: that of the longest mount point leading to it, the last where several are at
/// the same place.
fn file_system(mounts: &str, path: &Path) -> String {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.nth(1)?, words.next()?))
    });
    let leading = mounts.filter(|(place, _)| path.starts_with(place));
    leading.max_by_key(|(place, _)| place.len()).map_or("unknown", |(_, kind)| kind).to_owned()
}

/// Puts the table between its markers, or at the end of the file.
pub(super) fn write(path: &Path, table: &Table, machine: &Value) -> Result<()> {
    let old = if path.exists() { fs_err::read_to_string(path)? } else { "# Benchmarks\n".to_owned() };
    fs_err::write(path, replaced(&old, table.name, &table.markdown(machine))?)?;
    eprintln!("wrote the table `{}` into {}", table.name, path.display());
    Ok(())
}

fn replaced(old: &str, name: &str, text: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- bench:{name} -->"), format!("<!-- /bench:{name} -->"));
    let Some((before, rest)) = old.split_once(&begin) else {
        return Ok(format!("{}\n\n{begin}\n{}\n{end}\n", old.trim_end(), text.trim_end()));
    };
    let (_, after) = rest.split_once(&end).with_context(|| format!("the marker {end} is missing"))?;
    Ok(format!("{before}{begin}\n{}\n{end}{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_replaces_its_older_self_and_nothing_else() {
        let once = replaced("# Benchmarks\n\nWords.\n", "files", "one").unwrap();
        assert_eq!(once, "# Benchmarks\n\nWords.\n\n<!-- bench:files -->\none\n<!-- /bench:files -->\n");
        let both = replaced(&format!("{once}\nMore words.\n"), "sqlite", "two").unwrap();
        let again = replaced(&both, "files", "three").unwrap();
        assert!(again.contains("three") && !again.contains("one\n") && again.contains("two") && again.contains("More"));
        assert!(replaced("<!-- bench:files -->", "files", "x").is_err());
    }

    #[test]
    fn the_file_system_is_that_of_the_nearest_mount() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/big xfs rw 0 0\n";
        for (path, kind) in [("/home/x", "ext4"), ("/tmp/x", "tmpfs"), ("/tmp/big/x", "xfs"), ("/tmpx", "ext4")] {
            assert_eq!(file_system(mounts, Path::new(path)), kind, "{path}");
        }
    }

    #[test]
    fn a_row_is_met_only_within_every_ratio_and_the_memory() {
        let row = |ours, peak| {
            let mut row =
                Row::size("x", ours).beside_value("limit", 10.0, Some(1.1)).beside_value("restic", 20.0, None);
            row.peak_bytes = Some(peak);
            row.is_met(256 << 20)
        };
        assert!(row(11.0, 256 << 20));
        assert!(!row(11.1, 0));
        assert!(!row(1.0, (256 << 20) + 1));
        assert!(!Row::size("x", 1.0).beside_value("nothing measured", f64::NAN, Some(1.0)).is_met(0));
        assert!(!Row::failed("x").is_met(0));
    }
}
