//! What there is, and what happens to it.

use super::ActorId;
use super::journal::Journal;
use super::schedule::Schedule;
use super::trace::{Event, Outcome, Trace};
use crate::rng::Rng;
use lastgood_model::store::{ObjectKind, SideName, SidePut, StoreKey};
use lastgood_model::{Error, ErrorKind, Result, Time};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

/// The name of an object of either sort.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// One of the repository's own.
    Object(StoreKey),
    /// One beside them.
    Side(SideName),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(key) => write!(f, "{}/{}", key.kind.folder(), &key.id.to_string()[..8]),
            Self::Side(name) => write!(f, "{name}"),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a place can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimPlace {
    /// Lists may be behind by so many seconds; 0 for never. What can be said of the store follows from it.
    pub stale_secs: i64,
    /// A conditional create is honoured.
    pub exclusive_create: bool,
}

impl Default for SimPlace {
    fn default() -> Self {
        Self { stale_secs: 0, exclusive_create: true }
    }
}

/// How often what goes wrong, in thousandths of all calls that change something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Troubles {
    /// Not done, and told so.
    pub failed: u64,
    /// Done, but told to have failed.
    pub lost_reply: u64,
    /// Told to have failed, and done later.
    pub late: u64,
    /// Done, and done again later.
    pub twice: u64,
    /// In thousandths of all reads: failed.
    pub failed_read: u64,
}

/// How an actor dies at a call that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrashKind {
    /// Before anything is done.
    Before,
    /// When it is done; nothing else is lost.
    After,
    /// In the middle. Of a pack or a lock a part is to be seen, all else is not there.
    Torn,
    /// When it is done, and nothing that was not synced survives.
    Unsynced,
    /// When it is done, and of what was not synced survives what chance has.
    SomeUnsynced,
}

impl CrashKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Before, Self::After, Self::Torn, Self::Unsynced, Self::SomeUnsynced];
}

/// No request is carried out so long after it was sent: by then every server has given the connection up.
const LATE_NANOS_MAX: i64 = 10 * 60 * 1_000_000_000;

/// A planned death.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// At which of the actor's changing calls, from 1.
    pub nth: u64,
    /// How.
    pub kind: CrashKind,
}

/// A lock that another program has renewed, while others slept.
#[derive(Debug)]
pub struct Renewal {
    /// The place.
    pub place: usize,
    /// Takes the place of this.
    pub old: StoreKey,
    /// This.
    pub new: StoreKey,
    /// With these bytes.
    pub bytes: Vec<u8>,
}

/// A change that was seen, in the order of events; see [`SimWorld::witness`].
#[derive(Debug)]
pub enum Witnessed<'a> {
    /// The object is there now, with these bytes.
    There(&'a [u8]),
    /// It is gone.
    Gone,
}

pub(super) type Witness = Box<dyn FnMut(usize, &Key, Witnessed<'_>) + Send>;
pub(super) type Keeper = Box<dyn FnMut(Time, Time) -> Option<Renewal> + Send>;

#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) bytes: Arc<Vec<u8>>,
    written: i64,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Put { key: Key, bytes: Arc<Vec<u8>>, how: SidePut },
    Remove { key: Key },
}

impl Change {
    pub(super) fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Remove { key } => key,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) objects: BTreeMap<Key, Object>,
    /// What was removed a while ago, with when.
    ghosts: BTreeMap<Key, (Object, i64)>,
    pub(super) journal: Journal,
    spec: SimPlace,
}

pub(super) struct Actor {
    pub(super) name: String,
    pub(super) skew_secs: i64,
    pub(super) crash: Option<Crash>,
    pub(super) is_dead: bool,
    pub(super) changes: u64,
    pub(super) troubles: Troubles,
    pub(super) keeper: Option<Keeper>,
}

struct Late {
    due: u64,
    /// It is never carried out after this time.
    until: i64,
    place: usize,
    change: Change,
    by: ActorId,
}

pub(super) struct State {
    pub(super) seed: u64,
    pub(super) places: Vec<Place>,
    pub(super) actors: Vec<Actor>,
    pub(super) rng: Rng,
    /// Nanoseconds since 1970, by nobody's clock.
    pub(super) now: i64,
    pub(super) steps: u64,
    pub(super) schedule: Schedule,
    late: Vec<Late>,
    witness: Option<Witness>,
    pub(super) trace: Trace,
}

/// See the module. A clone is the same world.
#[derive(Clone)]
pub struct SimWorld(pub(super) Arc<Mutex<State>>);

impl fmt::Debug for SimWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        write!(f, "SimWorld({} places, {} actors, step {})", state.places.len(), state.actors.len(), state.steps)
    }
}

impl SimWorld {
    /// A world of empty places. Everything that happens in it follows from `seed`, and from what its actors do.
    pub fn new(seed: u64, places: &[SimPlace]) -> Self {
        let places = places.iter().map(|spec| Place { spec: *spec, ..Place::default() }).collect();
        Self(Arc::new(Mutex::new(State {
            seed,
            places,
            actors: Vec::new(),
            rng: Rng::new(seed),
            now: 1_800_000_000_000_000_000,
            steps: 0,
            schedule: Schedule::default(),
            late: Vec::new(),
            witness: None,
            trace: Trace::default(),
        })))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// One more actor, whose clock is off by so many seconds.
    pub fn actor(&self, name: impl Into<String>, skew_secs: i64) -> ActorId {
        let mut state = self.state();
        state.actors.push(Actor {
            name: name.into(),
            skew_secs,
            crash: None,
            is_dead: false,
            changes: 0,
            troubles: Troubles::default(),
            keeper: None,
        });
        state.schedule.add();
        state.actors.len() - 1
    }

    /// Plans the death of an actor, counted from now.
    pub fn crash(&self, actor: ActorId, crash: Crash) {
        let mut state = self.state();
        state.actors[actor].changes = 0;
        state.actors[actor].crash = Some(crash);
    }

    /// Whether an actor has died.
    pub fn is_dead(&self, actor: ActorId) -> bool {
        self.state().actors[actor].is_dead
    }

    /// Changing calls of an actor so far.
    pub fn changes(&self, actor: ActorId) -> u64 {
        self.state().actors[actor].changes
    }

    /// From now on these troubles meet an actor.
    pub fn trouble(&self, actor: ActorId, troubles: Troubles) {
        self.state().actors[actor].troubles = troubles;
    }

    /// Calls `witness` for everything that comes to be there or goes. It must not call this world.
    pub fn witness(&self, witness: impl FnMut(usize, &Key, Witnessed<'_>) + Send + 'static) {
        self.state().witness = Some(Box::new(witness));
    }

    /// Whenever another actor sleeps while `actor` is awake, `keeper` is asked what it has renewed between two moments, by its
    /// own clock. It was not asked before the first of them, if `actor` slept itself.
    pub fn keeper(&self, actor: ActorId, keeper: impl FnMut(Time, Time) -> Option<Renewal> + Send + 'static) {
        self.state().actors[actor].keeper = Some(Box::new(keeper));
    }

    /// Nobody's clock: seconds since 1970.
    pub fn now_secs(&self) -> i64 {
        self.state().now / 1_000_000_000
    }

    /// Lets time pass.
    pub fn pass(&self, secs: i64) {
        let mut state = self.state();
        state.jump(secs, usize::MAX);
    }

    /// Steps so far: calls to stores and waits.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Does everything at once that is still on its way.
    pub fn settle(&self) {
        let mut state = self.state();
        let now = state.now;
        for late in std::mem::take(&mut state.late).into_iter().filter(|late| late.until >= now) {
            state.arrive(late);
        }
    }

    /// Everything in a place, to fill another world's with.
    pub fn objects(&self, place: usize) -> Vec<(Key, Arc<Vec<u8>>)> {
        let state = self.state();
        state.places[place].objects.iter().map(|(key, object)| (key.clone(), object.bytes.clone())).collect()
    }

    /// Puts these objects into a place, as if they had always been there.
    pub fn fill(&self, place: usize, objects: &[(Key, Arc<Vec<u8>>)]) {
        let mut state = self.state();
        for (key, bytes) in objects {
            state.set(place, key.clone(), Some(Object { bytes: bytes.clone(), written: 0 }));
        }
    }

    /// What happened, a line each.
    pub fn tell(&self) -> String {
        let state = self.state();
        state.trace.tell(&state.actors.iter().map(|actor| actor.name.as_str()).collect::<Vec<_>>())
    }
}

impl State {
    /// Notes what was done in this step.
    pub(super) fn note(&mut self, actor: Option<ActorId>, place: usize, event: Event, outcome: Outcome) {
        self.trace.push(self.steps, actor, place, event, outcome);
    }

    /// The time by an actor's clock.
    pub(super) fn time(&self, actor: Option<ActorId>) -> Time {
        let skew = actor.map_or(0, |actor| self.actors[actor].skew_secs);
        Time::new(self.now.div_euclid(1_000_000_000) + skew, self.now.rem_euclid(1_000_000_000) as u32)
    }

    /// What was on its way and arrives now.
    pub(super) fn deliver(&mut self) {
        let mut due = Vec::new();
        let (steps, now) = (self.steps, self.now);
        self.late.retain_mut(|late| {
            let is_due = late.due <= steps || late.until < now;
            if is_due {
                let change = Change::Remove { key: late.change.key().clone() };
                due.push(Late { change: std::mem::replace(&mut late.change, change), ..*late });
            }
            !is_due
        });
        for late in due.into_iter().filter(|late| late.until >= now) {
            self.arrive(late);
        }
    }

    fn arrive(&mut self, late: Late) {
        self.note(Some(late.by), late.place, Event::of(&late.change), Outcome::Arrived);
        // Nobody waits for an answer.
        let _ = self.apply(late.place, None, late.change);
    }

    /// Time passes while `sleeper` notices nothing; who else keeps a lock renews it.
    pub(super) fn jump(&mut self, secs: i64, sleeper: ActorId) {
        let before: Vec<Time> = (0..self.actors.len()).map(|actor| self.time(Some(actor))).collect();
        self.now += secs * 1_000_000_000;
        self.note((sleeper != usize::MAX).then_some(sleeper), 0, Event::Slept(secs), Outcome::Done);
        for (actor, before) in before.into_iter().enumerate() {
            if actor == sleeper || self.schedule.is_frozen(actor, self.steps) {
                continue;
            }
            let Some(mut keeper) = self.actors[actor].keeper.take() else { continue };
            let renewal = keeper(before, self.time(Some(actor)));
            self.actors[actor].keeper = Some(keeper);
            if let Some(Renewal { place, old, new, bytes }) = renewal {
                if !self.places[place].objects.contains_key(&Key::Object(old)) {
                    continue;
                }
                let put = Change::Put { key: Key::Object(new), bytes: Arc::new(bytes), how: SidePut::Replace };
                let _ = self.apply(place, None, put);
                let _ = self.apply(place, None, Change::Remove { key: Key::Object(old) });
            }
        }
    }

    /// One changing call of an actor, with whatever befalls it.
    pub(super) fn change(&mut self, place: usize, actor: Option<ActorId>, change: Change) -> Result<()> {
        let event = Event::of(&change);
        let Some(id) = actor else { return self.apply(place, None, change) };
        let by = &mut self.actors[id];
        by.changes += 1;
        if let Some(crash) = by.crash
            && crash.nth == by.changes
        {
            return Err(self.die(place, id, crash.kind, Some(change), event));
        }
        let troubles = by.troubles;
        let chance = self.rng.below(1000);
        let mut bound = 0;
        let mut is = |share: u64| {
            bound += share;
            chance < bound
        };
        let (failed, lost_reply) = (is(troubles.failed), is(troubles.lost_reply));
        // What is removed twice or late was named anew meanwhile only where names are hashes of what is sent again.
        let comes_again = match &change {
            // Whoever has a clock that is wrong by more than half an hour takes a lock away at once, and nobody could tell
            // one that comes back from one that stayed.
            Change::Put { key: Key::Object(key), .. } if key.kind == ObjectKind::Lock => {
                self.actors.iter().all(|actor| actor.skew_secs.abs() < 10 * 60)
            }
            Change::Put { .. } => true,
            Change::Remove { .. } => false,
        };
        let (late, twice) = (comes_again && is(troubles.late), comes_again && is(troubles.twice));
        if failed {
            self.note(actor, place, event, Outcome::Failed);
            return Err(passing("the connection was refused"));
        }
        if lost_reply {
            self.note(actor, place, event, Outcome::LostReply);
            self.apply(place, actor, change)?;
            return Err(passing("no answer came"));
        }
        if late || twice {
            let due = self.steps + 1 + self.rng.below(120);
            let until = self.now + LATE_NANOS_MAX;
            self.late.push(Late { due, until, place, change: change.clone(), by: id });
        }
        if late {
            self.note(actor, place, event, Outcome::Late);
            return Err(passing("no answer came"));
        }
        let outcome = self.apply(place, actor, change);
        self.note(actor, place, event, if outcome.is_ok() { Outcome::Done } else { Outcome::Refused });
        outcome
    }

    /// A sync of an actor.
    pub(super) fn sync(&mut self, place: usize, actor: Option<ActorId>) -> Result<()> {
        let Some(id) = actor else { return Ok(()) };
        self.actors[id].changes += 1;
        if let Some(crash) = self.actors[id].crash
            && crash.nth == self.actors[id].changes
        {
            if matches!(crash.kind, CrashKind::After) {
                self.places[place].journal.sync(id);
            }
            return Err(self.die(place, id, crash.kind, None, Event::Sync));
        }
        self.places[place].journal.sync(id);
        self.note(actor, place, Event::Sync, Outcome::Done);
        Ok(())
    }

    fn die(&mut self, place: usize, id: ActorId, kind: CrashKind, change: Option<Change>, event: Event) -> Error {
        self.note(Some(id), place, event, Outcome::Died(kind));
        self.actors[id].is_dead = true;
        self.actors[id].keeper = None;
        match (kind, change) {
            (CrashKind::Before, _) | (_, None) => {}
            (CrashKind::Torn, Some(Change::Put { key, bytes, how })) => {
                let shows = matches!(&key, Key::Object(key) if matches!(key.kind, ObjectKind::Pack | ObjectKind::Lock));
                // What is there already is not written again.
                if shows && !self.places[place].objects.contains_key(&key) {
                    let part = bytes[..self.rng.below(bytes.len() as u64) as usize].to_vec();
                    let _ = self.apply(place, Some(id), Change::Put { key, bytes: Arc::new(part), how });
                }
            }
            (CrashKind::Torn, Some(_)) => {}
            (_, Some(change)) => drop(self.apply(place, Some(id), change)),
        }
        for at in 0..self.places.len() {
            let left = self.places[at].journal.take(id);
            for (key, states) in left {
                // Of each name, what it was before, or after one of the changes to it.
                let survives = match kind {
                    CrashKind::Before | CrashKind::After => states.len() - 1,
                    CrashKind::Unsynced => 0,
                    CrashKind::Torn | CrashKind::SomeUnsynced => self.rng.below(states.len() as u64) as usize,
                };
                if survives + 1 < states.len() {
                    self.set(at, key, states.into_iter().nth(survives).flatten());
                }
            }
        }
        gone()
    }

    fn apply(&mut self, place: usize, by: Option<ActorId>, change: Change) -> Result<()> {
        let here = &self.places[place];
        let (key, object) = match change {
            Change::Put { key, bytes, how } => {
                let object = Object { bytes, written: self.now };
                match (here.objects.get(&key), &key) {
                    (None, _) => {}
                    (Some(_), Key::Side(_)) if how == SidePut::Replace => {}
                    (Some(_), Key::Side(name)) => {
                        if here.spec.exclusive_create {
                            return Err(Error::new(ErrorKind::Conflict, format!("{name} is there already")));
                        }
                    }
                    (Some(_), Key::Object(key)) if key.kind == ObjectKind::Config => {
                        return Err(Error::new(ErrorKind::Conflict, "config is there already"));
                    }
                    // As in a local folder, an object of another length is replaced.
                    (Some(old), Key::Object(_)) if old.bytes.len() == object.bytes.len() => {
                        if let Some(by) = by {
                            self.places[place].journal.touch(by, key);
                        }
                        return Ok(());
                    }
                    (Some(_), Key::Object(_)) => {}
                }
                (key, Some(object))
            }
            Change::Remove { key } => (key, None),
        };
        if object.is_none() && !here.objects.contains_key(&key) {
            return Ok(());
        }
        if let (Some(by), Key::Object(_)) = (by, &key) {
            let before = here.objects.get(&key).cloned();
            self.places[place].journal.note(by, key.clone(), before, object.clone());
        }
        self.set(place, key, object);
        Ok(())
    }

    fn set(&mut self, place: usize, key: Key, object: Option<Object>) {
        let now = self.now;
        let here = &mut self.places[place];
        let is_stale = here.spec.stale_secs > 0;
        let old = match &object {
            Some(object) => here.objects.insert(key.clone(), object.clone()),
            None => here.objects.remove(&key),
        };
        if is_stale && object.is_none() {
            here.ghosts.extend(old.map(|old| (key.clone(), (old, now))));
        }
        if let Some(witness) = &mut self.witness {
            witness(place, &key, object.as_ref().map_or(Witnessed::Gone, |object| Witnessed::There(&object.bytes)));
        }
    }

    /// What is under a name. Only lists are ever stale.
    pub(super) fn find(&self, place: usize, key: &Key) -> Option<Arc<Vec<u8>>> {
        self.places[place].objects.get(key).map(|object| object.bytes.clone())
    }

    /// What an actor finds listed.
    pub(super) fn list(&mut self, place: usize, actor: Option<ActorId>, is: impl Fn(&Key) -> bool) -> Vec<(Key, u64)> {
        let (now, stale) = (self.now, self.places[place].spec.stale_secs * 1_000_000_000);
        let here = &self.places[place];
        let stale = if actor.is_none() { 0 } else { stale };
        let (rng, mut found) = (&mut self.rng, Vec::new());
        for (key, object) in here.objects.iter().filter(|(key, _)| is(key)) {
            if stale == 0 || now - object.written >= stale || rng.below(2) == 0 {
                found.push((key.clone(), object.bytes.len() as u64));
            }
        }
        if stale > 0 {
            let ghosts = here.ghosts.iter().filter(|(key, (_, removed))| is(key) && now - removed < stale);
            let ghosts = ghosts.filter(|(key, _)| !here.objects.contains_key(*key));
            for (key, (object, _)) in ghosts {
                if rng.below(3) == 0 {
                    found.push((key.clone(), object.bytes.len() as u64));
                }
            }
        }
        found
    }

    pub(super) fn spec(&self, place: usize) -> SimPlace {
        self.places[place].spec
    }
}

fn passing(what: &str) -> Error {
    Error::new(ErrorKind::Retry, what.to_owned())
}

/// What every call of a dead actor gets.
pub(super) fn gone() -> Error {
    Error::new(ErrorKind::Io, "the power is gone")
}
