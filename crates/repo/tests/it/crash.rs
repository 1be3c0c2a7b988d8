//! Death at any moment: the power goes at every single call to the store, and whatever was not made durable goes with
//! it or stays. Earlier points stay whole, and the next run succeeds.

use crate::rig::{Rig, begin, clock_off_by, contents, pack_ids, save, stream, verdict};
use lastgood_model::source::Chunking;
use lastgood_model::store::{ObjectKind, Store};
use lastgood_repo::crypto::Password;
use lastgood_repo::lock::system_clock;
use lastgood_repo::{OpenOptions, Repository};
use lastgood_stores::{Fault, FaultStore, MemoryStore, Op};
use lastgood_testkit::rng::Rng;
use std::sync::Arc;

/// By then the lock of a dead run is stale.
const LATER: i64 = 31 * 60;

#[test]
fn the_power_may_go_at_any_call_and_take_with_it_what_was_not_durable() {
    let base = Rig::new();
    let mut rng = Rng::new(1);
    let (old, new) = (rng.bytes(2 << 20), rng.text(3 << 20));
    let first = save(&base.open(), Chunking::Rows, &[("old", &old)]).unwrap().id();
    let mut cuts = 0;
    for nth in 1.. {
        let mut finished = false;
        // What was not made durable is lost as a whole, kept as a whole, or as chance has it.
        for fate in 0..4 {
            let rig = base.over(base.store.fork());
            let store = Arc::new(FaultStore::new(rig.store.clone()));
            let repository = rig.open_through(store.clone(), system_clock()).unwrap();
            store.add(Fault::on_any().nth(nth).cuts_power());
            let outcome = save(&repository, Chunking::Rows, &[("old", &old), ("new", &new)]);
            finished |= store.fired() == 0;
            cuts += u32::from(store.fired() > 0);
            let mut chance = Rng::new(nth * 10 + fate);
            store
                .restore_power(|_| match fate {
                    0 => false,
                    1 => true,
                    _ => chance.below(2) == 0,
                })
                .unwrap();
            store.mend();
            let context = format!("call {nth}, fate {fate}");
            let after = rig.snapshots();
            assert!(after.contains(&first), "{context}: an earlier point is gone");
            if let Ok(saved) = &outcome {
                assert!(after.contains(&saved.id()), "{context}: a point that was told to be saved is gone");
            }
            for id in after {
                let kept = contents(&rig.open(), id).unwrap_or_else(|e| panic!("{context}: {e:?}"));
                assert!(kept["db/old"] == old, "{context}");
            }
            rig.assert_sound();
            let next = save(&rig.open_at(clock_off_by(LATER)), Chunking::Rows, &[("old", &old), ("new", &new)]);
            let next = next.unwrap_or_else(|e| panic!("{context}: the next run failed: {e:?}"));
            assert!(contents(&rig.open(), next.id()).unwrap()["db/new"] == new, "{context}");
            rig.assert_sound();
            assert!(rig.keys_of(ObjectKind::Lock).is_empty(), "{context}: a lock stayed");
        }
        if finished {
            break;
        }
    }
    assert!(cuts > 40, "{cuts} cuts");
}

#[test]
fn a_repository_that_was_half_made_is_made_by_the_next_try() {
    let (memory, password) = (MemoryStore::new(), Password::generate().unwrap());
    let store = Arc::new(FaultStore::new(memory.clone()));
    store.add(Fault::on(Op::Put).of(ObjectKind::Config).cuts_power());
    let init = |store: Arc<dyn Store>, password: &Password| Repository::init(store, password, OpenOptions::default());
    assert!(init(store, &password).is_err());
    assert_eq!(memory.list(ObjectKind::Key).unwrap().len(), 1);

    // Whose key it is cannot be told without it.
    let other = Password::generate().unwrap();
    let refused = init(Arc::new(memory.clone()), &other).unwrap_err();
    assert_eq!(refused.kind(), lastgood_model::ErrorKind::Conflict);
    init(Arc::new(memory.clone()), &password).unwrap();
    assert_eq!(memory.list(ObjectKind::Key).unwrap().len(), 1, "two keys that open to different master keys");
    save(&Rig { store: memory, password }.open(), Chunking::Rows, &[("a", b"saved")]).unwrap();
}

#[test]
fn packs_that_a_dead_run_left_without_an_index_are_taken_over_and_nothing_is_stored_again() {
    let rig = Rig::new();
    let content = Rng::new(2).bytes(50 << 20);
    let store = Arc::new(FaultStore::new(rig.store.clone()));
    let repository = rig.open_through(store.clone(), system_clock()).unwrap();
    // Dies with all packs written and no index file.
    store.add(Fault::on(Op::Put).of(ObjectKind::Index).cuts_power());
    assert!(save(&repository, Chunking::Files, &[("a", &content)]).is_err());
    let left = pack_ids(&rig.store);
    assert!(left.len() >= 4, "{left:?}");
    assert!(rig.keys_of(ObjectKind::Index).is_empty());

    // Somebody who only reads sees the dead lock first, and leaves it to whoever writes next.
    drop(rig.open_at(clock_off_by(LATER)).lock(lastgood_repo::LockMode::Reading).unwrap());
    let next = save(&rig.open_at(clock_off_by(LATER)), Chunking::Files, &[("a", &content)]).unwrap();
    assert_eq!(next.adopted, left.len());
    assert_eq!(next.stored().0, 0, "data was stored again");
    assert!(next.published.packs.len() <= 1, "only directories, which carry the time, are new");
    assert!(contents(&rig.open(), next.id()).unwrap()["db/a"] == content);
    rig.assert_sound();
    // Adopted once is adopted for good.
    let third = save(&rig.open_at(clock_off_by(LATER)), Chunking::Files, &[("a", &content)]).unwrap();
    assert_eq!((third.adopted, third.stored().0), (0, 0));
}

#[test]
fn a_rehearsal_leaves_the_dead_runs_packs_to_the_run_that_can_take_them_over() {
    let rig = Rig::new();
    let store = Arc::new(FaultStore::new(rig.store.clone()));
    store.add(Fault::on(Op::Put).of(ObjectKind::Index).cuts_power());
    let repository = rig.open_through(store, system_clock()).unwrap();
    assert!(save(&repository, Chunking::Rows, &[("a", b"left behind")]).is_err());
    let later = rig.open_at(clock_off_by(LATER));
    let options = lastgood_repo::SessionOptions { dry_run: true, ..Default::default() };
    let rehearsal = lastgood_repo::Session::begin(later.clone(), Arc::default(), options).unwrap();
    rehearsal.rehearse().unwrap();
    assert!(save(&later, Chunking::Rows, &[("a", b"left behind")]).unwrap().adopted > 0);
}

#[test]
fn a_pack_cut_short_or_altered_is_not_taken_over() {
    let content = Rng::new(3).bytes(40 << 20);
    let left = {
        let rig = Rig::new();
        let store = Arc::new(FaultStore::new(rig.store.clone()));
        store.add(Fault::on(Op::Put).of(ObjectKind::Index).cuts_power());
        assert!(save(&rig.open_through(store, system_clock()).unwrap(), Chunking::Files, &[("a", &content)]).is_err());
        rig
    };
    type Spoil = fn(&mut Vec<u8>);
    let spoils: [Spoil; 5] = [
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.truncate(3),
        |bytes| bytes.clear(),
        |bytes| bytes[1000] ^= 1,
        |bytes| bytes.push(0),
    ];
    for (i, spoil) in spoils.into_iter().enumerate() {
        let rig = left.over(left.store.fork());
        let packs = rig.keys_of(ObjectKind::Pack);
        rig.store.damage(&packs[0], spoil).unwrap();
        let next = save(&rig.open_at(clock_off_by(LATER)), Chunking::Files, &[("a", &content)]).unwrap();
        assert_eq!(next.adopted, packs.len() - 1, "spoil {i}");
        assert!(contents(&rig.open(), next.id()).unwrap()["db/a"] == content, "spoil {i}");
    }
}

#[test]
fn what_a_failed_run_has_written_is_known_to_the_next() {
    let rig = Rig::new();
    let content = Rng::new(4).bytes(80 << 20);
    let store = Arc::new(FaultStore::new(rig.store.clone()));
    let repository = rig.open_through(store.clone(), system_clock()).unwrap();
    // The last write fails, when all the data is there: not a crash, so the run can still say what it has written.
    store.add(Fault::on(Op::Put).of(ObjectKind::Snapshot).fails_before(lastgood_model::ErrorKind::Io));
    assert!(save(&repository, Chunking::Files, &[("a", &content)]).is_err());
    store.mend();
    let next = save(&repository, Chunking::Files, &[("a", &content)]).unwrap();
    assert_eq!(next.stored().0, 0);

    // In the middle, too: what was packed by then is not stored again.
    let rig = Rig::new();
    let store = Arc::new(FaultStore::new(rig.store.clone()));
    let repository = rig.open_through(store.clone(), system_clock()).unwrap();
    store.add(Fault::on(Op::Put).of(ObjectKind::Pack).from_nth(3).fails_before(lastgood_model::ErrorKind::NoSpace));
    assert!(save(&repository, Chunking::Files, &[("a", &content)]).is_err());
    store.mend();
    let kept: u64 = rig.store.list(ObjectKind::Pack).unwrap().iter().map(|(_, size)| size).sum();
    assert!(kept > 30 << 20, "{kept} bytes were written");
    let next = save(&repository, Chunking::Files, &[("a", &content)]).unwrap();
    assert!(next.stored().1 < (content.len() as u64 + (1 << 20)) - kept + (1 << 20), "{} bytes again", next.stored().1);
    assert!(contents(&rig.open(), next.id()).unwrap()["db/a"] == content);
    rig.assert_sound();
}

#[test]
fn a_session_that_is_given_up_leaves_what_it_wrote_to_the_next() {
    let rig = Rig::new();
    let content = Rng::new(5).bytes(60 << 20);
    let (session, _) = begin(&rig.open()).unwrap();
    let mut writer = stream(&session.source("db").unwrap(), "a", Chunking::Files);
    writer.write(&content).unwrap();
    writer.finish(verdict()).unwrap();
    drop(session);
    assert!(rig.snapshots().is_empty() && rig.keys_of(ObjectKind::Lock).is_empty());
    assert!(!rig.keys_of(ObjectKind::Index).is_empty(), "what was written is not known");
    let next = save(&rig.open(), Chunking::Files, &[("a", &content)]).unwrap();
    assert!(next.stored().1 < 45 << 20, "{} bytes again", next.stored().1);
}

#[test]
fn packs_that_no_index_file_lists_are_taken_over_though_no_dead_lock_tells_of_them() {
    let rig = Rig::new();
    let content = Rng::new(7).bytes(1 << 20);
    let first = save(&rig.open(), Chunking::Files, &[("a", &content)]).unwrap();
    // While somebody else may be writing, packs that nothing speaks for are his.
    for key in rig.keys_of(ObjectKind::Index) {
        rig.store.remove(&key).unwrap();
    }
    let fork = rig.over(rig.store.fork());
    let other = fork.open();
    let lock = other.lock(lastgood_repo::LockMode::Shared).unwrap();
    assert_eq!(save(&fork.open(), Chunking::Files, &[("b", b"other")]).unwrap().adopted, 0);
    drop(lock);
    let next = save(&rig.open(), Chunking::Files, &[("a", &content)]).unwrap();
    assert_eq!((next.adopted, next.stored().0), (first.published.packs.len(), 0));
    for id in [first.id(), next.id()] {
        assert!(contents(&rig.open(), id).unwrap()["db/a"] == content);
    }
    rig.assert_sound();
    assert_eq!(save(&rig.open(), Chunking::Files, &[("a", &content)]).unwrap().adopted, 0);
}

#[test]
fn readers_find_what_a_lost_index_file_listed() {
    let rig = Rig::new();
    let content = Rng::new(8).bytes(1 << 20);
    let first = save(&rig.open(), Chunking::Files, &[("a", &content)]).unwrap().id();
    let second = save(&rig.open(), Chunking::Files, &[("a", &content), ("b", b"more")]).unwrap().id();
    for key in rig.keys_of(ObjectKind::Index) {
        let fork = rig.over(rig.store.fork());
        fork.store.remove(&key).unwrap();
        for id in [first, second] {
            assert!(contents(&fork.open(), id).unwrap()["db/a"] == content, "{key}");
        }
    }
}
