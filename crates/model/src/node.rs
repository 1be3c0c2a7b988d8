//! One entry of a directory tree as a snapshot keeps it. Names are bytes: file systems do not promise text.

use crate::{BlobId, Time, TreeId};

/// What kind of thing an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A regular file; `Node::content` lists its blobs.
    File,
    /// A directory; `Node::subtree` is its tree.
    Dir,
    /// A symbolic link; `Node::link_target` is its text.
    Symlink,
    /// A block device; `Node::device` is its number.
    BlockDevice,
    /// A character device; `Node::device` is its number.
    CharDevice,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
}

/// An extended attribute, ACLs and capabilities included, with its raw value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// Full name with its namespace, such as `user.note`.
    pub name: String,
    /// Raw bytes.
    pub value: Vec<u8>,
}

/// A file, directory or other entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The last path component, never empty, never holding `/` or NUL, never `.` or `..`.
    pub name: Vec<u8>,
    /// The kind of entry.
    pub kind: NodeKind,
    /// Unix permission bits with setuid, setgid and sticky (`0o7777`), without the file type.
    pub mode: u32,
    /// Last modification of the content.
    pub mtime: Time,
    /// Last access; equal to `mtime` unless access times are kept.
    pub atime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Owner's name where the host knew it, else empty.
    pub user: String,
    /// Group's name where the host knew it, else empty.
    pub group: String,
    /// Inode number on the source file system.
    pub inode: u64,
    /// Device number (`st_dev`) of the source file system; pairs hard links together with `inode`.
    pub device_id: u64,
    /// Content length in bytes; 0 for all but files.
    pub size: u64,
    /// Hard link count; 0 for directories, fifos and sockets.
    pub links: u64,
    /// A symbolic link's text, else empty.
    pub link_target: Vec<u8>,
    /// Extended attributes in the order the file system listed them.
    pub xattrs: Vec<Xattr>,
    /// `st_rdev` of a device node, else 0.
    pub device: u64,
    /// Blobs of a file in order; empty for an empty file, `None` for all but files.
    pub content: Option<Vec<BlobId>>,
    /// Tree of a directory.
    pub subtree: Option<TreeId>,
}

impl Node {
    /// A node of `kind` with all else at its neutral value.
    pub fn new(name: impl Into<Vec<u8>>, kind: NodeKind) -> Self {
        Self {
            name: name.into(),
            kind,
            mode: 0,
            mtime: Time::default(),
            atime: Time::default(),
            ctime: Time::default(),
            uid: 0,
            gid: 0,
            user: String::new(),
            group: String::new(),
            inode: 0,
            device_id: 0,
            size: 0,
            links: 0,
            link_target: Vec::new(),
            xattrs: Vec::new(),
            device: 0,
            content: (kind == NodeKind::File).then(Vec::new),
            subtree: None,
        }
    }

    /// The name as text, with bytes that are not UTF-8 or are control characters escaped; safe to print.
    pub fn display_name(&self) -> String {
        display_path(&self.name)
    }
}

/// True when `name` can be one path component: not empty, `.`, `..`, and without `/` and NUL.
pub fn is_safe_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)
}

/// A path or name as printable text: invalid UTF-8 as `\xNN`, control characters escaped, all else as it is.
pub fn display_path(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_are_unsafe() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b"] {
            assert!(!is_safe_name(bad), "{bad:?}");
        }
        for good in [&b"a"[..], b"...", b"-rf", b"a\nb", b"\xff"] {
            assert!(is_safe_name(good), "{good:?}");
        }
    }

    #[test]
    fn odd_names_print_without_touching_the_terminal() {
        assert_eq!(display_path(b"caf\xc3\xa9\n\xff\x1b[2J"), "café\\n\\xff\\u{1b}[2J");
    }
}
