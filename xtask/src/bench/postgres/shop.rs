//! The database of several tables, from its first recovery point to one table brought back.

use super::data::{self, Change, Changed, SHOP, Table};
use super::server::{Packing, Server};
use super::{CHUNK, SOURCE};
use crate::bench::Bench;
use crate::bench::measure::{Job, Samples, bytes_of, median, remove};
use crate::bench::report::Row;
use anyhow::{Context, Result};
use std::path::Path;

/// The copy of [`SHOP`] that is captured and changed.
pub(super) const LIVE: &str = "live";
/// Where it is restored to.
const BACK: &str = "back";
/// The table that is restored alone.
const ONE: &str = "orders";
/// What any start of a program, connection and new database takes, however small the table, in seconds.
const START_S: f64 = 0.5;

/// The kinds of change, and the most that may be stored for one, of the database's rows.
const CHANGES: [(Change, &str, Option<f64>); 3] = [
    (Change::Together, "together", Some(0.03)),
    (Change::OfOneLength, "together, all of one length", Some(0.03)),
    (Change::AllOver, "all over", None),
];

/// All samples.
#[derive(Default)]
pub(super) struct Shop {
    first: Samples,
    gzip: Samples,
    zstd: Samples,
    floor: Samples,
    bytes: Vec<f64>,
    gzip_bytes: Vec<f64>,
    zstd_bytes: Vec<f64>,
    unchanged: Samples,
    unchanged_bytes: Vec<f64>,
    changed: [Samples; 3],
    changed_bytes: [Vec<f64>; 3],
    changes: [Vec<Changed>; 3],
    restore: Samples,
    pg_restore: Samples,
    one: Samples,
    pg_one: Samples,
    rows: f64,
}

impl Shop {
    /// Measures everything once, in turns.
    pub(super) fn run(&mut self, bench: &Bench<'_>, server: &Server, tables: &[Table], run: u64) -> Result<()> {
        server.copy(SHOP, LIVE)?;
        let names: Vec<&str> = tables.iter().map(|table| table.name).collect();
        let lastgood = super::lastgood(bench, server, LIVE, CHUNK)?;
        let backup = bench.lastgood(&lastgood, lastgood.backup(false));
        let dumps = bench.fresh("dumps")?;
        let (gzip, zstd) = (dumps.join("gzip"), dumps.join("zstd"));
        let floor = server.floor(LIVE, &names);
        let stored = || bytes_of(&lastgood.repository).map(|bytes| bytes as f64);

        self.first.push(server.measure("lastgood, first", &backup, Some(LIVE), &[])?);
        self.gzip.push(server.measure("pg_dump, gzip", &server.dump(LIVE, Packing::Gzip, &gzip), Some(LIVE), &[])?);
        self.zstd.push(server.measure("pg_dump, zstd:3", &server.dump(LIVE, Packing::Zstd, &zstd), Some(LIVE), &[])?);
        self.floor.push(server.measure("COPY to nowhere", &floor, Some(LIVE), &[])?);
        let first_bytes = stored()?;
        self.bytes.push(first_bytes);
        self.gzip_bytes.push(bytes_of(&gzip)? as f64);
        self.zstd_bytes.push(bytes_of(&zstd)? as f64);
        remove(&gzip)?;

        let repository: &[&Path] = &[&lastgood.repository];
        self.unchanged.push(server.measure("lastgood, unchanged", &backup, Some(LIVE), repository)?);
        self.unchanged_bytes.push(stored()? - first_bytes);
        self.floor.push(server.measure("COPY to nowhere", &floor, Some(LIVE), &[])?);

        let restore = |more: &[&str]| {
            let words = lastgood.restore_to_server("latest", SOURCE, &server.url(BACK), more);
            bench.lastgood(&lastgood, words)
        };
        let jobs = ["--jobs", "2"];
        server.drop(BACK)?;
        self.restore.push(server.measure("lastgood, restore", &restore(&jobs), None, repository)?);
        if run == 0 {
            server.compare(LIVE, BACK, &names)?;
        }
        self.pg_restore.push(into_empty(server, "pg_restore", &server.load(BACK, None, &zstd), &zstd)?);
        server.drop(BACK)?;
        let only = [&jobs[..], &["--table", ONE]].concat();
        self.one.push(server.measure("lastgood, restore one table", &restore(&only), None, repository)?);
        if run == 0 {
            let sum = format!("SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {ONE} t");
            let (left, right) = (server.sql(LIVE, &sum)?, server.sql(BACK, &sum)?);
            anyhow::ensure!(left == right, "{ONE} alone was restored as {right}, not {left}");
        }
        self.pg_one.push(into_empty(server, "pg_restore, one table", &pg_one(server, &zstd)?, &zstd)?);
        server.drop(BACK)?;

        if run == 0 {
            self.rows = data::rows(server, LIVE, tables)?;
        }
        for (i, (change, what, _)) in CHANGES.iter().enumerate() {
            let changed = data::change(server, LIVE, *change, self.rows, run)?;
            let before = stored()?;
            let label = format!("lastgood, 1 % changed {what}");
            self.changed[i].push(server.measure(&label, &backup, Some(LIVE), repository)?);
            self.changed_bytes[i].push(stored()? - before);
            self.changes[i].push(changed);
        }
        Ok(())
    }

    /// Rows of the table, and remarks.
    pub(super) fn report(self, tables: &[Table], rows: &mut Vec<Row>, notes: &mut Vec<String>) {
        let copy_bytes: f64 = tables.iter().map(|table| table.bytes).sum();
        let one_bytes: f64 = tables.iter().filter(|table| table.name == ONE).map(|table| table.bytes).sum();
        let (gzip, zstd) = (Packing::Gzip.name(), Packing::Zstd.name());
        let floor = "COPY to nowhere, 2 connections";
        let first_bytes = median(self.bytes);
        let all_rows = "rows";
        rows.push(
            Row::time("PostgreSQL, first", &self.first)
                .beside(gzip, &self.gzip, Some(0.45))
                .beside(zstd, &self.zstd, Some(1.05))
                .beside(floor, &self.floor, None),
        );
        rows.push(
            Row::size("repository", first_bytes)
                .beside_value("gzip", median(self.gzip_bytes), Some(0.75))
                .beside_value("zstd:3", median(self.zstd_bytes), Some(1.2)),
        );
        rows.push(Row::time("unchanged", &self.unchanged).beside(floor, &self.floor, Some(1.05)));
        let unchanged = median(self.unchanged_bytes);
        rows.push(Row::size("stored, unchanged", unchanged).beside_value(all_rows, copy_bytes, Some(0.001)));
        for (i, (_, what, most)) in CHANGES.iter().enumerate() {
            let bytes = median(self.changed_bytes[i].clone());
            rows.push(Row::time(format!("1 % changed {what}"), &self.changed[i]).beside(floor, &self.floor, None));
            rows.push(
                Row::size(format!("stored for 1 % {what}"), bytes)
                    .beside_value(all_rows, copy_bytes, *most)
                    .beside_value("repository", first_bytes, None),
            );
            let changed = median(self.changes[i].iter().map(|changed| changed.rows));
            let pages = median(self.changes[i].iter().map(|changed| changed.pages));
            notes.push(format!(
                "Changed {what}: {changed:.0} of {:.0} rows, which were or are in {pages:.0} pages; {:.0} bytes were stored \
                 for each row.",
                self.rows,
                bytes / changed.max(1.0)
            ));
        }
        rows.push(Row::time("restore", &self.restore).beside("pg_restore -j2, zstd:3", &self.pg_restore, Some(0.75)));
        let share = one_bytes / copy_bytes;
        rows.push(
            Row::time(format!("restore of `{ONE}`"), &self.one)
                .beside_value("its share of all rows", share * self.restore.wall_s() + START_S, Some(1.1))
                .beside("pg_restore -j2, with keys and indexes", &self.pg_one, None),
        );
        notes.push(format!(
            "`{ONE}` holds {:.0} % of the bytes of all rows; its share is that much of the time of the whole restore, and \
             {START_S} s for the start.",
            share * 100.0
        ));
    }
}

/// A measurement of what wants an empty database.
fn into_empty(server: &Server, label: &str, job: &Job, from: &Path) -> Result<crate::bench::measure::Sample> {
    server.create(BACK)?;
    server.measure(label, job, None, &[from])
}

/// pg_restore of one table with its keys and indexes, which it leaves out unless they are named: by the list of the
/// dump's contents, without the keys to other tables.
fn pg_one(server: &Server, dump: &Path) -> Result<Job> {
    let list = dump.with_extension("list");
    let mut command = std::process::Command::new(server.pg().bin("pg_restore"));
    let contents = crate::shell::output(command.arg("--list").arg(dump)).context("list the dump")?;
    let is_wanted = |line: &&str| {
        let is_key = line.contains(" FK CONSTRAINT ");
        let is_of = line.contains(&format!(" public {ONE} ")) || line.contains(&format!(" public {ONE}_"));
        !line.starts_with(';') && !is_key && is_of
    };
    let wanted: Vec<&str> = contents.lines().filter(is_wanted).collect();
    fs_err::write(&list, wanted.join("\n") + "\n")?;
    Ok(server.load(BACK, Some(&list), dump))
}
