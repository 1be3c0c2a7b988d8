//! What a directory tree is, down to the last attribute, and how two of them differ.
//!
//! A backup counts as tested only when it was restored and compared: this is the comparison. It reads through open
//! directories, so paths longer than the system's limit are compared as well, and it needs no more memory than a few
//! hundred bytes for each entry.

use lastgood_model::node::display_path;
use lastgood_model::{Error, ErrorKind, NodeKind, Result, Time};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Stat, openat, readlinkat, seek, statat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Content is hashed in blocks of this many bytes, and blocks of zeros are left out, so that a hole costs nothing and
/// hashes like the zeros it stands for.
const BLOCK_BYTES: u64 = 64 * 1024;

/// Everything that is compared about one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Time,
    /// Extended attributes, ACLs and capabilities included.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Length of a regular file, else 0.
    pub size: u64,
    /// Digest of a regular file's content, comparable only with other digests made here.
    pub digest: [u8; 32],
    /// Start and length of each hole of a regular file.
    pub holes: Vec<(u64, u64)>,
    /// A symbolic link's text.
    pub link_target: Vec<u8>,
    /// Device number of a device.
    pub device: u64,
    /// For an entry with other names in the same tree: the first of its names in byte order.
    pub linked_with: Option<Vec<u8>>,
}

/// A whole tree by path; the top is the empty path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeState {
    /// Every entry, by its path below the top.
    pub entries: BTreeMap<Vec<u8>, EntryState>,
}

/// How holes are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holes {
    /// Not at all.
    Ignored,
    /// What is a hole on the left is one on the right; the right may have more, for stretches of real zeros.
    Kept,
    /// The same holes.
    Exact,
}

/// What to compare beside names, kinds, content, link targets and device numbers, which are always compared.
#[derive(Clone, Copy, Debug)]
pub struct Aspects {
    /// Permission bits.
    pub mode: bool,
    /// Owner and group.
    pub owner: bool,
    /// Modification times to the nanosecond, those of directories too.
    pub mtime: bool,
    /// Extended attributes.
    pub xattrs: bool,
    /// Which names belong to one file.
    pub hard_links: bool,
    /// Where files are sparse.
    pub holes: Holes,
    /// The top directory's own attributes.
    pub top: bool,
}

impl Aspects {
    /// Everything; more holes on the right are allowed.
    pub const ALL: Self =
        Self { mode: true, owner: true, mtime: true, xattrs: true, hard_links: true, holes: Holes::Kept, top: true };

    /// Names, kinds and content alone.
    pub const CONTENT: Self = Self {
        mode: false,
        owner: false,
        mtime: false,
        xattrs: false,
        hard_links: false,
        holes: Holes::Ignored,
        top: false,
    };
}

/// What two trees differ in at one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// Only the left tree has it.
    OnlyLeft,
    /// Only the right tree has it.
    OnlyRight,
    /// Another kind of entry.
    Kind,
    /// Another length.
    Size,
    /// Other bytes.
    Content,
    /// Other permission bits.
    Mode,
    /// Another owner or group.
    Owner,
    /// Another modification time.
    Mtime,
    /// Other extended attributes.
    Xattrs,
    /// Another link text.
    LinkTarget,
    /// Linked with other names.
    HardLinks,
    /// Other holes.
    Holes,
    /// Another device number.
    Device,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path below the top.
    pub path: Vec<u8>,
    /// In what.
    pub what: What,
    /// The left side in words.
    pub left: String,
    /// The right side in words.
    pub right: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}: {} | {}", display_path(&self.path), self.what, self.left, self.right)
    }
}

/// Reads both trees and tells every difference in [`Aspects::ALL`], by path.
pub fn compare_trees(left: &Path, right: &Path) -> Result<Vec<Difference>> {
    Ok(compare_states(&scan(left)?, &scan(right)?, Aspects::ALL))
}

/// Fails with the differences in words, at most forty of them, unless the trees are the same.
#[track_caller]
pub fn assert_identical(left: &Path, right: &Path) {
    let differences = compare_trees(left, right).unwrap_or_else(|e| panic!("{e:?}"));
    assert!(differences.is_empty(), "{} | {}:\n{}", left.display(), right.display(), describe(&differences));
}

/// The first forty differences, one on each line.
pub fn describe(differences: &[Difference]) -> String {
    let mut lines: Vec<String> = differences.iter().take(40).map(ToString::to_string).collect();
    if differences.len() > lines.len() {
        lines.push(format!("… and {} more", differences.len() - lines.len()));
    }
    lines.join("\n")
}

/// Every difference between two states, by path.
pub fn compare_states(left: &TreeState, right: &TreeState, aspects: Aspects) -> Vec<Difference> {
    let paths: BTreeSet<&Vec<u8>> = left.entries.keys().chain(right.entries.keys()).collect();
    let mut found = Vec::new();
    for path in paths {
        if path.is_empty() && !aspects.top {
            continue;
        }
        let mut note = |what, left: String, right: String| {
            found.push(Difference { path: path.clone(), what, left, right });
        };
        match (left.entries.get(path), right.entries.get(path)) {
            (Some(a), None) => note(What::OnlyLeft, format!("{:?}", a.kind), "absent".into()),
            (None, Some(b)) => note(What::OnlyRight, "absent".into(), format!("{:?}", b.kind)),
            (Some(a), Some(b)) => compare_entries(a, b, aspects, &mut note),
            (None, None) => {}
        }
    }
    found
}

fn compare_entries(a: &EntryState, b: &EntryState, aspects: Aspects, note: &mut impl FnMut(What, String, String)) {
    if a.kind != b.kind {
        return note(What::Kind, format!("{:?}", a.kind), format!("{:?}", b.kind));
    }
    if a.size != b.size {
        note(What::Size, a.size.to_string(), b.size.to_string());
    } else if a.digest != b.digest {
        note(What::Content, short(&a.digest), short(&b.digest));
    }
    if aspects.mode && a.mode != b.mode {
        note(What::Mode, format!("{:04o}", a.mode), format!("{:04o}", b.mode));
    }
    if aspects.owner && (a.uid, a.gid) != (b.uid, b.gid) {
        note(What::Owner, format!("{}:{}", a.uid, a.gid), format!("{}:{}", b.uid, b.gid));
    }
    if aspects.mtime && a.mtime != b.mtime {
        note(What::Mtime, a.mtime.to_string(), b.mtime.to_string());
    }
    if aspects.xattrs && a.xattrs != b.xattrs {
        note(What::Xattrs, words(&a.xattrs), words(&b.xattrs));
    }
    if a.link_target != b.link_target {
        note(What::LinkTarget, display_path(&a.link_target), display_path(&b.link_target));
    }
    if aspects.hard_links && a.linked_with != b.linked_with {
        let name = |x: &Option<Vec<u8>>| x.as_ref().map_or("alone".into(), |p| format!("with {}", display_path(p)));
        note(What::HardLinks, name(&a.linked_with), name(&b.linked_with));
    }
    let holes_differ = match aspects.holes {
        Holes::Ignored => false,
        Holes::Kept => !a.holes.iter().all(|hole| b.holes.iter().any(|other| covers(*other, *hole))),
        Holes::Exact => a.holes != b.holes,
    };
    if holes_differ {
        note(What::Holes, format!("{:?}", a.holes), format!("{:?}", b.holes));
    }
    if a.device != b.device {
        note(What::Device, a.device.to_string(), b.device.to_string());
    }
}

fn covers(outer: (u64, u64), inner: (u64, u64)) -> bool {
    outer.0 <= inner.0 && inner.0 + inner.1 <= outer.0 + outer.1
}

fn short(digest: &[u8; 32]) -> String {
    digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn words(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> String {
    let words: Vec<String> = xattrs
        .iter()
        .map(|(name, value)| format!("{}={}", display_path(name), display_path(&value[..value.len().min(40)])))
        .collect();
    format!("[{}]", words.join(", "))
}

/// Reads a tree, or a single file as a tree with only a top. Symbolic links are never followed, but for `top` itself
/// when it ends in one.
pub fn scan(top: &Path) -> Result<TreeState> {
    let mut scan = Scan::default();
    let fd = openat(CWD, top, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io(format!("open {}", top.display()), e.into()))?;
    let stat = statat(&fd, "", AtFlags::EMPTY_PATH).map_err(|e| failed("examine", b"", e))?;
    let magic = format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes();
    // The magic link leads to the thing itself; a `/.` after a directory keeps the xattr calls from stopping at it.
    let is_dir = kind_of(&stat)? == NodeKind::Dir;
    let mut state = scan.examine(&stat, b"")?;
    if is_dir {
        state.xattrs = xattrs_of(&[&magic[..], b"/."].concat(), b"")?;
        scan.found.entries.insert(Vec::new(), state);
        let dir = openat(&fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| failed("open", b"", e))?;
        scan.directory(&dir, b"")?;
    } else {
        if state.kind == NodeKind::File {
            let file = openat(CWD, top, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| failed("open", b"", e))?;
            read_content(&file, &mut state, b"")?;
        }
        state.xattrs = xattrs_of(top.as_os_str().as_bytes(), b"")?;
        scan.found.entries.insert(Vec::new(), state);
    }
    Ok(scan.finish())
}

#[derive(Default)]
struct Scan {
    found: TreeState,
    linked: HashMap<(u64, u64), Vec<Vec<u8>>>,
}

impl Scan {
    fn directory(&mut self, dir: &OwnedFd, path: &[u8]) -> Result<()> {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).map_err(|e| failed("list", path, e))? {
            let entry = entry.map_err(|e| failed("list", path, e))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort();
        for name in names {
            let below = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            self.entry(dir.as_fd(), &name, below)?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: Vec<u8>) -> Result<()> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed("examine", &path, e))?;
        let mut state = self.examine(&stat, &path)?;
        let magic = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        state.xattrs = xattrs_of(&[&magic, name].concat(), &path)?;
        let open = |flags| {
            openat(dir, name, flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| failed("open", &path, e))
        };
        match state.kind {
            NodeKind::File => read_content(&open(OFlags::NONBLOCK)?, &mut state, &path)?,
            NodeKind::Symlink => {
                let target = readlinkat(dir, name, Vec::new()).map_err(|e| failed("read link", &path, e))?;
                state.link_target = target.into_bytes();
            }
            NodeKind::Dir => {
                let sub = open(OFlags::DIRECTORY)?;
                self.found.entries.insert(path.clone(), state);
                return self.directory(&sub, &path);
            }
            _ => {}
        }
        self.found.entries.insert(path, state);
        Ok(())
    }

    fn examine(&mut self, stat: &Stat, path: &[u8]) -> Result<EntryState> {
        let kind = kind_of(stat)?;
        if stat.st_nlink > 1 && kind != NodeKind::Dir {
            self.linked.entry((stat.st_dev, stat.st_ino)).or_default().push(path.to_vec());
        }
        Ok(EntryState {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time::new(stat.st_mtime, stat.st_mtime_nsec as u32),
            xattrs: BTreeMap::new(),
            size: if kind == NodeKind::File { stat.st_size as u64 } else { 0 },
            digest: [0; 32],
            holes: Vec::new(),
            link_target: Vec::new(),
            device: if matches!(kind, NodeKind::BlockDevice | NodeKind::CharDevice) { stat.st_rdev } else { 0 },
            linked_with: None,
        })
    }

    fn finish(mut self) -> TreeState {
        for mut names in self.linked.into_values().filter(|names| names.len() > 1) {
            names.sort();
            for name in &names {
                if let Some(state) = self.found.entries.get_mut(name) {
                    state.linked_with = Some(names[0].clone());
                }
            }
        }
        self.found
    }
}

fn kind_of(stat: &Stat) -> Result<NodeKind> {
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Dir,
        FileType::Symlink => NodeKind::Symlink,
        FileType::BlockDevice => NodeKind::BlockDevice,
        FileType::CharacterDevice => NodeKind::CharDevice,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::Unknown => return Err(Error::new(ErrorKind::Unsupported, "an entry of unknown type")),
    })
}

/// Fills in digest and holes.
fn read_content(file: &OwnedFd, state: &mut EntryState, path: &[u8]) -> Result<()> {
    let size = state.size;
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => size,
            Err(e) => return Err(failed("look for holes in", path, e)),
        };
        if data > at {
            state.holes.push((at, data - at));
        }
        if data == size {
            break;
        }
        let hole = seek(file, SeekFrom::Hole(data)).map_err(|e| failed("look for holes in", path, e))?.min(size);
        extents.push((data, hole));
        at = hole;
    }
    let mut hash = Sha256::new();
    hash.update(size.to_le_bytes());
    let mut buffer = vec![0; BLOCK_BYTES as usize];
    let mut done = 0;
    for (from, to) in extents {
        let mut block = (from / BLOCK_BYTES * BLOCK_BYTES).max(done);
        while block < to {
            let want = BLOCK_BYTES.min(size - block) as usize;
            read_exact_at(file, &mut buffer[..want], block, path)?;
            if buffer[..want].iter().any(|&byte| byte != 0) {
                hash.update(block.to_le_bytes());
                hash.update(&buffer[..want]);
            }
            block += BLOCK_BYTES;
        }
        done = block;
    }
    state.digest = hash.finalize().into();
    Ok(())
}

fn read_exact_at(file: &OwnedFd, mut out: &mut [u8], mut at: u64, path: &[u8]) -> Result<()> {
    while !out.is_empty() {
        match rustix::io::pread(file, &mut *out, at) {
            Ok(0) => {
                return Err(Error::new(ErrorKind::Io, format!("{} became shorter while read", display_path(path))));
            }
            Ok(length) => {
                at += length as u64;
                out = &mut out[length..];
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(failed("read", path, e)),
        }
    }
    Ok(())
}

fn xattrs_of(reach: &[u8], path: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let names = match grow(|buffer| rustix::fs::llistxattr(reach, buffer)) {
        Ok(names) => names,
        Err(Errno::NOTSUP) => return Ok(BTreeMap::new()),
        Err(e) => return Err(failed("list attributes of", path, e)),
    };
    names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let value = grow(|buffer| rustix::fs::lgetxattr(reach, name, buffer))
                .map_err(|e| failed("read attributes of", path, e))?;
            Ok((name.to_vec(), value))
        })
        .collect()
}

/// Calls with an ever larger buffer until the answer fits; the kernel allows no more than 64 KiB.
fn grow(mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1024];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() <= 64 * 1024 => buffer = vec![0; buffer.len() * 4],
            Err(e) => return Err(e),
        }
    }
}

fn failed(act: &str, path: &[u8], errno: Errno) -> Error {
    let path = if path.is_empty() { "the top".to_owned() } else { display_path(path) };
    Error::io(format!("{act} {path}"), errno.into())
}

#[cfg(test)]
mod tests;
