//! Many blobs at once: sorted by where they lie, near ones read together, opened and verified on all cores.
//!
//! Each blob is read and opened once, however many places want it. Memory is bounded by the number of threads times one
//! read of [`RANGE_BYTES`] and the largest blob in it.

use super::{BlobReader, pack_is_gone};
use crate::index::{BlobRef, Location};
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Context, ErrorKind, Monitor, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Ranges are joined up to this length.
const RANGE_BYTES: u64 = 4 << 20;

/// One blob wanted for one place.
#[derive(Clone, Copy, Debug)]
pub struct FetchRequest {
    /// The blob.
    pub blob: BlobRef,
    /// The caller's own name for the place.
    pub place: u64,
}

/// A request with where it lies.
struct Located {
    request: FetchRequest,
    location: Location,
}

/// A set of blobs to be read.
pub struct Fetch<'a> {
    reader: &'a BlobReader,
    located: Vec<Located>,
}

impl std::fmt::Debug for Fetch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetch").field("blobs", &self.located.len()).finish_non_exhaustive()
    }
}

impl<'a> Fetch<'a> {
    /// Looks up every blob; one that is nowhere goes to `failed` with the error.
    pub fn plan(
        reader: &'a BlobReader,
        requests: impl IntoIterator<Item = FetchRequest>,
        mut failed: impl FnMut(FetchRequest, lastgood_model::Error),
    ) -> Self {
        let mut located = Vec::new();
        for request in requests {
            match reader.locate(request.blob) {
                Ok(location) => located.push(Located { request, location }),
                Err(error) => failed(request, error),
            }
        }
        located.sort_unstable_by_key(|l| (l.location.pack, l.location.offset, l.request.place));
        Self { reader, located }
    }

    /// Reads everything on `threads` threads. `arrived` gets each place's plaintext; `failed` each place whose blob
    /// could not be read, and the run goes on. Both are called from several threads.
    ///
    /// # Errors
    /// One from `arrived` stops the run and is returned. So does a store that does not answer, however patiently it was
    /// asked: asking it for each of what may be a million blobs would never end.
    pub fn run(
        self,
        threads: usize,
        monitor: &Monitor,
        arrived: impl Fn(u64, &[u8]) -> Result<()> + Sync,
        failed: impl Fn(FetchRequest, lastgood_model::Error) + Sync,
    ) -> Result<()> {
        let ranges = self.ranges();
        let next = AtomicUsize::new(0);
        let stopped: Mutex<Option<lastgood_model::Error>> = Mutex::new(None);
        let is_stopped = || stopped.lock().unwrap_or_else(|e| e.into_inner()).is_some();
        std::thread::scope(|scope| {
            for _ in 0..threads.clamp(1, ranges.len().max(1)) {
                scope.spawn(|| {
                    let mut bytes = Vec::new();
                    let mut plain = Vec::new();
                    while let Some(range) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let outcome = match monitor.check_cancelled() {
                            Ok(()) if is_stopped() => return,
                            Ok(()) => self.run_range(range.clone(), &mut bytes, &mut plain, &arrived, &failed),
                            Err(cancelled) => Err(cancelled),
                        };
                        if let Err(error) = outcome {
                            stopped.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
                            return;
                        }
                    }
                });
            }
        });
        match stopped.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Cuts the sorted blobs into runs that are read in one call each.
    fn ranges(&self) -> Vec<std::ops::Range<usize>> {
        let gap = self.reader.store.capabilities().coalesce_gap_bytes;
        let mut ranges = Vec::new();
        let mut start = 0;
        for i in 1..=self.located.len() {
            let ends = match self.located.get(i) {
                None => true,
                Some(next) => {
                    let first = &self.located[start].location;
                    let last = &self.located[i - 1].location;
                    let end = u64::from(last.offset) + u64::from(last.length);
                    let next_end = u64::from(next.location.offset) + u64::from(next.location.length);
                    // Two blobs never overlap, whatever an index says: each is read by itself, so that a lie about one
                    // does not spoil the other.
                    let overlaps =
                        u64::from(next.location.offset) < end && next.request.blob != self.located[i - 1].request.blob;
                    next.location.pack != first.pack
                        || overlaps
                        || u64::from(next.location.offset) > end + gap
                        || next_end - u64::from(first.offset) > RANGE_BYTES
                }
            };
            if ends {
                ranges.push(start..i);
                start = i;
            }
        }
        ranges
    }

    fn run_range(
        &self,
        range: std::ops::Range<usize>,
        bytes: &mut Vec<u8>,
        plain: &mut Vec<u8>,
        arrived: &(impl Fn(u64, &[u8]) -> Result<()> + Sync),
        failed: &(impl Fn(FetchRequest, lastgood_model::Error) + Sync),
    ) -> Result<()> {
        let located = &self.located[range];
        let (Some(first), Some(last)) = (located.first(), located.last()) else { return Ok(()) };
        let start = u64::from(first.location.offset);
        let length = (u64::from(last.location.offset) + u64::from(last.location.length) - start) as usize;
        let key = StoreKey::new(ObjectKind::Pack, self.reader.index.pack(first.location.pack));
        if let Err(error) = self.reader.store.get_range(&key, start, length, bytes) {
            if is_trouble(&error) {
                return Err(error.context(format!("read pack {}", key.id)));
            }
            // A pack cut short spoils only the blobs beyond the cut, and some may lie in another pack too: each is tried
            // alone.
            tracing::debug!(pack = %key.id, error = %error.chain(), "range is unreadable; reading blob by blob");
            for one in located {
                self.run_one(one, &key, bytes, plain, arrived, failed)?;
            }
            return Ok(());
        }
        let mut opened: Option<(BlobRef, Result<()>)> = None;
        for one in located {
            let fresh = opened.as_ref().is_none_or(|(blob, _)| *blob != one.request.blob);
            if fresh {
                let from = (u64::from(one.location.offset) - start) as usize;
                let envelope = &mut bytes[from..from + one.location.length as usize];
                let outcome = self
                    .reader
                    .open(&one.request.blob, &one.location, envelope, plain)
                    .with_context(|| format!("read pack {}", key.id))
                    .or_else(|error| self.reader.read_spare(&one.request.blob, error).map(|found| *plain = found));
                opened = Some((one.request.blob, outcome));
            }
            match &opened {
                Some((_, Ok(()))) => arrived(one.request.place, plain)?,
                Some((_, Err(error))) => {
                    failed(one.request, lastgood_model::Error::new(error.kind(), error.chain()));
                }
                None => {}
            }
        }
        Ok(())
    }

    fn run_one(
        &self,
        one: &Located,
        key: &StoreKey,
        bytes: &mut Vec<u8>,
        plain: &mut Vec<u8>,
        arrived: &(impl Fn(u64, &[u8]) -> Result<()> + Sync),
        failed: &(impl Fn(FetchRequest, lastgood_model::Error) + Sync),
    ) -> Result<()> {
        let outcome = self
            .reader
            .store
            .get_range(key, u64::from(one.location.offset), one.location.length as usize, bytes)
            .map_err(pack_is_gone)
            .and_then(|()| self.reader.open(&one.request.blob, &one.location, bytes, plain))
            .with_context(|| format!("read pack {}", key.id))
            .or_else(|error| self.reader.read_spare(&one.request.blob, error).map(|found| *plain = found));
        match outcome {
            Ok(()) => arrived(one.request.place, plain),
            Err(error) if is_trouble(&error) => Err(error),
            Err(error) => {
                failed(one.request, error);
                Ok(())
            }
        }
    }
}

/// What says nothing about the blob, but that the store is out of reach, or that nobody wants it any more.
fn is_trouble(error: &lastgood_model::Error) -> bool {
    matches!(error.kind(), ErrorKind::Retry | ErrorKind::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{MasterKey, Sealer};
    use crate::index::{BlobKind, Index};
    use lastgood_model::{Id, PackId};
    use lastgood_stores::MemoryStore;
    use std::sync::Arc;

    /// A reader that knows of blobs at these places: pack, offset, length.
    fn reader(places: &[(u32, u32, u32)]) -> BlobReader {
        let index = Index::new().unwrap();
        for pack in 0..4 {
            index.add_pack(PackId(Id([pack; 32]))).unwrap();
        }
        for (n, (pack, offset, length)) in places.iter().enumerate() {
            index.add(blob(n), Location { pack: *pack, offset: *offset, length: *length, raw_length: 0 });
        }
        let sealer = Sealer::new(&MasterKey::generate().unwrap()).unwrap();
        BlobReader::new(Arc::new(MemoryStore::new()), Arc::new(sealer), Arc::new(index))
    }

    fn blob(n: usize) -> BlobRef {
        BlobRef { kind: BlobKind::Data, id: Id([n as u8; 32]) }
    }

    /// How many requests each read serves, for all blobs wanted `times` times.
    fn reads(places: &[(u32, u32, u32)], times: u64) -> Vec<usize> {
        let reader = reader(places);
        let requests =
            (0..places.len()).flat_map(|n| (0..times).map(move |place| FetchRequest { blob: blob(n), place }));
        let fetch = Fetch::plan(&reader, requests, |request, _| panic!("{request:?} is in no index"));
        fetch.ranges().iter().map(ExactSizeIterator::len).collect()
    }

    #[test]
    fn near_blobs_are_read_together_and_far_ones_apart() {
        // The store in memory asks for gaps of up to 4096 bytes to be read over.
        assert_eq!(reads(&[(0, 0, 100), (0, 100, 100), (0, 4296, 100)], 1), [3]);
        assert_eq!(reads(&[(0, 0, 100), (0, 4197, 100)], 1), [1, 1]);
        assert_eq!(reads(&[(0, 0, 100), (1, 100, 100)], 1), [1, 1]);
        assert_eq!(reads(&[(1, 500, 100), (0, 600, 100), (1, 0, 500)], 1), [1, 2]);
        assert_eq!(reads(&[], 1), Vec::<usize>::new());
        let full = RANGE_BYTES as u32;
        assert_eq!(reads(&[(0, 0, full / 2), (0, full / 2, full / 2), (0, full, 100)], 1), [2, 1]);
        assert_eq!(reads(&[(0, 0, full * 3), (0, full * 3, 100)], 1), [1, 1]);
        assert_eq!(reads(&[(0, 0, 100), (0, 100, 100)], 5), [10]);
    }

    #[test]
    fn blobs_that_are_said_to_overlap_are_read_each_by_itself() {
        assert_eq!(reads(&[(0, 0, 1000), (0, 10, 50), (0, 500, 2000)], 1), [1, 2]);
        assert_eq!(reads(&[(0, 0, 1000), (0, 10, 600), (0, 500, 2000)], 1), [1, 1, 1]);
        assert_eq!(reads(&[(0, 0, 100), (0, 0, 100)], 1), [1, 1]);
        assert_eq!(reads(&[(0, 0, u32::MAX), (0, u32::MAX - 100, 100)], 1), [1, 1]);
    }

    #[test]
    fn a_blob_in_no_index_fails_at_once_and_the_others_are_planned() {
        let reader = reader(&[(0, 0, 100)]);
        let mut failed = Vec::new();
        let requests = [blob(0), blob(9)].map(|blob| FetchRequest { blob, place: 5 });
        let fetch = Fetch::plan(&reader, requests, |request, error| failed.push((request.blob, error.kind())));
        assert_eq!(fetch.ranges().len(), 1);
        assert_eq!(failed, [(blob(9), lastgood_model::ErrorKind::Corrupt)]);
    }
}
