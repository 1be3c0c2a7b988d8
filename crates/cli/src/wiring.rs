//! From settings to the concrete sources and stores: the only module that names them.

mod access;
mod postgres;

pub(crate) use access::{SECRET_NAMES, abilities};
pub(crate) use postgres::{
    Database, Server, covers, grants, holds_password, is_postgres_url, left_by_restores, proof_servers, reach,
    server_request, target_beside,
};

use crate::args::Owners;
use crate::config::{AccessConfig, Config, Digest, SourceConfig, SourceSpec, nearest};
use lastgood_model::node::display_path;
use lastgood_model::source::Source;
use lastgood_model::store::Store;
use lastgood_model::{Context, Error, ErrorKind, Monitor, Result};
use lastgood_ops::restore::RestoreRequest;
use lastgood_sources::command::CommandSource;
use lastgood_sources::files::target::OwnerPolicy;
use lastgood_sources::files::{FilesOptions, FilesSource};
use lastgood_sources::sqlite::{self, DigestLevel, SqliteSource};
use lastgood_stores::{Location, Pace, RetryPolicy, RetryStore, SystemPace, parse_location};
use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where a repository is, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    location: Location,
    access: AccessConfig,
}

impl Place {
    /// Understands a path or URL; relative paths are below `folder`. Touches nothing.
    pub(crate) fn parse(text: &OsStr, folder: &Path) -> Result<Self> {
        let location = match text.to_str() {
            Some(text) => parse_location(text)?,
            // A path that is not text can be no URL.
            None => Location::Local(PathBuf::from(text)),
        };
        let location = match location {
            Location::Local(path) => {
                let path = folder.join(path);
                Location::Local(path.components().filter(|c| *c != Component::CurDir).collect())
            }
            other => other,
        };
        Ok(Self { location, access: AccessConfig::default() })
    }

    /// The same place, reached as a config says.
    pub(crate) fn with_access(self, access: AccessConfig) -> Self {
        Self { access, ..self }
    }

    /// True when both are in one place, however it is reached.
    pub(crate) fn is_where(&self, other: &Self) -> bool {
        self.location == other.location
    }

    /// The store at this place, with passing trouble outlasted until somebody asks to stop.
    pub(crate) fn store(&self, monitor: &Arc<Monitor>) -> Result<Arc<dyn Store>> {
        let pace = Arc::new(StoppablePace { pace: SystemPace::default(), monitor: monitor.clone() });
        Ok(Arc::new(RetryStore::with_pace(
            self.location.open(&access::of(&self.access))?,
            RetryPolicy::default(),
            pace,
        )))
    }

    /// The folder, when it is one on this machine.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.location {
            Location::Local(path) => Some(path),
            _ => None,
        }
    }
}

impl Place {
    /// What to do when no repository is here, and better than making one where one is expected: `expected` is true when
    /// the config says so. Its key was found, so that most likely recovery points were made.
    pub(crate) fn hint_of_absence(&self, expected: bool) -> Option<String> {
        let folder = self.folder()?;
        let init = "Only where there never was one, make it with `lastgood init`";
        let is_empty = match fs_err::read_dir(folder) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let gone = "the config says that a repository is there, but the folder is gone: is its disk mounted, or was it moved?";
                return expected.then(|| format!("{gone} {init}"));
            }
            Err(_) => return None,
        };
        match (is_empty, expected) {
            (true, _) => Some(format!("the folder is there, but empty: is its disk mounted? {init}")),
            (false, true) => Some(
                "the folder holds something else: correct `url` in the config, or bring the repository back there"
                    .to_owned(),
            ),
            (false, false) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Location::Local(path) => f.write_str(&display_path(path.as_os_str().as_bytes())),
            Location::Object(place) => write!(f, "{place}"),
            _ => f.write_str("remote"),
        }
    }
}

/// Waits between tries, but not beyond the wish to stop.
struct StoppablePace {
    pace: SystemPace,
    monitor: Arc<Monitor>,
}

impl Pace for StoppablePace {
    fn now(&self) -> Duration {
        self.pace.now()
    }

    fn wait(&self, delay: Duration) -> Result<()> {
        const STEP: Duration = Duration::from_millis(100);
        let mut left = delay;
        while !left.is_zero() {
            self.monitor.check_cancelled()?;
            let step = left.min(STEP);
            self.pace.wait(step)?;
            left -= step;
        }
        Ok(())
    }

    fn random(&self) -> u64 {
        self.pace.random()
    }
}

/// The sources of a config, or those of them that were named. `never` is what must not be captured wherever it is met.
pub(crate) fn sources(config: &Config, wanted: &[String], never: &[PathBuf]) -> Result<Vec<Box<dyn Source>>> {
    for name in wanted {
        if !config.sources.iter().any(|s| s.name == *name) {
            let known: Vec<&str> = config.sources.iter().map(|s| s.name.as_str()).collect();
            let hint = match nearest(name, known.iter().copied()) {
                Some(word) => format!("did you mean {word:?}?"),
                None if known.is_empty() => "add a [source.NAME] section to the config".to_owned(),
                None => format!("the config has: {}", known.join(", ")),
            };
            return Err(Error::invalid(format!("there is no source {name:?} in the config")).with_hint(hint));
        }
    }
    let chosen = config.sources.iter().filter(|s| wanted.is_empty() || wanted.contains(&s.name));
    chosen.map(|s| source_of(config, s, never)).collect()
}

/// One source of a config, with what it refers to looked at first, so that a slip is told in its place.
pub(crate) fn source_of(config: &Config, one: &SourceConfig, never: &[PathBuf]) -> Result<Box<dyn Source>> {
    if let SourceSpec::Files { exclude_files, .. } = &one.spec
        && let Some(file) = exclude_files.iter().find(|file| !file.exists() || file.is_dir())
    {
        let origin = config.origin_of(&["source", &one.name, "exclude_files"]).unwrap_or("the config");
        let message = format!(
            "{origin}: `exclude_files` of source {:?} names {}, which is not a file",
            one.name,
            display_path(file.as_os_str().as_bytes())
        );
        return Err(Error::invalid(message)
            .with_hint("correct the path, or make the file: what it names would be captured without it"));
    }
    source(one, never)
}

/// One source by its settings alone.
pub(crate) fn source(config: &SourceConfig, never: &[PathBuf]) -> Result<Box<dyn Source>> {
    let name = config.name.clone();
    let act = || format!("set up source {:?}", config.name);
    Ok(match config.spec.clone() {
        SourceSpec::Files { paths, exclude, exclude_files, one_file_system, exclude_caches, exclude_larger_than } => {
            let never = never.to_vec();
            let options =
                FilesOptions { exclude, exclude_files, one_file_system, exclude_caches, exclude_larger_than, never };
            Box::new(FilesSource::new(name, paths, options).with_context(act)?)
        }
        SourceSpec::Sqlite { path, digest } => {
            let mut source = SqliteSource::new(name, path);
            source.options.digest = match digest {
                Digest::Schema => DigestLevel::Schema,
                Digest::Image => DigestLevel::Image,
                Digest::Full => DigestLevel::Full,
            };
            Box::new(source)
        }
        SourceSpec::Postgres(config) => Box::new(postgres::LatePostgres::new(name, *config)),
        SourceSpec::Command { argv, file, env, cwd, timeout } => {
            let mut source = CommandSource::new(name, argv, file);
            (source.env, source.cwd, source.timeout) = (env, Some(cwd), timeout);
            Box::new(source)
        }
    })
}

/// True when the file at `path` is a SQLite database.
pub(crate) fn is_sqlite(path: &Path) -> Result<bool> {
    let mut head = Vec::with_capacity(sqlite::HEADER_BYTES);
    let file = fs_err::File::open(path).context("look at what is to be protected")?;
    file.take(sqlite::HEADER_BYTES as u64).read_to_end(&mut head).context("look at what is to be protected")?;
    Ok(sqlite::looks_like_database(&head))
}

/// Whom restored files are to belong to.
pub(crate) fn set_owners(request: &mut RestoreRequest, owners: Option<Owners>) {
    request.owners = owners.map(|owners| match owners {
        Owners::Numeric => OwnerPolicy::Numeric,
        Owners::Names => OwnerPolicy::ByName,
        Owners::Skip => OwnerPolicy::Skip,
    });
}

/// Says what to do about a repository's folder that holds something else.
///
/// # Errors
/// [`ErrorKind::Conflict`] when there are files at `folder` and no repository among them.
pub(crate) fn refuse_foreign_folder(folder: &Path) -> Result<()> {
    let act = || format!("look into {}", folder.display());
    let mut entries = match fs_err::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(act),
    };
    // What an interrupted `init` leaves is taken up again: folders, and a key to nothing.
    let own = ["config", "data", "index", "keys", "locks", "snapshots"];
    let foreign = entries.find_map(|entry| match entry {
        Ok(entry) if own.iter().any(|name| entry.file_name() == *name) => None,
        Ok(entry) => Some(Ok(entry.file_name())),
        Err(error) => Some(Err(error)),
    });
    match foreign {
        None => Ok(()),
        Some(Err(error)) => Err(error).with_context(act),
        Some(Ok(name)) => Err(Error::new(
            ErrorKind::Conflict,
            format!("{} holds {:?} and is no repository", folder.display(), display_path(name.as_bytes())),
        )
        .with_hint("choose an empty folder, or one that does not exist yet")),
    }
}
