//! Whether there is room for the next recovery point where a repository is.

use super::findings::Findings;
use crate::config::{Config, SourceSpec};
use crate::text;
use lastgood_model::source::FindingLevel::{self, Failure, Ok as Fine, Warning};
use lastgood_ops::snapshots::app_of;
use lastgood_repo::Snapshot;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Less free space than this is worth a warning.
const FREE_BYTES_LOW: u64 = 1 << 30;
/// With less than this not even a small run can end: it writes packs of 16 MiB.
const FREE_BYTES_MIN: u64 = 32 << 20;
/// Compression seldom makes the whole of an application smaller than this part of it.
const COMPRESSED_TO_ONE_IN: u64 = 4;
/// Fewer points of the recent size than this are worth a warning.
const POINTS_AHEAD_MIN: u64 = 3;
/// With fewer points than this nobody knows what one mostly takes.
const POINTS_TELLING_MIN: usize = 3;
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
    /// It is the first of its application, in a repository that may have its content already.
    FirstAmongOthers,
    /// It is one more. What those before it stored tells what one mostly takes, and what one may take.
    Next {
        /// What the middle one of them stored; nothing when there are too few to speak of a middle.
        usual: u64,
        /// What the largest stored.
        largest: u64,
    },
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
                Self::next(later.iter().rev().take(POINTS_ASKED).map(stored).collect())
            }
            (None, Some(_)) if !snapshots.is_empty() => Self::FirstAmongOthers,
            (None, Some(config)) => Self::First(measure(config)),
            (None, None) => Self::Unknown,
        }
    }

    /// From what recent points stored. Content that did not change takes nothing, so that one large point among small
    /// ones, such as the first with a new source, says little of the next.
    fn next(mut stored: Vec<u64>) -> Self {
        stored.sort_unstable();
        let usual = if stored.len() < POINTS_TELLING_MIN { 0 } else { stored[(stored.len() - 1) / 2] };
        Self::Next { usual, largest: stored.last().copied().unwrap_or(0) }
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
        Expected::Next { usual, .. } if free < usual => {
            let usual = text::size(usual);
            (
                Failure,
                format!(
                    "only {shown} are free on its disk, and half of the recent recovery points took {usual} or more"
                ),
            )
        }
        Expected::Next { usual, largest } if free < largest.max(usual.saturating_mul(POINTS_AHEAD_MIN)) => {
            let largest = text::size(largest);
            (
                Warning,
                format!("only {shown} are free on its disk, and one of the recent recovery points took {largest}"),
            )
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
            // Holes take nothing.
            bytes = bytes.saturating_add(meta.len().min(meta.blocks().saturating_mul(512)));
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
            (FREE_BYTES_MIN - 1, Expected::next(vec![]), Failure),
            (2 * GIB, Expected::FirstAmongOthers, Fine),
            (2 * GIB, Expected::First(GIB), Fine),
            (2 * GIB, Expected::First(7 * GIB), Warning),
            (2 * GIB, Expected::First(9 * GIB), Failure),
            (20 * GIB, Expected::next(vec![6 * GIB; 4]), Fine),
            (17 * GIB, Expected::next(vec![6 * GIB; 4]), Warning),
            (5 * GIB, Expected::next(vec![6 * GIB; 4]), Failure),
            // One point that took much among others that took little: what is there already is not stored again.
            (5 * GIB, Expected::next(vec![6 * GIB, 1000, 2000, 3000]), Warning),
            (7 * GIB, Expected::next(vec![6 * GIB, 1000, 2000, 3000]), Fine),
            (5 * GIB, Expected::next(vec![6 * GIB]), Warning),
            (5 * GIB, Expected::next(vec![1000, 6 * GIB, 6 * GIB]), Failure),
        ] {
            assert_eq!(judge(free, expected).0, level, "{free} {expected:?}");
        }
    }
}
