//! A disk that fills up: a small file system in memory, which only root can make.

use crate::shell;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether it can be made here.
pub(super) fn can_be_made() -> bool {
    rustix::process::geteuid().is_root() && shell::which("mount").is_some() && shell::which("umount").is_some()
}

/// A disk. It is gone with the value.
pub(super) struct Disk(PathBuf);

impl Disk {
    /// A new one with room for so many bytes.
    pub(super) fn new(folder: &Path, bytes: u64) -> Result<Self> {
        fs_err::create_dir_all(folder)?;
        let size = format!("size={bytes}");
        shell::output(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "lastgood-proof"]).arg(folder))?;
        Ok(Self(folder.to_owned()))
    }

    /// Gives it more room.
    pub(super) fn grow(&self, bytes: u64) -> Result<()> {
        let size = format!("remount,size={bytes}");
        shell::output(Command::new("mount").args(["-o", &size]).arg(&self.0)).map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = shell::output(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}
