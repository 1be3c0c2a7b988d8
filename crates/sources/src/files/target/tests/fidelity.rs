//! Metadata comes back as it was, or is reported.

use super::*;
use lastgood_model::Xattr;
use lastgood_model::manifest::ProblemKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

fn xattr(name: &str, value: impl Into<Vec<u8>>) -> Xattr {
    Xattr { name: name.into(), value: value.into() }
}

/// An ACL as the kernel passes it: version 2, then tag, permissions and id of each entry, little-endian
/// (`include/uapi/linux/posix_acl_xattr.h`). Grants `user` what `perm` says beside mode 0640 with mask rw.
fn acl(user: u32, perm: u16) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in
        [(1u16, 6u16, u32::MAX), (2, perm, user), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)]
    {
        value.extend(tag.to_le_bytes());
        value.extend(perm.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// `cap_net_bind_service=ep` in revision 2 of `struct vfs_cap_data`.
fn capability() -> Vec<u8> {
    [0x0200_0001u32, 1 << 10, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect()
}

#[test]
fn every_kind_of_entry_gets_all_its_metadata_back() {
    needs_root();
    for strides in [true, false] {
        let place = Place::new();
        let target = place.target(Overwrite::Never, strides);
        let monitor = Monitor::new();
        let dir = target.dir(b"d").unwrap();
        let owned = |node: Node, xattrs: Vec<Xattr>| Node { uid: 4711, gid: 4712, xattrs, ..node };

        let small = owned(
            node("small", NodeKind::File, 0o6755),
            vec![xattr("user.note", "n"), xattr("user.empty", ""), xattr("security.capability", capability())],
        );
        target.write_small(&dir, &small, &[b"ab", b"", b"cd"], &monitor).unwrap();

        // Bits of the group in a mode with an ACL are the ACL's mask.
        let mut large = owned(
            node("large", NodeKind::File, 0o660),
            vec![xattr("system.posix_acl_access", acl(1234, 6)), xattr("trusted.t", vec![0, 255, 1])],
        );
        large.size = 10;
        let open = target.create_file(&dir, &large).unwrap();
        open.write_at(5, b"later").unwrap();
        open.write_at(0, b"early").unwrap();
        target.finish_file(&open, &large, &monitor).unwrap();

        let mut readonly = owned(node("readonly", NodeKind::File, 0o000), vec![xattr("user.note", "n")]);
        readonly.mtime = Time::new(-1, 999_999_999);
        target.write_small(&dir, &readonly, &[], &monitor).unwrap();

        let link = owned(symlink("link", b"\xff dangling\n"), vec![xattr("trusted.t", "on the link")]);
        let fifo = owned(node("fifo", NodeKind::Fifo, 0o660), vec![xattr("system.posix_acl_access", acl(99, 2))]);
        let socket = owned(node("socket", NodeKind::Socket, 0o711), vec![]);
        let mut null = owned(node("null", NodeKind::CharDevice, 0o666), vec![xattr("trusted.t", "d")]);
        null.device = rustix::fs::makedev(1, 3);
        let mut block = owned(node("block", NodeKind::BlockDevice, 0o4600), vec![]);
        block.device = rustix::fs::makedev(259, 70_000);
        for special in [&link, &fifo, &socket, &null, &block] {
            assert!(target.special(&dir, special, &monitor).unwrap());
        }
        target.hardlink(&dir, b"large", &dir, b"hard").unwrap();

        let folder = owned(
            node("d", NodeKind::Dir, 0o3770),
            vec![xattr("system.posix_acl_default", acl(77, 4)), xattr("user.note", "dir")],
        );
        target.finish_dir(&dir, &folder, &monitor).unwrap();

        assert_no_problems(&monitor);
        let at = |name: &str| place.root().join("d").join(name);
        for (name, node) in [
            ("small", &small),
            ("large", &large),
            ("hard", &large),
            ("readonly", &readonly),
            ("link", &link),
            ("fifo", &fifo),
            ("socket", &socket),
            ("null", &null),
            ("block", &block),
            ("", &folder),
        ] {
            assert_is(&at(name), node);
        }
        let meta = |name| fs_err::symlink_metadata(at(name)).unwrap();
        assert_eq!(fs_err::read(at("small")).unwrap(), b"abcd");
        assert_eq!(fs_err::read(at("hard")).unwrap(), b"earlylater");
        assert_eq!((meta("hard").ino(), meta("hard").nlink()), (meta("large").ino(), 2));
        assert_eq!(fs_err::read_link(at("link")).unwrap().as_os_str().as_bytes(), b"\xff dangling\n");
        assert!(meta("fifo").file_type().is_fifo() && meta("socket").file_type().is_socket());
        assert!(meta("null").file_type().is_char_device() && meta("block").file_type().is_block_device());
        assert_eq!((meta("null").rdev(), meta("block").rdev()), (null.device, block.device));
    }
}

#[test]
fn an_existing_file_is_rewritten_only_when_it_is_ours_or_will_be_its_owners_and_keeps_setuid() {
    needs_root();
    let place = Place::new();
    let monitor = Monitor::new();
    let target = place.target(Overwrite::IfDifferent, true);
    let want = Node { uid: 4711, gid: 4712, size: 1, ..node("f", NodeKind::File, 0o6755) };
    let path = place.root().join("f");
    for (owner, rewritten) in [(0, true), (4711, true), (4713, false)] {
        fs_err::write(&path, b"x").unwrap();
        std::os::unix::fs::chown(&path, Some(owner), Some(0)).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o6755)).unwrap();
        let open = target.open_existing(target.root(), &want).unwrap();
        assert_eq!(open.is_some(), rewritten, "owner {owner}");
        let open = open.unwrap_or_else(|| target.create_file(target.root(), &want).unwrap());
        assert_eq!(open.is_fresh(), !rewritten);
        target.finish_file(&open, &want, &monitor).unwrap();
        assert_is(&path, &want);
    }
    assert_no_problems(&monitor);
}

#[test]
fn acls_inherited_from_a_directory_that_was_there_are_not_kept() {
    needs_root();
    let place = Place::new();
    let default = acl(4711, 7);
    rustix::fs::setxattr(place.root(), "system.posix_acl_default", &default, rustix::fs::XattrFlags::empty()).unwrap();
    fs_err::set_permissions(place.root(), std::fs::Permissions::from_mode(0o2755)).unwrap();
    std::os::unix::fs::chown(place.root(), None, Some(4712)).unwrap();
    let target = place.target(Overwrite::Never, true);
    let monitor = Monitor::new();
    let with_acl = Node {
        mode: 0o660,
        xattrs: vec![xattr("system.posix_acl_access", acl(99, 4))],
        ..node("acl", NodeKind::File, 0)
    };
    let (plain, fifo) = (file("plain"), node("fifo", NodeKind::Fifo, 0o644));
    let (d, below) = (node("d", NodeKind::Dir, 0o755), file("below"));
    target.write_small(target.root(), &plain, &[b"x"], &monitor).unwrap();
    target.write_small(target.root(), &with_acl, &[b"x"], &monitor).unwrap();
    target.special(target.root(), &fifo, &monitor).unwrap();
    let dir = target.subdir(target.root(), b"d").unwrap();
    target.write_small(&dir, &below, &[b"x"], &monitor).unwrap();
    target.finish_dir(&dir, &d, &monitor).unwrap();
    assert_no_problems(&monitor);
    for (path, node) in [("plain", &plain), ("acl", &with_acl), ("fifo", &fifo), ("d", &d), ("d/below", &below)] {
        let path = place.root().join(path);
        assert_is(&path, node);
        let acl = xattr_of(&path, "system.posix_acl_access");
        assert_eq!(acl, node.xattrs.first().map(|x| x.value.clone()), "{path:?}");
        assert_eq!(xattr_of(&path, "system.posix_acl_default"), None, "{path:?}");
    }
}

#[test]
fn an_acl_that_disagrees_with_the_mode_does_not_widen_it() {
    let place = Place::new();
    let target = place.target(Overwrite::Never, true);
    let monitor = Monitor::new();
    let tight = Node { xattrs: vec![xattr("system.posix_acl_access", acl(99, 6))], ..node("f", NodeKind::File, 0o600) };
    target.write_small(target.root(), &tight, &[], &monitor).unwrap();
    assert_no_problems(&monitor);
    assert_eq!(fs_err::metadata(place.root().join("f")).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn setuid_is_left_off_and_reported_when_the_owner_is_not_the_recorded_one() {
    let place = Place::new();
    let options = TargetOptions { owners: OwnerPolicy::Skip, ..TargetOptions::default() };
    let target = Target::open(&place.root(), options).unwrap();
    let monitor = Monitor::new();
    let own = node("own", NodeKind::File, 0o6755);
    let foreign = Node { uid: own.uid + 1, gid: own.gid + 1, ..node("foreign", NodeKind::File, 0o6755) };
    target.write_small(target.root(), &own, &[], &monitor).unwrap();
    assert_no_problems(&monitor);
    target.write_small(target.root(), &foreign, &[], &monitor).unwrap();
    assert_is(&place.root().join("own"), &own);
    assert_is(&place.root().join("foreign"), &Node { mode: 0o755, uid: own.uid, gid: own.gid, ..foreign.clone() });
    let (problems, _) = monitor.problems();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].what, ProblemKind::Metadata);
    assert!(problems[0].path.ends_with("root/foreign"), "{problems:?}");
}

#[test]
fn the_owner_number_that_means_nobody_is_reported_and_changes_nothing() {
    let place = Place::new();
    let options = TargetOptions { owners: OwnerPolicy::Numeric, ..TargetOptions::default() };
    let target = Target::open(&place.root(), options).unwrap();
    let monitor = Monitor::new();
    let own = file("f");
    let hostile = Node { uid: u32::MAX, gid: u32::MAX, mode: 0o4755, ..file("f") };
    target.write_small(target.root(), &hostile, &[b"kept"], &monitor).unwrap();
    assert_is(&place.root().join("f"), &Node { uid: own.uid, gid: own.gid, mode: 0o755, ..hostile });
    assert_eq!(monitor.problems().1, 2, "{:?}", monitor.problems());
}

#[test]
fn hostile_attributes_and_times_are_reported_or_clamped_and_the_content_is_kept() {
    let place = Place::new();
    let target = place.target(Overwrite::Never, true);
    let monitor = Monitor::new();
    let mut bad = file("f");
    bad.mode = u32::MAX;
    bad.mtime = Time { secs: i64::MAX, nanos: u32::MAX };
    bad.atime = Time { secs: i64::MIN, nanos: (1 << 30) - 1 };
    let too_long = format!("user.{}", "n".repeat(300));
    bad.xattrs = vec![
        xattr("user.a\0b", "nul in the name"),
        xattr("", "no name"),
        xattr("nonsense", "no namespace"),
        xattr(&too_long, "x"),
        xattr("user.huge", vec![1; 1 << 17]),
        xattr("system.posix_acl_access", vec![1, 2, 3]),
        xattr("user.good", "g"),
    ];
    target.write_small(target.root(), &bad, &[b"kept"], &monitor).unwrap();
    let path = place.root().join("f");
    assert_eq!(fs_err::read(&path).unwrap(), b"kept");
    assert_eq!(xattr_of(&path, "user.good").unwrap(), b"g");
    assert_eq!(monitor.problems().1, 6, "{:?}", monitor.problems());
}

#[test]
fn device_nodes_are_reported_when_not_asked_for() {
    let place = Place::new();
    let target = Target::open(&place.root(), TargetOptions { devices: false, ..TargetOptions::default() }).unwrap();
    let monitor = Monitor::new();
    let null = Node { device: rustix::fs::makedev(1, 3), ..node("null", NodeKind::CharDevice, 0o666) };
    assert!(!target.special(target.root(), &null, &monitor).unwrap());
    assert!(!place.root().join("null").exists());
    assert_eq!(monitor.problems().0[0].what, ProblemKind::Unsupported);
}

#[test]
fn attributes_are_left_out_when_not_wanted() {
    let place = Place::new();
    let target = Target::open(&place.root(), TargetOptions { xattrs: false, ..TargetOptions::default() }).unwrap();
    let monitor = Monitor::new();
    let noted = Node { xattrs: vec![xattr("user.note", "n")], ..file("f") };
    target.write_small(target.root(), &noted, &[], &monitor).unwrap();
    assert_no_problems(&monitor);
    assert_eq!(xattr_of(&place.root().join("f"), "user.note"), None);
}
