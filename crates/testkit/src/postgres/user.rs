//! Whose the server's processes and files are: PostgreSQL does not run as root, so when tests do, another user is
//! taken.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// User and group id for servers; `None` when we are not root and servers run as ourselves.
pub(super) fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs_err::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = ["postgres", "nobody"].iter().find_map(|name| ids_of(&users, name));
    Some(ids.unwrap_or((65534, 65534)))
}

fn ids_of(users: &str, name: &str) -> Option<(u32, u32)> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2).map(|field| field.parse().ok());
    Some((fields.next()??, fields.next()??))
}

/// A program run as that user.
pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = unprivileged() {
        command.uid(uid).gid(gid);
    }
    // Not a folder that this user may not enter, and nothing of the tester's own settings.
    command.current_dir("/");
    super::connect::without_settings(&mut command);
    command
}

/// A new temporary folder of that user in `parent`. Nobody removes it but the guardian or the server's value.
#[track_caller]
pub(super) fn temp_folder(parent: &Path) -> PathBuf {
    let folder = tempfile::Builder::new().prefix("lastgood-pg-").tempdir_in(parent).unwrap().keep();
    give(&folder);
    folder
}

/// A folder of that user, made unless it is there.
#[track_caller]
pub(super) fn make_folder(path: &Path) {
    fs_err::create_dir_all(path).unwrap();
    give(path);
    // Others connect through a socket in it.
    fs_err::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Makes that user the owner.
#[track_caller]
pub(super) fn give(path: &Path) {
    if let Some((uid, gid)) = unprivileged() {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_named_user() {
        let users = "root:x:0:0:root:/root:/bin/sh\nnot-postgres:x:1:1::/:/x\npostgres:x:106:112:,,,:/var:/bin/sh\n";
        assert_eq!(ids_of(users, "postgres"), Some((106, 112)));
        assert_eq!(ids_of(users, "nobody"), None);
    }
}
