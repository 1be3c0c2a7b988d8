//! Counts and logs what a store is asked, for tests that fix the number of calls and for reports.

use crate::{Op, length_of, lock, side_of};
use lastgood_model::store::{Capabilities, ObjectKind, SideName, SidePut, SideStore, Store, StoreKey, Swept};
use lastgood_model::{ErrorKind, Id, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One call as it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was asked.
    pub op: Op,
    /// The kind of object, for calls about objects and lists.
    pub kind: Option<ObjectKind>,
    /// The object, for calls about one.
    pub key: Option<StoreKey>,
    /// Where the range began, for `get_range`.
    pub offset: u64,
    /// Bytes that were to be written or were read; 0 for calls that move none and for reads that failed.
    pub bytes: u64,
    /// The error it ended with.
    pub error: Option<ErrorKind>,
}

/// Totals of calls of one sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many, failed ones included.
    pub calls: u64,
    /// How many of them failed.
    pub failed: u64,
    /// Bytes moved by those that succeeded.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.failed += other.failed;
        self.bytes += other.bytes;
    }
}

/// Totals by call and kind of object, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<(Op, Option<ObjectKind>), Count>);

impl Counts {
    /// All calls of `op`, whatever they were about.
    pub fn of(&self, op: Op) -> Count {
        self.sum(|(other, _)| *other == op)
    }

    /// Calls of `op` about objects of `kind`.
    pub fn on(&self, op: Op, kind: ObjectKind) -> Count {
        self.sum(|key| *key == (op, Some(kind)))
    }

    /// Every call.
    pub fn total(&self) -> Count {
        self.sum(|_| true)
    }

    /// What came since `earlier`, a snapshot of the same store.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let rest = self.0.iter().map(|(key, now)| {
            let before = earlier.0.get(key).copied().unwrap_or_default();
            let count = Count {
                calls: now.calls.saturating_sub(before.calls),
                failed: now.failed.saturating_sub(before.failed),
                bytes: now.bytes.saturating_sub(before.bytes),
            };
            (*key, count)
        });
        Self(rest.filter(|(_, count)| count.calls > 0).collect())
    }

    fn sum(&self, wanted: impl Fn(&(Op, Option<ObjectKind>)) -> bool) -> Count {
        let mut sum = Count::default();
        self.0.iter().filter(|(key, _)| wanted(key)).for_each(|(_, count)| sum.add(*count));
        sum
    }
}

/// How many calls are logged one by one.
const CALLS_KEPT_MAX: usize = 100_000;

/// A store that remembers what it was asked.
#[derive(Debug)]
pub struct RecordStore<S> {
    inner: S,
    state: Arc<Mutex<State>>,
}

/// The totals of a store, wherever that is.
#[derive(Clone, Debug)]
pub struct Meter(Arc<Mutex<State>>);

impl Meter {
    /// The totals so far.
    pub fn counts(&self) -> Counts {
        lock(&self.0).counts.clone()
    }
}

#[derive(Debug)]
struct State {
    counts: Counts,
    log: Vec<Call>,
    calls_kept_max: usize,
}

impl Default for State {
    fn default() -> Self {
        Self { counts: Counts::default(), log: Vec::new(), calls_kept_max: CALLS_KEPT_MAX }
    }
}

impl<S: Store> RecordStore<S> {
    /// How many calls are logged one by one; later ones are only counted.
    pub const CALLS_KEPT_MAX: usize = CALLS_KEPT_MAX;

    /// Records calls to `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Counts calls to `inner` and keeps none of them: for long runs.
    pub fn counting(inner: S) -> Self {
        Self { inner, state: Arc::new(Mutex::new(State { calls_kept_max: 0, ..State::default() })) }
    }

    /// The totals, to be read also when the store itself is out of reach.
    pub fn meter(&self) -> Meter {
        Meter(self.state.clone())
    }

    /// The store below.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The totals so far.
    pub fn counts(&self) -> Counts {
        lock(&self.state).counts.clone()
    }

    /// The calls so far, in the order in which they ended.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.state).log.clone()
    }

    /// Forgets everything recorded.
    pub fn reset(&self) {
        let mut state = lock(&self.state);
        (state.counts, state.log) = (Counts::default(), Vec::new());
    }

    fn record(&self, call: Call) {
        let mut state = lock(&self.state);
        let failed = call.error.is_some();
        let one = Count { calls: 1, failed: u64::from(failed), bytes: if failed { 0 } else { call.bytes } };
        state.counts.0.entry((call.op, call.kind)).or_default().add(one);
        if state.log.len() < state.calls_kept_max {
            state.log.push(call);
        }
    }

    fn plain<T>(&self, op: Op, kind: Option<ObjectKind>, result: Result<T>) -> Result<T> {
        let error = result.as_ref().err().map(|e| e.kind());
        self.record(Call { op, kind, key: None, offset: 0, bytes: 0, error });
        result
    }

    fn beside<T>(&self, op: Op, bytes: u64, result: Result<T>) -> Result<T> {
        let error = result.as_ref().err().map(|e| e.kind());
        self.record(Call { op, kind: None, key: None, offset: 0, bytes, error });
        result
    }

    fn keyed<T>(&self, op: Op, key: &StoreKey, offset: u64, bytes: u64, result: Result<T>) -> Result<T> {
        let error = result.as_ref().err().map(|e| e.kind());
        self.record(Call { op, kind: Some(key.kind), key: Some(*key), offset, bytes, error });
        result
    }
}

impl<S: Store> Store for RecordStore<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn create(&self) -> Result<()> {
        self.plain(Op::Create, None, self.inner.create())
    }

    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        self.keyed(Op::Put, key, 0, length_of(parts), self.inner.put(key, parts))
    }

    fn put_cold(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        self.keyed(Op::Put, key, 0, length_of(parts), self.inner.put_cold(key, parts))
    }

    fn sync(&self) -> Result<()> {
        self.plain(Op::Sync, None, self.inner.sync())
    }

    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        let result = self.inner.get(key);
        let bytes = result.as_ref().map_or(0, |bytes| bytes.len() as u64);
        self.keyed(Op::Get, key, 0, bytes, result)
    }

    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        let result = self.inner.get_range(key, offset, length, out);
        let bytes = if result.is_ok() { length as u64 } else { 0 };
        self.keyed(Op::GetRange, key, offset, bytes, result)
    }

    fn size(&self, key: &StoreKey) -> Result<u64> {
        self.keyed(Op::Size, key, 0, 0, self.inner.size(key))
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        self.plain(Op::List, Some(kind), self.inner.list(kind))
    }

    fn remove(&self, key: &StoreKey) -> Result<()> {
        self.keyed(Op::Remove, key, 0, 0, self.inner.remove(key))
    }

    fn sweep(&self, older_than: Duration) -> Result<Swept> {
        self.plain(Op::Sweep, None, self.inner.sweep(older_than))
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

impl<S: Store> SideStore for RecordStore<S> {
    fn put_side(&self, name: &SideName, bytes: &[u8], how: SidePut) -> Result<()> {
        let result = side_of(&self.inner)?.put_side(name, bytes, how);
        self.beside(Op::PutSide, bytes.len() as u64, result)
    }

    fn get_side(&self, name: &SideName) -> Result<Vec<u8>> {
        let result = side_of(&self.inner)?.get_side(name);
        let bytes = result.as_ref().map_or(0, |bytes| bytes.len() as u64);
        self.beside(Op::GetSide, bytes, result)
    }

    fn list_side(&self, folder: &str) -> Result<Vec<(SideName, u64)>> {
        self.beside(Op::ListSide, 0, side_of(&self.inner)?.list_side(folder))
    }

    fn remove_side(&self, name: &SideName) -> Result<()> {
        self.beside(Op::RemoveSide, 0, side_of(&self.inner)?.remove_side(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;

    #[test]
    fn calls_are_counted_by_sort_with_bytes_and_failures() {
        let store = RecordStore::new(MemoryStore::new());
        let pack = StoreKey::new(ObjectKind::Pack, Id([1; 32]));
        store.put(&pack, &[b"abc", b"de"]).unwrap();
        let before = store.counts();
        store.get_range(&pack, 1, 2, &mut Vec::new()).unwrap();
        store.get_range(&pack, 4, 2, &mut Vec::new()).unwrap_err();
        store.get(&pack).unwrap();
        store.get(&StoreKey::CONFIG).unwrap_err();
        store.list(ObjectKind::Key).unwrap();

        let counts = store.counts();
        assert_eq!(counts.of(Op::Put), Count { calls: 1, failed: 0, bytes: 5 });
        assert_eq!(counts.of(Op::GetRange), Count { calls: 2, failed: 1, bytes: 2 });
        assert_eq!(counts.on(Op::Get, ObjectKind::Pack), Count { calls: 1, failed: 0, bytes: 5 });
        assert_eq!(counts.of(Op::Get), Count { calls: 2, failed: 1, bytes: 5 });
        assert_eq!(counts.since(&before).total().calls, 5);
        assert_eq!(counts.since(&before).of(Op::Put), Count::default());
        let range = store.calls()[1];
        assert_eq!((range.op, range.key, range.offset, range.bytes), (Op::GetRange, Some(pack), 1, 2));
        assert_eq!(store.calls()[2].error, Some(ErrorKind::Corrupt));
        store.reset();
        assert_eq!(store.counts(), Counts::default());

        let store = RecordStore::counting(MemoryStore::new());
        let meter = store.meter();
        store.put(&pack, &[b"abc"]).unwrap();
        drop(store);
        assert_eq!(meter.counts().on(Op::Put, ObjectKind::Pack).bytes, 3);
    }
}
