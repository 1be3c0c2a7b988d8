//! `COPY … FROM STDIN`: bytes to the server.

use super::Client;
use super::errors::nonsense;
use super::rows::rows_of_tag;
use lastgood_model::{Error, Result};
use postgres_protocol::message::{backend, frontend};

/// Sent at a time, each a message of its own: large enough that its five bytes of head do not count, and well below
/// what a server would have to allocate at once.
const MESSAGE_BYTES: usize = 128 * 1024;
/// The head of a message: `d` and a length.
const HEAD: [u8; 5] = [b'd', 0, 0, 0, 0];

/// A running `COPY … FROM STDIN`. Dropped before [`CopyIn::finish`] it tells the server to forget everything.
pub struct CopyIn<'c> {
    client: &'c mut Client,
    is_over: bool,
}

impl Client {
    /// Starts a `COPY … FROM STDIN`. The server's errors before the first byte come from here.
    pub fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>> {
        self.begin()?;
        self.put_query(sql)?;
        self.link.send()?;
        loop {
            let frame = self.next()?;
            match frame.tag {
                backend::COPY_IN_RESPONSE_TAG => {
                    self.link.skip(frame.length)?;
                    self.link.channel.patience.silence = self.timeouts.copy;
                    return Ok(CopyIn { client: self, is_over: false });
                }
                backend::COMMAND_COMPLETE_TAG => self.link.skip(frame.length)?,
                backend::READY_FOR_QUERY_TAG => {
                    self.ready(frame)?;
                    self.link.failure()?;
                    return Err(Error::invalid("the statement is no COPY … FROM STDIN"));
                }
                _ => return Err(self.not_a_copy(frame, "the statement is no COPY … FROM STDIN")),
            }
        }
    }
}

impl CopyIn<'_> {
    /// Sends bytes, cut anywhere. Waits while the server is slower. An error that the server reports meanwhile comes
    /// from here, and ends the copy.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        if self.is_over {
            return Err(Error::invalid("this COPY is over"));
        }
        while !bytes.is_empty() {
            let output = self.client.link.channel.output();
            if output.is_empty() {
                output.extend_from_slice(&HEAD);
            }
            let room = (MESSAGE_BYTES + HEAD.len()).saturating_sub(output.len());
            let (piece, rest) = bytes.split_at(room.min(bytes.len()));
            output.extend_from_slice(piece);
            bytes = rest;
            if output.len() >= MESSAGE_BYTES + HEAD.len() {
                self.send()?;
            }
        }
        Ok(())
    }

    /// Sends the message that was begun, unless the server has given up.
    fn send(&mut self) -> Result<()> {
        let client = &mut *self.client;
        let output = client.link.channel.output();
        // The length counts itself but not the tag.
        if let Some((head, body)) = output.split_first_chunk_mut::<5>() {
            head[1..].copy_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        }
        let sent = client.link.look().and_then(|has_failed| {
            if has_failed {
                // Nothing of this message is on its way yet, and nobody would read it.
                client.link.channel.output().clear();
                return Ok(true);
            }
            client.link.send()?;
            Ok(client.link.talk.failure.is_some())
        });
        match sent {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.is_over = true;
                client.until_ready()?;
                Err(client.link.spoilt(nonsense("a COPY that failed without an error")))
            }
            Err(error) => {
                self.is_over = true;
                client.canceller.after(&error);
                Err(error)
            }
        }
    }

    /// Says that this was all, and waits for the server's verdict: how many rows it took.
    pub fn finish(mut self) -> Result<u64> {
        if self.is_over {
            return Err(Error::invalid("this COPY is over"));
        }
        if !self.client.link.channel.output().is_empty() {
            self.send()?;
        }
        self.is_over = true;
        let client = &mut *self.client;
        client.link.put(|buffer| {
            frontend::copy_done(buffer);
            Ok(())
        })?;
        client.link.send()?;
        let mut tag = None;
        loop {
            let frame = client.next()?;
            match frame.tag {
                backend::COMMAND_COMPLETE_TAG => {
                    let text = client.command_tag(frame)?;
                    tag.get_or_insert(text);
                }
                backend::READY_FOR_QUERY_TAG => {
                    client.ready(frame)?;
                    client.link.failure()?;
                    let rows = tag.as_deref().and_then(rows_of_tag);
                    return rows.ok_or_else(|| client.link.spoilt(nonsense("a COPY that counts no rows")));
                }
                _ => client.link.skip(frame.length)?,
            }
        }
    }
}

impl Drop for CopyIn<'_> {
    fn drop(&mut self) {
        if self.is_over || self.client.is_broken() {
            return;
        }
        self.client.link.channel.output().clear();
        self.client.abandon(|client| {
            client.link.put(|buffer| frontend::copy_fail("the data was not completed", buffer))?;
            client.link.send()
        });
    }
}
