//! A live SQLite database: first, and again after one page in a hundred has changed, in one place or all over.

use super::Bench;
use super::measure::{Job, Samples, bytes_of, measure as time, median, prepare};
use super::report::{PEAK_BYTES_MAX, Row, Table};
use crate::program::{Lastgood, Source};
use anyhow::{Context, Result};
use lastgood_testkit::rng::Rng;
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};

const DATABASE_BYTES: u64 = 800_000_000;
const PAGE_BYTES: u64 = 4096;

pub(super) fn measure(bench: &Bench<'_>) -> Result<Table> {
    let original = database(&bench.corpus, DATABASE_BYTES / bench.options.shrink)?;
    let (mut ours, mut limits) = (Samples::default(), Samples::default());
    let (mut bytes, mut limit_bytes) = (Vec::new(), Vec::new());
    let changes = ["in one place", "all over"];
    let (mut again, mut added, mut changed) =
        ([Samples::default(), Samples::default()], [vec![], vec![]], [vec![], vec![]]);
    for run in 0..bench.options.runs {
        let folder = bench.fresh("lastgood")?;
        let live = folder.join("live.db");
        fs_err::copy(&original, &live)?;
        let source = Source::Sqlite { name: "db", path: live.clone() };
        let lastgood = Lastgood::new(&bench.lastgood, &folder, &folder.join("repo"), &[source])?;
        prepare(&bench.lastgood(&lastgood, lastgood.init()))?;
        let plain = bench.fresh("plain")?;
        let go = |label: &str, job: &Job| time(label, job, bench.scratch, &[&live]);

        ours.push(go("lastgood, database", &bench.lastgood(&lastgood, lastgood.backup(false)))?);
        let dump = plain.join("dump.db");
        let line = "sqlite3 \"$1\" \".backup '$2'\" && zstd -q -3 -T2 \"$2\" -o \"$2.zst\"";
        limits.push(go("sqlite3 .backup, then zstd", &Job::shell(line, [&live, &dump]))?);
        bytes.push(bytes_of(&lastgood.repository)? as f64);
        limit_bytes.push(bytes_of(&plain.join("dump.db.zst"))? as f64);

        for (i, what) in changes.iter().enumerate() {
            let before = plain.join("before.db");
            fs_err::copy(&live, &before)?;
            change(&live, i == 1, run as u64)?;
            changed[i].push(pages_changed(&before, &live)? as f64);
            let stored = bytes_of(&lastgood.repository)?;
            again[i].push(go(
                &format!("lastgood, 1 % changed {what}"),
                &bench.lastgood(&lastgood, lastgood.backup(false)),
            )?);
            added[i].push(bytes_of(&lastgood.repository)?.saturating_sub(stored) as f64);
        }
        if run == 0 {
            compare_restored(bench, &lastgood, &folder.join("restored"), &live)?;
        }
    }
    let size = bytes_of(&original)? as f64;
    let mut rows = vec![
        Row::time("SQLite, first", &ours).beside(".backup, then zstd -3 -T2", &limits, Some(0.9)),
        Row::size("repository", median(bytes)).beside_value("zstd -3 -T2", median(limit_bytes), None),
    ];
    let mut notes = Vec::new();
    for (i, what) in changes.iter().enumerate() {
        let (added, pages) = (median(added[i].clone()), median(changed[i].clone()));
        rows.push(Row::time(format!("SQLite, 1 % changed {what}"), &again[i]).beside("first", &ours, None));
        rows.push(Row::size(format!("SQLite, stored for 1 % {what}"), added).beside_value(
            "the database",
            size,
            Some(0.03),
        ));
        notes.push(format!(
            "Changed {what}: {pages:.0} of {:.0} pages ({:.1} MB, {:.2} %) differ; {:.1} MB were stored, {:.0} bytes for \
             each changed page.",
            size / PAGE_BYTES as f64,
            pages * PAGE_BYTES as f64 / 1e6,
            pages * PAGE_BYTES as f64 / size * 100.0,
            added / 1e6,
            added / pages.max(1.0)
        ));
    }
    let subject = format!("An SQLite database of {:.0} MB in WAL mode, caches warm.", size / 1e6);
    Ok(Table { name: "sqlite", subject, rows, notes, peak_bytes_max: PEAK_BYTES_MAX })
}

/// Makes a database of that size, or takes the one made before: customers, orders, events and thumbnails, as an
/// application keeps them.
fn database(dir: &Path, bytes: u64) -> Result<PathBuf> {
    let path = dir.join(format!("database-1-{bytes}.db"));
    if path.exists() {
        return Ok(path);
    }
    eprintln!("making a database of {} MB", bytes / 1_000_000);
    let fresh = path.with_extension("new");
    super::measure::remove(&fresh)?;
    let mut db = Connection::open(&fresh)?;
    db.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000;
         CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, profile TEXT);
         CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL, at INTEGER NOT NULL,
             cents INTEGER NOT NULL, state TEXT NOT NULL, note TEXT, items TEXT);
         CREATE TABLE event (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL);
         CREATE TABLE thumbnail (id INTEGER PRIMARY KEY, name TEXT NOT NULL, image BLOB NOT NULL);
         CREATE INDEX purchase_customer ON purchase (customer);
         CREATE INDEX event_at ON event (at);",
    )?;
    let mut rng = Rng::new(7);
    let mut row = 0i64;
    while bytes_of(&fresh)? < bytes {
        let transaction = db.transaction()?;
        for _ in 0..4000 {
            row += 1;
            add(&transaction, row, &mut rng)?;
        }
        transaction.commit()?;
    }
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_checkpoint(TRUNCATE);")?;
    db.close().map_err(|(_, error)| error)?;
    fs_err::rename(&fresh, &path)?;
    Ok(path)
}

fn add(db: &Connection, row: i64, rng: &mut Rng) -> Result<()> {
    let text = |rng: &mut Rng, length: u64| String::from_utf8(rng.text(length as usize)).context("made text");
    if row % 10 == 0 {
        let (name, profile) = (text(rng, 14)?, text(rng, 120)?);
        let email = format!("{}@example.org", name.replace([' ', '\n'], "."));
        let profile = format!("{{\"language\":\"en\",\"about\":{profile:?},\"visits\":{}}}", rng.below(500));
        db.prepare_cached("INSERT INTO customer VALUES (?1, ?2, ?3, ?4)")?.execute(params![
            row / 10,
            name,
            email,
            profile
        ])?;
    }
    if row % 3 == 0 {
        let length = 20 + rng.below(80);
        let (customer, cents, note) = (rng.below(row as u64) as i64 / 10, rng.below(50_000) as i64, text(rng, length)?);
        let state = *rng.pick(&["open", "paid", "sent", "returned"]);
        let items =
            format!("[{{\"sku\":{},\"count\":{}}},{{\"sku\":{}}}]", rng.below(9999), rng.below(9), rng.below(9999));
        db.prepare_cached("INSERT INTO purchase VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(params![
            row / 3,
            customer,
            1_700_000_000 + row * 7,
            cents,
            state,
            note,
            items
        ])?;
    }
    if row % 40 == 0 {
        let length = 1500 + rng.below(9000);
        db.prepare_cached("INSERT INTO thumbnail VALUES (?1, ?2, ?3)")?.execute(params![
            row / 40,
            format!("image-{row}.jpg"),
            rng.bytes(length as usize)
        ])?;
    }
    let (kind, length) = (*rng.pick(&["view", "click", "login", "search", "error"]), 80 + rng.below(160));
    let payload = format!("{{\"session\":\"{:016x}\",\"text\":{:?}}}", rng.next_u64(), text(rng, length)?);
    db.prepare_cached("INSERT INTO event VALUES (?1, ?2, ?3, ?4)")?.execute(params![
        row,
        1_700_000_000 + row * 3,
        kind,
        payload
    ])?;
    Ok(())
}

/// Rewrites events in place, with payloads of the same length, until about one page in a hundred is another.
fn change(path: &Path, all_over: bool, seed: u64) -> Result<()> {
    let mut rng = Rng::new(1000 + seed * 2 + u64::from(all_over));
    let mut db = Connection::open(path)?;
    let pages = db.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0))? as u64;
    let events = db.query_row("SELECT max(id) FROM event", [], |row| row.get::<_, i64>(0))? as u64;
    let event_bytes: f64 = db.query_row("SELECT avg(length(payload)) + 25 FROM event LIMIT 1", [], |row| row.get(0))?;
    let wanted = pages / 100;
    let rows: Vec<u64> = if all_over {
        (0..wanted).map(|_| 1 + rng.below(events)).collect()
    } else {
        let count = (wanted as f64 * PAGE_BYTES as f64 / event_bytes) as u64;
        let from = 1 + rng.below(events.saturating_sub(count));
        (from..from + count).collect()
    };
    let transaction = db.transaction()?;
    for row in rows {
        let session = format!("{:016x}", rng.next_u64());
        transaction
            .prepare_cached(
                "UPDATE event SET payload = substr(payload, 1, 12) || ?2 || substr(payload, 29) WHERE id = ?1",
            )?
            .execute(params![row as i64, session])?;
    }
    transaction.commit()?;
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    db.close().map_err(|(_, error)| error.into())
}

/// How many pages differ.
fn pages_changed(before: &Path, after: &Path) -> Result<u64> {
    use std::io::Read;
    let (mut a, mut b) = (fs_err::File::open(before)?, fs_err::File::open(after)?);
    let (mut x, mut y) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut changed = 0;
    loop {
        let (n, m) = (fill(&mut a, &mut x)?, fill(&mut b, &mut y)?);
        let pages = |buffer: &[u8]| buffer.chunks(PAGE_BYTES as usize).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (left, right) = (pages(&x[..n]), pages(&y[..m]));
        changed += left.iter().zip(&right).filter(|(a, b)| a != b).count() as u64;
        changed += left.len().abs_diff(right.len()) as u64;
        if n == 0 && m == 0 {
            return Ok(changed);
        }
    }

    fn fill(file: &mut fs_err::File, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match file.read(&mut buffer[done..])? {
                0 => break,
                length => done += length,
            }
        }
        Ok(done)
    }
}

/// Page by page the restored file may differ in its header's counters; row by row it must not.
fn compare_restored(bench: &Bench<'_>, lastgood: &Lastgood, to: &Path, live: &Path) -> Result<()> {
    prepare(&bench.lastgood(lastgood, lastgood.restore("latest", to)))?;
    let restored = Lastgood::restored_database(to, "db", live)?;
    let line = "cmp <(sqlite3 -readonly \"$1\" .dump | sha256sum) <(sqlite3 -readonly \"$2\" .dump | sha256sum)";
    prepare(&Job::shell(line, [live, &restored])).context("compare the restored database with the live one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_touches_about_one_page_in_a_hundred_and_keeps_the_size() {
        let dir = tempfile::tempdir().unwrap();
        let original = database(dir.path(), 12_000_000).unwrap();
        let pages = bytes_of(&original).unwrap() / PAGE_BYTES;
        for all_over in [false, true] {
            let live = dir.path().join("live.db");
            fs_err::copy(&original, &live).unwrap();
            change(&live, all_over, 1).unwrap();
            assert_eq!(bytes_of(&live).unwrap(), bytes_of(&original).unwrap());
            let changed = pages_changed(&original, &live).unwrap();
            assert!((pages / 200..=pages / 50).contains(&changed), "{changed} of {pages}");
            let ok: String =
                Connection::open(&live).unwrap().query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
            assert_eq!(ok, "ok");
        }
    }
}
