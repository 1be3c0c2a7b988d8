//! Packs that a run left behind when it died: whole, but in no index. Taking them over spares storing their content
//! again, and keeps them from being garbage.
//!
//! Only packs that prove themselves are taken: the name is the hash of the bytes, the header opens, and the lengths in
//! it add up. A pack of another run that is still alive may be among them; then it is indexed twice, which is harmless.

use crate::format::{IndexBlob, encode_index};
use crate::index::Index;
use crate::read::header_of;
use crate::repository::{Repository, enter_pack, put_unpacked};
use crate::sha256::sha256;
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Id, PackId, Result};
use std::collections::HashSet;

/// Adopts what is left and writes an index file for it. Returns the packs with their sizes.
pub(super) fn adopt(repository: &Repository, index: &Index) -> Result<Vec<(PackId, u64)>> {
    let known: HashSet<Id> = index.packs().into_iter().map(|p| p.0).collect();
    let mut adopted: Vec<(PackId, Vec<IndexBlob>)> = Vec::new();
    let mut sizes = Vec::new();
    for (id, size) in repository.store.list(ObjectKind::Pack)? {
        if known.contains(&id) {
            continue;
        }
        let pack = PackId(id);
        match examine(repository, pack) {
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
    for (pack, blobs) in &adopted {
        enter_pack(index, *pack, blobs)?;
    }
    Ok(sizes)
}

fn examine(repository: &Repository, pack: PackId) -> Result<Vec<IndexBlob>> {
    let bytes = repository.store.get(&StoreKey::new(ObjectKind::Pack, pack))?;
    if sha256(&bytes) != pack.0.0 {
        return Err(lastgood_model::Error::corrupt("content is not what the name says"));
    }
    header_of(&bytes, &repository.sealer)
}
