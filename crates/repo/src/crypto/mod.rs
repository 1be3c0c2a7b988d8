//! Keys and sealed envelopes, as restic's format fixes them: AES-256-CTR with Poly1305-AES over the ciphertext.
//!
//! Plaintext leaves this module only after its tag was found right. Key bytes are wiped when dropped.

mod envelope;
mod password;

pub use envelope::{ENVELOPE_OVERHEAD, IV_BYTES, MasterKey, Sealer};
pub use password::{KdfCost, Password, WRONG_KEY_HINT};

use lastgood_model::{Error, ErrorKind, Result};

/// Fills `out` with cryptographically strong random bytes.
///
/// # Errors
/// [`ErrorKind::Bug`] when the operating system has no randomness to give.
pub fn random(out: &mut [u8]) -> Result<()> {
    aws_lc_rs::rand::fill(out).map_err(|_| Error::new(ErrorKind::Bug, "draw random bytes"))
}
