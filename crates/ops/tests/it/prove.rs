//! A proof finds what is wrong, says nothing against what is right, and leaves nothing behind.

use crate::rig::{Rig, files, folder, make_database, sqlite};
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{ErrorKind, Monitor, SnapshotId};
use lastgood_ops::prove::{Phase, ProofReport, prove, require};
use lastgood_stores::MemoryStore;
use lastgood_testkit::tree_fixture::{self, Options};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

impl Rig {
    fn prove(&self, id: SnapshotId) -> lastgood_model::Result<ProofReport> {
        let repository = self.open();
        let scratch = folder();
        let snapshot = repository.snapshot(id)?;
        let outcome = prove(&repository, snapshot, scratch.path(), &BTreeMap::new(), &mut |_| Arc::new(Monitor::new()));
        let left: Vec<PathBuf> = fs_err::read_dir(scratch.path()).unwrap().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "the proof left {left:?}");
        outcome
    }
}

fn odd(rig: &Rig) -> SnapshotId {
    let options = Options { small_files: 60, large_bytes: 3 << 20, sparse_bytes: 4 << 20, ..Options::default() };
    tree_fixture::build(&rig.path("tree"), &options).unwrap();
    make_database(&rig.path("app.db"), 2000);
    let sources = [files("files", [rig.path("tree")]), sqlite("db", &rig.path("app.db"))];
    rig.backup(&sources).unwrap().snapshot.unwrap()
}

#[test]
fn an_odd_tree_and_a_database_are_proven() {
    let (rig, _) = Rig::in_memory();
    let id = odd(&rig);
    let report = rig.prove(id).unwrap();
    assert!(report.is_proven() && require(&report).is_ok(), "{:#?}", report.mismatches);
    assert!(report.files > 100 && report.bytes > 20 << 20, "{report:?}");
    // All but the database, which is no file of the tree, stood still.
    assert_eq!(report.files_equal_to_original, report.files - 1);
    assert_eq!((report.databases.len(), report.databases[0].rows), (1, 2000));

    // A file that changed since says nothing against the point.
    fs_err::write(rig.path("tree/names/plain"), "since").unwrap();
    fs_err::remove_file(rig.path("tree/sizes/large")).unwrap();
    let later = rig.prove(id).unwrap();
    assert!(later.is_proven(), "{:#?}", later.mismatches);
    assert_eq!(later.files_equal_to_original, report.files_equal_to_original - 2);
}

#[test]
fn every_flipped_byte_that_matters_is_found() {
    let (rig, store) = Rig::in_memory();
    let id = odd(&rig);
    let packs: Vec<StoreKey> = store.keys().into_iter().filter(|key| key.kind == ObjectKind::Pack).collect();
    let mut found = 0;
    for pack in packs {
        let length = store.size(&pack).unwrap() as usize;
        for part in 0..6 {
            // The header at the very end is nothing that a restore needs.
            let position = (length * 9 / 10) * part / 6;
            let flip = |store: &MemoryStore| store.damage(&pack, |bytes| bytes[position] ^= 0x20).unwrap();
            flip(&store);
            match rig.prove(id) {
                Ok(report) => {
                    assert!(!report.is_proven(), "{pack} at {position} of {length}");
                    assert!(require(&report).is_err() && !report.mismatches.is_empty());
                }
                Err(error) => assert_eq!(error.kind(), lastgood_model::ErrorKind::Corrupt, "{error:?}"),
            }
            found += 1;
            flip(&store);
        }
    }
    assert!(found >= 12, "{found}");
    assert!(rig.prove(id).unwrap().is_proven());
}

#[test]
fn a_lost_pack_and_a_lost_index_are_found() {
    let (rig, store) = Rig::in_memory();
    rig.plant(&[("a", b"first")]);
    rig.backup_tree();
    rig.plant(&[("b", &[4; 50_000])]);
    let id = rig.backup_tree().snapshot.unwrap();
    assert!(rig.prove(id).unwrap().is_proven());
    for key in store.keys().into_iter().filter(|key| matches!(key.kind, ObjectKind::Pack | ObjectKind::Index)) {
        let bytes = store.get(&key).unwrap();
        store.remove(&key).unwrap();
        // The first run's directories are not needed any more; everything else is.
        let proven = rig.prove(id).is_ok_and(|report| report.is_proven());
        if proven {
            let repository = rig.open();
            let reader = repository.reader().unwrap();
            let used = lastgood_ops::browse::walk(
                &reader,
                repository.snapshot(id).unwrap().file.tree,
                b"",
                &Monitor::new(),
                |walked| {
                    for blob in walked.node.content.iter().flatten() {
                        reader.data(*blob)?;
                    }
                    Ok(lastgood_ops::browse::Descend::Yes)
                },
            );
            assert!(used.is_ok(), "{key} is needed, and its loss was not noticed");
        }
        store.put(&key, &[&bytes]).unwrap();
    }
}

#[test]
fn a_tree_deeper_than_any_path_may_be_long_is_proven() {
    let (rig, _) = Rig::in_memory();
    let options = Options { small_files: 16, large_bytes: 1000, beyond_path_max: true, ..Options::default() };
    tree_fixture::build(&rig.path("tree"), &options).unwrap();
    let id = rig.backup_tree().snapshot.unwrap();
    let report = rig.prove(id).unwrap();
    assert!(report.is_proven(), "{:#?}", report.mismatches);
}

type Phases = Vec<(Phase, Arc<Monitor>)>;

/// Proves with a monitor for each phase; `stop` is the one in which a stop is asked for.
fn in_phases(rig: &Rig, id: SnapshotId, stop: Option<Phase>) -> (Phases, Result<ProofReport, ErrorKind>) {
    let scratch = folder();
    let repository = rig.open();
    let mut phases = Phases::new();
    let mut stopped = false;
    let outcome =
        prove(&repository, repository.snapshot(id).unwrap(), scratch.path(), &BTreeMap::new(), &mut |phase| {
            let monitor = Arc::new(Monitor::new());
            stopped |= stop == Some(phase);
            if stopped {
                monitor.cancel();
            }
            phases.push((phase, monitor.clone()));
            monitor
        });
    assert_eq!(fs_err::read_dir(scratch.path()).unwrap().count(), 0, "a small scratch is removed all the same");
    (phases, outcome.map_err(|error| error.kind()))
}

#[test]
fn every_phase_counts_and_hears_the_wish_to_stop() {
    let (rig, _) = Rig::in_memory();
    let id = odd(&rig);
    let (phases, outcome) = in_phases(&rig, id, None);
    assert!(outcome.unwrap().is_proven());
    let names: Vec<Phase> = phases.iter().map(|(phase, _)| *phase).collect();
    assert_eq!(names, [Phase::Restore, Phase::Compare, Phase::Databases, Phase::Remove]);
    for (phase, monitor) in &phases[..3] {
        let (done, all) = (monitor.counters.bytes.load(Relaxed), monitor.counters.bytes_expected.load(Relaxed));
        assert!(all > 0 && done == all, "{phase:?}: {done} of {all}");
    }
    assert!(phases[3].1.counters.files.load(Relaxed) > 100);
    for phase in [Phase::Restore, Phase::Compare, Phase::Databases] {
        let (begun, outcome) = in_phases(&rig, id, Some(phase));
        assert_eq!(outcome.unwrap_err(), ErrorKind::Cancelled, "{phase:?}");
        let last: Vec<Phase> = begun.iter().rev().take(2).map(|(phase, _)| *phase).collect();
        assert_eq!(last, [Phase::Remove, phase]);
    }
    // At the very end all is done already.
    assert!(in_phases(&rig, id, Some(Phase::Remove)).1.unwrap().is_proven());
}
