//! The proof of a PostgreSQL source: each of its databases restored with the ordinary restore into a scratch database,
//! compared there by reading all of it again, and taken away.
//!
//! The scratch database is made on the source's own server; where that takes none, on a server of our own, made for a
//! moment from the programs that are installed. What only shows that no such place is to be had, or that it cannot hold
//! this database, is no finding against the recovery point: it is told as a reason why nothing was proven.

use super::{DatabaseProof, ProofReport};
use crate::restore_server::open_source;
use crate::saved::SourceFolder;
use lastgood_model::manifest::SourceRecord;
use lastgood_model::node::display_path;
use lastgood_model::{Context, Error, ErrorKind, Monitor, Result};
use lastgood_repo::{BlobReader, Snapshot};
use lastgood_sources::files::target::Scratch;
use lastgood_sources::postgres::conninfo::Conninfo;
use lastgood_sources::postgres::restore::{self, RestoreOptions, VerifyOptions, verify};
use lastgood_sources::postgres::tools::Tools;
use lastgood_sources::postgres::{Facts, ScratchDatabase, Throwaway};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What makes PostgreSQL report wrong places for its programs: told once for all.
const NO_SERVER: &str =
    "let the role create databases (ALTER ROLE … CREATEDB), or install PostgreSQL's server programs";

/// Where the databases of one source can be restored to for the proof.
#[derive(Clone, Debug)]
pub struct ProofServer {
    /// The source's own server.
    pub conninfo: Conninfo,
    /// The folder of PostgreSQL's programs; searched for when not given.
    pub bin: Option<PathBuf>,
}

/// One source being proven.
pub(super) struct Server<'a> {
    pub(super) reader: &'a Arc<BlobReader>,
    pub(super) snapshot: &'a Snapshot,
    pub(super) record: &'a SourceRecord,
    /// `None` when it is not known how to reach it.
    pub(super) server: Option<&'a ProofServer>,
    /// A server of our own is made below this.
    pub(super) scratch_parent: &'a Path,
    pub(super) scratch_prefix: &'a str,
    pub(super) monitor: &'a Arc<Monitor>,
}

impl Server<'_> {
    /// Proves all databases; what came of it goes into the report.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`], or that a scratch database could not be taken away.
    pub(super) fn prove(&self, report: &mut ProofReport) -> Result<()> {
        let source = &self.record.name;
        let folder = match open_source(self.reader, self.snapshot, source, self.monitor) {
            Ok(folder) => folder,
            Err(error) => {
                report.mismatch(format!("{source}: {}", error.chain()));
                return Ok(());
            }
        };
        let facts = Facts::from_map(&self.record.facts)?;
        for name in restore::databases(&folder)? {
            if facts.pg_dump_version_num.is_none() {
                report.unproven.push(format!(
                    "{source}: database {name}: only rows were captured, which need its tables to be restored into"
                ));
                continue;
            }
            self.prove_database(&folder, &name, facts.server_version_num, report)?;
        }
        Ok(())
    }

    fn prove_database(&self, folder: &SourceFolder, name: &str, version: u32, report: &mut ProofReport) -> Result<()> {
        let about = format!("{}: database {name}", self.record.name);
        let mut reasons: Vec<String> = Vec::new();
        let mut was_nowhere = true;
        for on_the_server in [true, false] {
            let attempt = match on_the_server {
                true => self.on_the_server(folder, name, report),
                false => self.on_one_of_our_own(folder, name, version, report),
            };
            match attempt {
                Ok(proof) => {
                    report.databases.push(proof);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    report.mismatch(format!("{about}: {}", error.chain()));
                    return Ok(());
                }
                Err(error) => {
                    was_nowhere &=
                        matches!(error.kind(), ErrorKind::Absent | ErrorKind::Denied | ErrorKind::Unsupported);
                    reasons.push(match error.hint() {
                        Some(hint) => format!("{} ({hint})", error.chain()),
                        None => error.chain(),
                    });
                }
            }
        }
        let place = if was_nowhere { format!("; {NO_SERVER}") } else { String::new() };
        report.unproven.push(format!("{about} was restored nowhere: {}{place}", reasons.join("; ")));
        Ok(())
    }

    /// Into a scratch database of the source's own server.
    fn on_the_server(&self, folder: &SourceFolder, name: &str, report: &mut ProofReport) -> Result<DatabaseProof> {
        let server = self.server.ok_or_else(|| {
            Error::new(
                ErrorKind::Absent,
                format!("the config does not say where the server of {} is", self.record.name),
            )
        })?;
        let scratch = ScratchDatabase::reserve(&server.conninfo)
            .with_context(|| format!("make a scratch database on {}", server.conninfo.host_shown()))?;
        report.swept.extend(scratch.swept().iter().cloned());
        let place = Place {
            conninfo: scratch.conninfo(),
            shown: format!("{} on {}", scratch.name(), server.conninfo.host_shown()),
            // Others than a superuser may give nothing to other roles.
            keeps_owners: scratch.is_superuser(),
            makes_roles: false,
            bin: server.bin.clone(),
        };
        let proven = self.restore_and_compare(folder, name, &place, report);
        // Also after a failure, and after a stop was asked for: nothing of it may stay.
        match (proven, scratch.remove()) {
            (proven, Ok(())) => proven,
            (Err(error), Err(stays)) => Err(error.with_hint(stays.hint().unwrap_or_default().to_owned())),
            (Ok(_), Err(stays)) => Err(stays),
        }
    }

    /// Into a server that is made for it.
    fn on_one_of_our_own(
        &self,
        folder: &SourceFolder,
        name: &str,
        version: u32,
        report: &mut ProofReport,
    ) -> Result<DatabaseProof> {
        const ACT: &str = "make a server for a moment";
        let bin = self.server.and_then(|server| server.bin.clone());
        let tools = Tools::find(bin.as_deref())?;
        let tools = tools.choose(version)?;
        let is_cancelled = || self.monitor.is_cancelled();
        let mut failed = None;
        for parent in [self.scratch_parent, &std::env::temp_dir()] {
            let scratch = Scratch::create(parent, self.scratch_prefix)?;
            let server = match Throwaway::start(tools, scratch.path(), &is_cancelled) {
                Ok(server) => server,
                // The user that it runs as may not get here, but into the common folder for such things.
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    scratch.remove()?;
                    failed.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error.context(ACT)),
            };
            let place = Place {
                conninfo: server.conninfo().with_database("lastgood_proof"),
                shown: format!("a server made for it in {}", display_path(parent.as_os_str().as_bytes())),
                keeps_owners: true,
                makes_roles: true,
                bin: bin.clone(),
            };
            let proven = self.restore_and_compare(folder, name, &place, report);
            drop(server);
            let removed = scratch.remove();
            return proven.and_then(|proof| removed.map(|_| proof));
        }
        Err(failed.unwrap_or_else(|| Error::new(ErrorKind::Unsupported, "there is no place for a server")).context(ACT))
    }

    fn restore_and_compare(
        &self,
        folder: &SourceFolder,
        name: &str,
        place: &Place,
        report: &mut ProofReport,
    ) -> Result<DatabaseProof> {
        let options = RestoreOptions {
            recovery_point: self.snapshot.id.short(),
            database: Some(name.to_owned()),
            no_owner: !place.keeps_owners,
            no_acl: !place.keeps_owners,
            roles: place.makes_roles,
            ..RestoreOptions::default()
        };
        let plan = restore::plan(folder, &place.conninfo, &options).context("plan the restore")?;
        let began = std::time::Instant::now();
        plan.execute(folder, self.monitor).with_context(|| format!("restore to {}", place.shown)).map_err(|error| {
            match error.kind() {
                // What the restore says of its database is of no use: that is gone by then.
                ErrorKind::Io => {
                    let past = match error.hint().is_some_and(|hint| hint.contains("--continue-past-errors")) {
                        true => "; with --continue-past-errors it leaves out definitions that fail",
                        false => "",
                    };
                    error.with_hint(format!("a restore of this recovery point fails so, too{past}"))
                }
                _ => error,
            }
        })?;
        report.restore_ms += super::millis(began.elapsed());
        let verifying = VerifyOptions {
            database: Some(name.to_owned()),
            tools: place.bin.clone(),
            no_owner: !place.keeps_owners,
            no_acl: !place.keeps_owners,
            ..VerifyOptions::default()
        };
        let verified = verify(folder, &place.conninfo, &verifying, self.monitor)
            .with_context(|| format!("compare {}", place.shown))?;
        for mismatch in &verified.mismatches {
            report.mismatch(format!(
                "{}: database {name}: {} was {}, and is {}",
                self.record.name, mismatch.what, mismatch.expected, mismatch.found
            ));
        }
        Ok(DatabaseProof {
            source: self.record.name.clone(),
            database: Some(name.to_owned()),
            restored_to: Some(place.shown.clone()),
            tables: verified.tables,
            rows: verified.rows,
        })
    }
}

/// Where a database is restored to for the proof.
struct Place {
    conninfo: Conninfo,
    shown: String,
    keeps_owners: bool,
    makes_roles: bool,
    bin: Option<PathBuf>,
}
