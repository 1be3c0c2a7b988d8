//! Looking whether a server could be captured now, and what should be known of it.

use super::capture::{server_facts, wanted_databases};
use super::catalog::{self, Database, Relations};
use super::facts::Role;
use super::grants;
use super::hidden::{self, Hidden};
use super::session::{self, Stop};
use super::source::PostgresSource;
use super::tools::Tools;
use super::wire::Client;
use lastgood_model::source::{Finding, FindingLevel};
use lastgood_model::{Error, Result};
use std::sync::Arc;

/// Missing rights that are told one by one.
const GRANTS_SHOWN_MAX: usize = 50;

/// Connects as a capture would, and looks at everything that would stop it.
pub(super) fn probe(source: &PostgresSource) -> Vec<Finding> {
    let mut findings = Vec::new();
    let stop = Arc::new(Stop::default());
    if let Err(error) = look(source, &stop, &mut findings) {
        findings.push(failure(&error));
    }
    findings
}

fn look(source: &PostgresSource, stop: &Arc<Stop>, findings: &mut Vec<Finding>) -> Result<()> {
    let choice = source.options.choice()?;
    let mut client = session::open(&source.conninfo, stop)?;
    let info = client.conninfo().clone();
    let facts = server_facts(&mut client)?;
    let role = if facts.role == Role::Standby { "a standby" } else { "a primary" };
    findings.push(ok(format!("PostgreSQL {} at {}, {role}", facts.server_version, info.host_shown())));
    if !source.options.data_only {
        findings.push(tools_finding(source, facts.server_version_num));
        look_at_globals(&mut client, info.user(), findings)?;
    }
    if facts.role == Role::Standby {
        look_at_standby(&mut client, findings)?;
    }
    let connections = source.options.workers() + 2;
    look_at_connections(&mut client, connections, findings)?;
    let wanted = wanted_databases(&mut client, source)?;
    if wanted.is_empty() {
        findings.push(warning("the server has no database to capture".into(), "create it, or name another server"));
    }
    drop(client);
    for database in &wanted {
        let looked = session::open(&info.with_database(&database.name), stop).and_then(|mut client| {
            catalog::understand_names(&mut client)?;
            let matches = catalog::matches(&mut client, &choice, !source.options.schema_only)?;
            let relations = catalog::relations(&mut client, &matches)?;
            look_at_database(source, &mut client, database, &relations, findings)
        });
        if let Err(error) = looked {
            findings.push(failure(&error.context(format!("database {:?}", database.name))));
        }
    }
    Ok(())
}

fn tools_finding(source: &PostgresSource, version: u32) -> Finding {
    match Tools::find(source.options.bin.as_deref()).and_then(|tools| tools.choose(version).cloned()) {
        Ok(found) => ok(format!("pg_dump {} in {}", found.version, found.bin.display())),
        Err(error) => failure(&error),
    }
}

fn look_at_globals(client: &mut Client, role: &str, findings: &mut Vec<Finding>) -> Result<()> {
    let may = client.query("SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')")?;
    if !may.only()?.is_true(0)? {
        findings.push(warning(
            format!("role {role:?} may not read the passwords of roles: they are kept without"),
            "fine if passwords can be set anew after a restore; else capture as a superuser",
        ));
    }
    Ok(())
}

fn look_at_standby(client: &mut Client, findings: &mut Vec<Finding>) -> Result<()> {
    let rows = client.query(
        "SELECT pg_catalog.current_setting('hot_standby_feedback')::pg_catalog.bool, \
           (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'max_standby_streaming_delay'), \
           (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'max_standby_archive_delay'), \
           CASE WHEN pg_catalog.pg_last_wal_receive_lsn() IS DISTINCT FROM pg_catalog.pg_last_wal_replay_lsn() \
             THEN pg_catalog.date_part('epoch', \
               pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::pg_catalog.int8 END",
    )?;
    let row = rows.only()?;
    let (feedback, delays) = (row.is_true(0)?, [row.parse::<i64>(1)?, row.parse::<i64>(2)?]);
    if let Some(seconds) = row.optional(3)?.and_then(|text| text.parse::<i64>().ok())
        && seconds > 60
    {
        findings.push(warning(
            format!("the standby is {seconds} s behind its primary, and so would be the recovery point"),
            "look at pg_stat_replication on the primary, or capture there",
        ));
    }
    if delays.iter().any(|delay| *delay >= 0) {
        let shown = |delay: i64| if delay < 0 { "without limit".into() } else { format!("{} s", delay / 1000) };
        let [streaming, archive] = delays;
        let message = format!(
            "replay on the standby waits for a reader up to {} (streaming) and {} (archive), then ends it{}",
            shown(streaming),
            shown(archive),
            if feedback { "; hot_standby_feedback makes that rare" } else { "" }
        );
        findings.push(if feedback {
            ok(message)
        } else {
            warning(
                message,
                "set hot_standby_feedback = on, or max_standby_streaming_delay = -1 on a standby that serves captures",
            )
        });
    }
    Ok(())
}

/// How many more connections there may be, and how many a capture wants.
fn look_at_connections(client: &mut Client, wanted: usize, findings: &mut Vec<Finding>) -> Result<()> {
    let rows = client.query(
        "SELECT pg_catalog.current_setting('max_connections')::pg_catalog.int8 \
             - pg_catalog.current_setting('superuser_reserved_connections')::pg_catalog.int8 \
             - (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend'), \
           (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user)",
    )?;
    let row = rows.only()?;
    let (free, limit) = (row.parse::<i64>(0)?, row.parse::<i64>(1)?);
    let free = if limit >= 0 { free.min(limit - 1) } else { free };
    if free < wanted as i64 {
        findings.push(warning(
            format!(
                "{} more connections are free, a capture uses up to {wanted}: it would be slower or fail",
                free.max(0)
            ),
            "raise max_connections or the role's CONNECTION LIMIT, or set a lower number of jobs",
        ));
    }
    Ok(())
}

fn look_at_database(
    source: &PostgresSource,
    client: &mut Client,
    database: &Database,
    relations: &Relations,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let name = &database.name;
    let acting = grants::acting(client)?;
    let role = acting.role.clone();
    let counts = format!("{} tables, {} sequences", relations.tables.len(), relations.sequences.len());
    findings.push(ok(format!("database {name:?}: {}, {counts}", database.encoding)));
    let missing = grants::missing(relations, &role, source.options.schema_only);
    for one in missing.iter().take(GRANTS_SHOWN_MAX) {
        findings.push(Finding {
            level: FindingLevel::Failure,
            message: format!("database {name:?}: {} may not read {}", acting.shown(), one.what),
            hint: Some(one.grant.clone()),
        });
    }
    if missing.len() > GRANTS_SHOWN_MAX {
        findings.push(Finding {
            level: FindingLevel::Failure,
            message: format!("database {name:?}: {} more cannot be read", missing.len() - GRANTS_SHOWN_MAX),
            hint: Some("let the role's script be made and run: it grants all that is needed at once".to_owned()),
        });
    }
    look_at_policies(client, name, &role, relations, findings)?;
    look_at_locks(client, name, relations, findings)?;
    look_at_objects(client, name, &role, findings)?;
    if !source.options.data_only && !source.options.choice()?.is_partial() {
        for Hidden { what, why } in hidden::look(client)? {
            // The rest is kept, as a point that says what it lacks.
            findings.push(warning(format!("database {name:?}: {} may not read {what}", acting.shown()), why));
        }
    }
    for table in relations.tables.iter().filter(|table| table.is_unlogged) {
        if client.parameter("in_hot_standby") == Some("on") {
            findings.push(warning(
                format!("database {name:?}: rows of unlogged table {} are not on a standby", table.shown()),
                "capture from the primary, exclude the table, or make it logged",
            ));
        }
    }
    Ok(())
}

fn look_at_policies(
    client: &mut Client,
    name: &str,
    role: &str,
    relations: &Relations,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    // Only those with policies at all: asking waits for nobody, but the list may be long.
    let mut hiding = Vec::new();
    let sql = "SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity \
               AND pg_catalog.row_security_active(c.oid)";
    client.for_each_row(sql, |row| {
        let oid: u32 = row.parse(0)?;
        hiding.extend(relations.tables.iter().find(|table| table.oid == oid).map(|table| table.shown()));
        Ok(())
    })?;
    if !hiding.is_empty() {
        let role_name = super::sql::quote(role);
        findings.push(Finding {
            level: FindingLevel::Failure,
            message: format!("database {name:?}: row-level security hides rows in {}", grants::some_of(&hiding)),
            hint: Some(format!("ALTER ROLE {role_name} BYPASSRLS, or capture as another role")),
        });
    }
    Ok(())
}

/// The server has one table of what is locked, for all: this many for each connection that there may be, and some more.
/// What `pg_dump` locks, we have locked, too, so that it counts once.
fn look_at_locks(client: &mut Client, name: &str, relations: &Relations, findings: &mut Vec<Finding>) -> Result<()> {
    let rows = client.query(
        "SELECT pg_catalog.current_setting('max_locks_per_transaction')::pg_catalog.int8, \
           pg_catalog.current_setting('max_locks_per_transaction')::pg_catalog.int8 \
           * (pg_catalog.current_setting('max_connections')::pg_catalog.int8 \
              + pg_catalog.current_setting('max_prepared_transactions')::pg_catalog.int8)",
    )?;
    let row = rows.only()?;
    let (each, all) = (row.parse::<i64>(0)?, row.parse::<i64>(1)?);
    let wanted = (relations.tables.len() + relations.sequences.len()) as i64;
    if wanted > all * 9 / 10 {
        let needed = each * (wanted * 2 / all + 1);
        findings.push(Finding {
            level: if wanted > all { FindingLevel::Failure } else { FindingLevel::Warning },
            message: format!(
                "database {name:?}: a capture locks {wanted} tables and sequences, the server has room for {all}"
            ),
            hint: Some(format!("set max_locks_per_transaction = {needed} in postgresql.conf and restart the server")),
        });
    }
    Ok(())
}

fn look_at_objects(client: &mut Client, name: &str, role: &str, findings: &mut Vec<Finding>) -> Result<()> {
    let rows = client.query(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata), \
           pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')",
    )?;
    let row = rows.only()?;
    if row.is_true(0)? && !row.is_true(1)? {
        findings.push(warning(
            format!(
                "database {name:?}: role {role:?} may not read pg_largeobject: each large object is asked for by itself, \
                 which is slow, and needs SELECT on it"
            ),
            "GRANT pg_read_all_data (PostgreSQL 14 and newer), or GRANT SELECT ON pg_catalog.pg_largeobject",
        ));
    }
    Ok(())
}

fn ok(message: String) -> Finding {
    Finding { level: FindingLevel::Ok, message, hint: None }
}

fn warning(message: String, hint: &str) -> Finding {
    Finding { level: FindingLevel::Warning, message, hint: Some(hint.to_owned()) }
}

fn failure(error: &Error) -> Finding {
    Finding { level: FindingLevel::Failure, message: error.chain(), hint: error.hint().map(str::to_owned) }
}
