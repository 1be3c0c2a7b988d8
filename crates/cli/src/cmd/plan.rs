//! Plans of destructive commands: shown first, carried out when somebody says yes.

use crate::output::Out;
use crate::progress;
use lastgood_model::{Context, Error, ErrorKind, Result};
use std::io::{BufRead, IsTerminal};

/// True to go on: because it was said on the command line, or on being asked at a terminal.
///
/// # Errors
/// [`ErrorKind::Conflict`] when nobody said yes.
pub(super) fn confirm(out: &Out, yes: bool, question: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    let refuse = |hint: &str| Err(Error::new(ErrorKind::Conflict, "nothing was changed").with_hint(hint));
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return refuse("look at the plan (--dry-run shows it, too) and say --yes to carry it out");
    }
    out.flush()?;
    progress::write_above(format!("{question} [y/N] ").as_bytes());
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("read the answer")?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        refuse("answer yes to go on")
    }
}
