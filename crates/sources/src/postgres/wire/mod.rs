//! A client for PostgreSQL's protocol, version 3.0, with blocking calls.
//!
//! Why not an existing one: a row of `COPY` can be 2 GB of text, and here it is handed on in pieces as it arrives, so a
//! connection's memory is bounded by its buffers and by the limits of [`query`]. Messages are those of the crate
//! `postgres-protocol`; encryption is `rustls`.
//!
//! What is promised:
//!
//! - The end of a `COPY` is told only after the server has said that the statement succeeded and that it is ready for
//!   the next. Bytes that stop coming are an error.
//! - Whatever a server sends, true or not, gives an error at worst: no panic, and no memory beyond the limits.
//! - A server that is gone, and a connection over which nothing comes any more, are noticed (see [`Client::watch`]).
//! - After an error of a statement the connection can be used on. After an error of the connection every call fails
//!   with [`lastgood_model::ErrorKind::Retry`], and [`Client::is_broken`] says so.

mod auth;
mod cancel;
mod channel;
mod connect;
mod copy_in;
mod copy_out;
mod der;
mod errors;
mod link;
mod liveness;
mod pace;
pub mod query;
mod rows;
mod socket;
mod tls;
mod verify;

pub use cancel::Canceller;
pub use copy_in::CopyIn;
pub use copy_out::{CopyOut, CopyRead};
pub use errors::{ServerMessage, server_message, sqlstate};
pub use liveness::Vigil;
pub use rows::{Column, Row, Rows};

use super::conninfo::Conninfo;
use super::toc::Text;
use lastgood_model::{Error, ErrorKind, Result};
use link::Link;
use postgres_protocol::message::{backend, frontend};
use std::sync::Arc;
use std::time::Duration;

/// One connection. Dropping it says goodbye to the server.
pub struct Client {
    link: Link,
    info: Conninfo,
    canceller: Canceller,
    backend_pid: i32,
    transaction: Transaction,
    timeouts: Timeouts,
    text: Text,
}

/// How long a silent server is waited for. Without a limit a server that is gone is noticed by TCP keepalives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Until an answer to a statement, or more of it.
    pub answer: Option<Duration>,
    /// Until more data of a `COPY`, or room for more.
    pub copy: Option<Duration>,
}

/// Where the session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// In none.
    Idle,
    /// Within one.
    Open,
    /// Within one that failed: only `ROLLBACK` is taken.
    Failed,
}

impl Client {
    /// Connects to the first host that can be used and signs in.
    ///
    /// Errors: `Retry` if no server could be reached or all are busy; `Denied` for credentials, certificates, or a
    /// server that must not be trusted; `Absent` for a database that does not exist; `Invalid` and `Unsupported` for
    /// settings.
    pub fn connect(info: &Conninfo) -> Result<Self> {
        connect::connect(info)
    }

    /// Sets how strings stand for what is sent and received: [`Text::Bytes`] for a database whose text is in no encoding,
    /// with which the session then speaks as it is.
    ///
    /// # Errors
    /// Those of [`Self::batch`].
    pub fn set_text(&mut self, text: Text) -> Result<()> {
        let encoding = if text == Text::Bytes { "SQL_ASCII" } else { "UTF8" };
        self.batch(&format!("SET client_encoding = '{encoding}'"))?;
        self.text = text;
        Ok(())
    }

    /// How strings stand for what is sent and received.
    pub fn text(&self) -> Text {
        self.text
    }

    /// Runs statements that set up the session, which may name another encoding than the one it speaks.
    ///
    /// # Errors
    /// Those of [`Self::batch`].
    pub fn set_up(&mut self, sql: &str) -> Result<()> {
        self.batch(sql)?;
        if self.text == Text::Utf8 { Ok(()) } else { self.set_text(self.text) }
    }

    /// Puts one or more statements.
    fn put_query(&mut self, sql: &str) -> Result<()> {
        if self.text == Text::Utf8 || sql.is_ascii() {
            return self.link.put(|buffer| frontend::query(sql, buffer));
        }
        let sql = self.text.encode(sql);
        self.link.put(|buffer| {
            let length = i32::try_from(sql.len() + 5).ok().filter(|_| !sql.contains(&0));
            let length = length.ok_or(std::io::ErrorKind::InvalidInput)?;
            buffer.extend_from_slice(b"Q");
            buffer.extend_from_slice(&length.to_be_bytes());
            buffer.extend_from_slice(&sql);
            buffer.extend_from_slice(&[0]);
            Ok(())
        })
    }

    /// The server's version as a number: 150018 for 15.18, 90624 for 9.6.24; 0 if it told none.
    pub fn server_version(&self) -> u32 {
        self.parameter("server_version").map_or(0, version_number)
    }

    /// What the server reports of `name`, such as `server_encoding` or `in_hot_standby`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.link.talk.parameters.get(name).map(String::as_str)
    }

    /// Process id of the server's side.
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// How this connection was made, with only the host that was taken: for more connections to the same server.
    pub fn conninfo(&self) -> &Conninfo {
        &self.info
    }

    /// TLS version and cipher; `None` without encryption.
    pub fn encryption(&self) -> Option<String> {
        self.link.channel.session().map(tls::Session::shown)
    }

    /// Where the session stands since the last statement.
    pub fn transaction(&self) -> Transaction {
        self.transaction
    }

    /// True once the connection is of no more use.
    pub fn is_broken(&self) -> bool {
        self.link.channel.broken
    }

    /// Takes the notices and warnings since the last call, oldest first; of very many only the last hundred.
    pub fn take_notices(&mut self) -> Vec<ServerMessage> {
        self.link.talk.notices.drain(..).collect()
    }

    /// Sets how long a silent server is waited for.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.timeouts = timeouts;
        self.link.channel.patience.silence = timeouts.answer;
    }

    /// While waiting, asks `is_wanted` several times a second; once it says true, the statement is cancelled, the call
    /// fails with [`ErrorKind::Cancelled`], and the connection is closed.
    pub fn set_interrupt(&mut self, is_wanted: Arc<dyn Fn() -> bool + Send + Sync>) {
        self.link.channel.patience.interrupt = Some(is_wanted);
    }

    /// From now on, when the server says nothing for as long as `keepalives_idle` says, it is asked over another
    /// connection whether it is still at work for this one; a call fails with [`ErrorKind::Retry`] once it is not. For
    /// connections over a network, unless `keepalives` are off. Not within a transaction.
    ///
    /// # Errors
    /// Those of [`Self::query`].
    pub fn watch(&mut self) -> Result<()> {
        self.link.channel.patience.watch = liveness::Watch::over(self)?.map(Arc::new);
        Ok(())
    }

    /// Looks after a program such as `pg_dump` that is started to connect to the same server.
    pub fn vigil(&self, program: &str) -> Vigil {
        Vigil::new(self, program)
    }

    /// Something that can cancel what this connection does, from any thread.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Begins a command: refuses on a broken connection and forgets the last command's errors.
    fn begin(&mut self) -> Result<()> {
        if self.is_broken() {
            return Err(
                Error::new(ErrorKind::Retry, "the connection to the server is closed").with_hint("connect again")
            );
        }
        self.link.talk.failure = None;
        self.link.channel.patience.silence = self.timeouts.answer;
        self.link.channel.pace = None;
        Ok(())
    }

    /// Reads to the end of a command, passing over what is left of its answer, and reports its error if it had one.
    fn until_ready(&mut self) -> Result<()> {
        loop {
            let frame = self.next()?;
            if frame.tag == backend::READY_FOR_QUERY_TAG {
                self.ready(frame)?;
                return self.link.failure();
            }
            if frame.tag == backend::COPY_IN_RESPONSE_TAG {
                self.link.put(|buffer| frontend::copy_fail("no data was to be sent", buffer))?;
                self.link.send()?;
            }
            self.link.skip(frame.length)?;
        }
    }

    /// The next answer; an interrupted wait also cancels what the server does for us.
    fn next(&mut self) -> Result<link::Frame> {
        self.link.next().inspect_err(|error| self.canceller.after(error))
    }

    /// Takes in that the server is ready.
    fn ready(&mut self, frame: link::Frame) -> Result<()> {
        self.transaction = self.link.with_body(frame, |body| match body {
            b"I" => Ok(Transaction::Idle),
            b"T" => Ok(Transaction::Open),
            b"E" => Ok(Transaction::Failed),
            _ => Err(errors::nonsense("it is ready, but in no known state")),
        })?;
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut goodbye = bytes::BytesMut::new();
        frontend::terminate(&mut goodbye);
        self.link.channel.close(&goodbye);
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({}, process {})", self.info.to_string_without_secrets(), self.backend_pid)
    }
}

/// `15.18 (Debian …)` to 150018. Numbers up to 9 have three parts; betas count as `.0`.
fn version_number(text: &str) -> u32 {
    let mut parts = text.split('.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        (part[..digits].parse::<u32>().unwrap_or(0).min(9999), digits == part.len())
    });
    let mut next_is_there = true;
    let mut part = || {
        let (value, is_whole) = parts.next().filter(|_| next_is_there).unwrap_or((0, false));
        next_is_there = is_whole;
        value
    };
    let (major, minor, patch) = (part(), part(), part());
    if major >= 10 { major * 10_000 + minor } else { major * 10_000 + minor.min(99) * 100 + patch.min(99) }
}

#[cfg(test)]
mod tests;
