//! A pull reader for JSON, for the two formats read in bulk: trees and indexes. It takes all of RFC 8259 (any spacing,
//! key order, escapes and unknown values) from one complete byte slice, borrows what it can, and never recurses deeper
//! than [`DEPTH_MAX`].

use super::hex;
use lastgood_model::{Error, Id, Result};
use std::borrow::Cow;

/// How deep a value that is passed over may nest.
const DEPTH_MAX: u32 = 128;

/// A position in a JSON text. Cloning it is a way to come back.
#[derive(Clone, Debug)]
pub(super) struct JsonReader<'a> {
    text: &'a str,
    at: usize,
    what: &'static str,
}

impl<'a> JsonReader<'a> {
    /// A reader at the start of `bytes`, which hold `what` as messages shall name it.
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Result<Self> {
        let text = std::str::from_utf8(bytes)
            .map_err(|e| Error::corrupt(format!("decode {what}: not UTF-8")).with_source(e))?;
        Ok(Self { text, at: 0, what })
    }

    /// Damage at the present position.
    #[cold]
    pub(super) fn damage(&self, fact: &str) -> Error {
        Error::corrupt(format!("decode {}: {fact} at byte {}", self.what, self.at))
    }

    /// The next byte that is not white space, 0 at the end (no JSON text holds a raw 0).
    #[inline]
    pub(super) fn peek(&mut self) -> u8 {
        while let Some(&byte) = self.text.as_bytes().get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return byte;
            }
            self.at += 1;
        }
        0
    }

    /// Takes `byte` if it comes next.
    #[inline]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    /// Takes `byte`, which must come next.
    #[inline]
    pub(super) fn expect(&mut self, byte: u8) -> Result<()> {
        if self.eat(byte) { Ok(()) } else { Err(self.damage(&format!("no {:?}", char::from(byte)))) }
    }

    /// Nothing but white space may follow.
    pub(super) fn expect_end(&mut self) -> Result<()> {
        self.peek();
        if self.at < self.text.len() { Err(self.damage("more than one value")) } else { Ok(()) }
    }

    /// Inside an object: the next key, its colon taken, or `None` once the closing brace was taken. `first` must be
    /// true for the first call and is managed from then on.
    #[inline]
    pub(super) fn next_key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>> {
        if !self.next_member(first, b'}')? {
            return Ok(None);
        }
        let key = self.string()?;
        self.expect(b':')?;
        Ok(Some(key))
    }

    /// Inside an array: true when another item follows, false once the closing bracket was taken; `first` as above.
    #[inline]
    pub(super) fn next_item(&mut self, first: &mut bool) -> Result<bool> {
        self.next_member(first, b']')
    }

    #[inline]
    fn next_member(&mut self, first: &mut bool, end: u8) -> Result<bool> {
        if std::mem::take(first) {
            return Ok(!self.eat(end));
        }
        if self.eat(b',') {
            return Ok(true);
        }
        self.expect(end).map(|()| false)
    }

    /// Takes `null` if it comes next.
    #[inline]
    pub(super) fn null(&mut self) -> Result<bool> {
        if self.peek() != b'n' {
            return Ok(false);
        }
        self.literal("null").map(|()| true)
    }

    fn literal(&mut self, word: &str) -> Result<()> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.damage("an unknown word"));
        }
        self.at += word.len();
        Ok(())
    }

    /// A string, or the empty one for `null`.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>> {
        if self.peek() != b'"' {
            return match self.null()? {
                true => Ok(Cow::Borrowed("")),
                false => Err(self.damage("no string")),
            };
        }
        let start = self.at + 1;
        let rest = &self.text.as_bytes()[start..];
        let plain = rest.iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\').unwrap_or(rest.len());
        self.at = start + plain;
        match rest.get(plain) {
            Some(b'"') => {
                self.at += 1;
                Ok(Cow::Borrowed(&self.text[start..start + plain]))
            }
            Some(b'\\') => self.unescape(start).map(Cow::Owned),
            Some(_) => Err(self.damage("a control character in a string")),
            None => Err(self.damage("a string without end")),
        }
    }

    /// The rest of a string that began at `start` and has its first escape here.
    fn unescape(&mut self, start: usize) -> Result<String> {
        let mut out = self.text[start..self.at].to_owned();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.bytes().position(|b| b < 0x20 || b == b'"' || b == b'\\').unwrap_or(rest.len());
            out.push_str(&rest[..plain]);
            self.at += plain;
            match rest.as_bytes().get(plain) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                Some(_) => return Err(self.damage("a control character in a string")),
                None => return Err(self.damage("a string without end")),
            }
        }
    }

    /// One escape, its backslash already taken. Half a surrogate pair becomes U+FFFD, as Go's decoder has it.
    fn escape(&mut self) -> Result<char> {
        let Some(&byte) = self.text.as_bytes().get(self.at) else { return Err(self.damage("a string without end")) };
        let c = match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                let unit = self.hex4().ok_or_else(|| self.damage("an unknown escape"))?;
                self.at += 4;
                if let Some(c) = char::from_u32(unit) {
                    return Ok(c);
                }
                if unit < 0xdc00 && self.text.as_bytes()[self.at..].starts_with(b"\\u") {
                    let mut ahead = self.clone();
                    ahead.at += 2;
                    if let Some(low @ 0xdc00..0xe000) = ahead.hex4() {
                        self.at = ahead.at + 4;
                        let c = char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
                        return Ok(c.unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                }
                return Ok(char::REPLACEMENT_CHARACTER);
            }
            _ => return Err(self.damage("an unknown escape")),
        };
        self.at += 1;
        Ok(c)
    }

    fn hex4(&self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
        digits.iter().try_fold(0, |value, &b| Some(value << 4 | char::from(b).to_digit(16)?))
    }

    /// A whole number, or 0 for `null`.
    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64> {
        self.peek();
        let start = self.at;
        let mut value = 0u64;
        while let Some(byte) = self.text.as_bytes().get(self.at).filter(|b| b.is_ascii_digit()) {
            let more = value.checked_mul(10).and_then(|v| v.checked_add(u64::from(byte - b'0')));
            value = more.ok_or_else(|| self.damage("a number too large"))?;
            self.at += 1;
        }
        match self.text.as_bytes().get(self.at) {
            _ if self.at == start => {
                return if self.null()? { Ok(0) } else { Err(self.damage("no whole number")) };
            }
            Some(b'.' | b'e' | b'E') => return Err(self.damage("no whole number")),
            _ => {}
        }
        if self.at - start > 1 && self.text.as_bytes()[start] == b'0' {
            return Err(self.damage("a number with leading zeros"));
        }
        Ok(value)
    }

    /// A whole number below 2^32, or 0 for `null`.
    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32> {
        let value = self.u64()?;
        u32::try_from(value).map_err(|_| self.damage("a number too large"))
    }

    /// An id.
    #[inline]
    pub(super) fn id(&mut self) -> Result<Id> {
        if self.peek() == b'"'
            && let Some((digits, [b'"', ..])) = self.text.as_bytes()[self.at + 1..].split_first_chunk::<64>()
            && let Some(id) = hex::decode(digits)
        {
            self.at += 66;
            return Ok(id);
        }
        Err(self.damage("no id of 64 hex digits"))
    }

    /// An array of ids, or `None` for `null`.
    pub(super) fn ids<T: From<Id>>(&mut self) -> Result<Option<Vec<T>>> {
        if self.null()? {
            return Ok(None);
        }
        self.expect(b'[')?;
        let rest = &self.text.as_bytes()[self.at..];
        // Ids hold no bracket, so the first one ends the list; 67 bytes is what one takes when written without spaces.
        let length = rest.iter().position(|&b| b == b']').unwrap_or(0);
        let mut ids = Vec::with_capacity(length.div_ceil(67));
        let mut first = true;
        while self.next_item(&mut first)? {
            ids.push(self.id()?.into());
        }
        Ok(Some(ids))
    }

    /// Passes over one value of any kind.
    pub(super) fn skip_value(&mut self) -> Result<()> {
        self.skip_nested(DEPTH_MAX)
    }

    fn skip_nested(&mut self, depth: u32) -> Result<()> {
        if depth == 0 {
            return Err(self.damage("values nested too deep"));
        }
        let mut first = true;
        match self.peek() {
            b'{' => {
                self.at += 1;
                while self.next_key(&mut first)?.is_some() {
                    self.skip_nested(depth - 1)?;
                }
                Ok(())
            }
            b'[' => {
                self.at += 1;
                while self.next_item(&mut first)? {
                    self.skip_nested(depth - 1)?;
                }
                Ok(())
            }
            b'"' => self.string().map(drop),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'-' | b'0'..=b'9' => {
                let number = self.text.as_bytes()[self.at..].iter();
                self.at += number.take_while(|b| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')).count();
                Ok(())
            }
            _ => Err(self.damage("no value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a, T>(json: &'a str, with: impl FnOnce(&mut JsonReader<'a>) -> Result<T>) -> Option<T> {
        let mut reader = JsonReader::new(json.as_bytes(), "test").unwrap();
        let value = with(&mut reader).ok()?;
        reader.expect_end().ok()?;
        Some(value)
    }

    #[test]
    fn strings_read_as_serde_reads_them() {
        for json in [
            r#""""#,
            r#" "abc" "#,
            r#""a\"b\\c\/d""#,
            r#""\b\f\n\r\t""#,
            r#""\u00e9\u4f60x""#,
            r#""\ud83d\ude00!""#,
            r#""é你😀""#,
            "\"a\nb\"",
            r#""a"#,
            r#""a\"#,
            r#""a\x""#,
            r#""\u12"#,
            r#""\u12g4""#,
            r#"abc"#,
            r#""\ud83d\u"#,
        ] {
            let want = serde_json::from_str::<String>(json).ok();
            assert_eq!(read(json, |r| r.string().map(Cow::into_owned)), want, "{json}");
        }
        // serde refuses half pairs; Go replaces them, and so do we.
        for (json, want) in [
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""\ude00a""#, "\u{fffd}a"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
            (r#""\ud83d\n""#, "\u{fffd}\n"),
            ("null", ""),
        ] {
            assert_eq!(read(json, |r| r.string().map(Cow::into_owned)).as_deref(), Some(want), "{json}");
        }
    }

    #[test]
    fn numbers_are_whole_and_bounded() {
        for (json, want) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("null", Some(0)),
            ("18446744073709551616", None),
            ("99999999999999999999999", None),
            ("-1", None),
            ("+1", None),
            ("1.0", None),
            ("1e3", None),
            ("01", None),
            ("\"1\"", None),
            ("", None),
        ] {
            assert_eq!(read(json, JsonReader::u64), want, "{json}");
        }
        assert_eq!(read("4294967295", JsonReader::u32), Some(u32::MAX));
        assert_eq!(read("4294967296", JsonReader::u32), None);
    }

    #[test]
    fn any_value_is_passed_over_and_broken_ones_are_refused() {
        for json in [r#"{"a":[1,-2.5e+3,{"b":null}],"c":"\u0000]}","d":{},"e":[],"f":true,"g":false} "#, "1", "\"\""] {
            assert_eq!(read(json, JsonReader::skip_value), Some(()), "{json}");
        }
        for json in
            ["", "{", "[1", "[1,]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{1:2}", "[1 2]", "tru", "]", "1 2", "{]"]
        {
            assert_eq!(read(json, JsonReader::skip_value), None, "{json}");
        }
        assert_eq!(read(&format!("{}{}", "[".repeat(100), "]".repeat(100)), JsonReader::skip_value), Some(()));
        assert_eq!(read(&"[".repeat(1_000_000), JsonReader::skip_value), None);
        assert_eq!(read(&"{\"a\":".repeat(1_000_000), JsonReader::skip_value), None);
    }

    #[test]
    fn ids_are_64_lower_case_digits() {
        let id = Id([0xab; 32]);
        assert_eq!(read(&format!(" \"{id}\""), JsonReader::id), Some(id));
        for bad in [format!("\"{id}0\""), format!("\"{}\"", id.short()), format!("\"{id}"), "null".into(), "\"".into()]
        {
            assert_eq!(read(&bad, JsonReader::id), None, "{bad}");
        }
        assert_eq!(read(&format!("[ \"{id}\" , \"{id}\" ]"), JsonReader::ids::<Id>), Some(Some(vec![id, id])));
        assert_eq!(read("null", JsonReader::ids::<Id>), Some(None));
        assert_eq!(read(&format!("[\"{id}\",]"), JsonReader::ids::<Id>), None);
    }
}
