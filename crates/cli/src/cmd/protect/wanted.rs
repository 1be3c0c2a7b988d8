//! What a person wants protected: each path or URL looked at, and its kind told by what is there.

use crate::config::{Config, SourceSpec};
use crate::wiring::{self, Database, holds_password, is_postgres_url, is_sqlite, reach};
use lastgood_model::node::display_path;
use lastgood_model::{Context, Error, ErrorKind, Result};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use zeroize::Zeroizing;

/// One thing, with what it is. Paths are absolute.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A folder, or a file that is no database.
    Files(PathBuf),
    /// A SQLite database.
    Sqlite(PathBuf),
    /// A database of a PostgreSQL server.
    Postgres(Server),
}

/// A database of a PostgreSQL server, which answered.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// As it was given: it may hold a password.
    pub(super) url: Zeroizing<String>,
    pub(super) database: Database,
}

impl Server {
    /// The URL must not be shown, nor stand in a config.
    pub(super) fn has_password(&self) -> bool {
        holds_password(&self.url)
    }
}

impl Wanted {
    /// Its path, where it has one.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Files(path) | Self::Sqlite(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Files(path) | Self::Sqlite(path) => path.display().to_string(),
            Self::Postgres(server) => server.database.shown.clone(),
        }
    }
}

/// Looks at every path. The first that cannot be protected is an error.
pub(super) fn examine(paths: &[OsString]) -> Result<Vec<Wanted>> {
    let mut all: Vec<Wanted> = Vec::new();
    for path in paths {
        let thing = match path.to_str().filter(|_| is_postgres_url(path)) {
            Some(url) => Some(Wanted::Postgres(Server { database: reach(url)?, url: Zeroizing::new(url.to_owned()) })),
            None => {
                refuse_url(path)?;
                one(Path::new(path))?
            }
        };
        if let Some(thing) = thing
            && !all.contains(&thing)
        {
            all.push(thing);
        }
    }
    if all.is_empty() {
        return Err(Error::invalid("these are only the side files of databases; name the databases themselves"));
    }
    Ok(all)
}

fn one(path: &Path) -> Result<Option<Wanted>> {
    let shown = display_path(path.as_os_str().as_bytes());
    let meta = fs_err::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(ErrorKind::Absent, format!("there is no {shown}"))
            .with_source(error)
            .with_hint("correct the path; nothing was written"),
        _ => Error::io(format!("look at {shown}"), error),
    })?;
    let absolute = std::path::absolute(path).with_context(|| format!("find {shown}"))?;
    // `..` after a link means another place than its text says.
    let absolute = if absolute.components().any(|c| c == Component::ParentDir) {
        fs_err::canonicalize(&absolute).with_context(|| format!("find {shown}"))?
    } else {
        absolute.components().collect()
    };
    if absolute.to_str().is_none() {
        return Err(Error::invalid(format!(
            "the path {shown} is not valid UTF-8, so it cannot be written into a config"
        ))
        .with_hint("name a folder above it; names inside of folders may be anything"));
    }
    if is_side_file(&absolute)? {
        return Ok(None);
    }
    let is_database = meta.is_file() && is_sqlite(&absolute).with_context(|| format!("look at {shown}"))?;
    Ok(Some(if is_database { Wanted::Sqlite(absolute) } else { Wanted::Files(absolute) }))
}

/// True for the log, index or journal beside a database, which is captured with it.
fn is_side_file(path: &Path) -> Result<bool> {
    for suffix in ["-wal", "-shm", "-journal"] {
        if let Some(base) = path.as_os_str().as_bytes().strip_suffix(suffix.as_bytes()) {
            let base = Path::new(OsStr::from_bytes(base));
            return Ok(base.is_file() && is_sqlite(base)?);
        }
    }
    Ok(false)
}

/// Databases on servers are for later versions; a clear word is better than "no such file".
fn refuse_url(text: &OsStr) -> Result<()> {
    let Some((scheme, _)) = text.to_str().and_then(|text| text.split_once("://")) else { return Ok(()) };
    let what = match scheme {
        "mysql" | "mariadb" => "MySQL and MariaDB databases",
        "mongodb" | "mongodb+srv" => "MongoDB databases",
        "s3" | "gs" | "az" | "azure" => "buckets",
        "sqlite" | "file" => {
            return Err(
                Error::invalid(format!("{scheme}:// is not needed here")).with_hint("write the plain path of the file")
            );
        }
        _ => {
            return Err(Error::invalid(format!("{scheme}:// cannot be protected"))
                .with_hint("name databases and folders by their paths"));
        }
    };
    Err(Error::invalid(format!("{what} are not in this version")).with_hint(
        "protect a dump meanwhile: a source with kind = \"command\", such as command = [\"mysqldump\", \"shop\"]",
    ))
}

/// The source that has this path already.
pub(super) fn covered_by<'c>(thing: &Wanted, config: &'c Config) -> Option<&'c str> {
    let real = thing.path().and_then(|path| fs_err::canonicalize(path).ok());
    let same = |path: &Path| thing.path() == Some(path) || (real.is_some() && fs_err::canonicalize(path).ok() == real);
    let covers = |spec: &SourceSpec| match (spec, thing) {
        (SourceSpec::Sqlite { path, .. }, Wanted::Sqlite(_)) => same(path),
        // A database that is named by itself is worth a source of its own, with its counts in the manifest.
        (SourceSpec::Files { paths, .. }, Wanted::Files(wanted)) => {
            paths.iter().any(|path| same(path) || wanted.starts_with(path))
        }
        (SourceSpec::Files { paths, .. }, Wanted::Sqlite(_)) => paths.iter().any(|path| same(path)),
        (SourceSpec::Postgres(config), Wanted::Postgres(server)) => wiring::covers(config, &server.url),
        _ => false,
    };
    config.sources.iter().find(|source| covers(&source.spec)).map(|source| source.name.as_str())
}

/// The source that has this path as a database, which is none now.
pub(super) fn emptied_database<'c>(thing: &Wanted, config: &'c Config) -> Option<&'c str> {
    let Wanted::Files(wanted) = thing else { return None };
    let real = fs_err::canonicalize(wanted).ok();
    let is_it = |spec: &SourceSpec| match spec {
        SourceSpec::Sqlite { path, .. } => {
            path == wanted || (real.is_some() && fs_err::canonicalize(path).ok() == real)
        }
        _ => false,
    };
    config.sources.iter().find(|source| is_it(&source.spec)).map(|source| source.name.as_str())
}

/// A name for a source: from the file's name, in letters that need no quotes anywhere.
pub(super) fn name_of(thing: &Wanted, taken: impl Fn(&str) -> bool) -> String {
    let text = |name: Option<&OsStr>| name.map(|name| name.to_string_lossy().into_owned());
    let name = match thing {
        Wanted::Sqlite(path) => text(path.file_stem()),
        Wanted::Files(path) => text(path.file_name()),
        Wanted::Postgres(server) => Some(server.database.name.clone()),
    };
    let name = name.unwrap_or_else(|| "root".to_owned());
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' }).collect();
    let plain = plain.trim_matches('-');
    let base = if plain.is_empty() { "source" } else { plain };
    let numbered = (2..).map(|n| format!("{base}-{n}"));
    std::iter::once(base.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_else(|| base.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_and_unique() {
        let name = |path: &str, is_database: bool, taken: &[&str]| {
            let wanted = if is_database { Wanted::Sqlite(path.into()) } else { Wanted::Files(path.into()) };
            name_of(&wanted, |name| taken.contains(&name))
        };
        let database = Database { name: "Shop 2".into(), shown: String::new(), password_of_variable: false };
        let server = Server { url: Zeroizing::new("postgres://".to_owned()), database };
        assert_eq!(name_of(&Wanted::Postgres(server), |_| false), "Shop-2");
        assert_eq!(name("/srv/shop.db", true, &[]), "shop");
        assert_eq!(name("/srv/shop.db", false, &[]), "shop-db");
        assert_eq!(name("/srv/.env", false, &[]), "env");
        assert_eq!(name("/srv/uploads", false, &["uploads", "uploads-2"]), "uploads-3");
        assert_eq!(name("/srv/日本", false, &[]), "source");
        assert_eq!(name("/", false, &[]), "root");
    }

    #[test]
    fn servers_are_refused_in_plain_words() {
        for (url, word) in [
            ("mysql://u:hunter2@h/db", "MySQL"),
            ("s3://b", "buckets"),
            ("ftp://x", "ftp"),
            ("sqlite://x.db", "plain path"),
        ] {
            let error = refuse_url(url.as_ref()).unwrap_err();
            let text = format!("{} {}", error.chain(), error.hint().unwrap_or_default());
            assert!(text.contains(word) && !text.contains("hunter2"), "{text}");
        }
        refuse_url("a/b".as_ref()).unwrap();
    }
}
