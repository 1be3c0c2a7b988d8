//! Listing a directory: names in blocks, then one `stat` each.
//!
//! Names are gathered into one reused buffer and sorted there, before any node is made. In large directories the `stat`
//! calls go in the order of inode numbers, which on ext4 and its like is the order on disk; in hash order, as names
//! come, a cold listing of a spinning disk seeks for every entry.

use super::dir::Dir;
use super::exclude::{CACHE_SIGNATURE, CACHE_TAG};
use super::stat::node_of;
use super::{database, open};
use lastgood_model::manifest::{Problem, ProblemKind};
use lastgood_model::node::display_path;
use lastgood_model::source::{Entry, TreeDir};
use lastgood_model::{Monitor, NodeKind, Result};
use rustix::fs::{AtFlags, FileType, RawDir, statat};
use rustix::io::Errno;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::ffi::CStr;

/// Bytes of names taken from the kernel at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// From this many entries on, `stat` goes by inode number.
const BY_INODE_FROM: usize = 64;

/// How many entries are examined between two looks whether to stop.
const STOP_EVERY: usize = 1024;

/// Memory for one listing, kept by each thread for the next. What a huge directory took is given back.
#[derive(Default)]
struct Scratch {
    block: Vec<u8>,
    names: Vec<u8>,
    found: Vec<Found>,
    path: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A name met in a directory.
pub(super) struct Found {
    /// Its first eight bytes, as a number that sorts as they do.
    prefix: u64,
    inode: u64,
    /// Where it begins in the names; a NUL follows it there.
    start: usize,
    length: usize,
    /// As the directory says, possibly unknown.
    kind: FileType,
    /// Content may change without a trace in its metadata.
    volatile: bool,
    /// Not to be shown.
    hidden: bool,
}

/// The names of one directory, sorted.
pub(super) struct Names<'a> {
    bytes: &'a [u8],
    found: &'a mut [Found],
}

impl Names<'_> {
    fn name(&self, at: usize) -> &[u8] {
        name(self.bytes, &self.found[at])
    }

    fn find(&self, wanted: &[u8]) -> Option<usize> {
        self.found.binary_search_by(|f| name(self.bytes, f).cmp(wanted)).ok()
    }
}

fn name<'a>(bytes: &'a [u8], found: &Found) -> &'a [u8] {
    &bytes[found.start..found.start + found.length]
}

/// The entries of `dir`; see [`TreeDir::list`].
pub(super) fn list(dir: &Dir, monitor: &Monitor) -> Result<Vec<Entry>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let listed = list_with(dir, monitor, scratch);
        if scratch.names.capacity() > 4 * 1024 * 1024 {
            (scratch.names, scratch.found) = (Vec::new(), Vec::new());
        }
        listed
    })
}

fn list_with(dir: &Dir, monitor: &Monitor, scratch: &mut Scratch) -> Result<Vec<Entry>> {
    let Scratch { block, names, found, path } = scratch;
    gather(dir, monitor, block, names, found)?;
    found.sort_unstable_by(|a, b| compare(names, a, b));
    // A directory that changes while it is read may show a name twice.
    found.dedup_by(|a, b| compare(names, a, b) == Ordering::Equal);

    let mut all = Names { bytes: names, found };
    if dir.scope.exclude_caches {
        hide_cache(dir, &mut all);
    }
    let patterns = !dir.scope.patterns.is_empty();
    if patterns {
        dir.place.prefix_below_top(path);
        for at in 0..all.found.len() {
            let kind = all.found[at].kind;
            if kind != FileType::Unknown && is_excluded(dir, path, all.name(at), kind == FileType::Directory) {
                all.found[at].hidden = true;
            }
        }
    }
    settle_databases(dir, &mut all, monitor);
    examine(dir, monitor, all, patterns.then_some(path))
}

/// Reads all names into `names` and `found`.
fn gather(
    dir: &Dir,
    monitor: &Monitor,
    block: &mut Vec<u8>,
    names: &mut Vec<u8>,
    found: &mut Vec<Found>,
) -> Result<()> {
    names.clear();
    found.clear();
    block.reserve(BLOCK_BYTES);
    let mut entries = RawDir::new(dir, block.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::INTR) => continue,
            Err(errno) if found.is_empty() => return Err(open::failed("list", &dir.path_of(b""), errno)),
            Err(errno) => {
                // What is known is worth keeping.
                let message = format!("listing broke off, later entries are missing: {}", std::io::Error::from(errno));
                monitor.problem(Problem::new(display_path(&dir.path_of(b"")), ProblemKind::Unreadable, message));
                break;
            }
        };
        let name = entry.file_name().to_bytes_with_nul();
        if name == b".\0" || name == b"..\0" {
            continue;
        }
        let length = name.len() - 1;
        let mut prefix = [0; 8];
        let head = length.min(8);
        prefix[..head].copy_from_slice(&name[..head]);
        found.push(Found {
            prefix: u64::from_be_bytes(prefix),
            inode: entry.ino(),
            start: names.len(),
            length,
            kind: entry.file_type(),
            volatile: false,
            hidden: false,
        });
        names.extend_from_slice(name);
    }
    Ok(())
}

fn compare(names: &[u8], a: &Found, b: &Found) -> Ordering {
    a.prefix.cmp(&b.prefix).then_with(|| name(names, a).cmp(name(names, b)))
}

/// In a directory marked as a cache hides everything but the mark.
fn hide_cache(dir: &Dir, all: &mut Names<'_>) {
    let Some(tag) = all.find(CACHE_TAG) else { return };
    if open::head_of(dir, CACHE_TAG).as_ref() == Some(CACHE_SIGNATURE) {
        for (at, found) in all.found.iter_mut().enumerate() {
            found.hidden = at != tag;
        }
        dir.scope.left_out.count("content of directories marked by CACHEDIR.TAG");
    }
}

/// Asks the patterns, and counts. `path` is the directory's below the top of the tree and is left as it was.
fn is_excluded(dir: &Dir, path: &mut Vec<u8>, name: &[u8], is_dir: bool) -> bool {
    let length = path.len();
    path.extend_from_slice(name);
    let pattern = dir.scope.patterns.excluding(path, is_dir);
    path.truncate(length);
    if let Some(pattern) = pattern {
        dir.scope.left_out.count(pattern);
    }
    pattern.is_some()
}

/// Marks databases that have side files, and hides the side files of those that SQLite can read: what they hold is in
/// the capture of the database, and beside it they would damage a restored one. Side files that the patterns leave out
/// still tell that their database is in use.
fn settle_databases(dir: &Dir, all: &mut Names<'_>, monitor: &Monitor) {
    // Side files come right after their database but for names in between, so the last answers are the ones asked for.
    let mut known: Vec<(usize, bool)> = Vec::new();
    for at in 0..all.found.len() {
        // What was taken away from a database so that it cannot spoil it is of no use without the one it was of.
        let aside = database::moved_aside_of(all.name(at)).and_then(|base| all.find(base));
        if let Some(base) = aside
            && !all.found[at].hidden
            && all.found[at].kind == FileType::RegularFile
            && database::is_one(dir, all.name(base))
        {
            all.found[at].hidden = true;
            dir.scope.left_out.count("side files of databases that a restore moved aside");
            continue;
        }
        let Some(base) = database::base_of(all.name(at)).and_then(|base| all.find(base)) else { continue };
        let regular = |found: &Found| matches!(found.kind, FileType::RegularFile | FileType::Unknown);
        if all.found[base].hidden || !regular(&all.found[base]) || !regular(&all.found[at]) {
            continue;
        }
        let hides = match known.iter().rev().find(|(known, _)| *known == base) {
            Some((_, hides)) => *hides,
            None => {
                let is_one = database::is_one(dir, all.name(base));
                all.found[base].volatile = is_one;
                let hides = is_one && database::is_captured_with_sides(dir, all.name(base), monitor);
                known.push((base, hides));
                hides
            }
        };
        all.found[at].hidden |= hides;
    }
}

/// Makes entries of what is not hidden. `path` is given when there are patterns to ask.
fn examine(dir: &Dir, monitor: &Monitor, all: Names<'_>, mut path: Option<&mut Vec<u8>>) -> Result<Vec<Entry>> {
    let mut wanted: Vec<u32> = Vec::with_capacity(all.found.len());
    wanted.extend((0u32..).zip(all.found.iter()).filter(|(_, f)| !f.hidden).map(|(at, _)| at));
    if wanted.len() < BY_INODE_FROM {
        let one = |&at: &u32| examine_one(dir, monitor, &all, at as usize, path.as_deref_mut());
        return Ok(wanted.iter().filter_map(one).collect());
    }
    let mut order: Vec<u32> = (0..wanted.len() as u32).collect();
    order.sort_unstable_by_key(|&rank| all.found[wanted[rank as usize] as usize].inode);
    let mut entries: Vec<Option<Entry>> = Vec::new();
    entries.resize_with(wanted.len(), || None);
    for (done, rank) in order.into_iter().enumerate() {
        if done % STOP_EVERY == 0 {
            monitor.check_cancelled()?;
        }
        let at = wanted[rank as usize] as usize;
        entries[rank as usize] = examine_one(dir, monitor, &all, at, path.as_deref_mut());
    }
    Ok(entries.into_iter().flatten().collect())
}

fn examine_one(dir: &Dir, monitor: &Monitor, all: &Names<'_>, at: usize, path: Option<&mut Vec<u8>>) -> Option<Entry> {
    let found = &all.found[at];
    let name = all.name(at);
    let report = |what, message: String| {
        monitor.problem(Problem::new(display_path(&dir.path_of(name)), what, message));
    };
    let terminated = CStr::from_bytes_with_nul(&all.bytes[found.start..=found.start + found.length]).ok()?;
    let stat = match rustix::io::retry_on_intr(|| statat(dir, terminated, AtFlags::SYMLINK_NOFOLLOW)) {
        Ok(stat) => stat,
        Err(errno) => {
            let what = match errno {
                Errno::NOENT | Errno::STALE => ProblemKind::Vanished,
                _ => ProblemKind::Unreadable,
            };
            report(what, format!("examine: {}", std::io::Error::from(errno)));
            return None;
        }
    };
    let Some(node) = node_of(name, &stat) else {
        report(ProblemKind::Unsupported, format!("of no kind a snapshot can keep (mode {:o})", stat.st_mode));
        return None;
    };
    let scope = &dir.scope;
    if let Some(path) = path
        && found.kind == FileType::Unknown
        && is_excluded(dir, path, name, node.kind == NodeKind::Dir)
    {
        return None;
    }
    if scope.is_never(node.device_id, node.inode) {
        scope.left_out.count("the repository and its key");
        return None;
    }
    if node.kind == NodeKind::File && scope.larger_than.is_some_and(|limit| node.size > limit) {
        scope.left_out.count("files larger than the limit");
        return None;
    }
    // A directory of another file system is kept as the mount point it is, without its content.
    if scope.one_file_system && node.kind != NodeKind::Dir && node.device_id != dir.top_device {
        scope.left_out.count("files mounted from another file system");
        return None;
    }
    let volatile = found.volatile && node.kind == NodeKind::File;
    Some(Entry { node, volatile })
}
