//! Buckets: S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.
//!
//! One store serves all three through one client library. What it promises beyond that library:
//!
//! - Every call ends: it is bounded in all by the length of what it moves, and given up when nothing has moved for a
//!   while ([`crate::Timeouts`]). The library repeats nothing; [`crate::RetryStore`] does.
//! - An object is one PUT, so that readers see all of it or nothing, and a name that must be new is asked for with a
//!   condition. Whether the server honours that is tried when a repository is made and remembered beside it
//!   ([`CapabilityRecord`]), since some accept the condition and ignore it. A condition that fails for an object that is
//!   named after its bytes means that it is there: also when it was our own earlier try whose answer was lost.
//! - Nothing of the library's texts reaches a message: they may hold signed URLs. See [`heard`].

mod heard;
#[cfg(feature = "s3")]
mod keys;
mod open;
#[cfg(feature = "s3")]
mod profile;
mod read;
mod record;
mod side;
mod wire;

pub use record::CapabilityRecord;

use crate::bridge::{Limits, block_on_watched};
use crate::location::{ObjectPlace, Service};
use crate::{Access, Timeouts, length_of, lock};
use bytes::Bytes;
use heard::{Answer, Heard};
use jiff::Timestamp;
use lastgood_model::store::{Capabilities, ObjectKind, SideStore, Store, StoreKey, Swept};
use lastgood_model::{Error, ErrorKind, Id, Result};
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use open::{Locking, Renew};
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The store at `place`.
pub(crate) fn open(place: &ObjectPlace, access: &Access) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(Bucket::new(place, access)?))
}

/// Calls in flight that still help: a server answers each from another machine.
const CONNECTIONS: usize = 8;
/// Bytes between two ranges that are cheaper to read than another round trip.
const COALESCE_GAP_BYTES: u64 = 512 << 10;
/// A body goes out in pieces of this length, so that its progress is seen.
const PIECE_BYTES: usize = 256 << 10;

/// A repository in a bucket, or below a prefix in one.
struct Bucket {
    service: Service,
    has_own_endpoint: bool,
    /// For people; holds no secret.
    shown: String,
    prefix: String,
    storage_class: Option<String>,
    client: Arc<dyn ObjectStore>,
    locking: Option<Locking>,
    /// The client that locks until a date, for as long as that date serves.
    locker: Mutex<Option<(Timestamp, Arc<dyn ObjectStore>)>>,
    keys: Option<Arc<dyn Renew>>,
    timeouts: Timeouts,
    /// What was found out when the repository was made; `None` while nobody has looked.
    record: Mutex<Option<Option<CapabilityRecord>>>,
    /// The server has said that it does not know conditions.
    knows_no_conditions: AtomicBool,
    #[cfg(feature = "planted-bugs")]
    planted: Option<crate::planted::Planted>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.shown)
    }
}

/// A call that failed, with the answer that says why.
struct Failed {
    error: Error,
    /// Boxed: errors are rare, and what is returned by every call shall be small.
    answer: Box<Answer>,
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, answer: Box::default() }
    }
}

/// How an object is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Plainly, in the place of what is there.
    Replace,
    /// Only where nothing is.
    Create,
}

/// What becomes of an object.
#[derive(Clone, Copy, Debug, Default)]
struct Keep<'a> {
    /// Locked from the start, when locks are wanted at all.
    is_locked: bool,
    class: Option<&'a str>,
}

impl Bucket {
    fn new(place: &ObjectPlace, access: &Access) -> Result<Self> {
        let clients = open::clients(place, access).map_err(|error| error.context(format!("use {place}")))?;
        // What is written in the prefix stands for itself.
        Path::parse(&place.prefix).map_err(|e| Error::invalid(format!("the prefix of {place}")).with_source(e))?;
        Ok(Self {
            service: place.service,
            has_own_endpoint: place.endpoint.is_some(),
            shown: place.to_string(),
            prefix: place.prefix.clone(),
            storage_class: place.storage_class.clone(),
            client: clients.plain,
            locking: clients.locking,
            locker: Mutex::default(),
            keys: clients.keys,
            timeouts: access.timeouts,
            record: Mutex::default(),
            knows_no_conditions: AtomicBool::new(false),
            #[cfg(feature = "planted-bugs")]
            planted: access.planted,
        })
    }

    fn path(&self, below: &str) -> Result<Path> {
        let whole = if self.prefix.is_empty() { below.to_owned() } else { format!("{}/{below}", self.prefix) };
        Path::parse(&whole).map_err(|e| Error::new(ErrorKind::Bug, format!("name an object {whole:?}")).with_source(e))
    }

    /// Makes a call that moves about so many bytes.
    fn call<T>(
        &self,
        bytes: u64,
        act: impl fmt::Display,
        future: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Failed> {
        self.call_within(self.timeouts.total(bytes), act, future).map(|(value, _)| value)
    }

    /// The same, with its deadline, and with the last answer.
    fn call_within<T>(
        &self,
        total: Duration,
        act: impl fmt::Display,
        future: impl Future<Output = object_store::Result<T>>,
    ) -> Result<(T, Answer), Failed> {
        let (heard, begun) = (Heard::new(), Instant::now());
        let limits = Limits { total, idle: self.timeouts.idle };
        let during = heard.during(future);
        let done = block_on_watched(limits, &heard.pulse, &act, &self.shown, async { Ok(during.await) })?;
        let answer = heard.last();
        match done {
            Ok(value) => Ok((value, answer)),
            Err(error) => Err(self.failed(answer, begun, &act, &error)),
        }
    }

    fn failed(&self, answer: Answer, begun: Instant, act: &dyn fmt::Display, error: &object_store::Error) -> Failed {
        let shown = &self.shown;
        if answer.is_expired() && self.keys.as_ref().is_some_and(|keys| keys.renew(begun)) {
            let message = format!("{act} in {shown}: the credentials had expired, and were fetched anew");
            return Failed { error: Error::new(ErrorKind::Retry, message), answer: Box::new(answer) };
        }
        if answer.status != 0 || answer.broken.is_some() {
            return Failed { error: answer.error(act, shown), answer: Box::new(answer) };
        }
        // Nothing was sent: a secret could not be fetched, or the library does not like what it was given.
        let ours = match error {
            object_store::Error::Generic { source, .. } => source.downcast_ref::<Error>(),
            _ => None,
        };
        let error = match ours {
            Some(ours) => {
                let error = Error::new(ours.kind(), format!("{act} in {shown}: {}", ours.chain()));
                match ours.hint() {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                }
            }
            None => Error::new(ErrorKind::Io, format!("{act} in {shown}: {error}")),
        };
        Failed { error, answer: Box::new(answer) }
    }

    /// What was found out about the server when the repository was made.
    fn record(&self) -> Option<CapabilityRecord> {
        if let Some(known) = lock(&self.record).clone() {
            return known;
        }
        let found = CapabilityRecord::read(self);
        if let Err(error) = &found {
            tracing::debug!(place = %self.shown, error = %error.chain(), "the record of what the server can was not read");
        }
        let found = found.ok().flatten();
        lock(&self.record).get_or_insert(found).clone()
    }

    /// True when a name that is taken is refused, also to several who ask at the same instant.
    fn honours_conditions(&self) -> bool {
        if self.knows_no_conditions.load(Ordering::Relaxed) {
            return false;
        }
        match self.record() {
            Some(record) => record.exclusive_create,
            // The three providers themselves do; what else speaks S3 must have shown it.
            None => self.service != Service::S3 || !self.has_own_endpoint,
        }
    }

    /// The client for an object that is to be kept so.
    fn client_for(&self, keep: Keep<'_>) -> Result<Arc<dyn ObjectStore>> {
        let Some(locking) = self.locking.as_ref().filter(|_| keep.is_locked) else { return Ok(self.client.clone()) };
        let until = locking.until(Timestamp::now());
        let mut locker = lock(&self.locker);
        match &*locker {
            Some((date, client)) if *date == until => Ok(client.clone()),
            _ => {
                let client = locking.client(until)?;
                *locker = Some((until, client.clone()));
                Ok(client)
            }
        }
    }

    /// One PUT.
    fn send(&self, below: &str, bytes: &Bytes, mode: PutMode, keep: Keep<'_>) -> Result<Answer, Failed> {
        let path = self.path(below)?;
        let client = self.client_for(keep)?;
        let pieces = (0..bytes.len()).step_by(PIECE_BYTES);
        let payload: PutPayload = pieces.map(|at| bytes.slice(at..bytes.len().min(at + PIECE_BYTES))).collect();
        let mut attributes = Attributes::new();
        if let Some(class) = keep.class {
            attributes.insert(Attribute::StorageClass, class.to_owned().into());
        }
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        let total = self.timeouts.total(bytes.len() as u64);
        let act = format_args!("write {below}");
        self.call_within(total, act, async { client.put_opts(&path, payload, options).await }).map(|(_, answer)| answer)
    }

    /// Writes an object. False when `how` is to create it and something is there.
    fn write(&self, below: &str, bytes: &Bytes, how: How, keep: Keep<'_>) -> Result<bool> {
        if how == How::Replace {
            self.send(below, bytes, PutMode::Overwrite, keep)?;
            return Ok(true);
        }
        if !self.honours_conditions() && self.size_of(below)?.is_some() {
            return Ok(false);
        }
        if !self.knows_no_conditions.load(Ordering::Relaxed) {
            match self.send(below, bytes, PutMode::Create, keep) {
                Ok(_) => return Ok(true),
                Err(failed) if failed.answer.is_taken() => return Ok(false),
                Err(failed) if failed.answer.knows_no_conditions() => {
                    self.knows_no_conditions.store(true, Ordering::Relaxed);
                    if self.size_of(below)?.is_some() {
                        return Ok(false);
                    }
                }
                Err(failed) => return Err(failed.error),
            }
        }
        self.send(below, bytes, PutMode::Overwrite, keep)?;
        Ok(true)
    }

    /// The length of an object; `None` when there is none.
    fn size_of(&self, below: &str) -> Result<Option<u64>> {
        let path = self.path(below)?;
        match self.call(0, format_args!("examine {below}"), async { self.client.head(&path).await }) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(failed) if failed.error.kind() == ErrorKind::Absent => Ok(None),
            Err(failed) => Err(failed.error),
        }
    }

    fn remove_below(&self, below: &str) -> Result<()> {
        let path = self.path(below)?;
        match self.call(0, format_args!("remove {below}"), async { self.client.delete(&path).await }) {
            Ok(()) => Ok(()),
            Err(failed) if failed.error.kind() == ErrorKind::Absent => Ok(()),
            Err(failed) => Err(failed.error),
        }
    }

    /// How an object is kept. Locks of runs come and go.
    fn keep(&self, kind: ObjectKind, is_cold: bool) -> Keep<'_> {
        Keep { is_locked: kind != ObjectKind::Lock, class: self.storage_class.as_deref().filter(|_| is_cold) }
    }

    /// Writes one of the repository's objects. One of another length under the same name is damaged, whatever it is, and is
    /// replaced.
    fn put_kept(&self, key: &StoreKey, parts: &[&[u8]], keep: Keep<'_>) -> Result<()> {
        let below = key.path();
        let bytes = Bytes::from(parts.concat());
        if key.kind == ObjectKind::Config {
            if !self.write(&below, &bytes, How::Create, keep)? {
                return Err(taken(&below, &self.shown));
            }
            // Where conditions are not honoured, another may have written at the same instant.
            if !self.honours_conditions() && self.read(&below)? != bytes {
                return Err(taken(&below, &self.shown));
            }
            return Ok(());
        }
        let how = if self.honours_conditions() { How::Create } else { How::Replace };
        let is_there = || Ok::<_, Error>(self.size_of(&below)? == Some(length_of(parts)));
        match self.write(&below, &bytes, how, keep) {
            Ok(true) => Ok(()),
            Ok(false) if is_there()? => Ok(()),
            Ok(false) => self.write(&below, &bytes, How::Replace, keep).map(drop),
            // A server may refuse a name that is taken and close before the body is sent, so that no answer is seen.
            Err(error) if how == How::Create && error.kind() == ErrorKind::Retry && is_there().unwrap_or(false) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

impl Store for Bucket {
    fn location(&self) -> String {
        self.shown.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            connections: CONNECTIONS,
            coalesce_gap_bytes: COALESCE_GAP_BYTES,
            exclusive_create: self.honours_conditions(),
            list_after_write: self.record().is_none_or(|record| record.list_after_write),
        }
    }

    /// A bucket has no folders. What the server can is tried instead, and remembered.
    fn create(&self) -> Result<()> {
        let found = record::examine(self)?;
        found.write(self)?;
        *lock(&self.record) = Some(Some(found));
        Ok(())
    }

    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        self.put_kept(key, parts, self.keep(key.kind, false))
    }

    fn put_cold(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        self.put_kept(key, parts, self.keep(key.kind, true))
    }

    /// What was answered is durable.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        self.read(&key.path())
    }

    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        self.read_range(&key.path(), offset, length, out)
    }

    fn size(&self, key: &StoreKey) -> Result<u64> {
        let below = key.path();
        self.size_of(&below)?.ok_or_else(|| self.absent(&below))
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        if kind == ObjectKind::Config {
            let size = self.size_of(&StoreKey::CONFIG.path())?;
            return Ok(size.map(|length| (StoreKey::CONFIG.id, length)).into_iter().collect());
        }
        let found = self.listed(kind.folder())?;
        let ids = found.into_iter().filter_map(|(below, meta)| {
            let name = match kind {
                ObjectKind::Pack => {
                    below.split_once('/').filter(|(two, name)| name.starts_with(two) && two.len() == 2)?.1
                }
                _ => below.as_str(),
            };
            Some((Id::from_hex(name.as_bytes())?, meta.size))
        });
        Ok(ids.collect())
    }

    fn remove(&self, key: &StoreKey) -> Result<()> {
        self.remove_below(&key.path())
    }

    /// We make no uploads in parts, so that nothing half-written is ever left; what tries have left is taken away.
    fn sweep(&self, older_than: Duration) -> Result<Swept> {
        record::sweep(self, older_than)
    }

    fn probe(&self) -> Result<()> {
        record::try_to_write(self)
    }

    fn side(&self) -> Option<&dyn SideStore> {
        Some(self)
    }
}

fn taken(below: &str, place: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("{below} is in {place} already"))
        .with_hint("this place holds a repository; use it, or choose another place")
}
