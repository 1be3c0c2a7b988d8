//! Packs that no index file lists: a run left them behind when it died, or the index file that listed them is damaged.
//! Taking them over spares storing their content again, and keeps them from being garbage; and what a new recovery point
//! relies on must be found by others, too.
//!
//! Of what a dead run left, only packs that prove themselves are taken: the name is the hash of the bytes, the header
//! opens, and the lengths in it add up. A pack of another run that is still alive may be among them; then it is indexed
//! twice, which is harmless. Packs whose index file is damaged were listed once by whoever wrote them, and their headers
//! are sealed: they are not read again as a whole.

use crate::format::{IndexBlob, encode_index};
use crate::index::Index;
use crate::read::{header_of, read_header};
use crate::repository::{Repository, enter_pack, put_unpacked};
use crate::sha256::sha256;
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Error, Id, PackId, Result};
use std::collections::HashSet;

/// Packs are read whole to be examined; nobody writes larger ones (restic: 128 MiB at most).
const ADOPTED_BYTES_MAX: u64 = 256 << 20;

/// Adopts what is left and writes an index file for it. Returns the packs with their sizes.
pub(super) fn adopt(repository: &Repository, index: &Index) -> Result<Vec<(PackId, u64)>> {
    let unlisted: HashSet<Id> = index.unlisted().into_iter().map(|p| p.0).collect();
    let known: HashSet<Id> = index.packs().into_iter().map(|p| p.0).filter(|id| !unlisted.contains(id)).collect();
    let mut adopted: Vec<(PackId, Vec<IndexBlob>)> = Vec::new();
    let mut sizes = Vec::new();
    for (id, size) in repository.store.list(ObjectKind::Pack)? {
        if known.contains(&id) {
            continue;
        }
        let pack = PackId(id);
        let blobs = match unlisted.contains(&id) {
            true => read_header(&*repository.store, &repository.sealer, pack, size, |_| ()),
            false => examine(repository, pack, size),
        };
        match blobs {
            Ok(blobs) => {
                adopted.push((pack, blobs));
                sizes.push((pack, size));
            }
            Err(error) => tracing::warn!(pack = %pack, error = %error.chain(), "pack without an index is passed over"),
        }
    }
    if adopted.is_empty() {
        return Ok(sizes);
    }
    let json = encode_index(adopted.iter().map(|(id, blobs)| (*id, &blobs[..])));
    put_unpacked(&*repository.store, &repository.sealer, ObjectKind::Index, &json)?;
    repository.store.sync()?;
    for (pack, blobs) in adopted.iter().filter(|(pack, _)| !unlisted.contains(&pack.0)) {
        enter_pack(index, *pack, blobs)?;
    }
    Ok(sizes)
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
