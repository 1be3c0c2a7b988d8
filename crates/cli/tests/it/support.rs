//! An application to protect, and the program to protect it with.

use serde_json::Value;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A folder with a live SQLite database and some uploads, and a home beside it.
pub(crate) struct Shop {
    dir: TempDir,
}

/// A run that ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) bytes: Vec<u8>,
}

impl Shop {
    /// With content, and nothing of lastgood yet.
    pub(crate) fn new() -> Self {
        let shop = Self { dir: tempfile::Builder::new().prefix("lastgood-cli-").tempdir().unwrap() };
        // Others must get through: some tests run as somebody else.
        fs_err::set_permissions(shop.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        fs_err::create_dir_all(shop.path("uploads/deep")).unwrap();
        for (name, content) in
            [("uploads/a.txt", "first"), ("uploads/b.jpg", "picture"), ("uploads/deep/c.txt", "deep")]
        {
            fs_err::write(shop.path(name), content).unwrap();
        }
        shop.sql("PRAGMA journal_mode = wal; CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT);");
        shop.sql("INSERT INTO orders (item) VALUES ('tea'), ('cup'), ('pot');");
        shop
    }

    /// The same, protected.
    pub(crate) fn protected() -> Self {
        let shop = Self::new();
        shop.run(["protect", "./shop.db", "./uploads"]).ok();
        shop
    }

    /// A path in the application's folder.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join("shop").join(name)
    }

    /// A path beside it.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Changes the database.
    pub(crate) fn sql(&self, sql: &str) {
        rusqlite::Connection::open(self.path("shop.db")).unwrap().execute_batch(sql).unwrap();
    }

    /// The items in a database.
    pub(crate) fn items(path: &Path) -> Vec<String> {
        let db = rusqlite::Connection::open(path).unwrap();
        let mut statement = db.prepare("SELECT item FROM orders ORDER BY id").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// The program in the application's folder, with nothing of the tester's own surroundings.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lastgood"));
        command.args(arguments).current_dir(self.path("")).stdin(Stdio::null());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.beside("home")).env("TZ", "UTC");
        command
    }

    /// Runs it to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        run(&mut self.command(arguments))
    }

    /// Runs it with `--output json` and reads the answer.
    pub(crate) fn json<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> (Option<i32>, Value) {
        let mut command = self.command(arguments);
        command.args(["--output", "json"]);
        let ran = run(&mut command);
        (ran.code, ran.json())
    }

    /// Writes the config.
    pub(crate) fn config(&self, text: &str) {
        fs_err::write(self.path("lastgood.toml"), text).unwrap();
    }

    /// The key, in clear.
    pub(crate) fn key(&self) -> String {
        fs_err::read_to_string(self.path("lastgood.key")).unwrap().trim_end().to_owned()
    }

    /// Ids of the recovery points, oldest first.
    pub(crate) fn snapshots(&self) -> Vec<String> {
        let (code, list) = self.json(["snapshots"]);
        assert_eq!(code, Some(0), "{list}");
        list["snapshots"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Files of one kind in the repository.
    pub(crate) fn objects(&self, kind: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.path("backups").join(kind)];
        while let Some(folder) = folders.pop() {
            for entry in fs_err::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }

    /// Where a restore into `to` puts a file of the uploads.
    pub(crate) fn restored_upload(&self, to: &Path, name: &str) -> PathBuf {
        to.join("uploads").join(self.path("uploads").strip_prefix("/").unwrap()).join(name)
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let ran = Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        bytes: output.stdout,
    };
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    ran
}

impl Ran {
    /// Itself, when it ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.ends_with(0)
    }

    /// Itself, when it ended with this code.
    #[track_caller]
    pub(crate) fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// Itself, when it said all of this somewhere.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        let all = format!("{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(
                all.contains(word),
                "{word:?} is not in:\n--- stdout\n{}\n--- stderr\n{}",
                self.stdout,
                self.stderr
            );
        }
        self
    }

    /// The one JSON document on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("not one JSON document ({e}):\n{}\n--- stderr\n{}", self.stdout, self.stderr));
        assert!(value["type"].as_str().is_some_and(|t| t.starts_with("lastgood.")), "{value}");
        assert_eq!(value["schema"], 1, "{value}");
        value
    }
}

/// Flips one bit in the middle of a file.
pub(crate) fn damage(path: &Path) {
    let mut bytes = fs_err::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut file = fs_err::OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    file.write_all(&bytes).unwrap();
}

/// The pack with the most bytes: the one with the data.
pub(crate) fn largest(paths: Vec<PathBuf>) -> PathBuf {
    paths.into_iter().max_by_key(|path| fs_err::metadata(path).unwrap().len()).unwrap()
}
