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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::MasterKey;
    use crate::format::BlobKind;
    use crate::format::pack::{encode_header, trailer};
    use lastgood_model::{ErrorKind, Id};
    use lastgood_stores::{MemoryStore, Op, RecordStore};

    #[test]
    fn a_header_is_read_from_the_end_and_any_damage_to_it_is_told() {
        let sealer = Sealer::new(&MasterKey::generate().unwrap()).unwrap();
        let mut pack = sealer.seal(&[9; 50_000]).unwrap();
        let length = pack.len() as u32;
        let blob = IndexBlob { id: Id([1; 32]), kind: BlobKind::Data, offset: 0, length, uncompressed: None };
        let header = sealer.seal(&encode_header(&[blob]).unwrap()).unwrap();
        pack.extend_from_slice(&header);
        pack.extend_from_slice(&trailer(header.len()).unwrap());
        assert_eq!(header_of(&pack, &sealer).unwrap(), [blob]);

        let store = RecordStore::new(MemoryStore::new());
        let (id, size) = (PackId(Id([2; 32])), pack.len() as u64);
        let key = StoreKey::new(ObjectKind::Pack, id);
        store.put(&key, &[&pack]).unwrap();
        let mut told = 0;
        assert_eq!(read_header(&store, &sealer, id, size, |bytes| told += bytes).unwrap(), [blob]);
        assert_eq!(store.counts().of(Op::GetRange).bytes, told);
        assert!(told < 200, "{told} bytes for a header of one blob");

        for at in length as usize..pack.len() {
            let spoilt = MemoryStore::new();
            spoilt.put(&key, &[&pack]).unwrap();
            spoilt.damage(&key, |bytes| bytes[at] ^= 1).unwrap();
            assert_eq!(read_header(&spoilt, &sealer, id, size, |_| ()).unwrap_err().kind(), ErrorKind::Corrupt, "{at}");
            let bytes = spoilt.get(&key).unwrap();
            assert_eq!(header_of(&bytes, &sealer).unwrap_err().kind(), ErrorKind::Corrupt, "{at}");
        }
        for short in [0, 1, 3, 4, 35, 36] {
            assert_eq!(header_of(&pack[..short], &sealer).unwrap_err().kind(), ErrorKind::Corrupt, "{short}");
            assert!(read_header(&store, &sealer, id, short as u64, |_| ()).is_err(), "{short}");
        }
    }
}
