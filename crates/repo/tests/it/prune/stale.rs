//! Where lists may be stale, packs go a day later, by the clock of who removes them.

use super::{Vault, assert_settled, gc_objects, run};
use crate::forge::Forge;
use crate::rig::clock_off_by;
use crate::stale::StaleStore;
use lastgood_model::store::{SideName, SidePut, SideStore};
use lastgood_repo::gc::PruneReport;
use std::sync::Arc;

const HOUR: i64 = 3600;

/// Prunes by a clock that is so many hours ahead.
fn run_at(vault: &Vault, hours: i64) -> PruneReport {
    let store = StaleStore::new(&vault.rig.store);
    run(&vault.rig.open_through(store, clock_off_by(hours * HOUR)).unwrap()).unwrap()
}

#[test]
fn the_host_that_made_a_list_carries_it_out_a_day_later() {
    let vault = Vault::half_forgotten(50, 4, 200_000);
    for hours in [0, 1, 23] {
        let report = run_at(&vault, hours);
        assert!(report.deferred.is_some() && report.packs_removed == 0, "{hours}: {report:?}");
    }
    assert_eq!(gc_objects(&vault.rig.store).len(), 1);
    let report = run_at(&vault, 25);
    assert!(report.resumed && report.packs_removed > 0, "{report:?}");
    vault.assert_kept();
    assert_settled(&vault.rig.store, "");
}

#[test]
fn what_the_clock_of_another_host_says_proves_nothing() {
    let vault = Vault::half_forgotten(51, 4, 200_000);
    run_at(&vault, 0);
    // As if a host had made it whose clock is ten years behind.
    let forge = Forge::new(Arc::new(vault.rig.store.clone()), &vault.rig.password);
    let name = SideName::new("gc", &gc_objects(&vault.rig.store)[0]).unwrap();
    let mut sealed = vault.rig.store.get_side(&name).unwrap();
    let plain = forge.sealer.open_in_place(&mut sealed).unwrap();
    let json = zstd::decode_all(&plain[1..]).unwrap();
    let mut list: serde_json::Value = serde_json::from_slice(&json).unwrap();
    (list["hostname"], list["published"]) = ("elsewhere".into(), "2016-01-02T03:04:05Z".into());
    let sealed = forge.sealer.seal(list.to_string().as_bytes()).unwrap();
    vault.rig.store.put_side(&name, &sealed, SidePut::Replace).unwrap();

    // The clock of this one is set back once, and it begins to count anew.
    for hours in [0, 23, -5, 18] {
        let report = run_at(&vault, hours);
        assert!(report.deferred.is_some() && report.packs_removed == 0, "{hours}: {report:?}");
        assert_eq!(gc_objects(&vault.rig.store).len(), 2);
    }
    let report = run_at(&vault, 20);
    assert!(report.resumed && report.packs_removed > 0, "{report:?}");
    vault.assert_kept();
    assert_settled(&vault.rig.store, "");
}
