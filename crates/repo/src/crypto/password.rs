//! Passwords and what they cost to try.
//!
//! A repository's key objects must use scrypt; any other function stops restic's own key search. What varies is the
//! cost: a password a person chose gets a costly setting, a generated key of 256 random bits needs none, so that every
//! run opens in a few milliseconds.

use super::random;
use lastgood_model::{Error, ErrorKind, Result};
use scrypt::Params;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What to tell a person whose key opens nothing.
pub const WRONG_KEY_HINT: &str =
    "check that this is the key file made for this repository; without the right key the data cannot be read by anyone";

const PREFIX: &str = "lg1-";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const SECRET_CHARS: usize = 52;
const CHECK_CHARS: usize = 4;

/// The secret that opens a repository: one line of text.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(secret)")
    }
}

/// scrypt's parameters: `N = 2^log_n`, `r`, `p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfCost {
    /// Binary logarithm of N.
    pub log_n: u8,
    /// Block size.
    pub r: u32,
    /// Parallelism.
    pub p: u32,
}

impl KdfCost {
    /// For a password a person chose: what restic calibrates to on a machine of 2026, about half a second.
    pub const COSTLY: Self = Self { log_n: 15, r: 8, p: 6 };
    /// For a generated key: stretching 256 random bits gains nothing.
    pub const FAST: Self = Self { log_n: 10, r: 8, p: 1 };
    /// Memory that opening a key may take, in bytes; a hostile key file could otherwise ask for all there is.
    pub const MEMORY_BYTES_MAX: u64 = 1 << 30;
}

impl Password {
    /// The password in `text`: its first line, without the line end. An empty one is refused.
    pub fn new(text: &str) -> Result<Self> {
        let line = text.split(['\n', '\r']).next().unwrap_or_default();
        if line.is_empty() {
            return Err(
                Error::invalid("the repository key is empty").with_hint("`lastgood key generate FILE` makes one")
            );
        }
        let password = Self(line.to_owned());
        if line.starts_with(PREFIX) && !password.is_generated() {
            return Err(Error::invalid("the repository key has a typing error: its check digits do not fit")
                .with_hint("a generated key has the form lg1-<52 characters>-<4 characters>; copy it again"));
        }
        Ok(password)
    }

    /// A new random key of 256 bits: `lg1-`, 52 characters of base32, and 4 check characters against typing errors.
    pub fn generate() -> Result<Self> {
        let mut secret = Zeroizing::new([0u8; 32]);
        random(&mut secret[..])?;
        let body = base32(&secret[..], SECRET_CHARS);
        let check = check_chars(&body);
        Ok(Self(format!("{PREFIX}{}-{check}", *body)))
    }

    /// The text, to be written to a key file or handed to scrypt; never to a log.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// True for a key made by [`Password::generate`].
    pub fn is_generated(&self) -> bool {
        let Some((body, check)) = self.0.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')) else {
            return false;
        };
        body.len() == SECRET_CHARS && body.bytes().all(|b| ALPHABET.contains(&b)) && check == check_chars(body)
    }

    /// The cost that fits this password's strength.
    pub fn cost(&self) -> KdfCost {
        if self.is_generated() { KdfCost::FAST } else { KdfCost::COSTLY }
    }

    /// Derives 64 bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for parameters that are invalid or beyond [`KdfCost::MEMORY_BYTES_MAX`].
    pub fn derive(&self, cost: KdfCost, salt: &[u8]) -> Result<Zeroizing<[u8; 64]>> {
        let refuse = || Error::corrupt(format!("scrypt parameters log2(N)={}, r={}, p={}", cost.log_n, cost.r, cost.p));
        let memory = 128u64.checked_mul(u64::from(cost.r)).and_then(|b| b.checked_shl(u32::from(cost.log_n)));
        if cost.log_n == 0
            || cost.log_n > 40
            || cost.p > 64
            || memory.is_none_or(|bytes| bytes > KdfCost::MEMORY_BYTES_MAX)
        {
            return Err(refuse());
        }
        let params = Params::new(cost.log_n, cost.r, cost.p).map_err(|_| refuse())?;
        let mut derived = Zeroizing::new([0u8; 64]);
        scrypt::scrypt(self.0.as_bytes(), salt, &params, &mut derived[..])
            .map_err(|_| Error::new(ErrorKind::Bug, "derive key"))?;
        Ok(derived)
    }
}

fn base32(bytes: &[u8], chars: usize) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(chars));
    for i in 0..chars {
        let mut value = 0;
        for bit in i * 5..i * 5 + 5 {
            let set = bytes.get(bit / 8).is_some_and(|b| b >> (7 - bit % 8) & 1 == 1);
            value = value << 1 | usize::from(set);
        }
        text.push(char::from(ALPHABET[value]));
    }
    text
}

fn check_chars(body: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("{PREFIX}{body}").as_bytes());
    base32(digest.as_ref(), CHECK_CHARS).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_recognised_and_a_typing_error_in_it_is_told() {
        let key = Password::generate().unwrap();
        assert!(key.is_generated());
        assert_eq!(key.cost(), KdfCost::FAST);
        assert_eq!(Password::new(&format!("{}\n", key.reveal())).unwrap(), key);
        let mut typo = key.reveal().to_owned().into_bytes();
        typo[20] = if typo[20] == b'a' { b'b' } else { b'a' };
        assert_eq!(Password::new(std::str::from_utf8(&typo).unwrap()).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn a_chosen_password_costs_more_and_an_empty_one_is_refused() {
        assert_eq!(Password::new("correct horse").unwrap().cost(), KdfCost::COSTLY);
        assert!(Password::new("\n").is_err());
    }

    #[test]
    fn hostile_parameters_are_refused_before_memory_is_taken() {
        let password = Password::new("x").unwrap();
        for (log_n, r, p) in
            [(0, 8, 1), (30, 8, 1), (63, 8, 1), (40, 1, 1), (10, u32::MAX, 1), (10, 8, u32::MAX), (255, 8, 1)]
        {
            assert_eq!(password.derive(KdfCost { log_n, r, p }, &[0; 64]).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}
