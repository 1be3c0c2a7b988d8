//! A PostgreSQL server, or some of its databases, as a source.

use super::catalog::Choice;
use super::conninfo::Conninfo;
use super::parts;
use super::pattern::Pattern;
use super::{capture, probe};
use lastgood_model::source::{Captured, Chunking, Finding, Sink, Source};
use lastgood_model::{Error, Monitor, Result};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// Workers when their number is not given, at least and at most.
const WORKERS: (usize, usize) = (2, 8);

/// How databases are captured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only these tables, by patterns as `pg_dump --table` takes them.
    pub tables: Vec<String>,
    /// Not these tables, as `pg_dump --exclude-table`.
    pub exclude_tables: Vec<String>,
    /// Only these schemas, as `pg_dump --schema`.
    pub schemas: Vec<String>,
    /// Not these schemas, as `pg_dump --exclude-schema`.
    pub exclude_schemas: Vec<String>,
    /// No rows, sequences or large objects.
    pub schema_only: bool,
    /// No schema, roles or tablespaces.
    pub data_only: bool,
    /// How many connections read rows at once, beside the one that holds the snapshot. `None` for the number of cores,
    /// at least 2 and at most 8.
    pub jobs: Option<NonZeroUsize>,
    /// How long to wait for a table that somebody changes, before giving up.
    pub lock_timeout: Duration,
    /// Pages in a part of a table. Another number makes other parts, which share nothing with earlier recovery points.
    pub slab_pages: u64,
    /// How rows are cut into blobs.
    pub chunking: Chunking,
    /// The folder of PostgreSQL's client programs; searched for when not given.
    pub bin: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tables: Vec::new(),
            exclude_tables: Vec::new(),
            schemas: Vec::new(),
            exclude_schemas: Vec::new(),
            schema_only: false,
            data_only: false,
            jobs: None,
            lock_timeout: Duration::from_secs(30),
            slab_pages: parts::SLAB_PAGES,
            chunking: Chunking::Rows,
            bin: None,
        }
    }
}

impl Options {
    /// The patterns, read. Fails for those that cannot be meant, and for options that leave nothing.
    pub(super) fn choice(&self) -> Result<Choice> {
        if self.schema_only && self.data_only {
            return Err(Error::invalid("schema_only and data_only together leave nothing to capture"));
        }
        let all = |texts: &[String], read: fn(&str) -> Result<Pattern>| -> Result<Vec<Pattern>> {
            texts.iter().map(|text| read(text)).collect()
        };
        Ok(Choice {
            tables: all(&self.tables, Pattern::table)?,
            exclude_tables: all(&self.exclude_tables, Pattern::table)?,
            schemas: all(&self.schemas, Pattern::schema)?,
            exclude_schemas: all(&self.exclude_schemas, Pattern::schema)?,
        })
    }

    /// The same choice, for `pg_dump`.
    pub(super) fn dump_arguments(&self) -> Vec<String> {
        let lists = [
            ("table", &self.tables),
            ("exclude-table", &self.exclude_tables),
            ("schema", &self.schemas),
            ("exclude-schema", &self.exclude_schemas),
        ];
        let flags = |(flag, list): (&'static str, &Vec<String>)| -> Vec<String> {
            list.iter().map(|pattern| format!("--{flag}={pattern}")).collect()
        };
        lists.into_iter().flat_map(flags).collect()
    }

    pub(super) fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(WORKERS.0, NonZeroUsize::get);
        self.jobs.map_or_else(|| cores().clamp(WORKERS.0, WORKERS.1), NonZeroUsize::get)
    }
}

/// Databases of one server. Each is captured as it was at one moment, by reading alone: nobody who reads or writes rows
/// waits for it, whoever wants to change a table's definition waits until it is done.
#[derive(Clone, Debug)]
pub struct PostgresSource {
    /// The source's name.
    pub name: String,
    /// Where the server is, and as whom to connect.
    pub conninfo: Conninfo,
    /// Names of the databases, or all that can be connected to and are no templates.
    pub databases: Option<Vec<String>>,
    /// How to capture them.
    pub options: Options,
}

impl PostgresSource {
    /// The database that `conninfo` leads to, with default options.
    pub fn new(name: impl Into<String>, conninfo: Conninfo) -> Self {
        let databases = Some(vec![conninfo.database().to_owned()]);
        Self { name: name.into(), conninfo, databases, options: Options::default() }
    }
}

impl Source for PostgresSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn origins(&self) -> Vec<String> {
        match &self.databases {
            Some(names) => {
                names.iter().map(|name| self.conninfo.with_database(name).to_string_without_secrets()).collect()
            }
            None => vec![self.conninfo.to_string_without_secrets()],
        }
    }

    fn probe(&self) -> Result<Vec<Finding>> {
        Ok(probe::probe(self))
    }

    fn capture(&self, sink: &dyn Sink, monitor: &Monitor) -> Result<Captured> {
        monitor.check_cancelled()?;
        capture::capture(self, sink, monitor)
    }
}
