//! Azurite, the emulator of Azure Blob Storage, from the registry of Node's packages.

use crate::shell::{self, first_line};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The newest that runs on the Node of Debian's releases; later ones want a younger.
const VERSION: &str = "3.35.0";

/// Makes `tools/azurite` of that version and gives its server of blobs.
pub(super) fn install(tools: &Path) -> Result<PathBuf> {
    let folder = tools.join("azurite");
    let program = folder.join("node_modules/.bin/azurite-blob");
    let is_wanted = || first_line(&program, &["--version"]).is_some_and(|line| line == VERSION);
    if !is_wanted() {
        eprintln!("fetching Azurite {VERSION} (about 190 MB unpacked)");
        fs_err::create_dir_all(&folder)?;
        let mut install = Command::new("npm");
        install.arg("install").arg("--prefix").arg(&folder);
        // Scripts of packages are not run: nothing that the server of blobs needs is built by one.
        install.args(["--no-audit", "--no-fund", "--ignore-scripts", "--omit=dev", "--no-save", "--loglevel=error"]);
        shell::run(install.arg(format!("azurite@{VERSION}")).current_dir(&folder))?;
        is_wanted().then_some(()).context("the installed Azurite does not run")?;
    }
    Ok(program)
}
