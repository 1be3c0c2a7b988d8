//! The mark of an unfinished addition to a database in use: an empty schema whose name says so, and whose comment tells
//! what is not complete.
//!
//! There the comment on the database is not ours to change. The schema is made before anything is added, and dropped
//! after the last change or when all of it was taken away again. So what a killed restore has left is not taken for the
//! whole: people see the schema, and the next restore tells of it.

use super::super::sql::{literal, quote};
use super::super::wire::{Client, sqlstate};
use super::planning::{DatabaseRestorePlan, shown};
use super::session::Sessions;
use lastgood_model::{Context, Error, ErrorKind, Result};
use std::fmt::Write;

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

/// Makes the mark. Who may make no schema in the database goes without, which is noted.
pub(super) fn begin(client: &mut Client, plan: &DatabaseRestorePlan, mark: &str, sessions: &Sessions) -> Result<()> {
    let mut what: Vec<String> = plan.places.iter().map(|place| shown(&place.schema, &place.name)).collect();
    if what.len() > NAMED_MAX {
        let more = what.split_off(NAMED_MAX).len();
        what.push(format!("and {more} more"));
    }
    let comment = format!(
        "lastgood: restore of {} is under way or did not end; not complete: {}",
        plan.options.recovery_point,
        what.join(", ")
    );
    let made = client.batch(&format!(
        "CREATE SCHEMA {}; COMMENT ON SCHEMA {} IS {}",
        quote(mark),
        quote(mark),
        literal(&comment)
    ));
    match made {
        Err(error) if sqlstate(&error) == Some("42501") => {
            sessions.note("the role may make no schema: if this restore is killed, nothing will tell of it".to_owned());
            Ok(())
        }
        made => made.context("mark what is added as unfinished"),
    }
}

/// Takes the mark away.
pub(super) fn end(client: &mut Client, mark: &str) -> Result<()> {
    client.batch(&format!("DROP SCHEMA IF EXISTS {}", quote(mark))).context("take the mark of the unfinished away")
}

/// What others have left, for people.
pub(super) fn found(client: &mut Client) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT nspname, pg_catalog.obj_description(oid, 'pg_namespace') FROM pg_catalog.pg_namespace \
         WHERE nspname OPERATOR(pg_catalog.~) '^{PREFIX}[0-9a-f]{{8}}$' ORDER BY 1"
    );
    let mut out = Vec::new();
    client.for_each_row(&sql, |row| {
        let told = row.optional(1)?.unwrap_or("not complete: it is not told what");
        out.push(format!("schema {}: {told}", quote(row.text(0)?)));
        Ok(())
    })?;
    Ok(out)
}
