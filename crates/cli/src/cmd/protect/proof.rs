//! The proof: the recovery point restored to a scratch place, compared, and the scratch removed.

use super::super::backup::Taken;
use super::super::doctor::free_bytes;
use crate::config::Config;
use crate::exit_code::ExitCode;
use crate::progress::Progress;
use crate::run::{Chosen, Run};
use crate::{text, wiring};
use lastgood_model::node::display_path;
use lastgood_model::{Error, ErrorKind, Result, SnapshotId};
use lastgood_ops::drills::{DrillNote, record};
use lastgood_ops::prove::{Phase, ProofReport, prove as prove_point};
use rustix::fs::Access;
use std::os::unix::ffi::OsStrExt;
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
            Self::Done(report) if report.mismatches_total == 0 => ExitCode::Problems,
            Self::Done(_) => ExitCode::Damage,
            Self::NotDone(_) => ExitCode::Problems,
        }
    }
}

/// Proves a recovery point that was just taken.
pub(super) fn prove(
    run: &Run,
    config: &Config,
    chosen: &Chosen,
    taken: &Taken,
    scratch: Option<&Path>,
) -> Result<Proof> {
    let id =
        taken.report.snapshot.ok_or_else(|| Error::new(ErrorKind::Bug, "prove a recovery point that was not made"))?;
    let below = match (scratch, chosen.place.folder().and_then(Path::parent)) {
        (Some(folder), _) => folder.to_owned(),
        (None, Some(parent)) => parent.to_owned(),
        (None, None) => std::env::temp_dir(),
    };
    // A place of our own choosing that cannot be used costs the proof, not the run.
    if scratch.is_none()
        && let Err(error) = require_usable(&below)
    {
        return Ok(Proof::NotDone(format!("{}; choose another place with --scratch DIR", error.chain())));
    }
    let servers = wiring::proof_servers(config);
    // What is restored into a server takes no room here.
    let of_servers: u64 = taken
        .report
        .sources
        .iter()
        .filter(|source| servers.contains_key(&source.name))
        .map(|source| source.bytes)
        .sum();
    if let Some(reason) = too_little_room(&below, taken.report.bytes.saturating_sub(of_servers))? {
        return Ok(Proof::NotDone(reason));
    }
    let snapshot = taken.repository.snapshot(id)?;
    let mut shown: Option<Progress> = None;
    let mut begin = |phase: Phase| {
        shown = None;
        let monitor = run.monitor();
        shown = Some(run.progress(act(phase), &monitor));
        monitor
    };
    let proven = prove_point(&taken.repository, snapshot, &below, &servers, &mut begin);
    drop(shown);
    let report = proven.map_err(|error| interrupted(error, id))?;
    let failures = report.mismatches_total + report.unproven.len() as u64;
    let drill = DrillNote::now(id, report.files, report.databases.len() as u64, failures);
    if let Err(error) = record(&taken.repository, &drill) {
        run.out.note(format!("note: when this was proven could not be written down: {}", error.chain()));
    }
    Ok(Proof::Done(report))
}

/// A phase of the proof, as it is shown.
fn act(phase: Phase) -> &'static str {
    match phase {
        Phase::Restore => "Proving, 1 of 4: restoring",
        Phase::Compare => "Proving, 2 of 4: reading back",
        Phase::Databases => "Proving, 3 of 4: checking databases",
        Phase::Remove => "Proving, 4 of 4: removing what was restored",
    }
}

/// Says what is there although the proof was stopped.
fn interrupted(error: Error, id: SnapshotId) -> Error {
    if error.kind() != ErrorKind::Cancelled {
        return error;
    }
    let left = error.hint().unwrap_or("what was restored for the proof is removed again").to_owned();
    error.with_hint(format!(
        "recovery point {} was taken, only its proof was not finished; {left}. \
         The same command takes another one and proves that",
        id.short()
    ))
}

/// Refuses a folder that a restore could not be made in.
///
/// # Errors
/// [`ErrorKind::Conflict`] when it is no folder, [`ErrorKind::Denied`] when nothing can be made in it.
pub(super) fn require_usable(folder: &Path) -> Result<()> {
    let shown = display_path(folder.as_os_str().as_bytes());
    if !folder.is_dir() {
        return Err(Error::new(ErrorKind::Conflict, format!("{shown} is no folder to restore to for the proof"))
            .with_hint("name a folder that is there, with room for everything, with --scratch DIR"));
    }
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|errno| Error::io(format!("restore to {shown} for the proof"), errno.into()))
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
