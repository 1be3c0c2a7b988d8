//! SQLite databases as sources.
//!
//! What is promised: the captured file is one the application could have closed at one moment, whatever other processes
//! write meanwhile, and the application notices nothing but the reading (see [`SqliteSource`]). Page by page it is what
//! SQLite itself would have read, so any SQLite opens it, without a log or journal beside it. Why this way and not another,
//! with figures: `docs/design/sqlite-capture.md`.
//!
//! - [`SqliteSource`] captures one database; [`capture_file`] reads one that is met in a file tree
//! - [`Facts`] is what the manifest says of it; [`digest`] how rows are digested
//! - [`verify_file`] proves that a restored file is what was captured
//! - [`plan_swap`] and [`swap_in`] put a restored file in the place of the old one

mod aside;
pub mod digest;
mod errors;
mod facts;
mod guest;
mod header;
mod image;
mod locks;
mod probe;
mod queue;
mod reader;
mod swap;
mod users;
mod verify;

pub use facts::{DigestLevel, Facts, Method};
pub use header::{HEADER_BYTES, is_database_file, looks_like_database};
pub use image::EXTENT_BYTES;
pub use reader::{capture_file, capture_file_with, is_sidecar_of};
pub use swap::{Step, SwapOptions, SwapPlan, SwapReport, plan_swap, swap_in};
pub use users::{User, Users, of as users_of, of_any as users_of_any};
pub use verify::{Check, VerifyReport, verify_file, verify_file_until};

use image::Image;
use lastgood_model::manifest::{Problem, ProblemKind};
use lastgood_model::source::{Captured, Chunking, Finding, Sink, Source, StreamSpec, StreamWriter};
use lastgood_model::{Error, ErrorKind, Monitor, Result, node};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a database is captured.
#[derive(Clone, Debug)]
pub struct Options {
    /// How much the manifest says of its content.
    pub digest: DigestLevel,
    /// How long to wait for an application that keeps it locked.
    pub busy_timeout: Duration,
    /// Where to copy a database whose application crashed, and what a slow engine has not taken yet. Room for the
    /// database is needed there in those two cases. The system's temporary folder when not given.
    pub scratch: Option<PathBuf>,
    /// How much is read ahead of the engine, in memory.
    pub read_ahead_bytes: usize,
    /// How much more is read ahead into a scratch file when the database has a rollback journal, so that its writers do
    /// not wait for the engine. Beyond it they do. At most half of the free space is taken.
    pub spill_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            digest: DigestLevel::default(),
            busy_timeout: Duration::from_secs(10),
            scratch: None,
            read_ahead_bytes: 16 << 20,
            spill_bytes_max: 4 << 30,
        }
    }
}

impl Options {
    fn scratch_folder(&self) -> PathBuf {
        self.scratch.clone().unwrap_or_else(std::env::temp_dir)
    }
}

/// One live SQLite database file, kept as a file of the same name in the source's folder.
///
/// A guest in the application's house: it never writes to the database, changes neither schema nor journal mode, never
/// checkpoints, and leaves log and index as it found them. With a write-ahead log nobody waits for it. In rollback mode
/// nobody can commit while pages are read; that time is kept to the bare reading and told as [`Facts::held_ms`].
#[derive(Clone, Debug)]
pub struct SqliteSource {
    /// The source's name.
    pub name: String,
    /// The database file.
    pub path: PathBuf,
    /// How to capture it.
    pub options: Options,
}

impl SqliteSource {
    /// The database at `path`, with default options.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into(), options: Options::default() }
    }
}

impl Source for SqliteSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn origins(&self) -> Vec<String> {
        let path = fs_err::canonicalize(&self.path).or_else(|_| std::path::absolute(&self.path));
        vec![node::display_path(path.as_deref().unwrap_or(&self.path).as_os_str().as_bytes())]
    }

    fn probe(&self) -> Result<Vec<Finding>> {
        probe::probe(&self.path, &self.options)
    }

    fn capture(&self, sink: &dyn Sink, monitor: &Monitor) -> Result<Captured> {
        let is_cancelled = || monitor.is_cancelled();
        let file = file_name(&self.path)?;
        let mut image = Image::open(&self.path, &self.options, Some(self.options.digest))?;
        let mut writer = sink.stream(StreamSpec {
            path: file.to_vec(),
            chunking: Chunking::Fixed(image.extent_bytes),
            mode: image.meta.mode() & 0o7777,
            uid: image.meta.uid(),
            gid: image.meta.gid(),
            mtime: image.mtime,
            time_follows_content: false,
        })?;
        while let Some(buffer) = image.next(&is_cancelled)? {
            write_extents(&mut *writer, &buffer, image.extent_bytes as usize)?;
            image.give_back(buffer);
        }
        let (facts, verdict) = image.finish()?;
        let length = writer.finish(verdict)?;
        if length != facts.bytes {
            return Err(Error::new(ErrorKind::Bug, format!("{length} bytes were stored of {}", facts.bytes)));
        }
        for (table, reason) in &facts.unread {
            monitor.problem(Problem::new(
                format!("{}: {table}", self.path.display()),
                ProblemKind::Metadata,
                format!("all pages are stored, but the rows of this table could not be read: {reason}"),
            ));
        }
        Ok(Captured { facts: facts.to_map()?, position: None })
    }
}

/// Writes whole extents that are all zero as holes, and the rest as it is.
fn write_extents(writer: &mut dyn StreamWriter, buffer: &[u8], extent: usize) -> Result<()> {
    let is_zero = |bytes: &[u8]| bytes.iter().all(|b| *b == 0);
    let mut data = 0;
    let mut at = 0;
    while at < buffer.len() {
        let end = (at + extent).min(buffer.len());
        if is_zero(&buffer[at..end]) {
            if data < at {
                writer.write(&buffer[data..at])?;
            }
            writer.zeros((end - at) as u64)?;
            data = end;
        }
        at = end;
    }
    if data < buffer.len() {
        writer.write(&buffer[data..])?;
    }
    Ok(())
}

/// The last component of a database's path, as the name of its stream.
fn file_name(path: &Path) -> Result<&[u8]> {
    path.file_name()
        .map(|name| name.as_bytes())
        .filter(|name| node::is_safe_name(name))
        .ok_or_else(|| Error::invalid(format!("{} does not name a database file", path.display())))
}
