//! Runs of zeros: told fast, and named without hashing them again.

use crate::sha256::Sha256;
use lastgood_model::{BlobId, Id};
use std::sync::OnceLock;

/// Length of the chunks into which restic's chunker, and so ours for files, cuts a run of zeros: `restic restore
/// --sparse` recognises the blob of this many zeros by its id.
pub const ZERO_CHUNK_BYTES: usize = 512 * 1024;

/// Granularity of [`zero_blob_id`].
const STEP_BYTES: usize = 4096;

/// As many zeros as anybody needs at once.
pub(super) static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Whether `data` holds zero bytes only; true for no bytes. Ends early at the first block with another byte.
pub fn is_zero(data: &[u8]) -> bool {
    // Most data shows it at once.
    if data.first().is_some_and(|byte| *byte != 0) {
        return false;
    }
    let (blocks, rest) = data.as_chunks::<512>();
    blocks.iter().all(|block| all_zero(block)) && all_zero(rest)
}

/// Without an early end, so that the compiler makes vector code of it.
#[inline(always)]
fn all_zero(data: &[u8]) -> bool {
    data.iter().fold(0, |all, byte| all | byte) == 0
}

/// The id of the data blob of `length` zeros, for multiples of 4 KiB from 4 KiB up to [`ZERO_CHUNK_BYTES`]; `None` for
/// other lengths. The first call hashes 512 KiB, later ones look it up.
pub fn zero_blob_id(length: usize) -> Option<BlobId> {
    static IDS: OnceLock<Vec<BlobId>> = OnceLock::new();
    if length == 0 || !length.is_multiple_of(STEP_BYTES) {
        return None;
    }
    let ids = IDS.get_or_init(|| {
        let mut hash = Sha256::new();
        (0..ZERO_CHUNK_BYTES / STEP_BYTES)
            .map(|_| {
                hash.update(&ZEROS[..STEP_BYTES]);
                BlobId(Id(hash.clone().finish()))
            })
            .collect()
    });
    ids.get(length / STEP_BYTES - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha256::sha256;

    #[test]
    fn a_single_byte_anywhere_is_seen() {
        let mut data = vec![0; 2100];
        for start in 0..70 {
            assert!(is_zero(&data[start..]));
            assert!(is_zero(&data[..start]));
        }
        for at in 0..data.len() {
            data[at] = 1;
            assert!(!is_zero(&data), "{at}");
            data[at] = 0;
        }
    }

    #[test]
    fn zero_blobs_have_the_ids_of_their_bytes() {
        for length in [4096, 8192, 65536, 262_144, ZERO_CHUNK_BYTES] {
            assert_eq!(zero_blob_id(length), Some(BlobId(Id(sha256(&vec![0; length])))), "{length}");
        }
        for other in [0, 1, 4095, 4097, ZERO_CHUNK_BYTES + 4096] {
            assert_eq!(zero_blob_id(other), None, "{other}");
        }
    }

    #[test]
    fn the_long_zero_blob_is_the_one_restic_knows() {
        assert_eq!(
            zero_blob_id(ZERO_CHUNK_BYTES).unwrap().to_string(),
            "07854d2fef297a06ba81685e660c332de36d5d18d546927d30daad6d7fda1541"
        );
    }
}
