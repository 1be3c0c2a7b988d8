//! Trees of a far store, read together.
//!
//! A tree is some kilobytes long, and of a far store each read takes a round trip, however little is read. Whoever walks a
//! recovery point reads trees one after the other, and those lie side by side in packs that hold nothing else. So what
//! lies around a tree is read with it, in regions at fixed places of a pack, and kept sealed for those who ask next. The
//! regions kept are bounded in bytes; of several threads that want the same region one reads it and the others wait.

use super::BlobReader;
use crate::index::{BlobRef, Location};
use crate::work::is_far;
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Error, ErrorKind, Result, TreeId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Trees begin in regions of this length.
const REGION_BYTES: u32 = 1 << 20;
/// Regions kept.
const REGIONS_MAX: usize = 24;

/// Regions that were read, the one used last at the end.
#[derive(Default)]
pub(super) struct Ahead {
    regions: Mutex<VecDeque<Arc<Region>>>,
}

/// What lies from `start` of a pack on. Whoever fills it holds its bytes.
struct Region {
    pack: u32,
    start: u32,
    state: Mutex<State>,
}

/// What is known of a region.
#[derive(Default)]
enum State {
    #[default]
    Unread,
    Read(Vec<u8>),
    /// The store did not answer. Who waited meanwhile is told the same, instead of waiting as long again.
    Lost(ErrorKind, String),
}

impl Ahead {
    fn region(&self, pack: u32, start: u32) -> Arc<Region> {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = regions.iter().position(|region| (region.pack, region.start) == (pack, start));
        let region = known.and_then(|at| regions.remove(at));
        let region = region.unwrap_or_else(|| Arc::new(Region { pack, start, state: Mutex::default() }));
        regions.push_back(region.clone());
        if regions.len() > REGIONS_MAX {
            regions.pop_front();
        }
        region
    }

    /// Has whoever comes next read it anew.
    fn forget(&self, region: &Arc<Region>) {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.retain(|known| !Arc::ptr_eq(known, region));
    }
}

impl BlobReader {
    /// The plaintext of a tree of a far store, read with what lies around it; `None` when it is to be read by itself.
    ///
    /// # Errors
    /// What keeps the store from answering at all. Anything else is for the read of the tree alone to tell.
    pub(super) fn tree_ahead(&self, id: TreeId) -> Result<Option<Vec<u8>>> {
        if !is_far(&*self.store) {
            return Ok(None);
        }
        let blob = BlobRef::from(id);
        let Some(location) = self.index.find(blob) else { return Ok(None) };
        let Location { pack, offset, length, .. } = location;
        let start = offset - offset % REGION_BYTES;
        // The last tree that begins in the region may end beyond it.
        let end = self.index.tree_end(pack).min(start.saturating_add(REGION_BYTES)).max(offset.saturating_add(length));
        let region = self.ahead.region(pack, start);
        let mut state = region.state.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = (offset - start) as usize..(offset - start) as usize + length as usize;
        if let State::Lost(kind, why) = &*state {
            return Err(Error::new(*kind, why.clone()));
        }
        if !matches!(&*state, State::Read(bytes) if bytes.len() >= needed.end) {
            let key = StoreKey::new(ObjectKind::Pack, self.index.pack(pack));
            let mut read = Vec::new();
            match self.store.get_range(&key, u64::from(start), (end - start) as usize, &mut read) {
                Ok(()) => *state = State::Read(read),
                Err(error) if matches!(error.kind(), ErrorKind::Retry | ErrorKind::Cancelled) => {
                    *state = State::Lost(error.kind(), error.chain());
                    self.ahead.forget(&region);
                    return Err(error);
                }
                Err(_) => return Ok(None),
            }
        }
        let State::Read(bytes) = &*state else { return Ok(None) };
        let Some(mut envelope) = bytes.get(needed).map(<[u8]>::to_vec) else { return Ok(None) };
        drop(state);
        let mut plain = Vec::new();
        Ok(self.open(&blob, &location, &mut envelope, &mut plain).is_ok().then_some(plain))
    }
}
