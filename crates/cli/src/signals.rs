//! The wish to stop: the first SIGINT or SIGTERM asks everyone to end at the next safe moment, the second ends at once.

use crate::exit_code::ExitCode;
use crate::stop::Stop;
use lastgood_model::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::Arc;

/// Begins to listen. The thread lives as long as the program.
pub(crate) fn listen(stop: &Arc<Stop>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("listen for signals")?;
    let stop = stop.clone();
    let work = move || {
        for _ in signals.forever() {
            if stop.stop() {
                // What was begun is left as a crash would leave it; the next run takes it up.
                signal_hook::low_level::exit(i32::from(ExitCode::Interrupted.number()));
            }
            crate::progress::say("stopping at the next safe moment; once more to stop at once");
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(work).context("listen for signals")?;
    Ok(())
}

/// More open files than this help nobody, and some programs that we start look at every number up to the limit.
const OPEN_FILES_MAX: u64 = 65_536;

/// Raises the number of files that may be open, as far as the system allows: a restore keeps many open.
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(OPEN_FILES_MAX);
    if limit.current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
