//! `diff --source` of a PostgreSQL source: tables with their rows, and what else its schema has.

use super::letter;
use crate::args::Diff;
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::output::{json, object};
use crate::run::Run;
use crate::text;
use lastgood_model::{Error, ErrorKind, Result};
use lastgood_ops::diff::Change;
use lastgood_ops::diff_tables::{TableDifference, diff_tables};
use lastgood_ops::restore_server::open_source;
use lastgood_repo::{BlobReader, Snapshot};
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::Arc;

/// What it comes to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Totals {
    tables_added: u64,
    tables_removed: u64,
    tables_changed: u64,
    others: u64,
}

pub(super) fn run(
    run: &Run,
    args: &Diff,
    reader: &Arc<BlobReader>,
    source: &str,
    (old, new): (&Snapshot, &Snapshot),
) -> Outcome {
    let monitor = run.monitor();
    let folders = (open_source(reader, old, source, &monitor)?, open_source(reader, new, source, &monitor)?);
    let head = object([("old", json(&old.id)), ("new", json(&new.id)), ("source", source.into())]);
    let mut list = run.out.list("lastgood.table-diff", "lastgood.table-difference", "differences", head)?;
    let mut totals = Totals::default();
    let mut tell = |difference: TableDifference| -> Result<()> {
        totals.count(&difference);
        if run.out.is_closed() {
            return Err(Error::new(ErrorKind::Cancelled, "standard output was closed"));
        }
        if args.stat {
            return Ok(());
        }
        list.item(|| fields(&difference), || Some(line(&difference)))
    };
    let walked = diff_tables(&folders.0, &folders.1, &monitor, &mut tell);
    if !run.out.is_closed() {
        walked?;
    }
    list.end(object([("totals", json(&totals))]))?;
    if run.out.is_human() {
        run.out.line(totals.line())?;
    }
    Ok(ExitCode::Ok)
}

fn is_table(difference: &TableDifference) -> bool {
    difference.rows.is_some() || difference.rows_before.is_some() || difference.what.ends_with("table")
}

fn line(difference: &TableDifference) -> String {
    let rows = match (difference.rows_before, difference.rows) {
        (Some(before), Some(now)) if before != now => {
            format!("  ({} -> {})", text::count(before), text::counted(now, "row"))
        }
        (Some(_), Some(now)) if difference.change == Change::Modified => {
            format!("  ({} with other content)", text::counted(now, "row"))
        }
        (_, Some(rows)) | (Some(rows), None) => format!("  ({})", text::counted(rows, "row")),
        (None, None) => String::new(),
    };
    let before = difference.name_before.as_ref().map(|name| format!("  (was {name})")).unwrap_or_default();
    let database = if difference.database.is_empty() { String::new() } else { format!("{}: ", difference.database) };
    format!("{}  {database}{} {}{rows}{before}", letter(difference.change), difference.what, difference.name)
        .trim_end()
        .to_owned()
}

fn fields(difference: &TableDifference) -> Map<String, Value> {
    match json(difference) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

impl Totals {
    fn count(&mut self, difference: &TableDifference) {
        let counter = match (is_table(difference), difference.change) {
            (true, Change::Added) => &mut self.tables_added,
            (true, Change::Removed) => &mut self.tables_removed,
            (true, _) => &mut self.tables_changed,
            (false, _) => &mut self.others,
        };
        *counter += 1;
    }

    fn line(self) -> String {
        format!(
            "{} added, {} removed, {} changed; {} in the schema and beside it",
            text::counted(self.tables_added, "table"),
            text::count(self.tables_removed),
            text::count(self.tables_changed),
            text::counted(self.others, "other difference")
        )
    }
}
