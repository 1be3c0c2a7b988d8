//! All on real file systems, below a temporary directory.

mod escape;
mod existing;
mod fidelity;
mod nobody;
mod shape;
mod view;

use super::*;
use lastgood_model::Time;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A directory with `root` to restore into and `outside`, which must stay as it is.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join("root")).unwrap();
        fs_err::create_dir(dir.path().join("outside")).unwrap();
        fs_err::write(dir.path().join("outside/secret"), b"secret").unwrap();
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    /// A target that opens directories with `openat2`, and one that goes one name at a time.
    fn target(&self, overwrite: Overwrite, strides: bool) -> Target {
        let target = Target::open(&self.root(), TargetOptions { overwrite, ..TargetOptions::default() }).unwrap();
        target.strides.store(strides, Ordering::Relaxed);
        target
    }

    /// What an escape would change.
    fn assert_outside_untouched(&self, before: &[String]) {
        assert_eq!(self.fingerprint(), before);
    }

    fn fingerprint(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for path in [self.outside(), self.outside().join("secret")] {
            let m = fs_err::symlink_metadata(&path).unwrap();
            let (mtime, ctime) = ((m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()));
            lines.push(format!("{path:?} {:o} {} {} {} {mtime:?} {ctime:?}", m.mode(), m.uid(), m.gid(), m.nlink()));
        }
        for dir in [self.outside(), self.dir.path().to_owned()] {
            let mut names: Vec<_> = fs_err::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            lines.push(format!("{names:?}"));
        }
        lines.push(format!("{:?}", fs_err::read(self.outside().join("secret")).unwrap()));
        lines
    }
}

/// A node that belongs to whoever runs the test, with times of its own.
fn node(name: impl Into<Vec<u8>>, kind: NodeKind, mode: u32) -> Node {
    let mut node = Node::new(name, kind);
    node.mode = mode;
    node.mtime = Time::new(1_600_000_000, 123_456_789);
    node.atime = Time::new(1_500_000_000, 987_654_321);
    node.uid = rustix::process::geteuid().as_raw();
    node.gid = rustix::process::getegid().as_raw();
    node
}

fn file(name: impl Into<Vec<u8>>) -> Node {
    node(name, NodeKind::File, 0o644)
}

fn symlink(name: impl Into<Vec<u8>>, to: &[u8]) -> Node {
    Node { link_target: to.to_vec(), ..node(name, NodeKind::Symlink, 0o777) }
}

fn kind_of<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[track_caller]
fn assert_no_problems(monitor: &Monitor) {
    let (problems, total) = monitor.problems();
    assert_eq!(total, 0, "{problems:?}");
}

/// Compares what is at `path` with `node`, by path and with calls that the code under test does not use.
#[track_caller]
fn assert_is(path: &Path, node: &Node) {
    let m = fs_err::symlink_metadata(path).unwrap();
    assert_eq!(format!("{:o}", m.mode() & 0o7777), format!("{:o}", node.mode), "mode {path:?}");
    assert_eq!((m.uid(), m.gid()), (node.uid, node.gid), "owner {path:?}");
    assert_eq!((m.mtime(), m.mtime_nsec()), (node.mtime.secs, i64::from(node.mtime.nanos)), "mtime {path:?}");
    assert_eq!((m.atime(), m.atime_nsec()), (node.atime.secs, i64::from(node.atime.nanos)), "atime {path:?}");
    for xattr in &node.xattrs {
        assert_eq!(xattr_of(path, &xattr.name).as_deref(), Some(&xattr.value[..]), "{} {path:?}", xattr.name);
    }
}

fn xattr_of(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

#[track_caller]
fn needs_root() {
    assert!(rustix::process::geteuid().is_root(), "owners, devices and capabilities are tested as root only");
}
