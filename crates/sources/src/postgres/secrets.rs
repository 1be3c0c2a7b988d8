//! Whether what a person wrote as a connection holds a secret, so that it belongs into no config, log or message.

/// True when a URL or `key=value` text holds a password. Told from the text alone, whether or not it can be understood,
/// and rather once too often than once too rarely.
pub fn holds_password(text: &str) -> bool {
    let text = text.trim();
    match text.split_once("://") {
        Some((_, rest)) => in_url(rest),
        None => is_set_in(text),
    }
}

fn in_url(rest: &str) -> bool {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_secret = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        !value.is_empty() && names_secret(&undo_percent(name))
    };
    // A slip may have left a `/` or `?` in a password unencoded: what stands before any `@` counts.
    let whole = if query.contains('@') { rest } else { place };
    has_credentials(whole) || query.split('&').any(is_secret)
}

/// A colon with something behind it that stands before an `@`, and is no port.
fn has_credentials(text: &str) -> bool {
    let Some((before, _)) = text.rsplit_once('@') else { return false };
    let Some((user, password)) = before.split_once(':') else { return false };
    if user.contains('@') || password.is_empty() {
        return false;
    }
    // `host:5432/db@x` names a port and a database.
    let port = password.len() - password.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    !password[port..].starts_with('/')
}

/// `password = …` in text of words and values.
fn is_set_in(text: &str) -> bool {
    text.match_indices('=').any(|(at, _)| {
        let name = text[..at].trim_end().rsplit(|c: char| c.is_ascii_whitespace() || c == '\'').next();
        let value = text[at + 1..].trim_start();
        name.is_some_and(names_secret) && !value.is_empty() && !value.starts_with("''")
    })
}

fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("password") || name.ends_with("secret")
}

fn undo_percent(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                out.push(value);
                rest = &after[2..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found_also_in_what_cannot_be_understood() {
        for text in [
            "postgres://u:pw@h/db",
            "postgresql://:pw@h",
            "postgres://u:p/w@h/db",
            "postgres://u:p?w@h/db",
            "postgres://u:1@h/db",
            "postgres://u@h/db?password=pw",
            "postgres://u@h/db?sslmode=require&sslpassword=pw",
            "postgres://h/db?pass%77ord=pw",
            "host=h password=pw",
            "host=h password = 'pw'",
            "PASSWORD='a b' host=h",
            "host=h oauth_client_secret=x",
        ] {
            assert!(holds_password(text), "{text}");
        }
    }

    #[test]
    fn what_holds_none_is_let_through() {
        for text in [
            "",
            "postgres://",
            "postgres://u@h:5432/db",
            "postgres://h:5432/db@x",
            "postgres://u:@h/db",
            "postgres://h1:1,h2:2/db",
            "postgres:///db?host=/run/postgresql&port=5433",
            "postgres://u@h/db?passfile=/etc/pgpass&password=",
            "host=h dbname=db passfile=x",
            "service=shop",
            "password=",
        ] {
            assert!(!holds_password(text), "{text}");
        }
    }
}
