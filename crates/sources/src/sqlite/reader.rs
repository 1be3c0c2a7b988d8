//! A live database met in a file tree: read consistently where copying its bytes would keep a torn image.

use super::Options;
use super::image::Image;
use lastgood_model::source::{Chunking, FileReader, Read, Steady};
use lastgood_model::{Node, Result};
use std::path::Path;

/// Opens the database at `path` and gives its content as of one moment.
///
/// Fails with [`lastgood_model::ErrorKind::Corrupt`] or [`lastgood_model::ErrorKind::Unsupported`] when it is no readable
/// database (damaged, encrypted, foreign); its bytes may then be kept as those of any other file. Other kinds mean that
/// it is a database which cannot be read now (locked, denied, gone): copying its bytes instead could keep a torn one.
pub fn capture_file(path: &Path) -> Result<Box<dyn FileReader>> {
    capture_file_with(path, &Options::default())
}

/// [`capture_file`] with options; the digest level is not used.
pub fn capture_file_with(path: &Path, options: &Options) -> Result<Box<dyn FileReader>> {
    let image = Image::open(path, options, None)?;
    Ok(Box::new(DatabaseReader { image, buffer: Vec::new(), at: 0, ended: false, bytes: 0 }))
}

/// True when `name` is the log, log index or journal of the database called `database` in the same folder. What they
/// hold is part of the captured image; storing them beside it would make a restored database damaged.
pub fn is_sidecar_of(name: &[u8], database: &[u8]) -> bool {
    name.strip_prefix(database).is_some_and(|rest| matches!(rest, b"-wal" | b"-shm" | b"-journal"))
}

/// The image of a database as a file.
struct DatabaseReader {
    image: Image,
    buffer: Vec<u8>,
    at: usize,
    ended: bool,
    bytes: u64,
}

impl FileReader for DatabaseReader {
    fn chunking(&self) -> Chunking {
        Chunking::Fixed(self.image.extent_bytes)
    }

    fn read(&mut self, out: &mut Vec<u8>, want: usize) -> Result<Read> {
        if self.ended || want == 0 {
            return Ok(Read::End);
        }
        if self.at == self.buffer.len() {
            self.image.give_back(std::mem::take(&mut self.buffer));
            self.at = 0;
            match self.image.next(&|| false)? {
                Some(buffer) => self.buffer = buffer,
                None => {
                    self.ended = true;
                    return Ok(Read::End);
                }
            }
        }
        let length = want.min(self.buffer.len() - self.at);
        out.extend_from_slice(&self.buffer[self.at..self.at + length]);
        self.at += length;
        self.bytes += length as u64;
        Ok(Read::Data(length))
    }

    fn finish(self: Box<Self>, node: &mut Node) -> Result<Steady> {
        let Self { image, bytes, .. } = *self;
        let mtime = image.mtime;
        image.finish()?;
        node.size = bytes;
        node.mtime = mtime;
        // Writers may go on; what was read is one moment of it.
        Ok(Steady::Yes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sidecars_are_known_by_name() {
        for (name, want) in [
            ("a.db-wal", true),
            ("a.db-shm", true),
            ("a.db-journal", true),
            ("a.db", false),
            ("a.db-wal2", false),
            ("b.db-wal", false),
        ] {
            assert_eq!(is_sidecar_of(name.as_bytes(), b"a.db"), want, "{name}");
        }
    }
}
