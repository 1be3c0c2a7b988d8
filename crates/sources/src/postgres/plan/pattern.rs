//! Patterns for names: `users`, `public.users`, `shop.*`, `"odd.name"`.

use lastgood_model::{Error, Result};
use std::str::FromStr;

/// A name, perhaps with its schema, in which `*` stands for any characters and `?` for one. Case matters. Within
/// double quotes all characters are plain, and `""` is a quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    schema: Option<Vec<Piece>>,
    name: Vec<Piece>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Char(char),
    AnyOne,
    Any,
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::invalid(format!("{text:?} is no pattern for a name: {why}"));
        let mut parts = vec![Vec::new()];
        let mut chars = text.chars().peekable();
        let mut is_quoted = false;
        while let Some(char) = chars.next() {
            let piece = match char {
                '"' if is_quoted && chars.next_if_eq(&'"').is_some() => Piece::Char('"'),
                '"' => {
                    is_quoted = !is_quoted;
                    continue;
                }
                '.' if !is_quoted => {
                    parts.push(Vec::new());
                    continue;
                }
                '*' if !is_quoted => Piece::Any,
                '?' if !is_quoted => Piece::AnyOne,
                char => Piece::Char(char),
            };
            if let Some(part) = parts.last_mut() {
                part.push(piece);
            }
        }
        if is_quoted {
            return Err(invalid("a quote has no end"));
        }
        if parts.iter().any(Vec::is_empty) {
            return Err(invalid("a name is empty"));
        }
        match (parts.pop(), parts.pop(), parts.pop()) {
            (Some(name), schema, None) => Ok(Self { text: text.to_owned(), schema, name }),
            _ => Err(invalid("it has more than two parts; put a name with dots into double quotes")),
        }
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pattern {
    /// Whether it fits a name in a schema. Without a schema of its own it fits in any.
    pub fn fits(&self, schema: &str, name: &str) -> bool {
        self.schema.as_ref().is_none_or(|pattern| fits(pattern, schema)) && fits(&self.name, name)
    }

    /// Whether it fits a name that is in no schema, such as that of a schema.
    pub fn fits_name(&self, name: &str) -> bool {
        self.schema.is_none() && fits(&self.name, name)
    }
}

/// Without recursion: after a mismatch the last `*` takes one more character.
fn fits(pattern: &[Piece], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut place, mut star) = (0, 0, None);
    while at < text.len() {
        match pattern.get(place) {
            Some(Piece::Any) => {
                star = Some((place, at));
                place += 1;
            }
            Some(piece) if *piece == Piece::AnyOne || *piece == Piece::Char(text[at]) => {
                (at, place) = (at + 1, place + 1)
            }
            _ => match &mut star {
                Some((star, from)) => {
                    *from += 1;
                    (at, place) = (*from, *star + 1);
                }
                None => return false,
            },
        }
    }
    pattern[place..].iter().all(|piece| *piece == Piece::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_names() {
        let check = |pattern: &str, schema: &str, name: &str, expected: bool| {
            assert_eq!(pattern.parse::<Pattern>().unwrap().fits(schema, name), expected, "{pattern} {schema} {name}");
        };
        check("users", "any", "users", true);
        check("users", "any", "users2", false);
        check("Users", "any", "users", false);
        check("public.users", "public", "users", true);
        check("public.users", "app", "users", false);
        check("*.u*s", "app", "users", true);
        check("a*b*c", "s", "axxbyybzc", true);
        check("a*b*c", "s", "axxbyybz", false);
        check("log_??", "s", "log_07", true);
        check("log_??", "s", "log_7", false);
        check("\"a.b\".\"c\"\"*\"", "a.b", "c\"*", true);
        check("\"*\"", "s", "x", false);
        check("*", "s", "", true);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", ".", "a.", ".a", "a.b.c", "\"a", "\"\""] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }
}
