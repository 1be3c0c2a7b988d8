//! Everything that a network and a busy server do: each call ends, done or failed, by its deadline.

use crate::object::{TIMEOUTS, access, open};
use crate::pack;
use lastgood_model::store::{ObjectKind, SideName, SidePut, Store, StoreKey};
use lastgood_model::{Error, ErrorKind};
use lastgood_stores::{RetryPolicy, RetryStore};
use lastgood_testkit::proxy::{Action, Proxy};
use lastgood_testkit::s3::{S3Server, url_at};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// More than sockets hold.
const LONG: usize = 12 << 20;

fn long() -> Vec<u8> {
    (0..LONG).map(|n| ((n * 31) >> 3) as u8).collect()
}

/// A store behind a proxy that does `action` to the first `times` requests of a method, and nothing to others.
struct Bad {
    _server: S3Server,
    proxy: Proxy,
    store: Arc<dyn Store>,
}

fn bad(method: &'static str, times: usize, action: Action) -> Bad {
    let server = S3Server::start();
    let direct = open(&server.url("r"), &crate::object::patient());
    direct.create().unwrap();
    direct.put(&pack(9), &[&long()]).unwrap();
    let count = AtomicUsize::new(0);
    let proxy = Proxy::start(server.address(), move |head| {
        let is_it = head.method == method && count.fetch_add(1, Ordering::SeqCst) < times;
        if is_it { action.clone() } else { Action::Pass }
    });
    let store = open(&url_at(proxy.address(), "r"), &access());
    Bad { _server: server, proxy, store }
}

/// Every call that uses a method, on objects long and short.
fn calls(method: &str, store: &dyn Store) -> Vec<(&'static str, Result<(), Error>)> {
    let side = store.side().unwrap();
    let name = SideName::new("gc", "x").unwrap();
    match method {
        "PUT" => vec![("put", store.put(&pack(1), &[&long()]))],
        "GET" => vec![
            ("get", store.get(&pack(9)).map(|bytes| assert!(bytes == long()))),
            ("get_range", {
                let mut out = Vec::new();
                store.get_range(&pack(9), 7, 4 << 20, &mut out).map(|()| assert!(out == long()[7..7 + (4 << 20)]))
            }),
            ("list", store.list(ObjectKind::Pack).map(|list| assert!(list.iter().any(|(id, _)| *id == pack(9).id)))),
            ("list_side", side.list_side("probe").map(drop)),
        ],
        "HEAD" => vec![("size", store.size(&pack(9)).map(|size| assert_eq!(size, LONG as u64)))],
        "DELETE" => vec![
            ("remove", store.remove(&StoreKey::new(ObjectKind::Lock, lastgood_model::Id([1; 32])))),
            ("remove_side", side.remove_side(&name)),
        ],
        other => panic!("{other}"),
    }
}

const METHODS: [&str; 4] = ["PUT", "GET", "HEAD", "DELETE"];

fn troubles() -> Vec<(&'static str, Action)> {
    vec![
        ("never answered", Action::Stall),
        ("upload not read", Action::StallUpload),
        ("answer stops", Action::StallAfter(100)),
        ("reset", Action::Reset),
        ("cut short", Action::CutAfter(50)),
        ("announces more than comes", Action::PromiseMore(10)),
        ("answer lost", Action::LoseAnswer),
        ("500", Action::error(500, "InternalError")),
        ("502 of a proxy", Action::Answer(502, Vec::new(), "<html>bad gateway</html>".to_owned())),
        ("503", Action::error(503, "SlowDown")),
    ]
}

/// Far above what a call may take here, far below for ever.
fn deadline() -> Duration {
    TIMEOUTS.total(LONG as u64) + Duration::from_secs(10)
}

/// True where there is nothing to break: an answer without a body cannot be cut, and an object whose answer was lost is
/// looked for, and is there.
fn may_succeed(method: &str, trouble: &str) -> bool {
    let has_no_body = method != "GET" && matches!(trouble, "answer stops" | "cut short" | "announces more than comes");
    has_no_body || method == "PUT" && trouble == "answer lost"
}

/// The length in an answer to HEAD is all there is: one that lies is found out when the object is read.
fn is_beyond_telling(method: &str, trouble: &str) -> bool {
    method == "HEAD" && trouble == "announces more than comes"
}

#[test]
fn a_call_in_trouble_fails_as_passing_trouble_and_never_hangs() {
    for method in METHODS {
        for (trouble, action) in troubles() {
            if is_beyond_telling(method, trouble) {
                continue;
            }
            let what = format!("{method}, {trouble}");
            let bad = bad(method, usize::MAX, action);
            for (call, result) in timed(&what, || calls(method, &*bad.store)) {
                match result {
                    Ok(()) => assert!(may_succeed(method, trouble), "{what}: {call} succeeded"),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Retry, "{what}: {call}: {error:?}");
                        assert!(error.message().contains("s3://bucket/r"), "{what}: it must name the place: {error:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_page_that_somebody_in_between_puts_there_is_not_taken_for_an_answer() {
    let login = || Action::Answer(200, Vec::new(), "<html>log in to this network</html>".to_owned());
    let bad = bad("GET", usize::MAX, login());
    let list = bad.store.list(ObjectKind::Pack).unwrap_err();
    assert_eq!(list.kind(), ErrorKind::Retry, "{list:?}");
    let range = bad.store.get_range(&pack(9), 0, 10, &mut Vec::new()).unwrap_err();
    assert_eq!(range.kind(), ErrorKind::Retry, "{range:?}");
}

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = run();
    assert!(begun.elapsed() < deadline() * 4, "{what} took {:?}", begun.elapsed());
    result
}

#[test]
fn trouble_that_passes_is_outlasted() {
    for method in METHODS {
        for (trouble, action) in troubles().into_iter().filter(|(trouble, _)| !is_beyond_telling(method, trouble)) {
            let bad = bad(method, 1, action);
            let policy = RetryPolicy { delay_first: Duration::from_millis(1), ..RetryPolicy::default() };
            let store = RetryStore::new(bad.store.clone(), policy);
            for (call, result) in calls(method, &store) {
                result.unwrap_or_else(|error| panic!("{method}, {trouble}: {call}: {error:?}"));
            }
            if method == "PUT" {
                assert!(store.get(&pack(1)).unwrap() == long(), "{trouble}");
            }
        }
    }
}

#[test]
fn a_lost_answer_to_a_create_that_succeeded_is_success() {
    let bad = bad("PUT", 1, Action::LoseAnswer);
    let policy = RetryPolicy { delay_first: Duration::from_millis(1), ..RetryPolicy::default() };
    let store = RetryStore::new(bad.store.clone(), policy);
    store.put(&StoreKey::CONFIG, &[b"config"]).unwrap();
    assert_eq!(store.get(&StoreKey::CONFIG).unwrap(), b"config");
    let lost = crate::net::bad("PUT", 1, Action::LoseAnswer);
    let store = RetryStore::new(lost.store.clone(), policy);
    let name = SideName::new("gc", "lease").unwrap();
    store.side().unwrap().put_side(&name, b"mine", SidePut::Create).unwrap();
    assert!(lost.proxy.seen() > 1);
}

#[test]
fn a_server_that_says_when_to_come_back_is_obeyed() {
    let bad = bad("HEAD", 1, Action::slow_down(2));
    let error = bad.store.size(&pack(9)).unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
    let again = crate::net::bad("HEAD", 1, Action::slow_down(2));
    let policy = RetryPolicy { delay_first: Duration::from_millis(1), ..RetryPolicy::default() };
    let begun = Instant::now();
    RetryStore::new(again.store.clone(), policy).size(&pack(9)).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

#[test]
fn a_slow_answer_is_waited_for_and_a_dripping_one_is_not_for_ever() {
    let slow = bad("GET", usize::MAX, Action::Delay(Duration::from_millis(300)));
    let mut out = Vec::new();
    slow.store.get_range(&pack(9), 0, 1000, &mut out).unwrap();
    let dripping = bad("GET", usize::MAX, Action::Drip(Duration::from_millis(100)));
    let begun = Instant::now();
    let error = dripping.store.get_range(&pack(9), 0, 100_000, &mut out).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(begun.elapsed() < deadline(), "{:?}", begun.elapsed());
    assert!(error.message().contains("not done after"), "{error}");
}

#[test]
fn nobody_listening_and_names_that_lead_nowhere_are_told_soon() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [url_at(port, "r"), "s3://bucket/r?endpoint=http://nowhere.invalid&region=x".to_owned()] {
        let begun = Instant::now();
        let error = open(&url, &access()).size(&pack(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
        assert!(begun.elapsed() < deadline());
    }
}
