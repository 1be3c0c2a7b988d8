//! The one place where blocking code waits for async code.
//!
//! Everything above a [`Store`](lastgood_model::store::Store) is threads and blocking calls; clients of object stores and
//! SSH are async. They meet here: a call is polled on the thread that made it, while one small runtime, started by the
//! first call and kept until the process ends, drives sockets and timers. No call can wait without bound: whatever is
//! not done by its deadline, or has been silent for too long, is dropped, which closes what it held open, and is told as
//! [`ErrorKind::Retry`] by name, since the same call may succeed on a new connection.
//!
//! What a dropped call had already sent may still arrive: its outcome is unknown, as after any lost answer.

use lastgood_model::{Error, ErrorKind, Result};
use std::fmt;
use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

/// Threads that drive sockets. Sealing and hashing happen elsewhere, so that two are not the limit of any store.
const WORKERS: usize = 2;

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// In all, from its beginning.
    pub(crate) total: Duration,
    /// Without any sign of life, see [`Pulse`].
    pub(crate) idle: Duration,
}

impl Limits {
    /// Bounded in all only.
    #[cfg_attr(not(test), allow(dead_code, reason = "for the calls of stores that show no progress"))]
    pub(crate) const fn total(total: Duration) -> Self {
        Self { total, idle: Duration::MAX }
    }
}

/// Signs of life of one call: whoever sends or receives tells of it here, so that slow is told from dead.
#[derive(Debug)]
pub(crate) struct Pulse {
    begun: Instant,
    /// Milliseconds after `begun`.
    last_ms: AtomicU64,
    bytes: AtomicU64,
}

impl Pulse {
    /// Begins now.
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), last_ms: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// So many bytes went over the wire a moment ago.
    pub(crate) fn beat(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.last_ms.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.begun + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }
}

/// Waits for `future` on this thread, at most so long. `act` is a phrase such as "write data/…", and `place` where, both
/// without secrets.
///
/// # Errors
/// What the future says; [`ErrorKind::Retry`] when `deadline` passes, by when the future has been dropped.
///
/// # Panics
/// When called from async code, which must await instead.
#[cfg_attr(not(test), allow(dead_code, reason = "for the calls of stores that show no progress"))]
pub(crate) fn block_on<T>(
    deadline: Duration,
    act: impl fmt::Display,
    place: impl fmt::Display,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    block_on_watched(Limits::total(deadline), &Pulse::new(), act, place, future)
}

/// As [`block_on`], and gives up also when `pulse` has been still for `limits.idle`.
///
/// # Errors
/// As [`block_on`].
pub(crate) fn block_on_watched<T>(
    limits: Limits,
    pulse: &Pulse,
    act: impl fmt::Display,
    place: impl fmt::Display,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    let given_up = runtime()?.block_on(async {
        tokio::pin!(future);
        let end = pulse.begun.checked_add(limits.total);
        loop {
            let silent_at = pulse.last().checked_add(limits.idle);
            let wake = [end, silent_at].into_iter().flatten().min();
            let Some(wake) = wake else { return Ok(future.await) };
            match tokio::time::timeout_at(wake, &mut future).await {
                Ok(result) => return Ok(result),
                Err(_) => {
                    let now = Instant::now();
                    let over = end.is_some_and(|end| now >= end);
                    // It may have been heard meanwhile.
                    if over || now.saturating_duration_since(pulse.last()) >= limits.idle {
                        return Err(());
                    }
                }
            }
        }
    });
    given_up.unwrap_or_else(|()| Err(silence(pulse, &act, &place)))
}

fn silence(pulse: &Pulse, act: &dyn fmt::Display, place: &dyn fmt::Display) -> Error {
    let now = Instant::now();
    let (all, silent) = (now - pulse.begun, now.saturating_duration_since(pulse.last()));
    let bytes = pulse.bytes.load(Ordering::Relaxed);
    let message = if bytes == 0 {
        format!("{act}: {place} has not answered for {:.1} s; the call was given up", all.as_secs_f64())
    } else {
        format!(
            "{act}: {place} was not done after {:.1} s and {bytes} bytes, silent for the last {:.1} s; the call was given up",
            all.as_secs_f64(),
            silent.as_secs_f64()
        )
    };
    Error::new(ErrorKind::Retry, message)
}

fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let made = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("lastgood-net")
        .enable_all()
        .build()
        .map_err(|error| Error::io("start the threads for network calls", error))?;
    // Of two that are made at once, the second is dropped unused.
    Ok(RUNTIME.get_or_init(|| made))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    /// Tells when it is dropped.
    struct Dropped(Arc<AtomicBool>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn what_is_done_in_time_is_given_back() {
        let found = block_on(Duration::from_secs(60), "read", "here", async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(7)
        });
        assert_eq!(found.unwrap(), 7);
        let found = block_on(Duration::MAX, "read", "here", async { Err::<(), _>(Error::corrupt("short")) });
        assert_eq!(found.unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_call_past_its_deadline_is_dropped_and_named() {
        let dropped = Arc::new(AtomicBool::new(false));
        let held = Dropped(dropped.clone());
        let error = block_on(Duration::from_millis(30), "list snapshots", "s3://bucket", async move {
            let _held = held;
            std::future::pending::<()>().await;
            Ok(())
        })
        .unwrap_err();
        assert!(dropped.load(Ordering::SeqCst), "the future is still alive");
        assert_eq!(error.kind(), ErrorKind::Retry);
        assert!(error.message().starts_with("list snapshots: s3://bucket has not answered for 0.0 s"), "{error}");
    }

    #[test]
    fn a_slow_call_goes_on_while_it_shows_life_and_ends_when_it_does_not() {
        let limits = Limits { total: Duration::from_secs(60), idle: Duration::from_millis(200) };
        let pulse = Pulse::new();
        let slow = block_on_watched(limits, &pulse, "read", "there", async {
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                pulse.beat(10);
            }
            Ok(())
        });
        slow.unwrap();
        let pulse = Pulse::new();
        let error = block_on_watched(limits, &pulse, "read", "there", async {
            pulse.beat(10);
            std::future::pending::<()>().await;
            Ok(())
        })
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retry);
        assert!(error.message().contains("10 bytes"), "{error}");
    }

    #[test]
    fn life_does_not_outlast_the_deadline() {
        let limits = Limits { total: Duration::from_millis(100), idle: Duration::from_secs(60) };
        let pulse = Pulse::new();
        let error = block_on_watched(limits, &pulse, "read", "there", async {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                pulse.beat(1);
            }
            #[expect(unreachable_code, reason = "the type of an endless future")]
            Ok(())
        });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Retry);
    }
}
