//! Opening and making repositories, their keys, and their small objects.

use crate::chunk::{ChunkParams, Polynomial};
use crate::crypto::{KdfCost, MasterKey, Password, Sealer, WRONG_KEY_HINT, random};
use crate::format::key_file::{KEY_FILE_BYTES_MAX, decode_master_key, encode_master_key};
use crate::format::{ConfigFile, KeyFile, SnapshotFile};
use crate::index::IndexCache;
use crate::lock::{Clock, LockGuard, LockMode, Pause, hostname, system_clock, system_pause};
use crate::read::{BlobReader, decompress};
use crate::sha256::sha256;
use crate::work::{calls_at_once, each};
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{Context, Error, ErrorKind, Id, KeyId, Monitor, Result, SnapshotId};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use zeroize::Zeroizing;

/// Keys tried when opening; restic tries as many.
const KEYS_TRIED_MAX: usize = 20;
/// No snapshot object is longer; what an attacker stores must not fill memory.
const SNAPSHOT_BYTES_MAX: u64 = 64 << 20;
/// No config, key, lock, snapshot or index file is longer once decompressed.
const UNPACKED_BYTES_MAX: usize = 1 << 30;

/// How to open a repository.
#[derive(Clone)]
pub struct OpenOptions {
    /// Folder for local caches of all repositories; `None` keeps none.
    pub cache: Option<PathBuf>,
    /// The wall clock.
    pub clock: Clock,
    /// How to wait for others.
    pub pause: Pause,
    /// A mistake to be made on purpose.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<crate::planted::Planted>,
    /// Another host's name than this one's, for a model in which there are several.
    #[cfg(feature = "planted-bugs")]
    pub host: Option<String>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            cache: None,
            clock: system_clock(),
            pause: system_pause(),
            #[cfg(feature = "planted-bugs")]
            planted: None,
            #[cfg(feature = "planted-bugs")]
            host: None,
        }
    }
}

impl std::fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenOptions").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// An open repository.
pub struct Repository {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) config: ConfigFile,
    pub(crate) options: OpenOptions,
    master: MasterKey,
    key: KeyId,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("store", &self.store).field("id", &self.config.id).finish_non_exhaustive()
    }
}

/// A key object, without what is secret in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its id.
    pub id: KeyId,
    /// Who made it.
    pub username: String,
    /// Where.
    pub hostname: String,
    /// When, as written.
    pub created: String,
    /// True for the key that this repository was opened with.
    pub current: bool,
    /// Why it cannot be read; nothing else is known of it then, and it opens nothing.
    pub damaged: Option<String>,
}

/// A snapshot by id, as it was read.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// Its content.
    pub file: SnapshotFile,
}

impl Repository {
    /// Makes a new, empty repository.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when there is one already.
    pub fn init(store: Arc<dyn Store>, password: &Password, options: OpenOptions) -> Result<Self> {
        Self::make(store, password, options, None)
    }

    /// Makes a new, empty repository that has the master key and the chunker polynomial of `other`, so that copies
    /// between the two need not be opened, and both cut files alike. Its id is its own, and so is its key object.
    ///
    /// Whoever learns the master key of one of them can read both.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when there is one already.
    pub fn init_copy_of(
        other: &Self,
        store: Arc<dyn Store>,
        password: &Password,
        options: OpenOptions,
    ) -> Result<Self> {
        let shared = (other.master.clone(), other.config.chunker_polynomial);
        Self::make(store, password, options, Some(shared))
    }

    fn make(
        store: Arc<dyn Store>,
        password: &Password,
        options: OpenOptions,
        shared: Option<(MasterKey, Polynomial)>,
    ) -> Result<Self> {
        if Self::exists(&*store)? {
            return Err(already_there(&*store));
        }
        store.create().with_context(|| format!("make repository at {}", store.location()))?;
        let left = left_key(&*store, password)?;
        let (master, polynomial) = match (shared, &left) {
            (Some((master, _)), Some((other, _))) if master != *other => return Err(without_config(&*store)),
            (Some(shared), _) => shared,
            (None, Some((left, _))) => (left.clone(), new_polynomial()?),
            (None, None) => (MasterKey::generate()?, new_polynomial()?),
        };
        let sealer = Arc::new(Sealer::new(&master)?);
        let mut id = [0u8; 32];
        random(&mut id)?;
        let config = ConfigFile { id: Id(id), chunker_polynomial: polynomial };
        let key = match left {
            Some((_, key)) => key,
            None => write_key(&*store, password, &master, &options.clock)?,
        };
        store.sync()?;
        // The config comes last: without it there is no repository, so a crash before leaves only a key to nothing, which
        // the next try takes over.
        let sealed = sealer.seal(&config.encode())?;
        store.put(&StoreKey::CONFIG, &[&sealed]).map_err(|error| match error.kind() {
            ErrorKind::Conflict => already_there(&*store),
            _ => error.context("write config"),
        })?;
        store.sync()?;
        Ok(Self { store, sealer, config, options, master, key })
    }

    /// Whether there is a repository in a store.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for one that has lost its `config` object; whatever keeps the store from answering.
    pub fn exists(store: &dyn Store) -> Result<bool> {
        match store.size(&StoreKey::CONFIG) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::Absent | ErrorKind::NoRepository) => {
                match no_config(store, error) {
                    error if error.kind() == ErrorKind::Corrupt => Err(error),
                    _ => Ok(false),
                }
            }
            Err(error) => Err(error.context("look for a repository")),
        }
    }

    /// Opens a repository, whoever made it.
    ///
    /// # Errors
    /// [`ErrorKind::NoRepository`], [`ErrorKind::WrongKey`], [`ErrorKind::Unsupported`] for format version 1.
    pub fn open(store: Arc<dyn Store>, password: &Password, options: OpenOptions) -> Result<Self> {
        let mut sealed_config = store.get(&StoreKey::CONFIG).map_err(|error| match error.kind() {
            ErrorKind::Absent => no_config(&*store, error),
            _ => error.context("read config"),
        })?;
        let (master, key) = search_key(&*store, password)?;
        let sealer = Arc::new(Sealer::new(&master)?);
        // The key did open, so it is the object.
        let damaged = |error: Error| {
            error
                .context(format!("the `config` object of the repository at {} is damaged", store.location()))
                .with_hint(CONFIG_HINT)
        };
        let json = sealer.open_in_place(&mut sealed_config).map_err(damaged)?;
        let config = ConfigFile::decode(json).map_err(|error| match error.kind() {
            ErrorKind::Corrupt => damaged(error),
            _ => error,
        })?;
        Ok(Self { store, sealer, config, options, master, key })
    }

    /// The repository's own id.
    pub fn id(&self) -> Id {
        self.config.id
    }

    /// Whether both have the same master key, so that each opens what the other sealed.
    pub fn has_key_of(&self, other: &Self) -> bool {
        self.master == other.master
    }

    /// The key it was opened with.
    pub(crate) fn current_key(&self) -> KeyId {
        self.key
    }

    /// Where it is.
    pub fn location(&self) -> String {
        self.store.location()
    }

    /// Takes a lock on it.
    pub fn lock(&self, mode: LockMode) -> Result<LockGuard> {
        let OpenOptions { clock, pause, .. } = &self.options;
        LockGuard::take(self.store.clone(), self.sealer.clone(), mode, clock.clone(), pause)
    }

    /// Takes a lock, waiting up to `wait` for whoever holds one that excludes it.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] when it is still held by then; [`ErrorKind::Cancelled`] once `monitor` was asked to stop.
    pub fn lock_within(&self, mode: LockMode, wait: Duration, monitor: &Monitor) -> Result<LockGuard> {
        const ASK_AGAIN_MAX: Duration = Duration::from_secs(5);
        /// So long at most before a wish to stop is noticed.
        const NAP: Duration = Duration::from_millis(50);
        let mut left = wait;
        let mut pause = Duration::from_millis(100);
        loop {
            let error = match self.lock(mode) {
                Err(error) if error.kind() == ErrorKind::Locked => error,
                other => return other,
            };
            if left.is_zero() {
                return Err(error);
            }
            if left == wait {
                tracing::info!("waiting: {}", error.chain());
            }
            let mut now = pause.min(left);
            left -= now;
            while !now.is_zero() {
                monitor.check_cancelled()?;
                let nap = NAP.min(now);
                (self.options.pause)(nap);
                now -= nap;
            }
            pause = (pause * 2).min(ASK_AGAIN_MAX);
        }
    }

    /// Bytes of all its objects, as the store lists them.
    pub fn stored_bytes(&self) -> Result<u64> {
        let mut bytes = 0u64;
        for kind in ObjectKind::LISTED {
            bytes = self.store.list(kind)?.iter().fold(bytes, |sum, (_, size)| sum.saturating_add(*size));
        }
        Ok(bytes)
    }

    /// Its keys, oldest first, and then those that are damaged.
    pub fn keys(&self) -> Result<Vec<KeyInfo>> {
        let mut keys = Vec::new();
        for (id, _) in self.store.list(ObjectKind::Key)? {
            let id = KeyId(id);
            let current = id == self.key;
            keys.push(match read_key(&*self.store, id) {
                Ok(KeyFile { username, hostname, created, .. }) => {
                    KeyInfo { id, username, hostname, created: created.to_string(), current, damaged: None }
                }
                // Removed by somebody else since the listing.
                Err(error) if error.kind() == ErrorKind::Absent => continue,
                Err(error) if is_damage(&error) => KeyInfo {
                    id,
                    username: String::new(),
                    hostname: String::new(),
                    created: String::new(),
                    current,
                    damaged: Some(error.chain()),
                },
                Err(error) => return Err(error),
            });
        }
        keys.sort_by(|a, b| (a.damaged.is_some(), &a.created).cmp(&(b.damaged.is_some(), &b.created)));
        Ok(keys)
    }

    /// Adds a key that opens the same repository.
    pub fn add_key(&self, password: &Password) -> Result<KeyId> {
        let id = write_key(&*self.store, password, &self.master, &self.options.clock)?;
        self.store.sync()?;
        Ok(id)
    }

    /// Removes a key.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for the key in use, so that one that works always remains.
    pub fn remove_key(&self, id: KeyId) -> Result<()> {
        if id == self.key {
            return Err(Error::invalid("the key in use cannot be removed")
                .with_hint("open the repository with another of its keys to remove this one"));
        }
        self.store.size(&StoreKey::new(ObjectKind::Key, id)).context("find key")?;
        self.store.remove(&StoreKey::new(ObjectKind::Key, id))
    }

    /// All snapshots, oldest first. One that cannot be read goes to `damaged`.
    pub fn snapshots(&self, mut damaged: impl FnMut(SnapshotId, Error)) -> Result<Vec<Snapshot>> {
        let (mut snapshots, mut unreadable) = (Vec::new(), Vec::new());
        let listed = self.store.list(ObjectKind::Snapshot)?;
        let found = Mutex::new((&mut snapshots, &mut unreadable));
        // Each is a round trip to a far store.
        each(
            calls_at_once(&*self.store),
            &Monitor::new(),
            &listed,
            || (),
            |(), (id, size)| {
                let read = match *size <= SNAPSHOT_BYTES_MAX {
                    true => self.snapshot(SnapshotId(*id)),
                    false => Err(Error::corrupt(format!("a snapshot of {size} bytes is none"))),
                };
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                match read {
                    Ok(snapshot) => found.0.push(snapshot),
                    // Removed by somebody else since the listing.
                    Err(error) if error.kind() == ErrorKind::Absent => {}
                    Err(error) if is_damage(&error) => found.1.push((SnapshotId(*id), error)),
                    Err(error) => return Err(error),
                }
                Ok(())
            },
        )?;
        unreadable.sort_by_key(|(id, _)| *id);
        unreadable.into_iter().for_each(|(id, error)| damaged(id, error));
        snapshots.sort_by_key(|s| (s.file.time, s.id));
        Ok(snapshots)
    }

    /// One snapshot.
    pub fn snapshot(&self, id: SnapshotId) -> Result<Snapshot> {
        let act = || format!("read snapshot {}", id.short());
        let json = self.get_unpacked(ObjectKind::Snapshot, id.0).with_context(act)?;
        Ok(Snapshot { id, file: SnapshotFile::decode(&json).with_context(act)? })
    }

    /// A reader with the whole index, which also finds what a lost index file listed.
    pub fn reader(&self) -> Result<Arc<BlobReader>> {
        let reader = BlobReader::new(self.store.clone(), self.sealer.clone(), self.load_index()?);
        Ok(Arc::new(reader.beyond_the_index()))
    }

    pub(crate) fn cache(&self) -> IndexCache {
        IndexCache::new(self.options.cache.as_deref(), &self.config.id)
    }

    /// What cutters need: restic's polynomial, and a seed for row chunks that only holders of the key know.
    pub(crate) fn chunk_params(&self) -> Result<ChunkParams> {
        let mut secret = Zeroizing::new(Vec::with_capacity(96));
        secret.extend_from_slice(b"lastgood row chunks v1\0");
        secret.extend_from_slice(&self.master.encrypt);
        ChunkParams::new(self.config.chunker_polynomial, &sha256(&secret))
    }

    /// The JSON of an index, snapshot or lock.
    pub(crate) fn get_unpacked(&self, kind: ObjectKind, id: Id) -> Result<Vec<u8>> {
        get_unpacked(&*self.store, &self.sealer, &StoreKey::new(kind, id))
    }
}

/// True for errors that say of an object that it cannot be used, whoever asks however often.
pub(crate) fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)
}

/// What to do without a `config` object: nothing that needs the repository open can help.
const CONFIG_HINT: &str = "put the `config` object back from another copy of the repository; it is never changed after it was made, and the recovery points themselves are not touched by this. Until then make no new repository there and delete nothing";

/// The error for a place without a `config` object: nothing is there, or what is there has lost it.
fn no_config(store: &dyn Store, error: Error) -> Error {
    let count = |kind| store.list(kind).map_or(0, |objects| objects.len());
    let (snapshots, keys, packs) = (count(ObjectKind::Snapshot), count(ObjectKind::Key), count(ObjectKind::Pack));
    if snapshots > 0 || keys > 0 && packs > 0 {
        return Error::corrupt(format!(
            "the `config` object of the repository at {} is missing; still there are {snapshots} recovery points, {packs} packs of data and {keys} key objects",
            store.location()
        ))
        .with_source(error)
        .with_hint(CONFIG_HINT);
    }
    Error::new(ErrorKind::NoRepository, format!("no repository at {}", store.location()))
        .with_source(error)
        .with_hint("check the path, or make one with `lastgood init`")
}

fn new_polynomial() -> Result<Polynomial> {
    let mut failed = None;
    let polynomial = Polynomial::generate(&mut |out| {
        if let Err(error) = random(out) {
            failed = Some(error);
        }
    })?;
    failed.map_or(Ok(polynomial), Err)
}

/// The key that a try to make a repository left behind when it died before there was a config. It must be used again: if
/// there were two that open, with different master keys, the wrong one could be found first. Nor can it be removed, since
/// whoever wrote it may be alive.
fn left_key(store: &dyn Store, password: &Password) -> Result<Option<(MasterKey, KeyId)>> {
    let is_empty = |kind| -> Result<bool> { Ok(store.list(kind)?.is_empty()) };
    if !is_empty(ObjectKind::Snapshot)? {
        return Err(without_config(store));
    }
    if is_empty(ObjectKind::Key)? {
        return Ok(None);
    }
    if !is_empty(ObjectKind::Index)? || !is_empty(ObjectKind::Pack)? {
        return Err(without_config(store));
    }
    match search_key(store, password) {
        Ok(left) => Ok(Some(left)),
        Err(error) if error.kind() == ErrorKind::WrongKey || is_damage(&error) => Err(without_config(store)),
        Err(error) => Err(error),
    }
}

fn without_config(store: &dyn Store) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("{} holds keys or snapshots but no config: it is a damaged repository", store.location()),
    )
    .with_hint("restore its `config` object from another copy, or choose an empty place")
}

fn already_there(store: &dyn Store) -> Error {
    Error::new(ErrorKind::Conflict, format!("there is a repository at {} already", store.location()))
        .with_hint("use it as it is, or choose another place")
}

/// The stored form of an index, snapshot or lock: 0x02 ‖ zstd(JSON), sealed.
pub(crate) fn seal_unpacked(sealer: &Sealer, json: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(json.len() / 2 + 64);
    plain.push(2);
    let compressed = zstd::bulk::compress(json, 3).map_err(|e| Error::io("compress", e))?;
    plain.extend_from_slice(&compressed);
    sealer.seal(&plain)
}

/// Writes an index, snapshot or lock and returns its id.
pub(crate) fn put_unpacked(store: &dyn Store, sealer: &Sealer, kind: ObjectKind, json: &[u8]) -> Result<Id> {
    let sealed = seal_unpacked(sealer, json)?;
    let id = Id(sha256(&sealed));
    store.put(&StoreKey::new(kind, id), &[&sealed])?;
    Ok(id)
}

/// Reads what [`put_unpacked`] or restic wrote: name, tag and frame are checked, in this order.
pub(crate) fn get_unpacked(store: &dyn Store, sealer: &Sealer, key: &StoreKey) -> Result<Vec<u8>> {
    let mut sealed = store.get(key)?;
    if sha256(&sealed) != key.id.0 {
        return Err(Error::corrupt(format!("{key} is damaged: its content is not what its name says")));
    }
    expand(key, sealer.open_in_place(&mut sealed).with_context(|| format!("open {key}"))?)
}

/// The JSON in an opened index, snapshot, lock, or object beside them.
pub(crate) fn expand(key: &dyn std::fmt::Display, plain: &[u8]) -> Result<Vec<u8>> {
    match plain.first() {
        Some(b'{' | b'[') => Ok(plain.to_vec()),
        Some(2) => {
            let frame = &plain[1..];
            let length = zstd::zstd_safe::get_frame_content_size(frame)
                .map_err(|_| Error::corrupt(format!("{key} holds no zstd frame")))?;
            let mut json = Vec::new();
            match length.map(usize::try_from) {
                Some(Ok(length)) if length <= UNPACKED_BYTES_MAX => decompress(frame, length, &mut json)?,
                Some(_) => return Err(Error::corrupt(format!("{key} claims to be larger than any such object"))),
                // A frame that does not tell its length, as a streaming encoder leaves it.
                None => {
                    use std::io::Read;
                    zstd::stream::read::Decoder::with_buffer(frame)
                        .and_then(|decoder| decoder.take(UNPACKED_BYTES_MAX as u64).read_to_end(&mut json))
                        .map_err(|e| Error::corrupt(format!("decompress {key}")).with_source(e))?;
                }
            }
            Ok(json)
        }
        other => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{key} begins with {other:?}, an encoding unknown to this version"),
        )),
    }
}

fn write_key(store: &dyn Store, password: &Password, master: &MasterKey, clock: &Clock) -> Result<KeyId> {
    let mut salt = [0u8; 64];
    random(&mut salt)?;
    let cost = password.cost();
    let derived = MasterKey::from_derived(&*password.derive(cost, &salt)?);
    let data = Sealer::new(&derived)?.seal(&encode_master_key(master)?)?;
    let file = KeyFile { created: clock(), username: username(), hostname: hostname(), cost, salt, data };
    let bytes = file.encode()?;
    let id = KeyId(Id(sha256(&bytes)));
    store.put(&StoreKey::new(ObjectKind::Key, id), &[&bytes]).context("write key")?;
    Ok(id)
}

pub(crate) fn username() -> String {
    std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default()
}

fn read_key(store: &dyn Store, id: KeyId) -> Result<KeyFile> {
    let key = StoreKey::new(ObjectKind::Key, id);
    let bytes = store.get(&key).with_context(|| format!("read {key}"))?;
    if sha256(&bytes) != id.0.0 {
        return Err(Error::corrupt(format!("{key} is damaged: its content is not what its name says")));
    }
    KeyFile::decode(&bytes).with_context(|| format!("read {key}"))
}

/// Tries the password on the keys, the cheap ones first.
fn search_key(store: &dyn Store, password: &Password) -> Result<(MasterKey, KeyId)> {
    let mut damaged = None;
    let mut files = Vec::new();
    for (id, size) in store.list(ObjectKind::Key)?.into_iter().take(KEYS_TRIED_MAX * 10) {
        let read = match size <= KEY_FILE_BYTES_MAX as u64 {
            true => read_key(store, KeyId(id)),
            false => Err(Error::corrupt(format!("a key object of {size} bytes is none"))),
        };
        match read {
            Ok(file) => files.push((KeyId(id), file)),
            Err(error) if error.kind() == ErrorKind::Absent => {}
            Err(error) => damaged = Some(error),
        }
    }
    files.sort_by_key(|(id, file)| (file.cost.log_n, file.cost.p, *id));
    let files_read = files.len();
    let fitting = if password.is_generated() {
        // A generated key was never given a costly setting by us, but may have been added by another program.
        files
    } else {
        files.into_iter().filter(|(_, f)| f.cost != KdfCost::FAST).collect()
    };
    for (id, file) in fitting.iter().take(KEYS_TRIED_MAX) {
        let derived = MasterKey::from_derived(&*password.derive(file.cost, &file.salt)?);
        let mut sealed = file.data.clone();
        if let Ok(json) = Sealer::new(&derived)?.open_in_place(&mut sealed) {
            return Ok((decode_master_key(json)?, *id));
        }
    }
    if files_read == 0 && damaged.is_none() {
        return Err(Error::corrupt(format!("there is no object in keys/ at {}", store.location())).with_hint(
            "restore the key objects from another copy of the repository: without them nobody can read it",
        ));
    }
    if let Some(error) = damaged {
        return Err(error
            .context("open key")
            .with_hint("restore the damaged key object from another copy of the repository"));
    }
    Err(Error::new(ErrorKind::WrongKey, format!("the key does not open the repository at {}", store.location()))
        .with_hint(WRONG_KEY_HINT))
}
