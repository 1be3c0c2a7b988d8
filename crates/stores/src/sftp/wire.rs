//! Messages of the SSH file transfer protocol, version 3, with OpenSSH's extensions.
//!
//! `draft-ietf-secsh-filexfer-02` and OpenSSH's `PROTOCOL` file. Every message is a length, a kind, for all but the first
//! two an id, and fields.

use bytes::{Buf, Bytes};

pub(super) const INIT: u8 = 1;
pub(super) const VERSION: u8 = 2;
pub(super) const OPEN: u8 = 3;
pub(super) const CLOSE: u8 = 4;
pub(super) const READ: u8 = 5;
pub(super) const WRITE: u8 = 6;
pub(super) const FSTAT: u8 = 8;
pub(super) const OPENDIR: u8 = 11;
pub(super) const READDIR: u8 = 12;
pub(super) const REMOVE: u8 = 13;
pub(super) const MKDIR: u8 = 14;
pub(super) const STAT: u8 = 17;
pub(super) const RENAME: u8 = 18;
pub(super) const EXTENDED: u8 = 200;

pub(super) const STATUS: u8 = 101;
pub(super) const HANDLE: u8 = 102;
pub(super) const DATA: u8 = 103;
pub(super) const NAME: u8 = 104;
pub(super) const ATTRS: u8 = 105;
pub(super) const EXTENDED_REPLY: u8 = 201;

/// Ways to open a file.
pub(super) const FOR_READING: u32 = 1;
/// Write, create, and refuse what is there.
pub(super) const FOR_WRITING_NEW: u32 = 2 | 8 | 32;

/// Codes of a status.
pub(super) const OK: u32 = 0;
pub(super) const EOF: u32 = 1;
pub(super) const NO_SUCH_FILE: u32 = 2;
pub(super) const PERMISSION_DENIED: u32 = 3;
pub(super) const NO_CONNECTION: u32 = 6;
pub(super) const CONNECTION_LOST: u32 = 7;
pub(super) const UNSUPPORTED: u32 = 8;

/// The version that all servers speak.
pub(super) const PROTOCOL: u32 = 3;
/// Bytes before the payload of a write, at most; a handle has 256.
pub(super) const HEAD_BYTES_MAX: usize = 1024;

/// A message on its way out.
pub(super) struct Packet(Vec<u8>);

impl Packet {
    /// Begins a message with an id to be filled in.
    pub(super) fn new(kind: u8) -> Self {
        Self::with_room(kind, 64)
    }

    fn with_room(kind: u8, bytes: usize) -> Self {
        let mut out = Vec::with_capacity(bytes + 9);
        out.extend_from_slice(&[0; 4]);
        out.push(kind);
        out.extend_from_slice(&[0; 4]);
        Self(out)
    }

    /// An extended request.
    pub(super) fn extended(name: &str) -> Self {
        Self::new(EXTENDED).text(name.as_bytes())
    }

    /// A write of `pieces`, joined, at `offset`.
    pub(super) fn write(handle: &[u8], offset: u64, pieces: &[&[u8]]) -> Self {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut packet = Self::with_room(WRITE, length + handle.len() + 16).text(handle).u64(offset).u32(length as u32);
        pieces.iter().for_each(|piece| packet.0.extend_from_slice(piece));
        packet
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn text(mut self, text: &[u8]) -> Self {
        self = self.u32(text.len() as u32);
        self.0.extend_from_slice(text);
        self
    }

    /// Attributes that tell permissions alone.
    pub(super) fn permissions(self, mode: u32) -> Self {
        self.u32(4).u32(mode)
    }

    /// The whole message.
    pub(super) fn finish(mut self, id: u32) -> Vec<u8> {
        let length = (self.0.len() - 4) as u32;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0[5..9].copy_from_slice(&id.to_be_bytes());
        self.0
    }
}

/// The first message, which has a version in the place of an id.
pub(super) fn hello() -> Vec<u8> {
    Packet::new(INIT).finish(PROTOCOL)
}

/// The fields of a message; `None` where it ends too early.
pub(super) struct Fields(pub(super) Bytes);

impl Fields {
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32().ok()
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.0.try_get_u64().ok()
    }

    pub(super) fn text(&mut self) -> Option<Bytes> {
        let length = self.u32()? as usize;
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    pub(super) fn attributes(&mut self) -> Option<Attributes> {
        let flags = self.u32()?;
        let mut found = Attributes::default();
        if flags & 1 != 0 {
            found.size = Some(self.u64()?);
        }
        if flags & 2 != 0 {
            self.u64()?;
        }
        if flags & 4 != 0 {
            found.mode = Some(self.u32()?);
        }
        if flags & 8 != 0 {
            self.u32()?;
            found.modified = Some(self.u32()?);
        }
        if flags & 0x8000_0000 != 0 {
            for _ in 0..self.u32()? {
                self.text()?;
                self.text()?;
            }
        }
        Some(found)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a server tells of a file; each part only if it wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    pub(super) mode: Option<u32>,
    /// Seconds since 1970.
    pub(super) modified: Option<u32>,
}

impl Attributes {
    /// True unless it is known to be something else.
    pub(super) fn is_file(&self) -> bool {
        self.mode.is_none_or(|mode| mode & 0o170_000 == 0o100_000)
    }

    pub(super) fn is_folder(&self) -> bool {
        self.mode.is_none_or(|mode| mode & 0o170_000 == 0o040_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_as_the_draft_says() {
        assert_eq!(hello(), [0, 0, 0, 5, 1, 0, 0, 0, 3]);
        let write = Packet::write(b"h", 258, &[b"ab", b"c"]).finish(7);
        let want = [0, 0, 0, 25, 6, 0, 0, 0, 7, 0, 0, 0, 1, b'h', 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3, b'a', b'b', b'c'];
        assert_eq!(write, want);
    }

    #[test]
    fn what_ends_too_early_is_noticed_wherever_it_ends() {
        let mut whole = vec![0x80, 0, 0, 15];
        whole.extend([0, 0, 0, 0, 0, 0, 0, 9]);
        whole.extend([0; 8]);
        whole.extend([0, 0, 0x81, 0xa4]);
        whole.extend([0, 0, 0, 1, 0, 0, 0, 2]);
        whole.extend([0, 0, 0, 1, 0, 0, 0, 1, b'x', 0, 0, 0, 0]);
        let read = |bytes: &[u8]| Fields(Bytes::copy_from_slice(bytes)).attributes();
        let found = read(&whole).unwrap();
        assert_eq!(found, Attributes { size: Some(9), mode: Some(0o100_644), modified: Some(2) });
        assert!(found.is_file() && !found.is_folder());
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), None, "{end}");
        }
        // A length that no message can have.
        assert!(Fields(Bytes::from_static(&[0xff; 8])).text().is_none());
    }
}
