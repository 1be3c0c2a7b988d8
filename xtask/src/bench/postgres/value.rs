//! One value that is larger than all the memory that lastgood may take. PostgreSQL itself keeps values of up to 1 GB and
//! writes no text of more than that, which two digits a byte reach at half of it.

use super::server::{Packing, Server};
use super::{CHUNK, SOURCE};
use crate::bench::Bench;
use crate::bench::measure::{Samples, remove};
use crate::bench::report::Row;
use anyhow::{Error, Result};
use lastgood_testkit::rng::Rng;
use std::os::unix::fs::PermissionsExt;

const DATABASE: &str = "value";
const BACK: &str = "value_back";
/// Megabytes of the values: what fits into a text of 1 GB, and what does not.
const SIZES_MB: [u64; 2] = [500, 900];

/// Captures and restores a database that holds one value, once for each size.
pub(super) fn measure(bench: &Bench<'_>, server: &Server, rows: &mut Vec<Row>, notes: &mut Vec<String>) -> Result<()> {
    for megabytes in SIZES_MB {
        make(bench, server, megabytes * 1_000_000 / bench.options.shrink)?;
        let what = format!("one value of {megabytes} MB");
        let dump = bench.fresh("dumps")?.join("dump");
        let mut pg_dump = Samples::default();
        match server.measure("pg_dump, one value", &server.dump(DATABASE, Packing::Zstd, &dump), Some(DATABASE), &[]) {
            Ok(sample) => pg_dump.push(sample),
            Err(error) => notes.push(format!("pg_dump fails on {what}: {}", said(&error))),
        }
        remove(&dump)?;
        let lastgood = super::lastgood(bench, server, DATABASE, CHUNK)?;
        let mut first = Samples::default();
        match server.measure(
            "lastgood, one value",
            &bench.lastgood(&lastgood, lastgood.backup(false)),
            Some(DATABASE),
            &[],
        ) {
            Ok(sample) => first.push(sample),
            Err(error) => {
                notes.push(format!("lastgood fails on {what}: {}", said(&error)));
                rows.push(Row::failed(what));
                continue;
            }
        }
        rows.push(Row::time(what.clone(), &first).beside(Packing::Zstd.name(), &pg_dump, None));
        server.drop(BACK)?;
        let words = lastgood.restore_to_server("latest", SOURCE, &server.url(BACK), &[]);
        let mut restore = Samples::default();
        match server.measure(
            "lastgood, one value restored",
            &bench.lastgood(&lastgood, words),
            None,
            &[&lastgood.repository],
        ) {
            Ok(sample) => restore.push(sample),
            Err(error) => {
                notes.push(format!("lastgood fails to restore {what}: {}", said(&error)));
                rows.push(Row::failed(format!("restore of {what}")));
                continue;
            }
        }
        let sum = "SELECT id, encode(sha256(body), 'hex') FROM value";
        let (left, right) = (server.sql(DATABASE, sum)?, server.sql(BACK, sum)?);
        anyhow::ensure!(left == right, "{what} was restored differently");
        rows.push(Row::time(format!("restore of {what}"), &restore));
    }
    server.drop(BACK)?;
    server.drop(DATABASE)
}

/// A table with one value of that length, half of it compressible.
fn make(bench: &Bench<'_>, server: &Server, bytes: u64) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("value-").tempdir_in(&bench.corpus)?;
    // The server's user reads it.
    fs_err::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
    let file = folder.path().join("value");
    let mut rng = Rng::new(bytes);
    let mut out = Vec::with_capacity(bytes as usize);
    while (out.len() as u64) < bytes {
        let half = 500_000.min(bytes as usize - out.len());
        out.extend(if rng.below(2) == 0 { rng.bytes(half) } else { rng.text(half) });
    }
    fs_err::write(&file, out)?;
    server.create(DATABASE)?;
    let path = lastgood_testkit::postgres::quote_literal(&file.display().to_string());
    server.sql(
        DATABASE,
        &format!(
            "CREATE TABLE value (id integer PRIMARY KEY, body bytea NOT NULL);
             ALTER TABLE value ALTER COLUMN body SET STORAGE external;
             INSERT INTO value SELECT 1, pg_read_binary_file({path});"
        ),
    )?;
    server.sql(DATABASE, "VACUUM ANALYZE").map(drop)
}

/// The line of a failed run that tells why.
fn said(error: &Error) -> String {
    let text = error.to_string();
    // The server's own words first, then those of whoever spoke to it.
    let has = |word: &str| text.lines().skip(1).find(|line| line.contains(word));
    let line = has("ERROR").or_else(|| has("error")).or_else(|| text.lines().last()).unwrap_or_default();
    format!("`{}`", line.trim().replace('`', "'"))
}
