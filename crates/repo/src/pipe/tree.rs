//! The walk of a directory tree: what is unchanged is taken over, what is new is read, and a directory's own tree is
//! written by whoever finishes its last entry.
//!
//! A directory waits in memory only while something below it is unfinished. Since the pool takes directories newest
//! first, what waits is about one path per worker with the siblings along it, not the breadth of the tree.

use super::Engine;
use super::compress::Scratch;
use super::content::Content;
use super::pool::Task;
use crate::chunk::FILE_CHUNK_MIN_BYTES;
use crate::format::tree::TreeEncoder;
use crate::index::BlobKind;
use crate::sha256::sha256_many;
use lastgood_model::manifest::{Problem, ProblemKind};
use lastgood_model::node::display_path;
use lastgood_model::source::{Chunking, Entry, FileReader, Read, Steady, TreeDir};
use lastgood_model::{BlobId, Error, ErrorKind, Id, Node, NodeKind, Result, TreeId};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex};

/// Files of one directory are handed out in groups: about this many,
const GROUP_FILES: usize = 24;
/// or about this many bytes.
const GROUP_BYTES: u64 = 2 << 20;
/// Small files are hashed together once they hold this much.
const SMALL_FILES_BYTES: usize = 1 << 20;
/// Long files are read in pieces of this size; the cutter works best on whole buffers.
const LONG_READ_BYTES: usize = 1 << 20;
/// A change this close before the parent snapshot's start may hide behind an equal time stamp: twice the coarsest clock
/// tick that Linux gives its file systems.
const TIMESTAMP_GRAIN_NANOS: i128 = 20_000_000;

/// What came of the top of a walk: its node, or nothing when it could not be read.
pub(crate) type WalkedEntry = Option<Node>;

/// Where a finished entry is to be put.
enum Owner {
    Dir(Arc<OpenDir>, usize),
    Top(Arc<Top>),
}

impl Owner {
    fn deliver(self, node: Option<Node>, engine: &Engine, scratch: &mut Scratch) {
        let mut next = Some((self, node));
        // Finishing a directory may finish the one above it, and so on: a loop, since trees can be deep.
        while let Some((owner, node)) = next.take() {
            match owner {
                Self::Top(top) => top.set(node),
                Self::Dir(dir, slot) => next = dir.put(slot, node, engine, scratch),
            }
        }
    }
}

/// The waiting end of a walk.
#[derive(Default)]
pub(crate) struct Top {
    result: Mutex<Option<WalkedEntry>>,
    done: Condvar,
}

impl Top {
    fn set(&self, node: WalkedEntry) {
        *self.result.lock().unwrap_or_else(|e| e.into_inner()) = Some(node);
        self.done.notify_all();
    }

    fn wait(&self) -> WalkedEntry {
        let mut result = self.result.lock().unwrap_or_else(|e| e.into_inner());
        loop {
            match result.take() {
                Some(node) => return node,
                None => result = self.done.wait(result).unwrap_or_else(|e| e.into_inner()),
            }
        }
    }
}

impl Engine {
    /// Walks a directory and everything below it; `previous` is its tree in the parent snapshot.
    pub(crate) fn walk(&self, node: Node, dir: Arc<dyn TreeDir>, previous: Option<TreeId>) -> Result<WalkedEntry> {
        let top = Arc::new(Top::default());
        self.pool.push(Task::Dir(Box::new(DirTask {
            place: DirPlace::Open(dir),
            entry: Entry::new(node),
            owner: Owner::Top(top.clone()),
            previous,
        })));
        let node = top.wait();
        self.check()?;
        Ok(node)
    }

    /// Takes in a single entry that is not a directory.
    pub(crate) fn walk_entry(&self, entry: Entry, dir: Arc<dyn TreeDir>, old: Option<&Node>) -> Result<WalkedEntry> {
        let top = Arc::new(Top::default());
        let known = old.filter(|old| self.is_unchanged(&entry, old));
        if let Some(old) = known {
            self.count_file(old.size, true, false);
            return Ok(Some(old.clone()));
        }
        let known = old.map(|old| old.content.clone().unwrap_or_default());
        let file = PendingFile { entry, slot: 0, known };
        self.pool.push(Task::Files(FilesTask { dir, files: vec![file], open: None, top: Some(top.clone()) }));
        let node = top.wait();
        self.check()?;
        Ok(node)
    }

    /// True when size, times and inode say that `old`'s content is the entry's, and all of it is stored.
    fn is_unchanged(&self, entry: &Entry, old: &Node) -> bool {
        let new = &entry.node;
        let same = !self.options.force
            && !entry.volatile
            && new.kind == old.kind
            && new.mtime == old.mtime
            && new.ctime == old.ctime
            && new.inode == old.inode
            && new.size == old.size
            && new.mode == old.mode
            && new.uid == old.uid
            && new.gid == old.gid
            && new.links == old.links
            && new.device == old.device;
        same && !self.options.parent_started.is_some_and(|started| {
            let nanos = |t: lastgood_model::Time| i128::from(t.secs) * 1_000_000_000 + i128::from(t.nanos);
            nanos(new.ctime) + TIMESTAMP_GRAIN_NANOS >= nanos(started)
        }) && old.content.as_ref().is_none_or(|content| content.iter().all(|id| self.index.knows(*id)))
    }

    fn count_file(&self, bytes: u64, unchanged: bool, is_new: bool) {
        let counters = &self.monitor.counters;
        counters.files.fetch_add(1, Relaxed);
        counters.bytes.fetch_add(bytes, Relaxed);
        if unchanged {
            counters.files_unchanged.fetch_add(1, Relaxed);
        }
        if is_new {
            counters.files_new.fetch_add(1, Relaxed);
        }
    }

    fn report(&self, dir: &dyn TreeDir, name: &[u8], error: &Error) {
        let what = match error.kind() {
            ErrorKind::Absent => ProblemKind::Vanished,
            ErrorKind::Unsupported => ProblemKind::Unsupported,
            _ => ProblemKind::Unreadable,
        };
        self.monitor.problem(Problem::new(display_path(&dir.path_of(name)), what, error.chain()));
    }
}

/// A directory that has been listed and waits for its entries.
struct OpenDir {
    /// Its own entry and where its node goes, taken when it is finished.
    closing: Mutex<Option<(Entry, Owner)>>,
    slots: Mutex<Slots>,
    previous: Option<TreeId>,
    is_new: bool,
}

struct Slots {
    nodes: Vec<Option<Node>>,
    pending: usize,
    /// Every entry is equal to the one of the previous tree, and none is missing.
    unchanged: bool,
}

impl OpenDir {
    /// Puts a finished entry into its slot; with the last one, writes the tree and says where its own node goes.
    fn put(
        self: Arc<Self>,
        slot: usize,
        node: Option<Node>,
        engine: &Engine,
        scratch: &mut Scratch,
    ) -> Option<(Owner, Option<Node>)> {
        {
            let mut slots = self.slots.lock().unwrap_or_else(|e| e.into_inner());
            match node {
                // A sub-directory taken over whole leaves the slot as the previous tree had it.
                Some(node) => {
                    if slots.unchanged && slots.nodes[slot].as_ref() != Some(&node) {
                        slots.unchanged = false;
                    }
                    slots.nodes[slot] = Some(node);
                }
                None => {
                    slots.unchanged = false;
                    slots.nodes[slot] = None;
                }
            }
        }
        self.settle(engine, scratch)
    }

    /// Gives up one hold on the directory.
    fn settle(self: Arc<Self>, engine: &Engine, scratch: &mut Scratch) -> Option<(Owner, Option<Node>)> {
        let (nodes, unchanged) = {
            let mut slots = self.slots.lock().unwrap_or_else(|e| e.into_inner());
            slots.pending -= 1;
            if slots.pending > 0 {
                return None;
            }
            (std::mem::take(&mut slots.nodes), slots.unchanged)
        };
        let (entry, owner) = self.closing.lock().unwrap_or_else(|e| e.into_inner()).take()?;
        if engine.is_stopping() {
            return Some((owner, None));
        }
        let mut node = entry.node;
        let counters = &engine.monitor.counters;
        counters.dirs.fetch_add(1, Relaxed);
        let subtree = match self.previous.filter(|_| unchanged) {
            Some(previous) => {
                counters.dirs_unchanged.fetch_add(1, Relaxed);
                Ok(previous)
            }
            None => {
                if self.is_new {
                    counters.dirs_new.fetch_add(1, Relaxed);
                }
                store_tree(nodes.iter().flatten(), engine, scratch)
            }
        };
        match subtree {
            Ok(id) => node.subtree = Some(id),
            Err(error) => {
                engine.fail(error);
                return Some((owner, None));
            }
        }
        Some((owner, Some(node)))
    }
}

fn store_tree<'a>(nodes: impl Iterator<Item = &'a Node>, engine: &Engine, scratch: &mut Scratch) -> Result<TreeId> {
    let mut encoder = TreeEncoder::new();
    for node in nodes {
        encoder.push(node)?;
    }
    engine.store(BlobKind::Tree, &encoder.finish(), scratch).map(TreeId)
}

enum DirPlace {
    Open(Arc<dyn TreeDir>),
    Below(Arc<dyn TreeDir>),
}

/// A directory to be listed.
pub(super) struct DirTask {
    place: DirPlace,
    entry: Entry,
    owner: Owner,
    previous: Option<TreeId>,
}

impl DirTask {
    pub(super) fn run(mut self: Box<Self>, engine: &Engine, scratch: &mut Scratch) {
        if engine.is_stopping() {
            return self.owner.deliver(None, engine, scratch);
        }
        let dir = match &self.place {
            DirPlace::Open(dir) => dir.clone(),
            DirPlace::Below(parent) => match parent.open_dir(&self.entry) {
                Ok(dir) => dir,
                Err(error) => {
                    engine.report(&**parent, &self.entry.node.name, &error);
                    return self.owner.deliver(None, engine, scratch);
                }
            },
        };
        let listing = dir
            .list(&engine.monitor)
            .and_then(|list| dir.describe(&mut self.entry.node, &engine.monitor).map(|()| list));
        let entries = match listing {
            Ok(entries) => entries,
            Err(error) => {
                engine.report(&*dir, b"", &error);
                return self.owner.deliver(None, engine, scratch);
            }
        };
        let old = match self.previous.map(|id| engine.reader.tree(id)).transpose() {
            Ok(old) => old,
            // A damaged parent only costs reading everything again.
            Err(error) => {
                tracing::warn!(error = %error.chain(), "parent snapshot is unreadable here; reading all files again");
                self.previous = None;
                None
            }
        };
        self.plan(dir, entries, old, engine, scratch);
    }

    /// Sorts the entries into what is known, what is read now, and what is left to other tasks.
    fn plan(
        self: Box<Self>,
        dir: Arc<dyn TreeDir>,
        entries: Vec<Entry>,
        old: Option<Vec<Node>>,
        engine: &Engine,
        scratch: &mut Scratch,
    ) {
        let is_new = old.is_none();
        let old = old.unwrap_or_default();
        let mut unchanged = !is_new && old.len() == entries.len();
        let mut old = old.into_iter().peekable();
        let mut nodes = Vec::with_capacity(entries.len());
        let mut files = Vec::new();
        let mut dirs = Vec::new();
        for (slot, entry) in entries.into_iter().enumerate() {
            while old.next_if(|o| o.name < entry.node.name).is_some() {}
            let known = old.next_if(|o| o.name == entry.node.name);
            unchanged &= known.is_some();
            match entry.node.kind {
                NodeKind::Dir => {
                    let known = known.filter(|o| o.kind == NodeKind::Dir);
                    dirs.push((slot, entry, known.as_ref().and_then(|o| o.subtree)));
                    nodes.push(known);
                }
                _ => match known {
                    Some(known) if engine.is_unchanged(&entry, &known) => {
                        engine.count_file(known.size, true, false);
                        nodes.push(Some(known));
                    }
                    known => {
                        unchanged = false;
                        let known = known.map(|old| old.content.unwrap_or_default());
                        files.push(PendingFile { entry, slot, known });
                        nodes.push(None);
                    }
                },
            }
        }
        drop(old);

        let open = Arc::new(OpenDir {
            closing: Mutex::new(Some((self.entry, self.owner))),
            // One hold for each pending entry and one for this function.
            slots: Mutex::new(Slots { nodes, pending: files.len() + dirs.len() + 1, unchanged }),
            previous: self.previous,
            is_new,
        });
        let mut tasks = Vec::new();
        let mut group = Vec::new();
        let mut group_bytes = 0;
        for file in files {
            group_bytes += file.entry.node.size;
            group.push(file);
            if group.len() >= GROUP_FILES || group_bytes >= GROUP_BYTES {
                group_bytes = 0;
                let files = std::mem::take(&mut group);
                tasks.push(Task::Files(FilesTask { dir: dir.clone(), files, open: Some(open.clone()), top: None }));
            }
        }
        if !group.is_empty() {
            tasks.push(Task::Files(FilesTask { dir: dir.clone(), files: group, open: Some(open.clone()), top: None }));
        }
        // Newest first is how directories are taken up: pushed in reverse they run in order.
        tasks.extend(dirs.into_iter().rev().map(|(slot, entry, previous)| {
            Task::Dir(Box::new(DirTask {
                place: DirPlace::Below(dir.clone()),
                entry,
                owner: Owner::Dir(open.clone(), slot),
                previous,
            }))
        }));
        engine.pool.push_all(tasks);
        if let Some((owner, node)) = open.settle(engine, scratch) {
            owner.deliver(node, engine, scratch);
        }
    }
}

struct PendingFile {
    entry: Entry,
    slot: usize,
    /// The content it had in the parent snapshot; absent when it was not there.
    known: Option<Vec<BlobId>>,
}

/// Entries of one directory that must be read, or described.
pub(super) struct FilesTask {
    dir: Arc<dyn TreeDir>,
    files: Vec<PendingFile>,
    open: Option<Arc<OpenDir>>,
    top: Option<Arc<Top>>,
}

impl FilesTask {
    pub(super) fn run(self, engine: &Arc<Engine>, scratch: &mut Scratch) {
        let mut small = SmallFiles { bytes: std::mem::take(&mut scratch.files), ..SmallFiles::default() };
        small.bytes.clear();
        for file in self.files {
            let owner = match (&self.open, &self.top) {
                (Some(open), _) => Owner::Dir(open.clone(), file.slot),
                (None, Some(top)) => Owner::Top(top.clone()),
                (None, None) => continue,
            };
            if engine.is_stopping() {
                owner.deliver(None, engine, scratch);
                continue;
            }
            take_in(file, &self.dir, owner, &mut small, engine, scratch);
            if small.bytes.len() >= SMALL_FILES_BYTES {
                small.store(engine, scratch);
            }
        }
        small.store(engine, scratch);
        scratch.files = small.bytes;
    }
}

/// Files of one chunk each, read and waiting to be hashed together: several hashes at once run on one core at nearly
/// the price of one.
#[derive(Default)]
struct SmallFiles {
    bytes: Vec<u8>,
    files: Vec<(Node, std::ops::Range<usize>, Owner)>,
}

impl SmallFiles {
    fn store(&mut self, engine: &Engine, scratch: &mut Scratch) {
        let contents: Vec<&[u8]> = self.files.iter().map(|(_, range, _)| &self.bytes[range.clone()]).collect();
        let ids = sha256_many(&contents);
        for ((mut node, range, owner), id) in self.files.drain(..).zip(ids) {
            let content = &self.bytes[range];
            node.content = Some(Vec::new());
            if !content.is_empty() {
                let id = Id(id);
                if let Err(error) = engine.store_hashed(BlobKind::Data, id, content, scratch) {
                    engine.fail(error);
                    owner.deliver(None, engine, scratch);
                    continue;
                }
                node.content = Some(vec![BlobId(id)]);
            }
            owner.deliver(Some(node), engine, scratch);
        }
        self.bytes.clear();
    }
}

/// Reads one entry and delivers its node: at once, with the other small files, or when its last chunk is stored.
fn take_in(
    file: PendingFile,
    dir: &Arc<dyn TreeDir>,
    owner: Owner,
    small: &mut SmallFiles,
    engine: &Arc<Engine>,
    scratch: &mut Scratch,
) {
    let PendingFile { mut entry, known, .. } = file;
    let is_new = known.is_none();
    let name = entry.node.name.clone();
    let read = dir.describe(&mut entry.node, &engine.monitor).and_then(|()| {
        if entry.node.kind == NodeKind::File { dir.open_file(&entry, &engine.monitor).map(Some) } else { Ok(None) }
    });
    let reader = match read {
        Ok(Some(reader)) => reader,
        Ok(None) => {
            engine.count_file(0, false, is_new);
            return owner.deliver(Some(entry.node), engine, scratch);
        }
        Err(error) => {
            engine.report(&**dir, &name, &error);
            return owner.deliver(None, engine, scratch);
        }
    };
    let start = small.bytes.len();
    match read_content(reader, entry.node, &mut small.bytes, dir, known.as_deref(), engine, scratch) {
        Ok(Progress::Small(node)) => small.files.push((node, start..small.bytes.len(), owner)),
        Ok(Progress::Long { content, mut node }) => {
            let weak = Arc::downgrade(engine);
            // The completion may outlive this call and run on any worker, which brings its own scratch.
            let deliver = move |ids: Vec<BlobId>| {
                node.content = Some(ids);
                if let Some(engine) = weak.upgrade() {
                    let node = (!engine.is_stopping()).then_some(node);
                    owner.deliver(node, &engine, &mut Scratch::new());
                }
            };
            if let Err(error) = content.finish_then(scratch, Box::new(deliver)) {
                engine.fail(error);
            }
        }
        Err(failed) => {
            small.bytes.truncate(start);
            match failed {
                Failed::Source(error) => engine.report(&**dir, &name, &error),
                Failed::Store(error) => engine.fail(error),
            }
            owner.deliver(None, engine, scratch);
        }
    }
}

enum Progress {
    /// One chunk at most, at the end of the buffer.
    Small(Node),
    Long {
        content: Box<Content>,
        node: Node,
    },
}

enum Failed {
    /// The file could not be read: its own misfortune.
    Source(Error),
    /// It could not be stored: the end of the session.
    Store(Error),
}

fn read_content(
    mut reader: Box<dyn FileReader>,
    mut node: Node,
    small: &mut Vec<u8>,
    dir: &Arc<dyn TreeDir>,
    known: Option<&[BlobId]>,
    engine: &Arc<Engine>,
    scratch: &mut Scratch,
) -> Result<Progress, Failed> {
    let is_new = known.is_none();
    let chunking = reader.chunking();
    let mut content = None;
    if chunking == Chunking::Files && node.size < FILE_CHUNK_MIN_BYTES as u64 {
        // Anything this short is one chunk, wherever the cutter would look.
        let start = small.len();
        let hole = loop {
            match reader.read(small, FILE_CHUNK_MIN_BYTES).map_err(Failed::Source)? {
                Read::Data(_) if small.len() - start >= FILE_CHUNK_MIN_BYTES => break Some(0),
                Read::Data(_) => {}
                Read::Hole(length) => break Some(length),
                Read::End => break None,
            }
        };
        let Some(length) = hole else {
            close(reader, &mut node, (small.len() - start) as u64, dir, is_new, engine)?;
            return Ok(Progress::Small(node));
        };
        // It has grown or has holes: the long way, with what was read so far.
        let mut long = Content::new(engine.clone(), chunking).map_err(Failed::Store)?;
        long.tail().extend_from_slice(&small[start..]);
        small.truncate(start);
        long.advance(Some(scratch)).map_err(Failed::Store)?;
        if length > 0 {
            long.zeros(length, Some(scratch)).map_err(Failed::Store)?;
        }
        content = Some(long);
    }
    let mut content = match content {
        Some(content) => content,
        None => {
            let mut content = Content::new(engine.clone(), chunking).map_err(Failed::Store)?;
            if chunking == Chunking::Files {
                content.expect(known.unwrap_or_default());
            }
            content
        }
    };
    loop {
        match reader.read(content.tail(), LONG_READ_BYTES).map_err(Failed::Source)? {
            Read::Data(_) => content.advance(Some(scratch)).map_err(Failed::Store)?,
            Read::Hole(length) => content.zeros(length, Some(scratch)).map_err(Failed::Store)?,
            Read::End => break,
        }
    }
    close(reader, &mut node, content.length(), dir, is_new, engine)?;
    Ok(Progress::Long { content: Box::new(content), node })
}

fn close(
    reader: Box<dyn FileReader>,
    node: &mut Node,
    length: u64,
    dir: &Arc<dyn TreeDir>,
    is_new: bool,
    engine: &Engine,
) -> Result<(), Failed> {
    let steady = reader.finish(node).map_err(Failed::Source)?;
    node.size = length;
    engine.monitor.counters.bytes_read.fetch_add(length, Relaxed);
    engine.count_file(length, false, is_new);
    if let Steady::No(why) = steady {
        let path = display_path(&dir.path_of(&node.name));
        engine.monitor.problem(Problem::new(path, ProblemKind::Changed, why));
    }
    Ok(())
}
