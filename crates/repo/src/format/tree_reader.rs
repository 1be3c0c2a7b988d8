//! Reading trees, whoever wrote them: any key order and spacing, unknown keys passed over (`generic_attributes` of
//! Windows among them), names unquoted as Go does.
//!
//! A tree comes from a repository that others may have written to, so nothing in it is believed: names that could leave
//! their directory, names twice or out of order, files without content and sizes no file has are damage. Damage within
//! one entry costs that entry alone; the reader goes on behind it as long as the JSON itself holds.

use super::go_quote::unquote;
use super::json_read::JsonReader;
use super::tree::go_mode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lastgood_model::node::{display_path, is_safe_name};
use lastgood_model::{BlobId, Context, Error, ErrorKind, Node, NodeKind, Result, Time, TreeId, Xattr};

/// All entries of a tree, in order; strict as [`TreeReader::strict`] is.
///
/// # Errors
/// The first one that a [`TreeReader`] meets.
pub fn decode_tree(json: &[u8]) -> Result<Vec<Node>> {
    TreeReader::strict(json)?.collect()
}

/// Yields the entries of a tree one by one.
///
/// After an error of [`ErrorKind::Corrupt`] or [`ErrorKind::Unsupported`] about a single entry the next call goes on with
/// the entry behind it; once the JSON itself is broken, nothing follows its error.
#[derive(Debug)]
pub struct TreeReader<'a> {
    json: JsonReader<'a>,
    strict: bool,
    state: State,
    last_name: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Begun,
    Within,
    Done,
}

impl<'a> TreeReader<'a> {
    /// A reader that takes names out of order, names that come twice and directories without a subtree for damage.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when `json` does not begin as a tree.
    pub fn strict(json: &'a [u8]) -> Result<Self> {
        Self::new(json, true)
    }

    /// A reader for salvage: yields entries in whatever order they come, also twice the same name, and directories
    /// without a subtree. The caller must be ready for that.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when `json` does not begin as a tree.
    pub fn lenient(json: &'a [u8]) -> Result<Self> {
        Self::new(json, false)
    }

    fn new(json: &'a [u8], strict: bool) -> Result<Self> {
        let mut json = JsonReader::new(json, "tree")?;
        json.expect(b'{')?;
        let mut first = true;
        while let Some(key) = json.next_key(&mut first)? {
            if key != "nodes" {
                json.skip_value()?;
                continue;
            }
            let mut reader = Self { json, strict, state: State::Begun, last_name: Vec::new() };
            if reader.json.null()? {
                reader.end()?;
            } else {
                reader.json.expect(b'[')?;
            }
            return Ok(reader);
        }
        Err(json.damage("no nodes"))
    }

    /// Reads what follows the list of entries.
    fn end(&mut self) -> Result<()> {
        self.state = State::Done;
        let mut first = false;
        while self.json.next_key(&mut first)?.is_some() {
            self.json.skip_value()?;
        }
        self.json.expect_end()
    }

    fn advance(&mut self) -> Result<Option<Node>> {
        let mut first = self.state == State::Begun;
        // Until an entry has been passed as a whole, any error is the last.
        self.state = State::Done;
        if !self.json.next_item(&mut first)? {
            return self.end().map(|()| None);
        }
        let start = self.json.clone();
        let read = read_node(&mut self.json, self.strict);
        if read.is_err() {
            self.json = start;
            self.json.skip_value()?;
        }
        self.state = State::Within;
        let node = read?;
        if node.name <= self.last_name && self.strict {
            let fact = if node.name == self.last_name { "comes twice" } else { "is out of order" };
            return Err(Error::corrupt(format!("tree entry {:?} {fact}", display_path(&node.name))));
        }
        self.last_name.clear();
        self.last_name.extend_from_slice(&node.name);
        Ok(Some(node))
    }
}

impl Iterator for TreeReader<'_> {
    type Item = Result<Node>;

    fn next(&mut self) -> Option<Result<Node>> {
        if self.state == State::Done {
            return None;
        }
        self.advance().transpose()
    }
}

impl std::iter::FusedIterator for TreeReader<'_> {}

fn read_node(json: &mut JsonReader<'_>, strict: bool) -> Result<Node> {
    let mut node = Node::new("", NodeKind::File);
    let mut kind = None;
    let mut target_raw = None;
    node.content = None;
    json.expect(b'{')?;
    let mut first = true;
    while let Some(key) = json.next_key(&mut first)? {
        match key.as_bytes() {
            b"name" => {
                let quoted = json.string()?;
                let name = unquote(&quoted)
                    .ok_or_else(|| Error::corrupt(format!("tree entry {quoted:?} has a name with broken escapes")))?;
                node.name = name.into_owned();
            }
            b"type" => kind = Some(json.string()?),
            b"mode" => node.mode = unix_mode(json.u32()?),
            b"mtime" => node.mtime = read_time(json)?,
            b"atime" => node.atime = read_time(json)?,
            b"ctime" => node.ctime = read_time(json)?,
            b"uid" => node.uid = json.u32()?,
            b"gid" => node.gid = json.u32()?,
            b"user" => node.user = json.string()?.into_owned(),
            b"group" => node.group = json.string()?.into_owned(),
            b"inode" => node.inode = json.u64()?,
            b"device_id" => node.device_id = json.u64()?,
            b"size" => node.size = json.u64()?,
            b"links" => node.links = json.u64()?,
            b"linktarget" => node.link_target = json.string()?.into_owned().into_bytes(),
            b"linktarget_raw" => target_raw = if json.null()? { None } else { Some(read_base64(json)?) },
            b"extended_attributes" => node.xattrs = read_xattrs(json)?,
            b"device" => node.device = json.u64()?,
            b"content" => node.content = json.ids::<BlobId>()?,
            b"subtree" => node.subtree = if json.null()? { None } else { Some(TreeId(json.id()?)) },
            _ => json.skip_value()?,
        }
    }
    if let Some(raw) = target_raw {
        node.link_target = raw;
    }
    settle(node, kind.as_deref().unwrap_or_default(), strict)
}

/// Judges a node whose fields are all read.
fn settle(mut node: Node, kind: &str, strict: bool) -> Result<Node> {
    let named = |fact: &str| format!("tree entry {:?} {fact}", display_path(&node.name));
    if !is_safe_name(&node.name) {
        return Err(Error::corrupt(named("has a name that is no path component"))
            .with_hint("somebody may have tampered with this repository; nothing was written under that name"));
    }
    let Some(kind) = parse_kind(kind) else {
        return Err(Error::new(ErrorKind::Unsupported, named(&format!("is of an unknown type {kind:?}"))));
    };
    let damage = match kind {
        NodeKind::File if node.content.is_none() => Some("is a file without content"),
        NodeKind::File if i64::try_from(node.size).is_err() => Some("is larger than any file"),
        NodeKind::Dir if node.subtree.is_none() && strict => Some("is a directory without a tree"),
        _ => None,
    };
    if let Some(fact) = damage {
        return Err(Error::corrupt(named(fact)));
    }
    node.kind = kind;
    // Old versions of restic wrote some of these for entries that have no use for them.
    if kind != NodeKind::File {
        node.size = 0;
        node.content = None;
    }
    if kind != NodeKind::Dir {
        node.subtree = None;
    }
    Ok(node)
}

fn parse_kind(word: &str) -> Option<NodeKind> {
    Some(match word {
        "file" => NodeKind::File,
        "dir" => NodeKind::Dir,
        "symlink" => NodeKind::Symlink,
        "dev" => NodeKind::BlockDevice,
        "chardev" => NodeKind::CharDevice,
        "fifo" => NodeKind::Fifo,
        "socket" => NodeKind::Socket,
        _ => return None,
    })
}

/// Unix permission bits of Go's `FileMode`; the type is told by the entry's `type`.
fn unix_mode(go: u32) -> u32 {
    let special = [(0o4000, go_mode::SETUID), (0o2000, go_mode::SETGID), (0o1000, go_mode::STICKY)];
    special.iter().filter(|(_, bit)| go & bit != 0).fold(go & 0o777, |mode, (unix, _)| mode | unix)
}

fn read_time(json: &mut JsonReader<'_>) -> Result<Time> {
    if json.null()? {
        return Ok(Time::default());
    }
    let text = json.string()?;
    Time::parse_rfc3339(&text).ok_or_else(|| json.damage("no RFC 3339 time"))
}

fn read_base64(json: &mut JsonReader<'_>) -> Result<Vec<u8>> {
    let text = json.string()?;
    STANDARD.decode(text.as_bytes()).map_err(|e| json.damage("no base64").with_source(e))
}

fn read_xattrs(json: &mut JsonReader<'_>) -> Result<Vec<Xattr>> {
    let mut xattrs = Vec::new();
    if json.null()? {
        return Ok(xattrs);
    }
    json.expect(b'[').context("decode extended attributes")?;
    let mut first_item = true;
    while json.next_item(&mut first_item)? {
        let mut xattr = Xattr { name: String::new(), value: Vec::new() };
        json.expect(b'{')?;
        let mut first = true;
        while let Some(key) = json.next_key(&mut first)? {
            match &*key {
                "name" => xattr.name = json.string()?.into_owned(),
                "value" => xattr.value = read_base64(json)?,
                _ => json.skip_value()?,
            }
        }
        xattrs.push(xattr);
    }
    Ok(xattrs)
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
