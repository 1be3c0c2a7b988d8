//! A local copy of index files in a form that loads at the speed of the disk. It is only ever a cache: every file is
//! checked against its checksum before a byte of it is believed, anything odd makes it a miss, and deleting the
//! folder costs nothing but time. The checksum, XXH3-128, is against rot and files that were cut short; whoever may write
//! here could as well change the program.
//!
//! One file for each index file of the repository, `<cache>/<repository id>/index/<index id>`: the magic, the number of
//! packs, then for each pack its id, the number of blobs, and for each blob id, kind, offset, length and raw length, all
//! little endian; last the checksum of all before it.

use super::BlobKind;
use crate::format::blob::IndexBlob;
use lastgood_model::{Id, IndexId, PackId, Result};
use std::io::{Read, Write};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use twox_hash::XxHash3_128;

const MAGIC: &[u8; 8] = b"lgindex2";
const BLOB_BYTES: usize = 32 + 1 + 4 + 4 + 4;

/// A folder of cached index files of one repository, or none.
#[derive(Clone, Debug, Default)]
pub struct IndexCache {
    folder: Option<PathBuf>,
}

impl IndexCache {
    /// A cache below `root`; without a root nothing is ever found or kept.
    pub fn new(root: Option<&Path>, repository: &Id) -> Self {
        Self { folder: root.map(|r| r.join(repository.to_string()).join("index")) }
    }

    /// How many blobs a cached index file lists, without reading it; 0 when it is not cached.
    pub(crate) fn blobs(&self, id: &IndexId) -> usize {
        let Some(folder) = &self.folder else { return 0 };
        fs_err::metadata(folder.join(id.to_string())).map_or(0, |m| m.len() as usize / BLOB_BYTES)
    }

    /// Feeds the packs of a cached index file to `visit`; `None` when it must be fetched instead. Nothing is fed from a
    /// file that is not whole. `buffer` is used for reading.
    pub(crate) fn load(
        &self,
        id: &IndexId,
        buffer: &mut Vec<u8>,
        mut visit: impl FnMut(PackId, Records<'_>) -> Result<()>,
    ) -> Option<Result<()>> {
        let mut file = fs_err::File::open(self.folder.as_ref()?.join(id.to_string())).ok()?;
        buffer.clear();
        file.read_to_end(buffer).ok()?;
        let packs = whole(buffer)?;
        let mut rest = packs;
        while let Some((pack, records)) = next_pack(&mut rest) {
            if let Err(error) = visit(pack, records) {
                return Some(Err(error));
            }
        }
        Some(Ok(()))
    }

    /// Keeps an index file's packs. Failure is harmless and silent: the next run fetches again.
    pub fn keep(&self, id: &IndexId, packs: &[(PackId, Vec<IndexBlob>)]) {
        let Some(folder) = &self.folder else { return };
        let _ = write(folder, id, packs);
    }

    /// Forgets an index file, so that the next run reads it from the repository.
    pub(crate) fn forget(&self, id: &IndexId) {
        if let Some(folder) = &self.folder {
            let _ = fs_err::remove_file(folder.join(id.to_string()));
        }
    }

    /// Removes cached files of index files that are gone.
    pub fn retain(&self, live: &[IndexId]) {
        let Some(folder) = &self.folder else { return };
        let Ok(entries) = fs_err::read_dir(folder) else { return };
        let live: std::collections::HashSet<String> = live.iter().map(ToString::to_string).collect();
        for entry in entries.flatten() {
            if !live.contains(&*entry.file_name().to_string_lossy()) {
                let _ = fs_err::remove_file(entry.path());
            }
        }
    }
}

fn write(folder: &Path, id: &IndexId, packs: &[(PackId, Vec<IndexBlob>)]) -> std::io::Result<()> {
    let blobs: usize = packs.iter().map(|(_, b)| b.len()).sum();
    let mut out = Vec::with_capacity(64 + packs.len() * 36 + blobs * BLOB_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(packs.len() as u32).to_le_bytes());
    for (pack, blobs) in packs {
        out.extend_from_slice(&pack.0.0);
        out.extend_from_slice(&(blobs.len() as u32).to_le_bytes());
        for blob in blobs {
            out.extend_from_slice(&blob.id.0);
            out.push(u8::from(blob.kind == BlobKind::Tree));
            for number in [blob.offset, blob.length, blob.uncompressed.map_or(0, NonZeroU32::get)] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }
    let checksum = XxHash3_128::oneshot(&out).to_le_bytes();
    out.extend_from_slice(&checksum);
    fs_err::create_dir_all(folder)?;
    // A rename makes it whole or absent; a crash in between leaves a name that is no id and goes at the next `retain`.
    let temporary = folder.join(format!("{id}.{}", std::process::id()));
    let mut file = fs_err::File::create(&temporary)?;
    file.write_all(&out)?;
    drop(file);
    fs_err::rename(&temporary, folder.join(id.to_string()))
}

/// The packs of a cached file that is as it was written, to its last byte.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let (body, checksum) = bytes.split_last_chunk::<16>()?;
    if XxHash3_128::oneshot(body).to_le_bytes() != *checksum {
        return None;
    }
    let mut packs = body.strip_prefix(MAGIC)?;
    let count = take_u32(&mut packs)?;
    let mut rest = packs;
    for _ in 0..count {
        next_pack(&mut rest)?;
    }
    rest.is_empty().then_some(packs)
}

/// The next pack of those in `rest`, which goes on to the one after.
fn next_pack<'a>(rest: &mut &'a [u8]) -> Option<(PackId, Records<'a>)> {
    let pack = PackId(Id(*rest.split_off(..32)?.first_chunk()?));
    let count = take_u32(rest)? as usize;
    Some((pack, Records(rest.split_off(..count.checked_mul(BLOB_BYTES)?)?)))
}

/// The blobs of a cached pack.
#[derive(Clone, Debug)]
pub(crate) struct Records<'a>(&'a [u8]);

impl Iterator for Records<'_> {
    type Item = IndexBlob;

    fn next(&mut self) -> Option<IndexBlob> {
        let mut record = self.0.split_off(..BLOB_BYTES)?;
        let id = Id(*record.split_off(..32)?.first_chunk()?);
        let kind = if *record.split_off_first()? == 1 { BlobKind::Tree } else { BlobKind::Data };
        let (offset, length, raw_length) = (take_u32(&mut record)?, take_u32(&mut record)?, take_u32(&mut record)?);
        Some(IndexBlob { id, kind, offset, length, uncompressed: NonZeroU32::new(raw_length) })
    }
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    rest.split_off(..4)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_index_loads_as_kept_and_any_damage_is_a_miss() {
        let folder = tempfile::tempdir().unwrap();
        let cache = IndexCache::new(Some(folder.path()), &Id([1; 32]));
        let id = IndexId(Id([2; 32]));
        let blob = IndexBlob {
            id: Id([3; 32]),
            kind: BlobKind::Tree,
            offset: 4,
            length: 50,
            uncompressed: NonZeroU32::new(60),
        };
        let packs = vec![(PackId(Id([9; 32])), vec![blob; 3]), (PackId(Id([8; 32])), vec![])];
        cache.keep(&id, &packs);
        let (mut seen, mut buffer) = (Vec::new(), Vec::new());
        let loaded = cache.load(&id, &mut buffer, |pack, blobs| {
            seen.push((pack, blobs.collect::<Vec<_>>()));
            Ok(())
        });
        loaded.unwrap().unwrap();
        assert_eq!(seen, packs);
        assert_eq!(cache.blobs(&id), 5, "those three, and what is around them");
        let path = folder.path().join(Id([1; 32]).to_string()).join("index").join(id.to_string());
        let good = fs_err::read(&path).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 4;
            fs_err::write(&path, &bad).unwrap();
            assert!(cache.load(&id, &mut buffer, |_, _| panic!("fed from a damaged file")).is_none());
        }
        cache.retain(&[]);
        assert!(!path.exists());
    }
}
