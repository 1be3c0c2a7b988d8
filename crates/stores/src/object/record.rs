//! What a server can, tried when a repository is made and kept beside it in `lastgood/probe/capabilities`.
//!
//! Trying is the only way to know: some servers accept a condition or a lock and ignore it. Each try uses objects of its
//! own with random names in `lastgood/probe/`, which are taken away again.

use super::{Bucket, How, Keep};
use crate::lock;
use bytes::Bytes;
use jiff::Timestamp;
use lastgood_model::store::{SideName, SidePut, SideStore, Swept};
use lastgood_model::{Context, Error, ErrorKind, Result};
use object_store::{ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The folder beside the repository for tries.
const FOLDER: &str = "probe";
/// The name of the record in it.
const NAME: &str = "capabilities";
/// The only version of the record there is.
const VERSION: u32 = 1;

/// What was found out about the server that holds a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityRecord {
    version: u32,
    /// When this was tried, in seconds since 1970, by this machine's clock.
    pub tried_at: i64,
    /// A name that is taken is refused to whoever asks for it to be created.
    pub exclusive_create: bool,
    /// A list shows what was written a moment before.
    pub list_after_write: bool,
    /// By how many seconds the server's clock was ahead of this machine's; `None` when it did not tell.
    pub clock_ahead_seconds: Option<i64>,
    /// Whether objects are locked when asked to be; `None` when locks were not wanted.
    pub locks: Option<bool>,
    /// The bucket keeps old versions, so that removing frees nothing by itself.
    pub keeps_versions: bool,
}

impl CapabilityRecord {
    /// The record of a repository; `None` when it has none, as those that others made.
    ///
    /// # Errors
    /// What keeps it from being read.
    pub fn read(side: &dyn SideStore) -> Result<Option<Self>> {
        match side.get_side(&name(NAME)?) {
            Ok(bytes) => {
                let record: Self =
                    serde_json::from_slice(&bytes).context("understand the record of what the server can")?;
                // A later version may mean something else by the same words.
                Ok(Some(record).filter(|record| record.version == VERSION))
            }
            Err(error) if error.kind() == ErrorKind::Absent => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps it beside the repository.
    pub(super) fn write(&self, side: &dyn SideStore) -> Result<()> {
        let bytes = serde_json::to_vec(self).context("write down what the server can")?;
        side.put_side(&name(NAME)?, &bytes, SidePut::Replace)
    }
}

fn name(name: &str) -> Result<SideName> {
    SideName::new(FOLDER, name)
}

/// A name that nobody else uses.
fn random_name() -> Result<SideName> {
    let random = || std::hash::RandomState::new().build_hasher().finish();
    name(&format!("try-{:016x}{:016x}", random(), random()))
}

/// Tries what the server can.
///
/// # Errors
/// What keeps an object from being written, listed or removed; [`ErrorKind::Unsupported`] when locks are wanted and the
/// server makes none.
pub(super) fn examine(bucket: &Bucket) -> Result<CapabilityRecord> {
    let trial = random_name()?;
    let below = trial.path();
    let bytes = Bytes::from_static(b"lastgood tries what this place can");
    let result = (|| {
        let first = match bucket.send(&below, &bytes, PutMode::Create, Keep::default()) {
            Ok(answer) => answer,
            Err(failed) if failed.answer.knows_no_conditions() => {
                bucket.knows_no_conditions.store(true, Ordering::Relaxed);
                bucket.send(&below, &bytes, PutMode::Overwrite, Keep::default())?
            }
            Err(failed) => return Err(failed.error),
        };
        let clock_ahead_seconds = first.date.map(|date| date - Timestamp::now().as_second());
        let exclusive_create = !bucket.knows_no_conditions.load(Ordering::Relaxed)
            && match bucket.send(&below, &Bytes::from_static(b"another"), PutMode::Create, Keep::default()) {
                // The second must not have come through; some servers say yes to the condition and write all the same.
                Ok(_) => false,
                Err(failed) if failed.answer.is_taken() => bucket.read(&below)? == bytes,
                Err(failed) => return Err(failed.error),
            };
        let list_after_write = bucket.list_side(FOLDER)?.iter().any(|(name, _)| *name == trial);
        let locks = try_lock(bucket)?;
        Ok(CapabilityRecord {
            version: VERSION,
            tried_at: Timestamp::now().as_second(),
            exclusive_create,
            list_after_write,
            clock_ahead_seconds,
            locks,
            keeps_versions: first.is_versioned,
        })
    })();
    let removed = bucket.remove_side(&trial);
    let record = result?;
    removed?;
    Ok(record)
}

/// Whether objects are locked; `None` when nobody wants that. The object of the try is locked for a minute and a half,
/// and what says that it is, is the server's own word for it.
fn try_lock(bucket: &Bucket) -> Result<Option<bool>> {
    let Some(locking) = &bucket.locking else { return Ok(None) };
    let refused = |why: String| {
        Error::new(ErrorKind::Unsupported, why).with_hint(
            "make a bucket with object lock switched on (most providers allow that only when it is made), or leave `lock` out",
        )
    };
    let brief = super::open::Locking::until_soon(Timestamp::now());
    let client = locking.client(brief)?;
    let below = random_name()?.path();
    let path = bucket.path(&below)?;
    let total = bucket.timeouts.total(0);
    let put = bucket.call_within(total, format_args!("lock {below}"), async {
        client.put(&path, Bytes::from_static(b"lastgood tries whether objects are locked here").into()).await
    });
    match put {
        Ok(_) => {}
        Err(failed) if matches!(failed.answer.status, 400 | 501) => {
            return Err(refused(format!("{}: objects cannot be locked here", failed.error.message())));
        }
        Err(failed) => return Err(failed.error),
    }
    let head = bucket.call_within(total, format_args!("examine {below}"), async { bucket.client.head(&path).await });
    let (_, answer) = head?;
    // A lock that still holds is no failure: the next sweep finds the object.
    match bucket.remove_below(&below) {
        Err(error) if error.kind() != ErrorKind::Held && error.kind() != ErrorKind::Denied => return Err(error),
        _ => {}
    }
    match answer.retain_until {
        Some(_) => Ok(Some(true)),
        None => Err(refused(format!("{} accepts the wish to lock an object and ignores it", bucket.shown))),
    }
}

/// Tries whether objects can be written now, in the way in which all are.
pub(super) fn try_to_write(bucket: &Bucket) -> Result<()> {
    let trial = random_name()?;
    bucket.write(&trial.path(), &Bytes::from(vec![0; 4096]), How::Replace, Keep::default())?;
    bucket.remove_side(&trial)
}

/// Takes away what tries have left that were ended before they could.
pub(super) fn sweep(bucket: &Bucket, older_than: Duration) -> Result<Swept> {
    let mut swept = Swept::default();
    let now = Timestamp::now().as_second();
    // Between our clock and the server's.
    let ahead =
        lock(&bucket.record).clone().flatten().and_then(|record| record.clock_ahead_seconds).unwrap_or_default();
    for (below, meta) in bucket.listed(&format!("{}/{FOLDER}", SideName::ROOT))? {
        let age = (now + ahead).saturating_sub(meta.last_modified.timestamp());
        let is_old = u64::try_from(age).is_ok_and(|age| age >= older_than.as_secs());
        if !below.starts_with("try-") || !is_old {
            continue;
        }
        match bucket.remove_side(&name(&below)?) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Held => continue,
            Err(error) => return Err(error),
        }
        swept.leftovers += 1;
        swept.bytes += meta.size;
    }
    Ok(swept)
}
