//! `COPY … TO STDOUT`: bytes as they come.

use super::errors::nonsense;
use super::pace::Pace;
use super::rows::rows_of_tag;
use super::{Client, Timeouts};
use lastgood_model::{Error, Result};
use postgres_protocol::message::{backend, frontend};
use std::time::{Duration, Instant};

/// How long dropping an unfinished copy may take before the connection is closed instead.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// A running `COPY … TO STDOUT`. Dropped before its end, it cancels the statement and makes the connection ready again,
/// or closes it if that takes more than ten seconds.
pub struct CopyOut<'c> {
    client: &'c mut Client,
    /// Bytes left of the message that is being read.
    rest: usize,
    end: Option<Option<u64>>,
    is_over: bool,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyRead {
    /// As much as was wanted; there may be more.
    More,
    /// The server has said that this was all, and that the statement succeeded.
    End {
        /// How many rows, as the server counts.
        rows: Option<u64>,
    },
}

impl Client {
    /// Starts a `COPY … TO STDOUT`. The server's errors before its first byte come from here.
    pub fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>> {
        self.begin()?;
        // From the start: the server sends its first word together with the first data.
        self.link.channel.patience.silence = self.timeouts.copy;
        self.link.channel.pace = Some(Pace::new());
        self.put_query(sql)?;
        self.link.send()?;
        loop {
            let frame = self.next()?;
            match frame.tag {
                backend::COPY_OUT_RESPONSE_TAG => {
                    self.link.skip(frame.length)?;
                    return Ok(CopyOut { client: self, rest: 0, end: None, is_over: false });
                }
                // A statement before the COPY, such as SET.
                backend::COMMAND_COMPLETE_TAG => self.link.skip(frame.length)?,
                backend::READY_FOR_QUERY_TAG => {
                    self.ready(frame)?;
                    self.link.failure()?;
                    return Err(Error::invalid("the statement is no COPY … TO STDOUT"));
                }
                _ => return Err(self.not_a_copy(frame, "the statement is no COPY … TO STDOUT")),
            }
        }
    }

    /// Ends a statement that turned out to be something else.
    pub(super) fn not_a_copy(&mut self, frame: super::link::Frame, message: &str) -> Error {
        if frame.tag == backend::COPY_IN_RESPONSE_TAG {
            let told = self.link.put(|buffer| frontend::copy_fail("no data was to be sent", buffer));
            if let Err(error) = told.and_then(|()| self.link.send()) {
                return error;
            }
        }
        let _ = self.canceller.knock();
        match self.link.skip(frame.length).and_then(|()| self.until_ready()) {
            Err(error) if self.is_broken() => error,
            _ => Error::invalid(message),
        }
    }
}

impl CopyOut<'_> {
    /// Appends up to `want` bytes to `out` and returns once it has them, or all there were. Pieces end anywhere, also
    /// within a row or a character.
    ///
    /// What is in `out` after an error is the beginning of something that never became whole.
    pub fn read(&mut self, out: &mut Vec<u8>, want: usize) -> Result<CopyRead> {
        if let Some(rows) = self.end {
            return Ok(CopyRead::End { rows });
        }
        if self.is_over {
            return Err(Error::invalid("this COPY has failed before"));
        }
        let result = self.read_on(out, want);
        self.is_over |= !matches!(result, Ok(CopyRead::More));
        result
    }

    fn read_on(&mut self, out: &mut Vec<u8>, want: usize) -> Result<CopyRead> {
        let full = out.len().saturating_add(want);
        loop {
            self.take(out, full)?;
            if out.len() >= full {
                return Ok(CopyRead::More);
            }
            if self.rest > 0 {
                self.client.link.receive().inspect_err(|error| self.client.canceller.after(error))?;
                continue;
            }
            let frame = self.client.next()?;
            match frame.tag {
                backend::COPY_DATA_TAG => self.rest = frame.length,
                backend::COPY_DONE_TAG => return self.finish(frame),
                backend::READY_FOR_QUERY_TAG => {
                    self.client.ready(frame)?;
                    self.client.link.failure()?;
                    return Err(self.client.link.spoilt(nonsense("a COPY without an end")));
                }
                _ => return Err(self.client.link.spoilt(nonsense("something else in the middle of a COPY"))),
            }
        }
    }

    /// Takes what is there without waiting: one copy per row and nothing else, since rows are short and come by the
    /// million.
    fn take(&mut self, out: &mut Vec<u8>, full: usize) -> Result<()> {
        let channel = &mut self.client.link.channel;
        let held = channel.held();
        let mut left = held;
        while out.len() < full {
            if self.rest == 0 {
                let Some((&[b'd', a, b, c, d], after)) = left.split_first_chunk::<5>() else { break };
                let length = u32::from_be_bytes([a, b, c, d]);
                // A length that cannot be is judged where all others are.
                if !(4..=i32::MAX as u32).contains(&length) {
                    break;
                }
                self.rest = length as usize - 4;
                left = after;
            }
            let (piece, after) = left.split_at(self.rest.min(left.len()).min(full - out.len()));
            out.extend_from_slice(piece);
            self.rest -= piece.len();
            left = after;
            if left.is_empty() {
                break;
            }
        }
        let taken = held.len() - left.len();
        channel.consume(taken);
        Ok(())
    }

    /// Takes the verdict: the command tag, and that the server is ready.
    fn finish(&mut self, done: super::link::Frame) -> Result<CopyRead> {
        self.client.link.skip(done.length)?;
        let mut tag = None;
        loop {
            let frame = self.client.next()?;
            match frame.tag {
                backend::COMMAND_COMPLETE_TAG => {
                    let text = self.client.command_tag(frame)?;
                    tag.get_or_insert(text);
                }
                backend::READY_FOR_QUERY_TAG => {
                    self.client.ready(frame)?;
                    self.client.link.failure()?;
                    let Some(tag) = tag else {
                        return Err(self.client.link.spoilt(nonsense("a COPY that ended without success or error")));
                    };
                    let rows = rows_of_tag(&tag);
                    self.end = Some(rows);
                    return Ok(CopyRead::End { rows });
                }
                _ => self.client.link.skip(frame.length)?,
            }
        }
    }
}

impl Drop for CopyOut<'_> {
    fn drop(&mut self) {
        if self.is_over || self.client.is_broken() {
            return;
        }
        let rest = self.rest;
        self.client.abandon(|client| {
            client.canceller.knock()?;
            client.link.skip(rest)
        });
    }
}

impl Client {
    /// Ends a copy that nobody wants any more: does `what`, waits until the server is ready, and closes the connection
    /// if that takes too long.
    pub(super) fn abandon(&mut self, what: impl FnOnce(&mut Self) -> Result<()>) {
        let interrupt = self.link.channel.patience.interrupt.take();
        self.link.channel.patience.deadline = Some(Instant::now() + DRAIN_MAX);
        let done = what(self);
        if done.is_err() {
            self.link.channel.close(&[]);
        } else {
            // That the statement was cancelled is what was wanted.
            let _ = self.until_ready();
        }
        self.link.channel.patience.deadline = None;
        self.link.channel.patience.interrupt = interrupt;
        let Timeouts { answer, .. } = self.timeouts;
        self.link.channel.patience.silence = answer;
    }
}
