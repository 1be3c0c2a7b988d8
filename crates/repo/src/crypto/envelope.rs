//! The envelope `IV(16) ‖ ciphertext ‖ tag(16)` (restic's design document, "Keys, Encryption and MAC").
//!
//! The IV is random and never all zero. The same 16 bytes are the counter block of AES-256-CTR and, encrypted under a
//! second key, the final addend of Poly1305 over the ciphertext. There is no associated data: what binds an envelope to
//! its place is that every object and blob is named by its own hash.

use super::random;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aws_lc_rs::cipher::{
    AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use lastgood_model::{Error, ErrorKind, Result};
use poly1305::Poly1305;
use std::cell::RefCell;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of the IV at the front of every envelope.
pub const IV_BYTES: usize = 16;
/// How much longer an envelope is than its plaintext.
pub const ENVELOPE_OVERHEAD: usize = 32;

/// The three secrets of a repository.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey {
    /// AES-256 key of the content.
    pub encrypt: [u8; 32],
    /// AES-128 key that turns the IV into Poly1305's addend.
    pub mac_k: [u8; 16],
    /// Poly1305's multiplier, unmasked; the algorithm itself clears the bits that must be zero.
    pub mac_r: [u8; 16],
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(secret)")
    }
}

impl MasterKey {
    /// A new random key.
    pub fn generate() -> Result<Self> {
        let mut key = Self { encrypt: [0; 32], mac_k: [0; 16], mac_r: [0; 16] };
        random(&mut key.encrypt)?;
        random(&mut key.mac_k)?;
        random(&mut key.mac_r)?;
        // Stored keys hold the multiplier as it is used (RFC 8439 §2.5: "clamped"); restic masks it when it makes one.
        for (byte, mask) in [(3, 15), (7, 15), (11, 15), (15, 15), (4, 252), (8, 252), (12, 252)] {
            key.mac_r[byte] &= mask;
        }
        Ok(key)
    }

    /// A key from 64 derived bytes: 32 for encryption, then `k`, then `r`.
    pub fn from_derived(bytes: &[u8; 64]) -> Self {
        let mut key = Self { encrypt: [0; 32], mac_k: [0; 16], mac_r: [0; 16] };
        key.encrypt.copy_from_slice(&bytes[..32]);
        key.mac_k.copy_from_slice(&bytes[32..48]);
        key.mac_r.copy_from_slice(&bytes[48..]);
        key
    }
}

/// A key made ready for use; shared by all threads.
pub struct Sealer {
    encrypting: EncryptingKey,
    decrypting: DecryptingKey,
    mac: aes::Aes128,
    mac_r: [u8; 16],
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(secret)")
    }
}

impl Sealer {
    /// Expands the key schedules.
    pub fn new(key: &MasterKey) -> Result<Self> {
        let bug = |_| Error::new(ErrorKind::Bug, "expand encryption key");
        let unbound = || UnboundCipherKey::new(&AES_256, &key.encrypt).map_err(bug);
        Ok(Self {
            encrypting: EncryptingKey::ctr(unbound()?).map_err(bug)?,
            decrypting: DecryptingKey::ctr(unbound()?).map_err(bug)?,
            mac: aes::Aes128::new(&key.mac_k.into()),
            mac_r: key.mac_r,
        })
    }

    /// Seals `buffer[start + IV_BYTES..]` in place: the `IV_BYTES` at `start` are overwritten with a fresh IV and the
    /// tag is appended. Keeping room for the IV in front spares copying the plaintext.
    pub fn seal_in_place(&self, buffer: &mut Vec<u8>, start: usize) -> Result<()> {
        buffer.resize(buffer.len() + ENVELOPE_OVERHEAD - IV_BYTES, 0);
        self.seal_slice(&mut buffer[start..])
    }

    /// Seals `envelope`, whose plaintext lies between room for the IV and room for the tag.
    pub fn seal_slice(&self, envelope: &mut [u8]) -> Result<()> {
        let iv = fresh_iv()?;
        let (head, rest) = envelope.split_at_mut(IV_BYTES);
        let (content, tail) = rest.split_at_mut(rest.len() - (ENVELOPE_OVERHEAD - IV_BYTES));
        head.copy_from_slice(&iv);
        self.encrypting
            .less_safe_encrypt(content, EncryptionContext::Iv128(FixedLength::from(iv)))
            .map_err(|_| Error::new(ErrorKind::Bug, "encrypt"))?;
        tail.copy_from_slice(&self.tag(&iv, content));
        Ok(())
    }

    /// Seals a copy of `plaintext`.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(plaintext.len() + ENVELOPE_OVERHEAD);
        buffer.resize(IV_BYTES, 0);
        buffer.extend_from_slice(plaintext);
        self.seal_in_place(&mut buffer, 0)?;
        Ok(buffer)
    }

    /// Opens an envelope in place and returns its plaintext.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it is too short or its tag is wrong; nothing was decrypted then.
    pub fn open_in_place<'a>(&self, envelope: &'a mut [u8]) -> Result<&'a mut [u8]> {
        if envelope.len() < ENVELOPE_OVERHEAD {
            return Err(Error::corrupt(format!("envelope of {} bytes is too short", envelope.len())));
        }
        let (iv, rest) = envelope.split_at_mut(IV_BYTES);
        let (ciphertext, tag) = rest.split_at_mut(rest.len() - 16);
        let iv: [u8; IV_BYTES] = (&*iv).try_into().map_err(|_| Error::corrupt("envelope IV"))?;
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.tag(&iv, ciphertext), tag)
            .map_err(|_| Error::corrupt("authentication tag is wrong: the bytes were changed or the key is another"))?;
        self.decrypting
            .decrypt(ciphertext, DecryptionContext::Iv128(FixedLength::from(iv)))
            .map_err(|_| Error::new(ErrorKind::Bug, "decrypt"))?;
        Ok(ciphertext)
    }

    /// Poly1305-AES of a ciphertext (D. J. Bernstein, "The Poly1305-AES message-authentication code").
    fn tag(&self, iv: &[u8; IV_BYTES], ciphertext: &[u8]) -> [u8; 16] {
        let mut addend = aes::Block::from(*iv);
        self.mac.encrypt_block(&mut addend);
        let mut key = poly1305::Key::default();
        key[..16].copy_from_slice(&self.mac_r);
        key[16..].copy_from_slice(&addend);
        Poly1305::new(&key).compute_unpadded(ciphertext).into()
    }
}

/// A random IV. Drawn from a per-thread block, since one system call for each blob would cost more than its seal.
fn fresh_iv() -> Result<[u8; IV_BYTES]> {
    const BLOCK: usize = 4096;
    thread_local! {
        static POOL: RefCell<(Box<[u8; BLOCK]>, usize)> = RefCell::new((Box::new([0; BLOCK]), BLOCK));
    }
    POOL.with_borrow_mut(|(block, used)| {
        loop {
            if *used == BLOCK {
                random(&mut block[..])?;
                *used = 0;
            }
            let slot = &mut block[*used..*used + IV_BYTES];
            let iv: [u8; IV_BYTES] = (&*slot).try_into().map_err(|_| Error::new(ErrorKind::Bug, "cut IV"))?;
            slot.fill(0);
            *used += IV_BYTES;
            if iv != [0; IV_BYTES] {
                return Ok(iv);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aes::cipher::{KeyIvInit, StreamCipher};

    fn sealer() -> (Sealer, MasterKey) {
        let mut derived = [0u8; 64];
        for (i, byte) in derived.iter_mut().enumerate() {
            *byte = i as u8;
        }
        let key = MasterKey::from_derived(&derived);
        (Sealer::new(&key).unwrap(), key)
    }

    #[test]
    fn every_length_opens_to_what_was_sealed_and_every_flipped_byte_is_noticed() {
        let (sealer, _) = sealer();
        for length in (0..70).chain([1000, 4096, 70_001]) {
            let plain: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            let sealed = sealer.seal(&plain).unwrap();
            assert_eq!(sealed.len(), plain.len() + ENVELOPE_OVERHEAD);
            assert_eq!(sealer.open_in_place(&mut sealed.clone()).unwrap(), &plain[..]);
            for position in (0..sealed.len()).step_by(1 + length / 50) {
                let mut bad = sealed.clone();
                bad[position] ^= 1;
                assert_eq!(sealer.open_in_place(&mut bad).unwrap_err().kind(), ErrorKind::Corrupt);
            }
            for cut in 0..sealed.len().min(40) {
                assert!(sealer.open_in_place(&mut sealed[..cut].to_vec()).is_err());
            }
        }
    }

    #[test]
    fn ciphertext_equals_an_independent_implementation() {
        let (sealer, key) = sealer();
        let plain = vec![0x5a; 5000];
        let sealed = sealer.seal(&plain).unwrap();
        let mut expected = plain.clone();
        let iv: [u8; 16] = sealed[..16].try_into().unwrap();
        ctr::Ctr128BE::<aes::Aes256>::new(&key.encrypt.into(), &iv.into()).apply_keystream(&mut expected);
        assert_eq!(&sealed[16..sealed.len() - 16], &expected[..]);
    }

    /// The test vectors of the Poly1305-AES paper, appendix B.
    #[test]
    fn tags_equal_the_vectors_of_the_paper() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
        };
        let cases = [
            (
                "f3f6",
                "851fc40c3467ac0be05cc20404f3f700",
                "ec074c835580741701425b623235add6",
                "fb447350c4e868c52ac3275cf9d4327e",
                "f4c633c3044fc145f84f335cb81953de",
            ),
            (
                "",
                "a0f3080000f46400d0c7e9076c834403",
                "75deaa25c09f208e1dc4ce6b5cad3fbf",
                "61ee09218d29b0aaed7e154a2c5509cc",
                "dd3fab2251f11ac759f0887129cc2ee7",
            ),
            (
                "663cea190ffb83d89593f3f476b6bc24d7e679107ea26adb8caf6652d0656136",
                "48443d0bb0d21109c89a100b5ce2c208",
                "6acb5f61a7176dd320c5c1eb2edcdc74",
                "ae212a55399729595dea458bc621ff0e",
                "0ee1c16bb73f0f4fd19881753c01cdbe",
            ),
        ];
        for (message, r, k, nonce, want) in cases {
            let key =
                MasterKey { encrypt: [0; 32], mac_k: hex(k).try_into().unwrap(), mac_r: hex(r).try_into().unwrap() };
            let tag = Sealer::new(&key).unwrap().tag(&hex(nonce).try_into().unwrap(), &hex(message));
            assert_eq!(tag.to_vec(), hex(want));
        }
    }

    #[test]
    fn ivs_do_not_repeat() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100_000 {
            assert!(seen.insert(fresh_iv().unwrap()));
        }
    }
}
