//! What a folder lies on, asked of the table of mounts: looking at the folder itself could hang.

use std::path::{Path, PathBuf};

/// Kinds of file system whose bytes are elsewhere.
const REMOTE: [&str; 12] =
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "9p", "afs", "ncpfs", "davfs"];
/// The same, of those that are a program's.
const REMOTE_FUSE: [&str; 4] = ["sshfs", "rclone", "glusterfs", "s3fs"];

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted: a device, a server's folder, or a mere word.
    pub source: String,
    /// The kind of file system, such as `ext4`.
    pub kind: String,
}

impl Mount {
    /// The mount that an absolute path without links is below; `None` when the table cannot be read.
    pub fn of(path: &Path) -> Option<Self> {
        Self::by(&fs_err::read_to_string("/proc/self/mountinfo").ok()?, path)
    }

    /// True when the bytes are on another machine. What cannot be told is taken for local.
    pub fn is_remote(&self) -> bool {
        let fuse = self.kind.strip_prefix("fuse.");
        REMOTE.contains(&self.kind.as_str()) || fuse.is_some_and(|kind| REMOTE_FUSE.contains(&kind))
    }

    fn by(table: &str, path: &Path) -> Option<Self> {
        let mounts = table.lines().filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let point = unescape(before.split(' ').nth(4)?);
            path.starts_with(&point).then(|| (point.components().count(), after))
        });
        // Of several mounts on one another the last counts.
        let (_, after) = mounts.max_by_key(|(depth, _)| *depth)?;
        let mut words = after.split(' ');
        let kind = words.next()?.to_owned();
        Some(Self { kind, source: unescape(words.next()?).to_string_lossy().into_owned() })
    }
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
            let mount = Mount::by(table, Path::new(path)).unwrap();
            assert_eq!(mount.is_remote(), want, "{path}: {mount:?}");
        }
        let mount = Mount::by(table, Path::new("/mnt/nas one/backup")).unwrap();
        assert_eq!((mount.source.as_str(), mount.kind.as_str()), ("box:/srv", "nfs4"));
        assert!(!Mount::of(Path::new("/proc")).unwrap().is_remote());
    }
}
