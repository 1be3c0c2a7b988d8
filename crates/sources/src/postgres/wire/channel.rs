//! Bytes to and from a server: one buffer each way, filled and emptied with large calls, and all waiting done here.
//!
//! While something is sent the other direction is looked at too: a server that complains while we write would
//! otherwise wait for us as we wait for it.

use super::errors::nonsense;
use super::pace::Pace;
use super::socket::{Patience, Socket};
use super::tls::Session;
use lastgood_model::{Error, ErrorKind, Result};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// Taken from the socket at a time. What a local server has ready is far less; a network's buffers hold as much.
const INPUT_BYTES: usize = 256 * 1024;
/// A server that says more than this while we send is not listening.
const UNREAD_BYTES_MAX: usize = 4 << 20;

/// One connection's bytes.
pub(super) struct Channel {
    socket: Arc<Socket>,
    session: Option<Box<Session>>,
    input: Vec<u8>,
    /// Within `input`, what was received and not consumed.
    held: std::ops::Range<usize>,
    output: Vec<u8>,
    sent: usize,
    pub(super) patience: Patience,
    /// While much is received: how eagerly.
    pub(super) pace: Option<Pace>,
    /// Set once the connection is of no more use, with what to tell whoever tries again.
    pub(super) broken: bool,
}

impl Channel {
    pub(super) fn new(socket: Arc<Socket>, session: Option<Box<Session>>, patience: Patience) -> Self {
        Self {
            socket,
            session,
            input: Vec::new(),
            held: 0..0,
            output: Vec::new(),
            sent: 0,
            patience,
            pace: None,
            broken: false,
        }
    }

    pub(super) fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    pub(super) fn session(&self) -> Option<&Session> {
        self.session.as_deref()
    }

    /// What was received and not consumed.
    pub(super) fn held(&self) -> &[u8] {
        &self.input[self.held.clone()]
    }

    /// Forgets the first `count` bytes of what is held.
    pub(super) fn consume(&mut self, count: usize) {
        self.held.start = (self.held.start + count).min(self.held.end);
    }

    /// Waits until at least `count` bytes are held. The buffer grows for it, so `count` must be bounded by the caller.
    pub(super) fn hold(&mut self, count: usize) -> Result<()> {
        while self.held.len() < count {
            self.make_room(count);
            self.receive()?;
        }
        Ok(())
    }

    /// Waits for bytes and takes in what there is, at least one.
    pub(super) fn receive(&mut self) -> Result<()> {
        if let Some(pause) = self.pace.as_mut().and_then(Pace::pause) {
            std::thread::sleep(pause);
        }
        loop {
            match self.receive_now() {
                Ok(0) => return Err(self.fail(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    self.pace.iter_mut().for_each(|pace| pace.received(count));
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = self.socket.wait(false, &self.patience) {
                        return Err(self.fail(error));
                    }
                }
                Err(error) => return Err(self.fail(error)),
            }
        }
    }

    /// Takes in what is there, without waiting; `WouldBlock` if nothing is, 0 at the end.
    pub(super) fn receive_now(&mut self) -> io::Result<usize> {
        if self.broken {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.make_room(self.held.len() + 1);
        let room = &mut self.input[self.held.end..];
        let count = match &mut self.session {
            Some(session) => session.read(&self.socket, room)?,
            None => (&*self.socket).read(room)?,
        };
        self.held.end += count;
        Ok(count)
    }

    /// Makes the buffer able to hold `count` bytes, and shrinks it back when the large ones are gone.
    fn make_room(&mut self, count: usize) {
        if self.held.is_empty() {
            self.held = 0..0;
            if self.input.len() > INPUT_BYTES && count <= INPUT_BYTES {
                self.input = Vec::new();
            }
        }
        if self.input.len() < count.max(INPUT_BYTES) {
            // By what has really arrived, never by what a message merely claims to be.
            let wanted = count.min(self.held.len() * 2 + INPUT_BYTES).max(INPUT_BYTES);
            if self.held.len() == self.input.len() && wanted > self.input.len() {
                self.input.resize(wanted.max(self.held.len() * 2), 0);
            }
        }
        if self.held.end == self.input.len() && self.held.start > 0 {
            self.input.copy_within(self.held.clone(), 0);
            self.held = 0..self.held.len();
        }
    }

    /// What will be sent. Whoever appends calls [`Self::flush`] before it grows large.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Sends all output. Calls `listen` whenever something was received meanwhile, which may consume it. Whatever it
    /// finds, sending goes on: half a message would spoil everything that follows.
    pub(super) fn flush(&mut self, mut listen: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        if self.broken {
            return Err(self.fail(io::ErrorKind::NotConnected.into()));
        }
        loop {
            match self.send_now() {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = self.socket.wait(true, &self.patience) {
                        return Err(self.fail(error));
                    }
                    match self.receive_now() {
                        Ok(0) => return Err(self.fail(io::ErrorKind::UnexpectedEof.into())),
                        Ok(_) => {
                            if let Err(error) = listen(self) {
                                self.fail(io::ErrorKind::InvalidData.into());
                                return Err(error);
                            }
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(self.fail(error)),
                    }
                    if self.held.len() > UNREAD_BYTES_MAX {
                        self.fail(io::ErrorKind::InvalidData.into());
                        return Err(nonsense("it talks on and on while it should listen"));
                    }
                }
                Err(error) => {
                    // The server may have said why it hung up.
                    while matches!(self.receive_now(), Ok(1..)) && self.held.len() < UNREAD_BYTES_MAX {}
                    let _ = listen(self);
                    return Err(self.fail(error));
                }
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(())
    }

    /// Sends as much as there is room for; `WouldBlock` if that is not all.
    fn send_now(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            let rest = &self.output[self.sent..];
            self.sent += match &mut self.session {
                Some(session) => session.write(&self.socket, rest)?,
                None => (&*self.socket).write(rest)?,
            };
        }
        match &mut self.session {
            Some(session) => session.push(&self.socket),
            None => Ok(()),
        }
    }

    /// Gives the connection up for `error`.
    pub(super) fn fail(&mut self, error: io::Error) -> Error {
        let was_broken = std::mem::replace(&mut self.broken, true);
        self.socket.shut();
        let (kind, message, hint) = match error.kind() {
            _ if was_broken => (ErrorKind::Retry, "the connection to the server is closed", "connect again"),
            io::ErrorKind::Interrupted => (ErrorKind::Cancelled, "interrupted", ""),
            io::ErrorKind::TimedOut => {
                (ErrorKind::Retry, "the server does not answer", "is the server overloaded, or the network broken?")
            }
            io::ErrorKind::InvalidData => {
                (ErrorKind::Corrupt, "what arrived from the server is damaged", "does something between change it?")
            }
            _ => (
                ErrorKind::Retry,
                "the server closed the connection",
                "the server's log says why; if it was restarted, try again",
            ),
        };
        let error = Error::new(kind, message).with_source(error);
        if hint.is_empty() { error } else { error.with_hint(hint) }
    }

    /// Ends the connection politely if nothing is in the way, `goodbye` being the last bytes.
    pub(super) fn close(&mut self, goodbye: &[u8]) {
        if !self.broken {
            self.output.extend_from_slice(goodbye);
            // Only what there is room for: nobody waits for a goodbye.
            let _ = self.send_now();
            if let Some(session) = &mut self.session {
                session.close(&self.socket);
            }
            self.broken = true;
        }
        self.socket.shut();
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.socket.shut();
    }
}
