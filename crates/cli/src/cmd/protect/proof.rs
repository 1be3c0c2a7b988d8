//! The proof: the recovery point restored to a scratch place, compared, and the scratch removed.

use super::super::backup::Taken;
use super::super::doctor::free_bytes;
use crate::exit_code::ExitCode;
use crate::run::{Chosen, Run};
use crate::text;
use lastgood_model::{Error, ErrorKind, Result};
use lastgood_ops::prove::{ProofReport, prove as prove_point};
use std::path::Path;

/// What came of the proof.
pub(super) enum Proof {
    /// It was carried out.
    Done(ProofReport),
    /// It could not be carried out; the reason in words.
    NotDone(String),
}

impl Proof {
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Done(report) if report.is_proven() => ExitCode::Ok,
            Self::Done(_) => ExitCode::Damage,
            Self::NotDone(_) => ExitCode::Problems,
        }
    }
}

/// Proves a recovery point that was just taken.
pub(super) fn prove(run: &Run, chosen: &Chosen, taken: &Taken, scratch: Option<&Path>) -> Result<Proof> {
    let id =
        taken.report.snapshot.ok_or_else(|| Error::new(ErrorKind::Bug, "prove a recovery point that was not made"))?;
    let below = match (scratch, chosen.place.folder().and_then(Path::parent)) {
        (Some(folder), _) => folder.to_owned(),
        (None, Some(parent)) => parent.to_owned(),
        (None, None) => std::env::temp_dir(),
    };
    if let Some(reason) = too_little_room(&below, taken.report.bytes)? {
        return Ok(Proof::NotDone(reason));
    }
    let snapshot = taken.repository.snapshot(id)?;
    let monitor = run.monitor();
    let _progress = run.progress("Proving by a restore", &monitor);
    Ok(Proof::Done(prove_point(&taken.repository, snapshot, &below, &monitor)?))
}

/// Why there is no room for `bytes` at a place; `None` when there is.
fn too_little_room(below: &Path, bytes: u64) -> Result<Option<String>> {
    // Metadata and rounding up to whole blocks take a little, too.
    let needed = bytes.saturating_add(bytes / 20).saturating_add(16 << 20);
    let free = free_bytes(below)?;
    Ok((free < needed).then(|| {
        format!(
            "a restore needs {} at {}, where only {} are free; choose a larger place with --scratch DIR",
            text::size(needed),
            below.display(),
            text::size(free)
        )
    }))
}
