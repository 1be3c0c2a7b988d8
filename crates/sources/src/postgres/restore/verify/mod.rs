//! Comparing a database on a server with a recovery point, by reading all of it: rows by count and digest, values of
//! sequences, large objects, and the schema as `pg_dump` describes it.
//!
//! What is compared is what the recovery point has; what the database has beside it is told only of the schema. Nothing
//! is read under one snapshot: this is for a database that nobody writes to, such as one just restored.

mod objects;
mod rows;
mod schema;

use super::super::conninfo::Conninfo;
use super::super::session::stoppable;
use super::saved::{self, SavedDatabase};
use super::session::Sessions;
use super::{pool, sequences};
use lastgood_model::saved::SavedFiles;
use lastgood_model::{Context, Monitor, Result};
use rows::Reading;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// What to compare, and how.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// The saved database; needed when there are several.
    pub database: Option<String>,
    /// Connections that work at the same time; 0 for as many as this machine has processors, from 2 to 8.
    pub jobs: usize,
    /// Leaves out the schema, for which `pg_dump` is needed.
    pub rows_only: bool,
    /// The folder of `pg_dump`; searched when `None`.
    pub tools: Option<PathBuf>,
    /// Owners need not be the same.
    pub no_owner: bool,
    /// Privileges need not be the same.
    pub no_acl: bool,
}

/// Something that is not as it was saved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mismatch {
    /// Of what.
    pub what: String,
    /// As it was saved.
    pub expected: String,
    /// As it is.
    pub found: String,
}

/// What was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Tables.
    pub tables: u64,
    /// Their rows, as saved.
    pub rows: u64,
    /// Bytes of rows read from the server.
    pub bytes: u64,
    /// Sequences.
    pub sequences: u64,
    /// Large objects, as saved.
    pub large_objects: u64,
    /// Entries of the table of contents; 0 when the schema was left out.
    pub schema_entries: u64,
    /// All that differs, in order. Empty: the database is what was saved.
    pub mismatches: Vec<Mismatch>,
}

/// Compares the database that `target` names with a saved one.
///
/// # Errors
/// Those of `files` and of the connection; [`lastgood_model::ErrorKind::Absent`] when `pg_dump` is not there. That
/// something differs is no error.
pub fn verify(
    files: &dyn SavedFiles,
    target: &Conninfo,
    options: &VerifyOptions,
    monitor: &Monitor,
) -> Result<VerifyReport> {
    let name = saved::choose(files, options.database.as_deref())?;
    let saved = SavedDatabase::open(files, &name)?;
    let jobs = super::planning::jobs(options.jobs);
    stoppable(monitor, |stop| {
        let sessions = Sessions::new(target.clone(), stop.clone()).speaking(saved.text);
        let mut report = VerifyReport::default();
        let mut first = sessions.open()?;
        let readings = rows::readings(&mut first, &saved, &mut report)?;
        let found = Mutex::new((Vec::new(), 0));
        let tasks: Vec<pool::Task> = readings.iter().map(Reading::task).collect();
        let workers = sessions.open_many(jobs.min(tasks.len()).max(1))?;
        for_each(&tasks, workers, monitor, &sessions, |client, task| {
            let read = readings[task].read(client, &sessions, monitor)?;
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.0.push((task, read.total));
            found.1 += read.bytes;
            Ok(())
        })?;
        let (totals, bytes) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.bytes = bytes;
        rows::compare(&saved, &readings, &totals, &mut report);
        compare_sequences(&mut first, &saved, &mut report)?;
        objects::compare(&mut first, &sessions, files, &saved, &mut report)?;
        if !options.rows_only {
            schema::compare(&mut first, target, &saved, options, &|| stop.is_wanted(), &mut report)?;
        }
        report.mismatches.sort();
        Ok(report)
    })
}

fn for_each(
    tasks: &[pool::Task],
    workers: Vec<super::super::wire::Client>,
    monitor: &Monitor,
    sessions: &Sessions,
    work: impl Fn(&mut super::super::wire::Client, usize) -> Result<()> + Sync,
) -> Result<()> {
    pool::run(tasks, workers, monitor, work, || sessions.halt())
}

fn compare_sequences(
    client: &mut super::super::wire::Client,
    saved: &SavedDatabase,
    report: &mut VerifyReport,
) -> Result<()> {
    let found = sequences::read(client, &saved.sequences).context("read sequences")?;
    let shown = |value: &sequences::Sequence| match value.is_called {
        true => format!("{}", value.last),
        false => format!("{} not handed out", value.last),
    };
    for sequence in &saved.sequences {
        report.sequences += 1;
        let is = found.get(&sequence.key());
        if is != Some(sequence) {
            report.mismatches.push(Mismatch {
                what: format!("sequence {}", super::planning::shown(&sequence.schema, &sequence.name)),
                expected: shown(sequence),
                found: is.map_or_else(|| "not there".to_owned(), shown),
            });
        }
    }
    Ok(())
}
