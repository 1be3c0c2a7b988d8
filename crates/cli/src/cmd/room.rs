//! Whether there is room for the next recovery point where a repository is.

use super::findings::Findings;
use crate::config::{Config, SourceSpec};
use crate::text;
use lastgood_model::source::FindingLevel::{self, Failure, Ok as Fine, Warning};
use lastgood_ops::snapshots::app_of;
use lastgood_repo::Snapshot;
use std::path::PathBuf;

/// Less free space than this is worth a warning.
const FREE_BYTES_LOW: u64 = 1 << 30;
/// With less than this not even a small run can end: it writes packs of 16 MiB.
const FREE_BYTES_MIN: u64 = 32 << 20;
/// Compression seldom makes the whole of an application smaller than this part of it.
const COMPRESSED_TO_ONE_IN: u64 = 4;
/// Fewer points of the recent size than this are worth a warning.
const POINTS_AHEAD_MIN: u64 = 3;
/// So many of the newest points tell what one takes.
const POINTS_ASKED: usize = 10;
/// So many entries are measured at most.
const ENTRIES_MEASURED_MAX: usize = 100_000;

/// What the next recovery point may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Nobody can say.
    Unknown,
    /// It is the first, and the sources hold at least so many bytes.
    First(u64),
    /// It is one more; the largest of those before it stored so many bytes.
    Next(u64),
}

impl Expected {
    /// What the points so far and the sources of a config tell.
    pub(super) fn of(snapshots: &[Snapshot], config: Option<&Config>) -> Self {
        let is_ours = |s: &&Snapshot| config.is_none_or(|c| app_of(&s.file).as_deref() == Some(c.app.as_str()));
        let own: Vec<&Snapshot> = snapshots.iter().filter(is_ours).collect();
        // The oldest held everything for the first time, and is no measure for the next.
        match (own.split_first(), config) {
            (Some((_, later)), _) => {
                let stored = |s: &&Snapshot| s.file.summary.as_ref().map_or(0, |summary| summary.data_added_packed);
                Self::Next(later.iter().rev().take(POINTS_ASKED).map(stored).max().unwrap_or(0))
            }
            (None, Some(config)) => Self::First(measure(config)),
            (None, None) => Self::Unknown,
        }
    }
}

/// Tells of so many free bytes.
pub(super) fn tell(findings: &mut Findings, about: &str, free: u64, expected: Expected) {
    let (level, message) = judge(free, expected);
    match level {
        Fine => findings.ok(about, message),
        Warning => findings.warning(about, message, "make room before the next backup"),
        Failure => findings.failure(about, message, Some("make room there, or put the repository on a larger disk")),
    }
}

fn judge(free: u64, expected: Expected) -> (FindingLevel, String) {
    let shown = text::size(free);
    match expected {
        _ if free < FREE_BYTES_MIN => {
            (Failure, format!("only {shown} are free on its disk, too little for any backup"))
        }
        Expected::First(raw) if free < raw => {
            let level = if free < raw / COMPRESSED_TO_ONE_IN { Failure } else { Warning };
            (level, format!("only {shown} are free on its disk, and the sources hold {} or more", text::size(raw)))
        }
        Expected::Next(stored) if free < stored.saturating_mul(POINTS_AHEAD_MIN) => {
            let level = if free < stored { Failure } else { Warning };
            let stored = text::size(stored);
            (level, format!("only {shown} are free on its disk, and a recent recovery point took {stored}"))
        }
        _ if free < FREE_BYTES_LOW => (Warning, format!("only {shown} are free on its disk")),
        _ => (Fine, format!("{shown} are free on its disk")),
    }
}

/// Bytes of all files and databases of a config, up to a bound of entries; excludes are not regarded.
fn measure(config: &Config) -> u64 {
    let mut open: Vec<PathBuf> = Vec::new();
    for source in &config.sources {
        match &source.spec {
            SourceSpec::Files { paths, .. } => open.extend(paths.iter().cloned()),
            SourceSpec::Sqlite { path, .. } => open.push(path.clone()),
            // What is on a server is not to be seen from here.
            SourceSpec::Command { .. } | SourceSpec::Postgres(_) => {}
        }
    }
    // A configured path is followed, what is inside of a folder is not.
    for path in &mut open {
        if let Ok(real) = fs_err::canonicalize(&path) {
            *path = real;
        }
    }
    let own: Vec<PathBuf> = config.repositories.iter().filter_map(|r| r.place.folder().map(PathBuf::from)).collect();
    let (mut bytes, mut entries) = (0u64, 0);
    while let Some(path) = open.pop() {
        entries += 1;
        if entries > ENTRIES_MEASURED_MAX {
            break;
        }
        // What cannot be looked at is told by the source itself.
        let Ok(meta) = fs_err::symlink_metadata(&path) else { continue };
        if meta.is_file() {
            bytes = bytes.saturating_add(meta.len());
        } else if meta.is_dir() && !own.contains(&path) {
            let Ok(list) = fs_err::read_dir(&path) else { continue };
            open.extend(list.flatten().map(|entry| entry.path()));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_held_against_what_the_next_point_may_take() {
        const GIB: u64 = 1 << 30;
        for (free, expected, level) in [
            (100 * GIB, Expected::Unknown, Fine),
            (GIB - 1, Expected::Unknown, Warning),
            (FREE_BYTES_MIN - 1, Expected::Next(0), Failure),
            (2 * GIB, Expected::First(GIB), Fine),
            (2 * GIB, Expected::First(7 * GIB), Warning),
            (2 * GIB, Expected::First(9 * GIB), Failure),
            (20 * GIB, Expected::Next(6 * GIB), Fine),
            (17 * GIB, Expected::Next(6 * GIB), Warning),
            (5 * GIB, Expected::Next(6 * GIB), Failure),
        ] {
            assert_eq!(judge(free, expected).0, level, "{free} {expected:?}");
        }
    }
}
