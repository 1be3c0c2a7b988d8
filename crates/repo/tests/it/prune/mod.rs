//! Deletion: what nobody needs goes, and nothing else, whoever is at work beside it and wherever it stops.

mod crash;
mod late;
mod odd;
mod races;
mod stale;
mod strangers;

use crate::rig::{Contents, Rig, contents, save};
use lastgood_model::source::Chunking;
use lastgood_model::store::{ObjectKind, SideStore, Store, StoreKey};
use lastgood_model::{Monitor, Result, SnapshotId};
use lastgood_repo::Repository;
use lastgood_repo::check::{VerifyOptions, verify};
use lastgood_repo::gc::{MaxUnused, PruneOptions, PruneReport, prune};
use lastgood_testkit::rng::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Leaves nothing unused that can be moved.
fn thorough() -> PruneOptions {
    PruneOptions { max_unused: MaxUnused::Percent(0.0), ..PruneOptions::default() }
}

fn run(repository: &Repository) -> Result<PruneReport> {
    prune(repository, &Monitor::new(), &thorough())
}

/// A repository of which every recovery point is remembered with its content.
struct Vault {
    rig: Rig,
    points: BTreeMap<SnapshotId, Contents>,
    rng: Rng,
}

impl Vault {
    fn new(seed: u64) -> Self {
        Self { rig: Rig::new(), points: BTreeMap::new(), rng: Rng::new(seed) }
    }

    /// A recovery point of these files.
    fn save(&mut self, files: &[(&str, &[u8])]) -> SnapshotId {
        let id = save(&self.rig.open(), Chunking::Rows, files).unwrap().id();
        self.remember(id, files);
        id
    }

    fn remember(&mut self, id: SnapshotId, files: &[(&str, &[u8])]) {
        let contents = files.iter().map(|(path, content)| (format!("db/{path}"), content.to_vec()));
        self.points.insert(id, contents.collect());
    }

    fn forget(&mut self, id: SnapshotId) {
        self.points.remove(&id).unwrap();
        self.rig.store.remove(&StoreKey::new(ObjectKind::Snapshot, id)).unwrap();
    }

    /// The same, going its own way.
    fn fork(&self) -> Self {
        let rig = self.rig.over(self.rig.store.fork());
        Self { rig, points: self.points.clone(), rng: self.rng.clone() }
    }

    /// Points that share some of their content; every second is forgotten.
    fn half_forgotten(seed: u64, points: usize, bytes: usize) -> Self {
        let mut vault = Self::new(seed);
        let shared = vault.rng.bytes(bytes);
        let mut all = Vec::new();
        for _ in 0..points {
            let own = vault.rng.bytes(bytes);
            all.push(vault.save(&[("shared", &shared), ("own", &own)]));
        }
        all.into_iter().step_by(2).for_each(|id| vault.forget(id));
        vault
    }

    /// Every point that is remembered is there, and no other; each is as it was; every byte of the repository is sound.
    #[track_caller]
    fn assert_kept_at(&self, repository: &Arc<Repository>, context: &str) {
        let there = repository.snapshots(|id, error| panic!("{context}: {id}: {error:?}")).unwrap();
        let there: Vec<SnapshotId> = there.into_iter().map(|snapshot| snapshot.id).collect();
        assert!(there.iter().all(|id| self.points.contains_key(id)), "{context}: a point came back");
        for (id, expected) in &self.points {
            let found = contents(repository, *id).unwrap_or_else(|error| panic!("{context}: {error:?}"));
            assert!(found == *expected, "{context}: {id} is not as it was");
        }
        let report = verify(repository, &Monitor::new(), &VerifyOptions::all()).unwrap();
        assert!(report.is_sound(), "{context}: {:#?}", report.damage);
    }

    #[track_caller]
    fn assert_kept(&self) {
        self.assert_kept_at(&self.rig.open(), "");
    }

    fn packs(&self) -> usize {
        self.rig.keys_of(ObjectKind::Pack).len()
    }
}

/// Names of what lies in `lastgood/gc/`.
fn gc_objects(store: &dyn SideStore) -> Vec<String> {
    store.list_side("gc").unwrap().into_iter().map(|(name, _)| name.name().to_owned()).collect()
}

/// No list of doomed packs is left.
#[track_caller]
fn assert_settled(store: &dyn SideStore, context: &str) {
    let left = gc_objects(store);
    assert!(left.len() <= 1 && left.iter().all(|name| name.starts_with("claim-")), "{context}: {left:?}");
}

#[test]
fn what_nobody_needs_goes_and_every_point_stays_as_it_was() {
    let vault = Vault::half_forgotten(1, 6, 700_000);
    let before = vault.rig.store.used_bytes();
    let plan = prune(&vault.rig.open(), &Monitor::new(), &PruneOptions { dry_run: true, ..thorough() }).unwrap();
    assert_eq!(vault.rig.store.used_bytes(), before, "a rehearsal changed something");
    assert!(plan.dry_run && plan.packs_removed > 0);

    let report = run(&vault.rig.open()).unwrap();
    assert!(report.bytes_removed >= 3 * 700_000, "{report:?}");
    assert_eq!((report.snapshots, report.deferred.is_none(), report.kept.len()), (3, true, 0));
    assert_eq!((plan.packs_removed, plan.bytes_removed), (report.packs_removed, report.bytes_removed));
    assert!(before - vault.rig.store.used_bytes() > 3 * 690_000);
    vault.assert_kept();
    assert_settled(&vault.rig.store, "");
    assert!(vault.rig.keys_of(ObjectKind::Lock).is_empty());

    // Nothing is left to do.
    let keys = vault.rig.store.keys();
    let again = run(&vault.rig.open()).unwrap();
    assert_eq!((again.packs_removed, again.packs_repacked, again.bytes_unused), (0, 0, 0), "{again:?}");
    assert_eq!(vault.rig.store.keys(), keys);
}

#[test]
fn without_any_point_everything_goes_and_the_next_backup_starts_anew() {
    let mut vault = Vault::new(2);
    let content = vault.rng.bytes(400_000);
    let id = vault.save(&[("a", &content)]);
    vault.forget(id);
    run(&vault.rig.open()).unwrap();
    assert_eq!((vault.packs(), vault.rig.keys_of(ObjectKind::Index).len()), (0, 0));
    vault.save(&[("a", &content)]);
    vault.assert_kept();
}

#[test]
fn little_that_is_unused_stays_where_it_is() {
    let mut vault = Vault::new(3);
    let (big, small) = (vault.rng.bytes(4 << 20), vault.rng.bytes(80_000));
    let first = vault.save(&[("a", &big), ("b", &small)]);
    vault.save(&[("a", &big)]);
    vault.forget(first);
    let report = prune(&vault.rig.open(), &Monitor::new(), &PruneOptions::default()).unwrap();
    assert_eq!(report.bytes_moved, 0, "{report:?}");
    assert!(report.bytes_unused_left >= 80_000 && report.bytes_unused_left < 200_000, "{report:?}");
    let report = run(&vault.rig.open()).unwrap();
    assert!(report.bytes_moved >= 4 << 20 && report.bytes_unused_left == 0, "{report:?}");
    vault.assert_kept();
}

#[test]
fn a_budget_of_bytes_or_time_is_kept() {
    for options in [
        PruneOptions { max_repack_bytes: Some(100_000), ..thorough() },
        PruneOptions { max_time: Some(std::time::Duration::ZERO), ..thorough() },
    ] {
        let mut vault = Vault::new(4);
        let (big, small) = (vault.rng.bytes(2 << 20), vault.rng.bytes(900_000));
        let first = vault.save(&[("a", &big), ("b", &small)]);
        vault.save(&[("a", &big)]);
        vault.forget(first);
        let report = prune(&vault.rig.open(), &Monitor::new(), &options).unwrap();
        assert!(report.bytes_moved <= 100_000 && report.bytes_unused_left >= 900_000, "{report:?}");
        assert_eq!(report.out_of_time, options.max_time.is_some());
        vault.assert_kept();
    }
}

#[test]
fn a_prune_that_is_asked_to_stop_stops_and_the_next_one_finishes() {
    let vault = Vault::half_forgotten(5, 4, 300_000);
    let monitor = Monitor::new();
    monitor.cancel();
    let error = prune(&vault.rig.open(), &monitor, &thorough()).unwrap_err();
    assert_eq!(error.kind(), lastgood_model::ErrorKind::Cancelled);
    vault.assert_kept();
    assert!(run(&vault.rig.open()).unwrap().packs_removed > 0);
    vault.assert_kept();
}
