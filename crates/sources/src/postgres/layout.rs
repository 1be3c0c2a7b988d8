//! Where things lie in the folder of a PostgreSQL source, and the lines of `tables.json`. Written by a capture, read by a
//! restore; described for others in `docs/format.md`.

use super::rows::RowDigest;
use super::sql::{quote, quote_in};
use super::toc::Text;
use lastgood_model::{Context, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Roles and tablespaces of the server.
pub const GLOBALS: &str = "globals.sql";
/// In a database's folder: its schema, entry by entry.
pub const TOC: &str = "toc.json";
/// In a database's folder: what must be there before the rows, as SQL.
pub const PRE_DATA: &str = "pre-data.sql";
/// In a database's folder: what must wait for the rows, as SQL.
pub const POST_DATA: &str = "post-data.sql";
/// In a database's folder: its settings, privileges, comment and owner, as SQL.
pub const DATABASE: &str = "database.sql";
/// In a database's folder: its tables, one [`TableRecord`] a line.
pub const TABLES: &str = "tables.json";
/// In a database's folder: one `setval` a sequence.
pub const SEQUENCES: &str = "sequences.sql";
/// In a database's folder: makes the large objects, without their content.
pub const LARGE_OBJECTS_SQL: &str = "large-objects.sql";
/// In a database's folder: the large objects' content.
pub const LARGE_OBJECTS_ROWS: &str = "large-objects.copy";

/// The folder of a database: its name with every byte but ASCII letters, digits, `_`, `-` and inner `.` as `%XX`.
pub fn database_folder(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        let is_inner = at > 0 && at + 1 < name.len();
        // A database may be called as a file beside the folders is.
        let is_plain = byte.is_ascii_alphanumeric() || b"_-".contains(&byte) || byte == b'.' && is_inner;
        if is_plain && !(byte == b'.' && name == GLOBALS) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The database that a folder was made for. `None` for what [`database_folder`] never makes.
pub fn database_name(folder: &str) -> Option<String> {
    let mut name = Vec::with_capacity(folder.len());
    let mut rest = folder.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            name.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            name.push(byte);
            rest = after;
        }
    }
    let name = String::from_utf8(name).ok()?;
    (!name.is_empty() && database_folder(&name) == folder).then_some(name)
}

/// A file of a database.
pub fn in_database(folder: &str, file: &str) -> String {
    format!("{folder}/{file}")
}

/// The COPY statement of a table.
pub fn copy_statement_path(folder: &str, oid: u32) -> String {
    format!("{folder}/data/{oid}/copy.sql")
}

/// The rows of one part of a table.
pub fn slab_path(folder: &str, oid: u32, slab: u32) -> String {
    format!("{folder}/data/{oid}/{slab:08}.copy")
}

/// A row of that part which has no text, in the binary format.
pub fn long_row_path(folder: &str, oid: u32, slab: u32, number: u32) -> String {
    format!("{folder}/data/{oid}/{slab:08}-{number:04}.binary")
}

/// What a line of `tables.json` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableKind {
    /// A table with rows of its own; a partition, too.
    Table,
    /// A table all of whose rows are in its partitions.
    Partitioned,
    /// A materialized view: no rows are kept, it is refreshed.
    MaterializedView,
    /// A foreign table: its rows are elsewhere.
    Foreign,
}

/// A line of `tables.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    /// Its OID in the source, and the name of its folder in `data`.
    pub oid: u32,
    /// The schema it is in.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// How its strings stand for bytes.
    #[serde(default, skip_serializing_if = "Text::is_utf8")]
    pub text: Text,
    /// What it is.
    pub kind: TableKind,
    /// The columns whose values are kept, in the order in which they stand in the rows; generated ones are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
    /// Rows are in the encoding of this name. Absent where no rows are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Its parts, in order: the first is `00000000.copy`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartRecord>,
    /// Rows and digest of all parts together. Absent where no rows are kept; see `left_out`.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub total: Option<RowDigest>,
    /// Why rows that are there are not kept, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    /// The condition that an extension set for its rows to be kept: `WHERE …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// The extension it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<String>,
    /// For a partition the uppermost partitioned table, as schema and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<(String, String)>,
    /// Rows must go through `root`: which partition they belong to is not the same in every database.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub load_through_root: bool,
    /// Unlogged: empty after a crash of the server, and on its standbys.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlogged: bool,
    /// A materialized view that can be read, and so is to be refreshed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub populated: bool,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as SQL.
    #[serde(rename = "type")]
    pub type_name: String,
}

/// A part of a table's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// Length of its file.
    pub bytes: u64,
    /// Rows and digest of the rows in that file.
    #[serde(flatten)]
    pub total: RowDigest,
    /// The rows that have no text, each with a file of its own; by their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub long_rows: Vec<LongRow>,
}

/// A row that is too long for a text, kept in the binary format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongRow {
    /// Length of its file.
    pub bytes: u64,
    /// One row, and its digest.
    #[serde(flatten)]
    pub total: RowDigest,
}

impl PartRecord {
    /// Rows and digest of all its rows.
    pub fn all_rows(&self) -> RowDigest {
        let mut sum = self.total;
        self.long_rows.iter().for_each(|row| sum.add(&row.total));
        sum
    }

    /// Length of all its files.
    pub fn all_bytes(&self) -> u64 {
        self.bytes + self.long_rows.iter().map(|row| row.bytes).sum::<u64>()
    }
}

impl TableRecord {
    /// Its name as SQL.
    pub fn sql_name(&self) -> String {
        quote_in(&self.schema, &self.name)
    }

    /// The statement that takes in its rows, through the partitioned table above it where they must go that way.
    pub fn copy_from(&self) -> String {
        let columns = column_list(&self.columns);
        let encoding = self.encoding.as_deref().unwrap_or("UTF8");
        let into = match &self.root {
            Some((schema, name)) if self.load_through_root => quote_in(schema, name),
            _ => self.sql_name(),
        };
        format!("COPY {into}{columns} FROM STDIN WITH (ENCODING '{encoding}');\n")
    }

    /// Brings its strings to the form of `text`. From [`Text::Bytes`] there is no way back.
    pub(super) fn bring_to(&mut self, text: Text) {
        if self.text == text || text == Text::Utf8 {
            return;
        }
        self.text = text;
        let columns = self.columns.iter_mut().flat_map(|column| [&mut column.name, &mut column.type_name]);
        let root = self.root.iter_mut().flat_map(|(schema, name)| [schema, name]);
        let others = [&mut self.condition, &mut self.extension].into_iter().flatten();
        for string in [&mut self.schema, &mut self.name].into_iter().chain(columns).chain(root).chain(others) {
            *string = text.of_utf8(string).into_owned();
        }
    }

    /// Length of all its parts.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(PartRecord::all_bytes).sum()
    }

    /// As a line, with its newline.
    pub fn to_line(&self) -> Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)
            .map_err(|e| Error::new(ErrorKind::Bug, "write a line of tables.json").with_source(e))?;
        line.push(b'\n');
        Ok(line)
    }

    /// From a line.
    pub fn from_line(line: &[u8]) -> Result<Self> {
        serde_json::from_slice(line).context("read a line of tables.json")
    }
}

/// Columns in brackets, with a space before; nothing for no columns, which SQL cannot say and means all of none.
pub(super) fn column_list(columns: &[Column]) -> String {
    if columns.is_empty() {
        return String::new();
    }
    let names: Vec<String> = columns.iter().map(|column| quote(&column.name)).collect();
    format!(" ({})", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgood_model::node::is_safe_name;

    #[test]
    fn every_name_of_a_database_becomes_one_safe_folder_and_comes_back() {
        let table = [
            ("shop", "shop"),
            ("Shop_2-x", "Shop_2-x"),
            ("a.b", "a.b"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            (".a.", "%2Ea%2E"),
            ("a/b", "a%2Fb"),
            ("100%", "100%25"),
            ("é \n", "%C3%A9%20%0A"),
            ("globals.sql", "globals%2Esql"),
        ];
        for (name, folder) in table {
            assert_eq!(database_folder(name), folder);
            assert_eq!(database_name(folder).as_deref(), Some(name));
            assert!(is_safe_name(folder.as_bytes()), "{folder}");
        }
        for foreign in ["", "a%2", "a%zz", "a%2f", "é", "a b", ".a", "%61", "%FF", "globals.sql"] {
            assert_eq!(database_name(foreign), None, "{foreign:?}");
        }
    }

    fn record() -> TableRecord {
        TableRecord {
            oid: 16385,
            schema: "public".into(),
            name: "a\"b".into(),
            text: Text::Utf8,
            kind: TableKind::Table,
            columns: vec![Column { name: "Id".into(), type_name: "integer".into() }],
            encoding: Some("UTF8".into()),
            parts: vec![PartRecord { bytes: 4, total: RowDigest { rows: 2, digest: 1 }, long_rows: Vec::new() }],
            total: Some(RowDigest { rows: 2, digest: 1 }),
            left_out: None,
            condition: None,
            extension: None,
            root: None,
            load_through_root: false,
            unlogged: false,
            populated: false,
        }
    }

    #[test]
    fn a_line_reads_back_as_written() {
        let line = String::from_utf8(record().to_line().unwrap()).unwrap();
        let digest = "00000000000000000000000000000001";
        assert_eq!(
            line,
            format!(
                "{{\"oid\":16385,\"schema\":\"public\",\"name\":\"a\\\"b\",\"kind\":\"table\",\
                 \"columns\":[{{\"name\":\"Id\",\"type\":\"integer\"}}],\"encoding\":\"UTF8\",\
                 \"parts\":[{{\"bytes\":4,\"rows\":2,\"digest\":\"{digest}\"}}],\"rows\":2,\"digest\":\"{digest}\"}}\n"
            )
        );
        assert_eq!(TableRecord::from_line(line.as_bytes()).unwrap(), record());
        let mut view = record();
        (view.kind, view.total, view.parts, view.populated) = (TableKind::MaterializedView, None, Vec::new(), true);
        assert_eq!(TableRecord::from_line(&view.to_line().unwrap()).unwrap(), view);
        assert!(TableRecord::from_line(b"{}").is_err());
    }

    #[test]
    fn names_are_quoted_and_a_table_without_columns_names_none() {
        let mut table = record();
        assert_eq!(table.copy_from(), "COPY \"public\".\"a\"\"b\" (\"Id\") FROM STDIN WITH (ENCODING 'UTF8');\n");
        table.columns.clear();
        assert_eq!(table.copy_from(), "COPY \"public\".\"a\"\"b\" FROM STDIN WITH (ENCODING 'UTF8');\n");
    }
}
