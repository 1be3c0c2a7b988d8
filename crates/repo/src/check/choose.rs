//! Which packs a verification reads in full.

use super::ledger::{Ledger, Record};
use crate::sha256::Sha256;
use lastgood_model::PackId;
use std::collections::HashSet;
use std::time::Duration;

/// How much of a repository to read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scope {
    /// Every pack.
    All,
    /// A random part.
    Sample {
        /// Of all bytes, at least so many; 0 to 100.
        percent: f64,
        /// Decides which; the same seed takes the same packs.
        seed: u64,
    },
    /// What has waited longest, so much of it that regular runs cover everything within `every`.
    Rolling {
        /// The time within which every byte is to be read once.
        every: Duration,
    },
}

/// A first run has no last run to reckon from; it takes the part of one day.
const FIRST_RUN_SECS: u64 = 24 * 60 * 60;

/// The packs to be read in full, of `packs` with their sizes.
pub(super) fn choose(scope: Scope, packs: &[(PackId, u64)], ledger: &Ledger, now: i64) -> HashSet<PackId> {
    match scope {
        Scope::All => packs.iter().map(|(id, _)| *id).collect(),
        Scope::Sample { percent, seed } => sample(packs, percent, seed),
        Scope::Rolling { every } => rolling(packs, ledger, every, now),
    }
}

fn total(packs: &[(PackId, u64)]) -> u64 {
    packs.iter().map(|(_, size)| size).sum()
}

/// From the front of `packs` on, until they have `bytes` together; at least one.
fn take(packs: impl IntoIterator<Item = (PackId, u64)>, bytes: u64) -> HashSet<PackId> {
    let mut chosen = HashSet::new();
    let mut sum = 0;
    for (id, size) in packs {
        if sum >= bytes && !chosen.is_empty() {
            break;
        }
        sum += size;
        chosen.insert(id);
    }
    chosen
}

/// Draws without replacement, each pack with a chance that grows with its size (Efraimidis and Spirakis, 2006): the one
/// with the greatest `ln(u) / size` comes first, `u` being uniform.
fn sample(packs: &[(PackId, u64)], percent: f64, seed: u64) -> HashSet<PackId> {
    let draw = |id: &PackId, size: u64| {
        let mut hash = Sha256::new();
        hash.update(&seed.to_le_bytes());
        hash.update(&id.0.0);
        let [a, b, c, d, e, f, g, h, ..] = hash.finish();
        // Never 0, whose logarithm is none.
        let uniform = (u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> 11) as f64 + 0.5;
        (uniform / (1u64 << 53) as f64).ln() / size.max(1) as f64
    };
    let mut drawn: Vec<(f64, PackId, u64)> = packs.iter().map(|(id, size)| (draw(id, *size), *id, *size)).collect();
    drawn.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let wanted = (total(packs) as f64 * (percent / 100.0).clamp(0.0, 1.0)).ceil() as u64;
    take(drawn.into_iter().map(|(_, id, size)| (id, size)), wanted)
}

/// The share that is due since the last run, the never verified first and then those that have waited longest; and
/// whatever would be overdue by the next run, if that is as far off as the last.
fn rolling(packs: &[(PackId, u64)], ledger: &Ledger, every: Duration, now: i64) -> HashSet<PackId> {
    let every = every.as_secs().max(1);
    let since = ledger.last_run.and_then(|last| u64::try_from(now.saturating_sub(last)).ok());
    let elapsed = since.unwrap_or(FIRST_RUN_SECS).min(every);
    let wanted = (u128::from(total(packs)) * u128::from(elapsed)).div_ceil(u128::from(every));
    let record = |id: &PackId| ledger.packs.get(id).copied().unwrap_or(Record { seen: now, verified: None });
    let mut order: Vec<(PackId, u64)> = packs.to_vec();
    order.sort_by_cached_key(|(id, _)| {
        let record = record(id);
        (record.verified.is_some(), record.waits_since(), *id)
    });
    let mut chosen = take(order, u64::try_from(wanted).unwrap_or(u64::MAX));
    let is_due = |id: &PackId| {
        let waited = u64::try_from(now.saturating_sub(record(id).waits_since())).unwrap_or(0);
        waited.saturating_add(elapsed) > every
    };
    chosen.extend(packs.iter().map(|(id, _)| *id).filter(is_due));
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgood_model::Id;

    const DAY: i64 = 24 * 60 * 60;
    const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    fn packs(sizes: impl IntoIterator<Item = u64>) -> Vec<(PackId, u64)> {
        let id = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            PackId(Id(id))
        };
        sizes.into_iter().enumerate().map(|(n, size)| (id(n), size)).collect()
    }

    #[test]
    fn a_sample_has_the_bytes_asked_for_and_the_same_seed_takes_the_same() {
        let packs = packs((0..400).map(|n| if n % 4 == 0 { 16_000 } else { 1_000 }));
        let size =
            |chosen: &HashSet<PackId>| packs.iter().filter(|(id, _)| chosen.contains(id)).map(|(_, s)| s).sum::<u64>();
        let mut large = 0;
        for seed in 0..50 {
            let chosen = sample(&packs, 5.0, seed);
            let bytes = size(&chosen) as f64 / total(&packs) as f64;
            assert!((0.05..0.06).contains(&bytes), "{bytes}");
            assert_eq!(chosen, sample(&packs, 5.0, seed));
            large += chosen.iter().filter(|id| id.0.0[7] % 4 == 0).count();
        }
        assert_ne!(sample(&packs, 5.0, 1), sample(&packs, 5.0, 2));
        // Nearly all of what is drawn are the large ones, though they are a quarter of the packs.
        assert!(large > 200, "{large}");
        assert_eq!(sample(&packs, 100.0, 3).len(), 400);
        assert_eq!(sample(&packs, 0.0, 3).len(), 1);
        assert_eq!(sample(&[], 5.0, 3).len(), 0);
    }

    /// Runs a rolling verification at the given hours and returns the longest that any pack ever waited.
    fn roll(hours: impl Iterator<Item = i64>, growth: bool) -> i64 {
        let mut ledger = Ledger::default();
        let mut longest = 0;
        for (run, hour) in hours.enumerate() {
            let now = 1_000_000 + hour * 3600;
            let packs = packs((0..200 + if growth { run } else { 0 }).map(|n| 5_000 + (n as u64 * 7919) % 10_000));
            for (id, _) in &packs {
                let record = ledger.packs.entry(*id).or_insert(Record { seen: now, verified: None });
                longest = longest.max(now - record.waits_since());
            }
            for id in rolling(&packs, &ledger, MONTH, now) {
                ledger.packs.get_mut(&id).unwrap().verified = Some(now);
            }
            ledger.last_run = Some(now);
        }
        longest
    }

    #[test]
    fn daily_runs_cover_everything_within_the_period_for_ever() {
        for growth in [false, true] {
            let longest = roll((0..200).map(|day| day * 24), growth);
            assert!((20 * DAY..=30 * DAY).contains(&longest), "{} days", longest / DAY);
        }
    }

    #[test]
    fn hourly_weekly_and_unsteady_runs_cover_everything_too() {
        for hours in [(0..3000).collect::<Vec<_>>(), (0..30).map(|week| week * 168).collect()] {
            let longest = roll(hours.into_iter(), false);
            assert!(longest <= 30 * DAY, "{} hours", longest / 3600);
        }
        // After a gap of ten days the share of ten days is taken.
        let packs = packs([10; 300]);
        let mut ledger = Ledger { last_run: Some(10 * DAY), ..Ledger::default() };
        assert_eq!(rolling(&packs, &ledger, MONTH, 20 * DAY).len(), 100);
        assert_eq!(rolling(&packs, &ledger, MONTH, 100 * DAY).len(), 300);
        ledger.last_run = None;
        assert_eq!(rolling(&packs, &ledger, MONTH, 20 * DAY).len(), 10);
        // A clock that was set back does not stop it.
        ledger.last_run = Some(1000 * DAY);
        assert_eq!(rolling(&packs, &ledger, MONTH, 20 * DAY).len(), 10);
    }

    #[test]
    fn the_never_verified_come_first_and_then_the_oldest() {
        let packs = packs([10; 60]);
        let mut ledger = Ledger { last_run: Some(99 * DAY), ..Ledger::default() };
        for (n, (id, _)) in (0..).zip(&packs) {
            let verified = (n != 40).then_some(75 * DAY + n * 60);
            ledger.packs.insert(*id, Record { seen: DAY, verified });
        }
        let chosen = rolling(&packs, &ledger, MONTH, 100 * DAY);
        assert_eq!(chosen, [packs[40].0, packs[0].0].into());
    }
}
