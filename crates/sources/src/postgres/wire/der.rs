//! The few fields of an X.509 certificate that the TLS library keeps to itself: what it is signed with, for channel
//! binding; its common name, which PostgreSQL still accepts; dates and key. Structure: RFC 5280, section 4.1.
//!
//! Nothing here decides whether a certificate is genuine.

/// One certificate's fields, as far as anyone here asks.
pub(super) struct Certificate<'a> {
    /// Content of the signature algorithm's object identifier.
    pub(super) signature_oid: &'a [u8],
    /// Seconds since 1970 between which it is valid.
    pub(super) valid: (i64, i64),
    subject: &'a [u8],
    /// The public key's bits, without what names its kind.
    pub(super) public_key: &'a [u8],
    /// Content of the public key's algorithm identifier.
    pub(super) key_algorithm: &'a [u8],
    extensions: Option<&'a [u8]>,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OID: u8 = 0x06;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

impl<'a> Certificate<'a> {
    /// Reads a certificate; `None` if it is none.
    pub(super) fn parse(der: &'a [u8]) -> Option<Self> {
        let (whole, _) = expect(der, SEQUENCE)?;
        let (mut tbs, after) = expect(whole, SEQUENCE)?;
        let (signature_algorithm, _) = expect(after, SEQUENCE)?;
        let (signature_oid, _) = expect(signature_algorithm, OID)?;
        if let Some((_, rest)) = expect(tbs, 0xa0) {
            tbs = rest;
        }
        let (_, tbs) = expect(tbs, INTEGER)?;
        let (_, tbs) = expect(tbs, SEQUENCE)?;
        let (_issuer, tbs) = expect(tbs, SEQUENCE)?;
        let (validity, tbs) = expect(tbs, SEQUENCE)?;
        let (subject, tbs) = expect(tbs, SEQUENCE)?;
        let (key, mut tbs) = expect(tbs, SEQUENCE)?;
        let (key_algorithm, key) = expect(key, SEQUENCE)?;
        let (bits, _) = expect(key, BIT_STRING)?;
        let mut extensions = None;
        while let Some((tag, content, rest)) = next(tbs) {
            if tag == 0xa3 {
                extensions = expect(content, SEQUENCE).map(|(list, _)| list);
            }
            tbs = rest;
        }
        let (tag, from, validity) = next(validity)?;
        let from = time(tag, from)?;
        let (tag, until, _) = next(validity)?;
        let valid = (from, time(tag, until)?);
        // The first byte counts unused bits, of which keys have none.
        let public_key = bits.strip_prefix(&[0])?;
        Some(Self { signature_oid, valid, subject, public_key, key_algorithm, extensions })
    }

    /// The last common name of the subject.
    pub(super) fn common_name(&self) -> Option<&'a str> {
        let mut found = None;
        let mut names = self.subject;
        while let Some((set, rest)) = expect(names, SET) {
            names = rest;
            let Some((pair, _)) = expect(set, SEQUENCE) else { continue };
            let Some((oid, value)) = expect(pair, OID) else { continue };
            if let Some((_, text, _)) = next(value).filter(|_| oid == COMMON_NAME) {
                found = std::str::from_utf8(text).ok().filter(|text| !text.contains('\0'));
            }
        }
        found
    }

    /// Whether it has a list of names, beside which the common name counts for nothing.
    pub(super) fn has_alternative_names(&self) -> bool {
        let mut list = self.extensions.unwrap_or_default();
        while let Some((extension, rest)) = expect(list, SEQUENCE) {
            list = rest;
            if expect(extension, OID).is_some_and(|(oid, _)| oid == SUBJECT_ALT_NAME) {
                return true;
            }
        }
        false
    }
}

/// Tag, content and what follows of the first element.
fn next(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = match first {
        0..=0x7f => usize::from(first),
        0x81..=0x84 => {
            let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
            rest = after;
            digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit))
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    next(bytes).filter(|(tag, ..)| *tag == wanted).map(|(_, content, rest)| (content, rest))
}

/// A `UTCTime` or `GeneralizedTime` as seconds since 1970.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
    let (year, rest) = match tag {
        0x17 => {
            let year: i64 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
        }
        0x18 => (text.get(..4)?.parse().ok()?, &text[4..]),
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2).and_then(|digits| digits.parse::<i64>().ok());
    let (month, day) = (part(0).filter(|month| (1..=12).contains(month))?, part(2)?);
    // Days since 1970: years counted from March, so that the leap day comes last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + part(4)? * 3600 + part(6)? * 60 + part(8)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(time(0x17, b"700101000000Z"), Some(0));
        assert_eq!(time(0x17, b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(time(0x18, b"20240229120000Z"), Some(1_709_208_000));
        assert_eq!(time(0x18, b"20241329120000Z"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(certificate) = Certificate::parse(&bytes) {
                certificate.common_name();
                certificate.has_alternative_names();
            }
        }
    }
}
