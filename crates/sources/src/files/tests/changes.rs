use super::walk::{entry, open_top, read_all};
use crate::files::FilesOptions;
use lastgood_model::manifest::ProblemKind;
use lastgood_model::source::{Read, Steady, TreeDir};
use lastgood_model::{ErrorKind, Monitor};
use rustix::fs::{CWD, Mode, mkfifoat};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

struct Scene {
    _folder: tempfile::TempDir,
    file: PathBuf,
    dir: Arc<dyn TreeDir>,
}

/// A file of `size` bytes named `file` in an open directory.
fn scene(size: usize) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs_err::write(&file, vec![b'a'; size]).unwrap();
    // So that a later change cannot fall into the same tick.
    let old = rustix::fs::Timespec { tv_sec: 1000, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: old, last_modification: old };
    rustix::fs::utimensat(CWD, &file, &times, rustix::fs::AtFlags::empty()).unwrap();
    let dir = open_top(folder.path(), FilesOptions::default());
    Scene { _folder: folder, file, dir }
}

/// Reads one piece, lets `change` happen, reads on; the verdict, the content and the node.
fn check(size: usize, change: impl FnOnce(&PathBuf)) -> (Steady, Vec<u8>, lastgood_model::Node) {
    let scene = scene(size);
    let entry = entry(&*scene.dir, b"file");
    let mut reader = scene.dir.open_file(&entry, &Monitor::new()).unwrap();
    let mut content = Vec::new();
    assert_eq!(reader.read(&mut content, 4).unwrap(), Read::Data(4));
    change(&scene.file);
    content.extend(read_all(&mut *reader, 1000).unwrap().0);
    let mut node = entry.node;
    (reader.finish(&mut node).unwrap(), content, node)
}

fn append(file: &PathBuf, bytes: &[u8]) {
    fs_err::OpenOptions::new().append(true).open(file).unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_file_that_grows_is_read_to_its_new_end_and_told() {
    let (steady, content, node) = check(10, |file| append(file, b"bbbbbbbbbb"));
    assert_eq!(steady, Steady::No("grew from 10 to 20 bytes while it was read".into()));
    assert_eq!(content, b"aaaaaaaaaabbbbbbbbbb");
    assert_eq!(node.size, 20, "as many bytes as were read");
    assert_eq!(node.mtime.secs, 1000, "times from before");
}

#[test]
fn a_file_that_shrinks_is_told() {
    let (steady, content, node) = check(10, |file| {
        fs_err::OpenOptions::new().write(true).open(file).unwrap().set_len(6).unwrap();
    });
    assert_eq!(steady, Steady::No("shrank from 10 to 6 bytes while it was read".into()));
    assert_eq!((&*content, node.size), (&b"aaaaaa"[..], 6));
}

#[test]
fn a_file_rewritten_in_place_or_removed_is_told() {
    let (steady, ..) = check(10, |file| fs_err::write(file, [b'c'; 10]).unwrap());
    assert_eq!(steady, Steady::No("was written to while it was read".into()));
    let (steady, content, _) = check(10, |file| fs_err::remove_file(file).unwrap());
    assert_eq!(steady, Steady::No("was removed while it was read".into()));
    assert_eq!(content, [b'a'; 10]);
    let (steady, ..) = check(10, |_| {});
    assert_eq!(steady, Steady::Yes);
}

#[test]
fn a_sparse_file_cut_short_while_it_is_read_ends_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let file = fs_err::File::create(&path).unwrap();
    file.set_len(10 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(file.file(), &[1; 4096], 9 << 20).unwrap();
    let dir = open_top(folder.path(), FilesOptions::default());
    let entry = entry(&*dir, b"file");
    let mut reader = dir.open_file(&entry, &Monitor::new()).unwrap();
    let mut out = Vec::new();
    assert_eq!(reader.read(&mut out, 100).unwrap(), Read::Hole(9 << 20));
    file.set_len(1 << 20).unwrap();
    while reader.read(&mut out, 4096).unwrap() != Read::End {}
    let steady = reader.finish(&mut entry.node.clone()).unwrap();
    assert_eq!(steady, Steady::No(format!("shrank from {} to {} bytes while it was read", 10 << 20, 1 << 20)));
}

#[test]
fn a_file_replaced_before_it_is_opened_is_read_in_its_new_state() {
    let scene = scene(10);
    let mut entry = entry(&*scene.dir, b"file");
    let new = scene.file.with_file_name("new");
    fs_err::write(&new, b"new content").unwrap();
    rustix::fs::setxattr(&new, "user.note", b"new", rustix::fs::XattrFlags::empty()).unwrap();
    fs_err::rename(&new, &scene.file).unwrap();
    let mut reader = scene.dir.open_file(&entry, &Monitor::new()).unwrap();
    let (content, _) = read_all(&mut *reader, 100).unwrap();
    assert_eq!(reader.finish(&mut entry.node).unwrap(), Steady::Yes);
    assert_eq!(content, b"new content");
    let stat = fs_err::metadata(&scene.file).unwrap();
    assert_eq!((entry.node.inode, entry.node.size), (stat.ino(), 11));
    assert_eq!(entry.node.xattrs[0].value, b"new");
}

#[test]
fn what_became_another_kind_of_entry_is_not_read_and_nothing_waits() {
    type Change = fn(&PathBuf);
    let changes: [(&str, Change); 4] = [
        ("fifo", |file| mkfifoat(CWD, file, Mode::RWXU).unwrap()),
        ("directory", |file| fs_err::create_dir(file).unwrap()),
        ("link", |file| std::os::unix::fs::symlink("/etc/passwd", file).unwrap()),
        ("socket", |file| drop(std::os::unix::net::UnixListener::bind(file).unwrap())),
    ];
    for (what, change) in changes {
        let scene = scene(10);
        let entry = entry(&*scene.dir, b"file");
        fs_err::remove_file(&scene.file).unwrap();
        change(&scene.file);
        let error = scene.dir.open_file(&entry, &Monitor::new()).err().expect(what);
        assert_eq!(error.kind(), ErrorKind::Conflict, "{what}: {error:?}");
        assert!(error.chain().contains("file"), "{what}: {error:?}");
    }
}

#[test]
fn what_is_gone_is_told_as_absent_at_every_step() {
    let scene = scene(10);
    let mut file = entry(&*scene.dir, b"file");
    let sub = scene.file.with_file_name("sub");
    fs_err::create_dir(&sub).unwrap();
    std::os::unix::fs::symlink("x", scene.file.with_file_name("link")).unwrap();
    let (folder, mut link) = (entry(&*scene.dir, b"sub"), entry(&*scene.dir, b"link"));
    let open = scene.dir.open_dir(&folder).unwrap();
    fs_err::remove_dir(&sub).unwrap();
    fs_err::remove_file(&scene.file).unwrap();
    fs_err::remove_file(scene.file.with_file_name("link")).unwrap();

    let monitor = Monitor::new();
    assert_eq!(scene.dir.open_file(&file, &monitor).err().unwrap().kind(), ErrorKind::Absent);
    assert_eq!(scene.dir.describe(&mut file.node, &monitor).unwrap_err().kind(), ErrorKind::Absent);
    assert_eq!(scene.dir.describe(&mut link.node, &monitor).unwrap_err().kind(), ErrorKind::Absent);
    assert_eq!(scene.dir.open_dir(&folder).err().unwrap().kind(), ErrorKind::Absent);
    assert_eq!(open.list(&monitor).unwrap_err().kind(), ErrorKind::Absent);
    assert_eq!(monitor.problems().1, 0, "each is told once, by the error");
}

#[test]
fn entries_that_vanish_between_listing_and_examining_are_reported() {
    // Removing entries from another thread while the directory is listed over and over: some listing meets a name whose
    // entry is gone, and every such name is reported.
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<PathBuf> = (0..400).map(|n| folder.path().join(format!("{n}"))).collect();
    let dir = open_top(folder.path(), FilesOptions::default());
    for _round in 0..200 {
        names.iter().for_each(|n| fs_err::write(n, b"").unwrap());
        let monitor = Monitor::new();
        std::thread::scope(|scope| {
            scope.spawn(|| names.iter().rev().for_each(|n| fs_err::remove_file(n).unwrap()));
            while !dir.list(&monitor).unwrap().is_empty() {}
        });
        let (problems, _) = monitor.problems();
        assert!(problems.iter().all(|p| p.what == ProblemKind::Vanished && p.path.starts_with('/')), "{problems:?}");
        if !problems.is_empty() {
            return;
        }
    }
    panic!("no listing met a vanished entry");
}

#[test]
fn a_cancelled_capture_stops_at_the_next_directory() {
    let scene = scene(1);
    let monitor = Monitor::new();
    monitor.cancel();
    assert_eq!(scene.dir.list(&monitor).unwrap_err().kind(), ErrorKind::Cancelled);
}
