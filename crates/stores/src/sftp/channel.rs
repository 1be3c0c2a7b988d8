//! One conversation with an SFTP server, with many requests in flight.
//!
//! A task writes what is asked, another reads answers and hands each to whoever waits for its id. When either ends, all
//! who wait are told, and the channel is dead for good; the link then makes another.

use super::wire::{self, Attributes, Fields, Packet};
use crate::bridge::Pulse;
use crate::lock;
use bytes::Bytes;
use lastgood_model::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

/// Requests that wait to be written.
const QUEUE: usize = 32;
/// No server sends longer messages; OpenSSH's limit is 256 KiB.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes asked for in one request where the server does not tell what it takes; every server takes this.
const PIECE_BYTES: usize = 32 << 10;
/// More in one request brings nothing.
const PIECE_BYTES_MAX: usize = 255 << 10;

/// What a server offers beyond the protocol.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offers {
    pub(super) posix_rename: bool,
    pub(super) hardlink: bool,
    pub(super) fsync: bool,
    pub(super) statvfs: bool,
    limits: bool,
}

/// A conversation.
#[derive(Debug)]
pub(super) struct Channel {
    queue: mpsc::Sender<Vec<u8>>,
    waiters: Arc<Mutex<Waiters>>,
    pub(super) offers: Offers,
    /// Bytes that one read asks for and one write carries.
    pub(super) read_bytes: usize,
    pub(super) write_bytes: usize,
    /// Calls that use it now.
    pub(super) busy: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiters {
    next: u32,
    waiting: HashMap<u32, oneshot::Sender<(u8, Bytes)>>,
    /// Why no answer will ever come.
    dead: Option<String>,
}

fn bury(waiters: &Mutex<Waiters>, why: &str) {
    let mut waiters = lock(waiters);
    waiters.dead.get_or_insert_with(|| why.to_owned());
    waiters.waiting.clear();
}

impl Channel {
    /// Begins a conversation over a stream; must be called on the runtime, which drives it from then on.
    pub(super) async fn begin<S>(stream: S) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let lost = |error: std::io::Error| Error::io("greet the SFTP server", error);
        writer.write_all(&wire::hello()).await.map_err(lost)?;
        writer.flush().await.map_err(lost)?;
        let (kind, body) = next(&mut reader).await.map_err(lost)?;
        let mut fields = Fields(body);
        let version = fields.u32().filter(|_| kind == wire::VERSION);
        if version.is_none_or(|version| version < wire::PROTOCOL) {
            return Err(Error::new(ErrorKind::Unsupported, "the server does not speak version 3 of SFTP").with_hint(
                "does a login script of this user print something? SFTP needs a silent one; otherwise ask for the SFTP subsystem at the server",
            ));
        }
        let offers = read_offers(&mut fields);
        let waiters = Arc::new(Mutex::new(Waiters::default()));
        let (queue, mut queued) = mpsc::channel::<Vec<u8>>(QUEUE);
        let told = waiters.clone();
        tokio::spawn(async move {
            while let Some(message) = queued.recv().await {
                let mut written = writer.write_all(&message).await;
                if queued.is_empty() && written.is_ok() {
                    written = writer.flush().await;
                }
                if let Err(error) = written {
                    return bury(&told, &format!("the connection broke while writing: {error}"));
                }
            }
            let _ = writer.shutdown().await;
        });
        let told = waiters.clone();
        tokio::spawn(async move {
            loop {
                match next(&mut reader).await {
                    Ok((kind, mut body)) if body.len() >= 4 => {
                        let id = bytes::Buf::get_u32(&mut body);
                        if let Some(waiter) = lock(&told).waiting.remove(&id) {
                            let _ = waiter.send((kind, body));
                        }
                    }
                    Ok(_) => return bury(&told, "the server sent a message without an id"),
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                        return bury(&told, "the server closed the connection");
                    }
                    Err(error) => return bury(&told, &format!("the connection broke while reading: {error}")),
                }
            }
        });
        let mut channel = Self {
            queue,
            waiters,
            offers,
            read_bytes: PIECE_BYTES,
            write_bytes: PIECE_BYTES,
            busy: AtomicUsize::new(0),
        };
        if offers.limits {
            channel.learn_limits().await?;
        }
        Ok(channel)
    }

    async fn learn_limits(&mut self) -> Result<()> {
        let answer = self.ask(Packet::extended("limits@openssh.com")).await?.wait().await?;
        if let (wire::EXTENDED_REPLY, body) = answer {
            let mut fields = Fields(body);
            let (packet, read, write) = (fields.u64(), fields.u64(), fields.u64());
            let bounded = |told: Option<u64>| {
                // Nought means that there is no limit but the packet's.
                let told = told.filter(|bytes| *bytes > 0).unwrap_or(u64::MAX).min(packet.unwrap_or(0));
                (told.min(PIECE_BYTES_MAX as u64) as usize).saturating_sub(wire::HEAD_BYTES_MAX).max(PIECE_BYTES)
            };
            (self.read_bytes, self.write_bytes) = (bounded(read), bounded(write));
        }
        Ok(())
    }

    /// Why it can no longer be used.
    pub(super) fn death(&self) -> Option<String> {
        lock(&self.waiters).dead.clone()
    }

    /// Ends it; whoever waits is told.
    pub(super) fn kill(&self, why: &str) {
        bury(&self.waiters, why);
    }

    fn lost(&self) -> Error {
        let why = self.death().unwrap_or_else(|| "it was closed".to_owned());
        Error::new(ErrorKind::Retry, format!("the SFTP connection was lost: {why}"))
    }

    /// Sends a request; its answer is waited for apart, so that many can be on their way.
    pub(super) async fn ask(&self, packet: Packet) -> Result<Answer<'_>> {
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut waiters = lock(&self.waiters);
            if waiters.dead.is_some() {
                drop(waiters);
                return Err(self.lost());
            }
            // Ids come round only after four thousand million requests.
            waiters.next = waiters.next.wrapping_add(1);
            let id = waiters.next;
            waiters.waiting.insert(id, sender);
            id
        };
        if self.queue.send(packet.finish(id)).await.is_err() {
            lock(&self.waiters).waiting.remove(&id);
            return Err(self.lost());
        }
        Ok(Answer { channel: self, receiver })
    }

    /// Sends a request whose answer nobody needs, unless there is no room to queue it.
    pub(super) fn tell(&self, packet: Packet) {
        let id = {
            let mut waiters = lock(&self.waiters);
            waiters.next = waiters.next.wrapping_add(1);
            waiters.next
        };
        let _ = self.queue.try_send(packet.finish(id));
    }

    pub(super) fn enter(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

fn read_offers(fields: &mut Fields) -> Offers {
    let mut offers = Offers::default();
    while !fields.is_empty() {
        let (Some(name), Some(_)) = (fields.text(), fields.text()) else { break };
        match &*name {
            b"posix-rename@openssh.com" => offers.posix_rename = true,
            b"hardlink@openssh.com" => offers.hardlink = true,
            b"fsync@openssh.com" => offers.fsync = true,
            b"statvfs@openssh.com" => offers.statvfs = true,
            b"limits@openssh.com" => offers.limits = true,
            _ => {}
        }
    }
    offers
}

async fn next(reader: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, Bytes)> {
    let length = reader.read_u32().await? as usize;
    if length == 0 || length > MESSAGE_BYTES_MAX {
        let message = "the server sent a message of an impossible length";
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message));
    }
    let kind = reader.read_u8().await?;
    let mut body = vec![0; length - 1];
    reader.read_exact(&mut body).await?;
    Ok((kind, body.into()))
}

/// An answer that is on its way.
pub(super) struct Answer<'a> {
    channel: &'a Channel,
    receiver: oneshot::Receiver<(u8, Bytes)>,
}

impl Answer<'_> {
    async fn wait(self) -> Result<(u8, Bytes)> {
        self.receiver.await.map_err(|_| self.channel.lost())
    }

    /// The answer, or what was refused.
    pub(super) async fn reply(self, pulse: &Pulse) -> Result<Reply> {
        let (kind, body) = self.wait().await?;
        pulse.beat(body.len());
        let malformed = || Error::new(ErrorKind::Retry, "the SFTP server sent an answer that cannot be read");
        let mut fields = Fields(body);
        match kind {
            wire::STATUS => {
                let code = fields.u32().ok_or_else(malformed)?;
                let said = fields.text().unwrap_or_default();
                let said = String::from_utf8_lossy(&said).chars().filter(|c| !c.is_control()).take(200).collect();
                Ok(Reply::Status(Status { code, said }))
            }
            wire::HANDLE => fields.text().map(Reply::Handle).ok_or_else(malformed),
            wire::DATA => fields.text().map(Reply::Data).ok_or_else(malformed),
            wire::ATTRS => fields.attributes().map(Reply::Attributes).ok_or_else(malformed),
            wire::EXTENDED_REPLY => Ok(Reply::Extended(fields)),
            wire::NAME => {
                let mut names = Vec::new();
                for _ in 0..fields.u32().ok_or_else(malformed)? {
                    let name = fields.text().ok_or_else(malformed)?;
                    fields.text().ok_or_else(malformed)?;
                    names.push((name, fields.attributes().ok_or_else(malformed)?));
                }
                Ok(Reply::Names(names))
            }
            _ => Err(malformed()),
        }
    }
}

/// What a server answered.
pub(super) enum Reply {
    Status(Status),
    Handle(Bytes),
    Data(Bytes),
    Attributes(Attributes),
    Names(Vec<(Bytes, Attributes)>),
    Extended(Fields),
}

/// A verdict without more.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) code: u32,
    pub(super) said: String,
}

impl Status {
    pub(super) fn is_ok(&self) -> bool {
        self.code == wire::OK
    }

    /// As an error of `act`.
    pub(super) fn error(&self, act: &str, path: &str) -> Error {
        let kind = match self.code {
            wire::NO_SUCH_FILE => ErrorKind::Absent,
            wire::PERMISSION_DENIED => ErrorKind::Denied,
            wire::NO_CONNECTION | wire::CONNECTION_LOST => ErrorKind::Retry,
            wire::UNSUPPORTED => ErrorKind::Unsupported,
            _ => ErrorKind::Io,
        };
        let said = if self.said.is_empty() { format!("status {}", self.code) } else { self.said.clone() };
        Error::new(kind, format!("{act} {path}: the SFTP server says {said:?}"))
    }
}

impl Reply {
    /// The verdict, where nothing else can be meant.
    pub(super) fn status(self) -> Result<Status> {
        match self {
            Self::Status(status) => Ok(status),
            _ => Err(Error::new(ErrorKind::Retry, "the SFTP server sent another answer than was asked for")),
        }
    }

    /// An error unless the verdict is good.
    pub(super) fn done(self, act: &str, path: &str) -> Result<()> {
        let status = self.status()?;
        if status.is_ok() { Ok(()) } else { Err(status.error(act, path)) }
    }

    /// The open file.
    pub(super) fn handle(self, act: &str, path: &str) -> Result<Bytes> {
        match self {
            Self::Handle(handle) => Ok(handle),
            other => Err(other.status()?.error(act, path)),
        }
    }

    /// What is told of a file; `None` where there is none.
    pub(super) fn found(self, path: &str) -> Result<Option<Attributes>> {
        match self {
            Self::Attributes(attributes) => Ok(Some(attributes)),
            Self::Status(status) if status.code == wire::NO_SUCH_FILE => Ok(None),
            other => Err(other.status()?.error("examine", path)),
        }
    }
}
