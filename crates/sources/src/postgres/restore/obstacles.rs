//! What stands in the way of a restore, found before anything is changed: all of it at once, so that a person needs not
//! find one after another.

use super::super::sql::{literal, quote, quote_in};
use super::super::toc::Text;
use super::super::wire::Client;
use super::making::Prepare;
use super::planning::{DatabaseRestorePlan, shown, version_of};
use super::session;
use super::summary::{Obstacle, ObstacleKind};
use super::target::State;
use lastgood_model::{Context, Result};
use std::collections::BTreeSet;

/// How many things of a kind are named.
const NAMED_MAX: usize = 8;
/// Things asked for in one statement.
const BATCH: usize = 1000;

/// What a restore needs, beside what the plan knows.
pub(super) struct Needs {
    pub(super) missing_roles: Vec<String>,
    /// Roles that own something, and to whom the one that is connected may give nothing.
    pub(super) foreign_owners: Vec<String>,
    pub(super) missing_extensions: Vec<String>,
    pub(super) large_objects: BTreeSet<u32>,
    /// Not the whole database is wanted.
    pub(super) is_selective: bool,
}

/// Finds obstacles and warnings, and writes them into the plan's summary.
pub(super) fn find(plan: &mut DatabaseRestorePlan, needs: &Needs) -> Result<()> {
    server(plan);
    place(plan, needs)?;
    if !needs.missing_roles.is_empty() {
        let can_make = plan.globals.as_ref().map(|globals| globals.roles().iter().map(|r| (*r).to_owned()).collect());
        let can_make: BTreeSet<String> = can_make.unwrap_or_default();
        let is_saved = needs.missing_roles.iter().all(|role| can_make.contains(role));
        let hint = match (plan.options.roles, is_saved) {
            (false, true) => {
                "make them as they were with --roles, or leave out owners and privileges with --no-owner \
                              and --no-acl"
            }
            _ => {
                "create them first (they are not among the roles that were saved), or leave out owners and privileges \
                  with --no-owner and --no-acl"
            }
        };
        add(plan, ObstacleKind::Roles, format!("the server lacks {}", named("role", &needs.missing_roles)), hint);
    }
    if !needs.foreign_owners.is_empty() {
        let owners = named("role", &needs.foreign_owners);
        add(
            plan,
            ObstacleKind::Membership,
            format!("the role that is connected may not make things belong to {owners}: it is no member"),
            "leave owners out with --no-owner, so that everything belongs to it; or make it a member (GRANT owner TO it), \
             or restore as a superuser",
        );
    }
    if !needs.missing_extensions.is_empty() {
        let message = format!("the server lacks {}", named("extension", &needs.missing_extensions));
        add(
            plan,
            ObstacleKind::Extensions,
            message,
            "install their packages on the server's host, for the server's major version, or restore only schemas and \
             tables that do not need them",
        );
    }
    Ok(())
}

fn add(plan: &mut DatabaseRestorePlan, kind: ObstacleKind, message: String, hint: impl Into<String>) {
    plan.summary.obstacles.push(Obstacle { kind, message, hint: hint.into() });
}

/// For people: `12 MB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

fn named(what: &str, names: &[String]) -> String {
    let mut list: Vec<String> = names.iter().take(NAMED_MAX).map(|name| quote(name)).collect();
    if names.len() > NAMED_MAX {
        list.push(format!("and {} more", names.len() - NAMED_MAX));
    }
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("the {what}{plural} {}", list.join(", "))
}

fn server(plan: &mut DatabaseRestorePlan) {
    if plan.server.is_standby {
        let message = format!("{} is a standby and takes no writes", plan.summary.server);
        add(plan, ObstacleKind::Unsupported, message, "restore to its primary");
    }
    let (was, is) = (version_of(&plan.summary.source_version), version_of(&plan.summary.server_version));
    if let (Some(was), Some(is)) = (was, is)
        && is.major() < was.major()
        && !plan.options.data_only
    {
        plan.summary.warnings.push(format!(
            "the server is PostgreSQL {is}, older than the {was} that was saved: what it does not know fails the restore"
        ));
    }
    let origin = plan.options.origin.as_ref().map(|origin| origin.system_identifier.as_str());
    let is_origin = origin.is_some() && origin == plan.server.system_identifier.as_deref();
    if is_origin && plan.saved.name == plan.target.name && plan.prepare != Prepare::Make {
        plan.summary.warnings.push("this is the very database that was saved".to_owned());
    }
}

fn place(plan: &mut DatabaseRestorePlan, needs: &Needs) -> Result<()> {
    let name = quote(&plan.target.name);
    let state = plan.target.state.clone();
    if matches!(plan.prepare, Prepare::Make | Prepare::Replace | Prepare::Swap) {
        let mut notes = Vec::new();
        let creation = &plan.creation;
        if let Err(error) =
            creation.create(&plan.target.name, plan.server.version, &plan.server.tablespaces, &mut notes)
        {
            let hint = error.hint().unwrap_or_default().to_owned();
            add(plan, ObstacleKind::Unsupported, error.message().to_owned(), hint);
        }
        plan.summary.notes.append(&mut notes);
    }
    match (plan.prepare, state) {
        (Prepare::Make, _) if plan.options.data_only => {
            let message = format!("there is no database {name} to restore rows into");
            add(plan, ObstacleKind::Absent, message, "leave out --data-only, or name a database that has the tables");
        }
        (Prepare::Make, _) => {}
        (Prepare::Use, _) => {
            let (was, is) = (plan.creation.encoding(), plan.target.encoding.clone());
            if let (Some(was), Some(is)) = (was, is)
                && was != is
            {
                let text =
                    format!("database {name} has the encoding {is}, and what was saved {was}: not every text may fit");
                plan.summary.warnings.push(text);
            }
            let kept = "settings, privileges and owner of the database itself stay as they are: it was there before";
            plan.summary.notes.push(kept.to_owned());
        }
        (Prepare::Replace, State::Ours(mark, _)) => plan.summary.replaces = Some(mark.shown()),
        (Prepare::Swap, State::Ours(mark, doubt)) => {
            let held = format!("{}; {}", mark.shown(), doubt.unwrap_or_default());
            if plan.options.overwrite {
                plan.summary.replaces = Some(held);
            } else {
                let message = format!("database {name} is not whole: {held}");
                let hint = format!(
                    "somebody may want what is in it: restore to a database of another name, or have this one replaced \
                     with --overwrite; to keep it as it is: COMMENT ON DATABASE {name} IS NULL"
                );
                add(plan, ObstacleKind::Occupied, message, hint);
            }
        }
        (Prepare::Swap, State::Occupied(count, some)) => {
            let more = if count > some.len() as u64 { ", …" } else { "" };
            let held = format!("{count} objects: {}{more}", some.join(", "));
            if plan.options.overwrite {
                plan.summary.replaces = Some(held);
            } else {
                let message = format!("database {name} is not empty; it holds {held}");
                let hint = "restore to a database of another name, or have this one replaced with --overwrite: it stays \
                            until the new one is complete, and is dropped then";
                add(plan, ObstacleKind::Occupied, message, hint);
            }
        }
        (Prepare::Replace | Prepare::Swap, _) => {}
        (Prepare::Add, State::Ours(mark, _)) => {
            let message = format!("database {name} is not whole: it holds {}", mark.shown());
            add(plan, ObstacleKind::Occupied, message, "restore the whole database again first");
        }
        (Prepare::Add, _) => addition(plan, needs).context("look at what is to be added to")?,
    }
    if plan.prepare == Prepare::Swap && plan.options.overwrite {
        let saved = "its owner, privileges, comment, settings and limit of connections become those that were saved";
        plan.summary.notes.push(saved.to_owned());
        plan.summary.meanwhile.push(format!(
            "database {name} stays as it is until the new one is complete: the server needs room for both, \
             {} for the old one and {} of rows and their indexes for the new one",
            size(plan.target.bytes),
            size(plan.summary.bytes)
        ));
        for (message, hint) in plan.target.ties.clone() {
            add(plan, ObstacleKind::InUse, message, hint);
        }
        if !plan.target.slots.is_empty() {
            let slots = named("replication slot", &plan.target.slots);
            plan.summary.warnings.push(format!("with the old database {slots} will be dropped"));
        }
    }
    let is_taken_away = matches!(plan.prepare, Prepare::Replace | Prepare::Swap);
    if is_taken_away && !plan.target.users.is_empty() && !plan.options.force {
        let message = format!("database {name} is in use by {}", plan.target.users.join(", "));
        add(plan, ObstacleKind::InUse, message, "stop what uses it, or end their connections with --force");
    }
    Ok(())
}

fn addition(plan: &mut DatabaseRestorePlan, needs: &Needs) -> Result<()> {
    let mut client = session::connect(&plan.info)?;
    if plan.saved.text == Text::Bytes {
        client.set_text(Text::Bytes)?;
    }
    if plan.options.data_only {
        rows_only(plan, &mut client)?;
    } else if let Some(rename) = plan.rename.clone() {
        let old = plan.places.first().map(|place| plan.saved.tables[place.table].schema.clone());
        let schema = rename.schema.or(old).unwrap_or_default();
        if !there(&mut client, &[(schema.clone(), rename.name.clone())])?.is_empty() {
            let message = format!("{} is there already", shown(&schema, &rename.name));
            add(plan, ObstacleKind::Occupied, message, "choose another name, or rename or drop what has it");
        }
    } else {
        let all: Vec<(String, String)> = plan.plan.data.iter().map(|t| (t.schema.clone(), t.name.clone())).collect();
        let mut found = there(&mut client, &all)?;
        for left in &plan.left {
            found.retain(|name| !left.relations.contains(name) && !left.schemas.contains(&name.0));
        }
        if !found.is_empty() {
            let names: Vec<String> = found.iter().take(NAMED_MAX).map(|(schema, name)| shown(schema, name)).collect();
            let message = format!("{} is there already", names.join(", "));
            let hint = "restore it beside under another name with --as, only its rows with --data-only, or all of it to \
                        another database";
            add(plan, ObstacleKind::Occupied, message, hint);
        }
    }
    left_behind(plan, &mut client)?;
    if plan.target.large_objects > 0 && !needs.large_objects.is_empty() {
        let mut taken = Vec::new();
        let all: Vec<String> = needs.large_objects.iter().map(u32::to_string).collect();
        for batch in all.chunks(BATCH) {
            let sql = format!(
                "SELECT oid FROM pg_catalog.pg_largeobject_metadata WHERE oid = ANY ('{{{}}}'::pg_catalog.oid[])",
                batch.join(",")
            );
            client.for_each_row(&sql, |row| {
                taken.push(row.text(0)?.to_owned());
                Ok(())
            })?;
        }
        if !taken.is_empty() {
            let some: Vec<&str> = taken.iter().take(NAMED_MAX).map(String::as_str).collect();
            let message = format!("{} large objects have numbers that are taken: {}", taken.len(), some.join(", "));
            let hint = "restore to another database; or restore only tables or schemas, which leaves large objects out";
            add(plan, ObstacleKind::Occupied, message, hint);
        }
    }
    if needs.is_selective && !plan.options.data_only {
        let note = "large objects are left out: only a part of the database is restored";
        plan.summary.notes.push(note.to_owned());
    }
    Ok(())
}

/// Tells of what killed restores have left: what is taken away, and what only a person can.
fn left_behind(plan: &mut DatabaseRestorePlan, client: &mut Client) -> Result<()> {
    for left in std::mem::take(&mut plan.left) {
        if left.is_gone(client, &plan.emptied)? {
            plan.summary
                .notes
                .push(format!("what a restore has left that was killed is taken away first: {}", left.told));
            plan.left.push(left);
        } else {
            plan.summary.warnings.push(format!(
                "a restore was killed, and what it loaded is not complete: {}; restore these with --data-only --overwrite",
                left.told
            ));
        }
    }
    Ok(())
}

/// Rows go into tables that are there and hold none.
fn rows_only(plan: &mut DatabaseRestorePlan, client: &mut Client) -> Result<()> {
    let tables: Vec<(String, String)> = plan.places.iter().map(|p| (p.schema.clone(), p.name.clone())).collect();
    let found = there(client, &tables)?;
    let missing: Vec<String> = tables.iter().filter(|t| !found.contains(*t)).map(|(s, n)| shown(s, n)).collect();
    if !missing.is_empty() {
        let some: Vec<&str> = missing.iter().take(NAMED_MAX).map(String::as_str).collect();
        let message = format!("{} tables are not there: {}", missing.len(), some.join(", "));
        add(plan, ObstacleKind::Absent, message, "restore the schema first, with --schema-only, or leave these out");
    }
    let sequences: Vec<(String, String)> =
        plan.sequences.iter().map(|sequence| (sequence.schema.clone(), sequence.name.clone())).collect();
    let known = there(client, &sequences)?;
    let lacking: Vec<String> = sequences.iter().filter(|s| !known.contains(*s)).map(|(s, n)| shown(s, n)).collect();
    if !lacking.is_empty() {
        let some: Vec<&str> = lacking.iter().take(NAMED_MAX).map(String::as_str).collect();
        let message = format!("sequences are not there: {}", some.join(", "));
        add(plan, ObstacleKind::Absent, message, "make them first, or leave them out with --exclude-table");
    }
    let mut filled = Vec::new();
    for (schema, name) in &found {
        let sql = format!("SELECT FROM ONLY {} LIMIT 1", quote_in(schema, name));
        if !client.query(&sql)?.is_empty() {
            filled.push((schema.clone(), name.clone()));
        }
    }
    // Rows of an extension are there from its making.
    let is_ours = |key: &(String, String)| {
        let place = plan.places.iter().find(|place| (&place.schema, &place.name) == (&key.0, &key.1));
        place.is_some_and(|place| plan.saved.tables[place.table].extension.is_none())
    };
    filled.retain(is_ours);
    if plan.options.overwrite {
        plan.emptied = filled.iter().map(|(schema, name)| quote_in(schema, name)).collect();
        if !filled.is_empty() {
            let names: Vec<String> = filled.iter().map(|(schema, name)| shown(schema, name)).collect();
            plan.summary.replaces = Some(format!("the rows of {}", names.join(", ")));
        }
    } else if !filled.is_empty() {
        let names: Vec<String> = filled.iter().take(NAMED_MAX).map(|(schema, name)| shown(schema, name)).collect();
        let message = format!("{} tables hold rows: {}", filled.len(), names.join(", "));
        add(plan, ObstacleKind::Occupied, message, "have them emptied first with --overwrite, or leave them out");
    }
    if !plan.server.may_replicate {
        let warning = "the role may not switch triggers off: foreign keys are checked while rows are loaded, which fails \
                       when a table is loaded before the one it points to";
        plan.summary.warnings.push(warning.to_owned());
    }
    triggers(plan, client, &found)?;
    let emptied: Vec<String> = plan.emptied.iter().map(|name| literal(name)).collect();
    if emptied.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "WITH emptied AS (SELECT pg_catalog.to_regclass(name)::pg_catalog.oid AS oid \
           FROM pg_catalog.unnest(ARRAY[{}]) AS name) \
         SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), k.conname, k.confrelid::pg_catalog.regclass \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE k.contype = 'f' AND k.confrelid IN (SELECT oid FROM emptied) \
           AND k.conrelid NOT IN (SELECT oid FROM emptied) ORDER BY 1, 2",
        emptied.join(", ")
    );
    let mut referring = Vec::new();
    client.for_each_row(&sql, |row| {
        referring.push((row.text(0)?.to_owned(), quote(row.text(1)?), row.text(2)?.to_owned()));
        Ok(())
    })?;
    for (table, constraint, emptied) in referring.into_iter().take(NAMED_MAX) {
        let message =
            format!("table {emptied} cannot be emptied: table {table} refers to it (constraint {constraint})");
        let hint = format!(
            "restore the rows of both, with --table for each, if {table} holds rows, too; or drop the constraint first, \
             and make it again afterwards; or restore {emptied} beside under another name with --as"
        );
        add(plan, ObstacleKind::Occupied, message, hint);
    }
    Ok(())
}

/// Triggers that would fire while rows are loaded: what is in the tables then is not what was saved, and who knows what
/// else they do.
fn triggers(plan: &mut DatabaseRestorePlan, client: &mut Client, tables: &BTreeSet<(String, String)>) -> Result<()> {
    // Where they can be switched off at all, only those stay on that somebody wants to fire even then.
    let fire = if plan.server.may_replicate { "'A', 'R'" } else { "'A', 'O'" };
    let names: Vec<String> = tables.iter().map(|(schema, name)| literal(&quote_in(schema, name))).collect();
    for batch in names.chunks(BATCH) {
        let sql = format!(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.quote_ident(t.tgname), t.tgenabled \
             FROM pg_catalog.unnest(ARRAY[{}]) AS name \
             JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(name)::pg_catalog.oid \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid \
             WHERE NOT t.tgisinternal AND t.tgenabled IN ({fire}) \
               AND t.tgtype::pg_catalog.int4 & 4 <> 0 ORDER BY 1, 2",
            batch.join(", ")
        );
        let mut found = Vec::new();
        client.for_each_row(&sql, |row| {
            found.push((row.text(0)?.to_owned(), row.text(1)?.to_owned(), row.text(2)?.to_owned()));
            Ok(())
        })?;
        for (table, trigger, state) in found {
            let always = match state.as_str() {
                "A" => "ALWAYS ",
                "R" => "REPLICA ",
                _ => "",
            };
            let message = format!("trigger {trigger} of table {table} would fire for every row that is loaded");
            let hint = format!(
                "switch it off: ALTER TABLE {table} DISABLE TRIGGER {trigger}; and after the restore on again: \
                 ALTER TABLE {table} ENABLE {always}TRIGGER {trigger}"
            );
            add(plan, ObstacleKind::Fires, message, hint);
        }
    }
    Ok(())
}

/// Those of these relations that the database has.
fn there(client: &mut Client, names: &[(String, String)]) -> Result<BTreeSet<(String, String)>> {
    let mut out = BTreeSet::new();
    for batch in names.chunks(BATCH) {
        let list: Vec<String> = batch.iter().map(|(schema, name)| literal(&quote_in(schema, name))).collect();
        let sql = format!(
            "SELECT n.at FROM pg_catalog.unnest(ARRAY[{}]) WITH ORDINALITY AS n(name, at) \
             WHERE pg_catalog.to_regclass(n.name) IS NOT NULL",
            list.join(", ")
        );
        client.for_each_row(&sql, |row| {
            out.extend(batch.get(row.parse::<usize>(0)?.wrapping_sub(1)).cloned());
            Ok(())
        })?;
    }
    Ok(out)
}
