//! File names as restic writes them: through Go's `strconv.Quote` without the outer quotes, so that names which are not
//! UTF-8 survive JSON, and back through `strconv.Unquote`.

use super::go_print::is_print;
use super::json_write::{push_escape, push_escaped, push_hex};
use std::borrow::Cow;

/// Appends a name, quoted and then escaped for the inside of a JSON string.
pub(super) fn push_name(out: &mut Vec<u8>, name: &[u8]) {
    push_escaped(
        out,
        name,
        |c| !c.is_ascii() && is_print(c),
        push_quoted,
        |out, byte| {
            out.extend_from_slice(b"\\\\x");
            push_hex(out, byte.into(), 2);
        },
    );
}

/// One character that cannot stand as it is; every backslash of the quoting is doubled by the JSON escape.
fn push_quoted(out: &mut Vec<u8>, c: char) {
    let short = match c {
        '<' | '>' | '&' => return push_escape(out, c),
        '"' => return out.extend_from_slice(br#"\\\""#),
        '\\' => return out.extend_from_slice(br"\\\\"),
        '\u{7}' => b'a',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\u{b}' => b'v',
        '\0'..' ' | '\x7f' => {
            out.extend_from_slice(b"\\\\x");
            return push_hex(out, c.into(), 2);
        }
        _ if u32::from(c) < 0x1_0000 => {
            out.extend_from_slice(b"\\\\u");
            return push_hex(out, c.into(), 4);
        }
        _ => {
            out.extend_from_slice(b"\\\\U");
            return push_hex(out, c.into(), 8);
        }
    };
    out.extend_from_slice(&[b'\\', b'\\', short]);
}

/// The name behind its quoted form, by the rules of Go's `strconv.Unquote` for double quotes; `None` where those refuse.
pub(super) fn unquote(quoted: &str) -> Option<Cow<'_, [u8]>> {
    let bytes = quoted.as_bytes();
    let Some(first) = bytes.iter().position(|&b| matches!(b, b'\\' | b'"' | b'\n')) else {
        return Some(Cow::Borrowed(bytes));
    };
    let mut name = Vec::with_capacity(bytes.len());
    name.extend_from_slice(&bytes[..first]);
    let mut rest = &bytes[first..];
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'\\' => unquote_escape(after, &mut name)?,
            b'"' | b'\n' => return None,
            _ => {
                name.push(byte);
                after
            }
        };
    }
    Some(Cow::Owned(name))
}

/// Reads one escape, its backslash already taken, and returns what follows it.
fn unquote_escape<'a>(escape: &'a [u8], name: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (&kind, rest) = escape.split_first()?;
    let byte = match kind {
        b'a' => 7,
        b'b' => 8,
        b'f' => 0xc,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0xb,
        b'\\' | b'"' => kind,
        b'x' => u8::try_from(digits(rest, 2, 16)?).ok()?,
        b'0'..=b'7' => {
            name.push(u8::try_from(digits(escape, 3, 8)?).ok()?);
            return Some(&escape[3..]);
        }
        b'u' | b'U' => {
            let width = if kind == b'u' { 4 } else { 8 };
            let c = char::from_u32(digits(rest, width, 16)?)?;
            name.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(&rest[width..]);
        }
        _ => return None,
    };
    name.push(byte);
    Some(if kind == b'x' { &rest[2..] } else { rest })
}

fn digits(text: &[u8], width: usize, radix: u32) -> Option<u32> {
    text.get(..width)?
        .iter()
        .try_fold(0u32, |value, &b| value.checked_mul(radix)?.checked_add(char::from(b).to_digit(radix)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quoted(name: &[u8]) -> String {
        let mut json = vec![b'"'];
        push_name(&mut json, name);
        json.push(b'"');
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn names_are_quoted_as_go_quotes_them() {
        let cases: [(&[u8], &str); 9] = [
            (b"plain.txt", "plain.txt"),
            (b"say \"hi\" \\o/", r#"say \"hi\" \\o/"#),
            (b"it's <b>&c", "it's <b>&c"),
            (b"\x07\x08\x0c\n\r\t\x0b\x01\x1b\x7f", r"\a\b\f\n\r\t\v\x01\x1b\x7f"),
            ("é你😀\u{301}\u{fffd}".as_bytes(), "é你😀\u{301}\u{fffd}"),
            ("\u{a0}\u{200b}\u{2028}\u{feff}".as_bytes(), r"\u00a0\u200b\u2028\ufeff"),
            ("\u{e0001}\u{10ffff}".as_bytes(), r"\U000e0001\U0010ffff"),
            (b"\xff\xfe-\xc3", r"\xff\xfe-\xc3"),
            (b"\xed\xa0\x80", r"\xed\xa0\x80"),
        ];
        for (name, text) in cases {
            assert_eq!(quoted(name), text);
            assert_eq!(unquote(text).as_deref(), Some(name), "{text}");
        }
    }

    #[test]
    fn unquoting_takes_and_refuses_what_go_does() {
        for (text, name) in [
            (r"\101\000\377", &b"A\0\xff"[..]),
            (r"\xC3\xa9", "é".as_bytes()),
            (r"\u00E9\U0001F600", "é😀".as_bytes()),
            ("", b""),
            ("a\tb", b"a\tb"),
        ] {
            assert_eq!(unquote(text).as_deref(), Some(name), "{text}");
        }
        for bad in [
            "\"",
            "a\"b",
            "a\nb",
            "\\",
            r"\'",
            r"\q",
            r"\x4",
            r"\xg0",
            r"\u12",
            r"\ud800",
            r"\U00110000",
            r"\U0000",
            r"\400",
            r"\18",
            r"\1",
            "\\xé",
            r"\u+123",
        ] {
            assert_eq!(unquote(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name: Vec<u8>) {
            let text = quoted(&name);
            prop_assert_eq!(unquote(&text).unwrap().into_owned(), name);
        }

        #[test]
        fn every_text_comes_back_and_shows_no_hidden_character(name: String) {
            let text = quoted(name.as_bytes());
            prop_assert!(text.chars().all(is_print));
            prop_assert_eq!(unquote(&text).unwrap().into_owned(), name.into_bytes());
        }
    }
}
