//! rustic, built from the Rust registry: no distribution at hand carries it.

use crate::shell::{self, first_line};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The newest that builds with our compiler. Its dependencies are locked by its own lock file.
const VERSION: &str = "0.11.4";

/// Makes `tools/bin/rustic` of that version. Without default features: the local store, check, backup and restore are
/// all there; what is left out is the terminal interface, WebDAV, metrics and `jq`.
pub(crate) fn install(tools: &Path) -> Result<PathBuf> {
    let program = tools.join("bin/rustic");
    let is_wanted = |program: &Path| first_line(program, &["--version"]).is_some_and(|line| line.ends_with(VERSION));
    if !is_wanted(&program) {
        eprintln!("building rustic {VERSION}, once (about four minutes on two cores)");
        let mut install = quick_install(tools, "rustic-rs", VERSION);
        shell::run(install.arg("--no-default-features"))?;
        is_wanted(&program).then_some(()).context("the built rustic does not run")?;
    }
    Ok(program)
}

/// `cargo install` into `tools` with settings that build fast rather than run fast, and whose leavings are removed.
pub(crate) fn quick_install(tools: &Path, package: &str, version: &str) -> Command {
    let mut command = shell::cargo(["install", package, "--locked", "--force", "--quiet"]);
    command.arg(format!("--version={version}")).arg("--root").arg(tools);
    // Not the workspace: its settings and its target folder are for our own code.
    command.current_dir(std::env::temp_dir()).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    for (key, value) in
        [("OPT_LEVEL", "1"), ("LTO", "off"), ("CODEGEN_UNITS", "16"), ("DEBUG", "0"), ("STRIP", "symbols")]
    {
        command.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
    }
    command
}
