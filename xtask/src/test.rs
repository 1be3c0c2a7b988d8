//! Every test, with everything they need.

use crate::setup::{self, Tools};
use crate::shell::{self, cargo};
use anyhow::Result;
use std::process::Command;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The slow tests too, which are otherwise left out with a reason.
    #[arg(long)]
    full: bool,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// Installs what is missing, runs the examples in the documentation, then all tests; the runner's summary comes last.
pub(crate) fn run_with(options: &Options, tools: &Tools) -> Result<()> {
    if options.filter.is_none() {
        shell::run(with_tools(&mut cargo(["test", "--workspace", "--doc", "--quiet"]), tools)?)?;
    }
    let mut command = if tools.has_nextest {
        let mut command = cargo(["nextest", "run", "--workspace", "--no-fail-fast"]);
        if options.full {
            command.args(["--run-ignored", "all"]);
        }
        command.args(&options.filter);
        command
    } else {
        let mut command = cargo(["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--tests", "--"]);
        if options.full {
            command.arg("--include-ignored");
        }
        command.args(&options.filter);
        command
    };
    shell::run(with_tools(&mut command, tools)?)
}

/// As [`run_with`], after setting up.
pub(crate) fn run(options: &Options) -> Result<()> {
    let tools = setup::run(&setup::Options::PRESENT)?;
    run_with(options, &tools)
}

/// Tells the tests where the programs of others are.
fn with_tools<'a>(command: &'a mut Command, tools: &Tools) -> Result<&'a mut Command> {
    Ok(command
        .env("LASTGOOD_RESTIC", &tools.restic)
        .env("LASTGOOD_RESTIC_OLD", &tools.restic_old)
        .env("LASTGOOD_RUSTIC", &tools.rustic)
        .env("LASTGOOD_SQLITE3", &tools.sqlite3)
        .env("LASTGOOD_POSTGRES_15", &tools.postgres_15)
        .env("LASTGOOD_POSTGRES_18", &tools.postgres_18)
        .env("LASTGOOD_AZURITE", &tools.azurite)
        .env("LASTGOOD_GARAGE", &tools.garage)
        .env("PATH", setup::search_path()?))
}
