//! A pack's own list of its blobs, read from its end.

use crate::crypto::Sealer;
use crate::format::IndexBlob;
use crate::format::pack::{LENGTH_BYTES, locate_header, parse_header};
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{Context, Error, PackId, Result};

/// The blobs of a whole pack in memory.
pub(crate) fn header_of(pack: &[u8], sealer: &Sealer) -> Result<Vec<IndexBlob>> {
    let size = pack.len() as u64;
    let (body, trailer) = pack.split_last_chunk().ok_or_else(|| too_short(size))?;
    let (offset, length) = locate_header(size, *trailer)?;
    let mut header = body[offset as usize..offset as usize + length as usize].to_vec();
    parse_header(sealer.open_in_place(&mut header).context("open pack header")?, size)
}

/// The blobs of a stored pack of `size` bytes; reads no more than its end. `read` is told of each range it reads.
pub(crate) fn read_header(
    store: &dyn Store,
    sealer: &Sealer,
    pack: PackId,
    size: u64,
    mut read: impl FnMut(u64),
) -> Result<Vec<IndexBlob>> {
    let key = StoreKey::new(ObjectKind::Pack, pack);
    let mut bytes = Vec::new();
    let at = size.checked_sub(LENGTH_BYTES as u64).ok_or_else(|| too_short(size))?;
    read(LENGTH_BYTES as u64);
    store.get_range(&key, at, LENGTH_BYTES, &mut bytes)?;
    let trailer = *bytes.first_chunk().ok_or_else(|| too_short(size))?;
    let (offset, length) = locate_header(size, trailer)?;
    read(u64::from(length));
    store.get_range(&key, offset, length as usize, &mut bytes)?;
    parse_header(sealer.open_in_place(&mut bytes).context("open pack header")?, size)
}

fn too_short(size: u64) -> Error {
    Error::corrupt(format!("a pack of {size} bytes is none"))
}
