//! Nothing lands outside the root.

use super::*;
use std::os::unix::fs::symlink as plant;
use std::sync::atomic::AtomicBool;

/// Tells the attacker to stop, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn hostile_names_are_refused_by_every_call() {
    let place = Place::new();
    let before = place.fingerprint();
    let target = place.target(Overwrite::Always, true);
    let monitor = Monitor::new();
    let dir = target.dir(b"d").unwrap();
    target.write_small(&dir, &file("good"), &[b"x"], &monitor).unwrap();
    let escapes =
        ["..", "../outside", "../outside/secret", "/etc", "/", "a/b", "a/", "/a", "good/..", "./good", ".", ""];
    let nul = ["\0", "a\0", "a\0/../../outside", "..\0"];
    for name in escapes.into_iter().chain(nul) {
        let name = name.as_bytes();
        assert_eq!(kind_of(target.subdir(&dir, name)), ErrorKind::Invalid, "{name:?}");
        assert_eq!(kind_of(target.existing(&dir, name)), ErrorKind::Invalid, "{name:?}");
        assert_eq!(kind_of(target.create_file(&dir, &file(name))), ErrorKind::Invalid, "{name:?}");
        assert_eq!(kind_of(target.open_existing(&dir, &file(name))), ErrorKind::Invalid, "{name:?}");
        assert_eq!(kind_of(target.write_small(&dir, &file(name), &[b"x"], &monitor)), ErrorKind::Invalid, "{name:?}");
        assert_eq!(kind_of(target.hardlink(&dir, b"good", &dir, name)), ErrorKind::Invalid, "{name:?}");
        assert_eq!(kind_of(target.hardlink(&dir, name, &dir, b"new")), ErrorKind::Invalid, "{name:?}");
        for kind in [NodeKind::Symlink, NodeKind::Fifo, NodeKind::Socket, NodeKind::CharDevice, NodeKind::BlockDevice] {
            let special = Node { link_target: b"t".to_vec(), ..node(name, kind, 0o644) };
            if !target.options().devices && matches!(kind, NodeKind::CharDevice | NodeKind::BlockDevice) {
                continue;
            }
            assert_eq!(kind_of(target.special(&dir, &special, &monitor)), ErrorKind::Invalid, "{name:?} {kind:?}");
        }
    }
    for path in ["..", "../outside", "a/../../outside", "a/..", "/outside", "//", "a//b", "a/", "a/./b", "a/\0/b", "."]
    {
        for strides in [true, false] {
            target.strides.store(strides, Ordering::Relaxed);
            assert_eq!(kind_of(target.dir(path.as_bytes())), ErrorKind::Invalid, "{path:?}");
        }
    }
    let names: Vec<_> = fs_err::read_dir(place.root().join("d")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["good"]);
    assert!(!place.root().join("a").exists(), "a refused path makes nothing");
    place.assert_outside_untouched(&before);
}

#[test]
fn a_link_planted_as_a_directory_is_a_conflict_or_is_replaced_and_never_followed() {
    for overwrite in [Overwrite::Never, Overwrite::IfDifferent, Overwrite::Always] {
        for strides in [true, false] {
            for (at, to) in [("l", "../outside"), ("a/l", "../../outside"), ("a/b/l", "ABSOLUTE"), ("a/b/c/l", "loop")]
            {
                let place = Place::new();
                let before = place.fingerprint();
                fs_err::create_dir_all(place.root().join("a/b/c")).unwrap();
                let link = place.root().join(at);
                match to {
                    "ABSOLUTE" => plant(place.outside(), &link).unwrap(),
                    "loop" => plant("l", &link).unwrap(),
                    to => plant(to, &link).unwrap(),
                }
                let target = place.target(overwrite, strides);
                for below in ["", "/x", "/x/y"] {
                    let result = target.dir(format!("{at}{below}").as_bytes());
                    if overwrite == Overwrite::Never {
                        let error = result.unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::Conflict);
                        assert!(error.message().contains(at), "{error:?} names the path");
                        assert!(fs_err::symlink_metadata(&link).unwrap().is_symlink());
                    } else {
                        let dir = result.unwrap();
                        target.write_small(&dir, &file("secret"), &[b"new"], &Monitor::new()).unwrap();
                        assert!(fs_err::symlink_metadata(&link).unwrap().is_dir());
                    }
                }
                place.assert_outside_untouched(&before);
            }
        }
    }
}

#[test]
fn a_link_planted_as_a_final_name_is_a_conflict_or_is_replaced_and_never_followed() {
    for overwrite in [Overwrite::Never, Overwrite::Always] {
        for to in ["../outside/secret", "../outside/new", "../outside", "nowhere", "self"] {
            let place = Place::new();
            let before = place.fingerprint();
            let target = place.target(overwrite, true);
            let monitor = Monitor::new();
            let dir = target.root();
            target.write_small(&target.dir(b"d").unwrap(), &file("first"), &[b"first"], &monitor).unwrap();
            for name in ["small", "large", "link", "fifo", "hard", "self"] {
                plant(to, place.root().join(name)).unwrap();
            }
            assert_eq!(target.existing(dir, b"small").unwrap().unwrap().kind, NodeKind::Symlink);
            if overwrite == Overwrite::Never {
                assert_eq!(kind_of(target.open_existing(dir, &file("small"))), ErrorKind::Conflict);
            } else {
                assert!(target.open_existing(dir, &file("small")).unwrap().is_none());
            }
            let results = [
                target.write_small(dir, &file("small"), &[b"new"], &monitor),
                target.create_file(dir, &file("large")).and_then(|f| f.write_at(0, b"new")),
                target.special(dir, &symlink("link", b"elsewhere"), &monitor).map(drop),
                target.special(dir, &node("fifo", NodeKind::Fifo, 0o600), &monitor).map(drop),
                target.hardlink(&target.dir(b"d").unwrap(), b"first", dir, b"hard"),
            ];
            for result in results {
                match overwrite {
                    Overwrite::Never => assert_eq!(kind_of(result), ErrorKind::Conflict),
                    _ => result.unwrap(),
                }
            }
            if overwrite == Overwrite::Always {
                assert_eq!(fs_err::read(place.root().join("small")).unwrap(), b"new");
                assert_eq!(fs_err::read(place.root().join("hard")).unwrap(), b"first");
                assert_eq!(fs_err::read_link(place.root().join("link")).unwrap(), Path::new("elsewhere"));
            }
            place.assert_outside_untouched(&before);
        }
    }
}

#[test]
fn a_hard_link_to_a_planted_link_names_the_link_and_not_the_file_outside() {
    let place = Place::new();
    let before = place.fingerprint();
    let target = place.target(Overwrite::Always, true);
    plant("../outside/secret", place.root().join("planted")).unwrap();
    target.hardlink(target.root(), b"planted", target.root(), b"second").unwrap();
    assert!(fs_err::symlink_metadata(place.root().join("second")).unwrap().is_symlink());
    place.assert_outside_untouched(&before);
}

#[test]
fn a_snapshot_cannot_plant_a_link_and_then_write_through_it() {
    let place = Place::new();
    let before = place.fingerprint();
    for strides in [true, false] {
        let target = place.target(Overwrite::Always, strides);
        let dir = target.dir(if strides { b"d1" } else { b"d2" }).unwrap();
        target.special(&dir, &symlink("l", b"../../outside"), &Monitor::new()).unwrap();
        assert_eq!(kind_of(target.subdir(&dir, b"l")), ErrorKind::Conflict);
        assert_eq!(kind_of(target.create_file(&dir, &file("l"))), ErrorKind::Conflict);
    }
    place.assert_outside_untouched(&before);
}

#[test]
fn a_parked_directory_that_was_replaced_is_not_reopened() {
    for strides in [true, false] {
        let place = Place::new();
        let before = place.fingerprint();
        let target = place.target(Overwrite::Always, strides);
        let parked = target.dir(b"a/b/c").unwrap().park();
        let same = target.reopen(&parked).unwrap();
        assert!(same.is_created());
        drop(same);
        let b = place.root().join("a/b");
        fs_err::rename(&b, place.root().join("a/moved")).unwrap();
        assert_eq!(kind_of(target.reopen(&parked)), ErrorKind::Absent);
        fs_err::create_dir_all(b.join("c")).unwrap();
        assert_eq!(kind_of(target.reopen(&parked)), ErrorKind::Conflict, "another directory by the same name");
        fs_err::remove_dir_all(&b).unwrap();
        plant("moved", &b).unwrap();
        assert_eq!(kind_of(target.reopen(&parked)), ErrorKind::Conflict, "the same one, but through a link");
        place.assert_outside_untouched(&before);
    }
}

#[test]
fn swapping_a_directory_for_a_link_while_files_are_made_reaches_nothing_outside() {
    for strides in [true, false] {
        let place = Place::new();
        fs_err::create_dir_all(place.root().join("a/d/e")).unwrap();
        fs_err::create_dir(place.outside().join("e")).unwrap();
        plant("../../outside", place.root().join("a/trap")).unwrap();
        let before = place.fingerprint();
        let e_before = fs_err::metadata(place.outside().join("e")).unwrap();
        let stop = AtomicBool::new(false);
        let (mut made, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let swap = || {
                    let (root, exchange) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
                    rustix::fs::renameat_with(
                        root,
                        place.root().join("a/d"),
                        root,
                        place.root().join("a/trap"),
                        exchange,
                    )
                };
                // Both states last between no time and several turns of the other thread, in no pattern.
                let mut state = 0x9e37_79b9_7f4a_7c15u64;
                while !stop.load(Ordering::Relaxed) {
                    swap().unwrap();
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    for _ in 0..state % 30_000 {
                        std::hint::spin_loop();
                    }
                }
            });
            let _stop = Stop(&stop);
            // Nothing may be overwritten, so that the link is refused and not cleared away.
            let target = place.target(Overwrite::Never, strides);
            let monitor = Monitor::new();
            for turn in 0..2_000_000 {
                if made >= 100 && refused >= 50 {
                    break;
                }
                target.strides.store(strides, Ordering::Relaxed);
                let Ok(dir) = target.dir(b"a/d/e") else {
                    refused += 1;
                    continue;
                };
                let name = format!("f{turn}");
                target.write_small(&dir, &file(name.clone()), &[b"x"], &monitor).unwrap();
                target.special(&dir, &symlink(format!("l{turn}"), b"t"), &monitor).unwrap();
                target.hardlink(&dir, name.as_bytes(), &dir, format!("h{turn}").as_bytes()).unwrap();
                target.subdir(&dir, format!("s{turn}").as_bytes()).unwrap();
                target.reopen(&dir.park()).ok();
                made += 1;
            }
        });
        assert!(made >= 100 && refused >= 50, "the race was run: {made} made, {refused} refused");
        place.assert_outside_untouched(&before);
        let e_after = fs_err::metadata(place.outside().join("e")).unwrap();
        assert_eq!(fs_err::read_dir(place.outside().join("e")).unwrap().count(), 0);
        assert_eq!((e_before.ctime(), e_before.ctime_nsec()), (e_after.ctime(), e_after.ctime_nsec()));
    }
}

#[test]
fn overwriting_against_a_swapping_attacker_reaches_nothing_outside() {
    let place = Place::new();
    let before = place.fingerprint();
    let stop = AtomicBool::new(false);
    let mut rounds = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let names = ["d", "f", "p"].map(|name| place.root().join(name));
            while !stop.load(Ordering::Relaxed) {
                for (name, to) in names.iter().zip(["../outside", "../outside/secret", "../outside/secret"]) {
                    fs_err::remove_file(name).ok();
                    plant(to, name).ok();
                    fs_err::remove_file(name).ok();
                    fs_err::hard_link(place.root().join("decoy"), name).ok();
                }
            }
        });
        let _stop = Stop(&stop);
        let target = place.target(Overwrite::Always, true);
        let monitor = Monitor::new();
        fs_err::write(place.root().join("decoy"), b"decoy").unwrap();
        for _ in 0..800 {
            if let Ok(dir) = target.subdir(target.root(), b"d") {
                target.write_small(&dir, &file("secret"), &[b"new"], &monitor).ok();
                target.finish_dir(&dir, &node("d", NodeKind::Dir, 0o777), &monitor).unwrap();
                target.remove_extra(target.root(), &|name| name != b"d").unwrap();
                drop(dir);
                remove::remove_tree(target.root().fd.as_fd(), b"d").ok();
                rounds += 1;
            }
            target.write_small(target.root(), &file("f"), &[b"new"], &monitor).ok();
            if let Ok(Some(existing)) = target.open_existing(target.root(), &file("f")) {
                existing.write_at(0, b"NEW").unwrap();
            }
            target.special(target.root(), &node("p", NodeKind::Fifo, 0o666), &monitor).ok();
        }
    });
    assert!(rounds >= 50, "the race was run: {rounds} rounds");
    place.assert_outside_untouched(&before);
    assert_eq!(fs_err::read(place.root().join("decoy")).unwrap(), b"decoy", "the other name of a file in the way");
    let mode = fs_err::metadata(place.root().join("decoy")).unwrap().mode() & 0o7777;
    assert_ne!(mode, 0o666, "a pipe's mode went to the pipe");
}
