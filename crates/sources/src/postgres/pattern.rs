//! Patterns for names of tables and schemas, as `psql` and `pg_dump` read them ("Patterns" in the documentation of
//! psql): `*` is any text and `?` any character, letters are folded to lower case, double quotes take all that literally,
//! a dot divides schema and name, and the rest may be a regular expression.

use lastgood_model::{Error, Result};

/// A pattern as regular expressions of PostgreSQL, anchored at both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// As it was written.
    pub(super) text: String,
    /// For the schema; without one, tables are meant that need none to be named.
    pub(super) schema: Option<String>,
    /// For the name.
    pub(super) name: String,
}

impl Pattern {
    /// Reads a pattern for a table: `name` or `schema.name`.
    pub(super) fn table(text: &str) -> Result<Self> {
        let mut parts = split(text)?;
        match (parts.pop(), parts.pop(), parts.is_empty()) {
            (Some(name), schema, true) => Ok(Self { text: text.to_owned(), schema, name }),
            _ => Err(refuse(text, "has too many dots", "write table or schema.table; a dot in a name needs quotes")),
        }
    }

    /// Reads a pattern for a schema.
    pub(super) fn schema(text: &str) -> Result<Self> {
        let mut parts = split(text)?;
        match (parts.pop(), parts.is_empty()) {
            (Some(name), true) => Ok(Self { text: text.to_owned(), schema: None, name }),
            _ => Err(refuse(text, "has a dot", "write a schema's name; a dot in it needs quotes")),
        }
    }
}

fn refuse(text: &str, what: &str, hint: &str) -> Error {
    Error::invalid(format!("the pattern {text:?} {what}")).with_hint(hint)
}

/// The parts between dots, as regular expressions.
fn split(text: &str) -> Result<Vec<String>> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut is_quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                part.push('"');
            }
            '"' => is_quoted = !is_quoted,
            '.' if !is_quoted => parts.push(std::mem::take(&mut part)),
            '*' if !is_quoted => part.push_str(".*"),
            '?' if !is_quoted => part.push('.'),
            // A dollar ends a regular expression, and names have it more often than it is meant so.
            '$' => part.push_str("\\$"),
            // An array's type, not the beginning of a set.
            '[' if chars.peek() == Some(&']') => part.push_str("\\["),
            _ if is_quoted && "|*+?()[]{}.^\\".contains(char) => part.extend(['\\', char]),
            _ if is_quoted => part.push(char),
            _ => part.push(char.to_ascii_lowercase()),
        }
    }
    parts.push(part);
    if is_quoted {
        return Err(refuse(text, "lacks its closing quote", "a quote within quotes is written twice"));
    }
    if parts.iter().any(String::is_empty) {
        return Err(refuse(text, "has an empty part", "`*` stands for any name"));
    }
    Ok(parts.into_iter().map(|part| format!("^({part})$")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_the_regular_expressions_that_psql_makes() {
        let table = [
            ("Foo", None, "^(foo)$"),
            ("\"Foo\"", None, "^(Foo)$"),
            ("a*b?", None, "^(a.*b.)$"),
            ("\"a*b?\"", None, "^(a\\*b\\?)$"),
            ("s.t", Some("^(s)$"), "^(t)$"),
            ("\"S.x\".T*", Some("^(S\\.x)$"), "^(t.*)$"),
            ("a\"\"\"B\"c", None, "^(a\"Bc)$"),
            ("a$b", None, "^(a\\$b)$"),
            ("x[]", None, "^(x\\[])$"),
            ("(a|b)[0-9]+", None, "^((a|b)[0-9]+)$"),
            ("É\"É\"", None, "^(ÉÉ)$"),
        ];
        for (text, schema, name) in table {
            let pattern = Pattern::table(text).unwrap();
            assert_eq!((pattern.schema.as_deref(), pattern.name.as_str()), (schema, name), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in ["", "a.b.c", "\"a", ".a", "a."] {
            assert!(Pattern::table(text).is_err(), "{text}");
        }
        assert!(Pattern::schema("a.b").is_err());
        assert_eq!(Pattern::schema("\"a.b\"").unwrap().name, "^(a\\.b)$");
    }
}
