//! What a query gave, all values as text as the server writes them.

use super::errors::nonsense;
use lastgood_model::{Error, ErrorKind, Result};
use std::str::FromStr;

/// One column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name; not necessarily unique.
    pub name: String,
    /// Oid of its type.
    pub type_oid: u32,
}

/// A value's place within the bytes of its rows; `None` for NULL.
pub(super) type Cell = Option<(u32, u32)>;

/// Rows of one statement, collected.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    pub(super) columns: Vec<Column>,
    pub(super) cells: Vec<Cell>,
    pub(super) bytes: Vec<u8>,
    pub(super) count: usize,
    pub(super) tag: String,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub(super) columns: &'a [Column],
    pub(super) cells: &'a [Cell],
    pub(super) bytes: &'a [u8],
}

impl Rows {
    /// Columns in order; empty if the statement gives no rows.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The server's word on what was done, such as `SELECT 3` or `CREATE TABLE`.
    pub fn command_tag(&self) -> &str {
        &self.tag
    }

    /// How many rows the command touched, as it says; `None` if it counts none.
    pub fn rows_affected(&self) -> Option<u64> {
        rows_of_tag(&self.tag)
    }

    /// The rows in order.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.count).filter_map(|at| self.get(at))
    }

    /// Row number `at`, from 0.
    pub fn get(&self, at: usize) -> Option<Row<'_>> {
        let width = self.columns.len();
        let cells = self.cells.get(at * width..(at + 1) * width).filter(|_| at < self.count)?;
        Some(Row { columns: &self.columns, cells, bytes: &self.bytes })
    }

    /// The only row.
    ///
    /// # Errors
    /// `Absent` if there is none, `Corrupt` if there are several.
    pub fn only(&self) -> Result<Row<'_>> {
        match (self.count, self.get(0)) {
            (1, Some(row)) => Ok(row),
            (0, _) => Err(Error::new(ErrorKind::Absent, "the server gave no row where there must be one")),
            (count, _) => Err(Error::corrupt(format!("the server gave {count} rows where there must be one"))),
        }
    }
}

impl<'a> Row<'a> {
    /// Columns in order.
    pub fn columns(&self) -> &'a [Column] {
        self.columns
    }

    /// Where the column called `name` stands.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The value of column `at`, from 0; `None` for NULL and for columns there are not.
    pub fn bytes(&self, at: usize) -> Option<&'a [u8]> {
        let (start, length) = (*self.cells.get(at)?)?;
        self.bytes.get(start as usize..)?.get(..length as usize)
    }

    /// The value as text; `None` for NULL.
    ///
    /// # Errors
    /// `Corrupt` if it is not UTF-8, `Bug` if there is no such column.
    pub fn optional(&self, at: usize) -> Result<Option<&'a str>> {
        let Some(column) = self.columns.get(at) else {
            return Err(Error::new(ErrorKind::Bug, format!("column {at} of {} was asked for", self.columns.len())));
        };
        let text = self.bytes(at).map(std::str::from_utf8).transpose();
        text.map_err(|error| Error::corrupt(format!("column {:?} is not UTF-8", column.name)).with_source(error))
    }

    /// The value as text.
    ///
    /// # Errors
    /// As [`Self::optional`], and `Corrupt` for NULL.
    pub fn text(&self, at: usize) -> Result<&'a str> {
        let name = || self.columns.get(at).map(|column| column.name.clone()).unwrap_or_default();
        self.optional(at)?.ok_or_else(|| Error::corrupt(format!("column {:?} is NULL", name())))
    }

    /// The value as something that can be read from its text, such as a number.
    ///
    /// # Errors
    /// As [`Self::text`], and `Corrupt` if it cannot be read.
    pub fn parse<T: FromStr>(&self, at: usize) -> Result<T> {
        let text = self.text(at)?;
        text.parse().map_err(|_| Error::corrupt(format!("{:?} is {text:?}", self.columns[at].name)))
    }

    /// The value as a truth.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn is_true(&self, at: usize) -> Result<bool> {
        match self.text(at)? {
            "t" => Ok(true),
            "f" => Ok(false),
            other => Err(Error::corrupt(format!("{:?} is {other:?}", self.columns[at].name))),
        }
    }
}

/// Finds the values in the body of a `DataRow` and appends their places, counted from `base`.
pub(super) fn read_cells(body: &[u8], width: usize, base: usize, cells: &mut Vec<Cell>) -> Result<()> {
    let short = || nonsense("a row that ends too early");
    let (count, mut rest) = body.split_first_chunk::<2>().ok_or_else(short)?;
    if usize::from(u16::from_be_bytes(*count)) != width {
        return Err(nonsense("a row with another number of columns than announced"));
    }
    for _ in 0..width {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        rest = after;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            cells.push(None);
            continue;
        }
        let length = usize::try_from(length).map_err(|_| nonsense("a value of negative length"))?;
        let start = base + (body.len() - rest.len());
        rest = rest.get(length..).ok_or_else(short)?;
        let start = u32::try_from(start).map_err(|_| nonsense("rows beyond every limit"))?;
        cells.push(Some((start, length as u32)));
    }
    if rest.is_empty() { Ok(()) } else { Err(nonsense("a row that is longer than its values")) }
}

/// The number at the end of a command tag.
pub(super) fn rows_of_tag(tag: &str) -> Option<u64> {
    tag.rsplit(' ').next()?.parse().ok()
}
