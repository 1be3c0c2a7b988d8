//! Parsing the custom format of `pg_dump`.
//!
//! Source of the format: PostgreSQL's `src/bin/pg_dump/pg_backup_archiver.c` (`ReadHead`, `ReadToc`, `ReadInt`,
//! `ReadStr`) and `pg_backup_custom.c` (`_ReadExtraToc`). An integer is a sign byte and then, least significant first,
//! as many bytes as the header says. A string is its length as such an integer and its bytes; -1 stands for NULL.
//!
//! | version | written by | what came with it |
//! |---|---|---|
//! | 1.12 | 9.0 to 10 | |
//! | 1.13 | security releases of 2018 on | entry SEARCHPATH, qualified names everywhere |
//! | 1.14 | 12 | table access method |
//! | 1.15 | 16 | a byte for the compression method in place of the level |
//! | 1.16 | 17 | kind of relation, large objects in groups |
//!
//! Whatever the bytes are, reading ends with a table of contents or an error, and takes no more memory than a small
//! multiple of what was read.

use super::{Entry, Section, Text, Toc};
use lastgood_model::{Error, ErrorKind, Result};
use std::io::Read;

/// A value of PostgreSQL has at most 1 GiB, and so has what it says of an object.
const STRING_BYTES_MAX: u32 = 1 << 30;
/// A database can have a few million objects; more is damage.
const ENTRIES_MAX: u32 = 1 << 26;
/// Of one entry. One line of damage would otherwise be all that is ever read.
const DEPENDENCIES_MAX: usize = 1 << 24;
/// Room made at once for something whose length was only announced.
const AHEAD_MAX: usize = 64 * 1024;
const FORMAT_CUSTOM: u8 = 1;

impl Toc {
    /// Reads header and table of contents from the start of an archive. What follows them, the data, is not read.
    ///
    /// [`ErrorKind::Unsupported`] for an archive that is not in custom format or of a version not known here;
    /// [`ErrorKind::Corrupt`] for anything else that cannot be. `input` should be buffered.
    pub fn read_archive(input: &mut dyn Read) -> Result<Self> {
        let mut archive = Archive { input, read_bytes: 0, int_bytes: 4, all_utf8: true, bytes: Vec::new() };
        let (minor, offset_bytes) = archive.header()?;
        archive.minor_facts(minor)?;
        let database = archive.text("name of the database")?;
        let server_version = archive.text("version of the server")?;
        let dump_version = archive.text("version of pg_dump")?;
        let count = archive.int("number of entries")?;
        let count = u32::try_from(count).ok().filter(|count| *count <= ENTRIES_MAX);
        let count = count.ok_or_else(|| archive.broken("number of entries"))?;
        let mut toc = Toc {
            text: Text::Utf8,
            archive: minor,
            server_version,
            dump_version,
            database,
            entries: Vec::with_capacity((count as usize).min(AHEAD_MAX / size_of::<Entry>())),
        };
        for _ in 0..count {
            let entry = archive.entry(minor, offset_bytes)?;
            toc.entries.push(entry);
        }
        if !archive.all_utf8 {
            toc.text = Text::Bytes;
        }
        archive.settle(&mut toc);
        Ok(toc)
    }
}

struct Archive<'a> {
    input: &'a mut dyn Read,
    read_bytes: u64,
    int_bytes: usize,
    /// Whether all text so far was UTF-8. Until the end nobody knows, so text is kept in the form of [`Text::Bytes`]
    /// from the first piece on that is not, and what came before is brought to it at the end.
    all_utf8: bool,
    bytes: Vec<u8>,
}

impl Archive<'_> {
    fn broken(&self, what: &str) -> Error {
        Error::corrupt(format!("the archive of pg_dump has an impossible {what} before byte {}", self.read_bytes))
    }

    fn exact(&mut self, out: &mut [u8]) -> Result<()> {
        self.input.read_exact(out).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::corrupt(format!("the archive of pg_dump ends after byte {}", self.read_bytes))
            }
            _ => Error::io("read the archive of pg_dump", error),
        })?;
        self.read_bytes += out.len() as u64;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.exact(&mut byte)?;
        Ok(byte[0])
    }

    fn int(&mut self, what: &str) -> Result<i32> {
        let is_negative = self.byte()? != 0;
        let mut bytes = [0; 32];
        let length = self.int_bytes;
        self.exact(&mut bytes[..length])?;
        if bytes[4..].iter().any(|byte| *byte != 0) {
            return Err(self.broken(what));
        }
        let value = i64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        i32::try_from(if is_negative { -value } else { value }).map_err(|_| self.broken(what))
    }

    /// A string, in the form of [`Text::Bytes`] if there was ever one that needs it.
    fn string(&mut self, what: &str) -> Result<Option<String>> {
        let length = self.int(what)?;
        if length == -1 {
            return Ok(None);
        }
        let length = u32::try_from(length).ok().filter(|length| *length <= STRING_BYTES_MAX);
        let length = length.ok_or_else(|| self.broken(what))? as usize;
        self.bytes.clear();
        while self.bytes.len() < length {
            let start = self.bytes.len();
            let end = length.min(start + AHEAD_MAX.max(start));
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.resize(end, 0);
            let result = self.exact(&mut bytes[start..]);
            self.bytes = bytes;
            result?;
        }
        if self.bytes.contains(&0) {
            return Err(self.broken(what));
        }
        if self.all_utf8 {
            if let Ok(text) = std::str::from_utf8(&self.bytes) {
                return Ok(Some(text.to_owned()));
            }
            self.all_utf8 = false;
        }
        let text = self.bytes.iter().map(|byte| char::from(*byte)).collect();
        // Text kept as UTF-8 before this one is told from it by a mark that no text can have.
        Ok(Some(mark(text)))
    }

    fn text(&mut self, what: &str) -> Result<String> {
        Ok(self.string(what)?.unwrap_or_default())
    }

    /// A number that is written as text.
    fn number(&mut self, what: &str) -> Result<u32> {
        let text = self.text(what)?;
        text.parse().map_err(|_| self.broken(what))
    }

    fn header(&mut self) -> Result<(u8, usize)> {
        let mut magic = [0; 5];
        self.exact(&mut magic)?;
        if &magic != b"PGDMP" {
            return Err(Error::new(ErrorKind::Unsupported, "this is no archive of pg_dump in custom format"));
        }
        let [major, minor, _revision] = [self.byte()?, self.byte()?, self.byte()?];
        if major != 1 || !(12..=16).contains(&minor) {
            let message = format!("archives of pg_dump in version {major}.{minor} are not known here");
            return Err(Error::new(ErrorKind::Unsupported, message).with_hint("versions 1.12 to 1.16 are"));
        }
        self.int_bytes = usize::from(self.byte()?);
        if !(4..=32).contains(&self.int_bytes) {
            return Err(self.broken("size of integers"));
        }
        let offset_bytes = usize::from(self.byte()?);
        if !(1..=32).contains(&offset_bytes) {
            return Err(self.broken("size of offsets"));
        }
        if self.byte()? != FORMAT_CUSTOM {
            return Err(Error::new(ErrorKind::Unsupported, "this archive of pg_dump is not in custom format"));
        }
        Ok((minor, offset_bytes))
    }

    /// Compression and the moment of the dump: neither matters for a table of contents.
    fn minor_facts(&mut self, minor: u8) -> Result<()> {
        if minor >= 15 {
            self.byte()?;
        } else {
            self.int("compression level")?;
        }
        for _ in 0..7 {
            self.int("time of the dump")?;
        }
        Ok(())
    }

    fn entry(&mut self, minor: u8, offset_bytes: usize) -> Result<Entry> {
        let dump_id = self.int("number of an entry")?;
        let dump_id = u32::try_from(dump_id).ok().filter(|id| *id > 0);
        let dump_id = dump_id.ok_or_else(|| self.broken("number of an entry"))?;
        let had_dumper = self.int("data flag")? != 0;
        let catalog = self.number("catalog number")?;
        let oid = self.number("object number")?;
        let tag = self.text("name of an entry")?;
        let desc = self.text("kind of an entry")?;
        let section = match self.int("section")? {
            1 => Section::None,
            2 => Section::PreData,
            3 => Section::Data,
            4 => Section::PostData,
            _ => return Err(self.broken("section")),
        };
        let defn = self.string("definition")?;
        let drop_stmt = self.string("drop statement")?;
        let copy_stmt = self.string("copy statement")?;
        let namespace = self.string("schema")?;
        let tablespace = self.string("tablespace")?;
        let table_am = if minor >= 14 { self.string("table access method")? } else { None };
        let relkind = match if minor >= 16 { self.int("kind of relation")? } else { 0 } {
            0 => None,
            kind => Some(u8::try_from(kind).map(char::from).map_err(|_| self.broken("kind of relation"))?),
        };
        let owner = self.string("owner")?;
        let with_oids = self.text("flag for OIDs")? == "true";
        let mut dependencies = Vec::new();
        while let Some(text) = self.string("dependency")? {
            let id = text.parse().map_err(|_| self.broken("dependency"))?;
            if dependencies.len() == DEPENDENCIES_MAX {
                return Err(self.broken("number of dependencies"));
            }
            dependencies.push(id);
        }
        // pg_dump names some a hundred times over, and in an order that says nothing and changes.
        dependencies.sort_unstable();
        dependencies.dedup();
        // Whether data follows, and where: the beginning of a file is not told when it is written to a pipe.
        self.byte()?;
        let mut offset = [0; 32];
        self.exact(&mut offset[..offset_bytes])?;
        Ok(Entry {
            dump_id,
            desc,
            namespace,
            tag,
            section,
            owner,
            tablespace,
            table_am,
            relkind,
            catalog,
            oid,
            dependencies,
            had_dumper,
            with_oids,
            defn,
            drop_stmt,
            copy_stmt,
        })
    }

    /// Brings all text into one form.
    fn settle(&self, toc: &mut Toc) {
        if self.all_utf8 {
            return;
        }
        let Toc { server_version, dump_version, database, entries, .. } = toc;
        [server_version, dump_version, database].into_iter().for_each(settle);
        for entry in entries {
            let Entry { tag, desc, namespace, owner, tablespace, table_am, defn, drop_stmt, copy_stmt, .. } = entry;
            [tag, desc].into_iter().for_each(settle);
            let optional = [namespace, owner, tablespace, table_am, defn, drop_stmt, copy_stmt];
            optional.into_iter().flatten().for_each(settle);
        }
    }
}

/// NUL, which is refused in text.
const MARK: char = '\0';

fn mark(mut text: String) -> String {
    if !text.is_ascii() {
        text.insert(0, MARK);
    }
    text
}

fn settle(text: &mut String) {
    if text.starts_with(MARK) {
        text.remove(0);
    } else if !text.is_ascii() {
        *text = text.bytes().map(char::from).collect();
    }
}
