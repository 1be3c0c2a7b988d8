//! The settings of a PostgreSQL source.

use super::SecretRef;
use super::decode::{read_secret, tidied};
use super::read::{Section, Show};
use crate::text::parse_duration;
use crate::wiring;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Every key that there is, beside `kind`.
pub(super) const KEYS: &[&str] = &[
    "url",
    "databases",
    "tables",
    "exclude_tables",
    "schemas",
    "exclude_schemas",
    "schema_only",
    "data_only",
    "jobs",
    "chunk",
    "lock_timeout",
    "bin",
];

/// How many connections may read at once.
const JOBS_MAX: u32 = 64;

const URL_HINT: &str = "write url = { file = \"path\" }, { env = \"VARIABLE\" }, { command = [\"program\", …] } or \
                        { systemd = \"credential\" } for the whole URL; or leave the password out of it and put it into ~/.pgpass";

/// Databases of a PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PostgresConfig {
    pub(crate) url: Url,
    pub(crate) databases: Databases,
    pub(crate) tables: Vec<String>,
    pub(crate) exclude_tables: Vec<String>,
    pub(crate) schemas: Vec<String>,
    pub(crate) exclude_schemas: Vec<String>,
    pub(crate) schema_only: bool,
    pub(crate) data_only: bool,
    pub(crate) jobs: Option<NonZeroUsize>,
    pub(crate) chunk: Cut,
    pub(crate) lock_timeout: Option<Duration>,
    /// The folder of PostgreSQL's programs.
    pub(crate) bin: Option<PathBuf>,
}

/// Where the server is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Url {
    /// As it is written; that of a config holds no secret. Empty when the environment says all.
    Plain(String),
    /// All of it is a secret.
    Secret(SecretRef),
}

impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(text) if wiring::holds_password(text) => f.write_str("Plain(…)"),
            Self::Plain(text) => write!(f, "Plain({text:?})"),
            Self::Secret(reference) => write!(f, "Secret({reference:?})"),
        }
    }
}

/// Which databases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Databases {
    /// The one of the URL.
    #[default]
    OfUrl,
    /// These.
    Named(Vec<String>),
    /// All that can be connected to and are no templates.
    All,
}

/// How rows are cut into blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cut {
    /// About 64 KiB.
    #[default]
    Rows,
    /// About 1 MiB.
    Files,
}

impl PostgresConfig {
    /// The database of a URL, with all else as by default. The URL may hold a password.
    pub(crate) fn of_url(url: &str) -> Self {
        Self {
            url: Url::Plain(url.to_owned()),
            databases: Databases::OfUrl,
            tables: Vec::new(),
            exclude_tables: Vec::new(),
            schemas: Vec::new(),
            exclude_schemas: Vec::new(),
            schema_only: false,
            data_only: false,
            jobs: None,
            chunk: Cut::default(),
            lock_timeout: None,
            bin: None,
        }
    }
}

pub(super) fn read(section: &mut Section<'_>, folder: &Path) -> Option<PostgresConfig> {
    let url = match section.text_or_table("url", wiring::holds_password, URL_HINT) {
        Some(Ok(found)) => Some(Url::Plain(found.value)),
        Some(Err(table)) => read_secret(table, folder, URL_HINT).map(Url::Secret),
        None => None,
    };
    let databases = section.list_or("databases", "all");
    let mut patterns = |key| section.list(key, Show::All).map(|found| found.value).unwrap_or_default();
    let (tables, exclude_tables) = (patterns("tables"), patterns("exclude_tables"));
    let (schemas, exclude_schemas) = (patterns("schemas"), patterns("exclude_schemas"));
    let (schema_only, data_only) = (section.flag("schema_only"), section.flag("data_only"));
    let jobs = section.number("jobs", JOBS_MAX);
    let chunk = section.choice("chunk", &[("rows", Cut::Rows), ("files", Cut::Files)]);
    let lock_timeout = section.parsed("lock_timeout", "a span such as \"30s\" or \"5m\"", parse_duration);
    let bin = section.text("bin");
    if schema_only && data_only {
        let place = section.place.clone();
        let message = format!("[{}] has both `schema_only` and `data_only`, which leave nothing", section.path);
        section.wrong(&place, message, Some("remove one of them".to_owned()));
    }
    if let Some(found) = databases.as_ref().filter(|found| found.value.as_ref().is_some_and(Vec::is_empty)) {
        let hint = "name some, or write \"all\", or leave it out for the one of the URL".to_owned();
        section.wrong(&found.place, format!("`{}` names nothing", section.path_of("databases")), Some(hint));
    }
    if let Some(found) = &databases
        && let Some(names) = &found.value
        && let Some(twice) =
            names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)).map(|(_, name)| name)
    {
        let message = format!("`{}` names {twice:?} twice", section.path_of("databases"));
        section.wrong(&found.place, message, Some("name each once".to_owned()));
    }
    if let Some(found) = &lock_timeout
        && found.value.is_zero()
    {
        let message =
            format!("`{}` must not be zero: a lock would be waited for without end", section.path_of("lock_timeout"));
        section.wrong(&found.place, message, None);
    }
    if chunk.is_none() {
        section.default("chunk", "\"rows\"");
    }
    if lock_timeout.is_none() {
        section.default("lock_timeout", "\"30s\"");
    }
    let Some(url) = url else {
        section.missing("url", "\"postgres://user@host/database\"");
        return None;
    };
    Some(PostgresConfig {
        url,
        databases: match databases.map(|found| found.value) {
            None => Databases::OfUrl,
            Some(None) => Databases::All,
            Some(Some(names)) => Databases::Named(names),
        },
        tables,
        exclude_tables,
        schemas,
        exclude_schemas,
        schema_only,
        data_only,
        jobs: jobs.and_then(|found| NonZeroUsize::new(found.value as usize)),
        chunk: chunk.map(|found| found.value).unwrap_or_default(),
        lock_timeout: lock_timeout.map(|found| found.value),
        bin: bin.map(|found| {
            super::decode::refuse_tilde(section, &found.value, &found.place);
            tidied(folder.join(found.value))
        }),
    })
}
