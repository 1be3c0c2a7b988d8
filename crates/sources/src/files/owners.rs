//! Names of owners, from `/etc/passwd` and `/etc/group`.
//!
//! These files are read directly, as restic's released programs do. The alternative, the C library's `getpwuid`, knows
//! directory services too, but it may wait for a network in the middle of a backup, needs plugins that a static binary
//! cannot load, and answers differently under glibc and musl. Numeric owners are always kept; an account that only a
//! directory service knows has no name in the snapshot, and a restore then goes by number.

use std::collections::HashMap;

/// Account and group names by number, as they were when a capture began.
#[derive(Debug, Default)]
pub(super) struct Owners {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Owners {
    /// Reads this host's files; one that is missing (a bare container) knows no names.
    pub(super) fn of_this_host() -> Self {
        let read = |path| fs_err::read(path).map(|text| parse(&text)).unwrap_or_default();
        Self { users: read("/etc/passwd"), groups: read("/etc/group") }
    }

    /// The account's name, empty when unknown.
    pub(super) fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_default()
    }

    /// The group's name, empty when unknown.
    pub(super) fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_default()
    }
}

/// Lines of `name:password:number:…`; the first line of a number counts, as in `passwd(5)`. Others are passed over.
fn parse(text: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in text.split(|&b| b == b'\n') {
        let mut fields = line.split(|&b| b == b':');
        let (Some(name), Some(_), Some(number)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (Ok(name), Ok(number)) = (str::from_utf8(name), str::from_utf8(number)) else { continue };
        // `+name` and `-name` lines include a directory service and name nobody.
        if name.is_empty() || name.starts_with(['+', '-', '#']) {
            continue;
        }
        if let Ok(number) = number.parse() {
            names.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_number_counts_and_odd_lines_are_passed_over() {
        let names = parse(
            b"root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:\n#c:x:1:\n+:::\n\n\xff:x:2:\nweb:x:33:33\nbad:x:y:\nlast:x:7:",
        );
        let mut all: Vec<_> = names.into_iter().collect();
        all.sort();
        assert_eq!(all, [(0, "root".to_owned()), (7, "last".to_owned()), (33, "web".to_owned())]);
    }
}
