//! The capture of a server: its databases one after the other, each through one snapshot.

use super::catalog::{self, Choice, Database, Relation, Relations, Size};
use super::conninfo::{CONNECT_TIMEOUT_DEFAULT, Conninfo};
use super::facts::{DatabaseFacts, Facts, Globals, Role};
use super::grants;
use super::hidden::{self, Hidden};
use super::large_objects;
use super::layout::{self, Column, TableKind, TableRecord};
use super::rows::RowDigest;
use super::script;
use super::sequences;
use super::session::{self, BEGIN, Snapshot, Stop};
use super::source::PostgresSource;
use super::stream::Streams;
use super::toc::{Text, Toc};
use super::tools::{self, DumpOptions, Installation, Tools};
use super::wire::{Client, Vigil};
use super::workers::{self, Job};
use lastgood_model::manifest::{Problem, ProblemKind};
use lastgood_model::source::{Captured, Sink};
use lastgood_model::{Context, Error, ErrorKind, Monitor, Result, Time};
use std::sync::Arc;

/// How often a capture of a database begins anew because tables came and went.
const ATTEMPTS_MAX: u32 = 3;
/// From this version on the pages of a table can be read from one to another without reading those before.
const RANGES_SINCE: u32 = 140_000;

/// A table and what a capture does with it.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) relation: Relation,
    pub(super) kind: TableKind,
    pub(super) columns: Vec<Column>,
    pub(super) size: Size,
    pub(super) can_be_cut: bool,
    /// Why its rows are not read, although it has some.
    pub(super) left_out: Option<String>,
}

impl Table {
    /// Whether its rows are read.
    pub(super) fn has_rows(&self) -> bool {
        self.kind == TableKind::Table && self.left_out.is_none()
    }

    /// Its line in `tables.json`, without what was read.
    pub(super) fn record(&self, encoding: &str, text: Text) -> TableRecord {
        let relation = &self.relation;
        TableRecord {
            oid: relation.oid,
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            text,
            kind: self.kind,
            columns: self.columns.clone(),
            encoding: self.has_rows().then(|| encoding.to_owned()),
            parts: Vec::new(),
            total: None,
            left_out: self.left_out.clone(),
            condition: relation.condition.clone(),
            extension: relation.extension.clone(),
            root: relation.root.clone(),
            load_through_root: relation.load_through_root,
            unlogged: relation.is_unlogged,
            populated: self.kind == TableKind::MaterializedView && relation.is_populated,
        }
    }
}

/// Captures all that `source` asks for.
pub(super) fn capture(source: &PostgresSource, sink: &dyn Sink, monitor: &Monitor) -> Result<Captured> {
    let choice = source.options.choice()?;
    let facts = session::stoppable(monitor, |stop| {
        let mut client = session::open(&source.conninfo, stop)?;
        // All that follows must reach the same server, if several were named.
        let info = client.conninfo().clone();
        let mut facts = server_facts(&mut client)?;
        let wanted = wanted_databases(&mut client, source)?;
        let programs = match source.options.data_only {
            true => None,
            false => Some(Tools::find(source.options.bin.as_deref())?.choose(facts.server_version_num)?.clone()),
        };
        let run = Run { source, choice, programs, sink, monitor, stop };
        run.globals(&client, &mut facts)?;
        drop(client);
        for database in &wanted {
            let shown = || format!("database {:?}", database.name);
            facts.databases.push(run.database(&info, database).with_context(shown)?);
        }
        Ok(facts)
    })?;
    Ok(Captured { facts: facts.to_map()?, position: facts.position() })
}

/// What the server says of itself.
pub(super) fn server_facts(client: &mut Client) -> Result<Facts> {
    let row = |client: &mut Client, sql: &str| -> Result<Option<String>> {
        Ok(client.query(sql)?.only()?.optional(0)?.map(str::to_owned))
    };
    let is_standby = client.query("SELECT pg_catalog.pg_is_in_recovery()")?.only()?.is_true(0)?;
    Ok(Facts {
        server_version: client.parameter("server_version").unwrap_or_default().to_owned(),
        server_version_num: client.server_version(),
        // Not worth a failure: some services refuse these to their customers.
        system_identifier: row(client, "SELECT system_identifier FROM pg_catalog.pg_control_system()").ok().flatten(),
        timeline: row(client, "SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()")
            .ok()
            .flatten()
            .and_then(|text| text.parse().ok()),
        role: if is_standby { Role::Standby } else { Role::Primary },
        ..Facts::default()
    })
}

/// The databases that are asked for, in the order of the config, or all of them.
pub(super) fn wanted_databases(client: &mut Client, source: &PostgresSource) -> Result<Vec<Database>> {
    let all = catalog::databases(client)?;
    let Some(names) = &source.databases else { return Ok(all) };
    let mut out: Vec<Database> = Vec::new();
    for name in names {
        let Some(found) = all.iter().find(|database| database.name == *name) else {
            let there: Vec<&str> = all.iter().map(|database| database.name.as_str()).collect();
            let message = format!("there is no database {name:?} that can be connected to");
            return Err(Error::new(ErrorKind::Absent, message).with_hint(format!("there are: {}", there.join(", "))));
        };
        if !out.contains(found) {
            out.push(found.clone());
        }
    }
    Ok(out)
}

/// One capture.
struct Run<'a> {
    source: &'a PostgresSource,
    choice: Choice,
    programs: Option<Installation>,
    sink: &'a dyn Sink,
    monitor: &'a Monitor,
    stop: &'a Arc<Stop>,
}

/// A database whose tables are locked and seen through one snapshot.
struct Ready {
    snapshot: Snapshot,
    tables: Vec<Table>,
    sequences: Vec<Relation>,
    extensions: Vec<catalog::Extension>,
    large_objects: u64,
    schema: Option<Toc>,
    /// What the schema lacks, as the role is not shown it.
    hidden: Vec<Hidden>,
    begun_anew: u32,
}

/// Why an attempt to get ready came to nothing.
enum Setback {
    /// Tables came or went meanwhile.
    Changed(String),
    /// Something in the schema is in no encoding, and the names were read as if all were.
    Bytes,
    /// Anything else.
    Failed(Error),
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        if session::is_gone(&error) { Self::Changed(error.chain()) } else { Self::Failed(error) }
    }
}

impl Run<'_> {
    fn globals(&self, client: &Client, facts: &mut Facts) -> Result<()> {
        let Some(programs) = &self.programs else { return Ok(()) };
        facts.pg_dump_version_num = Some(programs.version.0);
        let vigil = client.vigil("pg_dumpall");
        let is_cancelled = || session::must_end(self.stop, &vigil);
        let globals = tools::dump_globals(programs, &environment(client, &vigil), true, &is_cancelled)
            .context("describe roles and tablespaces")?;
        self.streams(Time::default(), Text::Utf8).file(layout::GLOBALS.to_owned(), |file| file.put(&globals.sql))?;
        facts.globals = if globals.has_passwords { Globals::WithPasswords } else { Globals::WithoutPasswords };
        Ok(())
    }

    fn streams(&self, mtime: Time, text: Text) -> Streams<'_> {
        Streams { sink: self.sink, chunking: self.source.options.chunking, mtime, stop: self.stop, text }
    }

    fn database(&self, info: &Conninfo, database: &Database) -> Result<DatabaseFacts> {
        let info = info.with_database(&database.name);
        let folder = layout::database_folder(&database.name);
        let mut holder = session::open(&info, self.stop)?;
        let ready = self.get_ready(&mut holder)?;
        let streams = self.streams(Time::parse_rfc3339(&ready.snapshot.time).unwrap_or_default(), holder.text());
        let remarks = match &ready.schema {
            Some(toc) => write_schema(toc, &ready.tables, &folder, &streams)?,
            None => Vec::new(),
        };
        let job = Job {
            info: &info,
            snapshot: &ready.snapshot,
            folder: &folder,
            encoding: &database.encoding,
            tables: &ready.tables,
            slab_pages: self.source.options.slab_pages,
            has_large_objects: ready.large_objects > 0,
            workers: self.source.options.workers(),
            streams,
            stop: self.stop,
        };
        let mut done = workers::read_all(&job, &mut holder)?;
        let values = sequences::read(&mut holder, &ready.sequences)?;
        // All that was read is what one moment had only if nothing of it was let go before now.
        session::check_held(&mut holder, &ready.snapshot)?;
        holder.batch("COMMIT")?;
        drop(holder);

        let path = |file| layout::in_database(&folder, file);
        if !self.source.options.schema_only {
            let script = sequences::script(&ready.sequences, &values);
            streams.file(path(layout::SEQUENCES), |file| file.put_text(&script))?;
        }
        let mut facts = DatabaseFacts {
            name: database.name.clone(),
            folder: folder.clone(),
            encoding: database.encoding.clone(),
            collation: database.collation.clone(),
            ctype: database.ctype.clone(),
            provider: database.provider.clone(),
            locale: database.locale.clone(),
            icu_rules: database.icu_rules.clone(),
            collation_version: database.collation_version.clone(),
            snapshot_time: ready.snapshot.time.clone(),
            lsn: ready.snapshot.lsn.clone(),
            sequences: ready.sequences.len() as u64,
            large_objects: done.large_objects,
            extensions: ready.extensions.iter().map(|it| (it.name.clone(), it.version.clone())).collect(),
            begun_anew: ready.begun_anew,
            remarks,
            ..DatabaseFacts::default()
        };
        streams.file(path(layout::TABLES), |file| {
            for (at, table) in ready.tables.iter().enumerate() {
                let mut record = table.record(&database.encoding, streams.text);
                record.parts = done.parts.remove(&at).unwrap_or_default();
                if table.has_rows() {
                    let mut total = RowDigest::default();
                    record.parts.iter().for_each(|part| total.add(&part.all_rows()));
                    facts.long_rows += record.parts.iter().map(|part| part.long_rows.len() as u64).sum::<u64>();
                    record.total = Some(total);
                    facts.tables += 1;
                    facts.rows += total.rows;
                    facts.bytes += record.bytes();
                }
                facts.tables_described += u64::from(self.source.options.schema_only && table.kind == TableKind::Table);
                file.put(&record.to_line()?)?;
            }
            Ok(())
        })?;
        for table in ready.tables.iter().filter(|table| table.relation.is_unlogged) {
            if let Some(why) = &table.left_out
                && !self.source.options.schema_only
            {
                let shown = format!("{}: {}", database.name, table.relation.shown());
                self.monitor.problem(Problem::new(shown, ProblemKind::Unsupported, why.clone()));
            }
        }
        for Hidden { what, why } in &ready.hidden {
            self.monitor.problem(Problem::new(format!("{}: {what}", database.name), ProblemKind::Unreadable, *why));
        }
        Ok(facts)
    }

    /// Locks all tables, takes the snapshot and has the schema described. Nothing is written meanwhile, so that it can
    /// begin anew.
    fn get_ready(&self, holder: &mut Client) -> Result<Ready> {
        let mut begun_anew = 0;
        loop {
            match self.try_to_get_ready(holder) {
                Ok(ready) => return Ok(Ready { begun_anew, ..ready }),
                Err(Setback::Failed(error)) => return Err(error),
                Err(Setback::Changed(why)) => {
                    begun_anew += 1;
                    if begun_anew >= ATTEMPTS_MAX {
                        let message = format!("tables were changed each of {ATTEMPTS_MAX} times: {why}");
                        return Err(Error::new(ErrorKind::Retry, message).with_hint(
                            "capture at a time when no tables are made, dropped or changed, or exclude them",
                        ));
                    }
                    holder.batch("ROLLBACK")?;
                }
                Err(Setback::Bytes) => {
                    holder.batch("ROLLBACK")?;
                    holder.set_text(Text::Bytes)?;
                }
            }
        }
    }

    fn try_to_get_ready(&self, holder: &mut Client) -> Result<Ready, Setback> {
        catalog::understand_names(holder)?;
        let matches = catalog::matches(holder, &self.choice, !self.source.options.schema_only)?;
        let before = catalog::relations(holder, &matches)?;
        self.check_grants(holder, &before)?;
        let names: Vec<(String, String)> =
            lockable(&before.tables).map(|table| (table.schema.clone(), table.name.clone())).collect();
        holder.batch(BEGIN)?;
        session::lock(holder, &names, self.source.options.lock_timeout)?;

        let snapshot = session::take_snapshot(holder)?;
        let matches = catalog::matches(holder, &self.choice, !self.source.options.schema_only)?;
        let relations = catalog::relations(holder, &matches)?;
        self.check_grants(holder, &relations)?;
        let locked = catalog::locked_here(holder)?;
        if let Some(new) = lockable(&relations.tables).find(|table| !locked.contains(&table.oid)) {
            return Err(Setback::Changed(format!("table {} was made or renamed", new.shown())));
        }
        let is_kept = |sequence: &Relation| !(snapshot.is_standby && sequence.is_unlogged);
        let (sequences, left): (Vec<Relation>, Vec<Relation>) = relations.sequences.into_iter().partition(is_kept);
        // For the locks that it leaves: a sequence that is there now is there at the end.
        sequences::read(holder, &sequences)?;
        let extensions = catalog::extensions(holder)?;
        let wants_objects = !self.source.options.schema_only && !self.choice.is_partial();
        let large_objects = if wants_objects { large_objects::count(holder)? } else { 0 };
        let tables = self.tables(holder, relations.tables, &snapshot)?;
        let schema = match &self.programs {
            Some(programs) => match (self.schema(programs, holder, &snapshot)?, holder.text()) {
                (toc, Text::Utf8) if toc.text == Text::Bytes => return Err(Setback::Bytes),
                (toc, Text::Bytes) => Some(toc.into_bytes()),
                (toc, Text::Utf8) => Some(toc),
            },
            None => None,
        };
        let mut hidden = match &schema {
            Some(_) if !self.choice.is_partial() => hidden::look(holder)?,
            _ => Vec::new(),
        };
        if !self.source.options.schema_only {
            let why = "its value is on the primary only: it is unlogged, and this is a standby";
            hidden.extend(left.iter().map(|sequence| Hidden { what: format!("sequence {}", sequence.shown()), why }));
        }
        Ok(Ready { snapshot, tables, sequences, extensions, large_objects, schema, hidden, begun_anew: 0 })
    }

    fn check_grants(&self, holder: &mut Client, relations: &Relations) -> Result<()> {
        let acting = grants::acting(holder)?;
        let missing = grants::missing(relations, &acting.role, self.source.options.schema_only);
        if missing.is_empty() {
            return Ok(());
        }
        Err(grants::denied(&missing, &acting, holder.server_version()))
    }

    fn tables(&self, holder: &mut Client, relations: Vec<Relation>, snapshot: &Snapshot) -> Result<Vec<Table>> {
        let locked: Vec<u32> = lockable(&relations).map(|table| table.oid).collect();
        let mut columns = catalog::columns(holder, &locked)?;
        let sizes = catalog::sizes(holder, &locked)?;
        let mut hiding = Vec::new();
        let mut out = Vec::with_capacity(relations.len());
        for relation in relations {
            let Some(kind) = relation.kind else { continue };
            let size = sizes.get(&relation.oid).copied().unwrap_or_default();
            if size.hides_rows {
                hiding.push(relation.shown());
            }
            out.push(Table {
                kind,
                columns: columns.remove(&relation.oid).unwrap_or_default(),
                size,
                can_be_cut: relation.is_heap && relation.condition.is_none() && holder.server_version() >= RANGES_SINCE,
                left_out: match kind {
                    _ if self.source.options.schema_only => Some("only the schema was asked for".to_owned()),
                    TableKind::Table if relation.is_unlogged && snapshot.is_standby => {
                        Some("its rows are on the primary only: it is unlogged, and this is a standby".to_owned())
                    }
                    _ => None,
                }
                .filter(|_| kind == TableKind::Table),
                relation,
            });
        }
        if !hiding.is_empty() && !self.source.options.schema_only {
            let role = &grants::acting(holder)?.role;
            let message = format!("row-level security hides rows from role {role:?} in: {}", grants::some_of(&hiding));
            return Err(Error::new(ErrorKind::Denied, message)
                .with_hint(format!("ALTER ROLE {} BYPASSRLS, or capture as another role", super::sql::quote(role))));
        }
        Ok(out)
    }

    fn schema(&self, programs: &Installation, holder: &mut Client, snapshot: &Snapshot) -> Result<Toc, Setback> {
        let is_ascii = holder.parameter("server_encoding") == Some("SQL_ASCII");
        let options = DumpOptions {
            snapshot: Some(snapshot.id.clone()),
            utf8: !is_ascii,
            lock_timeout: Some(self.source.options.lock_timeout),
            filter: self.source.options.dump_arguments(),
            ..DumpOptions::default()
        };
        let vigil = holder.vigil("pg_dump");
        let is_cancelled = || session::must_end(self.stop, &vigil);
        match tools::dump_schema(programs, &environment(holder, &vigil), &options, &is_cancelled) {
            Ok(toc) => Ok(toc),
            // Somebody came between our locks and those of pg_dump, which then waits for them as they wait for us.
            Err(error) if !self.stop.is_wanted() && catalog::is_waited_for(holder)? => {
                Err(Setback::Changed(error.chain()))
            }
            Err(error) => Err(error.context("describe the schema").into()),
        }
    }
}

/// How a program connects that `vigil` looks after.
fn environment(client: &Client, vigil: &Vigil) -> Vec<(&'static str, String)> {
    let own = client.conninfo().to_environment().into_iter().filter(|(variable, _)| *variable != "PGAPPNAME");
    let mut out: Vec<_> = own.chain([("PGAPPNAME", vigil.name.clone())]).collect();
    if out.iter().all(|(variable, _)| *variable != "PGCONNECT_TIMEOUT") {
        // It would try for ever.
        out.push(("PGCONNECT_TIMEOUT", CONNECT_TIMEOUT_DEFAULT.as_secs().to_string()));
    }
    out
}

fn lockable(tables: &[Relation]) -> impl Iterator<Item = &Relation> {
    tables.iter().filter(|table| table.kind.is_some_and(session::is_lockable))
}

/// Writes the schema's files. Gives what is to be remarked on them.
fn write_schema(toc: &Toc, tables: &[Table], folder: &str, streams: &Streams<'_>) -> Result<Vec<String>> {
    let path = |file| layout::in_database(folder, file);
    let is_filled = |table: &&Table| table.kind == TableKind::MaterializedView && table.relation.is_populated;
    let populated = tables.iter().filter(is_filled).map(|table| table.relation.oid).collect();
    streams.file(path(layout::TOC), |file| toc.write_json(file))?;
    let mut remarks = streams.file(path(layout::PRE_DATA), |file| script::write_pre_data(toc, file))?;
    let post = streams.file(path(layout::POST_DATA), |file| script::write_post_data(toc, Some(&populated), file))?;
    remarks.extend(post);
    remarks.extend(streams.file(path(layout::DATABASE), |file| script::write_database_properties(toc, file))?);
    Ok(remarks)
}
