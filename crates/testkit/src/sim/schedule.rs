//! Whose turn it is.
//!
//! An actor that calls a store, or waits, gives its turn back; when nobody has one, chance says who is next. An actor may
//! call from several threads: each call needs a turn of its own.

use super::ActorId;
use super::trace::{Event, Outcome};
use super::world::{SimWorld, State, gone};
use lastgood_model::{Result, Time};
use std::sync::{Arc, Condvar, MutexGuard};
use std::time::Duration;

/// A planned sleep: the machine of an actor stands still while the others go on.
#[derive(Clone, Copy, Debug)]
pub struct Freeze {
    /// At which of its steps, from 1.
    pub nth: u64,
    /// So much time passes at once.
    pub secs: i64,
    /// The others make so many steps meanwhile, unless they end before.
    pub steps: u64,
}

#[derive(Debug, Default)]
struct Turn {
    wake: Arc<Condvar>,
    /// Takes part in a run.
    runs: bool,
    /// Calls that wait for their turn.
    waiting: u32,
    steps: u64,
    freezes: Vec<Freeze>,
    /// Not before the world has made so many steps.
    frozen_until: u64,
    /// Not before this time.
    awake_at: i64,
    /// Freezes are put off.
    is_steady: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    turns: Vec<Turn>,
    /// Who was given a turn that nobody has taken up yet.
    given: Option<ActorId>,
    /// Actors that are between two calls.
    busy: i64,
    is_running: bool,
    last: ActorId,
    /// In thousandths: how likely the turn goes to another than the last.
    switch: u64,
}

impl Schedule {
    pub(super) fn add(&mut self) {
        self.turns.push(Turn::default());
    }

    pub(super) fn is_frozen(&self, actor: ActorId, steps: u64) -> bool {
        self.turns[actor].frozen_until > steps
    }
}

impl SimWorld {
    /// Plans sleeps of an actor.
    pub fn freeze(&self, actor: ActorId, freezes: Vec<Freeze>) {
        self.state().schedule.turns[actor].freezes = freezes;
    }

    /// While steady, an actor does not fall asleep: it does two things as one.
    pub fn steady(&self, actor: ActorId, is_steady: bool) {
        self.state().schedule.turns[actor].is_steady = is_steady;
    }

    /// Writes something into the record of events.
    pub fn say(&self, actor: ActorId, text: impl Into<String>) {
        self.state().note(Some(actor), 0, Event::Said(text.into()), Outcome::Done);
    }

    /// An actor's wall clock.
    pub fn clock(&self, actor: ActorId) -> Arc<dyn Fn() -> Time + Send + Sync> {
        let world = self.clone();
        Arc::new(move || world.state().time(Some(actor)))
    }

    /// An actor's way to wait.
    pub fn pause(&self, actor: ActorId) -> Arc<dyn Fn(Duration) + Send + Sync> {
        let world = self.clone();
        Arc::new(move |duration| {
            let mut state = world.state();
            if state.actors[actor].is_dead {
                return;
            }
            let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX / 4);
            state.note(Some(actor), 0, Event::Waited(nanos), Outcome::Done);
            if state.schedule.is_running {
                state.schedule.turns[actor].awake_at = state.now + nanos;
                drop(world.turn(state, actor));
            } else {
                state.now += nanos;
            }
        })
    }

    /// Runs all `actors` at once, each on a thread of its own and one at a time. `switch` says in thousandths how likely
    /// the turn goes to another at each step.
    pub fn run(&self, switch: u64, actors: Vec<(ActorId, Box<dyn FnOnce() + Send + '_>)>) {
        {
            let mut state = self.state();
            state.schedule.busy = actors.len() as i64;
            state.schedule.is_running = true;
            state.schedule.switch = switch;
            for (actor, _) in &actors {
                state.schedule.turns[*actor].runs = true;
            }
        }
        std::thread::scope(|scope| {
            for (actor, act) in actors {
                scope.spawn(move || {
                    let done = Done { world: self, actor };
                    drop(self.turn(self.state(), actor));
                    act();
                    drop(done);
                });
            }
        });
        self.state().schedule.is_running = false;
    }

    /// Waits for this actor's turn; outside of a run that is at once.
    pub(super) fn turn<'a>(&'a self, mut state: MutexGuard<'a, State>, actor: ActorId) -> MutexGuard<'a, State> {
        if !state.schedule.is_running || !state.schedule.turns[actor].runs {
            return state;
        }
        state.fall_asleep(actor);
        state.schedule.busy -= 1;
        let turn = &mut state.schedule.turns[actor];
        turn.waiting += 1;
        let wake = turn.wake.clone();
        state.choose();
        while state.schedule.given != Some(actor) {
            state = wake.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        state.schedule.given = None;
        state.schedule.turns[actor].waiting -= 1;
        state.schedule.busy += 1;
        state
    }

    /// Begins a call of an actor.
    pub(super) fn enter(&self, actor: Option<ActorId>) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let Some(actor) = actor else { return Ok(state) };
        if state.actors[actor].is_dead {
            return Err(gone());
        }
        state = self.turn(state, actor);
        state.steps += 1;
        // Between a millisecond and about a second: what a store takes.
        let took = 1_000_000_i64 << state.rng.below(11);
        state.now += took;
        state.deliver();
        Ok(state)
    }
}

/// Ends an actor's part, also when it panics.
struct Done<'a> {
    world: &'a SimWorld,
    actor: ActorId,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let mut state = self.world.state();
        state.schedule.turns[self.actor].runs = false;
        state.actors[self.actor].keeper = None;
        state.schedule.busy -= 1;
        state.choose();
    }
}

impl State {
    fn fall_asleep(&mut self, actor: ActorId) {
        let turn = &mut self.schedule.turns[actor];
        turn.steps += 1;
        let nth = turn.steps;
        let Some(at) = turn.freezes.iter().position(|freeze| freeze.nth <= nth).filter(|_| !turn.is_steady) else {
            return;
        };
        let freeze = turn.freezes.remove(at);
        turn.frozen_until = self.steps + freeze.steps;
        self.jump(freeze.secs, actor);
    }

    /// Gives the turn to somebody, once nobody has it.
    fn choose(&mut self) {
        if self.schedule.busy > 0 || self.schedule.given.is_some() {
            return;
        }
        let waiting: Vec<ActorId> =
            (0..self.schedule.turns.len()).filter(|actor| self.schedule.turns[*actor].waiting > 0).collect();
        if waiting.is_empty() {
            return;
        }
        let awake: Vec<ActorId> =
            waiting.iter().copied().filter(|actor| !self.schedule.is_frozen(*actor, self.steps)).collect();
        // When all sleep, they wake up.
        let able = if awake.is_empty() { &waiting } else { &awake };
        let ready = |state: &Self, actor: &ActorId| state.schedule.turns[*actor].awake_at <= state.now;
        let mut now: Vec<ActorId> = able.iter().copied().filter(|actor| ready(self, actor)).collect();
        if now.is_empty() {
            let earliest = able.iter().min_by_key(|actor| self.schedule.turns[**actor].awake_at);
            now.extend(earliest);
            if let Some(actor) = earliest {
                self.now = self.schedule.turns[*actor].awake_at;
            }
        }
        let stays = now.contains(&self.schedule.last) && self.rng.below(1000) >= self.schedule.switch;
        let next = if stays { self.schedule.last } else { *self.rng.pick(&now) };
        self.schedule.last = next;
        self.schedule.given = Some(next);
        self.schedule.turns[next].frozen_until = 0;
        self.schedule.turns[next].wake.notify_all();
    }
}
