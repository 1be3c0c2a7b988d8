//! Objects beside the repository's own: `lastgood/<folder>/<name>`, in folders made when they are first needed.

use super::channel::Channel;
use super::objects::Publish;
use super::wire::{self, Packet};
use super::{SftpStore, folder_of, transfer};
use crate::bridge::Pulse;
use lastgood_model::store::{SideName, SidePut, SideStore};
use lastgood_model::{Error, ErrorKind, Result};

impl SftpStore {
    fn side_path(&self, name: &SideName) -> String {
        self.below(&name.path())
    }

    /// The object's folder and those above it, which another may have made without having flushed them yet.
    async fn flush_above(&self, channel: &Channel, path: &str, pulse: &Pulse) -> Result<()> {
        let folder = folder_of(path).to_owned();
        let above = folder_of(&folder).to_owned();
        let root = folder_of(&above).to_owned();
        self.flush(channel, &[&folder, &above, &root], pulse).await
    }
}

impl SideStore for SftpStore {
    fn put_side(&self, name: &SideName, bytes: &[u8], how: SidePut) -> Result<()> {
        let path = self.side_path(name);
        let publish = match how {
            SidePut::Create => Publish::New,
            SidePut::Replace => Publish::Over,
        };
        self.call(format_args!("write {name}"), bytes.len() as u64, async |channel, pulse| {
            self.write_file(channel, &path, &[bytes], publish, pulse).await?;
            self.flush_above(channel, &path, pulse).await
        })
    }

    fn get_side(&self, name: &SideName) -> Result<Vec<u8>> {
        let path = self.side_path(name);
        self.call(format_args!("read {name}"), 1 << 20, async |channel, pulse| {
            let open = Packet::new(wire::OPEN).text(path.as_bytes()).u32(wire::FOR_READING).u32(0);
            let handle = match channel.ask(open).await?.reply(pulse).await?.handle("open", &path) {
                Err(error) if error.kind() == ErrorKind::Absent => {
                    self.require_presence(channel, pulse).await?;
                    return Err(error);
                }
                other => other?,
            };
            let told = channel.ask(Packet::new(wire::FSTAT).text(&handle)).await?.reply(pulse).await?.found(&path)?;
            let length = told.and_then(|told| usize::try_from(told.size?).ok());
            let length =
                length.ok_or_else(|| Error::new(ErrorKind::Unsupported, format!("{path} does not tell its length")))?;
            let mut out = Vec::new();
            let read = transfer::read(channel, &handle, (0, length), &mut out, &path, pulse).await;
            channel.tell(Packet::new(wire::CLOSE).text(&handle));
            read.map(|()| out)
        })
    }

    fn list_side(&self, folder: &str) -> Result<Vec<(SideName, u64)>> {
        let path = self.below(&format!("{}/{folder}", SideName::ROOT));
        self.call(format_args!("list {}/{folder}", SideName::ROOT), 1 << 20, async |channel, pulse| {
            let Some(entries) = self.entries(channel, &path, pulse).await? else {
                self.require_presence(channel, pulse).await?;
                return Ok(Vec::new());
            };
            let files = entries.iter().filter(|(_, attributes)| attributes.is_file());
            Ok(files
                .filter_map(|(name, attributes)| Some((SideName::new(folder, name).ok()?, attributes.size?)))
                .collect())
        })
    }

    fn remove_side(&self, name: &SideName) -> Result<()> {
        let path = self.side_path(name);
        self.call(format_args!("remove {name}"), 0, async |channel, pulse| {
            let status =
                channel.ask(Packet::new(wire::REMOVE).text(path.as_bytes())).await?.reply(pulse).await?.status()?;
            match status.code {
                wire::OK => self.flush_above(channel, &path, pulse).await,
                wire::NO_SUCH_FILE => self.require_presence(channel, pulse).await,
                _ => Err(status.error("remove", &path)),
            }
        })
    }
}
