//! The server and the database that a restore goes to: what is there.

use super::super::catalog;
use super::super::conninfo::Conninfo;
use super::super::sql::{literal, quote};
use super::super::wire::{Client, Row, sqlstate};
use super::mark::{self, Mark};
use super::session;
use lastgood_model::{Context, Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};

/// How many things in an occupied database are named.
const NAMED_MAX: usize = 5;

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
    /// Roles to whom the one that is connected may give things: those it can become.
    pub(super) may_become: BTreeSet<String>,
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
    /// It says that it holds what a restore left that did not end. Why it could be somebody's all the same, as far as
    /// the server tells: it may only be taken away when there is nothing of that.
    Ours(Mark, Option<String>),
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
    /// Room that it takes, in bytes.
    pub(super) bytes: u64,
    /// What keeps it from being renamed and dropped: the fact, and what to do.
    pub(super) ties: Vec<(String, String)>,
    /// Logical replication slots that go with it.
    pub(super) slots: Vec<String>,
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
        bytes: 0,
        ties: Vec::new(),
        slots: Vec::new(),
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
    catalog::understand_names(&mut client)?;
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
    let how = if server.version >= 160_000 { "SET" } else { "MEMBER" };
    let sql = format!("SELECT rolname FROM pg_catalog.pg_roles WHERE pg_catalog.pg_has_role(oid, '{how}')");
    client.for_each_row(&sql, |row| {
        server.may_become.insert(row.text(0)?.to_owned());
        Ok(())
    })?;
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
    let rows = client.query(&format!(
        "SELECT pg_catalog.shobj_description(d.oid, 'pg_database'), pg_catalog.pg_encoding_to_char(d.encoding), \
           (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata), \
           pg_catalog.pg_database_size(d.oid), {}, pg_catalog.pg_has_role(d.datdba, 'USAGE'), d.datistemplate \
         FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()",
        mark::identity("d.datname::pg_catalog.text")
    ))?;
    let row = rows.only()?;
    target.comment = row.optional(0)?.map(str::to_owned);
    target.encoding = Some(row.text(1)?.to_owned());
    target.large_objects = row.parse(2)?;
    target.bytes = row.parse(3)?;
    let identity = row.text(4)?.to_owned();
    let name = quote(&target.name);
    if !row.is_true(5)? {
        target.ties.push((
            format!("database {name} belongs to somebody else, who alone may have it replaced"),
            "restore as its owner or a superuser, or to a database of another name".to_owned(),
        ));
    }
    if row.is_true(6)? {
        let done = format!("run: ALTER DATABASE {name} IS_TEMPLATE false");
        target.ties.push((format!("database {name} is a template, which cannot be dropped"), done));
    }
    client.for_each_row("SELECT nspname FROM pg_catalog.pg_namespace", |row| {
        target.schemas.insert(row.text(0)?.to_owned());
        Ok(())
    })?;
    target.users = users(client, &target.name)?;
    look_at_ties(client, target)?;
    target.state = match target.comment.as_deref().and_then(Mark::parse) {
        Some(mark) => {
            let doubt = match &mark.made {
                Some(made) if *made == identity => None,
                Some(_) => Some("it is not the database that the restore made".to_owned()),
                None => Some("the restore did not make it".to_owned()),
            };
            State::Ours(mark, doubt)
        }
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

/// What would keep the database from being renamed, or dropped after that: it must show before hours of loading.
fn look_at_ties(client: &mut Client, target: &mut Target) -> Result<()> {
    let name = quote(&target.name);
    let ties = &mut target.ties;
    let subscriptions = "SELECT s.subname, s.subslotname FROM pg_catalog.pg_subscription s \
         JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = pg_catalog.current_database() ORDER BY 1";
    let columns = "SELECT pg_catalog.has_column_privilege('pg_catalog.pg_subscription', 'subslotname', 'SELECT')";
    let mut found = Vec::new();
    if client.query(columns)?.only()?.is_true(0)? {
        client.for_each_row(subscriptions, |row| {
            found.push((row.text(0)?.to_owned(), row.optional(1)?.map(str::to_owned)));
            Ok(())
        })?;
    }
    for (subscription, slot) in found {
        let shown = quote(&subscription);
        let slot = match slot {
            Some(slot) => format!(", and on its publisher: SELECT pg_drop_replication_slot({})", literal(&slot).trim()),
            None => String::new(),
        };
        ties.push((
            format!("database {name} has the subscription {shown}, with which it cannot be dropped"),
            format!(
                "run there: ALTER SUBSCRIPTION {shown} DISABLE; ALTER SUBSCRIPTION {shown} SET (slot_name = NONE); \
                 DROP SUBSCRIPTION {shown}{slot}"
            ),
        ));
    }
    let slots = &mut target.slots;
    client.for_each_row(
        "SELECT slot_name, active FROM pg_catalog.pg_replication_slots \
         WHERE database = pg_catalog.current_database() ORDER BY 1",
        |row| {
            let slot = row.text(0)?;
            slots.push(slot.to_owned());
            if row.is_true(1)? {
                let message = format!("database {name} has the replication slot {}, which is in use", quote(slot));
                ties.push((message, "stop whoever reads from it".to_owned()));
            }
            Ok(())
        },
    )?;
    client.for_each_row(
        "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() ORDER BY 1",
        |row| {
            let shown = literal(row.text(0)?);
            let shown = shown.trim();
            let message = format!("database {name} has the prepared transaction {shown}");
            ties.push((message, format!("run there: COMMIT PREPARED {shown}, or ROLLBACK PREPARED {shown}")));
            Ok(())
        },
    )
}

/// Something in the database that none of these relations is, as `schema.name`: somebody else has put it there.
pub(super) fn stranger(info: &Conninfo, known: &BTreeSet<(&str, &str)>) -> Result<Option<String>> {
    let mut client = session::connect(info)?;
    let mut found = None;
    client
        .for_each_row(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_' \
               AND n.nspname !~ '^lastgood_[0-9]+_*$' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
                 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')",
            |row| {
                let (schema, name) = (row.text(0)?, row.text(1)?);
                if found.is_none() && !known.contains(&(schema, name)) {
                    found = Some(format!("{schema}.{name}"));
                }
                Ok(())
            },
        )
        .context("look for what others have added")?;
    Ok(found)
}

/// Nothing that somebody made is in this database.
pub(super) fn is_empty(info: &Conninfo) -> Result<bool> {
    let mut client = session::connect(info)?;
    Ok(client.query(OBJECTS)?.is_empty())
}

/// Who is connected to a database beside ourselves.
pub(super) fn users(client: &mut Client, name: &str) -> Result<Vec<String>> {
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
