//! Packages of the distribution.

use crate::shell;
use anyhow::{Context, Result, bail};
use std::process::Command;

/// Package, and a program of it by which it is recognised where there is no package database.
const PACKAGES: [(&str, &str); 10] = [
    ("restic", "restic"),
    ("sqlite3", "sqlite3"),
    ("zstd", "zstd"),
    ("time", "time"),
    ("acl", "setfacl"),
    ("attr", "setfattr"),
    ("rclone", "rclone"),
    ("openssh-client", "ssh"),
    ("openssh-server", "sshd"),
    ("npm", "npm"),
];

/// Installs the packages that are missing, as root or through sudo, without asking.
pub(crate) fn install_missing() -> Result<()> {
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(_, program)| !is_there(program)).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    eprintln!("packages missing: {list}");
    if shell::which("apt-get").is_none() {
        bail!("no apt-get here; install by other means: {list}");
    }
    let by_hand = format!("by hand: apt-get install {list}");
    let mut install = apt_get()?;
    install.args(["install", "--yes", "--no-install-recommends"]).args(&missing);
    if shell::run(&mut install).is_err() {
        // Package lists that were never fetched, or are too old to point at files that still exist.
        shell::run(apt_get()?.arg("update")).context(by_hand.clone())?;
        shell::run(&mut install).context(by_hand)?;
    }
    Ok(())
}

/// On the search path, or where programs for administrators are.
fn is_there(program: &str) -> bool {
    shell::which(program).is_some() || std::path::Path::new("/usr/sbin").join(program).is_file()
}

/// apt-get that waits for another package manager and never asks.
fn apt_get() -> Result<Command> {
    const QUIET: [&str; 5] = ["-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"];
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("apt-get")
    } else if shell::output(Command::new("sudo").args(["-n", "true"])).is_ok() {
        let mut command = Command::new("sudo");
        command.args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command
    } else {
        bail!("packages are missing, and installing them needs root or a sudo that does not ask for a password");
    };
    command.env("DEBIAN_FRONTEND", "noninteractive").args(QUIET);
    Ok(command)
}
