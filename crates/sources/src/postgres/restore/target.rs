//! The server and the database that a restore goes to: what is there, and how the database is brought to where the
//! restore can begin.
//!
//! A database that is in the way is taken away only after its successor could be made: a locale that the server lacks
//! costs nobody a database. Every new one is made and marked under a name of its own, and then renamed.

use super::super::conninfo::Conninfo;
use super::super::sql::{literal, quote};
use super::super::wire::{Client, Row, sqlstate};
use super::creation::{self, Creation};
use super::mark::Mark;
use super::session;
use lastgood_model::{Context, Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How many things in an occupied database are named.
const NAMED_MAX: usize = 5;
/// Names of PostgreSQL have at most so many bytes.
const NAME_MAX: usize = 63;
/// How long sessions may take to leave a database that is dropped.
const LEAVING_MAX: Duration = Duration::from_secs(2);
/// What a new database is called until it bears the mark. So under its own name none is ever seen without.
pub(in crate::postgres) const SUCCESSOR: &str = ".lastgood-new";

/// A server.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    /// As a number: 150018.
    pub(super) version: u32,
    /// Its own words.
    pub(super) version_text: String,
    /// Tells its data from any other's, where the role may ask.
    pub(super) system_identifier: Option<String>,
    pub(super) roles: BTreeSet<String>,
    pub(super) tablespaces: BTreeSet<String>,
    /// Extensions that can be made, with their default versions.
    pub(super) extensions: BTreeMap<String, String>,
    pub(super) is_superuser: bool,
    /// The role may switch triggers off.
    pub(super) may_replicate: bool,
    /// It takes no writes.
    pub(super) is_standby: bool,
}

/// What is at the place of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none of that name.
    Absent,
    /// It holds nothing.
    Empty,
    /// It holds what a restore left that did not end.
    Ours(Mark),
    /// It holds something: how many things, and some of them.
    Occupied(u64, Vec<String>),
}

/// A database.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) state: State,
    pub(super) comment: Option<String>,
    /// Others that are connected, for people.
    pub(super) users: Vec<String>,
    pub(super) schemas: BTreeSet<String>,
    /// Its encoding, as the server names it.
    pub(super) encoding: Option<String>,
    /// Large objects in it.
    pub(super) large_objects: u64,
}

/// A connection to another database of the server, from which one can be made or taken away.
pub(super) fn beside(info: &Conninfo) -> Result<Conninfo> {
    let mut first = None;
    for name in ["postgres", "template1"].into_iter().filter(|name| *name != info.database()) {
        let other = info.with_database(name);
        match Client::connect(&other) {
            Ok(_) => return Ok(other),
            // Not there, or not for us.
            Err(error) if matches!(error.kind(), ErrorKind::Absent | ErrorKind::Denied) => {
                first.get_or_insert(error);
            }
            Err(error) => return Err(error.context(format!("connect to {}", info.host_shown()))),
        }
    }
    let error = first.unwrap_or_else(|| Error::new(ErrorKind::Absent, "there is no other database"));
    Err(error.context("connect to a database from which another can be made").with_hint(
        "the role must be let into the database postgres or template1; or make an empty database and restore into it",
    ))
}

/// Looks at the server and at the database that `info` names. Changes nothing.
pub(super) fn look(info: &Conninfo) -> Result<(Server, Target)> {
    let name = info.database().to_owned();
    let mut target = Target {
        name: name.clone(),
        state: State::Absent,
        comment: None,
        users: Vec::new(),
        schemas: BTreeSet::new(),
        encoding: None,
        large_objects: 0,
    };
    let mut client = match session::connect(info) {
        Ok(client) => client,
        Err(error) if sqlstate(&error) == Some("3D000") => {
            let mut client = session::connect(&beside(info)?)?;
            let server = look_at_server(&mut client)?;
            return Ok((server, target));
        }
        Err(error) => {
            return Err(error.context(format!("connect to database {} of {}", quote(&name), info.host_shown())));
        }
    };
    let server = look_at_server(&mut client)?;
    look_at_database(&mut client, &mut target).with_context(|| format!("look at database {}", quote(&name)))?;
    Ok((server, target))
}

fn look_at_server(client: &mut Client) -> Result<Server> {
    const ACT: &str = "look at the server";
    let mut server = Server {
        version: client.server_version(),
        version_text: client.parameter("server_version").unwrap_or_default().to_owned(),
        ..Server::default()
    };
    let texts = |client: &mut Client, sql: &str| -> Result<Vec<String>> {
        let mut out = Vec::new();
        client.for_each_row(sql, |row: Row<'_>| {
            out.push(row.text(0)?.to_owned());
            Ok(())
        })?;
        Ok(out)
    };
    server.roles = texts(client, "SELECT rolname FROM pg_catalog.pg_roles").context(ACT)?.into_iter().collect();
    server.tablespaces =
        texts(client, "SELECT spcname FROM pg_catalog.pg_tablespace").context(ACT)?.into_iter().collect();
    let extensions = "SELECT name, default_version FROM pg_catalog.pg_available_extensions";
    client
        .for_each_row(extensions, |row| {
            server.extensions.insert(row.text(0)?.to_owned(), row.optional(1)?.unwrap_or("?").to_owned());
            Ok(())
        })
        .context(ACT)?;
    let rows = client
        .query(
            "SELECT pg_catalog.pg_is_in_recovery(), \
               (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER)",
        )
        .context(ACT)?;
    let row = rows.only()?;
    server.is_standby = row.is_true(0)?;
    server.is_superuser = row.is_true(1)?;
    // In a transaction that is given up: who may not set it may not reset it either.
    server.may_replicate =
        server.is_superuser || client.batch("BEGIN; SET LOCAL session_replication_role = replica").is_ok();
    if !server.is_superuser {
        client.batch("ROLLBACK").context(ACT)?;
    }
    // Only for those who may ask.
    if let Ok(rows) = client.query("SELECT system_identifier FROM pg_catalog.pg_control_system()") {
        server.system_identifier = Some(rows.only()?.text(0)?.to_owned());
    }
    Ok(server)
}

/// Everything that somebody made in a database, by its number: the system's own have lower ones than 16384.
const OBJECTS: &str = "\
WITH made AS (
  SELECT 1 AS rank, CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' WHEN 'S' THEN 'sequence '
      WHEN 'f' THEN 'foreign table ' ELSE 'table ' END || n.nspname || '.' || c.relname AS what
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_'
  UNION ALL
  SELECT 2, 'schema ' || nspname FROM pg_catalog.pg_namespace
  WHERE oid >= 16384 AND nspname !~ '^pg_' AND nspname <> 'public'
  UNION ALL
  SELECT 3, 'extension ' || extname FROM pg_catalog.pg_extension WHERE oid >= 16384
  UNION ALL
  SELECT 4, 'function ' || n.nspname || '.' || p.proname
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  WHERE p.oid >= 16384 AND n.nspname !~ '^pg_'
  UNION ALL
  SELECT 5, 'type ' || n.nspname || '.' || t.typname
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
  WHERE t.oid >= 16384 AND n.nspname !~ '^pg_' AND t.typtype IN ('b', 'd', 'e', 'r') AND t.typelem = 0
  UNION ALL
  SELECT 6, 'large object ' || oid FROM pg_catalog.pg_largeobject_metadata
)
SELECT what, pg_catalog.count(*) OVER () FROM made ORDER BY rank, what COLLATE \"C\" LIMIT 5";

fn look_at_database(client: &mut Client, target: &mut Target) -> Result<()> {
    let rows = client.query(
        "SELECT pg_catalog.shobj_description(d.oid, 'pg_database'), pg_catalog.pg_encoding_to_char(d.encoding), \
           (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata) \
         FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()",
    )?;
    let row = rows.only()?;
    target.comment = row.optional(0)?.map(str::to_owned);
    target.encoding = Some(row.text(1)?.to_owned());
    target.large_objects = row.parse(2)?;
    client.for_each_row("SELECT nspname FROM pg_catalog.pg_namespace", |row| {
        target.schemas.insert(row.text(0)?.to_owned());
        Ok(())
    })?;
    target.users = users(client, &target.name)?;
    target.state = match target.comment.as_deref().and_then(Mark::parse) {
        Some(mark) => State::Ours(mark),
        None => {
            let (mut some, mut count) = (Vec::new(), 0);
            client.for_each_row(OBJECTS, |row| {
                some.push(row.text(0)?.to_owned());
                count = row.parse(1)?;
                Ok(())
            })?;
            some.truncate(NAMED_MAX);
            if some.is_empty() { State::Empty } else { State::Occupied(count, some) }
        }
    };
    Ok(())
}

/// Who is connected to a database beside ourselves.
fn users(client: &mut Client, name: &str) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT COALESCE(a.usename, '?'), COALESCE(NULLIF(a.application_name, ''), 'a program'), a.pid \
         FROM pg_catalog.pg_stat_activity a \
         WHERE a.datname = {} AND a.pid <> pg_catalog.pg_backend_pid() AND a.backend_type = 'client backend' ORDER BY 3",
        literal(name)
    );
    let mut out = Vec::new();
    client.for_each_row(&sql, |row| {
        out.push(format!("{} with {} (process {})", row.text(0)?, row.text(1)?, row.text(2)?));
        Ok(())
    })?;
    Ok(out)
}

/// What is to be done with the database before anything is put into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prepare {
    /// It is made.
    Make,
    /// It is there and holds nothing.
    Use,
    /// A new one takes its place.
    Replace,
    /// What is in it stays; something is added.
    Add,
}

/// How a database is made.
#[derive(Clone, Copy)]
pub(super) struct Making<'a> {
    pub(super) server: &'a Server,
    pub(super) creation: &'a Creation,
    pub(super) mark: &'a Mark,
    /// Others are thrown out of what is taken away.
    pub(super) force: bool,
}

/// Makes the database called `name` as `prepare` says, and marks it. `client` is in the database itself for
/// [`Prepare::Use`], else in another one.
pub(super) fn prepare(client: &mut Client, name: &str, prepare: Prepare, making: &Making<'_>) -> Result<()> {
    let Making { server, creation, mark, force } = *making;
    let set_mark = |client: &mut Client, name: &str| {
        client.batch(&mark.set(name)).with_context(|| format!("mark database {}", quote(name)))
    };
    match prepare {
        Prepare::Add => Ok(()),
        Prepare::Use => set_mark(client, name),
        Prepare::Make | Prepare::Replace => {
            let successor = successor(name);
            remove_left_over(client, &successor)?;
            // What it remarks was told with the plan.
            let sql = creation.create(&successor, server.version, &server.tablespaces, &mut Vec::new())?;
            client.batch(&sql).map_err(|error| creation::explain(error, creation, name))?;
            let taken = set_mark(client, &successor).and_then(|()| match prepare {
                Prepare::Make => rename(client, name, &successor),
                _ => take_place(client, name, &successor, server.version, force),
            });
            if taken.is_err() {
                // It is empty, and nobody would know what for. If this fails the next restore takes it away.
                let _ = client.batch(&format!("DROP DATABASE {}", quote(&successor)));
            }
            taken
        }
    }
}

fn rename(client: &mut Client, name: &str, successor: &str) -> Result<()> {
    client
        .batch(&format!("ALTER DATABASE {} RENAME TO {}", quote(successor), quote(name)))
        .with_context(|| format!("give database {} its name", quote(name)))
}

fn take_place(client: &mut Client, name: &str, successor: &str, version: u32, force: bool) -> Result<()> {
    // Our own sessions that have just been closed may not have ended yet.
    let patience = Instant::now() + LEAVING_MAX;
    let mut users = users(client, name)?;
    while !users.is_empty() && !force && Instant::now() < patience {
        std::thread::sleep(LEAVING_MAX / 20);
        users = self::users(client, name)?;
    }
    if !users.is_empty() && !force {
        let message = format!("database {} is in use by {}", quote(name), users.join(", "));
        return Err(Error::new(ErrorKind::Locked, message).with_hint(
            "stop what uses it; if it is another restore, wait for it; or end their connections with force",
        ));
    }
    if force && version < 130_000 {
        client.batch(&format!(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
             WHERE datname = {} AND pid <> pg_catalog.pg_backend_pid()",
            literal(name)
        ))?;
    }
    let with = if force && version >= 130_000 { " WITH (FORCE)" } else { "" };
    client
        .batch(&format!("DROP DATABASE IF EXISTS {}{with}", quote(name)))
        .with_context(|| format!("drop database {}", quote(name)))?;
    rename(client, name, successor)
}

/// Takes away a successor that a killed restore has left: it bears our mark, or nothing is in it yet. Any other is none
/// of ours.
fn remove_left_over(client: &mut Client, name: &str) -> Result<()> {
    let sql = format!(
        "SELECT pg_catalog.shobj_description(d.oid, 'pg_database') FROM pg_catalog.pg_database d WHERE d.datname = {}",
        literal(name)
    );
    let rows = client.query(&sql)?;
    let Some(row) = rows.get(0) else { return Ok(()) };
    let is_ours = match row.optional(0)? {
        Some(comment) => Mark::parse(comment).is_some(),
        None => is_empty(&client.conninfo().with_database(name))?,
    };
    if !is_ours {
        return Err(Error::new(ErrorKind::Conflict, format!("a database {} is in the way", quote(name))).with_hint(
            "it has the name that a new database bears until it takes the old one's place; rename or drop it",
        ));
    }
    client.batch(&format!("DROP DATABASE {}", quote(name))).context("drop what a killed restore has left")
}

fn is_empty(info: &Conninfo) -> Result<bool> {
    let mut client = session::connect(info)?;
    Ok(client.query(OBJECTS)?.is_empty())
}

fn successor(name: &str) -> String {
    let mut end = name.len().min(NAME_MAX - SUCCESSOR.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{SUCCESSOR}", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successors_name_fits() {
        assert_eq!(successor("shop"), "shop.lastgood-new");
        for name in ["x".repeat(63), "é".repeat(31)] {
            assert!(successor(&name).len() <= NAME_MAX && successor(&name).ends_with(SUCCESSOR));
        }
    }
}
