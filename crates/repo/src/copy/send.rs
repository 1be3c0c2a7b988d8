//! Moves what is wanted, pack by pack: read, verified, and into packs of the target, on several threads.

use super::walk::{Lost, Need, Wanted};
use super::{Ends, advance, is_loss};
use crate::format::{IndexBlob, decode_index};
use crate::index::{BlobRef, Location};
use crate::pipe::{Packer, put_pack};
use crate::read::{header_of, noun, pack_is_gone, read_header};
use crate::sha256::sha256;
use crate::work::{each, threads_for};
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Context, Monitor, PackId, Result};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

/// Longer packs are read in pieces: each thread holds one that is read whole.
const WHOLE_BYTES_MAX: u64 = 64 << 20;
/// Pieces are joined up to this length.
const RANGE_BYTES: u64 = 4 << 20;
/// One in so many blobs that were sealed anew is opened again: a check on this machine's memory and ours.
const SELF_CHECK_EVERY: u64 = 64;

/// What was sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) blobs: u64,
    pub(super) bytes: u64,
    pub(super) packs_whole: u64,
    pub(super) lost: Lost,
}

/// Sends everything wanted.
///
/// # Errors
/// Whatever keeps the target from being written, or the source from answering. Blobs that the source has lost are no
/// error; they are told in what is returned.
pub(super) fn send(ends: &Ends, wanted: &Wanted, packer: &Packer, same_key: bool, monitor: &Monitor) -> Result<Sent> {
    let sending = Sending {
        ends,
        packer,
        same_key,
        monitor,
        sizes: ends.source.store.list(ObjectKind::Pack)?.into_iter().map(|(id, size)| (PackId(id), size)).collect(),
        blobs: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        packs_whole: AtomicU64::new(0),
        lost: Mutex::default(),
        headless: Mutex::default(),
    };
    let threads = threads_for(&*ends.source.store).max(threads_for(&*ends.target.store));
    each(threads, monitor, &wanted.needs, Buffers::default, |buffers, need| sending.pack(need, buffers))?;
    let headless = std::mem::take(&mut *lock(&sending.headless));
    sending.by_index_files(headless)?;
    Ok(Sent {
        blobs: sending.blobs.into_inner(),
        bytes: sending.bytes.into_inner(),
        packs_whole: sending.packs_whole.into_inner(),
        lost: sending.lost.into_inner().unwrap_or_else(|e| e.into_inner()),
    })
}

/// Reused from pack to pack.
#[derive(Default)]
struct Buffers {
    bytes: Vec<u8>,
    envelope: Vec<u8>,
    plain: Vec<u8>,
}

struct Sending<'a> {
    ends: &'a Ends,
    packer: &'a Packer,
    same_key: bool,
    monitor: &'a Monitor,
    /// Sizes of the source's packs.
    sizes: HashMap<PackId, u64>,
    blobs: AtomicU64,
    bytes: AtomicU64,
    packs_whole: AtomicU64,
    lost: Mutex<Lost>,
    /// Packs whose own list of their content is of no use.
    headless: Mutex<Vec<Need>>,
}

impl Sending<'_> {
    fn pack(&self, need: &Need, buffers: &mut Buffers) -> Result<()> {
        let id = self.ends.source.index.pack(need.pack);
        let Some(&size) = self.sizes.get(&id) else {
            lock(&self.headless).push(*need);
            return Ok(());
        };
        // One long read costs less than several short ones, and what is not wanted is no more than what is.
        let is_mostly_wanted = size <= WHOLE_BYTES_MAX && need.bytes_as_pack * 2 >= size;
        if is_mostly_wanted && self.at_once(need, id, size, buffers)? {
            return Ok(());
        }
        let Ends { source, .. } = self.ends;
        match read_header(&*source.store, &source.sealer, id, size, |_| ()) {
            Ok(blobs) => self.in_pieces(need, id, &blobs, buffers),
            Err(error) if is_loss(&error) => {
                lock(&self.headless).push(*need);
                Ok(())
            }
            Err(error) => Err(error.context(format!("read pack {id}"))),
        }
    }

    /// Reads the pack whole. False when that does not work, and nothing was sent.
    fn at_once(&self, need: &Need, id: PackId, size: u64, buffers: &mut Buffers) -> Result<bool> {
        let Ends { source, target, .. } = self.ends;
        let key = StoreKey::new(ObjectKind::Pack, id);
        let Buffers { bytes, envelope, plain } = buffers;
        match source.store.get_range(&key, 0, size as usize, bytes) {
            Ok(()) => {}
            Err(error) if is_loss(&error) => return Ok(false),
            Err(error) => return Err(error.context(format!("read pack {id}"))),
        }
        let Ok(blobs) = header_of(bytes, &source.sealer) else { return Ok(false) };
        let wanted = self.wanted_of(id, &blobs);
        if wanted.len() != need.blobs as usize {
            // The index tells otherwise than the pack itself.
            return Ok(false);
        }
        let may_move = self.same_key && !self.ends.doomed.contains(&id);
        if may_move && need.bytes_as_pack == size && wanted.len() == blobs.len() && sha256(bytes) == id.0.0 {
            put_pack(&*target.store, id, bytes, &blobs)?;
            self.packer.enter_whole(id, size, blobs)?;
            self.packs_whole.fetch_add(1, Relaxed);
            self.count(u64::from(need.blobs), need.bytes);
            return Ok(true);
        }
        for blob in wanted {
            let range = blob.offset as usize..blob.end() as usize;
            self.one(&blob, Ok(&mut bytes[range]), envelope, plain)?;
        }
        Ok(true)
    }

    /// Reads what is wanted of a pack, near pieces together.
    fn in_pieces(&self, need: &Need, id: PackId, blobs: &[IndexBlob], buffers: &mut Buffers) -> Result<()> {
        let source = &self.ends.source;
        let mut wanted = self.wanted_of(id, blobs);
        if wanted.len() != need.blobs as usize {
            lock(&self.headless).push(*need);
            return Ok(());
        }
        wanted.sort_unstable_by_key(|blob| blob.offset);
        let gap = source.store.capabilities().coalesce_gap_bytes;
        let key = StoreKey::new(ObjectKind::Pack, id);
        let mut rest = &wanted[..];
        while let Some(first) = rest.first() {
            self.monitor.check_cancelled()?;
            let start = u64::from(first.offset);
            let mut end = first.end();
            let mut count = 1;
            while let Some(next) = rest.get(count)
                && u64::from(next.offset) >= end
                && u64::from(next.offset) <= end + gap
                && next.end() - start <= RANGE_BYTES
            {
                end = next.end();
                count += 1;
            }
            let (some, others) = rest.split_at(count);
            rest = others;
            let read = source.store.get_range(&key, start, (end - start) as usize, &mut buffers.bytes);
            let is_read = match read {
                Ok(()) => true,
                // A pack cut short spoils only what is beyond the cut: each is tried alone.
                Err(error) if is_loss(&error) => false,
                Err(error) => return Err(error.context(format!("read pack {id}"))),
            };
            for blob in some {
                if is_read {
                    let at = (u64::from(blob.offset) - start) as usize;
                    let bytes = &mut buffers.bytes[at..at + blob.length as usize];
                    self.one(blob, Ok(bytes), &mut buffers.envelope, &mut buffers.plain)?;
                } else {
                    let mut alone = Vec::new();
                    let read = source
                        .store
                        .get_range(&key, start_of(blob), blob.length as usize, &mut alone)
                        .map_err(pack_is_gone)
                        .with_context(|| format!("read pack {id}"));
                    let read = read.map(|()| &mut alone[..]);
                    self.one(blob, read, &mut buffers.envelope, &mut buffers.plain)?;
                }
            }
        }
        Ok(())
    }

    /// Packs that are gone, or whose own list is damaged: what they hold is told by the index files.
    fn by_index_files(&self, headless: Vec<Need>) -> Result<()> {
        if headless.is_empty() {
            return Ok(());
        }
        let source = &self.ends.source_repository;
        let mut left: HashMap<PackId, Need> =
            headless.into_iter().map(|need| (source_pack(self.ends, need.pack), need)).collect();
        let mut buffers = Buffers::default();
        for (id, _) in source.store.list(ObjectKind::Index)? {
            if left.is_empty() {
                return Ok(());
            }
            let json = match source.get_unpacked(ObjectKind::Index, id) {
                Ok(json) => json,
                Err(error) if is_loss(&error) => continue,
                Err(error) => return Err(error),
            };
            let mut found = Vec::new();
            // What is damaged in it tells nothing, and what it told until then is right: names are hashes.
            let _ = decode_index(&json, |pack, blobs| {
                found.extend(left.remove(&pack).map(|_| (pack, blobs.to_vec())));
                Ok(())
            });
            for (pack, blobs) in found {
                let wanted = self.wanted_of(pack, &blobs).len() as u32;
                self.in_pieces(&Need { blobs: wanted, ..Need::default() }, pack, &blobs, &mut buffers)?;
            }
        }
        Ok(())
    }

    /// Those blobs of a pack that the target lacks and that are to be taken from here.
    fn wanted_of(&self, pack: PackId, blobs: &[IndexBlob]) -> Vec<IndexBlob> {
        let Ends { source, target, .. } = self.ends;
        let is_wanted = |blob: &&IndexBlob| {
            let name = BlobRef { kind: blob.kind, id: blob.id };
            target.index.is_claimed(name)
                && source.index.find(name).is_some_and(|at| {
                    (at.offset, at.length) == (blob.offset, blob.length) && source.index.pack(at.pack) == pack
                })
        };
        blobs.iter().filter(is_wanted).copied().collect()
    }

    /// Verifies one blob and hands it to the packer. When what was read is not it, its other places are tried.
    fn one(
        &self,
        blob: &IndexBlob,
        read: Result<&mut [u8]>,
        envelope: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<()> {
        let name = BlobRef { kind: blob.kind, id: blob.id };
        let location = Location {
            pack: 0,
            offset: blob.offset,
            length: blob.length,
            raw_length: blob.uncompressed.map_or(0, NonZeroU32::get),
        };
        let outcome = read.and_then(|bytes| {
            envelope.clear();
            envelope.extend_from_slice(bytes);
            self.ends.source.open(&name, &location, envelope, plain)?;
            Ok(bytes)
        });
        match outcome {
            Ok(sealed) => self.append(&name, &location, sealed, envelope, plain)?,
            Err(error) if is_loss(&error) => match self.take_spare(&name, envelope, plain)? {
                Some((location, sealed)) => self.append(&name, &location, &sealed, envelope, plain)?,
                None => {
                    let what = format!("{} {} cannot be read", noun(name.kind), name.id.short());
                    lock(&self.lost).insert(name, error.context(what).chain());
                    advance(self.monitor, u64::from(blob.length));
                    return Ok(());
                }
            },
            Err(error) => return Err(error),
        }
        self.count(1, u64::from(blob.length));
        Ok(())
    }

    /// A blob at another place than the first, verified: where it is and its sealed bytes there.
    fn take_spare(
        &self,
        name: &BlobRef,
        envelope: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Option<(Location, Vec<u8>)>> {
        let source = &self.ends.source;
        for location in source.index.spares(*name) {
            let key = StoreKey::new(ObjectKind::Pack, source.index.pack(location.pack));
            let read = source.store.get_range(&key, u64::from(location.offset), location.length as usize, envelope);
            let opened = read.and_then(|()| {
                let sealed = envelope.clone();
                source.open(name, &location, envelope, plain)?;
                Ok(sealed)
            });
            match opened {
                Ok(sealed) => return Ok(Some((location, sealed))),
                Err(error) if is_loss(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// `sealed` is what the source has; `opened` the same with its content in clear, still compressed, between IV and tag.
    fn append(
        &self,
        name: &BlobRef,
        location: &Location,
        sealed: &[u8],
        opened: &mut [u8],
        plain: &[u8],
    ) -> Result<()> {
        if self.same_key {
            return self.packer.append(name.kind, name.id, sealed, location.raw_length);
        }
        self.ends.target.sealer.seal_slice(opened)?;
        if self.blobs.load(Relaxed).is_multiple_of(SELF_CHECK_EVERY) {
            self.ends.target.self_check(opened, location.raw_length, plain)?;
        }
        self.packer.append(name.kind, name.id, opened, location.raw_length)
    }

    fn count(&self, blobs: u64, bytes: u64) {
        self.blobs.fetch_add(blobs, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.monitor.add(|c| &c.bytes_stored, bytes);
        advance(self.monitor, bytes);
    }
}

fn start_of(blob: &IndexBlob) -> u64 {
    u64::from(blob.offset)
}

fn source_pack(ends: &Ends, ordinal: u32) -> PackId {
    ends.source.index.pack(ordinal)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
