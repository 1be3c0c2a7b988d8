//! Damage, copies, held objects and a full store.

use super::{Vault, assert_settled, gc_objects, run};
use crate::forge::Forge;
use crate::rig::{clock_off_by, save};
use lastgood_model::source::Chunking;
use lastgood_model::store::{ObjectKind, Store};
use lastgood_model::{ErrorKind, PackId};
use lastgood_repo::lock::system_clock;
use lastgood_repo::{LockMode, Repository};
use lastgood_stores::{Fault, FaultStore, Op};
use std::sync::Arc;

/// Two points, the first forgotten: the pack of data is needed by half. Gives its name.
fn half_needed(seed: u64) -> (Vault, lastgood_model::store::StoreKey) {
    let mut vault = Vault::new(seed);
    let (kept, lost) = (vault.rng.bytes(1 << 20), vault.rng.bytes(1 << 20));
    let first = vault.save(&[("kept", &kept), ("lost", &lost)]);
    let packs = vault.rig.keys_of(ObjectKind::Pack);
    let pack = packs.into_iter().max_by_key(|key| vault.rig.store.size(key).unwrap()).unwrap();
    vault.save(&[("kept", &kept)]);
    vault.forget(first);
    (vault, pack)
}

#[test]
fn a_pack_in_which_something_needed_is_damaged_stays_and_is_named() {
    let (vault, pack) = half_needed(30);
    // Anywhere among the blobs; half of them are needed.
    let mut named = 0;
    for at in (1000..2_000_000).step_by(150_000) {
        let rig = vault.rig.over(vault.rig.store.fork());
        rig.store.damage(&pack, |bytes| bytes[at] ^= 4).unwrap();
        let report = run(&rig.open()).unwrap();
        if report.kept.is_empty() {
            continue;
        }
        assert_eq!(report.kept[0].pack, PackId(pack.id));
        assert!(rig.store.size(&pack).is_ok(), "the damaged pack was removed");
        named += 1;
    }
    assert!((3..12).contains(&named), "{named} of 14");
}

#[test]
fn of_several_copies_a_sound_one_stays_whichever_is_listed_first() {
    let mut vault = Vault::new(31);
    let content = vault.rng.bytes(600_000);
    let first = vault.save(&[("a", &content)]);
    // Another writer stored the same again, since it could not see the first.
    let other = vault.rig.over(vault.rig.store.fork());
    for key in other.keys_of(ObjectKind::Index) {
        let lock = other.open().lock(LockMode::Shared).unwrap();
        other.store.remove(&key).unwrap();
        save(&other.open(), Chunking::Rows, &[("a", &content)]).unwrap();
        drop(lock);
    }
    for key in other.store.keys() {
        if matches!(key.kind, ObjectKind::Pack | ObjectKind::Index) {
            vault.rig.store.put(&key, &[&other.store.get(&key).unwrap()]).unwrap();
        }
    }
    let data: Vec<_> = vault
        .rig
        .keys_of(ObjectKind::Pack)
        .into_iter()
        .filter(|k| vault.rig.store.size(k).unwrap() > 500_000)
        .collect();
    assert_eq!(data.len(), 2, "the content is there twice");
    for spoilt in data {
        let rig = vault.rig.over(vault.rig.store.fork());
        rig.store.damage(&spoilt, |bytes| bytes[1000..500_000].fill(7)).unwrap();
        run(&rig.open()).unwrap();
        let found = crate::rig::contents(&rig.open(), first).unwrap();
        assert!(found["db/a"] == content, "the sound copy was removed");
    }
    let report = run(&vault.rig.open()).unwrap();
    assert!(report.bytes_removed > 500_000, "{report:?}");
    vault.assert_kept();
}

#[test]
fn nothing_goes_while_it_cannot_be_told_what_is_needed() {
    let base = Vault::half_forgotten(32, 4, 200_000);
    let victims = [ObjectKind::Index, ObjectKind::Pack, ObjectKind::Snapshot];
    for kind in victims {
        for key in base.rig.keys_of(kind) {
            let rig = base.rig.over(base.rig.store.fork());
            rig.store.damage(&key, |bytes| bytes.truncate(bytes.len() / 2)).unwrap();
            let before = rig.store.keys();
            match run(&rig.open()) {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{key}: {error:?}");
                    assert!(error.hint().is_some(), "{key}");
                    assert_eq!(rig.store.keys(), before, "{key}: something was changed");
                }
                // Damage to what nobody needs is no reason.
                Ok(_) => assert_eq!(kind, ObjectKind::Pack, "{key}"),
            }
        }
    }
}

#[test]
fn what_a_dead_run_left_goes_only_when_nobody_can_still_mean_it() {
    let rig_with_leftovers = || {
        let vault = Vault::half_forgotten(33, 2, 100_000);
        let store = Arc::new(FaultStore::new(vault.rig.store.clone()));
        store.add(Fault::on(Op::Put).of(ObjectKind::Index).cuts_power());
        let repository = vault.rig.open_through(store, system_clock()).unwrap();
        assert!(save(&repository, Chunking::Rows, &[("new", &vec![5; 300_000])]).is_err());
        vault
    };
    let loose = |vault: &Vault| {
        let listed = vault.rig.open().load_index().unwrap().packs();
        vault.rig.keys_of(ObjectKind::Pack).iter().filter(|key| !listed.contains(&PackId(key.id))).count()
    };
    let at = |vault: &Vault, seconds| -> Arc<Repository> { vault.rig.open_at(clock_off_by(seconds)) };
    // Its lock looks alive: packs stay, and removal waits.
    let vault = rig_with_leftovers();
    let left = loose(&vault);
    assert!(left > 0);
    assert!(run(&at(&vault, 0)).unwrap().deferred.is_some());
    assert_eq!(loose(&vault), left);
    // The lock is found dead: the next backup may still want to take them over, and does.
    let vault = rig_with_leftovers();
    run(&at(&vault, 1900)).unwrap();
    assert_eq!(loose(&vault), left);
    let fork = vault.fork();
    assert!(save(&at(&fork, 1900), Chunking::Rows, &[("new", &vec![5; 300_000])]).unwrap().adopted > 0);
    // If none does, the next prune takes them.
    run(&at(&vault, 1900)).unwrap();
    assert_eq!(loose(&vault), 0);
    vault.assert_kept();
}

#[test]
fn what_the_store_holds_stays_doomed_until_it_lets_go() {
    let vault = Vault::half_forgotten(34, 4, 200_000);
    let store = Arc::new(FaultStore::new(vault.rig.store.clone()));
    store.add(Fault::on(Op::Remove).of(ObjectKind::Pack).lasting().fails_before(ErrorKind::Held));
    let repository = vault.rig.open_through(store.clone(), system_clock()).unwrap();
    let packs = vault.packs();
    for _ in 0..2 {
        let report = run(&repository).unwrap();
        assert!(report.packs_held > 0 && report.bytes_held > 0 && report.packs_removed == 0, "{report:?}");
        assert!(vault.packs() >= packs);
        vault.assert_kept();
        assert!(gc_objects(&vault.rig.store).iter().any(|name| name.starts_with("doom-")));
        assert_eq!(save(&vault.rig.open(), Chunking::Rows, &[]).map(|saved| saved.adopted).unwrap(), 0);
        for id in vault.rig.snapshots().into_iter().filter(|id| !vault.points.contains_key(id)) {
            vault.rig.store.remove(&lastgood_model::store::StoreKey::new(ObjectKind::Snapshot, id)).unwrap();
        }
    }
    store.mend();
    let report = run(&repository).unwrap();
    assert!(report.packs_removed > 0 && report.packs_held == 0, "{report:?}");
    vault.assert_kept();
    assert_settled(&vault.rig.store, "");
}

#[test]
fn a_full_store_is_pruned_dead_packs_first() {
    let vault = Vault::half_forgotten(35, 6, 400_000);
    let mut freed = 0;
    for room in (0..40_000).step_by(2_000) {
        let vault = vault.fork();
        let store = Arc::new(FaultStore::new(vault.rig.store.clone()));
        let repository = vault.rig.open_through(store.clone(), system_clock()).unwrap();
        store.fill_after(Some(room));
        let outcome = run(&repository);
        store.fill_after(None);
        vault.assert_kept_at(&vault.rig.open_at(clock_off_by(1900)), &format!("{room} bytes of room"));
        match outcome {
            Ok(report) => freed += u32::from(report.packs_removed > 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{room}: {error:?}"),
        }
    }
    assert!(freed > 10, "{freed} of 20 made room");
}

#[test]
fn room_that_was_set_aside_lets_a_store_without_a_byte_left_be_pruned() {
    let mut vault = Vault::half_forgotten(37, 6, 400_000);
    run(&vault.rig.open()).unwrap();
    let set_aside = vault.rig.store.side().unwrap().list_side("reserve").unwrap();
    assert_eq!(set_aside.len(), 1);
    assert!(set_aside[0].1 > 10_000, "{set_aside:?}");
    let id = *vault.points.keys().next().unwrap();
    vault.forget(id);
    let store = Arc::new(FaultStore::new(vault.rig.store.clone()));
    store.fill_after(Some(0));
    let repository = vault.rig.open_through(store, system_clock()).unwrap();
    assert!(run(&repository).unwrap().packs_removed > 0);
    vault.assert_kept();
}

#[test]
fn a_store_without_a_side_directory_is_pruned_under_the_lock_alone() {
    let vault = Vault::half_forgotten(36, 4, 200_000);
    let plain = Arc::new(Plain(vault.rig.store.clone()));
    let repository = vault.rig.open_through(plain, system_clock()).unwrap();
    assert!(run(&repository).unwrap().packs_removed > 0);
    vault.assert_kept();
    assert!(gc_objects(&vault.rig.store).is_empty());
    let _ = Forge::new(Arc::new(vault.rig.store.clone()), &vault.rig.password);
}

/// Takes the repository's own objects and no others.
#[derive(Debug)]
struct Plain(lastgood_stores::MemoryStore);

impl Store for Plain {
    fn location(&self) -> String {
        self.0.location()
    }
    fn capabilities(&self) -> lastgood_model::store::Capabilities {
        self.0.capabilities()
    }
    fn create(&self) -> lastgood_model::Result<()> {
        self.0.create()
    }
    fn put(&self, key: &lastgood_model::store::StoreKey, parts: &[&[u8]]) -> lastgood_model::Result<()> {
        self.0.put(key, parts)
    }
    fn sync(&self) -> lastgood_model::Result<()> {
        self.0.sync()
    }
    fn get(&self, key: &lastgood_model::store::StoreKey) -> lastgood_model::Result<Vec<u8>> {
        self.0.get(key)
    }
    fn get_range(
        &self,
        key: &lastgood_model::store::StoreKey,
        at: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> lastgood_model::Result<()> {
        self.0.get_range(key, at, length, out)
    }
    fn size(&self, key: &lastgood_model::store::StoreKey) -> lastgood_model::Result<u64> {
        self.0.size(key)
    }
    fn list(&self, kind: ObjectKind) -> lastgood_model::Result<Vec<(lastgood_model::Id, u64)>> {
        self.0.list(kind)
    }
    fn remove(&self, key: &lastgood_model::store::StoreKey) -> lastgood_model::Result<()> {
        self.0.remove(key)
    }
}
