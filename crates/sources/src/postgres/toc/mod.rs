//! What `pg_dump` says of a database: the table of contents of an archive in custom format.
//!
//! [`Toc::read_archive`] parses it while `pg_dump -Fc` writes it; [`Toc::write_json`] and [`Toc::read_json`] keep it as
//! `toc.json`. Nothing of it is lost on the way, apart from what differs between two dumps of an unchanged database
//! (the moment of the dump, file offsets), so that two such files are equal.
//!
//! Text in an archive is bytes in the encoding of the dumped session. That is UTF-8, save for databases in the encoding
//! SQL_ASCII, where the server never looked at it. Such text is kept, too: see [`Text`].

mod archive;
mod json;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The table of contents of one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toc {
    /// How its strings stand for bytes.
    #[serde(default, skip_serializing_if = "Text::is_utf8")]
    pub text: Text,
    /// Minor number of the archive's version 1.x: 12 (PostgreSQL 9.0) to 16 (PostgreSQL 17 and later).
    pub archive: u8,
    /// The server's own words on its version, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub server_version: String,
    /// The version of the `pg_dump` that wrote it, likewise.
    pub dump_version: String,
    /// Name of the database.
    pub database: String,
    /// All entries, in an order in which they can be restored one after another.
    pub entries: Vec<Entry>,
}

/// How strings of a [`Toc`] stand for the bytes that the server sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Text {
    /// They are UTF-8.
    #[default]
    Utf8,
    /// Some were not valid UTF-8. In all of them each character U+0000 to U+00FF stands for one byte. SQL's own
    /// syntax is ASCII, so whoever works on such text needs not care, as long as it is sent through [`Text::encode`].
    Bytes,
}

impl Text {
    pub(super) fn is_utf8(&self) -> bool {
        *self == Self::Utf8
    }

    /// The text that stands for `bytes`. The other way round, [`Text::encode`] gives them back.
    pub fn decode(self, bytes: &[u8]) -> Result<String, std::str::Utf8Error> {
        match self {
            Self::Utf8 => std::str::from_utf8(bytes).map(str::to_owned),
            Self::Bytes => Ok(bytes.iter().map(|byte| char::from(*byte)).collect()),
        }
    }

    /// `text`, which is UTF-8, as this form has it.
    pub fn of_utf8(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Bytes if !text.is_ascii() => Cow::Owned(text.bytes().map(char::from).collect()),
            _ => Cow::Borrowed(text),
        }
    }

    /// The bytes that `text` stands for, to be sent to a server or written to a file. Text that was made in between,
    /// such as a name from the command line, stands for its UTF-8 where it has characters beyond U+00FF.
    pub fn encode(self, text: &str) -> Cow<'_, [u8]> {
        if self == Self::Utf8 || text.is_ascii() {
            return Cow::Borrowed(text.as_bytes());
        }
        let mut out = Vec::with_capacity(text.len());
        for char in text.chars() {
            match u8::try_from(u32::from(char)) {
                Ok(byte) => out.push(byte),
                Err(_) => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Cow::Owned(out)
    }
}

/// One object, or one fact about an object. `None` and the empty string differ where the archive tells them apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number in this archive, from 1.
    pub dump_id: u32,
    /// What it is: `TABLE`, `FK CONSTRAINT`, `ACL`, …
    pub desc: String,
    /// The schema it is in; for a constraint or trigger that of its table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name; for parts of a table the table's name, a space and its own.
    pub tag: String,
    /// The part of a restore that it belongs to.
    pub section: Section,
    /// The role that owns it; empty for what has no owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Its tablespace: `None` when it has no storage, empty for the database's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<String>,
    /// The table access method, from archive 1.14.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_am: Option<String>,
    /// `pg_class.relkind` of a relation, from archive 1.16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relkind: Option<char>,
    /// OID of the catalog that it is in; 0 for what is no catalog row of its own.
    pub catalog: u32,
    /// OID of its row there, in the dumped server.
    pub oid: u32,
    /// `dump_id`s of what it needs, ascending. May name entries that are not in the archive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<u32>,
    /// The archive can hold data for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub had_dumper: bool,
    /// A table `WITH OIDS`, which servers from 12 on do not know.
    #[serde(default, skip_serializing_if = "is_false")]
    pub with_oids: bool,
    /// SQL that makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defn: Option<String>,
    /// SQL that drops it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_stmt: Option<String>,
    /// `COPY … FROM stdin` for its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_stmt: Option<String>,
}

impl Toc {
    /// Brings all of it to the form of [`Text::Bytes`].
    pub(super) fn into_bytes(mut self) -> Self {
        if self.text == Text::Bytes {
            return self;
        }
        self.text = Text::Bytes;
        let change = |text: &mut String| {
            if !text.is_ascii() {
                *text = Text::Bytes.of_utf8(text).into_owned();
            }
        };
        change(&mut self.database);
        for entry in &mut self.entries {
            change(&mut entry.tag);
            let others = [
                &mut entry.namespace,
                &mut entry.owner,
                &mut entry.tablespace,
                &mut entry.table_am,
                &mut entry.defn,
                &mut entry.drop_stmt,
                &mut entry.copy_stmt,
            ];
            others.into_iter().flatten().for_each(change);
        }
        self
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Entry {
    /// The SQL that makes it, empty when there is none.
    pub fn definition(&self) -> &str {
        self.defn.as_deref().unwrap_or_default()
    }

    /// For messages: what it is, and its name with its schema. Not for SQL: nothing is quoted.
    pub fn label(&self) -> String {
        match self.namespace.as_deref().filter(|name| !name.is_empty()) {
            Some(namespace) => format!("{} {namespace}.{}", self.desc, self.tag),
            None => format!("{} {}", self.desc, self.tag),
        }
    }
}

/// The parts of a restore. The numbers are those of the archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// Wherever its object is: comments, privileges.
    #[default]
    None,
    /// Before rows are loaded: types, functions, tables, views.
    PreData,
    /// The rows, sequence values and large objects.
    Data,
    /// After rows are loaded: indexes, constraints, triggers, rules.
    PostData,
}
