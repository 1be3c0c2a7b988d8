//! How the database is brought to where the restore can begin, and how it comes to its name.
//!
//! Every new database is made under a name of its own, bears the mark before anything else, and takes no writes of others
//! until it is whole. Where there is none of its name it gets it at once. One that takes the place of another keeps the
//! other name until all is loaded and checked: then one transaction renames both, and the old one is dropped.
//!
//! What killed restores have left under such names is taken away only when it is provably theirs.

use super::super::conninfo::Conninfo;
use super::super::sql::{literal, quote};
use super::super::wire::{Client, sqlstate};
use super::creation::{self, Creation};
use super::mark::{self, Mark};
use super::session;
use super::target::{Server, is_empty, users};
use lastgood_model::{Context, Error, ErrorKind, Result};
use std::time::{Duration, Instant};

/// Names of PostgreSQL have at most so many bytes.
const NAME_MAX: usize = 63;
/// How long sessions may take to leave a database that is renamed or dropped.
const LEAVING_MAX: Duration = Duration::from_secs(2);
/// What a new database is called until it takes its place.
pub(in crate::postgres) const SUCCESSOR: &str = ".lastgood-new";
/// What the one that it replaces is called until it is dropped.
pub(super) const PREDECESSOR: &str = ".lastgood-old";
/// The limit of connections that a database is made with and has until it bears the mark: nobody else chooses it, and it
/// limits nothing.
const UNMARKED: u32 = 0x1a57_600d;
/// So many names are tried.
const NAMES_MAX: u32 = 100;
/// How often a database is renamed that others keep coming back to.
const SWAPS_MAX: u32 = 20;

/// What is to be done with the database before anything is put into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prepare {
    /// It is made.
    Make,
    /// It is there and holds nothing.
    Use,
    /// It is what a restore left that did not end: a new one takes its place at once.
    Replace,
    /// A new one takes its place at the end.
    Swap,
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
/// [`Prepare::Use`], else in another one. Gives the name under which it can be filled, and the mark it bears.
pub(super) fn prepare(
    client: &mut Client,
    name: &str,
    prepare: Prepare,
    making: &Making<'_>,
) -> Result<(String, Mark)> {
    let Making { server, creation, mark, force } = *making;
    match prepare {
        Prepare::Add => return Ok((name.to_owned(), mark.clone())),
        Prepare::Use => {
            client.batch(&mark.set(name)).with_context(|| format!("mark database {}", quote(name)))?;
            return Ok((name.to_owned(), mark.clone()));
        }
        Prepare::Make | Prepare::Replace | Prepare::Swap => {}
    }
    take_turn(client, name)?;
    let successor = free_name(client, name, SUCCESSOR)?;
    // What it remarks was told with the plan.
    let sql = creation.create(&successor, server.version, &server.tablespaces, &mut Vec::new())?;
    let sql = format!("{sql} CONNECTION LIMIT = {UNMARKED}");
    let made = match client.batch(&sql) {
        // What is to be replaced is half of a restore, and may be what fills the disk.
        Err(error) if prepare == Prepare::Replace && sqlstate(&error) == Some("53100") => {
            drop_left(client, name, server.version, force)?;
            client.batch(&sql)
        }
        made => made,
    };
    made.map_err(|error| explain_race(creation::explain(error, creation, name), name))?;
    let place = if prepare == Prepare::Swap { successor.as_str() } else { name };
    let made = make_ready(client, name, &successor, place, prepare == Prepare::Replace, mark, server, force);
    if made.is_err() {
        // It is empty, and nobody would know what for. If this fails the next restore takes it away.
        let _ = client.batch(&format!("DROP DATABASE {}", quote(&successor)));
    }
    made.map(|mark| (place.to_owned(), mark))
}

#[expect(clippy::too_many_arguments, reason = "one act in two statements")]
fn make_ready(
    client: &mut Client,
    name: &str,
    successor: &str,
    place: &str,
    is_replacing: bool,
    mark: &Mark,
    server: &Server,
    force: bool,
) -> Result<Mark> {
    let sql = format!(
        "SELECT {} FROM pg_catalog.pg_database d WHERE d.datname = {}",
        mark::identity(&format!("{}::pg_catalog.text", literal(place))),
        literal(successor)
    );
    let made = client.query(&sql)?.only()?.text(0)?.to_owned();
    let mark = Mark { made: Some(made), ..mark.clone() };
    if is_replacing {
        drop_left(client, name, server.version, force)?;
    }
    let quoted = quote(successor);
    let renaming = match place == successor {
        true => String::new(),
        false => format!("; ALTER DATABASE {quoted} RENAME TO {}", quote(place)),
    };
    // As one: under its own name none is ever seen without the mark.
    client
        .batch(&format!(
            "{}; ALTER DATABASE {quoted} SET default_transaction_read_only = on; \
             ALTER DATABASE {quoted} CONNECTION LIMIT -1{renaming}",
            mark.set(successor)
        ))
        .with_context(|| format!("mark database {}", quote(place)))
        .map_err(|error| explain_race(error, name))?;
    Ok(mark)
}

/// One restore at a time makes a database of this name, as long as `client` is connected.
fn take_turn(client: &mut Client, name: &str) -> Result<()> {
    let key = literal(&format!("lastgood restore {name}"));
    let sql = format!("SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended({key} COLLATE \"C\", 0))");
    if client.query(&sql)?.only()?.is_true(0)? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Locked, format!("another restore to database {} goes on", quote(name)))
        .with_hint("wait for it, or restore to a database of another name"))
}

/// Somebody else made a database of the name since it was looked.
fn explain_race(error: Error, name: &str) -> Error {
    match sqlstate(&error) {
        Some("42P04" | "23505") => Error::new(
            ErrorKind::Locked,
            format!("somebody else has made database {} meanwhile, or does so now", quote(name)),
        )
        .with_source(error)
        .with_hint("run the same command again: it looks what is there now"),
        _ => error,
    }
}

/// `name` with `suffix`, or with a number behind that where a database has the name that is not provably a restore's.
/// One that is, is taken away.
fn free_name(client: &mut Client, name: &str, suffix: &str) -> Result<String> {
    for number in 1..=NAMES_MAX {
        let suffix = if number == 1 { suffix.to_owned() } else { format!("{suffix}-{number}") };
        let candidate = beside_name(name, &suffix);
        match is_left_over(client, &candidate)? {
            None => return Ok(candidate),
            Some(true) => {
                let act = || format!("drop {}, which a killed restore has left", quote(&candidate));
                drop_subscriptions(&client.conninfo().with_database(&candidate)).with_context(act)?;
                client.batch(&format!("DROP DATABASE {}", quote(&candidate))).with_context(act)?;
                return Ok(candidate);
            }
            Some(false) => {}
        }
    }
    Err(Error::new(ErrorKind::Conflict, format!("all names like {} are taken", quote(&beside_name(name, suffix))))
        .with_hint("drop or rename these databases"))
}

/// Whether a database of this name is what a killed restore has left; `None` when there is none.
fn is_left_over(client: &mut Client, name: &str) -> Result<Option<bool>> {
    let sql = format!(
        "SELECT pg_catalog.shobj_description(d.oid, 'pg_database'), {}, d.datconnlimit::pg_catalog.int8 = {UNMARKED} \
         FROM pg_catalog.pg_database d WHERE d.datname = {}",
        mark::identity("d.datname::pg_catalog.text"),
        literal(name)
    );
    let rows = client.query(&sql)?;
    let Some(row) = rows.get(0) else { return Ok(None) };
    let identity = Some(row.text(1)?);
    let is_ours = match row.optional(0)? {
        Some(comment) => {
            let made = Mark::parse(comment).and_then(|mark| mark.made);
            identity == made.as_deref() || identity == mark::replaced_identity(comment)
        }
        None => row.is_true(2)? && is_empty(&client.conninfo().with_database(name))?,
    };
    Ok(Some(is_ours))
}

/// Drops what a restore has left under its own name.
fn drop_left(client: &mut Client, name: &str, version: u32, force: bool) -> Result<()> {
    // Our own sessions that have just been closed may not have ended yet.
    let patience = Instant::now() + LEAVING_MAX;
    let mut users = users(client, name)?;
    while !users.is_empty() && !force && Instant::now() < patience {
        std::thread::sleep(LEAVING_MAX / 20);
        users = super::target::users(client, name)?;
    }
    if !users.is_empty() && !force {
        let message = format!("database {} is in use by {}", quote(name), users.join(", "));
        return Err(Error::new(ErrorKind::Locked, message).with_hint(
            "stop what uses it; if it is another restore, wait for it; or end their connections with --force",
        ));
    }
    if force {
        throw_out(client, name)?;
    }
    drop_subscriptions(&client.conninfo().with_database(name))
        .with_context(|| format!("drop database {}", quote(name)))?;
    let with = if force && version >= 130_000 { " WITH (FORCE)" } else { "" };
    client
        .batch(&format!("DROP DATABASE IF EXISTS {}{with}", quote(name)))
        .with_context(|| format!("drop database {}", quote(name)))
}

/// Ends the sessions of others.
fn throw_out(client: &mut Client, name: &str) -> Result<()> {
    client
        .batch(&format!(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
             WHERE datname = {} AND pid <> pg_catalog.pg_backend_pid()",
            literal(name)
        ))
        .with_context(|| format!("end the connections to database {}", quote(name)))
}

/// Drops the subscriptions of a database that a restore has made. They have never reached a publisher, as they come back
/// disabled, and a database with one cannot be dropped.
pub(in crate::postgres) fn drop_subscriptions(info: &Conninfo) -> Result<()> {
    let mut client = session::connect(info)?;
    let mut names = Vec::new();
    client.for_each_row(
        "SELECT s.subname FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid \
         WHERE d.datname = pg_catalog.current_database()",
        |row| {
            names.push(quote(row.text(0)?));
            Ok(())
        },
    )?;
    if !names.is_empty() {
        // An event trigger in it has no say in that. Who may not switch them off may try without.
        let _ = client.batch("SET session_replication_role = replica");
        if client.server_version() >= 170_000 {
            let _ = client.batch("SET event_triggers = off");
        }
    }
    for name in names {
        client.batch(&format!(
            "ALTER SUBSCRIPTION {name} DISABLE; ALTER SUBSCRIPTION {name} SET (slot_name = NONE); \
             DROP SUBSCRIPTION {name}"
        ))?;
    }
    Ok(())
}

/// Takes the mark away, with all that is to be done with the database at the end: statements that belong together.
pub(super) fn open(name: &str, after: Vec<String>) -> Vec<String> {
    let mut out = vec![format!("ALTER DATABASE {} RESET default_transaction_read_only", quote(name))];
    out.extend(after);
    out
}

/// What becomes of the database that another takes the place of.
pub(super) struct Swap<'a> {
    pub(super) name: &'a str,
    pub(super) successor: &'a str,
    /// What belongs to the new database itself, under its own name.
    pub(super) after: Vec<String>,
    pub(super) recovery_point: &'a str,
    pub(super) force: bool,
}

/// Puts the successor in the place of the database, and drops that. Gives what a person should know.
///
/// # Errors
/// Nothing has changed then.
pub(super) fn swap(client: &mut Client, swap: Swap<'_>) -> Result<Vec<String>> {
    let Swap { name, successor, after, recovery_point, force } = swap;
    let old = free_name(client, name, PREDECESSOR)?;
    let sql = format!(
        "SELECT {} FROM pg_catalog.pg_database d WHERE d.datname = {}",
        mark::identity(&format!("{}::pg_catalog.text", literal(&old))),
        literal(name)
    );
    let identity = client.query(&sql)?.only()?.text(0)?.to_owned();
    let mut statements = vec![
        format!("ALTER DATABASE {} RENAME TO {}", quote(name), quote(&old)),
        mark::comment_on(&old, Some(&mark::replaced(recovery_point, &identity))),
        format!("ALTER DATABASE {} RENAME TO {}", quote(successor), quote(name)),
    ];
    statements.extend(open(name, after));
    client.batch("SET synchronous_commit = on")?;
    // The server itself waits some seconds for others to leave.
    let tries_max = if force { SWAPS_MAX } else { 2 };
    let mut tries = 1;
    loop {
        if force {
            throw_out(client, name)?;
        }
        // Both renames or neither: nobody ever finds no database of the name.
        match client.batch(&statements.join("; ")) {
            Err(error) if sqlstate(&error) == Some("55006") && tries < tries_max => tries += 1,
            Err(error) => return Err(error.context(format!("put the new database in the place of {}", quote(name)))),
            Ok(()) => break,
        }
    }
    let dropped = client.batch(&format!("DROP DATABASE {}", quote(&old)));
    Ok(dropped.err().into_iter().map(|error| format!("the old database is still there: {}", error.chain())).collect())
}

fn beside_name(name: &str, suffix: &str) -> String {
    let mut end = name.len().min(NAME_MAX - suffix.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successors_name_fits() {
        assert_eq!(beside_name("shop", SUCCESSOR), "shop.lastgood-new");
        for name in ["x".repeat(63), "é".repeat(31)] {
            let beside = beside_name(&name, ".lastgood-new-2");
            assert!(beside.len() <= NAME_MAX && beside.ends_with(".lastgood-new-2"));
        }
    }
}
