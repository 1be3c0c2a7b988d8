//! The config: `lastgood.toml`, the environment over it, and defaults below it. Flags go over all of this, in the
//! commands. What is wrong is told with its place; nothing is guessed and nothing unknown is passed over.

mod access;
mod decode;
mod diagnostic;
pub(crate) mod keep;
mod locate;
mod postgres;
mod read;
pub(crate) mod schema;
pub(crate) mod secret;
mod suggest;
mod tree;

pub(crate) use access::AccessConfig;
pub(crate) use keep::Keep;
pub(crate) use locate::FILE_NAME;
pub(crate) use postgres::{Cut, Databases, PostgresConfig, Url};
pub(crate) use read::Setting;
pub(crate) use secret::SecretRef;
pub(crate) use suggest::nearest;

use crate::wiring::Place;
use decode::decode;
use diagnostic::SourceText;
use lastgood_model::retention::{Policies, Policy};
use lastgood_model::{Context, Error, Result};
use lastgood_repo::Compression;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Variables that begin so are laid over the config file.
const VARIABLE_PREFIX: &str = "LASTGOOD__";

/// A config that can be worked with.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The file, when there is one.
    pub(crate) file: Option<PathBuf>,
    /// The application's name.
    pub(crate) app: String,
    /// How old the newest good recovery point may be.
    pub(crate) rpo: Option<Duration>,
    /// What `status` holds the application to.
    pub(crate) policy: Option<PolicyConfig>,
    /// What to protect.
    pub(crate) sources: Vec<SourceConfig>,
    /// Where to.
    pub(crate) repositories: Vec<RepositoryConfig>,
    /// Every effective value with its origin.
    pub(crate) settings: Vec<Setting>,
}

/// One thing to protect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceConfig {
    pub(crate) name: String,
    pub(crate) spec: SourceSpec,
    /// What is kept of it, in place of what the repository says.
    pub(crate) keep: Option<Policy>,
}

/// What kind of thing, with its settings. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourceSpec {
    /// Folders and files.
    Files {
        paths: Vec<PathBuf>,
        exclude: Vec<String>,
        exclude_files: Vec<PathBuf>,
        one_file_system: bool,
        exclude_caches: bool,
        exclude_larger_than: Option<u64>,
    },
    /// A database.
    Sqlite { path: PathBuf, digest: Digest },
    /// Databases of a PostgreSQL server.
    Postgres(Box<PostgresConfig>),
    /// What a command prints.
    Command { argv: Vec<String>, file: String, env: Vec<(String, String)>, cwd: PathBuf, timeout: Option<Duration> },
}

/// How much a manifest says of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Digest {
    /// Counts and the schema.
    Schema,
    /// Also the file's digest.
    #[default]
    Image,
    /// Also a digest of all rows.
    Full,
}

/// One place for recovery points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RepositoryConfig {
    pub(crate) name: String,
    /// Where it is.
    pub(crate) place: Place,
    /// Where its key is, when the config says so.
    pub(crate) key: Option<SecretRef>,
    pub(crate) compression: Compression,
    /// What `forget` keeps. Without it, everything.
    pub(crate) keep: Option<Keep>,
    /// Whether it is in another place than what it protects, when somebody says so.
    pub(crate) offsite: Option<bool>,
    /// So many bytes it may hold, when somebody says so.
    pub(crate) quota_bytes: Option<u64>,
}

/// What `status` asks for; 0 and `None` ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PolicyConfig {
    pub(crate) copies: u32,
    pub(crate) media: u32,
    pub(crate) offsite: u32,
    pub(crate) immutable: u32,
    pub(crate) verified_within: Option<Duration>,
}

/// Everything that is wrong with a config.
#[derive(Debug)]
pub(crate) struct ConfigProblems {
    /// Each on one line, with its position.
    pub(crate) lines: Vec<String>,
    /// Each with the line of the file and a caret.
    pub(crate) rendered: Vec<String>,
}

/// What stops a config from being loaded.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// What is written is wrong.
    Wrong(ConfigProblems),
    /// It could not be read.
    Unreadable(Error),
}

impl From<Error> for LoadError {
    fn from(error: Error) -> Self {
        Self::Unreadable(error)
    }
}

impl Config {
    /// Finds and reads the config; `None` when there is neither a file nor a variable.
    pub(crate) fn load(flag: Option<&Path>) -> Result<Option<Self>, LoadError> {
        let file = locate::locate(flag, |name| std::env::var_os(name))?;
        Self::load_from(file)
    }

    /// Reads one config file, with the environment over it.
    pub(crate) fn load_from(file: Option<PathBuf>) -> Result<Option<Self>, LoadError> {
        let mut variables: Vec<(String, String)> = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLE_PREFIX)) else { continue };
            let Some(value) = value.to_str() else {
                return Err(Error::invalid(format!("environment variable {name} is not text")).into());
            };
            variables.push((name.to_owned(), value.to_owned()));
        }
        variables.sort();
        if file.is_none() && variables.is_empty() {
            return Ok(None);
        }
        let (source, folder) = match &file {
            Some(path) => {
                let text = fs_err::read_to_string(path).map_err(|error| match error.kind() {
                    std::io::ErrorKind::InvalidData => {
                        Error::invalid("the config is not UTF-8 text").with_source(error)
                    }
                    _ => Error::io("read config", error),
                })?;
                let absolute = std::path::absolute(path).context("find the config's folder")?;
                let folder = absolute.parent().unwrap_or(Path::new("/")).to_owned();
                (SourceText::new(path, text), folder)
            }
            None => (SourceText::default(), std::env::current_dir().context("find the working directory")?),
        };
        let mut config = decode(&source, &variables, folder).map_err(LoadError::Wrong)?;
        config.file = file;
        if let Some(key) = SecretRef::of_environment() {
            config.lay_key_over(&key);
        }
        Ok(Some(config))
    }

    /// Puts a key that the environment names over those of the file. One that a variable gives to a repository by its
    /// name says more, and stays.
    fn lay_key_over(&mut self, key: &SecretRef) {
        let (way, value, variable) = match key {
            SecretRef::File(path) => ("file", path.display().to_string(), secret::KEY_FILE_VARIABLE),
            _ => ("env", secret::KEY_VARIABLE.to_owned(), secret::KEY_VARIABLE),
        };
        for repository in &mut self.repositories {
            let path = format!("{}.", read::path_of(&["repository", &repository.name, "key"]));
            let of_variable = |s: &Setting| s.key.starts_with(&path) && s.is_of_variable();
            if self.settings.iter().any(of_variable) {
                continue;
            }
            self.settings.retain(|setting| !setting.key.starts_with(&path));
            self.settings.push(Setting::of_variable(format!("{path}{way}"), read::quoted(&value), variable));
            repository.key = Some(key.clone());
        }
    }

    /// Where a setting was written, such as `lastgood.toml:12`; `None` for one that is not set.
    pub(crate) fn origin_of(&self, path: &[&str]) -> Option<&str> {
        let path = read::path_of(path);
        self.settings.iter().find(|setting| setting.key == path).map(|setting| setting.origin.as_str())
    }

    /// What is kept in a repository.
    pub(crate) fn policies(&self, repository: &RepositoryConfig) -> Policies {
        let own = self.sources.iter().filter_map(|source| Some((source.name.clone(), source.keep.clone()?)));
        let repository = repository.keep.as_ref().map(|keep| keep.policy.clone()).unwrap_or_default();
        Policies { repository, sources: own.collect() }
    }

    /// The config that a text would be, without the environment.
    pub(crate) fn of_text(path: &Path, text: &str, folder: PathBuf) -> Result<Self, ConfigProblems> {
        decode(&SourceText::new(path, text.to_owned()), &[], folder)
    }

    /// The repository by name.
    #[cfg(test)]
    fn repository(&self, name: &str) -> Option<&RepositoryConfig> {
        self.repositories.iter().find(|r| r.name == name)
    }
}

#[cfg(test)]
mod tests;
