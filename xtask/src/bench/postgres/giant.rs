//! The database of one table, which pg_dump reads over one connection however many it is given.

use super::data::{EVENTS, GIANT};
use super::server::{Packing, Server};
use super::{CHUNK, SOURCE};
use crate::bench::Bench;
use crate::bench::measure::{Samples, bytes_of, median};
use crate::bench::report::Row;
use anyhow::Result;

const BACK: &str = "giant_back";

/// All samples; dumps in the order of [`Packing::ALL`].
#[derive(Default)]
pub(super) struct Giant {
    first: Samples,
    bytes: Vec<f64>,
    dumps: [Samples; 3],
    dump_bytes: [Vec<f64>; 3],
    restore: Samples,
    pg_restore: Samples,
}

impl Giant {
    /// Measures everything once, in turns.
    pub(super) fn run(&mut self, bench: &Bench<'_>, server: &Server, compare: bool) -> Result<()> {
        let lastgood = super::lastgood(bench, server, GIANT, CHUNK)?;
        let backup = bench.lastgood(&lastgood, lastgood.backup(false));
        self.first.push(server.measure("lastgood, one table", &backup, Some(GIANT), &[])?);
        self.bytes.push(bytes_of(&lastgood.repository)? as f64);
        for (i, packing) in Packing::ALL.into_iter().enumerate() {
            let dump = bench.fresh("dumps")?.join("dump");
            self.dumps[i].push(server.measure(
                packing.name(),
                &server.dump(GIANT, packing, &dump),
                Some(GIANT),
                &[],
            )?);
            self.dump_bytes[i].push(bytes_of(&dump)? as f64);
        }
        // The last dump, the uncompressed one, is what pg_restore reads fastest.
        let dump = bench.scratch.join("dumps/dump");
        server.drop(BACK)?;
        let restore = lastgood.restore_to_server("latest", SOURCE, &server.url(BACK), &["--jobs", "2"]);
        let restore = bench.lastgood(&lastgood, restore);
        self.restore.push(server.measure("lastgood, one table restored", &restore, None, &[&lastgood.repository])?);
        if compare {
            server.compare(GIANT, BACK, &[EVENTS])?;
        }
        server.create(BACK)?;
        self.pg_restore.push(server.measure(
            "pg_restore, one table",
            &server.load(BACK, None, &dump),
            None,
            &[&dump],
        )?);
        server.drop(BACK)
    }

    /// Rows of the table.
    pub(super) fn report(self, rows: &mut Vec<Row>) {
        let times = self.dumps.each_ref().map(Samples::wall_s);
        let best = times.iter().copied().fold(f64::INFINITY, f64::min);
        let mut first = Row::time("one table, first", &self.first);
        for ((packing, samples), time) in Packing::ALL.iter().zip(&self.dumps).zip(times) {
            first = first.beside(packing.name(), samples, (time <= best).then_some(0.6));
        }
        rows.push(first);
        let mut bytes = Row::size("one table, repository", median(self.bytes));
        for (packing, sizes) in Packing::ALL.iter().zip(self.dump_bytes) {
            let most = match packing {
                Packing::Gzip => Some(0.75),
                Packing::Zstd => Some(1.2),
                Packing::Plain => None,
            };
            bytes = bytes.beside_value(packing.name(), median(sizes), most);
        }
        rows.push(bytes);
        rows.push(Row::time("one table, restore", &self.restore).beside(
            "pg_restore -j2, uncompressed",
            &self.pg_restore,
            None,
        ));
    }
}
