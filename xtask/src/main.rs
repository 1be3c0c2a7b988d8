//! The project's automation: what tests need, the tests, the checks, the measurements and the long proofs.
//!
//! Run as `cargo xtask <command>`. Nothing here is shipped, and nothing here asks a question.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for developers that says what it does")]

mod bench;
mod check;
mod demo;
mod helper;
mod layers;
mod program;
mod proof;
mod setup;
mod shell;
mod test;
mod tidy;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's automation", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what tests and measurements need: packages, restic, rustic, PostgreSQL, the test runner.
    Setup(setup::Options),
    /// Install what is missing, then run every test.
    Test(test::Options),
    /// Formatting, lints, documentation, layers, tidiness.
    Check,
    /// Protect a real database and folder while they are in use, and prove it.
    Demo(demo::Options),
    /// Measure lastgood beside restic and the limits.
    Bench(bench::Options),
    /// Long proofs with the real program.
    #[command(subcommand)]
    Proof(proof::Proof),
    /// A server or a line beside a measurement, until its input ends.
    #[command(subcommand, hide = true)]
    Helper(helper::Helper),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(options) => setup::run(&options).map(drop),
        Command::Test(options) => test::run(&options),
        Command::Check => check::run(),
        Command::Demo(options) => demo::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Proof(proof) => proof::run(&proof),
        Command::Helper(helper) => helper::run(&helper),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
