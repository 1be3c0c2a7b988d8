//! The two written forms of a connection: URL and `key=value`. Both only collect settings; nothing is judged here but
//! the writing.

use super::keywords;
use super::settings::Settings;
use lastgood_model::{Error, Result};

/// Reads either form into settings.
pub(super) fn parse(text: &str) -> Result<Settings> {
    match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        Some(rest) => url(rest),
        None if text.contains("://") && !text.contains('=') => Err(Error::invalid("this is no PostgreSQL URL")
            .with_hint("write postgresql://user@host:5432/database, or host=… dbname=…")),
        None => key_values(text),
    }
}

/// What stands behind `postgresql://`: `[user[:password]@][host[:port][,…]][/database][?key=value[&…]]`.
fn url(text: &str) -> Result<Settings> {
    let mut settings = Settings::default();
    // As the original: credentials end at the first `@`, and are there only if it comes before any slash.
    let mut rest = text;
    if let Some(at) = text.find(['@', '/']).filter(|at| text[*at..].starts_with('@')) {
        let (user, password) = text[..at].split_once(':').unwrap_or((&text[..at], ""));
        for (name, value) in [("user", user), ("password", password)] {
            if !value.is_empty() {
                settings.set(name, decode(value)?)?;
            }
        }
        rest = &text[at + 1..];
    }
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    loop {
        let host;
        if let Some(inside) = rest.strip_prefix('[') {
            let Some((address, after)) = inside.split_once(']') else {
                return Err(malformed("an IPv6 address has no closing bracket"));
            };
            if address.is_empty() {
                return Err(malformed("an IPv6 address is empty"));
            }
            if !(after.is_empty() || after.starts_with([':', '/', '?', ','])) {
                return Err(malformed("there is something behind the bracket of an IPv6 address"));
            }
            (host, rest) = (address, after);
        } else {
            (host, rest) = rest.split_at(rest.find([':', '/', '?', ',']).unwrap_or(rest.len()));
        }
        let mut port = "";
        if let Some(after) = rest.strip_prefix(':') {
            (port, rest) = after.split_at(after.find(['/', '?', ',']).unwrap_or(after.len()));
        }
        hosts.push(host);
        ports.push(port);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => break,
        }
    }
    for (name, values) in [("host", &hosts), ("port", &ports)] {
        if values.iter().any(|value| !value.is_empty()) {
            settings.set(name, decode(&values.join(","))?)?;
        }
    }
    if let Some(after) = rest.strip_prefix('/') {
        let (database, after) = after.split_at(after.find('?').unwrap_or(after.len()));
        if !database.is_empty() {
            settings.set("dbname", decode(database)?)?;
        }
        rest = after;
    }
    let Some(query) = rest.strip_prefix('?').filter(|query| !query.is_empty()) else { return Ok(settings) };
    for pair in query.split('&') {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(malformed("a parameter has no \"=\""));
        };
        if value.contains('=') {
            return Err(malformed("a parameter has a second \"=\"").with_hint("write \"=\" within a value as %3D"));
        }
        let (name, value) = (decode(name)?, decode(value)?);
        match (name.as_str(), value.as_str()) {
            ("ssl", "true") => settings.set("sslmode", "require".to_owned())?,
            _ => settings.set(keywords::find(&name)?.name, value)?,
        }
    }
    Ok(settings)
}

/// `key = value …`; values may stand in single quotes, and a backslash takes the next character as it is.
fn key_values(text: &str) -> Result<Settings> {
    let mut settings = Settings::default();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_ascii_whitespace()).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let Some(after) = after.trim_start().strip_prefix('=') else {
            // The word itself is not shown: it may be a part of a password.
            return Err(Error::invalid("a word of the connection string has no \"=\" behind it")
                .with_hint("write postgresql://user@host:5432/database, or host=… dbname=…"));
        };
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('\'') {
            Some(quoted) => until(quoted, |c| c == '\'')
                .filter(|(_, after)| after.starts_with('\''))
                .map(|(value, after)| (value, &after[1..])),
            None => until(after, |c| c.is_ascii_whitespace()),
        }
        .ok_or_else(|| Error::invalid("a value of the connection string has no closing quote"))?;
        settings.set(keywords::find(name)?.name, value)?;
        rest = after.trim_start();
    }
    Ok(settings)
}

/// Takes up to the first character that is the end and has no backslash before it; backslashes themselves are dropped.
fn until(text: &str, is_end: impl Fn(char) -> bool) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.extend(letters.next().map(|(_, next)| next)),
            _ if is_end(letter) => return Some((value, &text[at..])),
            _ => value.push(letter),
        }
    }
    Some((value, ""))
}

/// Resolves `%XX`.
fn decode(text: &str) -> Result<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        match (digit(), digit()) {
            (Some(0), Some(0)) => return Err(malformed("%00 is not allowed")),
            (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
            _ => {
                return Err(malformed("\"%\" must be followed by two hexadecimal digits")
                    .with_hint("write \"%\" itself, as in a password, as %25"));
            }
        }
    }
    String::from_utf8(out).map_err(|_| malformed("it is not UTF-8 once its %XX are resolved"))
}

/// The reverse: escapes all but letters, digits, `-._~` and what `keep` names.
pub(super) fn encode(text: &str, keep: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let letter = char::from(byte);
        if letter.is_ascii_alphanumeric() || "-._~".contains(letter) || keep.contains(letter) {
            out.push(letter);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn malformed(what: &str) -> Error {
    Error::invalid(format!("malformed PostgreSQL URL: {what}"))
        .with_hint("in user names and passwords write \"/\" as %2F, \":\" as %3A, \"@\" as %40 and \"%\" as %25")
}
