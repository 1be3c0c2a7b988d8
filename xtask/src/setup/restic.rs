//! The newest restic, from Debian's unstable suite. It is linked statically, so it runs on any Linux.

use super::debian::Suite;
use crate::shell::first_line;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Makes `bin/restic`, unless it is there and runs and nobody asked for a newer one.
pub(super) fn install(bin: &Path, refresh: bool) -> Result<PathBuf> {
    let program = bin.join("restic");
    if !refresh && first_line(&program, &["version"]).is_some() {
        return Ok(program);
    }
    eprintln!("fetching the newest restic from Debian sid");
    let suite = Suite::open("sid", bin)
        .context("on another system than Debian install restic 0.17 or newer and set LASTGOOD_RESTIC to it")?;
    let root = suite.unpack(&["restic"])?;
    let fresh = bin.join("restic.new");
    fs_err::copy(root.join("usr/bin/restic"), &fresh)?;
    let version = first_line(&fresh, &["version"]).context("run the fetched restic; it may need a newer C library")?;
    fs_err::rename(&fresh, &program)?;
    eprintln!("installed {version}");
    Ok(program)
}
