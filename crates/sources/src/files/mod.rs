//! Directory trees and single files as a source.
//!
//! Each configured path is kept at its own absolute path below the source's folder, with modes, owners, times, extended
//! attributes, link counts and holes. What this module promises:
//!
//! - An entry is in the recovery point, or left out because the user said so, or named as a problem. Nothing else. That
//!   holds for a configured path that is missing, too: the others are captured, and only when none is there does the
//!   source fail.
//! - No link inside a tree is followed and no name is resolved twice: entries are reached by one name below an open
//!   directory, so a tree that changes, or that somebody changes on purpose, cannot lead out of itself. Two exceptions: a
//!   configured path itself is followed, whatever it leads to; and SQLite opens databases by path, after which it is
//!   checked that the path still led to the same file.
//! - Nothing waits on a fifo or a lease holder without end, and access times are left alone where the system allows.
//! - A file that changed while it was read is said to have changed. One that was replaced as a whole before it was
//!   opened is read in its new state; that is no problem.
//! - Databases inside a tree are captured consistently.
//!
//! A directory holds one descriptor for as long as the engine holds it, so a tree takes as many as it is deep; where the
//! limit on open files is reached, the directory that could not be opened is named as a problem.
//!
//! Linux only: it reads directories in blocks and reaches attributes of special files through `/proc/self/fd`.

mod attributes;
mod database;
mod dir;
mod exclude;
mod listing;
mod open;
mod owners;
mod place;
mod probe;
mod reader;
mod roots;
mod scope;
mod stat;
pub mod target;
#[cfg(test)]
mod tests;

pub use dir::keeps_nothing;

use exclude::Patterns;
use lastgood_model::manifest::{Problem, ProblemKind};
use lastgood_model::source::{Captured, Finding, Sink, Source};
use lastgood_model::{Context, ErrorKind, Monitor, Node, Result};
use roots::Root;
use scope::Scope;
use serde_json::json;
use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What to leave out of a files source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesOptions {
    /// Patterns in the syntax of `.gitignore`, anchored at each configured path.
    pub exclude: Vec<String>,
    /// Files with more such patterns, one a line, applied after [`Self::exclude`].
    pub exclude_files: Vec<PathBuf>,
    /// Keep mount points as empty directories. File systems that only show the kernel's state (`/proc`, `/sys`) are
    /// never entered from above, with or without this.
    pub one_file_system: bool,
    /// In directories marked by a `CACHEDIR.TAG` keep nothing but the mark.
    pub exclude_caches: bool,
    /// Leave out files longer than so many bytes.
    pub exclude_larger_than: Option<u64>,
    /// Absolute paths of what must not be captured wherever it is met, such as the repository that is being written and
    /// the file with its key. Known by device and inode, not by name.
    pub never: Vec<PathBuf>,
}

/// One or more paths of this machine.
#[derive(Debug)]
pub struct FilesSource {
    name: String,
    paths: Vec<PathBuf>,
    options: FilesOptions,
    patterns: Arc<Patterns>,
}

impl FilesSource {
    /// A source of this name. Relative paths are taken from the working directory. Reads the exclude files.
    ///
    /// Fails with [`Invalid`](lastgood_model::ErrorKind::Invalid) when a path lies in another, a pattern cannot be
    /// understood or an exclude file is not there; whether the paths exist is asked by [`Source::probe`] and
    /// [`Source::capture`].
    pub fn new(name: impl Into<String>, paths: Vec<PathBuf>, options: FilesOptions) -> Result<Self> {
        let paths = roots::settle(paths)?;
        let patterns = Arc::new(Patterns::new(&options.exclude, &options.exclude_files)?);
        Ok(Self { name: name.into(), paths, options, patterns })
    }

    /// The configured paths, absolute, in byte order.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Opens every configured path before the first is read, and names those that cannot be had as problems; they come
    /// back in words. That nothing is there at all is an error: a disk that is not mounted must not pass for a source
    /// that has become smaller.
    fn open_all<'s>(&'s self, scope: &Arc<Scope>, monitor: &Monitor) -> Result<(Vec<Opened<'s>>, Vec<String>)> {
        let mut opened = Vec::with_capacity(self.paths.len());
        let mut failures = VecDeque::new();
        for path in &self.paths {
            let root = roots::open(path, scope, monitor);
            match root.and_then(|root| Ok(Opened { path, parents: roots::parents(path, scope, monitor)?, root })) {
                Ok(root) => opened.push(root),
                // These say nothing of the path alone.
                Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Cancelled | ErrorKind::Bug) => {
                    return Err(error);
                }
                Err(error) => failures.push_back((path, error)),
            }
        }
        if opened.is_empty()
            && let Some((_, first)) = failures.pop_front()
        {
            let others = failures.len();
            return Err(if others == 0 {
                first
            } else {
                first.context(format!("none of {} paths is there", others + 1))
            });
        }
        let missing = failures.iter().map(|(path, _)| roots::display(path)).collect();
        for (path, error) in failures {
            let mut message = error.chain();
            if let Some(hint) = error.hint() {
                message.push_str(&format!(" ({hint})"));
            }
            monitor.problem(Problem::new(roots::display(path), ProblemKind::Unreadable, message));
        }
        Ok((opened, missing))
    }
}

/// A configured path that is there.
struct Opened<'s> {
    path: &'s Path,
    /// The directories above it.
    parents: Vec<Node>,
    root: Root,
}

impl Source for FilesSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "files"
    }

    fn origins(&self) -> Vec<String> {
        self.paths.iter().map(|path| roots::display(path)).collect()
    }

    fn probe(&self) -> Result<Vec<Finding>> {
        Ok(probe::probe(&self.paths, &self.options, &self.patterns))
    }

    fn examine(&self) -> Result<Vec<Finding>> {
        let mut findings = self.probe()?;
        findings.extend(probe::sample(&self.paths, &self.options, &self.patterns));
        Ok(findings)
    }

    /// The facts are `sqlite_inside` (databases read as such in this run, by path below the source's folder), `left_out`
    /// (how many entries by each pattern or rule), `mount_points_left_out`, `followed` (configured links and where they
    /// led), `missing` (configured paths of which nothing is here; each is a problem as well) and `without_files`
    /// (configured folders below which there is no file: an empty mount point looks so); each is there only when it has
    /// something to say.
    fn capture(&self, sink: &dyn Sink, monitor: &Monitor) -> Result<Captured> {
        let scope = Arc::new(Scope::begin(&self.options, Arc::clone(&self.patterns)));
        let (opened, missing) = self.open_all(&scope, monitor)?;
        let mut followed = serde_json::Map::new();
        let mut without_files = Vec::new();
        for Opened { path, parents, root } in opened {
            let shown = roots::display(path);
            let bytes = path.as_os_str().as_bytes();
            if roots::is_link(bytes) {
                let target = fs_err::canonicalize(path).context("follow link")?;
                followed.insert(shown.clone(), json!(roots::display(&target)));
            }
            let inside = bytes.strip_prefix(b"/").unwrap_or(bytes);
            match root {
                Root::Tree { mut node, dir } => {
                    if inside.is_empty() {
                        node.name = self.name.clone().into_bytes();
                    }
                    let files_before = monitor.counters.files.load(Relaxed);
                    sink.tree(inside, node, parents, Arc::new(dir))?;
                    if monitor.counters.files.load(Relaxed) == files_before {
                        without_files.push(shown);
                    }
                }
                Root::Single { entry, dir } => sink.entry(inside, entry, parents, Arc::new(dir))?,
            }
        }
        let mut facts = scope.facts();
        if !followed.is_empty() {
            facts.insert("followed".to_owned(), followed.into());
        }
        for (name, paths) in [("missing", missing), ("without_files", without_files)] {
            if !paths.is_empty() {
                facts.insert(name.to_owned(), json!(paths));
            }
        }
        Ok(Captured { facts, position: None })
    }
}
