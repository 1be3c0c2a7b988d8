//! Large objects: they are made from `large-objects.sql` and filled from `large-objects.copy`, some MiB at a time by way
//! of a temporary table.

use super::super::layout::{LARGE_OBJECTS_ROWS, LARGE_OBJECTS_SQL, in_database};
use super::super::sql::{Token, Tokens, statements};
use super::super::toc::Text;
use super::super::wire::Client;
use super::saved::SavedDatabase;
use super::session::Sessions;
use lastgood_model::saved::SavedFiles;
use lastgood_model::{Context, Error, ErrorKind, Monitor, Result};
use std::collections::BTreeSet;

/// Statements in one transaction: each locks what it makes.
const STATEMENTS_MAX: usize = 500;
/// Text of rows in one transaction.
const ROWS_BYTES_MAX: usize = 16 << 20;

/// What of them is put back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes {
    pub(super) no_owner: bool,
    pub(super) no_acl: bool,
}

/// Hands on each statement of `large-objects.sql`, and never holds more of it than a piece and a statement.
pub(super) fn for_each_statement(
    files: &dyn SavedFiles,
    folder: &str,
    text: Text,
    mut each: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let path = in_database(folder, LARGE_OBJECTS_SQL);
    let mut reader = match files.open(path.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::Absent => return Ok(()),
        opened => opened?,
    };
    let (mut buffer, mut piece) = (Vec::new(), Vec::new());
    loop {
        let has_more = reader.read(&mut piece)?;
        match text {
            Text::Utf8 => buffer.append(&mut piece),
            Text::Bytes => piece.drain(..).for_each(|byte| {
                buffer.extend_from_slice(char::from(byte).encode_utf8(&mut [0; 2]).as_bytes());
            }),
        }
        let valid = match std::str::from_utf8(&buffer) {
            Ok(text) => text,
            // A character may be cut in two.
            Err(error) if has_more && error.error_len().is_none() => {
                std::str::from_utf8(&buffer[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(error) => return Err(Error::corrupt(format!("{path} is not UTF-8")).with_source(error)),
        };
        let mut pieces = statements(valid, true);
        // Whether a quote at the very end is the end of a text is known only with what follows; a semicolon is one.
        let is_ended = |piece: &str| Tokens::new(piece, true).last().is_some_and(|token| token.is_sign(";"));
        let rest = pieces.pop_if(|last| !is_ended(last)).unwrap_or_default();
        for piece in pieces {
            each(piece)?;
        }
        if !has_more {
            return match rest {
                "" => Ok(()),
                _ => Err(Error::corrupt(format!("{path} ends within a statement"))),
            };
        }
        // What could not be looked at yet stays, too.
        let done = if rest.is_empty() { valid.len() } else { rest.as_ptr().addr() - valid.as_ptr().addr() };
        buffer.drain(..done);
    }
}

/// What a statement does, and to which object.
fn kind(statement: &str) -> Option<(Kind, u32)> {
    let tokens: Vec<Token<'_>> = Tokens::new(statement, true).take(12).collect();
    let texts: Vec<&str> = tokens.iter().map(|token| token.text).collect();
    let oid = |text: &str| text.trim_matches('\'').parse::<u32>().ok();
    match texts[..] {
        ["SELECT", "pg_catalog", ".", "lo_create", "(", id, ")", ";"] => Some((Kind::Make, oid(id)?)),
        ["ALTER", "LARGE", "OBJECT", id, "OWNER", ..] => Some((Kind::Owner, oid(id)?)),
        ["COMMENT", "ON", "LARGE", "OBJECT", id, ..] => Some((Kind::Comment, oid(id)?)),
        ["REVOKE" | "GRANT", ..] => {
            let at = texts.windows(2).position(|pair| pair == ["LARGE", "OBJECT"])?;
            Some((Kind::Acl, oid(texts.get(at + 2)?)?))
        }
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Make,
    Owner,
    Comment,
    Acl,
}

fn is_wanted(statement: &str, wishes: Wishes) -> Result<bool> {
    match kind(statement) {
        Some((Kind::Owner, _)) => Ok(!wishes.no_owner),
        Some((Kind::Acl, _)) => Ok(!wishes.no_acl),
        Some(_) => Ok(true),
        None => {
            let shown: String = statement.chars().take(80).collect();
            Err(Error::corrupt(format!("{LARGE_OBJECTS_SQL} says {shown:?}")))
        }
    }
}

/// What a look at the script tells before anything is done.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) oids: BTreeSet<u32>,
    pub(super) roles: BTreeSet<String>,
}

/// Reads the script.
pub(super) fn look(files: &dyn SavedFiles, folder: &str, text: Text, wishes: Wishes) -> Result<Wanted> {
    let mut wanted = Wanted::default();
    for_each_statement(files, folder, text, |statement| {
        if is_wanted(statement, wishes)? {
            super::globals::roles_in(statement, true, &mut wanted.roles);
        }
        if let Some((Kind::Make, oid)) = kind(statement) {
            wanted.oids.insert(oid);
        }
        Ok(())
    })?;
    Ok(wanted)
}

/// Makes and fills them.
pub(super) fn restore(
    client: &mut Client,
    sessions: &Sessions,
    files: &dyn SavedFiles,
    saved: &SavedDatabase,
    wishes: Wishes,
    monitor: &Monitor,
) -> Result<()> {
    let mut batch: Vec<String> = Vec::new();
    for_each_statement(files, &saved.folder, saved.text, |statement| {
        if is_wanted(statement, wishes)? {
            batch.push(statement.to_owned());
        }
        if batch.len() >= STATEMENTS_MAX { make(client, sessions, &mut batch) } else { Ok(()) }
    })?;
    make(client, sessions, &mut batch)?;
    fill(client, sessions, files, &saved.folder, monitor).context("fill large objects")
}

fn make(client: &mut Client, sessions: &Sessions, batch: &mut Vec<String>) -> Result<()> {
    sessions.check()?;
    if !batch.is_empty() {
        client.batch(&batch.join("\n")).context("make large objects")?;
    }
    batch.clear();
    Ok(())
}

fn fill(
    client: &mut Client,
    sessions: &Sessions,
    files: &dyn SavedFiles,
    folder: &str,
    monitor: &Monitor,
) -> Result<()> {
    let path = in_database(folder, LARGE_OBJECTS_ROWS);
    let mut reader = match files.open(path.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::Absent => return Ok(()),
        opened => opened?,
    };
    client.batch(
        "CREATE TEMPORARY TABLE lastgood_pieces (object pg_catalog.oid, at pg_catalog.int8, piece pg_catalog.bytea)",
    )?;
    let mut buffer = Vec::new();
    loop {
        sessions.check()?;
        let has_more = reader.read(&mut buffer)?;
        if has_more && buffer.len() < ROWS_BYTES_MAX {
            continue;
        }
        let end = buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if !has_more && end < buffer.len() {
            return Err(Error::corrupt(format!("{path} ends within a row")));
        }
        if end > 0 {
            put(client, &buffer[..end])?;
            monitor.add(|counters| &counters.bytes, end as u64);
            buffer.drain(..end);
        }
        if !has_more {
            break;
        }
    }
    client.batch("DROP TABLE pg_temp.lastgood_pieces")
}

/// Puts whole rows where they belong, in one transaction.
fn put(client: &mut Client, rows: &[u8]) -> Result<()> {
    client.batch("BEGIN; TRUNCATE pg_temp.lastgood_pieces")?;
    let mut copy = client.copy_in("COPY pg_temp.lastgood_pieces FROM STDIN WITH (ENCODING 'UTF8')")?;
    copy.write(rows)?;
    let taken = copy.finish()?;
    let sent = memchr::memchr_iter(b'\n', rows).count() as u64;
    if taken != sent {
        return Err(Error::corrupt(format!("the server took {taken} of {sent} rows")));
    }
    client.batch("SELECT pg_catalog.count(pg_catalog.lo_put(object, at, piece)) FROM pg_temp.lastgood_pieces; COMMIT")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgood_model::Node;
    use lastgood_model::saved::SavedReader;

    struct One(Vec<u8>, usize);
    struct Pieces<'a>(&'a [u8], usize);

    impl SavedFiles for One {
        fn list(&self, _: &[u8]) -> Result<Vec<Node>> {
            Ok(Vec::new())
        }
        fn open(&self, _: &[u8]) -> Result<Box<dyn SavedReader + '_>> {
            Ok(Box::new(Pieces(&self.0, self.1)))
        }
    }

    impl SavedReader for Pieces<'_> {
        fn read(&mut self, out: &mut Vec<u8>) -> Result<bool> {
            let (piece, rest) = self.0.split_at(self.1.min(self.0.len()));
            out.extend_from_slice(piece);
            self.0 = rest;
            Ok(!piece.is_empty())
        }
    }

    const SCRIPT: &str = "SELECT pg_catalog.lo_create('16390');\nALTER LARGE OBJECT 16390 OWNER TO \"a;b\";\n\
        COMMENT ON LARGE OBJECT 16390 IS 'it''s; é\nSELECT';\nREVOKE ALL ON LARGE OBJECT 16390 FROM \"a;b\";\n\
        GRANT SELECT ON LARGE OBJECT 16390 TO PUBLIC;\nGRANT UPDATE ON LARGE OBJECT 16390 TO \"r\" WITH GRANT OPTION;\n";

    #[test]
    fn statements_are_whole_however_the_file_comes() {
        for size in [1, 2, 3, 7, 50, 1000] {
            let mut found = Vec::new();
            for_each_statement(&One(SCRIPT.into(), size), "f", Text::Utf8, |statement| {
                found.push(kind(statement).expect("a known statement"));
                Ok(())
            })
            .unwrap();
            let kinds = [Kind::Make, Kind::Owner, Kind::Comment, Kind::Acl, Kind::Acl, Kind::Acl];
            assert_eq!(found, kinds.map(|kind| (kind, 16390)), "{size}");
        }
        let cut = &SCRIPT.as_bytes()[..60];
        assert!(for_each_statement(&One(cut.into(), 9), "f", Text::Utf8, |_| Ok(())).is_err());
    }

    #[test]
    fn wishes_leave_out_owners_and_privileges_and_nothing_unknown_is_run() {
        let files = One(SCRIPT.into(), 9);
        let wanted = look(&files, "f", Text::Utf8, Wishes { no_owner: false, no_acl: false }).unwrap();
        assert_eq!(wanted.roles.into_iter().collect::<Vec<_>>(), ["a;b", "r"]);
        let wanted = look(&files, "f", Text::Utf8, Wishes { no_owner: true, no_acl: true }).unwrap();
        assert_eq!((wanted.roles.len(), wanted.oids.len()), (0, 1));
        let error = look(&One(b"DROP TABLE x;".to_vec(), 9), "f", Text::Utf8, Wishes { no_owner: true, no_acl: true });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
