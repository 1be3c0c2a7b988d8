//! The server that is measured on: PostgreSQL 18 with the settings of one in use, and its own programs as peers.

use crate::bench::Bench;
use crate::bench::measure::{Job, Sample, measure, prepare};
use crate::shell;
use anyhow::{Context, Result};
use lastgood_testkit::postgres::{PgServer, SUPERUSER, Version, quote_identifier};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// As somebody sets who means the server to keep what it holds and gives it a good part of a small machine. What is off
/// would run at moments of its own, during one measurement and not during another.
const SETTINGS: [(&str, &str); 12] = [
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    ("shared_buffers", "1GB"),
    ("effective_cache_size", "8GB"),
    ("work_mem", "16MB"),
    ("maintenance_work_mem", "256MB"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "30min"),
    ("random_page_cost", "1.1"),
    ("autovacuum", "off"),
    ("log_min_messages", "warning"),
];

/// How many connections each of the peers works with.
const JOBS: &str = "2";

/// How pg_dump compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// With gzip at level 6: what it does when nothing is said.
    Gzip,
    /// With zstd at level 3.
    Zstd,
    /// Not at all.
    Plain,
}

impl Packing {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Gzip, Self::Zstd, Self::Plain];

    fn compress(self) -> &'static str {
        match self {
            Self::Gzip => "--compress=gzip",
            Self::Zstd => "--compress=zstd:3",
            Self::Plain => "--compress=none",
        }
    }

    /// What it is called in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "pg_dump -Fd -j2, gzip",
            Self::Zstd => "pg_dump -Fd -j2, zstd:3",
            Self::Plain => "pg_dump -Fd -j2, uncompressed",
        }
    }
}

/// A running server, ended and removed with the value.
pub(super) struct Server {
    pg: PgServer,
    scratch: PathBuf,
}

impl Server {
    /// Starts an empty one on the disk that is measured.
    pub(super) fn start(bench: &Bench<'_>) -> Self {
        let pg = PgServer::start_in(&bench.corpus, Version::V18, &SETTINGS);
        Self { pg, scratch: bench.scratch.to_owned() }
    }

    /// The server itself.
    pub(super) fn pg(&self) -> &PgServer {
        &self.pg
    }

    /// The folder of its programs.
    pub(super) fn bin(&self) -> Result<PathBuf> {
        Ok(self.pg.bin("psql").parent().context("psql is in a folder")?.to_owned())
    }

    /// The URL of a database, without a password: over the socket nobody is asked for one.
    pub(super) fn url(&self, database: &str) -> String {
        self.pg.socket_url(database)
    }

    /// Runs SQL that is not measured.
    pub(super) fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let mut command = self.pg.client("psql", database);
        command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--command"]);
        Ok(shell::output(command.arg(sql))?.trim_end().to_owned())
    }

    /// One number that SQL gives.
    pub(super) fn number(&self, database: &str, sql: &str) -> Result<f64> {
        let said = self.sql(database, sql)?;
        said.parse().with_context(|| format!("{sql} gave {said:?}"))
    }

    /// Makes an empty database, in place of one of that name.
    pub(super) fn create(&self, database: &str) -> Result<()> {
        self.drop(database)?;
        self.sql("postgres", &format!("CREATE DATABASE {} TEMPLATE template0", quote_identifier(database))).map(drop)
    }

    /// Makes a database that is as `from` to the last page, in place of one of that name.
    pub(super) fn copy(&self, from: &str, to: &str) -> Result<()> {
        self.drop(to)?;
        let (from, to) = (quote_identifier(from), quote_identifier(to));
        self.sql("postgres", &format!("CREATE DATABASE {to} TEMPLATE {from} STRATEGY file_copy")).map(drop)
    }

    /// Removes a database if it is there.
    pub(super) fn drop(&self, database: &str) -> Result<()> {
        self.sql("postgres", &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_identifier(database))).map(drop)
    }

    /// Measures a job against the server: nothing is left to be written when it begins, and what it reads is in the file
    /// cache, which is the database and what is at `more`.
    pub(super) fn measure(&self, label: &str, job: &Job, database: Option<&str>, more: &[&Path]) -> Result<Sample> {
        self.sql("postgres", "CHECKPOINT")?;
        let mut warm: Vec<PathBuf> = more.iter().copied().map(PathBuf::from).collect();
        if let Some(name) = database {
            let oid = self.sql("postgres", &format!("SELECT oid FROM pg_database WHERE datname = '{name}'"))?;
            warm.push(self.pg.data().join("base").join(oid));
        }
        measure(label, job, &self.scratch, &warm)
    }

    /// A dump of a database into a folder.
    pub(super) fn dump(&self, database: &str, packing: Packing, to: &Path) -> Job {
        let more = ["--format=directory".into(), "--jobs".into(), JOBS.into(), packing.compress().into()];
        let mut words = self.client("pg_dump", database, more);
        words.extend(["--file".into(), to.into()]);
        Job::new(words)
    }

    /// A dump loaded into a database that is there and empty; with `list` only the entries that the file names.
    pub(super) fn load(&self, database: &str, list: Option<&Path>, from: &Path) -> Job {
        let mut words = self.client("pg_restore", database, ["--exit-on-error".into(), "--jobs".into(), JOBS.into()]);
        words.extend(list.map(|list| format!("--use-list={}", list.display()).into()));
        words.push(from.into());
        Job::new(words)
    }

    /// The least that any capture has to do: the rows of these tables, read over two connections into nothing, largest
    /// first, by whichever of two processes is free.
    pub(super) fn floor(&self, database: &str, tables: &[&str]) -> Job {
        let line = "psql=$1 url=$2; shift 2; printf 'COPY %s TO STDOUT\\0' \"$@\" | \
                    xargs -0 -n 1 -P \"$JOBS\" \"$psql\" --no-psqlrc --quiet --dbname \"$url\" --command >/dev/null";
        let mut words: Vec<OsString> = vec![self.pg.bin("psql").into(), self.url(database).into()];
        words.extend(tables.iter().map(OsString::from));
        Job::shell(line, words).env("JOBS", JOBS)
    }

    fn client(&self, program: &str, database: &str, more: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.pg.bin(program).into(), "--dbname".into(), self.url(database).into()];
        words.extend(more);
        words
    }

    /// Makes pgbench's tables.
    pub(super) fn pgbench(&self, database: &str, scale: u64) -> Result<()> {
        let mut command = self.pg.client("pgbench", database);
        // As pgbench does it by itself, but for the rows, which the server makes.
        command.args(["--initialize", "--quiet", "--init-steps=dtGpf", "--scale", &scale.to_string()]);
        command.env("PGUSER", SUPERUSER);
        shell::output(&mut command).map(drop)
    }

    /// Bytes of a table's rows as COPY writes them.
    pub(super) fn copy_bytes(&self, database: &str, table: &str) -> Result<f64> {
        let line = "\"$1\" --no-psqlrc --quiet --dbname \"$2\" --command \"COPY $3 TO STDOUT\" | wc -c";
        let said = shell::output(
            std::process::Command::new("bash")
                .args(["-o", "pipefail", "-ec", line, "bash"])
                .arg(self.pg.bin("psql"))
                .args([&self.url(database), table]),
        )?;
        said.trim().parse().with_context(|| format!("wc said {said:?}"))
    }

    /// Fails unless two databases hold the same, whatever the order of rows: as pg_dump describes them, and by the sums
    /// of all rows' hashes.
    pub(super) fn compare(&self, original: &str, restored: &str, tables: &[&str]) -> Result<()> {
        let line = "cmp <(\"$1\" --schema-only --restrict-key=x --dbname \"$2\") \
                    <(\"$1\" --schema-only --restrict-key=x --dbname \"$3\")";
        let (left, right) = (self.url(original), self.url(restored));
        let words: [OsString; 3] = [self.pg.bin("pg_dump").into(), left.into(), right.into()];
        prepare(&Job::shell(line, words)).with_context(|| format!("compare the schema of {restored}"))?;
        for table in tables {
            let sql = format!("SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {table} t");
            let (left, right) = (self.sql(original, &sql)?, self.sql(restored, &sql)?);
            anyhow::ensure!(left == right, "{table} of {restored} holds {right}, that of {original} {left}");
        }
        Ok(())
    }
}
