//! The values of sequences. They obey no snapshot: what was handed out stays handed out, whoever rolls back. So they are
//! read after all rows, and are then never behind them.

use super::catalog::Relation;
use super::sql::{literal, quote_in};
use super::wire::Client;
use lastgood_model::{Context, Error, ErrorKind, Result};
use std::collections::HashMap;
use std::fmt::Write;

/// Sequences read in one statement.
const BATCH: usize = 100;

/// The state of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value {
    /// The last value handed out, or the first to be.
    pub(super) last: i64,
    /// It was handed out.
    pub(super) is_called: bool,
}

/// Reads the values of sequences, in their order. Whoever does so within a transaction keeps them from being dropped
/// until its end; nobody who uses them waits.
pub(super) fn read(client: &mut Client, sequences: &[Relation]) -> Result<Vec<Value>> {
    let mut found = HashMap::with_capacity(sequences.len());
    for batch in sequences.chunks(BATCH) {
        let each = |sequence: &Relation| {
            format!(
                "SELECT {}::pg_catalog.int8, last_value, is_called FROM ONLY {}",
                sequence.oid,
                quote_in(&sequence.schema, &sequence.name)
            )
        };
        let sql = batch.iter().map(each).collect::<Vec<_>>().join(" UNION ALL ");
        client
            .for_each_row(&sql, |row| {
                found.insert(row.parse::<u32>(0)?, Value { last: row.parse(1)?, is_called: row.is_true(2)? });
                Ok(())
            })
            .context("read sequences")?;
    }
    sequences
        .iter()
        .map(|sequence| {
            found.get(&sequence.oid).copied().ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, format!("the server gave no value for sequence {}", sequence.shown()))
            })
        })
        .collect()
}

/// `sequences.sql`: one `setval` a line.
pub(super) fn script(sequences: &[Relation], values: &[Value]) -> String {
    let mut out = String::new();
    for (sequence, value) in sequences.iter().zip(values) {
        let name = literal(&quote_in(&sequence.schema, &sequence.name));
        // Writing to a string cannot fail.
        let _ = writeln!(out, "SELECT pg_catalog.setval({name}, {}, {});", value.last, value.is_called);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sequence_is_a_line_and_a_first_value_stays_to_be_handed_out() {
        let sequence = |name: &str| Relation {
            oid: 1,
            schema: "public".into(),
            name: name.into(),
            kind: None,
            is_unlogged: false,
            is_populated: true,
            is_heap: false,
            extension: None,
            condition: None,
            root: None,
            load_through_root: false,
            may_select: true,
            may_use_schema: true,
        };
        let values = [Value { last: 42, is_called: false }, Value { last: -7, is_called: true }];
        assert_eq!(
            script(&[sequence("s"), sequence("it's \"x\"")], &values),
            "SELECT pg_catalog.setval('\"public\".\"s\"', 42, false);\n\
             SELECT pg_catalog.setval('\"public\".\"it''s \"\"x\"\"\"', -7, true);\n"
        );
    }
}
