//! Polynomials over GF(2), as far as Rabin fingerprints need them.
//!
//! A polynomial is a bit pattern: bit *i* is the coefficient of *xⁱ*. Every restic repository carries one irreducible
//! polynomial of degree 53 in its config (`chunker_polynomial`, lower-case hex without prefix); it is secret, because
//! who knows it can tell from blob sizes alone which known files a repository holds.

use lastgood_model::{Error, ErrorKind, Result};
use std::fmt;
use std::str::FromStr;

/// How many candidates [`Polynomial::generate`] tries. One in about 27 is irreducible, so only a broken source of
/// randomness ever gets here.
const MAX_TRIES: u32 = 1_000_000;

/// A polynomial over GF(2) of degree at most 63.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Polynomial(pub u64);

impl Polynomial {
    /// The degree of every polynomial that restic and this engine generate: the greatest prime below 64 − 8, so that
    /// a digest with one more byte fits a word.
    pub const DEGREE: u32 = 53;

    /// A random irreducible polynomial of degree 53, found as restic finds it: eight little-endian bytes per try, cut
    /// to 53 bits, first and last coefficient set. Fails only when `random` keeps giving reducible candidates.
    pub fn generate(random: &mut dyn FnMut(&mut [u8])) -> Result<Self> {
        for _ in 0..MAX_TRIES {
            let mut bytes = [0; 8];
            random(&mut bytes);
            let low = u64::from_le_bytes(bytes) & ((1 << Self::DEGREE) - 1);
            let candidate = Self(low | 1 << Self::DEGREE | 1);
            if candidate.is_irreducible() {
                return Ok(candidate);
            }
        }
        Err(Error::new(ErrorKind::Bug, "the source of randomness gives no irreducible polynomial"))
    }

    /// The greatest exponent, `None` for the zero polynomial.
    pub fn degree(self) -> Option<u32> {
        self.0.checked_ilog2()
    }

    /// The remainder of division by `divisor`, which must not be zero.
    pub fn modulo(self, divisor: Self) -> Self {
        Self(remainder(self.0.into(), divisor.0))
    }

    /// `self · factor` reduced by `modulus`, which must not be zero.
    pub fn mul_mod(self, factor: Self, modulus: Self) -> Self {
        let mut product = 0_u128;
        let mut left = factor.0;
        while left != 0 {
            product ^= u128::from(self.0) << left.trailing_zeros();
            left &= left - 1;
        }
        Self(remainder(product, modulus.0))
    }

    /// The greatest common divisor.
    pub fn gcd(self, other: Self) -> Self {
        let (mut a, mut b) = (self, other);
        while b.0 != 0 {
            (a, b) = (b, a.modulo(b));
        }
        a
    }

    /// Whether it has no divisors but itself and one. Rabin's test: a polynomial *f* of degree *n* is irreducible
    /// exactly when *f* divides *x^(2ⁿ) − x* and is coprime to *x^(2^(n/q)) − x* for every prime divisor *q* of *n*.
    pub fn is_irreducible(self) -> bool {
        const X: Polynomial = Polynomial(2);
        let Some(degree @ 1..) = self.degree() else { return false };
        let mut power = X.modulo(self);
        for step in 1..=degree {
            // power = x^(2^step) mod self
            power = power.mul_mod(power, self);
            let difference = Self(power.0 ^ X.modulo(self).0);
            if step == degree {
                return difference.0 == 0;
            }
            if degree.is_multiple_of(step) && is_prime(degree / step) && self.gcd(difference).0 != 1 {
                return false;
            }
        }
        false
    }
}

/// Lower-case hex without prefix, as in restic's config.
impl fmt::Display for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

/// Keeps the secret out of logs.
impl fmt::Debug for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.degree() {
            Some(degree) => write!(f, "Polynomial(degree {degree})"),
            None => f.write_str("Polynomial(0)"),
        }
    }
}

/// Reads the hex form of restic's config and refuses, as restic does, what is not irreducible.
impl FromStr for Polynomial {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = plain.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(Self);
        match value {
            Some(polynomial) if polynomial.is_irreducible() => Ok(polynomial),
            Some(_) => Err(Error::corrupt("the chunker polynomial is not irreducible")),
            None => Err(Error::corrupt("the chunker polynomial is not a hex number of at most 64 bits")),
        }
    }
}

fn remainder(mut dividend: u128, divisor: u64) -> u64 {
    let degree = divisor.ilog2();
    while let Some(top) = dividend.checked_ilog2().filter(|top| *top >= degree) {
        dividend ^= u128::from(divisor) << (top - degree);
    }
    // Below the divisor's degree, thus below 64 bits.
    dividend as u64
}

fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From the test vectors published with restic's chunker.
    const KNOWN: u64 = 0x3d_a335_8b4d_c173;

    fn divides_something(value: u64) -> bool {
        (2..value)
            .filter(|d| Polynomial(*d).degree() < Polynomial(value).degree())
            .any(|divisor| remainder(value.into(), divisor) == 0)
    }

    #[test]
    fn the_irreducibility_test_agrees_with_trial_division() {
        assert!(!Polynomial(0).is_irreducible());
        assert!(!Polynomial(1).is_irreducible());
        for value in 2..2048 {
            assert_eq!(Polynomial(value).is_irreducible(), !divides_something(value), "{value:#x}");
        }
    }

    /// The cases of restic's own test.
    #[test]
    fn known_polynomials_are_judged_as_restic_judges_them() {
        for irreducible in [KNOWN, 0x24_8273_4cac_ca49] {
            assert!(Polynomial(irreducible).is_irreducible(), "{irreducible:#x}");
        }
        for reducible in [
            0x38_f1e5_65e2_88df,
            0x30_a829_5b9d_5c91,
            0x25_5f43_50b9_62cb,
            0x26_7f77_6110_a235,
            0x2f_4dae_10d4_1227,
            0x31_2daf_4b28_4899,
            0x29_dfb6_553d_01d1,
            0x35_4824_5eb2_6257,
            0x31_99e7_ef42_11b3,
            0x31_43d0_464b_3299,
        ] {
            assert!(!Polynomial(reducible).is_irreducible(), "{reducible:#x}");
        }
    }

    #[test]
    fn generated_polynomials_have_degree_53_and_are_irreducible() {
        let mut state = 1_u64;
        let mut random = |bytes: &mut [u8]| {
            for byte in bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (state >> 56) as u8;
            }
        };
        for _ in 0..20 {
            let polynomial = Polynomial::generate(&mut random).unwrap();
            assert_eq!(polynomial.degree(), Some(53));
            assert!(polynomial.is_irreducible());
            assert_eq!(polynomial.to_string().parse::<Polynomial>().unwrap(), polynomial);
        }
    }

    #[test]
    fn a_stuck_source_of_randomness_is_an_error() {
        assert!(Polynomial::generate(&mut |bytes| bytes.fill(0)).is_err());
    }

    #[test]
    fn the_config_form_is_bare_hex() {
        assert_eq!(Polynomial(KNOWN).to_string(), "3da3358b4dc173");
        assert_eq!("3da3358b4dc173".parse::<Polynomial>().unwrap(), Polynomial(KNOWN));
        for bad in
            ["", "0", "0x3da3358b4dc173", "+3da3358b4dc173", "3da3358b4dc172", "13da3358b4dc1733da3358b4dc173", "é"]
        {
            assert!(bad.parse::<Polynomial>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn debug_output_does_not_tell_the_polynomial() {
        assert_eq!(format!("{:?}", Polynomial(KNOWN)), "Polynomial(degree 53)");
    }

    proptest! {
        #[test]
        fn multiplication_distributes_and_commutes(a: u64, b: u64, c: u64, m in 2_u64..) {
            let (a, b, c, m) = (Polynomial(a), Polynomial(b), Polynomial(c), Polynomial(m));
            prop_assert_eq!(a.mul_mod(b, m), b.mul_mod(a, m));
            prop_assert_eq!(a.mul_mod(Polynomial(b.0 ^ c.0), m).0, a.mul_mod(b, m).0 ^ a.mul_mod(c, m).0);
        }

        #[test]
        fn the_gcd_divides_both(a in 1_u64.., b in 1_u64..) {
            let gcd = Polynomial(a).gcd(Polynomial(b));
            prop_assert_eq!(Polynomial(a).modulo(gcd).0, 0);
            prop_assert_eq!(Polynomial(b).modulo(gcd).0, 0);
        }
    }
}
