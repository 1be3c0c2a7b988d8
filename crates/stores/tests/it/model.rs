//! Random sequences of calls: a local folder answers as a map does, across reopening.

use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{ErrorKind, Id};
use lastgood_stores::{LocalStore, MemoryStore};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Put(StoreKey, Vec<u8>),
    Get(StoreKey),
    Range(StoreKey, u64, usize),
    Size(StoreKey),
    Remove(StoreKey),
    List(ObjectKind),
    Sync,
    Reopen,
}

fn key() -> impl Strategy<Value = StoreKey> {
    (0..6usize, 0..4u8).prop_map(|(kind, n)| match ObjectKind::LISTED.get(kind) {
        Some(kind) => StoreKey::new(*kind, Id([n; 32])),
        None => StoreKey::CONFIG,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (key(), prop::collection::vec(any::<u8>(), 0..6)).prop_map(|(k, bytes)| Step::Put(k, bytes)),
        2 => key().prop_map(Step::Get),
        4 => (key(), 0..7u64, 0..7usize).prop_map(|(k, offset, length)| Step::Range(k, offset, length)),
        1 => key().prop_map(Step::Size),
        2 => key().prop_map(Step::Remove),
        2 => (0..5usize).prop_map(|n| Step::List(ObjectKind::LISTED[n])),
        1 => Just(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Debug, PartialEq)]
enum Answer {
    Done,
    Bytes(Vec<u8>),
    Size(u64),
    Names(Vec<(Id, u64)>),
    Failed(ErrorKind),
}

fn answer(store: &dyn Store, step: &Step) -> Answer {
    let result = match step {
        Step::Put(key, bytes) => store.put(key, &[bytes]).map(|()| Answer::Done),
        Step::Get(key) => store.get(key).map(Answer::Bytes),
        Step::Range(key, offset, length) => {
            let mut out = b"old".to_vec();
            store.get_range(key, *offset, *length, &mut out).map(|()| Answer::Bytes(out))
        }
        Step::Size(key) => store.size(key).map(Answer::Size),
        Step::Remove(key) => store.remove(key).map(|()| Answer::Done),
        Step::List(kind) => store.list(*kind).map(|mut names| {
            names.sort_unstable();
            Answer::Names(names)
        }),
        Step::Sync => store.sync().map(|()| Answer::Done),
        Step::Reopen => Ok(Answer::Done),
    };
    result.unwrap_or_else(|error| Answer::Failed(error.kind()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_local_folder_answers_as_memory_does(steps in prop::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let mut local = LocalStore::new(folder.path()).unwrap();
        local.create().unwrap();
        let memory = MemoryStore::new();
        for step in &steps {
            if matches!(step, Step::Reopen) {
                local = LocalStore::new(folder.path()).unwrap();
            }
            prop_assert_eq!(answer(&local, step), answer(&memory, step), "{:?}", step);
        }
    }
}
