//! Sessions of a restore: how they are set up, and how all of them are stopped at once.

use super::super::conninfo::Conninfo;
use super::super::session::{SERVER_OLDEST, Stop};
use super::super::toc::Text;
use super::super::wire::{Client, ServerMessage, sqlstate};
use lastgood_model::{Context, Error, ErrorKind, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Memory that all sessions together may use for sorting while they build indexes, in KiB: 1 GiB.
const MAINTENANCE_KIB: usize = 1 << 20;
/// More than that helps no single index, in KiB: 512 MiB.
const MAINTENANCE_KIB_MAX: usize = 512 << 10;
/// How many notices of the server are kept.
const NOTICES_MAX: usize = 1000;

/// What any session needs that puts something back. Values are written as text that reads the same whatever server,
/// database and role have set; nothing waits for less than it takes; what is committed needs not be on disk before the
/// whole is.
pub(super) fn settings(version: u32) -> String {
    let mut out = String::from(
        "SET client_encoding = 'UTF8'; SET DateStyle = ISO; SET IntervalStyle = POSTGRES; SET TimeZone = 'UTC'; \
         SET extra_float_digits = 3; SET bytea_output = hex; SET xmloption = content; SET check_function_bodies = off; \
         SET row_security = off; SET standard_conforming_strings = on; SET escape_string_warning = off; SET jit = off; \
         SET transform_null_equals = off; SET array_nulls = on; \
         SET client_min_messages = warning; SET synchronous_commit = off; \
         SET default_transaction_read_only = off; SET default_transaction_isolation = 'read committed'; \
         SET default_transaction_deferrable = off; SET default_tablespace = ''; SET statement_timeout = 0; \
         SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; ",
    );
    if version >= 140_000 {
        out.push_str("SET idle_session_timeout = 0; ");
    }
    if version >= 170_000 {
        out.push_str("SET transaction_timeout = 0; ");
    }
    out.push_str("SELECT pg_catalog.set_config('search_path', '', false); ");
    // A database may give everybody who connects another role, who may do less than the one that was named.
    out.push_str(
        "SELECT pg_catalog.set_config('role', 'none', false) WHERE EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s \
         JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase \
         WHERE d.datname = pg_catalog.current_database() AND s.setrole = 0 \
           AND EXISTS (SELECT FROM pg_catalog.unnest(s.setconfig) AS c WHERE c LIKE 'role=%'))",
    );
    out
}

/// Lets each of `jobs` sessions have its share of memory for indexes. An administrator's higher value stays.
pub(super) fn memory(jobs: usize) -> String {
    let kib = (MAINTENANCE_KIB / jobs.max(1)).min(MAINTENANCE_KIB_MAX);
    format!(
        "SELECT pg_catalog.set_config('maintenance_work_mem', '{kib}kB', false) FROM pg_catalog.pg_settings \
         WHERE name OPERATOR(pg_catalog.=) 'maintenance_work_mem' AND setting::pg_catalog.int8 OPERATOR(pg_catalog.<) {kib}"
    )
}

/// Opens sessions, and ends what they do.
pub(super) struct Sessions {
    info: Conninfo,
    stop: Arc<Stop>,
    halted: Arc<AtomicBool>,
    /// Beyond [`settings`], each a statement or several.
    more: Vec<String>,
    /// How strings stand for what is sent and received.
    text: Text,
    notices: Mutex<Vec<String>>,
}

impl Sessions {
    /// Sessions in the database of `info`.
    pub(super) fn new(info: Conninfo, stop: Arc<Stop>) -> Self {
        Self { info, stop, halted: Arc::default(), more: Vec::new(), text: Text::Utf8, notices: Mutex::default() }
    }

    /// Adds statements that every session begins with.
    pub(super) fn with(mut self, statements: impl IntoIterator<Item = String>) -> Self {
        self.more.extend(statements);
        self
    }

    /// Has them speak to a database whose text is in no encoding, if `text` says so.
    pub(super) fn speaking(mut self, text: Text) -> Self {
        self.text = text;
        self
    }

    /// Opens a session.
    pub(super) fn open(&self) -> Result<Client> {
        self.stop.check()?;
        let mut client = connect(&self.info)?;
        let (stop, halted) = (Arc::clone(&self.stop), Arc::clone(&self.halted));
        client.set_interrupt(Arc::new(move || stop.is_wanted() || halted.load(Ordering::Relaxed)));
        for statement in &self.more {
            client.batch(statement).context("set up the session")?;
        }
        if self.text == Text::Bytes {
            client.set_text(self.text).context("set up the session")?;
        }
        Ok(client)
    }

    /// Opens up to `count` sessions, fewer when the server has no more; at least one.
    pub(super) fn open_many(&self, count: usize) -> Result<Vec<Client>> {
        let mut out = vec![self.open()?];
        while out.len() < count {
            match self.open() {
                Ok(client) => out.push(client),
                Err(error) if is_full(&error) => {
                    self.note(format!("the server has room for {} connections, not {count}", out.len()));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(out)
    }

    /// Ends what all sessions do: each call fails soon with [`ErrorKind::Cancelled`].
    pub(super) fn halt(&self) {
        self.halted.store(true, Ordering::Relaxed);
    }

    /// Fails once all are to stop.
    pub(super) fn check(&self) -> Result<()> {
        match self.halted.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Cancelled, "interrupted")),
            false => self.stop.check(),
        }
    }

    /// Keeps something that people should know.
    pub(super) fn note(&self, text: String) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() < NOTICES_MAX && !notices.contains(&text) {
            notices.push(text);
        }
    }

    /// Keeps what the server said beside its answers while it did `what`.
    pub(super) fn hear(&self, client: &mut Client, what: &str) {
        for ServerMessage { severity, message, detail, .. } in client.take_notices() {
            let detail = detail.map(|detail| format!(" ({detail})")).unwrap_or_default();
            self.note(format!("{what}: {severity}: {message}{detail}"));
        }
    }

    /// Takes all notices.
    pub(super) fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// There are as many connections as the server, database or role may have.
fn is_full(error: &Error) -> bool {
    sqlstate(error) == Some("53300")
}

/// Connects and sets the session up, without a way to stop it. [`ErrorKind::Unsupported`] for servers that are too old.
pub(super) fn connect(info: &Conninfo) -> Result<Client> {
    let mut client = Client::connect(info)?;
    let version = client.server_version();
    if version < SERVER_OLDEST {
        let said = client.parameter("server_version").unwrap_or("of an unknown version").to_owned();
        let message = format!("the server to restore to is PostgreSQL {said}");
        return Err(Error::new(ErrorKind::Unsupported, message).with_hint("versions from 12 on are supported"));
    }
    client.watch().context("set up the session")?;
    client.batch(&settings(version)).context("set up the session")?;
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_fit_the_version_and_memory_is_shared() {
        assert!(!settings(130_000).contains("idle_session_timeout"));
        assert!(
            settings(150_018).contains("idle_session_timeout") && !settings(150_018).contains(" transaction_timeout")
        );
        assert!(settings(180_000).contains("transaction_timeout = 0"));
        assert!(
            memory(1).contains("'524288kB'") && memory(2).contains("'524288kB'") && memory(8).contains("'131072kB'")
        );
        assert!(memory(0).contains("'524288kB'"));
    }
}
