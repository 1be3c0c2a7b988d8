//! Results on standard output, everything else on standard error. In `json` a command prints one document, in `ndjson`
//! one object a line; each object says its `type` and `schema`.

use crate::args::Format;
use crate::progress;
use crate::text::printable;
use lastgood_model::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};
use std::io::{BufWriter, Stdout, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where results go.
#[derive(Debug)]
pub(crate) struct Out {
    pub(crate) format: Format,
    pub(crate) quiet: bool,
    stdout: Mutex<Pipe>,
}

#[derive(Debug)]
struct Pipe {
    out: BufWriter<Stdout>,
    /// Nobody reads any more, as after `| head`. That is no failure of what we do.
    closed: bool,
    /// The document of a list that broke off; it waits for the error to go into it.
    broken_off: bool,
}

impl Out {
    pub(crate) fn new(format: Format, quiet: bool) -> Self {
        Self {
            format,
            quiet,
            stdout: Mutex::new(Pipe { out: BufWriter::new(std::io::stdout()), closed: false, broken_off: false }),
        }
    }

    /// True when results are for people.
    pub(crate) fn is_human(&self) -> bool {
        self.format == Format::Human
    }

    fn pipe(&self) -> MutexGuard<'_, Pipe> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut pipe = self.pipe();
        if pipe.closed {
            return Ok(());
        }
        let written = pipe.out.write_all(bytes);
        settle(&mut pipe, written)
    }

    /// A line of a result for people.
    pub(crate) fn line(&self, text: impl AsRef<str>) -> Result<()> {
        self.bytes(format!("{}\n", printable(text.as_ref())).as_bytes())
    }

    /// A remark beside the result, on standard error; not when quiet.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            // On a terminal both are read as one. Trouble with the results is told by the next write to them.
            let _ = self.flush();
            progress::say(text.as_ref());
        }
    }

    /// One object, for programs.
    pub(crate) fn object(&self, value: &impl Serialize) -> Result<()> {
        let encoded = match self.format {
            Format::Ndjson => serde_json::to_vec(value),
            _ => serde_json::to_vec_pretty(value),
        };
        let mut encoded =
            encoded.map_err(|e| Error::new(lastgood_model::ErrorKind::Bug, "encode result").with_source(e))?;
        encoded.push(b'\n');
        if std::mem::take(&mut self.pipe().broken_off) {
            self.bytes(b",\n  \"error\": ")?;
            encoded.extend_from_slice(b"}\n");
        }
        self.bytes(&encoded)
    }

    /// True once nobody reads any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.pipe().closed
    }

    /// Hands everything over.
    pub(crate) fn flush(&self) -> Result<()> {
        let mut pipe = self.pipe();
        if pipe.closed {
            return Ok(());
        }
        let flushed = pipe.out.flush();
        settle(&mut pipe, flushed)
    }

    /// Begins a list. `item_type` is the `type` of each item in `ndjson`; in `json` there is one object of `list_type`
    /// with `head` and the items under `key`.
    pub(crate) fn list(
        &self,
        list_type: &str,
        item_type: &'static str,
        key: &str,
        head: Map<String, Value>,
    ) -> Result<List<'_>> {
        if self.format == Format::Json {
            let mut text = format!("{{\n  \"type\": {},\n  \"schema\": 1", Value::from(list_type));
            for (key, value) in &head {
                text.push_str(&format!(",\n  {}: {value}", Value::from(key.as_str())));
            }
            text.push_str(&format!(",\n  {}: [", Value::from(key)));
            self.bytes(text.as_bytes())?;
        }
        Ok(List { out: self, item_type, count: 0, ended: false })
    }
}

fn settle(pipe: &mut Pipe, outcome: std::io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            pipe.closed = true;
            Ok(())
        }
        outcome => outcome.map_err(|e| Error::io("write to standard output", e)),
    }
}

/// For `cat`: bytes to standard output, through the same pipe.
impl Write for &Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.bytes(bytes) {
            Ok(()) if self.is_closed() => Err(std::io::ErrorKind::BrokenPipe.into()),
            Ok(()) => Ok(bytes.len()),
            Err(error) => Err(std::io::Error::other(error)),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Out::flush(self).map_err(std::io::Error::other)
    }
}

/// A list being written, item by item, so that it needs no memory.
pub(crate) struct List<'a> {
    out: &'a Out,
    item_type: &'static str,
    count: u64,
    ended: bool,
}

impl List<'_> {
    /// Writes one item: `human` for people (nothing when `None`), `value` for programs.
    pub(crate) fn item(
        &mut self,
        value: impl FnOnce() -> Map<String, Value>,
        human: impl FnOnce() -> Option<String>,
    ) -> Result<()> {
        self.count += 1;
        match self.out.format {
            Format::Human => match human() {
                Some(line) => self.out.line(line),
                None => Ok(()),
            },
            Format::Json => {
                let separator = if self.count == 1 { "\n    " } else { ",\n    " };
                self.out.bytes(format!("{separator}{}", Value::Object(value())).as_bytes())
            }
            Format::Ndjson => {
                let mut object = value();
                object.insert("type".into(), self.item_type.into());
                object.insert("schema".into(), 1.into());
                self.out.bytes(format!("{}\n", Value::Object(object)).as_bytes())
            }
        }
    }

    /// Ends the list with what is only known at its end.
    pub(crate) fn end(mut self, tail: Map<String, Value>) -> Result<()> {
        self.ended = true;
        if self.out.format == Format::Json {
            let mut text = String::from("\n  ]");
            for (key, value) in &tail {
                text.push_str(&format!(",\n  {}: {value}", Value::from(key.as_str())));
            }
            text.push_str("\n}\n");
            return self.out.bytes(text.as_bytes());
        }
        Ok(())
    }
}

impl Drop for List<'_> {
    fn drop(&mut self) {
        if !self.ended && self.out.format == Format::Json {
            // The command failed on the way: the one document says so, and takes the error in. Trouble with writing is
            // already on its way to the user.
            let _ = self.out.bytes(b"\n  ],\n  \"complete\": false");
            self.out.pipe().broken_off = true;
        }
    }
}

/// A JSON object from pairs.
pub(crate) fn object<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Any value as JSON; null when it cannot be one.
pub(crate) fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// A table without lines, its columns as wide as needed.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> String {
    use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !header.is_empty() {
        table.set_header(header.to_vec());
    }
    table.add_rows(rows);
    let columns = table.column_count();
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index + 1 == columns { 0 } else { 2 }));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up_and_end_without_blanks() {
        let text = table(
            &["ID", "SIZE", "X"],
            vec![vec!["a".into(), "1".into(), "z".into()], vec!["bcd".into(), "1000".into(), String::new()]],
            &[1],
        );
        assert_eq!(text, "ID   SIZE  X\na       1  z\nbcd  1000");
    }
}
