//! A directory tree with every oddity that a file system allows and a backup tends to lose.
//!
//! Built from a seed, the same each time. What the user or the file system at hand cannot make (devices without root,
//! attributes on some temporary file systems) is not made and listed in [`Fixture::skipped`], so that a test can tell
//! what it did not see.

use crate::rng::Rng;
use lastgood_model::{Context, Error, Result, Time};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, ftruncate, linkat,
    lsetxattr, makedev, mkdirat, mknodat, openat, utimensat,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What to build.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides all contents.
    pub seed: u64,
    /// How many small files, 16 to a directory.
    pub small_files: usize,
    /// Length of the large file; its content does not compress.
    pub large_bytes: u64,
    /// Logical length of the largest sparse file.
    pub sparse_bytes: u64,
    /// Names and link texts that are not UTF-8.
    pub not_utf8: bool,
    /// A directory chain longer than any path the system takes. Programs that work by path cannot follow.
    pub beyond_path_max: bool,
    /// Named pipes, sockets and, as root, devices.
    pub special: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            small_files: 400,
            large_bytes: 9 * 1024 * 1024 + 17,
            sparse_bytes: 32 * 1024 * 1024,
            not_utf8: true,
            beyond_path_max: false,
            special: true,
        }
    }
}

/// What was built.
#[derive(Debug)]
pub struct Fixture {
    /// The top of the tree.
    pub root: PathBuf,
    /// What could not be made here, and why.
    pub skipped: Vec<String>,
}

/// Builds the tree in `root`, which must not exist.
pub fn build(root: &Path, options: &Options) -> Result<Fixture> {
    fs_err::create_dir(root).context("make the tree's top")?;
    let mut planter = Planter {
        root: root.to_owned(),
        rng: Rng::new(options.seed),
        is_root: rustix::process::geteuid().is_root(),
        dir_modes: Vec::new(),
        times: Vec::new(),
        skipped: Vec::new(),
    };
    planter.names(options)?;
    planter.links(options)?;
    planter.sparse(options)?;
    planter.attributes()?;
    planter.modes_and_owners()?;
    planter.sizes(options)?;
    planter.shapes(options)?;
    if options.special {
        planter.special()?;
    }
    planter.times()?;
    planter.finish()
}

/// Bytes at an offset.
type Island<'a> = (u64, &'a [u8]);

struct Planter {
    root: PathBuf,
    rng: Rng,
    is_root: bool,
    /// Set at the end, when nothing more is put into these directories.
    dir_modes: Vec<(PathBuf, u32)>,
    /// Set at the very end, the deepest first.
    times: Vec<(PathBuf, Time)>,
    skipped: Vec<String>,
}

impl Planter {
    fn dir(&mut self, path: impl AsRef<OsStr>) -> Result<PathBuf> {
        let path = self.root.join(path.as_ref());
        fs_err::create_dir_all(&path).context("make directory")?;
        Ok(path)
    }

    fn file(&mut self, path: &Path, content: &[u8]) -> Result<()> {
        fs_err::write(path, content).context("write file")
    }

    /// Runs what may be impossible here; notes it then.
    fn attempt(&mut self, what: &str, result: rustix::io::Result<()>) {
        if let Err(errno) = result {
            self.skipped.push(format!("{what}: {errno}"));
        }
    }

    fn names(&mut self, options: &Options) -> Result<()> {
        let dir = self.dir("names")?;
        let long = "l".repeat(255);
        let long_multibyte = "é".repeat(127);
        let mut names: Vec<&[u8]> = vec![
            b"plain",
            b" leading and trailing ",
            b"line\nbreak",
            b"carriage\rreturn\ttab",
            b"\x1b[31mescape\x07",
            b"-rf",
            b"--",
            b"...",
            b"..hidden",
            b".lastgood",
            b"back\\slash",
            b"quote\"and'apostrophe",
            b"*?[glob]{a,b}!",
            b"#comment",
            b"$HOME `id` ;&|",
            b"%2e%2e",
            b"CON",
            b"trailing.",
            b"Case",
            b"case",
            "caf\u{e9} composed".as_bytes(),
            "cafe\u{301} composed".as_bytes(),
            "\u{1f4be} disk".as_bytes(),
            "\u{202e}right to left".as_bytes(),
            "<img src=x onerror=alert(1)>&amp;\u{2028}".as_bytes(),
            long.as_bytes(),
            long_multibyte.as_bytes(),
        ];
        if options.not_utf8 {
            names.extend([&b"caf\xe9 latin"[..], b"\xff\xfe\xfd", b"half \xc3", b"\xed\xa0\x80 surrogate", b"\x80"]);
        }
        for name in names {
            let path = dir.join(OsStr::from_bytes(name));
            let content = [b"named ", name].concat();
            self.file(&path, &content)?;
        }
        let odd_dir = dir.join(OsStr::from_bytes(if options.not_utf8 { b"dir\xff\n" } else { b"dir\n" }));
        fs_err::create_dir(&odd_dir).context("make directory")?;
        self.file(&odd_dir.join("inside"), b"inside")
    }

    fn links(&mut self, options: &Options) -> Result<()> {
        let (dir, other) = (self.dir("links")?, self.dir("links/other")?);
        let first = dir.join("hard-1");
        self.file(&first, b"one file, three names")?;
        for name in [dir.join("hard-2"), other.join("hard-3")] {
            fs_err::hard_link(&first, name).context("make hard link")?;
        }
        let lone = dir.join("linked-outside-and-back");
        self.file(&lone, &[])?;
        fs_err::hard_link(&lone, other.join("empty-hard")).context("make hard link")?;
        let long = "x/".repeat(600);
        let mut links: Vec<(&str, &[u8])> = vec![
            ("to-file", b"hard-1"),
            ("to-dir", b"other"),
            ("dangling", b"no/such/thing"),
            ("absolute", b"/etc/hostname"),
            ("upwards", b"../../../../../../../../etc"),
            ("to-itself", b"to-itself"),
            ("spaces and\nbreaks", b" a b\n"),
            ("long", long.as_bytes()),
        ];
        if options.not_utf8 {
            links.push(("target-not-utf8", b"caf\xe9/\xff"));
        }
        for (name, target) in links {
            fs_err::os::unix::fs::symlink(OsStr::from_bytes(target), dir.join(name)).context("make symlink")?;
        }
        let hard = linkat(CWD, dir.join("dangling"), CWD, other.join("dangling-hard"), AtFlags::empty());
        self.attempt("hard link to a symlink", hard);
        Ok(())
    }

    fn sparse(&mut self, options: &Options) -> Result<()> {
        let dir = self.dir("sparse")?;
        const K: u64 = 1024;
        let island = self.rng.bytes(100);
        let block = self.rng.bytes(256 * 1024);
        let cases: [(&str, u64, &[Island<'_>]); 6] = [
            ("only-hole", options.sparse_bytes, &[]),
            ("hole-first", 3000 * K, &[(2048 * K, &block)]),
            ("hole-last", 3000 * K, &[(0, &block)]),
            ("hole-between", 4096 * K + 5, &[(0, &block), (4096 * K - 256 * K + 5, &block)]),
            ("islands", 8192 * K, &[(1000 * K + 7, &island), (3000 * K, &island), (8192 * K - 100, &island)]),
            ("small-hole", 12 * K, &[(0, &island), (8 * K, &island)]),
        ];
        for (name, size, islands) in cases {
            let file = fs_err::File::create(dir.join(name)).context("write file")?;
            ftruncate(&file, size).map_err(|e| Error::io("lengthen file", e.into()))?;
            for (at, bytes) in islands {
                file.file().write_all_at(bytes, *at).with_context(|| format!("write {name}"))?;
            }
        }
        self.file(&dir.join("real-zeros"), &vec![0; 1500 * K as usize])
    }

    fn attributes(&mut self) -> Result<()> {
        let dir = self.dir("attributes")?;
        let binary = self.rng.bytes(200);
        let large = self.rng.text(2500);
        let cases: [(&str, &str, &[u8]); 6] = [
            ("text", "user.note", b"a note"),
            ("binary", "user.binary", &binary),
            ("empty-value", "user.empty", b""),
            ("large-value", "user.large", &large),
            ("odd-name", "user.sp ace\u{e9}\n", b"odd"),
            ("two", "user.first", b"1"),
        ];
        for (name, key, value) in cases {
            let path = dir.join(name);
            self.file(&path, name.as_bytes())?;
            self.attempt(key, lsetxattr(&path, key, value, XattrFlags::empty()));
        }
        self.attempt("second", lsetxattr(dir.join("two"), "user.second", b"2", XattrFlags::empty()));
        let sub = self.dir("attributes/dir")?;
        self.attempt("attribute of a directory", lsetxattr(&sub, "user.note", b"dir", XattrFlags::empty()));

        let acl_file = dir.join("acl");
        self.file(&acl_file, b"read by one more")?;
        let access = posix_acl(&[(1, 6, NOBODY), (2, 4, 1000), (4, 4, NOBODY), (0x10, 4, NOBODY), (0x20, 0, NOBODY)]);
        self.attempt("access ACL", lsetxattr(&acl_file, "system.posix_acl_access", &access, XattrFlags::empty()));
        let acl_dir = self.dir("attributes/acl-dir")?;
        let inherit =
            posix_acl(&[(1, 7, NOBODY), (4, 5, NOBODY), (8, 7, 54_321), (0x10, 7, NOBODY), (0x20, 5, NOBODY)]);
        self.attempt("default ACL", lsetxattr(&acl_dir, "system.posix_acl_default", &inherit, XattrFlags::empty()));
        self.file(&acl_dir.join("inherits"), b"with the directory's ACL")?;

        if self.is_root {
            let capable = dir.join("capable");
            self.file(&capable, b"#!/bin/true\n")?;
            fs_err::set_permissions(&capable, PermissionsExt::from_mode(0o755)).context("set mode")?;
            // struct vfs_cap_data, revision 2, effective: CAP_NET_BIND_SERVICE (linux/capability.h).
            let mut value = Vec::new();
            for word in [0x0200_0001u32, 1 << 10, 0, 0, 0] {
                value.extend(word.to_le_bytes());
            }
            self.attempt("capability", lsetxattr(&capable, "security.capability", &value, XattrFlags::empty()));
            let trusted = dir.join("trusted");
            self.file(&trusted, b"")?;
            self.attempt("trusted", lsetxattr(&trusted, "trusted.note", b"root's", XattrFlags::empty()));
            let link = dir.join("link-with-attribute");
            fs_err::os::unix::fs::symlink("text", &link).context("make symlink")?;
            self.attempt("attribute of a symlink", lsetxattr(&link, "trusted.note", b"link's", XattrFlags::empty()));
        } else {
            self.skipped.push("trusted attributes and capabilities: need root".into());
        }
        Ok(())
    }

    fn modes_and_owners(&mut self) -> Result<()> {
        let dir = self.dir("modes")?;
        let mut modes = vec![0o400, 0o444, 0o640, 0o755, 0o777, 0o4755, 0o2755, 0o6711, 0o1644];
        if self.is_root {
            modes.extend([0o000, 0o200, 0o111]);
        } else {
            self.skipped.push("files unreadable for their owner: need root".into());
        }
        for mode in modes {
            let path = dir.join(format!("file-{mode:04o}"));
            self.file(&path, b"mode")?;
            fs_err::set_permissions(&path, PermissionsExt::from_mode(mode)).context("set mode")?;
        }
        for mode in [0o700, 0o555, 0o1777, 0o2775] {
            let path = self.dir(format!("modes/dir-{mode:04o}"))?;
            self.file(&path.join("inside"), b"inside")?;
            self.dir_modes.push((path, mode));
        }
        if !self.is_root {
            self.skipped.push("other owners: need root".into());
            return Ok(());
        }
        let dir = self.dir("owners")?;
        self.file(&dir.join("stranger"), b"owned by a number without a name")?;
        self.file(&dir.join("largest"), b"owned by the largest number")?;
        self.file(&dir.join("setuid-of-another"), b"")?;
        fs_err::os::unix::fs::symlink("stranger", dir.join("link")).context("make symlink")?;
        let sub = self.dir("owners/dir")?;
        self.file(&sub.join("inside"), b"")?;
        let owners = [("stranger", 12_345, 54_321), ("largest", u32::MAX - 1, u32::MAX - 1), ("link", 1, 2)];
        for (name, uid, gid) in owners.into_iter().chain([("setuid-of-another", 1000, 1000), ("dir", 65_534, 0)]) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            self.attempt(name, chownat(CWD, dir.join(name), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW));
        }
        // After the change of owner, which takes the bit away.
        fs_err::set_permissions(dir.join("setuid-of-another"), PermissionsExt::from_mode(0o6755)).context("set mode")
    }

    fn sizes(&mut self, options: &Options) -> Result<()> {
        let dir = self.dir("sizes")?;
        let large = self.rng.bytes(options.large_bytes as usize);
        self.file(&dir.join("large"), &large)?;
        self.file(&dir.join("large-again"), &large)?;
        let text = self.rng.text(2 * 1024 * 1024 + 1);
        self.file(&dir.join("text"), &text)?;
        // Around the lengths where readers and chunkers change their mind.
        for length in [0usize, 1, 2, 511, 512, 4095, 4096, 4097, 65_535, 65_536, 65_537, 524_287, 524_288, 524_289] {
            let content = self.rng.bytes(length);
            self.file(&dir.join(format!("bytes-{length}")), &content)?;
        }
        for i in 0..options.small_files {
            let sub = self.dir(format!("many/{:04}", i / 16))?;
            let length = self.rng.below(3000) as usize;
            let content = if i % 3 == 0 { self.rng.bytes(length) } else { self.rng.text(length) };
            self.file(&sub.join(format!("small-{i:06}")), &content)?;
        }
        Ok(())
    }

    fn shapes(&mut self, options: &Options) -> Result<()> {
        self.dir("empty/dir/in/dir")?;
        let empty = self.dir("empty")?;
        self.file(&empty.join("file"), b"")?;
        let deep = self.dir(format!("deep/{}", "d/".repeat(60)))?;
        self.file(&deep.join("bottom"), b"sixty levels down")?;
        let cached = self.dir("cached")?;
        let tag = b"Signature: 8a477f597d28d172789f06886806bc55\n";
        self.file(&cached.join("CACHEDIR.TAG"), tag)?;
        self.file(&cached.join("kept-unless-excluded"), b"cache")?;
        if options.beyond_path_max {
            self.beyond_path_max().map_err(|e| Error::io("make a chain of directories", e.into()))?;
        }
        Ok(())
    }

    fn beyond_path_max(&mut self) -> rustix::io::Result<()> {
        let name = "n".repeat(200);
        let open = |dir: &dyn std::os::fd::AsFd, name: &str, flags| {
            openat(dir, name, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))
        };
        let mut dir = openat(CWD, &self.root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for _ in 0..30 {
            mkdirat(&dir, &*name, Mode::from_raw_mode(0o755))?;
            dir = open(&dir, &name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        }
        let file = open(&dir, "bottom", OFlags::WRONLY | OFlags::CREATE)?;
        rustix::io::write(&file, b"beyond every path").map(drop)
    }

    fn special(&mut self) -> Result<()> {
        let dir = self.dir("special")?;
        let mut make = |name: &str, kind, mode, device| {
            let made = mknodat(CWD, dir.join(name), kind, Mode::from_raw_mode(mode), device);
            self.attempt(name, made);
        };
        make("fifo", FileType::Fifo, 0o640, 0);
        make("socket", FileType::Socket, 0o600, 0);
        if self.is_root {
            let mut make = |name: &str, kind, mode, device| {
                let made = mknodat(CWD, dir.join(name), kind, Mode::from_raw_mode(mode), device);
                self.attempt(name, made);
            };
            make("null", FileType::CharacterDevice, 0o666, makedev(1, 3));
            make("block", FileType::BlockDevice, 0o660, makedev(7, 200));
            make("large-number", FileType::CharacterDevice, 0o600, makedev(400, 70_000));
        } else {
            self.skipped.push("devices: need root".into());
        }
        let hard = linkat(CWD, dir.join("fifo"), CWD, dir.join("fifo-hard"), AtFlags::empty());
        self.attempt("hard link to a fifo", hard);
        Ok(())
    }

    fn times(&mut self) -> Result<()> {
        let dir = self.dir("times")?;
        let cases = [
            ("nanoseconds", Time::new(1_700_000_000, 123_456_789)),
            ("one-nanosecond", Time::new(1_700_000_000, 1)),
            ("last-nanosecond", Time::new(1_700_000_000, 999_999_999)),
            ("whole-second", Time::new(1_600_000_000, 0)),
            ("epoch", Time::new(0, 0)),
            ("before-1970", Time::new(-2, 500_000_000)),
            ("year-1902", Time::new(-2_145_916_800, 7)),
            ("year-2038", Time::new(2_147_483_648, 1)),
            ("year-2200", Time::new(7_258_118_400, 999)),
        ];
        for (name, time) in cases {
            let path = dir.join(name);
            self.file(&path, name.as_bytes())?;
            self.times.push((path, time));
        }
        let link = dir.join("link");
        fs_err::os::unix::fs::symlink("epoch", &link).context("make symlink")?;
        self.times.push((link, Time::new(-5, 5)));
        let sub = self.dir("times/dir")?;
        self.file(&sub.join("inside"), b"")?;
        self.times.push((sub, Time::new(1_234_567_890, 987_654_321)));
        self.times.push((dir, Time::new(-86_400, 1)));
        Ok(())
    }

    fn finish(mut self) -> Result<Fixture> {
        for (path, mode) in &self.dir_modes {
            fs_err::set_permissions(path, PermissionsExt::from_mode(*mode)).context("set mode")?;
        }
        self.times.sort_by_key(|(path, _)| std::cmp::Reverse(path.as_os_str().len()));
        for (path, time) in &self.times {
            set_mtime(path, *time)?;
        }
        Ok(Fixture { root: self.root, skipped: self.skipped })
    }
}

/// Sets the time of last modification (and access) of `path` itself, not of what it links to.
pub fn set_mtime(path: &Path, time: Time) -> Result<()> {
    let at = Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() };
    let times = Timestamps { last_access: at, last_modification: at };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| Error::io(format!("set times of {}", path.display()), e.into()))
}

/// The id of ACL entries that name nobody (`ACL_UNDEFINED_ID`).
const NOBODY: u32 = u32::MAX;

/// An ACL as the kernel takes it: version 2, then tag, permissions and id of each entry (linux/posix_acl_xattr.h).
fn posix_acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut out = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        out.extend(tag.to_le_bytes());
        out.extend(permissions.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{TreeState, scan};
    use lastgood_model::NodeKind;

    fn small() -> Options {
        Options { small_files: 20, large_bytes: 100_000, sparse_bytes: 300_000, ..Options::default() }
    }

    fn built(options: &Options) -> (TreeState, Fixture, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let fixture = build(&dir.path().join("tree"), options).unwrap();
        (scan(&fixture.root).unwrap(), fixture, dir)
    }

    #[test]
    fn every_oddity_is_really_there() {
        let (state, fixture, _dir) = built(&small());
        let has = |what: &str, test: &dyn Fn(&[u8], &crate::compare::EntryState) -> bool| {
            let found = state.entries.iter().any(|(path, entry)| test(path, entry));
            assert!(found, "{what} is missing; skipped: {:?}", fixture.skipped);
        };
        has("a name that is not UTF-8", &|path, _| std::str::from_utf8(path).is_err());
        has("a line break", &|path, _| path.contains(&b'\n'));
        has("a name of 255 bytes", &|path, _| path.split(|&b| b == b'/').any(|name| name.len() == 255));
        has("a hard link", &|_, e| e.kind == NodeKind::File && e.linked_with.is_some());
        has("a hard linked symlink", &|_, e| e.kind == NodeKind::Symlink && e.linked_with.is_some());
        has("an absolute link", &|_, e| e.link_target.starts_with(b"/"));
        has("a link text that is not UTF-8", &|_, e| std::str::from_utf8(&e.link_target).is_err());
        has("a hole", &|_, e| e.holes.len() == 3);
        has("a file of one hole", &|_, e| e.holes == [(0, 300_000)]);
        has("a fifo", &|_, e| e.kind == NodeKind::Fifo);
        has("a socket", &|_, e| e.kind == NodeKind::Socket);
        has("setuid", &|_, e| e.kind == NodeKind::File && e.mode & 0o4000 != 0);
        has("a sticky directory", &|_, e| e.kind == NodeKind::Dir && e.mode & 0o1000 != 0);
        has("a read-only directory", &|_, e| e.kind == NodeKind::Dir && e.mode == 0o555);
        has("a time before 1970 with a fraction", &|_, e| e.mtime.secs < 0 && e.mtime.nanos != 0);
        has("a time after 2038", &|_, e| e.mtime.secs > 7_000_000_000);
        has("depth", &|path, _| path.iter().filter(|&&b| b == b'/').count() > 60);
        has("an empty file", &|path, e| path.ends_with(b"empty/file") && e.size == 0);
        if fixture.skipped.iter().all(|skipped| !skipped.starts_with("user.")) {
            has("an attribute", &|_, e| e.xattrs.contains_key(&b"user.binary"[..]));
        }
        if fixture.skipped.iter().all(|skipped| !skipped.contains("ACL")) {
            has("an ACL", &|_, e| e.xattrs.contains_key(&b"system.posix_acl_access"[..]));
        }
        if rustix::process::geteuid().is_root() {
            has("a device", &|_, e| e.kind == NodeKind::CharDevice && e.device == makedev(1, 3));
            has("another owner", &|_, e| e.uid == 12_345 && e.gid == 54_321);
            has("a file nobody may read", &|_, e| e.kind == NodeKind::File && e.mode == 0);
        }
    }

    #[test]
    fn the_same_seed_builds_the_same_content_and_another_seed_does_not() {
        let content = |state: &TreeState| -> Vec<_> { state.entries.values().map(|e| (e.size, e.digest)).collect() };
        let (first, _, _a) = built(&small());
        let (again, _, _b) = built(&small());
        let (other, _, _c) = built(&Options { seed: 2, ..small() });
        assert_eq!(content(&first), content(&again));
        assert_ne!(content(&first), content(&other));
    }
}
