//! JSON as Go's `encoding/json` writes it: no spaces, and `<`, `>`, `&`, U+2028, U+2029 escaped besides what must be.

use super::hex;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lastgood_model::Id;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// ASCII that needs no escape, neither by Go's JSON encoder nor by its `strconv.Quote`.
pub(super) static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut c = 0x20;
    while c < 0x7f {
        plain[c] = !matches!(c as u8, b'"' | b'\\' | b'<' | b'>' | b'&');
        c += 1;
    }
    plain
};

/// Appends `bytes` as a JSON string. Bytes that are not UTF-8 become U+FFFD, one for each, written as an escape.
pub(super) fn push_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    push_escaped(
        out,
        bytes,
        |c| !matches!(c, '\u{2028}' | '\u{2029}') && (!c.is_ascii() || c == '\x7f'),
        push_escape,
        |out, _| out.extend_from_slice(b"\\ufffd"),
    );
    out.push(b'"');
}

/// Appends the JSON escape of an ASCII character or of one below U+10000.
pub(super) fn push_escape(out: &mut Vec<u8>, c: char) {
    let short = match c {
        '"' => b'"',
        '\\' => b'\\',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        _ => {
            out.extend_from_slice(b"\\u");
            return push_hex(out, c.into(), 4);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Copies `bytes` to `out`, but for the characters that are neither [`PLAIN`] nor kept by `keep`, which are handed to
/// `escape`, and the bytes that are not UTF-8, which are handed to `invalid` one by one.
#[inline]
pub(super) fn push_escaped(
    out: &mut Vec<u8>,
    bytes: &[u8],
    keep: impl Fn(char) -> bool,
    escape: impl Fn(&mut Vec<u8>, char),
    invalid: impl Fn(&mut Vec<u8>, u8),
) {
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid();
        let (mut copied, mut at) = (0, 0);
        while let Some(&byte) = valid.as_bytes().get(at) {
            if PLAIN[usize::from(byte)] {
                at += 1;
                continue;
            }
            let Some(c) = valid[at..].chars().next() else { break };
            if !keep(c) {
                out.extend_from_slice(&valid.as_bytes()[copied..at]);
                escape(out, c);
                copied = at + c.len_utf8();
            }
            at += c.len_utf8();
        }
        out.extend_from_slice(&valid.as_bytes()[copied..]);
        for &byte in chunk.invalid() {
            invalid(out, byte);
        }
    }
}

/// Appends the lowest `width` hex digits of `value`.
pub(super) fn push_hex(out: &mut Vec<u8>, value: u32, width: u32) {
    for place in (0..width).rev() {
        out.push(DIGITS[(value >> (4 * place) & 15) as usize]);
    }
}

/// Appends a number.
#[inline]
pub(super) fn push_u64(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends an id as a JSON string.
#[inline]
pub(super) fn push_id(out: &mut Vec<u8>, id: &Id) {
    let mut text = [b'"'; 66];
    text[1..65].copy_from_slice(&hex::encode(id));
    out.extend_from_slice(&text);
}

/// Appends ids as a JSON array.
pub(super) fn push_ids(out: &mut Vec<u8>, ids: impl ExactSizeIterator<Item = Id>) {
    out.reserve(ids.len() * 67 + 2);
    out.push(b'[');
    let start = out.len();
    for id in ids {
        let mut text = [b'"'; 67];
        text[1..65].copy_from_slice(&hex::encode(&id));
        text[66] = b',';
        out.extend_from_slice(&text);
    }
    if out.len() > start {
        out.pop();
    }
    out.push(b']');
}

/// Appends bytes as a JSON string in standard base64 with padding.
pub(super) fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let cases: [(&[u8], &str); 9] = [
            (b"", r#""""#),
            (b"plain text_09~", r#""plain text_09~""#),
            (b"a\"b\\c/d'e", r#""a\"b\\c/d'e""#),
            (b"<a>&b", r#""\u003ca\u003e\u0026b""#),
            (b"\x08\x0c\n\r\t\0\x1f\x7f", "\"\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\""),
            ("é\u{2028}你\u{2029}😀\u{a0}".as_bytes(), "\"é\\u2028你\\u2029😀\u{a0}\""),
            (b"\xffx\xe2\x82", r#""\ufffdx\ufffd\ufffd""#),
            (b"\xed\xa0\x80", r#""\ufffd\ufffd\ufffd""#),
            ("\u{fffd}".as_bytes(), "\"\u{fffd}\""),
        ];
        for (bytes, json) in cases {
            let mut out = Vec::new();
            push_string(&mut out, bytes);
            assert_eq!(String::from_utf8(out).unwrap(), json);
        }
    }

    #[test]
    fn numbers_lists_and_base64_read_back() {
        for value in [0, 9, 10, 420, 2_147_484_141, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            push_u64(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
        let ids = [Id([1; 32]), Id([0xab; 32])];
        for count in 0..=2 {
            let mut out = Vec::new();
            push_ids(&mut out, ids[..count].iter().copied());
            assert_eq!(out, serde_json::to_vec(&ids[..count]).unwrap());
        }
        let mut out = Vec::new();
        push_base64(&mut out, b"\0\xff>?");
        assert_eq!(out, b"\"AP8+Pw==\"");
    }
}
