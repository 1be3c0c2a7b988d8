//! Proof: restore a recovery point to a scratch place with the ordinary restore, look at every byte of it by other
//! means, and remove it again.
//!
//! Each restored file is read back and hashed against the recovery point; where its original has not changed since,
//! also compared with that, byte for byte. Databases are opened: their own integrity check, row counts and digests
//! against the manifest. The repository may be right and the restore wrong, or the other way round: this looks at both.

pub(crate) mod files;
mod server;

pub use server::ProofServer;

use crate::restore::{RestoreRequest, plan};
use crate::restore_server;
use crate::snapshots::{is_loss, manifest};
use files::Comparison;
use lastgood_model::manifest::{Manifest, SourceOutcome, SourceRecord};
use lastgood_model::node::display_path;
use lastgood_model::{Error, ErrorKind, Monitor, Result, SnapshotId};
use lastgood_repo::{Repository, Snapshot};
use lastgood_sources::files::target::{Scratch, remove_left_behind};
use lastgood_sources::sqlite;
use serde::Serialize;
use server::Server;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// What a proof found.
#[derive(Clone, Debug, Serialize)]
pub struct ProofReport {
    /// Always `lastgood.proof`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Version of this layout.
    pub schema: u32,
    /// The recovery point.
    pub snapshot: SnapshotId,
    /// Files whose restored content has the digests of the recovery point.
    pub files: u64,
    /// Of them, also equal to the original as it is now.
    pub files_equal_to_original: u64,
    /// Bytes read back.
    pub bytes: u64,
    /// Databases opened and compared.
    pub databases: Vec<DatabaseProof>,
    /// Sources that could not be restored anywhere, with the reason. Nothing is known against them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unproven: Vec<String>,
    /// Scratch databases that killed proofs had left, and that were taken away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub swept: Vec<String>,
    /// How long the restore took, in milliseconds.
    pub restore_ms: u64,
    /// What is not as it should be, at most a thousand of it.
    pub mismatches: Vec<String>,
    /// How much there was in all.
    pub mismatches_total: u64,
}

/// One database that was opened from the restore.
#[derive(Clone, Debug, Serialize)]
pub struct DatabaseProof {
    /// Its source.
    pub source: String,
    /// Which database of a server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Where it was restored to, when that was a server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored_to: Option<String>,
    /// Tables compared.
    pub tables: u64,
    /// Rows counted.
    pub rows: u64,
}

impl ProofReport {
    /// True when everything was restored and is as it should be.
    pub fn is_proven(&self) -> bool {
        self.mismatches_total == 0 && self.unproven.is_empty()
    }

    fn mismatch(&mut self, text: String) {
        self.mismatches_total += 1;
        self.mismatches.push(text);
    }
}

/// Scratch folders are called so, with the process and a number behind.
const SCRATCH_PREFIX: &str = "lastgood-proof";

/// For so long what was restored is still removed after a stop was asked for. What is left then is named.
const REMOVE_AFTER_STOP: Duration = Duration::from_secs(5);

/// What a proof is doing. Each phase counts from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Removing what proofs that died have left, then restoring to the scratch place.
    Restore,
    /// Reading everything back.
    Compare,
    /// Opening one database after the other; those of servers are restored and compared here.
    Databases,
    /// Removing the scratch place. Only the counter of files tells how far it is.
    Remove,
}

/// Removes scratch folders of processes of this host that are dead: what was restored into them lies there unsealed.
/// What cannot be removed is told and stays.
///
/// # Errors
/// [`ErrorKind::Cancelled`] alone.
pub(crate) fn remove_leftovers(parent: &Path, prefix: &str, monitor: &Monitor) -> Result<()> {
    for name in leftovers(parent, prefix) {
        match remove_left_behind(parent, name.as_bytes(), &mut |_| !monitor.is_cancelled()) {
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => tracing::warn!("a scratch folder of a run that died stays behind: {}", error.chain()),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Names of scratch folders in `parent` whose processes are dead.
fn leftovers(parent: &Path, prefix: &str) -> Vec<OsString> {
    let Ok(entries) = fs_err::read_dir(parent) else { return Vec::new() };
    let is_left = |name: &OsString| {
        let owner = name.to_str().and_then(|n| n.strip_prefix(prefix)?.strip_prefix('-')?.split_once('-'));
        let pid = owner.and_then(|(pid, _)| pid.parse::<i32>().ok()).and_then(rustix::process::Pid::from_raw);
        pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
    };
    entries.flatten().map(|entry| entry.file_name()).filter(is_left).collect()
}

/// The scratch folders in `parent` that killed proofs and restores of this host have left: what was restored into them
/// lies there unsealed.
pub fn left_behind(parent: &Path) -> Vec<PathBuf> {
    let names = [SCRATCH_PREFIX, crate::restore::SCRATCH_PREFIX].map(|prefix| leftovers(parent, prefix));
    names.into_iter().flatten().map(|name| parent.join(name)).collect()
}

/// Restores `snapshot` below `scratch_parent`, compares, and removes the scratch folder, also after a failure. Databases
/// of servers are restored into scratch databases, by what `servers` says of their sources. `begin` is called for each
/// phase and gives the monitor that watches it.
///
/// # Errors
/// When the restore cannot be carried out, or a stop was asked for. A hint says so when what was restored could not be
/// removed in the short time that is left then.
pub fn prove(
    repository: &Arc<Repository>,
    snapshot: Snapshot,
    scratch_parent: &Path,
    servers: &BTreeMap<String, ProofServer>,
    begin: &mut dyn FnMut(Phase) -> Arc<Monitor>,
) -> Result<ProofReport> {
    let monitor = begin(Phase::Restore);
    remove_leftovers(scratch_parent, SCRATCH_PREFIX, &monitor)?;
    let scratch = Scratch::create(scratch_parent, SCRATCH_PREFIX)?;
    let folder = scratch.path().to_owned();
    let places = Places { folder: &folder, parent: scratch_parent, servers };
    let outcome = restore_and_compare(repository, snapshot, &places, &monitor, begin);
    let monitor = begin(Phase::Remove);
    let mut stopped: Option<Instant> = None;
    let removed = scratch.remove_while(&mut |entries| {
        monitor.counters.files.store(entries, Relaxed);
        !monitor.is_cancelled() || stopped.get_or_insert_with(Instant::now).elapsed() < REMOVE_AFTER_STOP
    });
    let stays = |error: Error| {
        error.with_hint(format!(
            "what was restored for the proof stays, unencrypted, in {}; the next proof at that place removes it, or remove it yourself",
            folder.display()
        ))
    };
    match (outcome, removed) {
        // What a stopped restore says of its target is not so any more.
        (Err(error), Ok(_)) if error.kind() == ErrorKind::Cancelled => {
            Err(error.with_hint("what was restored for the proof is removed again"))
        }
        (outcome, Ok(_)) => outcome,
        (Err(error), Err(_)) | (Ok(_), Err(error)) => Err(stays(error)),
    }
}

/// Where things are restored to.
struct Places<'a> {
    /// Files.
    folder: &'a Path,
    /// The folder above it.
    parent: &'a Path,
    /// Databases of servers, by their sources.
    servers: &'a BTreeMap<String, ProofServer>,
}

/// All phases but the last.
fn restore_and_compare(
    repository: &Arc<Repository>,
    snapshot: Snapshot,
    places: &Places<'_>,
    monitor: &Arc<Monitor>,
    begin: &mut dyn FnMut(Phase) -> Arc<Monitor>,
) -> Result<ProofReport> {
    let id = snapshot.id;
    let folder = places.folder;
    let reader = repository.reader()?;
    let (manifest, damage) = match manifest(&reader, &snapshot) {
        Ok(manifest) => (manifest, None),
        Err(error) => (None, Some(error.chain())),
    };
    let is_there = |source: &&SourceRecord| !matches!(source.outcome, SourceOutcome::Failed { .. });
    let there: Vec<&SourceRecord> = manifest.iter().flat_map(|m| &m.sources).filter(is_there).collect();
    let of_servers: Vec<&SourceRecord> = there.iter().copied().filter(|s| s.kind == restore_server::KIND).collect();
    let began = Instant::now();
    // Those of servers are not needed as files beside: what is read for their restore is digested on its way.
    let mut request = RestoreRequest::all_to(folder);
    if !of_servers.is_empty() {
        let others = there.iter().filter(|source| source.kind != restore_server::KIND);
        request.sources = others.map(|source| source.name.clone()).collect();
    }
    let restored = if request.sources.is_empty() && !of_servers.is_empty() {
        None
    } else {
        let plan = plan(repository, snapshot.clone(), request, monitor)?;
        let bytes = plan.summary.bytes;
        Some((plan.execute(monitor)?, bytes))
    };
    let (failures, failures_total, bytes) = match restored {
        Some((restored, bytes)) => (restored.failures, restored.failures_total, bytes),
        None => (Vec::new(), 0, 0),
    };
    let restore_time = began.elapsed();
    let mut report = ProofReport {
        kind: "lastgood.proof",
        schema: 1,
        snapshot: id,
        files: 0,
        files_equal_to_original: 0,
        bytes: 0,
        databases: Vec::new(),
        restore_ms: millis(restore_time),
        mismatches: failures.iter().map(|f| format!("{}: {}", f.path, f.error)).collect(),
        mismatches_total: failures_total,
        unproven: Vec::new(),
        swept: Vec::new(),
    };
    if let Some(damage) = damage {
        report.mismatch(damage);
    }
    let monitor = begin(Phase::Compare);
    monitor.counters.bytes_expected.store(bytes, Relaxed);
    compare_all(&reader, &snapshot, manifest.as_ref(), folder, &monitor, &mut report)?;
    let databases: Vec<&SourceRecord> = there.iter().copied().filter(|source| source.kind == "sqlite").collect();
    if databases.is_empty() && of_servers.is_empty() {
        return Ok(report);
    }
    let monitor = begin(Phase::Databases);
    monitor.counters.bytes_expected.store(databases.iter().map(|source| source.bytes).sum(), Relaxed);
    for record in of_servers {
        let server = Server {
            reader: &reader,
            snapshot: &snapshot,
            record,
            server: places.servers.get(&record.name),
            scratch_parent: places.parent,
            scratch_prefix: SCRATCH_PREFIX,
            monitor: &monitor,
        };
        server.prove(&mut report)?;
    }
    for source in databases {
        match database_file(folder, source) {
            Some(path) => open_database(source, &path, &monitor, &mut report)?,
            None => report.mismatch(format!("{}: no database was restored", source.name)),
        }
        monitor.counters.bytes.fetch_add(source.bytes, Relaxed);
    }
    Ok(report)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn compare_all(
    reader: &lastgood_repo::BlobReader,
    snapshot: &Snapshot,
    manifest: Option<&Manifest>,
    folder: &Path,
    monitor: &Monitor,
    report: &mut ProofReport,
) -> Result<()> {
    let is_of_kind = |path: &[u8], kind: &str| {
        let name = path.split(|b| *b == b'/').next().unwrap_or_default();
        manifest.and_then(|m| m.sources.iter().find(|s| s.name.as_bytes() == name)).is_some_and(|s| s.kind == kind)
    };
    let is_files = |path: &[u8]| is_of_kind(path, "files");
    let is_of_server = |path: &[u8]| is_of_kind(path, restore_server::KIND);
    let mut comparison = Comparison::new(reader, folder, monitor)?;
    // A directory that cannot be read is among the failures of the restore already.
    let pass = |_: &[u8], error: Error| if is_loss(&error) { Ok(()) } else { Err(error) };
    crate::browse::walk_past(reader, snapshot.file.tree, b"", monitor, pass, |walked| {
        if walked.path == Manifest::FOLDER.as_bytes() || is_of_server(walked.path) {
            return Ok(crate::browse::Descend::No);
        }
        let original = is_files(walked.path).then(|| {
            let slash = walked.path.iter().position(|b| *b == b'/').unwrap_or(walked.path.len());
            PathBuf::from(std::ffi::OsStr::from_bytes(
                &[b"/", &walked.path[(slash + 1).min(walked.path.len())..]].concat(),
            ))
        });
        comparison.add(walked.path, original, walked.node.clone())?;
        Ok(crate::browse::Descend::Yes)
    })?;
    comparison.finish()?.add_to(report);
    Ok(())
}

/// The one file of a database source in the restored folder. (Its original path in the manifest is for people, and need
/// not spell its name.)
fn database_file(folder: &Path, source: &SourceRecord) -> Option<PathBuf> {
    let mut files = fs_err::read_dir(folder.join(&source.name)).ok()?.flatten();
    let only = files.next()?;
    (files.next().is_none() && only.file_type().ok()?.is_file()).then(|| only.path())
}

fn open_database(source: &SourceRecord, path: &Path, monitor: &Monitor, report: &mut ProofReport) -> Result<()> {
    let facts = sqlite::Facts::from_map(&source.facts)?;
    match sqlite::verify_file_until(path, &facts, &|| monitor.is_cancelled()) {
        Ok(verified) => {
            report.databases.push(DatabaseProof {
                source: source.name.clone(),
                database: None,
                restored_to: None,
                tables: facts.rows.len() as u64,
                rows: facts.rows_total(),
            });
            if !verified.is_ok() {
                report.mismatch(format!("{}: {}", source.name, verified.summary()));
            }
        }
        Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
        Err(error) => report.mismatch(format!("{}: {}", source.name, error.chain())),
    }
    Ok(())
}

/// A mismatch as an error, for callers that only want yes or no.
pub fn require(report: &ProofReport) -> Result<()> {
    match report.mismatches.first() {
        None => Ok(()),
        Some(first) => Err(Error::corrupt(format!(
            "recovery point {} does not restore as it should: {first} ({} findings in all)",
            report.snapshot.short(),
            report.mismatches_total
        ))),
    }
}

fn printable(path: &Path) -> String {
    display_path(path.as_os_str().as_bytes())
}
