//! Reading from a bucket: whole objects, ranges, lists.

use super::Bucket;
use futures_util::StreamExt;
use lastgood_model::{Error, ErrorKind, Result};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use std::time::Duration;

/// What is read at once whose length is not known yet is about this long at most.
const WHOLE_BYTES: u64 = 32 << 20;
/// Room that is made for an answer on the word of its header alone.
const ROOM_BYTES_MAX: u64 = 64 << 20;
/// The longest that all pages of a list may take.
const LIST_LIMIT: Duration = Duration::from_secs(3600);

impl Bucket {
    /// A planted mistake: what came is taken for all there is.
    #[cfg(feature = "planted-bugs")]
    fn trusts_short_bodies(&self) -> bool {
        self.planted == Some(crate::planted::Planted::TrustShortBody)
    }

    #[cfg(not(feature = "planted-bugs"))]
    const fn trusts_short_bodies(&self) -> bool {
        false
    }

    pub(super) fn read(&self, below: &str) -> Result<Vec<u8>> {
        let path = self.path(below)?;
        let act = format_args!("read {below}");
        let found = self.call(WHOLE_BYTES, act, async {
            let found = self.client.get_opts(&path, GetOptions::default()).await?;
            let length = found.meta.size;
            let mut out = Vec::with_capacity(usize::try_from(length.min(ROOM_BYTES_MAX)).unwrap_or_default());
            let mut stream = found.into_stream();
            while let Some(piece) = stream.next().await {
                match piece {
                    Err(_) if self.trusts_short_bodies() => break,
                    piece => out.extend_from_slice(&piece?),
                }
            }
            Ok((out, length))
        });
        let (out, length) = found?;
        if out.len() as u64 != length && !self.trusts_short_bodies() {
            return Err(self.cut_short(below, length, out.len()));
        }
        Ok(out)
    }

    /// The server has announced more than it sent, or less.
    fn cut_short(&self, below: &str, announced: u64, came: usize) -> Error {
        let shown = &self.shown;
        Error::new(ErrorKind::Retry, format!("read {below} in {shown}: {came} bytes came of {announced} announced"))
    }

    fn too_short(&self, below: &str, length: u64, needed: u128) -> Error {
        Error::corrupt(format!("{below} in {} is {length} bytes, shorter than the {needed} needed", self.shown))
    }

    pub(super) fn read_range(&self, below: &str, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        let needed = u128::from(offset) + length as u128;
        let end = offset.checked_add(length as u64);
        let (Some(end), true) = (end, length > 0) else {
            // No request can ask for nothing, nor for what is beyond all lengths.
            let found = self.size_of(below)?.ok_or_else(|| self.absent(below))?;
            return if u128::from(found) < needed { Err(self.too_short(below, found, needed)) } else { Ok(()) };
        };
        let path = self.path(below)?;
        let options = GetOptions { range: Some(GetRange::Bounded(offset..end)), ..GetOptions::default() };
        let mut room = std::mem::take(out);
        let act = format_args!("read {below}");
        let read = self.call(length as u64, act, async {
            let found = self.client.get_opts(&path, options).await?;
            room.reserve(length.min(ROOM_BYTES_MAX as usize));
            let total = found.meta.size;
            let mut stream = found.into_stream();
            while let Some(piece) = stream.next().await {
                match piece {
                    Err(_) if self.trusts_short_bodies() => room.resize(length, 0),
                    piece => room.extend_from_slice(&piece?),
                }
            }
            Ok((room, total))
        });
        match read {
            Ok((mut room, total)) => {
                if u128::from(total) < needed {
                    room.clear();
                    *out = room;
                    return Err(self.too_short(below, total, needed));
                }
                let came = room.len();
                if came != length {
                    room.clear();
                }
                *out = room;
                if came == length { Ok(()) } else { Err(self.cut_short(below, length as u64, came)) }
            }
            Err(failed) => Err(match failed.answer.total {
                Some(total) if u128::from(total) < needed => self.too_short(below, total, needed),
                _ if failed.answer.status == 416 => match self.size_of(below)? {
                    Some(total) => self.too_short(below, total, needed),
                    None => self.absent(below),
                },
                _ => failed.error,
            }),
        }
    }

    pub(super) fn absent(&self, below: &str) -> Error {
        Error::new(ErrorKind::Absent, format!("{below} is not in {}", self.shown))
    }

    /// Everything below a folder, by its path below that.
    pub(super) fn listed(&self, folder: &str) -> Result<Vec<(String, ObjectMeta)>> {
        let path = self.path(folder)?;
        let act = format_args!("list {folder}");
        let found = self.call_within(LIST_LIMIT, act, async {
            let mut out = Vec::new();
            let mut stream = self.client.list(Some(&path));
            while let Some(meta) = stream.next().await {
                let meta = meta?;
                if let Some(below) = meta.location.as_ref().strip_prefix(path.as_ref()) {
                    out.push((below.trim_start_matches('/').to_owned(), meta));
                }
            }
            Ok(out)
        });
        Ok(found?.0)
    }
}
