//! The contract of [`Store`], as tests that every implementation and every wrapper must pass.
//!
//! Each fact gets a fresh store. A fact that does not hold panics with its own name in the message.

use lastgood_model::store::{ObjectKind, SideName, SidePut, SideStore, Store, StoreKey};
use lastgood_model::{ErrorKind, Id};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

/// Writers that race in the concurrent facts.
const WRITERS: usize = 8;

/// Holds on a fresh store or panics.
type Fact = fn(&dyn Store);

/// Checks the whole contract. `make` gives a new, empty store each time, on which `create` has not been called.
pub fn run(make: impl Fn() -> Arc<dyn Store>) {
    let facts: &[(&str, Fact)] = &[
        ("what is put is read back", what_is_put_is_read_back),
        ("parts are joined in order", parts_are_joined_in_order),
        ("the config is written once", the_config_is_written_once),
        ("putting an object again is harmless", putting_an_object_again_is_harmless),
        ("ranges are exact", ranges_are_exact),
        ("what is not there is absent", what_is_not_there_is_absent),
        ("removing twice succeeds", removing_twice_succeeds),
        ("a removed object can be put again", a_removed_object_can_be_put_again),
        ("kinds are listed apart", kinds_are_listed_apart),
        ("create is idempotent and keeps objects", create_is_idempotent_and_keeps_objects),
        ("a sweep removes no object", a_sweep_removes_no_object),
        ("the same object can be put by many at once", the_same_object_can_be_put_by_many_at_once),
        ("of many configs one wins", of_many_configs_one_wins),
        ("readers see all of an object or nothing", readers_see_all_of_an_object_or_nothing),
        ("different objects can be put by many at once", different_objects_can_be_put_by_many_at_once),
        ("objects beside the repository's are kept apart", objects_beside_are_kept_apart),
        ("of many that create an object beside one wins", of_many_that_create_beside_one_wins),
    ];
    for (name, fact) in facts {
        let store = make();
        checked(name, || {
            expect(store.create(), "create");
            fact(&*store);
        });
    }
}

/// Checks the reading half of the contract on `wrap(store)`, where `store` is filled before it is wrapped, and that
/// every change is [`ErrorKind::Denied`] and changes nothing.
pub fn run_read_only(store: Arc<dyn Store>, wrap: impl Fn(Arc<dyn Store>) -> Arc<dyn Store>) {
    expect(store.create(), "create");
    let objects = fill(&*store);
    let reader = wrap(store);
    checked("objects are read", || read_all(&*reader, &objects));
    checked("absent objects are absent", || absent(&*reader, &pack(0xee)));
    checked("changes are denied", || {
        let denied = |result: Result<(), lastgood_model::Error>, act: &str| {
            assert_eq!(result.map_err(|e| e.kind()), Err(ErrorKind::Denied), "{act}");
        };
        denied(reader.create(), "create");
        denied(reader.put(&pack(0xee), &[b"new"]), "put");
        denied(reader.put(&StoreKey::CONFIG, &[b"new"]), "put config");
        denied(reader.remove(&objects[0].0), "remove");
        denied(reader.remove(&pack(0xee)), "remove what is absent");
        denied(reader.sweep(Duration::ZERO).map(drop), "sweep");
        if let Some(side) = reader.side() {
            let name = beside("gc", "list");
            denied(side.put_side(&name, b"new", SidePut::Replace), "put beside");
            denied(side.remove_side(&name), "remove beside");
            absent_beside(side, &name);
        }
        expect(reader.sync(), "sync with nothing to do");
        read_all(&*reader, &objects);
        absent(&*reader, &pack(0xee));
    });
}

/// Checks that names that are no ids are passed over. `plant` lays a file at a path below the store's root, with `/`
/// between parts, behind the store's back.
pub fn foreign_names_are_passed_over(store: &dyn Store, plant: impl Fn(&str, &[u8])) {
    expect(store.create(), "create");
    let objects = fill(store);
    let hex = "ab".repeat(32);
    for kind in ObjectKind::LISTED {
        let folder = kind.folder();
        for name in
            ["README", ".tmp-1-0-deadbeef", &format!("{hex}-tmp-1"), &hex[1..], &format!("{hex}0"), &hex.to_uppercase()]
        {
            plant(&format!("{folder}/{name}"), b"foreign");
            if kind == ObjectKind::Pack {
                plant(&format!("data/ab/{name}"), b"foreign");
            }
        }
    }
    plant("data/ab/lost+found/deep", b"foreign");
    plant("data/abc/deep", b"foreign");
    plant(&format!("data/AB/{hex}"), b"foreign");
    plant("README", b"foreign");
    read_all(store, &objects);
}

fn checked(name: &str, fact: impl FnOnce()) {
    /// Tells which fact was being checked when a panic passes.
    struct Name<'a>(&'a str);
    impl Drop for Name<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("not true: {}\n", self.0));
            }
        }
    }
    let _name = Name(name);
    fact();
}

#[track_caller]
fn expect<T>(result: Result<T, lastgood_model::Error>, act: &str) -> T {
    result.unwrap_or_else(|error| panic!("{act}: {error:?}"))
}

fn id(n: u8) -> Id {
    Id([n; 32])
}

fn pack(n: u8) -> StoreKey {
    StoreKey::new(ObjectKind::Pack, id(n))
}

/// Bytes that differ at every place and between seeds.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

type Objects = Vec<(StoreKey, Vec<u8>)>;

/// Puts objects of every kind and a config.
fn fill(store: &dyn Store) -> Objects {
    let mut objects = vec![(StoreKey::CONFIG, bytes(0, 155))];
    for (n, kind) in ObjectKind::LISTED.into_iter().enumerate() {
        for (m, length) in [0, 1, 4096, 70_001].into_iter().enumerate() {
            let seed = (n * 16 + m) as u8;
            objects.push((StoreKey::new(kind, id(seed)), bytes(u64::from(seed), length)));
        }
    }
    for (key, content) in &objects {
        expect(store.put(key, &[content]), "put");
    }
    expect(store.sync(), "sync");
    objects
}

/// Every object reads back by every way of reading, and lists show these objects and no others.
#[track_caller]
fn read_all(store: &dyn Store, objects: &Objects) {
    for (key, content) in objects {
        assert!(expect(store.get(key), "get") == *content, "{key} differs");
        assert_eq!(expect(store.size(key), "size"), content.len() as u64, "{key}");
        let mut out = b"old".to_vec();
        let middle = content.len() / 3..content.len() / 3 * 2;
        expect(store.get_range(key, middle.start as u64, middle.len(), &mut out), "get_range");
        assert!(out == content[middle], "a range of {key} differs");
    }
    for kind in ObjectKind::LISTED {
        let mut want: Vec<_> =
            objects.iter().filter(|(key, _)| key.kind == kind).map(|(key, c)| (key.id, c.len() as u64)).collect();
        want.sort_unstable();
        assert_eq!(listed(store, kind), want, "{kind:?}");
    }
}

fn listed(store: &dyn Store, kind: ObjectKind) -> Vec<(Id, u64)> {
    let mut found = expect(store.list(kind), "list");
    found.sort_unstable();
    found
}

#[track_caller]
fn absent(store: &dyn Store, key: &StoreKey) {
    let kind = |result: Result<(), lastgood_model::Error>| result.expect_err("an error").kind();
    assert_eq!(kind(store.get(key).map(drop)), ErrorKind::Absent, "get {key}");
    assert_eq!(kind(store.size(key).map(drop)), ErrorKind::Absent, "size {key}");
    let mut out = b"old".to_vec();
    assert_eq!(kind(store.get_range(key, 0, 0, &mut out)), ErrorKind::Absent, "get_range {key}");
    assert!(out.is_empty(), "cleared also on failure");
    assert!(!listed(store, key.kind).iter().any(|(id, _)| *id == key.id), "list {key}");
}

fn what_is_put_is_read_back(store: &dyn Store) {
    for kind in ObjectKind::LISTED {
        assert_eq!(listed(store, kind), [], "a new store is empty");
    }
    let objects = fill(store);
    read_all(store, &objects);
    assert!(!store.location().is_empty());
    assert!(store.capabilities().connections > 0);
}

fn parts_are_joined_in_order(store: &dyn Store) {
    let content = bytes(1, 300_000);
    let cases: [Vec<&[u8]>; 5] = [
        vec![],
        vec![b"", b""],
        vec![&content],
        vec![b"", &content[..1], b"", &content[1..200_000], &content[200_000..], b""],
        content[..9000].chunks(4).collect(),
    ];
    for (n, parts) in cases.iter().enumerate() {
        let key = pack(n as u8);
        expect(store.put(&key, parts), "put");
        assert!(expect(store.get(&key), "get") == parts.concat(), "case {n}");
    }
}

fn the_config_is_written_once(store: &dyn Store) {
    absent(store, &StoreKey::CONFIG);
    expect(store.put(&StoreKey::CONFIG, &[b"one", b"ce"]), "put");
    for other in [&b"other"[..], b"once", b""] {
        let error = store.put(&StoreKey::CONFIG, &[other]).expect_err("the name is taken");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(expect(store.get(&StoreKey::CONFIG), "get"), b"onece");
    }
    expect(store.remove(&StoreKey::CONFIG), "remove");
    absent(store, &StoreKey::CONFIG);
    expect(store.put(&StoreKey::CONFIG, &[b"new"]), "put again");
}

fn putting_an_object_again_is_harmless(store: &dyn Store) {
    let content = bytes(3, 5000);
    for kind in ObjectKind::LISTED {
        let key = StoreKey::new(kind, id(3));
        for _ in 0..3 {
            expect(store.put(&key, &[&content[..17], &content[17..]]), "put");
            expect(store.sync(), "sync");
        }
        assert!(expect(store.get(&key), "get") == content);
        assert_eq!(listed(store, kind), [(id(3), 5000)]);
    }
}

fn ranges_are_exact(store: &dyn Store) {
    let content = bytes(4, 10_000);
    let (key, empty) = (pack(4), pack(5));
    expect(store.put(&key, &[&content]), "put");
    expect(store.put(&empty, &[]), "put");
    let mut out = Vec::new();
    for (offset, length) in [(0, 10_000), (0, 0), (0, 1), (9_999, 1), (10_000, 0), (1, 9_998), (4095, 4098)] {
        expect(store.get_range(&key, offset as u64, length, &mut out), "get_range");
        assert!(out == content[offset..offset + length], "{offset}+{length}");
    }
    expect(store.get_range(&empty, 0, 0, &mut out), "the empty range of an empty object");
    assert!(out.is_empty());
    let beyond =
        [(0, 10_001), (9_999, 2), (10_000, 1), (10_001, 0), (u64::MAX, 1), (u64::MAX, usize::MAX), (5, usize::MAX)];
    for (offset, length) in beyond {
        let error = store.get_range(&key, offset, length, &mut out).expect_err("beyond the end");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{offset}+{length}: {error:?}");
    }
    let error = store.get_range(&empty, 0, 1, &mut out).expect_err("beyond the end");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    // A buffer much larger than the range is reused and still exact.
    let mut out = Vec::with_capacity(1 << 20);
    expect(store.get_range(&key, 7, 100, &mut out), "get_range");
    assert!(out == content[7..107]);
}

fn what_is_not_there_is_absent(store: &dyn Store) {
    absent(store, &StoreKey::CONFIG);
    for kind in ObjectKind::LISTED {
        absent(store, &StoreKey::new(kind, id(9)));
        expect(store.put(&StoreKey::new(kind, id(8)), &[b"x"]), "put");
        absent(store, &StoreKey::new(kind, id(9)));
    }
}

fn removing_twice_succeeds(store: &dyn Store) {
    let objects = fill(store);
    for (key, content) in &objects {
        // An object read a moment ago is gone like any other.
        expect(store.get_range(key, 0, content.len(), &mut Vec::new()), "get_range");
        expect(store.remove(key), "remove");
        absent(store, key);
        expect(store.remove(key), "remove again");
    }
    expect(store.sync(), "sync");
    read_all(store, &Vec::new());
}

fn a_removed_object_can_be_put_again(store: &dyn Store) {
    let key = pack(6);
    for _ in 0..3 {
        expect(store.put(&key, &[b"content"]), "put");
        let mut out = Vec::new();
        expect(store.get_range(&key, 1, 3, &mut out), "get_range");
        assert_eq!(out, b"ont");
        expect(store.remove(&key), "remove");
    }
    absent(store, &key);
}

fn kinds_are_listed_apart(store: &dyn Store) {
    // The same id in every kind: five objects.
    for (n, kind) in ObjectKind::LISTED.into_iter().enumerate() {
        expect(store.put(&StoreKey::new(kind, id(7)), &[&bytes(7, n)]), "put");
    }
    for (n, kind) in ObjectKind::LISTED.into_iter().enumerate() {
        assert_eq!(listed(store, kind), [(id(7), n as u64)], "{kind:?}");
    }
}

fn create_is_idempotent_and_keeps_objects(store: &dyn Store) {
    let objects = fill(store);
    expect(store.create(), "create again");
    expect(store.sync(), "sync");
    expect(store.sync(), "sync with nothing to do");
    read_all(store, &objects);
}

fn a_sweep_removes_no_object(store: &dyn Store) {
    let objects = fill(store);
    let swept = expect(store.sweep(Duration::ZERO), "sweep");
    assert_eq!(swept.leftovers, 0, "nothing was left behind");
    read_all(store, &objects);
}

/// Runs `write` on many threads that begin together.
fn race<T: Send>(write: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(WRITERS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WRITERS)
            .map(|n| {
                let (start, write) = (&start, &write);
                scope.spawn(move || {
                    start.wait();
                    write(n)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer panicked")).collect()
    })
}

fn the_same_object_can_be_put_by_many_at_once(store: &dyn Store) {
    let content = bytes(10, 200_000);
    for round in 0..4 {
        let key = pack(round);
        for result in race(|_| store.put(&key, &[&content[..100], &content[100..]])) {
            expect(result, "put");
        }
        assert!(expect(store.get(&key), "get") == content);
    }
    assert_eq!(listed(store, ObjectKind::Pack).len(), 4);
}

fn of_many_configs_one_wins(store: &dyn Store) {
    let results = race(|n| store.put(&StoreKey::CONFIG, &[&bytes(n as u64, 155)]));
    let winners: Vec<usize> = (0..WRITERS).filter(|n| results[*n].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    }
    assert!(expect(store.get(&StoreKey::CONFIG), "get") == bytes(winners[0] as u64, 155));
}

fn readers_see_all_of_an_object_or_nothing(store: &dyn Store) {
    let content = bytes(11, 1 << 20);
    let key = pack(11);
    let ended = AtomicBool::new(false);
    race(|n| {
        if n == 0 {
            let result = store.put(&key, &[&content]);
            ended.store(true, Ordering::SeqCst);
            return expect(result, "put");
        }
        loop {
            let must_be_there = ended.load(Ordering::SeqCst);
            match store.get(&key) {
                Ok(found) => return assert!(found == content, "half an object was seen"),
                Err(error) if error.kind() == ErrorKind::Absent && !must_be_there => {}
                Err(error) => panic!("get: {error:?}"),
            }
            for (_, length) in listed(store, ObjectKind::Pack) {
                assert_eq!(length, 1 << 20, "half an object was listed");
            }
        }
    });
}

fn beside(folder: &str, name: &str) -> SideName {
    expect(SideName::new(folder, name), "name")
}

#[track_caller]
fn absent_beside(side: &dyn SideStore, name: &SideName) {
    assert_eq!(side.get_side(name).map_err(|e| e.kind()), Err(ErrorKind::Absent), "{name}");
}

/// Names in `folder` with their lengths, in order.
fn listed_beside(side: &dyn SideStore, folder: &str) -> Vec<(String, u64)> {
    let mut list = expect(side.list_side(folder), "list beside");
    list.sort();
    list.into_iter().map(|(name, length)| (name.name().to_owned(), length)).collect()
}

/// Holds for every store that takes such objects at all.
fn objects_beside_are_kept_apart(store: &dyn Store) {
    let objects = fill(store);
    let Some(side) = store.side() else { return };
    let [list, other, hold] = [beside("gc", "list-1"), beside("gc", "list-2"), beside("holds", "list-1")];
    assert_eq!(listed_beside(side, "gc"), []);
    absent_beside(side, &list);
    expect(side.remove_side(&list), "remove beside what is absent");

    expect(side.put_side(&list, b"first", SidePut::Create), "create beside");
    let again = side.put_side(&list, b"another", SidePut::Create);
    assert_eq!(again.map_err(|e| e.kind()), Err(ErrorKind::Conflict), "create beside what is there");
    assert_eq!(expect(side.get_side(&list), "get beside"), b"first");
    for content in [&b"much longer than before"[..], b"short", b"", b"first"] {
        expect(side.put_side(&list, content, SidePut::Replace), "replace beside");
        assert_eq!(expect(side.get_side(&list), "get beside"), content);
    }
    let long = bytes(21, 300_000);
    expect(side.put_side(&other, &long, SidePut::Replace), "replace beside what is absent");
    expect(side.put_side(&hold, b"hold", SidePut::Create), "create in another folder");
    assert!(expect(side.get_side(&other), "get beside") == long);

    assert_eq!(listed_beside(side, "gc"), [("list-1".to_owned(), 5), ("list-2".to_owned(), 300_000)]);
    assert_eq!(listed_beside(side, "holds"), [("list-1".to_owned(), 4)]);
    assert_eq!(expect(store.sweep(Duration::ZERO), "sweep").leftovers, 0);
    expect(side.remove_side(&list), "remove beside");
    expect(side.remove_side(&list), "remove beside again");
    absent_beside(side, &list);
    assert_eq!(listed_beside(side, "gc"), [("list-2".to_owned(), 300_000)]);
    expect(side.put_side(&list, b"anew", SidePut::Create), "create beside what was removed");
    read_all(store, &objects);
}

fn of_many_that_create_beside_one_wins(store: &dyn Store) {
    let Some(side) = store.side() else { return };
    if !store.capabilities().exclusive_create {
        return;
    }
    let name = beside("gc", "lease");
    let results = race(|n| side.put_side(&name, &bytes(n as u64, 99), SidePut::Create));
    let winners: Vec<usize> = (0..WRITERS).filter(|n| results[*n].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    }
    assert!(expect(side.get_side(&name), "get beside") == bytes(winners[0] as u64, 99));
}

fn different_objects_can_be_put_by_many_at_once(store: &dyn Store) {
    let key_of = |n: usize, m: usize| pack((n * 16 + m) as u8);
    race(|n| {
        for m in 0..16 {
            let key = key_of(n, m);
            let content = bytes((n * 16 + m) as u64, 1000 + n + m);
            expect(store.put(&key, &[&content]), "put");
            expect(store.sync(), "sync");
            assert!(expect(store.get(&key), "get") == content);
            if m % 2 == 1 {
                expect(store.remove(&key), "remove");
            }
        }
    });
    assert_eq!(listed(store, ObjectKind::Pack).len(), WRITERS * 8);
    for n in 0..WRITERS {
        for m in (0..16).step_by(2) {
            assert!(expect(store.get(&key_of(n, m)), "get") == bytes((n * 16 + m) as u64, 1000 + n + m));
        }
    }
}
