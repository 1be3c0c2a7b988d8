//! Odd names, deep trees, sparse and concurrent files, removal.

use super::*;
use std::ffi::OsStr;

#[test]
fn a_tree_deeper_than_any_path_can_name_is_made_reopened_and_removed() {
    const LEVELS: usize = 3000;
    for strides in [true, false] {
        let place = Place::new();
        let target = place.target(Overwrite::Never, strides);
        let monitor = Monitor::new();
        let path = ["0123456789"; LEVELS].join("/");
        let made = target.dir(path.as_bytes()).unwrap();
        assert!(made.is_created());
        target.write_small(&made, &file("deep"), &[b"down here"], &monitor).unwrap();
        let parked = made.park();
        drop(made);
        let again = target.reopen(&parked).unwrap();
        target.write_small(&again, &file("second"), &[b"x"], &monitor).unwrap();
        let found = target.dir(path.as_bytes()).unwrap();
        assert!(!found.is_created());
        assert_eq!(target.existing(&found, b"deep").unwrap().unwrap().size, 9);
        assert_eq!(found.path_of(b"deep").len(), place.root().as_os_str().len() + LEVELS * 11 + 5);
        target.finish_dir(&again, &node("0123456789", NodeKind::Dir, 0o755), &monitor).unwrap();
        assert_no_problems(&monitor);
        assert_eq!(remove::remove_tree(target.root().fd.as_fd(), b"0123456789").unwrap(), LEVELS as u64 + 2);
        assert_eq!(fs_err::read_dir(place.root()).unwrap().count(), 0);
    }
}

#[test]
fn names_of_any_bytes_and_of_full_length_are_kept_exactly() {
    let place = Place::new();
    let target = place.target(Overwrite::Never, true);
    let monitor = Monitor::new();
    let names: [&[u8]; 8] =
        [&[0xff; 255], &[b'a'; 255], b"new\nline", b"\x1b[2J", b"...", b"-rf", "\u{202e}rtl".as_bytes(), b"\\x5c"];
    for name in names {
        let dir = target.subdir(target.root(), name).unwrap();
        target.write_small(&dir, &file(name), &[name], &monitor).unwrap();
        let path = place.root().join(OsStr::from_bytes(name)).join(OsStr::from_bytes(name));
        assert_eq!(fs_err::read(path).unwrap(), name);
        assert_eq!(dir.path_of(b""), [place.root().as_os_str().as_bytes(), b"/", name].concat());
    }
    let error = target.write_small(target.root(), &file([b'a'; 256]), &[], &monitor).unwrap_err();
    assert!(error.chain().contains("name too long") || error.chain().contains("File name too long"), "{error:?}");
}

#[test]
fn ranges_not_written_are_holes_also_at_the_end() {
    let place = Place::new();
    let target = place.target(Overwrite::Never, true);
    let monitor = Monitor::new();
    let want = Node { size: 64 << 20, ..file("sparse") };
    let open = target.create_file(target.root(), &want).unwrap();
    open.hole(0, 1 << 20).unwrap();
    open.write_at(1 << 20, b"island").unwrap();
    open.hole((1 << 20) + 6, (63 << 20) - 6).unwrap();
    target.finish_file(&open, &want, &monitor).unwrap();
    let meta = fs_err::metadata(place.root().join("sparse")).unwrap();
    assert_eq!(meta.len(), want.size);
    assert!(meta.blocks() * 512 <= 64 << 10, "{} blocks", meta.blocks());
    assert_is(&place.root().join("sparse"), &want);
    let content = fs_err::read(place.root().join("sparse")).unwrap();
    assert!(is_zero(&content[..1 << 20]) && is_zero(&content[(1 << 20) + 6..]));
    assert_eq!(&content[1 << 20..(1 << 20) + 6], b"island");
}

#[test]
fn a_length_no_file_can_have_is_an_error() {
    let place = Place::new();
    let target = place.target(Overwrite::Never, true);
    let want = Node { size: u64::MAX, ..file("f") };
    let open = target.create_file(target.root(), &want).unwrap();
    assert!(target.finish_file(&open, &want, &Monitor::new()).is_err());
    assert!(open.write_at(u64::MAX - 1, b"abc").is_err());
}

#[test]
fn threads_write_parts_of_one_file_and_files_of_one_directory() {
    const PART: usize = 100_000;
    let place = Place::new();
    let target = place.target(Overwrite::Never, true);
    let monitor = Monitor::new();
    let dir = Arc::new(target.dir(b"d").unwrap());
    let want = Node { size: 16 * PART as u64, ..file("large") };
    let large = target.create_file(&dir, &want).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (target, monitor, dir, large) = (&target, &monitor, Arc::clone(&dir), &large);
            scope.spawn(move || {
                for part in (0..16u8).filter(|part| part % 4 == thread) {
                    large.write_at(u64::from(part) * PART as u64, &[part + 1; PART]).unwrap();
                    target.write_small(&dir, &file(format!("s{part}")), &[&[part]], monitor).unwrap();
                }
            });
        }
    });
    target.finish_file(&large, &want, &monitor).unwrap();
    assert_no_problems(&monitor);
    let content = fs_err::read(place.root().join("d/large")).unwrap();
    for (part, bytes) in content.chunks(PART).enumerate() {
        assert!(bytes.iter().all(|b| usize::from(*b) == part + 1), "part {part}");
        assert_eq!(fs_err::read(place.root().join(format!("d/s{part}"))).unwrap(), [part as u8]);
    }
    target.sync().unwrap();
}

#[test]
fn more_parts_than_one_call_takes_are_written_in_order() {
    let place = Place::new();
    let target = place.target(Overwrite::Never, true);
    let parts: Vec<Vec<u8>> = (0..3000usize).map(|n| vec![n as u8; n % 7]).collect();
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    target.write_small(target.root(), &file("f"), &slices, &Monitor::new()).unwrap();
    assert_eq!(fs_err::read(place.root().join("f")).unwrap(), parts.concat());
}

#[test]
fn a_small_file_that_cannot_be_written_whole_is_removed() {
    let place = Place::new();
    let target = place.target(Overwrite::Never, true);
    // A limit on file size stands in for a full disk; the write is cut short there and then refused.
    if std::env::var_os("LASTGOOD_TEST_LIMITED").is_none() {
        let test = "shape::a_small_file_that_cannot_be_written_whole_is_removed";
        let test = format!("{}::{test}", module_path!().rsplit_once("::").unwrap().0.split_once("::").unwrap().1);
        // SIGXFSZ would end the process; the shell's `trap ''` has it ignored below.
        let output = std::process::Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact \"$1\""])
            .arg(std::env::current_exe().unwrap())
            .arg(test)
            .env("LASTGOOD_TEST_LIMITED", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let half = vec![1; 40 << 10];
    for parts in [&[&half[..], &half[..]][..], &[&[half.clone(), half.clone()].concat()[..]][..]] {
        let error = target.write_small(target.root(), &file("f"), parts, &Monitor::new()).unwrap_err();
        assert!(error.message().starts_with("write ") && error.hint().is_none(), "{error:?}");
        assert!(!place.root().join("f").exists());
    }
}

#[test]
fn only_all_zero_is_zero() {
    for length in [0, 1, 7, 4096, 16 * 1024, 16 * 1024 + 1, 1 << 20] {
        let mut data = vec![0; length];
        assert!(is_zero(&data), "{length}");
        for at in [0, length / 2, length.saturating_sub(1)] {
            if at < length {
                data[at] = 1;
                assert!(!is_zero(&data), "{at} of {length}");
                data[at] = 0;
            }
        }
    }
}

#[test]
fn a_scratch_directory_is_private_unique_and_removed_without_following_links() {
    let place = Place::new();
    let first = Scratch::create(&place.root(), "drill").unwrap();
    let second = Scratch::create(&place.root(), "drill").unwrap();
    assert_ne!(first.path(), second.path());
    assert!(first.path().is_absolute());
    assert_eq!(fs_err::metadata(first.path()).unwrap().mode() & 0o7777, 0o700);
    let before = place.fingerprint();
    std::os::unix::fs::symlink(place.outside(), first.path().join("link")).unwrap();
    fs_err::create_dir_all(first.path().join("a/b")).unwrap();
    std::os::unix::fs::symlink("/", first.path().join("a/b/root")).unwrap();
    let path = first.path().to_owned();
    assert_eq!(first.remove().unwrap(), 5);
    assert!(!path.exists());

    let path = second.path().to_owned();
    drop(second);
    assert!(!path.exists(), "dropping removes too");
    let kept = Scratch::create(&place.root(), "drill").unwrap().keep();
    assert!(kept.is_dir());
    for prefix in ["", "..", "a/b", "/"] {
        assert_eq!(kind_of(Scratch::create(&place.root(), prefix)), ErrorKind::Invalid);
    }
    place.assert_outside_untouched(&before);
}

#[test]
fn a_scratch_directory_that_was_swapped_is_left_alone() {
    let place = Place::new();
    let before = place.fingerprint();
    for swap_for_link in [true, false] {
        let scratch = Scratch::create(&place.root(), "drill").unwrap();
        let path = scratch.path().to_owned();
        fs_err::rename(&path, place.root().join(format!("moved-{swap_for_link}"))).unwrap();
        if swap_for_link {
            std::os::unix::fs::symlink(place.outside(), &path).unwrap();
        } else {
            fs_err::create_dir(&path).unwrap();
        }
        assert_eq!(kind_of(scratch.remove()), ErrorKind::Conflict);
        assert!(fs_err::symlink_metadata(&path).is_ok());
    }
    place.assert_outside_untouched(&before);
}

#[test]
fn a_mount_below_is_neither_entered_nor_emptied() {
    needs_root();
    let place = Place::new();
    let before = place.fingerprint();
    let mount = place.root().join("tree/mount");
    fs_err::create_dir_all(&mount).unwrap();
    // In a mount namespace of its own, so that nothing is left behind whatever happens.
    if std::env::var_os("LASTGOOD_TEST_UNSHARED").is_none() {
        let test = "shape::a_mount_below_is_neither_entered_nor_emptied";
        let test = format!("{}::{test}", module_path!().rsplit_once("::").unwrap().0.split_once("::").unwrap().1);
        let output = std::process::Command::new("unshare")
            .arg("--mount")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &test])
            .env("LASTGOOD_TEST_UNSHARED", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let bound = std::process::Command::new("mount").arg("--bind").arg(place.outside()).arg(&mount).status().unwrap();
    assert!(bound.success());
    let target = place.target(Overwrite::Always, true);
    assert_eq!(kind_of(remove::remove_tree(target.root().fd.as_fd(), b"tree")), ErrorKind::Conflict);
    assert_eq!(fs_err::read(mount.join("secret")).unwrap(), b"secret");
    assert!(std::process::Command::new("umount").arg(&mount).status().unwrap().success());
    place.assert_outside_untouched(&before);
}
