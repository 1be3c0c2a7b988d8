//! A node from one `stat`, with the numbers restic puts there.

use lastgood_model::{Node, NodeKind, Time};
use rustix::fs::{FileType, Stat};

/// The kind of entry a mode word stands for; `None` for what no snapshot can hold.
pub(super) fn kind_of(stat: &Stat) -> Option<NodeKind> {
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Dir,
        FileType::Symlink => NodeKind::Symlink,
        FileType::BlockDevice => NodeKind::BlockDevice,
        FileType::CharacterDevice => NodeKind::CharDevice,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::Unknown => return None,
    })
}

/// A node named `name` with everything `stat` tells; `None` for a kind that cannot be kept.
pub(super) fn node_of(name: &[u8], stat: &Stat) -> Option<Node> {
    let mut node = Node::new(name, kind_of(stat)?);
    fill(&mut node, stat);
    Some(node)
}

/// Takes over into `node`, whose kind stays, everything `stat` tells. The access time is set to the modification time:
/// real ones would make every snapshot of an unchanged tree differ.
pub(super) fn fill(node: &mut Node, stat: &Stat) {
    use NodeKind::{BlockDevice, CharDevice, File, Symlink};
    node.mode = stat.st_mode & 0o7777;
    node.mtime = mtime(stat);
    node.atime = node.mtime;
    node.ctime = ctime(stat);
    node.uid = stat.st_uid;
    node.gid = stat.st_gid;
    node.inode = stat.st_ino;
    node.device_id = stat.st_dev;
    node.size = if node.kind == File { size(stat) } else { 0 };
    node.links = if matches!(node.kind, File | Symlink | BlockDevice | CharDevice) { links(stat) } else { 0 };
    node.device = if matches!(node.kind, BlockDevice | CharDevice) { stat.st_rdev } else { 0 };
}

/// Length in bytes. The kernel's type is signed; lengths never are.
pub(super) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Hard links; the field's width differs between architectures.
#[expect(clippy::unnecessary_cast, reason = "32 bits wide on some architectures")]
pub(super) fn links(stat: &Stat) -> u64 {
    stat.st_nlink as u64
}

/// Last modification of the content.
#[expect(clippy::unnecessary_cast, reason = "32 bits wide on some architectures")]
pub(super) fn mtime(stat: &Stat) -> Time {
    Time::new(stat.st_mtime as i64, stat.st_mtime_nsec as u32)
}

/// Last change of the inode.
#[expect(clippy::unnecessary_cast, reason = "32 bits wide on some architectures")]
pub(super) fn ctime(stat: &Stat) -> Time {
    Time::new(stat.st_ctime as i64, stat.st_ctime_nsec as u32)
}
