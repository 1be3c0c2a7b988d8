//! The connection behind a store: made when it is first needed, made anew after it was lost.

use super::channel::Channel;
use super::ssh::{self, Guard};
use super::{SftpOptions, SftpPlace, Transport, openssh};
use crate::bridge::Pulse;
use lastgood_model::{Error, Result};
use russh::client::Handle;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::process::Child;
use tokio::sync::Mutex;

/// Conversations at once on one connection; OpenSSH allows ten.
const CHANNELS_MAX: usize = 4;
/// Programs at once, each with a connection of its own.
const PROGRAMS_MAX: usize = 2;

/// How the server is reached.
pub(super) struct Link {
    pub(super) place: SftpPlace,
    pub(super) options: SftpOptions,
    state: Mutex<State>,
    /// A call was given up, so that nothing on this connection is to be trusted.
    is_stuck: AtomicBool,
}

#[derive(Default)]
struct State {
    ssh: Option<Handle<Guard>>,
    channels: Vec<Arc<Channel>>,
    programs: Vec<Child>,
    /// The server opens no more than this.
    most: Option<usize>,
}

/// A channel in use by one call. Dropped without [`Lease::done`], the call was given up in the middle, and with it the
/// connection: what is silent for one is mostly silent for all.
pub(super) struct Lease<'a> {
    link: &'a Link,
    pub(super) channel: Arc<Channel>,
    is_done: bool,
}

impl Lease<'_> {
    pub(super) fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.channel.leave();
        if !self.is_done {
            self.channel.kill("a call on it was given up");
            self.link.is_stuck.store(true, Ordering::SeqCst);
        }
    }
}

impl Link {
    pub(super) fn new(place: SftpPlace, options: SftpOptions) -> Self {
        Self { place, options, state: Mutex::default(), is_stuck: AtomicBool::new(false) }
    }

    /// A channel that is alive, the idlest of them; another one when all are busy.
    pub(super) async fn lease(&self, pulse: &Pulse) -> Result<Lease<'_>> {
        let mut state = self.state.lock().await;
        if self.is_stuck.swap(false, Ordering::SeqCst) {
            state.forget();
        }
        state.channels.retain(|channel| channel.death().is_none());
        if state.ssh.as_ref().is_some_and(Handle::is_closed) {
            state.forget();
        }
        state.programs.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let most = state.most.unwrap_or(match self.options.transport {
            Transport::Own => CHANNELS_MAX,
            Transport::OpenSsh => PROGRAMS_MAX,
        });
        let busy = |channel: &Arc<Channel>| channel.busy.load(Ordering::Relaxed);
        let all_busy = state.channels.iter().all(|channel| busy(channel) > 0);
        if all_busy && state.channels.len() < most {
            match self.open(&mut state, pulse).await {
                Ok(channel) => state.channels.push(Arc::new(channel)),
                Err(error) if state.channels.is_empty() => {
                    state.forget();
                    return Err(error);
                }
                // One serves as well, if slower.
                Err(error) => {
                    tracing::debug!(error = %error.chain(), channels = state.channels.len(), "no further SFTP channel");
                    state.most = Some(state.channels.len());
                }
            }
        }
        let channel = state.channels.iter().min_by_key(|channel| busy(channel)).cloned();
        let channel = channel.ok_or_else(|| Error::new(lastgood_model::ErrorKind::Bug, "no SFTP channel"))?;
        channel.enter();
        Ok(Lease { link: self, channel, is_done: false })
    }

    async fn open(&self, state: &mut State, pulse: &Pulse) -> Result<Channel> {
        let channel = match self.options.transport {
            Transport::OpenSsh => {
                let (channel, program) = openssh::open(&self.place, &self.options).await?;
                state.programs.push(program);
                channel
            }
            Transport::Own => {
                if state.ssh.is_none() {
                    let made = ssh::connect(&self.place, &self.options, pulse).await?;
                    tracing::debug!(place = %self.place, "connected");
                    state.ssh = Some(made);
                }
                let Some(ssh) = &state.ssh else { return Err(Error::new(lastgood_model::ErrorKind::Bug, "no SSH")) };
                let opened = tokio::time::timeout(ssh::patience(&self.options), ssh::open(ssh)).await;
                opened.map_err(|_| {
                    let message = format!("opening SFTP at {} took too long", self.place);
                    Error::new(lastgood_model::ErrorKind::Retry, message)
                })??
            }
        };
        pulse.beat(0);
        Ok(channel)
    }
}

impl State {
    /// Ends everything; the next call begins anew.
    fn forget(&mut self) {
        for channel in self.channels.drain(..) {
            channel.kill("the connection was given up");
        }
        self.ssh = None;
        self.programs.clear();
        self.most = None;
    }
}
