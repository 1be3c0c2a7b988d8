//! Check and verification against every kind of damage there is.

mod damage;
mod forged;
mod meaning;
mod scope;
mod strangers;

use lastgood_model::manifest::{Manifest, SourceOutcome, SourceRecord};
use lastgood_model::source::{Entry, FileReader, Read, Sink, Steady, TreeDir};
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{Monitor, Node, NodeKind, Result, SnapshotId, Time};
use lastgood_repo::check::{CheckOptions, CheckReport, Damage, VerifyOptions, VerifyReport, check, verify};
use lastgood_repo::crypto::Password;
use lastgood_repo::{OpenOptions, PublishSpec, Repository, Session, SessionOptions};
use lastgood_stores::MemoryStore;
use lastgood_testkit::rng::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Files by path.
type Files = BTreeMap<String, Vec<u8>>;

/// A repository in memory.
struct Fixture {
    store: MemoryStore,
    password: Password,
    repository: Arc<Repository>,
    snapshots: Vec<SnapshotId>,
}

impl Fixture {
    fn empty() -> Self {
        let store = MemoryStore::new();
        let password = Password::generate().unwrap();
        let repository = Repository::init(Arc::new(store.clone()), &password, OpenOptions::default()).unwrap();
        Self { store, password, repository: Arc::new(repository), snapshots: Vec::new() }
    }

    /// Two snapshots: the second has one file changed, one more, and the rest as before.
    fn two() -> Self {
        let mut fixture = Self::empty();
        let mut files = some_files();
        fixture.backup(&files);
        files.insert("docs/changed".into(), Rng::new(77).text(900));
        files.insert("new".into(), Rng::new(78).bytes(300));
        fixture.backup(&files);
        fixture
    }

    fn backup(&mut self, files: &Files) -> SnapshotId {
        let session =
            Session::begin(self.repository.clone(), Arc::new(Monitor::new()), SessionOptions::default()).unwrap();
        let top = Arc::new(Folder::of(files));
        session.source("files").unwrap().tree(b"", Node::new("files", NodeKind::Dir), Vec::new(), top).unwrap();
        let id = session.publish(spec()).unwrap().snapshot.id;
        self.snapshots.push(id);
        id
    }

    fn reopen(&self) -> Result<Repository> {
        Repository::open(Arc::new(self.store.clone()), &self.password, OpenOptions::default())
    }

    fn check(&self) -> CheckReport {
        check(&self.repository, &Monitor::new(), &self.expecting()).unwrap()
    }

    fn verify(&self) -> VerifyReport {
        verify(&self.repository, &Monitor::new(), &VerifyOptions { check: self.expecting(), ..VerifyOptions::all() })
            .unwrap()
    }

    fn expecting(&self) -> CheckOptions {
        CheckOptions { expected: self.snapshots.clone() }
    }

    fn keys_of(&self, kind: ObjectKind) -> Vec<StoreKey> {
        self.store.keys().into_iter().filter(|key| key.kind == kind).collect()
    }

    /// The pack that holds the content of a file, or the tree of a directory.
    fn pack_of(&self, path: &str) -> StoreKey {
        self.place_of(path).0
    }

    /// The same with the place of its first blob in it.
    fn place_of(&self, path: &str) -> (StoreKey, std::ops::Range<usize>) {
        self.place_of_in(*self.snapshots.last().unwrap(), path)
    }

    fn place_of_in(&self, snapshot: SnapshotId, path: &str) -> (StoreKey, std::ops::Range<usize>) {
        let reader = self.repository.reader().unwrap();
        let mut tree = self.repository.snapshot(snapshot).unwrap().file.tree;
        let mut location = reader.index.find(tree).unwrap();
        for name in ["files"].into_iter().chain(path.split('/')).filter(|name| !name.is_empty()) {
            let node = reader.tree(tree).unwrap().into_iter().find(|n| n.name == name.as_bytes()).unwrap();
            match (&node.subtree, &node.content) {
                (Some(below), _) => {
                    tree = *below;
                    location = reader.index.find(tree).unwrap();
                }
                (None, content) => location = reader.index.find(content.as_ref().unwrap()[0]).unwrap(),
            }
        }
        let pack = StoreKey::new(ObjectKind::Pack, reader.index.pack(location.pack));
        (pack, location.offset as usize..(location.offset + location.length) as usize)
    }

    fn flip(&self, key: &StoreKey, position: usize) {
        self.store.damage(key, |bytes| bytes[position] ^= 0x10).unwrap();
    }

    /// Puts an object's bytes back.
    fn mend(&self, key: &StoreKey, bytes: &[u8]) {
        if self.store.size(key).is_err() {
            self.store.put(key, &[bytes]).unwrap();
        }
        self.store.damage(key, |now| *now = bytes.to_vec()).unwrap();
    }
}

fn some_files() -> Files {
    let mut rng = Rng::new(5);
    let mut files = Files::new();
    files.insert("a".into(), rng.text(700));
    files.insert("docs/changed".into(), rng.text(800));
    files.insert("docs/deep/er/odd\n\u{1b}".into(), rng.bytes(200));
    files.insert("docs/deep/plain".into(), rng.text(400));
    files.insert("empty".into(), Vec::new());
    files.insert("same".into(), rng.bytes(150));
    files
}

fn spec() -> PublishSpec {
    let time = Time::new(1_700_000_000, 0);
    let source = SourceRecord {
        name: "files".into(),
        kind: "files".into(),
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
        program: "test".into(),
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

/// The finding about an object.
#[track_caller]
fn about<'a>(damage: &'a [Damage], object: &str) -> &'a Damage {
    let found = damage.iter().find(|d| d.object.to_string() == object);
    found.unwrap_or_else(|| panic!("nothing about {object} in {damage:#?}"))
}

/// A directory in memory.
#[derive(Default)]
struct Folder {
    path: String,
    files: BTreeMap<String, Vec<u8>>,
    folders: BTreeMap<String, Arc<Folder>>,
}

impl Folder {
    fn of(files: &Files) -> Self {
        Self::below("", files)
    }

    fn below(prefix: &str, files: &Files) -> Self {
        let mut folder = Self { path: prefix.to_owned(), ..Self::default() };
        for (path, content) in files {
            let Some(rest) = path.strip_prefix(prefix) else { continue };
            match rest.split_once('/') {
                None => drop(folder.files.insert(rest.to_owned(), content.clone())),
                Some((name, _)) => {
                    let below = || Arc::new(Self::below(&format!("{prefix}{name}/"), files));
                    folder.folders.entry(name.to_owned()).or_insert_with(below);
                }
            }
        }
        folder
    }
}

impl TreeDir for Folder {
    fn list(&self, _: &Monitor) -> Result<Vec<Entry>> {
        let time = Time::new(1_600_000_000, 5);
        let node = |name: &String, kind| {
            let mut node = Node::new(name.as_bytes(), kind);
            node.mode = 0o755;
            (node.mtime, node.atime, node.ctime) = (time, time, time);
            node
        };
        let files = self.files.iter().map(|(name, content)| {
            let mut node = node(name, NodeKind::File);
            node.size = content.len() as u64;
            Entry::new(node)
        });
        let folders = self.folders.keys().map(|name| Entry::new(node(name, NodeKind::Dir)));
        let mut entries: Vec<Entry> = files.chain(folders).collect();
        entries.sort_by(|a, b| a.node.name.cmp(&b.node.name));
        Ok(entries)
    }

    fn open_dir(&self, entry: &Entry) -> Result<Arc<dyn TreeDir>> {
        Ok(self.folders[std::str::from_utf8(&entry.node.name).unwrap()].clone())
    }

    fn describe(&self, _: &mut Node, _: &Monitor) -> Result<()> {
        Ok(())
    }

    fn open_file(&self, entry: &Entry, _: &Monitor) -> Result<Box<dyn FileReader>> {
        Ok(Box::new(Content(self.files[std::str::from_utf8(&entry.node.name).unwrap()].clone())))
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        [self.path.as_bytes(), name].concat()
    }
}

struct Content(Vec<u8>);

impl FileReader for Content {
    fn read(&mut self, out: &mut Vec<u8>, want: usize) -> Result<Read> {
        let piece: Vec<u8> = self.0.drain(..want.min(self.0.len())).collect();
        out.extend_from_slice(&piece);
        Ok(if piece.is_empty() { Read::End } else { Read::Data(piece.len()) })
    }

    fn finish(self: Box<Self>, _: &mut Node) -> Result<Steady> {
        Ok(Steady::Yes)
    }
}
