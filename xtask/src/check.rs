//! What can be said about the code without running it.

use crate::shell::{cargo, run as sh};
use crate::{layers, tidy};
use anyhow::Result;

/// All checks; the first that fails ends it.
pub(crate) fn run() -> Result<()> {
    layers::check()?;
    tidy::check()?;
    sh(&mut cargo(["fmt", "--all", "--check"]))?;
    sh(&mut cargo(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    sh(cargo(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    println!("all checks passed");
    Ok(())
}
