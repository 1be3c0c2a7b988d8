//! The mark of an unfinished addition to a database in use: an empty schema whose name says so, and whose comment tells
//! what is not complete.
//!
//! There the comment on the database is not ours to change. The schema is made before anything is added, and dropped
//! after the last change or when all of it was taken away again. As long as the restore lives it holds an advisory lock
//! with the schema's number. So what a killed one has left is not taken for the whole, and the next restore takes it
//! away: the comment tells what was made, by number as soon as it is there, so that nothing else is taken for it.

use super::super::sql::{literal, quote, quote_in};
use super::super::wire::{Client, sqlstate};
use super::planning::{DatabaseRestorePlan, shown};
use super::session::Sessions;
use lastgood_model::{Context, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write;

/// With the schema's number, the key of the lock that a living restore holds.
const LOCKS: i32 = 0x1a57_600d;
/// What follows in the comment is for the next restore.
const RECORD: &str = "\nrecord: ";
/// How the names of such schemas begin; eight hexadecimal digits follow.
pub(super) const PREFIX: &str = "lastgood unfinished ";
/// How many things are named.
const NAMED_MAX: usize = 20;

/// A name that no other restore uses.
pub(super) fn name() -> Result<String> {
    let mut random = [0; 4];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Error::new(ErrorKind::Bug, "the system gives no random bytes"))?;
    let mut name = PREFIX.to_owned();
    for byte in random {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    Ok(name)
}

/// What a restore adds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Schemas that it makes, with their numbers once they are there.
    schemas: Vec<(String, Option<u32>)>,
    /// Tables and the like that it makes in schemas that were there.
    relations: Vec<(String, String, Option<u32>)>,
    /// Tables that were empty, and into which it loads rows.
    rows: Vec<(String, String)>,
}

impl Record {
    fn of(plan: &DatabaseRestorePlan) -> Self {
        if plan.options.data_only {
            let ours = plan.places.iter().filter(|place| plan.saved.tables[place.table].extension.is_none());
            let rows = ours.map(|place| (place.schema.clone(), place.name.clone())).collect();
            return Self { rows, ..Self::default() };
        }
        let had = &plan.target.schemas;
        let mut schemas: BTreeSet<&String> =
            plan.plan.data.iter().map(|target| &target.schema).filter(|schema| !had.contains(*schema)).collect();
        let promised = plan.rename.as_ref().and_then(|rename| rename.schema.as_ref());
        schemas.extend(promised.filter(|schema| !had.contains(*schema)));
        let relations = plan.plan.data.iter().filter(|target| had.contains(&target.schema));
        Self {
            schemas: schemas.into_iter().map(|schema| (schema.clone(), None)).collect(),
            relations: relations.map(|target| (target.schema.clone(), target.name.clone(), None)).collect(),
            rows: Vec::new(),
        }
    }

    fn names(&self) -> Vec<String> {
        let schemas = self.schemas.iter().map(|(name, _)| format!("schema {}", quote(name)));
        let relations = self.relations.iter().map(|(schema, name, _)| shown(schema, name));
        let rows = self.rows.iter().map(|(schema, name)| format!("rows of {}", shown(schema, name)));
        schemas.chain(relations).chain(rows).collect()
    }
}

fn comment(plan: &DatabaseRestorePlan, record: &Record) -> String {
    let mut what: Vec<String> = plan.places.iter().map(|place| shown(&place.schema, &place.name)).collect();
    if what.len() > NAMED_MAX {
        let more = what.split_off(NAMED_MAX).len();
        what.push(format!("and {more} more"));
    }
    format!(
        "lastgood: restore of {} is under way or did not end; not complete: {}{RECORD}{}",
        plan.options.recovery_point,
        what.join(", "),
        serde_json::to_string(record).unwrap_or_default()
    )
}

fn number(mark: &str) -> Option<i32> {
    u32::from_str_radix(mark.strip_prefix(PREFIX)?, 16).ok().map(u32::cast_signed)
}

/// Makes the mark. Who may make no schema in the database goes without, which is noted.
pub(super) fn begin(client: &mut Client, plan: &DatabaseRestorePlan, mark: &str, sessions: &Sessions) -> Result<()> {
    if let Some(number) = number(mark) {
        client.batch(&format!("SELECT pg_catalog.pg_advisory_lock({LOCKS}, {number})"))?;
    }
    let made = client.batch(&format!(
        "CREATE SCHEMA {}; COMMENT ON SCHEMA {} IS {}",
        quote(mark),
        quote(mark),
        literal(&comment(plan, &Record::of(plan)))
    ));
    match made {
        Err(error) if sqlstate(&error) == Some("42501") => {
            sessions.note("the role may make no schema: if this restore is killed, nothing will tell of it".to_owned());
            Ok(())
        }
        made => made.context("mark what is added as unfinished"),
    }
}

/// Writes down the numbers of what was made, before any row is in it.
pub(super) fn made(client: &mut Client, plan: &DatabaseRestorePlan, mark: &str) -> Result<()> {
    let mut record = Record::of(plan);
    if record.schemas.is_empty() && record.relations.is_empty() || oid_of_schema(client, mark)?.is_none() {
        return Ok(());
    }
    for (name, oid) in &mut record.schemas {
        *oid = oid_of_schema(client, name)?;
    }
    for (schema, name, oid) in &mut record.relations {
        *oid = oid_of_relation(client, schema, name)?;
    }
    client
        .batch(&format!("COMMENT ON SCHEMA {} IS {}", quote(mark), literal(&comment(plan, &record))))
        .context("mark what is added as unfinished")
}

fn oid_of_schema(client: &mut Client, name: &str) -> Result<Option<u32>> {
    let rows = client.query(&format!("SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {}", literal(name)))?;
    rows.get(0).map(|row| row.parse(0)).transpose()
}

fn oid_of_relation(client: &mut Client, schema: &str, name: &str) -> Result<Option<u32>> {
    let sql = format!("SELECT pg_catalog.to_regclass({})::pg_catalog.oid", literal(&quote_in(schema, name)));
    let rows = client.query(&sql)?;
    rows.only()?.optional(0)?.map(|text| text.parse().map_err(|_| Error::corrupt("the server's numbers"))).transpose()
}

fn is_sequence(client: &mut Client, schema: &str, name: &str) -> Result<bool> {
    let sql = format!(
        "SELECT FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass({})::pg_catalog.oid AND relkind = 'S'",
        literal(&quote_in(schema, name))
    );
    Ok(!client.query(&sql)?.is_empty())
}

fn is_empty(client: &mut Client, schema: &str, name: &str) -> Result<bool> {
    Ok(client.query(&format!("SELECT FROM ONLY {} LIMIT 1", quote_in(schema, name)))?.is_empty())
}

/// What a killed restore has left in a database.
#[derive(Clone, Debug, Default)]
pub(super) struct Left {
    mark: String,
    /// For people.
    pub(super) told: String,
    pub(super) schemas: Vec<String>,
    pub(super) relations: Vec<(String, String)>,
    rows: Vec<(String, String)>,
}

impl Left {
    /// Whether nothing of it is there any more once `emptied` are: tables, as `"schema"."name"`.
    pub(super) fn is_gone(&self, client: &mut Client, emptied: &[String]) -> Result<bool> {
        for (schema, name) in &self.rows {
            let is_there = oid_of_relation(client, schema, name)?.is_some();
            if is_there && !emptied.contains(&quote_in(schema, name)) && !is_empty(client, schema, name)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes it away, all or nothing.
    pub(super) fn clear(&self, client: &mut Client) -> Result<()> {
        let mut statements: Vec<String> =
            self.schemas.iter().map(|schema| format!("DROP SCHEMA IF EXISTS {} CASCADE", quote(schema))).collect();
        for (kind, letters) in [("TABLE", "'r', 'p'"), ("SEQUENCE", "'S'")] {
            let mut names = Vec::new();
            for (schema, name) in &self.relations {
                let sql = format!(
                    "SELECT FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass({})::pg_catalog.oid \
                     AND relkind IN ({letters})",
                    literal(&quote_in(schema, name))
                );
                if !client.query(&sql)?.is_empty() {
                    names.push(quote_in(schema, name));
                }
            }
            // With a table those sequences go that belong to it. What others have made of them stands in the way.
            if !names.is_empty() {
                statements.push(format!("DROP {kind} IF EXISTS {}", names.join(", ")));
            }
        }
        statements.push(format!("DROP SCHEMA IF EXISTS {}", quote(&self.mark)));
        client
            .batch(&statements.join("; "))
            .with_context(|| format!("take away what a restore has left that was killed, {}", statements.join("; ")))
    }
}

/// What was found of other restores in a database.
#[derive(Clone, Debug, Default)]
pub(super) struct Others {
    /// What killed ones have left, and the next may take away.
    pub(super) left: Vec<Left>,
    /// What a person has to know or do, of others.
    pub(super) told: Vec<String>,
}

/// Looks for what other restores have left or do.
pub(super) fn look(client: &mut Client) -> Result<Others> {
    let sql = format!(
        "SELECT nspname, pg_catalog.obj_description(oid, 'pg_namespace'), \
           pg_catalog.pg_has_role(nspowner, 'USAGE') FROM pg_catalog.pg_namespace \
         WHERE nspname OPERATOR(pg_catalog.~) '^{PREFIX}[0-9a-f]{{8}}$' ORDER BY 1"
    );
    let mut found = Vec::new();
    client.for_each_row(&sql, |row| {
        found.push((row.text(0)?.to_owned(), row.optional(1)?.map(str::to_owned), row.is_true(2)?));
        Ok(())
    })?;
    let mut out = Others::default();
    for (mark, comment, is_mine) in found {
        let comment = comment.unwrap_or_else(|| "not complete: it is not told what".to_owned());
        let (told, record) = comment.split_once(RECORD).unwrap_or((&comment, ""));
        let shown = format!("schema {}: {told}", quote(&mark));
        let lock = number(&mark).map(|number| format!("({LOCKS}, {number})")).unwrap_or_default();
        let is_dead = client.query(&format!("SELECT pg_catalog.pg_try_advisory_lock{lock}"))?.only()?.is_true(0)?;
        if !is_dead {
            out.told.push(format!("another restore goes on ({shown}); wait for it"));
            continue;
        }
        client.batch(&format!("SELECT pg_catalog.pg_advisory_unlock{lock}"))?;
        let record = serde_json::from_str::<Record>(record).ok().filter(|_| is_mine);
        let left = match record {
            Some(record) => provable(client, &mark, &record)?,
            None => None,
        };
        match left {
            Some(left) => out.left.push(left),
            None => {
                out.told.push(format!("another restore was killed ({shown}); drop what it names, and then that schema"))
            }
        }
    }
    Ok(out)
}

/// What of a record is there and can be nobody else's; `None` when something could be.
fn provable(client: &mut Client, mark: &str, record: &Record) -> Result<Option<Left>> {
    let mut left = Left { mark: mark.to_owned(), rows: record.rows.clone(), ..Left::default() };
    for (name, oid) in &record.schemas {
        match (oid_of_schema(client, name)?, oid) {
            (None, _) => {}
            (Some(is), Some(was)) if is == *was => left.schemas.push(name.clone()),
            (Some(_), _) => {
                // Killed before the number was written down: no row was in it yet.
                let mut inside = Vec::new();
                let sql = format!(
                    "SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
                     ON n.oid = c.relnamespace WHERE n.nspname = {} AND c.relkind IN ('r', 'm', 'f')",
                    literal(name)
                );
                client.for_each_row(&sql, |row| {
                    inside.push(row.text(0)?.to_owned());
                    Ok(())
                })?;
                for table in inside {
                    if !is_empty(client, name, &table)? {
                        return Ok(None);
                    }
                }
                left.schemas.push(name.clone());
            }
        }
    }
    for (schema, name, oid) in &record.relations {
        match (oid_of_relation(client, schema, name)?, oid) {
            (None, _) => {}
            (Some(is), Some(was)) if is == *was => left.relations.push((schema.clone(), name.clone())),
            (Some(_), None) if is_sequence(client, schema, name)? || is_empty(client, schema, name)? => {
                left.relations.push((schema.clone(), name.clone()))
            }
            (Some(_), _) => return Ok(None),
        }
    }
    left.told = record.names().join(", ");
    Ok(Some(left))
}

/// Takes the mark away.
pub(super) fn end(client: &mut Client, mark: &str) -> Result<()> {
    client.batch(&format!("DROP SCHEMA IF EXISTS {}", quote(mark))).context("take the mark of the unfinished away")
}
