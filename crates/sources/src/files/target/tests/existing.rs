//! What was there before.

use super::*;
use lastgood_model::Xattr;
use std::os::unix::fs::PermissionsExt;

#[test]
fn nothing_is_overwritten_unless_asked() {
    let place = Place::new();
    fs_err::write(place.root().join("f"), b"mine").unwrap();
    let target = place.target(Overwrite::Never, true);
    let monitor = Monitor::new();
    let root = target.root();
    let errors = [
        target.write_small(root, &file("f"), &[b"new"], &monitor).unwrap_err(),
        target.create_file(root, &file("f")).unwrap_err(),
        target.open_existing(root, &file("f")).unwrap_err(),
        target.special(root, &symlink("f", b"t"), &monitor).unwrap_err(),
        target.subdir(root, b"f").unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.message().ends_with("root/f: something is already there"), "{error:?}");
        assert!(error.hint().is_some());
    }
    assert_eq!(fs_err::read(place.root().join("f")).unwrap(), b"mine");
}

#[test]
fn directories_are_merged_and_keep_their_metadata_when_nothing_may_be_overwritten() {
    let place = Place::new();
    let path = place.root().join("d");
    fs_err::create_dir(&path).unwrap();
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o751)).unwrap();
    for (overwrite, mode) in [(Overwrite::Never, 0o751), (Overwrite::IfDifferent, 0o700)] {
        let target = place.target(overwrite, true);
        let dir = target.dir(b"d").unwrap();
        assert!(!dir.is_created());
        target.finish_dir(&dir, &node("d", NodeKind::Dir, 0o700), &Monitor::new()).unwrap();
        assert_eq!(fs_err::metadata(&path).unwrap().mode() & 0o7777, mode);
    }
}

#[test]
fn a_half_restored_file_is_compared_and_completed_in_place() {
    let place = Place::new();
    let path = place.root().join("f");
    fs_err::write(&path, b"right wrong and too long").unwrap();
    rustix::fs::setxattr(&path, "user.stale", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    let inode = fs_err::metadata(&path).unwrap().ino();
    let target = place.target(Overwrite::IfDifferent, true);
    let monitor = Monitor::new();
    let mut want = file("f");
    want.size = 11;
    want.mode = 0o4751;
    want.xattrs = vec![Xattr { name: "user.note".into(), value: b"n".to_vec() }];
    let open = target.open_existing(target.root(), &want).unwrap().unwrap();
    assert!(!open.is_fresh());
    let mut read = [0; 100];
    assert_eq!(open.read_at(0, &mut read).unwrap(), 24);
    assert_eq!(open.read_at(20, &mut read[..3]).unwrap(), 3);
    assert_eq!(open.read_at(24, &mut read).unwrap(), 0);
    open.write_at(6, b"RIGHT").unwrap();
    target.finish_file(&open, &want, &monitor).unwrap();
    assert_no_problems(&monitor);
    assert_is(&path, &want);
    assert_eq!(fs_err::read(&path).unwrap(), b"right RIGHT");
    assert_eq!(fs_err::metadata(&path).unwrap().ino(), inode);
    assert_eq!(xattr_of(&path, "user.stale"), None);

    // A second time there is nothing to do, and nothing is done.
    let before = fs_err::metadata(&path).unwrap();
    let open = target.open_existing(target.root(), &want).unwrap().unwrap();
    want.xattrs.clear();
    want.xattrs.push(Xattr { name: "user.note".into(), value: b"n".to_vec() });
    target.finish_file(&open, &Node { xattrs: vec![], ..want.clone() }, &monitor).unwrap();
    assert_eq!(xattr_of(&path, "user.note"), None);
    let again = target.open_existing(target.root(), &want).unwrap().unwrap();
    let quiet = fs_err::metadata(&path).unwrap();
    target.finish_file(&again, &Node { xattrs: vec![], ..want.clone() }, &monitor).unwrap();
    let after = fs_err::metadata(&path).unwrap();
    assert_eq!((quiet.ctime(), quiet.ctime_nsec()), (after.ctime(), after.ctime_nsec()));
    assert_eq!(before.ino(), after.ino());
}

#[test]
fn a_file_with_other_names_is_replaced_and_the_other_names_keep_their_content() {
    let place = Place::new();
    fs_err::write(place.root().join("f"), b"shared").unwrap();
    fs_err::hard_link(place.root().join("f"), place.outside().join("other")).unwrap();
    let target = place.target(Overwrite::IfDifferent, true);
    let want = Node { size: 3, ..file("f") };
    assert!(target.open_existing(target.root(), &want).unwrap().is_none());
    let fresh = target.create_file(target.root(), &want).unwrap();
    assert!(fresh.is_fresh() && fresh.is_empty().unwrap());
    fresh.write_at(0, b"new").unwrap();
    target.finish_file(&fresh, &want, &Monitor::new()).unwrap();
    assert_eq!(fs_err::read(place.outside().join("other")).unwrap(), b"shared");
    assert_eq!(fs_err::read(place.root().join("f")).unwrap(), b"new");
}

#[test]
fn a_full_directory_gives_way_to_a_file_only_when_extra_entries_may_be_deleted() {
    let place = Place::new();
    fs_err::create_dir_all(place.root().join("full/deep")).unwrap();
    fs_err::create_dir(place.root().join("empty")).unwrap();
    std::os::unix::fs::symlink("../../outside", place.root().join("full/link")).unwrap();
    let before = place.fingerprint();
    let target = place.target(Overwrite::Always, true);
    let monitor = Monitor::new();
    assert_eq!(kind_of(target.write_small(target.root(), &file("full"), &[b"x"], &monitor)), ErrorKind::Conflict);
    assert!(place.root().join("full/deep").is_dir());
    target.write_small(target.root(), &file("empty"), &[b"x"], &monitor).unwrap();

    let options = TargetOptions { overwrite: Overwrite::Always, delete_extra: true, ..TargetOptions::default() };
    let target = Target::open(&place.root(), options).unwrap();
    target.write_small(target.root(), &file("full"), &[b"x"], &monitor).unwrap();
    assert_eq!(fs_err::read(place.root().join("full")).unwrap(), b"x");
    place.assert_outside_untouched(&before);
}

#[test]
fn two_entries_with_one_name_are_a_conflict_even_when_overwriting() {
    let place = Place::new();
    let target = place.target(Overwrite::Always, true);
    let monitor = Monitor::new();
    let dir = target.dir(b"d").unwrap();
    target.write_small(&dir, &file("f"), &[b"first"], &monitor).unwrap();
    assert_eq!(kind_of(target.write_small(&dir, &file("f"), &[b"second"], &monitor)), ErrorKind::Conflict);
    assert_eq!(kind_of(target.subdir(&dir, b"f")), ErrorKind::Conflict);
    assert_eq!(fs_err::read(place.root().join("d/f")).unwrap(), b"first");
}

#[test]
fn extra_entries_are_removed_only_on_request_and_links_not_followed() {
    let place = Place::new();
    let before = place.fingerprint();
    for name in ["d/keep/inner", "d/extra/a/b"] {
        fs_err::create_dir_all(place.root().join(name)).unwrap();
    }
    fs_err::write(place.root().join("d/extra/a/f"), b"x").unwrap();
    std::os::unix::fs::symlink("../../outside", place.root().join("d/l")).unwrap();
    std::os::unix::fs::symlink("../../../outside", place.root().join("d/extra/l")).unwrap();
    let keep = |name: &[u8]| name == b"keep";
    let target = place.target(Overwrite::Always, true);
    assert_eq!(target.remove_extra(&target.dir(b"d").unwrap(), &keep).unwrap(), 0);
    assert!(place.root().join("d/extra/a/f").exists());

    let options = TargetOptions { overwrite: Overwrite::Always, delete_extra: true, ..TargetOptions::default() };
    let target = Target::open(&place.root(), options).unwrap();
    assert_eq!(target.remove_extra(&target.dir(b"d").unwrap(), &keep).unwrap(), 6);
    let names: Vec<_> = fs_err::read_dir(place.root().join("d")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["keep"]);
    assert!(place.root().join("d/keep/inner").is_dir());
    place.assert_outside_untouched(&before);
}

#[test]
fn the_same_link_pipe_and_hard_link_are_kept_on_a_second_run() {
    let place = Place::new();
    let monitor = Monitor::new();
    let fill = |target: &Target| {
        let root = target.root();
        target.special(root, &symlink("l", b"to"), &monitor).unwrap();
        target.special(root, &node("p", NodeKind::Fifo, 0o640), &monitor).unwrap();
        target.hardlink(root, b"f", root, b"h").unwrap();
    };
    fs_err::write(place.root().join("f"), b"x").unwrap();
    fill(&place.target(Overwrite::Never, true));
    let inodes = || ["l", "p", "h"].map(|n| fs_err::symlink_metadata(place.root().join(n)).unwrap().ino());
    let before = inodes();
    let target = place.target(Overwrite::IfDifferent, true);
    fill(&target);
    assert_eq!(inodes(), before);
    target.special(target.root(), &symlink("l", b"elsewhere"), &monitor).unwrap();
    assert_eq!(fs_err::read_link(place.root().join("l")).unwrap(), Path::new("elsewhere"));
    assert_no_problems(&monitor);
}

#[test]
fn a_hole_in_an_existing_file_reads_as_zeros_and_frees_its_blocks() {
    let place = Place::new();
    let path = place.root().join("f");
    fs_err::write(&path, vec![7u8; 1 << 20]).unwrap();
    let target = place.target(Overwrite::Always, true);
    let want = Node { size: 1 << 20, ..file("f") };
    let open = target.open_existing(target.root(), &want).unwrap().unwrap();
    open.hole(4096, 900_000).unwrap();
    open.hole(5, 0).unwrap();
    target.finish_file(&open, &want, &Monitor::new()).unwrap();
    let content = fs_err::read(&path).unwrap();
    assert_eq!(content.len(), 1 << 20);
    assert!(content[..4096].iter().all(|b| *b == 7) && content[904_096..].iter().all(|b| *b == 7));
    assert!(is_zero(&content[4096..904_096]));
    assert!(fs_err::metadata(&path).unwrap().blocks() * 512 < 400_000);
}

#[test]
fn a_busy_program_is_replaced_rather_than_rewritten() {
    let place = Place::new();
    let path = place.root().join("sleep");
    fs_err::copy("/bin/sleep", &path).unwrap();
    let mut child = std::process::Command::new(&path).arg("600").spawn().unwrap();
    let target = place.target(Overwrite::Always, true);
    let open = target.open_existing(target.root(), &file("sleep"));
    let replaced = target.write_small(target.root(), &file("sleep"), &[b"new"], &Monitor::new());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(open.unwrap().is_none());
    replaced.unwrap();
    assert_eq!(fs_err::read(&path).unwrap(), b"new");
}

#[test]
fn an_incomplete_file_is_discarded_but_not_another_of_its_name() {
    let place = Place::new();
    let target = place.target(Overwrite::Never, true);
    let dir = target.dir(b"d").unwrap();
    let open = target.create_file(&dir, &file("f")).unwrap();
    target.discard(&dir, &open).unwrap();
    assert!(!place.root().join("d/f").exists());
    target.discard(&dir, &open).unwrap();
    fs_err::write(place.root().join("d/f"), b"another").unwrap();
    target.discard(&dir, &open).unwrap();
    assert!(place.root().join("d/f").exists());
}
