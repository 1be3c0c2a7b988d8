//! Whose turn it is.
//!
//! An actor that calls a store, or waits, gives its turn back; when nobody has one, chance says who is next. An actor may
//! call from several threads: each call needs a turn of its own. Whether a thread that does not call is still at work or
//! waits for another one of its actor nobody can know, so an actor of which one call waits counts as waiting. What such an
//! actor does meanwhile it does beside the others; nobody sees it before its next call.
//!
//! A run in which nobody gets a turn for [`PATIENCE`] has hung: it ends with everybody dead and an error that names the
//! seed.

use super::ActorId;
use super::trace::{Event, Outcome};
use super::world::{SimWorld, State, gone};
use lastgood_model::{Error, ErrorKind, Result, Time};
use std::io::Write;
use std::sync::{Arc, Condvar, MutexGuard};
use std::time::{Duration, Instant};

/// Real time. A step takes microseconds; the slowest thing between two steps is the derivation of a key.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of the record of events an error about a run that hung tells.
const TOLD_LINES: usize = 60;

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
#[derive(Debug)]
pub(super) struct Schedule {
    turns: Vec<Turn>,
    /// Who was given a turn that nobody has taken up yet.
    given: Option<ActorId>,
    /// Turns that were taken up so far.
    served: u64,
    is_running: bool,
    has_hung: bool,
    patience: Duration,
    /// Told when an actor has ended.
    ended: Arc<Condvar>,
    last: ActorId,
    /// In thousandths: how likely the turn goes to another than the last.
    switch: u64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            turns: Vec::new(),
            given: None,
            served: 0,
            is_running: false,
            has_hung: false,
            patience: PATIENCE,
            ended: Arc::default(),
            last: 0,
            switch: 0,
        }
    }
}

impl Schedule {
    pub(super) fn add(&mut self) {
        self.turns.push(Turn::default());
    }

    /// An actor is between two calls, as far as anybody can know.
    fn is_busy(&self) -> bool {
        self.turns.iter().any(|turn| turn.runs && turn.waiting == 0)
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
    ///
    /// # Errors
    /// [`ErrorKind::Bug`] when an actor panicked, or the run hung. Should its threads not end even when every call fails,
    /// the whole process is ended.
    pub fn run(&self, switch: u64, actors: Vec<(ActorId, Box<dyn FnOnce() + Send + '_>)>) -> Result<()> {
        {
            let mut state = self.state();
            state.schedule.is_running = true;
            state.schedule.switch = switch;
            for (actor, _) in &actors {
                state.schedule.turns[*actor].runs = true;
            }
        }
        let panicked = std::thread::scope(|scope| {
            let running: Vec<_> = actors
                .into_iter()
                .map(|(actor, act)| {
                    let thread = scope.spawn(move || {
                        let done = Done { world: self, actor };
                        drop(self.turn(self.state(), actor));
                        act();
                        drop(done);
                    });
                    (actor, thread)
                })
                .collect();
            self.watch();
            running.into_iter().filter_map(|(actor, thread)| thread.join().err().map(|_| actor)).next()
        });
        let mut state = self.state();
        state.schedule.is_running = false;
        if state.schedule.has_hung {
            return Err(state.hung());
        }
        panicked.map_or(Ok(()), |actor| {
            let name = &state.actors[actor].name;
            Err(Error::new(ErrorKind::Bug, format!("seed {}: {name} panicked", state.seed)))
        })
    }

    /// Returns when no actor runs any more. When nobody gets a turn for too long, everybody is dead from then on.
    fn watch(&self) {
        let mut state = self.state();
        let (ended, patience) = (state.schedule.ended.clone(), state.schedule.patience);
        // Time in which this whole process was stopped counts as two looks at most.
        let look = patience / 8;
        let (mut served, mut idle, mut looked) = (state.schedule.served, Duration::ZERO, Instant::now());
        while state.schedule.turns.iter().any(|turn| turn.runs) {
            if state.schedule.served != served {
                (served, idle) = (state.schedule.served, Duration::ZERO);
            }
            if idle >= patience.max(PATIENCE) && state.schedule.has_hung {
                let hung = state.hung();
                let _ = writeln!(std::io::stderr(), "{hung}\nits threads do not even end when every call fails");
                std::process::abort();
            }
            if idle >= patience && !state.schedule.has_hung {
                state.schedule.has_hung = true;
                state.actors.iter_mut().for_each(|actor| actor.is_dead = true);
                state.schedule.turns.iter().for_each(|turn| turn.wake.notify_all());
                idle = Duration::ZERO;
            }
            state = ended.wait_timeout(state, look).unwrap_or_else(|e| e.into_inner()).0;
            idle += looked.elapsed().min(look * 2);
            looked = Instant::now();
        }
    }

    /// Waits for this actor's turn; outside of a run that is at once.
    pub(super) fn turn<'a>(&'a self, mut state: MutexGuard<'a, State>, actor: ActorId) -> MutexGuard<'a, State> {
        if !state.schedule.is_running || state.schedule.has_hung || !state.schedule.turns[actor].runs {
            return state;
        }
        state.fall_asleep(actor);
        let turn = &mut state.schedule.turns[actor];
        turn.waiting += 1;
        let wake = turn.wake.clone();
        state.choose();
        while state.schedule.given != Some(actor) && !state.schedule.has_hung {
            state = wake.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        state.schedule.given = None;
        state.schedule.served += 1;
        state.schedule.turns[actor].waiting -= 1;
        // The thread that was served may now wait for another one of its actor, whose call waits. The world is ours until
        // this call is over, so whoever is chosen goes on after it.
        state.choose();
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
        // Another thread of it may have died meanwhile.
        if state.actors[actor].is_dead {
            return Err(gone());
        }
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
        state.choose();
        state.schedule.ended.notify_all();
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

    /// What to say of a run that hung.
    fn hung(&self) -> Error {
        let told = self.trace.tell(&self.actors.iter().map(|actor| actor.name.as_str()).collect::<Vec<_>>());
        let lines: Vec<_> = told.lines().collect();
        let last = lines[lines.len().saturating_sub(TOLD_LINES)..].join("\n");
        let text = format!("seed {}: nobody made a step for {} s; the last of them:", self.seed, PATIENCE.as_secs());
        Error::new(ErrorKind::Bug, format!("{text}\n{last}"))
    }

    /// Gives the turn to somebody, once nobody has it.
    fn choose(&mut self) {
        if self.schedule.is_busy() || self.schedule.given.is_some() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimPlace;
    use lastgood_model::store::{ObjectKind, Store};
    use std::sync::Mutex;
    use std::sync::mpsc;

    /// Runs `test` and fails when it does not end.
    fn within_a_minute(test: impl FnOnce() + Send + 'static) {
        let (done, ended) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            test();
            let _ = done.send(());
        });
        match ended.recv_timeout(Duration::from_secs(50)) {
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the run hangs"),
            _ => thread.join().unwrap(),
        }
    }

    #[test]
    fn an_actor_may_wait_for_a_thread_of_its_own_whose_call_waits() {
        within_a_minute(|| {
            for seed in 0..200 {
                let world = SimWorld::new(seed, &[SimPlace::default()]);
                let actor = |name: &str| {
                    let id = world.actor(name, 0);
                    let store = world.store(id, 0);
                    let act: Box<dyn FnOnce() + Send> = Box::new(move || {
                        for _ in 0..5 {
                            std::thread::scope(|scope| {
                                let calls = || (0..3).for_each(|_| drop(store.list(ObjectKind::Pack).unwrap()));
                                let others = [scope.spawn(calls), scope.spawn(calls)];
                                store.list(ObjectKind::Lock).unwrap();
                                others.into_iter().for_each(|other| other.join().unwrap());
                            });
                        }
                    });
                    (id, act)
                };
                world.run(500, vec![actor("one"), actor("two")]).unwrap();
                assert_eq!(world.steps(), 2 * 5 * 7, "seed {seed}");
            }
        });
    }

    #[test]
    fn who_dies_while_another_of_its_calls_waits_does_nothing_more() {
        within_a_minute(|| {
            for seed in 0..100 {
                let world = SimWorld::new(seed, &[SimPlace::default()]);
                let id = world.actor("mortal", 0);
                let store = world.store(id, 0);
                world.crash(id, crate::sim::Crash { nth: 1, kind: crate::sim::CrashKind::After });
                let done = Mutex::new(0);
                let act = || {
                    std::thread::scope(|scope| {
                        for _ in 0..4 {
                            scope.spawn(|| *done.lock().unwrap() += u32::from(store.sync().is_ok()));
                        }
                    });
                };
                world.run(500, vec![(id, Box::new(act))]).unwrap();
                assert_eq!((world.steps(), *done.lock().unwrap()), (1, 0), "seed {seed}");
            }
        });
    }

    #[test]
    fn a_run_that_hangs_fails_with_its_seed() {
        within_a_minute(|| {
            let world = SimWorld::new(42, &[SimPlace::default()]);
            world.state().schedule.patience = Duration::from_millis(40);
            let (id, other) = (world.actor("stuck", 0), world.actor("waiting", 0));
            let (store, others) = (world.store(id, 0), world.store(other, 0));
            let (free, freed) = mpsc::channel::<()>();
            let actors: Vec<(ActorId, Box<dyn FnOnce() + Send>)> = vec![
                (
                    id,
                    Box::new(move || {
                        store.list(ObjectKind::Lock).unwrap();
                        // As if in a deadlock, which only the other's failure ends.
                        freed.recv().unwrap();
                        store.list(ObjectKind::Lock).unwrap_err();
                    }),
                ),
                (
                    other,
                    Box::new(move || {
                        while others.list(ObjectKind::Lock).is_ok() {}
                        free.send(()).unwrap();
                    }),
                ),
            ];
            let error = world.run(500, actors).unwrap_err();
            assert!(error.message().contains("seed 42: nobody made a step"), "{error:?}");
        });
    }

    #[test]
    fn an_actor_that_panics_fails_the_run() {
        within_a_minute(|| {
            let world = SimWorld::new(7, &[SimPlace::default()]);
            let (id, other) = (world.actor("broken", 0), world.actor("sound", 0));
            let store = world.store(other, 0);
            let sound = move || (0..5).for_each(|_| drop(store.list(ObjectKind::Lock).unwrap()));
            let broken = || panic!("as this test wants it");
            let error = world.run(500, vec![(id, Box::new(broken)), (other, Box::new(sound))]).unwrap_err();
            assert!(error.message().contains("seed 7: broken panicked"), "{error:?}");
        });
    }
}
