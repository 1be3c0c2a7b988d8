//! PostgreSQL databases: first, unchanged, with one row in a hundred changed, restored whole and one table of it, beside
//! PostgreSQL's own programs and beside the least that reading the same rows takes.

mod chunks;
mod data;
mod giant;
mod server;
mod shop;
mod value;

use super::Bench;
use super::measure::prepare;
use super::report::Table;
use crate::program::{Lastgood, Source};
use anyhow::Result;
use server::Server;

/// The most memory any of lastgood's processes may take, whatever the tables hold.
const PEAK_BYTES_MAX: u64 = 300 << 20;
/// The source's name in the config.
const SOURCE: &str = "db";
/// How rows are cut when nothing is said.
const CHUNK: &str = "rows";

/// The tables that were asked for, all on one server that ends with the measurement.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Vec<Table>> {
    let server = Server::start(bench);
    let bytes = bench.options.size_mb * 1_000_000 / bench.options.shrink;
    let shop = data::make_shop(&server, bytes)?;
    let giant = data::make_giant(&server, bytes / 2)?;
    let size = |database| server.number("postgres", &format!("SELECT pg_database_size('{database}')"));
    let rows_bytes = |tables: &[data::Table]| tables.iter().map(|table| table.bytes).sum::<f64>();
    let subject = format!(
        "A database of {:.2} GB, its rows {:.2} GB as COPY writes them: pgbench's tables, and customers, orders and items \
         with text, jsonb, numerics and timestamps. Another of one table: {:.2} GB, rows {:.2} GB. {}, caches warm, \
         repository on the same disk, everybody with two connections for rows.",
        size(data::SHOP)? / 1e9,
        rows_bytes(&shop) / 1e9,
        size(data::GIANT)? / 1e9,
        rows_bytes(&giant) / 1e9,
        server.sql("postgres", "SELECT 'PostgreSQL ' || current_setting('server_version')")?,
    );
    for table in shop.iter().chain(&giant) {
        eprintln!("  {:<20} {:>8.1} MB", table.name, table.bytes / 1e6);
    }
    let (mut of_shop, mut of_giant) = (shop::Shop::default(), giant::Giant::default());
    for run in 0..bench.options.runs {
        eprintln!("run {} of {}", run + 1, bench.options.runs);
        of_shop.run(bench, &server, &shop, run as u64)?;
        of_giant.run(bench, &server, run == 0)?;
    }
    server.drop(shop::LIVE)?;
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    of_shop.report(&shop, &mut rows, &mut notes);
    of_giant.report(&mut rows);
    value::measure(bench, &server, &mut rows, &mut notes)?;
    notes.push(
        "What lastgood restored was compared with the original in the first run: definitions by `pg_dump`, rows by the \
         sums of their hashes. Processor time and memory are those of lastgood and the programs that it starts; what the \
         server takes is in the time alone."
            .to_owned(),
    );
    let mut tables = vec![Table { name: "postgres", subject, rows, notes, peak_bytes_max: PEAK_BYTES_MAX }];
    if bench.options.chunks {
        tables.push(chunks::measure(bench, &server, &shop)?);
    }
    Ok(tables)
}

/// lastgood with an empty repository and one database.
fn lastgood(bench: &Bench<'_>, server: &Server, database: &str, chunk: &'static str) -> Result<Lastgood> {
    let folder = bench.fresh("lastgood")?;
    let source = Source::Postgres { name: SOURCE, url: server.url(database), bin: server.bin()?, chunk };
    let lastgood = Lastgood::new(&bench.lastgood, &folder, &folder.join("repo"), &[source])?;
    prepare(&bench.lastgood(&lastgood, lastgood.init()))?;
    Ok(lastgood)
}
