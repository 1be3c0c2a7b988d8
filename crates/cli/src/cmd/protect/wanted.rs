//! What a person wants protected: each path looked at, and its kind told by what is there.

use crate::config::{Config, SourceSpec};
use crate::wiring::is_sqlite;
use lastgood_model::node::display_path;
use lastgood_model::{Context, Error, ErrorKind, Result};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// One path, with what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Absolute.
    pub(super) path: PathBuf,
    /// A database, or else a folder or a file of another kind.
    pub(super) is_database: bool,
}

/// Looks at every path. The first that cannot be protected is an error.
pub(super) fn examine(paths: &[OsString]) -> Result<Vec<Wanted>> {
    let mut all: Vec<Wanted> = Vec::new();
    for path in paths {
        refuse_url(path)?;
        let thing = one(Path::new(path))?;
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
    Ok(Some(Wanted { path: absolute, is_database }))
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
        "postgres" | "postgresql" => "PostgreSQL databases",
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
        "protect a dump meanwhile: a source with kind = \"command\", such as command = [\"pg_dump\", \"shop\"]",
    ))
}

/// The source that has this path already.
pub(super) fn covered_by<'c>(thing: &Wanted, config: &'c Config) -> Option<&'c str> {
    let same = |path: &Path| {
        path == thing.path
            || fs_err::canonicalize(path).is_ok_and(|p| Some(p) == fs_err::canonicalize(&thing.path).ok())
    };
    let covers = |spec: &SourceSpec| match spec {
        SourceSpec::Sqlite { path, .. } => thing.is_database && same(path),
        // A database that is named by itself is worth a source of its own, with its counts in the manifest.
        SourceSpec::Files { paths, .. } => {
            paths.iter().any(|path| same(path) || (!thing.is_database && thing.path.starts_with(path)))
        }
        SourceSpec::Command { .. } => false,
    };
    config.sources.iter().find(|source| covers(&source.spec)).map(|source| source.name.as_str())
}

/// A name for a source: from the file's name, in letters that need no quotes anywhere.
pub(super) fn name_of(thing: &Wanted, taken: impl Fn(&str) -> bool) -> String {
    let name = if thing.is_database { thing.path.file_stem() } else { thing.path.file_name() };
    let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_else(|| "root".to_owned());
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
            name_of(&Wanted { path: path.into(), is_database }, |name| taken.contains(&name))
        };
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
            ("postgres://u:hunter2@h/db", "PostgreSQL"),
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
