//! `completions`: a script for the user's shell.

use crate::args::{Cli, Completions};
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::run::Run;
use clap::CommandFactory;

pub(super) fn run(run: &Run, args: &Completions) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lastgood", &mut script);
    run.out.bytes(&script)?;
    Ok(ExitCode::Ok)
}
