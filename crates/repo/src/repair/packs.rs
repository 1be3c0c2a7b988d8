//! Saving what can still be read of damaged packs into new ones.

use super::Unsaved;
use crate::format::IndexBlob;
use crate::index::{BlobRef, Index, Location};
use crate::index_files::Believed;
use crate::lock::LockMode;
use crate::pipe::Packer;
use crate::read::{BlobReader, read_header};
use crate::repository::Repository;
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Error, ErrorKind, IndexId, Monitor, PackId, Result};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct PacksReport {
    /// Always `lastgood.repair-packs`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Version of this layout.
    pub schema: u32,
    /// Each pack that was looked at.
    pub packs: Vec<PackRepair>,
    /// Packs that were written.
    pub packs_written: Vec<PackId>,
}

/// What was saved of one pack.
#[derive(Clone, Debug, Serialize)]
pub struct PackRepair {
    /// The pack.
    pub pack: PackId,
    /// Blobs that were saved into a new pack.
    pub blobs_saved: u64,
    /// Blobs that another pack holds, sound.
    pub blobs_elsewhere: u64,
    /// Blobs that are nowhere sound, or the pack itself when nothing of it can be read.
    pub unsaved: Vec<Unsaved>,
}

/// Saves what can be read of `damaged` packs into new packs. The damaged ones stay as they are.
///
/// # Errors
/// [`ErrorKind::Locked`] while somebody deletes; whatever keeps the store from answering or being written to.
pub fn packs(
    repository: &Repository,
    monitor: &Monitor,
    damaged: &[PackId],
    lock_wait: Duration,
) -> Result<PacksReport> {
    let _lock = repository.lock_within(LockMode::Shared, lock_wait, monitor)?;
    let index = repository.load_index_of(&Believed::default())?;
    let reader = BlobReader::new(repository.store.clone(), repository.sealer.clone(), index);
    let told = told_by_index(repository, damaged)?;
    let fresh = Arc::new(Index::new()?);
    let packer = Packer::start(repository.store.clone(), repository.sealer.clone(), fresh, repository.cache(), false)?;
    let mut done = HashSet::new();
    let each = damaged.iter().filter(|pack| done.insert(**pack)).map(|pack| {
        monitor.check_cancelled()?;
        let mut one = PackRepair { pack: *pack, blobs_saved: 0, blobs_elsewhere: 0, unsaved: Vec::new() };
        match salvage(repository, &reader, &packer, told.get(pack), &mut one) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Absent) => {
                one.unsaved.push(Unsaved { object: format!("pack {pack}"), reason: error.chain() });
            }
            Err(error) => return Err(error),
        }
        Ok(one)
    });
    let packs = match each.collect::<Result<Vec<_>>>() {
        Ok(packs) => packs,
        Err(error) => {
            // What was written until then is listed, so that the next run finds it.
            packer.salvage();
            return Err(error);
        }
    };
    let packs_written = packer.finish()?.into_iter().map(|(id, _)| id).collect();
    repository.store.sync()?;
    Ok(PacksReport { kind: "lastgood.repair-packs", schema: 1, packs, packs_written })
}

/// What index files tell of these packs.
fn told_by_index(repository: &Repository, packs: &[PackId]) -> Result<HashMap<PackId, Vec<IndexBlob>>> {
    let wanted: HashSet<&PackId> = packs.iter().collect();
    let mut told: HashMap<PackId, Vec<IndexBlob>> = HashMap::new();
    for (id, _) in repository.store.list(ObjectKind::Index)? {
        match repository.index_listing(IndexId(id)) {
            Ok(listing) => told.extend(listing.into_iter().filter(|(pack, _)| wanted.contains(pack))),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::Absent) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(told)
}

fn salvage(
    repository: &Repository,
    reader: &BlobReader,
    packer: &Packer,
    told: Option<&Vec<IndexBlob>>,
    one: &mut PackRepair,
) -> Result<()> {
    let store = &repository.store;
    let key = StoreKey::new(ObjectKind::Pack, one.pack);
    let bytes = store.get(&key)?;
    let blobs = match told {
        Some(blobs) => blobs.clone(),
        None => read_header(&**store, &repository.sealer, one.pack, bytes.len() as u64, |_| ())?,
    };
    for blob in blobs {
        let reference = BlobRef { kind: blob.kind, id: blob.id };
        if is_sound_elsewhere(reader, &reference, one.pack)? {
            one.blobs_elsewhere += 1;
            continue;
        }
        match take(reader, &blob, &bytes) {
            Ok(sealed) => {
                packer.append(blob.kind, blob.id, sealed, blob.uncompressed.map_or(0, NonZeroU32::get))?;
                one.blobs_saved += 1;
            }
            Err(error) => one
                .unsaved
                .push(Unsaved { object: format!("{} blob {}", blob.kind.word(), blob.id), reason: error.chain() }),
        }
    }
    Ok(())
}

/// The blob's sealed bytes, proven to be it.
fn take<'a>(reader: &BlobReader, blob: &IndexBlob, pack: &'a [u8]) -> Result<&'a [u8]> {
    let sealed = usize::try_from(blob.end()).ok().and_then(|end| pack.get(blob.offset as usize..end));
    let sealed = sealed.ok_or_else(|| Error::corrupt("the pack ends before it"))?;
    let raw_length = blob.uncompressed.map_or(0, NonZeroU32::get);
    let location = Location { pack: 0, offset: blob.offset, length: blob.length, raw_length };
    let reference = BlobRef { kind: blob.kind, id: blob.id };
    reader.open(&reference, &location, &mut sealed.to_vec(), &mut Vec::new())?;
    Ok(sealed)
}

fn is_sound_elsewhere(reader: &BlobReader, blob: &BlobRef, pack: PackId) -> Result<bool> {
    for place in reader.index.find(*blob).into_iter().chain(reader.index.spares(*blob)) {
        if reader.index.pack(place.pack) == pack {
            continue;
        }
        match reader.blob_at(blob, &place) {
            Ok(_) => return Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Absent) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
