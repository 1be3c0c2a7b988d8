//! restic's locks, so that a `restic prune` waits for us and we for it.
//!
//! Backup, restore and check share a repository and only need that nobody deletes from it: they hold a shared lock,
//! which an exclusive one excludes. A lock is an object of its own; after writing ours we wait a moment and look again,
//! so that of two who came at once at least one sees the other (restic's protocol, `doc/design.rst`, "Locks").
//!
//! A lock whose process is known to be dead, or that nobody has refreshed for half an hour, is stale. Stale locks are
//! cleared away by the next run: there is no unlock command that a person could use at the wrong moment. A lock that
//! seems to be from the future is no proof of silence and is left alone; it only ever stands in the way when either side
//! is to delete, and then the error says that a clock is wrong. Whoever loses a lock to somebody else's wrong clock
//! finds out ([`LockGuard::is_sound`]) and looks again before relying on anything. What is done about locks that cannot be
//! read is told in the module `unreadable`.

mod unreadable;

use crate::crypto::Sealer;
use crate::format::LockFile;
use crate::repository::{expand, seal_unpacked, username};
use crate::sha256::sha256;
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{Error, ErrorKind, Id, Result, Time};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use unreadable::{Unreadable, Verdict};

/// A lock that is not refreshed for so long is stale; the figure is restic's.
const STALE_AFTER_SECS: i64 = 30 * 60;
const REFRESH_EVERY: Duration = Duration::from_secs(5 * 60);
/// Clocks of two hosts may differ by so much without anybody noticing.
const SKEW_SECS: i64 = 60;
/// Locks are listed so often at most until none of them is gone when it is read.
const LOOKS_MAX: usize = 20;
/// Between writing a lock and looking for others; restic's figure.
const SETTLE: Duration = Duration::from_millis(200);

/// Reads the wall clock; the seam that lets tests jump.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// The system's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Time::new(now.as_secs() as i64, now.subsec_nanos())
    })
}

/// Waits; the seam that lets tests have time pass.
pub type Pause = Arc<dyn Fn(Duration) + Send + Sync>;

/// Waits in earnest.
pub fn system_pause() -> Pause {
    Arc::new(std::thread::sleep)
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// With others, against deletion.
    Shared,
    /// The same for those who only read. Stale locks of readers are cleared away. Those of writers are left alone: whoever
    /// writes next clears them away and, because it found them, looks for packs that the dead run left behind.
    Reading,
    /// Alone.
    Exclusive,
}

/// What taking a lock found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockFindings {
    /// Locks left behind by writers that died; they were cleared away.
    pub stale_removed: usize,
    /// Locks of others that were there a moment ago and may be alive.
    pub others: usize,
    /// Those of them that do not say that their holder only reads.
    pub writers: usize,
    /// Locks that cannot be read; most likely their writers died, but they may be alive. Not among `others`.
    pub unreadable: usize,
}

/// A lock, held until dropped; refreshed by a thread of its own meanwhile.
pub struct LockGuard {
    shared: Arc<Shared>,
    refresher: Option<JoinHandle<()>>,
    /// What was found when it was taken.
    pub findings: LockFindings,
}

impl std::fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LockGuard").field("findings", &self.findings).finish_non_exhaustive()
    }
}

struct Shared {
    store: Arc<dyn Store>,
    sealer: Arc<Sealer>,
    file: LockFile,
    clock: Clock,
    current: Mutex<Id>,
    /// When `current` was written.
    refreshed: Mutex<Time>,
    stop: Mutex<bool>,
    wake: Condvar,
    lost: AtomicBool,
}

impl LockGuard {
    /// Takes a lock.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] while another holds one that excludes it, with who and since when.
    pub fn take(
        store: Arc<dyn Store>,
        sealer: Arc<Sealer>,
        mode: LockMode,
        clock: Clock,
        pause: &Pause,
    ) -> Result<Self> {
        let mut findings = LockFindings::default();
        look(&*store, &sealer, mode, &clock, None, &mut findings)?;
        let file = LockFile {
            time: clock(),
            exclusive: mode == LockMode::Exclusive,
            hostname: hostname(),
            username: username(),
            pid: i64::from(std::process::id()),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            reading: mode == LockMode::Reading,
        };
        let shared = Arc::new(Shared {
            current: Mutex::new(write(&*store, &sealer, &file)?),
            refreshed: Mutex::new(file.time),
            store,
            sealer,
            file,
            clock,
            stop: Mutex::new(false),
            wake: Condvar::new(),
            lost: AtomicBool::new(false),
        });
        let mut guard = Self { shared, refresher: None, findings };
        if mode == LockMode::Exclusive {
            pause(SETTLE);
        }
        let shared = &guard.shared;
        let mine = *lock(&shared.current);
        look(&*shared.store, &shared.sealer, mode, &shared.clock, Some(mine), &mut guard.findings)?;
        let refreshing = guard.shared.clone();
        let refresher = std::thread::Builder::new().name("lock".into()).spawn(move || refreshing.keep_fresh());
        guard.refresher = Some(refresher.map_err(|e| Error::io("start lock keeper", e))?);
        Ok(guard)
    }

    /// True while the lock has surely been there all along. After a long sleep of the machine it may have been taken
    /// for stale; then what was written under it must be looked at again before it is relied upon.
    pub fn is_sound(&self) -> bool {
        // That it is there says nothing once others may have taken it away: it can come back, when a write of it that was
        // repeated is carried out late.
        let refreshed = lock(&self.shared.refreshed).secs;
        let silent = (self.shared.clock)().secs.saturating_sub(refreshed).saturating_abs() > STALE_AFTER_SECS;
        let id = *lock(&self.shared.current);
        let present = self.shared.store.size(&StoreKey::new(ObjectKind::Lock, id)).is_ok();
        present && !silent && !self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        *lock(&self.shared.stop) = true;
        self.shared.wake.notify_all();
        if let Some(refresher) = self.refresher.take() {
            let _ = refresher.join();
        }
        let key = StoreKey::new(ObjectKind::Lock, *lock(&self.shared.current));
        let removed = self.shared.store.remove(&key);
        lock(&HELD).remove(&key.id);
        if let Err(error) = removed {
            tracing::warn!(error = %error.chain(), "lock stays behind; the next run will clear it away");
        }
    }
}

impl Shared {
    fn keep_fresh(&self) {
        let mut stop = lock(&self.stop);
        // Asked before waiting, not only after: a lock may be dropped before this thread has come so far.
        while !*stop {
            let (next, wait) = self.wake.wait_timeout(stop, REFRESH_EVERY).unwrap_or_else(|e| e.into_inner());
            stop = next;
            if *stop || !wait.timed_out() {
                continue;
            }
            self.refresh();
        }
    }

    /// Puts a lock of the present moment in the place of the old one.
    fn refresh(&self) {
        let (now, refreshed) = ((self.clock)(), *lock(&self.refreshed));
        // Timers stand still while a machine sleeps, so the wall clock is asked.
        let silent = now.secs.saturating_sub(refreshed.secs).saturating_abs() > STALE_AFTER_SECS;
        // Or somebody has taken it away, by hand or by a clock that is wrong.
        let key = StoreKey::new(ObjectKind::Lock, *lock(&self.current));
        let gone = matches!(self.store.size(&key), Err(error) if error.kind() == ErrorKind::Absent);
        if silent || gone {
            self.lost.store(true, Ordering::Relaxed);
        }
        let file = LockFile { time: now, ..self.file.clone() };
        match write(&*self.store, &self.sealer, &file) {
            Ok(id) => {
                let old = std::mem::replace(&mut *lock(&self.current), id);
                *lock(&self.refreshed) = now;
                let _ = self.store.remove(&StoreKey::new(ObjectKind::Lock, old));
                lock(&HELD).remove(&old);
            }
            Err(error) => tracing::warn!(error = %error.chain(), "lock not refreshed"),
        }
    }
}

/// Writes a lock. A second thread of this process that looks as soon as it is there must not take it for a past life's, so
/// it is registered before.
fn write(store: &dyn Store, sealer: &Sealer, file: &LockFile) -> Result<Id> {
    let sealed = seal_unpacked(sealer, &file.encode()?)?;
    let id = Id(sha256(&sealed));
    lock(&HELD).insert(id);
    let written = store.put(&StoreKey::new(ObjectKind::Lock, id), &[&sealed]);
    if written.is_err() {
        lock(&HELD).remove(&id);
    }
    written.map(|()| id)
}

/// Looks at all locks but ours: clears stale ones away, and fails on one that excludes `mode`.
///
/// A lock that was there when they were listed and is not any more may have been refreshed: then its new self was not
/// listed yet, and all are listed again. Names that are gone do not come back, so that this ends also where lists are
/// stale.
fn look(
    store: &dyn Store,
    sealer: &Sealer,
    mode: LockMode,
    clock: &Clock,
    mine: Option<Id>,
    findings: &mut LockFindings,
) -> Result<()> {
    let mut gone = BTreeSet::new();
    for _ in 0..LOOKS_MAX {
        if look_once(store, sealer, mode, clock, mine, &mut gone, findings)? {
            return Ok(());
        }
    }
    Err(Error::new(ErrorKind::Retry, format!("the locks of {} change faster than they can be read", store.location()))
        .with_hint("try again; nothing was changed"))
}

/// The same once; false when it has to be done again.
fn look_once(
    store: &dyn Store,
    sealer: &Sealer,
    mode: LockMode,
    clock: &Clock,
    mine: Option<Id>,
    gone: &mut BTreeSet<Id>,
    findings: &mut LockFindings,
) -> Result<bool> {
    (findings.others, findings.writers, findings.unreadable) = (0, 0, 0);
    let unreadable = Unreadable { store, sealer, now: clock() };
    let listed: Vec<Id> = store.list(ObjectKind::Lock)?.into_iter().map(|(id, _)| id).collect();
    let mut has_moved = false;
    for &id in &listed {
        if Some(id) == mine || gone.contains(&id) {
            continue;
        }
        let key = StoreKey::new(ObjectKind::Lock, id);
        let file = match read(store, sealer, &key)? {
            Content::Gone => {
                has_moved |= gone.insert(id);
                continue;
            }
            Content::Lock(file) => file,
            Content::Unreadable { is_empty } => {
                findings.unreadable += usize::from(unreadable.judge(id, is_empty, mode)? == Verdict::Stays);
                continue;
            }
            Content::Unknown if mode == LockMode::Exclusive => {
                return Err(unknown(&format!("{}/{key}", store.location())));
            }
            Content::Unknown => {
                tracing::warn!(lock = %id, "a lock of a program that is not known is passed over");
                findings.others += 1;
                findings.writers += 1;
                continue;
            }
        };
        if is_stale(&file, clock()) || is_of_a_past_life(&file, id, clock()) {
            if mode != LockMode::Reading {
                store.remove(&key)?;
                findings.stale_removed += usize::from(!file.reading);
            } else if file.reading {
                // A reader may lack the right to remove, and does not need it.
                let _ = store.remove(&key);
            }
        } else if file.exclusive || mode == LockMode::Exclusive {
            return Err(locked(&file, &format!("{}/{key}", store.location()), clock()));
        } else {
            findings.others += 1;
            findings.writers += usize::from(!file.reading);
        }
    }
    if has_moved {
        return Ok(false);
    }
    if mode == LockMode::Exclusive && mine.is_some() {
        unreadable.tidy(&listed.into_iter().collect());
    }
    Ok(true)
}

/// What is under the name of a lock.
enum Content {
    /// It was removed since the listing.
    Gone,
    Lock(LockFile),
    /// Nobody with our key wrote it so.
    Unreadable {
        is_empty: bool,
    },
    /// It was written with our key and is whole, but says nothing that this program understands.
    Unknown,
}

fn read(store: &dyn Store, sealer: &Sealer, key: &StoreKey) -> Result<Content> {
    let mut sealed = match store.get(key) {
        Ok(sealed) => sealed,
        Err(error) if error.kind() == ErrorKind::Absent => return Ok(Content::Gone),
        // A store that knows by itself that what it has is damaged.
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Content::Unreadable { is_empty: false }),
        Err(error) => return Err(error.context("read locks")),
    };
    let is_empty = sealed.is_empty();
    if sha256(&sealed) != key.id.0 {
        return Ok(Content::Unreadable { is_empty });
    }
    let Ok(plain) = sealer.open_in_place(&mut sealed) else { return Ok(Content::Unreadable { is_empty }) };
    let file = expand(key, plain).and_then(|json| LockFile::decode(&json));
    Ok(file.map_or(Content::Unknown, Content::Lock))
}

/// What to tell whoever has to wait for a holder that cannot be understood.
fn unknown(place: &str) -> Error {
    let message = format!("the repository has a lock that this program does not understand: {place}");
    Error::new(ErrorKind::Locked, message).with_hint(format!(
        "a newer program holds it, or held it: wait until that run has ended, or use that program. Only if no run is \
         going on in this repository, of any program and on any host, remove the object {place}, and nothing else"
    ))
}

/// What to tell whoever has to wait for the holder of `file`, which is at `place`.
fn locked(file: &LockFile, place: &str, now: Time) -> Error {
    let age = now.secs.saturating_sub(file.time.secs);
    let LockFile { pid, username, hostname, .. } = file;
    let (when, hint) = if age < -SKEW_SECS {
        (
            format!(
                "with the date {}, which by this host's clock lies {} in the future",
                Time::new(file.time.secs, 0),
                span(age.unsigned_abs())
            ),
            format!(
                "the clock of one of the two hosts is or was wrong: compare it with that of {hostname} and set it right. A \
                 lock with such a date is not cleared away by itself until that date has passed. Look on {hostname} \
                 whether process {pid} still runs; only if it does not, remove its lock, the object {place}, and nothing else"
            ),
        )
    } else {
        (
            format!("refreshed {} min ago", age.max(0) / 60),
            "wait until that run has ended and try again; a lock whose process has died is cleared away by itself, at the latest after 30 minutes".to_owned(),
        )
    };
    Error::new(ErrorKind::Locked, format!("repository is locked by process {pid} of {username} on {hostname}, {when}"))
        .with_hint(hint)
}

/// A time in its largest unit that is whole.
fn span(secs: u64) -> String {
    match secs {
        0..7_200 => format!("{} min", secs / 60),
        7_200..172_800 => format!("{} hours", secs / 3_600),
        _ => format!("{} days", secs / 86_400),
    }
}

/// A lock from the future is not stale by its age: one of two clocks is wrong, and a holder that refreshes it is as likely
/// as not. That a process of this host is dead is known whatever the clocks say.
pub(crate) fn is_stale(file: &LockFile, now: Time) -> bool {
    let unrefreshed = now.secs.saturating_sub(file.time.secs) > STALE_AFTER_SECS;
    unrefreshed || file.hostname == hostname() && !process_is_alive(file.pid)
}

/// Locks that this process holds.
static HELD: Mutex<BTreeSet<Id>> = Mutex::new(BTreeSet::new());

/// A lock under our own process id that we do not hold was left by a process that had this id before: the rule rather
/// than the exception in containers, where every run is process 1. Two containers may share a host name and live at
/// once, so it must have missed a refresh, too.
pub(crate) fn is_of_a_past_life(file: &LockFile, id: Id, now: Time) -> bool {
    let missed = now.secs.saturating_sub(file.time.secs).saturating_abs() > REFRESH_EVERY.as_secs() as i64 + 60;
    missed && file.hostname == hostname() && file.pid == i64::from(std::process::id()) && !lock(&HELD).contains(&id)
}

/// Whether a process of this host lives.
fn process_is_alive(pid: i64) -> bool {
    // Zero and below mean groups of processes to the kernel.
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(rustix::process::Pid::from_raw);
    let Some(pid) = pid else { return false };
    match rustix::process::test_kill_process(pid) {
        Ok(()) => true,
        Err(error) => error != rustix::io::Errno::SRCH,
    }
}

/// This host's name.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::MasterKey;
    use lastgood_stores::{Fault, FaultStore, MemoryStore, Op};
    use std::sync::atomic::AtomicI64;

    /// A lock on a store in memory, with a clock that stands where it is put.
    struct Held {
        memory: MemoryStore,
        store: Arc<FaultStore<MemoryStore>>,
        now: Arc<AtomicI64>,
        guard: LockGuard,
    }

    impl Held {
        fn take() -> Self {
            let memory = MemoryStore::new();
            let store = Arc::new(FaultStore::new(memory.clone()));
            let sealer = Arc::new(Sealer::new(&MasterKey::generate().unwrap()).unwrap());
            let now = Arc::new(AtomicI64::new(1_700_000_000));
            let hand = now.clone();
            let clock: Clock = Arc::new(move || Time::new(hand.load(Ordering::Relaxed), 0));
            let guard = LockGuard::take(store.clone(), sealer, LockMode::Shared, clock, &system_pause()).unwrap();
            Self { memory, store, now, guard }
        }

        fn locks(&self) -> Vec<StoreKey> {
            self.memory.keys()
        }

        /// A refresh so many seconds after the lock was taken.
        fn refresh_after(&self, seconds: i64) {
            let shared = &self.guard.shared;
            *lock(&shared.refreshed) = shared.file.time;
            self.now.store(shared.file.time.secs + seconds, Ordering::Relaxed);
            shared.refresh();
        }
    }

    #[test]
    fn a_refreshed_lock_is_another_object_and_as_sound_as_before() {
        let held = Held::take();
        let first = held.locks();
        held.refresh_after(300);
        let second = held.locks();
        assert_eq!((first.len(), second.len()), (1, 1));
        assert_ne!(first, second);
        assert!(held.guard.is_sound());
        let memory = held.memory.clone();
        drop(held);
        assert!(memory.keys().is_empty());
    }

    #[test]
    fn a_lock_that_was_silent_too_long_or_taken_away_is_not_sound_any_more() {
        for seconds in [STALE_AFTER_SECS + 1, 10 * 365 * 86_400, -STALE_AFTER_SECS - 1] {
            let held = Held::take();
            held.refresh_after(seconds);
            assert!(!held.guard.is_sound(), "{seconds}");
            assert_eq!(held.locks().len(), 1, "{seconds}: it protects what comes all the same");
        }
        let held = Held::take();
        held.memory.remove(&held.locks()[0]).unwrap();
        assert!(!held.guard.is_sound());
        // A new one in its place does not make good that it was gone.
        held.refresh_after(300);
        assert_eq!(held.locks().len(), 1);
        assert!(!held.guard.is_sound());
    }

    #[test]
    fn a_lock_that_came_back_after_it_was_taken_for_stale_is_not_sound() {
        let held = Held::take();
        held.now.fetch_add(STALE_AFTER_SECS, Ordering::Relaxed);
        assert!(held.guard.is_sound());
        held.now.fetch_add(1, Ordering::Relaxed);
        assert!(!held.guard.is_sound(), "others may have taken it away, and a late write brought it back");
    }

    /// A lock is refreshed by another host just when it is to be read.
    #[derive(Debug)]
    struct Renewing {
        memory: MemoryStore,
        left: Mutex<Vec<Vec<u8>>>,
    }

    impl Store for Renewing {
        fn location(&self) -> String {
            self.memory.location()
        }
        fn capabilities(&self) -> lastgood_model::store::Capabilities {
            self.memory.capabilities()
        }
        fn create(&self) -> Result<()> {
            self.memory.create()
        }
        fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
            self.memory.put(key, parts)
        }
        fn sync(&self) -> Result<()> {
            self.memory.sync()
        }
        fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
            if let Some(next) = lock(&self.left).pop() {
                self.memory.put(&StoreKey::new(ObjectKind::Lock, Id(sha256(&next))), &[&next])?;
                self.memory.remove(key)?;
            }
            self.memory.get(key)
        }
        fn get_range(&self, key: &StoreKey, at: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
            self.memory.get_range(key, at, length, out)
        }
        fn size(&self, key: &StoreKey) -> Result<u64> {
            self.memory.size(key)
        }
        fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
            self.memory.list(kind)
        }
        fn remove(&self, key: &StoreKey) -> Result<()> {
            self.memory.remove(key)
        }
    }

    #[test]
    fn a_lock_that_is_refreshed_while_locks_are_read_is_not_overlooked() {
        let sealer = Arc::new(Sealer::new(&MasterKey::generate().unwrap()).unwrap());
        let file = LockFile {
            time: system_clock()(),
            exclusive: true,
            hostname: "elsewhere".into(),
            username: "somebody".into(),
            pid: 1,
            uid: 0,
            gid: 0,
            reading: false,
        };
        let sealed = || seal_unpacked(&sealer, &file.encode().unwrap()).unwrap();
        let store = Renewing { memory: MemoryStore::new(), left: Mutex::new(vec![sealed(), sealed()]) };
        let first = sealed();
        store.put(&StoreKey::new(ObjectKind::Lock, Id(sha256(&first))), &[&first]).unwrap();
        let store = Arc::new(store);
        let taken = LockGuard::take(store.clone(), sealer, LockMode::Shared, system_clock(), &system_pause());
        assert_eq!(taken.unwrap_err().kind(), ErrorKind::Locked);
        assert!(lock(&store.left).is_empty());
    }

    #[test]
    fn a_lock_that_could_not_be_refreshed_stays_as_it_was() {
        let held = Held::take();
        let before = held.locks();
        held.store.add(Fault::on(Op::Put).fails_before(ErrorKind::Io));
        held.refresh_after(300);
        assert_eq!(held.locks(), before);
        assert!(held.guard.is_sound());
        // The answer lost after the object was written: two are there, and the one that is known is removed in the end.
        held.store.add(Fault::on(Op::Put).fails_after(ErrorKind::Io));
        held.refresh_after(600);
        assert_eq!(held.locks().len(), 2);
        let memory = held.memory.clone();
        drop(held);
        assert_eq!(memory.keys().len(), 1);
    }

    #[test]
    fn staleness_goes_by_age_and_by_what_is_known_of_the_process() {
        let now = Time::new(1_700_000_000, 0);
        let file = |age: i64, hostname: &str, pid: i64| LockFile {
            time: Time::new(now.secs.saturating_sub(age), 0),
            exclusive: true,
            hostname: hostname.to_owned(),
            username: String::new(),
            pid,
            uid: 0,
            gid: 0,
            reading: false,
        };
        let own = i64::from(std::process::id());
        for (age, stale) in
            [(0, false), (1800, false), (1801, true), (-1801, false), (i64::MAX, true), (i64::MIN, false)]
        {
            assert_eq!(is_stale(&file(age, "elsewhere", 1), now), stale, "{age}");
            assert_eq!(is_stale(&file(age, &hostname(), own), now), stale, "{age}");
            for nobody in [0, -1, i64::MAX, i64::MIN, i64::from(i32::MAX)] {
                assert!(is_stale(&file(age, &hostname(), nobody), now), "{age} {nobody}");
                assert_eq!(is_stale(&file(age, "elsewhere", nobody), now), stale, "{age} {nobody}");
            }
        }
        let ahead = locked(&file(-3 * 86_400, "elsewhere", 1), "/repo/locks/ab", now);
        assert!(
            ahead.message().contains("2023-11-17") && ahead.message().contains("3 days in the future"),
            "{ahead:?}"
        );
        let hint = ahead.hint().unwrap();
        assert!(
            ["clock", "process 1 still runs", "the object /repo/locks/ab"].iter().all(|w| hint.contains(w)),
            "{hint}"
        );
        assert!(!locked(&file(-30, "elsewhere", 1), "x", now).hint().unwrap().contains("clock"));
        assert!(locked(&file(i64::MIN, "elsewhere", 1), "x", now).chain().contains("elsewhere"));
    }
}
