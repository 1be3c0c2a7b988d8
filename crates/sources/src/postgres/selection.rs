//! Rows of one table as statements ask for them, and reading all of them, whatever their length.
//!
//! A server makes the text of a row in one buffer that ends at 1 GiB, and a byte of a `bytea` takes two characters there:
//! a value of 900 MB has no text at all, and `COPY` in its text format fails as soon as it comes to such a row. In the
//! binary format it takes 900 MB. So a row without a text is read in the binary format, alone, and all others as text.
//! Which rows these are depends on their content only: every row is first tried as text.

use super::layout::{Column, LongRow, PartRecord};
use super::parts::Range;
use super::rows::RowHasher;
use super::sql::quote;
use super::wire::{Client, CopyRead, Transaction, sqlstate};
use lastgood_model::{Context, Error, ErrorKind, Result};

/// Taken from the server at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// No table below this has a row without a text, even if its values are all zeros and compressed: 1 MiB.
const TABLE_BYTES_MIN: u64 = 1 << 20;
/// A row whose texts and bytes are below this has a text, even where every character of it is escaped twice: 128 MiB.
const RAW_BYTES_MIN: u64 = 128 << 20;
/// Of other values only the stored length can be had at no cost. Below this they are not suspected: 4 MiB.
const STORED_BYTES_MIN: u64 = 4 << 20;
/// A server's words for a text that got too long: a limit of the program (54000), an allocation that no server makes
/// (XX000); and one that this server could not make now (53200), which may be the same in other words.
const TOO_LONG: [&str; 3] = ["54000", "XX000", "53200"];

/// Which rows of a table.
pub(super) struct Selection<'a> {
    /// The table as SQL.
    pub(super) table: String,
    pub(super) columns: &'a [Column],
    /// Texts are wanted in this encoding.
    pub(super) encoding: &'a str,
    pub(super) range: Range,
    /// `WHERE …`, in place of a range.
    pub(super) condition: Option<&'a str>,
    /// Its rows have a place, `ctid`.
    pub(super) is_heap: bool,
    /// What the table takes on disk.
    pub(super) bytes: u64,
}

/// Where rows go while they are read.
pub(super) trait Take {
    /// The next bytes of rows in the text format, cut anywhere.
    fn text(&mut self, piece: &[u8]) -> Result<()>;

    /// The next bytes of row `number` in the binary format, counted from 0: a whole output of `COPY`, cut anywhere.
    /// Rows come by their numbers, after all text.
    fn binary(&mut self, number: u32, piece: &[u8]) -> Result<()>;
}

/// Reads all rows of a selection: first those that have a text, then the others one by one. Returns what they are.
pub(super) fn read(client: &mut Client, rows: &Selection<'_>, take: &mut dyn Take) -> Result<PartRecord> {
    let may_be_long = rows.is_heap && rows.condition.is_none() && rows.bytes >= TABLE_BYTES_MIN;
    let in_transaction = may_be_long && client.transaction() == Transaction::Open;
    if in_transaction {
        client.batch("SAVEPOINT rows")?;
    }
    let mut reading =
        Reading { client, take, hasher: RowHasher::new(), bytes: 0, piece: Vec::with_capacity(PIECE_BYTES) };
    let mut long = Vec::new();
    match reading.text(&rows.copy()) {
        Err(error) if may_be_long && is_too_long(&error) && !reading.client.is_broken() => {
            if in_transaction {
                reading.client.batch("ROLLBACK TO SAVEPOINT rows")?;
            }
            long = reading.long_rows(rows)?;
            let Some(first) = long.first() else { return Err(error) };
            reading.check_read_up_to(rows, first)?;
            reading.text(&rows.copy_after(first, &long))?;
        }
        other => other?,
    }
    if in_transaction {
        reading.client.batch("RELEASE SAVEPOINT rows")?;
    }
    let mut long_rows = Vec::with_capacity(long.len());
    for (number, place) in long.iter().enumerate() {
        long_rows.push(reading.binary(number as u32, &rows.copy_binary(place))?);
    }
    let Reading { hasher, bytes, .. } = reading;
    Ok(PartRecord { bytes, total: hasher.finish()?, long_rows })
}

fn is_too_long(error: &Error) -> bool {
    sqlstate(error).is_some_and(|state| TOO_LONG.contains(&state))
}

/// The place of a row, as SQL writes a `tid`.
type Place = String;

impl Selection<'_> {
    /// All rows as text.
    pub(super) fn copy(&self) -> String {
        match (self.range.condition(), self.condition) {
            (None, None) => {
                let columns = super::layout::column_list(self.columns);
                format!("COPY {}{columns} {}", self.table, self.options(""))
            }
            (Some(pages), _) => self.copy_where(&format!("WHERE {pages}"), ""),
            (None, Some(condition)) => self.copy_where(condition, ""),
        }
    }

    fn copy_after(&self, first: &Place, without: &[Place]) -> String {
        let without = without.iter().map(|place| format!("'{place}'")).collect::<Vec<_>>().join(", ");
        let further = format!("ctid > '{first}' AND NOT ctid = ANY(ARRAY[{without}]::pg_catalog.tid[])");
        self.copy_where(&self.within(&further), "")
    }

    fn copy_text(&self, place: &Place) -> String {
        self.copy_where(&format!("WHERE ctid = '{place}'"), "")
    }

    fn copy_binary(&self, place: &Place) -> String {
        self.copy_where(&format!("WHERE ctid = '{place}'"), "FORMAT binary, ")
    }

    fn options(&self, format: &str) -> String {
        format!("TO STDOUT WITH ({format}ENCODING '{}')", self.encoding)
    }

    fn copy_where(&self, condition: &str, format: &str) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| quote(&column.name)).collect();
        let (columns, table) = (columns.join(", "), &self.table);
        format!("COPY (SELECT {columns} FROM ONLY {table} {condition}) {}", self.options(format))
    }

    /// A condition on rows of the range.
    fn within(&self, further: &str) -> String {
        match self.range.condition() {
            Some(pages) => format!("WHERE {pages} AND {further}"),
            None => format!("WHERE {further}"),
        }
    }

    /// The condition under which a row may have no text; nothing when no column can be that long.
    fn suspicion(&self) -> Option<String> {
        let is_plain = |name: &str| {
            let name = name.split('(').next().unwrap_or(name);
            ["bytea", "text", "character varying", "character"].contains(&name)
        };
        let (plain, others): (Vec<_>, Vec<_>) = self.columns.iter().partition(|column| is_plain(&column.type_name));
        let lengths = plain
            .iter()
            .map(|column| format!("COALESCE(pg_catalog.octet_length({}), 0)::pg_catalog.int8", quote(&column.name)));
        let lengths = lengths.collect::<Vec<_>>().join(" + ");
        let whole = (!plain.is_empty()).then(|| format!("{lengths} >= {RAW_BYTES_MIN}"));
        let each = others
            .iter()
            .map(|column| format!("pg_catalog.pg_column_size({}) >= {STORED_BYTES_MIN}", quote(&column.name)));
        let all: Vec<String> = whole.into_iter().chain(each).collect();
        (!all.is_empty()).then(|| format!("({})", all.join(" OR ")))
    }
}

/// Rows being read.
struct Reading<'a> {
    client: &'a mut Client,
    take: &'a mut dyn Take,
    hasher: RowHasher,
    bytes: u64,
    piece: Vec<u8>,
}

impl Reading<'_> {
    /// Reads what `sql` gives as text. What came before an error are whole rows, and counted.
    fn text(&mut self, sql: &str) -> Result<()> {
        let before = self.hasher.rows();
        let mut copy = self.client.copy_out(sql)?;
        let said = loop {
            self.piece.clear();
            let read = copy.read(&mut self.piece, PIECE_BYTES);
            // What came before an error is as good as any.
            self.bytes += self.piece.len() as u64;
            self.hasher.update(&self.piece);
            if !self.piece.is_empty() {
                self.take.text(&self.piece)?;
            }
            if let CopyRead::End { rows } = read? {
                break rows;
            }
        };
        let arrived = self.hasher.rows() - before;
        if said != Some(arrived) {
            let said = said.map_or_else(|| "no number of".to_owned(), |rows| rows.to_string());
            return Err(Error::corrupt(format!("the server tells of {said} rows, {arrived} arrived")));
        }
        Ok(())
    }

    /// The rows that have no text, by their places.
    fn long_rows(&mut self, rows: &Selection<'_>) -> Result<Vec<Place>> {
        let Some(suspicion) = rows.suspicion() else { return Ok(Vec::new()) };
        let sql = format!("SELECT ctid FROM ONLY {} {} ORDER BY ctid", rows.table, rows.within(&suspicion));
        let mut suspects = Vec::new();
        self.client
            .for_each_row(&sql, |row| {
                suspects.push(row.text(0)?.to_owned());
                Ok(())
            })
            .context("look for rows that are too long for a text")?;
        let mut long = Vec::new();
        for place in suspects {
            let in_transaction = self.client.transaction() == Transaction::Open;
            if in_transaction {
                self.client.batch("SAVEPOINT suspect")?;
            }
            match self.try_text(&rows.copy_text(&place)) {
                Ok(()) => {}
                Err(error) if is_too_long(&error) && !self.client.is_broken() => {
                    if in_transaction {
                        self.client.batch("ROLLBACK TO SAVEPOINT suspect")?;
                    }
                    long.push(place);
                }
                Err(error) => return Err(error),
            }
            if in_transaction {
                self.client.batch("RELEASE SAVEPOINT suspect")?;
            }
        }
        Ok(long)
    }

    /// Whether a row has a text. Its first byte tells.
    fn try_text(&mut self, sql: &str) -> Result<()> {
        let mut copy = self.client.copy_out(sql)?;
        loop {
            self.piece.clear();
            if let CopyRead::End { .. } = copy.read(&mut self.piece, PIECE_BYTES)? {
                return Ok(());
            }
        }
    }

    /// The text ended at the first row that has none, if rows came in the order of their places. That is how a server
    /// reads a table by itself; but nothing promises it.
    fn check_read_up_to(&mut self, rows: &Selection<'_>, first: &Place) -> Result<()> {
        let (table, within) = (&rows.table, rows.within(&format!("ctid < '{first}'")));
        let counted: u64 =
            self.client.query(&format!("SELECT pg_catalog.count(*) FROM ONLY {table} {within}"))?.only()?.parse(0)?;
        if counted == self.hasher.rows() && self.hasher.is_between_rows() {
            return Ok(());
        }
        let arrived = self.hasher.rows();
        Err(Error::new(ErrorKind::Bug, format!("{arrived} rows arrived before one that has no text, of {counted}")))
    }

    /// Reads one row in the binary format.
    fn binary(&mut self, number: u32, sql: &str) -> Result<LongRow> {
        let mut copy = self.client.copy_out(sql)?;
        let mut hasher = RowHasher::of_one_row();
        let mut bytes = 0;
        let said = loop {
            self.piece.clear();
            let read = copy.read(&mut self.piece, PIECE_BYTES)?;
            bytes += self.piece.len() as u64;
            hasher.update(&self.piece);
            self.take.binary(number, &self.piece)?;
            if let CopyRead::End { rows } = read {
                break rows;
            }
        };
        if said != Some(1) {
            return Err(Error::corrupt(format!("the server tells of {said:?} rows where one was asked for")));
        }
        Ok(LongRow { bytes, total: hasher.finish()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, type_name: &str) -> Column {
        Column { name: name.to_owned(), type_name: type_name.to_owned() }
    }

    fn selection(columns: &[Column], range: Range) -> Selection<'_> {
        let table = "\"s\".\"t\"".to_owned();
        Selection { table, columns, encoding: "UTF8", range, condition: None, is_heap: true, bytes: 0 }
    }

    #[test]
    fn statements_stay_within_their_range() {
        let columns = [column("a", "bytea"), column("b c", "integer")];
        let all = selection(&columns, Range::All);
        assert_eq!(all.copy(), r#"COPY "s"."t" ("a", "b c") TO STDOUT WITH (ENCODING 'UTF8')"#);
        let some = selection(&columns, Range::Pages(8, 16));
        let pages = "ctid >= '(8,0)' AND ctid < '(16,0)'";
        let select = r#"COPY (SELECT "a", "b c" FROM ONLY "s"."t" WHERE"#;
        assert_eq!(some.copy(), format!("{select} {pages}) TO STDOUT WITH (ENCODING 'UTF8')"));
        let rest = some.copy_after(&"(9,1)".to_owned(), &["(9,1)".to_owned(), "(9,3)".to_owned()]);
        assert_eq!(
            rest,
            format!(
                "{select} {pages} AND ctid > '(9,1)' AND NOT ctid = ANY(ARRAY['(9,1)', '(9,3)']::pg_catalog.tid[])) \
                 TO STDOUT WITH (ENCODING 'UTF8')"
            )
        );
        assert_eq!(
            some.copy_binary(&"(9,1)".to_owned()),
            format!("{select} ctid = '(9,1)') TO STDOUT WITH (FORMAT binary, ENCODING 'UTF8')")
        );
    }

    #[test]
    fn only_columns_that_can_be_long_are_suspected() {
        let columns = [column("a", "bytea"), column("v", "character varying(9)"), column("j", "jsonb")];
        assert_eq!(
            selection(&columns, Range::All).suspicion().unwrap(),
            "(COALESCE(pg_catalog.octet_length(\"a\"), 0)::pg_catalog.int8 + \
             COALESCE(pg_catalog.octet_length(\"v\"), 0)::pg_catalog.int8 >= 134217728 \
             OR pg_catalog.pg_column_size(\"j\") >= 4194304)"
        );
        assert_eq!(selection(&[], Range::All).suspicion(), None);
    }
}
