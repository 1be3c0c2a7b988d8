use super::walk::{entry, open_top, read_all, take, try_take};
use crate::files::FilesOptions;
use lastgood_model::manifest::ProblemKind;
use lastgood_model::source::{Finding, FindingLevel, Source, Steady};
use lastgood_model::{ErrorKind, Monitor, NodeKind, Time, Xattr};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, XattrFlags, lsetxattr, mkfifoat, openat, utimensat,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

#[test]
fn every_kind_of_name_is_captured_in_byte_order() {
    let folder = tempfile::tempdir().unwrap();
    let long = [b'n'; 255];
    let names: [&[u8]; 9] = [b"\xff\xfe", b"two\nlines", b" ", b"-rf", b"a", b"a.b", b"B", "ü".as_bytes(), &long];
    for name in names {
        fs_err::write(folder.path().join(OsStr::from_bytes(name)), name).unwrap();
    }
    let taken = take(folder.path(), FilesOptions::default());
    for name in names {
        assert_eq!(taken.get(name).content, name);
    }
    assert_eq!(taken.names().len(), names.len());
    assert!(taken.problems.is_empty());
}

#[test]
fn metadata_is_what_stat_says_with_the_numbers_restic_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path();
    let file = top.join("file");
    fs_err::write(&file, b"0123456789").unwrap();
    fs_err::set_permissions(&file, PermissionsExt::from_mode(0o6751)).unwrap();
    fs_err::hard_link(&file, top.join("twin")).unwrap();
    fs_err::create_dir(top.join("dir")).unwrap();
    fs_err::set_permissions(top.join("dir"), PermissionsExt::from_mode(0o1770)).unwrap();
    symlink("no/such\ntarget", top.join("link")).unwrap();
    mkfifoat(CWD, top.join("fifo"), Mode::from_raw_mode(0o640)).unwrap();
    let _listener = UnixListener::bind(top.join("socket")).unwrap();
    let old = Timespec { tv_sec: -5, tv_nsec: 7 };
    let times = Timestamps { last_access: Timespec { tv_sec: 99, tv_nsec: 0 }, last_modification: old };
    utimensat(CWD, &file, &times, AtFlags::empty()).unwrap();

    let taken = take(top, FilesOptions::default());
    let stat = |name: &str| fs_err::symlink_metadata(top.join(name)).unwrap();
    for (name, kind, links) in [
        ("file", NodeKind::File, 2),
        ("twin", NodeKind::File, 2),
        ("dir", NodeKind::Dir, 0),
        ("link", NodeKind::Symlink, 1),
        ("fifo", NodeKind::Fifo, 0),
        ("socket", NodeKind::Socket, 0),
    ] {
        let (node, stat) = (&taken.get(name).node, stat(name));
        assert_eq!((node.kind, node.links), (kind, links), "{name}");
        assert_eq!(node.name, name.as_bytes());
        assert_eq!(node.mode, stat.mode() & 0o7777, "{name}");
        assert_eq!((node.inode, node.device_id), (stat.ino(), stat.dev()), "{name}");
        assert_eq!((node.uid, node.gid), (stat.uid(), stat.gid()), "{name}");
        assert_eq!(node.mtime, Time::new(stat.mtime(), stat.mtime_nsec() as u32), "{name}");
        assert_eq!(node.atime, node.mtime, "{name}");
        assert_eq!(node.ctime, Time::new(stat.ctime(), stat.ctime_nsec() as u32), "{name}");
        assert_eq!((node.size, node.device), (if kind == NodeKind::File { 10 } else { 0 }, 0), "{name}");
        assert_eq!(node.content.is_some(), kind == NodeKind::File, "{name}");
    }
    assert_eq!(taken.get("file").node.mtime, Time { secs: -5, nanos: 7 });
    assert_eq!(taken.get("link").node.link_target, b"no/such\ntarget");
    assert_eq!(taken.get("file").steady, Some(Steady::Yes));
    assert!(!taken.get("file").volatile);
    if stat("file").uid() == 0 {
        assert_eq!(taken.get("file").node.user, "root");
        assert_eq!(taken.get("dir").node.group, "root");
    }
}

#[test]
fn reading_leaves_access_times_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs_err::write(&file, b"x").unwrap();
    let times = |path: &std::path::Path| {
        let stat = fs_err::metadata(path).unwrap();
        (stat.atime(), stat.atime_nsec())
    };
    let old = Timespec { tv_sec: 5, tv_nsec: 5 };
    for path in [&*file, folder.path()] {
        utimensat(CWD, path, &Timestamps { last_access: old, last_modification: old }, AtFlags::empty()).unwrap();
    }
    let before = (times(&file), times(folder.path()));
    take(folder.path(), FilesOptions::default());
    assert_eq!((times(&file), times(folder.path())), before);
}

#[test]
fn a_tree_of_two_thousand_levels_is_captured_to_its_end() {
    // As the program does at its start.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, folder.path(), flags, Mode::empty()).unwrap();
    for _ in 0..2001 {
        rustix::fs::mkdirat(&at, "level", Mode::RWXU).unwrap();
        at = openat(&at, "level", flags, Mode::empty()).unwrap();
    }
    rustix::fs::symlinkat("deep", &at, "end").unwrap();
    let taken = take(folder.path(), FilesOptions { exclude: vec!["nothing".into()], ..FilesOptions::default() });
    assert_eq!(taken.kept.len(), 2003);
    let end = [&b"level/".repeat(2001), &b"end"[..]].concat();
    assert_eq!(taken.get(end).node.link_target, b"deep");
    // Taken away from the bottom up, since a path to it would be too long.
    rustix::fs::unlinkat(&at, "end", AtFlags::empty()).unwrap();
    for _ in 0..2001 {
        at = openat(&at, "..", flags, Mode::empty()).unwrap();
        rustix::fs::unlinkat(&at, "level", AtFlags::REMOVEDIR).unwrap();
    }
}

#[test]
fn a_large_directory_is_listed_whole_and_sorted() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..300 {
        fs_err::write(folder.path().join(format!("{}-{number}", "name".repeat(number % 40))), b"").unwrap();
    }
    let dir = open_top(folder.path(), FilesOptions::default());
    for _ in 0..2 {
        let listed = dir.list(&Monitor::new()).unwrap();
        assert_eq!(listed.len(), 300, "also when listed again");
        assert!(listed.is_sorted_by(|a, b| a.node.name < b.node.name));
    }
}

#[test]
fn files_are_read_whole_whatever_the_pieces_and_the_room() {
    let folder = tempfile::tempdir().unwrap();
    for size in [0usize, 1, 2, 99, 100, 101, 4096, 70_000] {
        let content: Vec<u8> = (0..size).map(|i| (i * 7 % 251) as u8).collect();
        fs_err::write(folder.path().join("file"), &content).unwrap();
        let dir = open_top(folder.path(), FilesOptions::default());
        let entry = entry(&*dir, b"file");
        for want in [1usize, 100, 4096, 1 << 20] {
            if want == 1 && size > 5000 {
                continue;
            }
            for room in [0usize, 10, 100, 8192, 100_000] {
                let mut reader = dir.open_file(&entry, &Monitor::new()).unwrap();
                let mut out = Vec::with_capacity(room);
                out.extend_from_slice(&b"kept"[..room.min(4)]);
                let begin = out.len();
                loop {
                    let before = out.len();
                    match reader.read(&mut out, want).unwrap() {
                        lastgood_model::source::Read::Data(n) => assert!(n <= want && out.len() == before + n && n > 0),
                        lastgood_model::source::Read::Hole(_) => panic!("no hole here"),
                        lastgood_model::source::Read::End => break,
                    }
                }
                assert_eq!(out[..begin], b"kept"[..begin]);
                assert!(out[begin..] == content, "size {size} want {want} room {room}");
                let mut node = entry.node.clone();
                assert_eq!(reader.finish(&mut node).unwrap(), Steady::Yes);
                assert_eq!(node, entry.node);
            }
        }
    }
}

#[test]
fn holes_are_told_and_not_read() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse");
    let file = fs_err::File::create(&path).unwrap();
    let mib = 1 << 20;
    file.set_len(100 * mib).unwrap();
    file.file().write_all_at(b"here", 0).unwrap();
    file.file().write_all_at(&[7; 9000], 50 * mib).unwrap();
    drop(file);
    assert!(fs_err::metadata(&path).unwrap().blocks() * 512 < mib, "this file system keeps holes");

    let dir = open_top(folder.path(), FilesOptions::default());
    let entry = entry(&*dir, b"sparse");
    let mut reader = dir.open_file(&entry, &Monitor::new()).unwrap();
    let (content, holes) = read_all(&mut *reader, 1 << 20).unwrap();
    assert_eq!(content.len() as u64, 100 * mib);
    assert!(content == fs_err::read(&path).unwrap());
    let hole_bytes: u64 = holes.iter().map(|h| h.1).sum();
    assert!(holes.len() == 2 && hole_bytes > 99 * mib, "{holes:?}");
    let mut node = entry.node.clone();
    assert_eq!(reader.finish(&mut node).unwrap(), Steady::Yes);
    assert_eq!(node.size, 100 * mib);
}

#[test]
fn a_file_that_is_one_hole_is_one_hole() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::File::create(folder.path().join("f")).unwrap().set_len(1 << 40).unwrap();
    let dir = open_top(folder.path(), FilesOptions::default());
    let mut reader = dir.open_file(&entry(&*dir, b"f"), &Monitor::new()).unwrap();
    let mut out = Vec::new();
    assert_eq!(reader.read(&mut out, 100).unwrap(), lastgood_model::source::Read::Hole(1 << 40));
    assert_eq!(reader.read(&mut out, 100).unwrap(), lastgood_model::source::Read::End);
}

#[test]
fn extended_attributes_are_kept_with_raw_values_in_any_number() {
    let folder = tempfile::tempdir().unwrap();
    let (file, dir) = (folder.path().join("file"), folder.path().join("dir"));
    fs_err::write(&file, b"x").unwrap();
    fs_err::create_dir(&dir).unwrap();
    let value = b"\0\xff raw\n";
    lsetxattr(&file, "user.note", value, XattrFlags::empty()).unwrap();
    lsetxattr(&file, "user.empty", b"", XattrFlags::empty()).unwrap();
    // More names than fit the small buffer.
    let many: Vec<String> = (0..20).map(|n| format!("user.{}{n:02}", "long".repeat(9))).collect();
    for name in &many {
        lsetxattr(&dir, name.as_str(), name.as_bytes(), XattrFlags::empty()).unwrap();
    }
    let taken = take(folder.path(), FilesOptions::default());
    let mut found = taken.get("file").node.xattrs.clone();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let xattr = |name: &str, value: &[u8]| Xattr { name: name.into(), value: value.into() };
    assert_eq!(found, [xattr("user.empty", b""), xattr("user.note", value)]);
    let mut found = taken.get("dir").node.xattrs.clone();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(found, many.iter().map(|n| xattr(n, n.as_bytes())).collect::<Vec<_>>());
}

#[test]
fn access_control_lists_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs_err::write(&file, b"x").unwrap();
    // Version 2, then tag, permissions and id: owner rw, user 1234 r, group r, mask r, others none.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, perm, id) in
        [(0x01u16, 6u16, u32::MAX), (0x02, 4, 1234), (0x04, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)]
    {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&perm.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    lsetxattr(&file, "system.posix_acl_access", &acl, XattrFlags::empty()).unwrap();
    let taken = take(folder.path(), FilesOptions::default());
    let want = Xattr { name: "system.posix_acl_access".into(), value: acl };
    assert_eq!(taken.get("file").node.xattrs, [want]);
}

#[test]
fn a_link_as_configured_path_is_followed_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = fs_err::canonicalize(folder.path()).unwrap();
    fs_err::create_dir_all(root.join("real/inner")).unwrap();
    fs_err::write(root.join("real/inner/file"), b"x").unwrap();
    symlink("real", root.join("tree")).unwrap();
    symlink("real/inner/file", root.join("single")).unwrap();
    let tree = take(&root.join("tree"), FilesOptions::default());
    assert_eq!(tree.get("inner/file").content, b"x");
    let shown = |name: &str| root.join(name).to_str().unwrap().to_owned();
    assert_eq!(tree.captured.facts["followed"][shown("tree")], shown("real"));

    let single = take(&root.join("single"), FilesOptions::default());
    let (path, kept) = single.kept.iter().next().unwrap();
    assert_eq!(path, shown("single").trim_start_matches('/').as_bytes());
    assert_eq!((&*kept.node.name, &*kept.content), (&b"single"[..], &b"x"[..]));
    assert_eq!(single.captured.facts["followed"][shown("single")], shown("real/inner/file"));
}

#[test]
fn a_source_of_which_nothing_is_there_fails_and_the_probe_says_so_before() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none");
    let error = try_take(vec![folder.path().join("."), missing.clone()], FilesOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "one lies in the other: {error:?}");
    let error = try_take(vec![missing.clone()], FilesOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Absent);
    assert!(error.hint().is_some() && error.chain().contains("none"));
    symlink("nowhere", folder.path().join("dangling")).unwrap();
    let error = try_take(vec![folder.path().join("dangling")], FilesOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Absent);
    let both = vec![missing.clone(), folder.path().join("dangling")];
    let error = try_take(both, FilesOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Absent);
    assert!(error.hint().is_some() && error.chain().contains("none of 2 paths"), "{}", error.chain());

    let failures = |paths: Vec<std::path::PathBuf>, exclude: Vec<String>| -> Vec<Finding> {
        let options = FilesOptions { exclude, ..FilesOptions::default() };
        let found = crate::files::FilesSource::new("up", paths, options).unwrap().probe().unwrap();
        found.into_iter().filter(|f| f.level != FindingLevel::Ok && !f.message.contains("root")).collect()
    };
    let found = failures(vec![missing], vec![]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].level, FindingLevel::Failure);
    assert!(failures(vec![folder.path().into()], vec!["x".into()]).is_empty());
    let pattern = format!("{}/cache", folder.path().display());
    assert_eq!(failures(vec![folder.path().into()], vec![pattern]).len(), 1, "a pattern that never matches");
}

#[test]
fn of_several_paths_those_that_are_there_are_captured_and_the_missing_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a/x", "c"] {
        let path = folder.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, name).unwrap();
    }
    let paths = ["a", "b", "c"].map(|p| folder.path().join(p));
    let missing = paths[1].to_str().unwrap().to_owned();
    let taken = try_take(paths.to_vec(), FilesOptions::default()).unwrap();
    assert_eq!(taken.kept.len(), 3, "a, a/x and c: {:?}", taken.kept.keys());
    assert_eq!(taken.problems(), [(ProblemKind::Unreadable, &*missing)]);
    assert!(taken.problems[0].message.contains("No such file"), "{:?}", taken.problems);
    assert_eq!(taken.captured.facts["missing"], serde_json::json!([missing]));
}

#[test]
fn a_folder_without_files_is_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["empty", "full"].map(|p| folder.path().join(p));
    fs_err::create_dir_all(paths[0].join("lost+found")).unwrap();
    fs_err::create_dir_all(&paths[1]).unwrap();
    fs_err::write(paths[1].join("x"), "x").unwrap();
    let taken = try_take(paths.to_vec(), FilesOptions::default()).unwrap();
    assert_eq!(taken.captured.facts["without_files"], serde_json::json!([paths[0].to_str().unwrap()]));
    assert!(taken.problems.is_empty());
    fs_err::write(paths[0].join("x"), "x").unwrap();
    assert!(try_take(paths.to_vec(), FilesOptions::default()).unwrap().captured.facts.is_empty());
}

#[test]
fn several_paths_stand_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a/x", "b/y", "c"] {
        let path = folder.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, name).unwrap();
    }
    let paths = ["a", "c", "b/y"].map(|p| folder.path().join(p)).to_vec();
    let taken = try_take(paths, FilesOptions::default()).unwrap();
    let at = |name: &str| {
        let path = folder.path().join(name);
        taken.kept[path.as_os_str().as_bytes().strip_prefix(b"/").unwrap()].content.clone()
    };
    assert_eq!((at("a/x"), at("b/y"), at("c")), (b"a/x".to_vec(), b"b/y".to_vec(), b"c".to_vec()));
    assert_eq!(taken.kept.len(), 4);
}
