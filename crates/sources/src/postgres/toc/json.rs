//! `toc.json`: a table of contents as an open file, one entry a line.
//!
//! Fields stand in a fixed order and absent ones are left out, so that equal contents give equal bytes and a change
//! of one object changes one line. Neither side holds more than one entry as text. The reader takes any JSON with the
//! same content, however it is laid out, and fields that it does not know.

use super::{Entry, Text, Toc};
use lastgood_model::{Context, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};

/// The `type` of the file.
const TYPE: &str = "lastgood.postgres.toc";
/// Version of this layout; readers refuse a higher one.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Head<'a> {
    r#type: &'a str,
    schema: u32,
    #[serde(skip_serializing_if = "Text::is_utf8")]
    text: Text,
    archive: u8,
    server_version: &'a str,
    dump_version: &'a str,
    database: &'a str,
}

#[derive(Deserialize)]
struct File {
    r#type: String,
    schema: u32,
    #[serde(default)]
    text: Text,
    archive: u8,
    server_version: String,
    dump_version: String,
    database: String,
    entries: Vec<Entry>,
}

impl Toc {
    /// Writes `toc.json`. `out` should be buffered.
    pub fn write_json(&self, out: &mut dyn Write) -> Result<()> {
        const ACT: &str = "write toc.json";
        let head = Head {
            r#type: TYPE,
            schema: SCHEMA,
            text: self.text,
            archive: self.archive,
            server_version: &self.server_version,
            dump_version: &self.dump_version,
            database: &self.database,
        };
        let mut line = serde_json::to_vec(&head).context(ACT)?;
        line.pop();
        line.extend_from_slice(b",\"entries\":[");
        out.write_all(&line).context(ACT)?;
        for (index, entry) in self.entries.iter().enumerate() {
            line.clear();
            line.extend_from_slice(if index == 0 { b"\n" } else { b",\n" });
            serde_json::to_writer(&mut line, entry).context(ACT)?;
            out.write_all(&line).context(ACT)?;
        }
        out.write_all(b"\n]}\n").context(ACT)
    }

    /// Reads `toc.json`. `input` should be buffered. [`ErrorKind::Unsupported`] for a newer layout,
    /// [`ErrorKind::Corrupt`] for anything that is none.
    pub fn read_json(input: &mut dyn Read) -> Result<Self> {
        let file: File = serde_json::from_reader(input).map_err(|error| {
            if error.is_io() {
                Error::io("read toc.json", error.into())
            } else {
                Error::corrupt("read toc.json").with_source(error)
            }
        })?;
        if file.r#type != TYPE {
            return Err(Error::corrupt(format!("toc.json calls itself {:?}", file.r#type)));
        }
        if file.schema > SCHEMA {
            let message = format!("toc.json has layout {}, this version reads up to {SCHEMA}", file.schema);
            return Err(Error::new(ErrorKind::Unsupported, message).with_hint("use a newer lastgood"));
        }
        Ok(Self {
            text: file.text,
            archive: file.archive,
            server_version: file.server_version,
            dump_version: file.dump_version,
            database: file.database,
            entries: file.entries,
        })
    }
}
