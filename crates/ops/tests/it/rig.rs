//! A repository with a folder beside it: what is backed up, and where it is restored to.

use lastgood_model::manifest::{Manifest, SourceOutcome};
use lastgood_model::source::Source;
use lastgood_model::store::{Capabilities, ObjectKind, SideStore, Store, StoreKey, Swept};
use lastgood_model::{Id, Monitor, Result, SnapshotId};
use lastgood_ops::backup::{self, BackupOptions, BackupReport};
use lastgood_ops::restore::{self, RestoreReport, RestoreRequest};
use lastgood_repo::check::{VerifyOptions, verify};
use lastgood_repo::crypto::Password;
use lastgood_repo::{OpenOptions, Repository};
use lastgood_sources::files::{FilesOptions, FilesSource};
use lastgood_sources::sqlite::SqliteSource;
use lastgood_stores::{LocalStore, MemoryStore, Op};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A repository and a place for files.
pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) password: Password,
}

impl Rig {
    /// With the repository in memory; the store is given back to be spoilt.
    pub(crate) fn in_memory() -> (Self, MemoryStore) {
        let store = MemoryStore::new();
        (Self::with(Arc::new(store.clone())), store)
    }

    /// With the repository in `repo` below the folder.
    pub(crate) fn on_disk() -> Self {
        let dir = folder();
        let store = LocalStore::new(dir.path().join("repo")).unwrap();
        Self::init(dir, Arc::new(store))
    }

    pub(crate) fn with(store: Arc<dyn Store>) -> Self {
        Self::init(folder(), store)
    }

    fn init(dir: tempfile::TempDir, store: Arc<dyn Store>) -> Self {
        let password = Password::generate().unwrap();
        fs_err::write(dir.path().join("password"), password.reveal()).unwrap();
        Repository::init(store.clone(), &password, OpenOptions::default()).unwrap();
        Self { dir, store, password }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(crate) fn open(&self) -> Arc<Repository> {
        self.open_through(self.store.clone()).unwrap()
    }

    pub(crate) fn open_through(&self, store: Arc<dyn Store>) -> Result<Arc<Repository>> {
        Repository::open(store, &self.password, OpenOptions::default()).map(Arc::new)
    }

    /// Writes files below `tree`, given as path and content.
    pub(crate) fn plant(&self, files: &[(&str, &[u8])]) -> PathBuf {
        let tree = self.path("tree");
        for (path, content) in files {
            let path = tree.join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, content).unwrap();
        }
        tree
    }

    pub(crate) fn backup(&self, sources: &[Box<dyn Source>]) -> Result<BackupReport> {
        backup_with(&self.open(), sources, &BackupOptions::default())
    }

    /// Backs `tree` up as the source `files`.
    pub(crate) fn backup_tree(&self) -> BackupReport {
        self.backup(&[files("files", [self.path("tree")])]).unwrap()
    }

    /// Restores all of a recovery point into `to` below the folder.
    pub(crate) fn restore(&self, id: SnapshotId, to: &str) -> Result<RestoreReport> {
        restore_with(&self.open(), id, RestoreRequest::all_to(self.path(to)))
    }

    /// Where `original` is after a restore into `to`.
    pub(crate) fn restored(&self, to: &str, source: &str, original: &Path) -> PathBuf {
        self.path(to).join(source).join(original.strip_prefix("/").unwrap())
    }

    /// Every snapshot and every byte is as it must be.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        assert_sound(&self.open());
    }

    pub(crate) fn snapshots(&self) -> Vec<SnapshotId> {
        self.open().snapshots(|_, _| {}).unwrap().into_iter().map(|s| s.id).collect()
    }

    pub(crate) fn manifest(&self, id: SnapshotId) -> Manifest {
        let repository = self.open();
        let snapshot = repository.snapshot(id).unwrap();
        lastgood_ops::snapshots::manifest(&repository.reader().unwrap(), &snapshot).unwrap().unwrap()
    }
}

#[track_caller]
pub(crate) fn assert_sound(repository: &Repository) {
    let report = verify(repository, &Monitor::new(), &VerifyOptions::all()).unwrap();
    assert!(report.is_sound(), "{:#?}", report.damage);
}

/// A temporary folder on a real file system.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub(crate) fn files(name: &str, paths: impl IntoIterator<Item = PathBuf>) -> Box<dyn Source> {
    Box::new(FilesSource::new(name, paths.into_iter().collect(), FilesOptions::default()).unwrap())
}

pub(crate) fn sqlite(name: &str, path: &Path) -> Box<dyn Source> {
    Box::new(SqliteSource::new(name, path))
}

pub(crate) fn backup_with(
    repository: &Arc<Repository>,
    sources: &[Box<dyn Source>],
    options: &BackupOptions,
) -> Result<BackupReport> {
    backup::run(repository, "shop", sources, &Arc::new(Monitor::new()), options)
}

pub(crate) fn restore_with(
    repository: &Arc<Repository>,
    id: SnapshotId,
    request: RestoreRequest,
) -> Result<RestoreReport> {
    restore_watched(repository, id, request, &Arc::new(Monitor::new()))
}

pub(crate) fn restore_watched(
    repository: &Arc<Repository>,
    id: SnapshotId,
    request: RestoreRequest,
    monitor: &Arc<Monitor>,
) -> Result<RestoreReport> {
    let snapshot = repository.snapshot(id)?;
    restore::plan(repository, snapshot, request, monitor)?.execute(monitor)
}

/// A database of so many rows, made by SQLite itself.
pub(crate) fn make_database(path: &Path, rows: u32) {
    let database = rusqlite::Connection::open(path).unwrap();
    database.execute_batch("pragma journal_mode = wal; create table item (id integer primary key, body text)").unwrap();
    add_rows(path, rows);
}

pub(crate) fn add_rows(path: &Path, rows: u32) {
    let database = rusqlite::Connection::open(path).unwrap();
    let sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1)
               insert into item (body) select 'row ' || hex(randomblob(50)) from n";
    database.execute(sql, [rows]).unwrap();
}

pub(crate) fn count_rows(path: &Path) -> u32 {
    let database = rusqlite::Connection::open(path).unwrap();
    database.query_row("select count(*) from item", [], |row| row.get(0)).unwrap()
}

/// The outcome of a source by name.
pub(crate) fn outcome<'a>(report: &'a BackupReport, name: &str) -> &'a SourceOutcome {
    &report.sources.iter().find(|source| source.name == name).unwrap().outcome
}

type Before = Box<dyn Fn(Op, Option<&StoreKey>) + Send + Sync>;

/// Calls back before each call to the store below: a place for the world to change meanwhile.
pub(crate) struct Watched {
    inner: Arc<dyn Store>,
    before: Before,
}

impl Watched {
    pub(crate) fn new(
        inner: Arc<dyn Store>,
        before: impl Fn(Op, Option<&StoreKey>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { inner, before: Box::new(before) })
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Store for Watched {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn create(&self) -> Result<()> {
        (self.before)(Op::Create, None);
        self.inner.create()
    }
    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        (self.before)(Op::Put, Some(key));
        self.inner.put(key, parts)
    }
    fn sync(&self) -> Result<()> {
        (self.before)(Op::Sync, None);
        self.inner.sync()
    }
    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        (self.before)(Op::Get, Some(key));
        self.inner.get(key)
    }
    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        (self.before)(Op::GetRange, Some(key));
        self.inner.get_range(key, offset, length, out)
    }
    fn size(&self, key: &StoreKey) -> Result<u64> {
        (self.before)(Op::Size, Some(key));
        self.inner.size(key)
    }
    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        (self.before)(Op::List, None);
        self.inner.list(kind)
    }
    fn remove(&self, key: &StoreKey) -> Result<()> {
        (self.before)(Op::Remove, Some(key));
        self.inner.remove(key)
    }
    fn sweep(&self, older_than: Duration) -> Result<Swept> {
        (self.before)(Op::Sweep, None);
        self.inner.sweep(older_than)
    }
    fn side(&self) -> Option<&dyn SideStore> {
        self.inner.side()
    }
}
