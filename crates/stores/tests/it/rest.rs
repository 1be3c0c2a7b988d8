//! The REST protocol against `rclone serve restic`, and against servers that misbehave.

use crate::pack;
use crate::scripted::{Scripted, answer};
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{ErrorKind, Id, Result};
use lastgood_stores::{Access, Secret, Secrets, Timeouts, open_url, parse_location};
use lastgood_testkit::rest_server::{RestOptions, RestServer};
use lastgood_testkit::store_suite;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const LOGIN: RestOptions<'_> = RestOptions { append_only: false, login: Some(("user", "pass/word")) };

/// One password for all.
struct Password(&'static str);

impl Secrets for Password {
    fn has(&self, name: &str) -> bool {
        name == "password"
    }
    fn get(&self, name: &str) -> Result<Option<Secret>> {
        Ok((name == "password").then(|| Secret::new(self.0.to_owned())))
    }
}

fn open(url: &str, password: &'static str) -> Arc<dyn Store> {
    let access = Access { secrets: Some(Arc::new(Password(password))), ..Access::default() };
    parse_location(url).unwrap().open(&access).unwrap()
}

/// A store that soon loses its patience.
fn impatient(port: u16) -> Arc<dyn Store> {
    let timeouts =
        Timeouts { connect: Duration::from_secs(2), idle: Duration::from_millis(700), ..Timeouts::default() };
    let access = Access { timeouts, ..Access::default() };
    parse_location(&format!("rest:http://127.0.0.1:{port}/repo/")).unwrap().open(&access).unwrap()
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_rest_server_keeps_the_contract() {
    let server = RestServer::in_memory(LOGIN);
    let count = AtomicU32::new(0);
    store_suite::run(|| {
        let url = server.url(&format!("r{}", count.fetch_add(1, Ordering::Relaxed)));
        crate::object::as_used(open(&url, "pass/word"))
    });
}

#[test]
fn a_wrong_password_is_denied_and_never_shown() {
    let server = RestServer::in_memory(LOGIN);
    let store = open(&server.url("r"), "hunter2");
    let error = store.list(ObjectKind::Pack).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.message().contains("401") && error.hint().unwrap().contains("password"), "{error:?}");
    assert!(!format!("{error:?}{store:?}{}", store.location()).contains("hunter2"));
    // In the URL it counts as well, and is not shown either.
    let url = server.url_with_password("r").replace("pass/word", "pass%2Fword");
    let store = open_url(&url).unwrap();
    store.create().unwrap();
    assert!(!format!("{store:?}{}", store.location()).contains("word"), "{store:?}");
}

#[test]
fn a_server_that_only_appends_keeps_all_but_locks() {
    let server = RestServer::in_memory(RestOptions { append_only: true, login: None });
    let store = open_url(&server.url("r")).unwrap();
    store.create().unwrap();
    let lock = StoreKey::new(ObjectKind::Lock, Id([1; 32]));
    for key in [StoreKey::CONFIG, pack(1), lock] {
        store.put(&key, &[b"content"]).unwrap();
    }
    // A lost answer is made good by asking again, also here.
    store.put(&pack(1), &[b"content"]).unwrap();
    assert_eq!(kind(store.put(&StoreKey::CONFIG, &[b"other"])), Some(ErrorKind::Conflict));
    let error = store.remove(&pack(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.hint().unwrap().contains("only appends"), "{error:?}");
    assert_eq!(kind(store.remove(&StoreKey::CONFIG)), Some(ErrorKind::Denied));
    assert_eq!(store.get(&pack(1)).unwrap(), b"content");
    store.remove(&lock).unwrap();
    assert_eq!(kind(store.get(&lock)), Some(ErrorKind::Absent));
}

#[test]
fn lists_of_the_first_version_and_answers_without_ranges_are_understood() {
    let hex = "ab".repeat(32);
    let server = Scripted::new(move |request| {
        let line = request.lines().next().unwrap_or_default();
        if line.starts_with("GET /repo/data/ ") {
            return answer(
                "200 OK",
                "Content-Type: application/vnd.x.restic.rest.v1\r\n",
                format!("[\"{hex}\",\"x\"]").as_bytes(),
            );
        }
        if line.starts_with("HEAD ") {
            return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n".to_vec();
        }
        answer("200 OK", "", b"abcde")
    });
    let store = impatient(server.port());
    assert_eq!(store.list(ObjectKind::Pack).unwrap(), [(Id([0xab; 32]), 5)]);
    let mut out = Vec::new();
    store.get_range(&pack(0xab), 1, 3, &mut out).unwrap();
    assert_eq!(out, b"bcd");
    assert_eq!(kind(store.get_range(&pack(0xab), 3, 3, &mut out)), Some(ErrorKind::Corrupt));
}

#[test]
fn answers_say_whether_asking_again_helps() {
    for (status, want) in [
        ("500 Internal Server Error", ErrorKind::Retry),
        ("503 Slow Down", ErrorKind::Retry),
        ("429 Too Many Requests", ErrorKind::Retry),
        ("401 Unauthorized", ErrorKind::Denied),
        ("403 Forbidden", ErrorKind::Denied),
        ("404 Not Found", ErrorKind::Absent),
        ("507 Insufficient Storage", ErrorKind::NoSpace),
        ("301 Moved Permanently", ErrorKind::Invalid),
        ("418 Teapot", ErrorKind::Io),
    ] {
        let server = Scripted::new(move |_| answer(status, "", b"because"));
        let error = impatient(server.port()).get(&pack(1)).unwrap_err();
        assert_eq!(error.kind(), want, "{status}: {error:?}");
    }
}

#[test]
fn a_server_that_asks_to_be_left_alone_is() {
    let server = Scripted::new(|_| answer("503 Slow Down", "Retry-After: 60\r\n", b""));
    let error = impatient(server.port()).size(&pack(1)).unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Retry, Some(Duration::from_secs(60))));
}

#[test]
fn stalls_resets_and_short_bodies_end_by_their_deadline_and_may_be_tried_again() {
    type Script = fn(&str) -> Vec<u8>;
    let scripts: [(&str, Script); 4] = [
        ("silent", |_| Scripted::STALL.to_vec()),
        ("closed", |_| Vec::new()),
        ("short", |_| b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this".to_vec()),
        ("stalled in the middle", |_| {
            [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", Scripted::STALL].concat()
        }),
    ];
    for (name, script) in scripts {
        let server = Scripted::new(script);
        let store = impatient(server.port());
        for act in ["get", "range", "put"] {
            let begun = Instant::now();
            let result = match act {
                "get" => store.get(&pack(1)).map(drop),
                "range" => store.get_range(&pack(1), 0, 50, &mut Vec::new()),
                _ => store.put(&pack(1), &[&[7; 100_000]]),
            };
            // What was asked for a length has it with its head, however short the rest is.
            if act == "put" && !matches!(name, "silent" | "closed") {
                continue;
            }
            let error = result.expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Retry, "{name} {act}: {error:?}");
            assert!(error.chain().contains("127.0.0.1"), "{name} {act}: {error:?}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{name} {act}: {:?}", begun.elapsed());
        }
    }
}

#[test]
fn a_stopped_server_is_given_up_and_used_again_when_it_goes_on() {
    let mut server = RestServer::in_memory(RestOptions::default());
    let store = impatient(server.port());
    store.create().unwrap();
    store.put(&pack(1), &[b"content"]).unwrap();
    server.signal("STOP");
    let error = store.get(&pack(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(error.message().contains("has not answered"), "{error:?}");
    assert_eq!(kind(store.put(&pack(2), &[&vec![1; 3 << 20]])), Some(ErrorKind::Retry));
    server.signal("CONT");
    assert_eq!(store.get(&pack(1)).unwrap(), b"content");
    store.put(&pack(2), &[&vec![1; 3 << 20]]).unwrap();
}

#[test]
fn nobody_at_home_is_told_as_such() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = impatient(port).get(&StoreKey::CONFIG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(error.chain().contains("refused"), "{error:?}");
}
