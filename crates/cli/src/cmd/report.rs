//! What several commands say alike: a source in a line, problems, findings about damage.

use crate::output::Out;
use crate::text;
use lastgood_model::Result;
use lastgood_model::manifest::{Problem, ProblemKind, SourceOutcome, SourceRecord};
use lastgood_repo::check::Damage;
use serde_json::Value;

/// How many problems are told one by one.
pub(super) const TOLD_MAX: usize = 20;

/// Whether a source is in a recovery point, in a word.
pub(super) fn state(outcome: &SourceOutcome) -> &'static str {
    match outcome {
        SourceOutcome::Complete => "ok",
        SourceOutcome::Partial => "partial",
        SourceOutcome::Failed { .. } => "failed",
    }
}

/// What a source holds, such as `3 tables, 1,234 rows` or `120 files`.
pub(super) fn content(record: &SourceRecord) -> String {
    if let SourceOutcome::Failed { .. } = record.outcome {
        return "not in this recovery point".to_owned();
    }
    let database = match databases(record).as_slice() {
        [] => String::new(),
        [only] => format!("database {only}: "),
        all => format!("{}: ", text::counted(all.len() as u64, "database")),
    };
    if let Some((tables, rows)) = rows(record) {
        return format!("{database}{}, {}", text::counted(tables, "table"), text::counted(rows, "row"));
    }
    text::counted(record.entries, "file")
}

/// Names of the databases of a server that are in a recovery point.
pub(super) fn databases(record: &SourceRecord) -> Vec<&str> {
    let all = record.facts.get("databases").and_then(Value::as_array);
    all.into_iter().flatten().filter_map(|database| database.get("name")?.as_str()).collect()
}

/// Tables and rows of a database, or of all databases of a server.
pub(super) fn rows(record: &SourceRecord) -> Option<(u64, u64)> {
    if let Some(all) = record.facts.get("databases").and_then(Value::as_array) {
        let sum = |key: &str| all.iter().filter_map(|database| database.get(key)?.as_u64()).sum();
        return Some((sum("tables"), sum("rows")));
    }
    let rows = record.facts.get("rows")?.as_object()?;
    Some((rows.len() as u64, rows.values().filter_map(Value::as_u64).sum()))
}

/// The sources of a recovery point as a table, indented.
pub(super) fn sources(records: &[SourceRecord]) -> String {
    let rows = records
        .iter()
        .map(|record| {
            vec![
                format!("  {}", record.name),
                record.kind.clone(),
                state(&record.outcome).to_owned(),
                content(record),
                text::size(record.bytes),
                record.origins.join(", "),
            ]
        })
        .collect();
    crate::output::table(&[], rows, &[4])
}

/// Databases that were found inside file trees and captured as such.
pub(super) fn databases_inside(record: &SourceRecord) -> Vec<String> {
    match record.facts.get("sqlite_inside") {
        Some(Value::Object(found)) => found.keys().cloned().collect(),
        Some(Value::Array(found)) => found.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

/// Configured folders below which there was no file.
pub(super) fn folders_without_files(record: &SourceRecord) -> impl Iterator<Item = &str> {
    let paths = record.facts.get("without_files").and_then(Value::as_array);
    paths.into_iter().flatten().filter_map(serde_json::Value::as_str)
}

/// Where each database of a server was in its log, and other things worth knowing of it, a line each.
pub(super) fn of_databases(record: &SourceRecord) -> Vec<String> {
    let all = record.facts.get("databases").and_then(Value::as_array);
    let text_of = |database: &Value, key: &str| database.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut lines = Vec::new();
    for database in all.into_iter().flatten() {
        let name = text_of(database, "name").unwrap_or_default();
        let number = |key: &str| database.get(key).and_then(Value::as_u64).unwrap_or(0);
        let content = match number("tables_described") {
            0 => format!(
                "{}, {}, {}",
                text::counted(number("tables"), "table"),
                text::counted(number("rows"), "row"),
                text::size(number("bytes")),
            ),
            described => format!("{} without their rows", text::counted(described, "table")),
        };
        lines.push(format!(
            "[{}] database {name}: {content}, at {} of {}",
            record.name,
            text_of(database, "lsn").unwrap_or_else(|| "an unknown position".to_owned()),
            text_of(database, "snapshot_time").unwrap_or_else(|| "an unknown time".to_owned()),
        ));
        let remarks = database.get("remarks").and_then(Value::as_array);
        lines.extend(remarks.into_iter().flatten().filter_map(Value::as_str).map(|remark| format!("  {remark}")));
    }
    if !lines.is_empty() && record.facts.get("globals").and_then(Value::as_str) == Some("without-passwords") {
        lines.push(format!(
            "[{}] roles are kept without their passwords, which the capturing role may not read; set them anew after a restore",
            record.name
        ));
    }
    lines
}

/// Problems one by one, up to a bound; `all` says how to see the rest.
pub(super) fn problems(out: &Out, problems: &[Problem], total: u64, all: &str) -> Result<()> {
    for problem in problems.iter().take(TOLD_MAX) {
        let source = if problem.source.is_empty() { String::new() } else { format!("[{}] ", problem.source) };
        let what = match problem.what {
            ProblemKind::Changed => "changed while it was read",
            ProblemKind::Vanished => "vanished while it was read",
            ProblemKind::Unreadable => "could not be read",
            ProblemKind::Metadata => "metadata",
            ProblemKind::Unsupported => "not supported",
        };
        out.line(format!("  {source}{}: {what}: {}", problem.path, problem.message))?;
    }
    let told = problems.len().min(TOLD_MAX) as u64;
    if total > told {
        out.line(format!("  and {} more; {all}", text::count(total - told)))?;
    }
    Ok(())
}

/// Damage one by one: the object, what is wrong, which recovery points and paths cannot be restored because of it.
pub(super) fn damage(out: &Out, damage: &[Damage], total: u64) -> Result<()> {
    for finding in damage.iter().take(TOLD_MAX) {
        out.line(format!("damaged: {}: {}", finding.object, finding.message))?;
        if !finding.snapshots.is_empty() {
            let ids: Vec<String> = finding.snapshots.iter().take(8).map(|id| id.short()).collect();
            let more = match finding.snapshots.len().saturating_sub(ids.len()) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            out.line(format!("  cannot be restored in full: {}{more}", ids.join(", ")))?;
        }
        for path in finding.paths.iter().take(TOLD_MAX) {
            out.line(format!("  affected: {path}"))?;
        }
        let told = finding.paths.len().min(TOLD_MAX) as u64;
        if finding.paths_total > told {
            out.line(format!("  affected: {} more", text::counted(finding.paths_total - told, "path")))?;
        }
        if let Some(hint) = &finding.hint {
            out.line(format!("  next: {hint}"))?;
        }
    }
    let told = damage.len().min(TOLD_MAX) as u64;
    if total > told {
        out.line(format!("and {} more; --output json lists them all", text::counted(total - told, "finding")))?;
    }
    Ok(())
}
