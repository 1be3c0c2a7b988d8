//! Rows: from the recovery point straight into `COPY`, and counted and digested on the way.
//!
//! A table that this restore has made is loaded in one transaction with a TRUNCATE before it, so that its rows can be
//! frozen: whoever reads them first, such as the building of an index, need not look up each row's transaction and write
//! the page again with what it found, and vacuum has nothing to do. That takes one connection a table. Where this would
//! leave the others idle, as one table is most of all there is, its parts are loaded by several, without freezing.

use super::super::layout::{TableKind, TableRecord, column_list, long_row_path, slab_path};
use super::super::rows::{RowDigest, RowHasher};
use super::super::sql::quote_in;
use super::super::wire::Client;
use super::session::Sessions;
use lastgood_model::saved::SavedFiles;
use lastgood_model::{Context, Error, Monitor, Result};

/// A table below this is never loaded by several: 64 MiB.
const SPLIT_BYTES_MIN: u64 = 64 << 20;

/// Where a table's rows go.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The table's index in [`super::saved::SavedDatabase::tables`].
    pub(super) table: usize,
    /// Schema and name on the target.
    pub(super) schema: String,
    pub(super) name: String,
    /// It was made by this restore, empty, and nobody else knows it.
    pub(super) is_new: bool,
    /// It was a partition, and is loaded without the table that it was part of.
    pub(super) is_alone: bool,
}

/// Rows that are loaded in one go.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) table: usize,
    /// For messages.
    pub(super) what: String,
    /// The table to empty before, where rows can be frozen.
    truncate: Option<String>,
    copy: Copy,
    parts: Vec<Part>,
}

/// The statements that take in rows.
#[derive(Clone, Debug)]
struct Copy {
    text: String,
    binary: String,
}

/// A file, and what it must hold.
#[derive(Clone, Debug)]
struct Part {
    path: String,
    bytes: u64,
    total: RowDigest,
    /// One row that has no text.
    is_binary: bool,
}

impl Load {
    /// Length of all it loads.
    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

/// Divides the rows of these places for `jobs` connections. Tables without rows need no load.
pub(super) fn divide(folder: &str, tables: &[TableRecord], places: &[Place], jobs: usize) -> Result<Vec<Load>> {
    let total: u64 = places.iter().map(|place| tables[place.table].bytes()).sum();
    // More than one connection's share: whoever loads it works on when the others have nothing left to do.
    let split_from = (total / jobs.max(1) as u64 + 1).max(SPLIT_BYTES_MIN);
    let mut out = Vec::new();
    for place in places {
        let table = &tables[place.table];
        check_parts(table)?;
        let parts = parts(folder, table);
        let (schema, name) = destination(table, place);
        let target = quote_in(schema, name);
        let encoding = table.encoding.as_deref().unwrap_or("UTF8");
        let columns = column_list(&table.columns);
        let copy = |freeze: &str| Copy {
            text: format!("COPY {target}{columns} FROM STDIN WITH ({freeze}ENCODING '{encoding}')"),
            binary: format!("COPY {target}{columns} FROM STDIN WITH ({freeze}FORMAT binary, ENCODING '{encoding}')"),
        };
        let shown = format!("{}.{}", place.schema, place.name);
        let is_freezable = place.is_new
            && table.kind == TableKind::Table
            && (place.is_alone || !table.load_through_root)
            && table.extension.is_none()
            && table.condition.is_none();
        let is_split = jobs > 1 && parts.len() > 1 && table.bytes() >= split_from;
        if is_split {
            out.extend(parts.into_iter().enumerate().map(|(at, part)| Load {
                table: place.table,
                what: format!("rows of {shown}, part {}", at + 1),
                truncate: None,
                copy: copy(""),
                parts: vec![part],
            }));
        } else if !parts.is_empty() {
            out.push(Load {
                table: place.table,
                what: format!("rows of {shown}"),
                truncate: is_freezable.then(|| target.clone()),
                copy: copy(if is_freezable { "FREEZE, " } else { "" }),
                parts,
            });
        }
    }
    Ok(out)
}

/// The files of a table that hold something.
fn parts(folder: &str, table: &TableRecord) -> Vec<Part> {
    let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(table.parts.len());
    for (slab, part) in table.parts.iter().enumerate() {
        let slab = number(slab);
        if part.bytes > 0 || part.total.rows > 0 {
            let path = slab_path(folder, table.oid, slab);
            out.push(Part { path, bytes: part.bytes, total: part.total, is_binary: false });
        }
        out.extend(part.long_rows.iter().enumerate().map(|(at, row)| Part {
            path: long_row_path(folder, table.oid, slab, number(at)),
            bytes: row.bytes,
            total: row.total,
            is_binary: true,
        }));
    }
    out
}

/// Where rows are sent: the table itself, or the partitioned table above it.
fn destination<'a>(table: &'a TableRecord, place: &'a Place) -> (&'a str, &'a str) {
    match table.root.as_ref().filter(|_| table.load_through_root && !place.is_alone) {
        // Under another name all of them are in the same other schema.
        Some((_, root)) if place.schema != table.schema => (&place.schema, root),
        Some((schema, root)) => (schema, root),
        None => (&place.schema, &place.name),
    }
}

fn check_parts(table: &TableRecord) -> Result<()> {
    let mut sum = RowDigest::default();
    table.parts.iter().for_each(|part| sum.add(&part.all_rows()));
    match table.total {
        Some(total) if total != sum => {
            let message = format!("tables.json: the parts of {} are not its total", table.sql_name());
            Err(Error::corrupt(message))
        }
        _ => Ok(()),
    }
}

/// Loads. What arrives at the server is what was saved, or nothing of it stays.
pub(super) fn run(
    client: &mut Client,
    sessions: &Sessions,
    files: &dyn SavedFiles,
    load: &Load,
    monitor: &Monitor,
) -> Result<()> {
    let act = || format!("load {}", load.what);
    if let Some(table) = &load.truncate {
        client.batch(&format!("BEGIN; TRUNCATE ONLY {table}")).with_context(act)?;
    }
    for part in &load.parts {
        copy_part(client, sessions, files, load, part, monitor).with_context(act)?;
    }
    if load.truncate.is_some() {
        client.batch("COMMIT").with_context(act)?;
    }
    sessions.hear(client, &load.what);
    Ok(())
}

fn copy_part(
    client: &mut Client,
    sessions: &Sessions,
    files: &dyn SavedFiles,
    load: &Load,
    part: &Part,
    monitor: &Monitor,
) -> Result<()> {
    let Part { path, is_binary, .. } = part;
    let mut reader = files.open(path.as_bytes())?;
    let mut copy = client.copy_in(if *is_binary { &load.copy.binary } else { &load.copy.text })?;
    let mut hasher = if *is_binary { RowHasher::of_one_row() } else { RowHasher::new() };
    let mut piece = Vec::new();
    let mut bytes = 0;
    while reader.read(&mut piece)? {
        sessions.check()?;
        hasher.update(&piece);
        copy.write(&piece)?;
        bytes += piece.len() as u64;
        monitor.add(|counters| &counters.bytes, piece.len() as u64);
        piece.clear();
    }
    let passed = hasher.finish()?;
    if passed != part.total || bytes != part.bytes {
        return Err(Error::corrupt(format!(
            "{path} holds {} rows in {bytes} bytes with digest {}, and {} rows in {} bytes with digest {} were saved",
            passed.rows,
            passed.hex(),
            part.total.rows,
            part.bytes,
            part.total.hex()
        ))
        .with_hint("this recovery point is damaged; run `lastgood verify`, and restore this table from another one"));
    }
    let taken = copy.finish()?;
    if taken != passed.rows {
        return Err(Error::corrupt(format!("the server took {taken} of {} rows", passed.rows))
            .with_hint("a trigger or rule of the table may have kept rows out"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::layout::{LongRow, PartRecord};
    use super::*;

    fn table(oid: u32, parts: &[u64]) -> TableRecord {
        let total = |bytes: &u64| RowDigest { rows: *bytes, digest: 1 };
        let part = |bytes: &u64| PartRecord { bytes: *bytes, total: total(bytes), long_rows: Vec::new() };
        let mut record = TableRecord::from_line(
            format!("{{\"oid\":{oid},\"schema\":\"s\",\"name\":\"t{oid}\",\"kind\":\"table\",\"encoding\":\"UTF8\"}}")
                .as_bytes(),
        )
        .unwrap();
        record.parts = parts.iter().map(part).collect();
        record.total = Some(RowDigest { rows: parts.iter().sum(), digest: parts.len() as u128 });
        record
    }

    fn places(tables: &[TableRecord]) -> Vec<Place> {
        let place = |(table, record): (usize, &TableRecord)| Place {
            table,
            schema: record.schema.clone(),
            name: record.name.clone(),
            is_new: true,
            is_alone: false,
        };
        tables.iter().enumerate().map(place).collect()
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn only_a_table_that_would_keep_others_waiting_is_split() {
        let tables = [table(1, &[100 * MIB, 100 * MIB, 50 * MIB]), table(2, &[20 * MIB; 3]), table(3, &[0])];
        let loads = divide("f", &tables, &places(&tables), 2).unwrap();
        let what: Vec<&str> = loads.iter().map(|load| load.what.as_str()).collect();
        assert_eq!(what, ["rows of s.t1, part 1", "rows of s.t1, part 2", "rows of s.t1, part 3", "rows of s.t2"]);
        assert!(loads[..3].iter().all(|load| load.truncate.is_none() && !load.copy.text.contains("FREEZE")));
        assert_eq!(loads[3].truncate.as_deref(), Some("\"s\".\"t2\""));
        assert!(loads[3].copy.text.contains("FREEZE") && loads[3].parts[2].path == "f/data/2/00000002.copy");
        assert_eq!(loads[3].bytes(), 60 * MIB);
        let alone = divide("f", &tables, &places(&tables), 1).unwrap();
        assert_eq!(alone.len(), 2);
        assert!(alone.iter().all(|load| load.truncate.is_some()));
    }

    #[test]
    fn rows_are_frozen_only_where_that_is_possible() {
        let mut tables = vec![table(1, &[9]), table(2, &[9]), table(3, &[9])];
        tables[0].extension = Some("postgis".into());
        tables[1].root = Some(("s".into(), "root".into()));
        tables[1].load_through_root = true;
        let mut places = places(&tables);
        places[2].is_new = false;
        let loads = divide("f", &tables, &places, 2).unwrap();
        assert!(loads.iter().all(|load| load.truncate.is_none() && !load.copy.text.contains("FREEZE")));
        assert!(loads[1].copy.text.starts_with("COPY \"s\".\"root\" FROM"));
        places[1].schema = "scratch".into();
        let loads = divide("f", &tables, &places, 2).unwrap();
        assert!(loads[1].copy.text.starts_with("COPY \"scratch\".\"root\" FROM"));
    }

    #[test]
    fn rows_without_a_text_follow_their_part() {
        let mut tables = [table(1, &[9, 0])];
        let row = LongRow { bytes: 7, total: RowDigest { rows: 1, digest: 5 } };
        (tables[0].parts[1].total, tables[0].parts[1].long_rows) = (RowDigest::default(), vec![row]);
        tables[0].total = Some(RowDigest { rows: 10, digest: 6 });
        let loads = divide("f", &tables, &places(&tables), 1).unwrap();
        let paths: Vec<_> = loads[0].parts.iter().map(|part| (part.path.as_str(), part.is_binary)).collect();
        assert_eq!(paths, [("f/data/1/00000000.copy", false), ("f/data/1/00000001-0000.binary", true)]);
        assert_eq!(loads[0].copy.binary, "COPY \"s\".\"t1\" FROM STDIN WITH (FREEZE, FORMAT binary, ENCODING 'UTF8')");
        assert_eq!(loads[0].bytes(), 16);
    }

    #[test]
    fn parts_that_are_not_the_total_are_damage() {
        let mut tables = [table(1, &[9, 9])];
        tables[0].parts.pop();
        let error = divide("f", &tables, &places(&tables), 1).unwrap_err();
        assert_eq!(error.kind(), lastgood_model::ErrorKind::Corrupt);
    }
}
