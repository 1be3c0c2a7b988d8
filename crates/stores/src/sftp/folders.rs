//! Folders: made, listed, flushed, swept, tried out.

use super::channel::{Channel, Reply};
use super::objects::TEMPORARY;
use super::wire::{self, Attributes, Packet};
use super::{SftpStore, folder_of};
use crate::bridge::Pulse;
use crate::together::together;
use lastgood_model::store::{ObjectKind, SideName, StoreKey, Swept};
use lastgood_model::{Context, Error, ErrorKind, Id, Result};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Folders are for their owner alone.
const FOLDER_MODE: u32 = 0o700;
/// Folders listed at once.
const LISTS_AT_ONCE: usize = 32;
/// Bytes written to try out whether writing works.
const PROBE_BYTES: usize = 64 << 10;
/// A writer's connection does not outlive a minute of silence, and the server closes its files with it: what nobody has
/// written to for this long belongs to nobody.
const STALE_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Whether folders can be flushed: not tried yet, yes, no.
pub(super) const UNKNOWN: u8 = 0;
const FLUSHES: u8 = 1;
const NEVER_FLUSHES: u8 = 2;

impl SftpStore {
    /// Makes all folders of a repository.
    pub(super) async fn make_all(&self, channel: &Channel, pulse: &Pulse) -> Result<()> {
        self.make_folders(channel, &self.link.place.path, pulse).await?;
        let data = self.below(ObjectKind::Pack.folder());
        let mut folders: Vec<String> = ObjectKind::LISTED.iter().map(|kind| self.below(kind.folder())).collect();
        self.make_each(channel, &folders, pulse).await?;
        let there = self.entries(channel, &data, pulse).await?.unwrap_or_default();
        let there: HashSet<&str> = there.iter().map(|(name, _)| name.as_str()).collect();
        folders.clear();
        for byte in 0..=u8::MAX {
            let name = format!("{byte:02x}");
            if !there.contains(name.as_str()) {
                folders.push(format!("{data}/{name}"));
            }
        }
        self.make_each(channel, &folders, pulse).await
    }

    async fn make_each(&self, channel: &Channel, folders: &[String], pulse: &Pulse) -> Result<()> {
        for some in folders.chunks(64) {
            let all = some.iter().map(|folder| self.make_folder(channel, folder, pulse)).collect();
            together(all).await.into_iter().collect::<Result<()>>()?;
        }
        Ok(())
    }

    /// Makes one folder; one that is there is as good.
    async fn make_folder(&self, channel: &Channel, folder: &str, pulse: &Pulse) -> Result<()> {
        let packet = Packet::new(wire::MKDIR).text(folder.as_bytes()).permissions(FOLDER_MODE);
        let status = channel.ask(packet).await?.reply(pulse).await?.status()?;
        if status.is_ok() {
            self.touch(folder_of(folder));
            return Ok(());
        }
        match self.stat(channel, folder, pulse).await? {
            Some(there) if there.is_folder() => Ok(()),
            _ => Err(status.error("make the folder", folder)),
        }
    }

    /// Makes a folder and those above it.
    pub(super) async fn make_folders(&self, channel: &Channel, folder: &str, pulse: &Pulse) -> Result<()> {
        let mut missing = Vec::new();
        let mut at = folder;
        while !at.is_empty() && self.stat(channel, at, pulse).await?.is_none() {
            missing.push(at);
            at = folder_of(at);
        }
        for folder in missing.into_iter().rev() {
            self.make_folder(channel, folder, pulse).await?;
        }
        Ok(())
    }

    async fn stat(&self, channel: &Channel, path: &str, pulse: &Pulse) -> Result<Option<Attributes>> {
        channel.ask(Packet::new(wire::STAT).text(path.as_bytes())).await?.reply(pulse).await?.found(path)
    }

    /// Names in a folder that are text, without `.` and `..`; `None` when it is not there.
    pub(super) async fn entries(
        &self,
        channel: &Channel,
        folder: &str,
        pulse: &Pulse,
    ) -> Result<Option<Vec<(String, Attributes)>>> {
        let opened = channel.ask(Packet::new(wire::OPENDIR).text(folder.as_bytes())).await?.reply(pulse).await?;
        let handle = match opened.handle("list", folder) {
            Err(error) if error.kind() == ErrorKind::Absent => return Ok(None),
            other => other?,
        };
        let mut found = Vec::new();
        let result = loop {
            match channel.ask(Packet::new(wire::READDIR).text(&handle)).await?.reply(pulse).await? {
                Reply::Names(names) if !names.is_empty() => {
                    let texts = names.into_iter().filter_map(|(name, attributes)| {
                        let name = std::str::from_utf8(&name).ok().filter(|name| !matches!(*name, "." | ".."))?;
                        Some((name.to_owned(), attributes))
                    });
                    found.extend(texts);
                }
                Reply::Names(_) => break Ok(()),
                Reply::Status(status) if status.code == wire::EOF => break Ok(()),
                other => break other.done("list", folder),
            }
        };
        channel.tell(Packet::new(wire::CLOSE).text(&handle));
        result.map(|()| Some(found))
    }

    pub(super) async fn list_kind(&self, channel: &Channel, kind: ObjectKind, pulse: &Pulse) -> Result<Vec<(Id, u64)>> {
        if kind == ObjectKind::Config {
            let found = self.find(channel, &StoreKey::CONFIG, pulse).await?;
            return Ok(found.map(|(_, length)| (StoreKey::CONFIG.id, length)).into_iter().collect());
        }
        let root = self.below(kind.folder());
        let Some(entries) = self.entries(channel, &root, pulse).await? else {
            self.require_presence(channel, pulse).await?;
            return Ok(Vec::new());
        };
        let mut objects = ids(&entries);
        if kind == ObjectKind::Pack {
            let folders: Vec<String> = entries
                .iter()
                .filter(|(name, attributes)| is_pack_folder(name) && attributes.is_folder())
                .map(|(name, _)| format!("{root}/{name}"))
                .collect();
            for some in folders.chunks(LISTS_AT_ONCE) {
                let all = some.iter().map(|folder| self.entries(channel, folder, pulse)).collect();
                for entries in together(all).await {
                    // One that vanished meanwhile held nothing.
                    objects.extend(ids(&entries?.unwrap_or_default()));
                }
            }
            let mut seen = HashSet::with_capacity(objects.len());
            objects.retain(|(id, _)| seen.insert(*id));
        }
        Ok(objects)
    }

    /// Makes names in `folders` durable.
    pub(super) async fn flush(&self, channel: &Channel, folders: &[&String], pulse: &Pulse) -> Result<()> {
        if !channel.offers.fsync || self.flushes.load(Ordering::Relaxed) == NEVER_FLUSHES {
            return Ok(());
        }
        for some in folders.chunks(LISTS_AT_ONCE) {
            let all = some.iter().map(|folder| self.flush_folder(channel, folder, pulse)).collect();
            together(all).await.into_iter().collect::<Result<()>>()?;
        }
        Ok(())
    }

    async fn flush_folder(&self, channel: &Channel, folder: &str, pulse: &Pulse) -> Result<()> {
        let folder_text = if folder.is_empty() { "." } else { folder };
        let open = Packet::new(wire::OPEN).text(folder_text.as_bytes()).u32(wire::FOR_READING).u32(0);
        let handle = match channel.ask(open).await?.reply(pulse).await?.handle("open", folder_text) {
            Ok(handle) => handle,
            Err(error) if error.kind() == ErrorKind::Absent => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Retry => return Err(error),
            // A server that opens files alone.
            Err(error) => return self.cannot_flush(error),
        };
        let flushed = channel.ask(Packet::extended("fsync@openssh.com").text(&handle)).await?.reply(pulse).await?;
        channel.tell(Packet::new(wire::CLOSE).text(&handle));
        match flushed.done("flush", folder_text) {
            Ok(()) => {
                self.flushes.store(FLUSHES, Ordering::Relaxed);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Retry => Err(error),
            Err(error) => self.cannot_flush(error),
        }
    }

    /// A server that could never flush a folder cannot; one that could, failed.
    fn cannot_flush(&self, error: Error) -> Result<()> {
        if self.flushes.load(Ordering::Relaxed) == FLUSHES {
            return Err(error);
        }
        self.flushes.store(NEVER_FLUSHES, Ordering::Relaxed);
        tracing::warn!(place = %self.link.place, error = %error.chain(), "names cannot be made durable at this server");
        Ok(())
    }

    /// Every folder in which temporaries can be.
    async fn all_folders(&self, channel: &Channel, pulse: &Pulse) -> Result<Vec<String>> {
        let mut folders = vec![self.link.place.path.clone()];
        folders.extend(ObjectKind::LISTED.iter().map(|kind| self.below(kind.folder())));
        for (above, is_wanted) in [
            (self.below(ObjectKind::Pack.folder()), is_pack_folder as fn(&str) -> bool),
            (self.below(SideName::ROOT), |name: &str| SideName::is_part(name.as_bytes())),
        ] {
            let entries = self.entries(channel, &above, pulse).await?.unwrap_or_default();
            let wanted = entries.iter().filter(|(name, attributes)| is_wanted(name) && attributes.is_folder());
            folders.extend(wanted.map(|(name, _)| format!("{above}/{name}")));
        }
        Ok(folders)
    }

    /// Removes temporaries that nobody has written to for long, by the server's own clock.
    pub(super) async fn sweep_all(&self, channel: &Arc<Channel>, older_than: Duration, pulse: &Pulse) -> Result<Swept> {
        self.require_presence(channel, pulse).await?;
        let mark = self.write_temporary(channel, &self.below(ObjectKind::Lock.folder()), &[], pulse).await?;
        let now = self.stat(channel, &mark, pulse).await?.and_then(|there| there.modified);
        channel
            .ask(Packet::new(wire::REMOVE).text(mark.as_bytes()))
            .await?
            .reply(pulse)
            .await?
            .done("remove", &mark)?;
        let mut swept = Swept::default();
        let Some(now) = now else { return Ok(swept) };
        let stale = older_than.max(STALE_AFTER).as_secs();
        let folders = self.all_folders(channel, pulse).await?;
        for some in folders.chunks(LISTS_AT_ONCE) {
            let all = some.iter().map(|folder| self.entries(channel, folder, pulse)).collect();
            for (folder, entries) in some.iter().zip(together(all).await) {
                for (name, attributes) in entries?.unwrap_or_default() {
                    let age = attributes.modified.and_then(|modified| now.checked_sub(modified));
                    if !name.starts_with(TEMPORARY)
                        || !attributes.is_file()
                        || age.is_none_or(|age| u64::from(age) < stale)
                    {
                        continue;
                    }
                    let path = format!("{folder}/{name}");
                    let removed = channel.ask(Packet::new(wire::REMOVE).text(path.as_bytes())).await?;
                    removed.reply(pulse).await?.done("remove", &path)?;
                    swept.leftovers += 1;
                    swept.bytes += attributes.size.unwrap_or(0);
                }
            }
        }
        Ok(swept)
    }

    /// Writes and removes a temporary where objects of each kind are written.
    pub(super) async fn try_out(&self, channel: &Arc<Channel>, pulse: &Pulse) -> Result<()> {
        self.require_presence(channel, pulse).await?;
        let data = self.below(ObjectKind::Pack.folder());
        let entries = self.entries(channel, &data, pulse).await?.unwrap_or_default();
        let pack_folder = entries.iter().map(|(name, _)| name).filter(|name| is_pack_folder(name)).min();
        let packs = pack_folder.map_or(data.clone(), |name| format!("{data}/{name}"));
        let folders = [ObjectKind::Lock, ObjectKind::Snapshot, ObjectKind::Index].map(|kind| self.below(kind.folder()));
        for folder in folders.iter().chain([&packs]) {
            let path = match self.write_temporary(channel, folder, &[&[0; PROBE_BYTES]], pulse).await {
                // It would be made when it is needed.
                Err(error) if error.kind() == ErrorKind::Absent => continue,
                other => other.context("write something for a trial")?,
            };
            let removed = channel.ask(Packet::new(wire::REMOVE).text(path.as_bytes())).await?;
            removed.reply(pulse).await?.done("remove", &path)?;
        }
        Ok(())
    }
}

/// Objects among the entries of a folder.
fn ids(entries: &[(String, Attributes)]) -> Vec<(Id, u64)> {
    let files = entries.iter().filter(|(_, attributes)| attributes.is_file());
    files
        .filter_map(|(name, attributes)| {
            let id = name.parse::<Id>().ok().filter(|id| id.to_string() == *name)?;
            Some((id, attributes.size?))
        })
        .collect()
}

fn is_pack_folder(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
