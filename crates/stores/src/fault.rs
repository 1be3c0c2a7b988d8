//! Breaks a store on purpose, so that tests can show what survives.
//!
//! The fault model: a call fails before anything happened, or after it happened with the reply lost; the device fills
//! up; read bytes come back flipped or cut short; a `put` is torn, leaving part of the object under its name (which no
//! store of ours may do, but which disks and foreign tools have done); the power is cut, after which any name put or
//! removed since the last `sync` may or may not have made it. Bytes of an object that has its name are whole even after
//! a power cut: every store flushes them before naming them.

use crate::{Op, length_of, lock, side_of};
use lastgood_model::store::{Capabilities, ObjectKind, SideName, SidePut, SideStore, Store, StoreKey, Swept};
use lastgood_model::{Error, ErrorKind, Id, Result};
use std::sync::Mutex;
use std::time::Duration;

/// A fault waiting for its call. Unless told otherwise it strikes the first call that matches, once, before anything
/// happened, as [`ErrorKind::Retry`].
#[derive(Clone, Debug)]
pub struct Fault {
    op: Option<Op>,
    kind: Option<ObjectKind>,
    key: Option<StoreKey>,
    when: When,
    effect: Effect,
}

/// Which of the matching calls, counted from 1.
#[derive(Clone, Copy, Debug)]
enum When {
    Nth(u64),
    From(u64),
    Every(u64),
}

#[derive(Clone, Copy, Debug)]
enum Effect {
    Before(ErrorKind),
    After(ErrorKind),
    Tear { kept_bytes: usize },
    Flip { bit: u64 },
    Cut { lost_bytes: usize },
    PowerCut,
}

impl Fault {
    /// Strikes calls of `op`.
    pub fn on(op: Op) -> Self {
        Self { op: Some(op), kind: None, key: None, when: When::Nth(1), effect: Effect::Before(ErrorKind::Retry) }
    }

    /// Strikes any call.
    pub fn on_any() -> Self {
        Self { op: None, ..Self::on(Op::Put) }
    }

    /// Only calls about objects of `kind`.
    #[must_use]
    pub fn of(self, kind: ObjectKind) -> Self {
        Self { kind: Some(kind), ..self }
    }

    /// Only calls about this object.
    #[must_use]
    pub fn at(self, key: StoreKey) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Only the `n`th matching call, counted from 1.
    #[must_use]
    pub fn nth(self, n: u64) -> Self {
        Self { when: When::Nth(n), ..self }
    }

    /// The `n`th matching call and all later ones.
    #[must_use]
    pub fn from_nth(self, n: u64) -> Self {
        Self { when: When::From(n), ..self }
    }

    /// Every matching call.
    #[must_use]
    pub fn lasting(self) -> Self {
        self.from_nth(1)
    }

    /// Every `n`th matching call.
    #[must_use]
    pub fn every(self, n: u64) -> Self {
        Self { when: When::Every(n.max(1)), ..self }
    }

    /// Nothing happens, and the call fails.
    #[must_use]
    pub fn fails_before(self, kind: ErrorKind) -> Self {
        Self { effect: Effect::Before(kind), ..self }
    }

    /// It happens, but the reply is lost: the call fails.
    #[must_use]
    pub fn fails_after(self, kind: ErrorKind) -> Self {
        Self { effect: Effect::After(kind), ..self }
    }

    /// A `put` fails and leaves the first `kept_bytes` under the object's name, against the contract of stores. (A torn
    /// write that obeys it leaves nothing: that is [`Self::fails_before`].)
    #[must_use]
    pub fn tears_put(self, kept_bytes: usize) -> Self {
        Self { effect: Effect::Tear { kept_bytes }, ..self }
    }

    /// A `get` or `get_range` succeeds with one bit flipped: number `bit`, modulo what was read.
    #[must_use]
    pub fn flips_bit(self, bit: u64) -> Self {
        Self { effect: Effect::Flip { bit }, ..self }
    }

    /// The object looks `lost_bytes` shorter: `get` gives less, `get_range` finds it too short.
    #[must_use]
    pub fn cuts_short(self, lost_bytes: usize) -> Self {
        Self { effect: Effect::Cut { lost_bytes }, ..self }
    }

    /// The power is cut before the call happens; see [`FaultStore::cut_power`].
    #[must_use]
    pub fn cuts_power(self) -> Self {
        Self { effect: Effect::PowerCut, ..self }
    }

    fn matches(&self, op: Op, kind: Option<ObjectKind>, key: Option<&StoreKey>) -> bool {
        self.op.is_none_or(|wanted| wanted == op)
            && self.kind.is_none_or(|wanted| Some(wanted) == kind)
            && self.key.is_none_or(|wanted| Some(&wanted) == key)
    }
}

impl When {
    fn is_due(self, call: u64) -> bool {
        match self {
            Self::Nth(n) => call == n,
            Self::From(n) => call >= n,
            Self::Every(n) => call.is_multiple_of(n),
        }
    }
}

/// A store that fails as scripted.
#[derive(Debug)]
pub struct FaultStore<S> {
    inner: S,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Each with the matching calls it has seen.
    faults: Vec<(Fault, u64)>,
    fired: u64,
    /// Bytes that can still be put.
    room_bytes: Option<u64>,
    is_dark: bool,
    /// Names that came or went since the last `sync`, oldest first.
    unsynced: Vec<Unsynced>,
    /// Number of the next entry of `unsynced`.
    next: u64,
}

#[derive(Debug)]
struct Unsynced {
    number: u64,
    key: StoreKey,
    /// Put, not removed.
    arrived: bool,
    /// What was there before.
    before: Option<Vec<u8>>,
}

impl<S: Store> FaultStore<S> {
    /// Breaks `inner`, so far in no way.
    pub fn new(inner: S) -> Self {
        Self { inner, state: Mutex::default() }
    }

    /// The store below.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Adds a fault. Where several are due for one call, the one added first strikes.
    pub fn add(&self, fault: Fault) {
        lock(&self.state).faults.push((fault, 0));
    }

    /// As [`Self::add`], when making the store.
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        self.add(fault);
        self
    }

    /// Takes all faults away. The device stays as full, and as dark, as it is.
    pub fn mend(&self) {
        lock(&self.state).faults.clear();
    }

    /// How many calls were struck so far.
    pub fn fired(&self) -> u64 {
        lock(&self.state).fired
    }

    /// From now on so many more bytes fit; then a `put` fails with [`ErrorKind::NoSpace`]. Removing gives room back.
    pub fn fill_after(&self, bytes: Option<u64>) {
        lock(&self.state).room_bytes = bytes;
    }

    /// Every call fails from now on, until [`Self::restore_power`].
    pub fn cut_power(&self) {
        lock(&self.state).is_dark = true;
    }

    /// Calls work again. Of the names put or removed since the last `sync`, newest first, only those stay put or removed
    /// of which `survives` says so. Returns how many changes were lost.
    pub fn restore_power(&self, mut survives: impl FnMut(&StoreKey) -> bool) -> Result<usize> {
        let unsynced = std::mem::take(&mut lock(&self.state).unsynced);
        let mut lost = 0;
        for change in unsynced.into_iter().rev() {
            if survives(&change.key) {
                continue;
            }
            lost += 1;
            self.inner.remove(&change.key)?;
            if let Some(bytes) = change.before {
                self.inner.put(&change.key, &[&bytes])?;
            }
        }
        lock(&self.state).is_dark = false;
        Ok(lost)
    }

    /// The effect that strikes this call.
    fn strike(&self, op: Op, kind: Option<ObjectKind>, key: Option<&StoreKey>) -> Result<Option<Effect>> {
        let mut state = lock(&self.state);
        if state.is_dark {
            return Err(dark(op));
        }
        let mut struck = None;
        for (fault, seen) in &mut state.faults {
            if fault.matches(op, kind, key) {
                *seen += 1;
                if struck.is_none() && fault.when.is_due(*seen) {
                    struck = Some(fault.effect);
                }
            }
        }
        state.fired += u64::from(struck.is_some());
        match struck {
            Some(Effect::Before(kind)) => Err(scripted(kind, op)),
            Some(Effect::PowerCut) => {
                state.is_dark = true;
                Err(dark(op))
            }
            struck => Ok(struck),
        }
    }

    /// Does a call with whatever strikes it; gives the effects that are left to the caller.
    fn call<T>(
        &self,
        op: Op,
        kind: Option<ObjectKind>,
        key: Option<&StoreKey>,
        run: impl FnOnce(Option<Effect>) -> Result<T>,
    ) -> Result<T> {
        let effect = self.strike(op, kind, key)?;
        let value = run(effect)?;
        if lock(&self.state).is_dark {
            return Err(dark(op));
        }
        match effect {
            Some(Effect::After(kind)) => Err(scripted(kind, op)),
            _ => Ok(value),
        }
    }

    fn on_key<T>(&self, op: Op, key: &StoreKey, run: impl FnOnce(Option<Effect>) -> Result<T>) -> Result<T> {
        self.call(op, Some(key.kind), Some(key), run)
    }

    /// What is stored now, `None` when nothing is.
    fn stored(&self, key: &StoreKey) -> Result<Option<Vec<u8>>> {
        match self.inner.get(key) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::Absent => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes that a name came or went since the last `sync`. False when another thread noted the same arrival first.
    fn changed(&self, key: &StoreKey, arrived: bool, before: Option<Vec<u8>>) -> bool {
        let mut state = lock(&self.state);
        let last = state.unsynced.iter().rev().find(|change| change.key == *key);
        if arrived && before.is_none() && last.is_some_and(|change| change.arrived) {
            return false;
        }
        let number = state.next;
        state.next += 1;
        state.unsynced.push(Unsynced { number, key: *key, arrived, before });
        true
    }

    /// Takes room for `length` bytes that replace `freed`.
    fn take_room(&self, key: &dyn std::fmt::Display, length: u64, freed: u64) -> Result<()> {
        let mut state = lock(&self.state);
        if let Some(room) = state.room_bytes {
            let room = (room + freed).checked_sub(length);
            state.room_bytes =
                Some(room.ok_or_else(|| Error::new(ErrorKind::NoSpace, format!("write {key}: the device is full")))?);
        }
        Ok(())
    }

    /// The length of an object beside the repository's own, `None` when there is none.
    fn side_length(&self, name: &SideName) -> Result<Option<u64>> {
        match side_of(&self.inner)?.get_side(name) {
            Ok(bytes) => Ok(Some(bytes.len() as u64)),
            Err(error) if error.kind() == ErrorKind::Absent => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put_noting(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        let length = length_of(parts);
        let before = self.stored(key)?;
        match &before {
            // Stays as it is, also as durable as it is.
            Some(old) if key.kind == ObjectKind::Config || old.len() as u64 == length => {
                return self.inner.put(key, parts);
            }
            _ => {}
        }
        let freed = before.as_ref().map_or(0, |old| old.len() as u64);
        self.take_room(key, length, freed)?;
        match self.inner.put(key, parts) {
            Ok(()) if self.changed(key, true, before) => Ok(()),
            Ok(()) => self.take_room(key, freed, length),
            Err(error) => {
                self.take_room(key, freed, length)?;
                Err(error)
            }
        }
    }

    fn tear(&self, key: &StoreKey, parts: &[&[u8]], kept_bytes: usize) -> Result<()> {
        let mut bytes = parts.concat();
        bytes.truncate(kept_bytes);
        self.put_noting(key, &[&bytes])?;
        Err(Error::new(ErrorKind::Retry, format!("scripted fault: {} torn", Op::Put)))
    }
}

fn scripted(kind: ErrorKind, op: Op) -> Error {
    Error::new(kind, format!("scripted fault: {op}"))
}

fn dark(op: Op) -> Error {
    Error::new(ErrorKind::Io, format!("{op}: the power is cut"))
}

fn flip(bytes: &mut [u8], bit: u64) {
    if !bytes.is_empty() {
        let bit = bit % (bytes.len() as u64 * 8);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}

impl<S: Store> Store for FaultStore<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn create(&self) -> Result<()> {
        self.call(Op::Create, None, None, |_| self.inner.create())
    }

    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        self.on_key(Op::Put, key, |effect| match effect {
            Some(Effect::Tear { kept_bytes }) => self.tear(key, parts, kept_bytes),
            _ => self.put_noting(key, parts),
        })
    }

    fn sync(&self) -> Result<()> {
        self.call(Op::Sync, None, None, |_| {
            // What comes while the flush is under way is not promised to be in it.
            let next = lock(&self.state).next;
            self.inner.sync()?;
            let mut state = lock(&self.state);
            if !state.is_dark {
                state.unsynced.retain(|change| change.number >= next);
            }
            Ok(())
        })
    }

    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        self.on_key(Op::Get, key, |effect| {
            let mut bytes = self.inner.get(key)?;
            match effect {
                Some(Effect::Flip { bit }) => flip(&mut bytes, bit),
                Some(Effect::Cut { lost_bytes }) => bytes.truncate(bytes.len().saturating_sub(lost_bytes)),
                _ => {}
            }
            Ok(bytes)
        })
    }

    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let result = self.on_key(Op::GetRange, key, |effect| {
            if let Some(Effect::Cut { lost_bytes }) = effect {
                let total = self.inner.size(key)?.saturating_sub(lost_bytes as u64);
                if offset.checked_add(length as u64).is_none_or(|end| end > total) {
                    return Err(Error::corrupt(format!("{key} is {total} bytes, shorter than needed")));
                }
            }
            self.inner.get_range(key, offset, length, out)?;
            if let Some(Effect::Flip { bit }) = effect {
                flip(out, bit);
            }
            Ok(())
        });
        if result.is_err() {
            out.clear();
        }
        result
    }

    fn size(&self, key: &StoreKey) -> Result<u64> {
        self.on_key(Op::Size, key, |_| self.inner.size(key))
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        self.call(Op::List, Some(kind), None, |_| self.inner.list(kind))
    }

    fn remove(&self, key: &StoreKey) -> Result<()> {
        self.on_key(Op::Remove, key, |_| {
            let before = self.stored(key)?;
            self.inner.remove(key)?;
            if let Some(before) = before {
                self.take_room(key, 0, before.len() as u64)?;
                self.changed(key, false, Some(before));
            }
            Ok(())
        })
    }

    fn sweep(&self, older_than: Duration) -> Result<Swept> {
        self.call(Op::Sweep, None, None, |_| self.inner.sweep(older_than))
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

/// Objects beside the repository's own are durable when written, so a power cut takes none of them back.
impl<S: Store> SideStore for FaultStore<S> {
    fn put_side(&self, name: &SideName, bytes: &[u8], how: SidePut) -> Result<()> {
        self.call(Op::PutSide, None, None, |_| {
            let side = side_of(&self.inner)?;
            let freed = match self.side_length(name)? {
                Some(_) if how == SidePut::Create => return side.put_side(name, bytes, how),
                before => before.unwrap_or(0),
            };
            let length = bytes.len() as u64;
            self.take_room(name, length, freed)?;
            side.put_side(name, bytes, how).or_else(|error| {
                self.take_room(name, freed, length)?;
                Err(error)
            })
        })
    }

    fn get_side(&self, name: &SideName) -> Result<Vec<u8>> {
        self.call(Op::GetSide, None, None, |effect| {
            let mut bytes = side_of(&self.inner)?.get_side(name)?;
            if let Some(Effect::Flip { bit }) = effect {
                flip(&mut bytes, bit);
            }
            Ok(bytes)
        })
    }

    fn list_side(&self, folder: &str) -> Result<Vec<(SideName, u64)>> {
        self.call(Op::ListSide, None, None, |_| side_of(&self.inner)?.list_side(folder))
    }

    fn remove_side(&self, name: &SideName) -> Result<()> {
        self.call(Op::RemoveSide, None, None, |_| {
            let before = self.side_length(name)?;
            side_of(&self.inner)?.remove_side(name)?;
            self.take_room(name, 0, before.unwrap_or(0))
        })
    }
}
