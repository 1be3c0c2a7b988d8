//! What can be told before a capture: whether the paths are there and readable, and what would be missed.

use super::database;
use super::exclude::Patterns;
use super::roots::{display, is_link};
use super::scope::Scope;
use super::{FilesOptions, open};
use crate::held::Descriptor;
use lastgood_model::source::{Finding, FindingLevel};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many entries of each path are looked at, and how deep.
const LOOKED_AT_MAX: usize = 10_000;
const DEPTH_MAX: usize = 4;

/// How many files of each path are opened as a sample.
const OPENED_MAX: usize = 1_000;

/// How many databases are named.
const DATABASES_NAMED_MAX: usize = 20;

/// What only a look into the paths can tell: a sample of the folders is listed and of the files opened, as a capture
/// would.
pub(super) fn sample(paths: &[PathBuf], options: &FilesOptions, patterns: &Arc<Patterns>) -> Vec<Finding> {
    let scope = Scope::begin(options, Arc::clone(patterns));
    paths.iter().filter_map(|path| unreadable(path, &scope)).collect()
}

/// A sample of what cannot be read below `top`; that `top` itself cannot is told by [`readable`].
fn unreadable(top: &Path, scope: &Scope) -> Option<Finding> {
    let hint = "run as root, or as a user who may read it; or exclude it, if it need not be protected";
    let mut queue = VecDeque::from([(top.to_owned(), 0)]);
    let (mut looked_at, mut opened, mut failed) = (0, 0, Vec::new());
    while let Some((folder, depth)) = queue.pop_front() {
        let entries = match fs_err::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if depth > 0 && error.kind() != std::io::ErrorKind::NotFound => {
                failed.push(format!("{}: {}", display(&folder), root_cause(&error)));
                continue;
            }
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            looked_at += 1;
            if looked_at > LOOKED_AT_MAX {
                queue.clear();
                break;
            }
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
            let below = path.strip_prefix(top).unwrap_or(&path).as_os_str().as_bytes();
            if scope.patterns.excluding(below, kind.is_dir()).is_some() {
                continue;
            }
            let Ok(stat) = rustix::fs::lstat(&path) else { continue };
            if scope.is_never(stat.st_dev, stat.st_ino) {
                continue;
            }
            if kind.is_dir() && depth < DEPTH_MAX {
                queue.push_back((path, depth + 1));
            } else if kind.is_file() && opened < OPENED_MAX {
                opened += 1;
                match open::file(rustix::fs::CWD, path.as_os_str().as_bytes(), scope.may_be_quiet(stat.st_uid)) {
                    Ok(fd) => drop(Descriptor::new(fd)),
                    // Gone, or become something else, since it was listed.
                    Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => {}
                    Err(errno) => failed.push(format!("{}: {}", display(&path), std::io::Error::from(errno))),
                }
            }
        }
    }
    let first = failed.first()?;
    let message = match failed.len() {
        1 => format!("cannot be read: {first}"),
        count => format!("{count} entries that were tried cannot be read, such as {first}"),
    };
    Some(finding(FindingLevel::Failure, message, Some(hint)))
}

/// The operating system's own words, without the path that is told beside them.
fn root_cause(error: &std::io::Error) -> std::io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), std::io::Error::from_raw_os_error)
}

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
                std::io::ErrorKind::NotFound => {
                    "is its disk mounted? Else correct the path in the config, or remove it if it is gone for good"
                }
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
