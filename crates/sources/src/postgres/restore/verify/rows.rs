//! Rows of tables, read back with the text they were saved in. A large table is read in ranges of its pages, by several
//! at once; the order of rows does not matter to a digest.

use super::super::super::layout::TableRecord;
use super::super::super::parts::slabs;
use super::super::super::rows::RowDigest;
use super::super::super::selection::{self, Selection, Take};
use super::super::super::session as reading;
use super::super::super::sql::{literal, quote_in};
use super::super::super::wire::Client;
use super::super::planning::shown;
use super::super::pool::Task;
use super::super::saved::SavedDatabase;
use super::super::session::Sessions;
use super::{Mismatch, VerifyReport};
use lastgood_model::{Context, Monitor, Result};
use std::collections::{BTreeMap, HashMap};

/// Pages of a range: 256 MiB.
const RANGE_PAGES: u64 = 32_768;
/// The first server that finds a range of pages without reading all.
const RANGES_FROM: u32 = 140_000;
/// Tables asked for in one statement.
const BATCH: usize = 500;

/// A range of one table's rows.
pub(super) struct Reading<'a> {
    /// The table's index in what was saved.
    table: usize,
    what: String,
    rows: Selection<'a>,
    weight: u64,
}

/// What was read.
pub(super) struct Read {
    pub(super) total: RowDigest,
    pub(super) bytes: u64,
}

impl Reading<'_> {
    pub(super) fn task(&self) -> Task {
        Task { weight: self.weight, ..Task::default() }
    }

    pub(super) fn read(&self, client: &mut Client, sessions: &Sessions, monitor: &Monitor) -> Result<Read> {
        self.try_read(client, sessions, monitor).with_context(|| format!("read {}", self.what))
    }

    fn try_read(&self, client: &mut Client, sessions: &Sessions, monitor: &Monitor) -> Result<Read> {
        // The same values as text as in a capture.
        client.set_up(&reading::settings(client.server_version()))?;
        client.batch(reading::READER_SETTINGS)?;
        let mut passing = Passing { sessions, monitor };
        let part = selection::read(client, &self.rows, &mut passing)?;
        Ok(Read { total: part.all_rows(), bytes: part.all_bytes() })
    }
}

/// Rows that only pass.
struct Passing<'a> {
    sessions: &'a Sessions,
    monitor: &'a Monitor,
}

impl Take for Passing<'_> {
    fn text(&mut self, piece: &[u8]) -> Result<()> {
        self.monitor.add(|counters| &counters.bytes_read, piece.len() as u64);
        self.sessions.check()
    }

    fn binary(&mut self, _number: u32, piece: &[u8]) -> Result<()> {
        self.text(piece)
    }
}

/// A table as it is on the server.
struct Found {
    pages: u64,
    bytes: u64,
    is_heap: bool,
}

/// What has to be read; tables that are not there, or have other columns, are told at once.
pub(super) fn readings<'a>(
    client: &mut Client,
    saved: &'a SavedDatabase,
    report: &mut VerifyReport,
) -> Result<Vec<Reading<'a>>> {
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
        let cuts = there.is_heap && client.server_version() >= RANGES_FROM && table.condition.is_none();
        let ranges = slabs(if cuts { there.pages } else { 0 }, RANGE_PAGES);
        let share = there.bytes / ranges.len().max(1) as u64;
        out.extend(ranges.into_iter().map(|slab| Reading {
            table: index,
            what: format!("rows of {name}"),
            rows: Selection {
                table: quote_in(&table.schema, &table.name),
                columns: &table.columns,
                encoding: table.encoding.as_deref().unwrap_or("UTF8"),
                range: slab.range,
                condition: table.condition.as_deref(),
                is_heap: there.is_heap,
                bytes: there.bytes,
            },
            weight: share,
        }));
    }
    Ok(out)
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
                let found = Found { pages: row.parse(1)?, bytes: row.parse(2)?, is_heap: row.is_true(3)? };
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
    readings: &[Reading<'_>],
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
