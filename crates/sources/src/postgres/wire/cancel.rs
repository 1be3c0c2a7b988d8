//! Cancelling what a connection does, over a second one, as the protocol wants it.

use super::super::conninfo::{Conninfo, SslMode};
use super::connect::{Encryption, open};
use super::link::Link;
use super::socket::{Address, Patience};
use lastgood_model::{Error, ErrorKind, Result};
use postgres_protocol::message::frontend;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long to try to reach the server.
const CANCEL_MAX: Duration = Duration::from_secs(10);

/// Cancels the running statement of one [`super::Client`], from any thread, as often as wanted.
#[derive(Clone)]
pub struct Canceller(Arc<Inner>);

struct Inner {
    /// With only the host that was taken.
    info: Conninfo,
    address: Address,
    encryption: Encryption,
    pid: i32,
    secret: i32,
    cancelled: Arc<AtomicBool>,
}

impl Canceller {
    pub(super) fn new(
        info: Conninfo,
        address: Address,
        is_encrypted: bool,
        (pid, secret): (i32, i32),
        cancelled: Arc<AtomicBool>,
    ) -> Self {
        // What travels encrypted is not followed by its key in the open.
        let encryption = if is_encrypted { Encryption::Must } else { Encryption::No };
        Self(Arc::new(Inner { info, address, encryption, pid, secret, cancelled }))
    }

    /// Asks the server to cancel. That it was asked is all that can be known: the statement may have ended before. Once
    /// asked, a statement that fails because of it has [`ErrorKind::Cancelled`].
    pub fn cancel(&self) -> Result<()> {
        self.0.cancelled.store(true, Ordering::Relaxed);
        self.knock()
    }

    /// The same, for our own purposes. Returns once the server has passed it on, so that no later statement is hit.
    pub(super) fn knock(&self) -> Result<()> {
        let Inner { info, address, encryption, pid, secret, .. } = &*self.0;
        let patience = Patience { deadline: Some(Instant::now() + CANCEL_MAX), ..Patience::default() };
        let host = &info.hosts()[0];
        let mut tls = info.options.tls.clone();
        if *encryption == Encryption::Must {
            tls.mode = tls.mode.max(SslMode::Require);
        }
        let channel = open(info, host, address, &tls, *encryption, patience)?;
        let mut link = Link::new(channel);
        link.put(|buffer| {
            frontend::cancel_request(*pid, *secret, buffer);
            Ok(())
        })?;
        link.send()?;
        // The server answers by closing, once it has passed the request on. Anything else it says means nothing.
        while matches!(link.channel.receive(), Ok(())) {
            let held = link.channel.held().len();
            link.channel.consume(held);
        }
        Ok(())
    }

    pub(super) fn address(&self) -> &Address {
        &self.0.address
    }

    /// After an interrupted wait, so that the server does not work on for nobody.
    pub(super) fn after(&self, error: &Error) {
        if error.kind() == ErrorKind::Cancelled && !self.0.cancelled.swap(true, Ordering::Relaxed) {
            // If it cannot be reached it will find our end closed.
            let _ = self.knock();
        }
    }
}

impl std::fmt::Debug for Canceller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Canceller(process {})", self.0.pid)
    }
}
