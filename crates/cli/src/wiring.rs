//! From settings to the concrete sources and stores: the only module that names them.

mod access;
mod place;
mod postgres;

pub(crate) use access::{SECRET_NAMES, abilities};
pub(crate) use lastgood_stores::{Mount, Rates};
pub(crate) use place::Place;
pub(crate) use postgres::{
    Database, Server, covers, grants, holds_password, is_postgres_url, left_by_restores, proof_servers, reach,
    server_request, target_beside,
};

use crate::args::Owners;
use crate::config::{Config, Digest, SourceConfig, SourceSpec, nearest};
use lastgood_model::node::display_path;
use lastgood_model::source::Source;
use lastgood_model::store::SideName;
use lastgood_model::{Context, Error, ErrorKind, Result};
use lastgood_ops::restore::RestoreRequest;
use lastgood_sources::command::CommandSource;
use lastgood_sources::files::target::OwnerPolicy;
use lastgood_sources::files::{FilesOptions, FilesSource};
use lastgood_sources::sqlite::{self, DigestLevel, SqliteSource};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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
    let own = ["config", "data", "index", "keys", "locks", "snapshots", SideName::ROOT];
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
