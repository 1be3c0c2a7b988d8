//! A restore at work, in the order of its phases.

use super::super::plan::Step;
use super::super::session::{Stop, stoppable};
use super::super::wire::{Client, sqlstate};
use super::globals::Globals;
use super::load::{self, Load};
use super::making::{self, Making, Prepare, Swap};
use super::mark::Mark;
use super::planning::DatabaseRestorePlan;
use super::pool;
use super::session::{self, Sessions};
use super::summary::{DatabaseRestoreReport, FailedDefinition, Phases};
use super::target::{self, State};
use super::work::{Work, graph};
use super::{large_objects, orphans, sequences, undo, unfinished};
use lastgood_model::saved::SavedFiles;
use lastgood_model::{Context, Error, ErrorKind, Monitor, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// How often a statement is tried that the server ends because of a deadlock with somebody else.
const DEADLOCKS_MAX: usize = 3;
/// Indexes that take this share of the whole time or more are built by several processes of the server.
const LONG_SHARE: u64 = 4;

/// What helps against a definition that fails once the rows are there.
const CONTINUE: &str =
    "with --continue-past-errors, definitions that fail once the rows are there are left out and named";

impl DatabaseRestorePlan {
    /// Does it. `files` must be those that it was planned from.
    ///
    /// # Errors
    /// [`DatabaseRestorePlan::refusal`] before anything was changed; [`lastgood_model::ErrorKind::Cancelled`] soon after a
    /// stop was asked for; [`lastgood_model::ErrorKind::Corrupt`] for rows that are not what was saved; else what the
    /// server said to the statement that failed. The hint says what has become of the database.
    pub fn execute(self, files: &dyn SavedFiles, monitor: &Monitor) -> Result<DatabaseRestoreReport> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let before = match &self.target.state {
            State::Ours(mark, _) => mark.before.as_deref(),
            _ => self.target.comment.as_deref().filter(|_| self.prepare == Prepare::Use),
        };
        let mark = Mark::begin(&self.options.recovery_point, before);
        let mut begun = Begun { place: None, mark, schema: unfinished::name()?, is_changed: false, is_loaded: false };
        let result = stoppable(monitor, |stop| self.run(files, monitor, stop, &mut begun));
        result.map_err(|error| undo::failed(&self, &begun, error))
    }

    fn run(
        &self,
        files: &dyn SavedFiles,
        monitor: &Monitor,
        stop: &Arc<Stop>,
        state: &mut Begun,
    ) -> Result<DatabaseRestoreReport> {
        let begun = Instant::now();
        let expected = self.summary.bytes;
        monitor.add(|counters| &counters.bytes_expected, expected);
        // Connected until the end, so that no other restore makes a database of this name meanwhile.
        let mut beside = self.prepare(stop, state)?;
        let prepared = Instant::now();

        let place = state.place.as_deref().unwrap_or(&self.target.name);
        let sessions = self.sessions(place, stop);
        let mut first = sessions.open()?;
        if self.is_addition() {
            self.left.iter().try_for_each(|left| left.clear(&mut first))?;
            unfinished::begin(&mut first, self, &state.schema, &sessions)?;
        }
        if !self.emptied.is_empty() {
            let emptied = self.emptied.join(", ONLY ");
            first.batch(&format!("TRUNCATE ONLY {emptied}")).context("empty tables")?;
        }
        state.is_changed = true;
        self.pre_data(&mut first, &sessions)?;
        if self.is_addition() {
            unfinished::made(&mut first, self, &state.schema)?;
        }
        let pre_data = Instant::now();

        let failed = Mutex::new(Vec::new());
        let loaded = self.rows_and_the_rest(files, monitor, &sessions, &failed)?.unwrap_or(pre_data).max(pre_data);
        if self.is_without_triggers() {
            orphans::check(&mut first, &sessions, &self.places)?;
        }
        match (self.prepare, beside.as_mut()) {
            (Prepare::Swap, Some(beside)) => {
                drop(first);
                state.is_loaded = true;
                self.swap(beside, state)?.into_iter().for_each(|note| sessions.note(note));
            }
            _ => self.finish(&mut first, state)?,
        }
        let done = Instant::now();
        let ms = |from: Instant, to: Instant| u64::try_from((to - from).as_millis()).unwrap_or(u64::MAX);
        Ok(DatabaseRestoreReport {
            database: self.target.name.clone(),
            tables: self.summary.tables,
            rows: self.summary.rows,
            bytes: self.summary.bytes,
            steps: self.summary.steps,
            roles_made: self.summary.roles_made.clone(),
            failed: failed.into_inner().unwrap_or_else(PoisonError::into_inner),
            notices: [&self.summary.warnings[..], &self.summary.notes, &sessions.take_notices()].concat(),
            phases: Phases {
                prepare_ms: ms(begun, prepared),
                pre_data_ms: ms(prepared, pre_data),
                data_ms: ms(pre_data, loaded),
                post_data_ms: ms(loaded, done),
            },
        })
    }

    /// Makes roles and the database. Gives the session that made it, unless that is in it.
    fn prepare(&self, stop: &Arc<Stop>, state: &mut Begun) -> Result<Option<Client>> {
        let needs_beside = matches!(self.prepare, Prepare::Make | Prepare::Replace | Prepare::Swap);
        let info = if needs_beside { target::beside(&self.info)? } else { self.info.clone() };
        let sessions = Sessions::new(info, Arc::clone(stop));
        let mut client = sessions.open()?;
        if let Some(globals) = self.globals.as_ref().filter(|_| !self.roles_made.is_empty()) {
            Globals::make(globals, &mut client, &self.roles_made, &self.server.roles)?;
        }
        let making =
            Making { server: &self.server, creation: &self.creation, mark: &state.mark, force: self.options.force };
        let (place, mark) = making::prepare(&mut client, &self.target.name, self.prepare, &making)?;
        (state.place, state.mark) = (Some(place), mark);
        Ok(needs_beside.then_some(client))
    }

    /// Rows go into tables that have their triggers and foreign keys already, and these are switched off.
    fn is_without_triggers(&self) -> bool {
        self.options.data_only && self.server.may_replicate
    }

    fn sessions(&self, place: &str, stop: &Arc<Stop>) -> Sessions {
        let mut more = self.plan.session.clone();
        more.push("SET synchronous_commit = off".to_owned());
        if self.is_addition() {
            // There is no last commit that all the others would be durable with.
            more.push("SET synchronous_commit = on".to_owned());
        }
        if self.is_without_triggers() {
            more.push("SET session_replication_role = replica".to_owned());
        }
        more.push("SET max_parallel_maintenance_workers = 0".to_owned());
        more.push(session::memory(self.jobs));
        Sessions::new(self.info.with_database(place), Arc::clone(stop)).with(more).speaking(self.plan.text)
    }

    /// Everything that comes before rows, and values of sequences, which need nothing else.
    fn pre_data(&self, client: &mut Client, sessions: &Sessions) -> Result<()> {
        for step in &self.plan.pre {
            run_step(client, sessions, step)?;
        }
        sequences::set(client, sessions, &self.sequences)
    }

    /// Loads rows and makes everything that comes after them. Gives the moment when the last row was there.
    fn rows_and_the_rest(
        &self,
        files: &dyn SavedFiles,
        monitor: &Monitor,
        sessions: &Sessions,
        failed: &Mutex<Vec<FailedDefinition>>,
    ) -> Result<Option<Instant>> {
        let loads = load::divide(&self.saved.folder, &self.saved.tables, &self.places, self.jobs)?;
        let graph = graph(self, &loads);
        let longest = graph.tasks.iter().map(|task| task.weight).max().unwrap_or(0);
        let sizes = |oid: u32| self.saved.tables.iter().find(|table| table.oid == oid).map_or(0, |table| table.bytes());
        let loads_left = AtomicUsize::new(graph.loads);
        let loaded: Mutex<Option<Instant>> = Mutex::default();
        let work = |client: &mut Client, task: usize| -> Result<()> {
            match graph.work[task] {
                Work::Load(at) => {
                    let load: &Load = &loads[at];
                    load::run(client, sessions, files, load, monitor)?;
                }
                Work::LargeObjects => {
                    large_objects::restore(client, sessions, files, &self.saved, self.wishes(), monitor)?;
                }
                Work::Step(at) => {
                    let step = &self.plan.post[at];
                    let is_long =
                        step.weight.is_some_and(|oid| sizes(oid).saturating_mul(LONG_SHARE) >= longest.max(1));
                    if is_long {
                        client.batch("RESET max_parallel_maintenance_workers")?;
                    }
                    let done = run_step(client, sessions, step);
                    if is_long && done.is_ok() {
                        client.batch("SET max_parallel_maintenance_workers = 0")?;
                    }
                    match done {
                        // Nobody can mend what is in a recovery point.
                        Err(error) if self.may_be_left(at, client, &error) && !self.options.continue_past_errors => {
                            return Err(error.with_hint(CONTINUE));
                        }
                        Err(error) if self.may_be_left(at, client, &error) => {
                            let failure = FailedDefinition {
                                what: step.what.clone(),
                                error: error.chain(),
                                sql: step.sql.clone(),
                            };
                            failed.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                            client.batch("SET max_parallel_maintenance_workers = 0")?;
                        }
                        done => done?,
                    }
                }
            }
            if !matches!(graph.work[task], Work::Step(_)) && loads_left.fetch_sub(1, Ordering::Relaxed) == 1 {
                *loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            Ok(())
        };
        let workers = sessions.open_many(self.jobs.min(graph.tasks.len()).max(1))?;
        pool::run(&graph.tasks, workers, monitor, work, || sessions.halt())?;
        Ok(loaded.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// A definition failed, and the restore can go on without it.
    fn may_be_left(&self, at: usize, client: &Client, error: &Error) -> bool {
        // Without its last step a table never gets its new name.
        let is_needed = self.rename.is_some() && at + 1 == self.plan.post.len();
        let is_about_it = !matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Retry | ErrorKind::NoSpace);
        !is_needed && is_about_it && sqlstate(error).is_some() && !client.is_broken()
    }

    /// What belongs to the database itself, and with it takes the mark away: all or nothing, and durable, with all that
    /// was done before.
    fn finish(&self, client: &mut Client, state: &Begun) -> Result<()> {
        let name = &self.target.name;
        let before = state.mark.before.as_deref();
        let statements = match self.prepare {
            Prepare::Add => return unfinished::end(client, &state.schema),
            Prepare::Use => vec![super::mark::comment_on(name, before)],
            Prepare::Make | Prepare::Replace | Prepare::Swap => making::open(name, self.creation.after(name, before)),
        };
        client.batch("SET synchronous_commit = on; BEGIN")?;
        for statement in &statements {
            client.batch(statement).context("finish the database")?;
        }
        client.batch("COMMIT").context("finish the database")
    }

    /// Puts what is loaded and checked in the place of what was there.
    fn swap(&self, client: &mut Client, state: &Begun) -> Result<Vec<String>> {
        let name = self.target.name.as_str();
        let before = state.mark.before.as_deref();
        let swap = Swap {
            name,
            successor: state.place.as_deref().unwrap_or_default(),
            after: self.creation.after(name, before),
            recovery_point: &self.options.recovery_point,
            force: self.options.force,
        };
        making::swap(client, swap)
    }
}

/// How far a restore has come.
pub(super) struct Begun {
    /// The database that is filled, once something may have been changed.
    pub(super) place: Option<String>,
    /// What it bears.
    pub(super) mark: Mark,
    /// The schema that says that an addition is not complete.
    pub(super) schema: String,
    /// Something is in it that was not.
    pub(super) is_changed: bool,
    /// All is loaded and checked.
    pub(super) is_loaded: bool,
}

/// Runs a step; what fails bears its name. A deadlock with somebody else, such as autovacuum, is tried again: nothing of
/// the step was done.
fn run_step(client: &mut Client, sessions: &Sessions, step: &Step) -> Result<()> {
    if step.sql.is_empty() {
        return Ok(());
    }
    let mut tries = 1;
    loop {
        sessions.check()?;
        match client.batch(&step.sql) {
            Err(error) if sqlstate(&error) == Some("40P01") && tries < DEADLOCKS_MAX => tries += 1,
            Err(error) => return Err(error.context(format!("make {}", step.what))),
            Ok(()) => break,
        }
    }
    sessions.hear(client, &step.what);
    Ok(())
}
