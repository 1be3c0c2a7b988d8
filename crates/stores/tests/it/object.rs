//! Object stores against servers by others.

use crate::pack;
use lastgood_model::store::{ObjectKind, SideName, SidePut, Store, StoreKey};
use lastgood_model::{ErrorKind, Id, Result};
use lastgood_stores::{
    Access, CapabilityRecord, LockMode, ObjectLock, RetryPolicy, RetryStore, Secret, Secrets, Timeouts, parse_location,
};
use lastgood_testkit::azurite::Azurite;
use lastgood_testkit::proxy::{Action, Proxy};
use lastgood_testkit::s3::{S3Server, url_at};
use lastgood_testkit::store_suite;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Secrets by name; a name can be given others later.
#[derive(Default)]
pub(crate) struct Given(Mutex<BTreeMap<String, String>>);

impl Given {
    pub(crate) fn set(&self, name: &str, value: &str) {
        self.0.lock().unwrap().insert(name.to_owned(), value.to_owned());
    }
}

impl Secrets for Given {
    fn get(&self, name: &str) -> Result<Option<Secret>> {
        Ok(self.0.lock().unwrap().get(name).map(|value| Secret::new(value.clone())))
    }
    fn has(&self, name: &str) -> bool {
        self.0.lock().unwrap().contains_key(name)
    }
}

/// Short, so that what never ends is told soon.
pub(crate) const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(2), idle: Duration::from_millis(1500), slowest_bytes_per_second: 1 << 20 };

/// The keys of the test server.
pub(crate) fn keys() -> Arc<Given> {
    let given = Given::default();
    given.set("access_key_id", S3Server::KEY_ID);
    given.set("secret_access_key", S3Server::SECRET);
    Arc::new(given)
}

pub(crate) fn access() -> Access {
    Access { secrets: Some(keys()), timeouts: TIMEOUTS, ..Access::default() }
}

/// For what must not fail on a busy machine.
pub(crate) fn patient() -> Access {
    Access { secrets: Some(keys()), ..Access::default() }
}

pub(crate) fn open(url: &str, access: &Access) -> Arc<dyn Store> {
    parse_location(url).unwrap().open(access).unwrap()
}

/// As the program uses it. A server may close a connection at the moment in which it is used again, and on a busy machine
/// it does.
pub(crate) fn as_used(store: Arc<dyn Store>) -> Arc<dyn Store> {
    Arc::new(RetryStore::new(store, RetryPolicy::default()))
}

#[test]
fn s3_keeps_the_contract() {
    let server = S3Server::start();
    let count = AtomicUsize::new(0);
    store_suite::run(|| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        as_used(open(&server.url(&format!("a prefix/{n}")), &patient()))
    });
}

#[test]
fn s3_keeps_the_contract_within_wrappers_and_at_the_root_of_a_bucket() {
    let server = S3Server::start();
    let store = as_used(open(&server.url(""), &patient()));
    let reader = as_used(open(&server.url(""), &patient()));
    store_suite::run_read_only(store, |_| Arc::new(lastgood_stores::ReadOnlyStore::new(reader.clone())));
    store_suite::foreign_names_are_passed_over(&*open(&server.url("other"), &patient()), |name, bytes| {
        // A file system cannot have a folder and a file by one name.
        if !name.ends_with("lost+found/deep") {
            server.plant(&format!("other/{name}"), bytes);
        }
    });
}

#[test]
fn google_cloud_storage_keeps_the_contract() {
    let server = S3Server::start_like_google();
    let count = AtomicUsize::new(0);
    store_suite::run(|| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        as_used(open(&server.google_url(&format!("a prefix/{n}")), &Access::default()))
    });
}

#[test]
fn azure_keeps_the_contract() {
    let azurite = Azurite::start();
    let given = Given::default();
    given.set("account_key", Azurite::KEY);
    let access = Access { secrets: Some(Arc::new(given)), ..Access::default() };
    let count = AtomicUsize::new(0);
    store_suite::run(|| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        as_used(open(&azurite.url(&format!("a prefix/{n}")), &access))
    });
    let store = open(&azurite.url("r"), &access);
    store.create().unwrap();
    assert!(CapabilityRecord::read(store.side().unwrap()).unwrap().unwrap().exclusive_create);
    let url = azurite.url("r").replace("//container", "//nocontainer");
    let error = open(&url, &access).list(ObjectKind::Snapshot).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoRepository, "{error:?}");
}

#[test]
fn what_the_server_can_is_tried_and_remembered() {
    let server = S3Server::start();
    let store = open(&server.url("r"), &patient());
    assert!(!store.capabilities().exclusive_create, "nobody has shown it");
    store.create().unwrap();
    assert!(store.capabilities().exclusive_create);
    let again = open(&server.url("r"), &patient());
    assert!(again.capabilities().exclusive_create, "remembered beside the repository");
    let side = again.side().unwrap();
    let record = CapabilityRecord::read(side).unwrap().unwrap();
    assert!(record.exclusive_create && record.list_after_write && record.locks.is_none() && !record.keeps_versions);
    assert!(record.clock_ahead_seconds.unwrap().abs() <= 2, "{record:?}");
    assert_eq!(side.list_side("probe").unwrap().len(), 1, "tries are taken away again");
    again.probe().unwrap();
    assert_eq!(side.list_side("probe").unwrap().len(), 1);
    assert_eq!(CapabilityRecord::read(open(&server.url("none"), &patient()).side().unwrap()).unwrap(), None);
}

#[test]
fn a_sweep_takes_what_an_ended_try_has_left_and_nothing_else() {
    let server = S3Server::start();
    let store = open(&server.url("r"), &patient());
    store.create().unwrap();
    server.plant("r/lastgood/probe/try-0123", b"left");
    server.plant("r/lastgood/gc/try-0123", b"kept");
    assert_eq!(store.sweep(Duration::from_secs(3600)).unwrap().leftovers, 0, "it may be another's of this moment");
    let swept = store.sweep(Duration::ZERO).unwrap();
    assert_eq!((swept.leftovers, swept.bytes), (1, 4));
    let side = store.side().unwrap();
    assert_eq!(side.list_side("gc").unwrap().len(), 1);
    assert!(CapabilityRecord::read(side).unwrap().is_some());
}

#[test]
fn a_server_that_ignores_conditions_is_found_out_and_the_config_is_written_once_all_the_same() {
    let server = S3Server::start_ignoring_conditions();
    let store = open(&server.url("r"), &patient());
    store.create().unwrap();
    assert!(!store.capabilities().exclusive_create);
    store.put(&StoreKey::CONFIG, &[b"first"]).unwrap();
    assert_eq!(store.put(&StoreKey::CONFIG, &[b"second"]).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(store.get(&StoreKey::CONFIG).unwrap(), b"first");
    let side = store.side().unwrap();
    let name = SideName::new("gc", "lease").unwrap();
    side.put_side(&name, b"one", SidePut::Create).unwrap();
    assert_eq!(side.put_side(&name, b"two", SidePut::Create).unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn a_server_that_refuses_conditions_is_written_to_without() {
    let server = S3Server::start();
    let proxy = Proxy::start(server.address(), |head| match head.text.to_lowercase().contains("if-none-match") {
        true => Action::error(501, "NotImplemented"),
        false => Action::Pass,
    });
    let store = open(&url_at(proxy.address(), "r"), &patient());
    store.create().unwrap();
    assert!(!store.capabilities().exclusive_create);
    store.put(&StoreKey::CONFIG, &[b"first"]).unwrap();
    assert_eq!(store.put(&StoreKey::CONFIG, &[b"second"]).unwrap_err().kind(), ErrorKind::Conflict);
    let fresh = open(&url_at(proxy.address(), "r"), &patient());
    fresh.put(&pack(1), &[b"x"]).unwrap();
    assert_eq!(fresh.get(&pack(1)).unwrap(), b"x");
}

#[test]
fn a_damaged_object_is_replaced_by_the_whole_one() {
    let server = S3Server::start();
    let store = open(&server.url("r"), &patient());
    store.create().unwrap();
    server.plant(&format!("r/{}", pack(1).path()), b"tor");
    store.put(&pack(1), &[b"torn no more"]).unwrap();
    assert_eq!(store.get(&pack(1)).unwrap(), b"torn no more");
}

#[test]
fn lists_go_on_over_pages() {
    let server = S3Server::start();
    let store = open(&server.url("r"), &patient());
    for n in 0..1234u32 {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        server.plant(&format!("r/index/{}", Id(id)), b"x");
    }
    assert_eq!(store.list(ObjectKind::Index).unwrap().len(), 1234);
}

#[test]
fn what_is_seldom_read_is_kept_cold() {
    let server = S3Server::start();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = seen.clone();
    let proxy = Proxy::start(server.address(), move |head| {
        if head.method == "PUT" {
            let class = head.text.lines().find(|line| line.starts_with("x-amz-storage-class")).map(str::to_owned);
            notes.lock().unwrap().push((head.target.clone(), class));
        }
        Action::Pass
    });
    let url = format!("{}&storage_class=REDUCED_REDUNDANCY", url_at(proxy.address(), "r"));
    let store = open(&url, &patient());
    for kind in ObjectKind::LISTED {
        store.put(&StoreKey::new(kind, Id([1; 32])), &[b"x"]).unwrap();
    }
    as_used(store.clone()).put_cold(&pack(0xc0), &[b"x"]).unwrap();
    store.side().unwrap().put_side(&SideName::new("gc", "x").unwrap(), b"x", SidePut::Replace).unwrap();
    for (target, class) in seen.lock().unwrap().iter() {
        let is_cold = target.contains("/data/c0/");
        assert_eq!(class.is_some(), is_cold, "{target}: {class:?}");
    }
    assert_eq!(seen.lock().unwrap().len(), 7);
}

fn locked_for(days: u64) -> Access {
    let keep = Duration::from_secs(days * 86_400);
    Access { lock: Some(ObjectLock { mode: LockMode::Compliance, keep }), ..patient() }
}

#[test]
fn a_server_that_takes_the_wish_to_lock_and_ignores_it_is_refused() {
    let server = S3Server::start();
    let store = open(&server.url("r"), &locked_for(30));
    let error = store.create().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("ignores it"), "{error}");
}

#[test]
fn objects_are_locked_as_they_are_written_but_for_those_that_go_again() {
    let server = S3Server::start();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = seen.clone();
    let proxy = Proxy::start(server.address(), move |head| {
        if head.method == "PUT" {
            let text = head.text.to_lowercase();
            let locked = text.contains("x-amz-object-lock-mode: compliance")
                && text.contains("x-amz-object-lock-retain-until-date: 20")
                && text.contains("x-amz-checksum-sha256: ")
                && text.split("signedheaders=").nth(1).is_some_and(|signed| signed.contains("retain-until-date"));
            notes.lock().unwrap().push((head.target.clone(), locked));
        }
        Action::AddHeader("x-amz-object-lock-retain-until-date", "2030-01-01T00:00:00Z".to_owned())
    });
    let store = open(&url_at(proxy.address(), "r"), &locked_for(30));
    store.create().unwrap();
    seen.lock().unwrap().clear();
    store.put(&StoreKey::CONFIG, &[b"config"]).unwrap();
    for kind in ObjectKind::LISTED {
        store.put(&StoreKey::new(kind, Id([1; 32])), &[b"x"]).unwrap();
    }
    store.side().unwrap().put_side(&SideName::new("gc", "x").unwrap(), b"x", SidePut::Replace).unwrap();
    for (target, locked) in seen.lock().unwrap().iter() {
        let must_go = target.contains("/locks/") || target.contains("/lastgood/");
        assert_eq!(*locked, !must_go, "{target}");
    }
    assert_eq!(seen.lock().unwrap().len(), 7);
    let record = CapabilityRecord::read(store.side().unwrap()).unwrap().unwrap();
    assert_eq!(record.locks, Some(true));
}

#[test]
fn a_locked_object_is_told_from_a_forbidden_one() {
    let server = S3Server::start();
    let proxy = Proxy::start(server.address(), |head| {
        match head.method.as_str() {
        "DELETE" => Action::Answer(
            403,
            Vec::new(),
            "<Error><Code>AccessDenied</Code><Message>Access Denied because object protected by object lock.</Message></Error>".to_owned(),
        ),
        _ => Action::Pass,
    }
    });
    let store = open(&url_at(proxy.address(), "r"), &patient());
    store.put(&pack(1), &[b"x"]).unwrap();
    assert_eq!(store.remove(&pack(1)).unwrap_err().kind(), ErrorKind::Held);
}

#[test]
fn a_missing_bucket_and_wrong_keys_are_told_with_what_to_do_and_without_secrets() {
    let server = S3Server::start();
    let url = server.url("r").replace("//bucket", "//nobucket");
    let error = open(&url, &patient()).list(ObjectKind::Snapshot).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoRepository, "{error:?}");
    let given = keys();
    given.set("secret_access_key", "hunter2hunter2");
    let error =
        open(&server.url("r"), &Access { secrets: Some(given), ..Access::default() }).get(&pack(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.hint().is_some());
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    let half = Given::default();
    half.set("access_key_id", S3Server::KEY_ID);
    let error = open(&server.url("r"), &Access { secrets: Some(Arc::new(half)), ..Access::default() }).get(&pack(1));
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("secret_access_key"), "{error}");
}

#[test]
fn keys_that_expire_are_fetched_anew() {
    let server = S3Server::start();
    // The proxy calls every key expired but the server's.
    let proxy = Proxy::start(server.address(), |head| match head.text.contains(S3Server::KEY_ID) {
        true => Action::Pass,
        false => Action::error(400, "ExpiredToken"),
    });
    let given = keys();
    given.set("access_key_id", "AKOLD");
    let access = Access { secrets: Some(given.clone()), ..Access::default() };
    let store = open(&url_at(proxy.address(), "r"), &access);
    let error = store.put(&pack(1), &[b"x"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "the same key again: {error:?}");
    given.set("access_key_id", S3Server::KEY_ID);
    let error = store.put(&pack(1), &[b"x"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "another key: {error:?}");
    let policy = RetryPolicy { delay_first: Duration::from_millis(1), ..RetryPolicy::default() };
    given.set("access_key_id", "AKOLD");
    let store = RetryStore::new(open(&url_at(proxy.address(), "r"), &access), policy);
    assert_eq!(store.get(&pack(1)).unwrap_err().kind(), ErrorKind::Denied);
    given.set("access_key_id", S3Server::KEY_ID);
    store.put(&pack(1), &[b"x"]).unwrap();
}
