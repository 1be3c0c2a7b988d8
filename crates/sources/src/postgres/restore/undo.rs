//! What is done when a restore fails: a database that it made is marked, with what failed; what it added to a database
//! in use is taken away again.

use super::super::sql::{literal, quote, quote_in};
use super::super::wire::sqlstate;
use super::execute::Begun;
use super::making::{self, PREDECESSOR, Prepare, drop_subscriptions};
use super::mark::Mark;
use super::planning::DatabaseRestorePlan;
use super::{session, target, unfinished};
use lastgood_model::{Error, ErrorKind, Result};
use std::collections::BTreeSet;

/// Marks or undoes, and gives the error with what a person should do next.
pub(super) fn failed(plan: &DatabaseRestorePlan, begun: &Begun, error: Error) -> Error {
    let Some(place) = &begun.place else { return error };
    let name = quote(&plan.target.name);
    let act = format!("restore database {name}");
    let next = match plan.prepare {
        Prepare::Add if !begun.is_changed => {
            // It fails where it was never made.
            let _ = session::connect(&plan.info).and_then(|mut client| unfinished::end(&mut client, &begun.schema));
            format!("nothing was changed in {name}")
        }
        Prepare::Add => match take_away(plan, &begun.schema) {
            Ok(()) if !plan.emptied.is_empty() => format!(
                "what had been loaded into {name} was taken away again, and {} tables that --overwrite emptied are empty: \
                 run the same restore again once the cause is mended, or restore to another database",
                plan.emptied.len()
            ),
            Ok(()) => format!("what had been added to {name} was taken away again"),
            Err(trouble) => format!(
                "what had been added to {name} could not be taken away again ({}), and schema {} says so; {}",
                trouble.message(),
                quote(&begun.schema),
                leftovers(plan)
            ),
        },
        Prepare::Swap if begun.is_loaded && sqlstate(&error) == Some("55006") => stand_alone(plan, begun, place),
        // The last statement was done, and its answer never came.
        Prepare::Swap if begun.is_loaded && is_there(plan, place).is_ok_and(|is_there| !is_there) => format!(
            "all the same the new database is whole and has taken the place of {name}; the old one may be left as {}, \
             to be dropped",
            quote(&format!("{}{PREDECESSOR}", plan.target.name))
        ),
        Prepare::Swap => match drop_new(plan, place) {
            Ok(()) => format!("database {name} is as it was; what had been loaded beside it was dropped"),
            Err(trouble) => {
                let fate = if begun.is_loaded { "is as it was or replaced as a whole" } else { "is as it was" };
                format!(
                    "database {name} {fate}; what had been loaded beside it may be left ({}) as database {}, which the same \
                     restore drops when it is run again",
                    trouble.message(),
                    quote(place)
                )
            }
        },
        Prepare::Make | Prepare::Replace | Prepare::Use => {
            let told = Mark { failure: Some(format!("{error:?}")), ..begun.mark.clone() };
            let is_told =
                session::connect(&plan.info).and_then(|mut client| client.batch(&told.set(&plan.target.name)));
            let unsaid = if is_told.is_err() { ", though not why, as it could not be reached any more" } else { "" };
            let again = match plan.prepare {
                Prepare::Use => {
                    "it was there before, so nothing drops it without --overwrite, with which the same restore replaces it"
                }
                _ => "run the same restore again, which drops it and begins anew",
            };
            format!("database {name} is incomplete, and its comment says so{unsaid}; {again}")
        }
    };
    let hint = match error.hint() {
        Some(hint) => format!("{hint} — {next}"),
        None => next,
    };
    match error.kind() {
        ErrorKind::Cancelled => error.with_hint(hint),
        ErrorKind::Retry | ErrorKind::Corrupt | ErrorKind::NoSpace | ErrorKind::Denied | ErrorKind::Bug => {
            error.context(act).with_hint(hint)
        }
        ErrorKind::Locked if !begun.is_changed || begun.is_loaded => error.context(act).with_hint(hint),
        // What the server says of a statement is not what was wrong with the words or the place: something was done.
        _ => Error::new(ErrorKind::Io, act).with_source(error).with_hint(hint),
    }
}

/// Whether a database is there.
fn is_there(plan: &DatabaseRestorePlan, name: &str) -> Result<bool> {
    let mut client = session::connect(&target::beside(&plan.info)?)?;
    let sql = format!("SELECT FROM pg_catalog.pg_database WHERE datname = {}", literal(name));
    Ok(!client.query(&sql)?.is_empty())
}

/// Drops what was to take the place of another database.
fn drop_new(plan: &DatabaseRestorePlan, place: &str) -> Result<()> {
    drop_subscriptions(&plan.info.with_database(place))?;
    let mut client = session::connect(&target::beside(&plan.info)?)?;
    // Sessions of ours that were halted may still be ending.
    let force = if plan.server.version >= 130_000 { " WITH (FORCE)" } else { "" };
    client.batch(&format!("DROP DATABASE {}{force}", quote(place)))
}

/// The new database is whole, and the old one cannot be renamed: the new one stays beside it.
fn stand_alone(plan: &DatabaseRestorePlan, begun: &Begun, place: &str) -> String {
    let (name, shown) = (quote(&plan.target.name), quote(place));
    let done = target::beside(&plan.info).and_then(|info| {
        let statements = making::open(place, plan.creation.after(place, begun.mark.before.as_deref()));
        session::connect(&info)?.batch(&statements.join("; "))
    });
    match done {
        Ok(()) => format!(
            "database {name} is as it was, and the new one is complete beside it as {shown}; once nobody uses the old one: \
             ALTER DATABASE {name} RENAME TO {}; ALTER DATABASE {shown} RENAME TO {name}",
            quote(&format!("{}_before", plan.target.name))
        ),
        Err(trouble) => format!("database {name} is as it was; {shown} beside it is marked ({})", trouble.message()),
    }
}

/// What this restore alone can have put there: it was not there when the restore began.
fn take_away(plan: &DatabaseRestorePlan, schema: &str) -> Result<()> {
    debug_assert_eq!(plan.prepare, Prepare::Add);
    let mut client = session::connect(&plan.info)?;
    let statements = statements(plan);
    if !statements.is_empty() {
        match client.batch(&statements.join("; ")) {
            // Another table refers to them, with no row, as they were empty.
            Err(error) if plan.options.data_only && sqlstate(&error) == Some("0A000") => {
                if plan.server.may_replicate {
                    client.batch("SET session_replication_role = replica")?;
                }
                let tables = plan.places.iter().filter(|place| is_ours(plan, place.table));
                let deletes: Vec<String> =
                    tables.map(|p| format!("DELETE FROM ONLY {}", quote_in(&p.schema, &p.name))).collect();
                client.batch(&deletes.join("; "))?;
            }
            done => done?,
        }
    }
    unfinished::end(&mut client, schema)
}

/// Rows of an extension are there from its making.
fn is_ours(plan: &DatabaseRestorePlan, table: usize) -> bool {
    plan.saved.tables[table].extension.is_none()
}

fn statements(plan: &DatabaseRestorePlan) -> Vec<String> {
    if plan.options.data_only {
        let tables = plan.places.iter().filter(|place| is_ours(plan, place.table));
        let tables: Vec<String> = tables.map(|p| format!("ONLY {}", quote_in(&p.schema, &p.name))).collect();
        return if tables.is_empty() { Vec::new() } else { vec![format!("TRUNCATE {}", tables.join(", "))] };
    }
    let had = &plan.target.schemas;
    let schemas: BTreeSet<&String> = plan.plan.data.iter().map(|target| &target.schema).collect();
    let (old, new): (Vec<&String>, Vec<&String>) = schemas.into_iter().partition(|schema| had.contains(*schema));
    let mut out: Vec<String> =
        new.into_iter().map(|schema| format!("DROP SCHEMA IF EXISTS {} CASCADE", quote(schema))).collect();
    // Made for a new name, which the table gets last.
    let promised =
        plan.rename.as_ref().and_then(|rename| rename.schema.as_ref()).filter(|schema| !had.contains(*schema));
    out.extend(promised.map(|schema| format!("DROP SCHEMA IF EXISTS {}", quote(schema))));
    for target in plan.plan.data.iter().filter(|target| old.contains(&&target.schema) && !target.is_sequence) {
        out.push(format!("DROP TABLE IF EXISTS {} CASCADE", quote_in(&target.schema, &target.name)));
    }
    for target in plan.plan.data.iter().filter(|target| old.contains(&&target.schema) && target.is_sequence) {
        out.push(format!("DROP SEQUENCE IF EXISTS {} CASCADE", quote_in(&target.schema, &target.name)));
    }
    out
}

fn leftovers(plan: &DatabaseRestorePlan) -> String {
    let what = statements(plan);
    let some = what.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
    let more = if what.len() > 3 { "; …" } else { "" };
    format!("do so with: {some}{more}")
}
