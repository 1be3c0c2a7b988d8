//! What can be told before a capture: whether the paths are there and readable, and what would be missed.

use super::database;
use super::exclude::Patterns;
use super::roots::{display, is_link};
use super::{FilesOptions, open};
use lastgood_model::source::{Finding, FindingLevel};
use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many entries are looked at in search of databases, and how deep.
const LOOKED_AT_MAX: usize = 10_000;
const DEPTH_MAX: usize = 4;

/// How many databases are named.
const DATABASES_NAMED_MAX: usize = 20;

/// The findings for `paths`.
pub(super) fn probe(paths: &[PathBuf], options: &FilesOptions, patterns: &Patterns) -> Vec<Finding> {
    let mut findings: Vec<Finding> = paths.iter().map(|path| readable(path)).collect();
    if !rustix::process::geteuid().is_root() {
        findings.push(finding(
            FindingLevel::Warning,
            "not run as root: files of other users may be unreadable, and trusted attributes are not seen",
            Some("run as root, or give the program CAP_DAC_READ_SEARCH"),
        ));
    }
    for path in paths {
        if path.parent().is_none() && !options.one_file_system {
            findings.push(finding(
                FindingLevel::Warning,
                "the whole file system is captured with everything mounted in it",
                Some("set one_file_system, or name the folders that matter"),
            ));
        }
        for pattern in patterns.lines() {
            let plain = pattern.trim_start_matches('!');
            if path.parent().is_some() && Path::new(plain).starts_with(path) {
                findings.push(finding(
                    FindingLevel::Warning,
                    format!("exclude pattern {pattern} never matches: patterns begin below {}", display(path)),
                    Some("write the pattern relative to that path"),
                ));
            }
        }
        findings.extend(databases(path));
    }
    findings
}

fn readable(path: &Path) -> Finding {
    let bytes = path.as_os_str().as_bytes();
    let shown = if is_link(bytes) { format!("{} (a link that is followed)", display(path)) } else { display(path) };
    let is_dir = match fs_err::metadata(path) {
        Ok(metadata) => metadata.is_dir(),
        Err(error) => {
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound => "correct the path in the config, or remove it if it is gone for good",
                _ => "run as root, or as a user who may read it",
            };
            return finding(FindingLevel::Failure, error.to_string(), Some(hint));
        }
    };
    let opened =
        if is_dir { open::top(bytes).map(drop) } else { rustix::fs::access(path, rustix::fs::Access::READ_OK) };
    match opened {
        Ok(()) => finding(FindingLevel::Ok, format!("{shown} can be read"), None),
        Err(errno) => finding(
            FindingLevel::Failure,
            format!("{shown} cannot be read: {}", std::io::Error::from(errno)),
            Some("run as root, or as a user who may read it"),
        ),
    }
}

/// Databases in use near the top of a tree, found by their side files.
fn databases(top: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut queue = VecDeque::from([(top.to_owned(), 0)]);
    let mut looked_at = 0;
    while let Some((folder, depth)) = queue.pop_front() {
        // What cannot be listed is told by the capture.
        let Ok(entries) = fs_err::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            looked_at += 1;
            if looked_at > LOOKED_AT_MAX || findings.len() >= DATABASES_NAMED_MAX {
                return findings;
            }
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth < DEPTH_MAX {
                queue.push_back((entry.path(), depth + 1));
            }
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.as_bytes();
            // Only the write-ahead log, so that each database is named once.
            let Some(base) = database::base_of(name).filter(|_| name.ends_with(b"-wal")) else { continue };
            let base = path.with_file_name(std::ffi::OsStr::from_bytes(base));
            if kind.is_file() && base.is_file() {
                let text =
                    format!("{} is a SQLite database in use; it is captured as one consistent state", display(&base));
                findings.push(finding(FindingLevel::Ok, text, None));
            }
        }
    }
    findings
}

fn finding(level: FindingLevel, message: impl Into<String>, hint: Option<&str>) -> Finding {
    Finding { level, message: message.into(), hint: hint.map(str::to_owned) }
}
