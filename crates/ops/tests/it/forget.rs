//! Forgetting, with every call to the store failing in turn, and with others at work meanwhile.

use crate::rig::{Rig, backup_with, files};
use lastgood_model::retention::{Policies, Policy};
use lastgood_model::store::{ObjectKind, Store};
use lastgood_model::{ErrorKind, Monitor, Result, SnapshotId, Time};
use lastgood_ops::backup::BackupOptions;
use lastgood_ops::forget::{ForgetPlan, ForgetRequest, Forgotten, prepare, removals};
use lastgood_ops::holds;
use lastgood_ops::seen::Seen;
use lastgood_repo::lock::system_clock;
use lastgood_repo::{OpenOptions, Repository};
use lastgood_stores::{Fault, FaultStore, MemoryStore, Op, ReadOnlyStore, RecordStore};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A repository with four points, oldest first.
fn four() -> (Rig, MemoryStore, Vec<SnapshotId>) {
    let (rig, base) = Rig::in_memory();
    let tree = rig.plant(&[("a", b"first")]);
    for n in 0..4 {
        rig.plant(&[("a", format!("change {n}").as_bytes())]);
        backup_with(&rig.open(), &[files("files", [tree.clone()])], &BackupOptions::default()).unwrap();
    }
    let ids = rig.snapshots();
    (rig, base, ids)
}

fn request(last: u32) -> ForgetRequest {
    ForgetRequest {
        app: "shop".into(),
        policies: Policies::all(Policy { last, ..Policy::default() }),
        zone: jiff::tz::TimeZone::UTC,
        named: None,
        even_though: None,
    }
}

fn plan(repository: &Repository, request: ForgetRequest) -> Result<ForgetPlan> {
    let now = Time::new(system_clock()().secs + 1, 0);
    prepare(repository, request, &mut Seen::open(None, repository.id()), now)
}

fn forget(rig: &Rig, store: Arc<dyn Store>, last: u32) -> Result<Forgotten> {
    let repository = Repository::open(store, &rig.password, OpenOptions::default())?;
    plan(&repository, request(last))?.execute(&repository, &Monitor::new())
}

#[test]
fn every_call_of_a_forget_may_fail_before_or_after_it_was_done() {
    let (rig, base, ids) = four();
    let recorded = Arc::new(RecordStore::new(base.fork()));
    let gone: BTreeSet<SnapshotId> = forget(&rig, recorded.clone(), 2).unwrap().gone.into_iter().collect();
    assert_eq!(gone, ids[..2].iter().copied().collect());
    let calls = recorded.calls().len() as u64;
    let mut failed = 0;
    for nth in 1..=calls + 2 {
        for (what, fault) in [
            ("before", Fault::on_any().nth(nth).fails_before(ErrorKind::Io)),
            ("after", Fault::on_any().nth(nth).fails_after(ErrorKind::Io)),
            ("from then on", Fault::on_any().from_nth(nth).fails_before(ErrorKind::Io)),
        ] {
            let context = format!("{what} call {nth}");
            let memory = base.fork();
            let store = Arc::new(FaultStore::new(memory.clone()).with(fault));
            let outcome = forget(&rig, store.clone(), 2);
            store.mend();
            failed += usize::from(outcome.is_err());
            let repository = rig.open_through(Arc::new(memory.clone())).unwrap();
            let there: BTreeSet<SnapshotId> =
                repository.snapshots(|id, e| panic!("{context}: {id}: {e:?}")).unwrap().iter().map(|s| s.id).collect();
            assert!(ids[2..].iter().all(|id| there.contains(id)), "{context}: a point that was to stay is gone");
            // Whatever is gone was written down before it went.
            let noted = removals(&repository, |name, e| panic!("{context}: {name}: {e:?}")).unwrap();
            let noted: BTreeSet<SnapshotId> = noted.iter().flat_map(|r| &r.points).map(|point| point.id).collect();
            assert!(ids.iter().all(|id| there.contains(id) || noted.contains(id)), "{context}: gone without a note");
            if let Ok(forgotten) = outcome {
                assert!(forgotten.gone.iter().all(|id| !there.contains(id)), "{context}");
            }
            // The next run needs no hand.
            forget(&rig, Arc::new(memory.clone()), 2).unwrap_or_else(|e| panic!("{context}: next: {e:?}"));
            let left: Vec<SnapshotId> =
                repository.snapshots(|_, _| {}).unwrap().into_iter().map(|snapshot| snapshot.id).collect();
            assert_eq!(left, ids[2..], "{context}");
        }
    }
    assert!(failed > 20, "{failed}");
    rig.assert_sound();
}

#[test]
fn a_plan_that_others_have_overtaken_is_not_carried_out() {
    let (rig, _, ids) = four();
    let repository = rig.open();
    let prepared = plan(&repository, request(2)).unwrap();
    holds::add(&repository, ids[0], "wait", None).unwrap();
    let error = prepared.execute(&repository, &Monitor::new()).unwrap_err();
    assert_eq!((error.kind(), rig.snapshots().len()), (ErrorKind::Conflict, 4), "{error:?}");
    assert!(error.message().contains("a hold was put on"), "{error:?}");
    holds::remove(&repository, ids[0]).unwrap();
    // Two that each rely on what the other removes.
    let (mine, others) = (plan(&repository, request(2)).unwrap(), plan(&repository, request(1)).unwrap());
    others.execute(&repository, &Monitor::new()).unwrap();
    let error = mine.execute(&repository, &Monitor::new()).unwrap_err();
    assert_eq!((error.kind(), rig.snapshots()), (ErrorKind::Conflict, ids[3..].to_vec()), "{error:?}");
}

#[test]
fn a_store_that_removes_nothing_or_takes_no_notes_says_so() {
    let (rig, base, ids) = four();
    let denied = forget(&rig, Arc::new(ReadOnlyStore::new(base.clone())), 2).unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied, "{denied:?}");
    // An object that the store keeps until a date: all others go.
    let held = Fault::on(Op::Remove).of(ObjectKind::Snapshot).nth(1).fails_before(ErrorKind::Held);
    let forgotten = forget(&rig, Arc::new(FaultStore::new(base.clone()).with(held)), 2).unwrap();
    assert_eq!((forgotten.kept_by_store.len(), forgotten.gone.len()), (1, 1));
    assert_eq!(forgotten.gone.len() + rig.snapshots().len(), ids.len());
}
