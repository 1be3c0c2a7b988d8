//! SFTP against OpenSSH's server, by our own client and by the system's.

use crate::pack;
use lastgood_model::store::{ObjectKind, SideName, SidePut, Store, StoreKey};
use lastgood_model::{Error, ErrorKind, Id, Result};
use lastgood_stores::{Access, RetryPolicy, RetryStore, Secret, Secrets, Timeouts, parse_location};
use lastgood_testkit::sshd::{Sshd, make_key};
use lastgood_testkit::store_suite;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Secrets by name.
#[derive(Clone, Default)]
struct Known(BTreeMap<&'static str, String>);

impl Secrets for Known {
    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
    fn get(&self, name: &str) -> Result<Option<Secret>> {
        Ok(self.0.get(name).map(|text| Secret::new(text.clone())))
    }
}

/// Access with the test's own key and known hosts.
fn access(sshd: &Sshd) -> Access {
    let key = fs_err::read_to_string(sshd.client_key()).unwrap();
    let settings = [("known_hosts".to_owned(), sshd.known_hosts().display().to_string())].into();
    Access { secrets: Some(Arc::new(Known([("private_key", key)].into()))), settings, ..Access::default() }
}

fn open(url: &str, access: &Access) -> Arc<dyn Store> {
    parse_location(url).unwrap().open(access).unwrap()
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// A store over a new folder.
fn fresh(sshd: &Sshd, folder: &Path) -> Arc<dyn Store> {
    let store = open(&sshd.url(&folder.join("repo")), &access(sshd));
    store.create().unwrap();
    store
}

#[test]
fn an_sftp_server_keeps_the_contract() {
    let (sshd, folder, count) = (Sshd::start(), tempfile::tempdir().unwrap(), AtomicU32::new(0));
    store_suite::run(|| {
        // Two levels that are not there yet.
        let path = folder.path().join(format!("{}/repo", count.fetch_add(1, Ordering::Relaxed)));
        open(&sshd.url(&path), &access(&sshd))
    });
}

#[test]
fn the_systems_ssh_keeps_the_contract_too() {
    let (sshd, folder, count) = (Sshd::start(), tempfile::tempdir().unwrap(), AtomicU32::new(0));
    let settings = [("transport", "openssh".to_owned()), ("ssh_config", sshd.ssh_config().display().to_string())];
    let settings = settings.map(|(name, value)| (name.to_owned(), value)).into();
    let access = Access { settings, ..Access::default() };
    store_suite::run(|| {
        let path = folder.path().join(format!("{}", count.fetch_add(1, Ordering::Relaxed)));
        open(&format!("sftp:{}:{}", Sshd::ALIAS, path.display()), &access)
    });
}

#[test]
fn foreign_names_are_passed_over() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let store = open(&sshd.url(&folder.path().join("repo")), &access(&sshd));
    store_suite::foreign_names_are_passed_over(&*store, |path, content| {
        let path = folder.path().join("repo").join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    });
}

#[test]
fn a_server_that_is_not_known_is_told_nothing() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let url = sshd.url(folder.path());
    let with = |settings: BTreeMap<String, String>| open(&url, &Access { settings, ..access(&sshd) });
    let told = |settings: &[(&str, &str)]| -> Error {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        with(settings).create().expect_err("refused")
    };
    let empty = folder.path().join("empty");
    fs_err::write(&empty, "").unwrap();
    let stranger = told(&[("known_hosts", empty.to_str().unwrap())]);
    assert_eq!(stranger.kind(), ErrorKind::Denied, "{stranger:?}");
    assert!(stranger.message().contains(&sshd.fingerprint()), "{stranger:?}");
    assert!(stranger.hint().unwrap().contains("ssh-keyscan"), "{stranger:?}");

    make_key(&folder.path().join("other"), "");
    let other = fs_err::read_to_string(folder.path().join("other.pub")).unwrap();
    let changed = folder.path().join("changed");
    fs_err::write(&changed, format!("[127.0.0.1]:{} {other}", sshd.port())).unwrap();
    let error = told(&[("known_hosts", changed.to_str().unwrap())]);
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.message().contains("HAS CHANGED"), "{error:?}");
    let error = told(&[("host_key", other.trim())]);
    assert!(error.message().contains("another key"), "{error:?}");
    assert!(!sshd.log().contains("Accepted"), "somebody was let in:\n{}", sshd.log());

    with([("host_key".to_owned(), sshd.fingerprint())].into()).create().unwrap();
}

#[test]
fn who_is_not_let_in_is_told_what_was_tried() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let url = sshd.url(&folder.path().join("repo"));
    let with = |secrets: &[(&'static str, String)]| {
        let secrets: Arc<dyn Secrets> = Arc::new(Known(secrets.iter().cloned().collect()));
        open(&url, &Access { secrets: Some(secrets), ..access(&sshd) })
    };
    let key = |name: &str, passphrase: &str| {
        make_key(&folder.path().join(name), passphrase);
        fs_err::read_to_string(folder.path().join(name)).unwrap()
    };
    let error = with(&[("private_key", key("stranger", ""))]).create().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.message().contains("SHA256:") && error.message().contains("publickey"), "{error:?}");

    let error = with(&[("password", "hunter2".to_owned())]).create().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(!format!("{error:?}").contains("hunter2"));

    let locked = key("locked", "open sesame");
    let error = with(&[("private_key", locked.clone())]).create().unwrap_err();
    assert!(error.message().contains("passphrase"), "{error:?}");
    let error = with(&[("private_key", locked.clone()), ("passphrase", "wrong".to_owned())]).create().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    let public = fs_err::read_to_string(folder.path().join("locked.pub")).unwrap();
    let authorized = sshd.client_key().with_file_name("authorized_keys");
    fs_err::write(authorized, public).unwrap();
    with(&[("private_key", locked), ("passphrase", "open sesame".to_owned())]).create().unwrap();
}

#[test]
fn a_server_without_sftp_is_told_as_such() {
    let (sshd, folder) = (Sshd::start_with(&[]), tempfile::tempdir().unwrap());
    let error = open(&sshd.url(folder.path()), &access(&sshd)).create().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.hint().unwrap().contains("Subsystem"), "{error:?}");
}

#[test]
fn one_session_is_enough() {
    let (sshd, folder) =
        (Sshd::start_with(&["Subsystem sftp internal-sftp", "MaxSessions 1"]), tempfile::tempdir().unwrap());
    let store = fresh(&sshd, folder.path());
    std::thread::scope(|scope| {
        for n in 0..8 {
            let store = &store;
            scope.spawn(move || store.put(&pack(n), &[&vec![n; 300_000]]).unwrap());
        }
    });
    assert_eq!(store.list(ObjectKind::Pack).unwrap().len(), 8);
}

#[test]
fn a_lost_connection_is_made_anew() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let store = fresh(&sshd, folder.path());
    store.put(&pack(1), &[b"content"]).unwrap();
    let policy = RetryPolicy { delay_first: Duration::from_millis(10), ..RetryPolicy::default() };
    let store = RetryStore::new(store, policy);
    for _ in 0..3 {
        kill_sessions(sshd.port());
        assert_eq!(store.get(&pack(1)).unwrap(), b"content");
    }
}

/// Kills the processes that serve connections, and leaves the one that listens.
fn kill_sessions(port: u16) {
    let listening = format!("-p {port}");
    let processes =
        || fs_err::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let words = |pid: i32| {
        let text = fs_err::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&text).replace('\0', " ")
    };
    let parent = |pid: i32| {
        let text = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<i32>().ok())
    };
    let server =
        processes().find(|pid| words(*pid).contains(&listening) && words(*pid).contains("sshd")).expect("sshd");
    for pid in processes().filter(|pid| parent(*pid) == Some(server)) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

#[test]
fn a_silent_server_is_given_up_by_name_and_used_again_when_it_speaks() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let proxy = crate::stalling::Proxy::new(sshd.port());
    let timeouts =
        Timeouts { connect: Duration::from_secs(2), idle: Duration::from_millis(700), ..Timeouts::default() };
    let settings = [("host_key".to_owned(), sshd.fingerprint())].into();
    let access = Access { timeouts, settings, ..access(&sshd) };
    let store = open(&sshd.url_at(proxy.port(), &folder.path().join("repo")), &access);
    store.create().unwrap();
    let content = vec![7; 5 << 20];
    store.put(&pack(1), &[&content]).unwrap();
    proxy.stall(true);
    for act in ["get", "put", "list"] {
        let begun = Instant::now();
        let error = match act {
            "get" => store.get(&pack(1)).map(drop),
            "put" => store.put(&pack(2), &[&content]),
            _ => store.list(ObjectKind::Pack).map(drop),
        }
        .expect_err(act);
        assert_eq!(error.kind(), ErrorKind::Retry, "{act}: {error:?}");
        assert!(error.chain().contains("127.0.0.1"), "{act}: {error:?}");
        assert!(begun.elapsed() < Duration::from_secs(12), "{act}: {:?}", begun.elapsed());
    }
    proxy.stall(false);
    assert!(store.get(&pack(1)).unwrap() == content);
    store.put(&pack(2), &[&content]).unwrap();
    proxy.cut();
    // Whether the call or somebody before it notices is up to chance.
    assert!(matches!(kind(store.get(&pack(2))), None | Some(ErrorKind::Retry)));
    assert!(store.get(&pack(2)).unwrap() == content);
}

#[test]
fn a_folder_that_is_gone_is_no_empty_repository() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let store = fresh(&sshd, folder.path());
    fs_err::rename(folder.path().join("repo"), folder.path().join("elsewhere")).unwrap();
    assert_eq!(kind(store.list(ObjectKind::Snapshot)), Some(ErrorKind::NoRepository));
    assert_eq!(kind(store.get(&pack(1))), Some(ErrorKind::NoRepository));
    assert_eq!(kind(store.put(&pack(1), &[b"x"])), Some(ErrorKind::NoRepository));
    assert_eq!(kind(store.remove(&pack(1))), Some(ErrorKind::NoRepository));
    assert_eq!(kind(store.get(&StoreKey::CONFIG)), Some(ErrorKind::Absent));
    assert!(!folder.path().join("repo").exists(), "nothing was made there");
}

#[test]
fn leftovers_go_when_they_are_old_and_nothing_else() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let store = fresh(&sshd, folder.path());
    store.put(&pack(1), &[b"content"]).unwrap();
    let side = SideName::new("gc", "x").unwrap();
    store.side().unwrap().put_side(&side, b"x", SidePut::Create).unwrap();
    let at = |path: &str| folder.path().join("repo").join(path);
    let old = std::time::SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
    for (path, is_old) in [
        ("data/00/.tmp-sftp-0000000000000001", true),
        ("lastgood/gc/.tmp-sftp-0000000000000002", true),
        ("data/00/.tmp-sftp-0000000000000003", false),
        ("data/00/.tmp-1-2-00000003", true),
    ] {
        fs_err::write(at(path), "left").unwrap();
        if is_old {
            fs_err::File::options().write(true).open(at(path)).unwrap().file().set_modified(old).unwrap();
        }
    }
    let swept = store.sweep(Duration::ZERO).unwrap();
    assert_eq!((swept.leftovers, swept.bytes), (2, 8));
    assert!(at("data/00/.tmp-sftp-0000000000000003").exists(), "somebody may be writing it");
    assert!(at("data/00/.tmp-1-2-00000003").exists(), "not ours to judge");
    store.probe().unwrap();
    assert_eq!(store.list(ObjectKind::Pack).unwrap(), [(Id([1; 32]), 7)]);
}

#[test]
fn a_damaged_object_is_replaced_and_files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    let store = fresh(&sshd, folder.path());
    let path = folder.path().join("repo").join(pack(1).path());
    fs_err::write(&path, "half").unwrap();
    store.put(&pack(1), &[b"whole"]).unwrap();
    assert_eq!(store.get(&pack(1)).unwrap(), b"whole");
    assert_eq!(fs_err::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}
