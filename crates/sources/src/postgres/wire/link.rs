//! Messages: framing, limits, and what a server says unasked. Format: "Message Formats" in PostgreSQL's documentation.
//!
//! Lengths that a server claims are believed only within limits. Messages of rows and of `COPY` may be of any length;
//! their readers take them in pieces or set their own limit.

use super::channel::Channel;
use super::errors::{ServerMessage, nonsense};
use bytes::{BufMut, BytesMut};
use lastgood_model::{Error, Result};
use postgres_protocol::message::backend::{self, Message};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Longest message that is neither a row, nor `COPY` data, nor an error or notice.
const CONTROL_BYTES_MAX: usize = 1 << 20;
/// How much of an error is kept; a server may quote a whole statement in it.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// How much of a notice is kept.
const NOTICE_BYTES_MAX: usize = 16 * 1024;
/// How many notices are kept; older ones give way.
const NOTICES_KEPT_MAX: usize = 100;
/// How many parameters a server may report, and how long; real ones report about fifteen short ones.
const PARAMETERS_MAX: usize = 200;
const PARAMETER_BYTES_MAX: usize = 64 * 1024;

/// `CopyBothResponse`, which the message crate does not know.
pub(super) const COPY_BOTH_TAG: u8 = b'W';

/// The head of a message whose body is still to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) tag: u8,
    /// Of the body.
    pub(super) length: usize,
}

/// What a server says beside its answers.
#[derive(Default)]
pub(super) struct Talk {
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) notices: VecDeque<ServerMessage>,
    /// The first error since the last command began, not reported yet.
    pub(super) failure: Option<ServerMessage>,
    /// Somebody asked the server to stop.
    pub(super) cancelled: Arc<AtomicBool>,
}

/// Messages over a channel.
pub(super) struct Link {
    pub(super) channel: Channel,
    pub(super) talk: Talk,
}

impl Talk {
    fn is_aside(tag: u8) -> bool {
        matches!(
            tag,
            backend::NOTICE_RESPONSE_TAG
                | backend::PARAMETER_STATUS_TAG
                | backend::NOTIFICATION_RESPONSE_TAG
                | backend::ERROR_RESPONSE_TAG
        )
    }

    fn hear(&mut self, tag: u8, body: &[u8]) -> Result<()> {
        match tag {
            backend::ERROR_RESPONSE_TAG => {
                self.failure.get_or_insert_with(|| ServerMessage::parse(&body[..body.len().min(ERROR_BYTES_MAX)]));
            }
            backend::NOTICE_RESPONSE_TAG => {
                if self.notices.len() == NOTICES_KEPT_MAX {
                    self.notices.pop_front();
                }
                self.notices.push_back(ServerMessage::parse(&body[..body.len().min(NOTICE_BYTES_MAX)]));
            }
            backend::PARAMETER_STATUS_TAG => {
                let mut parts = body.split(|&byte| byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
                let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
                    return Err(nonsense("a parameter without a value"));
                };
                let is_one_more = self.parameters.len() >= PARAMETERS_MAX && !self.parameters.contains_key(&name);
                if is_one_more || body.len() > PARAMETER_BYTES_MAX {
                    return Err(nonsense("too many or too long parameters"));
                }
                self.parameters.insert(name, value);
            }
            // Notifications are for whoever asked to be notified, and we never ask.
            _ => {}
        }
        Ok(())
    }

    /// Takes in what is wholly there of what is said unasked, without waiting.
    fn absorb(&mut self, channel: &mut Channel) -> Result<()> {
        while let Some(frame) = Frame::parse(channel.held())? {
            let whole = channel.held().get(5..5 + frame.length);
            let Some(body) = whole.filter(|_| Self::is_aside(frame.tag)) else { break };
            self.hear(frame.tag, body)?;
            channel.consume(5 + frame.length);
        }
        Ok(())
    }

    /// What a server said last, for when it hangs up.
    fn last_words(&self) -> Option<&ServerMessage> {
        self.notices.back().filter(|notice| notice.sqlstate.starts_with("57P"))
    }
}

impl Frame {
    /// Reads a head and judges tag and length; `None` if it is not wholly there.
    fn parse(held: &[u8]) -> Result<Option<Self>> {
        let Some(head) = held.first_chunk::<5>() else { return Ok(None) };
        let [tag, length @ ..] = *head;
        let length = u32::from_be_bytes(length);
        let length = match length.checked_sub(4) {
            Some(rest) if length <= i32::MAX as u32 => rest as usize,
            _ => return Err(nonsense(format_args!("a message claims to have {length} bytes"))),
        };
        let length_max = match tag {
            b'd' | b'D' | b'E' | b'N' => usize::MAX,
            b'1' | b'2' | b'3' | b'A' | b'C' | b'G' | b'H' | b'I' | b'K' | b'R' | b'S' | b'T' | b'W' | b'Z' | b'c'
            | b'n' | b's' | b't' | b'v' => CONTROL_BYTES_MAX,
            _ => return Err(nonsense(format_args!("a message of the unknown kind {:?}", char::from(tag)))),
        };
        if length > length_max {
            return Err(nonsense(format_args!("a message {:?} of {length} bytes", char::from(tag))));
        }
        Ok(Some(Self { tag, length }))
    }
}

impl Link {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel, talk: Talk::default() }
    }

    /// Appends a message made by the message crate, to be sent with [`Self::send`].
    pub(super) fn put(&mut self, make: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<()> {
        let mut buffer = BytesMut::new();
        make(&mut buffer).map_err(|error| {
            Error::invalid("say this to the server").with_source(error).with_hint("a statement cannot contain NUL")
        })?;
        self.channel.output().extend_from_slice(&buffer);
        Ok(())
    }

    /// Sends all that was put.
    pub(super) fn send(&mut self) -> Result<()> {
        let talk = &mut self.talk;
        let sent = self.channel.flush(|channel| talk.absorb(channel));
        sent.map_err(|error| self.lost(error))
    }

    /// Takes in what has come without waiting; true if the server has reported an error.
    pub(super) fn look(&mut self) -> Result<bool> {
        match self.channel.receive_now() {
            Ok(0) => {
                let error = self.channel.fail(std::io::ErrorKind::UnexpectedEof.into());
                Err(self.lost(error))
            }
            Ok(_) => {
                self.talk.absorb(&mut self.channel).map_err(|error| self.spoilt(error))?;
                Ok(self.talk.failure.is_some())
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(self.talk.failure.is_some()),
            Err(error) => {
                let error = self.channel.fail(error);
                Err(self.lost(error))
            }
        }
    }

    /// Waits for the next message that is an answer. Errors are kept until [`Self::failure`] is asked, except that a
    /// fatal one, after which nothing can follow, comes at once.
    pub(super) fn next(&mut self) -> Result<Frame> {
        loop {
            self.hold(5)?;
            let frame = match Frame::parse(self.channel.held()) {
                Ok(Some(frame)) => frame,
                Ok(None) => continue,
                Err(error) => return Err(self.spoilt(error)),
            };
            self.channel.consume(5);
            if !Talk::is_aside(frame.tag) {
                return Ok(frame);
            }
            // Errors and notices are of any length; what is beyond this would not be kept.
            let kept = frame.length.min(CONTROL_BYTES_MAX);
            self.hold(kept)?;
            let heard = self.talk.hear(frame.tag, &self.channel.held()[..kept]);
            self.channel.consume(kept);
            heard.map_err(|error| self.spoilt(error))?;
            self.skip(frame.length - kept)?;
            if self.talk.failure.as_ref().is_some_and(ServerMessage::is_fatal) {
                let error = self.channel.fail(std::io::ErrorKind::UnexpectedEof.into());
                return Err(self.lost(error));
            }
        }
    }

    /// The error that was kept, if there is one.
    pub(super) fn failure(&mut self) -> Result<()> {
        match self.talk.failure.take() {
            Some(said) => Err(said.into_error(self.talk.cancelled.load(Ordering::Relaxed))),
            None => Ok(()),
        }
    }

    /// Reads the body of a message that is no row, by the message crate.
    pub(super) fn parse(&mut self, frame: Frame) -> Result<Message> {
        self.with_body(frame, |body| {
            let mut whole = BytesMut::with_capacity(5 + body.len());
            whole.put_u8(frame.tag);
            whole.put_u32(body.len() as u32 + 4);
            whole.put_slice(body);
            Message::parse(&mut whole).ok().flatten().ok_or_else(|| {
                nonsense(format_args!("a message {:?} whose content does not fit it", char::from(frame.tag)))
            })
        })
    }

    /// Hands a whole body on; the caller has judged its length.
    pub(super) fn with_body<R>(&mut self, frame: Frame, read: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        self.hold(frame.length)?;
        let result = read(&self.channel.held()[..frame.length]);
        self.channel.consume(frame.length);
        result.map_err(|error| self.spoilt(error))
    }

    /// Passes over bytes.
    pub(super) fn skip(&mut self, mut count: usize) -> Result<()> {
        while count > 0 {
            if self.channel.held().is_empty() {
                self.receive()?;
            }
            let taken = count.min(self.channel.held().len());
            self.channel.consume(taken);
            count -= taken;
        }
        Ok(())
    }

    /// Waits for bytes.
    pub(super) fn receive(&mut self) -> Result<()> {
        self.channel.receive().map_err(|error| self.lost(error))
    }

    fn hold(&mut self, count: usize) -> Result<()> {
        self.channel.hold(count).map_err(|error| self.lost(error))
    }

    /// Gives up a connection on which nothing can be understood any more.
    pub(super) fn spoilt(&mut self, error: Error) -> Error {
        self.channel.broken = true;
        self.channel.socket().shut();
        error
    }

    /// What to report when the connection ended: what the server said before it hung up, if it said anything.
    fn lost(&mut self, error: Error) -> Error {
        match self.failure() {
            Err(said) => said,
            Ok(()) => match self.talk.last_words() {
                Some(notice) => error.with_hint(format!("the server said: {}", notice.message)),
                None => error,
            },
        }
    }
}
