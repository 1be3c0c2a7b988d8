//! The seam between what is protected and the engine that keeps it.
//!
//! A source takes one of two shapes. *Streams*: few long byte sequences that cannot be sought, such as a table's rows or
//! a command's output; the source pushes them with [`StreamWriter`]s, as many at once as it likes. *Trees*: directories
//! of many files; the engine pulls them through [`TreeDir`], in parallel and depth first, so that memory stays bounded.

use crate::{Monitor, Node, Result, Time};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One thing to protect.
pub trait Source: Send + Sync {
    /// The name it has in the config and in snapshots: one path component.
    fn name(&self) -> &str;

    /// `files`, `sqlite`, `command`, …
    fn kind(&self) -> &'static str;

    /// Where it lives, for people and for a restore in place: absolute paths or URLs without secrets.
    fn origins(&self) -> Vec<String>;

    /// Looks whether a capture could work now, without changing anything.
    fn probe(&self) -> Result<Vec<Finding>>;

    /// Looks closer than [`Source::probe`], for a person who asks: what a capture would miss as well, as far as a
    /// bounded sample tells. The same without a source's own idea of it.
    fn examine(&self) -> Result<Vec<Finding>> {
        self.probe()
    }

    /// Writes the source's state at one consistent moment into `sink`. `Ok` means all of it is there, apart from what
    /// was reported to `monitor` as a [`crate::manifest::Problem`]; `Err` means the source is absent as a whole from
    /// the recovery point, whatever was written.
    fn capture(&self, sink: &dyn Sink, monitor: &Monitor) -> Result<Captured>;
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Worth telling, or in the way of a capture.
    pub level: FindingLevel,
    /// The fact, with its path or name.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingLevel {
    /// As it should be.
    Ok,
    /// Works, but should be known.
    Warning,
    /// A capture would fail or miss something.
    Failure,
}

/// Facts about a finished capture, for the manifest.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// Kind-specific facts; for `sqlite` see `sources::sqlite::Facts`.
    pub facts: serde_json::Map<String, serde_json::Value>,
    /// Where in its change log the source was, when it has one.
    pub position: Option<String>,
}

/// What a source writes into: its own folder in the recovery point being made.
pub trait Sink: Sync {
    /// Begins a stream kept as the file `spec.path` in the source's folder. Several may be open at once; each belongs to
    /// one thread at a time. Fails when that path is taken.
    fn stream(&self, spec: StreamSpec) -> Result<Box<dyn StreamWriter>>;

    /// Takes in a directory tree at `path` (components joined by `/`, empty for the source's folder itself). `node`
    /// holds the top directory's own metadata; its name is replaced by the last component. `parents` gives the
    /// metadata of the directories between the source's folder and it, outermost first, where known. Returns once the
    /// tree is complete.
    fn tree(&self, path: &[u8], node: Node, parents: Vec<Node>, dir: Arc<dyn TreeDir>) -> Result<()>;

    /// Takes in a single entry that is not a directory at `path`, read through `dir` as an entry of it.
    fn entry(&self, path: &[u8], entry: Entry, parents: Vec<Node>, dir: Arc<dyn TreeDir>) -> Result<()>;
}

/// A stream's place and nature.
#[derive(Clone, Debug)]
pub struct StreamSpec {
    /// Path in the source's folder, components joined by `/`, each a safe name.
    pub path: Vec<u8>,
    /// How to cut it.
    pub chunking: Chunking,
    /// Permission bits of the file it is kept as.
    pub mode: u32,
    /// Owner of that file.
    pub uid: u32,
    /// Group of that file.
    pub gid: u32,
    /// Modification time of that file.
    pub mtime: Time,
    /// That time is only when it was captured. Where the parent has the same file but for its time, that stays, so that
    /// what did not change is the same in both.
    pub time_follows_content: bool,
}

/// How content is cut into blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunking {
    /// Content-defined, about 1 MiB, cut exactly where restic cuts: deduplicates against files stored by restic.
    Files,
    /// Content-defined, about 64 KiB: rows and text that shift.
    Rows,
    /// Fixed extents of this many bytes, for page files whose pages never shift. A multiple of the page size.
    Fixed(u32),
}

/// A stream being written. Dropping it without `finish` aborts it.
pub trait StreamWriter: Send {
    /// Appends bytes; blocks while the engine's memory budget is used up.
    fn write(&mut self, data: &[u8]) -> Result<()>;

    /// Appends `length` zero bytes at almost no cost; restored as a hole.
    fn zeros(&mut self, length: u64) -> Result<()>;

    /// Ends the stream with its verdict. Only a stream whose producer has said success may be finished; otherwise
    /// drop it. Returns its length in bytes once all of it is on its way into packs.
    fn finish(self: Box<Self>, verdict: Verdict) -> Result<u64>;
}

/// The producer's word that a stream is whole: who said so and how. There is no value for failure; a failed stream is
/// dropped, never finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Such as "exit status 0" or "read transaction held to the end".
    pub evidence: String,
}

/// One entry of a directory being captured. `node` has name, kind and what `stat` tells; owner names, link target and
/// extended attributes come later through [`TreeDir::describe`], and only when needed.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Metadata from one `stat`.
    pub node: Node,
    /// Content may differ though size, times and inode are the same (such as a database with a write-ahead log):
    /// always read it.
    pub volatile: bool,
}

impl Entry {
    /// An entry whose metadata tells whether it changed.
    pub fn new(node: Node) -> Self {
        Self { node, volatile: false }
    }
}

/// A directory of a tree source, open for the time it is being captured.
pub trait TreeDir: Send + Sync {
    /// Its entries in strictly ascending byte order of names. Entries that could not be examined are reported to
    /// `monitor` and left out; excluded ones are left out silently.
    fn list(&self, monitor: &Monitor) -> Result<Vec<Entry>>;

    /// Opens a sub-directory.
    fn open_dir(&self, entry: &Entry) -> Result<Arc<dyn TreeDir>>;

    /// Fills in what `stat` does not tell: owner names, link target, extended attributes. Trouble with single
    /// attributes is reported to `monitor`.
    fn describe(&self, node: &mut Node, monitor: &Monitor) -> Result<()>;

    /// Opens a regular file for reading.
    fn open_file(&self, entry: &Entry, monitor: &Monitor) -> Result<Box<dyn FileReader>>;

    /// The path of an entry (or with an empty name of the directory itself), for messages.
    fn path_of(&self, name: &[u8]) -> Vec<u8>;
}

/// Content of one file, read once from start to end.
pub trait FileReader: Send {
    /// How to cut the content.
    fn chunking(&self) -> Chunking {
        Chunking::Files
    }

    /// Appends up to `want` bytes to `out` or reports a hole; [`Read::End`] at the end of the file.
    fn read(&mut self, out: &mut Vec<u8>, want: usize) -> Result<Read>;

    /// After the end: updates size and times in `node` to the moment of capture, and says whether the file stood still
    /// meanwhile. A file that did not is stored as read, and the point is marked incomplete.
    fn finish(self: Box<Self>, node: &mut Node) -> Result<Steady>;
}

/// The outcome of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes were appended, at least one.
    Data(usize),
    /// So many zero bytes follow that are a hole; nothing was appended.
    Hole(u64),
    /// No more.
    End,
}

/// Whether a file stood still while it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steady {
    /// Size, times and inode were the same before and after.
    Yes,
    /// It changed; the reason in words.
    No(String),
}
