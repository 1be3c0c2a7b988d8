//! One repository, a few runs that meet trouble, and what must hold after each.

use super::super::sim::base::password;
use super::super::sim::verbs::spec;
use super::ground::Ground;
use super::trouble::{SHORT, Trouble};
use anyhow::{Context as _, Result, bail};
use lastgood_model::source::{Chunking, Sink, StreamSpec, Verdict};
use lastgood_model::store::Store;
use lastgood_model::{BlobId, Error, ErrorKind, Monitor, SnapshotId, Time, TreeId};
use lastgood_repo::check::{CheckOptions, VerifyOptions, check, verify};
use lastgood_repo::copy::{CopyOptions, PointState, copy};
use lastgood_repo::gc::{MaxUnused, PruneOptions, prune};
use lastgood_repo::{BlobReader, Fetch, FetchRequest, LockMode, OpenOptions, Repository, Session, SessionOptions};
use lastgood_stores::LocalStore;
use lastgood_testkit::rng::Rng;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// No run may take longer. With the timeouts of a hasty user one call lasts at most about five seconds.
const DEADLINE: Duration = Duration::from_secs(60);
/// Runs that meet trouble in one repository.
const ROUNDS: usize = 2;
/// More than any lock outlives its holder.
const LATER_SECS: i64 = 3600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Init,
    Backup,
    Restore,
    CopyOut,
    CopyIn,
    Check,
    Verify,
    Prune,
}

const VERBS: [Verb; 11] = [
    Verb::Init,
    Verb::Backup,
    Verb::Backup,
    Verb::Backup,
    Verb::Restore,
    Verb::Restore,
    Verb::CopyOut,
    Verb::CopyIn,
    Verb::Check,
    Verb::Verify,
    Verb::Prune,
];

/// How a run that met trouble ended.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) trouble: &'static str,
    pub(super) is_done: bool,
    pub(super) took: Duration,
    /// Both for who looks closer.
    _what: String,
    _said: String,
}

/// How a case ended.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) runs: Vec<Run>,
    pub(super) verdict: Result<(), String>,
}

/// What a recovery point holds.
type Files = Vec<u64>;

/// One repository.
pub(super) struct Case<'a> {
    ground: &'a Ground,
    rng: Rng,
    actor: Actor,
    /// Another repository, on this machine.
    other: Arc<dyn Store>,
    others: Vec<(SnapshotId, Files)>,
    points: BTreeMap<SnapshotId, Files>,
    name: String,
    _folder: tempfile::TempDir,
}

impl<'a> Case<'a> {
    /// A repository with two recovery points, and another with a third.
    pub(super) fn new(ground: &'a Ground, seed: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let other: Arc<dyn Store> = Arc::new(LocalStore::new(folder.path().join("other"))?);
        let name = ground.fresh();
        let store = ground.store(&name, None)?;
        for store in [&store, &other] {
            store.create()?;
            ground.base.put_into(store)?;
        }
        let actor = Actor { later: Arc::default() };
        let mut case = Self {
            ground,
            rng: Rng::new(seed),
            others: Vec::new(),
            points: BTreeMap::new(),
            name,
            _folder: folder,
            other,
            actor,
        };
        for files in [vec![0, 1, 2, 3, 4], vec![3, 4, 5, 6]] {
            let point = case.actor.backup(&store, &files)?;
            case.points.insert(point, files);
        }
        let files = vec![4, 5, 6, 7, 8];
        case.others.push((case.actor.backup(&case.other, &files)?, files));
        Ok(case)
    }

    pub(super) fn play(&mut self) -> Played {
        let mut runs = Vec::new();
        for _ in 0..ROUNDS {
            let verb = *self.rng.pick(&VERBS);
            let trouble = Trouble::draw(self.ground.kind, &mut self.rng);
            let what = format!("{verb:?} with {trouble}");
            match self.round(verb, trouble, &what) {
                Ok(run) => runs.extend(run),
                Err(error) => return Played { runs, verdict: Err(format!("{what}: {error:#}")) },
            }
        }
        Played { runs, verdict: Ok(()) }
    }

    /// One run in trouble; `None` when the trouble came too late for it.
    fn round(&mut self, verb: Verb, trouble: Trouble, what: &str) -> Result<Option<Run>> {
        let from = self.rng.below(12);
        let files: Files = (from..from + 2 + self.rng.below(5)).collect();
        let job = Job {
            verb,
            files,
            actor: self.actor.clone(),
            other: self.other.clone(),
            points: self.points.clone(),
            others: self.others.clone(),
            chance: self.rng.next_u64(),
        };
        let place = if verb == Verb::Init { self.ground.fresh() } else { self.name.clone() };
        let name = trouble.name;
        let between = trouble.before(self.ground.address());
        let store = self.ground.store(&place, Some(between.address()))?;
        let begun = Instant::now();
        let outcome = within(DEADLINE, job.clone(), store)?;
        let took = begun.elapsed();
        let struck = between.struck();
        let said = match &outcome {
            Ok(done) => {
                self.accept(done);
                String::new()
            }
            Err(error) => {
                let said = format!("{}; hint: {:?}", error.chain(), error.hint());
                if let Some(secret) = self.ground.secret_in(&said) {
                    bail!("what it said holds a secret, {secret:?}: {said}");
                }
                // An answer that is short by its own account cannot be told from an object that is.
                let seems_damaged = error.kind() == ErrorKind::Corrupt && name != SHORT;
                if seems_damaged || matches!(error.kind(), ErrorKind::Bug | ErrorKind::NoRepository) {
                    bail!("a broken network was taken for {:?}: {said}", error.kind());
                }
                // On a busy machine a server may be slower than these timeouts allow.
                if struck == 0 && error.kind() != ErrorKind::Retry {
                    bail!("nothing was broken, and it failed: {said}");
                }
                said
            }
        };
        // Stores that hold connections close them now, and nothing that was on its way comes any more.
        drop(between);
        self.actor.later.fetch_add(LATER_SECS, SeqCst);
        let sound = self.ground.store(&place, None)?;
        let job = Job { points: self.points.clone(), others: self.others.clone(), ..job };
        let again = within(DEADLINE, job.next(&outcome, &sound)?, sound.clone())?
            .with_context(|| format!("the next run through a sound network, after {said:?}"))?;
        let points = match verb {
            // In a place of its own.
            Verb::Init => again.saved.iter().cloned().collect(),
            _ => {
                self.accept(&again);
                self.points.clone()
            }
        };
        self.look(&sound, &points).with_context(|| format!("afterwards; it had said {said:?}"))?;
        let run = Run { trouble: name, is_done: outcome.is_ok(), took, _what: what.to_owned(), _said: said };
        Ok((struck > 0).then_some(run))
    }

    fn accept(&mut self, done: &Done) {
        self.points.extend(done.saved.iter().cloned());
        for point in &done.forgotten {
            self.points.remove(point);
        }
    }

    /// Everything that was told to be saved is there, byte for byte.
    fn look(&self, store: &Arc<dyn Store>, points: &BTreeMap<SnapshotId, Files>) -> Result<()> {
        let repository = self.actor.open(store)?;
        let listed: Vec<_> = repository.snapshots(|_, _| ())?.iter().map(|snapshot| snapshot.id).collect();
        for (point, files) in points {
            if !listed.contains(point) {
                bail!("the recovery point {} is not listed", point.0);
            }
            read(&repository, *point, files).with_context(|| format!("read the recovery point {}", point.0))?;
        }
        let found = verify(&repository, &Monitor::new(), &VerifyOptions::all())?;
        if let Some(damage) = found.damage.first() {
            bail!("verify finds {damage:?}");
        }
        Ok(())
    }
}

/// Runs on a thread of its own. One that is not back in time hangs, which is a failure; it is left behind.
fn within(deadline: Duration, job: Job, store: Arc<dyn Store>) -> Result<lastgood_model::Result<Done>> {
    let (sender, receiver) = channel();
    std::thread::Builder::new().name("run".into()).spawn(move || {
        let _ = sender.send(job.run(&store));
    })?;
    match receiver.recv_timeout(deadline) {
        Ok(outcome) => Ok(outcome),
        Err(RecvTimeoutError::Timeout) => bail!("it has not ended after {} s", deadline.as_secs()),
        Err(RecvTimeoutError::Disconnected) => bail!("it panicked"),
    }
}

/// What a run that succeeded did.
#[derive(Default)]
struct Done {
    saved: Vec<(SnapshotId, Files)>,
    forgotten: Vec<SnapshotId>,
}

/// What a run is to do.
#[derive(Clone)]
struct Job {
    verb: Verb,
    files: Files,
    actor: Actor,
    other: Arc<dyn Store>,
    points: BTreeMap<SnapshotId, Files>,
    others: Vec<(SnapshotId, Files)>,
    chance: u64,
}

impl Job {
    /// What follows a run: the same, but for what can be done only once.
    fn next(self, outcome: &lastgood_model::Result<Done>, store: &Arc<dyn Store>) -> Result<Self> {
        let is_made = self.verb == Verb::Init && (outcome.is_ok() || Repository::exists(&**store)?);
        Ok(if is_made { Self { verb: Verb::Backup, ..self } } else { self })
    }

    fn run(self, store: &Arc<dyn Store>) -> lastgood_model::Result<Done> {
        let (actor, mut done) = (&self.actor, Done::default());
        let mut rng = Rng::new(self.chance);
        match self.verb {
            Verb::Init => {
                Repository::init(store.clone(), password()?, actor.options())?;
            }
            Verb::Backup => done.saved.push((actor.backup(store, &self.files)?, self.files)),
            Verb::Restore => {
                let points: Vec<_> = self.points.iter().collect();
                let (point, files) = *rng.pick(&points);
                read(&*actor.open(store)?, *point, files)?;
            }
            Verb::CopyOut => drop(actor.copy(store, &self.other)?),
            Verb::CopyIn => {
                for (from, to) in actor.copy(&self.other, store)? {
                    let files = self.others.iter().find(|(point, _)| *point == from).map(|(_, files)| files.clone());
                    done.saved.extend(files.map(|files| (to, files)));
                }
            }
            Verb::Check => {
                let found = check(&*actor.open(store)?, &Monitor::new(), &CheckOptions::default())?;
                no_damage(found.damage.first())?;
            }
            Verb::Verify => {
                let found = verify(&*actor.open(store)?, &Monitor::new(), &VerifyOptions::all())?;
                no_damage(found.damage.first())?;
            }
            Verb::Prune => {
                let repository = actor.open(store)?;
                if self.points.len() > 1 {
                    let lock = repository.lock_within(LockMode::Shared, Duration::ZERO, &Monitor::new())?;
                    // From here on it may go, whatever the answer is; a failed run is asked for it no more.
                    let points: Vec<_> = self.points.keys().copied().collect();
                    let point = *rng.pick(&points);
                    done.forgotten.push(point);
                    repository.forget_snapshot(&lock, point)?;
                }
                prune(
                    &repository,
                    &Monitor::new(),
                    &PruneOptions { max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() },
                )?;
            }
        }
        Ok(done)
    }
}

/// Nothing is damaged here, whatever the network does.
fn no_damage(found: Option<&impl std::fmt::Debug>) -> lastgood_model::Result<()> {
    match found {
        None => Ok(()),
        Some(damage) => Err(Error::corrupt(format!("found damaged: {damage:?}"))),
    }
}

/// Who acts, and by which clock.
#[derive(Clone)]
struct Actor {
    later: Arc<AtomicI64>,
}

impl Actor {
    fn options(&self) -> OpenOptions {
        let (clock, later) = (lastgood_repo::lock::system_clock(), self.later.clone());
        OpenOptions {
            clock: Arc::new(move || {
                let now = clock();
                Time::new(now.secs + later.load(SeqCst), now.nanos)
            }),
            ..OpenOptions::default()
        }
    }

    fn open(&self, store: &Arc<dyn Store>) -> lastgood_model::Result<Arc<Repository>> {
        Repository::open(store.clone(), password()?, self.options()).map(Arc::new)
    }

    fn backup(&self, store: &Arc<dyn Store>, files: &[u64]) -> lastgood_model::Result<SnapshotId> {
        let options = SessionOptions { sources: vec!["db".into()], ..SessionOptions::default() };
        let session = Session::begin(self.open(store)?, Arc::new(Monitor::new()), options)?;
        let sink = session.source("db")?;
        for file in files {
            let spec = StreamSpec {
                path: format!("{file}").into(),
                chunking: Chunking::Rows,
                mode: 0o600,
                uid: 1,
                gid: 1,
                mtime: Time::new(1_700_000_000, 0),
                time_follows_content: false,
            };
            let mut stream = sink.stream(spec)?;
            stream.write(&content(*file))?;
            stream.finish(Verdict { evidence: "made".into() })?;
        }
        drop(sink);
        Ok(session.publish(spec())?.snapshot.id)
    }

    /// Copies all points; gives back those that were sent, by their ids here and there.
    fn copy(
        &self,
        from: &Arc<dyn Store>,
        to: &Arc<dyn Store>,
    ) -> lastgood_model::Result<Vec<(SnapshotId, SnapshotId)>> {
        let (source, target) = (self.open(from)?, self.open(to)?);
        let wanted: Vec<SnapshotId> = source.snapshots(|_, _| ())?.iter().map(|snapshot| snapshot.id).collect();
        let report = copy(&source, &target, &wanted, &Monitor::new(), CopyOptions::default())?;
        if let Some(failed) = report.points.iter().find(|point| point.state == PointState::Failed) {
            return Err(Error::new(ErrorKind::Retry, format!("one was not copied: {failed:?}")));
        }
        let sent = report.points.iter().filter(|point| point.state == PointState::Sent);
        Ok(sent.filter_map(|point| Some((point.snapshot, point.copy?))).collect())
    }
}

/// What a file holds: the same for the same number, and unlike all others.
fn content(file: u64) -> Vec<u8> {
    Rng::new(file ^ 0x6e65_7400).bytes(2_000 + (file % 7) as usize * 17_000)
}

/// Reads a recovery point as a restore does, many blobs at once, and compares.
fn read(repository: &Repository, point: SnapshotId, files: &[u64]) -> lastgood_model::Result<()> {
    let reader = repository.reader()?;
    let mut found: BTreeMap<u64, Vec<BlobId>> = BTreeMap::new();
    walk(&reader, repository.snapshot(point)?.file.tree, &mut found)?;
    let wanted: Vec<(u64, usize, BlobId)> =
        found.iter().flat_map(|(file, blobs)| blobs.iter().enumerate().map(|(at, blob)| (*file, at, *blob))).collect();
    let (arrived, trouble) = (Mutex::new(BTreeMap::new()), Mutex::new(None));
    let requests = wanted
        .iter()
        .enumerate()
        .map(|(place, (_, _, blob))| FetchRequest { blob: (*blob).into(), place: place as u64 });
    let hold = |error: Error| {
        trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
    };
    Fetch::plan(&reader, requests, |_, error| hold(error)).run(
        4,
        &Monitor::new(),
        |place, bytes| {
            let mut arrived = arrived.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            arrived.insert(place as usize, bytes.to_vec());
            Ok(())
        },
        |_, error| hold(error),
    )?;
    if let Some(error) = trouble.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    let arrived = arrived.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut whole: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (place, (file, _, _)) in wanted.iter().enumerate() {
        whole.entry(*file).or_default().extend(arrived.get(&place).into_iter().flatten());
    }
    let expected: BTreeMap<u64, Vec<u8>> = files.iter().map(|file| (*file, content(*file))).collect();
    match whole == expected {
        true => Ok(()),
        // Not passed over by the judge: it is what must never be.
        false => Err(Error::new(ErrorKind::Bug, format!("{} reads as something else", point.0))),
    }
}

/// The blobs of all files, by their names, which are numbers.
fn walk(reader: &BlobReader, tree: TreeId, found: &mut BTreeMap<u64, Vec<BlobId>>) -> lastgood_model::Result<()> {
    for node in reader.tree(tree)? {
        let name = String::from_utf8_lossy(&node.name);
        if let (Ok(number), Some(content)) = (name.parse(), &node.content) {
            found.insert(number, content.clone());
        }
        if let Some(below) = node.subtree {
            walk(reader, below, found)?;
        }
    }
    Ok(())
}
