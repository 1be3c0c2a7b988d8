//! A small generator of pseudo-random numbers, the same on every machine and in every version. Not for secrets.

/// SplitMix64 (Steele, Lea, Flood 2014): a whole period of 2^64, any seed is good.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose whole future is decided by `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 for a bound of 0. The bias is below `bound / 2^64`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of `items`, which must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Fills `out` with bytes that do not compress.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    /// So many bytes that do not compress.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        self.fill(&mut out);
        out
    }

    /// Text of made-up words and lines, `length` bytes long; compresses about as prose and logs do.
    pub fn text(&mut self, length: usize) -> Vec<u8> {
        const SYLLABLES: [&str; 24] = [
            "ba", "con", "de", "er", "fi", "gra", "hol", "in", "ka", "lo", "mer", "na", "or", "pe", "qui", "re", "sta",
            "ti", "un", "ver", "wa", "xe", "yo", "zu",
        ];
        let mut out = Vec::with_capacity(length + 16);
        while out.len() < length {
            // A skewed choice, as words in a language are: the product of two uniforms favours small numbers.
            let word = self.below(64) * self.below(64);
            let mut syllables = Rng::new(word);
            for _ in 0..1 + word % 3 {
                out.extend_from_slice(syllables.pick(&SYLLABLES).as_bytes());
            }
            out.push(if self.below(12) == 0 { b'\n' } else { b' ' });
        }
        out.truncate(length);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_published_sequence() {
        // Reference values of splitmix64 for seed 1234567.
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn lengths_and_bounds_are_kept() {
        let mut rng = Rng::new(1);
        assert!((0..1000).all(|_| rng.below(7) < 7));
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.bytes(13).len(), 13);
        assert_eq!(rng.text(1001).len(), 1001);
        assert!((0..1000).map(|_| rng.unit()).all(|u| (0.0..1.0).contains(&u)));
    }
}
