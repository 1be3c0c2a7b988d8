//! What only root can set up. Ignored by default; the full lane runs them with `--run-ignored all`.

use super::walk::{entry, open_top, take};
use crate::files::FilesOptions;
use lastgood_model::manifest::ProblemKind;
use lastgood_model::source::Source;
use lastgood_model::{ErrorKind, Monitor, NodeKind};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system mounted until dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: &str, at: &Path) -> Self {
        let mounted = Command::new("mount").args(["-t", kind, "none"]).arg(at).status().unwrap();
        assert!(mounted.success(), "mount {kind} on {}", at.display());
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
#[ignore = "needs root, to make device nodes and trusted attributes"]
fn device_nodes_and_trusted_attributes_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    mknodat(CWD, at("null"), FileType::CharacterDevice, Mode::RUSR, makedev(1, 3)).unwrap();
    mknodat(CWD, at("disk"), FileType::BlockDevice, Mode::RUSR, makedev(259, 70_000)).unwrap();
    fs_err::write(at("file"), b"x").unwrap();
    std::os::unix::fs::symlink("x", at("link")).unwrap();
    lsetxattr(at("file"), "trusted.a", b"1", XattrFlags::empty()).unwrap();
    lsetxattr(at("link"), "trusted.b", b"2", XattrFlags::empty()).unwrap();
    lsetxattr(at("null"), "trusted.c", b"3", XattrFlags::empty()).unwrap();
    let taken = take(folder.path(), FilesOptions::default());
    let (null, disk) = (&taken.get("null").node, &taken.get("disk").node);
    assert_eq!((null.kind, null.device, null.links), (NodeKind::CharDevice, makedev(1, 3), 1));
    assert_eq!((disk.kind, disk.device, disk.links), (NodeKind::BlockDevice, makedev(259, 70_000), 1));
    for (name, xattr) in [("file", "trusted.a"), ("link", "trusted.b"), ("null", "trusted.c")] {
        assert_eq!(taken.get(name).node.xattrs[0].name, xattr);
    }
}

#[test]
#[ignore = "needs root, to mount a file system"]
fn another_file_system_is_kept_as_an_empty_mount_point_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("mount");
    fs_err::create_dir(&mount).unwrap();
    let _mounted = Mounted::new("tmpfs", &mount);
    fs_err::set_permissions(&mount, PermissionsExt::from_mode(0o751)).unwrap();
    fs_err::create_dir(mount.join("sub")).unwrap();
    fs_err::write(mount.join("sub/file"), b"x").unwrap();
    assert!(take(folder.path(), FilesOptions::default()).find("mount/sub/file").is_some());
    let taken = take(folder.path(), FilesOptions { one_file_system: true, ..FilesOptions::default() });
    assert_eq!(taken.names(), ["mount"]);
    assert_eq!(taken.get("mount").node.mode, 0o751, "with what is mounted there");
    let shown = serde_json::json!([mount.to_str().unwrap()]);
    assert_eq!(taken.captured.facts["mount_points_left_out"], shown);
}

#[test]
#[ignore = "needs root, to mount a file system"]
fn the_kernels_own_file_systems_are_never_entered_from_above() {
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("proc");
    fs_err::create_dir(&mount).unwrap();
    let _mounted = Mounted::new("proc", &mount);
    let taken = take(folder.path(), FilesOptions::default());
    assert_eq!(taken.names(), ["proc"]);
}

#[test]
#[ignore = "needs root, to become another user"]
fn what_may_not_be_read_is_told_and_the_rest_is_captured() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    for sub in ["open", "shut", "blind"] {
        fs_err::create_dir_all(top.join(sub)).unwrap();
        fs_err::write(top.join(sub).join("file"), b"x").unwrap();
    }
    fs_err::write(top.join("secret"), b"x").unwrap();
    let mode = |path: PathBuf, mode| fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    mode(folder.path().to_owned(), 0o755);
    mode(top.join("shut"), 0o700);
    // Can be listed, but its entries cannot be examined.
    mode(top.join("blind"), 0o744);
    mode(top.join("secret"), 0o600);
    let seen = std::thread::spawn(move || {
        // This thread alone becomes nobody.
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534)).unwrap();
        let monitor = Monitor::new();
        let dir = open_top(&top, FilesOptions::default());
        let kind = |name: &[u8]| {
            let mut entry = entry(&*dir, name);
            dir.describe(&mut entry.node, &monitor).unwrap();
            match entry.node.kind {
                NodeKind::Dir => dir.open_dir(&entry).and_then(|d| d.list(&monitor)).map(|l| l.len()),
                _ => dir.open_file(&entry, &monitor).map(|_| 1),
            }
            .map_err(|e| e.kind())
        };
        let outcome = [kind(b"open"), kind(b"shut"), kind(b"secret"), kind(b"blind")];
        let source = crate::files::FilesSource::new("x", vec![top.join("shut")], FilesOptions::default()).unwrap();
        let examine = |exclude: &[&str]| {
            let exclude = exclude.iter().map(|&p| p.to_owned()).collect();
            let options = FilesOptions { exclude, ..FilesOptions::default() };
            crate::files::FilesSource::new("x", vec![top.clone()], options).unwrap().examine().unwrap()
        };
        let examined = [examine(&[]), examine(&["shut", "/blind"]), examine(&["shut", "/blind", "secret"])];
        (outcome, monitor.problems().0, source.probe().unwrap(), examined)
    });
    let (outcome, problems, findings, examined) = seen.join().unwrap();
    assert_eq!(outcome, [Ok(1), Err(ErrorKind::Denied), Err(ErrorKind::Denied), Ok(0)]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].path.ends_with("/blind/file") && problems[0].what == ProblemKind::Unreadable);
    let levels: Vec<_> = findings.iter().map(|f| f.level).collect();
    use lastgood_model::source::FindingLevel::{Failure, Warning};
    assert_eq!(levels, [Failure, Warning], "{findings:?}");
    let failures = examined.map(|found| {
        let failures = found.into_iter().filter(|f| f.level == Failure);
        failures.map(|f| f.message.replace(folder.path().to_str().unwrap(), "")).collect::<Vec<_>>()
    });
    assert!(failures[0].len() == 1 && failures[0][0].contains("cannot be read"), "{failures:?}");
    assert!(failures[1].len() == 1 && failures[1][0].contains("/secret: Permission denied"), "{failures:?}");
    assert!(failures[2].is_empty(), "what is excluded need not be read: {failures:?}");
}
