//! Statements and their rows.

use super::super::toc::Text;
use super::errors::nonsense;
use super::link::{COPY_BOTH_TAG, Frame};
use super::rows::{Cell, Column, Row, Rows, read_cells};
use super::{Client, link};
use fallible_iterator::FallibleIterator;
use lastgood_model::{Error, ErrorKind, Result};
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::{self, Message};
use postgres_protocol::message::frontend;

/// Most memory that [`Client::query`] and [`Client::query_with`] use for rows, and also the longest single row that
/// [`Client::for_each_row`] takes. More than that is an error of kind `Unsupported`.
pub const ROWS_BYTES_MAX: usize = 64 << 20;

/// Something of an answer.
enum Event<'a> {
    Columns(&'a [Column]),
    /// The row's body, cells counted from its beginning.
    Row(Row<'a>),
    /// The command tag.
    Done(&'a str),
}

impl Client {
    /// Runs one or more statements and passes over their rows, if they give any. Several run in one transaction unless
    /// they contain transaction commands.
    pub fn batch(&mut self, sql: &str) -> Result<()> {
        self.begin()?;
        self.put_query(sql)?;
        self.run(false, &mut |_| Ok(()))
    }

    /// Runs one or more statements and collects the rows of the last that gives any, up to [`ROWS_BYTES_MAX`].
    pub fn query(&mut self, sql: &str) -> Result<Rows> {
        self.begin()?;
        self.put_query(sql)?;
        self.collect(false)
    }

    /// Runs one statement with parameters `$1`, `$2`, …, given as text, and collects its rows up to
    /// [`ROWS_BYTES_MAX`].
    pub fn query_with(&mut self, sql: &str, parameters: &[Option<&str>]) -> Result<Rows> {
        self.begin()?;
        if parameters.len() > usize::from(u16::MAX) {
            return Err(Error::invalid(format!("a statement cannot have {} parameters", parameters.len())));
        }
        self.link.put(|buffer| {
            frontend::parse("", sql, [], buffer)?;
            let bound = frontend::bind(
                "",
                "",
                [],
                parameters,
                |value, buffer| {
                    let Some(text) = value else { return Ok(IsNull::Yes) };
                    buffer.extend_from_slice(text.as_bytes());
                    Ok(IsNull::No)
                },
                [],
                buffer,
            );
            bound.map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
            frontend::describe(b'P', "", buffer)?;
            frontend::execute("", 0, buffer)?;
            frontend::sync(buffer);
            Ok(())
        })?;
        self.collect(true)
    }

    /// Runs one statement and hands on each row as it comes, in constant memory. An error of `each` cancels the
    /// statement and is returned.
    pub fn for_each_row(&mut self, sql: &str, mut each: impl FnMut(Row<'_>) -> Result<()>) -> Result<()> {
        self.begin()?;
        self.put_query(sql)?;
        self.run(false, &mut |event| match event {
            Event::Row(row) => each(row),
            _ => Ok(()),
        })
    }

    fn collect(&mut self, is_extended: bool) -> Result<Rows> {
        let mut rows = Rows::default();
        self.run(is_extended, &mut |event| {
            match event {
                Event::Columns(columns) => rows = Rows { columns: columns.to_vec(), ..Rows::default() },
                Event::Row(row) => {
                    let cells_bytes = (rows.cells.len() + row.cells.len()) * size_of::<Cell>();
                    if rows.bytes.len() + row.bytes.len() + cells_bytes > ROWS_BYTES_MAX {
                        return Err(too_much());
                    }
                    let base = rows.bytes.len() as u32;
                    rows.bytes.extend_from_slice(row.bytes);
                    rows.cells.extend(row.cells.iter().map(|cell| cell.map(|(at, length)| (at + base, length))));
                    rows.count += 1;
                }
                Event::Done(tag) => tag.clone_into(&mut rows.tag),
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// Sends what was put and reads the whole answer.
    fn run(&mut self, is_extended: bool, hear: &mut dyn FnMut(Event<'_>) -> Result<()>) -> Result<()> {
        self.link.send()?;
        let mut columns: Option<Vec<Column>> = None;
        let mut cells = Vec::new();
        // Our own reason to fail, kept until the server is ready again.
        let mut refusal: Option<Error> = None;
        loop {
            let frame = self.next()?;
            let heard = match frame.tag {
                backend::READY_FOR_QUERY_TAG => {
                    self.ready(frame)?;
                    let failure = self.link.failure();
                    return match refusal {
                        Some(refusal) => Err(refusal),
                        None => failure,
                    };
                }
                backend::ROW_DESCRIPTION_TAG => {
                    let list = columns.insert(self.columns(frame)?);
                    if refusal.is_none() { hear(Event::Columns(list)) } else { Ok(()) }
                }
                backend::DATA_ROW_TAG if refusal.is_some() => self.link.skip(frame.length),
                backend::DATA_ROW_TAG if frame.length > ROWS_BYTES_MAX => {
                    self.link.skip(frame.length)?;
                    Err(too_much())
                }
                backend::DATA_ROW_TAG => {
                    let text = self.text;
                    let Some(columns) = &columns else {
                        return Err(self.link.spoilt(nonsense("a row before its columns")));
                    };
                    cells.clear();
                    // Two results: what the server said is sound; what the hearer made of it.
                    self.link.with_body(frame, |body| {
                        read_cells(body, columns.len(), 0, &mut cells)?;
                        if text == Text::Bytes {
                            let wide = widen(body, &mut cells);
                            return Ok(hear(Event::Row(Row { columns, cells: &cells, bytes: &wide })));
                        }
                        Ok(hear(Event::Row(Row { columns, cells: &cells, bytes: body })))
                    })?
                }
                backend::COMMAND_COMPLETE_TAG => {
                    columns = None;
                    let tag = self.command_tag(frame)?;
                    if refusal.is_none() { hear(Event::Done(&tag)) } else { Ok(()) }
                }
                backend::COPY_IN_RESPONSE_TAG => {
                    self.link.skip(frame.length)?;
                    self.link.put(|buffer| {
                        frontend::copy_fail("no data was to be sent", buffer)?;
                        if is_extended {
                            // The one sent before was passed over, as everything is that is no data.
                            frontend::sync(buffer);
                        }
                        Ok(())
                    })?;
                    self.link.send()?;
                    Err(Error::new(ErrorKind::Bug, "COPY FROM STDIN needs copy_in"))
                }
                backend::COPY_OUT_RESPONSE_TAG => {
                    self.link.skip(frame.length)?;
                    Err(Error::new(ErrorKind::Bug, "COPY TO STDOUT needs copy_out"))
                }
                COPY_BOTH_TAG => {
                    return Err(self.link.spoilt(Error::new(ErrorKind::Bug, "replication needs its own call")));
                }
                _ => self.link.skip(frame.length),
            };
            if let Err(error) = heard
                && refusal.is_none()
            {
                if self.is_broken() {
                    return Err(error);
                }
                refusal = Some(error);
                // The rest of the answer is of no use; the less of it the better. If this fails, it is only slower.
                let _ = self.canceller.knock();
            }
        }
    }

    fn columns(&mut self, frame: Frame) -> Result<Vec<Column>> {
        let Message::RowDescription(body) = self.link.parse(frame)? else {
            return Err(self.link.spoilt(nonsense("columns that are none")));
        };
        let fields =
            body.fields().map(|field| Ok(Column { name: field.name().to_owned(), type_oid: field.type_oid() }));
        fields.collect().map_err(|error| self.link.spoilt(nonsense(error)))
    }

    /// Text of a `CommandComplete`.
    pub(super) fn command_tag(&mut self, frame: link::Frame) -> Result<String> {
        self.link.with_body(frame, |body| {
            let text = body.strip_suffix(&[0]).and_then(|text| std::str::from_utf8(text).ok());
            text.map(str::to_owned).ok_or_else(|| nonsense("a command tag that is no text"))
        })
    }
}

/// Values as text in the form of [`Text::Bytes`], whose places `cells` then tells.
fn widen(body: &[u8], cells: &mut [Cell]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    for (at, length) in cells.iter_mut().flatten() {
        let start = *at as usize;
        let bytes = body.get(start..start + *length as usize).unwrap_or_default();
        *at = out.len() as u32;
        for byte in bytes {
            out.extend_from_slice(char::from(*byte).encode_utf8(&mut [0; 2]).as_bytes());
        }
        *length = out.len() as u32 - *at;
    }
    out
}

fn too_much() -> Error {
    Error::new(ErrorKind::Unsupported, format!("the answer has more than {} MiB", ROWS_BYTES_MAX >> 20))
}
