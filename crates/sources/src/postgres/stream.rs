//! Writing a capture's streams: rows as they come from the server, and files that we make ourselves.

use super::rows::{RowDigest, RowHasher};
use super::session::Stop;
use super::wire::{Client, CopyRead};
use lastgood_model::source::{Chunking, Sink, StreamSpec, StreamWriter, Verdict};
use lastgood_model::{Error, ErrorKind, Result, Time};
use std::io;

/// Taken from the server at a time, and handed to the engine.
const PIECE_BYTES: usize = 256 * 1024;

/// Where streams go and how they look.
#[derive(Clone, Copy)]
pub(super) struct Streams<'a> {
    pub(super) sink: &'a dyn Sink,
    pub(super) chunking: Chunking,
    /// The moment of the snapshot.
    pub(super) mtime: Time,
    pub(super) stop: &'a Stop,
}

impl Streams<'_> {
    fn open(&self, path: String) -> Result<Box<dyn StreamWriter>> {
        self.sink.stream(StreamSpec {
            path: path.into_bytes(),
            chunking: self.chunking,
            // What a database holds is nobody's business but its owner's.
            mode: 0o600,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime: self.mtime,
        })
    }

    /// Copies what `sql`, a `COPY … TO STDOUT`, gives into a file, never more than a piece of it at a time. It is
    /// finished only when the server has said that the statement succeeded and how many rows it gave.
    pub(super) fn copy(&self, client: &mut Client, sql: &str, path: String) -> Result<(u64, RowDigest)> {
        let mut copy = client.copy_out(sql)?;
        let mut writer = self.open(path)?;
        let mut hasher = RowHasher::new();
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let mut bytes = 0;
        let said = loop {
            piece.clear();
            let read = copy.read(&mut piece, PIECE_BYTES)?;
            bytes += piece.len() as u64;
            hasher.update(&piece);
            if !piece.is_empty() {
                writer.write(&piece)?;
            }
            self.stop.check()?;
            if let CopyRead::End { rows } = read {
                break rows;
            }
        };
        let total = hasher.finish()?;
        if said != Some(total.rows) {
            let said = said.map_or_else(|| "no number of".to_owned(), |rows| rows.to_string());
            return Err(Error::corrupt(format!("the server tells of {said} rows, {} arrived", total.rows)));
        }
        let evidence = format!("the server said COPY {}, and as many rows arrived", total.rows);
        finish(writer, bytes, evidence)?;
        Ok((bytes, total))
    }

    /// A file that we make ourselves, piece by piece.
    pub(super) fn file<T>(&self, path: String, write: impl FnOnce(&mut FileWriter) -> Result<T>) -> Result<T> {
        let mut file = FileWriter { writer: self.open(path)?, buffer: Vec::new(), bytes: 0, failed: None };
        let result = match write(&mut file) {
            Ok(result) => result,
            // Through `io::Write` only a text would come back.
            Err(error) => return Err(file.failed.take().unwrap_or(error)),
        };
        file.empty()?;
        let FileWriter { writer, bytes, .. } = file;
        finish(writer, bytes, "made whole".to_owned())?;
        Ok(result)
    }
}

fn finish(writer: Box<dyn StreamWriter>, bytes: u64, evidence: String) -> Result<()> {
    let stored = writer.finish(Verdict { evidence })?;
    if stored != bytes {
        return Err(Error::new(ErrorKind::Bug, format!("{stored} bytes were stored of {bytes}")));
    }
    Ok(())
}

/// Collects small writes to a stream.
pub(super) struct FileWriter {
    writer: Box<dyn StreamWriter>,
    buffer: Vec<u8>,
    bytes: u64,
    failed: Option<Error>,
}

impl FileWriter {
    pub(super) fn put(&mut self, data: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= PIECE_BYTES { self.empty() } else { Ok(()) }
    }

    fn empty(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.writer.write(&self.buffer)?;
            self.bytes += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl io::Write for FileWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.put(data) {
            Ok(()) => Ok(data.len()),
            Err(error) => {
                let text = error.chain();
                self.failed = Some(error);
                Err(io::Error::other(text))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
