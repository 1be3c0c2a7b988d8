//! Others at work beside a prune: backups that rely on what is doomed, pruners, and whoever slept too long.

use super::late::{AsLateAs, lose_locks};
use super::{Vault, assert_settled, gc_objects, run, thorough};
use crate::rig::{begin, contents, save, spec, stream, verdict};
use lastgood_model::source::Chunking;
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{ErrorKind, Monitor};
use lastgood_repo::gc::{PruneOptions, prune};
use lastgood_repo::lock::system_clock;
use lastgood_repo::{LockMode, Session};
use lastgood_stores::Op;
use lastgood_testkit::rng::Rng;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Writes one file into a session.
fn fill(session: &Session, path: &str, content: &[u8]) {
    let sink = session.source("db").unwrap();
    let mut writer = stream(&sink, path, Chunking::Rows);
    writer.write(content).unwrap();
    writer.finish(verdict()).unwrap();
}

/// One point whose content a session is about to rely on, then forgotten.
fn forgotten(seed: u64) -> (Vault, Vec<u8>) {
    let mut vault = Vault::new(seed);
    let (content, other) = (vault.rng.bytes(500_000), vault.rng.bytes(200_000));
    let old = vault.save(&[("a", &content)]);
    vault.save(&[("z", &other)]);
    vault.forget(old);
    (vault, content)
}

#[test]
fn what_a_backup_that_runs_relies_on_is_doomed_waits_and_is_rescued() {
    let (mut vault, content) = forgotten(20);
    let (session, _) = begin(&vault.rig.open()).unwrap();
    let report = run(&vault.rig.open()).unwrap();
    let deferred = report.deferred.unwrap();
    assert!(deferred.packs > 0 && deferred.bytes >= 500_000, "{deferred:?}");
    assert!(deferred.reason.contains("locked by process"), "{deferred:?}");
    assert_eq!(report.packs_removed, 0);
    let packs = vault.packs();
    assert_eq!(gc_objects(&vault.rig.store).len(), 1);

    fill(&session, "a", &content);
    let id = session.publish(spec(&["db"])).unwrap().snapshot.id;
    assert!(vault.packs() <= packs + 2, "the content was stored again");
    vault.remember(id, &[("a", &content)]);
    let report = run(&vault.rig.open()).unwrap();
    assert!(report.resumed && report.packs_rescued > 0, "{report:?}");
    vault.assert_kept();
    assert_settled(&vault.rig.store, "");
}

#[test]
fn a_backup_that_begins_when_packs_are_doomed_does_not_rely_on_them() {
    let (mut vault, content) = forgotten(21);
    let reading = vault.rig.open().lock(LockMode::Reading).unwrap();
    assert!(run(&vault.rig.open()).unwrap().deferred.is_some());
    let saved = save(&vault.rig.open(), Chunking::Rows, &[("a", &content)]).unwrap();
    assert!(saved.stored().1 >= 500_000, "it relied on doomed packs");
    vault.remember(saved.id(), &[("a", &content)]);
    drop(reading);
    let report = run(&vault.rig.open()).unwrap();
    assert!(report.resumed && report.bytes_removed >= 500_000, "{report:?}");
    vault.assert_kept();
    // Nor are they taken over as what a dead run left behind.
    assert_eq!(save(&vault.rig.open(), Chunking::Rows, &[("b", b"more")]).unwrap().adopted, 0);
}

#[test]
fn a_backup_that_slept_while_others_pruned_publishes_nothing() {
    for begun_before in [true, false] {
        let (vault, content) = forgotten(22);
        let (session, _) = begin(&vault.rig.open()).unwrap();
        if begun_before {
            fill(&session, "a", &content);
        }
        lose_locks(&vault.rig);
        assert!(run(&vault.rig.open()).unwrap().packs_removed > 0);
        if !begun_before {
            fill(&session, "a", &content);
        }
        let error = session.publish(spec(&["db"])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
        vault.assert_kept();
    }
}

#[test]
fn a_pack_that_a_pruner_finishes_removing_between_two_looks_is_noticed() {
    let (vault, content) = forgotten(26);
    let late = AsLateAs::list_side(&vault.rig.store);
    let repository = vault.rig.open_through(late.clone(), system_clock()).unwrap();
    let (session, _) = begin(&repository).unwrap();
    fill(&session, "a", &content);
    lose_locks(&vault.rig);
    // The lists of doomed packs are asked for: a pruner that had slept removes its last pack, and its list.
    let rig = vault.rig.over(vault.rig.store.clone());
    late.arm(move || {
        let packs = rig.keys_of(ObjectKind::Pack);
        let largest = packs.into_iter().max_by_key(|key| rig.store.size(key).unwrap()).unwrap();
        rig.store.remove(&largest).unwrap();
    });
    let error = session.publish(spec(&["db"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
    assert_eq!(vault.rig.snapshots().len(), 1);
}

#[test]
fn a_backup_that_slept_between_its_last_look_and_its_recovery_point_takes_it_back() {
    let (vault, content) = forgotten(23);
    // At the moment the snapshot is written, all that happened during the sleep has happened.
    let rig = vault.rig.over(vault.rig.store.clone());
    let slept = AsLateAs::new(&vault.rig.store, Op::Put, ObjectKind::Snapshot, move || {
        lose_locks(&rig);
        assert!(run(&rig.open()).unwrap().packs_removed > 0);
    });
    let repository = vault.rig.open_through(slept, system_clock()).unwrap();
    let (session, _) = begin(&repository).unwrap();
    fill(&session, "a", &content);
    let error = session.publish(spec(&["db"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
    vault.assert_kept();
}

#[test]
fn a_pruner_that_slept_takes_nothing_from_whoever_began_meanwhile() {
    for (kind, another_prunes) in
        [(ObjectKind::Pack, false), (ObjectKind::Pack, true), (ObjectKind::Index, false), (ObjectKind::Index, true)]
    {
        let (mut vault, content) = forgotten(27);
        let made = Arc::new(Mutex::new(None));
        let (rig, told, again) = (vault.rig.over(vault.rig.store.clone()), made.clone(), content.clone());
        // It falls asleep with its list claimed, when the first index file or pack is about to go.
        let slept = AsLateAs::new(&vault.rig.store, Op::Remove, kind, move || {
            lose_locks(&rig);
            *told.lock().unwrap() = Some(save(&rig.open(), Chunking::Rows, &[("a", &again)]).unwrap().id());
            if another_prunes {
                run(&rig.open()).unwrap();
            }
        });
        let repository = vault.rig.open_through(slept, system_clock()).unwrap();
        let outcome = run(&repository);
        let id = made.lock().unwrap().take().unwrap();
        vault.remember(id, &[("a", &content)]);
        vault.assert_kept_at(&vault.rig.open(), &format!("{kind:?} {another_prunes} {outcome:?}"));
        run(&vault.rig.open()).unwrap();
        vault.assert_kept();
        assert_settled(&vault.rig.store, "");
    }
}

#[test]
fn a_list_is_void_once_somebody_else_has_pruned() {
    let (mut vault, content) = forgotten(24);
    let reading = vault.rig.open().lock(LockMode::Reading).unwrap();
    assert!(run(&vault.rig.open()).unwrap().deferred.is_some());
    drop(reading);
    // Another program's prune: the index is another, and it may stand on what the list dooms.
    let saved = save(&vault.rig.open(), Chunking::Rows, &[("b", b"between")]).unwrap();
    vault.remember(saved.id(), &[("b", b"between")]);
    let mut refused = 0;
    for gone in vault.rig.keys_of(ObjectKind::Index) {
        let fork = vault.fork();
        let bytes = fork.rig.store.get(&gone).unwrap();
        fork.rig.store.remove(&gone).unwrap();
        match run(&fork.rig.open()) {
            Ok(report) => assert!(!report.resumed || !content.is_empty()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{gone}: {error:?}");
                refused += 1;
                fork.rig.store.put(&gone, &[&bytes]).unwrap();
                assert!(run(&fork.rig.open()).unwrap().packs_removed > 0);
            }
        }
        fork.assert_kept();
    }
    assert!(refused > 0, "a list was carried out that was void");
}

#[test]
fn of_two_pruners_that_decided_at_once_one_removes() {
    let vault = Vault::half_forgotten(25, 6, 200_000);
    let reports: Vec<_> = std::thread::scope(|scope| {
        let options = PruneOptions { lock_wait: Duration::from_secs(20), ..thorough() };
        let rig = &vault.rig;
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(move || prune(&rig.open(), &Monitor::new(), &options))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(reports.iter().any(|report| report.as_ref().is_ok_and(|report| report.packs_removed > 0)), "{reports:?}");
    vault.assert_kept();
    run(&vault.rig.open()).unwrap();
    vault.assert_kept();
    assert_settled(&vault.rig.store, "");
}

#[test]
fn backups_and_prunes_at_once_lose_nothing() {
    let mut vault = Vault::new(26);
    let pool: Vec<Vec<u8>> = (0..6).map(|_| vault.rng.bytes(90_000)).collect();
    let (rig, done, points) = (&vault.rig, AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2u64)
            .map(|writer| {
                let (pool, points) = (&pool, &points);
                scope.spawn(move || {
                    let mut rng = Rng::new(100 + writer);
                    for _ in 0..12 {
                        let files: Vec<(&str, &[u8])> =
                            ["a", "b"].iter().map(|name| (*name, &rng.pick(pool)[..])).collect();
                        // A pruner at work is waited for.
                        let saved = loop {
                            match save(&rig.open(), Chunking::Rows, &files) {
                                Err(error) if error.kind() == ErrorKind::Locked => std::thread::yield_now(),
                                other => break other.unwrap(),
                            }
                        };
                        points.lock().unwrap().push((saved.id(), [files[0].1.to_vec(), files[1].1.to_vec()]));
                        // Old ones go.
                        let old = {
                            let mut points = points.lock().unwrap();
                            if points.len() > 4 { Some(points.remove(0).0) } else { None }
                        };
                        if let Some(id) = old {
                            rig.store.remove(&StoreKey::new(ObjectKind::Snapshot, id)).unwrap();
                        }
                    }
                })
            })
            .collect();
        let pruner = scope.spawn(|| {
            let mut removed = 0;
            let options = PruneOptions { lock_wait: Duration::from_millis(50), ..thorough() };
            while !done.load(Ordering::Relaxed) {
                match prune(&rig.open(), &Monitor::new(), &options) {
                    Ok(report) => removed += report.packs_removed,
                    // A point that was listed and is removed a moment later can no longer be followed.
                    Err(error) => assert!(matches!(error.kind(), ErrorKind::Locked | ErrorKind::Retry), "{error:?}"),
                }
            }
            removed
        });
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(pruner.join().unwrap() > 0, "nothing was ever pruned");
        ended.into_iter().for_each(|end| end.unwrap());
    });
    for (id, [a, b]) in points.into_inner().unwrap() {
        vault.remember(id, &[("a", &a), ("b", &b)]);
    }
    vault.assert_kept();
    run(&vault.rig.open()).unwrap();
    vault.assert_kept();
    let id = *vault.points.keys().next().unwrap();
    assert_eq!(contents(&vault.rig.open(), id).unwrap().len(), 2);
}
