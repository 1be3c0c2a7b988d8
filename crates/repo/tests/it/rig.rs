//! A repository in memory and small captures into it, read back the long way: snapshot, trees, blobs.

use lastgood_model::manifest::{Manifest, SourceOutcome, SourceRecord};
use lastgood_model::source::{Chunking, Sink, StreamSpec, StreamWriter, Verdict};
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{Id, Monitor, Node, Result, SnapshotId, Time, TreeId};
use lastgood_repo::check::{VerifyOptions, verify};
use lastgood_repo::crypto::Password;
use lastgood_repo::lock::{Clock, system_clock};
use lastgood_repo::{BlobReader, OpenOptions, PublishSpec, Published, Repository, Session, SessionOptions};
use lastgood_stores::MemoryStore;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Contents by path below the snapshot's root.
pub(crate) type Contents = BTreeMap<String, Vec<u8>>;

/// A repository in memory.
pub(crate) struct Rig {
    pub(crate) store: MemoryStore,
    pub(crate) password: Password,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let (store, password) = (MemoryStore::new(), Password::generate().unwrap());
        Repository::init(Arc::new(store.clone()), &password, OpenOptions::default()).unwrap();
        Self { store, password }
    }

    /// The same key over another store.
    pub(crate) fn over(&self, store: MemoryStore) -> Self {
        Self { store, password: self.password.clone() }
    }

    pub(crate) fn open(&self) -> Arc<Repository> {
        self.open_through(Arc::new(self.store.clone()), system_clock()).unwrap()
    }

    pub(crate) fn open_at(&self, clock: Clock) -> Arc<Repository> {
        self.open_through(Arc::new(self.store.clone()), clock).unwrap()
    }

    pub(crate) fn open_through(&self, store: Arc<dyn Store>, clock: Clock) -> Result<Arc<Repository>> {
        Repository::open(store, &self.password, OpenOptions { clock, ..OpenOptions::default() }).map(Arc::new)
    }

    pub(crate) fn keys_of(&self, kind: ObjectKind) -> Vec<StoreKey> {
        self.store.keys().into_iter().filter(|key| key.kind == kind).collect()
    }

    pub(crate) fn snapshots(&self) -> Vec<SnapshotId> {
        let all = self.open().snapshots(|id, error| panic!("{id}: {error:?}")).unwrap();
        all.into_iter().map(|snapshot| snapshot.id).collect()
    }

    /// Every snapshot and every byte is as it must be.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        let report = verify(&self.open(), &Monitor::new(), &VerifyOptions::all()).unwrap();
        assert!(report.is_sound(), "{:#?}", report.damage);
    }
}

/// The system's clock, so many seconds ahead of or behind the truth.
pub(crate) fn clock_off_by(seconds: i64) -> Clock {
    let clock = system_clock();
    Arc::new(move || {
        let now = clock();
        Time::new(now.secs + seconds, now.nanos)
    })
}

/// A session on its own monitor.
pub(crate) fn begin(repository: &Arc<Repository>) -> Result<(Session, Arc<Monitor>)> {
    let monitor = Arc::new(Monitor::new());
    Ok((Session::begin(repository.clone(), monitor.clone(), SessionOptions::default())?, monitor))
}

/// What to publish when all `sources` went well.
pub(crate) fn spec(sources: &[&str]) -> PublishSpec {
    let all: Vec<_> = sources.iter().map(|name| (*name, SourceOutcome::Complete)).collect();
    spec_with(&all)
}

pub(crate) fn spec_with(sources: &[(&str, SourceOutcome)]) -> PublishSpec {
    let time = Time::new(1_700_000_000, 0);
    let record = |(name, outcome): &(&str, SourceOutcome)| SourceRecord {
        name: (*name).to_owned(),
        kind: "test".into(),
        origins: Vec::new(),
        outcome: outcome.clone(),
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
        program: "test".into(),
        host: "host".into(),
        started: time,
        finished: time,
        reason: None,
        sources: sources.iter().map(record).collect(),
        complete: true,
        problems: Vec::new(),
        problems_total: 0,
    };
    PublishSpec { manifest, restore_notes: "read me".into(), paths: Vec::new(), tags: Vec::new() }
}

pub(crate) fn stream_spec(path: &str, chunking: Chunking) -> StreamSpec {
    StreamSpec {
        path: path.into(),
        chunking,
        mode: 0o640,
        uid: 7,
        gid: 8,
        mtime: Time::new(1_600_000_000, 9),
        time_follows_content: false,
    }
}

pub(crate) fn verdict() -> Verdict {
    Verdict { evidence: "the test says so".into() }
}

/// Begins a stream in a source's folder.
pub(crate) fn stream(sink: &dyn Sink, path: &str, chunking: Chunking) -> Box<dyn StreamWriter> {
    sink.stream(stream_spec(path, chunking)).unwrap()
}

/// One whole recovery point of one source, a stream for each content.
pub(crate) fn save(repository: &Arc<Repository>, chunking: Chunking, contents: &[(&str, &[u8])]) -> Result<Saved> {
    let (session, monitor) = begin(repository)?;
    let adopted = session.adopted_packs();
    let sink = session.source("db")?;
    for (path, content) in contents {
        let mut writer = sink.stream(stream_spec(path, chunking))?;
        writer.write(content)?;
        writer.finish(verdict())?;
    }
    drop(sink);
    Ok(Saved { published: session.publish(spec(&["db"]))?, monitor, adopted })
}

/// A recovery point that was made, and what it took.
pub(crate) struct Saved {
    pub(crate) published: Published,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) adopted: usize,
}

impl Saved {
    pub(crate) fn id(&self) -> SnapshotId {
        self.published.snapshot.id
    }

    /// New data blobs, plaintext bytes of all new blobs, and bytes they take.
    pub(crate) fn stored(&self) -> (u64, u64, u64) {
        use std::sync::atomic::Ordering::Relaxed;
        let c = &self.monitor.counters;
        (c.blobs_data_new.load(Relaxed), c.bytes_new.load(Relaxed), c.bytes_stored.load(Relaxed))
    }
}

/// Every file of a snapshot but lastgood's own.
pub(crate) fn contents(repository: &Arc<Repository>, snapshot: SnapshotId) -> Result<Contents> {
    let reader = repository.reader()?;
    let mut found = Contents::new();
    let mut open = vec![(String::new(), repository.snapshot(snapshot)?.file.tree)];
    while let Some((path, tree)) = open.pop() {
        for node in reader.tree(tree)? {
            let path = format!("{path}{}", node.display_name());
            match node.subtree {
                Some(_) if path == Manifest::FOLDER => {}
                Some(below) => open.push((format!("{path}/"), below)),
                None => drop(found.insert(path, content(&reader, &node)?)),
            }
        }
    }
    Ok(found)
}

/// The whole content of a file's node.
pub(crate) fn content(reader: &BlobReader, node: &Node) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for id in node.content.iter().flatten() {
        bytes.extend(reader.data(*id)?);
    }
    assert_eq!(bytes.len() as u64, node.size, "{}", node.display_name());
    Ok(bytes)
}

/// The node at a path below a snapshot's root.
pub(crate) fn node_at(repository: &Arc<Repository>, snapshot: SnapshotId, path: &str) -> Node {
    let reader = repository.reader().unwrap();
    let mut tree: Option<TreeId> = Some(repository.snapshot(snapshot).unwrap().file.tree);
    let mut found = None;
    for name in path.split('/') {
        let nodes = reader.tree(tree.unwrap()).unwrap();
        let node = nodes.into_iter().find(|node| node.name == name.as_bytes()).unwrap();
        tree = node.subtree;
        found = Some(node);
    }
    found.unwrap()
}

/// Packs by name.
pub(crate) fn pack_ids(store: &dyn Store) -> Vec<Id> {
    store.list(ObjectKind::Pack).unwrap().into_iter().map(|(id, _)| id).collect()
}
