//! Ways of cutting rows into blobs: what each costs at first and after changes.

use super::data::{self, Change, SHOP};
use super::server::Server;
use super::shop::LIVE;
use crate::bench::Bench;
use crate::bench::measure::{Samples, bytes_of, median};
use crate::bench::report::{Row, Table};
use anyhow::Result;

/// What `chunk` of a source may be, and the mean length of a blob that it makes.
const CHUNKS: [(&str, &str); 2] = [("rows", "64 KiB"), ("files", "1 MiB")];

pub(super) fn measure(bench: &Bench<'_>, server: &Server, tables: &[data::Table]) -> Result<Table> {
    let mut rows = Vec::new();
    let copy_bytes: f64 = tables.iter().map(|table| table.bytes).sum();
    let row_count = data::rows(server, SHOP, tables)?;
    for (chunk, length) in CHUNKS {
        let (mut first, mut together, mut all_over) = (Samples::default(), Samples::default(), Samples::default());
        let mut stored = [vec![], vec![], vec![]];
        for run in 0..bench.options.runs {
            server.copy(SHOP, LIVE)?;
            let lastgood = super::lastgood(bench, server, LIVE, chunk)?;
            let backup = bench.lastgood(&lastgood, lastgood.backup(false));
            let mut before = 0.0;
            let mut step = |step: usize, samples: &mut Samples| -> Result<()> {
                let label = format!("lastgood, chunk = {chunk:?}, {}", ["first", "1 % together", "1 % all over"][step]);
                samples.push(server.measure(&label, &backup, Some(LIVE), &[&lastgood.repository])?);
                let after = bytes_of(&lastgood.repository)? as f64;
                stored[step].push(after - before);
                before = after;
                Ok(())
            };
            step(0, &mut first)?;
            data::change(server, LIVE, Change::Together, row_count, run as u64)?;
            step(1, &mut together)?;
            data::change(server, LIVE, Change::AllOver, row_count, run as u64)?;
            step(2, &mut all_over)?;
        }
        let stored = stored.map(median);
        let name = |what: &str| format!("chunk = {chunk:?} (about {length}), {what}");
        rows.push(Row::time(name("first"), &first));
        rows.push(Row::size(name("repository"), stored[0]).beside_value("rows", copy_bytes, None));
        rows.push(Row::time(name("1 % changed together"), &together).beside("first", &first, None));
        rows.push(Row::size(name("stored for 1 % together"), stored[1]).beside_value("rows", copy_bytes, None));
        rows.push(Row::time(name("1 % changed all over"), &all_over).beside("first", &first, None));
        rows.push(
            Row::size(name("stored for 1 % all over"), stored[2]).beside_value("rows", copy_bytes, None).beside_value(
                "repository",
                stored[0],
                None,
            ),
        );
    }
    server.drop(LIVE)?;
    let subject = format!("The same database, its rows {:.2} GB, with each way of cutting them.", copy_bytes / 1e9);
    Ok(Table { name: "postgres-chunks", subject, rows, notes: Vec::new(), peak_bytes_max: super::PEAK_BYTES_MAX })
}
