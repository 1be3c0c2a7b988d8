//! Digests of what a database says, independent of how it is laid out in the file.
//!
//! Two databases have the same digest exactly when they hold the same schema, the same `user_version` and
//! `application_id`, and the same rows; `VACUUM`, another page size or another order of insertion change nothing. It
//! is computed in one scan per table and without sorting: every row is hashed by itself, and the hashes are added up as
//! 256-bit numbers. (A sum, unlike an exclusive-or, counts equal rows. It finds accidents and mistakes; it is no proof
//! against someone who may choose rows to make two sums collide.)
//!
//! The recipe, so that others can repeat it. `u64` is eight bytes, big-endian; `bytes(x)` is `u64(length)` and `x`.
//! - value: `0x00` for NULL · `0x01` and the integer in eight bytes, two's complement · `0x02` and the IEEE 754 bits of
//!   a REAL in eight bytes · `0x03` and `bytes` of a TEXT as UTF-8 (in a UTF-8 database exactly the stored bytes, valid or
//!   not) · `0x04` and `bytes` of a BLOB
//! - row: SHA-256 over its values in column order. Left out are `VIRTUAL` generated columns, which are computed and not
//!   stored, and a rowid that no column names, which `VACUUM` may change.
//! - table: SHA-256 over `bytes(name)`, `u64(number of rows)` and the 256-bit big-endian sum of its rows' hashes
//! - schema: SHA-256 over `u64(number of entries)` and the sum of the hashes of the rows (type, name, tbl_name, sql) of
//!   `sqlite_schema`
//! - database: SHA-256 over `lastgood.sqlite.1`, the schema's digest, `u64(user_version)`, `u64(application_id)` and
//!   the digests of all tables, ascending by the bytes of their names
//!
//! Ordinary tables are digested, among them the shadow tables in which FTS, R-Tree and alike keep their content. Virtual
//! tables themselves and views hold nothing of their own and count with their schema only.

use super::errors::explain;
use aws_lc_rs::digest::{Context, SHA256, digest};
use lastgood_model::{Id, Result};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use std::collections::BTreeMap;
use std::path::Path;

/// What a scan of all tables found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Digest of the schema, lower-case hex.
    pub schema_digest: String,
    /// Rows of each ordinary table.
    pub rows: BTreeMap<String, u64>,
    /// Digest of the whole database, lower-case hex, where asked for and every table could be read.
    pub logical_digest: Option<String>,
    /// Tables that could not be read, each with the reason.
    pub unread: BTreeMap<String, String>,
}

/// The digest of everything in the database at `path` open as `conn`, in one read transaction (the one that is open, or
/// one of its own).
pub fn logical_digest(conn: &Connection, path: &Path) -> Result<Content> {
    read_content(conn, path, true)
}

/// The schema's digest and the number of rows of each table.
pub fn row_counts(conn: &Connection, path: &Path) -> Result<Content> {
    read_content(conn, path, false)
}

fn read_content(conn: &Connection, path: &Path, full: bool) -> Result<Content> {
    let own = conn.is_autocommit();
    let failed = |e| explain(path, "read the content of", e);
    if own {
        conn.execute_batch("BEGIN").map_err(failed)?;
    }
    let content = scan(conn, full).map_err(failed);
    if own {
        // Nothing was written; ending the transaction cannot lose anything.
        let _ = conn.execute_batch("ROLLBACK");
    }
    content
}

fn scan(conn: &Connection, full: bool) -> rusqlite::Result<Content> {
    let mut content = Content::default();
    let schema = {
        let mut statement = conn.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema")?;
        sum_rows(&mut statement)?
    };
    let mut context = Context::new(&SHA256);
    context.update(&schema.rows.to_be_bytes());
    context.update(&schema.sum.to_be_bytes());
    let schema_digest = context.finish();
    content.schema_digest = hex(schema_digest.as_ref());

    let mut whole = Context::new(&SHA256);
    whole.update(b"lastgood.sqlite.1");
    whole.update(schema_digest.as_ref());
    for pragma in ["PRAGMA user_version", "PRAGMA application_id"] {
        whole.update(&conn.query_row(pragma, [], |row| row.get::<_, i64>(0))?.to_be_bytes());
    }
    for (name, is_text) in tables(conn)? {
        let counted = if is_text { read_table(conn, &name, full) } else { Err(rusqlite::Error::InvalidQuery) };
        match counted {
            Ok(table) => {
                whole.update(table.digest(&name).as_ref());
                content.rows.insert(name, table.rows);
            }
            // A stop is a stop; any other trouble concerns this table only.
            Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => return Err(e),
            Err(e) => {
                let reason = if is_text { e.to_string() } else { "its name is not valid UTF-8".to_owned() };
                content.unread.insert(name, reason);
            }
        }
    }
    if full && content.unread.is_empty() {
        content.logical_digest = Some(hex(whole.finish().as_ref()));
    }
    Ok(content)
}

/// Names of all tables with content of their own, ascending by bytes, and whether the name is valid UTF-8.
fn tables(conn: &Connection) -> rusqlite::Result<Vec<(String, bool)>> {
    // Binary collation compares bytes. Virtual tables have no root page.
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name COLLATE BINARY";
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut names = Vec::new();
    while let Some(row) = rows.next()? {
        let name = row.get_ref(0)?.as_bytes().unwrap_or_default();
        match std::str::from_utf8(name) {
            Ok(name) => names.push((name.to_owned(), true)),
            Err(_) => names.push((String::from_utf8_lossy(name).into_owned(), false)),
        }
    }
    Ok(names)
}

fn read_table(conn: &Connection, name: &str, full: bool) -> rusqlite::Result<Sum> {
    let table = quoted(name);
    if !full {
        // NOT INDEXED: count the table's own b-tree, not an index that could disagree with it.
        let sql = format!("SELECT count(*) FROM main.{table} NOT INDEXED");
        let rows: i64 = conn.query_row(&sql, [], |row| row.get(0))?;
        return Ok(Sum { rows: rows.cast_unsigned(), ..Sum::default() });
    }
    let columns = {
        let mut statement =
            conn.prepare("SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 2 ORDER BY cid")?;
        let names = statement.query_map([name], |row| row.get::<_, String>(0))?;
        names.map(|name| name.map(|name| quoted(&name))).collect::<rusqlite::Result<Vec<_>>>()?
    };
    let mut statement = conn.prepare(&format!("SELECT {} FROM main.{table} NOT INDEXED", columns.join(", ")))?;
    sum_rows(&mut statement)
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    rows: u64,
    sum: U256,
}

impl Sum {
    fn digest(&self, name: &str) -> aws_lc_rs::digest::Digest {
        let mut context = Context::new(&SHA256);
        context.update(&(name.len() as u64).to_be_bytes());
        context.update(name.as_bytes());
        context.update(&self.rows.to_be_bytes());
        context.update(&self.sum.to_be_bytes());
        context.finish()
    }
}

fn sum_rows(statement: &mut rusqlite::Statement<'_>) -> rusqlite::Result<Sum> {
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut sum = Sum::default();
    let mut bytes = Vec::new();
    while let Some(row) = rows.next()? {
        bytes.clear();
        for column in 0..columns {
            push_value(&mut bytes, row.get_ref(column)?);
        }
        sum.rows += 1;
        sum.sum.add(digest(&SHA256, &bytes).as_ref());
    }
    Ok(sum)
}

fn push_value(out: &mut Vec<u8>, value: ValueRef<'_>) {
    let (tag, bytes) = match value {
        ValueRef::Null => return out.push(0),
        ValueRef::Integer(i) => {
            out.push(1);
            return out.extend_from_slice(&i.to_be_bytes());
        }
        ValueRef::Real(r) => {
            out.push(2);
            return out.extend_from_slice(&r.to_bits().to_be_bytes());
        }
        ValueRef::Text(t) => (3, t),
        ValueRef::Blob(b) => (4, b),
    };
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A 256-bit number that wraps around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct U256 {
    high: u128,
    low: u128,
}

impl U256 {
    fn add(&mut self, bytes: &[u8]) {
        let half = |from: usize| {
            let mut half = [0; 16];
            half.copy_from_slice(&bytes[from..from + 16]);
            u128::from_be_bytes(half)
        };
        let (low, carry) = self.low.overflowing_add(half(16));
        self.low = low;
        self.high = self.high.wrapping_add(half(0)).wrapping_add(u128::from(carry));
    }

    fn to_be_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.high.to_be_bytes());
        bytes[16..].copy_from_slice(&self.low.to_be_bytes());
        bytes
    }
}

/// An identifier as SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A SHA-256 as lower-case hex.
pub(super) fn hex(sha256: &[u8]) -> String {
    let mut id = Id::default();
    id.0.copy_from_slice(sha256);
    id.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(sql: &str) -> Content {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(sql).unwrap();
        logical_digest(&conn, Path::new(":memory:")).unwrap()
    }

    #[test]
    fn sums_carry_and_wrap() {
        let mut sum = U256 { high: u128::MAX, low: u128::MAX };
        let mut one = [0; 32];
        one[31] = 1;
        sum.add(&one);
        assert_eq!(sum, U256::default());
        sum.add(&[0xff; 32]);
        sum.add(&one);
        assert_eq!(sum.to_be_bytes(), [0; 32]);
    }

    #[test]
    fn values_that_print_alike_have_different_digests() {
        let values = [
            "NULL",
            "''",
            "x''",
            "0",
            "0.0",
            "'0'",
            "x'30'",
            "'0.0'",
            "1",
            "-1",
            "1.0",
            "'1'",
            "'a'",
            "'A'",
            "'a '",
            "'a' || char(0)",
            "'a' || char(0) || 'b'",
            "CAST(x'ff' AS TEXT)",
            "CAST(x'fe' AS TEXT)",
            "x'ff'",
            "9223372036854775807",
            "-9223372036854775808",
            "9e999",
            "-9e999",
            "1e-320",
            "0.1",
            "0.30000000000000004",
        ];
        let mut seen = BTreeMap::new();
        for value in values {
            let digest = digest_of(&format!("CREATE TABLE t(a); INSERT INTO t VALUES ({value})"));
            assert_eq!(digest.rows["t"], 1);
            if let Some(other) = seen.insert(digest.logical_digest.unwrap(), value) {
                panic!("{value} and {other} have one digest");
            }
        }
    }

    #[test]
    fn order_of_insertion_does_not_matter_and_repetition_does() {
        let table = "CREATE TABLE t(a, b);";
        let ab = digest_of(&format!("{table} INSERT INTO t VALUES (1, 2), (3, 4)"));
        let ba = digest_of(&format!("{table} INSERT INTO t VALUES (3, 4), (1, 2)"));
        assert_eq!(ab, ba);
        for other in
            ["(1, 2), (3, 4), (3, 4)", "(1, 2), (1, 2)", "(2, 1), (3, 4)", "(1, 2), (4, 3)", "(1, 2), (3, NULL)"]
        {
            let digest = digest_of(&format!("{table} INSERT INTO t VALUES {other}"));
            assert_ne!(ab.logical_digest, digest.logical_digest, "{other}");
        }
    }

    #[test]
    fn a_value_that_moves_to_a_neighbour_column_changes_the_digest() {
        let one = digest_of("CREATE TABLE t(a, b); INSERT INTO t VALUES ('ab', 'c')");
        let two = digest_of("CREATE TABLE t(a, b); INSERT INTO t VALUES ('a', 'bc')");
        assert_ne!(one.logical_digest, two.logical_digest);
    }

    #[test]
    fn generated_columns_names_of_all_sorts_and_tables_without_rowid_are_read() {
        let content = digest_of(
            "CREATE TABLE \"we\"\"ird na'me\"(\"a b\" PRIMARY KEY, c AS (\"a b\" || 1), d AS (\"a b\" || 2) STORED) WITHOUT ROWID;
             INSERT INTO \"we\"\"ird na'me\" VALUES ('x'), ('y');
             CREATE VIEW v AS SELECT gone FROM nowhere;
             CREATE TABLE empty(a)",
        );
        assert_eq!(content.rows, BTreeMap::from([("empty".into(), 0), ("we\"ird na'me".into(), 2)]));
        assert!(content.unread.is_empty() && content.logical_digest.is_some());
    }

    #[test]
    fn schema_and_header_numbers_count() {
        let base = digest_of("CREATE TABLE t(a)");
        for sql in [
            "CREATE TABLE t(a INTEGER)",
            "CREATE TABLE t(a); CREATE INDEX i ON t(a)",
            "CREATE TABLE t(a); CREATE VIEW v AS SELECT 1",
            "CREATE TABLE t(a); PRAGMA user_version = 3",
            "CREATE TABLE t(a); PRAGMA application_id = 3",
            "CREATE TABLE u(a)",
        ] {
            assert_ne!(digest_of(sql).logical_digest, base.logical_digest, "{sql}");
        }
    }
}
