//! One object: found, read, written, removed.

use super::channel::{Channel, Reply};
use super::handles::Opened;
use super::wire::{self, Packet};
use super::{SftpStore, folder_of, no_repository, transfer};
use crate::bridge::Pulse;
use crate::length_of;
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Error, ErrorKind, Result};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

/// How temporaries begin; no reader takes them for objects, and a sweep knows them as ours.
pub(super) const TEMPORARY: &str = ".tmp-sftp-";
/// Files are for their owner alone.
const FILE_MODE: u32 = 0o600;

/// How a file gets its name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Publish {
    /// Only if the name is free; else [`ErrorKind::Conflict`].
    New,
    /// In any case.
    Over,
}

impl SftpStore {
    /// Where an object may be: where it belongs, and for packs also directly in `data/`.
    fn candidates(&self, key: &StoreKey) -> Vec<String> {
        let flat = (key.kind == ObjectKind::Pack).then(|| self.below(&format!("data/{}", key.id)));
        std::iter::once(self.path(key)).chain(flat).collect()
    }

    /// Path and length of an object that is there.
    pub(super) async fn find(&self, channel: &Channel, key: &StoreKey, pulse: &Pulse) -> Result<Option<(String, u64)>> {
        let paths = self.candidates(key);
        let mut asked = Vec::new();
        for path in &paths {
            asked.push(channel.ask(Packet::new(wire::STAT).text(path.as_bytes())).await?);
        }
        let mut found = None;
        for (path, answer) in paths.into_iter().zip(asked) {
            let there = answer.reply(pulse).await?.found(&path)?;
            if let Some(length) = there.filter(|there| there.is_file()).and_then(|there| there.size) {
                found = found.or(Some((path, length)));
            }
        }
        Ok(found)
    }

    /// What it means that an object is not there.
    pub(super) async fn absence(&self, channel: &Channel, key: &StoreKey, pulse: &Pulse) -> Result<Error> {
        if key.kind != ObjectKind::Config {
            self.require_presence(channel, pulse).await?;
        }
        Ok(Error::new(ErrorKind::Absent, format!("{key} is not at {}", self.link.place)))
    }

    /// Fails unless a repository is there, or one about to be made.
    pub(super) async fn require_presence(&self, channel: &Channel, pulse: &Pulse) -> Result<()> {
        let (config, data) = (self.below("config"), self.below("data"));
        let asked = [
            channel.ask(Packet::new(wire::STAT).text(config.as_bytes())).await?,
            channel.ask(Packet::new(wire::STAT).text(data.as_bytes())).await?,
        ];
        let mut is_there = false;
        for answer in asked {
            is_there |= answer.reply(pulse).await?.found(&config)?.is_some();
        }
        if is_there { Ok(()) } else { Err(no_repository(&self.link.place)) }
    }

    /// Opens an object for reading, and learns how long it is: both by its name and in one round trip, since what has a
    /// name never changes.
    async fn open(&self, channel: &Arc<Channel>, key: &StoreKey, pulse: &Pulse) -> Result<Opened> {
        for path in self.candidates(key) {
            let open = Packet::new(wire::OPEN).text(path.as_bytes()).u32(wire::FOR_READING).u32(0);
            let open = channel.ask(open).await?;
            let told = channel.ask(Packet::new(wire::STAT).text(path.as_bytes())).await?;
            let handle = match open.reply(pulse).await?.handle("open", &path) {
                Err(error) if error.kind() == ErrorKind::Absent => continue,
                other => other?,
            };
            // Closed when dropped, also on the way out.
            let mut opened = Opened { channel: channel.clone(), handle, length: 0 };
            let told = told.reply(pulse).await?.found(&path)?.and_then(|told| told.size);
            opened.length = told.ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, format!("{} does not tell how long {path} is", self.link.place))
            })?;
            return Ok(opened);
        }
        Err(self.absence(channel, key, pulse).await?)
    }

    pub(super) async fn read_whole(&self, channel: &Arc<Channel>, key: &StoreKey, pulse: &Pulse) -> Result<Vec<u8>> {
        let opened = self.open(channel, key, pulse).await?;
        let length = usize::try_from(opened.length)
            .map_err(|_| Error::new(ErrorKind::Unsupported, format!("{key} is too long to read whole")))?;
        let mut out = Vec::new();
        transfer::read(channel, &opened.handle, (0, length), &mut out, &self.path(key), pulse).await?;
        Ok(out)
    }

    pub(super) async fn read_range(
        &self,
        channel: &Arc<Channel>,
        key: &StoreKey,
        (offset, length): (u64, usize),
        out: &mut Vec<u8>,
        pulse: &Pulse,
    ) -> Result<()> {
        let is_pack = key.kind == ObjectKind::Pack;
        let opened = match is_pack.then(|| self.packs.get(&key.id)).flatten() {
            Some(opened) => opened,
            None => {
                let opened = Arc::new(self.open(channel, key, pulse).await?);
                if is_pack {
                    self.packs.keep(key.id, opened.clone());
                }
                opened
            }
        };
        let path = self.path(key);
        if offset.checked_add(length as u64).is_none_or(|end| end > opened.length) {
            let message = format!("{path} has {} bytes, bytes {offset}+{length} were asked for", opened.length);
            return Err(Error::corrupt(message));
        }
        transfer::read(&opened.channel, &opened.handle, (offset, length), out, &path, pulse).await
    }

    /// An object of another length under the same name is damaged, whatever it is, and is replaced.
    pub(super) async fn write(
        &self,
        channel: &Arc<Channel>,
        key: &StoreKey,
        parts: &[&[u8]],
        pulse: &Pulse,
    ) -> Result<()> {
        let path = self.path(key);
        let is_config = key.kind == ObjectKind::Config;
        if let Some((found, length)) = self.find(channel, key, pulse).await? {
            if is_config {
                return Err(self.taken(&path));
            }
            if length == length_of(parts) {
                // Whoever wrote it may not have made its name durable yet; our next `sync` must.
                self.touch(folder_of(&found));
                return Ok(());
            }
        }
        if is_config {
            // It lies in the root itself, which an empty mount point has too; all else fails there for want of a folder.
            self.require_presence(channel, pulse).await?;
        }
        let publish = if is_config { Publish::New } else { Publish::Over };
        self.write_file(channel, &path, parts, publish, pulse).await?;
        self.packs.forget(&key.id);
        self.touch(folder_of(&path));
        Ok(())
    }

    fn taken(&self, path: &str) -> Error {
        Error::new(ErrorKind::Conflict, format!("{path} is at {} already", self.link.place))
            .with_hint("this place holds a repository; use it, or choose another place")
    }

    /// Writes a temporary beside `path`, flushes it and gives it its name. Folders that are missing are made, but only in
    /// a repository that is there.
    pub(super) async fn write_file(
        &self,
        channel: &Arc<Channel>,
        path: &str,
        parts: &[&[u8]],
        publish: Publish,
        pulse: &Pulse,
    ) -> Result<()> {
        let folder = folder_of(path);
        let temporary = match self.write_temporary(channel, folder, parts, pulse).await {
            Err(error) if error.kind() == ErrorKind::Absent => {
                self.require_presence(channel, pulse).await?;
                self.make_folders(channel, folder, pulse).await?;
                self.write_temporary(channel, folder, parts, pulse).await?
            }
            other => other?,
        };
        let published = self.publish(channel, &temporary, path, length_of(parts), publish, pulse).await;
        if published.is_err() {
            channel.tell(Packet::new(wire::REMOVE).text(temporary.as_bytes()));
        }
        published
    }

    /// Writes and flushes a new file in `folder`; gives back its path.
    pub(super) async fn write_temporary(
        &self,
        channel: &Arc<Channel>,
        folder: &str,
        parts: &[&[u8]],
        pulse: &Pulse,
    ) -> Result<String> {
        let random = std::hash::RandomState::new().build_hasher().finish();
        let path = format!("{folder}/{TEMPORARY}{random:016x}");
        let open = Packet::new(wire::OPEN).text(path.as_bytes()).u32(wire::FOR_WRITING_NEW).permissions(FILE_MODE);
        let handle = channel.ask(open).await?.reply(pulse).await?.handle("make", &path)?;
        // Closed there also after a failure: the connection goes on to be used.
        let written = transfer::write(channel, &handle, parts, &path, pulse).await;
        match written {
            Ok(()) => Ok(path),
            Err(error) => {
                channel.tell(Packet::new(wire::REMOVE).text(path.as_bytes()));
                Err(self.is_it_full(channel, length_of(parts), error, pulse).await)
            }
        }
    }

    /// A full disk shows as "failure" and no more, so that the server is asked.
    async fn is_it_full(&self, channel: &Channel, wanted: u64, error: Error, pulse: &Pulse) -> Error {
        if error.kind() != ErrorKind::Io {
            return error;
        }
        match self.free(channel, pulse).await {
            Ok(Some(free)) if free < wanted + (1 << 20) => {
                Error::new(ErrorKind::NoSpace, format!("{} has {free} bytes left", self.link.place)).with_source(error)
            }
            _ => error,
        }
    }

    pub(super) async fn free(&self, channel: &Channel, pulse: &Pulse) -> Result<Option<u64>> {
        if !channel.offers.statvfs {
            return Ok(None);
        }
        let path = &self.link.place.path;
        let asked = channel.ask(Packet::extended("statvfs@openssh.com").text(path.as_bytes())).await?;
        let Reply::Extended(mut fields) = asked.reply(pulse).await? else { return Ok(None) };
        let numbers: Option<Vec<u64>> = (0..5).map(|_| fields.u64()).collect();
        // Block size, fragment size, all blocks, free ones, free ones for us.
        Ok(numbers.map(|numbers| numbers[1].saturating_mul(numbers[4])))
    }

    async fn publish(
        &self,
        channel: &Channel,
        temporary: &str,
        path: &str,
        length: u64,
        how: Publish,
        pulse: &Pulse,
    ) -> Result<()> {
        let (from, to) = (temporary.as_bytes(), path.as_bytes());
        let packet = match how {
            Publish::Over if channel.offers.posix_rename => Packet::extended("posix-rename@openssh.com"),
            Publish::New if channel.offers.hardlink => Packet::extended("hardlink@openssh.com"),
            // By the draft it fails where the name is taken.
            _ => Packet::new(wire::RENAME),
        };
        let is_link = how == Publish::New && channel.offers.hardlink;
        let status = channel.ask(packet.text(from).text(to)).await?.reply(pulse).await?.status()?;
        if status.is_ok() {
            if is_link {
                // The object is there; a temporary that stays is a matter for a sweep.
                channel.ask(Packet::new(wire::REMOVE).text(from)).await?.reply(pulse).await?.status()?;
            }
            return Ok(());
        }
        let refused = status.error("publish", path);
        let there = channel.ask(Packet::new(wire::STAT).text(to)).await?.reply(pulse).await?.found(path)?;
        let rename = |pulse| async move {
            let packet = Packet::new(wire::RENAME).text(from).text(to);
            channel.ask(packet).await?.reply(pulse).await?.done("publish", path)
        };
        match (there, how) {
            (Some(_), Publish::New) => Err(self.taken(path)),
            // Some file systems have no hard links.
            (None, Publish::New) if is_link => rename(pulse).await,
            (Some(there), Publish::Over) if !channel.offers.posix_rename => {
                if there.size != Some(length) || path.contains("/lastgood/") {
                    channel.ask(Packet::new(wire::REMOVE).text(to)).await?.reply(pulse).await?.status()?;
                    return rename(pulse).await;
                }
                // Another wrote the same meanwhile.
                channel.ask(Packet::new(wire::REMOVE).text(from)).await?.reply(pulse).await?.status()?;
                Ok(())
            }
            _ => Err(refused),
        }
    }

    pub(super) async fn unlink(&self, channel: &Channel, key: &StoreKey, pulse: &Pulse) -> Result<()> {
        let mut removed = false;
        for path in self.candidates(key) {
            match channel.ask(Packet::new(wire::REMOVE).text(path.as_bytes())).await?.reply(pulse).await?.status()? {
                status if status.is_ok() => {
                    removed = true;
                    self.touch(folder_of(&path));
                }
                status if status.code == wire::NO_SUCH_FILE => {}
                status => return Err(status.error("remove", &path)),
            }
        }
        if removed { Ok(()) } else { self.require_presence(channel, pulse).await }
    }
}
