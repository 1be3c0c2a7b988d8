//! Garage, an object store of several machines, built from the Rust registry.

use super::rustic::quick_install;
use crate::shell::{self, first_line};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The newest that builds with our compiler. Its dependencies are locked by its own lock file.
const VERSION: &str = "2.5.0";

/// Makes `tools/bin/garage` of that version, with SQLite for its metadata and without what talks to other systems.
pub(super) fn install(tools: &Path) -> Result<PathBuf> {
    let program = tools.join("bin/garage");
    let is_wanted = || first_line(&program, &["--version"]).is_some_and(|line| line.contains(VERSION));
    if !is_wanted() {
        eprintln!("building Garage {VERSION}, once (about six minutes on two cores)");
        let mut install = quick_install(tools, "garage", VERSION);
        // A test's cluster has little to do: building it takes far longer than running it.
        install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
        shell::run(install.args(["--no-default-features", "--features", "bundled-libs,sqlite"]))?;
        is_wanted().then_some(()).context("the built Garage does not run")?;
    }
    Ok(program)
}
