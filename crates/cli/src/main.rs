//! lastgood on the command line: words, wiring, printing and exit codes.
//!
//! This crate alone prints, exits, and names concrete sources and stores (in `wiring`). A command is a function from its
//! arguments to an exit code or a failure; how failures are told, and with which code the program ends, is decided here.

mod args;
mod cmd;
mod config;
mod errors;
mod exit_code;
mod local;
mod logging;
mod memory;
mod output;
mod progress;
mod protection;
mod run;
mod several;
mod signals;
mod stop;
mod text;
mod usage;
mod wiring;

use args::{Cli, Format};
use clap::Parser;
use clap::error::ErrorKind as Usage;
use errors::Failure;
use exit_code::ExitCode;
use lastgood_model::Error;
use output::Out;
use run::Run;
use std::sync::Arc;
use stop::Stop;

fn main() -> std::process::ExitCode {
    memory::stay_small();
    std::process::ExitCode::from(start().number())
}

fn start() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    logging::start(cli.global.verbose, cli.global.quiet);
    signals::raise_open_files();
    let out = Out::new(cli.global.output, cli.global.quiet);
    let stop = Arc::new(Stop::default());
    if let Err(error) = signals::listen(&stop) {
        tracing::warn!(error = %error.chain(), "signals end the program at once");
    }
    let run = Run::new(cli.global, out, stop);
    let mut outcome = cmd::run(&run, cli.command);
    if let (Ok(_), Err(error)) = (&outcome, run.out.flush()) {
        outcome = Err(Failure::Error(error));
    }
    let code = match outcome {
        Ok(code) => code,
        Err(failure) => {
            let code = failure.exit_code();
            // After a signal nothing more is read: the user wants to be gone.
            let is_asked = !run.stop.is_stopped() && !failure.is_slip();
            let protection = is_asked.then(|| run.protection(&failure)).flatten();
            failure.tell(&run.out, protection.as_ref());
            code
        }
    };
    // What standard output did not take was told before, or nobody reads it.
    let _ = run.out.flush();
    code
}

/// Help and version on standard output, mistakes on standard error; programs get an object as for any other failure.
fn usage(error: &clap::Error) -> ExitCode {
    let wanted = matches!(error.kind(), Usage::DisplayHelp | Usage::DisplayVersion);
    let format = format_asked_for();
    if wanted || format == Format::Human {
        // Nobody may be reading; the exit code still tells.
        let _ = error.print();
    } else {
        let text = error.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let failure = Failure::Error(Error::invalid(message).with_hint("see `lastgood --help`"));
        let out = Out::new(format, true);
        failure.tell(&out, None);
        let _ = out.flush();
    }
    if wanted { ExitCode::Ok } else { ExitCode::Usage }
}

/// The format, from a command line that could not be understood as a whole.
fn format_asked_for() -> Format {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let asked = words.iter().enumerate().find_map(|(i, word)| match word.strip_prefix("--output=") {
        Some(format) => Some(format.to_owned()),
        None if word == "--output" => words.get(i + 1).cloned(),
        None => None,
    });
    match asked.as_deref() {
        Some("json") => Format::Json,
        Some("ndjson") => Format::Ndjson,
        _ => Format::Human,
    }
}
