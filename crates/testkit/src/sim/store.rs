//! A place as one actor reaches it.

use super::ActorId;
use super::trace::{Event, Outcome};
use super::world::{Change, Key, SimWorld, State};
use lastgood_model::store::{Capabilities, ObjectKind, SideName, SidePut, SideStore, Store, StoreKey};
use lastgood_model::{Error, ErrorKind, Id, Result};
use std::fmt;
use std::sync::{Arc, MutexGuard};

/// One actor's way to one place.
#[derive(Clone)]
pub struct SimStore {
    world: SimWorld,
    place: usize,
    /// `None` sees everything as it is, at once.
    actor: Option<ActorId>,
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStore({})", self.location())
    }
}

impl SimWorld {
    /// The way of `actor` to `place`.
    pub fn store(&self, actor: ActorId, place: usize) -> SimStore {
        SimStore { world: self.clone(), place, actor: Some(actor) }
    }

    /// The truth about `place`: no turns, no troubles, nothing stale.
    pub fn truth(&self, place: usize) -> SimStore {
        SimStore { world: self.clone(), place, actor: None }
    }
}

impl SimStore {
    fn read(&self, key: Key) -> Result<Arc<Vec<u8>>> {
        let mut state = self.enter()?;
        let found = state.find(self.place, &key);
        let outcome = if found.is_some() { Outcome::Done } else { Outcome::Refused };
        let absent = || Error::new(ErrorKind::Absent, format!("{key} is not there"));
        let found = found.ok_or_else(absent);
        if self.actor.is_some() {
            state.note(self.actor, self.place, Event::Get(key), outcome);
        }
        found
    }

    /// A turn; reads may fail there.
    fn enter(&self) -> Result<MutexGuard<'_, State>> {
        let mut state = self.world.enter(self.actor)?;
        if let Some(actor) = self.actor {
            let share = state.actors[actor].troubles.failed_read;
            if share > 0 && state.rng.below(1000) < share {
                return Err(Error::new(ErrorKind::Retry, "the connection was reset"));
            }
        }
        Ok(state)
    }

    fn change(&self, change: Change) -> Result<()> {
        self.world.enter(self.actor)?.change(self.place, self.actor, change)
    }
}

impl Store for SimStore {
    fn location(&self) -> String {
        format!("sim:{}", self.place)
    }

    /// One connection, so that whoever uses it makes one call at a time.
    fn capabilities(&self) -> Capabilities {
        let spec = self.world.state().spec(self.place);
        Capabilities {
            connections: 1,
            coalesce_gap_bytes: 4096,
            exclusive_create: spec.exclusive_create,
            list_after_write: spec.stale_secs == 0,
        }
    }

    fn create(&self) -> Result<()> {
        self.world.enter(self.actor).map(drop)
    }

    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        let bytes = Arc::new(parts.concat());
        self.change(Change::Put { key: Key::Object(*key), bytes, how: SidePut::Create })
    }

    fn sync(&self) -> Result<()> {
        self.world.enter(self.actor)?.sync(self.place, self.actor)
    }

    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        Ok(self.read(Key::Object(*key))?.to_vec())
    }

    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let bytes = self.read(Key::Object(*key))?;
        let range = usize::try_from(offset).ok().and_then(|from| bytes.get(from..from.checked_add(length)?));
        let Some(range) = range else {
            return Err(Error::corrupt(format!("{key} is shorter than the {} bytes needed", offset + length as u64)));
        };
        out.extend_from_slice(range);
        Ok(())
    }

    fn size(&self, key: &StoreKey) -> Result<u64> {
        Ok(self.read(Key::Object(*key))?.len() as u64)
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        let mut state = self.enter()?;
        let is = |key: &Key| matches!(key, Key::Object(key) if key.kind == kind);
        let found = state.list(self.place, self.actor, is);
        if self.actor.is_some() {
            state.note(self.actor, self.place, Event::List(kind.folder().into(), found.len()), Outcome::Done);
        }
        let id = |(key, size): (Key, u64)| match key {
            Key::Object(key) => Some((key.id, size)),
            Key::Side(_) => None,
        };
        Ok(found.into_iter().filter_map(id).collect())
    }

    fn remove(&self, key: &StoreKey) -> Result<()> {
        self.change(Change::Remove { key: Key::Object(*key) })
    }

    fn side(&self) -> Option<&dyn SideStore> {
        Some(self)
    }
}

impl SideStore for SimStore {
    fn put_side(&self, name: &SideName, bytes: &[u8], how: SidePut) -> Result<()> {
        self.change(Change::Put { key: Key::Side(name.clone()), bytes: Arc::new(bytes.to_vec()), how })
    }

    fn get_side(&self, name: &SideName) -> Result<Vec<u8>> {
        Ok(self.read(Key::Side(name.clone()))?.to_vec())
    }

    fn list_side(&self, folder: &str) -> Result<Vec<(SideName, u64)>> {
        let mut state = self.enter()?;
        let is = |key: &Key| matches!(key, Key::Side(name) if name.folder() == folder);
        let found = state.list(self.place, self.actor, is);
        if self.actor.is_some() {
            state.note(self.actor, self.place, Event::List(folder.into(), found.len()), Outcome::Done);
        }
        let name = |(key, size): (Key, u64)| match key {
            Key::Side(name) => Some((name, size)),
            Key::Object(_) => None,
        };
        Ok(found.into_iter().filter_map(name).collect())
    }

    fn remove_side(&self, name: &SideName) -> Result<()> {
        self.change(Change::Remove { key: Key::Side(name.clone()) })
    }
}
