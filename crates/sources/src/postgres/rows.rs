//! The digest of a table's rows, worked out while they pass.
//!
//! For each row XXH3 with 128 bits and seed 0 (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>) of its
//! line in COPY's text format without the newline; the sum of all of them modulo 2¹²⁸; beside it the number of rows. The
//! order of rows does not matter, so parts of a table may be read at the same time and added up; a row that is there
//! twice counts twice. In that format a newline always ends a row: within values it is written as `\n`. A row that has no
//! text (see `selection`) is hashed in the binary format: the whole output of `COPY` with it alone.
//!
//! It finds mistakes, not attacks: what is stored is authenticated by the repository.

use lastgood_model::{Error, Result};
use memchr::{memchr, memchr_iter};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use twox_hash::XxHash3_128;
use twox_hash::xxhash3_128::Hasher;

/// Rows and what they add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowDigest {
    /// How many rows.
    pub rows: u64,
    /// The sum of their hashes modulo 2¹²⁸; as text 32 hexadecimal digits.
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub digest: u128,
}

impl RowDigest {
    /// Takes in the rows of another part.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.digest = self.digest.wrapping_add(other.digest);
    }

    /// The digest as it is written everywhere.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.digest)
    }

    fn row(&mut self, hash: u128) {
        self.rows += 1;
        self.digest = self.digest.wrapping_add(hash);
    }
}

fn to_hex<S: Serializer>(digest: &u128, out: S) -> std::result::Result<S::Ok, S::Error> {
    out.serialize_str(&format!("{digest:032x}"))
}

fn from_hex<'de, D: Deserializer<'de>>(input: D) -> std::result::Result<u128, D::Error> {
    let text = String::deserialize(input)?;
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(serde::de::Error::custom("a digest of rows is 32 hexadecimal digits"));
    }
    u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
}

/// Digests rows that come in pieces of any size. Memory does not depend on the length of rows.
#[derive(Default)]
pub struct RowHasher {
    total: RowDigest,
    /// All that comes is one row, in the binary format.
    is_one_row: bool,
    /// The beginning of a row whose end has not come yet.
    open: Option<Hasher>,
}

impl std::fmt::Debug for RowHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowHasher").field("total", &self.total).finish_non_exhaustive()
    }
}

impl RowHasher {
    /// Before the first row.
    pub fn new() -> Self {
        Self::default()
    }

    /// For one row that has no text: all that comes, an output of `COPY` in its binary format, is hashed as it is.
    pub fn of_one_row() -> Self {
        Self { is_one_row: true, open: Some(Hasher::new()), ..Self::default() }
    }

    /// The rows that have ended so far.
    pub fn rows(&self) -> u64 {
        self.total.rows
    }

    /// True when no row has begun that has not ended.
    pub fn is_between_rows(&self) -> bool {
        self.open.is_none()
    }

    /// Takes in the next bytes, cut anywhere.
    pub fn update(&mut self, mut piece: &[u8]) {
        if self.is_one_row {
            if let Some(open) = &mut self.open {
                open.write(piece);
            }
            return;
        }
        if let Some(mut open) = self.open.take() {
            let Some(end) = memchr(b'\n', piece) else {
                open.write(piece);
                self.open = Some(open);
                return;
            };
            open.write(&piece[..end]);
            self.total.row(open.finish_128());
            piece = &piece[end + 1..];
        }
        let mut start = 0;
        for end in memchr_iter(b'\n', piece) {
            self.total.row(XxHash3_128::oneshot(&piece[start..end]));
            start = end + 1;
        }
        if start < piece.len() {
            let mut open = Hasher::new();
            open.write(&piece[start..]);
            self.open = Some(open);
        }
    }

    /// The digest of all rows. Fails when the last one has no end.
    pub fn finish(mut self) -> Result<RowDigest> {
        match self.open {
            Some(open) if self.is_one_row => {
                self.total.row(open.finish_128());
                Ok(self.total)
            }
            None => Ok(self.total),
            Some(_) => Err(Error::corrupt(format!("the row after {} rows ends without a newline", self.total.rows))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content: &[u8], piece: usize) -> Result<RowDigest> {
        let mut hasher = RowHasher::new();
        content.chunks(piece).for_each(|c| hasher.update(c));
        hasher.finish()
    }

    /// A straightforward twin: split, hash each, add.
    fn twin(content: &[u8]) -> RowDigest {
        let mut rows: Vec<&[u8]> = content.split(|b| *b == b'\n').collect();
        assert_eq!(rows.pop(), Some(&b""[..]));
        let digest = rows.iter().fold(0u128, |sum, row| sum.wrapping_add(XxHash3_128::oneshot(row)));
        RowDigest { rows: rows.len() as u64, digest }
    }

    #[test]
    fn the_digest_is_the_same_however_rows_are_cut() {
        let mut content = Vec::new();
        for i in 0..300usize {
            content.extend((0..i * i % 1999).map(|j| b'a' + ((i + j) % 26) as u8));
            content.push(b'\n');
        }
        content.extend(b"\n\n");
        let want = twin(&content);
        assert_eq!(want.rows, 302);
        for piece in [1, 2, 3, 7, 64, 239, 240, 241, 1000, 65_536, content.len()] {
            assert_eq!(of(&content, piece).unwrap(), want, "pieces of {piece}");
        }
    }

    #[test]
    fn known_values_do_not_change() {
        // XXH128 of nothing and of "a", as `xxhsum -H2` prints them.
        assert_eq!(of(b"\n", 9).unwrap().hex(), "99aa06d3014798d86001c324468d497f");
        assert_eq!(of(b"a\n", 9).unwrap().hex(), "a96faf705af16834e6c632b61e964e1f");
        assert_eq!(of(b"", 9).unwrap(), RowDigest { rows: 0, digest: 0 });
    }

    #[test]
    fn order_does_not_matter_and_a_row_twice_counts_twice() {
        assert_eq!(of(b"1\n2\n3\n", 4).unwrap(), of(b"3\n1\n2\n", 4).unwrap());
        assert_ne!(of(b"1\n1\n", 4).unwrap().digest, of(b"1\n", 4).unwrap().digest);
        // Not an exclusive or: two equal rows do not cancel each other out.
        assert_ne!(of(b"1\n1\n", 4).unwrap().digest, of(b"2\n2\n", 4).unwrap().digest);
        let mut sum = of(b"1\n", 4).unwrap();
        sum.add(&of(b"2\n3\n", 4).unwrap());
        assert_eq!(sum, of(b"1\n2\n3\n", 4).unwrap());
    }

    #[test]
    fn a_row_without_an_end_is_an_error() {
        assert!(of(b"1\n2", 1).is_err());
        assert!(of(b"1\n2", 9).is_err());
    }

    #[test]
    fn as_json_the_digest_is_32_digits_and_nothing_else_is_read() {
        let digest = RowDigest { rows: 2, digest: 0xab };
        let text = serde_json::to_string(&digest).unwrap();
        assert_eq!(text, r#"{"rows":2,"digest":"000000000000000000000000000000ab"}"#);
        assert_eq!(serde_json::from_str::<RowDigest>(&text).unwrap(), digest);
        for bad in ["+00000000000000000000000000000ab", "ab", "0000000000000000000000000000000g"] {
            assert!(serde_json::from_str::<RowDigest>(&format!(r#"{{"rows":0,"digest":"{bad}"}}"#)).is_err());
        }
    }
}
