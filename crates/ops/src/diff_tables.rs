//! The difference between a PostgreSQL source in two recovery points: tables with their rows, and everything else that
//! its schema has. Equal trees and files are never opened, and no row is read: `tables.json` has what tells two states of
//! a table apart.

use crate::diff::Change;
use crate::restore_server::KIND;
use crate::saved::SourceFolder;
use lastgood_model::manifest::Manifest;
use lastgood_model::saved::SavedFiles;
use lastgood_model::{Context, Error, ErrorKind, Monitor, Node, NodeKind, Result};
use lastgood_sources::postgres::layout::{self, TableKind, TableRecord};
use lastgood_sources::postgres::toc::{Entry, Toc};
use serde::Serialize;
use std::collections::BTreeMap;

/// Entries of a table of contents that are no objects of the schema, or are told as tables and sequences.
const NO_OBJECTS: [&str; 8] =
    ["ENCODING", "STDSTRINGS", "SEARCHPATH", "TABLE DATA", "SEQUENCE SET", "BLOBS", "BLOB", "STATISTICS DATA"];

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableDifference {
    /// The database.
    pub database: String,
    /// How it differs. [`Change::Metadata`] is a table whose rows are the same, but which was renamed or has other
    /// columns.
    pub change: Change,
    /// What it is: `database`, `table`, `sequences`, `large objects`, `roles`, or `INDEX`, `FUNCTION` and so on as
    /// `pg_dump` calls it.
    pub what: String,
    /// Its name; empty for what there is only one of.
    pub name: String,
    /// Its name in the older point, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_before: Option<String>,
    /// Rows in the older point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_before: Option<u64>,
    /// Rows in the newer one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Bytes of rows in the older point, as kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_before: Option<u64>,
    /// Bytes of rows in the newer one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl TableDifference {
    fn new(database: &str, change: Change, what: &str, name: String) -> Self {
        Self {
            database: database.to_owned(),
            change,
            what: what.to_owned(),
            name,
            name_before: None,
            rows_before: None,
            rows: None,
            bytes_before: None,
            bytes: None,
        }
    }
}

/// True when a source by this name is of the kind that is compared here, in both recovery points.
pub fn applies(old: Option<&Manifest>, new: Option<&Manifest>, source: &str) -> bool {
    let is = |manifest: Option<&Manifest>| manifest.and_then(|m| m.source(source)).is_some_and(|s| s.kind == KIND);
    is(old) && is(new)
}

/// Tells every difference: databases by name; in each first tables, then what else it has, each by name.
pub fn diff_tables(
    old: &SourceFolder,
    new: &SourceFolder,
    monitor: &Monitor,
    tell: &mut dyn FnMut(TableDifference) -> Result<()>,
) -> Result<()> {
    let (olds, news) = (by_name(old.list(b"")?), by_name(new.list(b"")?));
    if let Some(change) = file_change(&olds, &news, layout::GLOBALS) {
        tell(TableDifference::new("", change, "roles", String::new()))?;
    }
    let mut folders: Vec<&Vec<u8>> = olds.keys().chain(news.keys()).collect();
    folders.sort();
    folders.dedup();
    for folder in folders {
        monitor.check_cancelled()?;
        let text = String::from_utf8_lossy(folder);
        let is_dir = |nodes: &BTreeMap<Vec<u8>, Node>| nodes.get(folder).is_some_and(|node| node.kind == NodeKind::Dir);
        let Some(name) = layout::database_name(&text) else { continue };
        match (is_dir(&olds), is_dir(&news)) {
            (true, false) => tell(TableDifference::new(&name, Change::Removed, "database", String::new()))?,
            (false, true) => tell(TableDifference::new(&name, Change::Added, "database", String::new()))?,
            (true, true) if olds[folder].subtree != news[folder].subtree => {
                database(&name, &text, old, new, tell).with_context(|| format!("compare database {name:?}"))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn by_name(nodes: Vec<Node>) -> BTreeMap<Vec<u8>, Node> {
    nodes.into_iter().map(|node| (node.name.clone(), node)).collect()
}

/// How a file differs, by the names of its blobs.
fn file_change(olds: &BTreeMap<Vec<u8>, Node>, news: &BTreeMap<Vec<u8>, Node>, name: &str) -> Option<Change> {
    match (olds.get(name.as_bytes()), news.get(name.as_bytes())) {
        (Some(old), Some(new)) => (old.content != new.content).then_some(Change::Modified),
        (Some(_), None) => Some(Change::Removed),
        (None, Some(_)) => Some(Change::Added),
        (None, None) => None,
    }
}

fn database(
    name: &str,
    folder: &str,
    old: &SourceFolder,
    new: &SourceFolder,
    tell: &mut dyn FnMut(TableDifference) -> Result<()>,
) -> Result<()> {
    let (olds, news) = (by_name(old.list(folder.as_bytes())?), by_name(new.list(folder.as_bytes())?));
    let path = |file: &str| layout::in_database(folder, file).into_bytes();
    if file_change(&olds, &news, layout::TABLES).is_some() {
        let (before, now) = (tables(old, &path(layout::TABLES))?, tables(new, &path(layout::TABLES))?);
        compare_tables(name, &before, &now, tell)?;
    }
    if file_change(&olds, &news, layout::TOC).is_some() {
        let (before, now) = (toc(old, &path(layout::TOC))?, toc(new, &path(layout::TOC))?);
        compare_objects(name, &before, &now, tell)?;
    }
    if let Some(change) = file_change(&olds, &news, layout::SEQUENCES) {
        tell(TableDifference::new(name, change, "sequences", String::new()))?;
    }
    let objects = file_change(&olds, &news, layout::LARGE_OBJECTS_ROWS);
    if let Some(change) = objects.or_else(|| file_change(&olds, &news, layout::LARGE_OBJECTS_SQL)) {
        tell(TableDifference::new(name, change, "large objects", String::new()))?;
    }
    Ok(())
}

/// `None` is an error only where the file is damaged: without a schema or rows the file is not there.
fn read(folder: &SourceFolder, path: &[u8]) -> Result<Option<Vec<u8>>> {
    match folder.read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::Absent => Ok(None),
        Err(error) => Err(error),
    }
}

fn tables(folder: &SourceFolder, path: &[u8]) -> Result<Vec<TableRecord>> {
    let bytes = read(folder, path)?.unwrap_or_default();
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(TableRecord::from_line).collect()
}

fn toc(folder: &SourceFolder, path: &[u8]) -> Result<Vec<Entry>> {
    Ok(match read(folder, path)? {
        Some(bytes) => Toc::read_json(&mut bytes.as_slice())?.entries,
        None => Vec::new(),
    })
}

fn shown(table: &TableRecord) -> String {
    format!("{}.{}", table.schema, table.name)
}

/// Tables by their names; what has another name, but its number and no counterpart by name, was renamed.
fn compare_tables(
    database: &str,
    before: &[TableRecord],
    now: &[TableRecord],
    tell: &mut dyn FnMut(TableDifference) -> Result<()>,
) -> Result<()> {
    let named = |tables: &[TableRecord]| -> BTreeMap<(String, String), usize> {
        tables.iter().enumerate().map(|(at, table)| ((table.schema.clone(), table.name.clone()), at)).collect()
    };
    let (names_before, names_now) = (named(before), named(now));
    let renamed = |table: &TableRecord| {
        let old = before.iter().find(|old| old.oid == table.oid && old.kind == table.kind)?;
        let is_gone = !names_now.contains_key(&(old.schema.clone(), old.name.clone()));
        (is_gone && old.columns == table.columns).then_some(old)
    };
    let mut differences: Vec<TableDifference> = Vec::new();
    let mut counterparts: Vec<u32> = Vec::new();
    for (name, at) in &names_now {
        let table = &now[*at];
        let old = names_before.get(name).map(|at| &before[*at]).or_else(|| renamed(table));
        counterparts.extend(old.map(|old| old.oid));
        differences.extend(compare_table(database, old, table));
    }
    for (name, at) in &names_before {
        let table = &before[*at];
        if names_now.contains_key(name) || counterparts.contains(&table.oid) {
            continue;
        }
        let mut difference = TableDifference::new(database, Change::Removed, what(table), shown(table));
        (difference.rows_before, difference.bytes_before) = counts(table);
        differences.push(difference);
    }
    differences.sort_by(|a, b| a.name.cmp(&b.name));
    differences.into_iter().try_for_each(tell)
}

fn compare_table(database: &str, old: Option<&TableRecord>, table: &TableRecord) -> Option<TableDifference> {
    let change = match old {
        None => Change::Added,
        Some(old) if old.kind != table.kind => Change::Type,
        Some(old) if old.total != table.total => Change::Modified,
        Some(old) if old.columns != table.columns || shown(old) != shown(table) => Change::Metadata,
        Some(_) => return None,
    };
    let mut difference = TableDifference::new(database, change, what(table), shown(table));
    (difference.rows, difference.bytes) = counts(table);
    if let Some(old) = old {
        (difference.rows_before, difference.bytes_before) = counts(old);
        difference.name_before = (shown(old) != shown(table)).then(|| shown(old));
    }
    Some(difference)
}

fn counts(table: &TableRecord) -> (Option<u64>, Option<u64>) {
    (table.total.map(|total| total.rows), table.total.map(|_| table.bytes()))
}

fn what(table: &TableRecord) -> &'static str {
    match table.kind {
        TableKind::Table => "table",
        TableKind::Partitioned => "partitioned table",
        TableKind::MaterializedView => "materialized view",
        TableKind::Foreign => "foreign table",
    }
}

/// Everything that an object is told by, apart from numbers that differ from dump to dump.
type Meaning<'e> = (&'e str, Option<&'e str>, Option<&'e str>, Option<&'e str>);
/// What an object is, the schema it is in, and its name.
type Identity<'e> = (&'e str, &'e str, &'e str);

fn compare_objects(
    database: &str,
    before: &[Entry],
    now: &[Entry],
    tell: &mut dyn FnMut(TableDifference) -> Result<()>,
) -> Result<()> {
    let (before, now) = (objects(before), objects(now));
    let mut keys: Vec<&Identity<'_>> = before.keys().chain(now.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let change = match (before.get(key), now.get(key)) {
            (Some(old), Some(new)) if old == new => continue,
            (Some(_), Some(_)) => Change::Modified,
            (Some(_), None) => Change::Removed,
            _ => Change::Added,
        };
        let (what, schema, name) = *key;
        let name = if schema.is_empty() { name.to_owned() } else { format!("{schema}.{name}") };
        // The rows of a table are compared by themselves; this is its definition.
        let what = if what == "TABLE" { "definition of TABLE" } else { what };
        tell(TableDifference::new(database, change, what, name))?;
    }
    Ok(())
}

fn objects(entries: &[Entry]) -> BTreeMap<Identity<'_>, Vec<Meaning<'_>>> {
    let mut out: BTreeMap<Identity<'_>, Vec<Meaning<'_>>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !NO_OBJECTS.contains(&entry.desc.as_str())) {
        let key = (entry.desc.as_str(), entry.namespace.as_deref().unwrap_or_default(), entry.tag.as_str());
        let meaning =
            (entry.definition(), entry.owner.as_deref(), entry.tablespace.as_deref(), entry.table_am.as_deref());
        out.entry(key).or_default().push(meaning);
    }
    out.values_mut().for_each(|meanings| meanings.sort_unstable());
    out
}

/// Refuses what has no tables to compare.
///
/// # Errors
/// [`ErrorKind::Absent`] for a source that one of the points does not have.
pub fn require_source(manifest: Option<&Manifest>, source: &str) -> Result<()> {
    let Some(manifest) = manifest else { return Ok(()) };
    match manifest.source(source) {
        Some(_) => Ok(()),
        None => {
            let known: Vec<&str> = manifest.sources.iter().map(|source| source.name.as_str()).collect();
            Err(Error::new(ErrorKind::Absent, format!("there is no source {source:?} in one of the recovery points"))
                .with_hint(format!("it has: {}", known.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgood_sources::postgres::layout::{Column, PartRecord};
    use lastgood_sources::postgres::rows::RowDigest;

    fn table(oid: u32, name: &str, rows: u64, digest: u128) -> TableRecord {
        let total = RowDigest { rows, digest };
        TableRecord {
            text: Default::default(),
            oid,
            schema: "public".into(),
            name: name.into(),
            kind: TableKind::Table,
            columns: vec![Column { name: "id".into(), type_name: "integer".into() }],
            encoding: Some("UTF8".into()),
            parts: vec![PartRecord { bytes: rows * 2, total, ..PartRecord::default() }],
            total: Some(total),
            left_out: None,
            condition: None,
            extension: None,
            root: None,
            load_through_root: false,
            unlogged: false,
            populated: false,
        }
    }

    fn told(before: &[TableRecord], now: &[TableRecord]) -> Vec<(Change, String, Option<u64>, Option<u64>)> {
        let mut out = Vec::new();
        compare_tables("shop", before, now, &mut |d| {
            out.push((d.change, d.name, d.rows_before, d.rows));
            Ok(())
        })
        .unwrap();
        out
    }

    #[test]
    fn tables_are_matched_by_name_and_renamed_ones_by_number() {
        let before = [table(1, "same", 3, 9), table(2, "old", 1, 5), table(3, "gone", 2, 2), table(4, "grown", 1, 1)];
        let mut rewritten = table(1, "same", 3, 9);
        rewritten.parts =
            vec![PartRecord { bytes: 1, total: RowDigest { rows: 3, digest: 9 }, ..PartRecord::default() }];
        let now = [rewritten, table(2, "new", 1, 5), table(4, "grown", 2, 7), table(5, "fresh", 4, 4)];
        assert_eq!(
            told(&before, &now),
            [
                (Change::Added, "public.fresh".to_owned(), None, Some(4)),
                (Change::Removed, "public.gone".to_owned(), Some(2), None),
                (Change::Modified, "public.grown".to_owned(), Some(1), Some(2)),
                (Change::Metadata, "public.new".to_owned(), Some(1), Some(1)),
            ]
        );
        // Made anew under the same name: what counts is the rows.
        assert_eq!(told(&[table(1, "t", 3, 9)], &[table(8, "t", 3, 9)]), []);
    }

    #[test]
    fn objects_are_told_by_what_they_mean_and_not_by_their_numbers() {
        let entry = |dump_id, desc: &str, tag: &str, defn: &str| Entry {
            dump_id,
            desc: desc.into(),
            namespace: Some("public".into()),
            tag: tag.into(),
            defn: Some(defn.into()),
            ..Entry::default()
        };
        let before =
            [entry(1, "INDEX", "i", "CREATE INDEX i"), entry(2, "VIEW", "v", "a"), entry(3, "SEQUENCE SET", "s", "1")];
        let now = [entry(9, "INDEX", "i", "CREATE INDEX i"), entry(8, "VIEW", "v", "b"), entry(7, "TYPE", "t", "c")];
        let mut out = Vec::new();
        compare_objects("shop", &before, &now, &mut |d| {
            out.push((d.change, d.what, d.name));
            Ok(())
        })
        .unwrap();
        assert_eq!(
            out,
            [
                (Change::Added, "TYPE".to_owned(), "public.t".to_owned()),
                (Change::Modified, "VIEW".to_owned(), "public.v".to_owned()),
            ]
        );
    }
}
