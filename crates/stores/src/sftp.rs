//! A folder on another machine, reached by SFTP and laid out as in [`crate::LocalStore`].
//!
//! Promises, and what they rest on:
//! - *The server is the one it says it is.* Its key must be known before anything is told to it; see [`known_hosts`].
//! - *An object is there whole or not at all.* It is written to a temporary beside it, flushed where the server can
//!   (`fsync@openssh.com`), and only then given its name: by `posix-rename@openssh.com`, and where a name must not be
//!   taken twice, by a hard link, which fails on one that is there.
//! - *Names survive a power cut after `sync`* where the server can flush, since a folder can be opened and flushed there
//!   like a file. Other servers promise nothing of that kind, and nothing can be asked of them.
//! - *A disk that is not mounted there is told apart from an object that is missing*, as in a local folder.
//! - *Nothing hangs.* Every call has a deadline and must show life; one that is given up takes its connection with it,
//!   and the next begins a new one.
//!
//! Far servers are as fast as near ones: reads and writes go in pieces with many in flight, over several channels.

mod auth;
mod channel;
mod folders;
mod handles;
mod known_hosts;
mod link;
mod objects;
mod openssh;
mod side;
mod ssh;
mod transfer;
mod wire;

pub(crate) use ssh::HostKeys;

use crate::access::Access;
use crate::bridge::{self, Limits, Pulse};
use crate::{length_of, lock};
use channel::Channel;
use handles::Handles;
use lastgood_model::store::{Capabilities, ObjectKind, SideStore, Store, StoreKey, Swept};
use lastgood_model::{Error, ErrorKind, Id, Result};
use link::Link;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

/// Where an SFTP server is, and the repository's folder on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SftpPlace {
    /// Name or address; an IPv6 address without brackets.
    pub(crate) host: String,
    /// 22 when nothing is said.
    pub(crate) port: Option<u16>,
    /// Who runs this program, when nothing is said.
    pub(crate) user: Option<String>,
    /// Absolute, or relative to the folder in which the server begins; no slash at its end.
    pub(crate) path: String,
}

impl SftpPlace {
    fn port(&self) -> u16 {
        self.port.unwrap_or(22)
    }

    fn user(&self) -> String {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.user
            .clone()
            .or_else(|| variable("USER"))
            .or_else(|| variable("LOGNAME"))
            .unwrap_or_else(|| "root".to_owned())
    }
}

/// As a URL that leads here again.
impl fmt::Display for SftpPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sftp://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') { write!(f, "[{}]", self.host) } else { f.write_str(&self.host) }?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "/{}", self.path)
    }
}

/// What carries the conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Our own client.
    #[default]
    Own,
    /// The system's `ssh`.
    OpenSsh,
}

/// Settings of an SFTP store beyond its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct SftpOptions {
    pub(crate) transport: Transport,
    pub(crate) host_keys: HostKeys,
    /// For the system's `ssh` alone.
    pub(crate) ssh_config: Option<PathBuf>,
    /// For secrets, asked for at each connection, and timeouts.
    pub(crate) access: Access,
}

/// A repository's objects behind an SFTP server.
pub struct SftpStore {
    link: Link,
    /// Packs read last; restore reads many ranges of the same pack.
    packs: Handles,
    /// Folders in which a name came or went since they were last flushed.
    touched: Mutex<BTreeSet<String>>,
    /// Held for the whole of `sync`.
    syncing: Mutex<()>,
    /// Whether folders can be flushed there, see [`folders`].
    flushes: AtomicU8,
}

impl SftpStore {
    /// The store at `place`. Touches nothing.
    pub(crate) fn new(place: SftpPlace, options: SftpOptions) -> Self {
        Self {
            link: Link::new(place, options),
            packs: Handles::default(),
            touched: Mutex::default(),
            syncing: Mutex::default(),
            flushes: AtomicU8::new(folders::UNKNOWN),
        }
    }

    /// Runs one call that moves so many bytes.
    fn call<T>(
        &self,
        act: impl fmt::Display,
        bytes: u64,
        call: impl AsyncFnOnce(&std::sync::Arc<Channel>, &Pulse) -> Result<T>,
    ) -> Result<T> {
        let pulse = Pulse::new();
        let timeouts = self.link.options.access.timeouts;
        let limits = Limits { total: timeouts.total(bytes), idle: timeouts.idle };
        let act = act.to_string();
        bridge::block_on_watched(limits, &pulse, &act, &self.link.place, async {
            let lease = self.link.lease(&pulse).await?;
            let result = call(&lease.channel, &pulse).await;
            lease.done();
            result
        })
        .map_err(|error| match error.kind() {
            // Who it was that broke off is not in what broke.
            ErrorKind::Retry if !error.message().contains(&self.link.place.host) => {
                error.context(format!("{act} at {}", self.link.place))
            }
            _ => error,
        })
    }

    /// Free bytes for this user where the repository lies; `None` when the server does not tell.
    pub fn free_bytes(&self) -> Result<Option<u64>> {
        self.call("ask for free space", 0, async |channel, pulse| self.free(channel, pulse).await)
    }

    fn path(&self, key: &StoreKey) -> String {
        self.below(&key.path())
    }

    fn below(&self, path: &str) -> String {
        format!("{}/{path}", self.link.place.path)
    }

    fn touch(&self, folder: &str) {
        let mut touched = lock(&self.touched);
        if !touched.contains(folder) {
            touched.insert(folder.to_owned());
        }
    }
}

/// The folder in which a path lies.
fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Store for SftpStore {
    fn location(&self) -> String {
        self.link.place.to_string()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { connections: 8, coalesce_gap_bytes: 256 << 10, exclusive_create: true, list_after_write: true }
    }

    fn create(&self) -> Result<()> {
        self.call("make folders", 0, async |channel, pulse| self.make_all(channel, pulse).await)
    }

    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        let bytes = length_of(parts);
        self.call(format_args!("write {key}"), bytes, async |channel, pulse| {
            self.write(channel, key, parts, pulse).await
        })
    }

    fn sync(&self) -> Result<()> {
        let _turn = lock(&self.syncing);
        let touched = std::mem::take(&mut *lock(&self.touched));
        if touched.is_empty() {
            return Ok(());
        }
        let folders: Vec<&String> = touched.iter().collect();
        let result = self.call("flush", 0, async |channel, pulse| self.flush(channel, &folders, pulse).await);
        if result.is_err() {
            lock(&self.touched).extend(touched);
        }
        result
    }

    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        // How long it is shows only there; what flows is bounded by silence.
        self.call(format_args!("read {key}"), 1 << 30, async |channel, pulse| {
            self.read_whole(channel, key, pulse).await
        })
    }

    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let bytes = (length as u64).min(1 << 30);
        let result = self.call(format_args!("read {key}"), bytes, async |channel, pulse| {
            self.read_range(channel, key, (offset, length), out, pulse).await
        });
        if result.is_err() {
            out.clear();
        }
        result
    }

    fn size(&self, key: &StoreKey) -> Result<u64> {
        self.call(format_args!("examine {key}"), 0, async |channel, pulse| {
            match self.find(channel, key, pulse).await? {
                Some((_, length)) => Ok(length),
                None => Err(self.absence(channel, key, pulse).await?),
            }
        })
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        self.call(format_args!("list {}", kind.folder()), 1 << 30, async |channel, pulse| {
            self.list_kind(channel, kind, pulse).await
        })
    }

    fn remove(&self, key: &StoreKey) -> Result<()> {
        self.packs.forget(&key.id);
        self.call(format_args!("remove {key}"), 0, async |channel, pulse| self.unlink(channel, key, pulse).await)
    }

    fn sweep(&self, older_than: Duration) -> Result<Swept> {
        self.call("sweep", 1 << 20, async |channel, pulse| self.sweep_all(channel, older_than, pulse).await)
    }

    fn probe(&self) -> Result<()> {
        self.call("try to write", 1 << 20, async |channel, pulse| self.try_out(channel, pulse).await)
    }

    fn fills_up(&self) -> bool {
        true
    }

    fn side(&self) -> Option<&dyn SideStore> {
        Some(self)
    }
}

impl fmt::Debug for SftpStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SftpStore").field("place", &self.link.place).finish_non_exhaustive()
    }
}

/// That nothing like a repository is there.
fn no_repository(place: &SftpPlace) -> Error {
    Error::new(ErrorKind::NoRepository, format!("there is no repository at {place}"))
        .with_hint("check the path, and that its disk is mounted there; sftp://host//path is absolute, sftp://host/path begins in the user's home")
}
