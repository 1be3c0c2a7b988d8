//! Moves what is needed out of packs that are to go. Sealed blobs stay as they are: none is sealed or compressed again,
//! but each is opened and held against its id before it moves. A pack in which one is damaged stays and is named.

use super::mark::lock;
use super::packs::Places;
use crate::format::IndexBlob;
use crate::format::pack::check_layout;
use crate::index::{BlobRef, Index, Location};
use crate::pipe::Packer;
use crate::read::{BlobReader, read_header};
use crate::repository::Repository;
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Error, ErrorKind, Monitor, PackId, Result};
use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Ranges are joined up to this length.
const RANGE_BYTES: u64 = 8 << 20;

/// Until when packs may be begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until(Option<Instant>);

impl Until {
    pub(super) fn within(time: Option<Duration>) -> Self {
        Self(time.and_then(|time| Instant::now().checked_add(time)))
    }

    fn is_over(self) -> bool {
        self.0.is_some_and(|end| Instant::now() >= end)
    }
}

/// What was moved.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Packs out of which all that is needed was moved.
    pub(super) emptied: Vec<PackId>,
    /// Packs that stay because something in them is damaged, with what.
    pub(super) damaged: Vec<(PackId, String)>,
    /// The packs that were written, with their sizes; durable, and listed in index files.
    pub(super) written: Vec<(PackId, u64)>,
    /// Bytes of the blobs that were moved.
    pub(super) bytes: u64,
    /// Why nothing was moved in the end, when the store is full.
    pub(super) full: Option<Error>,
    /// True when the time was up before all was done.
    pub(super) out_of_time: bool,
}

/// Moves what is needed out of `sources`, packs with their sizes.
///
/// # Errors
/// Whatever keeps the store from answering. What was written by then is listed in an index file, twice then, which is
/// harmless; a full store is no error but told in what is returned.
pub(super) fn repack(
    repository: &Repository,
    reader: &BlobReader,
    places: &Places<'_>,
    sources: &[(PackId, u64)],
    threads: usize,
    until: Until,
    monitor: &Monitor,
) -> Result<Moved> {
    if sources.is_empty() {
        return Ok(Moved::default());
    }
    // An index of its own: the one that is being followed must stand still.
    let index = Arc::new(Index::new()?);
    let Repository { store, sealer, .. } = repository;
    let packer = Packer::start(store.clone(), sealer.clone(), index, repository.cache(), false)?;
    let (moved, failed, next) = (Mutex::new(Moved::default()), Mutex::new(None), AtomicUsize::new(0));
    let work = || {
        let (mut bytes, mut scratch) = (Vec::new(), Scratch::default());
        while let Some((pack, size)) = sources.get(next.fetch_add(1, Relaxed)) {
            if until.is_over() {
                lock(&moved).out_of_time = true;
                return;
            }
            let one = Source { repository, reader, places, pack: *pack, size: *size };
            match monitor.check_cancelled().and_then(|()| one.empty(&packer, &mut bytes, &mut scratch, monitor)) {
                Ok(count) => {
                    let mut moved = lock(&moved);
                    moved.emptied.push(*pack);
                    moved.bytes += count;
                }
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Absent) => {
                    lock(&moved).damaged.push((*pack, error.chain()));
                }
                Err(error) => {
                    lock(&failed).get_or_insert(error);
                    next.store(sources.len(), Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, sources.len()) {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap_or_else(|e| e.into_inner());
    let mut moved = moved.into_inner().unwrap_or_else(|e| e.into_inner());
    let finished = match failed {
        None => packer.finish(),
        Some(error) => {
            packer.salvage();
            Err(error)
        }
    };
    match finished.and_then(|written| store.sync().map(|()| written)) {
        Ok(written) => moved.written = written,
        Err(error) if error.kind() == ErrorKind::NoSpace => {
            return Ok(Moved { damaged: moved.damaged, full: Some(error), ..Moved::default() });
        }
        Err(error) => return Err(error),
    }
    Ok(moved)
}

#[derive(Default)]
struct Scratch {
    sealed: Vec<u8>,
    plain: Vec<u8>,
}

/// One pack that is to be emptied.
struct Source<'a> {
    repository: &'a Repository,
    reader: &'a BlobReader,
    places: &'a Places<'a>,
    pack: PackId,
    size: u64,
}

impl Source<'_> {
    /// Moves all that is needed; gives its bytes.
    fn empty(&self, packer: &Packer, bytes: &mut Vec<u8>, scratch: &mut Scratch, monitor: &Monitor) -> Result<u64> {
        let Repository { store, sealer, .. } = self.repository;
        let mut blobs = read_header(&**store, sealer, self.pack, self.size, |_| ())?;
        check_layout(&mut blobs, self.size)?;
        let mut seen = HashSet::new();
        let wanted = |blob: &IndexBlob| self.places.is_live_at(blob.into(), self.pack, blob.offset);
        blobs.retain(|blob| wanted(blob) && seen.insert((blob.kind, blob.id)));
        let gap = store.capabilities().coalesce_gap_bytes;
        let mut moved = 0;
        let mut rest = blobs.as_slice();
        while let Some(first) = rest.first() {
            let near = |pair: &[IndexBlob]| {
                u64::from(pair[1].offset) <= pair[0].end() + gap
                    && pair[1].end() - u64::from(first.offset) <= RANGE_BYTES
            };
            let count = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
            let (range, after) = rest.split_at(count);
            let end = range.last().map_or(0, IndexBlob::end);
            let key = StoreKey::new(ObjectKind::Pack, self.pack);
            store.get_range(&key, first.offset.into(), (end - u64::from(first.offset)) as usize, bytes)?;
            for blob in range {
                let from = (blob.offset - first.offset) as usize;
                let sealed = &bytes[from..from + blob.length as usize];
                self.prove(blob, sealed, scratch)?;
                packer.append(blob.kind, blob.id, sealed, blob.uncompressed.map_or(0, NonZeroU32::get))?;
                moved += u64::from(blob.length);
                monitor.add(|c| &c.bytes, u64::from(blob.length));
            }
            rest = after;
        }
        Ok(moved)
    }

    /// Opens a copy of the sealed blob: what moves must be what its id says.
    fn prove(&self, blob: &IndexBlob, sealed: &[u8], scratch: &mut Scratch) -> Result<()> {
        scratch.sealed.clear();
        scratch.sealed.extend_from_slice(sealed);
        let raw_length = blob.uncompressed.map_or(0, NonZeroU32::get);
        let location = Location { pack: 0, offset: blob.offset, length: blob.length, raw_length };
        let reference = BlobRef { kind: blob.kind, id: blob.id };
        self.reader.open(&reference, &location, &mut scratch.sealed, &mut scratch.plain)
    }
}

impl From<&IndexBlob> for BlobRef {
    fn from(blob: &IndexBlob) -> Self {
        Self { kind: blob.kind, id: blob.id }
    }
}
