//! Running `pg_dump` for the description of one database, and `pg_dumpall` for what a whole server shares.

use super::super::toc::Toc;
use super::child::{self, Complaint};
use super::{Installation, Program};
use lastgood_model::{Error, Result};
use std::io::{BufReader, Read};
use std::process::Command;
use std::time::Duration;

/// Roles, tablespaces and settings of a server are small; more is not believed.
const GLOBALS_BYTES_MAX: usize = 256 << 20;

/// How a database is described.
#[derive(Clone, Debug)]
pub struct DumpOptions {
    /// The snapshot to look through, from `pg_export_snapshot()`, so that the description fits the rows.
    pub snapshot: Option<String>,
    /// Have the text in UTF-8 whatever the database's encoding is. Not for databases in SQL_ASCII, whose text the
    /// server cannot convert.
    pub utf8: bool,
    /// Quote every name, not only those that need it: a name may be a reserved word in a later version.
    pub quote_all: bool,
    /// How long to wait for a table that somebody has locked, before giving up. Without a limit when `None`.
    pub lock_timeout: Option<Duration>,
    /// Add the planner's statistics, where `pg_dump` is of version 18 or newer.
    pub statistics: bool,
    /// Arguments that choose what is described, such as `--exclude-table=x`.
    pub filter: Vec<String>,
}

impl Default for DumpOptions {
    fn default() -> Self {
        Self { snapshot: None, utf8: true, quote_all: true, lock_timeout: None, statistics: false, filter: Vec::new() }
    }
}

/// Describes the database that `env` (`PGHOST`, `PGDATABASE`, `PGPASSWORD`, …) leads to.
///
/// Fails with [`lastgood_model::ErrorKind::Cancelled`] soon after `is_cancelled` is true, and with the program's own
/// words when it fails; nothing it printed counts then.
pub fn dump_schema(
    tools: &Installation,
    env: &[(&'static str, String)],
    options: &DumpOptions,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Toc> {
    let mut command = Command::new(tools.program(Program::PgDump)?);
    // Data in the archive is compressed, and there is none.
    command.args(["--format=custom", "--schema-only", "--no-password", "--compress=0"]);
    if tools.version.major() >= 10 && tools.version.0 >= 100_000 {
        command.arg("--no-sync");
    }
    if let Some(snapshot) = &options.snapshot {
        command.arg(format!("--snapshot={snapshot}"));
    }
    command.args(&options.filter);
    if options.utf8 {
        command.arg("--encoding=UTF8");
    }
    if options.quote_all {
        command.arg("--quote-all-identifiers");
    }
    if let Some(timeout) = options.lock_timeout {
        command.arg(format!("--lock-wait-timeout={}", timeout.as_millis().clamp(1, i32::MAX as u128)));
    }
    if options.statistics && tools.version.0 >= 180_000 {
        command.arg("--statistics");
    }
    child::run(command, env, is_cancelled, |out| Toc::read_archive(&mut BufReader::with_capacity(256 * 1024, out)))
}

/// What all databases of a server share, as SQL: roles, tablespaces, and settings of roles.
#[derive(Clone)]
pub struct Globals {
    /// SQL for `psql`. Holds password verifiers, so it is as secret as they are.
    pub sql: Vec<u8>,
    /// False when roles are without their passwords, as asked or because only a superuser may read them.
    pub has_passwords: bool,
}

impl std::fmt::Debug for Globals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Globals {{ sql: {} bytes, has_passwords: {} }}", self.sql.len(), self.has_passwords)
    }
}

/// Describes what all databases of the server share. Roles come without passwords when `with_passwords` is false, or
/// when reading them is denied.
pub fn dump_globals(
    tools: &Installation,
    env: &[(&'static str, String)],
    with_passwords: bool,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Globals> {
    if with_passwords {
        match run_globals(tools, env, true, is_cancelled) {
            Err(error) if is_denied(&error) => {}
            other => return other,
        }
    }
    run_globals(tools, env, false, is_cancelled)
}

/// Whether reading the passwords failed, and not merely the connection. The server may say so in any language, but the
/// name of the table is in each, and what the client library says of a lost connection is English.
fn is_denied(error: &Error) -> bool {
    let complaint = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Complaint>());
    complaint.is_some_and(|Complaint(said)| {
        said.contains("pg_authid")
            && !["server closed the connection", "could not receive data", "SSL ", "connection to server"]
                .iter()
                .any(|lost| said.contains(lost))
    })
}

fn run_globals(
    tools: &Installation,
    env: &[(&'static str, String)],
    with_passwords: bool,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Globals> {
    let mut command = Command::new(tools.program(Program::PgDumpall)?);
    command.args(["--globals-only", "--no-password"]);
    if tools.version.0 >= 100_000 {
        command.arg("--no-sync");
    }
    if !with_passwords {
        command.arg("--no-role-passwords");
    }
    // It would connect to `postgres`, which need not exist or let us in. A name that looks like a connection string
    // would be taken for one.
    if let Some((_, database)) = env.iter().find(|(key, _)| *key == "PGDATABASE")
        && !database.contains(['=', ':', '/'])
        && !database.is_empty()
    {
        command.arg(format!("--database={database}"));
    }
    // Until when a role is valid is told in whatever form the server shows dates in, which another need not understand.
    let mut env = env.to_vec();
    env.extend([("PGDATESTYLE", "ISO".to_owned()), ("PGTZ", "UTC".to_owned())]);
    let sql = child::run(command, &env, is_cancelled, |out: &mut dyn Read| child::take_all(out, GLOBALS_BYTES_MAX))?;
    Ok(Globals { sql: without_restrict(&sql), has_passwords: with_passwords })
}

/// Leaves out the lines `\restrict` and `\unrestrict`, which newer versions write with a random token, so that equal
/// contents give equal bytes, and any `psql` can read them.
fn without_restrict(sql: &[u8]) -> Vec<u8> {
    let is_token = |line: &[u8]| {
        let token = line.strip_prefix(b"\\restrict ").or_else(|| line.strip_prefix(b"\\unrestrict "));
        token.is_some_and(|token| token.trim_ascii_end().iter().all(u8::is_ascii_alphanumeric))
    };
    sql.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_token(line)).flatten().copied().collect()
}
