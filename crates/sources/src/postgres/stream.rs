//! Writing a capture's streams: rows as they come from the server, and files that we make ourselves.

use super::layout::PartRecord;
use super::rows::{RowDigest, RowHasher};
use super::selection::{self, Selection, Take};
use super::session::Stop;
use super::toc::Text;
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
    /// How strings stand for what is written.
    pub(super) text: Text,
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
            time_follows_content: true,
        })
    }

    /// Reads the rows of a selection into files, never more than a piece of them at a time: those that have a text to
    /// `path`, the others each to where `long_path` says. A file is finished only when the server has said that the
    /// statement succeeded and how many rows it gave.
    pub(super) fn rows(
        &self,
        client: &mut Client,
        rows: &Selection<'_>,
        path: String,
        long_path: &dyn Fn(u32) -> String,
    ) -> Result<PartRecord> {
        let mut files = RowFiles { streams: self, writer: self.open(path)?, number: None, long_path, done: Vec::new() };
        let part = selection::read(client, rows, &mut files)?;
        let RowFiles { writer, mut done, .. } = files;
        done.push(writer);
        let expected =
            std::iter::once((part.bytes, part.total)).chain(part.long_rows.iter().map(|r| (r.bytes, r.total)));
        for (writer, (bytes, total)) in done.into_iter().zip(expected) {
            finish(writer, bytes, said(&total))?;
        }
        Ok(part)
    }

    /// Copies what `sql`, a `COPY … TO STDOUT` in the text format, gives into a file, likewise.
    pub(super) fn copy(&self, client: &mut Client, sql: &str, path: String) -> Result<(u64, RowDigest)> {
        let mut copy = client.copy_out(sql)?;
        let mut writer = self.open(path)?;
        let mut hasher = RowHasher::new();
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let mut bytes = 0;
        let told = loop {
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
        if told != Some(total.rows) {
            let told = told.map_or_else(|| "no number of".to_owned(), |rows| rows.to_string());
            return Err(Error::corrupt(format!("the server tells of {told} rows, {} arrived", total.rows)));
        }
        finish(writer, bytes, said(&total))?;
        Ok((bytes, total))
    }

    /// A file that we make ourselves, piece by piece.
    pub(super) fn file<T>(&self, path: String, write: impl FnOnce(&mut FileWriter) -> Result<T>) -> Result<T> {
        let (writer, text) = (self.open(path)?, self.text);
        let mut file = FileWriter { writer, text, buffer: Vec::new(), bytes: 0, failed: None };
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

fn said(total: &RowDigest) -> String {
    format!("the server said COPY {}, and as many rows arrived", total.rows)
}

/// The files of rows while they are written.
struct RowFiles<'a> {
    streams: &'a Streams<'a>,
    /// The one that is open.
    writer: Box<dyn StreamWriter>,
    /// Which row it holds, if not the text.
    number: Option<u32>,
    long_path: &'a dyn Fn(u32) -> String,
    /// Those before it, in order. They are finished when all has been read.
    done: Vec<Box<dyn StreamWriter>>,
}

impl Take for RowFiles<'_> {
    fn text(&mut self, piece: &[u8]) -> Result<()> {
        self.streams.stop.check()?;
        self.writer.write(piece)
    }

    fn binary(&mut self, number: u32, piece: &[u8]) -> Result<()> {
        self.streams.stop.check()?;
        if self.number != Some(number) {
            self.number = Some(number);
            let next = self.streams.open((self.long_path)(number))?;
            self.done.push(std::mem::replace(&mut self.writer, next));
        }
        self.writer.write(piece)
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
    text: Text,
    buffer: Vec<u8>,
    bytes: u64,
    failed: Option<Error>,
}

impl FileWriter {
    pub(super) fn put(&mut self, data: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= PIECE_BYTES { self.empty() } else { Ok(()) }
    }

    /// Writes what a text stands for.
    pub(super) fn put_text(&mut self, text: &str) -> Result<()> {
        self.put(&self.text.encode(text))
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
