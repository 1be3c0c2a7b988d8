//! Every object, every way to damage it: it is named, and nothing panics.

use super::{Fixture, about};
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{ErrorKind, Monitor};
use lastgood_repo::check::{Damage, DamageKind, VerifyOptions, verify};
use lastgood_stores::{Fault, FaultStore, Op, ReadOnlyStore};
use std::sync::Arc;

/// Damages an object by `change`, and holds check and verification to naming it. A check need not notice what happens
/// within packs that hold data alone, as long as their size stays.
#[track_caller]
fn assert_noticed(fixture: &Fixture, key: &StoreKey, has_trees: bool, change: impl FnOnce(&mut Vec<u8>), how: &str) {
    let before = fixture.store.get(key).unwrap();
    fixture.store.damage(key, change).unwrap();
    let after = fixture.store.get(key).unwrap();
    assert_ne!(before, after, "{how}: nothing was damaged");
    let named = |damage: &[Damage]| damage.iter().any(|d| d.object.to_string() == key.path());

    let verified = fixture.verify();
    assert!(named(&verified.damage), "verify, {key}, {how}: {:#?}", verified.damage);
    assert!(!verified.is_sound());
    let checked = fixture.check();
    let quiet = key.kind == ObjectKind::Pack && !has_trees && before.len() == after.len();
    assert_eq!(named(&checked.damage), !quiet, "check, {key}, {how}: {:#?}", checked.damage);
    if matches!(key.kind, ObjectKind::Config | ObjectKind::Key) {
        let error = fixture.reopen().unwrap_err();
        let name = if key.kind == ObjectKind::Key { key.path() } else { "config".to_owned() };
        assert!(error.chain().contains(&name), "open, {key}, {how}: {}", error.chain());
    }
    fixture.mend(key, &before);
}

fn has_trees(fixture: &Fixture, key: &StoreKey) -> bool {
    let reader = fixture.repository.reader().unwrap();
    let mut open: Vec<_> =
        fixture.snapshots.iter().map(|id| fixture.repository.snapshot(*id).unwrap().file.tree).collect();
    while let Some(tree) = open.pop() {
        if reader.index.pack(reader.index.find(tree).unwrap().pack).0 == key.id {
            return true;
        }
        open.extend(reader.tree(tree).unwrap().iter().filter_map(|n| n.subtree));
    }
    false
}

#[test]
fn an_undamaged_repository_is_sound_and_everything_is_counted() {
    let fixture = Fixture::two();
    let report = fixture.check();
    assert!(report.is_sound(), "{:#?}", report.damage);
    assert_eq!(report.notes, [""; 0]);
    let counts = report.counts;
    assert_eq!((counts.keys, counts.snapshots, counts.index_files), (1, 2, 2));
    assert_eq!(counts.packs, fixture.keys_of(ObjectKind::Pack).len() as u64);
    // Twice `/`, `/files`, `/files/docs`; once the others, which did not change, and twice what has a time of its own.
    assert!((8..=10).contains(&counts.trees), "{}", counts.trees);

    let report = fixture.verify();
    assert!(report.is_sound(), "{:#?}", report.damage);
    assert_eq!(report.packs_verified, counts.packs);
    assert_eq!(report.bytes_verified, counts.bytes_stored);
    assert_eq!(report.blobs_verified, counts.blobs);
    assert_eq!(report.counts.trees, counts.trees);
    assert!(report.bytes_plain > 3000);
    assert_eq!(fixture.keys_of(ObjectKind::Lock), [], "a lock stayed behind");
    let empty = Fixture::empty();
    assert!(empty.verify().is_sound());
}

#[test]
fn a_flipped_byte_anywhere_is_noticed_and_its_object_named() {
    let fixture = Fixture::two();
    for key in fixture.store.keys() {
        let has_trees = has_trees(&fixture, &key);
        let length = fixture.store.size(&key).unwrap() as usize;
        for position in (0..length).filter(|p| *p < 40 || length - p < 130 || p % 9 == 0) {
            assert_noticed(&fixture, &key, has_trees, |b| b[position] ^= 0x40, &format!("byte {position} flipped"));
        }
    }
    assert!(fixture.verify().is_sound(), "the damage was not mended");
}

#[test]
fn an_object_of_another_length_is_noticed_and_named() {
    let fixture = Fixture::two();
    for key in fixture.store.keys() {
        let has_trees = has_trees(&fixture, &key);
        let length = fixture.store.size(&key).unwrap() as usize;
        let near = [length - 1, length - 4, length - 5, length - 33, length / 2];
        for to in [0, 1, 4, 16, 31, 32, 33, 36, 73].into_iter().chain(near).filter(|to| *to < length) {
            assert_noticed(&fixture, &key, has_trees, |b| b.truncate(to), &format!("cut to {to} of {length}"));
        }
        assert_noticed(&fixture, &key, has_trees, |b| b.push(0), "a byte longer");
        assert_noticed(&fixture, &key, has_trees, |b| b.extend_from_within(..), "twice");
        assert_noticed(&fixture, &key, has_trees, |b| b.fill(0), "all zeros");
    }
}

#[test]
fn a_missing_object_is_noticed_and_named_by_a_check_already() {
    let fixture = Fixture::two();
    for key in fixture.store.keys() {
        let bytes = fixture.store.get(&key).unwrap();
        fixture.store.remove(&key).unwrap();
        let (checked, verified) = (fixture.check(), fixture.verify());
        for damage in [&checked.damage, &verified.damage] {
            if key.kind == ObjectKind::Index {
                // Nothing in a repository names its index files. What the missing one told of is named instead.
                assert!(!damage.is_empty());
                assert!(damage.iter().all(|d| d.what == DamageKind::Unindexed && d.hint.is_some()), "{damage:#?}");
            } else {
                let damage = about(damage, &key.path());
                assert_eq!(damage.what, DamageKind::Missing);
            }
        }
        fixture.mend(&key, &bytes);
        assert!(fixture.check().is_sound());
    }
    let key = fixture.keys_of(ObjectKind::Key)[0];
    fixture.store.remove(&key).unwrap();
    let error = fixture.reopen().unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.chain().contains("keys/"), "{error:?}");
}

#[test]
fn objects_that_changed_places_are_both_noticed() {
    let mut fixture = Fixture::two();
    fixture.repository.add_key(&fixture.password).unwrap();
    for kind in ObjectKind::LISTED.into_iter().filter(|kind| *kind != ObjectKind::Lock) {
        let keys = fixture.keys_of(kind);
        assert!(keys.len() >= 2, "{kind:?}");
        let (one, two) = (keys[0], keys[1]);
        let (first, second) = (fixture.store.get(&one).unwrap(), fixture.store.get(&two).unwrap());
        fixture.mend(&one, &second);
        fixture.mend(&two, &first);
        let report = fixture.verify();
        for key in [one, two] {
            let found = about(&report.damage, &key.path());
            // Packs of another length are told by that.
            let by_length = kind == ObjectKind::Pack && first.len() != second.len();
            assert!(by_length || found.what == DamageKind::WrongHash, "{found:#?}");
        }
        fixture.mend(&one, &first);
        fixture.mend(&two, &second);
    }
    fixture.snapshots.clear();
    assert!(fixture.verify().is_sound());
}

#[test]
fn packs_of_equal_length_that_changed_places_are_both_noticed() {
    let mut fixture = Fixture::empty();
    // The first takes the manifest, which is the same in all. The others hold bytes that do not compress, and nothing else.
    for n in 0..3 {
        fixture.backup(&[("only".to_owned(), lastgood_testkit::rng::Rng::new(n + 40).bytes(5000))].into());
    }
    let (one, _) = fixture.place_of_in(fixture.snapshots[1], "only");
    let (two, _) = fixture.place_of_in(fixture.snapshots[2], "only");
    let (first, second) = (fixture.store.get(&one).unwrap(), fixture.store.get(&two).unwrap());
    assert_eq!(first.len(), second.len());
    fixture.mend(&one, &second);
    fixture.mend(&two, &first);
    let report = fixture.verify();
    for (key, snapshot) in [(one, fixture.snapshots[1]), (two, fixture.snapshots[2])] {
        let found = about(&report.damage, &key.path());
        assert_eq!((found.what, &*found.snapshots), (DamageKind::WrongHash, &[snapshot][..]));
    }
}

#[test]
fn the_kind_of_damage_is_told() {
    let fixture = Fixture::two();
    let (pack, blob) = fixture.place_of("a");
    let length = fixture.store.size(&pack).unwrap() as usize;
    let whole = fixture.store.get(&pack).unwrap();
    let tell = |change: &dyn Fn(&mut Vec<u8>)| {
        fixture.store.damage(&pack, |bytes| change(bytes)).unwrap();
        let report = fixture.verify();
        fixture.mend(&pack, &whole);
        let found = about(&report.damage, &pack.path());
        (found.what, found.message.clone(), found.snapshots.len())
    };
    let (what, message, snapshots) = tell(&|bytes| bytes[blob.start + 3] ^= 1);
    assert_eq!((what, snapshots), (DamageKind::WrongHash, 2));
    assert!(message.contains("1 of ") && message.contains("authentication tag"), "{message}");
    // The header is at the end: no blob is lost with it.
    let (what, message, snapshots) = tell(&|bytes| bytes[length - 10] ^= 1);
    assert_eq!((what, snapshots), (DamageKind::WrongHash, 0));
    assert!(message.contains("its own list of blobs") && message.contains("are intact"), "{message}");
    let (what, message, snapshots) = tell(&|bytes| bytes.truncate(length - 2));
    assert_eq!((what, snapshots), (DamageKind::Truncated, 0));
    assert!(message.contains(&format!("{} bytes where {length} are due", length - 2)), "{message}");
    let (what, _, snapshots) = tell(&|bytes| bytes.truncate(blob.end - 1));
    assert_eq!((what, snapshots), (DamageKind::Truncated, 2));
    let (what, message, snapshots) = tell(&|bytes| bytes.push(7));
    assert_eq!((what, snapshots), (DamageKind::TooLong, 0));
    assert!(message.contains("are intact"), "{message}");
}

#[test]
fn what_the_disk_cannot_read_is_damage_and_a_store_out_of_reach_is_not() {
    let fixture = Fixture::two();
    let pack = fixture.pack_of("a");
    let open = |faults: FaultStore<lastgood_stores::MemoryStore>| {
        lastgood_repo::Repository::open(Arc::new(faults), &fixture.password, Default::default()).unwrap()
    };
    for (kind, is_damage) in [(ErrorKind::Io, true), (ErrorKind::Retry, false)] {
        let store = FaultStore::new(fixture.store.clone());
        store.add(Fault::on(Op::GetRange).at(pack).lasting().fails_before(kind));
        let outcome = verify(&open(store), &Monitor::new(), &VerifyOptions::all());
        match outcome {
            Ok(report) => {
                assert!(is_damage);
                let found = about(&report.damage, &pack.path());
                assert_eq!((found.what, found.snapshots.len()), (DamageKind::Unreadable, 2));
            }
            Err(error) => assert_eq!((is_damage, error.kind()), (false, kind)),
        }
    }
}

#[test]
fn a_wish_to_stop_ends_it_and_leaves_no_lock() {
    let fixture = Fixture::two();
    let monitor = Monitor::new();
    monitor.cancel();
    let error = verify(&fixture.repository, &monitor, &VerifyOptions::all()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(fixture.keys_of(ObjectKind::Lock), []);
}

#[test]
fn a_store_that_takes_no_lock_is_verified_and_the_report_says_so() {
    let fixture = Fixture::two();
    let store = Arc::new(ReadOnlyStore::new(fixture.store.clone()));
    let repository = lastgood_repo::Repository::open(store, &fixture.password, Default::default()).unwrap();
    let report = verify(&repository, &Monitor::new(), &VerifyOptions::all()).unwrap();
    assert!(report.is_sound());
    assert!(report.notes.iter().any(|note| note.contains("no lock could be taken")), "{:?}", report.notes);
}

#[test]
fn locks_of_dead_runs_are_told_and_left_for_the_next_backup() {
    let mut fixture = Fixture::two();
    let guard = fixture.repository.lock(lastgood_repo::LockMode::Shared).unwrap();
    let lock = fixture.keys_of(ObjectKind::Lock)[0];
    let bytes = fixture.store.get(&lock).unwrap();
    assert_eq!(fixture.check().notes, [""; 0]);
    drop(guard);
    fixture.mend(&lock, &bytes);
    fixture.flip(&lock, 20);
    let notes = fixture.check().notes;
    assert!(notes.len() == 1 && notes[0].contains(&lock.path()), "{notes:?}");
    fixture.store.remove(&lock).unwrap();

    // A pack that a dead run left behind, and its lock.
    let pack = fixture.pack_of("new");
    let index = fixture.keys_of(ObjectKind::Index).into_iter().find(|index| {
        let kept = fixture.store.get(index).unwrap();
        fixture.store.remove(index).unwrap();
        let hit = fixture.check().damage.iter().any(|d| d.object.to_string() == pack.path());
        if !hit {
            fixture.mend(index, &kept);
        }
        hit
    });
    assert!(index.is_some());
    let lost = fixture.snapshots.pop().unwrap();
    fixture.store.remove(&StoreKey::new(ObjectKind::Snapshot, lost)).unwrap();
    let old = lastgood_repo::Repository::open(
        Arc::new(fixture.store.clone()),
        &fixture.password,
        lastgood_repo::OpenOptions {
            clock: Arc::new(|| lastgood_model::Time::new(1_000_000_000, 0)),
            ..Default::default()
        },
    );
    std::mem::forget(old.unwrap().lock(lastgood_repo::LockMode::Shared).unwrap());
    let report = fixture.check();
    assert!(report.is_sound(), "{:#?}", report.damage);
    assert!(report.notes.iter().any(|n| n.contains("left behind by process")), "{:?}", report.notes);
    assert!(report.notes.iter().any(|n| n.contains("in no readable index file")), "{:?}", report.notes);
    assert_eq!(fixture.keys_of(ObjectKind::Lock).len(), 1, "the stale lock is what makes the next backup look");
    fixture.backup(&super::some_files());
    let report = fixture.verify();
    assert!(report.is_sound() && report.notes.is_empty(), "{:?}", report.notes);
}

#[test]
fn nothing_is_looked_at_while_somebody_deletes() {
    let fixture = Fixture::two();
    let alone = fixture.repository.lock(lastgood_repo::LockMode::Exclusive).unwrap();
    let error = verify(&fixture.repository, &Monitor::new(), &VerifyOptions::all()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    drop(alone);
    assert!(fixture.verify().is_sound());
}
