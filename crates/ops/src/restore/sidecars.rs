//! SQLite databases in the place that a restore of a file tree would write over, and their side files.
//!
//! A database that was captured inside of a tree comes back as one plain file. A write-ahead log or journal that the
//! place still has belongs to the file that was there before; SQLite would replay it into the restored one and spoil it.
//! So such side files are moved aside first, and a database that somebody has open is not touched unless that was told.
//!
//! Moving them aside is not enough where the database is replaced under its user: a process that has log and database
//! open goes on by their inodes, and would check its log into whatever is in the database's. So a database with side
//! files gets a new inode, even when its own content is what it should be; one without is never rewritten in place
//! either ([`Target::open_existing`](lastgood_sources::files::target::Target::open_existing)).

use super::select::Root;
use crate::browse::resolve;
use lastgood_model::{Context, Error, ErrorKind, Monitor, NodeKind, Result, Time};
use lastgood_repo::{BlobReader, Snapshot};
use lastgood_sources::sqlite::{is_database_file, users_of, users_of_any};
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const SUFFIXES: [&str; 3] = ["-wal", "-journal", "-shm"];

/// Of them those that hold content of the database.
const LOGS: [&str; 2] = ["-wal", "-journal"];

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Sidecars {
    /// Side files to be moved aside, with the database they belong to.
    found: Vec<(PathBuf, PathBuf)>,
    /// Databases without side files that seem to differ, so that they will be replaced.
    replaced: Vec<PathBuf>,
}

/// Databases with content in a side file, by their paths: whatever the file itself looks like, what its application sees
/// is another thing.
#[derive(Debug, Default)]
pub(super) struct Logs(BTreeMap<Vec<u8>, PathBuf>);

/// Looks for side files that the recovery point does not have, beside files that it has. `place` says where a path of
/// the recovery point goes.
pub(super) fn find(
    reader: &BlobReader,
    snapshot: &Snapshot,
    roots: &[&Root],
    monitor: &Monitor,
    place: impl Fn(&[u8]) -> PathBuf,
) -> Result<Sidecars> {
    let mut all = Sidecars::default();
    for root in roots {
        root.for_each(reader, monitor, &mut |walked| {
            if walked.node.kind != NodeKind::File {
                return Ok(());
            }
            let file = place(walked.path);
            let mut has_sides = false;
            for suffix in SUFFIXES {
                let side = with_suffix(&file, suffix);
                if !fs_err::symlink_metadata(&side).is_ok_and(|meta| meta.is_file()) {
                    continue;
                }
                let in_point = resolve(reader, snapshot, &[walked.path, suffix.as_bytes()].concat());
                if in_point.is_err_and(|error| error.kind() == ErrorKind::Absent) {
                    all.found.push((file.clone(), side));
                    has_sides = true;
                }
            }
            if !has_sides && seems_another_database(&file, walked.node.size, walked.node.mtime) {
                all.replaced.push(file);
            }
            Ok(())
        })?;
    }
    Ok(all)
}

/// The log or journal of the database at `file` that has content.
pub(super) fn log_of(file: &Path) -> Option<PathBuf> {
    let mut sides = LOGS.iter().map(|suffix| with_suffix(file, suffix));
    sides.find(|side| has_content(side))
}

fn has_content(side: &Path) -> bool {
    fs_err::symlink_metadata(side).is_ok_and(|meta| meta.is_file() && meta.len() > 0)
}

/// True for a database that is not, as far as a look tells, what has this length and time.
fn seems_another_database(file: &Path, size: u64, mtime: Time) -> bool {
    fs_err::symlink_metadata(file).is_ok_and(|meta| {
        let is_it = meta.len() == size && (meta.mtime(), meta.mtime_nsec()) == (mtime.secs, i64::from(mtime.nanos));
        meta.is_file() && meta.len() > 0 && !is_it && is_database_file(file).unwrap_or(false)
    })
}

impl Logs {
    /// Notes one more.
    pub(super) fn add(&mut self, database: &Path, log: PathBuf) {
        self.0.insert(database.as_os_str().as_bytes().to_vec(), log);
    }

    /// The log of a database, by its path.
    pub(super) fn of(&self, database: &[u8]) -> Option<&Path> {
        self.0.get(database).map(PathBuf::as_path)
    }
}

impl Sidecars {
    /// Where they are.
    pub(super) fn paths(&self) -> HashSet<Vec<u8>> {
        self.found.iter().map(|(_, side)| side.as_os_str().as_bytes().to_vec()).collect()
    }

    /// The databases they belong to: each is to be replaced, not rewritten.
    pub(super) fn databases(&self) -> HashSet<Vec<u8>> {
        self.found.iter().map(|(file, _)| file.as_os_str().as_bytes().to_vec()).collect()
    }

    /// The databases with content in a side file.
    pub(super) fn logs(&self) -> Logs {
        let mut logs = Logs::default();
        for (file, side) in &self.found {
            if LOGS.iter().any(|suffix| with_suffix(file, suffix) == *side) && has_content(side) {
                logs.add(file, side.clone());
            }
        }
        logs
    }

    /// Refuses while somebody has one of the databases open.
    pub(super) fn require_unused(&self) -> Result<()> {
        let mut files: Vec<&Path> =
            self.found.iter().map(|(file, _)| file).chain(&self.replaced).map(PathBuf::as_path).collect();
        files.dedup();
        if users_of_any(files.iter().copied()).found.is_empty() {
            return Ok(());
        }
        match files.into_iter().find_map(|file| users_of(file).found.into_iter().next().map(|user| (file, user))) {
            // Closed meanwhile.
            None => Ok(()),
            Some((file, user)) => Err(Error::new(
                ErrorKind::Locked,
                format!("{} is open in {user}; nothing was restored", file.display()),
            )
            .with_hint("stop the application first, or say --force to replace the database under it")),
        }
    }

    /// Moves them aside, and tells what went where.
    pub(super) fn move_aside(self) -> Result<Vec<String>> {
        let mut told = Vec::new();
        for (_, side) in self.found {
            let aside = free_name(&side)?;
            fs_err::rename(&side, &aside).with_context(|| format!("move {} aside", side.display()))?;
            told.push(format!("moved {} aside to {}", side.display(), aside.display()));
        }
        Ok(told)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// A name beside `side` that nothing has. It must not end like a side file.
fn free_name(side: &Path) -> Result<PathBuf> {
    for n in 0..1000 {
        let name = with_suffix(side, &format!(".before-restore-{n}"));
        if fs_err::symlink_metadata(&name).is_err() {
            return Ok(name);
        }
    }
    Err(Error::new(ErrorKind::Conflict, format!("no free name to move {} aside to", side.display())))
}
