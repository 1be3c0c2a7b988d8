//! The shared contract on every store and wrapper.

use lastgood_model::store::{ObjectKind, Store};
use lastgood_model::{ErrorKind, Result};
use lastgood_stores::{
    DeadlineStore, Fault, FaultStore, LimitStore, LocalStore, MemoryStore, Op, Pace, Rates, ReadOnlyStore, RecordStore,
    RetryPolicy, RetryStore, Timeouts, open_url,
};
use lastgood_testkit::store_suite;
use std::cell::RefCell;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Fresh folders that live as long as this does.
#[derive(Default)]
struct Folders(RefCell<Vec<tempfile::TempDir>>);

impl Folders {
    fn store(&self) -> LocalStore {
        let folder = tempfile::tempdir().unwrap();
        // Two levels that are not there yet.
        let store = LocalStore::new(folder.path().join("new/repository")).unwrap();
        self.0.borrow_mut().push(folder);
        store
    }
}

/// Time stands still and waiting takes none.
struct NoWait(AtomicU64);

impl Pace for NoWait {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
    fn wait(&self, _: Duration) -> Result<()> {
        Ok(())
    }
    fn random(&self) -> u64 {
        self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }
}

fn retry<S: Store>(inner: S) -> RetryStore<S> {
    let policy = RetryPolicy { tries_max: 200, total_max: Duration::MAX, reserve: u32::MAX, ..RetryPolicy::default() };
    RetryStore::with_pace(inner, policy, Arc::new(NoWait(AtomicU64::new(1))))
}

#[test]
fn a_local_folder_keeps_the_contract() {
    let folders = Folders::default();
    store_suite::run(|| Arc::new(folders.store()));
}

#[test]
fn a_local_folder_opened_by_url_keeps_the_contract() {
    let folders = Folders::default();
    store_suite::run(|| open_url(&format!("file://{}", folders.store().root().display())).unwrap());
}

#[test]
fn a_limited_store_and_one_with_a_deadline_keep_the_contract() {
    let rates = Rates { upload: NonZeroU64::new(1 << 40), download: NonZeroU64::new(1 << 40) };
    store_suite::run(|| Arc::new(LimitStore::new(DeadlineStore::new(MemoryStore::new(), Timeouts::default()), rates)));
}

#[test]
fn memory_keeps_the_contract() {
    store_suite::run(|| Arc::new(MemoryStore::new()));
}

#[test]
fn wrappers_keep_the_contract_when_stacked_over_a_shared_store() {
    let folders = Folders::default();
    store_suite::run(|| {
        let shared: Arc<dyn Store> = Arc::new(folders.store());
        Arc::new(RecordStore::new(retry(FaultStore::new(shared))))
    });
}

#[test]
fn each_wrapper_alone_keeps_the_contract() {
    store_suite::run(|| Arc::new(RecordStore::new(MemoryStore::new())));
    store_suite::run(|| Arc::new(FaultStore::new(MemoryStore::new())));
    store_suite::run(|| Arc::new(retry(MemoryStore::new())));
}

#[test]
fn retries_keep_the_contract_over_a_store_that_loses_every_third_request_or_reply() {
    for effect in [Fault::fails_before, Fault::fails_after] {
        let faulty: RefCell<Vec<Arc<FaultStore<MemoryStore>>>> = RefCell::default();
        store_suite::run(|| {
            let store = FaultStore::new(MemoryStore::new());
            let store = Arc::new(store.with(effect(Fault::on_any(), ErrorKind::Retry).every(3)));
            faulty.borrow_mut().push(store.clone());
            Arc::new(retry(store))
        });
        assert!(faulty.borrow().iter().all(|store| store.fired() > 0), "the faults did strike");
    }
}

#[test]
fn retries_keep_the_contract_over_torn_puts() {
    store_suite::run(|| {
        let store = FaultStore::new(MemoryStore::new());
        // Keys alone: a torn config takes its own name for good, and torn packs would be seen by the facts that watch
        // half an object never being seen.
        Arc::new(retry(store.with(Fault::on(Op::Put).of(ObjectKind::Key).tears_put(1))))
    });
}

#[test]
fn a_read_only_store_reads_and_denies_every_change() {
    let folders = Folders::default();
    store_suite::run_read_only(Arc::new(folders.store()), |inner| Arc::new(ReadOnlyStore::new(inner)));
    store_suite::run_read_only(Arc::new(MemoryStore::new()), |inner| Arc::new(ReadOnlyStore::new(inner)));
}

#[test]
fn foreign_names_in_a_local_folder_are_passed_over() {
    let folders = Folders::default();
    let store = folders.store();
    let root = store.root().to_owned();
    store_suite::foreign_names_are_passed_over(&store, |path, bytes| {
        let path = root.join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, bytes).unwrap();
    });
}
