//! Whom a restored entry belongs to.

use super::OwnerPolicy;
use lastgood_model::Node;
use std::collections::HashMap;
use std::sync::OnceLock;

/// Answers the owner policy; the account files are read once, when the first name is looked up.
#[derive(Debug)]
pub(super) struct Owners {
    policy: OwnerPolicy,
    accounts: OnceLock<Accounts>,
}

#[derive(Debug)]
struct Accounts {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Owners {
    pub(super) fn new(policy: OwnerPolicy) -> Self {
        Self { policy, accounts: OnceLock::new() }
    }

    /// User and group an entry should get, `None` when owners are left alone.
    pub(super) fn wanted(&self, node: &Node) -> Option<(u32, u32)> {
        match self.policy {
            OwnerPolicy::Skip => None,
            OwnerPolicy::Numeric => Some((node.uid, node.gid)),
            OwnerPolicy::ByName => {
                let accounts = self.accounts.get_or_init(Accounts::of_this_host);
                let uid = accounts.users.get(&node.user).copied().unwrap_or(node.uid);
                let gid = accounts.groups.get(&node.group).copied().unwrap_or(node.gid);
                Some((uid, gid))
            }
        }
    }
}

impl Accounts {
    /// The local account files. Names that only a directory service knows keep their numbers, which on hosts sharing
    /// that service are the same.
    fn of_this_host() -> Self {
        let read = |path| fs_err::read(path).map(|bytes| table(&bytes)).unwrap_or_default();
        Self { users: read("/etc/passwd"), groups: read("/etc/group") }
    }
}

/// Name and number of every `name:password:number:…` line (passwd(5), group(5)); the first of equal names counts, as
/// for the C library. Lines that do not fit are passed over.
fn table(bytes: &[u8]) -> HashMap<String, u32> {
    let mut table = HashMap::new();
    for line in String::from_utf8_lossy(bytes).lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(number)) = (fields.next(), fields.nth(1)) else { continue };
        if let (false, Ok(number)) = (name.is_empty(), number.parse()) {
            table.entry(name.to_owned()).or_insert(number);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgood_model::NodeKind;

    #[test]
    fn the_first_of_equal_names_counts_and_broken_lines_do_not() {
        let table =
            table(b"root:x:0:0:r:/root:/bin/sh\nweb:x:33:33\nweb:x:34\n:x:5\nbroken\nnoid:x:many:\n\xff:x:7:\n");
        assert_eq!(table.get("root"), Some(&0));
        assert_eq!(table.get("web"), Some(&33));
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn known_names_win_over_numbers_and_unknown_names_keep_them() {
        let mut node = Node::new("a", NodeKind::File);
        (node.uid, node.gid) = (4711, 4712);
        node.user = "root".into();
        node.group = "no such group here".into();
        assert_eq!(Owners::new(OwnerPolicy::ByName).wanted(&node), Some((0, 4712)));
        assert_eq!(Owners::new(OwnerPolicy::Numeric).wanted(&node), Some((4711, 4712)));
        assert_eq!(Owners::new(OwnerPolicy::Skip).wanted(&node), None);
    }
}
