//! Writing trees: one directory as JSON, byte for byte as restic's own encoder (Go's `encoding/json`) would write it.
//!
//! Exactness matters twice: a tree's id is the hash of these bytes, so equal directories deduplicate against trees that
//! restic wrote, and `restic rewrite` refuses a tree that it would encode otherwise. The field order and the fields left
//! out when empty are those of restic's `Node`. Decisions of our own, such as UTC, are in `docs/format.md`.

use super::go_quote::push_name;
use super::json_write::{push_base64, push_id, push_ids, push_string, push_u64};
use lastgood_model::node::{display_path, is_safe_name};
use lastgood_model::{Error, ErrorKind, Node, NodeKind, Result};

/// A tree's JSON may take so many bytes: lengths in packs have 32 bits, and some room is left for seal and header.
pub const TREE_BYTES_MAX: usize = u32::MAX as usize - (1 << 20);

/// Bits of Go's `FileMode` that we use, from the top: the entry's type and the three special permissions.
pub(super) mod go_mode {
    pub(crate) const DIR: u32 = 1 << 31;
    pub(crate) const SYMLINK: u32 = 1 << 27;
    pub(crate) const DEVICE: u32 = 1 << 26;
    pub(crate) const NAMED_PIPE: u32 = 1 << 25;
    pub(crate) const SOCKET: u32 = 1 << 24;
    pub(crate) const SETUID: u32 = 1 << 23;
    pub(crate) const SETGID: u32 = 1 << 22;
    pub(crate) const CHAR_DEVICE: u32 = 1 << 21;
    pub(crate) const STICKY: u32 = 1 << 20;
}

/// Encodes the entries of one directory, which are pushed in strictly ascending byte order of their names.
#[derive(Debug)]
pub struct TreeEncoder {
    out: Vec<u8>,
    last_name: Vec<u8>,
    count: usize,
}

impl Default for TreeEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl TreeEncoder {
    /// An encoder of an empty directory.
    pub fn new() -> Self {
        Self::with_buffer(Vec::new())
    }

    /// An encoder that writes into `buffer`, whose content is dropped and whose capacity is kept.
    pub fn with_buffer(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.extend_from_slice(br#"{"nodes":["#);
        Self { out: buffer, last_name: Vec::new(), count: 0 }
    }

    /// Adds the next entry. After an error the encoder is as it was before.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a name that is no path component, [`ErrorKind::Unsupported`] beyond
    /// [`TREE_BYTES_MAX`], [`ErrorKind::Bug`] for a name out of order, a file without content, a directory without
    /// subtree, or a mode with other bits than permissions.
    pub fn push(&mut self, node: &Node) -> Result<()> {
        self.check(node)?;
        let before = self.out.len();
        if self.count > 0 {
            self.out.push(b',');
        }
        push_node(&mut self.out, node);
        if self.out.len() > TREE_BYTES_MAX {
            self.out.truncate(before);
            return Err(Error::new(ErrorKind::Unsupported, "a directory with more entries than one tree can hold"));
        }
        self.count += 1;
        self.last_name.clear();
        self.last_name.extend_from_slice(&node.name);
        Ok(())
    }

    fn check(&self, node: &Node) -> Result<()> {
        let name = || display_path(&node.name);
        if !is_safe_name(&node.name) {
            return Err(Error::invalid(format!("{:?} cannot be the name of an entry", name())));
        }
        let broken = if self.count > 0 && node.name <= self.last_name {
            "is out of order"
        } else if node.content.is_some() != (node.kind == NodeKind::File) {
            "has content and is no file, or is a file and has none"
        } else if node.subtree.is_some() != (node.kind == NodeKind::Dir) {
            "has a subtree and is no directory, or is a directory and has none"
        } else if node.mode > 0o7777 {
            "has a mode with more than permissions"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Bug, format!("tree entry {:?} {broken}", name())))
    }

    /// How many entries were pushed.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The tree's JSON, with the newline that restic ends it with.
    pub fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(b"]}\n");
        self.out
    }
}

fn push_node(out: &mut Vec<u8>, node: &Node) {
    out.reserve(512);
    out.extend_from_slice(br#"{"name":""#);
    push_name(out, &node.name);
    out.extend_from_slice(br#"","type":""#);
    out.extend_from_slice(type_word(node.kind).as_bytes());
    out.push(b'"');
    push_nonzero(out, br#","mode":"#, u64::from(file_mode(node)));
    out.extend_from_slice(br#","mtime":""#);
    node.mtime.push_rfc3339(out);
    out.extend_from_slice(br#"","atime":""#);
    node.atime.push_rfc3339(out);
    out.extend_from_slice(br#"","ctime":""#);
    node.ctime.push_rfc3339(out);
    out.extend_from_slice(br#"","uid":"#);
    push_u64(out, u64::from(node.uid));
    out.extend_from_slice(br#","gid":"#);
    push_u64(out, u64::from(node.gid));
    push_nonempty(out, br#","user":"#, node.user.as_bytes());
    push_nonempty(out, br#","group":"#, node.group.as_bytes());
    push_nonzero(out, br#","inode":"#, node.inode);
    push_nonzero(out, br#","device_id":"#, node.device_id);
    push_nonzero(out, br#","size":"#, node.size);
    push_nonzero(out, br#","links":"#, node.links);
    push_nonempty(out, br#","linktarget":"#, &node.link_target);
    if std::str::from_utf8(&node.link_target).is_err() {
        out.extend_from_slice(br#","linktarget_raw":"#);
        push_base64(out, &node.link_target);
    }
    if !node.xattrs.is_empty() {
        out.extend_from_slice(br#","extended_attributes":"#);
        for (i, xattr) in node.xattrs.iter().enumerate() {
            out.extend_from_slice(if i == 0 { br#"[{"name":"# } else { br#",{"name":"# });
            push_string(out, xattr.name.as_bytes());
            out.extend_from_slice(br#","value":"#);
            push_base64(out, &xattr.value);
            out.push(b'}');
        }
        out.push(b']');
    }
    push_nonzero(out, br#","device":"#, node.device);
    out.extend_from_slice(br#","content":"#);
    match &node.content {
        Some(ids) => push_ids(out, ids.iter().map(|id| id.0)),
        None => out.extend_from_slice(b"null"),
    }
    if let Some(tree) = &node.subtree {
        out.extend_from_slice(br#","subtree":"#);
        push_id(out, &tree.0);
    }
    out.push(b'}');
}

fn push_nonzero(out: &mut Vec<u8>, key: &[u8], value: u64) {
    if value != 0 {
        out.extend_from_slice(key);
        push_u64(out, value);
    }
}

fn push_nonempty(out: &mut Vec<u8>, key: &[u8], text: &[u8]) {
    if !text.is_empty() {
        out.extend_from_slice(key);
        push_string(out, text);
    }
}

fn type_word(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Dir => "dir",
        NodeKind::Symlink => "symlink",
        NodeKind::BlockDevice => "dev",
        NodeKind::CharDevice => "chardev",
        NodeKind::Fifo => "fifo",
        NodeKind::Socket => "socket",
    }
}

/// The mode as Go's `FileMode` has it.
fn file_mode(node: &Node) -> u32 {
    let kind = match node.kind {
        NodeKind::File => 0,
        NodeKind::Dir => go_mode::DIR,
        NodeKind::Symlink => go_mode::SYMLINK,
        NodeKind::BlockDevice => go_mode::DEVICE,
        NodeKind::CharDevice => go_mode::DEVICE | go_mode::CHAR_DEVICE,
        NodeKind::Fifo => go_mode::NAMED_PIPE,
        NodeKind::Socket => go_mode::SOCKET,
    };
    let special = [(0o4000, go_mode::SETUID), (0o2000, go_mode::SETGID), (0o1000, go_mode::STICKY)];
    special.iter().filter(|(unix, _)| node.mode & unix != 0).fold(kind | node.mode & 0o777, |mode, (_, go)| mode | go)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgood_model::{BlobId, Id, Time, TreeId, Xattr};

    fn encode(nodes: &[Node]) -> String {
        let mut encoder = TreeEncoder::new();
        for node in nodes {
            encoder.push(node).unwrap();
        }
        String::from_utf8(encoder.finish()).unwrap()
    }

    #[test]
    fn an_empty_directory_is_an_empty_list() {
        assert_eq!(encode(&[]), "{\"nodes\":[]}\n");
    }

    #[test]
    fn fields_come_in_restics_order_and_empty_ones_are_left_out() {
        let mut file = Node::new("a<\"é\u{a0}", NodeKind::File);
        file.mode = 0o7644;
        file.mtime = Time::new(1_700_000_000, 120_000_000);
        file.uid = 1000;
        file.user = "o'neil&co".into();
        file.inode = u64::MAX;
        file.device_id = 64_768;
        file.size = 3;
        file.links = 1;
        file.xattrs = vec![
            Xattr { name: "user.a".into(), value: vec![0, 255] },
            Xattr { name: "user.b".into(), value: Vec::new() },
        ];
        file.content = Some(vec![BlobId(Id([0x0f; 32]))]);
        let mut dir = Node::new("d", NodeKind::Dir);
        dir.mode = 0o1777;
        dir.subtree = Some(TreeId(Id([0xf0; 32])));
        let mut link = Node::new("l", NodeKind::Symlink);
        link.link_target = b"../\xff".to_vec();
        let empty = Node::new("z", NodeKind::File);
        let epoch = r#""mtime":"1970-01-01T00:00:00Z","atime":"1970-01-01T00:00:00Z","ctime":"1970-01-01T00:00:00Z""#;
        let want = [
            r#"{"nodes":[{"name":"a\u003c\\\"é\\u00a0","type":"file","mode":13631908,"#,
            r#""mtime":"2023-11-14T22:13:20.12Z","atime":"1970-01-01T00:00:00Z","ctime":"1970-01-01T00:00:00Z","#,
            r#""uid":1000,"gid":0,"user":"o'neil\u0026co","inode":18446744073709551615,"device_id":64768,"size":3,"links":1,"#,
            r#""extended_attributes":[{"name":"user.a","value":"AP8="},{"name":"user.b","value":""}],"#,
            r#""content":[""#,
            &"0f".repeat(32),
            r#""]},{"name":"d","type":"dir","mode":2148532735,"#,
            epoch,
            r#","uid":0,"gid":0,"content":null,"subtree":""#,
            &"f0".repeat(32),
            r#""},{"name":"l","type":"symlink","mode":134217728,"#,
            epoch,
            r#","uid":0,"gid":0,"linktarget":"../\ufffd","linktarget_raw":"Li4v/w==","content":null},{"name":"z","type":"file","#,
            epoch,
            ",\"uid\":0,\"gid\":0,\"content\":[]}]}\n",
        ];
        assert_eq!(encode(&[file, dir, link, empty]), want.concat());
    }

    #[test]
    fn modes_are_gos() {
        for (kind, unix, go) in [
            (NodeKind::File, 0o644, 0o644),
            (NodeKind::File, 0o4755, 1 << 23 | 0o755),
            (NodeKind::File, 0o2755, 1 << 22 | 0o755),
            (NodeKind::Dir, 0o1777, 1 << 31 | 1 << 20 | 0o777),
            (NodeKind::Symlink, 0o777, 1 << 27 | 0o777),
            (NodeKind::BlockDevice, 0o660, 1 << 26 | 0o660),
            (NodeKind::CharDevice, 0o660, 1 << 26 | 1 << 21 | 0o660),
            (NodeKind::Fifo, 0o600, 1 << 25 | 0o600),
            (NodeKind::Socket, 0o755, 1 << 24 | 0o755),
        ] {
            let mut node = Node::new("x", kind);
            node.mode = unix;
            assert_eq!(file_mode(&node), go, "{kind:?} {unix:o}");
        }
    }

    #[test]
    fn what_no_directory_holds_is_refused_and_changes_nothing() {
        let mut encoder = TreeEncoder::new();
        encoder.push(&Node::new("b", NodeKind::File)).unwrap();
        let mut lost = Node::new("c", NodeKind::File);
        lost.content = None;
        let mut typed = Node::new("c", NodeKind::Fifo);
        typed.mode = 0o100_644;
        let mut twice = Node::new("c", NodeKind::Symlink);
        twice.subtree = Some(TreeId::default());
        for (node, kind) in [
            (Node::new("b", NodeKind::File), ErrorKind::Bug),
            (Node::new("a", NodeKind::File), ErrorKind::Bug),
            (Node::new("c", NodeKind::Dir), ErrorKind::Bug),
            (lost, ErrorKind::Bug),
            (typed, ErrorKind::Bug),
            (twice, ErrorKind::Bug),
            (Node::new("", NodeKind::File), ErrorKind::Invalid),
            (Node::new("..", NodeKind::File), ErrorKind::Invalid),
            (Node::new("c/d", NodeKind::File), ErrorKind::Invalid),
            (Node::new("c\0", NodeKind::File), ErrorKind::Invalid),
        ] {
            assert_eq!(encoder.push(&node).unwrap_err().kind(), kind, "{node:?}");
        }
        encoder.push(&Node::new("b\u{1}", NodeKind::File)).unwrap();
        assert_eq!(encoder.count(), 2);
        let again = TreeEncoder::with_buffer(encoder.finish());
        assert_eq!(again.finish(), b"{\"nodes\":[]}\n");
    }
}
