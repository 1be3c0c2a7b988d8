//! PostgreSQL sources and servers by their settings.

use crate::args::Restore;
use crate::config::{Config, Cut, Databases, PostgresConfig, SourceSpec, Url};
use lastgood_model::source::{Captured, Chunking, Finding, Sink, Source};
use lastgood_model::{Context, Error, Monitor, Result};
use lastgood_ops::prove::ProofServer;
use lastgood_ops::restore_server::ServerRequest;
use lastgood_sources::postgres::conninfo::Conninfo;
use lastgood_sources::postgres::restore::{Leftover, RestoreOptions, leftovers};
use lastgood_sources::postgres::wire::Client;
use lastgood_sources::postgres::{self, Options, PostgresSource};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::sync::OnceLock;

/// Longer than any database's name can be.
const UNNAMED: &str = "lastgood: whoever wrote this connection has named no database, so that there is none";

/// Databases that are looked into for tables, at most.
const DATABASES_ASKED_MAX: usize = 50;

/// A source whose URL is fetched when it is first needed: where it cannot be had, this source fails and the others do
/// not.
#[derive(Debug)]
pub(crate) struct LatePostgres {
    name: String,
    config: PostgresConfig,
    made: OnceLock<PostgresSource>,
}

impl LatePostgres {
    pub(crate) fn new(name: String, config: PostgresConfig) -> Self {
        Self { name, config, made: OnceLock::new() }
    }

    fn made(&self) -> Result<&PostgresSource> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let made = make(&self.name, &self.config)?;
        Ok(self.made.get_or_init(|| made))
    }
}

impl Source for LatePostgres {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn origins(&self) -> Vec<String> {
        match (self.made(), &self.config.url) {
            (Ok(made), _) => made.origins(),
            (Err(_), Url::Plain(text)) => vec![text.clone()],
            (Err(_), Url::Secret(reference)) => vec![format!("the URL in {}", reference.place())],
        }
    }

    fn probe(&self) -> Result<Vec<Finding>> {
        self.made()?.probe()
    }

    fn examine(&self) -> Result<Vec<Finding>> {
        let mut findings = self.made()?.examine()?;
        if let Url::Secret(reference) = &self.config.url
            && let Some((message, hint)) = reference.exposure_as("URL file")
        {
            findings.push(Finding { level: lastgood_model::source::FindingLevel::Warning, message, hint: Some(hint) });
        }
        Ok(findings)
    }

    fn capture(&self, sink: &dyn Sink, monitor: &Monitor) -> Result<Captured> {
        self.made()?.capture(sink, monitor)
    }
}

fn make(name: &str, config: &PostgresConfig) -> Result<PostgresSource> {
    let conninfo = conninfo(config).with_context(|| format!("understand `url` of source {name:?}"))?;
    let mut source = PostgresSource::new(name, conninfo);
    match &config.databases {
        Databases::OfUrl => {}
        Databases::Named(names) => source.databases = Some(names.clone()),
        Databases::All => source.databases = None,
    }
    let defaults = Options::default();
    source.options = Options {
        tables: config.tables.clone(),
        exclude_tables: config.exclude_tables.clone(),
        schemas: config.schemas.clone(),
        exclude_schemas: config.exclude_schemas.clone(),
        schema_only: config.schema_only,
        data_only: config.data_only,
        jobs: config.jobs,
        lock_timeout: config.lock_timeout.unwrap_or(defaults.lock_timeout),
        chunking: match config.chunk {
            Cut::Rows => Chunking::Rows,
            Cut::Files => Chunking::Files,
        },
        bin: config.bin.clone(),
        ..defaults
    };
    Ok(source)
}

/// What to connect to, from a URL or `key=value` text and this process's environment.
fn understand(text: &str) -> Result<Conninfo> {
    Conninfo::parse(text, &variable)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// True for a connection whose text holds a password.
pub(crate) fn holds_password(text: &str) -> bool {
    postgres::holds_password(text)
}

/// True for what names a PostgreSQL server and no path.
pub(crate) fn is_postgres_url(text: &OsStr) -> bool {
    text.to_str().is_some_and(|text| text.starts_with("postgres://") || text.starts_with("postgresql://"))
}

/// What killed restores and proofs have left on a server; nothing when it cannot be asked.
pub(crate) fn left_by_restores(server: &ProofServer) -> Vec<Leftover> {
    leftovers(&server.conninfo).unwrap_or_default()
}

/// A server, and the database in it when the URL names one.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// How to connect. Its database is the one that is named, else no database at all.
    pub(crate) conninfo: Conninfo,
    /// The database, when the URL or the service it names says so. What `PGDATABASE` says is not meant.
    pub(crate) database: Option<String>,
}

impl Server {
    /// Understands a URL. Connects to nothing.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let conninfo = Conninfo::parse(text, &|name| match name {
            "PGDATABASE" => Some(UNNAMED.to_owned()),
            _ => variable(name),
        })?;
        let database = Some(conninfo.database().to_owned()).filter(|name| name != UNNAMED);
        Ok(Self { conninfo, database })
    }

    /// Without secrets.
    pub(crate) fn shown(&self) -> String {
        match &self.database {
            Some(_) => self.conninfo.to_string_without_secrets(),
            None => format!("the server at {}", self.conninfo.host_shown()),
        }
    }
}

/// What a restore into a server was asked for.
///
/// # Errors
/// [`lastgood_model::ErrorKind::Invalid`] for flags that make no sense together.
pub(crate) fn server_request(args: &Restore, server: &Server) -> Result<ServerRequest> {
    let wanted = &args.server;
    let rename = match (&wanted.rename, wanted.tables.as_slice()) {
        (None, _) => None,
        (Some(name), [table]) => Some((table.clone(), name.clone())),
        (Some(_), _) => {
            return Err(Error::invalid("--as gives one table another name, and --table names several")
                .with_hint("run the command once for each table"));
        }
    };
    for (flag, given) in
        [("--schema", !wanted.schemas.is_empty()), ("--exclude-table", !wanted.exclude_tables.is_empty())]
    {
        if given && rename.is_some() {
            return Err(Error::invalid(format!("--as and {flag} do not go together"))
                .with_hint("--table NAME --as OTHER restores exactly one table"));
        }
    }
    if rename.is_some() && wanted.data_only {
        return Err(Error::invalid(
            "--as and --data-only do not go together: the table is made anew under its other name",
        ));
    }
    if wanted.data_only && wanted.roles {
        return Err(Error::invalid("--roles and --data-only do not go together: rows belong to nobody"));
    }
    Ok(ServerRequest {
        source: args.sources.first().cloned(),
        server: server.conninfo.clone(),
        database: server.database.clone(),
        options: RestoreOptions {
            database: wanted.database.clone(),
            tables: if rename.is_some() { Vec::new() } else { wanted.tables.clone() },
            exclude_tables: wanted.exclude_tables.clone(),
            schemas: wanted.schemas.clone(),
            rename,
            schema_only: wanted.schema_only,
            data_only: wanted.data_only,
            no_owner: wanted.no_owner,
            no_acl: wanted.no_acl,
            roles: wanted.roles,
            continue_past_errors: wanted.continue_past_errors,
            jobs: wanted.jobs.map_or(0, NonZeroUsize::get),
            overwrite: args.overwrite,
            force: args.force,
            ..RestoreOptions::default()
        },
    })
}

/// A database that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Database {
    /// Its name.
    pub(crate) name: String,
    /// The URL without secrets.
    pub(crate) shown: String,
    /// The password came from `PGPASSWORD`, which other processes may not have.
    pub(crate) password_of_variable: bool,
}

/// Looks whether the database that a URL leads to lets us in.
///
/// # Errors
/// Those of connecting, and [`lastgood_model::ErrorKind::Invalid`] for a URL without the name of a database where the one
/// that it then means has no tables and others of the server have some.
pub(crate) fn reach(text: &str) -> Result<Database> {
    let conninfo = understand(text)?;
    let shown = conninfo.to_string_without_secrets();
    let mut client = Client::connect(&conninfo).with_context(|| format!("connect to {shown}"))?;
    let is_named =
        Server::parse(text)?.database.is_some() || variable("PGDATABASE").is_some_and(|name| !name.is_empty());
    if !is_named && !has_tables(&mut client)? {
        let others = others_with_tables(&mut client, &conninfo)?;
        if let Some(first) = others.first() {
            let name = conninfo.database();
            let message = format!(
                "the URL names no database, which means {name:?}, and that has no tables; others of the server have \
                 some: {}",
                others.join(", ")
            );
            return Err(Error::invalid(message).with_hint(format!(
                "name one: {}; or protect all of them: a source with `databases = \"all\"` in lastgood.toml",
                conninfo.with_database(first).to_string_without_secrets()
            )));
        }
    }
    let password_of_variable = !holds_password(text) && variable("PGPASSWORD").is_some_and(|value| !value.is_empty());
    Ok(Database { name: conninfo.database().to_owned(), shown, password_of_variable })
}

fn has_tables(client: &mut Client) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c \
               JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
               WHERE c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p', 'm', 'f']::pg_catalog.\"char\"[]) \
               AND n.nspname OPERATOR(pg_catalog.!~) '^pg_' \
               AND n.nspname OPERATOR(pg_catalog.<>) 'information_schema')";
    client.query(sql).context("look for tables")?.only()?.is_true(0)
}

/// The other databases of a server that have tables, as far as we are let in.
fn others_with_tables(client: &mut Client, conninfo: &Conninfo) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let sql = "SELECT d.datname FROM pg_catalog.pg_database d WHERE d.datallowconn AND NOT d.datistemplate \
               AND d.datname OPERATOR(pg_catalog.<>) pg_catalog.current_database() \
               AND pg_catalog.has_database_privilege(d.oid, 'CONNECT') ORDER BY d.datname COLLATE \"C\"";
    client
        .for_each_row(sql, |row| {
            names.push(row.text(0)?.to_owned());
            Ok(())
        })
        .context("list databases")?;
    names.truncate(DATABASES_ASKED_MAX);
    names.retain(|name| {
        Client::connect(&conninfo.with_database(name)).and_then(|mut client| has_tables(&mut client)).unwrap_or(false)
    });
    Ok(names)
}

/// True when a source has the database that a URL leads to already, whatever it may leave out of it.
pub(crate) fn covers(config: &PostgresConfig, text: &str) -> bool {
    let (Ok(source), Ok(conninfo)) = (make("", config), understand(text)) else { return false };
    let same_server = |name: &str| {
        source.conninfo.with_database(name).to_string_without_secrets()
            == conninfo.with_database(name).to_string_without_secrets()
    };
    let name = conninfo.database();
    same_server(name) && source.databases.is_none_or(|all| all.iter().any(|one| one == name))
}

fn conninfo(config: &PostgresConfig) -> Result<Conninfo> {
    match &config.url {
        Url::Plain(text) => understand(text),
        Url::Secret(reference) => understand(&reference.resolve_url()?),
    }
}

/// Where the PostgreSQL sources of a config can be restored to for a proof. One whose URL cannot be had is left out.
pub(crate) fn proof_servers(config: &Config) -> BTreeMap<String, ProofServer> {
    let mut servers = BTreeMap::new();
    for source in &config.sources {
        if let SourceSpec::Postgres(settings) = &source.spec
            && let Ok(conninfo) = conninfo(settings)
        {
            servers.insert(source.name.clone(), ProofServer { conninfo, bin: settings.bin.clone() });
        }
    }
    servers
}

/// The statements that make a role which can capture these databases and no more; called `lastgood_backup` unless
/// `role` says otherwise.
///
/// # Errors
/// [`lastgood_model::ErrorKind::Invalid`] when the source's URL cannot be had or understood, it covers whatever
/// databases there are, or no role can have that name.
pub(crate) fn grants(name: &str, config: &PostgresConfig, role: Option<&str>) -> Result<String> {
    let source = make(name, config)?;
    let Some(databases) = &source.databases else {
        return Err(Error::invalid(format!("source {name:?} takes all databases of its server"))
            .with_hint("name them with `databases = [\"…\"]` to have their grants written out"));
    };
    let role = role.unwrap_or(postgres::BACKUP_ROLE);
    let url = source.conninfo.with_user(role)?.to_string_without_secrets();
    postgres::least_privilege_script(role, databases, &url)
}

/// A URL of the same server with a new name for the database, to restore to beside the old one. Without a database's
/// name where several were captured, which then keep theirs.
pub(crate) fn target_beside(config: &PostgresConfig) -> Result<String> {
    let source = make("", config)?;
    match source.databases.as_deref() {
        Some([only]) => Ok(source.conninfo.with_database(&format!("{only}_restored")).to_string_without_secrets()),
        _ => Ok(format!("postgres://{}@{}/", source.conninfo.user(), source.conninfo.host_shown())),
    }
}
