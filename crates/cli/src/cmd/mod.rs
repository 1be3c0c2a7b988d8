//! The commands: one file each, from arguments to a result and an exit code.

mod backup;
mod cat;
mod check;
mod completions;
mod config;
mod copy;
mod diff;
mod doctor;
mod each;
mod entry;
mod find;
mod findings;
mod forget;
mod hold;
mod init;
mod key;
mod leftovers;
mod ls;
mod plan;
mod protect;
mod prune;
mod removed;
mod repair;
mod report;
mod restore;
mod restore_server;
mod room;
mod snapshots;
mod spread;
mod status;
mod verify;

use crate::args::Command;
use crate::errors::Outcome;
use crate::run::Run;

/// Does what was asked.
pub(crate) fn run(run: &Run, command: Command) -> Outcome {
    match command {
        Command::Protect(args) => protect::run(run, &args),
        Command::Init(args) => init::run(run, &args),
        Command::Backup(args) => backup::run(run, &args),
        Command::Restore(args) => restore::run(run, &args),
        Command::Copy(args) => copy::run(run, &args),
        Command::Snapshots(args) => snapshots::run(run, &args),
        Command::Ls(args) => ls::run(run, &args),
        Command::Cat(args) => cat::run(run, &args),
        Command::Find(args) => find::run(run, &args),
        Command::Diff(args) => diff::run(run, &args),
        Command::Check(_) => check::run(run),
        Command::Verify(args) => verify::run(run, &args),
        Command::Forget(args) => forget::run(run, &args),
        Command::Hold(command) => hold::run(run, command),
        Command::Status => status::run(run),
        Command::Prune(args) => prune::run(run, &args),
        Command::Repair(command) => repair::run(run, &command),
        Command::Key(command) => key::run(run, command),
        Command::Config(command) => config::run(run, &command),
        Command::Doctor(args) => doctor::run(run, &args),
        Command::Completions(args) => completions::run(run, &args),
    }
}
