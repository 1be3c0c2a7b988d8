//! Entries of recovery points, as lines and as objects.

use crate::output::{json, object};
use crate::text;
use lastgood_model::node::display_path;
use lastgood_model::{Node, NodeKind};
use serde_json::{Map, Value};

/// The kind in a word.
pub(super) fn kind(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Dir => "dir",
        NodeKind::Symlink => "symlink",
        NodeKind::BlockDevice => "block-device",
        NodeKind::CharDevice => "char-device",
        NodeKind::Fifo => "fifo",
        NodeKind::Socket => "socket",
    }
}

/// As an object. A path that is not text is given escaped, with its bytes beside it.
pub(super) fn fields(path: &[u8], node: &Node) -> Map<String, Value> {
    let mut fields = object([
        ("path", display_path(path).into()),
        ("kind", kind(node.kind).into()),
        ("mode", format!("{:04o}", node.mode).into()),
        ("uid", node.uid.into()),
        ("gid", node.gid.into()),
        ("user", node.user.as_str().into()),
        ("group", node.group.as_str().into()),
        ("size", node.size.into()),
        ("mtime", json(&node.mtime)),
    ]);
    if std::str::from_utf8(path).is_err() {
        fields.insert("path_bytes".into(), path.into());
    }
    if node.kind == NodeKind::Symlink {
        fields.insert("target".into(), display_path(&node.link_target).into());
    }
    if node.links > 1 {
        fields.insert("links".into(), node.links.into());
    }
    fields
}

/// As a line: the path alone, directories with a slash at the end.
pub(super) fn short(path: &[u8], node: &Node) -> String {
    let slash = if node.kind == NodeKind::Dir { "/" } else { "" };
    format!("{}{slash}", display_path(path))
}

/// As a line like that of `ls -l`.
pub(super) fn long(path: &[u8], node: &Node) -> String {
    let owner = if node.user.is_empty() { node.uid.to_string() } else { display_path(node.user.as_bytes()) };
    let group = if node.group.is_empty() { node.gid.to_string() } else { display_path(node.group.as_bytes()) };
    let target = match node.kind {
        NodeKind::Symlink => format!(" -> {}", display_path(&node.link_target)),
        _ => String::new(),
    };
    format!(
        "{} {owner:<8} {group:<8} {:>12} {} {}{target}",
        mode(node),
        text::count(node.size),
        text::moment(node.mtime),
        short(path, node)
    )
}

fn mode(node: &Node) -> String {
    let first = match node.kind {
        NodeKind::File => '-',
        NodeKind::Dir => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::BlockDevice => 'b',
        NodeKind::CharDevice => 'c',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
    };
    let mut out = String::from(first);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = node.mode >> shift;
        out.push(if bits & 4 != 0 { 'r' } else { '-' });
        out.push(if bits & 2 != 0 { 'w' } else { '-' });
        out.push(match (node.mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_in_ls() {
        for (bits, kind, text) in [
            (0o755, NodeKind::Dir, "drwxr-xr-x"),
            (0o4755, NodeKind::File, "-rwsr-xr-x"),
            (0o2644, NodeKind::File, "-rw-r-Sr--"),
            (0o1777, NodeKind::Dir, "drwxrwxrwt"),
            (0, NodeKind::Fifo, "p---------"),
        ] {
            let mut node = Node::new("x", kind);
            node.mode = bits;
            assert_eq!(mode(&node), text);
        }
    }

    #[test]
    fn a_name_that_is_not_text_is_kept_beside_its_escaped_form() {
        let fields = fields(b"a/\xff", &Node::new("x", NodeKind::File));
        assert_eq!(fields["path"], "a/\\xff");
        assert_eq!(fields["path_bytes"], serde_json::json!([97, 47, 255]));
    }
}
