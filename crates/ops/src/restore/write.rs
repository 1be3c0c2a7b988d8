//! Writing trees: directories as they are walked, files window by window in the order in which their blobs lie, hard
//! links when their first name is whole, directories' metadata when all in them is done.

use super::abandon::abandon;
use super::compare::left_to_write;
use super::removals::Removals;
use super::select::Root;
use super::window::{Pending, is_final};
use super::{RestoreFailure, RestoreReport};
use lastgood_model::manifest::{Problem, ProblemKind};
use lastgood_model::node::display_path;
use lastgood_model::{Error, ErrorKind, Monitor, Node, NodeKind, Result};
use lastgood_repo::index::BlobRef;
use lastgood_repo::{BlobReader, Fetch, FetchRequest};
use lastgood_sources::files::target::{DirHandle, ParkedDir, Target};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A window is closed at so many blobs,
const WINDOW_BLOBS: usize = 48_000;
/// or directories that are held open,
const WINDOW_DIRS: usize = 400;
/// or files that need a descriptor of their own while they are written.
const WINDOW_OPEN_FILES: usize = 200;
/// Directories on the way to a deep one are closed and opened again beyond this depth.
const OPEN_DEPTH: usize = 64;
/// Failures kept in full.
const FAILURES_KEPT_MAX: usize = 1000;

/// Restores roots below one target.
pub(super) struct Writer<'a> {
    reader: &'a BlobReader,
    target: &'a Target,
    monitor: &'a Monitor,
    window: Vec<Arc<Pending>>,
    /// Blobs wanted: index into `window`, and which blob.
    wanted: Vec<(u32, u32)>,
    open_files: usize,
    dirs_finished: Vec<(Held, Node)>,
    /// Directories above the roots, the deepest first: writing into one changes its times.
    above: BTreeMap<(usize, Vec<u8>), (Held, Node)>,
    resumes: bool,
    /// What may be removed.
    removals: Option<&'a Removals>,
    /// Paths of files that are replaced, whatever they hold.
    replaced: HashSet<Vec<u8>>,
    /// First names by device, inode and what is there.
    links: HashMap<(u64, u64, u64), First>,
    links_waiting: Vec<Link>,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    files: AtomicU64,
    files_same: AtomicU64,
    dirs: u64,
    bytes: AtomicU64,
    bytes_written: AtomicU64,
    removed: u64,
    failures: Mutex<(Vec<RestoreFailure>, u64)>,
}

/// Where a name lies that others are to be linked to.
#[derive(Clone)]
struct First {
    dir: ParkedDir,
    name: Vec<u8>,
    /// Set once it is restored.
    whole: Arc<AtomicBool>,
}

struct Link {
    first: First,
    dir: Arc<DirHandle>,
    node: Node,
}

/// An entry to be restored, with the flag to set when that is done; nothing when it is linked to another later.
type FirstName = Option<(Node, Arc<AtomicBool>)>;

/// A directory that is needed again: open, or known where to find.
enum Held {
    Open(Arc<DirHandle>),
    Parked(ParkedDir),
}

impl Held {
    fn open(&self, target: &Target) -> Result<Arc<DirHandle>> {
        match self {
            Self::Open(dir) => Ok(dir.clone()),
            Self::Parked(parked) => target.reopen(parked).map(Arc::new),
        }
    }
}

struct Frame {
    nodes: std::vec::IntoIter<Node>,
    dir: Held,
    node: Option<Node>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(reader: &'a BlobReader, target: &'a Target, monitor: &'a Monitor) -> Self {
        Self {
            reader,
            target,
            monitor,
            window: Vec::new(),
            wanted: Vec::new(),
            open_files: 0,
            dirs_finished: Vec::new(),
            above: BTreeMap::new(),
            resumes: false,
            removals: None,
            replaced: HashSet::new(),
            links: HashMap::new(),
            links_waiting: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// With `yes`, directories above the roots are this restore's own although they are there already: an earlier run of
    /// it has made them.
    pub(super) fn resuming(mut self, yes: bool) -> Self {
        self.resumes = yes;
        self
    }

    /// What is in these is removed where it is found, and nothing else.
    pub(super) fn removing(mut self, removals: Option<&'a Removals>) -> Self {
        self.removals = removals;
        self
    }

    /// Files at these paths are made anew, also when they hold the right content: somebody may write to their inodes.
    pub(super) fn replacing(mut self, paths: HashSet<Vec<u8>>) -> Self {
        self.replaced = paths;
        self
    }

    /// Restores one root at `path` below the target. Directories above it get the metadata the snapshot has for them,
    /// where this restore makes them, once all roots are done ([`Self::finish`]).
    ///
    /// # Errors
    /// When nothing more can be restored. Of a full disk the hint tells which files were incomplete and are removed again.
    pub(super) fn restore(&mut self, root: &Root, path: &[u8]) -> Result<()> {
        self.restore_below(root, path).map_err(|error| abandon(&self.window, self.target, error))
    }

    fn restore_below(&mut self, root: &Root, path: &[u8]) -> Result<()> {
        let mut above = path.split(|b| *b == b'/').collect::<Vec<_>>();
        above.pop();
        let mut dir = Arc::new(self.target.dir(b"")?);
        let known = above.len().saturating_sub(root.above.len());
        let mut end = 0;
        for (depth, name) in above.iter().enumerate() {
            dir = Arc::new(self.target.subdir(&dir, name)?);
            end += name.len() + usize::from(depth > 0);
            let node = depth.checked_sub(known).and_then(|i| root.above.get(i));
            if let Some(node) = node.filter(|_| dir.is_created() || self.resumes) {
                let made = || (Held::Parked(dir.park()), node.clone());
                self.above.entry((usize::MAX - depth, path[..end].to_vec())).or_insert_with(made);
            }
        }
        self.walk(dir, vec![root.node.clone()])?;
        self.flush()
    }

    fn walk(&mut self, dir: Arc<DirHandle>, nodes: Vec<Node>) -> Result<()> {
        let mut stack = vec![Frame { nodes: nodes.into_iter(), dir: Held::Open(dir), node: None }];
        while let Some(frame) = stack.last_mut() {
            self.monitor.check_cancelled()?;
            let Some(node) = frame.nodes.next() else {
                if let Some(Frame { dir, node: Some(node), .. }) = stack.pop() {
                    self.dirs_finished.push((dir, node));
                }
                if self.dirs_finished.len() >= WINDOW_DIRS {
                    self.flush()?;
                }
                continue;
            };
            let here = frame.dir.open(self.target)?;
            frame.dir = Held::Open(here.clone());
            match node.kind {
                NodeKind::Dir => {
                    if let Some(below) = self.enter(&here, node)? {
                        stack.push(below);
                        if let Some(far) = stack.len().checked_sub(OPEN_DEPTH)
                            && let Held::Open(open) = &stack[far].dir
                        {
                            stack[far].dir = Held::Parked(open.park());
                        }
                    }
                }
                NodeKind::File => self.file(here, node)?,
                _ => self.special(here, node)?,
            }
        }
        Ok(())
    }

    fn enter(&mut self, parent: &Arc<DirHandle>, node: Node) -> Result<Option<Frame>> {
        self.tally.dirs += 1;
        self.monitor.counters.dirs.fetch_add(1, Ordering::Relaxed);
        let Some(subtree) = node.subtree else {
            self.failed(parent, &node, Error::corrupt("directory without a tree"))?;
            return Ok(None);
        };
        let dir = match self.target.subdir(parent, &node.name) {
            Ok(dir) => Arc::new(dir),
            Err(error) => {
                self.failed(parent, &node, error)?;
                return Ok(None);
            }
        };
        let nodes = match self.reader.tree(subtree) {
            Ok(nodes) => nodes,
            Err(error) => {
                // What it should hold is not known, so nothing in it is known to be too much.
                self.failed(parent, &node, error)?;
                return Ok(Some(Frame { nodes: Vec::new().into_iter(), dir: Held::Open(dir), node: Some(node) }));
            }
        };
        if let Some(removals) = self.removals.filter(|_| self.target.options().delete_extra && !dir.is_created()) {
            let names: HashSet<&[u8]> = nodes.iter().map(|n| &n.name[..]).collect();
            let is_planned = |name: &[u8]| {
                let seen = self.target.existing(&dir, name).ok().flatten();
                seen.is_some_and(|seen| removals.is_planned(&dir.path_of(name), &seen))
            };
            self.tally.removed += self.target.remove_extra(&dir, &|name| names.contains(name) || !is_planned(name))?;
        }
        Ok(Some(Frame { nodes: nodes.into_iter(), dir: Held::Open(dir), node: Some(node) }))
    }

    fn file(&mut self, dir: Arc<DirHandle>, node: Node) -> Result<()> {
        if node.links <= 1 {
            return self.begin_file(dir, node, None);
        }
        match self.first_name(&dir, node) {
            Some((node, whole)) => self.begin_file(dir, node, Some(whole)),
            None => Ok(()),
        }
    }

    fn special(&mut self, dir: Arc<DirHandle>, node: Node) -> Result<()> {
        // Of fifos and sockets the format keeps no count of links, but where they were.
        let counted = !matches!(node.kind, NodeKind::Fifo | NodeKind::Socket);
        let shared = if counted { node.links > 1 } else { node.device_id != 0 && node.inode != 0 };
        if !shared {
            return self.make_special(&dir, &node).map(drop);
        }
        match self.first_name(&dir, node) {
            Some((node, whole)) => {
                whole.store(self.make_special(&dir, &node)?, Ordering::Relaxed);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// True when it is there now.
    fn make_special(&self, dir: &DirHandle, node: &Node) -> Result<bool> {
        match self.target.special(dir, node, self.monitor) {
            Ok(_) => {
                self.tally.files.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
            Err(error) => self.failed(dir, node, error).map(|()| false),
        }
    }

    /// Whether this is the first name of what it names; if not, it is linked to the first with the next flush. Names of
    /// one inode whose content differs are restored apart: a number that was given to two files one after the other
    /// while they were captured, or a file that changed in between, must not cost either its content.
    fn first_name(&mut self, dir: &Arc<DirHandle>, node: Node) -> FirstName {
        let mut hash = std::hash::DefaultHasher::new();
        (node.kind, &node.content, &node.link_target, node.device).hash(&mut hash);
        let key = (node.device_id, node.inode, hash.finish());
        if let Some(first) = self.links.get(&key) {
            self.links_waiting.push(Link { first: first.clone(), dir: dir.clone(), node });
            return None;
        }
        let whole = Arc::new(AtomicBool::new(false));
        self.links.insert(key, First { dir: dir.park(), name: node.name.clone(), whole: whole.clone() });
        Some((node, whole))
    }

    fn begin_file(&mut self, dir: Arc<DirHandle>, node: Node, whole: Option<Arc<AtomicBool>>) -> Result<()> {
        let pending = Arc::new(Pending::new(dir, node, whole, self.reader));
        if let Some(claimed) = pending.claimed {
            let path = display_path(&pending.dir.path_of(&pending.node.name));
            let message = format!(
                "the recovery point tells of {claimed} bytes and holds {}; all that it holds was restored",
                pending.node.size
            );
            self.monitor.problem(Problem::new(path, ProblemKind::Changed, message));
        }
        let blobs = pending.blobs();
        let in_the_way = !pending.dir.is_created() && self.target.existing(&pending.dir, &pending.node.name)?.is_some();
        let is_replaced = !self.replaced.is_empty() && self.replaced.contains(&pending.dir.path_of(&pending.node.name));
        if in_the_way && !is_replaced {
            match self.target.open_existing(&pending.dir, &pending.node) {
                // Content of no blobs is never compared.
                Ok(Some(handle)) if blobs == 0 && handle.is_only_to_compare() && !handle.is_empty()? => {}
                Ok(Some(handle)) => pending.set_handle(handle),
                Ok(None) => {}
                Err(error) => return self.failed(&pending.dir.clone(), &pending.node, error),
            }
        }
        if blobs != 1 || in_the_way {
            self.open_files += 1;
        }
        let mut slot = self.window.len();
        self.window.push(pending.clone());
        for blob in 0..blobs {
            if self.wanted.len() >= WINDOW_BLOBS {
                self.run_window()?;
                slot = self.window.len();
                self.window.push(pending.clone());
            }
            self.wanted.push((slot as u32, blob as u32));
        }
        // An empty file is complete at once; others when their last blob is written.
        if let Err(error) = pending.settle(self.target, self.monitor) {
            return self.failed(&pending.dir.clone(), &pending.node, error);
        }
        if self.open_files >= WINDOW_OPEN_FILES || self.wanted.len() >= WINDOW_BLOBS {
            self.flush()?;
        }
        Ok(())
    }

    /// Completes everything that was begun.
    fn flush(&mut self) -> Result<()> {
        self.run_window()?;
        for Link { first, dir, node } in std::mem::take(&mut self.links_waiting) {
            let linked = match first.whole.load(Ordering::Relaxed) {
                true => self
                    .target
                    .reopen(&first.dir)
                    .and_then(|from| self.target.hardlink(&from, &first.name, &dir, &node.name)),
                // What lies under the first name, if anything, is not it.
                false => Err(Error::new(ErrorKind::Absent, "the first name could not be restored")),
            };
            match linked {
                Ok(()) => {
                    self.tally.files.fetch_add(1, Ordering::Relaxed);
                    self.tally.bytes.fetch_add(node.size, Ordering::Relaxed);
                    self.monitor.counters.files.fetch_add(1, Ordering::Relaxed);
                    self.monitor.counters.bytes.fetch_add(node.size, Ordering::Relaxed);
                }
                // The first name failed, or this file system has no such links: an entry of its own.
                Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Absent) => {
                    if node.kind == NodeKind::File {
                        self.begin_file(dir, node, None)?;
                        self.run_window()?;
                    } else {
                        self.make_special(&dir, &node)?;
                    }
                }
                Err(error) => self.failed(&dir, &node, error)?,
            }
        }
        for (dir, node) in std::mem::take(&mut self.dirs_finished) {
            let dir = dir.open(self.target)?;
            self.target.finish_dir(&dir, &node, self.monitor)?;
        }
        Ok(())
    }

    fn run_window(&mut self) -> Result<()> {
        let window = std::mem::take(&mut self.window);
        let wanted = std::mem::take(&mut self.wanted);
        self.open_files = 0;
        if let Err(error) = self.run_over(&window, wanted) {
            // What becomes of files that were begun is for the caller to say.
            self.window = window;
            return Err(error);
        }
        for file in window {
            if let Some(error) = file.take_failure() {
                self.failed(&file.dir, &file.node, error)?;
            } else if file.finished.swap(false, Ordering::Relaxed) {
                self.tally.files.fetch_add(1, Ordering::Relaxed);
                self.tally.bytes.fetch_add(file.node.size, Ordering::Relaxed);
                self.monitor.counters.files.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn run_over(&self, window: &[Arc<Pending>], wanted: Vec<(u32, u32)>) -> Result<()> {
        let (wanted, files_same) = left_to_write(window, wanted, self.target, self.monitor)?;
        self.tally.files_same.fetch_add(files_same, Ordering::Relaxed);
        let place = |file: u32, blob: u32| u64::from(file) << 32 | u64::from(blob);
        let file_of = |place: u64| &window[(place >> 32) as usize];
        let requests = wanted.into_iter().filter_map(|(file, blob)| {
            let content = window[file as usize].node.content.as_ref()?;
            Some(FetchRequest { blob: BlobRef::from(content[blob as usize]), place: place(file, blob) })
        });
        let stop: Mutex<Option<Error>> = Mutex::new(None);
        let lost = |request: FetchRequest, error: Error| {
            let file = file_of(request.place);
            file.fail(error);
            if let Err(error) = file.settle(self.target, self.monitor) {
                stop.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
            }
        };
        let fetch = Fetch::plan(self.reader, requests, lost);
        fetch.run(
            self.reader.threads(),
            self.monitor,
            |place, data| {
                // One read may hold the content of tens of thousands of small files.
                self.monitor.check_cancelled()?;
                let file = file_of(place);
                let outcome = file.write(place as u32 as usize, data, self.target, self.monitor);
                self.monitor.counters.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                self.tally.bytes_written.fetch_add(data.len() as u64, Ordering::Relaxed);
                match outcome {
                    Err(error) if is_final(&error) => return Err(error),
                    Err(error) => file.fail(error),
                    Ok(()) => {}
                }
                file.settle(self.target, self.monitor)
            },
            lost,
        )?;
        match stop.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Notes one entry that could not be restored; errors that will meet every further entry end the run instead.
    fn failed(&self, dir: &DirHandle, node: &Node, error: Error) -> Result<()> {
        let path = display_path(&dir.path_of(&node.name));
        if is_final(&error) {
            return Err(error.context(format!("restore {path}")));
        }
        let mut failures = self.tally.failures.lock().unwrap_or_else(|e| e.into_inner());
        failures.1 += 1;
        if failures.0.len() < FAILURES_KEPT_MAX {
            let damage = error.kind() == ErrorKind::Corrupt;
            failures.0.push(RestoreFailure { path, error: error.chain(), damage });
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.flush()?;
        self.dirs_finished = std::mem::take(&mut self.above).into_values().collect();
        self.flush()
    }

    pub(super) fn finish(mut self, report: &mut RestoreReport) -> Result<()> {
        self.end().map_err(|error| abandon(&self.window, self.target, error))?;
        let tally = self.tally;
        report.files += tally.files.into_inner();
        report.files_same += tally.files_same.into_inner();
        report.dirs += tally.dirs;
        report.bytes += tally.bytes.into_inner();
        report.bytes_written += tally.bytes_written.into_inner();
        report.removed += tally.removed;
        let (failures, total) = tally.failures.into_inner().unwrap_or_else(|e| e.into_inner());
        report.failures.extend(failures);
        report.failures_total += total;
        Ok(())
    }
}
