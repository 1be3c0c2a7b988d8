//! Packs that no index file lists: a run left them behind when it died, or the index file that listed them is damaged
//! or gone. Taking them over spares storing their content again, and keeps them from being garbage; it makes older
//! recovery points readable again that stand on them; and what a new one relies on must be found by others, too.
//!
//! Of what a dead run left, only packs that prove themselves are taken: the name is the hash of the bytes, the header
//! opens, and the lengths in it add up. Packs whose index file is lost were listed once by whoever wrote them, and their
//! headers are sealed: they are not read again as a whole, or a large repository could not be mended in any useful time.
//! That an index file is gone shows when such a pack holds the top directory of a recovery point; where nothing shows it,
//! packs have to prove themselves. A run that is still alive lists its packs itself, at the latest when it ends: while there
//! may be one, packs that nothing speaks for are left alone. Should one be taken all the same it is indexed twice, which
//! is harmless.

use crate::format::{BlobKind, IndexBlob, encode_index};
use crate::index::Index;
use crate::index_files::enter_pack;
use crate::lock::LockFindings;
use crate::pipe::INDEX_BLOBS;
use crate::read::{header_of, read_header};
use crate::repository::{Repository, Snapshot, put_unpacked};
use crate::sha256::sha256;
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Error, ErrorKind, Id, PackId, Result};
use std::collections::{HashMap, HashSet};

/// Packs are read whole to be examined; nobody writes larger ones (restic: 128 MiB at most).
const ADOPTED_BYTES_MAX: u64 = 256 << 20;

/// What was taken over.
#[derive(Debug, Default)]
pub(crate) struct Adopted {
    /// The packs with their sizes.
    pub(crate) packs: Vec<(PackId, u64)>,
    /// True when an index file is damaged or gone. Then `packs` are those that it had listed.
    pub(crate) index_was_lost: bool,
    /// Packs that could not be taken over, and why.
    pub(crate) passed_over: Vec<(PackId, String)>,
}

/// What there is, and how much of it to touch.
pub(crate) struct Found<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) index: &'a Index,
    /// The packs in the store with their sizes, listed before the index was read.
    pub(crate) present: &'a HashMap<Id, u64>,
    /// Recovery points that were there before the index was read.
    pub(crate) snapshots: &'a [Snapshot],
    pub(crate) locks: LockFindings,
    /// Write nothing: what a lost index file listed is entered into memory, everything else is left alone.
    pub(crate) dry_run: bool,
    /// Take over whatever can be, even though nothing speaks for it.
    pub(crate) all: bool,
}

impl Found<'_> {
    /// Adopts what is left and writes index files for it.
    pub(crate) fn adopt(&self) -> Result<Adopted> {
        let damaged: HashSet<Id> = self.index.unlisted().into_iter().map(|p| p.0).collect();
        let mut left: Vec<(Id, u64)> = self.unlisted(&damaged);
        left.sort_unstable();
        let is_gone = self.is_gone(&left);
        let is_dead = self.locks.stale_removed > 0;
        let is_due = self.all || !damaged.is_empty() || is_gone || !self.dry_run && (is_dead || self.locks.others == 0);
        if !is_due {
            return Ok(Adopted::default());
        }
        // A dead run's packs may have been torn by what killed it, and cannot be told from the others.
        let by_header = |id: &Id| damaged.contains(id) || is_gone && !is_dead;
        let mut listing = Listing { found: self, packs: Vec::new(), blobs: 0 };
        let (mut packs, mut passed_over) = (Vec::new(), Vec::new());
        for (id, size) in left {
            let pack = PackId(id);
            let blobs = match by_header(&id) {
                true => read_header(&*self.repository.store, &self.repository.sealer, pack, size, |_| ()),
                false => examine(self.repository, pack, size),
            };
            match blobs {
                Ok(blobs) => {
                    if !damaged.contains(&id) {
                        enter_pack(self.index, pack, &blobs)?;
                    }
                    listing.add(pack, blobs)?;
                    packs.push((pack, size));
                }
                // That says nothing about the pack.
                Err(error) if matches!(error.kind(), ErrorKind::Retry | ErrorKind::Cancelled) => return Err(error),
                Err(error) if self.all => passed_over.push((pack, error.chain())),
                Err(error) if is_gone || is_dead => {
                    tracing::warn!(pack = %pack, error = %error.chain(), "pack without an index is passed over");
                }
                // It will be met by every run until it is pruned, and most likely nobody needs it.
                Err(error) => {
                    tracing::debug!(pack = %pack, error = %error.chain(), "pack without an index is passed over");
                }
            }
        }
        listing.flush()?;
        if !packs.is_empty() && !self.dry_run {
            self.repository.store.sync()?;
        }
        let index_was_lost = !packs.is_empty() && (is_gone || !damaged.is_empty());
        Ok(Adopted { packs, index_was_lost, passed_over })
    }

    /// True when a pack of `left` has the top directory of a recovery point: then it was listed once. That such a directory
    /// is nowhere proves nothing, since a damaged pack may have been taken out of the index on purpose.
    fn is_gone(&self, left: &[(Id, u64)]) -> bool {
        let roots = self.snapshots.iter().map(|snapshot| snapshot.file.tree);
        let lost: HashSet<Id> = roots.filter(|root| self.index.find(*root).is_none()).map(|root| root.0).collect();
        let has_one = |blobs: Vec<IndexBlob>| blobs.iter().any(|b| b.kind == BlobKind::Tree && lost.contains(&b.id));
        let Repository { store, sealer, .. } = self.repository;
        let header = |(id, size): &(Id, u64)| read_header(&**store, sealer, PackId(*id), *size, |_| ());
        !lost.is_empty() && left.iter().any(|pack| header(pack).is_ok_and(has_one))
    }

    /// Packs in the store that no index file lists.
    fn unlisted(&self, damaged: &HashSet<Id>) -> Vec<(Id, u64)> {
        let mut known: HashSet<PackId> = self.index.packs().into_iter().collect();
        known.extend(self.index.unusable());
        let is_left = |id: &Id| damaged.contains(id) || !known.contains(&PackId(*id));
        self.present.iter().filter(|(id, _)| is_left(id)).map(|(id, size)| (*id, *size)).collect()
    }
}

/// Index files being written.
struct Listing<'a> {
    found: &'a Found<'a>,
    packs: Vec<(PackId, Vec<IndexBlob>)>,
    blobs: usize,
}

impl Listing<'_> {
    fn add(&mut self, pack: PackId, blobs: Vec<IndexBlob>) -> Result<()> {
        self.blobs += blobs.len();
        self.packs.push((pack, blobs));
        if self.blobs >= INDEX_BLOBS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let packs = std::mem::take(&mut self.packs);
        self.blobs = 0;
        if packs.is_empty() || self.found.dry_run {
            return Ok(());
        }
        let json = encode_index(packs.iter().map(|(id, blobs)| (*id, &blobs[..])));
        let repository = self.found.repository;
        put_unpacked(&*repository.store, &repository.sealer, ObjectKind::Index, &json).map(|_| ())
    }
}

fn examine(repository: &Repository, pack: PackId, size: u64) -> Result<Vec<IndexBlob>> {
    if size > ADOPTED_BYTES_MAX {
        return Err(Error::corrupt(format!("{size} bytes are no pack of ours")));
    }
    let bytes = repository.store.get(&StoreKey::new(ObjectKind::Pack, pack))?;
    if sha256(&bytes) != pack.0.0 {
        return Err(Error::corrupt("content is not what the name says"));
    }
    header_of(&bytes, &repository.sealer)
}
