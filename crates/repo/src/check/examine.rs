//! One pack, byte by byte: its name, its header, and every blob in it.
//!
//! This is the inner loop of a verification. A pack is read once into a buffer that is kept, and opened in place.
//! Blobs are decompressed a few at a time into a second buffer and hashed side by side, which is nearly twice as fast as
//! one after the other; few enough that they are still in the core's cache when they are hashed.

use super::findings::{Fault, fault_of};
use super::packs::{Pack, layout_hash, shown};
use super::report::DamageKind;
use super::run::Run;
use crate::format::pack::{LENGTH_BYTES, locate_header, parse_header};
use crate::format::{BlobKind, IndexBlob};
use crate::read::{BLOB_BYTES_MAX, decompress, decompress_into};
use crate::sha256::{sha256, sha256_many};
use lastgood_model::{Error, Result};
use std::sync::atomic::Ordering::Relaxed;

/// Blobs are opened in groups of at least so many,
const GROUP_BLOBS: usize = 4;
/// or of more while they are small, up to this many bytes of plaintext.
const GROUP_BYTES: usize = 512 << 10;
/// No group is longer, but for a single blob that is.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// What to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Trees only.
    Trees,
    /// Everything.
    All,
}

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Buffers {
    pack: Vec<u8>,
    header: Vec<u8>,
    plain: Vec<u8>,
    scratch: Vec<u8>,
}

/// What one look at a pack found.
#[derive(Debug, Default)]
pub(super) struct Examined {
    /// What is wrong with the pack, worst first.
    pub(super) faults: Vec<Fault>,
    /// Blobs that cannot be read, with the reason.
    pub(super) lost: Vec<(IndexBlob, Fault)>,
    /// Nothing of it could be read.
    pub(super) all_lost: bool,
    /// Its own header does not say what the index says: what the index says must be tried too.
    pub(super) needs_index: bool,
    /// Every byte was looked at.
    pub(super) in_full: bool,
    /// Blobs that were opened, lost ones included.
    pub(super) blobs: u64,
    /// Plaintext bytes of those that are sound.
    pub(super) bytes_plain: u64,
}

impl Examined {
    fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
        self.faults.sort_by_key(|f| f.what);
    }
}

/// Takes in the plaintext of a tree that is what its name says.
pub(super) type OnTree<'a> = &'a mut dyn FnMut(&IndexBlob, &[u8]);

impl Run<'_> {
    /// Looks at a pack whose size is right, by its own header.
    pub(super) fn examine(
        &self,
        pack: &Pack,
        depth: Depth,
        buffers: &mut Buffers,
        on_tree: OnTree<'_>,
    ) -> Result<Examined> {
        let mut examined = Examined::default();
        if let Err(error) = self.read_pack(pack, buffers) {
            examined.all_lost = true;
            examined.fault(fault_of(error)?);
            return Ok(examined);
        }
        if sha256(&buffers.pack) != pack.id.0.0 {
            examined.fault(wrong_hash());
        }
        let blobs = match self.open_header(buffers) {
            Ok(blobs) => blobs,
            Err(error) => {
                examined.fault(Fault::new(DamageKind::BadHeader, format!("its own list of blobs: {}", error.chain())));
                examined.needs_index = true;
                return Ok(examined);
            }
        };
        if layout_hash(&mut blobs.clone(), &mut buffers.scratch) != pack.layout {
            let message = "its own list of blobs and the index tell different things";
            examined.fault(Fault::new(DamageKind::IndexMismatch, message));
            examined.needs_index = true;
            return Ok(examined);
        }
        examined.in_full = depth == Depth::All || blobs.iter().all(|blob| blob.kind == BlobKind::Tree);
        self.open_blobs(&blobs, depth, buffers, &mut examined, on_tree);
        Ok(examined)
    }

    /// Looks at a pack whose own header is of no use, by what the index says is in it.
    pub(super) fn examine_by_index(
        &self,
        pack: &Pack,
        blobs: &[IndexBlob],
        buffers: &mut Buffers,
        on_tree: OnTree<'_>,
    ) -> Result<Examined> {
        let mut examined = Examined { in_full: true, ..Examined::default() };
        if let Err(error) = self.read_pack(pack, buffers) {
            examined.all_lost = true;
            examined.fault(fault_of(error)?);
            return Ok(examined);
        }
        let stored = buffers.pack.len() as u64;
        if stored != pack.bytes_due {
            let what = if stored < pack.bytes_due { DamageKind::Truncated } else { DamageKind::TooLong };
            examined.fault(Fault::new(what, format!("it has {stored} bytes where {} are due", pack.bytes_due)));
        } else if sha256(&buffers.pack) != pack.id.0.0 {
            examined.fault(wrong_hash());
        }
        match self.open_header(buffers) {
            Err(error) => {
                examined.fault(Fault::new(DamageKind::BadHeader, format!("its own list of blobs: {}", error.chain())));
            }
            Ok(mut header) => {
                if layout_hash(&mut header, &mut buffers.scratch) != pack.layout {
                    let message = "its own list of blobs and the index tell different things";
                    examined.fault(Fault::new(DamageKind::IndexMismatch, message));
                }
            }
        }
        for blob in blobs {
            examined.blobs += 1;
            match self.open_copy(blob, buffers) {
                Ok(()) => {
                    examined.bytes_plain += buffers.plain.len() as u64;
                    if blob.kind == BlobKind::Tree {
                        on_tree(blob, &buffers.plain);
                    }
                }
                Err(fault) => examined.lost.push((*blob, fault)),
            }
        }
        Ok(examined)
    }

    fn read_pack(&self, pack: &Pack, buffers: &mut Buffers) -> Result<()> {
        let stored = pack.bytes_stored.unwrap_or(0);
        let length = usize::try_from(stored).map_err(|_| Error::corrupt("it is longer than memory can be"))?;
        // Taken for damage before anything is read: no pack is as long, and no memory is asked for on its word.
        if stored > u64::from(u32::MAX) {
            return Err(Error::corrupt(format!("it has {stored} bytes, more than any pack")));
        }
        self.store().get_range(&pack.key(), 0, length, &mut buffers.pack)?;
        self.bytes_read.fetch_add(stored, Relaxed);
        Ok(())
    }

    fn open_header(&self, buffers: &mut Buffers) -> Result<Vec<IndexBlob>> {
        let size = buffers.pack.len() as u64;
        let trailer: &[u8; LENGTH_BYTES] =
            buffers.pack.last_chunk().ok_or_else(|| Error::corrupt(format!("a pack of {size} bytes is none")))?;
        let (offset, length) = locate_header(size, *trailer)?;
        buffers.header.clear();
        buffers.header.extend_from_slice(&buffers.pack[offset as usize..][..length as usize]);
        parse_header(self.repository.sealer.open_in_place(&mut buffers.header)?, size)
    }

    /// Opens blobs that lie back to back from the front, as a header's do.
    fn open_blobs(
        &self,
        blobs: &[IndexBlob],
        depth: Depth,
        buffers: &mut Buffers,
        examined: &mut Examined,
        on_tree: OnTree<'_>,
    ) {
        let mut sealed = &mut buffers.pack[..];
        let mut rest = blobs;
        while !rest.is_empty() {
            let (count, room) = group(rest);
            let group;
            (group, rest) = rest.split_at(count);
            if buffers.plain.len() < room {
                buffers.plain.resize(room, 0);
            }
            let mut room = &mut buffers.plain[..];
            let mut messages: Vec<&[u8]> = Vec::with_capacity(count);
            let mut opened: Vec<&IndexBlob> = Vec::with_capacity(count);
            for blob in group {
                let Some(envelope) = sealed.split_off_mut(..blob.length as usize) else { return };
                if depth == Depth::Trees && blob.kind != BlobKind::Tree {
                    continue;
                }
                examined.blobs += 1;
                match self.open_one(blob, envelope, &mut room) {
                    Ok(plain) => {
                        messages.push(plain);
                        opened.push(blob);
                    }
                    Err(fault) => examined.lost.push((*blob, fault)),
                }
            }
            for ((blob, plain), digest) in opened.iter().zip(&messages).zip(sha256_many(&messages)) {
                if digest != blob.id.0 {
                    examined.lost.push((**blob, other_content()));
                    continue;
                }
                examined.bytes_plain += plain.len() as u64;
                if blob.kind == BlobKind::Tree {
                    on_tree(blob, plain);
                }
            }
        }
    }

    fn open_one<'b>(
        &self,
        blob: &IndexBlob,
        envelope: &'b mut [u8],
        room: &mut &'b mut [u8],
    ) -> Result<&'b [u8], Fault> {
        let content = self.repository.sealer.open_in_place(envelope).map_err(wrong_tag)?;
        if blob.uncompressed.is_none() {
            return Ok(content);
        }
        let length = blob.plain_length() as usize;
        let slot = if length <= BLOB_BYTES_MAX { room.split_off_mut(..length) } else { None };
        let too_long = || Fault::new(DamageKind::BadContent, format!("it claims {length} bytes, more than any blob"));
        let slot = slot.ok_or_else(too_long)?;
        decompress_into(content, slot).map_err(bad_content)?;
        Ok(slot)
    }

    /// Opens a blob wherever it lies, leaving the pack's bytes as they are; its plaintext is then in `buffers.plain`.
    fn open_copy(&self, blob: &IndexBlob, buffers: &mut Buffers) -> Result<(), Fault> {
        let range = blob.offset as usize..blob.end() as usize;
        let beyond = || Fault::new(DamageKind::Truncated, "it lies behind the end of the pack");
        let stored = buffers.pack.get(range).ok_or_else(beyond)?;
        buffers.scratch.clear();
        buffers.scratch.extend_from_slice(stored);
        let content = self.repository.sealer.open_in_place(&mut buffers.scratch).map_err(wrong_tag)?;
        buffers.plain.clear();
        if blob.uncompressed.is_some() {
            decompress(content, blob.plain_length() as usize, &mut buffers.plain).map_err(bad_content)?;
        } else {
            buffers.plain.extend_from_slice(content);
        }
        if sha256(&buffers.plain) != blob.id.0 {
            return Err(other_content());
        }
        Ok(())
    }
}

fn wrong_tag(error: Error) -> Fault {
    Fault::new(DamageKind::WrongTag, error.chain())
}

fn bad_content(error: Error) -> Fault {
    Fault::new(DamageKind::BadContent, error.chain())
}

fn other_content() -> Fault {
    Fault::new(DamageKind::BadContent, "what is in it is not what its name says")
}

fn wrong_hash() -> Fault {
    Fault::new(DamageKind::WrongHash, "its bytes are not those that its name is the hash of")
}

/// How many of the next blobs to open together, and how much room their decompression takes.
fn group(blobs: &[IndexBlob]) -> (usize, usize) {
    let (mut count, mut bytes, mut room) = (0, 0, 0);
    for blob in blobs {
        let plain = blob.plain_length() as usize;
        let enough = count >= GROUP_BLOBS && bytes + plain > GROUP_BYTES;
        if count > 0 && (enough || bytes + plain > GROUP_BYTES_MAX) {
            break;
        }
        count += 1;
        bytes += plain;
        room += if blob.uncompressed.is_some() && plain <= BLOB_BYTES_MAX { plain } else { 0 };
    }
    (count, room)
}

/// The lost blobs of a pack in a sentence.
pub(super) fn tell_lost(lost: &[(IndexBlob, Fault)], of: u32) -> String {
    match lost {
        [] => format!("all {of} blobs in it are intact"),
        [(blob, why), ..] => format!(
            "{} of {of} blobs in it cannot be read; the first is {} at byte {}: {}",
            lost.len(),
            shown(blob.kind, &blob.id),
            blob.offset,
            why.message
        ),
    }
}
