//! Large objects, compared by what they hold. How their bytes are cut into rows differs between captures, and a hole is
//! as good as zeros: each object counts as its bytes from start to end.

use super::super::super::layout::{LARGE_OBJECTS_ROWS, in_database};
use super::super::super::session as reading;
use super::super::super::wire::{Client, CopyRead};
use super::super::large_objects::{self, Wishes};
use super::super::saved::SavedDatabase;
use super::super::session::Sessions;
use super::{Mismatch, VerifyReport};
use lastgood_model::saved::SavedFiles;
use lastgood_model::{Context, Error, ErrorKind, Result};
use std::collections::BTreeMap;
use twox_hash::xxhash3_128::Hasher;

/// How many objects that differ are named.
const NAMED_MAX: usize = 20;
const PIECE_BYTES: usize = 256 * 1024;
/// Bytes of an object in one row, when it is read through `lo_get`.
const LO_BYTES: u32 = 131_072;
const ZEROS: [u8; 4096] = [0; 4096];

/// Length and digest of each object.
type Objects = BTreeMap<u32, (u64, u128)>;

pub(super) fn compare(
    client: &mut Client,
    sessions: &Sessions,
    files: &dyn SavedFiles,
    database: &SavedDatabase,
    report: &mut VerifyReport,
) -> Result<()> {
    let wanted = large_objects::look(files, &database.folder, database.text, Wishes { no_owner: true, no_acl: true })?;
    report.large_objects = wanted.oids.len() as u64;
    let there = client.query("SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata")?;
    let there: u64 = there.only()?.parse(0)?;
    if wanted.oids.is_empty() && there == 0 {
        return Ok(());
    }
    let mut saved = saved(sessions, files, &database.folder).context("read large objects")?;
    saved.retain(|oid, _| wanted.oids.contains(oid));
    let mut found = found(client, sessions).context("read large objects of the server")?;
    let mut all: Objects = Objects::new();
    client.for_each_row("SELECT oid FROM pg_catalog.pg_largeobject_metadata", |row| {
        all.insert(row.parse(0)?, empty());
        Ok(())
    })?;
    all.append(&mut found);
    for oid in &wanted.oids {
        saved.entry(*oid).or_insert_with(empty);
    }
    let told = |what: Option<&(u64, u128)>| match what {
        Some((bytes, digest)) => format!("{bytes} bytes with digest {digest:032x}"),
        None => "not there".to_owned(),
    };
    let numbers: std::collections::BTreeSet<u32> = saved.keys().chain(all.keys()).copied().collect();
    let mut different = numbers.into_iter().filter(|oid| saved.get(oid) != all.get(oid));
    for oid in different.by_ref().take(NAMED_MAX) {
        report.mismatches.push(Mismatch {
            what: format!("large object {oid}"),
            expected: told(saved.get(&oid)),
            found: told(all.get(&oid)),
        });
    }
    let more = different.count();
    if more > 0 {
        let what = "large objects".to_owned();
        report.mismatches.push(Mismatch { what, expected: "as saved".into(), found: format!("{more} more differ") });
    }
    Ok(())
}

fn empty() -> (u64, u128) {
    (0, Hasher::new().finish_128())
}

/// Takes rows as they come, cut anywhere, in the order of objects and their bytes.
#[derive(Default)]
struct Digester {
    done: Objects,
    now: Option<(u32, u64, Hasher)>,
    rest: Vec<u8>,
}

impl Digester {
    fn update(&mut self, piece: &[u8]) -> Result<()> {
        self.rest.extend_from_slice(piece);
        let rest = std::mem::take(&mut self.rest);
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &rest) {
            self.row(&rest[start..end])?;
            start = end + 1;
        }
        self.rest = rest[start..].to_vec();
        Ok(())
    }

    fn row(&mut self, row: &[u8]) -> Result<()> {
        let wrong = || Error::corrupt("a row of large objects is not a number, a place and bytes");
        let mut fields = row.split(|byte| *byte == b'\t');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<u64>().ok();
        let (oid, at) = (number().and_then(|oid| u32::try_from(oid).ok()), number());
        let (Some(oid), Some(at), Some(hex)) = (oid, at, fields.next()) else { return Err(wrong()) };
        let bytes = decode(hex.strip_prefix(b"\\\\x").ok_or_else(wrong)?).ok_or_else(wrong)?;
        if self.now.as_ref().is_none_or(|(now, ..)| *now != oid) {
            self.close();
            self.now = Some((oid, 0, Hasher::new()));
        }
        if let Some((_, length, hasher)) = &mut self.now {
            let mut hole = at.checked_sub(*length).ok_or_else(wrong)?;
            while hole > 0 {
                let zeros = &ZEROS[..hole.min(ZEROS.len() as u64) as usize];
                hasher.write(zeros);
                hole -= zeros.len() as u64;
            }
            hasher.write(&bytes);
            *length = at + bytes.len() as u64;
        }
        Ok(())
    }

    fn close(&mut self) {
        if let Some((oid, length, hasher)) = self.now.take() {
            self.done.insert(oid, (length, hasher.finish_128()));
        }
    }

    fn finish(mut self) -> Result<Objects> {
        self.close();
        if self.rest.is_empty() { Ok(self.done) } else { Err(Error::corrupt("rows of large objects end within one")) }
    }
}

fn decode(hex: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = hex.chunks(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?));
    pairs.collect()
}

fn saved(sessions: &Sessions, files: &dyn SavedFiles, folder: &str) -> Result<Objects> {
    let mut reader = match files.open(in_database(folder, LARGE_OBJECTS_ROWS).as_bytes()) {
        Err(error) if error.kind() == ErrorKind::Absent => return Ok(Objects::new()),
        opened => opened?,
    };
    let mut digester = Digester::default();
    let mut piece = Vec::new();
    while reader.read(&mut piece)? {
        sessions.check()?;
        digester.update(&piece)?;
        piece.clear();
    }
    digester.finish()
}

fn found(client: &mut Client, sessions: &Sessions) -> Result<Objects> {
    client.set_up(&reading::settings(client.server_version()))?;
    let may_read = client
        .query("SELECT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')")?
        .only()?
        .is_true(0)?;
    let sql = if may_read {
        "COPY (SELECT loid, pageno::pg_catalog.int8 * (pg_catalog.current_setting('block_size')::pg_catalog.int8 / 4), data \
         FROM pg_catalog.pg_largeobject ORDER BY loid, pageno) TO STDOUT"
            .to_owned()
    } else {
        // Where an object ends is where there is nothing more: 8 TiB at most.
        format!(
            "COPY (WITH RECURSIVE piece AS ( \
               SELECT oid, 0::pg_catalog.int8 AS at, pg_catalog.lo_get(oid, 0, {LO_BYTES}) AS bytes \
               FROM pg_catalog.pg_largeobject_metadata \
               UNION ALL \
               SELECT oid, at + {LO_BYTES}, pg_catalog.lo_get(oid, at + {LO_BYTES}, {LO_BYTES}) FROM piece \
               WHERE pg_catalog.length(bytes) = {LO_BYTES}) \
             SELECT oid, at, bytes FROM piece ORDER BY oid, at) TO STDOUT"
        )
    };
    let mut copy = client.copy_out(&sql)?;
    let mut digester = Digester::default();
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    loop {
        piece.clear();
        let read = copy.read(&mut piece, PIECE_BYTES)?;
        digester.update(&piece)?;
        sessions.check()?;
        if let CopyRead::End { .. } = read {
            return digester.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &str, size: usize) -> Objects {
        let mut digester = Digester::default();
        rows.as_bytes().chunks(size).for_each(|piece| digester.update(piece).unwrap());
        digester.finish().unwrap()
    }

    #[test]
    fn an_object_is_its_bytes_however_they_are_cut_and_holes_are_zeros() {
        let cut = of("7\t0\t\\\\x0102\n7\t2\t\\\\x03\n7\t5\t\\\\x04\n9\t0\t\\\\x\n", 3);
        let whole = of("7\t0\t\\\\x010203000004\n9\t0\t\\\\x\n", 1000);
        assert_eq!(cut, whole);
        assert_eq!(cut[&7].0, 6);
        assert_eq!(cut[&9], empty());
        assert_ne!(of("7\t0\t\\\\x01\n", 9), of("7\t0\t\\\\x02\n", 9));
    }

    #[test]
    fn other_rows_are_refused() {
        for bad in ["7\t0\n", "7\t0\tx\n", "x\t0\t\\\\x01\n", "7\t0\t\\\\x0\n", "7\t3\t\\\\x01\n7\t1\t\\\\x01\n"] {
            assert!(Digester::default().update(bad.as_bytes()).is_err(), "{bad}");
        }
        let mut cut = Digester::default();
        cut.update(b"7\t0").unwrap();
        assert!(cut.finish().is_err());
    }
}
