//! Who waits for whom: ours and restic's locks, dead holders, and clocks that are wrong.

use crate::forge::Forge;
use crate::rig::{Rig, begin, clock_off_by, contents, save, spec, stream, verdict};
use lastgood_model::source::Chunking;
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{ErrorKind, Time};
use lastgood_repo::crypto::Password;
use lastgood_repo::format::LockFile;
use lastgood_repo::lock::{hostname, system_clock};
use lastgood_repo::{LockGuard, LockMode, OpenOptions, Repository};
use lastgood_stores::LocalStore;
use lastgood_testkit::restic::Restic;
use std::sync::Arc;

const MODES: [LockMode; 3] = [LockMode::Shared, LockMode::Reading, LockMode::Exclusive];
const TEN_YEARS: i64 = 10 * 365 * 86_400;

impl Rig {
    fn forge(&self) -> Forge {
        Forge::new(Arc::new(self.store.clone()), &self.password)
    }

    fn locks(&self) -> Vec<StoreKey> {
        self.keys_of(ObjectKind::Lock)
    }

    /// What came of taking a lock: what was cleared away, or why not.
    fn try_lock(&self, mode: LockMode) -> Result<usize, ErrorKind> {
        self.open().lock(mode).map(|guard| guard.findings.stale_removed).map_err(|error| error.kind())
    }
}

/// A lock as another process would have written it `age` seconds ago.
fn lock_of(hostname: String, pid: u32, exclusive: bool, age: i64) -> LockFile {
    let now = system_clock()();
    let time = Time::new(now.secs - age, now.nanos);
    LockFile { time, exclusive, hostname, username: "someone".into(), pid: pid.into(), uid: 0, gid: 0, reading: false }
}

/// The number of a process that has ended.
fn dead_pid() -> u32 {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    pid
}

#[test]
fn a_live_lock_excludes_what_it_must_and_nothing_else() {
    let alive = std::os::unix::process::parent_id();
    // What names this very process, and is not one of its own locks, is of a past life once it missed a refresh.
    let own = (hostname(), std::process::id(), [0, 5 * 60]);
    for (host, pid, ages) in [(hostname(), alive, [0, 29 * 60]), own, ("elsewhere".to_owned(), 1, [0, 29 * 60])] {
        for age in ages {
            let rig = Rig::new();
            let exclusive = rig.forge().lock(&lock_of(host.clone(), pid, true, age));
            for mode in MODES {
                assert_eq!(rig.try_lock(mode), Err(ErrorKind::Locked), "{host} {mode:?}");
                assert_eq!(rig.locks(), [exclusive], "{mode:?}: a foreign lock was touched, or an own one stayed");
            }
            let error = begin(&rig.open()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked);
            let words = format!("process {pid} of someone on {host}");
            assert!(error.chain().contains(&words) && error.hint().is_some(), "{error:?}");
            rig.store.remove(&exclusive).unwrap();

            let shared = rig.forge().lock(&lock_of(host.clone(), pid, false, age));
            assert_eq!(rig.try_lock(LockMode::Exclusive), Err(ErrorKind::Locked));
            assert_eq!(rig.try_lock(LockMode::Shared), Ok(0));
            assert_eq!(rig.try_lock(LockMode::Reading), Ok(0));
            assert_eq!(rig.locks(), [shared]);
        }
    }
}

#[test]
fn a_lock_whose_holder_died_or_fell_silent_is_cleared_away_by_writers_alone() {
    let dead = dead_pid();
    for (what, host, pid, age) in [
        ("a dead process here", hostname(), dead, 0),
        ("a live process here, silent", hostname(), std::process::id(), 31 * 60),
        ("another host, silent", "elsewhere".to_owned(), 1, 31 * 60),
        ("another host, long silent", "elsewhere".to_owned(), 1, TEN_YEARS),
    ] {
        for exclusive in [false, true] {
            let rig = Rig::new();
            let left = rig.forge().lock(&lock_of(host.clone(), pid, exclusive, age));
            assert_eq!(rig.try_lock(LockMode::Reading), Ok(0), "{what}");
            assert_eq!(rig.locks(), [left], "{what}: a reader cleared it away");
            for mode in [LockMode::Shared, LockMode::Exclusive] {
                rig.forge().lock(&lock_of(host.clone(), pid, exclusive, age));
                assert!(rig.try_lock(mode).unwrap() >= 1, "{what} {mode:?}");
                assert!(rig.locks().is_empty(), "{what} {mode:?}");
            }
        }
    }
}

#[test]
fn a_lock_from_the_future_is_not_stale_by_its_age() {
    // The other host's clock is ahead, or ours is behind: either way nobody has fallen silent.
    for ahead in [31 * 60, 86_400, TEN_YEARS] {
        let rig = Rig::new();
        let foreign = rig.forge().lock(&lock_of("elsewhere".to_owned(), 1, true, -ahead));
        for mode in MODES {
            assert_eq!(rig.try_lock(mode), Err(ErrorKind::Locked), "{ahead} {mode:?}");
        }
        let error = rig.open().lock(LockMode::Shared).unwrap_err();
        assert!(
            error.chain().contains("in the future") && error.hint().unwrap().contains("clock"),
            "{error:?} {:?}",
            error.hint()
        );
        assert_eq!(rig.locks(), [foreign]);
        rig.store.remove(&foreign).unwrap();
        // A shared one stands in nobody's way but that of deletion.
        let foreign = rig.forge().lock(&lock_of("elsewhere".to_owned(), 1, false, -ahead));
        assert_eq!(rig.try_lock(LockMode::Shared), Ok(0));
        assert_eq!(rig.try_lock(LockMode::Exclusive), Err(ErrorKind::Locked));
        assert_eq!(rig.locks(), [foreign]);
        // A process of this host that has died is known to be dead, whatever the clock said.
        rig.forge().lock(&lock_of(hostname(), dead_pid(), true, -ahead));
        assert_eq!(rig.try_lock(LockMode::Shared), Ok(1));
        assert_eq!(rig.locks(), [foreign]);
    }
}

#[test]
fn a_clock_that_jumps_during_a_session_costs_a_second_look_and_nothing_else() {
    for jump in [TEN_YEARS, -TEN_YEARS] {
        let rig = Rig::new();
        let first = save(&rig.open(), Chunking::Rows, &[("a", b"before the jump")]).unwrap().id();
        let (session, _) = begin(&rig.open()).unwrap();
        stream(&session.source("db").unwrap(), "a", Chunking::Rows).finish(verdict()).unwrap();
        // Somebody whose clock is ten years off comes by, and may take the lock for a stale one.
        let strayed = rig.open_at(clock_off_by(jump));
        let second = save(&strayed, Chunking::Rows, &[("a", b"in another decade")]).unwrap().id();
        let third = session.publish(spec(&["db"])).unwrap().snapshot.id;
        assert!(rig.locks().is_empty());
        for id in [first, second, third] {
            contents(&rig.open(), id).unwrap();
        }
        rig.assert_sound();
        // And afterwards, by either clock, nobody is locked out.
        for clock in [system_clock(), clock_off_by(jump)] {
            let guard = rig.open_at(clock).lock(LockMode::Exclusive).unwrap();
            assert!(guard.is_sound());
        }
    }
}

#[test]
fn two_sessions_at_once_both_publish_and_both_restore() {
    let rig = Rig::new();
    let shared = lastgood_testkit::rng::Rng::new(1).bytes(5 << 20);
    let (first, _) = begin(&rig.open()).unwrap();
    let (second, _) = begin(&rig.open()).unwrap();
    let mut published = Vec::new();
    std::thread::scope(|scope| {
        let threads = [(first, "first"), (second, "second")].map(|(session, name)| {
            let shared = &shared;
            scope.spawn(move || {
                let sink = session.source("db").unwrap();
                for (path, content) in [("shared", &shared[..]), ("own", name.as_bytes())] {
                    let mut writer = stream(&sink, path, Chunking::Files);
                    writer.write(content).unwrap();
                    writer.finish(verdict()).unwrap();
                }
                drop(sink);
                (session.publish(spec(&["db"])).unwrap().snapshot.id, name)
            })
        });
        published.extend(threads.map(|thread| thread.join().unwrap()));
    });
    assert!(rig.locks().is_empty());
    assert_eq!(rig.snapshots().len(), 2);
    for (id, name) in published {
        let kept = contents(&rig.open(), id).unwrap();
        assert!(kept["db/shared"] == shared && kept["db/own"] == name.as_bytes());
    }
    rig.assert_sound();
}

#[test]
fn a_pack_that_went_while_the_lock_was_lost_stops_the_publication() {
    let base = Rig::new();
    let old = lastgood_testkit::rng::Rng::new(2).bytes(1 << 20);
    save(&base.open(), Chunking::Files, &[("old", &old)]).unwrap();
    for (lose_lock, lose_pack, publishes) in [(false, false, true), (true, false, true), (true, true, false)] {
        let rig = base.over(base.store.fork());
        let (session, monitor) = begin(&rig.open()).unwrap();
        let mut writer = stream(&session.source("db").unwrap(), "old", Chunking::Files);
        writer.write(&old).unwrap();
        writer.finish(verdict()).unwrap();
        assert_eq!(monitor.counters.blobs_data_new.load(std::sync::atomic::Ordering::Relaxed), 0, "nothing was new");
        if lose_lock {
            rig.store.remove(&rig.locks()[0]).unwrap();
        }
        if lose_pack {
            let pack = rig.keys_of(ObjectKind::Pack)[0];
            rig.store.remove(&pack).unwrap();
        }
        match session.publish(spec(&["db"])) {
            Ok(point) => {
                assert!(publishes);
                assert!(contents(&rig.open(), point.snapshot.id).unwrap()["db/old"] == old);
            }
            Err(error) => {
                assert!(!publishes, "{error:?}");
                assert_eq!(error.kind(), ErrorKind::Retry);
                assert!(error.hint().is_some());
                assert_eq!(rig.snapshots().len(), 1);
            }
        }
    }
}

/// A repository on disk that both of us use.
struct Shared {
    _dir: tempfile::TempDir,
    restic: Restic,
    repository: Arc<Repository>,
}

impl Shared {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let restic = Restic::newest(dir.path().join("repo"), dir.path().join("password"));
        let password = Password::generate().unwrap();
        fs_err::write(&restic.password_file, password.reveal()).unwrap();
        let store = Arc::new(LocalStore::new(&restic.repository).unwrap());
        let repository = Arc::new(Repository::init(store, &password, OpenOptions::default()).unwrap());
        Self { _dir: dir, restic, repository }
    }

    fn lock(&self, mode: LockMode) -> LockGuard {
        self.repository.lock(mode).unwrap()
    }
}

#[test]
fn restic_waits_for_our_locks_and_takes_no_offence_at_them() {
    let shared = Shared::new();
    let first = save(&shared.repository, Chunking::Files, &[("a", &[7; 100_000])]).unwrap().id();
    let (session, _) = begin(&shared.repository).unwrap();
    assert_eq!(shared.restic.list("locks").unwrap().len(), 1);
    let refused = shared.restic.run(["prune", "--retry-lock", "0s"]).unwrap_err();
    assert!(refused.chain().contains("already locked"), "{refused:?}");
    let refused = shared.restic.forget_and_prune(&[&first.to_string()]).unwrap_err();
    assert!(refused.chain().contains("already locked"), "{refused:?}");
    // Whoever only adds may work beside us.
    shared.restic.backup([env!("CARGO_MANIFEST_DIR")], &[]).unwrap();
    shared.restic.run(["check", "--read-data", "--no-lock"]).unwrap();
    stream(&session.source("db").unwrap(), "b", Chunking::Rows).finish(verdict()).unwrap();
    session.publish(spec(&["db"])).unwrap();
    assert!(shared.restic.list("locks").unwrap().is_empty());

    let exclusive = shared.lock(LockMode::Exclusive);
    let refused = shared.restic.backup([env!("CARGO_MANIFEST_DIR")], &["--retry-lock", "0s"]).unwrap_err();
    assert!(refused.chain().contains("already locked exclusively"), "{refused:?}");
    drop(exclusive);
    shared.restic.run(["prune"]).unwrap();
    assert_eq!(shared.restic.snapshots().unwrap().len(), 3);
}

#[test]
fn a_lock_that_restic_left_behind_when_it_was_killed_is_cleared_away() {
    let shared = Shared::new();
    // A backup from a pipe that never ends holds its lock until it is killed.
    let mut command = shared.restic.command();
    command.args(["backup", "--stdin", "--json"]).stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let store = LocalStore::new(&shared.restic.repository).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while store.list(ObjectKind::Lock).unwrap().is_empty() {
        assert!(std::time::Instant::now() < deadline, "restic took no lock");
        std::thread::yield_now();
    }
    assert_eq!(shared.repository.lock(LockMode::Exclusive).unwrap_err().kind(), ErrorKind::Locked);
    assert_eq!(shared.lock(LockMode::Shared).findings.stale_removed, 0, "restic is alive");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(shared.lock(LockMode::Shared).findings.stale_removed, 1);
    drop(shared.lock(LockMode::Exclusive));
}

#[test]
fn a_reader_clears_away_what_dead_readers_left_and_nothing_else() {
    let rig = Rig::new();
    let left = |reading: bool| LockFile { reading, ..lock_of(hostname(), dead_pid(), false, 0) };
    let (writer, reader) = (rig.forge().lock(&left(false)), rig.forge().lock(&left(true)));
    assert_eq!(rig.try_lock(LockMode::Reading), Ok(0));
    assert_eq!(rig.locks(), [writer], "a dead writer's lock is the sign of packs that it left");
    assert_ne!(writer, reader);
    let alive = LockFile { reading: true, ..lock_of(hostname(), std::os::unix::process::parent_id(), false, 0) };
    let alive = rig.forge().lock(&alive);
    assert_eq!(rig.try_lock(LockMode::Reading), Ok(0));
    assert!(rig.locks().contains(&alive));
    rig.store.remove(&alive).unwrap();
    // A writer clears away both, and only the writer's is a sign.
    rig.forge().lock(&left(true));
    assert_eq!(rig.try_lock(LockMode::Shared), Ok(1));
    assert_eq!(rig.locks().len(), 0);
}
