//! SHA-256, the name of every object in a repository.
//!
//! One message at a time goes through aws-lc, which is at the processor's limit for a single chain of blocks. That
//! limit is waiting: each round needs the one before. [`sha256_many`] runs several messages through the same unit side
//! by side where the processor has SHA instructions, and does one after the other elsewhere.

#[cfg(target_arch = "x86_64")]
mod lanes;

use aws_lc_rs::digest;

/// SHA-256 of `data`.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    bytes(&digest::digest(&digest::SHA256, data))
}

/// SHA-256 of each message. With four or more of them at hand nearly twice as fast as one after the other where the
/// processor has SHA instructions; the order and lengths do not matter, but with fewer than four left to do, the gain
/// shrinks.
pub fn sha256_many(messages: &[&[u8]]) -> Vec<[u8; 32]> {
    let mut out = vec![[0; 32]; messages.len()];
    #[cfg(target_arch = "x86_64")]
    if messages.len() > 1 && lanes::digests(messages, &mut out) {
        return out;
    }
    for (digest, message) in out.iter_mut().zip(messages) {
        *digest = sha256(message);
    }
    out
}

/// SHA-256 of `a` and of `b`, half as fast again as one after the other where the processor has SHA instructions.
pub fn sha256_pair(a: &[u8], b: &[u8]) -> ([u8; 32], [u8; 32]) {
    #[cfg(target_arch = "x86_64")]
    {
        let mut out = [[0; 32]; 2];
        if lanes::digests(&[a, b], &mut out) {
            return out.into();
        }
    }
    (sha256(a), sha256(b))
}

/// SHA-256 of bytes that come in pieces.
#[derive(Clone)]
pub struct Sha256(digest::Context);

impl Sha256 {
    /// Of no bytes yet.
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Appends `data`.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest of all that was appended.
    pub fn finish(self) -> [u8; 32] {
        bytes(&self.0.finish())
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl std::io::Write for Sha256 {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn bytes(digest: &digest::Digest) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::Digest;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = length as u64;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(length)
        .collect()
    }

    fn oracle(data: &[u8]) -> [u8; 32] {
        sha2::Sha256::digest(data).into()
    }

    fn hex(digest: [u8; 32]) -> String {
        lastgood_model::Id(digest).to_string()
    }

    #[test]
    fn the_examples_of_the_standard_hold_in_every_way() {
        for (message, expected) in [
            (&b""[..], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
        ] {
            let mut stream = Sha256::new();
            for byte in message {
                stream.update(std::slice::from_ref(byte));
            }
            let (a, b) = sha256_pair(message, message);
            for digest in [sha256(message), stream.finish(), a, b, sha256_many(&[message; 5])[4]] {
                assert_eq!(hex(digest), expected);
            }
        }
    }

    #[test]
    fn all_short_lengths_agree_with_another_implementation() {
        let data = noise(301);
        for length in 0..=300 {
            // At an odd address, beside a message of another length.
            let (a, b) = (&data[1..=length], &data[..300 - length]);
            assert_eq!(sha256_pair(a, b), (oracle(a), oracle(b)), "{length}");
            assert_eq!(sha256(a), oracle(a), "{length}");
        }
    }

    #[test]
    fn any_number_of_messages_is_hashed_each_in_its_place() {
        let data = noise(5000);
        for count in 0..=13 {
            let messages: Vec<&[u8]> = (0..count).map(|i| &data[i..i * 379 % 4987 + i]).collect();
            let expected: Vec<_> = messages.iter().map(|message| oracle(message)).collect();
            assert_eq!(sha256_many(&messages), expected, "{count}");
        }
    }

    #[test]
    fn megabytes_agree_with_another_implementation() {
        let data = noise(5_000_001);
        let (a, b) = data.split_at(3_000_000);
        assert_eq!(sha256_pair(a, b), (oracle(a), oracle(b)));
        assert_eq!(sha256_many(&[a, b, &data, &a[17..]]), [a, b, &data, &a[17..]].map(oracle));
    }

    proptest! {
        #[test]
        fn lanes_agree_with_another_implementation(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..12)) {
            let borrowed: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
            let expected: Vec<_> = borrowed.iter().map(|message| oracle(message)).collect();
            prop_assert_eq!(sha256_many(&borrowed), expected);
        }
    }
}
