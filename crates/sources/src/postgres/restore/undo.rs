//! What is done when a restore fails: a database that it made is marked, with what failed; what it added to a database
//! in use is taken away again.

use super::super::sql::{quote, quote_in};
use super::mark::Mark;
use super::planning::DatabaseRestorePlan;
use super::session;
use super::target::Prepare;
use super::unfinished;
use lastgood_model::{Error, ErrorKind, Result};
use std::collections::BTreeSet;

/// Marks or undoes, and gives the error with what a person should do next. `is_begun`: something was changed.
pub(super) fn failed(plan: &DatabaseRestorePlan, mark: &Mark, schema: &str, error: Error, is_begun: bool) -> Error {
    if !is_begun {
        return error;
    }
    let name = quote(&plan.target.name);
    let act = format!("restore database {name}");
    let next = if plan.is_addition() {
        match take_away(plan, schema) {
            Ok(()) => format!("what had been added to {name} was taken away again"),
            Err(trouble) => format!(
                "what had been added to {name} could not be taken away again ({}), and schema {} says so; {}",
                trouble.message(),
                quote(schema),
                leftovers(plan)
            ),
        }
    } else {
        let told = Mark { failure: Some(format!("{:?}", error)), ..mark.clone() };
        let is_told = session::connect(&plan.info).and_then(|mut client| client.batch(&told.set(&plan.target.name)));
        let unsaid = if is_told.is_err() { ", though not why, as it could not be reached any more" } else { "" };
        format!(
            "database {name} is incomplete, and its comment says so{unsaid}; once the cause is mended, run the same restore \
             again: it drops this database and begins anew"
        )
    };
    let hint = match error.hint() {
        Some(hint) => format!("{hint} — {next}"),
        None => next,
    };
    let kind = error.kind();
    match kind {
        ErrorKind::Cancelled => error.with_hint(hint),
        _ => error.context(act).with_hint(hint),
    }
}

/// What this restore alone can have put there: it was not there when the restore began.
fn take_away(plan: &DatabaseRestorePlan, schema: &str) -> Result<()> {
    debug_assert_eq!(plan.prepare, Prepare::Add);
    let mut client = session::connect(&plan.info)?;
    let statements = statements(plan);
    if !statements.is_empty() {
        client.batch(&statements.join("; "))?;
    }
    unfinished::end(&mut client, schema)
}

fn statements(plan: &DatabaseRestorePlan) -> Vec<String> {
    if plan.options.data_only {
        let is_ours = |table: usize| plan.saved.tables[table].extension.is_none();
        let tables = plan.places.iter().filter(|place| is_ours(place.table));
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
