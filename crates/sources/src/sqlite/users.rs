//! Who has a database open.
//!
//! Locks alone do not tell: between transactions an application in rollback mode holds none, and would go on writing to
//! the old file after it was replaced. Linux shows every process's open files in `/proc`. The files of other users'
//! processes are seen only by root; how many processes could not be looked into is told.

use super::guest::sidecar;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process that has a database, its log or its journal open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// Process id.
    pub pid: u32,
    /// The command's name.
    pub command: String,
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (process {})", self.command, self.pid)
    }
}

/// The outcome of a look at all processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Those that have it open, by process id.
    pub found: Vec<User>,
    /// Processes that could not be looked into; `None` where there is no `/proc` at all.
    pub hidden: Option<usize>,
}

/// Looks for processes, this one included, that have the database at `file` or one of its sidecars open.
pub fn of(file: &Path) -> Users {
    of_any([file])
}

/// The same for any of several databases, in one look at all processes.
pub fn of_any<'a>(files: impl IntoIterator<Item = &'a Path>) -> Users {
    let names = files.into_iter().flat_map(|file| ["", "-wal", "-shm", "-journal"].map(|suffix| sidecar(file, suffix)));
    let keys: Vec<(u64, u64)> =
        names.filter_map(|name| fs_err::metadata(name).ok()).map(|m| (m.dev(), m.ino())).collect();
    if keys.is_empty() { Users { found: Vec::new(), hidden: Some(0) } } else { by_inode(&keys) }
}

/// Looks for processes that have one of these files, by device and inode, open.
pub(super) fn by_inode(keys: &[(u64, u64)]) -> Users {
    let Ok(processes) = fs_err::read_dir("/proc") else { return Users::default() };
    let mut users = Users { found: Vec::new(), hidden: Some(0) };
    for process in processes.filter_map(Result::ok) {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        match has_open(&process.path(), keys) {
            Ok(true) => {
                let command = fs_err::read_to_string(process.path().join("comm")).unwrap_or_default();
                users.found.push(User { pid, command: command.trim().to_owned() });
            }
            Ok(false) => {}
            // It has ended meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => users.hidden = users.hidden.map(|n| n + 1),
        }
    }
    users.found.sort();
    users
}

fn has_open(process: &Path, keys: &[(u64, u64)]) -> std::io::Result<bool> {
    for fd in fs_err::read_dir(process.join("fd"))? {
        let Ok(fd) = fd else { continue };
        // Pipes and sockets have no path. A path is looked at only by its descriptor, which also finds files that
        // were renamed or removed, and never by its name, which may mean another file to that process.
        if !fs_err::read_link(fd.path()).is_ok_and(|target| target.is_absolute()) {
            continue;
        }
        if fs_err::metadata(fd.path()).is_ok_and(|m| keys.contains(&(m.dev(), m.ino()))) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_found_and_a_closed_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let db = folder.path().join("a.db");
        let file = fs_err::File::create(&db).unwrap();
        let here = |users: Users| users.found.iter().any(|user| user.pid == std::process::id());
        assert!(here(of(&db)));
        drop(file);
        assert!(!here(of(&db)));
        let _log = fs_err::File::create(sidecar(&db, "-wal")).unwrap();
        assert!(here(of(&db)), "its log counts too");
    }
}
