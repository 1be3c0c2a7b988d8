//! Deaths at every step, in a model of stores: every changing call of every verb, in every way, and then chains of them
//! drawn by chance. After each, nothing that was told to be saved is lost, and the next runs need no hand.

use super::sim::oracle::truth;
use super::sim::stranger::Stranger;
use super::sim::{Base, Hand, Oracle};
use super::stats::upper95;
use crate::shell;
use anyhow::{Context, Result, bail};
use lastgood_model::store::{ObjectKind, SideStore, Store, StoreKey};
use lastgood_model::{Monitor, PackId};
use lastgood_repo::check::{VerifyOptions, verify};
use lastgood_repo::gc::MaxUnused;
use lastgood_repo::planted::Planted;
use lastgood_repo::repair;
use lastgood_testkit::rng::Rng;
use lastgood_testkit::sim::{Crash, CrashKind, Key, SimPlace, SimWorld};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Chains drawn by chance, beside the steps that are all tried.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) n: u64,
    /// Repeats a run; drawn when missing, and printed.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Ends after so long, whatever was tried by then.
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
    /// Plants a mistake, which must be found.
    #[arg(long, value_parser = planted)]
    pub(crate) planted: Option<Planted>,
}

/// A mistake by its name.
pub(super) fn planted(name: &str) -> Result<Planted, String> {
    let found = Planted::ALL.iter().find(|(known, _)| *known == name).map(|(_, planted)| *planted);
    let names = || Planted::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| format!("one of {}", names()))
}

/// Of so many failures the whole record is told.
pub(super) const TOLD_MAX: usize = 4;

/// What is done in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Init,
    Backup,
    Copy,
    Forget,
    Prune,
    /// Moves everything that lies beside what is not needed.
    PruneAll,
    /// After all index files were lost.
    RepairIndex,
    RepairPacks,
    /// A backup by a stranger, who never dies here.
    Stranger,
}

impl Verb {
    const DYING: [Self; 8] = [
        Self::Init,
        Self::Backup,
        Self::Copy,
        Self::Forget,
        Self::Prune,
        Self::PruneAll,
        Self::RepairIndex,
        Self::RepairPacks,
    ];
}

#[derive(Clone, Copy, Debug)]
struct Round {
    verb: Verb,
    crash: Option<Crash>,
    /// Until the next round.
    rest_secs: i64,
}

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) enumerated: u64,
    pub(crate) seeded: u64,
    pub(crate) deaths: u64,
    pub(crate) failures: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let seed = options.seed.or_else(super::started_seed).unwrap_or(1);
    println!("seed {seed}");
    let outcome = campaign(seed, options.n, options.seconds.map(Duration::from_secs), options.planted)?;
    let (total, failed) = (outcome.enumerated + outcome.seeded, outcome.failures.len() as u64);
    println!(
        "{}",
        json!({"type": "lastgood.proof", "schema": 1, "proof": "crash", "commit": shell::commit(), "seed": seed,
            "cases": total, "enumerated": outcome.enumerated, "seeded": outcome.seeded, "deaths": outcome.deaths,
            "planted": options.planted.map(name_of), "failures": failed, "upper95": upper95(total, failed),
            "wall_s": started.elapsed().as_secs_f64().round()})
    );
    match options.planted {
        None if failed > 0 => bail!("{failed} failures"),
        Some(planted) if failed == 0 => bail!("{} was planted and not found", name_of(planted)),
        _ => Ok(()),
    }
}

/// The name of a mistake.
pub(super) fn name_of(planted: Planted) -> &'static str {
    Planted::ALL.iter().find(|(_, known)| *known == planted).map_or("", |(name, _)| *name)
}

/// Tries every step of every verb, then chains. With a mistake planted it ends at the first failure.
fn campaign(seed: u64, n: u64, within: Option<Duration>, planted: Option<Planted>) -> Result<Outcome> {
    campaign_of(&Verb::DYING, seed, n, within, planted)
}

/// The same with every step of these verbs.
fn campaign_of(
    verbs: &[Verb],
    seed: u64,
    n: u64,
    within: Option<Duration>,
    planted: Option<Planted>,
) -> Result<Outcome> {
    let bed = Bed::new()?;
    let outcome = Mutex::new(Outcome::default());
    let deaths = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let started = Instant::now();
    let judge = |label: &dyn std::fmt::Debug, seed: u64, rounds: &[Round]| -> bool {
        let case = Case::new(&bed, seed, planted);
        let played = case.play(rounds);
        let died = case.deaths.load(Relaxed);
        deaths.fetch_add(died, Relaxed);
        if let Err(error) = &played {
            let line = format!("{label:?}, seed {seed}, {rounds:?}: {error:#}");
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            let told = planted.is_none() && outcome.failures.len() < TOLD_MAX;
            let told = if told { case.world.tell() } else { String::new() };
            eprintln!("failure: {line}\n{told}");
            outcome.failures.push(line);
            stop.fetch_or(planted.is_some(), Relaxed);
        }
        let is_late = within.is_some_and(|within| started.elapsed() > within);
        stop.fetch_or(is_late, Relaxed);
        died > 0
    };
    for &verb in verbs {
        for nth in 1.. {
            let mut fired = false;
            for kind in CrashKind::ALL {
                if stop.load(Relaxed) {
                    break;
                }
                let crash = Some(Crash { nth, kind });
                fired |= judge(&"enumerated", seed, &[Round { verb, crash, rest_secs: 31 * 60 }]);
                outcome.lock().unwrap_or_else(PoisonError::into_inner).enumerated += 1;
            }
            if !fired {
                break;
            }
        }
    }
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| -> Result<()> {
        let running: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let number = next.fetch_add(1, Relaxed);
                        if number >= n || stop.load(Relaxed) {
                            return Ok(());
                        }
                        let seed = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9));
                        judge(&"drawn", seed, &draw(seed));
                        outcome.lock().unwrap_or_else(PoisonError::into_inner).seeded += 1;
                    }
                })
            })
            .collect();
        for worker in running {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(())
    })?;
    let mut outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.deaths = deaths.into_inner();
    Ok(outcome)
}

/// A chain of rounds, most of which end in a death.
fn draw(seed: u64) -> Vec<Round> {
    let mut rng = Rng::new(seed ^ 0xc4a5);
    let verbs = [
        Verb::Backup,
        Verb::Copy,
        Verb::Forget,
        Verb::Prune,
        Verb::PruneAll,
        Verb::PruneAll,
        Verb::RepairPacks,
        Verb::Stranger,
    ];
    (0..1 + rng.below(5))
        .map(|_| Round {
            verb: *rng.pick(&verbs),
            crash: (rng.below(5) > 0).then(|| Crash { nth: 1 + rng.below(22), kind: *rng.pick(&CrashKind::ALL) }),
            rest_secs: *rng.pick(&[1, 300, 31 * 60, 31 * 60, 26 * 3600]),
        })
        .collect()
}

/// The state from which every case begins: three points in one place, of which one was forgotten, one in the other.
struct Bed {
    bases: [Base; 2],
    objects: Vec<Vec<(Key, Arc<Vec<u8>>)>>,
    oracle: Oracle,
}

impl Bed {
    fn new() -> Result<Self> {
        // The second has another key, so that copies into it are sealed anew; the third shares that of the first.
        let bases = [Base::new()?, Base::new()?];
        let world = SimWorld::new(7, &[SimPlace::default(); PLACES]);
        let oracle = Oracle::watch(&world, &sealers(&bases));
        for (place, base) in [(0, 0), (1, 1), (2, 0)] {
            bases[base].put(&world, place)?;
        }
        let actor = world.actor("before", 0);
        let hand = Hand { world: world.clone(), oracle: oracle.clone(), actor, planted: None, wait_secs: 0 };
        hand.backup(0, &[0, 1, 2, 3, 4, 5])?;
        hand.copy(0, 1)?;
        hand.copy(0, 2)?;
        let second = hand.backup(0, &[4, 5, 6, 7, 8, 9])?;
        hand.backup(0, &[8, 9, 10, 11])?;
        hand.forget(0, second)?;
        let objects = (0..PLACES).map(|place| world.objects(place)).collect();
        Ok(Self { bases, objects, oracle })
    }
}

/// Two that are copied into, and one that is still empty.
const PLACES: usize = 4;
const EMPTY: usize = 3;

/// Of what is made in the empty place nobody knows the key beforehand.
fn sealers(bases: &[Base; 2]) -> Vec<Option<Arc<lastgood_repo::crypto::Sealer>>> {
    [Some(0), Some(1), Some(0), None].map(|base| base.map(|base: usize| bases[base].sealer.clone())).into()
}

struct Case<'a> {
    bed: &'a Bed,
    world: SimWorld,
    oracle: Oracle,
    planted: Option<Planted>,
    seed: u64,
    deaths: AtomicU64,
}

impl<'a> Case<'a> {
    fn new(bed: &'a Bed, seed: u64, planted: Option<Planted>) -> Self {
        let world = SimWorld::new(seed, &[SimPlace::default(); PLACES]);
        let oracle = Oracle::watch(&world, &sealers(&bed.bases));
        for (place, objects) in bed.objects.iter().enumerate() {
            world.fill(place, objects);
        }
        oracle.adopt(&bed.oracle);
        Self { bed, world, oracle, planted, seed, deaths: AtomicU64::new(0) }
    }

    fn hand(&self, name: &str, wait_secs: u64) -> Hand {
        let actor = self.world.actor(name, 0);
        Hand { world: self.world.clone(), oracle: self.oracle.clone(), actor, planted: self.planted, wait_secs }
    }

    /// Plays all rounds, and looks at everything after each.
    fn play(&self, rounds: &[Round]) -> Result<()> {
        let mut rng = Rng::new(self.seed);
        for (number, round) in rounds.iter().enumerate() {
            let hand = self.hand(&format!("{:?}-{number}", round.verb), 0);
            if let Some(crash) = round.crash.filter(|_| round.verb != Verb::Stranger) {
                self.world.crash(hand.actor, crash);
            }
            if round.verb == Verb::RepairIndex {
                self.lose_index()?;
            }
            let done = self.act(&hand, round.verb, &mut rng);
            let is_dead = self.world.is_dead(hand.actor);
            self.deaths.fetch_add(u64::from(is_dead), Relaxed);
            if let Err(error) = done
                && !is_dead
                && error.downcast_ref::<lastgood_model::Error>().map(lastgood_model::Error::kind)
                    != Some(lastgood_model::ErrorKind::Locked)
            {
                return Err(error.context(format!("round {number} did not succeed")));
            }
            let places = if round.verb == Verb::Copy { EMPTY } else { 1 };
            self.look(round.verb != Verb::RepairIndex || !is_dead, places)
                .with_context(|| format!("after round {number}"))?;
            self.world.pass(round.rest_secs);
        }
        let is_any = |verb: Verb| rounds.iter().any(|round| round.verb == verb);
        self.next_runs(is_any(Verb::Init), is_any(Verb::RepairIndex), &mut rng)
    }

    fn act(&self, hand: &Hand, verb: Verb, rng: &mut Rng) -> Result<()> {
        let mut files = || {
            let from = rng.below(10);
            (from..from + 1 + rng.below(5)).collect::<Vec<u64>>()
        };
        match verb {
            Verb::Init => hand.init(EMPTY)?,
            Verb::Backup => drop(hand.backup(0, &files())?),
            Verb::Copy => {
                hand.copy(0, 2)?;
                hand.copy(0, 1)?;
            }
            Verb::Forget => {
                let points = self.oracle.points(0);
                if points.len() > 1 {
                    hand.forget(0, *rng.pick(&points))?;
                }
            }
            Verb::Prune => drop(hand.prune(0, MaxUnused::default())?),
            Verb::PruneAll => drop(hand.prune(0, MaxUnused::Bytes(0))?),
            Verb::RepairIndex => drop(repair::index(&*hand.open(0)?, &Monitor::new(), Duration::ZERO)?),
            Verb::RepairPacks => {
                let packs = self.world.truth(0).list(ObjectKind::Pack)?;
                let some: Vec<PackId> = packs.into_iter().map(|(id, _)| PackId(id)).take(2).collect();
                drop(repair::packs(&*hand.open(0)?, &Monitor::new(), &some, Duration::ZERO)?);
            }
            Verb::Stranger => drop(Stranger::new(hand, 0, &self.bed.bases[0].sealer)?.backup(&files())?),
        }
        Ok(())
    }

    /// Takes all index files away.
    fn lose_index(&self) -> Result<()> {
        let store = self.world.truth(0);
        for (id, _) in store.list(ObjectKind::Index)? {
            store.remove(&StoreKey::new(ObjectKind::Index, id))?;
        }
        Ok(())
    }

    /// Nothing that was told to be saved is lost or cannot be found, and what is listed is whole.
    fn look(&self, is_indexed: bool, places: usize) -> Result<()> {
        if let Some(loss) = self.oracle.losses().first() {
            bail!("{loss}");
        }
        for place in 0..places {
            if is_indexed || place > 0 {
                self.oracle.is_indexed(&self.world, place)?;
            }
            self.oracle.read_all(&self.world, place)?;
            if !is_indexed && place == 0 {
                // That the index is lost is what it would find.
                continue;
            }
            let report = verify(&truth(&self.world, place)?, &Monitor::new(), &VerifyOptions::all())?;
            if let Some(damage) = report.damage.first() {
                bail!("place {place}: verify finds {damage:?}");
            }
        }
        Ok(())
    }

    /// Whether there is any lock in a place.
    fn locks(&self, place: usize) -> Result<bool> {
        Ok(!self.world.truth(place).list(ObjectKind::Lock)?.is_empty())
    }

    /// What follows succeeds by itself, and leaves nothing behind.
    fn next_runs(&self, with_init: bool, with_repair: bool, rng: &mut Rng) -> Result<()> {
        self.world.pass(31 * 60);
        let hand = self.hand("next", 0);
        if with_init {
            if !lastgood_repo::Repository::exists(&self.world.truth(EMPTY))? {
                hand.init(EMPTY).context("the next init")?;
            }
            hand.backup(EMPTY, &[1, 2]).context("the next backup in the new repository")?;
        }
        // Without an index nothing can be pruned; the next backup makes it anew.
        if !with_repair && rng.below(2) == 0 {
            hand.prune(0, MaxUnused::Bytes(0)).context("the next prune, first of all")?;
            self.look(true, 1).context("after the next prune")?;
        }
        hand.backup(0, &[2, 6, 12]).context("the next backup")?;
        hand.copy(0, 1).context("the next copy to another key")?;
        hand.copy(0, 2).context("the next copy")?;
        for place in 0..EMPTY {
            hand.prune(place, MaxUnused::Bytes(0)).with_context(|| format!("the next prune in place {place}"))?;
        }
        // A lock that was torn when its writer died cannot be told from a living one's at first, and may hold a prune off.
        // Who met it knows better when half an hour has passed.
        if (0..EMPTY).map(|place| self.locks(place)).collect::<Result<Vec<_>>>()?.contains(&true) {
            self.world.pass(32 * 60);
            for place in 0..EMPTY {
                hand.prune(place, MaxUnused::Bytes(0))
                    .with_context(|| format!("half an hour later, in place {place}"))?;
            }
        }
        self.look(true, EMPTY).context("after the next runs")?;
        if with_init {
            self.oracle.read_all(&self.world, EMPTY).context("in the new repository")?;
        }
        for place in 0..EMPTY {
            if self.locks(place)? {
                bail!("place {place}: a lock stayed");
            }
            if !self.world.truth(place).list_side("locks")?.is_empty() {
                bail!("place {place}: a note about a lock stayed");
            }
            // The last one may have carried on a list that an earlier run left, without looking for more, or have made so many
            // small packs that the next one joins them.
            let mut last = None;
            for _ in 0..3 {
                let again = hand.prune(place, MaxUnused::Bytes(0)).context("one more prune")?;
                let is_at_rest = again.packs_removed == 0 && again.deferred.is_none();
                last = Some(again);
                if is_at_rest {
                    break;
                }
            }
            if let Some(again) = last.filter(|again| again.packs_removed > 0 || again.deferred.is_some()) {
                bail!("place {place}: prunes do not come to rest: {again:?}");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_death_at_any_step_loses_anything_or_needs_a_hand() {
        let outcome = campaign_of(&[Verb::PruneAll], 1, 20, None, None).unwrap();
        assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
        assert!(outcome.enumerated > 50 && outcome.deaths > 60, "{outcome:?}");
    }

    fn assert_found(verbs: &[Verb], planted: &[Planted]) {
        for &planted in planted {
            let outcome = campaign_of(verbs, 1, 2_000, None, Some(planted)).unwrap();
            assert!(!outcome.failures.is_empty(), "{planted:?} was not found in {} cases", outcome.seeded);
        }
    }

    #[test]
    fn mistakes_that_are_planted_are_found() {
        assert_found(&[Verb::PruneAll], &[Planted::PacksFirst, Planted::PacksBeforeSync]);
    }

    #[test]
    #[ignore = "takes minutes, since these need several deaths in a row: `cargo xtask test --full`"]
    fn mistakes_that_show_rarely_are_found() {
        assert_found(&[], &[Planted::OldIndexFirst, Planted::SnapshotBeforePacks, Planted::ResumeBlindly]);
    }
}
