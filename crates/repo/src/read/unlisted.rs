//! Packs that no index file lists, found by their own lists of blobs. An index file may be damaged or gone: what it told
//! of is still there, and the data is what counts.

use super::read_header;
use crate::crypto::Sealer;
use crate::index::Index;
use crate::index_files::enter_pack;
use lastgood_model::store::{ObjectKind, Store};
use lastgood_model::{ErrorKind, PackId, Result};
use std::collections::HashSet;

/// Enters every pack that the index does not know by its own header, and notes it as unlisted. Returns how many there
/// were.
///
/// # Errors
/// Whatever keeps the store from answering; a pack that is damaged is passed over with a warning.
pub(crate) fn enter_unlisted(store: &dyn Store, sealer: &Sealer, index: &Index) -> Result<usize> {
    let mut known: HashSet<PackId> = index.packs().into_iter().collect();
    known.extend(index.unusable());
    let mut entered = 0;
    for (id, size) in store.list(ObjectKind::Pack)? {
        let pack = PackId(id);
        if known.contains(&pack) {
            continue;
        }
        match read_header(store, sealer, pack, size, |_| ()) {
            Ok(blobs) => {
                enter_pack(index, pack, &blobs)?;
                index.note_unlisted(pack);
                entered += 1;
            }
            // Removed by somebody else since the listing.
            Err(error) if error.kind() == ErrorKind::Absent => {}
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!("pack {} is in no index and its header is damaged: {}", pack.short(), error.chain());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(entered)
}
