//! What an actor does: the verbs of the engine on tiny contents.

use super::base::password;
use super::oracle::{Oracle, short};
use lastgood_model::manifest::{Manifest, SourceOutcome, SourceRecord};
use lastgood_model::source::{Chunking, Sink, StreamSpec, Verdict};
use lastgood_model::{Monitor, Result, SnapshotId, Time};
use lastgood_repo::copy::{CopyOptions, copy};
use lastgood_repo::gc::{MaxUnused, PruneOptions, PruneReport, prune};
use lastgood_repo::planted::Planted;
use lastgood_repo::{LockMode, OpenOptions, PublishSpec, Repository, Session, SessionOptions};
use lastgood_stores::{Pace, RetryPolicy, RetryStore};
use lastgood_testkit::rng::Rng;
use lastgood_testkit::sim::{ActorId, SimStore, SimWorld};
use std::sync::Arc;
use std::time::Duration;

/// One actor at work on one world.
#[derive(Clone)]
pub(crate) struct Hand {
    pub(crate) world: SimWorld,
    pub(crate) oracle: Oracle,
    pub(crate) actor: ActorId,
    pub(crate) planted: Option<Planted>,
    /// How long to wait for locks, in virtual seconds.
    pub(crate) wait_secs: u64,
}

impl Hand {
    /// Opens the repository in a place.
    pub(crate) fn open(&self, place: usize) -> Result<Arc<Repository>> {
        Repository::open(self.store(place), password()?, self.options()).map(Arc::new)
    }

    /// Makes a repository in a place.
    pub(crate) fn init(&self, place: usize) -> Result<()> {
        Repository::init(self.store(place), password()?, self.options()).map(drop)
    }

    fn options(&self) -> OpenOptions {
        OpenOptions {
            cache: None,
            clock: self.world.clock(self.actor),
            pause: self.world.pause(self.actor),
            planted: self.planted,
            host: Some(format!("host-{}", self.actor)),
        }
    }

    fn store(&self, place: usize) -> Arc<RetryStore<SimStore>> {
        let pace = SimPace { world: self.world.clone(), actor: self.actor };
        let policy = RetryPolicy { tries_max: 3, ..RetryPolicy::default() };
        Arc::new(RetryStore::with_pace(self.world.store(self.actor, place), policy, Arc::new(pace)))
    }

    fn wait(&self) -> Duration {
        Duration::from_secs(self.wait_secs)
    }

    /// Saves a recovery point with these of all files there are.
    pub(crate) fn backup(&self, place: usize, files: &[u64]) -> Result<SnapshotId> {
        let repository = self.open(place)?;
        let options =
            SessionOptions { sources: vec!["db".into()], lock_wait: self.wait(), ..SessionOptions::default() };
        let session = Session::begin(repository, Arc::new(Monitor::new()), options)?;
        let sink = session.source("db")?;
        for file in files {
            let time = Time::new(1_700_000_000, 0);
            let spec = StreamSpec {
                path: format!("{file}").into(),
                chunking: Chunking::Rows,
                mode: 0o600,
                uid: 1,
                gid: 1,
                mtime: time,
                time_follows_content: false,
            };
            let mut stream = sink.stream(spec)?;
            stream.write(&content(*file))?;
            stream.finish(Verdict { evidence: "simulated".into() })?;
        }
        drop(sink);
        let point = session.publish(spec())?.snapshot.id;
        self.oracle.acknowledge(&self.world, place, point);
        self.world.say(self.actor, format!("saved {} with {files:?}", short(point.0)));
        Ok(point)
    }

    /// Forgets a recovery point, if it is there.
    pub(crate) fn forget(&self, place: usize, point: SnapshotId) -> Result<()> {
        let repository = self.open(place)?;
        let lock = repository.lock_within(LockMode::Shared, self.wait(), &Monitor::new())?;
        let _leaving = self.oracle.release(place, point);
        self.world.say(self.actor, format!("forgets {}", short(point.0)));
        repository.forget_snapshot(&lock, point)
    }

    /// Removes what nobody needs.
    pub(crate) fn prune(&self, place: usize, max_unused: MaxUnused) -> Result<PruneReport> {
        let options = PruneOptions { max_unused, lock_wait: self.wait(), ..PruneOptions::default() };
        let report = prune(&*self.open(place)?, &Monitor::new(), &options)?;
        self.world.say(
            self.actor,
            format!(
                "pruned {} packs, moved {}, deferred {}",
                report.packs_removed,
                report.packs_repacked,
                report.deferred.is_some()
            ),
        );
        Ok(report)
    }

    /// Copies all recovery points of a place that another one lacks.
    pub(crate) fn copy(&self, from: usize, to: usize) -> Result<()> {
        let (source, target) = (self.open(from)?, self.open(to)?);
        let wanted: Vec<SnapshotId> = source.snapshots(|_, _| ())?.iter().map(|snapshot| snapshot.id).collect();
        let options = CopyOptions { lock_wait: self.wait(), ..CopyOptions::default() };
        let report = copy(&source, &target, &wanted, &Monitor::new(), options)?;
        for point in &report.points {
            if let (lastgood_repo::copy::PointState::Sent, Some(copy)) = (point.state, point.copy) {
                self.oracle.acknowledge(&self.world, to, copy);
            }
        }
        self.world.say(self.actor, format!("copied {} packs", report.packs));
        Ok(())
    }
}

/// What a file holds: the same for the same number, small, and unlike all others.
pub(crate) fn content(file: u64) -> Vec<u8> {
    Rng::new(file ^ 0xf11e).bytes(64 + (file % 7) as usize * 40)
}

pub(crate) fn spec() -> PublishSpec {
    let time = Time::new(1_700_000_000, 0);
    let source = SourceRecord {
        name: "db".into(),
        kind: "simulated".into(),
        origins: Vec::new(),
        outcome: SourceOutcome::Complete,
        started: time,
        finished: time,
        bytes: 0,
        entries: 0,
        position: None,
        facts: Default::default(),
    };
    let manifest = Manifest {
        kind: Manifest::TYPE.into(),
        schema: Manifest::SCHEMA,
        app: "shop".into(),
        program: "simulated".into(),
        host: "host".into(),
        started: time,
        finished: time,
        reason: None,
        sources: vec![source],
        complete: true,
        problems: Vec::new(),
        problems_total: 0,
    };
    PublishSpec { manifest, restore_notes: "read me".into(), paths: Vec::new(), tags: Vec::new() }
}

/// Retries take virtual time.
struct SimPace {
    world: SimWorld,
    actor: ActorId,
}

impl Pace for SimPace {
    fn now(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.world.now_secs()).unwrap_or_default())
    }

    fn wait(&self, delay: Duration) -> Result<()> {
        (self.world.pause(self.actor))(delay);
        Ok(())
    }

    fn random(&self) -> u64 {
        0
    }
}
