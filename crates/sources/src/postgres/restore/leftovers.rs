//! What restores and proofs that were killed have left on a server, for a person to be told of. Changes nothing.

use super::super::conninfo::Conninfo;
use super::super::sql::quote;
use super::super::wire::Client;
use super::making::{PREDECESSOR, SUCCESSOR};
use super::mark::{self, Mark};
use super::{session, unfinished};
use crate::postgres::SCRATCH_PREFIX;
use lastgood_model::{Context, Result};

/// Something that was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// What, and where from.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

/// Looks at all databases of the server by their names and comments, and into the database that `info` names.
///
/// # Errors
/// Those of the connection.
pub fn leftovers(info: &Conninfo) -> Result<Vec<Leftover>> {
    const ACT: &str = "look for what killed restores have left";
    let mut client = session::connect(info)?;
    let mut out = databases(&mut client).context(ACT)?;
    // A standby takes no locks, and cannot tell who lives.
    if client.query("SELECT pg_catalog.pg_is_in_recovery()")?.only()?.is_true(0)? {
        return Ok(out);
    }
    let name = quote(info.database());
    let others = unfinished::look(&mut client).context(ACT)?;
    out.extend(others.left.into_iter().map(|left| Leftover {
        what: format!("database {name} has what a restore has left that was killed: {}", left.told),
        hint: "run the same restore again: it takes that away first".to_owned(),
    }));
    out.extend(others.told.into_iter().map(|told| Leftover {
        what: format!("database {name}: {told}"),
        hint: "restore what it names again, or drop it; then drop the schema".to_owned(),
    }));
    Ok(out)
}

fn databases(client: &mut Client) -> Result<Vec<Leftover>> {
    let sql = format!(
        "SELECT d.datname, pg_catalog.shobj_description(d.oid, 'pg_database'), \
           EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datname = d.datname \
             AND a.pid <> pg_catalog.pg_backend_pid() OR a.application_name = d.datname::pg_catalog.text), \
           d.datname ~ '^{SCRATCH_PREFIX}[0-9a-f]{{16}}$', \
           d.datname ~ '[.]lastgood-(new|old)(-[0-9]+)?$' \
         FROM pg_catalog.pg_database d WHERE NOT d.datistemplate ORDER BY 1"
    );
    debug_assert!(SUCCESSOR == ".lastgood-new" && PREDECESSOR == ".lastgood-old");
    let mut out = Vec::new();
    client.for_each_row(&sql, |row| {
        let name = quote(row.text(0)?);
        let comment = row.optional(1)?.unwrap_or_default();
        let drop = format!("when nobody needs it: DROP DATABASE {name}");
        let found = match Mark::parse(comment) {
            // At work.
            _ if row.is_true(2)? => None,
            Some(mark) if row.is_true(4)? => Some((
                format!("database {name} holds {}", mark.shown()),
                format!("the next such restore drops it; {drop}"),
            )),
            Some(mark) => Some((
                format!("database {name} is not complete: it holds {}", mark.shown()),
                format!("run the same restore again; {drop}"),
            )),
            None if mark::replaced_identity(comment).is_some() => {
                Some((format!("database {name} was replaced by a restore and is still there"), drop))
            }
            None if row.is_true(3)? => Some((
                format!("database {name} was left by a proof that was killed"),
                format!("the next proof on this server drops it; {drop}"),
            )),
            None if row.is_true(4)? => {
                Some((format!("database {name} has the name that a restore gives to a database for a while"), drop))
            }
            None => None,
        };
        out.extend(found.map(|(what, hint)| Leftover { what, hint }));
        Ok(())
    })?;
    Ok(out)
}
