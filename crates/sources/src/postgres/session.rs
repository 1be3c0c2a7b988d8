//! Sessions of a capture: how they are set up, the one that holds snapshot and locks, and how all of them are stopped.
//!
//! The holder locks first and looks then. `LOCK` needs no snapshot, so the one that the transaction takes afterwards sees
//! tables that nobody can change any more. The other way round, as `pg_dump` has it, a table that is truncated or
//! rewritten between snapshot and lock is read as empty, without an error.

use super::conninfo::Conninfo;
use super::layout::TableKind;
use super::sql::{literal, quote_in};
use super::wire::{Client, Vigil, sqlstate};
use lastgood_model::{Context, Error, ErrorKind, Monitor, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the wish to stop is looked at.
const TICK: Duration = Duration::from_millis(50);
/// Tables named in one LOCK statement.
const LOCK_BATCH: usize = 200;
/// The oldest server that is read: 12 is the first with generated columns and table access methods in its catalog.
pub(super) const SERVER_OLDEST: u32 = 120_000;

/// The wish of all sessions of a capture to stop, and the first reason for it.
#[derive(Debug, Default)]
pub(super) struct Stop {
    is_wanted: AtomicBool,
    first: Mutex<Option<Error>>,
}

impl Stop {
    /// Stops everybody. Only the first reason is kept: what fails afterwards fails because of it.
    pub(super) fn because(&self, error: Error) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_wanted.swap(true, Ordering::SeqCst) {
            *first = Some(error);
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::SeqCst)
    }

    /// Fails once a stop is wanted. The error is never the reason: that is told once, by whoever takes it.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_wanted() { Err(Error::new(ErrorKind::Cancelled, "interrupted")) } else { Ok(()) }
    }

    /// The reason, if there is one and nobody has taken it.
    pub(super) fn take_reason(&self) -> Option<Error> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether a program that describes the server for us must end: somebody wants it, or it waits in vain.
pub(super) fn must_end(stop: &Stop, vigil: &Vigil) -> bool {
    if let Err(error) = vigil.check() {
        stop.because(error);
    }
    stop.is_wanted()
}

/// Runs `work` while somebody watches whether `monitor` wants to stop. What made it stop is its error.
pub(super) fn stoppable<T>(monitor: &Monitor, work: impl FnOnce(&Arc<Stop>) -> Result<T>) -> Result<T> {
    let stop = Arc::new(Stop::default());
    std::thread::scope(|scope| {
        let (work_goes_on, is_over) = channel::<()>();
        let watched = &stop;
        scope.spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = is_over.recv_timeout(TICK) {
                if let Err(error) = monitor.check_cancelled() {
                    return watched.because(error);
                }
            }
        });
        let result = work(&stop);
        drop(work_goes_on);
        match (result, stop.take_reason()) {
            (Err(_), Some(reason)) => Err(reason),
            // Everybody was done before the wish was heard.
            (result, _) => result,
        }
    })
}

/// Opens a session with the settings of [`settings`], which ends what it does when `stop` wants it.
pub(super) fn open(info: &Conninfo, stop: &Arc<Stop>) -> Result<Client> {
    stop.check()?;
    let mut client = Client::connect(info)?;
    let wanted = Arc::clone(stop);
    client.set_interrupt(Arc::new(move || wanted.is_wanted()));
    let version = client.server_version();
    if version < SERVER_OLDEST {
        let said = client.parameter("server_version").unwrap_or("of an unknown version").to_owned();
        return Err(Error::new(ErrorKind::Unsupported, format!("the server is PostgreSQL {said}")).with_hint(
            "versions from 12 on can be read; older ones as the output of pg_dump, by a source of kind command",
        ));
    }
    client.watch().context("set up the session")?;
    client.batch(&settings(version)).context("set up the session")?;
    Ok(client)
}

/// What makes the text of a value the same every day, whatever is set for server, database and role; and what keeps a
/// long session from being ended. As `pg_dump` does, and beyond it: the time zone, so that its tables may change; the
/// text of bytes; and no plan in which several processes mix the order of rows.
pub(super) fn settings(version: u32) -> String {
    let mut out = String::from(
        "SET client_encoding = 'UTF8'; SET DateStyle = ISO; SET IntervalStyle = POSTGRES; SET TimeZone = 'UTC'; \
         SET extra_float_digits = 3; SET bytea_output = hex; SET xmlbinary = base64; SET quote_all_identifiers = off; \
         SET synchronize_seqscans = off; SET max_parallel_workers_per_gather = 0; SET jit = off; SET row_security = off; \
         SET standard_conforming_strings = on; SET statement_timeout = 0; SET lock_timeout = 0; \
         SET idle_in_transaction_session_timeout = 0; ",
    );
    if version >= 140_000 {
        out.push_str("SET idle_session_timeout = 0; ");
    }
    if version >= 170_000 {
        out.push_str("SET transaction_timeout = 0; ");
    }
    // Came with a security fix of every version, so the number does not tell.
    out.push_str(
        "SELECT pg_catalog.set_config(name, 'view, foreign-table', false) FROM pg_catalog.pg_settings \
         WHERE name OPERATOR(pg_catalog.=) 'restrict_nonsystem_relation_kind'; \
         SELECT pg_catalog.set_config('search_path', '', false)",
    );
    out
}

/// Beyond [`settings`], for sessions that read rows: a range of pages is read as such, whatever statistics say, and
/// nothing is read in the order of an index, which is not that of the table.
pub(super) const READER_SETTINGS: &str =
    "SET enable_seqscan = off; SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off";

/// Begins the transaction in which everything is looked at.
pub(super) const BEGIN: &str = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// A snapshot that others can use, and where the server was when it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Its name, for SET TRANSACTION SNAPSHOT.
    pub(super) id: String,
    /// Where in the write-ahead log: written so far, or on a standby replayed so far.
    pub(super) lsn: String,
    /// By the server's clock: RFC 3339, UTC.
    pub(super) time: String,
    /// The server is a standby.
    pub(super) is_standby: bool,
    /// Tells the transaction from any other of this session.
    begun: String,
}

/// Takes the snapshot of the transaction that is open in `client`.
pub(super) fn take_snapshot(client: &mut Client) -> Result<Snapshot> {
    let rows = client
        .query(
            "SELECT pg_catalog.pg_export_snapshot(), s.is_standby, \
               CASE WHEN s.is_standby THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END, \
               pg_catalog.to_char(pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()), \
                 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
               pg_catalog.transaction_timestamp() \
             FROM (SELECT pg_catalog.pg_is_in_recovery() AS is_standby) s",
        )
        .context("take a snapshot")?;
    let row = rows.only()?;
    Ok(Snapshot {
        id: row.text(0)?.to_owned(),
        is_standby: row.is_true(1)?,
        // A standby that has replayed nothing yet has no position.
        lsn: row.optional(2)?.unwrap_or("0/0").to_owned(),
        time: row.text(3)?.to_owned(),
        begun: row.text(4)?.to_owned(),
    })
}

/// Fails unless the transaction that `snapshot` was taken in is still the one that is open: then it has held its locks
/// and kept the snapshot all the time.
pub(super) fn check_held(client: &mut Client, snapshot: &Snapshot) -> Result<()> {
    let rows = client
        .query("SELECT pg_catalog.transaction_timestamp()")
        .context("look whether the snapshot was held to the end")?;
    if rows.only()?.text(0)? != snapshot.begun {
        return Err(Error::new(ErrorKind::Retry, "the transaction that held the snapshot has ended")
            .with_hint("something between us and the server shares connections; connect to the server itself"));
    }
    Ok(())
}

/// What begins a worker's look at one table: the snapshot, and a lock that is had at once or not at all. Somebody who
/// waits to change the table waits for the holder; whoever queues behind them waits for both.
pub(super) fn begin_on(snapshot: &str, table: &str) -> String {
    format!("{}; LOCK TABLE ONLY {table} IN ACCESS SHARE MODE NOWAIT", begin_under(snapshot))
}

/// What begins a worker's transaction under the holder's snapshot.
pub(super) fn begin_under(snapshot: &str) -> String {
    format!("{BEGIN}; SET TRANSACTION SNAPSHOT {}", literal(snapshot))
}

/// A table could not be locked at once.
pub(super) fn is_contested(error: &Error) -> bool {
    sqlstate(error) == Some("55P03")
}

/// Something went away that was there a moment ago.
pub(super) fn is_gone(error: &Error) -> bool {
    matches!(sqlstate(error), Some("42P01" | "3F000"))
}

/// There are as many connections as the server, database or role may have.
pub(super) fn is_full(error: &Error) -> bool {
    sqlstate(error) == Some("53300")
}

/// Locks tables against change, not against writers, in the open transaction; waits up to `timeout` for each batch.
pub(super) fn lock(client: &mut Client, names: &[(String, String)], timeout: Duration) -> Result<()> {
    let sql_names: Vec<String> = names.iter().map(|(schema, name)| quote_in(schema, name)).collect();
    client.batch(&format!("SET LOCAL lock_timeout = {}", timeout.as_millis().clamp(1, i32::MAX as u128)))?;
    for batch in sql_names.chunks(LOCK_BATCH) {
        let tables: Vec<String> = batch.iter().map(|name| format!("ONLY {name}")).collect();
        let locked = client.batch(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", tables.join(", ")));
        locked.map_err(|error| explain_lock(client, error, batch, timeout))?;
    }
    client.batch("SET LOCAL lock_timeout = 0")
}

fn explain_lock(client: &mut Client, error: Error, batch: &[String], timeout: Duration) -> Error {
    match sqlstate(&error) {
        Some("55P03") => {
            let who = name_contested(client, batch).unwrap_or_else(|_| "a table".to_owned());
            let message = format!("{who} stayed locked for {} s by another session", timeout.as_secs_f32());
            let error = Error::new(ErrorKind::Locked, message).with_source(error);
            error.with_hint(
                "something that changes the table is running or left open; see pg_stat_activity, or wait longer",
            )
        }
        Some("53200") => error.context("lock all tables").with_hint(
            "raise max_locks_per_transaction in postgresql.conf and restart the server; it needs about the number of \
             tables and sequences divided by max_connections",
        ),
        _ => error.context("lock all tables"),
    }
}

/// Which of these cannot be locked now. Ends the transaction, which has failed anyhow.
fn name_contested(client: &mut Client, batch: &[String]) -> Result<String> {
    let mut found = Vec::new();
    for name in batch {
        client.batch("ROLLBACK; BEGIN")?;
        match client.batch(&format!("LOCK TABLE ONLY {name} IN ACCESS SHARE MODE NOWAIT")) {
            Err(error) if is_contested(&error) => found.push(name.clone()),
            _ => {}
        }
    }
    client.batch("ROLLBACK")?;
    match found.is_empty() {
        false => Ok(format!("table {}", found.join(", "))),
        true => Ok("a table".to_owned()),
    }
}

/// Whether tables of this kind are locked.
pub(super) fn is_lockable(kind: TableKind) -> bool {
    matches!(kind, TableKind::Table | TableKind::Partitioned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_to_stop_is_the_one_that_is_told() {
        let error = stoppable::<()>(&Monitor::new(), |stop| {
            stop.because(Error::new(ErrorKind::Denied, "first"));
            stop.because(Error::new(ErrorKind::Io, "second"));
            stop.check()
        })
        .unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Denied, "first"));
    }

    #[test]
    fn a_wish_to_stop_is_heard_while_work_goes_on() {
        let monitor = Monitor::new();
        let error = stoppable::<()>(&monitor, |stop| {
            monitor.cancel();
            loop {
                stop.check()?;
                std::thread::yield_now();
            }
        })
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn settings_fit_the_version() {
        assert!(!settings(130_000).contains("idle_session_timeout"));
        assert!(
            settings(150_018).contains("idle_session_timeout") && !settings(150_018).contains("transaction_timeout")
        );
        assert!(settings(180_000).contains("transaction_timeout = 0"));
    }
}
