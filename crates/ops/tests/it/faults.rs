//! A store that fails at every single call in turn: the backup says so, what was saved before stays whole, and the next
//! run succeeds.

use crate::rig::{Rig, backup_with, files, restore_with};
use lastgood_model::source::Source;
use lastgood_model::store::{ObjectKind, Store};
use lastgood_model::{ErrorKind, Result, SnapshotId};
use lastgood_ops::backup::{BackupOptions, BackupReport};
use lastgood_ops::restore::{RestoreReport, RestoreRequest};
use lastgood_repo::Repository;
use lastgood_repo::crypto::Password;
use lastgood_repo::{LockMode, OpenOptions};
use lastgood_sources::command::CommandSource;
use lastgood_stores::{Fault, FaultStore, MemoryStore, Op, RecordStore};
use lastgood_testkit::compare::{TreeState, scan};
use lastgood_testkit::rng::Rng;
use std::path::PathBuf;
use std::sync::Arc;

/// A repository with one recovery point, and a tree and a dump that have changed since.
struct Stage {
    rig: Rig,
    base: MemoryStore,
    first: SnapshotId,
    /// The tree as it was.
    then: TreeState,
    tree: PathBuf,
}

/// What a database would print, from a program that prints it.
fn dump(rig: &Rig) -> Box<dyn Source> {
    let argv = vec!["cat".to_owned(), rig.path("dump").display().to_string()];
    Box::new(CommandSource::new("dump", argv, "rows"))
}

impl Stage {
    fn set() -> Self {
        let (rig, base) = Rig::in_memory();
        let mut rng = Rng::new(1);
        let tree = rig.plant(&[("old/a", &rng.bytes(60_000)), ("old/b", b"small"), ("changed", &rng.text(9000))]);
        fs_err::write(rig.path("dump"), rng.text(30_000)).unwrap();
        let sources = [files("files", [tree.clone()]), dump(&rig)];
        let first = rig.backup(&sources).unwrap().snapshot.unwrap();
        let then = scan(&tree).unwrap();
        rig.plant(&[("changed", &rng.text(9500)), ("new/c", &rng.bytes(200_000)), ("new/d", &rng.text(4000))]);
        fs_err::write(rig.path("dump"), rng.text(31_000)).unwrap();
        Self { rig, base, first, then, tree }
    }

    fn sources(&self) -> [Box<dyn Source>; 2] {
        [files("files", [self.tree.clone()]), dump(&self.rig)]
    }

    fn open(&self, store: Arc<dyn Store>) -> Result<Arc<Repository>> {
        let password: &Password = &self.rig.password;
        Repository::open(store, password, OpenOptions::default()).map(Arc::new)
    }

    /// A backup from the opening of the repository on.
    fn backup(&self, store: Arc<dyn Store>) -> Result<BackupReport> {
        backup_with(&self.open(store)?, &self.sources(), &BackupOptions::default())
    }

    fn restore(&self, store: Arc<dyn Store>, id: SnapshotId, to: &str) -> Result<RestoreReport> {
        restore_with(&self.open(store)?, id, RestoreRequest::all_to(self.rig.path(to)))
    }

    /// Everything in a store is whole, the first point restores as it was taken, and any other as the tree is now.
    #[track_caller]
    fn assert_whole(&self, store: &MemoryStore, context: &str) -> Vec<SnapshotId> {
        let repository = self.open(Arc::new(store.clone())).unwrap_or_else(|e| panic!("{context}: {e:?}"));
        crate::rig::assert_sound(&repository);
        let listed = repository.snapshots(|id, e| panic!("{context}: snapshot {id}: {e:?}")).unwrap();
        let ids: Vec<SnapshotId> = listed.into_iter().map(|s| s.id).collect();
        assert!(ids.contains(&self.first), "{context}: the first point is gone");
        let now = scan(&self.tree).unwrap();
        for id in &ids {
            let report =
                self.restore(Arc::new(store.clone()), *id, "check").unwrap_or_else(|e| panic!("{context}: {e:?}"));
            assert_eq!(report.failures_total, 0, "{context}: {report:?}");
            let restored = scan(&self.rig.restored("check", "files", &self.tree)).unwrap();
            assert!(restored == if *id == self.first { self.then.clone() } else { now.clone() }, "{context}: {id}");
            fs_err::remove_dir_all(self.rig.path("check")).unwrap();
        }
        ids
    }
}

#[test]
fn every_call_of_a_backup_may_fail_before_or_after_it_was_done() {
    let stage = Stage::set();
    let recorded = Arc::new(RecordStore::new(stage.base.fork()));
    stage.backup(recorded.clone()).unwrap();
    let calls = recorded.calls();
    assert!(calls.len() > 20);
    let of_snapshot = |c: &lastgood_stores::Call| c.op == Op::Put && c.kind == Some(ObjectKind::Snapshot);
    let published = calls.iter().position(of_snapshot).unwrap() as u64 + 1;
    let mut failed = 0;
    for nth in 1..=calls.len() as u64 + 3 {
        for (what, fault) in [
            ("NoSpace before", Fault::on_any().nth(nth).fails_before(ErrorKind::NoSpace)),
            ("Io before", Fault::on_any().nth(nth).fails_before(ErrorKind::Io)),
            ("Io after", Fault::on_any().nth(nth).fails_after(ErrorKind::Io)),
            ("Io from then on", Fault::on_any().from_nth(nth).fails_before(ErrorKind::Io)),
        ] {
            let memory = stage.base.fork();
            let store = Arc::new(FaultStore::new(memory.clone()).with(fault));
            let outcome = stage.backup(store.clone());
            store.mend();
            let context = format!("{what} call {nth}");
            match outcome {
                Ok(report) => {
                    // What a run does about its own lock may fail, for all that depends on it has been done by then; and
                    // where the parent cannot be read, its files are read again.
                    let about = calls.get(nth as usize - 1);
                    let harmless = about.is_none_or(|c| match c.op {
                        Op::Remove | Op::Size => c.kind == Some(ObjectKind::Lock),
                        Op::GetRange => c.kind == Some(ObjectKind::Pack),
                        _ => false,
                    });
                    assert!(harmless || store.fired() == 0, "{context}: {about:?} failed and nobody was told");
                    let ids = stage.assert_whole(&memory, &context);
                    assert!(ids.contains(&report.snapshot.unwrap()) && report.complete, "{context}");
                }
                Err(error) => {
                    failed += 1;
                    assert!(matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::Io), "{context}: {error:?}");
                    let ids = stage.assert_whole(&memory, &context);
                    // Once the snapshot is written, only whether it is durable may be unknown; before, there is none.
                    assert!(ids.len() == 1 || nth >= published, "{context}: a point was made and not told");
                }
            }
            let next = stage.backup(Arc::new(memory.clone())).unwrap_or_else(|e| panic!("{context}: next: {e:?}"));
            assert!(next.complete, "{context}: {:?} {:?}", next.problems, next.sources);
            let ids = stage.assert_whole(&memory, &format!("{context}, next run"));
            assert!(ids.contains(&next.snapshot.unwrap()), "{context}");
        }
    }
    assert!(failed > 60, "{failed}");
}

#[test]
fn an_object_torn_while_it_was_written_is_told_and_costs_nothing_that_was_saved_before() {
    // Against the contract of stores, as a broken one might: part of an object stays under its name.
    let stage = Stage::set();
    let mut torn = 0;
    for kind in [ObjectKind::Lock, ObjectKind::Pack, ObjectKind::Index, ObjectKind::Snapshot] {
        for nth in 1..4 {
            for kept in [0, 10, 100] {
                let memory = stage.base.fork();
                let fault = Fault::on(Op::Put).of(kind).nth(nth).tears_put(kept);
                let store = Arc::new(FaultStore::new(memory.clone()).with(fault));
                let outcome = stage.backup(store.clone());
                if store.fired() == 0 {
                    continue;
                }
                torn += 1;
                let context = format!("{kind:?} {nth} torn at {kept}");
                assert!(outcome.is_err(), "{context}");
                // The point of before is all there, whatever lies about.
                let report = stage.restore(Arc::new(memory.clone()), stage.first, "torn").unwrap();
                assert_eq!(report.failures_total, 0, "{context}");
                assert!(scan(&stage.rig.restored("torn", "files", &stage.tree)).unwrap() == stage.then, "{context}");
                fs_err::remove_dir_all(stage.rig.path("torn")).unwrap();
                let next = stage.backup(Arc::new(memory.clone())).unwrap_or_else(|e| panic!("{context}: {e:?}"));
                let report = stage.restore(Arc::new(memory.clone()), next.snapshot.unwrap(), "torn").unwrap();
                assert_eq!(report.failures_total, 0, "{context}");
                assert!(scan(&stage.rig.restored("torn", "files", &stage.tree)).unwrap() == scan(&stage.tree).unwrap());
                fs_err::remove_dir_all(stage.rig.path("torn")).unwrap();
            }
        }
    }
    assert!(torn >= 15, "{torn}");
}

#[test]
fn a_device_that_is_full_at_any_byte_keeps_what_it_has() {
    let stage = Stage::set();
    let needed = {
        let memory = stage.base.fork();
        let before = memory.used_bytes();
        stage.backup(Arc::new(memory.clone())).unwrap();
        memory.used_bytes() - before
    };
    let mut refused = 0;
    // From not a byte left, through the middle of each object, to room for all but the last byte.
    let steps = (0..12).map(|i| needed * i / 12).chain([1, 300, needed - 400, needed - 1, needed + 1000]);
    for room in steps {
        let memory = stage.base.fork();
        memory.set_quota(Some(memory.used_bytes() + room));
        let context = format!("room for {room} of {needed} bytes");
        match stage.backup(Arc::new(memory.clone())) {
            Ok(report) => assert!(report.complete, "{context}"),
            Err(error) => {
                refused += 1;
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{context}: {error:?}");
            }
        }
        stage.assert_whole(&memory, &context);
        assert!(memory.keys().iter().all(|key| key.kind != ObjectKind::Lock), "{context}: a lock stayed");
        memory.set_quota(None);
        let next = stage.backup(Arc::new(memory.clone())).unwrap();
        assert!(next.complete, "{context}: {:?} {:?}", next.problems, next.sources);
        stage.assert_whole(&memory, &format!("{context}, then enough"));
    }
    assert!(refused >= 12, "{refused}");
}

#[test]
fn every_call_of_a_restore_may_fail_and_repeating_it_restores_all() {
    let stage = Stage::set();
    let second = stage.backup(Arc::new(stage.base.clone())).unwrap().snapshot.unwrap();
    let now = scan(&stage.tree).unwrap();
    let recorded = Arc::new(RecordStore::new(stage.base.clone()));
    stage.restore(recorded.clone(), second, "count").unwrap();
    let calls = recorded.calls();
    assert!(calls.len() > 15);
    let mut failed = 0;
    for nth in 1..=calls.len() as u64 + 1 {
        for (what, kind, lasting) in
            [("Io", ErrorKind::Io, false), ("Retry", ErrorKind::Retry, false), ("dead", ErrorKind::Io, true)]
        {
            let fault = match lasting {
                true => Fault::on_any().from_nth(nth),
                false => Fault::on_any().nth(nth),
            };
            let store = Arc::new(FaultStore::new(stage.base.clone()).with(fault.fails_before(kind)));
            let context = format!("{what} at call {nth}");
            let to = format!("to-{nth}-{what}");
            let outcome = stage.restore(store.clone(), second, &to);
            let restored = stage.rig.restored(&to, "files", &stage.tree);
            let is_whole = restored.exists() && scan(&restored).unwrap() == now;
            let said_whole = outcome.as_ref().is_ok_and(|report| report.failures_total == 0);
            assert!(!said_whole || is_whole, "{context}: {outcome:?}");
            failed += u32::from(!said_whole);
            store.mend();
            let request = RestoreRequest { overwrite: true, ..RestoreRequest::all_to(stage.rig.path(&to)) };
            let again = restore_with(&stage.open(store).unwrap(), second, request).unwrap();
            assert_eq!(again.failures_total, 0, "{context}: {again:?}");
            assert!(scan(&restored).unwrap() == now, "{context}");
            fs_err::remove_dir_all(stage.rig.path(&to)).unwrap();
        }
    }
    assert!(failed > 30, "{failed}");
    // Whatever happened, nobody is locked out in the end but by locks of this very process, which still lives.
    drop(stage.open(Arc::new(stage.base.clone())).unwrap().lock(LockMode::Shared).unwrap());
}
