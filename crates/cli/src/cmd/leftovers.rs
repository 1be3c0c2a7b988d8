//! What earlier runs have left lying about, for `doctor` to name: what killed proofs restored, unencrypted, and what
//! restores kept of databases that they replaced. Nothing is removed here.

use super::findings::Findings;
use crate::config::{Config, SourceSpec};
use crate::run::Chosen;
use crate::text::{counted, shell_word, size};
use crate::wiring;
use lastgood_model::node::display_path;
use lastgood_ops::prove::left_behind;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// So many entries of the sources are looked at, at most.
const LOOKED_AT_MAX: usize = 100_000;
/// So many leftovers are named.
const NAMED_MAX: usize = 20;

/// Tells of them.
pub(super) fn tell(config: Option<&Config>, chosen: &[Chosen], findings: &mut Findings) {
    let about = "leftovers";
    let sources = config.map(|config| config.sources.as_slice()).unwrap_or_default();
    let databases: Vec<&Path> = sources
        .iter()
        .filter_map(|source| match &source.spec {
            SourceSpec::Sqlite { path, .. } => Some(path.as_path()),
            _ => None,
        })
        .collect();
    // Proofs are made beside the repository or where temporary files go; databases are restored beside the old ones.
    let mut folders: BTreeSet<PathBuf> =
        chosen.iter().filter_map(|chosen| chosen.place.folder()?.parent().map(Path::to_owned)).collect();
    folders.extend(databases.iter().filter_map(|path| path.parent().map(Path::to_owned)));
    folders.insert(std::env::temp_dir());
    for left in folders.iter().flat_map(|folder| left_behind(folder)).take(NAMED_MAX) {
        findings.warning(
            about,
            format!("{} was left by a run that was killed: what it restored lies there unencrypted", shown(&left)),
            format!("remove it: rm -r {}", word(&left)),
        );
    }
    on_servers(config, findings);
    let trees = sources.iter().flat_map(|source| match &source.spec {
        SourceSpec::Files { paths, .. } => paths.as_slice(),
        _ => &[],
    });
    let kept = kept_databases(&databases, trees);
    let Some(first) = kept.first() else { return };
    let bytes = kept.iter().filter_map(|path| fs_err::symlink_metadata(path).ok()).map(|meta| meta.len()).sum();
    let names: Vec<String> = kept.iter().take(NAMED_MAX).map(|path| shown(path)).collect();
    let more = match kept.len().saturating_sub(names.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let words: Vec<String> = kept.iter().take(NAMED_MAX).map(|path| word(path)).collect();
    findings.warning(
        about,
        format!(
            "restores in place kept {} of old databases, {}: {}{more}",
            counted(kept.len() as u64, "file"),
            size(bytes),
            names.join(", ")
        ),
        match kept.len() {
            1 => format!("when you are sure of the restored database, remove it: rm {}", word(first)),
            _ => format!("when you are sure of the restored databases, remove them: rm {}", words.join(" ")),
        },
    );
}

/// What killed restores and proofs have left on the servers of the sources. That a server cannot be reached is told where
/// its source is looked at.
fn on_servers(config: Option<&Config>, findings: &mut Findings) {
    let mut told = BTreeSet::new();
    for (_, server) in config.map(wiring::proof_servers).unwrap_or_default() {
        for left in wiring::left_by_restores(&server).into_iter().take(NAMED_MAX) {
            if told.insert((server.conninfo.host_shown(), left.what.clone())) {
                findings.warning("leftovers", format!("{}: {}", server.conninfo.host_shown(), left.what), left.hint);
            }
        }
    }
}

/// Files that restores in place have put aside: beside databases of their own, and in folders.
fn kept_databases<'p>(databases: &[&Path], trees: impl Iterator<Item = &'p PathBuf>) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    for database in databases {
        let (Some(folder), Some(name)) = (database.parent(), database.file_name()) else { continue };
        for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().as_bytes().strip_prefix(name.as_bytes()).is_some_and(is_kept_ending) {
                found.insert(entry.path());
            }
        }
    }
    let mut open: Vec<PathBuf> = trees.cloned().collect();
    let mut looked_at = 0;
    while let Some(folder) = open.pop() {
        for entry in fs_err::read_dir(&folder).into_iter().flatten().flatten() {
            looked_at += 1;
            if looked_at > LOOKED_AT_MAX {
                return found.into_iter().collect();
            }
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() && is_side_file_aside(entry.file_name().as_bytes()) {
                found.insert(entry.path());
            }
        }
    }
    found.into_iter().collect()
}

/// `.before-20260501T100000Z` with what may follow, or a side file that was moved aside: what comes after the name of a
/// database that was swapped out.
fn is_kept_ending(rest: &[u8]) -> bool {
    let of_time = rest.strip_prefix(b".before-").is_some_and(|rest| {
        rest.len() >= 16
            && rest[..8].iter().chain(&rest[9..15]).all(u8::is_ascii_digit)
            && rest[8] == b'T'
            && rest[15] == b'Z'
    });
    of_time || is_side_file_aside(rest)
}

/// `…-wal.before-restore-0`
fn is_side_file_aside(name: &[u8]) -> bool {
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0
        && name[..name.len() - digits]
            .strip_suffix(b".before-restore-")
            .is_some_and(|name| ["-wal", "-shm", "-journal"].iter().any(|suffix| name.ends_with(suffix.as_bytes())))
}

fn shown(path: &Path) -> String {
    display_path(path.as_os_str().as_bytes())
}

fn word(path: &Path) -> String {
    shell_word(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_restore_keeps_is_taken_for_it() {
        for (rest, want) in [
            (".before-20260501T100000Z", true),
            (".before-20260501T100000Z-2", true),
            (".before-20260501T100000Z-wal", true),
            ("-wal.before-restore-0", true),
            (".before-christmas", false),
            (".before-20260501", false),
            ("-wal", false),
            ("", false),
        ] {
            assert_eq!(is_kept_ending(rest.as_bytes()), want, "{rest}");
        }
    }
}
