//! Restoring without privileges. Under root these run again in a process of user and group 65534.

use super::*;
use lastgood_model::Xattr;
use std::process::Command;

/// True in the unprivileged process; as root runs `test` there and returns false.
fn as_nobody(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    // Neither the build directory nor the temporary one of this test need be open to others.
    let dir = tempfile::Builder::new().prefix("as-nobody-").tempdir_in("/tmp").unwrap();
    let exe = dir.path().join("tests");
    let open =
        |path: &Path| fs_err::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    open(dir.path());
    fs_err::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    open(&exe);
    let test = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&exe)
        .args(["--exact", &test, "--nocapture"])
        .env("TMPDIR", dir.path())
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
    false
}

#[test]
fn read_only_directories_are_filled_and_filled_again() {
    if !as_nobody("read_only_directories_are_filled_and_filled_again") {
        return;
    }
    let place = Place::new();
    let monitor = Monitor::new();
    let want =
        Node { xattrs: vec![Xattr { name: "user.n".into(), value: vec![1] }], ..node("f", NodeKind::File, 0o400) };
    for (overwrite, mode) in [(Overwrite::Never, 0o555), (Overwrite::IfDifferent, 0o000), (Overwrite::Always, 0o511)] {
        for strides in [true, false] {
            if overwrite == Overwrite::Never && !strides {
                continue;
            }
            let target = place.target(overwrite, strides);
            let outer = target.dir(b"ro").unwrap();
            let inner = target.dir(b"ro/inner").unwrap();
            assert_eq!(inner.is_created(), overwrite == Overwrite::Never);
            for name in ["f", "g"] {
                let want = Node { name: name.into(), ..want.clone() };
                let open = target.open_existing(&inner, &want);
                let is_writable = open.is_ok_and(|open| open.is_some_and(|open| !open.is_only_to_compare()));
                assert!(!is_writable);
                target.write_small(&inner, &want, &[b"x"], &monitor).unwrap();
            }
            target.finish_dir(&inner, &node("inner", NodeKind::Dir, mode), &monitor).unwrap();
            target.finish_dir(&outer, &node("ro", NodeKind::Dir, mode), &monitor).unwrap();
            assert_no_problems(&monitor);
            assert_is(&place.root().join("ro"), &node("ro", NodeKind::Dir, mode));
        }
    }
    let root = place.target(Overwrite::Always, true);
    assert_eq!(remove::remove_tree(root.root().fd.as_fd(), b"ro").unwrap(), 4);
}

#[test]
fn closed_directories_are_removed() {
    if !as_nobody("closed_directories_are_removed") {
        return;
    }
    let scratch = Scratch::create(&std::env::temp_dir(), "lastgood-test").unwrap();
    let options = TargetOptions { overwrite: Overwrite::Always, ..TargetOptions::default() };
    let target = Target::open(scratch.path(), options).unwrap();
    let monitor = Monitor::new();
    for mode in [0o000, 0o111, 0o222, 0o444, 0o555] {
        let name = format!("{mode:o}");
        let dir = target.dir(format!("{name}/below").as_bytes()).unwrap();
        target.write_small(&dir, &file("f"), &[], &monitor).unwrap();
        target.finish_dir(&dir, &node("below", NodeKind::Dir, mode), &monitor).unwrap();
        let dir = target.dir(name.as_bytes()).unwrap();
        target.finish_dir(&dir, &node(name, NodeKind::Dir, mode), &monitor).unwrap();
    }
    let path = scratch.path().to_owned();
    assert_eq!(scratch.remove().unwrap(), 5 * 3 + 1);
    assert!(!path.exists());
}

#[test]
fn what_only_root_may_set_is_reported_and_the_rest_is_restored() {
    if !as_nobody("what_only_root_may_set_is_reported_and_the_rest_is_restored") {
        return;
    }
    let place = Place::new();
    let monitor = Monitor::new();
    assert_eq!(TargetOptions::default().owners, OwnerPolicy::Skip);
    assert!(!TargetOptions::default().devices);
    let foreign = Node {
        uid: 1,
        gid: 1,
        xattrs: ["trusted.t", "security.capability", "user.fine"]
            .map(|name| Xattr { name: name.into(), value: vec![1; 4] })
            .to_vec(),
        ..node("f", NodeKind::File, 0o4755)
    };
    let mine = file("f");
    let target = place.target(Overwrite::Always, true);
    target.write_small(target.root(), &foreign, &[b"content"], &monitor).unwrap();
    let messages = |monitor: &Monitor| monitor.problems().0.into_iter().map(|p| p.message).collect::<Vec<_>>();
    assert_eq!(messages(&monitor).len(), 3, "trusted.t, security.capability, setuid: {:?}", messages(&monitor));
    assert_eq!(xattr_of(&place.root().join("f"), "user.fine").unwrap(), [1; 4]);
    assert_is(
        &place.root().join("f"),
        &Node { uid: mine.uid, gid: mine.gid, mode: 0o755, xattrs: vec![], ..foreign.clone() },
    );

    let options = TargetOptions {
        owners: OwnerPolicy::Numeric,
        devices: true,
        overwrite: Overwrite::Always,
        ..*target.options()
    };
    let target = Target::open(&place.root(), options).unwrap();
    let monitor = Monitor::new();
    target.special(target.root(), &Node { uid: 1, gid: 1, ..symlink("l", b"t") }, &monitor).unwrap();
    assert!(messages(&monitor)[0].starts_with("set owner 1:1: "), "{:?}", messages(&monitor));
    let device = Node { device: rustix::fs::makedev(1, 3), ..node("null", NodeKind::CharDevice, 0o666) };
    assert_eq!(kind_of(target.special(target.root(), &device, &monitor)), ErrorKind::Denied);
}
