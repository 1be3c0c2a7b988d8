//! Whether a folder lies on another machine, asked of the table of mounts: looking at the folder itself could hang.

use std::path::{Path, PathBuf};

/// Kinds of file system whose bytes are elsewhere.
const REMOTE: [&str; 12] =
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "9p", "afs", "ncpfs", "davfs"];

/// True when the mount that an absolute path is below is of another machine. What cannot be told is taken for local.
pub(crate) fn is_remote(path: &Path) -> bool {
    fs_err::read_to_string("/proc/self/mountinfo").is_ok_and(|table| is_remote_by(&table, path))
}

fn is_remote_by(table: &str, path: &Path) -> bool {
    // Of several mounts on one another the last counts.
    let mounts = table.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = unescape(before.split(' ').nth(4)?);
        path.starts_with(&point).then(|| (point.components().count(), after.split(' ').next().unwrap_or_default()))
    });
    let kind = mounts.max_by_key(|(depth, _)| *depth).map_or("", |(_, kind)| kind);
    REMOTE.contains(&kind)
        || (kind.starts_with("fuse.")
            && ["sshfs", "rclone", "glusterfs", "s3fs"].iter().any(|name| kind.ends_with(name)))
}

/// Spaces and the like stand as octal numbers.
fn unescape(text: &str) -> PathBuf {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(plain.iter().fold(text.to_owned(), |text, (code, letter)| text.replace(code, letter)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_above_a_folder_tells() {
        let table = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 22 0:40 / /mnt/nas\\040one rw shared:1 - nfs4 box:/srv rw\n\
            31 30 8:2 / /mnt/nas\\040one/disk rw - xfs /dev/sdb rw\n\
            32 22 0:41 / /mnt/ssh rw - fuse.sshfs u@h: rw\n\
            33 22 0:42 / /mnt/auto rw - autofs auto rw\n\
            34 33 0:43 / /mnt/auto rw - cifs //h/x rw\n";
        for (path, want) in [
            ("/", false),
            ("/srv/backup", false),
            ("/mnt/nas one/backup", true),
            ("/mnt/nas one", true),
            ("/mnt/nas", false),
            ("/mnt/nas one/disk/backup", false),
            ("/mnt/ssh/x", true),
            ("/mnt/auto/x", true),
        ] {
            assert_eq!(is_remote_by(table, Path::new(path)), want, "{path}");
        }
        assert!(!is_remote(Path::new("/proc")));
    }
}
