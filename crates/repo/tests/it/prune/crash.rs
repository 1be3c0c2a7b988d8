//! The power goes at every single call that a prune makes, and takes with it what was not durable, or leaves it.

use super::{Vault, assert_settled, run};
use crate::rig::{clock_off_by, save};
use lastgood_model::source::Chunking;
use lastgood_model::store::{ObjectKind, Store};
use lastgood_model::{ErrorKind, Result};
use lastgood_repo::lock::system_clock;
use lastgood_stores::{Fault, FaultStore};
use lastgood_testkit::rng::Rng;
use std::sync::Arc;

/// By then the lock of a dead run is stale.
const LATER: i64 = 31 * 60;

/// Runs a prune with `fault` at each call in turn; `fates` says how much that is not durable survives.
fn at_every_call(vault: &Vault, fault: impl Fn(Fault) -> Fault, fates: std::ops::Range<u64>) -> u32 {
    let mut struck = 0;
    for nth in 1.. {
        let mut finished = false;
        for fate in fates.clone() {
            let context = format!("call {nth}, fate {fate}");
            let mut vault = vault.fork();
            let store = Arc::new(FaultStore::new(vault.rig.store.clone()));
            let repository = vault.rig.open_through(store.clone(), system_clock()).unwrap();
            store.add(fault(Fault::on_any().nth(nth)));
            let outcome = run(&repository);
            finished |= store.fired() == 0;
            struck += u32::from(store.fired() > 0);
            let mut chance = Rng::new(nth * 10 + fate);
            store
                .restore_power(|_| match fate {
                    0 => false,
                    1 => true,
                    _ => chance.below(2) == 0,
                })
                .unwrap();
            store.mend();
            drop(repository);
            assert!(store.fired() > 0 || outcome.is_ok(), "{context}: {outcome:?}");

            // Whoever comes next, needs no hand: a reader, a backup, a prune.
            let later = || vault.rig.open_at(clock_off_by(LATER));
            vault.assert_kept_at(&later(), &context);
            let (old, new) = (vault.points.values().next().unwrap()["db/shared"].clone(), vault.rng.bytes(100_000));
            let files: [(&str, &[u8]); 2] = [("shared", &old), ("new", &new)];
            let next = save(&later(), Chunking::Rows, &files);
            let next = next.unwrap_or_else(|error| panic!("{context}: the next backup failed: {error:?}")).id();
            vault.remember(next, &files);
            let later = || vault.rig.open_at(clock_off_by(LATER));
            let mut last = None;
            for _ in 0..2 {
                let report = run(&later()).unwrap_or_else(|e| panic!("{context}: the next prune failed: {e:?}"));
                assert!(report.deferred.is_none() && report.kept.is_empty(), "{context}: {report:?}");
                last = Some(report);
            }
            vault.assert_kept_at(&later(), &context);
            assert_settled(&vault.rig.store, &context);
            let last = last.unwrap();
            assert!(last.bytes_unused < 1000 && last.packs_removed == 0, "{context}: garbage stays: {last:?}");
            assert!(vault.rig.keys_of(ObjectKind::Lock).is_empty(), "{context}: a lock stayed");
        }
        if finished {
            return struck;
        }
    }
    unreachable!()
}

#[test]
fn the_power_may_go_at_any_call_of_a_prune() {
    let vault = Vault::half_forgotten(10, 4, 130_000);
    let struck = at_every_call(&vault, Fault::cuts_power, 0..3);
    assert!(struck > 60, "{struck} cuts");
}

#[test]
fn any_call_of_a_prune_may_fail_before_or_after_it_happened() {
    let vault = Vault::half_forgotten(11, 4, 130_000);
    for fault in [|f: Fault| f.fails_before(ErrorKind::Io), |f: Fault| f.fails_after(ErrorKind::Io)] {
        let struck = at_every_call(&vault, fault, 1..2);
        assert!(struck > 20, "{struck} failures");
    }
}

#[test]
fn a_prune_that_died_again_and_again_loses_nothing() -> Result<()> {
    let vault = Vault::half_forgotten(12, 4, 130_000);
    let mut rng = Rng::new(12);
    for round in 0..60i64 {
        let store = Arc::new(FaultStore::new(vault.rig.store.clone()));
        let repository = vault.rig.open_through(store.clone(), clock_off_by(LATER * round))?;
        store.add(Fault::on_any().nth(1 + rng.below(60)).cuts_power());
        let _ = run(&repository);
        store.restore_power(|_| rng.below(2) == 0)?;
        store.mend();
        drop(repository);
        vault.assert_kept_at(&vault.rig.open_at(clock_off_by(LATER * (round + 1))), &format!("round {round}"));
    }
    assert!(vault.rig.store.side().is_some());
    run(&vault.rig.open_at(clock_off_by(LATER * 61)))?;
    vault.assert_kept_at(&vault.rig.open_at(clock_off_by(LATER * 61)), "at last");
    assert_settled(&vault.rig.store, "at last");
    Ok(())
}
