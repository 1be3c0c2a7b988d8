//! One capture into a repository, from the lock to the published snapshot.
//!
//! # What makes a recovery point whole
//! Sources write through [`SourceSink`]s into drafts that live only in memory. Packs and index files reach the store as
//! they fill, but nothing refers to them. [`Session::publish`] is the only place in the workspace where a snapshot
//! becomes visible. It refuses while any stream of a source that is to be published was dropped or is still open; it
//! writes trees, the last packs, the last index, makes all of it durable, and only then writes the snapshot object,
//! makes that durable too, and reads it back. A crash at any moment before leaves packs that nobody refers to; a run
//! that finds the lock of such a dead run takes its packs over.

mod draft;
pub(crate) mod leftovers;

use crate::format::{SnapshotFile, SnapshotSummary};
use crate::index::BlobKind;
use crate::lock::{LockGuard, LockMode, hostname};
use crate::pipe::{Compression, Engine, EngineOptions, Packer, Stream};
use crate::planted::Planted;
use crate::read::BlobReader;
use crate::repository::{Repository, Snapshot, put_unpacked, username};
use draft::Draft;
use lastgood_model::manifest::{Manifest, SourceOutcome};
use lastgood_model::source::{Chunking, Entry, Sink, StreamSpec, StreamWriter, TreeDir};
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Context, Error, ErrorKind, Monitor, Node, NodeKind, PackId, Result, SnapshotId, Time, TreeId};
use leftovers::{Adopted, Found};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How a session works.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// How hard to compress.
    pub compression: Compression,
    /// Read every file, whatever the parent says.
    pub force: bool,
    /// Snapshots whose unchanged files may be taken over, newest first. Each source is compared with the first of them
    /// that holds it; only so many are looked at: [`SessionOptions::PARENTS_MAX`].
    pub parents: Vec<SnapshotId>,
    /// The sources to come, for finding their parents.
    pub sources: Vec<String>,
    /// How long to wait for somebody who deletes from the repository.
    pub lock_wait: Duration,
    /// Do everything but write: packs are made up, counted and dropped. Such a session cannot publish.
    pub dry_run: bool,
}

impl SessionOptions {
    /// Parents looked at.
    pub const PARENTS_MAX: usize = 32;
}

/// What a published snapshot says beside its sources.
#[derive(Clone, Debug)]
pub struct PublishSpec {
    /// The manifest, kept as `/.lastgood/manifest.json`.
    pub manifest: Manifest,
    /// How to restore without lastgood, kept as `/.lastgood/RESTORE.md`.
    pub restore_notes: String,
    /// Original places of everything, for listings by other programs.
    pub paths: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
}

/// A recovery point that is saved: durable in the store and read back.
#[derive(Clone, Debug)]
pub struct Published {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Packs written by this run, with their lengths.
    pub packs: Vec<(PackId, u64)>,
}

/// A capture in progress.
pub struct Session {
    repository: Arc<Repository>,
    lock: LockGuard,
    engine: Option<Arc<Engine>>,
    reader: Arc<BlobReader>,
    /// The newest snapshot before this one, told in the new one.
    parent: Option<SnapshotId>,
    /// What each source is compared with.
    parents: BTreeMap<String, Snapshot>,
    started: Time,
    drafts: Mutex<BTreeMap<String, Arc<Mutex<Draft>>>>,
    adopted: Adopted,
    lock_wait: Duration,
    /// When it was looked at last what may be relied upon.
    looked: Time,
    dry_run: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("repository", &self.repository).finish_non_exhaustive()
    }
}

impl Session {
    /// Locks the repository and starts the workers.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] while somebody deletes from the repository.
    pub fn begin(repository: Arc<Repository>, monitor: Arc<Monitor>, options: SessionOptions) -> Result<Self> {
        // A dry run only reads: it must not clear away the locks by which the next run finds packs that were left behind.
        let mode = if options.dry_run { LockMode::Reading } else { LockMode::Shared };
        let lock = repository.lock_within(mode, options.lock_wait, &monitor)?;
        let started = (repository.options.clock)();
        // The parent is read before the index, so that the index knows all it refers to.
        let candidates = options.parents.iter().take(SessionOptions::PARENTS_MAX).map(|id| repository.snapshot(*id));
        let candidates = candidates.collect::<Result<Vec<_>>>()?;
        let (index, present) = repository.load_index_of_present_packs()?;
        let found = Found {
            repository: &repository,
            index: &index,
            present: &present,
            snapshots: &candidates,
            locks: lock.findings,
            dry_run: options.dry_run,
            all: false,
        };
        let adopted = found.adopt()?;
        drop(present);
        let reader = Arc::new(BlobReader::new(repository.store.clone(), repository.sealer.clone(), index));
        let parents = find_parents(&reader, &candidates, &options.sources);
        if lock.findings.stale_removed > 0 && !options.dry_run {
            // Whoever still writes holds its temporary files locked; what is not was left by a run that died.
            let swept = repository.store.sweep(std::time::Duration::ZERO)?;
            tracing::debug!(leftovers = swept.leftovers, bytes = swept.bytes, "swept");
        }
        let packer = Packer::start(
            repository.store.clone(),
            repository.sealer.clone(),
            reader.index.clone(),
            repository.cache(),
            options.dry_run,
        )?;
        let engine_options = EngineOptions {
            compression: options.compression,
            force: options.force,
            parent_started: parents.values().map(|p| p.file.time).min(),
        };
        let engine = Engine::start(packer, reader.clone(), repository.chunk_params()?, monitor, engine_options)?;
        Ok(Self {
            repository,
            lock,
            engine: Some(engine),
            reader,
            parent: candidates.first().map(|p| p.id),
            parents,
            started,
            drafts: Mutex::default(),
            adopted,
            lock_wait: options.lock_wait,
            looked: started,
            dry_run: options.dry_run,
        })
    }

    /// When the session began.
    pub fn started(&self) -> Time {
        self.started
    }

    /// Packs that no index file listed and that were taken over: an interrupted run left them behind, or
    /// [the index was lost](Self::index_was_lost).
    pub fn adopted_packs(&self) -> usize {
        self.adopted.packs.len()
    }

    /// True when an index file was damaged or gone, and the packs that it had listed were taken over.
    pub fn index_was_lost(&self) -> bool {
        self.adopted.index_was_lost
    }

    /// The reader this session compares with.
    pub fn reader(&self) -> &Arc<BlobReader> {
        &self.reader
    }

    /// Fails once the session cannot succeed any more: the store failed, or a stop was asked for.
    pub fn check(&self) -> Result<()> {
        self.engine()?.check()
    }

    /// Ends a session that was to write nothing.
    pub fn rehearse(mut self) -> Result<()> {
        lock(&self.drafts).clear();
        let Some(engine) = self.engine.take() else { return Ok(()) };
        engine.stop()?.finish().map(|_| ())
    }

    fn engine(&self) -> Result<&Arc<Engine>> {
        self.engine.as_ref().ok_or_else(|| Error::new(ErrorKind::Bug, "use a session that has ended"))
    }

    /// Where the source `name` writes.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when that source has begun already; [`ErrorKind::Invalid`] for a name that is no safe
    /// path component or is lastgood's own.
    pub fn source(&self, name: &str) -> Result<SourceSink<'_>> {
        if !lastgood_model::node::is_safe_name(name.as_bytes()) || name == Manifest::FOLDER {
            return Err(Error::invalid(format!("{name:?} cannot be the name of a source")));
        }
        let draft = Arc::<Mutex<Draft>>::default();
        let mut drafts = lock(&self.drafts);
        if drafts.contains_key(name) {
            return Err(Error::new(ErrorKind::Conflict, format!("source {name:?} is captured twice")));
        }
        drafts.insert(name.to_owned(), draft.clone());
        Ok(SourceSink { session: self, name: name.to_owned(), draft })
    }

    /// Forgets a source that failed: nothing of it will be in the snapshot.
    pub fn discard(&self, name: &str) {
        lock(&self.drafts).remove(name);
    }

    /// Publishes the recovery point.
    ///
    /// # Errors
    /// Whatever stands in the way; then there is no new snapshot, and everything before is as it was. Only when the store
    /// fails in the very last step, or loses its answer to it, there may be one: it is whole then, but was not confirmed.
    pub fn publish(mut self, spec: PublishSpec) -> Result<Published> {
        if self.dry_run {
            return Err(Error::new(ErrorKind::Bug, "publish a dry run"));
        }
        let engine = self.engine()?;
        engine.check()?;
        let monitor = engine.monitor.clone();
        let drafts = std::mem::take(&mut *lock(&self.drafts));
        judge(&spec.manifest, &drafts)?;
        let root = self.save_root(engine, &spec, drafts)?;
        let Some(engine) = self.engine.take() else {
            return Err(Error::new(ErrorKind::Bug, "publish a session twice"));
        };
        let packer = engine.stop()?;
        let packs = packer.finish()?;
        let is_trusting = self.repository.has(Planted::LocksByAgeAlone);
        if !is_trusting && !self.is_secure() {
            self.relock(&packs, &monitor)?;
        }
        if !self.repository.has(Planted::SnapshotBeforePacks) {
            self.repository.store.sync()?;
        }

        let finished = (self.repository.options.clock)();
        let file = SnapshotFile {
            time: self.started,
            parent: self.parent,
            tree: root,
            paths: spec.paths,
            hostname: hostname(),
            username: username(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            tags: spec.tags,
            program_version: concat!("lastgood ", env!("CARGO_PKG_VERSION")).to_owned(),
            summary: Some(summary(&monitor, self.started, finished)),
            excludes: Vec::new(),
            original: None,
        };
        let json = file.encode()?;
        let id = put_unpacked(&*self.repository.store, &self.repository.sealer, ObjectKind::Snapshot, &json)
            .context("write snapshot")?;
        self.repository.store.sync().context("write snapshot")?;
        // The machine may have slept since the last look, for so long that somebody pruned without knowing of this
        // recovery point. It was not told to be saved yet, so it can still be taken back.
        if !is_trusting
            && !self.is_secure()
            && let Err(error) = self.relock(&packs, &monitor)
        {
            let key = StoreKey::new(ObjectKind::Snapshot, id);
            let withdrawn = self.repository.store.remove(&key).and_then(|()| self.repository.store.sync());
            return Err(match withdrawn {
                Ok(()) => error,
                Err(second) => error.with_hint(format!(
                    "the object {key} could not be taken back ({}): it may lack data; remove it, and run the backup again",
                    second.chain()
                )),
            });
        }
        let read_back = self.repository.snapshot(SnapshotId(id)).context("read back snapshot")?;
        if read_back.file.tree != root {
            return Err(Error::corrupt("the snapshot read back is not the one written"));
        }
        Ok(Published { snapshot: read_back, packs })
    }

    fn save_root(
        &self,
        engine: &Engine,
        spec: &PublishSpec,
        drafts: BTreeMap<String, Arc<Mutex<Draft>>>,
    ) -> Result<TreeId> {
        let time = self.started;
        let mut root = Draft::default();
        let manifest = serde_json::to_vec_pretty(&spec.manifest).context("write manifest")?;
        for (name, content) in [("manifest.json", &manifest[..]), ("RESTORE.md", spec.restore_notes.as_bytes())] {
            let mut node = Node::new(name, NodeKind::File);
            node.mode = 0o600;
            (node.mtime, node.atime, node.ctime) = (time, time, time);
            node.size = content.len() as u64;
            let pieces = content.chunks(1 << 20).map(|c| engine.store_here(BlobKind::Data, c).map(Into::into));
            node.content = Some(pieces.collect::<Result<_>>()?);
            root.insert(format!("{}/{name}", Manifest::FOLDER).as_bytes(), Vec::new(), node)?;
        }
        // A parent that cannot be read only costs storing trees again.
        let read = |id| self.reader.tree(id).ok();
        for (name, draft) in drafts {
            let parent = self.parents.get(&name).and_then(|parent| read(parent.file.tree));
            let previous = parent.and_then(|nodes| nodes.into_iter().find(|node| node.name == name.as_bytes()));
            root.graft(name.as_bytes(), std::mem::take(&mut *lock(&draft)), previous)?;
        }
        root.save(time, &read, &mut |json| engine.store_here(BlobKind::Tree, json).map(TreeId))
    }

    /// Whether everything that this run relies upon has surely stayed since it was looked at.
    fn is_secure(&self) -> bool {
        self.lock.is_sound() && crate::gc::still_holds(&self.repository, self.looked)
    }

    /// After our lock may have been taken for stale: takes another, which nobody gets while somebody deletes, and looks at
    /// everything again. What is there then stays, at least until it was seen that this run needs it.
    fn relock(&mut self, packs: &[(PackId, u64)], monitor: &Monitor) -> Result<()> {
        self.lock = self.repository.lock_within(LockMode::Shared, self.lock_wait, monitor)?;
        self.looked = (self.repository.options.clock)();
        self.reexamine(packs, monitor)
    }

    /// Everything this run relies upon must still be there, and nobody be about to remove it.
    fn reexamine(&self, packs: &[(PackId, u64)], monitor: &Monitor) -> Result<()> {
        let own = packs.iter().chain(&self.adopted.packs).map(|(id, size)| (*id, Some(*size)));
        let all = own.chain(self.reader.index.packs().into_iter().map(|id| (id, None)));
        let lost = crate::gc::first_lost(&self.repository, all, monitor)?;
        match lost {
            None => Ok(()),
            Some(id) => Err(Error::new(
                ErrorKind::Retry,
                format!("pack {id} was removed, or is about to be, since this run looked at it; no recovery point was made"),
            )
            .with_hint("run the backup again; this happens when the machine slept during a backup and another program pruned meanwhile")),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(engine) = self.engine.take() else { return };
        engine.fail(Error::new(ErrorKind::Cancelled, "session was given up"));
        match engine.stop() {
            Ok(packer) => packer.salvage(),
            Err(error) => tracing::debug!(error = %error.chain(), "session ended without a snapshot"),
        }
    }
}

/// The newest candidate that holds each source. One that cannot be read only costs reading files again.
fn find_parents(reader: &BlobReader, candidates: &[Snapshot], sources: &[String]) -> BTreeMap<String, Snapshot> {
    let mut parents = BTreeMap::new();
    for candidate in candidates {
        if parents.len() == sources.len() {
            break;
        }
        let Ok(nodes) = reader.tree(candidate.file.tree) else { continue };
        for source in sources.iter().filter(|s| nodes.iter().any(|n| n.name == s.as_bytes())) {
            parents.entry(source.clone()).or_insert_with(|| candidate.clone());
        }
    }
    parents
}

/// Every source that the manifest says is there must be, whole and closed; and nothing else may be.
fn judge(manifest: &Manifest, drafts: &BTreeMap<String, Arc<Mutex<Draft>>>) -> Result<()> {
    let refuse = |what: String| Err(Error::new(ErrorKind::Bug, format!("publish a recovery point: {what}")));
    for record in &manifest.sources {
        let failed = matches!(record.outcome, SourceOutcome::Failed { .. });
        match drafts.get(&record.name) {
            Some(_) if failed => return refuse(format!("source {:?} failed but was not discarded", record.name)),
            None if !failed => return refuse(format!("source {:?} was never captured", record.name)),
            Some(draft) => {
                let draft = lock(draft);
                if draft.open_streams > 0 || draft.dropped_streams > 0 {
                    return refuse(format!("source {:?} has streams without a verdict", record.name));
                }
            }
            None => {}
        }
    }
    match drafts.keys().find(|name| manifest.source(name).is_none()) {
        Some(name) => refuse(format!("source {name:?} is not in the manifest")),
        None => Ok(()),
    }
}

fn summary(monitor: &Monitor, started: Time, finished: Time) -> SnapshotSummary {
    let c = &monitor.counters;
    let (files, new, same) = (c.files.load(Relaxed), c.files_new.load(Relaxed), c.files_unchanged.load(Relaxed));
    let (dirs, dirs_new, dirs_same) = (c.dirs.load(Relaxed), c.dirs_new.load(Relaxed), c.dirs_unchanged.load(Relaxed));
    SnapshotSummary {
        backup_start: started,
        backup_end: finished,
        files_new: new,
        files_changed: files.saturating_sub(new + same),
        files_unmodified: same,
        dirs_new,
        dirs_changed: dirs.saturating_sub(dirs_new + dirs_same),
        dirs_unmodified: dirs_same,
        data_blobs: c.blobs_data_new.load(Relaxed),
        tree_blobs: c.blobs_tree_new.load(Relaxed),
        data_added: c.bytes_new.load(Relaxed),
        data_added_packed: c.bytes_stored.load(Relaxed),
        total_files_processed: files,
        total_bytes_processed: c.bytes.load(Relaxed),
    }
}

/// The folder of one source in the recovery point being made.
pub struct SourceSink<'a> {
    session: &'a Session,
    name: String,
    draft: Arc<Mutex<Draft>>,
}

impl std::fmt::Debug for SourceSink<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceSink").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SourceSink<'_> {
    /// Logical bytes and entries put into the draft so far, trees not opened.
    pub fn stream_count(&self) -> usize {
        lock(&self.draft).finished_streams
    }

    /// The node of `path` in the parent snapshot.
    fn previous(&self, path: &[u8]) -> Option<Node> {
        let mut tree = self.session.parents.get(&self.name)?.file.tree;
        let mut found = None;
        let components = path.split(|b| *b == b'/').filter(|c| !c.is_empty());
        for component in std::iter::once(self.name.as_bytes()).chain(components) {
            let nodes = self.session.reader.tree(tree).ok()?;
            let node = nodes.into_iter().find(|n| n.name == component)?;
            if let Some(subtree) = node.subtree {
                tree = subtree;
            }
            found = Some(node);
        }
        found
    }
}

impl Sink for SourceSink<'_> {
    fn stream(&self, spec: StreamSpec) -> Result<Box<dyn StreamWriter>> {
        let engine = self.session.engine()?.clone();
        if let Chunking::Fixed(0) = spec.chunking {
            return Err(Error::new(ErrorKind::Bug, "begin a stream of extents without length"));
        }
        lock(&self.draft).begin_stream(&spec.path)?;
        let draft = self.draft.clone();
        let chunking = spec.chunking;
        let on_end = move |end: Option<(Vec<lastgood_model::BlobId>, u64, lastgood_model::source::Verdict)>| {
            let mut draft = lock(&draft);
            let Some((content, length, _verdict)) = end else {
                draft.drop_stream();
                return Ok(());
            };
            let name = spec.path.rsplit(|b| *b == b'/').next().unwrap_or_default();
            let mut node = Node::new(name, NodeKind::File);
            node.mode = spec.mode;
            node.uid = spec.uid;
            node.gid = spec.gid;
            (node.mtime, node.atime, node.ctime) = (spec.mtime, spec.mtime, spec.mtime);
            node.size = length;
            node.links = 1;
            node.content = Some(content);
            draft.end_stream(&spec.path, node, spec.time_follows_content)
        };
        Ok(Box::new(Stream::new(engine, chunking, Box::new(on_end))?))
    }

    fn tree(&self, path: &[u8], mut node: Node, parents: Vec<Node>, dir: Arc<dyn TreeDir>) -> Result<()> {
        let previous = self.previous(path).and_then(|n| n.subtree);
        if let Some(name) = path.rsplit(|b| *b == b'/').next().filter(|n| !n.is_empty()) {
            node.name = name.to_vec();
        } else {
            node.name = self.name.clone().into_bytes();
        }
        match self.session.engine()?.walk(node, dir.clone(), previous)? {
            Some(node) => lock(&self.draft).insert(path, parents, node),
            None => Err(Error::new(
                ErrorKind::Io,
                format!("{} could not be read", lastgood_model::node::display_path(&dir.path_of(b""))),
            )),
        }
    }

    fn entry(&self, path: &[u8], entry: Entry, parents: Vec<Node>, dir: Arc<dyn TreeDir>) -> Result<()> {
        let what = lastgood_model::node::display_path(&dir.path_of(&entry.node.name));
        let old = self.previous(path);
        match self.session.engine()?.walk_entry(entry, dir, old.as_ref())? {
            Some(node) => lock(&self.draft).insert(path, parents, node),
            None => Err(Error::new(ErrorKind::Io, format!("{what} could not be read"))),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
