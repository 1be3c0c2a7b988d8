//! Each kind of planted difference is found, and nothing else.

use super::*;
use crate::tree_fixture::{self, Options, set_mtime};
use rustix::fs::{Gid, Uid, XattrFlags, chownat, ftruncate, lsetxattr, makedev, mknodat};
use std::ffi::OsStr;
use std::os::unix::fs::{FileExt, PermissionsExt};

fn small() -> Options {
    Options { small_files: 8, large_bytes: 100_000, sparse_bytes: 300_000, ..Options::default() }
}

/// Builds the odd tree twice, changes the second, and expects exactly these differences.
fn check(want: &[(&str, What)], change: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let (left, right) = (dir.path().join("left"), dir.path().join("right"));
    let mut states = Vec::new();
    for root in [&left, &right] {
        fs_err::create_dir(root).unwrap();
        fs_err::write(root.join("file"), "content").unwrap();
        fs_err::create_dir(root.join("dir")).unwrap();
        fs_err::write(root.join("dir/one"), vec![7; 300_000]).unwrap();
        fs_err::hard_link(root.join("dir/one"), root.join("two")).unwrap();
        fs_err::write(root.join("dir/same"), "same").unwrap();
        fs_err::os::unix::fs::symlink("file", root.join("link")).unwrap();
        let sparse = fs_err::File::create(root.join("sparse")).unwrap();
        ftruncate(&sparse, 1 << 20).unwrap();
        sparse.file().write_all_at(b"x", 500_000).unwrap();
        for name in ["file", "link", "two", "sparse", "dir/same", "dir", ""] {
            set_mtime(&root.join(name), Time::new(1_000_000_000, 5)).unwrap();
        }
        states.push(scan(root).unwrap());
    }
    assert_eq!(compare_states(&states[0], &states[1], Aspects::ALL), [], "before the change");
    change(&right);
    for name in ["dir", ""] {
        if !want.contains(&(name, What::Mtime)) {
            set_mtime(&right.join(name), Time::new(1_000_000_000, 5)).unwrap();
        }
    }
    let found = compare_trees(&left, &right).unwrap();
    let found: Vec<_> = found.iter().map(|d| (String::from_utf8(d.path.clone()).unwrap(), d.what)).collect();
    let want: Vec<_> = want.iter().map(|(path, what)| ((*path).to_owned(), *what)).collect();
    assert_eq!(found, want);
}

/// Changes a file without touching its time.
fn keep_time(path: &Path, change: impl FnOnce()) {
    change();
    set_mtime(path, Time::new(1_000_000_000, 5)).unwrap();
}

#[test]
fn a_missing_and_an_added_entry_are_found() {
    check(&[("dir/same", What::OnlyLeft)], |root| fs_err::remove_file(root.join("dir/same")).unwrap());
    check(&[("dir/new\n", What::OnlyRight)], |root| fs_err::write(root.join("dir/new\n"), "").unwrap());
}

#[test]
fn other_content_is_found_though_length_and_time_are_the_same() {
    check(&[("file", What::Content)], |root| {
        let path = root.join("file");
        keep_time(&path, || fs_err::write(&path, "c0ntent").unwrap());
    });
    check(&[("file", What::Size)], |root| {
        let path = root.join("file");
        keep_time(&path, || fs_err::write(&path, "content and more").unwrap());
    });
}

#[test]
fn one_flipped_byte_anywhere_in_a_file_is_found() {
    for at in [0u64, 65_535, 65_536, 150_000, 299_999] {
        check(&[("dir/one", What::Content), ("two", What::Content)], |root| {
            let path = root.join("two");
            keep_time(&path, || {
                let file = fs_err::OpenOptions::new().write(true).open(&path).unwrap();
                file.file().write_all_at(b"!", at).unwrap();
            });
        });
    }
}

#[test]
fn another_kind_is_found() {
    check(&[("file", What::Kind)], |root| {
        fs_err::remove_file(root.join("file")).unwrap();
        fs_err::os::unix::fs::symlink("content", root.join("file")).unwrap();
    });
}

#[test]
fn other_modes_are_found_also_of_directories_and_the_top() {
    for (path, mode) in [("file", 0o4644), ("dir", 0o700), ("", 0o1755)] {
        check(&[(path, What::Mode)], |root| {
            fs_err::set_permissions(root.join(path), PermissionsExt::from_mode(mode)).unwrap();
        });
    }
}

#[test]
fn times_differ_by_a_nanosecond() {
    for path in ["file", "link", "sparse", "dir", ""] {
        check(&[(path, What::Mtime)], |root| {
            set_mtime(&root.join(path), Time::new(1_000_000_000, 6)).unwrap();
        });
    }
}

#[test]
fn attributes_are_found_added_and_changed_also_on_the_top() {
    for path in ["file", "dir", ""] {
        check(&[(path, What::Xattrs)], |root| {
            lsetxattr(root.join(path), "user.note", b"", XattrFlags::empty()).unwrap();
        });
    }
}

#[test]
fn another_link_text_is_found() {
    check(&[("link", What::LinkTarget)], |root| {
        fs_err::remove_file(root.join("link")).unwrap();
        fs_err::os::unix::fs::symlink(OsStr::from_bytes(b"file\xff"), root.join("link")).unwrap();
        set_mtime(&root.join("link"), Time::new(1_000_000_000, 5)).unwrap();
    });
}

#[test]
fn a_hard_link_that_became_a_copy_is_found() {
    check(&[("dir/one", What::HardLinks), ("two", What::HardLinks)], |root| {
        let path = root.join("two");
        fs_err::remove_file(&path).unwrap();
        keep_time(&path, || fs_err::write(&path, vec![7; 300_000]).unwrap());
    });
}

#[test]
fn a_hole_that_was_filled_is_found_and_more_holes_only_when_asked() {
    let fill = |root: &Path| {
        let path = root.join("sparse");
        keep_time(&path, || {
            let file = fs_err::OpenOptions::new().write(true).open(&path).unwrap();
            file.file().write_all_at(&[0; 65_536], 65_536).unwrap();
        });
    };
    check(&[("sparse", What::Holes)], fill);

    let dir = tempfile::tempdir().unwrap();
    let (left, right) = (dir.path().join("l"), dir.path().join("r"));
    fs_err::write(&left, vec![0; 100_000]).unwrap();
    ftruncate(fs_err::File::create(&right).unwrap(), 100_000).unwrap();
    let (left, right) = (scan(&left).unwrap(), scan(&right).unwrap());
    let differences = |holes| compare_states(&left, &right, Aspects { holes, mtime: false, ..Aspects::ALL });
    assert_eq!(differences(Holes::Kept), []);
    assert_eq!(differences(Holes::Exact)[0].what, What::Holes);
}

#[test]
fn owners_and_device_numbers_are_found() {
    if !rustix::process::geteuid().is_root() {
        // Only root can make them differ; the comparison itself does not depend on who asks.
        let (mut a, mut b) = (scan(Path::new("/dev/null")).unwrap(), scan(Path::new("/dev/null")).unwrap());
        a.entries.get_mut(&b""[..]).unwrap().device += 1;
        b.entries.get_mut(&b""[..]).unwrap().uid += 1;
        let found: Vec<_> = compare_states(&a, &b, Aspects::ALL).iter().map(|d| d.what).collect();
        assert_eq!(found, [What::Owner, What::Device]);
        return;
    }
    check(&[("link", What::Owner)], |root| {
        let (uid, gid) = (Uid::from_raw(7), Gid::from_raw(0));
        chownat(CWD, root.join("link"), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    });
    let dir = tempfile::tempdir().unwrap();
    for (name, minor) in [("a", 3), ("b", 5)] {
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, dir.path().join(name), FileType::CharacterDevice, mode, makedev(1, minor)).unwrap();
        set_mtime(&dir.path().join(name), Time::new(1, 1)).unwrap();
    }
    let (a, b) = (scan(&dir.path().join("a")).unwrap(), scan(&dir.path().join("b")).unwrap());
    let found: Vec<_> = compare_states(&a, &b, Aspects::ALL).iter().map(|d| d.what).collect();
    assert_eq!(found, [What::Device]);
}

#[test]
fn the_odd_tree_equals_its_copy_by_cp_and_paths_beyond_the_limit_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, copy) = (dir.path().join("tree"), dir.path().join("copy"));
    tree_fixture::build(&tree, &small()).unwrap();
    let done = std::process::Command::new("cp").args(["-a", "--sparse=auto"]).args([&tree, &copy]).status().unwrap();
    assert!(done.success());
    assert_identical(&tree, &copy);

    let long = dir.path().join("long");
    tree_fixture::build(&long, &Options { beyond_path_max: true, ..small() }).unwrap();
    let state = scan(&long).unwrap();
    let longest = state.entries.keys().max_by_key(|path| path.len()).unwrap();
    assert!(longest.len() > 6000 && longest.ends_with(b"/bottom"));
}
