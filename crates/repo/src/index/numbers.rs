//! A number for every blob, dense from 0: what bitmaps over all blobs are indexed by.
//!
//! A number is where the blob lies in the sorted arrays, one shard after the other. It holds as long as nothing is
//! added to the index.

use super::{BlobRef, Index, Location};

/// The numbers of an index that stands still.
#[derive(Debug)]
pub(crate) struct Numbers {
    /// The first number of each shard.
    starts: Vec<u64>,
    /// How many blobs there are.
    pub(crate) len: u64,
}

impl Index {
    /// Numbers all blobs. Whoever asks adds nothing from then on.
    pub(crate) fn number(&self) -> Numbers {
        self.compact();
        let mut starts = Vec::with_capacity(self.shards.len());
        let mut len = 0;
        for shard in &self.shards {
            starts.push(len);
            len += shard.lock().unwrap_or_else(|e| e.into_inner()).sorted().len() as u64;
        }
        Numbers { starts, len }
    }

    /// A blob's number, and where it is found first.
    pub(crate) fn numbered(&self, numbers: &Numbers, blob: impl Into<BlobRef>) -> Option<(u64, Location)> {
        let key = self.key(&blob.into());
        let (place, entry) = self.shard(key).numbered(key)?;
        Some((numbers.starts[(key[0] >> 24) as usize] + place as u64, entry.location()))
    }

    /// Tells every blob's number with the place where it is found first, in order. `tell` must not ask the index.
    pub(crate) fn each_first(&self, numbers: &Numbers, mut tell: impl FnMut(u64, Location)) {
        for (shard, start) in self.shards.iter().zip(&numbers.starts) {
            let shard = shard.lock().unwrap_or_else(|e| e.into_inner());
            shard.sorted().iter().zip(*start..).for_each(|(entry, number)| tell(number, entry.location()));
        }
    }

    /// Tells every further place of blobs that are stored more than once.
    pub(crate) fn each_spare(&self, mut tell: impl FnMut(Location)) {
        let spares = self.spares.lock().unwrap_or_else(|e| e.into_inner());
        spares.values().flatten().for_each(|location| tell(*location));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::BlobKind;
    use lastgood_model::{Id, PackId};

    #[test]
    fn numbers_are_dense_and_each_leads_to_its_blob() {
        let index = Index::new().unwrap();
        let pack = index.add_pack(PackId::default()).unwrap();
        let blob = |n: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_le_bytes());
            BlobRef { kind: if n.is_multiple_of(7) { BlobKind::Tree } else { BlobKind::Data }, id: Id(id) }
        };
        for n in 0..10_000 {
            index.add(blob(n), Location { pack, offset: n, length: 40, raw_length: 0 });
        }
        let numbers = index.number();
        let mut seen = vec![false; numbers.len as usize];
        for n in 0..10_000 {
            let (number, location) = index.numbered(&numbers, blob(n)).unwrap();
            assert_eq!(location.offset, n);
            assert!(!std::mem::replace(&mut seen[number as usize], true));
        }
        assert!(seen.iter().all(|seen| *seen));
        assert!(index.numbered(&numbers, blob(10_000)).is_none());
        let mut told = Vec::new();
        index.each_first(&numbers, |number, location| told.push((number, location.offset)));
        assert_eq!(told.len(), 10_000);
        for (number, offset) in told {
            assert_eq!(index.numbered(&numbers, blob(offset)).unwrap().0, number);
        }
    }
}
