//! Pack files: sealed blobs back to back, then the sealed header, then the sealed header's length as 32 bits, least
//! significant byte first.
//!
//! The header lists the blobs in the order they lie, one entry each: a type byte (0 data, 1 tree, 2 compressed data,
//! 3 compressed tree), the sealed length, the plain length if compressed, and the id. Offsets are nowhere written; they
//! follow from the order. So a pack's size is known exactly from its entries ([`pack_size`]), and `restic check` holds
//! packs to that: nothing may ever be appended to one, and a pack of any other size is damaged.

use super::blob::{BlobKind, IndexBlob, SEAL_BYTES};
use lastgood_model::{Error, ErrorKind, Id, Result};
use std::borrow::Borrow;
use std::num::NonZeroU32;

/// Bytes at the very end of a pack that tell the length of the sealed header.
pub const LENGTH_BYTES: usize = 4;
/// The longest sealed header that restic reads.
pub const HEADER_BYTES_MAX: u64 = 16 << 20;
/// So many blobs fit into one pack, whatever they are.
pub const ENTRIES_MAX: usize = ((HEADER_BYTES_MAX - SEAL_BYTES as u64) / ENTRY_BYTES_COMPRESSED) as usize;
/// A pack without any blob; every other is longer.
pub const EMPTY_PACK_BYTES: u64 = SEAL_BYTES as u64 + LENGTH_BYTES as u64;

const ENTRY_BYTES_PLAIN: u64 = 1 + 4 + 32;
const ENTRY_BYTES_COMPRESSED: u64 = ENTRY_BYTES_PLAIN + 4;

/// Bytes of one blob's entry in the header.
pub fn entry_bytes(blob: &IndexBlob) -> u64 {
    if blob.uncompressed.is_some() { ENTRY_BYTES_COMPRESSED } else { ENTRY_BYTES_PLAIN }
}

/// The size of the pack that holds exactly these blobs.
pub fn pack_size(blobs: impl IntoIterator<Item = impl Borrow<IndexBlob>>) -> u64 {
    blobs.into_iter().fold(EMPTY_PACK_BYTES, |size, blob| {
        let blob = blob.borrow();
        size + u64::from(blob.length) + entry_bytes(blob)
    })
}

/// The header of a pack, to be sealed and followed by [`trailer`].
///
/// # Errors
/// [`ErrorKind::Bug`] when the blobs do not lie back to back from offset 0 in this order, are of both kinds, or do not fit a
/// pack.
pub fn encode_header(blobs: &[IndexBlob]) -> Result<Vec<u8>> {
    let broken = |fact: &str| Error::new(ErrorKind::Bug, format!("encode pack header: {fact}"));
    if blobs.is_empty() || blobs.len() > ENTRIES_MAX || pack_size(blobs) > u64::from(u32::MAX) {
        return Err(broken("too few or too many blobs for one pack"));
    }
    let mut header = Vec::with_capacity(blobs.len() * ENTRY_BYTES_COMPRESSED as usize);
    let mut end = 0;
    for blob in blobs {
        blob.check_bounds().map_err(|e| broken("an impossible blob").with_source(e))?;
        if u64::from(blob.offset) != end {
            return Err(broken("blobs do not lie back to back"));
        }
        if blob.kind != blobs[0].kind {
            return Err(broken("data and trees in one pack"));
        }
        end = blob.end();
        let kind = match blob.kind {
            BlobKind::Data => 0,
            BlobKind::Tree => 1,
        };
        header.push(kind + if blob.uncompressed.is_some() { 2 } else { 0 });
        header.extend_from_slice(&blob.length.to_le_bytes());
        if let Some(length) = blob.uncompressed {
            header.extend_from_slice(&length.get().to_le_bytes());
        }
        header.extend_from_slice(&blob.id.0);
    }
    Ok(header)
}

/// The last bytes of a pack whose sealed header takes `sealed_header_bytes`.
pub fn trailer(sealed_header_bytes: usize) -> Result<[u8; LENGTH_BYTES]> {
    u32::try_from(sealed_header_bytes)
        .ok()
        .filter(|&length| u64::from(length) <= HEADER_BYTES_MAX)
        .map(u32::to_le_bytes)
        .ok_or_else(|| Error::new(ErrorKind::Bug, "encode pack header: too long"))
}

/// Where the sealed header of a pack of `pack_bytes` begins and how long it is, told by the pack's last four bytes.
///
/// # Errors
/// [`ErrorKind::Corrupt`] for a length that this pack cannot have.
pub fn locate_header(pack_bytes: u64, trailer: [u8; LENGTH_BYTES]) -> Result<(u64, u32)> {
    let length = u32::from_le_bytes(trailer);
    let fact = if pack_bytes > u64::from(u32::MAX) {
        "is larger than any pack".to_owned()
    } else if u64::from(length) < u64::from(SEAL_BYTES) + ENTRY_BYTES_PLAIN {
        format!("has a header of {length} bytes, less than one entry takes")
    } else if u64::from(length) > HEADER_BYTES_MAX {
        format!("has a header of {length} bytes, more than the format allows")
    } else if let Some(offset) = (pack_bytes.saturating_sub(LENGTH_BYTES as u64)).checked_sub(u64::from(length)) {
        return Ok((offset, length));
    } else {
        format!("has a header of {length} bytes, more than it is long")
    };
    Err(Error::corrupt(format!("the pack of {pack_bytes} bytes {fact}")))
}

/// The blobs of a pack of `pack_bytes`, from its unsealed header, in the order they lie.
///
/// # Errors
/// [`ErrorKind::Corrupt`] for an entry that cannot be, or when the entries do not account for every byte of the pack.
pub fn parse_header(header: &[u8], pack_bytes: u64) -> Result<Vec<IndexBlob>> {
    let mut blobs = Vec::with_capacity(header.len() / ENTRY_BYTES_PLAIN as usize);
    let mut rest = header;
    let mut end = 0u64;
    while !rest.is_empty() {
        let (entry, after) = split_entry(rest).ok_or_else(|| {
            Error::corrupt(format!("parse pack header: no entry at byte {}", header.len() - rest.len()))
        })?;
        let offset = u32::try_from(end).map_err(|_| Error::corrupt("parse pack header: blobs beyond 4 GiB"))?;
        let blob = IndexBlob { offset, ..entry };
        blob.check_bounds().map_err(|e| Error::corrupt("parse pack header").with_source(e))?;
        end = blob.end();
        blobs.push(blob);
        rest = after;
    }
    let size = pack_size(&blobs);
    if size != pack_bytes || blobs.is_empty() {
        return Err(Error::corrupt(format!("the pack has {pack_bytes} bytes, its header tells of {size}")));
    }
    Ok(blobs)
}

/// Splits the first entry off a header; its offset is left at 0.
fn split_entry(header: &[u8]) -> Option<(IndexBlob, &[u8])> {
    let (&[word], rest) = header.split_first_chunk()?;
    let kind = match word {
        0 | 2 => BlobKind::Data,
        1 | 3 => BlobKind::Tree,
        _ => return None,
    };
    let (length, mut rest) = rest.split_first_chunk()?;
    let mut uncompressed = None;
    if word >= 2 {
        let (length, after) = rest.split_first_chunk()?;
        uncompressed = Some(NonZeroU32::new(u32::from_le_bytes(*length))?);
        rest = after;
    }
    let (id, rest) = rest.split_first_chunk()?;
    Some((IndexBlob { id: Id(*id), kind, offset: 0, length: u32::from_le_bytes(*length), uncompressed }, rest))
}

/// Sorts what an index tells of one pack by offset and holds it against the pack's size.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when blobs overlap, leave gaps, or do not add up to `pack_bytes`.
pub fn check_layout(blobs: &mut [IndexBlob], pack_bytes: u64) -> Result<()> {
    blobs.sort_unstable_by_key(|blob| blob.offset);
    let mut end = 0;
    for blob in &*blobs {
        let offset = u64::from(blob.offset);
        if offset != end {
            let fact = if offset < end { "overlaps the blob before it" } else { "lies behind a gap" };
            return Err(Error::corrupt(format!("blob {} at {offset} {fact}", blob.id.short())));
        }
        end = blob.end();
    }
    let size = pack_size(&*blobs);
    if size != pack_bytes {
        return Err(Error::corrupt(format!("the pack has {pack_bytes} bytes, the index tells of {size}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Blobs back to back with these sealed and plain lengths; 0 for not compressed.
    fn lay(kind: BlobKind, lengths: &[(u32, u32)]) -> Vec<IndexBlob> {
        let mut offset = 0;
        let blobs = lengths.iter().enumerate().map(|(i, &(length, plain))| {
            let uncompressed = NonZeroU32::new(plain);
            let blob = IndexBlob { id: Id([i as u8; 32]), kind, offset, length, uncompressed };
            offset += length;
            blob
        });
        blobs.collect()
    }

    fn kind_of<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
        result.unwrap_err().kind()
    }

    #[test]
    fn entries_are_laid_out_as_the_format_says() {
        let blobs = lay(BlobKind::Tree, &[(0x0123, 0), (0x20, 0x0102_0304)]);
        let header = encode_header(&blobs).unwrap();
        let (plain, compressed) = header.split_at(37);
        assert_eq!(plain, [&[1, 0x23, 1, 0, 0][..], &[0; 32]].concat());
        assert_eq!(compressed, [&[3, 0x20, 0, 0, 0, 4, 3, 2, 1][..], &[1; 32]].concat());
        assert_eq!(pack_size(&blobs), 0x123 + 0x20 + 37 + 41 + 36);
        assert_eq!(parse_header(&header, pack_size(&blobs)).unwrap(), blobs);
        assert_eq!(trailer(header.len() + 32).unwrap(), [110, 0, 0, 0]);
        assert_eq!((blobs[0].plain_length(), blobs[1].plain_length()), (0x0123 - 32, 0x0102_0304));
    }

    #[test]
    fn a_header_that_does_not_account_for_every_byte_is_damage() {
        let blobs = lay(BlobKind::Data, &[(100, 0), (40, 9)]);
        let (header, size) = (encode_header(&blobs).unwrap(), pack_size(&blobs));
        for (header, size) in [
            (&header[..], size - 1),
            (&header[..], size + 1),
            (&header[..], 0),
            (&header[..37], size),
            (&header[..40], size),
            (&[][..], EMPTY_PACK_BYTES),
        ] {
            assert_eq!(kind_of(parse_header(header, size)), ErrorKind::Corrupt);
        }
        for (at, byte) in [(0, 4), (0, 2), (0, 255), (1, 31), (1, 101), (37, 0), (4, 255)] {
            let mut header = header.clone();
            header[at] = byte;
            assert_eq!(kind_of(parse_header(&header, size)), ErrorKind::Corrupt, "{at} {byte}");
        }
    }

    #[test]
    fn headers_are_found_only_where_they_can_be() {
        assert_eq!(locate_header(1000, 69u32.to_le_bytes()).unwrap(), (927, 69));
        assert_eq!(locate_header(73, 69u32.to_le_bytes()).unwrap(), (0, 69));
        let max = HEADER_BYTES_MAX as u32;
        assert!(locate_header(1 << 30, max.to_le_bytes()).is_ok());
        for (size, length) in
            [(1000, 0), (1000, 68), (72, 69), (0, 69), (1 << 30, max + 1), (1 << 33, 69), (1000, u32::MAX)]
        {
            assert_eq!(kind_of(locate_header(size, length.to_le_bytes())), ErrorKind::Corrupt, "{size} {length}");
        }
    }

    #[test]
    fn blobs_that_overlap_or_leave_gaps_are_damage() {
        let good = lay(BlobKind::Data, &[(100, 0), (40, 9), (32, 0)]);
        let size = pack_size(&good);
        let mut shuffled = vec![good[2], good[0], good[1]];
        check_layout(&mut shuffled, size).unwrap();
        assert_eq!(shuffled, good);
        let mut overlapping = good.clone();
        overlapping[1].offset -= 1;
        let mut gap = good.clone();
        gap[2].offset += 1;
        let mut twice = good.clone();
        twice.push(good[2]);
        let mut late = good.clone();
        late.remove(0);
        for mut bad in [overlapping, gap, twice, late, good[..2].to_vec()] {
            assert_eq!(kind_of(check_layout(&mut bad, size)), ErrorKind::Corrupt);
        }
        assert_eq!(kind_of(check_layout(&mut good.clone(), size + 1)), ErrorKind::Corrupt);
    }

    #[test]
    fn packs_that_must_not_be_are_not_written() {
        let mut mixed = lay(BlobKind::Data, &[(40, 0), (40, 0)]);
        mixed[1].kind = BlobKind::Tree;
        let mut gap = lay(BlobKind::Data, &[(40, 0), (40, 0)]);
        gap[1].offset += 1;
        let huge = lay(BlobKind::Data, &[(u32::MAX - 72, 0)]);
        let many = lay(BlobKind::Data, &vec![(32, 1); ENTRIES_MAX + 1]);
        for bad in [vec![], mixed, gap, huge, many.clone(), lay(BlobKind::Data, &[(31, 0)])] {
            assert_eq!(kind_of(encode_header(&bad)), ErrorKind::Bug);
        }
        let full = encode_header(
            &many[1..].iter().enumerate().map(|(i, b)| IndexBlob { offset: i as u32 * 32, ..*b }).collect::<Vec<_>>(),
        );
        assert!(trailer(full.unwrap().len() + 32).is_ok());
        assert!(encode_header(&lay(BlobKind::Data, &[(u32::MAX - 73, 0)])).is_ok());
        assert!(trailer(HEADER_BYTES_MAX as usize + 1).is_err());
    }

    proptest! {
        #[test]
        fn every_header_reads_back(lengths in prop::collection::vec((32u32..1 << 20, any::<u32>()), 1..100), tree: bool) {
            let blobs = lay(if tree { BlobKind::Tree } else { BlobKind::Data }, &lengths);
            let header = encode_header(&blobs).unwrap();
            prop_assert_eq!(parse_header(&header, pack_size(&blobs)).unwrap(), blobs);
        }

        #[test]
        fn no_header_panics(header: Vec<u8>, size: u64) {
            let _ = parse_header(&header, size);
        }
    }
}
