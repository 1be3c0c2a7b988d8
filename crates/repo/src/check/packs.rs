//! The packs as the index tells of them, as the store lists them, and as their own headers tell.
//!
//! A repository of a hundred million blobs must fit, so nothing is kept for each blob beside the index itself (28 bytes).
//! What an index file tells about one pack is kept as a hash of it: as long as the pack's own header, sealed by whoever
//! wrote the pack, hashes to the same, both tell the same. Only where they differ are index files read again.

use super::findings::{Fault, fault_of};
use super::report::DamageKind;
use super::run::Run;
use crate::format::pack::{check_layout, pack_size};
use crate::format::{BlobKind, IndexBlob, decode_index};
use crate::index::{BlobRef, Index, Location};
use crate::read::read_header;
use crate::sha256::sha256;
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Context, Id, IndexId, PackId, Result};
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// About a damaged index file, while packs are in none.
const HINT_RELIST: &str = "the data is intact, and restores find it by the packs' own lists; the next `lastgood backup` lists them anew, and `restic repair index` then clears this file away";
/// About a damaged index file that nobody needs any more.
const HINT_SPENT: &str =
    "nothing depends on it, since other index files list every pack; `restic repair index` clears it away";

/// What an index file tells, pack by pack.
pub(super) type Listing = Vec<(PackId, Vec<IndexBlob>)>;

/// Where it is known from that a pack exists and what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToldBy {
    /// An index file.
    Index,
    /// Only the pack itself.
    Header,
}

/// One pack; its place in [`Packs::all`] is its ordinal in the index.
#[derive(Debug)]
pub(super) struct Pack {
    pub(super) id: PackId,
    /// The only size it can have, by its blobs.
    pub(super) bytes_due: u64,
    /// Its size in the store; absent when it is not there.
    pub(super) bytes_stored: Option<u64>,
    /// How many blobs it holds.
    pub(super) blobs: u32,
    /// Whether trees are among them.
    pub(super) has_trees: bool,
    /// [`layout_hash`] of its blobs.
    pub(super) layout: [u8; 32],
    pub(super) told_by: ToldBy,
}

impl Pack {
    pub(super) fn key(&self) -> StoreKey {
        StoreKey::new(ObjectKind::Pack, self.id)
    }
}

/// All packs, and the index over them.
pub(super) struct Packs {
    pub(super) all: Vec<Pack>,
    pub(super) index: Arc<Index>,
    pub(super) index_files: u64,
    /// Findings about index files that cannot be used.
    pub(super) lost_index_files: Vec<u32>,
    /// Packs in the store that no readable index file lists, with their sizes.
    pub(super) unindexed: Vec<(PackId, u64)>,
    ordinals: HashMap<PackId, u32>,
}

/// The same for the same blobs, in whatever order they are told.
pub(super) fn layout_hash(blobs: &mut [IndexBlob], scratch: &mut Vec<u8>) -> [u8; 32] {
    blobs.sort_unstable_by_key(|blob| (blob.offset, blob.id));
    scratch.clear();
    for blob in blobs {
        scratch.extend_from_slice(&blob.id.0);
        scratch.push(u8::from(blob.kind == BlobKind::Tree));
        for number in [blob.offset, blob.length, blob.uncompressed.map_or(0, NonZeroU32::get)] {
            scratch.extend_from_slice(&number.to_le_bytes());
        }
    }
    sha256(scratch)
}

impl Run<'_> {
    /// Reads every index file from the store, never from a cache, and then lists the packs: in this order, since
    /// whoever is writing meanwhile writes packs before the index files that name them.
    pub(super) fn look_at_packs(&self) -> Result<Packs> {
        let ids = self.ids(ObjectKind::Index)?;
        let mut packs = Packs {
            all: Vec::new(),
            index: Arc::new(Index::new()?),
            index_files: ids.len() as u64,
            lost_index_files: Vec::new(),
            unindexed: Vec::new(),
            ordinals: HashMap::new(),
        };
        // Entered in the order in which readers load them, so that of several places of a blob the same one counts.
        for some in ids.chunks(self.threads) {
            let listings = self.map(some, |id| self.listing(IndexId(*id)))?;
            for (id, (listing, fault)) in some.iter().zip(listings) {
                let key = StoreKey::new(ObjectKind::Index, *id);
                self.enter_listing(&mut packs, key, listing)?;
                // Replaced by somebody else since the listing; what replaced it holds the same and more.
                if let Some(fault) = fault.filter(|f| f.what != DamageKind::Missing) {
                    packs.lost_index_files.push(self.findings.add(fault.on(key)));
                    // The next backup must see it, too: then it lists anew what this file listed.
                    self.repository.cache().forget(&IndexId(*id));
                }
            }
        }
        packs.index.compact();
        let listed = self.store().list(ObjectKind::Pack).context("list packs")?;
        for (id, size) in listed {
            match packs.ordinals.get(&PackId(id)) {
                Some(ordinal) => packs.all[*ordinal as usize].bytes_stored = Some(size),
                None => packs.unindexed.push((PackId(id), size)),
            }
        }
        packs.unindexed.sort_unstable();
        let hint = if packs.unindexed.is_empty() { HINT_SPENT } else { HINT_RELIST };
        for finding in &packs.lost_index_files {
            self.findings.amend(*finding, |damage| damage.hint = Some(hint.to_owned()));
        }
        Ok(packs)
    }

    /// What one index file lists, up to where it can be read.
    pub(super) fn listing(&self, id: IndexId) -> Result<(Listing, Option<Fault>)> {
        let json = match self.fetch_json(&StoreKey::new(ObjectKind::Index, id))? {
            Ok(json) => json,
            Err(fault) => return Ok((Listing::new(), Some(fault))),
        };
        let mut listing = Listing::new();
        let decoded = decode_index(&json, |pack, blobs| {
            listing.push((pack, blobs.to_vec()));
            Ok(())
        });
        Ok((listing, decoded.err().map(|e| Fault::new(DamageKind::BadContent, e.chain()))))
    }

    fn enter_listing(&self, packs: &mut Packs, key: StoreKey, listing: Listing) -> Result<()> {
        let mut scratch = Vec::new();
        for (id, mut blobs) in listing {
            let layout = layout_hash(&mut blobs, &mut scratch);
            let known = packs.ordinals.get(&id).map(|o| packs.all[*o as usize].layout);
            let size = pack_size(&blobs);
            let fact = match known {
                Some(other) if other == layout => continue,
                Some(_) => Some(format!("it tells of other blobs in pack {id} than another index file does")),
                None => check_layout(&mut blobs, size)
                    .err()
                    .map(|e| format!("what it tells of pack {id} cannot be: {}", e.chain())),
            };
            if let Some(fact) = fact {
                let hint = "the index can be made anew from the packs' own headers: `restic repair index`";
                self.findings.add(Fault::new(DamageKind::IndexMismatch, fact).on(key).with_hint(hint));
            }
            packs.enter(id, &blobs, layout, ToldBy::Index)?;
        }
        Ok(())
    }

    /// Adds the packs that no index file lists by their own headers. Returns how many could be added, from which
    /// ordinal on.
    pub(super) fn add_by_headers(&self, packs: &mut Packs) -> Result<u32> {
        let first = packs.all.len() as u32;
        let mut scratch = Vec::new();
        for some in std::mem::take(&mut packs.unindexed).chunks(1024) {
            let headers = self.map(some, |(id, size)| self.header(*id, *size))?;
            for ((id, size), header) in some.iter().zip(headers) {
                let mut blobs = match header {
                    Ok(blobs) => blobs,
                    Err(fault) => {
                        self.note(format!("pack {id} is in no index, and its own list is unusable: {}", fault.message));
                        continue;
                    }
                };
                let layout = layout_hash(&mut blobs, &mut scratch);
                let ordinal = packs.enter(*id, &blobs, layout, ToldBy::Header)?;
                packs.all[ordinal as usize].bytes_stored = Some(*size);
            }
        }
        Ok(first)
    }

    fn header(&self, id: PackId, size: u64) -> Result<Result<Vec<IndexBlob>, Fault>> {
        let count = |bytes| {
            self.bytes_read.fetch_add(bytes, Relaxed);
        };
        match read_header(self.store(), &self.repository.sealer, id, size, count) {
            Ok(blobs) => Ok(Ok(blobs)),
            Err(error) => fault_of(error).map(Err),
        }
    }
}

impl Packs {
    fn enter(&mut self, id: PackId, blobs: &[IndexBlob], layout: [u8; 32], told_by: ToldBy) -> Result<u32> {
        let ordinal = match self.ordinals.get(&id) {
            Some(ordinal) => *ordinal,
            None => {
                let ordinal = self.index.add_pack(id)?;
                self.ordinals.insert(id, ordinal);
                self.all.push(Pack {
                    id,
                    bytes_due: pack_size(blobs),
                    bytes_stored: None,
                    blobs: blobs.len() as u32,
                    has_trees: false,
                    layout,
                    told_by,
                });
                ordinal
            }
        };
        for blob in blobs {
            self.all[ordinal as usize].has_trees |= blob.kind == BlobKind::Tree;
            let location = Location {
                pack: ordinal,
                offset: blob.offset,
                length: blob.length,
                raw_length: blob.uncompressed.map_or(0, NonZeroU32::get),
            };
            self.index.add(BlobRef { kind: blob.kind, id: blob.id }, location);
        }
        Ok(ordinal)
    }

    /// Bytes of all packs in the store, and how many there are.
    pub(super) fn stored(&self) -> (u64, u64) {
        let known = self.all.iter().filter_map(|p| p.bytes_stored);
        let sizes = known.chain(self.unindexed.iter().map(|(_, size)| *size));
        sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
    }

    /// Calls `visit` with what every index file tells of the packs in `wanted`, file by file.
    pub(super) fn listings_of(
        &self,
        run: &Run<'_>,
        wanted: &mut BTreeMap<PackId, u32>,
        mut visit: impl FnMut(Vec<(u32, Vec<IndexBlob>)>) -> Result<()>,
    ) -> Result<()> {
        for id in run.ids(ObjectKind::Index)? {
            if wanted.is_empty() {
                return Ok(());
            }
            let (listing, _) = run.listing(IndexId(id))?;
            let ours = listing.into_iter().filter_map(|(pack, blobs)| Some((wanted.remove(&pack)?, blobs)));
            let ours: Vec<_> = ours.collect();
            if !ours.is_empty() {
                visit(ours)?;
            }
        }
        Ok(())
    }
}

/// For messages: `data blob 1a2b3c4d`.
pub(super) fn shown(kind: BlobKind, id: &Id) -> String {
    format!("{} blob {}", kind.word(), id.short())
}
