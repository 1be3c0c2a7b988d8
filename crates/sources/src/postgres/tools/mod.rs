//! PostgreSQL's own client programs on this host.
//!
//! A schema is described by `pg_dump` and by nothing of ours: it alone knows every kind of object of every server
//! version. It reads servers of its own major version and older ones, never newer ones, so several may have to be
//! installed; [`Tools::choose`] says which one serves.

mod child;
mod dump;
#[cfg(test)]
mod tests;

pub use dump::{DumpOptions, Globals, dump_globals, dump_schema};

use lastgood_model::{Error, ErrorKind, Result};
use rustix::fs::{Access, access};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Describes a database.
    PgDump,
    /// Describes what all databases of a server share.
    PgDumpall,
    /// Runs SQL.
    Psql,
    /// Loads an archive of `pg_dump`.
    PgRestore,
}

impl Program {
    /// Its file name.
    pub fn name(self) -> &'static str {
        match self {
            Self::PgDump => "pg_dump",
            Self::PgDumpall => "pg_dumpall",
            Self::Psql => "psql",
            Self::PgRestore => "pg_restore",
        }
    }
}

/// A version as the server reports it in `server_version_num`: 150018 is 15.18, 90624 is 9.6.24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

impl Version {
    /// What stays compatible: 15 of 15.18, 906 of 9.6.24.
    pub fn major(self) -> u32 {
        if self.0 >= 100_000 { self.0 / 10_000 } else { self.0 / 100 }
    }

    /// Finds a version in what a program says of itself, such as `pg_dump (PostgreSQL) 15.18 (Debian …)`; a
    /// development version such as `19devel` counts as its `.0`.
    pub fn parse(said: &str) -> Option<Self> {
        let word = said.split_once("(PostgreSQL)").or_else(|| said.split_once(' '))?.1.split_whitespace();
        let word = word.into_iter().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
        let mut numbers = word.split('.').map(|part| {
            let end = part.find(|char: char| !char.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse::<u32>().unwrap_or(0).min(9_999)
        });
        let [first, second, third] = std::array::from_fn(|_| numbers.next().unwrap_or(0));
        Some(Self(if first >= 10 { first * 10_000 + second } else { first * 10_000 + second * 100 + third }))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(number) = self;
        if *number >= 100_000 {
            write!(f, "{}.{}", number / 10_000, number % 10_000)
        } else {
            write!(f, "{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
        }
    }
}

/// A folder with PostgreSQL's client programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The folder.
    pub bin: PathBuf,
    /// The version of its `pg_dump`.
    pub version: Version,
}

impl Installation {
    /// The path of one of its programs. [`ErrorKind::Absent`] when it has none such.
    pub fn program(&self, program: Program) -> Result<PathBuf> {
        let path = self.bin.join(program.name());
        if is_program(&path) {
            return Ok(path);
        }
        let message = format!("{} has no {}", self.bin.display(), program.name());
        Err(Error::new(ErrorKind::Absent, message).with_hint(install_hint(self.version)))
    }
}

/// All that was found.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    /// Folders with a `pg_dump` that says its version, in the order in which they were looked at.
    pub installations: Vec<Installation>,
}

impl Tools {
    /// Looks into `bin` and nowhere else when it is given; it is an error then if no working `pg_dump` is there.
    /// Otherwise into the folders of `PATH` and those where packages of Linux distributions, Homebrew and Postgres.app
    /// put them. Asks each `pg_dump` for its version.
    pub fn find(bin: Option<&Path>) -> Result<Self> {
        let Some(bin) = bin else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).chain(usual_folders());
            return Ok(Self::look_into(folders));
        };
        let tools = Self::look_into([bin.to_owned()]);
        if tools.installations.is_empty() {
            let message = format!("{} has no pg_dump that runs", bin.display());
            return Err(Error::new(ErrorKind::Absent, message).with_hint(
                "let `bin` name the folder of PostgreSQL's programs, or leave it out to have them searched",
            ));
        }
        Ok(tools)
    }

    fn look_into(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut installations: Vec<Installation> = Vec::new();
        for folder in folders {
            let Some(bin) = home_of(&folder.join(Program::PgDump.name())) else { continue };
            if installations.iter().all(|known| known.bin != bin)
                && let Some(version) = ask_version(&bin.join(Program::PgDump.name()))
            {
                installations.push(Installation { bin, version });
            }
        }
        Self { installations }
    }

    /// The programs for a server of this `server_version_num`: of the same major version, or else of the oldest newer
    /// one. [`ErrorKind::Absent`] when none is installed, [`ErrorKind::Unsupported`] when all are older.
    pub fn choose(&self, server_version: u32) -> Result<&Installation> {
        let server = Version(server_version);
        let usable = self.installations.iter().filter(|one| one.version.major() >= server.major());
        // Of the right major version the newest minor; the first found when several are alike.
        let best = usable.min_by_key(|one| (one.version.major(), std::cmp::Reverse(one.version)));
        best.ok_or_else(|| {
            let (kind, found) = if self.installations.is_empty() {
                (ErrorKind::Absent, "pg_dump was not found on this host".to_owned())
            } else {
                let all = self.installations.iter().map(|one| format!("{} in {}", one.version, one.bin.display()));
                let all = all.collect::<Vec<_>>().join(", ");
                (ErrorKind::Unsupported, format!("every pg_dump here is older than the server's {server}: {all}"))
            };
            Error::new(kind, found).with_hint(install_hint(server))
        })
    }
}

fn install_hint(version: Version) -> String {
    let major = if version.0 >= 100_000 { version.major().to_string() } else { "10".to_owned() };
    format!(
        "install PostgreSQL's client programs in version {major} or newer (Debian and Ubuntu: postgresql-client-{major}; \
         Fedora and RHEL: postgresql{major}; Homebrew: postgresql@{major}), or name their folder with `bin = \"…\"`"
    )
}

/// Folders that match where packages put programs, newest version first.
fn usual_folders() -> Vec<PathBuf> {
    const PLACES: [(&str, &str, &str); 5] = [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/usr/local", "pgsql", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ];
    let mut folders = Vec::new();
    for (base, prefix, inner) in PLACES {
        let Ok(entries) = fs_err::read_dir(base) else { continue };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
        names.sort_by_key(|name| {
            let number: String = name[prefix.len()..].chars().take_while(char::is_ascii_digit).collect();
            std::cmp::Reverse((number.parse::<u32>().unwrap_or(0), name.clone()))
        });
        folders.extend(names.into_iter().map(|name| Path::new(base).join(name).join(inner)));
    }
    folders
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

/// The folder where a program really is. `None` for a link to something of another name: Debian's
/// `/usr/bin/pg_dump` is a wrapper that picks a version by itself, depending on the server it is told of.
fn home_of(program: &Path) -> Option<PathBuf> {
    if !is_program(program) {
        return None;
    }
    let real = fs_err::canonicalize(program).ok()?;
    if real.file_name() != program.file_name() {
        return None;
    }
    real.parent().map(Path::to_owned)
}

fn ask_version(program: &Path) -> Option<Version> {
    let mut command = Command::new(program);
    command.arg("--version");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let is_late = || std::time::Instant::now() >= deadline;
    let said = child::run(command, &[], &is_late, |out| child::take_all(out, 4096)).ok()?;
    Version::parse(&String::from_utf8_lossy(&said))
}
