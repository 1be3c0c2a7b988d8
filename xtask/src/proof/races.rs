//! Actors that meet: writers, pruners, copiers and a stranger that behaves as restic does, with clocks that are wrong,
//! lists that are stale, writes that come late or twice, answers that are lost, machines that sleep and die. At no moment
//! may anything go that an acknowledged recovery point needs.

use super::crash::{TOLD_MAX, name_of, planted};
use super::sim::stranger::Stranger;
use super::sim::{Base, Hand, Oracle};
use super::stats::upper95;
use crate::shell;
use anyhow::{Result, bail};
use lastgood_repo::crypto::Sealer;
use lastgood_repo::gc::MaxUnused;
use lastgood_repo::planted::Planted;
use lastgood_testkit::rng::Rng;
use lastgood_testkit::sim::{Crash, CrashKind, Freeze, Key, SimPlace, SimWorld, Troubles};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Schedules.
    #[arg(long, default_value_t = 50_000)]
    n: u64,
    /// Repeats a run; drawn when missing, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Ends after so long, whatever was tried by then.
    #[arg(long)]
    seconds: Option<u64>,
    /// Plants a mistake, which must be found.
    #[arg(long, value_parser = planted)]
    planted: Option<Planted>,
    /// Plays the one schedule of this seed, and tells all of it.
    #[arg(long)]
    only: Option<u64>,
}

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) schedules: u64,
    pub(crate) steps: u64,
    pub(crate) points: u64,
    pub(crate) packs_removed: u64,
    pub(crate) failures: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    if let Some(seed) = options.only {
        let bed = Bed::new()?;
        let schedule = Schedule::new(&bed, seed, options.planted);
        let played = schedule.play();
        println!("{}", schedule.world.tell());
        return played.map(drop);
    }
    let seed = options.seed.or_else(super::started_seed).unwrap_or(1);
    println!("seed {seed}");
    let outcome = campaign(seed, options.n, options.seconds.map(Duration::from_secs), options.planted)?;
    let failed = outcome.failures.len() as u64;
    println!(
        "{}",
        json!({"type": "lastgood.proof", "schema": 1, "proof": "races", "commit": shell::commit(), "seed": seed,
            "cases": outcome.schedules, "steps": outcome.steps, "points": outcome.points,
            "packs_removed": outcome.packs_removed, "planted": options.planted.map(name_of), "failures": failed,
            "upper95": upper95(outcome.schedules, failed), "wall_s": started.elapsed().as_secs_f64().round()})
    );
    match options.planted {
        None if failed > 0 => bail!("{failed} failures"),
        Some(planted) if failed == 0 => bail!("{} was planted and not found", name_of(planted)),
        _ => Ok(()),
    }
}

/// Plays `n` schedules. With a mistake planted it ends at the first failure.
pub(crate) fn campaign(seed: u64, n: u64, within: Option<Duration>, planted: Option<Planted>) -> Result<Outcome> {
    let bed = Bed::new()?;
    let outcome = Mutex::new(Outcome::default());
    let (next, stop, started) = (AtomicU64::new(0), AtomicBool::new(false), Instant::now());
    let work = || {
        loop {
            let number = next.fetch_add(1, Relaxed);
            let is_late = within.is_some_and(|within| started.elapsed() > within);
            if number >= n || is_late || stop.load(Relaxed) {
                return;
            }
            let seed = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9));
            let schedule = Schedule::new(&bed, seed, planted);
            let played = schedule.play();
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            outcome.schedules += 1;
            outcome.steps += schedule.world.steps();
            match played {
                Ok(told) => {
                    outcome.points += told.points;
                    outcome.packs_removed += told.packs_removed;
                }
                Err(error) => {
                    let told = planted.is_none() && outcome.failures.len() < TOLD_MAX;
                    let told = if told { schedule.world.tell() } else { String::new() };
                    eprintln!("failure, seed {seed}: {error:#}\n{told}");
                    outcome.failures.push(format!("seed {seed}: {error:#}"));
                    stop.fetch_or(planted.is_some(), Relaxed);
                }
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    Ok(outcome.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Two places: three points in one, of which one was forgotten, and copies of two in the other.
struct Bed {
    sealer: Arc<Sealer>,
    objects: [Vec<(Key, Arc<Vec<u8>>)>; 2],
    oracle: Oracle,
}

impl Bed {
    fn new() -> Result<Self> {
        let base = Base::new()?;
        let world = SimWorld::new(7, &[SimPlace::default(); 2]);
        let oracle = Oracle::watch(&world, &[Some(base.sealer.clone()), Some(base.sealer.clone())]);
        base.put(&world, 0)?;
        base.put(&world, 1)?;
        let actor = world.actor("before", 0);
        let hand = Hand { world: world.clone(), oracle: oracle.clone(), actor, planted: None, wait_secs: 0 };
        hand.backup(0, &[0, 1, 2, 3, 4, 5])?;
        let second = hand.backup(0, &[4, 5, 6, 7, 8, 9])?;
        hand.copy(0, 1)?;
        hand.backup(0, &[8, 9, 10, 11])?;
        hand.forget(0, second)?;
        hand.forget(1, second)?;
        Ok(Self { sealer: base.sealer, objects: [world.objects(0), world.objects(1)], oracle })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Writer,
    Pruner,
    Copier,
    Forgetter,
    StrangeWriter,
    StrangePruner,
}

impl Role {
    fn is_strange(self) -> bool {
        matches!(self, Self::StrangeWriter | Self::StrangePruner)
    }
}

/// What happened in a schedule that went well.
struct Told {
    points: u64,
    packs_removed: u64,
}

struct Schedule<'a> {
    bed: &'a Bed,
    world: SimWorld,
    oracle: Oracle,
    planted: Option<Planted>,
    seed: u64,
    is_stale: bool,
}

impl<'a> Schedule<'a> {
    fn new(bed: &'a Bed, seed: u64, planted: Option<Planted>) -> Self {
        let mut rng = Rng::new(seed ^ 0x57a1e);
        let place = match rng.below(10) {
            0 => SimPlace { stale_secs: 3600, exclusive_create: true },
            1 => SimPlace { stale_secs: 3600, exclusive_create: false },
            2 => SimPlace { stale_secs: 0, exclusive_create: false },
            _ => SimPlace::default(),
        };
        let world = SimWorld::new(seed, &[place; 2]);
        let oracle = Oracle::watch(&world, &[Some(bed.sealer.clone()), Some(bed.sealer.clone())]);
        for (place, objects) in bed.objects.iter().enumerate() {
            world.fill(place, objects);
        }
        oracle.adopt(&bed.oracle);
        Self { bed, world, oracle, planted, seed, is_stale: place.stale_secs > 0 }
    }

    fn play(&self) -> Result<Told> {
        let mut rng = Rng::new(self.seed ^ 0xace5);
        let others = [
            Role::Writer,
            Role::Writer,
            Role::Pruner,
            Role::Pruner,
            Role::Copier,
            Role::Copier,
            Role::Forgetter,
            Role::StrangeWriter,
            Role::StrangePruner,
        ];
        let mut roles = vec![Role::Pruner, if rng.below(4) > 0 { Role::Writer } else { *rng.pick(&others) }];
        for _ in 0..rng.below(4) {
            roles.push(*rng.pick(&others));
        }
        if self.is_stale {
            // A lock that a list does not show holds nobody off, and a stranger has nothing else.
            for role in &mut roles {
                *role = match *role {
                    Role::StrangeWriter => Role::Writer,
                    Role::StrangePruner => Role::Pruner,
                    other => other,
                };
            }
        }
        // A stranger's lock is judged by its age, as restic does: beside one clocks are right within minutes.
        let with_stranger = roles.iter().any(|role| role.is_strange());
        let is_skewed = !with_stranger && rng.below(2) == 0;
        let switch = *rng.pick(&[1000, 300, 80, 20]);
        let removed = AtomicU64::new(0);
        let mut actors: Vec<(usize, Box<dyn FnOnce() + Send + '_>)> = Vec::new();
        for (number, role) in roles.iter().enumerate() {
            let skew = if is_skewed { draw_skew(&mut rng) } else { rng.below(120) as i64 - 60 };
            let actor = self.world.actor(format!("{role:?}-{number}"), skew);
            let hand = Hand {
                world: self.world.clone(),
                oracle: self.oracle.clone(),
                actor,
                planted: self.planted,
                wait_secs: *rng.pick(&[0, 5, 300]),
            };
            self.plan(actor, &mut rng);
            let mut chance = Rng::new(rng.next_u64());
            let (role, removed) = (*role, &removed);
            actors.push((
                actor,
                Box::new(move || {
                    for _ in 0..1 + chance.below(3) {
                        if let Err(error) = self.act(&hand, role, &mut chance, removed) {
                            hand.world.say(hand.actor, format!("fails: {error:#}"));
                        }
                        if hand.world.is_dead(hand.actor) {
                            break;
                        }
                    }
                }),
            ));
        }
        self.world.run(switch, actors)?;
        self.world.settle();
        self.look()?;
        if rng.below(4) == 0 {
            self.afterwards()?;
        }
        let points = (0..2).map(|place| self.oracle.points(place).len() as u64).sum();
        Ok(Told { points, packs_removed: removed.into_inner() })
    }

    /// Sleeps, troubles and perhaps a death for an actor.
    fn plan(&self, actor: usize, rng: &mut Rng) {
        let freezes = (0..rng.below(3)).map(|_| Freeze {
            nth: 1 + rng.below(60),
            secs: *rng.pick(&[5, 400, 31 * 60, 31 * 60, 2 * 3600, 25 * 3600]),
            steps: *rng.pick(&[10, 40, 150, 400]),
        });
        self.world.freeze(actor, freezes.collect());
        if rng.below(5) < 2 {
            let troubles = Troubles { failed: 10, lost_reply: 20, late: 15, twice: 20, failed_read: 5 };
            self.world.trouble(actor, troubles);
        }
        if rng.below(8) == 0 {
            self.world.crash(actor, Crash { nth: 1 + rng.below(30), kind: *rng.pick(&CrashKind::ALL) });
        }
    }

    fn act(&self, hand: &Hand, role: Role, rng: &mut Rng, removed: &AtomicU64) -> Result<()> {
        let place = usize::from(rng.below(4) == 0);
        // Mostly what was there once and may be on its way out.
        let from = rng.below(9);
        let files: Vec<u64> = (from..from + 2 + rng.below(4)).collect();
        let max_unused = *rng.pick(&[MaxUnused::Bytes(0), MaxUnused::default(), MaxUnused::Unlimited]);
        match role {
            Role::Writer => drop(hand.backup(place, &files)?),
            Role::Pruner => {
                let report = hand.prune(place, max_unused)?;
                removed.fetch_add(report.packs_removed, Relaxed);
            }
            Role::Copier if place == 0 => hand.copy(0, 1)?,
            Role::Copier => hand.copy(1, 0)?,
            Role::Forgetter => {
                let points = self.oracle.points(place);
                if points.len() > 1 {
                    hand.forget(place, *rng.pick(&points))?;
                }
            }
            Role::StrangeWriter => drop(Stranger::new(hand, place, &self.bed.sealer)?.backup(&files)?),
            Role::StrangePruner => {
                let stranger = Stranger::new(hand, place, &self.bed.sealer)?;
                let points = self.oracle.points(place);
                if points.len() > 1 && rng.below(2) == 0 {
                    stranger.forget(*rng.pick(&points))?;
                }
                stranger.prune()?;
            }
        }
        Ok(())
    }

    fn look(&self) -> Result<()> {
        let losses = self.oracle.losses();
        if let Some(loss) = losses.first() {
            bail!("{loss}; {} losses", losses.len());
        }
        (0..2).try_for_each(|place| self.oracle.read_all(&self.world, place))
    }

    /// A day later somebody with a good clock goes on, undisturbed.
    fn afterwards(&self) -> Result<()> {
        self.world.pass(26 * 3600);
        let actor = self.world.actor("afterwards", 0);
        let (world, oracle) = (self.world.clone(), self.oracle.clone());
        let hand = Hand { world, oracle, actor, planted: self.planted, wait_secs: 0 };
        for place in 0..2 {
            let told = |what: &str, outcome: lastgood_model::Result<()>| {
                if let Err(error) = outcome {
                    self.world.say(actor, format!("{what} fails: {}", error.chain()));
                }
            };
            told("prune", hand.prune(place, MaxUnused::Bytes(0)).map(drop));
            told("backup", hand.backup(place, &[3, 6, 9]).map(drop));
            // So long a list of doomed packs must have been known where lists may be stale.
            self.world.pass(26 * 3600);
            told("prune again", hand.prune(place, MaxUnused::Bytes(0)).map(drop));
        }
        self.look()
    }
}

/// From seconds to ten years, either way.
fn draw_skew(rng: &mut Rng) -> i64 {
    const YEAR: i64 = 365 * 86_400;
    *rng.pick(&[0, 0, 30, -30, 3600, -3600, 86_400, -86_400, 10 * YEAR, -10 * YEAR])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_meeting_of_actors_takes_what_is_needed() {
        let outcome = campaign(1, 100, None, None).unwrap();
        assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
        assert!(outcome.packs_removed > 30 && outcome.points > 200, "{outcome:?}");
    }

    fn assert_found(planted: &[Planted]) {
        for &planted in planted {
            let outcome = campaign(1, 5_000, None, Some(planted)).unwrap();
            assert!(!outcome.failures.is_empty(), "{planted:?} was not found in {} schedules", outcome.schedules);
        }
    }

    #[test]
    fn mistakes_that_are_planted_are_found() {
        assert_found(&[Planted::IgnoreNewSnapshots, Planted::LocksByAgeAlone]);
    }

    #[test]
    #[ignore = "takes minutes, since these show in one of hundreds of schedules: `cargo xtask test --full`"]
    fn mistakes_that_show_rarely_are_found() {
        assert_found(&[Planted::TrustStaleLists, Planted::DeleteBeforePublishing, Planted::IgnoreDoomed]);
    }
}
