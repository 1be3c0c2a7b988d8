//! lastgood's command line as measurements and proofs use it: one place to change when its words change.

use crate::shell::{self, cargo};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Exit status: done.
pub(crate) const OK: i32 = 0;
/// Exit status: damage was found.
pub(crate) const DAMAGE: i32 = 5;
/// Exit status: no such snapshot.
pub(crate) const NO_SNAPSHOT: i32 = 14;

/// What the application consists of.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Trees and files.
    Files { name: &'static str, paths: Vec<PathBuf> },
    /// A database.
    Sqlite { name: &'static str, path: PathBuf },
    /// A database of a PostgreSQL server; `bin` is the folder of PostgreSQL's programs, `chunk` how rows are cut.
    Postgres { name: &'static str, url: String, bin: PathBuf, chunk: &'static str },
}

/// The program with one config.
#[derive(Clone, Debug)]
pub(crate) struct Lastgood {
    binary: PathBuf,
    config: PathBuf,
    home: PathBuf,
    /// Where its repository is.
    pub(crate) repository: PathBuf,
    /// The key file, whose single line is the repository's password.
    pub(crate) key: PathBuf,
}

/// Builds the program as it is shipped and tells where it is.
pub(crate) fn build() -> Result<PathBuf> {
    shell::run(&mut cargo(["build", "--release", "--package", "lastgood", "--bin", "lastgood"]))?;
    Ok(shell::target().join("release/lastgood"))
}

impl Lastgood {
    /// Writes a config into `folder`, where key and caches go, too.
    pub(crate) fn new(binary: &Path, folder: &Path, repository: &Path, sources: &[Source]) -> Result<Self> {
        Self::at(binary, folder, text(repository)?, toml::Table::new(), sources)
    }

    /// The same with a repository at a path or URL, which is reached as `access` says.
    pub(crate) fn at(
        binary: &Path,
        folder: &Path,
        url: impl Into<String>,
        access: toml::Table,
        sources: &[Source],
    ) -> Result<Self> {
        fs_err::create_dir_all(folder)?;
        let url = url.into();
        let key = folder.join("repository.key");
        let mut tables = toml::Table::new();
        for source in sources {
            let mut table = toml::Table::new();
            let name = match source {
                Source::Files { name, paths } => {
                    table.insert("kind".into(), "files".into());
                    let paths: Result<Vec<_>> = paths.iter().map(|path| Ok(toml::Value::from(text(path)?))).collect();
                    table.insert("paths".into(), toml::Value::Array(paths?));
                    name
                }
                Source::Sqlite { name, path } => {
                    table.insert("kind".into(), "sqlite".into());
                    table.insert("path".into(), text(path)?.into());
                    name
                }
                Source::Postgres { name, url, bin, chunk } => {
                    table.insert("kind".into(), "postgres".into());
                    table.insert("url".into(), url.clone().into());
                    table.insert("bin".into(), text(bin)?.into());
                    table.insert("chunk".into(), (*chunk).into());
                    name
                }
            };
            tables.insert((*name).to_owned(), table.into());
        }
        let mut config = toml::Table::new();
        let app = toml::Table::from_iter([("name".to_owned(), "measured".into())]);
        config.insert("app".into(), app.into());
        config.insert("source".into(), tables.into());
        let mut local = access;
        local.insert("url".into(), url.clone().into());
        local.insert("key".into(), toml::Table::from_iter([("file".to_owned(), text(&key)?.into())]).into());
        config.insert("repository".into(), toml::Table::from_iter([("local".to_owned(), local.into())]).into());
        let path = folder.join("lastgood.toml");
        fs_err::write(&path, toml::to_string(&config).context("write config")?)?;
        let (binary, repository) = (binary.to_owned(), PathBuf::from(url));
        Ok(Self { binary, config: path, home: folder.join("home"), repository, key })
    }

    /// The words of a command line: program, then arguments.
    fn words(&self, arguments: &[&str]) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.binary.clone().into(), "--config".into(), self.config.clone().into()];
        words.extend(arguments.iter().map(OsString::from));
        words
    }

    /// Makes key and repository.
    pub(crate) fn init(&self) -> Vec<OsString> {
        self.words(&["init"])
    }

    /// Takes a recovery point; `force` reads every file again.
    pub(crate) fn backup(&self, force: bool) -> Vec<OsString> {
        self.words(if force { &["backup", "--force"] } else { &["backup"] })
    }

    /// Forgets recovery points.
    pub(crate) fn forget(&self, more: &[&str]) -> Vec<OsString> {
        let mut words = vec!["forget"];
        words.extend(more);
        self.words(&words)
    }

    /// Makes another repository with the same key material.
    pub(crate) fn init_twin(&self, place: &Path) -> Vec<OsString> {
        let mut words = self.words(&["init", "--copy-of", "local", "--repo"]);
        words.push(place.into());
        words.extend(["--key-file".into(), self.key.clone().into()]);
        words
    }

    /// Makes another repository with the same key file and other key material.
    pub(crate) fn init_at(&self, place: &Path) -> Vec<OsString> {
        let mut words = self.words(&["init", "--repo"]);
        words.push(place.into());
        words.extend(["--key-file".into(), self.key.clone().into()]);
        words
    }

    /// Copies all recovery points into another repository.
    pub(crate) fn copy_to(&self, place: &Path) -> Vec<OsString> {
        let mut words = self.words(&["copy", "local"]);
        words.push(place.into());
        words.extend(["--key-file".into(), self.key.clone().into()]);
        words
    }

    /// Lists the top of a recovery point.
    pub(crate) fn list(&self, snapshot: &str) -> Vec<OsString> {
        self.words(&["ls", snapshot])
    }

    /// Restores a recovery point into a folder; with the same folder again it goes on where it was stopped.
    pub(crate) fn restore(&self, snapshot: &str, to: &Path) -> Vec<OsString> {
        let mut words = self.words(&["restore", snapshot, "--to"]);
        words.push(to.into());
        words
    }

    /// Restores one source of a recovery point into the database of a URL, with more flags.
    pub(crate) fn restore_to_server(&self, snapshot: &str, source: &str, url: &str, more: &[&str]) -> Vec<OsString> {
        let mut words = self.words(&["restore", snapshot, "--source", source, "--to", url]);
        words.extend(more.iter().map(OsString::from));
        words
    }

    /// The program's file.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// What it takes for its user's home folder.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Reads metadata.
    pub(crate) fn check(&self) -> Vec<OsString> {
        self.words(&["check"])
    }

    /// Reads every byte.
    pub(crate) fn verify(&self) -> Vec<OsString> {
        self.words(&["verify"])
    }

    /// What to set for every run: caches and such go into the test's own folder.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let home = |name: &str| self.home.join(name).into_os_string();
        vec![
            ("HOME", home("")),
            ("XDG_CACHE_HOME", home("cache")),
            ("XDG_STATE_HOME", home("state")),
            ("XDG_DATA_HOME", home("data")),
            ("XDG_CONFIG_HOME", home("config")),
        ]
    }

    /// A command ready to start, quiet and without input.
    pub(crate) fn command(&self, words: &[OsString]) -> Command {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(self.environment()).stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub(crate) fn run(&self, words: &[OsString]) -> Result<Ran> {
        let output = self.command(words).output().with_context(|| format!("start {}", self.binary.display()))?;
        let said = [output.stdout.clone(), output.stderr].concat();
        Ok(Ran {
            status: output.status,
            stdout: output.stdout,
            said: String::from_utf8_lossy(&said).into_owned(),
            words: words.iter().skip(3).map(|word| word.to_string_lossy().into_owned()).collect(),
        })
    }

    /// Takes a recovery point and returns its full id.
    pub(crate) fn backup_id(&self) -> Result<String> {
        let ran = self.run(&self.words(&["backup", "--output", "json"]))?.ok()?;
        let report: Value = serde_json::from_slice(&ran.stdout).context("read the report of `backup --output json`")?;
        let id = ["snapshot", "snapshot_id", "id"].iter().find_map(|key| report.get(key).and_then(Value::as_str));
        Ok(id.context("the report of `backup` names no snapshot")?.to_owned())
    }

    /// Ids of all recovery points.
    pub(crate) fn snapshot_ids(&self) -> Result<Vec<String>> {
        Ok(self.points()?.into_iter().map(|point| point.id).collect())
    }

    /// All recovery points.
    pub(crate) fn points(&self) -> Result<Vec<Point>> {
        let ran = self.run(&self.words(&["snapshots", "--output", "json"]))?.ok()?;
        let list: Value = serde_json::from_slice(&ran.stdout).context("read `snapshots --output json`")?;
        let list = list.get("snapshots").unwrap_or(&list).as_array().context("`snapshots` gave no list")?;
        let point = |one: &Value| {
            let sources = one["sources"].as_array().map(Vec::as_slice).unwrap_or_default();
            let state = |source: &Value| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                (text(&source["name"]), text(&source["outcome"]["state"]))
            };
            Ok(Point {
                id: one["id"].as_str().context("a snapshot without id")?.to_owned(),
                is_complete: one["complete"] == true,
                sources: sources.iter().map(state).collect(),
            })
        };
        list.iter().map(point).collect()
    }

    /// Where a restore into `to` puts the tree of a files source.
    pub(crate) fn restored_tree(to: &Path, source: &str, original: &Path) -> PathBuf {
        to.join(source).join(original.strip_prefix("/").unwrap_or(original))
    }

    /// Where a restore into `to` put the database of an SQLite source, wherever below the source's folder it is.
    pub(crate) fn restored_database(to: &Path, source: &str, original: &Path) -> Result<PathBuf> {
        let mut folders = vec![to.join(source)];
        while let Some(folder) = folders.pop() {
            for entry in fs_err::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name() == original.file_name() {
                    return Ok(path);
                }
            }
        }
        bail!("no {} below {}", original.display(), to.join(source).display())
    }
}

/// A recovery point as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) id: String,
    /// As it says of itself.
    pub(crate) is_complete: bool,
    /// Names and outcomes.
    sources: Vec<(String, String)>,
}

impl Point {
    /// The outcome of a source, such as `complete` or `failed`; `None` if it is not part of it.
    pub(crate) fn state(&self, source: &str) -> Option<&str> {
        self.sources.iter().find(|(name, _)| name == source).map(|(_, state)| state.as_str())
    }
}

/// A run that ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// How it ended.
    pub(crate) status: std::process::ExitStatus,
    /// What it printed as data.
    pub(crate) stdout: Vec<u8>,
    /// Both outputs, for people.
    pub(crate) said: String,
    words: Vec<String>,
}

impl Ran {
    /// The exit status; `None` after a signal.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// True after a panic or an abort, which nothing read from disk may ever cause.
    pub(crate) fn has_crashed(&self) -> bool {
        self.code().is_none_or(|code| code == 101) || self.said.contains("panicked at")
    }

    /// Itself, when the exit status was 0.
    pub(crate) fn ok(self) -> Result<Self> {
        if self.code() == Some(OK) {
            return Ok(self);
        }
        bail!("lastgood {} ended with {}:\n{}", self.words.join(" "), self.status, self.said.trim_end())
    }
}

fn text(path: &Path) -> Result<String> {
    let bytes = path.as_os_str().as_bytes();
    Ok(std::str::from_utf8(bytes).with_context(|| format!("{} is not text", path.display()))?.to_owned())
}
