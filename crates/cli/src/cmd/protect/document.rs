//! The config file as text to be added to: what a person wrote in it, comments included, stays as it is.

use super::wanted::{Wanted, name_of};
use crate::config::{Config, SecretRef};
use crate::wiring::Place;
use lastgood_model::{Context, Error, ErrorKind, Result};
use std::io::Write;
use std::path::{Path, PathBuf};
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, value};

/// The first lines of a new config.
const HEADER: &str = "# What lastgood protects, and where to. `lastgood config check` looks at it.\n\n";

/// A config file being added to.
#[derive(Debug)]
pub(super) struct Document {
    path: PathBuf,
    folder: PathBuf,
    before: Option<String>,
    document: DocumentMut,
}

impl Document {
    /// Opens the file at `path`, or begins a new one.
    pub(super) fn open(path: &Path, folder: &Path) -> Result<Self> {
        let before = match fs_err::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).context("read config"),
        };
        let document = before
            .as_deref()
            .unwrap_or_default()
            .parse::<DocumentMut>()
            .map_err(|e| Error::invalid("the config is not TOML").with_source(e.message().to_owned()))?;
        let mut document = Self { path: path.to_owned(), folder: folder.to_owned(), before, document };
        if document.before.is_none() {
            let name =
                folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_else(|| "app".to_owned());
            let mut app = Table::new();
            app.insert("name", value(name));
            app.decor_mut().set_prefix(HEADER);
            document.document.insert("app", Item::Table(app));
        }
        Ok(document)
    }

    /// The table of tables by this name.
    fn tables(&mut self, key: &str) -> Result<&mut dyn toml_edit::TableLike> {
        let item = self.document.entry(key).or_insert_with(|| {
            let mut table = Table::new();
            // Only its sub-tables are written: [source.db], not [source].
            table.set_implicit(true);
            Item::Table(table)
        });
        item.as_table_like_mut().ok_or_else(|| Error::invalid(format!("`{key}` in the config is no table")))
    }

    /// Adds a source, and returns its name. The URL of a database that holds a password is kept in `url_file`, which is
    /// given the source's name and says where.
    pub(super) fn add_source(&mut self, thing: &Wanted, url_file: impl Fn(&str) -> PathBuf) -> Result<String> {
        let path = thing.path().map(|path| self.written(path)).transpose()?.unwrap_or_default();
        let sources = self.tables("source")?;
        let name = name_of(thing, |name| sources.contains_key(name));
        let mut table = Table::new();
        match thing {
            Wanted::Sqlite(_) => {
                table.insert("kind", value("sqlite"));
                table.insert("path", value(path));
            }
            Wanted::Files(_) => {
                table.insert("kind", value("files"));
                table.insert("paths", value(Array::from_iter([path])));
            }
            Wanted::Postgres(server) => {
                table.insert("kind", value("postgres"));
                if server.has_password() {
                    let file = self.written(&url_file(&name))?;
                    table.insert("url", value(InlineTable::from_iter([("file", file)])));
                } else {
                    table.insert("url", value(server.url.as_str()));
                }
            }
        }
        self.tables("source")?.insert(&name, Item::Table(table));
        Ok(name)
    }

    /// Adds a repository.
    pub(super) fn add_repository(&mut self, place: &Place, key: &SecretRef) -> Result<()> {
        let url = match place.folder() {
            Some(folder) => self.written(folder)?,
            None => place.to_string(),
        };
        let mut secret = InlineTable::new();
        match key {
            SecretRef::File(path) => {
                let path = std::path::absolute(path).context("find the key file")?;
                secret.insert("file", self.written(&path)?.into());
            }
            SecretRef::Env(name) => {
                secret.insert("env", name.as_str().into());
            }
            SecretRef::Command(argv) => {
                secret.insert("command", Array::from_iter(argv).into());
            }
            SecretRef::Systemd(name) => {
                secret.insert("systemd", name.as_str().into());
            }
        }
        let repositories = self.tables("repository")?;
        let candidates = std::iter::once("local".to_owned()).chain((2..).map(|n| format!("local-{n}")));
        let name = candidates.into_iter().find(|name| !repositories.contains_key(name));
        let mut table = Table::new();
        table.insert("url", value(url));
        table.insert("key", value(secret));
        repositories.insert(&name.unwrap_or_default(), Item::Table(table));
        Ok(())
    }

    /// A path as it is written: relative when it lies below the config's folder.
    fn written(&self, path: &Path) -> Result<String> {
        let written = match path.strip_prefix(&self.folder) {
            Ok(below) if below.as_os_str().is_empty() => PathBuf::from("."),
            Ok(below) if below.starts_with("..") => below.to_owned(),
            Ok(below) => Path::new(".").join(below),
            Err(_) => path.to_owned(),
        };
        written.into_os_string().into_string().map_err(|path| {
            Error::invalid(format!(
                "the path {} is not valid UTF-8, so it cannot be written into a config",
                path.to_string_lossy()
            ))
        })
    }

    /// The config that this text means.
    pub(super) fn config(&self) -> Result<Config> {
        Config::of_text(&self.path, &self.document.to_string(), self.folder.clone()).map_err(|problems| {
            Error::new(
                ErrorKind::Bug,
                format!("the config to be written cannot be used: {}", problems.lines.join("; ")),
            )
        })
    }

    /// Writes it, whole or not at all; true when it had to be.
    pub(super) fn save(&self) -> Result<bool> {
        let text = self.document.to_string();
        if self.before.as_ref() == Some(&text) {
            return Ok(false);
        }
        let act = || format!("write config {}", self.path.display());
        fs_err::create_dir_all(&self.folder).with_context(act)?;
        // A link to a config elsewhere stays a link.
        let path = fs_err::canonicalize(&self.path)
            .unwrap_or_else(|_| self.folder.join(self.path.file_name().unwrap_or_default()));
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".new-{}", std::process::id()));
        let new = path.with_file_name(name);
        let written = (|| {
            let mut file = fs_err::File::create(&new)?;
            file.write_all(text.as_bytes())?;
            if let Ok(meta) = fs_err::metadata(&path) {
                file.set_permissions(meta.permissions())?;
            }
            file.sync_all()?;
            fs_err::rename(&new, &path)?;
            fs_err::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
        })();
        if written.is_err() {
            // The error at hand is the one to tell.
            let _ = fs_err::remove_file(&new);
        }
        written.with_context(act)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::wanted::Server;
    use super::*;
    use crate::wiring::Database;
    use std::ffi::OsStr;
    use zeroize::Zeroizing;

    #[test]
    fn a_new_config_reads_as_a_person_would_write_it() {
        let folder = tempfile::tempdir().unwrap();
        let app = folder.path().join("shop");
        fs_err::create_dir(&app).unwrap();
        let path = app.join("lastgood.toml");
        let mut document = Document::open(&path, &app).unwrap();
        let url_file = |name: &str| app.join(format!("{name}.url"));
        document.add_source(&Wanted::Sqlite(app.join("shop.db")), url_file).unwrap();
        document.add_source(&Wanted::Files("/etc/shop".into()), url_file).unwrap();
        for url in ["postgres://u:hunter2@h/books", "postgres://u@h/books"] {
            let database = Database { name: "books".into(), shown: url.into(), password_of_variable: false };
            let server = Server { url: Zeroizing::new(url.to_owned()), database };
            document.add_source(&Wanted::Postgres(server), url_file).unwrap();
        }
        let place = Place::parse(OsStr::new("backups"), &app).unwrap();
        document.add_repository(&place, &SecretRef::File(app.join("lastgood.key"))).unwrap();
        assert!(document.save().unwrap());
        assert_eq!(
            fs_err::read_to_string(&path).unwrap(),
            "# What lastgood protects, and where to. `lastgood config check` looks at it.\n\n[app]\nname = \"shop\"\n\n\
             [source.shop]\nkind = \"sqlite\"\npath = \"./shop.db\"\n\n[source.shop-2]\nkind = \"files\"\npaths = [\"/etc/shop\"]\n\n\
             [source.books]\nkind = \"postgres\"\nurl = { file = \"./books.url\" }\n\n\
             [source.books-2]\nkind = \"postgres\"\nurl = \"postgres://u@h/books\"\n\n\
             [repository.local]\nurl = \"./backups\"\nkey = { file = \"./lastgood.key\" }\n"
        );
        assert_eq!(document.config().unwrap().repositories[0].place, place);
        assert!(!Document::open(&path, &app).unwrap().save().unwrap(), "nothing to change");
    }

    #[test]
    fn what_a_person_wrote_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lastgood.toml");
        let text =
            "# mine\n[source.a] # first\nkind = \"files\"   # odd   spacing\npaths = [ \"/a\",\n  # why\n  \"/b\" ]\n";
        fs_err::write(&path, text).unwrap();
        let mut document = Document::open(&path, folder.path()).unwrap();
        document.add_source(&Wanted::Files("/c".into()), |_| PathBuf::new()).unwrap();
        document.save().unwrap();
        let after = fs_err::read_to_string(&path).unwrap();
        assert!(after.starts_with(text), "{after}");
        assert!(after.contains("[source.c]\nkind = \"files\"\npaths = [\"/c\"]\n"), "{after}");
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1, "no leftovers");
    }
}
