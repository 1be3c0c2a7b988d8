//! Recovery points from one repository into another: all of them, only what is missing, and through every misfortune.

use crate::rig::{Rig, Saved, clock_off_by, contents, pack_ids, save};
use crate::stale::StaleStore;
use lastgood_model::source::Chunking;
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{ErrorKind, Monitor, Result, SnapshotId};
use lastgood_repo::copy::{CopyOptions, CopyReport, PointState, copy};
use lastgood_repo::crypto::Password;
use lastgood_repo::gc::{PruneOptions, prune};
use lastgood_repo::lock::system_clock;
use lastgood_repo::{LockMode, OpenOptions, Repository};
use lastgood_stores::{Fault, FaultStore, MemoryStore, Op, RecordStore};
use lastgood_testkit::rng::Rng;
use std::sync::Arc;

const LATER: i64 = 31 * 60;

/// A repository that shares the key material of another.
fn twin(of: &Rig) -> Rig {
    let (store, password) = (MemoryStore::new(), Password::generate().unwrap());
    let options = OpenOptions::default();
    let made = Repository::init_copy_of(&of.open(), Arc::new(store.clone()), &password, options).unwrap();
    assert_ne!(made.id(), of.open().id());
    Rig { store, password }
}

fn run(from: &Rig, to: &Rig, wanted: &[SnapshotId]) -> CopyReport {
    copy(&from.open(), &to.open(), wanted, &Monitor::new(), CopyOptions::default()).unwrap()
}

fn states(report: &CopyReport) -> Vec<PointState> {
    report.points.iter().map(|point| point.state).collect()
}

#[track_caller]
fn assert_equal(from: &Rig, to: &Rig, report: &CopyReport) {
    for point in &report.points {
        let copied = point.copy.unwrap_or_else(|| panic!("{point:?}"));
        assert!(contents(&from.open(), point.snapshot).unwrap() == contents(&to.open(), copied).unwrap());
        let (a, b) = (from.open().snapshot(point.snapshot).unwrap(), to.open().snapshot(copied).unwrap());
        assert_eq!((a.file.time, a.file.tree, &a.file.tags), (b.file.time, b.file.tree, &b.file.tags));
    }
    to.assert_sound();
    assert!(to.keys_of(ObjectKind::Lock).is_empty() && from.keys_of(ObjectKind::Lock).is_empty(), "a lock stayed");
}

/// Three points that share most of their content.
fn three_points(rig: &Rig) -> [SnapshotId; 3] {
    let mut rng = Rng::new(7);
    let (old, text, new) = (rng.bytes(20 << 20), rng.text(4 << 20), rng.bytes(3 << 20));
    let point =
        |contents: &[(&str, &[u8])]| save(&rig.open(), Chunking::Rows, contents).as_ref().map(Saved::id).unwrap();
    [
        point(&[("old", &old)]),
        point(&[("old", &old), ("text", &text)]),
        point(&[("text", &text), ("new", &new), ("empty", b"")]),
    ]
}

#[test]
fn with_one_key_whole_packs_move_as_they_are_and_points_keep_their_ids() {
    let from = Rig::new();
    let points = three_points(&from);
    let to = twin(&from);
    let report = run(&from, &to, &points);
    assert!(report.same_key);
    assert_eq!(states(&report), [PointState::Sent; 3]);
    assert!(report.points.iter().all(|point| point.copy == Some(point.snapshot)));
    assert_equal(&from, &to, &report);
    let mut names = [pack_ids(&from.store), pack_ids(&to.store)];
    names.iter_mut().for_each(|names| names.sort_unstable());
    assert_eq!(names[0], names[1]);
    assert_eq!((report.packs_whole, report.packs), (names[0].len() as u64, names[0].len() as u64));

    let again = run(&from, &to, &points);
    assert_eq!(states(&again), [PointState::There; 3]);
    assert_eq!((again.blobs, again.packs, again.trees), (0, 0, 0));
}

#[test]
fn with_another_key_blobs_are_sealed_anew_and_stay_as_they_were_compressed() {
    let (from, to) = (Rig::new(), Rig::new());
    let points = three_points(&from);
    let report = run(&from, &to, &points);
    assert!(!report.same_key && report.packs_whole == 0);
    assert_equal(&from, &to, &report);
    for point in &report.points {
        assert_eq!(to.open().snapshot(point.copy.unwrap()).unwrap().file.original, Some(point.snapshot));
    }
    let bytes = |rig: &Rig| -> u64 { rig.store.list(ObjectKind::Pack).unwrap().iter().map(|(_, size)| size).sum() };
    let (a, b) = (bytes(&from), bytes(&to));
    assert!(a.abs_diff(b) < a / 100, "{a} bytes became {b}");
    // There and back again: it is known by where it came from.
    assert_eq!(states(&run(&from, &to, &points)), [PointState::There; 3]);
    let copies: Vec<_> = report.points.iter().filter_map(|point| point.copy).collect();
    assert_eq!(states(&run(&to, &from, &copies)), [PointState::There; 3]);
}

#[test]
fn only_what_is_missing_is_sent_and_a_rehearsal_tells_it_and_writes_nothing() {
    let from = Rig::new();
    let [first, second, third] = three_points(&from);
    for to in [twin(&from), Rig::new()] {
        run(&from, &to, &[first]);
        let before = to.store.keys();
        let options = CopyOptions { dry_run: true, ..CopyOptions::default() };
        let store = Arc::new(RecordStore::new(from.store.clone()));
        let source = from.open_through(store.clone(), system_clock()).unwrap();
        let told = copy(&source, &to.open(), &[first, second, third], &Monitor::new(), options).unwrap();
        assert_eq!(to.store.keys(), before);
        assert_eq!(states(&told), [PointState::There, PointState::Sent, PointState::Sent]);
        assert!(told.bytes < 8 << 20, "{told:?}");

        store.reset();
        let done = copy(&source, &to.open(), &[first, second, third], &Monitor::new(), CopyOptions::default()).unwrap();
        assert_eq!((done.blobs, done.bytes), (told.blobs, told.bytes));
        assert_equal(&from, &to, &done);
        let read = store.counts();
        let read = read.on(Op::GetRange, ObjectKind::Pack).bytes + read.on(Op::Get, ObjectKind::Pack).bytes;
        assert!(read < 14 << 20, "{read} bytes read for {}", done.bytes);
    }
}

#[test]
fn a_part_of_a_pack_is_taken_without_the_rest() {
    let from = Rig::new();
    let [_, _, third] = three_points(&from);
    // In one pack lie pieces of several points after this.
    let mut rng = Rng::new(9);
    let (kept, left) = (rng.bytes(600 << 10), rng.bytes(6 << 20));
    save(&from.open(), Chunking::Rows, &[("a", &left), ("b", &kept)]).unwrap();
    let small = save(&from.open(), Chunking::Rows, &[("b", &kept)]).unwrap().id();
    for to in [twin(&from), Rig::new()] {
        let report = run(&from, &to, &[small, third]);
        assert_equal(&from, &to, &report);
        let stored: u64 = to.store.list(ObjectKind::Pack).unwrap().iter().map(|(_, size)| size).sum();
        assert!(stored < 9 << 20, "{stored}");
    }
}

#[test]
fn a_copy_that_dies_at_any_call_is_continued_and_harms_nothing() {
    let from = Rig::new();
    let mut rng = Rng::new(3);
    let (old, new) = (rng.bytes(2 << 20), rng.text(3 << 20));
    let first = save(&from.open(), Chunking::Rows, &[("old", &old)]).unwrap().id();
    let second = save(&from.open(), Chunking::Rows, &[("old", &old), ("new", &new)]).unwrap().id();
    for base in [twin(&from), Rig::new()] {
        run(&from, &base, &[first]);
        let mut cuts = 0;
        for nth in 1.. {
            let mut finished = false;
            for fate in 0..3 {
                let rig = base.over(base.store.fork());
                let store = Arc::new(FaultStore::new(rig.store.clone()));
                let target = rig.open_through(store.clone(), system_clock()).unwrap();
                store.add(Fault::on_any().nth(nth).cuts_power());
                let outcome = copy(&from.open(), &target, &[first, second], &Monitor::new(), CopyOptions::default());
                drop(target);
                finished |= store.fired() == 0;
                cuts += u32::from(store.fired() > 0);
                let mut chance = Rng::new(nth * 10 + fate);
                store.restore_power(|_| fate == 1 || fate == 2 && chance.below(2) == 0).unwrap();
                store.mend();
                let context = format!("call {nth}, fate {fate}");
                let there = rig.snapshots();
                assert!(outcome.is_err() || there.len() == 2, "{context}: a point that was told to be there is gone");
                assert!(!there.is_empty(), "{context}: an earlier point is gone");
                for id in there {
                    let kept = contents(&rig.open(), id).unwrap_or_else(|e| panic!("{context}: {e:?}"));
                    assert!(kept["db/old"] == old, "{context}");
                }
                rig.assert_sound();
                let target = rig.open_at(clock_off_by(LATER));
                let next = copy(&from.open(), &target, &[first, second], &Monitor::new(), CopyOptions::default());
                let next = next.unwrap_or_else(|e| panic!("{context}: the next copy failed: {e:?}"));
                drop(target);
                assert_equal(&from, &rig, &next);
            }
            if finished {
                break;
            }
        }
        assert!(cuts > 30, "{cuts} cuts");
    }
}

#[test]
fn what_a_dead_copy_has_sent_is_not_sent_again() {
    let from = Rig::new();
    let points = three_points(&from);
    for to in [twin(&from), Rig::new()] {
        let store = Arc::new(FaultStore::new(to.store.clone()));
        store.add(Fault::on(Op::Put).of(ObjectKind::Index).cuts_power());
        let target = to.open_through(store, system_clock()).unwrap();
        assert!(copy(&from.open(), &target, &points, &Monitor::new(), CopyOptions::default()).is_err());
        let left = pack_ids(&to.store).len() as u64;
        assert!(left >= 2 && to.snapshots().is_empty());
        let target = to.open_at(clock_off_by(LATER));
        let report = copy(&from.open(), &target, &points, &Monitor::new(), CopyOptions::default()).unwrap();
        drop(target);
        assert_eq!((report.packs_adopted, report.blobs), (left, 0));
        assert_equal(&from, &to, &report);
    }
}

#[test]
fn a_damaged_blob_stops_the_points_that_need_it_and_no_others() {
    let from = Rig::new();
    let mut rng = Rng::new(5);
    let (bad, good) = (rng.bytes(3 << 20), rng.bytes(3 << 20));
    // What all points share is in another pack.
    save(&from.open(), Chunking::Rows, &[("small", b"small")]).unwrap();
    let both = save(&from.open(), Chunking::Rows, &[("bad", &bad)]).unwrap();
    let data = both.published.packs.iter().max_by_key(|(_, size)| *size).unwrap().0;
    let with_good = save(&from.open(), Chunking::Rows, &[("good", &good)]).unwrap().id();
    let with_both = save(&from.open(), Chunking::Rows, &[("bad", &bad), ("good", &good)]).unwrap().id();
    type Spoil = fn(&mut Vec<u8>);
    let spoils: [Spoil; 3] = [|bytes| bytes[1000] ^= 1, |bytes| bytes.truncate(bytes.len() / 2), |bytes| bytes.clear()];
    for spoil in spoils {
        let rig = from.over(from.store.fork());
        rig.store.damage(&StoreKey::new(ObjectKind::Pack, data), spoil).unwrap();
        for to in [twin(&from), Rig::new()] {
            let report = run(&rig, &to, &[both.id(), with_good, with_both]);
            assert_eq!(states(&report), [PointState::Failed, PointState::Sent, PointState::Failed], "{report:?}");
            assert!(report.points[0].error.as_ref().unwrap().contains("data blob"), "{report:?}");
            assert_eq!(to.snapshots().len(), 1);
            to.assert_sound();
        }
    }
    let rig = from.over(from.store.fork());
    rig.store.remove(&StoreKey::new(ObjectKind::Pack, data)).unwrap();
    let report = run(&rig, &twin(&from), &[both.id(), with_good, with_both]);
    assert_eq!(states(&report), [PointState::Failed, PointState::Sent, PointState::Failed], "{report:?}");
}

#[test]
fn a_pack_whose_own_list_is_damaged_gives_its_blobs_all_the_same() {
    let from = Rig::new();
    let points = three_points(&from);
    for key in from.keys_of(ObjectKind::Pack) {
        from.store
            .damage(&key, |bytes| {
                let end = bytes.len();
                bytes[end - 20] ^= 1;
            })
            .unwrap();
    }
    for to in [twin(&from), Rig::new()] {
        let report = run(&from, &to, &points);
        assert_eq!(report.packs_whole, 0);
        assert_equal(&from, &to, &report);
    }
}

#[test]
fn a_target_that_lost_its_index_is_mended_on_the_way() {
    let from = Rig::new();
    let points = three_points(&from);
    let to = twin(&from);
    run(&from, &to, &points[..2]);
    for key in to.keys_of(ObjectKind::Index) {
        to.store.remove(&key).unwrap();
    }
    let report = run(&from, &to, &points);
    assert!(report.index_was_lost && report.packs_adopted > 0, "{report:?}");
    assert!(report.bytes < 5 << 20, "{report:?}");
    assert_equal(&from, &to, &report);
}

#[test]
fn what_the_target_has_lost_of_its_points_is_sent_again_when_told() {
    let from = Rig::new();
    let points = three_points(&from);
    for to in [twin(&from), Rig::new()] {
        run(&from, &to, &points);
        let packs = to.keys_of(ObjectKind::Pack);
        to.store.remove(&packs[0]).unwrap();
        to.store.damage(packs.last().unwrap(), |bytes| bytes.truncate(bytes.len() / 2)).unwrap();
        let plain = run(&from, &to, &points);
        assert_eq!((states(&plain), plain.blobs), (vec![PointState::There; 3], 0));
        let options = CopyOptions { mend: true, ..CopyOptions::default() };
        let mended = copy(&from.open(), &to.open(), &points, &Monitor::new(), options).unwrap();
        assert_eq!(states(&mended), [PointState::There; 3]);
        assert!(mended.blobs > 0, "{mended:?}");
        assert_eq!(to.snapshots().len(), 3);
        for point in &mended.points {
            let copied = point.copy.unwrap();
            assert!(contents(&from.open(), point.snapshot).unwrap() == contents(&to.open(), copied).unwrap());
        }
    }
}

#[test]
fn a_pack_that_is_doomed_in_the_target_does_not_come_back_under_its_name() {
    let from = Rig::new();
    let points = three_points(&from);
    let to = twin(&from);
    run(&from, &to, &points);
    points[..2].iter().for_each(|id| to.store.remove(&StoreKey::new(ObjectKind::Snapshot, *id)).unwrap());
    // The packs are doomed, and somebody who reads there keeps them from being removed.
    let held = to.open().lock(LockMode::Reading).unwrap();
    let outcome = prune(&to.open(), &Monitor::new(), &PruneOptions::default()).unwrap();
    assert!(outcome.deferred.is_some(), "{outcome:?}");
    let report = run(&from, &to, &points);
    assert!(report.blobs > 0 && report.packs_whole == 0, "{report:?}");
    drop(held);
    assert_equal(&from, &to, &report);
    prune(&to.open(), &Monitor::new(), &PruneOptions::default()).unwrap();
    assert_equal(&from, &to, &report);
}

#[test]
fn a_store_that_fails_or_a_wish_to_stop_ends_the_copy_and_publishes_nothing() {
    let from = Rig::new();
    let points = three_points(&from);
    let to = twin(&from);
    let end = |op: Op, kind: ObjectKind, of_target: bool, error: ErrorKind| -> Result<CopyReport> {
        let store = if of_target { to.store.clone() } else { from.store.clone() };
        let store = Arc::new(FaultStore::new(store));
        store.add(Fault::on(op).of(kind).nth(2).fails_before(error));
        let faulty = |rig: &Rig| rig.open_through(store.clone(), system_clock()).unwrap();
        let (source, target) = if of_target { (from.open(), faulty(&to)) } else { (faulty(&from), to.open()) };
        copy(&source, &target, &points, &Monitor::new(), CopyOptions::default())
    };
    assert_eq!(end(Op::Put, ObjectKind::Pack, true, ErrorKind::NoSpace).unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(end(Op::GetRange, ObjectKind::Pack, false, ErrorKind::Retry).unwrap_err().kind(), ErrorKind::Retry);
    let monitor = Monitor::new();
    monitor.cancel();
    let stopped = copy(&from.open(), &to.open(), &points, &monitor, CopyOptions::default());
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(to.snapshots().is_empty());
    let same = copy(&from.open(), &from.open(), &points, &Monitor::new(), CopyOptions::default());
    assert_eq!(same.unwrap_err().kind(), ErrorKind::Invalid);
    assert_equal(&from, &to, &run(&from, &to, &points));
}

#[test]
fn a_copy_that_lost_its_lock_takes_nothing_back_that_another_copy_may_have_told_of() {
    let from = Rig::new();
    let points = three_points(&from);
    for loses_pack in [false, true] {
        let to = twin(&from);
        let store = StaleStore::new(&to.store);
        store.freeze();
        let told = run(&from, &to, &points);
        // Another copy sees nothing of it yet, and sleeps until its lock is taken for stale.
        let rig = to.over(to.store.clone());
        store.before_snapshot(move || {
            let pack = rig.keys_of(ObjectKind::Pack)[0];
            let locks = rig.keys_of(ObjectKind::Lock);
            locks.into_iter().chain(loses_pack.then_some(pack)).for_each(|key| rig.store.remove(&key).unwrap());
        });
        let target = to.open_through(store, system_clock()).unwrap();
        let second = copy(&from.open(), &target, &points, &Monitor::new(), CopyOptions::default());
        assert_eq!(to.snapshots().len(), 3, "{second:?}");
        if loses_pack {
            let error = second.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Retry);
            let hint = error.hint().unwrap();
            assert!(points.iter().all(|id| hint.contains(&id.to_string())), "{hint}");
        } else {
            second.unwrap();
            assert_equal(&from, &to, &told);
        }
    }
}

#[test]
fn a_copy_that_cannot_be_alone_takes_nothing_back_under_a_name_that_others_use() {
    let from = Rig::new();
    let points = three_points(&from);
    for is_alone in [true, false] {
        let to = twin(&from);
        let rig = to.over(to.store.clone());
        // Its lock is lost, and so is a pack, at the moment of the first snapshot.
        let store = StaleStore::with_true_lists(&to.store);
        let other = Arc::new(std::sync::Mutex::new(None));
        let others = other.clone();
        store.before_snapshot(move || {
            let lost = rig.keys_of(ObjectKind::Lock).into_iter().chain([rig.keys_of(ObjectKind::Pack)[0]]);
            lost.for_each(|key| rig.store.remove(&key).unwrap());
            *others.lock().unwrap() = (!is_alone).then(|| rig.open().lock(LockMode::Shared).unwrap());
        });
        let target = to.open_through(store, system_clock()).unwrap();
        let error = copy(&from.open(), &target, &points, &Monitor::new(), CopyOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
        let left = to.snapshots();
        if is_alone {
            assert!(left.len() < 3, "{left:?}");
            left.iter().for_each(|id| drop(contents(&to.open(), *id).unwrap()));
        } else {
            assert_eq!(left.len(), 3);
            assert!(error.hint().unwrap().contains("copy --mend"), "{:?}", error.hint());
        }
        drop(other.lock().unwrap().take());
        // And what was lost can be sent again.
        let options = CopyOptions { mend: true, ..CopyOptions::default() };
        let report = copy(&from.open(), &to.open(), &points, &Monitor::new(), options).unwrap();
        assert_equal(&from, &to, &report);
    }
}
