//! restic, run as a user would: a stranger that reads, checks and writes the same repositories.

use crate::compare::{Difference, TreeState, What};
use lastgood_model::{Context, Error, ErrorKind, NodeKind, Result};
use serde::Deserialize;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// One repository as restic sees it. Without a cache, so that everything is read from the repository itself.
#[derive(Clone, Debug)]
pub struct Restic {
    program: PathBuf,
    /// The repository.
    pub repository: PathBuf,
    /// The file whose first line is its password.
    pub password_file: PathBuf,
}

/// What `restic snapshots --json` tells about a snapshot.
#[derive(Clone, Debug, Deserialize)]
pub struct ResticSnapshot {
    /// Full id.
    pub id: String,
    /// When it was taken, RFC 3339.
    pub time: String,
    /// Tree id.
    pub tree: String,
    /// What was asked to be saved.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Host.
    #[serde(default)]
    pub hostname: String,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Parent snapshot, full id.
    #[serde(default)]
    pub parent: Option<String>,
    /// What it was rewritten or copied from, full id.
    #[serde(default)]
    pub original: Option<String>,
}

impl Restic {
    /// The newest restic on a repository.
    #[track_caller]
    pub fn newest(repository: impl Into<PathBuf>, password_file: impl Into<PathBuf>) -> Self {
        Self { program: crate::tools::restic(), repository: repository.into(), password_file: password_file.into() }
    }

    /// The distribution's restic on a repository.
    #[track_caller]
    pub fn old(repository: impl Into<PathBuf>, password_file: impl Into<PathBuf>) -> Self {
        Self { program: crate::tools::restic_old(), repository: repository.into(), password_file: password_file.into() }
    }

    /// A restic of one's own choice on a repository.
    pub fn with_program(
        program: impl Into<PathBuf>,
        repository: impl Into<PathBuf>,
        password_file: impl Into<PathBuf>,
    ) -> Self {
        Self { program: program.into(), repository: repository.into(), password_file: password_file.into() }
    }

    /// A command to which arguments can be added.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--repo").arg(&self.repository).arg("--password-file").arg(&self.password_file).arg("--no-cache");
        // Nothing of the tester's own settings.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"RESTIC_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs restic and gives back its standard output; any exit status but 0 is an error with all it said.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Vec<u8>> {
        run(self.command().args(arguments)).map(|output| output.stdout)
    }

    /// Makes the repository, version 2, and the password file when there is none.
    pub fn init(&self) -> Result<()> {
        make_password(&self.password_file)?;
        self.run(["init", "--repository-version", "2"]).map(drop)
    }

    /// Makes the repository with the chunker polynomial of another, so that both cut files alike.
    pub fn init_like(&self, other: &Restic) -> Result<()> {
        make_password(&self.password_file)?;
        let mut command = self.command();
        command.args(["init", "--repository-version", "2", "--copy-chunker-params", "--from-repo"]);
        command.arg(&other.repository).arg("--from-password-file").arg(&other.password_file);
        run(&mut command).map(drop)
    }

    /// Saves `paths` and returns the snapshot's full id.
    pub fn backup<S: AsRef<OsStr>>(&self, paths: impl IntoIterator<Item = S>, more: &[&str]) -> Result<String> {
        let output = run(self.command().args(["backup", "--json"]).args(more).args(paths))?.stdout;
        let summary = output
            .split(|&byte| byte == b'\n')
            .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
            .find_map(|message| message.get("snapshot_id").and_then(|id| id.as_str()).map(ToOwned::to_owned));
        let id = summary.ok_or_else(|| Error::new(ErrorKind::Corrupt, "restic's summary names no snapshot"))?;
        // Old versions print the short id.
        self.snapshots()?
            .into_iter()
            .find(|snapshot| snapshot.id.starts_with(&id))
            .map(|snapshot| snapshot.id)
            .ok_or_else(|| Error::new(ErrorKind::Absent, format!("restic does not list its snapshot {id}")))
    }

    /// Restores a snapshot (id, prefix, `latest`, or `id:path`) into `target`, holes as holes.
    pub fn restore(&self, snapshot: &str, target: &Path) -> Result<()> {
        let mut command = self.command();
        command.args(["restore", snapshot, "--target"]).arg(target);
        if self.version()?.1 >= 15 {
            command.arg("--sparse");
        }
        run(&mut command).map(drop)
    }

    /// Major and minor version.
    pub fn version(&self) -> Result<(u32, u32)> {
        let text = run(Command::new(&self.program).arg("version").stdin(Stdio::null()))?.stdout;
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut parts = text.split_whitespace().nth(1).unwrap_or_default().split('.').map(str::parse);
        match (parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
            _ => Err(Error::corrupt(format!("not a version of restic: {text:?}"))),
        }
    }

    /// Checks structure and every byte.
    pub fn check_read_data(&self) -> Result<()> {
        self.run(["check", "--read-data"]).map(drop)
    }

    /// Checks structure.
    pub fn check(&self) -> Result<()> {
        self.run(["check"]).map(drop)
    }

    /// The content of one file of a snapshot.
    pub fn dump(&self, snapshot: &str, path: &str) -> Result<Vec<u8>> {
        self.run(["dump", snapshot, path])
    }

    /// Copies snapshots (all when none are named) into another repository.
    pub fn copy_to(&self, other: &Restic, snapshots: &[&str]) -> Result<()> {
        let mut command = other.command();
        command.arg("copy").arg("--from-repo").arg(&self.repository);
        command.arg("--from-password-file").arg(&self.password_file).args(snapshots);
        run(&mut command).map(drop)
    }

    /// Rewrites snapshots, leaving out what matches `exclude`, and forgets the originals.
    pub fn rewrite(&self, exclude: &str, snapshots: &[&str]) -> Result<()> {
        run(self.command().args(["rewrite", "--forget", "--exclude", exclude]).args(snapshots)).map(drop)
    }

    /// Forgets snapshots and removes what only they used.
    pub fn forget_and_prune(&self, snapshots: &[&str]) -> Result<()> {
        run(self.command().args(["forget", "--prune"]).args(snapshots)).map(drop)
    }

    /// All snapshots, oldest first.
    pub fn snapshots(&self) -> Result<Vec<ResticSnapshot>> {
        let output = self.run(["snapshots", "--json"])?;
        serde_json::from_slice(&output).context("read restic's list of snapshots")
    }

    /// The decrypted JSON of an object: `config`, `key ID`, `index ID`, `snapshot ID`, `lock ID`, or bytes of a blob or
    /// pack.
    pub fn cat(&self, what: &[&str]) -> Result<Vec<u8>> {
        self.run(["cat"].iter().chain(what))
    }

    /// Ids of the objects of a kind: `blobs`, `packs`, `index`, `snapshots`, `keys`, `locks`.
    pub fn list(&self, kind: &str) -> Result<Vec<String>> {
        let output = self.run(["list", kind])?;
        Ok(String::from_utf8_lossy(&output).lines().map(ToOwned::to_owned).collect())
    }
}

/// What a restore by restic itself does not bring back, whoever wrote the repository: sockets, hard links between
/// entries that are not regular files, and holes smaller than a blob or beside data.
pub fn is_limit_of_restic(difference: &Difference, original: &TreeState) -> bool {
    let kind = original.entries.get(&difference.path).map(|entry| entry.kind);
    match difference.what {
        What::Holes => true,
        What::HardLinks => kind != Some(NodeKind::File),
        What::OnlyLeft => kind == Some(NodeKind::Socket),
        _ => false,
    }
}

/// Writes a password file unless there is one.
pub(crate) fn make_password(path: &Path) -> Result<()> {
    if path.exists() { Ok(()) } else { fs_err::write(path, "correct horse battery staple\n").context("write password") }
}

/// Runs a command to its end; the error holds everything it said.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let name = format!("{command:?}");
    let output = command.output().with_context(|| format!("run {name}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Error::new(ErrorKind::Io, format!("{name} ended with {}", output.status))
        .with_source(String::from_utf8_lossy(&said).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Aspects, compare_states, describe, scan};
    use crate::rustic::Rustic;
    use crate::tree_fixture::{self, Options};

    /// What lastgood is held to must hold for the strangers among themselves, or the tests would blame the wrong one.
    #[test]
    fn restic_and_rustic_agree_with_themselves_and_each_other_on_the_odd_tree() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        let options = Options { small_files: 40, large_bytes: 300_000, sparse_bytes: 1 << 20, ..Options::default() };
        tree_fixture::build(&tree, &options).unwrap();

        let restic = Restic::newest(dir.path().join("repo"), dir.path().join("password"));
        restic.init().unwrap();
        let id = restic.backup([&tree], &[]).unwrap();
        assert_eq!(restic.snapshots().unwrap()[0].id, id);
        restic.check_read_data().unwrap();
        let named = restic.dump(&id, &format!("{}/names/plain", tree.display())).unwrap();
        assert_eq!(named, b"named plain");
        let target = dir.path().join("restored");
        restic.restore(&id, &target).unwrap();
        let original = scan(&tree).unwrap();
        let restored = scan(&target.join(tree.strip_prefix("/").unwrap())).unwrap();
        let mut differences = compare_states(&original, &restored, Aspects::ALL);
        differences.retain(|difference| !is_limit_of_restic(difference, &original));
        assert!(differences.is_empty(), "{}", describe(&differences));

        let other = Restic::newest(dir.path().join("other"), dir.path().join("password"));
        other.init_like(&restic).unwrap();
        restic.copy_to(&other, &[]).unwrap();
        other.rewrite("**/sizes", &[]).unwrap();
        assert_eq!(other.snapshots().unwrap().len(), 1);
        other.check_read_data().unwrap();

        let rustic = Rustic::new(dir.path().join("repo"), dir.path().join("password"));
        rustic.check_read_data().unwrap();
        rustic.backup(&tree.join("sizes")).unwrap();
        restic.check_read_data().unwrap();
        Restic::old(dir.path().join("repo"), dir.path().join("password")).check_read_data().unwrap();
    }

    #[test]
    fn a_failing_restic_is_an_error_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let restic = Restic::newest(dir.path().join("none"), dir.path().join("password"));
        fs_err::write(dir.path().join("password"), "x").unwrap();
        let error = restic.check().unwrap_err();
        assert!(error.chain().contains("repository does not exist"), "{error:?}");
    }
}
