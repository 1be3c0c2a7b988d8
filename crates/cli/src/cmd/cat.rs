//! `cat`: one file of a recovery point, byte for byte.

use crate::args::Cat;
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::run::{Run, path_bytes};
use lastgood_model::Error;
use lastgood_ops::browse::{cat, resolve};

pub(super) fn run(run: &Run, args: &Cat) -> Outcome {
    let (held, snapshot) = run.open_with(&[&args.snapshot])?.one()?;
    let reader = held.repository.reader()?;
    let (_, node) = resolve(&reader, &snapshot, path_bytes(&args.path))?;
    let node = node.ok_or_else(|| {
        Error::invalid("the whole recovery point is not a regular file").with_hint("`lastgood ls` shows what is in it")
    })?;
    let monitor = run.monitor();
    let written = cat(&reader, &node, &monitor, &mut &run.out);
    if run.out.is_closed() {
        return Ok(ExitCode::Ok);
    }
    written?;
    Ok(ExitCode::Ok)
}
