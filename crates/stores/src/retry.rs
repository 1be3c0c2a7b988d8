//! Outlasts passing trouble.
//!
//! Only errors that say of themselves that the same call may succeed later are tried again: a full disk, a refused
//! permission, damage or an absent object are answers, not trouble. Tries are bounded in number and in total time, and
//! the waits between them grow and are jittered, so that many clients do not come back at the same instant. A run as a
//! whole has a budget of tries, which success refills slowly: against a server that fails every other call it ends in
//! bounded time instead of limping on, and does not add to the load under which that server breaks.
//!
//! Repeating is safe because objects are immutable: a `put` whose reply was lost finds its own object. For the config,
//! where that would look like another's, the bytes there are compared with ours.

use crate::side_of;
use lastgood_model::store::{Capabilities, ObjectKind, SideName, SidePut, SideStore, Store, StoreKey, Swept};
use lastgood_model::{Error, ErrorKind, Id, Result};
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in all, the first included; at least one is made.
    pub tries_max: u32,
    /// The wait before the second try; each later one is twice as long, up to `delay_max`.
    pub delay_first: Duration,
    /// The longest single wait.
    pub delay_max: Duration,
    /// No wait is begun that would end later than this after the first try began.
    pub total_max: Duration,
    /// Repetitions that all calls together may have in reserve; every twentieth call that succeeds adds one again.
    pub reserve: u32,
}

impl Default for RetryPolicy {
    /// Eight tries within two minutes.
    fn default() -> Self {
        Self {
            tries_max: 8,
            delay_first: Duration::from_millis(250),
            delay_max: Duration::from_secs(20),
            total_max: Duration::from_secs(120),
            reserve: 200,
        }
    }
}

impl RetryPolicy {
    /// The wait after try number `tried` (from 1): between half and all of the doubled delay, by `random`.
    fn delay(&self, tried: u32, random: u64) -> Duration {
        let factor = 1u32.checked_shl(tried - 1).unwrap_or(u32::MAX);
        let full = self.delay_first.saturating_mul(factor).min(self.delay_max);
        full.mul_f64(0.5 + 0.5 * (random >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// Time and chance, passed in so that tests need no waiting.
pub trait Pace: Send + Sync {
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;

    /// Waits. An error (such as [`ErrorKind::Cancelled`]) ends the retries and is returned instead.
    fn wait(&self, delay: Duration) -> Result<()>;

    /// Any number, each time another.
    fn random(&self) -> u64;
}

/// The machine's clock, a real wait, and chance from the operating system.
#[derive(Clone, Copy, Debug)]
pub struct SystemPace(Instant);

impl Default for SystemPace {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Pace for SystemPace {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wait(&self, delay: Duration) -> Result<()> {
        std::thread::sleep(delay);
        Ok(())
    }

    fn random(&self) -> u64 {
        std::hash::RandomState::new().build_hasher().finish()
    }
}

/// What is left of the tries of a whole run, in parts of one: a success adds a part.
struct Reserve {
    left: AtomicU64,
    most: u64,
}

impl Reserve {
    /// Successful calls that earn one more try.
    const PARTS: u64 = 20;

    fn new(tries: u32) -> Self {
        let most = u64::from(tries) * Self::PARTS;
        Self { left: AtomicU64::new(most), most }
    }

    fn earn(&self) {
        let more = |left: u64| (left < self.most).then_some(left + 1);
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Takes one try; false when there is none.
    fn take(&self) -> bool {
        let less = |left: u64| left.checked_sub(Self::PARTS);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// A store that tries again.
#[derive(Clone)]
pub struct RetryStore<S> {
    inner: S,
    policy: RetryPolicy,
    reserve: Arc<Reserve>,
    pace: Arc<dyn Pace>,
}

impl<S: Store> RetryStore<S> {
    /// Tries calls to `inner` again as `policy` says.
    pub fn new(inner: S, policy: RetryPolicy) -> Self {
        Self::with_pace(inner, policy, Arc::new(SystemPace::default()))
    }

    /// As [`Self::new`], with time and chance from `pace`.
    pub fn with_pace(inner: S, policy: RetryPolicy, pace: Arc<dyn Pace>) -> Self {
        Self { inner, policy, reserve: Arc::new(Reserve::new(policy.reserve)), pace }
    }

    /// The store below.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Calls until it succeeds, is final, or the bounds are reached. `call` is told how many tries went before.
    fn attempt<T>(&self, act: impl fmt::Display, mut call: impl FnMut(u32) -> Result<T>) -> Result<T> {
        let begun = self.pace.now();
        let mut tried = 0;
        loop {
            let error = match call(tried) {
                Ok(value) => {
                    self.reserve.earn();
                    return Ok(value);
                }
                Err(error) => error,
            };
            tried += 1;
            if !is_passing(&error) {
                return Err(error);
            }
            let spent = self.pace.now().saturating_sub(begun);
            // A server that says when to come back is not asked before; what it says is no shorter than our own wait.
            let delay = self.policy.delay(tried, self.pace.random()).max(error.retry_after().unwrap_or_default());
            if tried >= self.policy.tries_max || spent + delay > self.policy.total_max {
                return Err(
                    error.context(format!("{act}: gave up after {tried} tries in {:.1} s", spent.as_secs_f64()))
                );
            }
            if !self.reserve.take() {
                let message = format!("{act}: gave up, since {} tries of this run were in vain", self.policy.reserve);
                return Err(error.context(message));
            }
            tracing::warn!(%act, tried, ?delay, error = %error.chain(), "trying again");
            self.pace.wait(delay)?;
        }
    }
}

/// True for trouble that may pass by itself.
fn is_passing(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Retry => true,
        ErrorKind::Io => io_causes(error).any(|cause| {
            use std::io::ErrorKind as K;
            matches!(
                cause.kind(),
                K::Interrupted
                    | K::WouldBlock
                    | K::TimedOut
                    | K::BrokenPipe
                    | K::UnexpectedEof
                    | K::ConnectionRefused
                    | K::ConnectionReset
                    | K::ConnectionAborted
                    | K::NotConnected
                    | K::HostUnreachable
                    | K::NetworkUnreachable
                    | K::NetworkDown
                    | K::ResourceBusy
                    | K::StaleNetworkFileHandle
            )
        }),
        _ => false,
    }
}

/// The operating system's errors among the causes.
fn io_causes(error: &Error) -> impl Iterator<Item = &std::io::Error> {
    std::iter::successors(std::error::Error::source(error), |cause| cause.source()).filter_map(|c| c.downcast_ref())
}

impl<S: fmt::Debug> fmt::Debug for RetryStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryStore").field("inner", &self.inner).field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl<S: Store> Store for RetryStore<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn create(&self) -> Result<()> {
        self.attempt("make folders", |_| self.inner.create())
    }

    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        let mut repeated = false;
        let result = self.attempt(format_args!("write {key}"), |tried| {
            repeated = tried > 0;
            self.inner.put(key, parts)
        });
        match result {
            Err(error) if error.kind() == ErrorKind::Conflict && repeated && key.kind == ObjectKind::Config => {
                // Ours, with the first reply lost, or another's? Both are sealed with a random nonce: the bytes tell.
                if self.get(key)? == parts.concat() { Ok(()) } else { Err(error) }
            }
            result => result,
        }
    }

    fn put_cold(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        self.attempt(format_args!("write {key}"), |_| self.inner.put_cold(key, parts))
    }

    fn sync(&self) -> Result<()> {
        self.attempt("flush", |_| self.inner.sync())
    }

    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        self.attempt(format_args!("read {key}"), |_| self.inner.get(key))
    }

    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        self.attempt(format_args!("read {key}"), |_| self.inner.get_range(key, offset, length, out))
    }

    fn size(&self, key: &StoreKey) -> Result<u64> {
        self.attempt(format_args!("examine {key}"), |_| self.inner.size(key))
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        self.attempt(format_args!("list {}", kind.folder()), |_| self.inner.list(kind))
    }

    fn remove(&self, key: &StoreKey) -> Result<()> {
        self.attempt(format_args!("remove {key}"), |_| self.inner.remove(key))
    }

    fn sweep(&self, older_than: Duration) -> Result<Swept> {
        self.attempt("sweep", |_| self.inner.sweep(older_than))
    }

    fn probe(&self) -> Result<()> {
        self.attempt("try to write", |_| self.inner.probe())
    }

    fn fills_up(&self) -> bool {
        self.inner.fills_up()
    }

    fn side(&self) -> Option<&dyn SideStore> {
        self.inner.side().map(|_| self as &dyn SideStore)
    }
}

impl<S: Store> SideStore for RetryStore<S> {
    fn put_side(&self, name: &SideName, bytes: &[u8], how: SidePut) -> Result<()> {
        let mut repeated = false;
        let result = self.attempt(format_args!("write {name}"), |tried| {
            repeated = tried > 0;
            side_of(&self.inner)?.put_side(name, bytes, how)
        });
        match result {
            // Ours, with the first reply lost, or another's? The bytes tell; see `SideStore::put_side`.
            Err(error) if error.kind() == ErrorKind::Conflict && repeated => match self.get_side(name) {
                Ok(found) if found == bytes => Ok(()),
                _ => Err(error),
            },
            result => result,
        }
    }

    fn get_side(&self, name: &SideName) -> Result<Vec<u8>> {
        self.attempt(format_args!("read {name}"), |_| side_of(&self.inner)?.get_side(name))
    }

    fn list_side(&self, folder: &str) -> Result<Vec<(SideName, u64)>> {
        self.attempt(format_args!("list {}/{folder}", SideName::ROOT), |_| side_of(&self.inner)?.list_side(folder))
    }

    fn remove_side(&self, name: &SideName) -> Result<()> {
        self.attempt(format_args!("remove {name}"), |_| side_of(&self.inner)?.remove_side(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fault, FaultStore, MemoryStore, Op, RecordStore, lock};
    use std::sync::Mutex;

    /// Waiting takes no time, but the clock moves.
    #[derive(Default)]
    struct Script {
        now: Mutex<Duration>,
        waits: Mutex<Vec<Duration>>,
        /// Refuses to wait once so many waits are over.
        patience: Option<usize>,
    }

    impl Pace for Script {
        fn now(&self) -> Duration {
            *lock(&self.now)
        }
        fn wait(&self, delay: Duration) -> Result<()> {
            if self.patience.is_some_and(|p| lock(&self.waits).len() >= p) {
                return Err(Error::new(ErrorKind::Cancelled, "interrupted"));
            }
            lock(&self.waits).push(delay);
            *lock(&self.now) += delay;
            Ok(())
        }
        fn random(&self) -> u64 {
            u64::MAX
        }
    }

    type Broken = RetryStore<RecordStore<FaultStore<MemoryStore>>>;

    fn broken(faults: impl IntoIterator<Item = Fault>, policy: RetryPolicy) -> (Broken, Arc<Script>) {
        let script = Arc::new(Script::default());
        let store = FaultStore::new(MemoryStore::new());
        faults.into_iter().for_each(|fault| store.add(fault));
        (RetryStore::with_pace(RecordStore::new(store), policy, script.clone()), script)
    }

    fn pack() -> StoreKey {
        StoreKey::new(ObjectKind::Pack, Id([7; 32]))
    }

    #[test]
    fn passing_trouble_is_outlasted_with_growing_waits() {
        let faults = [1, 2, 3].map(|n| Fault::on(Op::Put).nth(n).fails_before(ErrorKind::Retry));
        let (store, script) = broken(faults, RetryPolicy::default());
        store.put(&pack(), &[b"x"]).unwrap();
        assert_eq!(store.get(&pack()).unwrap(), b"x");
        let waits: Vec<u128> = lock(&script.waits).iter().map(Duration::as_millis).collect();
        assert_eq!(waits, [250, 500, 1000], "the full delay for the greatest random number");
    }

    #[test]
    fn final_answers_are_never_asked_for_again() {
        use ErrorKind::*;
        for kind in [Absent, Denied, Conflict, Corrupt, NoSpace, Unsupported, Invalid, Cancelled, Bug, NoRepository, Io]
        {
            let (store, script) = broken([Fault::on(Op::Put).lasting().fails_before(kind)], RetryPolicy::default());
            assert_eq!(store.put(&pack(), &[b"x"]).unwrap_err().kind(), kind);
            assert_eq!(store.inner().counts().of(Op::Put).calls, 1, "{kind:?}");
            assert!(lock(&script.waits).is_empty());
        }
    }

    #[test]
    fn io_trouble_is_passing_only_when_its_cause_is() {
        let io = |kind: std::io::ErrorKind| {
            Error::new(ErrorKind::Io, "read").with_source(std::io::Error::from(kind)).context("outer")
        };
        assert!(is_passing(&io(std::io::ErrorKind::BrokenPipe)));
        assert!(is_passing(&Error::io("read", std::io::Error::from_raw_os_error(116))), "ESTALE");
        assert!(!is_passing(&Error::io("flush", std::io::Error::from_raw_os_error(5))), "EIO");
        assert!(!is_passing(&io(std::io::ErrorKind::InvalidData)));
        assert!(!is_passing(&Error::new(ErrorKind::Io, "no cause")));
    }

    #[test]
    fn tries_are_bounded_in_number() {
        let policy = RetryPolicy { tries_max: 3, ..RetryPolicy::default() };
        let (store, _) = broken([Fault::on(Op::Get).lasting().fails_before(ErrorKind::Retry)], policy);
        let error = store.get(&pack()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retry);
        assert!(error.message().contains("gave up after 3 tries"), "{error}");
        assert_eq!(store.inner().counts().of(Op::Get).calls, 3);
    }

    #[test]
    fn tries_are_bounded_in_time() {
        let policy = RetryPolicy { tries_max: u32::MAX, total_max: Duration::from_secs(60), ..RetryPolicy::default() };
        let (store, script) = broken([Fault::on(Op::Get).lasting().fails_before(ErrorKind::Retry)], policy);
        assert_eq!(store.get(&pack()).unwrap_err().kind(), ErrorKind::Retry);
        assert!(script.now() <= Duration::from_secs(60));
        assert!(script.now() > Duration::from_secs(30), "{:?}", script.now());
        assert!(lock(&script.waits).iter().all(|wait| *wait <= policy.delay_max));
    }

    #[test]
    fn tries_are_bounded_over_all_calls_and_earned_back_by_success() {
        let policy = RetryPolicy { reserve: 10, ..RetryPolicy::default() };
        // Every other read fails, so that each call succeeds with its second try.
        let (store, _) = broken([Fault::on(Op::Get).every(2)], policy);
        store.put(&pack(), &[b"x"]).unwrap();
        let ended = (0..1000).position(|_| store.get(&pack()).is_err());
        let calls = store.inner().counts().of(Op::Get).calls;
        assert!(ended.is_some_and(|n| (10..=12).contains(&n)), "{ended:?} after {calls} calls");
        let error = store.get(&pack()).and_then(|_| store.get(&pack())).unwrap_err();
        assert!(error.message().contains("10 tries of this run"), "{error}");
        (0..40).for_each(|_| drop(store.size(&pack())));
        assert!((0..3).all(|_| store.get(&pack()).is_ok()), "two tries were earned");
    }

    #[test]
    fn a_wish_to_stop_ends_the_waiting() {
        let store = FaultStore::new(MemoryStore::new());
        store.add(Fault::on(Op::Get).lasting().fails_before(ErrorKind::Retry));
        let script = Arc::new(Script { patience: Some(2), ..Script::default() });
        let store = RetryStore::with_pace(store, RetryPolicy::default(), script);
        assert_eq!(store.get(&pack()).unwrap_err().kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn a_config_whose_reply_was_lost_is_known_as_our_own() {
        let (store, _) = broken([Fault::on(Op::Put).fails_after(ErrorKind::Retry)], RetryPolicy::default());
        store.put(&StoreKey::CONFIG, &[b"our", b"s"]).unwrap();
        assert_eq!(store.inner().counts().of(Op::Put).calls, 2);
    }

    #[test]
    fn a_config_of_another_is_a_conflict_even_after_a_lost_try() {
        let (store, _) = broken([Fault::on(Op::Put).nth(2).fails_before(ErrorKind::Retry)], RetryPolicy::default());
        store.inner().put(&StoreKey::CONFIG, &[b"theirs"]).unwrap();
        assert_eq!(store.put(&StoreKey::CONFIG, &[b"ours"]).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(store.inner().counts().of(Op::Put).calls, 3);
        assert_eq!(store.put(&StoreKey::CONFIG, &[b"theirs"]).unwrap_err().kind(), ErrorKind::Conflict, "first try");
    }

    #[test]
    fn jitter_stays_between_half_and_all_of_the_delay() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.delay(1, 0), policy.delay_first / 2);
        assert!(policy.delay(1, u64::MAX) <= policy.delay_first);
        assert_eq!(policy.delay(40, 0), policy.delay_max / 2);
        assert_eq!(policy.delay(u32::MAX, 0), policy.delay_max / 2);
    }
}
