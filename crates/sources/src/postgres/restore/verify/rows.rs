//! Rows of tables, read back with the text they were saved in. A large table is read in ranges of its pages, by several
//! at once; the order of rows does not matter to a digest.

use super::super::super::layout::{Column, TableKind, TableRecord, column_list};
use super::super::super::parts::{Range, slabs};
use super::super::super::rows::{RowDigest, RowHasher};
use super::super::super::session as reading;
use super::super::super::sql::{literal, quote, quote_in};
use super::super::super::wire::{Client, CopyRead};
use super::super::planning::shown;
use super::super::pool::Task;
use super::super::saved::SavedDatabase;
use super::super::session::Sessions;
use super::{Mismatch, VerifyReport};
use lastgood_model::{Context, Error, Monitor, Result};
use std::collections::{BTreeMap, HashMap};

/// Pages of a range: 256 MiB.
const RANGE_PAGES: u64 = 32_768;
/// The first server that finds a range of pages without reading all.
const RANGES_FROM: u32 = 140_000;
/// Taken from the server at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// Tables asked for in one statement.
const BATCH: usize = 500;

/// A range of one table's rows.
pub(super) struct Reading {
    /// The table's index in what was saved.
    table: usize,
    what: String,
    copy: String,
    weight: u64,
}

/// What was read.
pub(super) struct Read {
    pub(super) total: RowDigest,
    pub(super) bytes: u64,
}

impl Reading {
    pub(super) fn task(&self) -> Task {
        Task { weight: self.weight, ..Task::default() }
    }

    pub(super) fn read(&self, client: &mut Client, sessions: &Sessions, monitor: &Monitor) -> Result<Read> {
        self.try_read(client, sessions, monitor).with_context(|| format!("read {}", self.what))
    }

    fn try_read(&self, client: &mut Client, sessions: &Sessions, monitor: &Monitor) -> Result<Read> {
        // The same values as text as in a capture.
        client.batch(&reading::settings(client.server_version()))?;
        client.batch(reading::READER_SETTINGS)?;
        let mut copy = client.copy_out(&self.copy)?;
        let mut hasher = RowHasher::new();
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let mut bytes = 0;
        let said = loop {
            piece.clear();
            let read = copy.read(&mut piece, PIECE_BYTES)?;
            hasher.update(&piece);
            bytes += piece.len() as u64;
            monitor.add(|counters| &counters.bytes_read, piece.len() as u64);
            sessions.check()?;
            if let CopyRead::End { rows } = read {
                break rows;
            }
        };
        let total = hasher.finish()?;
        if said != Some(total.rows) {
            return Err(Error::corrupt(format!("the server tells of {said:?} rows, {} arrived", total.rows)));
        }
        Ok(Read { total, bytes })
    }
}

/// A table as it is on the server.
struct Found {
    pages: u64,
    bytes: u64,
    can_be_cut: bool,
}

/// What has to be read; tables that are not there, or have other columns, are told at once.
pub(super) fn readings(client: &mut Client, saved: &SavedDatabase, report: &mut VerifyReport) -> Result<Vec<Reading>> {
    let tables: Vec<(usize, &TableRecord)> =
        saved.tables.iter().enumerate().filter(|(_, table)| table.total.is_some()).collect();
    let found = look(client, &tables).context("look at tables")?;
    let mut out = Vec::new();
    for (index, table) in tables {
        report.tables += 1;
        report.rows += table.total.map_or(0, |total| total.rows);
        let name = shown(&table.schema, &table.name);
        let Some(there) = found.get(&index) else {
            report.mismatches.push(Mismatch {
                what: format!("table {name}"),
                expected: format!("{} rows", table.total.map_or(0, |total| total.rows)),
                found: "not there".to_owned(),
            });
            continue;
        };
        let cuts = there.can_be_cut && client.server_version() >= RANGES_FROM && table.condition.is_none();
        let ranges = slabs(if cuts { there.pages } else { 0 }, RANGE_PAGES);
        let share = there.bytes / ranges.len().max(1) as u64;
        out.extend(ranges.into_iter().map(|slab| Reading {
            table: index,
            what: format!("rows of {name}"),
            copy: copy_out(table, slab.range),
            weight: share,
        }));
    }
    Ok(out)
}

fn copy_out(table: &TableRecord, range: Range) -> String {
    let name = quote_in(&table.schema, &table.name);
    let options = format!("TO STDOUT WITH (ENCODING '{}')", table.encoding.as_deref().unwrap_or("UTF8"));
    let condition = match (&table.condition, range.condition()) {
        (None, None) if table.kind == TableKind::Table => {
            return format!("COPY {name}{} {options}", column_list(&table.columns));
        }
        (None, None) => String::new(),
        (Some(condition), _) => condition.clone(),
        (None, Some(range)) => format!("WHERE {range}"),
    };
    let columns: Vec<String> = table.columns.iter().map(|Column { name, .. }| quote(name)).collect();
    format!("COPY (SELECT {} FROM ONLY {name} {condition}) {options}", columns.join(", "))
}

fn look(client: &mut Client, tables: &[(usize, &TableRecord)]) -> Result<HashMap<usize, Found>> {
    let mut out = HashMap::with_capacity(tables.len());
    for batch in tables.chunks(BATCH) {
        let names: Vec<String> = batch.iter().map(|(_, t)| literal(&quote_in(&t.schema, &t.name))).collect();
        let sql = format!(
            "SELECT n.at, COALESCE(pg_catalog.pg_relation_size(c.oid), 0) \
                 / pg_catalog.current_setting('block_size')::pg_catalog.int8, \
               COALESCE(pg_catalog.pg_table_size(c.oid), 0), c.relkind = 'r' AND COALESCE(a.amname = 'heap', false) \
             FROM pg_catalog.unnest(ARRAY[{}]) WITH ORDINALITY AS n(name, at) \
             JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(n.name) \
             LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam",
            names.join(", ")
        );
        client.for_each_row(&sql, |row| {
            if let Some((index, _)) = batch.get(row.parse::<usize>(0)?.wrapping_sub(1)) {
                let found = Found { pages: row.parse(1)?, bytes: row.parse(2)?, can_be_cut: row.is_true(3)? };
                out.insert(*index, found);
            }
            Ok(())
        })?;
    }
    Ok(out)
}

/// Compares what was read with what was saved. Tables whose rows went through a partitioned one are taken together: in
/// which of its partitions a row is, may differ.
pub(super) fn compare(
    saved: &SavedDatabase,
    readings: &[Reading],
    totals: &[(usize, RowDigest)],
    report: &mut VerifyReport,
) {
    let key = |index: usize| {
        let table = &saved.tables[index];
        match table.root.as_ref().filter(|_| table.load_through_root) {
            Some((schema, name)) => (schema.clone(), name.clone()),
            None => (table.schema.clone(), table.name.clone()),
        }
    };
    let mut pairs: BTreeMap<(String, String), (RowDigest, RowDigest)> = BTreeMap::new();
    let mut seen = vec![false; saved.tables.len()];
    for (reading, total) in totals {
        let index = readings[*reading].table;
        let pair = pairs.entry(key(index)).or_default();
        pair.1.add(total);
        if !std::mem::replace(&mut seen[index], true)
            && let Some(total) = &saved.tables[index].total
        {
            pair.0.add(total);
        }
    }
    let told = |total: &RowDigest| format!("{} rows with digest {}", total.rows, total.hex());
    for ((schema, name), (expected, found)) in pairs.iter().filter(|(_, (expected, found))| expected != found) {
        report.mismatches.push(Mismatch {
            what: format!("table {}", shown(schema, name)),
            expected: told(expected),
            found: told(found),
        });
    }
}
