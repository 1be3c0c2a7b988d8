//! From plaintext to a sealed envelope: probe, compress, seal, in buffers that each worker keeps.

use crate::crypto::{ENVELOPE_OVERHEAD, IV_BYTES, Sealer};
use crate::index::BlobKind;
use lastgood_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use zstd::zstd_safe::{self, CCtx, CParameter};

/// How hard to compress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// zstd level 1.
    Fast,
    /// zstd level 3 for what is small, 2 for long chunks: about restic's size at the speed of `zstd -3`.
    #[default]
    Balanced,
    /// zstd level 15.
    Max,
    /// Not at all, but for directories.
    Off,
}

/// What a sample of a chunk says of the rest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// Text, code, pages: worth the usual effort.
    Good,
    /// Images, archives, ciphertext: a quick try may still find a few percent.
    Poor,
}

impl Compression {
    /// The zstd level for a blob, `None` for none at all.
    ///
    /// Measured over 550 MB of `/usr`: on chunks of 100 KB and more level 3 takes 1.3 times as long as level 2 and saves
    /// 2.4 %; on shorter ones it costs 13 % more time and saves 1.7 %. On chunks that hardly compress, level 1 finds all
    /// but half a percent of what level 3 finds, in a quarter of the time.
    fn level(self, kind: BlobKind, length: usize, promise: Promise) -> Option<i32> {
        match (self, kind) {
            (Self::Off, BlobKind::Data) => None,
            (Self::Max, _) => Some(15),
            (Self::Fast, BlobKind::Data) => Some(1),
            _ if promise == Promise::Poor => Some(1),
            (Self::Balanced, BlobKind::Data) if length >= LONG_BYTES => Some(2),
            _ => Some(3),
        }
    }
}

/// From here on a chunk is long, and level 2 the better bargain.
const LONG_BYTES: usize = 100_000;
/// Shorter than this, a zstd frame saves nothing worth a frame header.
const COMPRESS_MIN_BYTES: usize = 24;
/// From this length on, a sample decides whether to try at all.
const PROBE_MIN_BYTES: usize = 32 << 10;
const PROBE_PIECE_BYTES: usize = 4 << 10;

/// Buffers and the compression context of one worker.
pub(crate) struct Scratch {
    context: CCtx<'static>,
    level: i32,
    sealed: Vec<u8>,
    /// Contents of small files at hand.
    pub(crate) files: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { context: CCtx::create(), level: i32::MIN, sealed: Vec::new(), files: Vec::new() }
    }

    /// The sealed envelope of `plain`, and its raw length when it was compressed, else 0.
    pub(crate) fn seal(
        &mut self,
        plain: &[u8],
        compression: Compression,
        kind: BlobKind,
        sealer: &Sealer,
    ) -> Result<(&[u8], u32)> {
        let raw_length = u32::try_from(plain.len())
            .ok()
            .filter(|n| *n < u32::MAX - (1 << 20))
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, "blob of 4 GiB or more"))?;
        let room = zstd_safe::compress_bound(plain.len()).max(plain.len()) + ENVELOPE_OVERHEAD;
        if self.sealed.len() < room {
            self.sealed.resize(room, 0);
        }
        let mut compressed = None;
        if plain.len() >= COMPRESS_MIN_BYTES && compression.level(kind, 0, Promise::Good).is_some() {
            let promise = if plain.len() < PROBE_MIN_BYTES { Promise::Good } else { self.probe(plain)? };
            if let Some(level) = compression.level(kind, plain.len(), promise) {
                let length = self.compress(plain, level)?;
                // A frame that saves less than a percent costs more at restore than it saves in the store.
                compressed = (length < plain.len() - plain.len() / 128).then_some(length);
            }
        }
        let (length, raw_length) = match compressed {
            Some(length) => (length, raw_length),
            None => {
                self.sealed[IV_BYTES..IV_BYTES + plain.len()].copy_from_slice(plain);
                (plain.len(), 0)
            }
        };
        let envelope = &mut self.sealed[..length + ENVELOPE_OVERHEAD];
        sealer.seal_slice(envelope)?;
        Ok((envelope, raw_length))
    }

    fn compress(&mut self, plain: &[u8], level: i32) -> Result<usize> {
        let bug = |code| Error::new(ErrorKind::Bug, format!("compress: {}", zstd_safe::get_error_name(code)));
        if self.level != level {
            self.context.set_parameter(CParameter::CompressionLevel(level)).map_err(bug)?;
            self.level = level;
        }
        self.context.compress2(&mut self.sealed[IV_BYTES..], plain).map_err(bug)
    }

    /// Compresses three pieces at a fast setting.
    fn probe(&mut self, plain: &[u8]) -> Result<Promise> {
        let step = (plain.len() - PROBE_PIECE_BYTES) / 2;
        for at in [0, step, step * 2] {
            let length = self.compress(&plain[at..at + PROBE_PIECE_BYTES], 1)?;
            if length < PROBE_PIECE_BYTES - PROBE_PIECE_BYTES / 8 {
                return Ok(Promise::Good);
            }
        }
        Ok(Promise::Poor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::MasterKey;
    use crate::read::decompress;
    use lastgood_testkit::rng::Rng;

    const ALL: [Compression; 4] = [Compression::Fast, Compression::Balanced, Compression::Max, Compression::Off];

    #[test]
    fn what_was_sealed_opens_to_what_it_was_at_every_length_and_level() {
        let sealer = Sealer::new(&MasterKey::generate().unwrap()).unwrap();
        let mut scratch = Scratch::new();
        let mut rng = Rng::new(1);
        let lengths =
            [0, 1, 23, 24, 25, 4096, PROBE_MIN_BYTES - 1, PROBE_MIN_BYTES, LONG_BYTES - 1, LONG_BYTES, 900_000];
        for length in lengths {
            for plain in [vec![0; length], rng.text(length), rng.bytes(length)] {
                for compression in ALL {
                    for kind in [BlobKind::Data, BlobKind::Tree] {
                        let (sealed, raw_length) = scratch.seal(&plain, compression, kind, &sealer).unwrap();
                        assert!(sealed.len() <= plain.len() + ENVELOPE_OVERHEAD, "it grew");
                        let mut copy = sealed.to_vec();
                        let content = sealer.open_in_place(&mut copy).unwrap();
                        if raw_length == 0 {
                            assert_eq!(*content, plain);
                        } else {
                            assert_eq!(raw_length as usize, plain.len());
                            assert!(kind == BlobKind::Tree || compression != Compression::Off);
                            let mut back = Vec::new();
                            decompress(content, plain.len(), &mut back).unwrap();
                            assert!(back == plain, "{length} {compression:?} {kind:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn text_is_compressed_noise_is_not_and_noise_with_text_inside_is_tried() {
        let sealer = Sealer::new(&MasterKey::generate().unwrap()).unwrap();
        let mut scratch = Scratch::new();
        let mut rng = Rng::new(2);
        let mut is_compressed =
            |plain: &[u8]| scratch.seal(plain, Compression::Balanced, BlobKind::Data, &sealer).unwrap().1 != 0;
        assert!(is_compressed(&rng.text(500_000)));
        assert!(is_compressed(&rng.text(100)));
        assert!(!is_compressed(&rng.bytes(500_000)));
        assert!(!is_compressed(&rng.bytes(100)));
        let mut mixed = rng.bytes(500_000);
        mixed[..60_000].fill(b' ');
        assert!(is_compressed(&mixed), "a tenth that compresses is worth a frame");
    }
}
