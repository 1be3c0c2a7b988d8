//! How much a verification reads, and what it remembers.

use super::{Files, Fixture, about};
use lastgood_model::store::ObjectKind;
use lastgood_model::{ErrorKind, Monitor, Time};
use lastgood_repo::check::{Scope, VerifyOptions, VerifyReport, verify};
use lastgood_repo::{OpenOptions, Repository};
use lastgood_testkit::rng::Rng;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

const DAY: i64 = 24 * 60 * 60;
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A repository of many packs with data, and a clock to turn.
struct Clocked {
    fixture: Fixture,
    repository: Repository,
    now: Arc<AtomicI64>,
    folder: tempfile::TempDir,
}

impl Clocked {
    fn new(backups: u64) -> Self {
        let mut fixture = Fixture::empty();
        for n in 0..backups {
            let files: Files = [(format!("f{n}"), Rng::new(n + 100).bytes(3000))].into();
            fixture.backup(&files);
        }
        let now = Arc::new(AtomicI64::new(2_000_000_000));
        let (clock, store) = (now.clone(), Arc::new(fixture.store.clone()));
        let options =
            OpenOptions { clock: Arc::new(move || Time::new(clock.load(Relaxed), 0)), ..OpenOptions::default() };
        let repository = Repository::open(store, &fixture.password, options).unwrap();
        Self { fixture, repository, now, folder: tempfile::tempdir().unwrap() }
    }

    fn ledger(&self) -> std::path::PathBuf {
        self.folder.path().join("ledger")
    }

    fn run(&self, options: &VerifyOptions) -> VerifyReport {
        verify(&self.repository, &Monitor::new(), options).unwrap()
    }

    fn rolling(&self) -> VerifyReport {
        self.run(&VerifyOptions::rolling(MONTH, self.ledger()))
    }
}

#[test]
fn daily_rolling_runs_read_every_byte_within_the_period_and_notice_damage_when_its_turn_comes() {
    let clocked = Clocked::new(40);
    let pack = clocked.fixture.pack_of("f39");
    clocked.fixture.flip(&pack, 50);
    let mut found_on = None;
    let mut covered = Vec::new();
    for day in 0..30 {
        let report = clocked.rolling();
        covered.push(report.coverage.unwrap().covered_percent);
        if day < 20 {
            let part = report.bytes_verified as f64 / report.counts.bytes_stored as f64;
            // Packs of trees are read whole each day, as a check reads all directories.
            assert!(part < 0.8, "{part} in one day");
        }
        if !report.is_sound() {
            about(&report.damage, &pack.path());
            found_on.get_or_insert(day);
        }
        clocked.now.fetch_add(DAY, Relaxed);
    }
    assert!(found_on.is_some(), "the damage was never found");
    assert!(covered.is_sorted() || found_on.is_some(), "{covered:?}");
    let last = clocked.rolling();
    let coverage = last.coverage.unwrap();
    // All but the damaged pack, which counts as unverified until it is whole again.
    assert_eq!(coverage.packs_never_verified, 1);
    assert!(coverage.covered_percent > 95.0 && coverage.covered_percent < 100.0, "{coverage:?}");
    assert!(!last.is_sound(), "a damaged pack is looked at first, every time");
}

#[test]
fn a_ledger_remembers_and_without_one_everything_counts_as_unverified() {
    let clocked = Clocked::new(6);
    let all = VerifyOptions::all().with_ledger(clocked.ledger());
    let report = clocked.run(&all);
    assert_eq!((report.counts.packs, report.packs_verified), (12, 12));
    let coverage = report.coverage.unwrap();
    assert_eq!(
        (coverage.covered_percent, coverage.oldest_unverified_secs, coverage.packs_never_verified),
        (100.0, 0, 0)
    );
    clocked.now.fetch_add(3600, Relaxed);
    // An hour later the share of an hour is due, which is one pack, and the packs of trees are read anyway.
    let report = clocked.rolling();
    assert!((6..=7).contains(&report.packs_verified), "{}", report.packs_verified);
    assert_eq!(report.coverage.unwrap().oldest_unverified_secs, 3600);
    clocked.now.fetch_add(29 * DAY, Relaxed);
    assert_eq!(clocked.rolling().packs_verified, 12, "all of it is due before a next run as late as this one");

    fs_err::write(clocked.ledger(), "no ledger").unwrap();
    let report = clocked.rolling();
    assert!(report.is_sound());
    assert!(report.notes.iter().any(|n| n.contains("counts as unverified")), "{:?}", report.notes);
    assert!(report.coverage.unwrap().packs_never_verified > 0);
    assert!(report.packs_verified <= 7, "{}", report.packs_verified);
}

#[test]
fn a_ledger_that_cannot_be_written_costs_the_memory_and_not_the_report() {
    let clocked = Clocked::new(2);
    fs_err::write(clocked.folder.path().join("file"), "").unwrap();
    let report = clocked.run(&VerifyOptions::all().with_ledger(clocked.folder.path().join("file/ledger")));
    assert!(report.is_sound() && report.coverage.is_none());
    assert!(report.notes.iter().any(|n| n.contains("write verification ledger")), "{:?}", report.notes);
}

#[test]
fn what_a_stopped_run_got_through_is_remembered() {
    let clocked = Clocked::new(8);
    let pack = clocked.fixture.keys_of(ObjectKind::Pack)[0];
    let faults = lastgood_stores::FaultStore::new(clocked.fixture.store.clone());
    faults.add(
        lastgood_stores::Fault::on(lastgood_stores::Op::GetRange).at(pack).lasting().fails_before(ErrorKind::Retry),
    );
    let broken = Repository::open(Arc::new(faults), &clocked.fixture.password, OpenOptions::default()).unwrap();
    let options = VerifyOptions::all().with_ledger(clocked.ledger());
    assert_eq!(verify(&broken, &Monitor::new(), &options).unwrap_err().kind(), ErrorKind::Retry);
    assert!(fs_err::metadata(clocked.ledger()).unwrap().len() > 16 * 48);
}

#[test]
fn a_sample_reads_its_part_and_all_directories() {
    let clocked = Clocked::new(40);
    let report = clocked.run(&VerifyOptions::sample(20.0, 7));
    assert!(report.is_sound());
    let trees = clocked.fixture.check().counts.trees;
    assert_eq!(report.counts.trees, trees);
    assert!(report.packs_verified >= 40 && report.packs_verified < 80, "{}", report.packs_verified);
    let again = clocked.run(&VerifyOptions::sample(20.0, 7));
    assert_eq!((report.packs_verified, report.bytes_verified), (again.packs_verified, again.bytes_verified));
    // Over many seeds every pack is drawn at some time.
    let pack = clocked.fixture.pack_of("f39");
    clocked.fixture.flip(&pack, 50);
    assert!((0..60).any(|seed| !clocked.run(&VerifyOptions::sample(20.0, seed)).is_sound()));
}

#[test]
fn impossible_scopes_are_refused() {
    let clocked = Clocked::new(1);
    for percent in [0.0, -1.0, 100.1, f64::NAN] {
        let error = verify(&clocked.repository, &Monitor::new(), &VerifyOptions::sample(percent, 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let options = VerifyOptions { scope: Scope::Rolling { every: MONTH }, ..VerifyOptions::all() };
    let error = verify(&clocked.repository, &Monitor::new(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!Path::new("ledger").exists());
}
