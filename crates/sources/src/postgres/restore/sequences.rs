//! Values of sequences: reading `sequences.sql`, and putting them back.

use super::super::sql::{Kind, Token, Tokens, literal, quote_in, statements};
use super::super::wire::Client;
use super::session::Sessions;
use lastgood_model::{Context, Error, Result};
use std::collections::HashMap;

/// Sequences dealt with in one statement.
const BATCH: usize = 200;

/// The value of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) last: i64,
    pub(super) is_called: bool,
}

impl Sequence {
    /// Where it is, as schema and name.
    pub(super) fn key(&self) -> (String, String) {
        (self.schema.clone(), self.name.clone())
    }
}

/// Reads the file, which holds nothing but `SELECT pg_catalog.setval('"schema"."name"', value, is_called);`.
pub(super) fn parse(sql: &str) -> Result<Vec<Sequence>> {
    statements(sql, true)
        .into_iter()
        .map(|statement| {
            sequence(statement).ok_or_else(|| {
                let shown: String = statement.chars().take(80).collect();
                Error::corrupt(format!("sequences.sql says {shown:?}"))
            })
        })
        .collect()
}

fn sequence(statement: &str) -> Option<Sequence> {
    let tokens: Vec<Token<'_>> = Tokens::new(statement, true).collect();
    let texts: Vec<&str> = tokens.iter().map(|token| token.text).collect();
    let [_, _, _, _, _, name, ..] = tokens[..] else { return None };
    let (last, is_called) = match texts[..] {
        ["SELECT", "pg_catalog", ".", "setval", "(", _, ",", last, ",", is_called, ")", ";"] => {
            (last.parse().ok()?, is_called)
        }
        ["SELECT", "pg_catalog", ".", "setval", "(", _, ",", "-", last, ",", is_called, ")", ";"] => {
            (format!("-{last}").parse().ok()?, is_called)
        }
        _ => return None,
    };
    let name = string(name)?;
    let parts: Vec<Token<'_>> = Tokens::new(&name, true).collect();
    let [schema, dot, name] = parts[..] else { return None };
    Some(Sequence {
        schema: schema.name().filter(|_| dot.is_sign("."))?,
        name: name.name()?,
        last,
        is_called: match is_called {
            "true" => true,
            "false" => false,
            _ => return None,
        },
    })
}

/// The text of a literal `'…'` or `E'…'` in which backslashes are only written twice.
fn string(token: Token<'_>) -> Option<String> {
    let text = token.text;
    if token.kind != Kind::Value || !text.ends_with('\'') {
        return None;
    }
    if let Some(inner) = text.strip_prefix('\'') {
        return Some(inner.strip_suffix('\'')?.replace("''", "'"));
    }
    let inner = text.strip_prefix("E'")?.strip_suffix('\'')?;
    Some(inner.replace("''", "'").replace("\\\\", "\\"))
}

/// Sets values, all sequences under the names that `places` has for them.
pub(super) fn set(client: &mut Client, sessions: &Sessions, sequences: &[Sequence]) -> Result<()> {
    for batch in sequences.chunks(BATCH) {
        sessions.check()?;
        let set = |sequence: &Sequence| {
            let name = literal(&quote_in(&sequence.schema, &sequence.name));
            format!("pg_catalog.setval({name}, {}, {})", sequence.last, sequence.is_called)
        };
        let sql = format!("SELECT {}", batch.iter().map(set).collect::<Vec<_>>().join(", "));
        client.batch(&sql).context("set the values of sequences")?;
    }
    Ok(())
}

/// Reads the values that these sequences have on a server; those that are not there are missing.
pub(super) fn read(client: &mut Client, wanted: &[Sequence]) -> Result<HashMap<(String, String), Sequence>> {
    let mut out = HashMap::with_capacity(wanted.len());
    for batch in wanted.chunks(BATCH) {
        let names: Vec<String> = batch.iter().map(|s| literal(&quote_in(&s.schema, &s.name))).collect();
        let there = format!(
            "SELECT n.at FROM pg_catalog.unnest(ARRAY[{}]) WITH ORDINALITY AS n(name, at) \
             WHERE pg_catalog.to_regclass(n.name) IS NOT NULL",
            names.join(", ")
        );
        let mut found = Vec::new();
        client.for_each_row(&there, |row| {
            found.extend(batch.get(row.parse::<usize>(0)?.wrapping_sub(1)));
            Ok(())
        })?;
        if found.is_empty() {
            continue;
        }
        let each = found.iter().enumerate().map(|(at, sequence)| {
            format!("SELECT {at}, last_value, is_called FROM ONLY {}", quote_in(&sequence.schema, &sequence.name))
        });
        client.for_each_row(&each.collect::<Vec<_>>().join(" UNION ALL "), |row| {
            if let Some(sequence) = found.get(row.parse::<usize>(0)?) {
                let value = Sequence { last: row.parse(1)?, is_called: row.is_true(2)?, ..(*sequence).clone() };
                out.insert(sequence.key(), value);
            }
            Ok(())
        })?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_whatever_sequences_are_called() {
        let sql = "SELECT pg_catalog.setval('\"public\".\"s\"', 42, false);\n\
                   SELECT pg_catalog.setval( E'\"a\\\\b;\".\"it''s \n\"\"x\"\"\"', -7, true);\n";
        let sequences = parse(sql).unwrap();
        let expected = [("public", "s", 42, false), ("a\\b;", "it's \n\"x\"", -7, true)];
        for (sequence, (schema, name, last, is_called)) in sequences.iter().zip(expected) {
            assert_eq!((sequence.schema.as_str(), sequence.name.as_str()), (schema, name));
            assert_eq!((sequence.last, sequence.is_called), (last, is_called));
        }
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn anything_else_in_the_file_is_refused() {
        for sql in [
            "DROP TABLE x;",
            "SELECT pg_catalog.setval('\"s\"', 42, false);",
            "SELECT pg_catalog.setval('\"a\".\"s\"', 1, true), 1;",
            "SELECT pg_catalog.setval('\"a\".\"s\"', x, true);",
            "SELECT pg_catalog.setval('\"a\".\"s\"', 1, true)",
        ] {
            assert!(parse(sql).is_err(), "{sql}");
        }
    }
}
