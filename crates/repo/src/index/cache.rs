//! A local copy of index files in a form that loads at the speed of the disk. It is only ever a cache: every file is
//! checked against its own SHA-256 before a byte of it is believed, anything odd makes it a miss, and deleting the
//! folder costs nothing but time.
//!
//! One file for each index file of the repository, `<cache>/<repository id>/index/<index id>`: the magic, the number of
//! packs, then for each pack its id, the number of blobs, and for each blob id, kind, offset, length and raw length, all
//! little endian; last the SHA-256 of all before it.

use super::BlobKind;
use crate::format::blob::IndexBlob;
use crate::sha256::sha256;
use lastgood_model::{Id, IndexId, PackId};
use std::io::Write;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"lgindex1";
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

    /// Feeds the packs of a cached index file to `visit`; false when it must be fetched instead. Nothing is fed from a
    /// file that is not whole.
    pub fn load(&self, id: &IndexId, mut visit: impl FnMut(PackId, &[IndexBlob])) -> bool {
        let Some(folder) = &self.folder else { return false };
        let Ok(bytes) = fs_err::read(folder.join(id.to_string())) else { return false };
        let Some(packs) = parse(&bytes) else { return false };
        for (pack, blobs) in packs {
            visit(pack, &blobs);
        }
        true
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
    let digest = sha256(&out);
    out.extend_from_slice(&digest);
    fs_err::create_dir_all(folder)?;
    // A rename makes it whole or absent; a crash in between leaves a name that is no id and goes at the next `retain`.
    let temporary = folder.join(format!("{id}.{}", std::process::id()));
    let mut file = fs_err::File::create(&temporary)?;
    file.write_all(&out)?;
    drop(file);
    fs_err::rename(&temporary, folder.join(id.to_string()))
}

fn parse(bytes: &[u8]) -> Option<Vec<(PackId, Vec<IndexBlob>)>> {
    let (body, digest) = bytes.split_last_chunk::<32>()?;
    if sha256(body) != *digest {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut packs = Vec::new();
    for _ in 0..take_u32(&mut rest)? {
        let pack = PackId(Id(*rest.split_off(..32)?.first_chunk()?));
        let count = take_u32(&mut rest)? as usize;
        let records = rest.split_off(..count.checked_mul(BLOB_BYTES)?)?;
        let mut blobs = Vec::with_capacity(count);
        for mut record in records.chunks_exact(BLOB_BYTES) {
            let id = Id(*record.split_off(..32)?.first_chunk()?);
            let kind = if *record.split_off_first()? == 1 { BlobKind::Tree } else { BlobKind::Data };
            let (offset, length, raw_length) = (take_u32(&mut record)?, take_u32(&mut record)?, take_u32(&mut record)?);
            blobs.push(IndexBlob { id, kind, offset, length, uncompressed: NonZeroU32::new(raw_length) });
        }
        packs.push((pack, blobs));
    }
    rest.is_empty().then_some(packs)
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
        let mut seen = Vec::new();
        assert!(cache.load(&id, |pack, blobs| seen.push((pack, blobs.to_vec()))));
        assert_eq!(seen, packs);
        let path = folder.path().join(Id([1; 32]).to_string()).join("index").join(id.to_string());
        let good = fs_err::read(&path).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 4;
            fs_err::write(&path, &bad).unwrap();
            assert!(!cache.load(&id, |_, _| panic!("fed from a damaged file")));
        }
        cache.retain(&[]);
        assert!(!path.exists());
    }
}
