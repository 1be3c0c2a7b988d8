//! Side files of SQLite databases that a restore of a file tree would write over.
//!
//! A database that was captured inside of a tree comes back as one plain file. A write-ahead log or journal that the
//! place still has belongs to the file that was there before; SQLite would replay it into the restored one and spoil it.
//! So such side files are moved aside first, and a database that somebody has open is not touched unless that was told.

use super::select::Root;
use crate::browse::resolve;
use lastgood_model::{Context, Error, ErrorKind, Monitor, NodeKind, Result};
use lastgood_repo::{BlobReader, Snapshot};
use lastgood_sources::sqlite::users_of;
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const SUFFIXES: [&str; 3] = ["-wal", "-journal", "-shm"];

/// Side files to be moved aside, with the database they belong to.
#[derive(Debug, Default)]
pub(super) struct Sidecars {
    found: Vec<(PathBuf, PathBuf)>,
}

/// Looks for side files that the recovery point does not have, beside files that it has. `place` says where a path of
/// the recovery point goes.
pub(super) fn find(
    reader: &BlobReader,
    snapshot: &Snapshot,
    roots: &[&Root],
    monitor: &Monitor,
    place: impl Fn(&[u8]) -> PathBuf,
) -> Result<Sidecars> {
    let mut found = Vec::new();
    for root in roots {
        root.for_each(reader, monitor, &mut |walked| {
            if walked.node.kind != NodeKind::File {
                return Ok(());
            }
            let file = place(walked.path);
            for suffix in SUFFIXES {
                let side = with_suffix(&file, suffix);
                if !fs_err::symlink_metadata(&side).is_ok_and(|meta| meta.is_file()) {
                    continue;
                }
                let in_point = resolve(reader, snapshot, &[walked.path, suffix.as_bytes()].concat());
                if in_point.is_err_and(|error| error.kind() == ErrorKind::Absent) {
                    found.push((file.clone(), side));
                }
            }
            Ok(())
        })?;
    }
    Ok(Sidecars { found })
}

impl Sidecars {
    /// Where they are.
    pub(super) fn paths(&self) -> HashSet<Vec<u8>> {
        self.found.iter().map(|(_, side)| side.as_os_str().as_bytes().to_vec()).collect()
    }

    /// Refuses while somebody has one of the databases open.
    pub(super) fn require_unused(&self) -> Result<()> {
        let mut last: Option<&Path> = None;
        for (file, _) in &self.found {
            if last == Some(file) {
                continue;
            }
            last = Some(file);
            let users = users_of(file).found;
            if let Some(user) = users.first() {
                return Err(Error::new(
                    ErrorKind::Locked,
                    format!("{} is open in {user}; nothing was restored", file.display()),
                )
                .with_hint("stop the application first, or say --force to replace the database under it"));
            }
        }
        Ok(())
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
