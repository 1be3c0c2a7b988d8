//! One database of a recovery point, as far as it is read before anything is done.

use super::super::layout::{self, GLOBALS, SEQUENCES, TABLES, TOC, TableRecord, in_database};
use super::super::toc::{Text, Toc};
use super::globals::Globals;
use super::sequences::{self, Sequence};
use lastgood_model::node::display_path;
use lastgood_model::saved::{SavedFiles, SavedReader};
use lastgood_model::{Context, Error, ErrorKind, NodeKind, Result};
use std::io::{self, BufReader, Read};

/// A saved database.
#[derive(Clone, Debug)]
pub(super) struct SavedDatabase {
    pub(super) name: String,
    pub(super) folder: String,
    /// Absent when only data was saved.
    pub(super) toc: Option<Toc>,
    pub(super) tables: Vec<TableRecord>,
    pub(super) sequences: Vec<Sequence>,
    /// How all strings of it stand for bytes.
    pub(super) text: Text,
}

/// The databases that were saved, by the order of their folders.
pub(super) fn databases(files: &dyn SavedFiles) -> Result<Vec<String>> {
    let nodes = files.list(b"").context("list what was saved")?;
    let folders = nodes.iter().filter(|node| node.kind == NodeKind::Dir);
    Ok(folders.filter_map(|node| layout::database_name(std::str::from_utf8(&node.name).ok()?)).collect())
}

/// The database that is meant: the one that is named, or the only one.
pub(super) fn choose(files: &dyn SavedFiles, wanted: Option<&str>) -> Result<String> {
    let all = databases(files)?;
    let listed = || all.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    match (wanted, all.as_slice()) {
        (_, []) => Err(Error::new(ErrorKind::Absent, "the recovery point holds no PostgreSQL database")),
        (Some(name), all) if all.iter().any(|one| one == name) => Ok(name.to_owned()),
        (Some(name), _) => Err(Error::new(ErrorKind::Absent, format!("the recovery point has no database {name:?}"))
            .with_hint(format!("it has {}", listed()))),
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(Error::invalid("the recovery point has several databases, and none is named")
            .with_hint(format!("name one of {}", listed()))),
    }
}

impl SavedDatabase {
    /// Reads what describes a database.
    pub(super) fn open(files: &dyn SavedFiles, name: &str) -> Result<Self> {
        let folder = layout::database_folder(name);
        let toc = match files.open(in_database(&folder, TOC).as_bytes()) {
            Ok(reader) => Some(read_toc(reader)?),
            Err(error) if error.kind() == ErrorKind::Absent => None,
            Err(error) => return Err(error),
        };
        let tables = files.read(in_database(&folder, TABLES).as_bytes())?;
        let tables = tables.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut tables = tables.map(TableRecord::from_line).collect::<Result<Vec<_>>>()?;
        let has_bytes = tables.iter().any(|table| table.text == Text::Bytes);
        let form = match &toc {
            Some(toc) if !has_bytes => toc.text,
            None if !has_bytes => Text::Utf8,
            _ => Text::Bytes,
        };
        let toc = toc.map(|toc| if form == Text::Bytes { toc.into_bytes() } else { toc });
        tables.iter_mut().for_each(|table| table.bring_to(form));
        let sequences = match files.read(in_database(&folder, SEQUENCES).as_bytes()) {
            Ok(sql) => sequences::parse(&form.decode(&sql).map_err(|error| not_utf8(SEQUENCES, error))?)?,
            Err(error) if error.kind() == ErrorKind::Absent => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { name: name.to_owned(), folder, toc, tables, sequences, text: form })
    }
}

fn read_toc(reader: Box<dyn SavedReader + '_>) -> Result<Toc> {
    let mut stream = Stream { reader, piece: Vec::new(), at: 0, failed: None };
    let toc = Toc::read_json(&mut BufReader::with_capacity(1 << 20, &mut stream));
    // An error of the repository says more than what the parser makes of it.
    match stream.failed {
        Some(error) => Err(error.context("read toc.json")),
        None => toc,
    }
}

/// The server's roles, if they were saved.
pub(super) fn globals(files: &dyn SavedFiles) -> Result<Option<Globals>> {
    match files.read(GLOBALS.as_bytes()) {
        Ok(sql) => Ok(Some(Globals::parse(&text(sql, GLOBALS)?))),
        Err(error) if error.kind() == ErrorKind::Absent => Ok(None),
        Err(error) => Err(error),
    }
}

fn text(bytes: Vec<u8>, name: &str) -> Result<String> {
    Text::Utf8.decode(&bytes).map_err(|error| not_utf8(name, error))
}

fn not_utf8(name: &str, error: std::str::Utf8Error) -> Error {
    let shown = display_path(name.as_bytes());
    Error::new(ErrorKind::Unsupported, format!("{shown} is not UTF-8")).with_source(error)
}

/// A saved file as an input.
struct Stream<'a> {
    reader: Box<dyn SavedReader + 'a>,
    piece: Vec<u8>,
    at: usize,
    failed: Option<Error>,
}

impl Read for Stream<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.piece.len() {
            self.piece.clear();
            self.at = 0;
            match self.reader.read(&mut self.piece) {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => {
                    let text = error.chain();
                    self.failed = Some(error);
                    return Err(io::Error::other(text));
                }
            }
        }
        let rest = &self.piece[self.at..];
        let length = rest.len().min(out.len());
        out[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}
