//! rustic, a second implementation of the repository format by others.

use crate::restic::{make_password, run};
use lastgood_model::Result;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One repository as rustic sees it, without a cache.
#[derive(Clone, Debug)]
pub struct Rustic {
    program: PathBuf,
    /// The repository.
    pub repository: PathBuf,
    /// The file whose first line is its password.
    pub password_file: PathBuf,
}

impl Rustic {
    /// rustic on a repository.
    #[track_caller]
    pub fn new(repository: impl Into<PathBuf>, password_file: impl Into<PathBuf>) -> Self {
        Self { program: crate::tools::rustic(), repository: repository.into(), password_file: password_file.into() }
    }

    /// Runs rustic and gives back its standard output; any exit status but 0 is an error with all it said.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Vec<u8>> {
        let mut command = Command::new(&self.program);
        command.arg("--repository").arg(&self.repository).arg("--password-file").arg(&self.password_file);
        command.args(["--no-cache", "--no-progress"]).args(arguments).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"RUSTIC_") {
                command.env_remove(name);
            }
        }
        run(&mut command).map(|output| output.stdout)
    }

    /// Makes the repository, and the password file when there is none.
    pub fn init(&self) -> Result<()> {
        make_password(&self.password_file)?;
        self.run(["init"]).map(drop)
    }

    /// Saves a path.
    pub fn backup(&self, path: &Path) -> Result<()> {
        self.run([OsStr::new("backup"), path.as_os_str()]).map(drop)
    }

    /// Checks structure and every byte.
    pub fn check_read_data(&self) -> Result<()> {
        self.run(["check", "--read-data"]).map(drop)
    }

    /// Restores a snapshot (id, prefix, `latest`) into `target`.
    pub fn restore(&self, snapshot: &str, target: &Path) -> Result<()> {
        self.run([OsStr::new("restore"), OsStr::new(snapshot), target.as_os_str()]).map(drop)
    }
}
