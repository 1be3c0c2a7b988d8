//! The fault model behaves as scripted; tests elsewhere rest on that.

use crate::pack;
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{ErrorKind, Id};
use lastgood_stores::{Fault, FaultStore, MemoryStore, Op};

fn faulty() -> FaultStore<MemoryStore> {
    FaultStore::new(MemoryStore::new())
}

fn kind<T>(result: lastgood_model::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_fault_strikes_the_nth_matching_call_and_no_other() {
    let store = faulty().with(Fault::on(Op::Put).of(ObjectKind::Pack).nth(2).fails_before(ErrorKind::Denied));
    store.put(&pack(1), &[]).unwrap();
    store.put(&StoreKey::new(ObjectKind::Key, Id([2; 32])), &[]).unwrap();
    store.get(&pack(1)).unwrap();
    assert_eq!(kind(store.put(&pack(2), &[])), Some(ErrorKind::Denied));
    assert_eq!(kind(store.get(&pack(2))), Some(ErrorKind::Absent), "nothing happened");
    store.put(&pack(2), &[]).unwrap();
    assert_eq!(store.fired(), 1);
}

#[test]
fn lasting_faults_last_until_mended_and_periodic_ones_come_and_go() {
    let store = faulty().with(Fault::on(Op::Sync).from_nth(2)).with(Fault::on(Op::List).every(2));
    let syncs: Vec<_> = (0..4).map(|_| store.sync().is_ok()).collect();
    assert_eq!(syncs, [true, false, false, false]);
    let lists: Vec<_> = (0..4).map(|_| store.list(ObjectKind::Key).is_ok()).collect();
    assert_eq!(lists, [true, false, true, false]);
    store.mend();
    store.sync().unwrap();
    store.list(ObjectKind::Key).unwrap();
}

#[test]
fn a_lost_reply_leaves_the_effect() {
    let store = faulty()
        .with(Fault::on(Op::Put).at(pack(1)).fails_after(ErrorKind::Retry))
        .with(Fault::on(Op::Remove).fails_after(ErrorKind::Io));
    assert_eq!(kind(store.put(&pack(1), &[b"there"])), Some(ErrorKind::Retry));
    assert_eq!(store.get(&pack(1)).unwrap(), b"there");
    assert_eq!(kind(store.remove(&pack(1))), Some(ErrorKind::Io));
    assert_eq!(kind(store.get(&pack(1))), Some(ErrorKind::Absent));
}

#[test]
fn a_full_device_refuses_what_does_not_fit_until_something_is_removed() {
    let store = faulty();
    store.put(&pack(1), &[b"before"]).unwrap();
    store.fill_after(Some(10));
    store.put(&pack(2), &[b"12345678"]).unwrap();
    assert_eq!(kind(store.put(&pack(3), &[b"123"])), Some(ErrorKind::NoSpace));
    assert_eq!(kind(store.get(&pack(3))), Some(ErrorKind::Absent));
    store.put(&pack(2), &[b"12345678"]).unwrap();
    store.put(&pack(3), &[b"12"]).unwrap();
    store.remove(&pack(1)).unwrap();
    store.put(&pack(4), &[b"123456"]).unwrap();
    assert_eq!(kind(store.put(&pack(5), &[b"1"])), Some(ErrorKind::NoSpace));
    store.fill_after(None);
    store.put(&pack(5), &[b"1"]).unwrap();
}

#[test]
fn reads_are_damaged_but_what_is_stored_is_not() {
    let store = faulty()
        .with(Fault::on(Op::Get).flips_bit(8 * 2 + 1))
        .with(Fault::on(Op::Get).nth(2).cuts_short(4))
        .with(Fault::on(Op::GetRange).flips_bit(0))
        .with(Fault::on(Op::GetRange).nth(2).cuts_short(1));
    store.put(&pack(1), &[b"aaaaa"]).unwrap();
    assert_eq!(store.get(&pack(1)).unwrap(), b"aacaa");
    assert_eq!(store.get(&pack(1)).unwrap(), b"a");
    assert_eq!(store.get(&pack(1)).unwrap(), b"aaaaa");
    let mut out = Vec::new();
    store.get_range(&pack(1), 1, 2, &mut out).unwrap();
    assert_eq!(out, b"`a");
    assert_eq!(kind(store.get_range(&pack(1), 0, 5, &mut out)), Some(ErrorKind::Corrupt));
    store.get_range(&pack(1), 0, 5, &mut out).unwrap();
    assert_eq!(out, b"aaaaa");
}

#[test]
fn a_torn_put_leaves_a_part_that_a_later_put_replaces() {
    let store = faulty().with(Fault::on(Op::Put).tears_put(3));
    assert_eq!(kind(store.put(&pack(1), &[b"wh", b"ole"])), Some(ErrorKind::Retry));
    assert_eq!(store.get(&pack(1)).unwrap(), b"who");
    store.put(&pack(1), &[b"wh", b"ole"]).unwrap();
    assert_eq!(store.get(&pack(1)).unwrap(), b"whole");
}

#[test]
fn a_power_cut_may_lose_whatever_was_not_synced_and_nothing_else() {
    let store = faulty();
    store.put(&pack(1), &[b"one"]).unwrap();
    store.put(&pack(2), &[b"two"]).unwrap();
    store.sync().unwrap();
    store.put(&pack(1), &[b"one"]).unwrap();
    store.put(&pack(3), &[b"three"]).unwrap();
    store.put(&pack(4), &[b"four"]).unwrap();
    store.remove(&pack(2)).unwrap();
    store.cut_power();
    assert_eq!(kind(store.get(&pack(1))), Some(ErrorKind::Io));
    assert_eq!(kind(store.sync()), Some(ErrorKind::Io));
    assert_eq!(kind(store.put(&pack(5), &[])), Some(ErrorKind::Io));
    let fork = store.inner().fork();
    assert_eq!(store.restore_power(|key| *key == pack(4)).unwrap(), 2);
    assert_eq!(store.inner().keys(), [pack(1), pack(2), pack(4)]);
    assert_eq!(store.get(&pack(2)).unwrap(), b"two", "its removal was lost");
    assert_eq!(fork.keys(), [pack(1), pack(3), pack(4)]);
    assert_eq!(store.restore_power(|_| false).unwrap(), 0, "what came through is durable");
}

#[test]
fn a_name_put_and_removed_and_put_again_goes_back_to_what_was_durable() {
    let store = faulty();
    store.put(&pack(1), &[b"x"]).unwrap();
    store.sync().unwrap();
    store.remove(&pack(1)).unwrap();
    store.put(&pack(1), &[b"x"]).unwrap();
    store.remove(&pack(1)).unwrap();
    store.put(&pack(2), &[b"y"]).unwrap();
    store.remove(&pack(2)).unwrap();
    store.cut_power();
    assert_eq!(store.restore_power(|_| false).unwrap(), 5);
    assert_eq!(store.inner().keys(), [pack(1)]);
}

#[test]
fn a_scripted_power_cut_stops_everything_from_that_call_on() {
    let store = faulty().with(Fault::on(Op::Put).nth(2).cuts_power());
    store.put(&pack(1), &[b"x"]).unwrap();
    assert_eq!(kind(store.put(&pack(2), &[b"y"])), Some(ErrorKind::Io));
    assert_eq!(kind(store.list(ObjectKind::Pack)), Some(ErrorKind::Io));
    assert_eq!(store.restore_power(|_| true).unwrap(), 0);
    assert_eq!(store.inner().keys(), [pack(1)]);
    store.put(&pack(2), &[b"y"]).unwrap();
}

#[test]
fn a_failed_sync_makes_nothing_durable_and_one_whose_reply_was_lost_does() {
    for (fault, survivors) in [
        (Fault::on(Op::Sync).fails_before(ErrorKind::Io), vec![]),
        (Fault::on(Op::Sync).fails_after(ErrorKind::Io), vec![pack(1)]),
    ] {
        let store = faulty().with(fault);
        store.put(&pack(1), &[b"x"]).unwrap();
        store.sync().unwrap_err();
        store.cut_power();
        store.restore_power(|_| false).unwrap();
        assert_eq!(store.inner().keys(), survivors);
    }
}
