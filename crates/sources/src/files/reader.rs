//! Reading a regular file once, from start to end.
//!
//! It is read to the end it has when the end is reached, holes are skipped over, and the verdict compares what the kernel
//! says of the open file before the first byte and after the last. A small file costs, besides opening and closing, two
//! `fstat` and one `pread`: asking for one byte more than its size shows the end in the same call.

use super::dir::Dir;
use super::open;
use super::place::Place;
use super::scope::{Scope, key};
use super::stat::{ctime, fill, links, mtime, size};
use crate::held::Descriptor;
use lastgood_model::source::{FileReader, Read, Steady};
use lastgood_model::{Node, Result};
use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, SeekFrom, Stat, fadvise, fstat, seek};
use rustix::io::{Errno, pread};
use std::io::Read as _;
use std::sync::Arc;

/// From this size on the kernel is told to read ahead.
const READ_AHEAD_FROM: u64 = 4 * 1024 * 1024;

/// Files up to this size are not searched for holes.
const HOLES_ABOVE: u64 = 4096;

/// How far a file is followed beyond the size it had when it was opened: one that is written faster than it is read would
/// never end.
const GROWTH_MAX: u64 = 256 * 1024 * 1024;

/// See the module.
pub(super) struct PlainReader {
    fd: Descriptor,
    place: Arc<Place>,
    scope: Arc<Scope>,
    name: Box<[u8]>,
    /// Device and inode of the entry as it was listed.
    listed: (u64, u64),
    before: Stat,
    /// As in `before`.
    size: u64,
    /// How far it was read.
    offset: u64,
    /// For a file with holes: data is known to reach up to here.
    data_end: Option<u64>,
    ended: bool,
    cut_off: bool,
}

impl PlainReader {
    /// Reads `fd`, a regular file of which `before` was just said, listed as `node` in `dir`.
    pub(super) fn new(dir: &Dir, node: &Node, fd: Descriptor, before: Stat) -> Self {
        let size = size(&before);
        if size >= READ_AHEAD_FROM {
            // Advice; it does not matter when the file system has no use for it.
            let _ = fadvise(&fd, 0, None, Advice::Sequential);
        }
        let allocated = u64::try_from(before.st_blocks).unwrap_or(0).saturating_mul(512);
        Self {
            fd,
            place: Arc::clone(&dir.place),
            scope: Arc::clone(&dir.scope),
            name: node.name.as_slice().into(),
            listed: (node.device_id, node.inode),
            before,
            size,
            offset: 0,
            data_end: (size > HOLES_ABOVE && allocated < size).then_some(0),
            ended: false,
            cut_off: false,
        }
    }

    /// When the offset is in a hole, passes it and says how long it is. Otherwise settles how far data reaches.
    fn pass_hole(&mut self) -> rustix::io::Result<Option<u64>> {
        if self.data_end.is_none_or(|end| self.offset < end) || self.offset >= self.size {
            return Ok(None);
        }
        let data = match seek(&self.fd, SeekFrom::Data(self.offset)) {
            Ok(start) => start.min(self.size),
            // Nothing but a hole up to the end, wherever that is by now.
            Err(Errno::NXIO) => size(&fstat(&self.fd)?).min(self.size),
            // A file system that cannot tell.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY) => {
                self.data_end = None;
                return Ok(None);
            }
            Err(errno) => return Err(errno),
        };
        if data > self.offset {
            let length = data - self.offset;
            self.offset = data;
            return Ok(Some(length));
        }
        self.data_end = match seek(&self.fd, SeekFrom::Hole(self.offset)) {
            Ok(end) if end > self.offset => Some(end),
            // The end moved below the offset; reading will find that.
            _ => None,
        };
        Ok(None)
    }

    fn verdict(&self, after: &Stat) -> Steady {
        let (was, is) = (self.size, size(after));
        let no = |reason: String| Steady::No(reason);
        if self.cut_off {
            no(format!("grew faster than it could be read; cut off after {} bytes", self.offset))
        } else if is > was {
            no(format!("grew from {was} to {is} bytes while it was read"))
        } else if is < was {
            no(format!("shrank from {was} to {is} bytes while it was read"))
        } else if mtime(after) != mtime(&self.before) {
            no("was written to while it was read".to_owned())
        } else if ctime(after) != ctime(&self.before) {
            no(if links(after) == 0 {
                "was removed while it was read".to_owned()
            } else {
                "was renamed, linked or given other attributes while it was read".to_owned()
            })
        } else if self.offset != was {
            no(format!("said to have {was} bytes, but {} could be read", self.offset))
        } else {
            Steady::Yes
        }
    }
}

impl FileReader for PlainReader {
    fn read(&mut self, out: &mut Vec<u8>, want: usize) -> Result<Read> {
        if self.ended {
            return Ok(Read::End);
        }
        let read = self.pass_hole().and_then(|hole| {
            if let Some(length) = hole {
                return Ok(Read::Hole(length));
            }
            let want = want.max(1);
            let up_to = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(want);
            let (ask, limit) = match self.data_end {
                // Not into the next hole.
                Some(end) if self.offset < end => (up_to(end - self.offset), up_to(end - self.offset)),
                // One more than there should be, to meet the end or the growth.
                _ => (up_to(self.size.saturating_sub(self.offset) + 1), want),
            };
            let (length, short) = append(&self.fd, out, ask, limit, self.offset)?;
            self.offset += length as u64;
            if length == 0 {
                self.ended = true;
                return Ok(Read::End);
            }
            self.ended = short && self.offset == self.size;
            if self.offset > self.size.saturating_add(GROWTH_MAX) {
                (self.ended, self.cut_off) = (true, true);
            }
            Ok(Read::Data(length))
        });
        read.map_err(|errno| open::failed("read", &self.place.path_of(&self.name), errno))
    }

    fn finish(self: Box<Self>, node: &mut Node) -> Result<Steady> {
        let after = fstat(&self.fd).map_err(|errno| open::failed("examine", &self.place.path_of(&self.name), errno))?;
        let owner = (node.uid, node.gid);
        fill(node, &self.before);
        node.size = self.offset;
        if owner != (node.uid, node.gid) {
            node.user = self.scope.owners.user(node.uid);
            node.group = self.scope.owners.group(node.gid);
        }
        let steady = self.verdict(&after);
        if self.listed != key(&self.before) {
            // Another file had taken the name before it was opened. It was read as a whole, so it is what is kept, with
            // its own attributes.
            return Ok(match super::attributes::of_fd(&self.fd) {
                Ok(found) if found.trouble.is_empty() => {
                    node.xattrs = found.xattrs;
                    steady
                }
                _ => Steady::No("was replaced by another file whose extended attributes could not be read".to_owned()),
            });
        }
        Ok(steady)
    }
}

/// Appends what the file has at `offset`, `ask` bytes if it has them, never more than `limit`; says how many, and whether
/// the kernel had less than it was asked for.
fn append(
    fd: &Descriptor,
    out: &mut Vec<u8>,
    ask: usize,
    limit: usize,
    offset: u64,
) -> rustix::io::Result<(usize, bool)> {
    let start = out.len();
    out.reserve(ask);
    let room = out.capacity() - start;
    if room > limit && ask >= limit {
        let length = append_part(fd, out, limit, offset)?;
        return Ok((length, length < limit));
    }
    // One call into all the room there is: it is no more than may be used, or the file is expected to end within it. Should
    // it not, the excess is cut off and read again.
    let read = loop {
        match pread(fd, spare_capacity(out), offset) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let length = read.min(limit);
    out.truncate(start + length);
    Ok((length, read < room && length == read))
}

/// Appends up to `limit` bytes where there is room for more. The standard library does this without clearing the memory
/// first, at the price of a few more calls; clearing half a megabyte costs as much as a tenth of hashing it.
fn append_part(fd: &Descriptor, out: &mut Vec<u8>, limit: usize, offset: u64) -> rustix::io::Result<usize> {
    let start = out.len();
    seek(fd, SeekFrom::Start(offset))?;
    fd.file().take(limit as u64).read_to_end(out).map_err(|error| {
        out.truncate(start);
        Errno::from_io_error(&error).unwrap_or(Errno::IO)
    })
}
