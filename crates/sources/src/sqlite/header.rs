//! The first 100 bytes of a database file, and what can be said of a file that SQLite refuses.
//!
//! Source of the layout: the SQLite file format document, section 1.3.

use crate::held::Descriptor;
use lastgood_model::{Error, ErrorKind, Result};
use rustix::fs::{Mode, OFlags};
use std::path::Path;

/// The first bytes of every database that is not encrypted.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// How many bytes [`looks_like_database`] needs.
pub const HEADER_BYTES: usize = 100;

/// True when a file beginning with `head` can be a SQLite database that [`super::capture_file`] reads: the magic is
/// there and the page size is a legal one. At least [`HEADER_BYTES`] are needed to say so. A zero-byte file is a valid
/// empty database too, but there is nothing in it to be read consistently.
pub fn looks_like_database(head: &[u8]) -> bool {
    head.len() >= HEADER_BYTES && head.starts_with(MAGIC) && page_size(head).is_some()
}

/// True when the file at `path` begins as a database does. Opens it in a way that takes no lock away from a capture in
/// another thread, and waits for nothing.
///
/// # Errors
/// When it cannot be opened or read.
pub fn is_database_file(path: &Path) -> Result<bool> {
    Ok(looks_like_database(&read_head(path, HEADER_BYTES)?))
}

/// What a database header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes in a page.
    pub(super) page_size: u32,
    /// Version needed to read: 1 for a rollback journal, 2 for a write-ahead log.
    pub(super) read_version: u8,
    /// Pages, where the header's own count is to be trusted.
    pub(super) page_count: Option<u32>,
    /// Free pages.
    pub(super) freelist_count: u32,
    /// `PRAGMA user_version`.
    pub(super) user_version: i32,
    /// `PRAGMA application_id`.
    pub(super) application_id: i32,
    encoding: u32,
    largest_root: u32,
    incremental_vacuum: u32,
}

impl Header {
    /// Reads a header; `None` when it is not one.
    pub(super) fn parse(head: &[u8]) -> Option<Self> {
        if !looks_like_database(head) {
            return None;
        }
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Some(Self {
            page_size: page_size(head)?,
            read_version: head[19],
            page_count: (word(28) != 0 && word(24) == word(92)).then(|| word(28)),
            freelist_count: word(36),
            user_version: word(60).cast_signed(),
            application_id: word(68).cast_signed(),
            encoding: word(56),
            largest_root: word(52),
            incremental_vacuum: word(64),
        })
    }

    /// `wal` or `rollback`: what a database is between connections. Which rollback mode is used (delete, truncate,
    /// persist) belongs to a connection, not to the file.
    pub(super) fn journal_mode(&self) -> &'static str {
        if self.read_version >= 2 { "wal" } else { "rollback" }
    }

    /// The text encoding, as `PRAGMA encoding` names it.
    pub(super) fn encoding(&self) -> &'static str {
        match self.encoding {
            2 => "UTF-16le",
            3 => "UTF-16be",
            _ => "UTF-8",
        }
    }

    /// `none`, `full` or `incremental`.
    pub(super) fn auto_vacuum(&self) -> &'static str {
        match (self.largest_root, self.incremental_vacuum) {
            (0, _) => "none",
            (_, 0) => "full",
            _ => "incremental",
        }
    }
}

fn page_size(head: &[u8]) -> Option<u32> {
    match u16::from_be_bytes([*head.get(16)?, *head.get(17)?]) {
        1 => Some(65536),
        size if size >= 512 && size.is_power_of_two() => Some(u32::from(size)),
        _ => None,
    }
}

/// The first bytes of a file, through a descriptor that takes no lock away from a capture in another thread.
pub(super) fn read_head(path: &Path, want: usize) -> Result<Vec<u8>> {
    let act = || format!("read {}", path.display());
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        .map_err(|e| Error::io(act(), e.into()))?;
    let fd = Descriptor::new(fd);
    let mut head = vec![0; want];
    let mut have = 0;
    while have < want {
        match rustix::io::pread(&fd, &mut head[have..], have as u64) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::io(act(), e.into())),
        }
    }
    head.truncate(have);
    Ok(head)
}

/// Says why SQLite does not take the file at `path` for a database, by looking at it.
pub(super) fn explain_not_a_database(path: &Path) -> Error {
    let shown = path.display();
    let head = match read_head(path, 4096) {
        Ok(head) => head,
        Err(error) => return error,
    };
    if let Some(header) = Header::parse(&head) {
        if header.read_version > 2 {
            return Error::new(
                ErrorKind::Unsupported,
                format!("{shown} was written in file format {}, newer than this SQLite knows", header.read_version),
            )
            .with_hint("use a newer lastgood");
        }
        return Error::corrupt(format!("{shown} begins like a SQLite database, but its header is damaged"))
            .with_hint(DAMAGED_HINT);
    }
    if head.starts_with(MAGIC) {
        return Error::corrupt(format!("{shown} begins like a SQLite database, but its header is damaged"))
            .with_hint(DAMAGED_HINT);
    }
    if looks_random(&head) {
        return Error::new(
            ErrorKind::Unsupported,
            format!("{shown} is encrypted (SQLCipher or alike), or not a database"),
        )
        .with_hint(
            "have the application export it with its key (a `command` source), or stop the application and keep \
                 the encrypted file as a `files` source",
        );
    }
    Error::corrupt(format!("{shown} is not a SQLite database"))
        .with_hint("check the path; keep files of other kinds as a `files` source")
}

/// The hint for damage.
pub(super) const DAMAGED_HINT: &str =
    "restore the last good recovery point; what can be saved of the damaged file: sqlite3 <file> .recover";

/// True for bytes that no plain file format begins with: nearly all byte values occur, none of them often.
fn looks_random(head: &[u8]) -> bool {
    if head.len() < 1024 {
        return false;
    }
    let mut counts = [0u32; 256];
    for byte in head {
        counts[usize::from(*byte)] += 1;
    }
    let total = head.len() as f64;
    let entropy: f64 = counts
        .iter()
        .filter(|n| **n > 0)
        .map(|n| {
            let p = f64::from(*n) / total;
            -p * p.log2()
        })
        .sum();
    entropy > 7.5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(size: u16, version: u8) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        head.resize(HEADER_BYTES, 0);
        head[16..18].copy_from_slice(&size.to_be_bytes());
        head[19] = version;
        head
    }

    #[test]
    fn page_sizes_are_powers_of_two_and_one_means_64_kib() {
        for (raw, want) in [(512, Some(512)), (4096, Some(4096)), (1, Some(65536)), (0, None), (256, None), (513, None)]
        {
            assert_eq!(Header::parse(&head(raw, 1)).map(|h| h.page_size), want, "{raw}");
        }
    }

    #[test]
    fn a_header_count_is_trusted_only_with_its_change_counter() {
        let mut bytes = head(4096, 2);
        bytes[31] = 7;
        assert_eq!(Header::parse(&bytes).unwrap().page_count, Some(7));
        assert_eq!(Header::parse(&bytes).unwrap().journal_mode(), "wal");
        bytes[27] = 1;
        assert_eq!(Header::parse(&bytes).unwrap().page_count, None);
    }

    #[test]
    fn short_and_foreign_files_are_not_databases() {
        assert!(!looks_like_database(b""));
        assert!(!looks_like_database(MAGIC));
        assert!(!looks_like_database(&[b'x'; 200]));
    }
}
