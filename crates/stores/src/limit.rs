//! Keeps within a rate, so that a backup leaves room for others on the line.

use crate::{Pace, SystemPace, length_of, lock, side_of};
use lastgood_model::store::{Capabilities, ObjectKind, SideName, SidePut, SideStore, Store, StoreKey, Swept};
use lastgood_model::{Id, Result};
use std::fmt;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The most bytes a second in each direction; `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Towards the store.
    pub upload: Option<NonZeroU64>,
    /// From it.
    pub download: Option<NonZeroU64>,
}

/// A store that waits before a call until what earlier ones moved is paid for by time. An object goes as fast as it can
/// once it goes, so that the rate holds over several of them, whoever calls, and not within one.
pub struct LimitStore<S> {
    inner: S,
    rates: Rates,
    upload: Bucket,
    download: Bucket,
    pace: Arc<dyn Pace>,
}

/// When, on the pace's clock, all that was moved is paid for.
#[derive(Debug, Default)]
struct Bucket(Mutex<Duration>);

impl Bucket {
    /// Adds bytes, and says how long to wait before they may be moved.
    fn owe(&self, bytes: u64, rate: Option<NonZeroU64>, now: Duration) -> Duration {
        let Some(rate) = rate else { return Duration::ZERO };
        let mut paid = lock(&self.0);
        let begin = now.max(*paid);
        *paid = begin.saturating_add(Duration::from_secs_f64(bytes as f64 / rate.get() as f64));
        begin - now
    }
}

impl<S: Store> LimitStore<S> {
    /// Holds calls to `inner` to `rates`.
    pub fn new(inner: S, rates: Rates) -> Self {
        Self::with_pace(inner, rates, Arc::new(SystemPace::default()))
    }

    /// As [`Self::new`], with time and waiting from `pace`.
    pub fn with_pace(inner: S, rates: Rates, pace: Arc<dyn Pace>) -> Self {
        Self { inner, rates, upload: Bucket::default(), download: Bucket::default(), pace }
    }

    /// Waits until so many bytes may be written.
    fn up(&self, bytes: u64) -> Result<()> {
        self.wait(self.upload.owe(bytes, self.rates.upload, self.pace.now()))
    }

    /// Waits until bytes may be read; how many shows later for some calls.
    fn down(&self, bytes: u64) -> Result<()> {
        self.wait(self.download.owe(bytes, self.rates.download, self.pace.now()))
    }

    fn wait(&self, delay: Duration) -> Result<()> {
        if delay.is_zero() { Ok(()) } else { self.pace.wait(delay) }
    }

    /// Counts bytes of a call whose length was not known before: who calls next waits for them.
    fn came(&self, bytes: u64) {
        self.download.owe(bytes, self.rates.download, self.pace.now());
    }
}

impl<S: Store> Store for LimitStore<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn create(&self) -> Result<()> {
        self.inner.create()
    }

    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        self.up(length_of(parts))?;
        self.inner.put(key, parts)
    }

    fn put_cold(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        self.up(length_of(parts))?;
        self.inner.put_cold(key, parts)
    }

    fn sync(&self) -> Result<()> {
        self.inner.sync()
    }

    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        self.down(0)?;
        let bytes = self.inner.get(key)?;
        self.came(bytes.len() as u64);
        Ok(bytes)
    }

    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        // A length that no object has is answered without moving anything.
        self.down((length as u64).min(1 << 30))?;
        self.inner.get_range(key, offset, length, out)
    }

    fn size(&self, key: &StoreKey) -> Result<u64> {
        self.inner.size(key)
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        self.inner.list(kind)
    }

    fn remove(&self, key: &StoreKey) -> Result<()> {
        self.inner.remove(key)
    }

    fn sweep(&self, older_than: Duration) -> Result<Swept> {
        self.inner.sweep(older_than)
    }

    fn probe(&self) -> Result<()> {
        self.inner.probe()
    }

    fn fills_up(&self) -> bool {
        self.inner.fills_up()
    }

    fn side(&self) -> Option<&dyn SideStore> {
        self.inner.side().map(|_| self as &dyn SideStore)
    }
}

impl<S: Store> SideStore for LimitStore<S> {
    fn put_side(&self, name: &SideName, bytes: &[u8], how: SidePut) -> Result<()> {
        self.up(bytes.len() as u64)?;
        side_of(&self.inner)?.put_side(name, bytes, how)
    }

    fn get_side(&self, name: &SideName) -> Result<Vec<u8>> {
        self.down(0)?;
        let bytes = side_of(&self.inner)?.get_side(name)?;
        self.came(bytes.len() as u64);
        Ok(bytes)
    }

    fn list_side(&self, folder: &str) -> Result<Vec<(SideName, u64)>> {
        side_of(&self.inner)?.list_side(folder)
    }

    fn remove_side(&self, name: &SideName) -> Result<()> {
        side_of(&self.inner)?.remove_side(name)
    }
}

impl<S: fmt::Debug> fmt::Debug for LimitStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitStore").field("inner", &self.inner).field("rates", &self.rates).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;
    use lastgood_model::{Error, ErrorKind};

    /// Waiting takes no time, but the clock moves.
    #[derive(Default)]
    struct Clock {
        now: Mutex<Duration>,
        is_over: bool,
    }

    impl Pace for Clock {
        fn now(&self) -> Duration {
            *lock(&self.now)
        }
        fn wait(&self, delay: Duration) -> Result<()> {
            if self.is_over {
                return Err(Error::new(ErrorKind::Cancelled, "stopped"));
            }
            *lock(&self.now) += delay;
            Ok(())
        }
        fn random(&self) -> u64 {
            0
        }
    }

    fn rates(upload: u64, download: u64) -> Rates {
        Rates { upload: NonZeroU64::new(upload), download: NonZeroU64::new(download) }
    }

    fn pack(n: u8) -> StoreKey {
        StoreKey::new(ObjectKind::Pack, Id([n; 32]))
    }

    #[test]
    fn many_objects_take_the_time_that_the_rate_gives_them() {
        let clock = Arc::new(Clock::default());
        let store = LimitStore::with_pace(MemoryStore::new(), rates(1000, 500), clock.clone());
        for n in 0..11 {
            store.put(&pack(n), &[&[0; 400], &[0; 600]]).unwrap();
        }
        assert_eq!(clock.now(), Duration::from_secs(10), "the first goes at once");
        for n in 0..3 {
            store.get(&pack(n)).unwrap();
            store.get_range(&pack(n), 0, 500, &mut Vec::new()).unwrap();
        }
        // Directions do not wait for one another; the last range waits for all before it.
        assert_eq!(clock.now(), Duration::from_secs(10 + 8));
    }

    #[test]
    fn an_idle_line_gathers_no_credit() {
        let clock = Arc::new(Clock::default());
        let store = LimitStore::with_pace(MemoryStore::new(), rates(1000, 0), clock.clone());
        *lock(&clock.now) = Duration::from_secs(100);
        store.put(&pack(1), &[&[0; 1000]]).unwrap();
        store.put(&pack(2), &[&[0; 1000]]).unwrap();
        assert_eq!(clock.now(), Duration::from_secs(101));
        store.get(&pack(1)).unwrap();
        store.get(&pack(1)).unwrap();
        assert_eq!(clock.now(), Duration::from_secs(101), "without limit there");
    }

    #[test]
    fn a_wish_to_stop_ends_the_waiting() {
        let clock = Arc::new(Clock { is_over: true, ..Clock::default() });
        let store = LimitStore::with_pace(MemoryStore::new(), rates(1, 1), clock);
        store.put(&pack(1), &[b"x"]).unwrap();
        assert_eq!(store.put(&pack(2), &[b"x"]).unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
