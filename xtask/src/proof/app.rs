//! A small application that lives: a tree and a database that change between recovery points, and a memory of what they
//! were at each.

use crate::program::{Lastgood, Source};
use anyhow::{Result, bail};
use lastgood_testkit::compare::{self, Aspects, TreeState};
use lastgood_testkit::rng::Rng;
use rusqlite::{Connection, OpenFlags, params};
use std::path::{Path, PathBuf};

/// The application.
pub(super) struct App {
    tree: PathBuf,
    database: PathBuf,
    rng: Rng,
    born: u64,
}

/// What it was at one moment.
#[derive(Clone)]
pub(super) struct State {
    tree: TreeState,
    rows: Vec<String>,
}

impl App {
    /// A new one in `folder`: `files` files of up to `file_bytes_max` bytes, and a database of as many rows.
    pub(super) fn new(folder: &Path, seed: u64, files: usize, file_bytes_max: u64) -> Result<Self> {
        let (tree, database) = (folder.join("tree"), folder.join("shop.db"));
        fs_err::create_dir_all(&tree)?;
        let mut app = Self { tree, database, rng: Rng::new(seed), born: 0 };
        for _ in 0..files {
            app.create(file_bytes_max)?;
        }
        let db = Connection::open(&app.database)?;
        db.execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE item (id INTEGER PRIMARY KEY, note TEXT, photo BLOB);",
        )?;
        app.add_rows(files as i64)?;
        Ok(app)
    }

    /// As the program's config names it.
    pub(super) fn sources(&self) -> Vec<Source> {
        vec![
            Source::Files { name: "tree", paths: vec![self.tree.clone()] },
            Source::Sqlite { name: "db", path: self.database.clone() },
        ]
    }

    fn create(&mut self, bytes_max: u64) -> Result<()> {
        self.born += 1;
        let folder = self.tree.join(format!("folder-{}", self.rng.below(12)));
        fs_err::create_dir_all(&folder)?;
        let length = self.rng.below(bytes_max) as usize;
        let content = if self.rng.below(2) == 0 { self.rng.bytes(length) } else { self.rng.text(length) };
        fs_err::write(folder.join(format!("file-{:05}", self.born)), content)?;
        Ok(())
    }

    fn add_rows(&mut self, count: i64) -> Result<()> {
        let mut db = Connection::open(&self.database)?;
        let transaction = db.transaction()?;
        for _ in 0..count {
            let (text, photo) = (self.rng.below(300), self.rng.below(4000));
            let note = String::from_utf8_lossy(&self.rng.text(text as usize)).into_owned();
            transaction.execute(
                "INSERT INTO item (note, photo) VALUES (?1, ?2)",
                params![note, self.rng.bytes(photo as usize)],
            )?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Some files are added, rewritten, renamed and removed; some rows are added, changed and deleted.
    pub(super) fn live_on(&mut self, changes: usize, bytes_max: u64) -> Result<()> {
        for _ in 0..changes {
            let files = files_below(&self.tree)?;
            let choice = self.rng.below(10);
            if choice < 4 || files.len() < 20 {
                self.create(bytes_max)?;
                continue;
            }
            let path = self.rng.pick(&files).clone();
            match choice {
                4..=6 => {
                    let length = self.rng.below(bytes_max) as usize;
                    fs_err::write(&path, self.rng.bytes(length))?;
                }
                7 => {
                    self.born += 1;
                    fs_err::rename(&path, path.with_file_name(format!("renamed-{:05}", self.born)))?;
                }
                _ => fs_err::remove_file(&path)?,
            }
        }
        self.add_rows(changes as i64)?;
        let db = Connection::open(&self.database)?;
        let (residue, note) = (self.rng.below(11) as i64, format!("changed {}", self.born));
        db.execute("UPDATE item SET note = ?2 WHERE id % 11 = ?1", params![residue, note])?;
        db.execute("DELETE FROM item WHERE id % 29 = ?1", params![self.rng.below(29) as i64])?;
        Ok(())
    }

    /// What it is now.
    pub(super) fn state(&self) -> Result<State> {
        Ok(State { tree: scan(&self.tree)?, rows: rows(&self.database)? })
    }

    /// Compares what was restored into `to` with what was; `Err` tells the differences.
    pub(super) fn compare(&self, to: &Path, was: &State) -> Result<()> {
        let restored = scan(&Lastgood::restored_tree(to, "tree", &self.tree))?;
        let differences = compare::compare_states(&was.tree, &restored, Aspects::ALL);
        if !differences.is_empty() {
            bail!("the restored tree differs:\n{}", compare::describe(&differences));
        }
        let restored = rows(&Lastgood::restored_database(to, "db", &self.database)?)?;
        if restored != was.rows {
            bail!("the restored database has {} rows, it had {}", restored.len(), was.rows.len());
        }
        Ok(())
    }

    /// After a restore that failed: whatever regular file is there must have the very bytes it had. The paths of those
    /// that have not.
    pub(super) fn wrong_files(&self, to: &Path, was: &State) -> Result<Vec<String>> {
        let top = Lastgood::restored_tree(to, "tree", &self.tree);
        if !top.exists() {
            return Ok(Vec::new());
        }
        let restored = scan(&top)?;
        let differences = compare::compare_states(&was.tree, &restored, Aspects::CONTENT);
        let is_absent = |what| what == compare::What::OnlyLeft;
        Ok(differences.iter().filter(|difference| !is_absent(difference.what)).map(ToString::to_string).collect())
    }
}

fn scan(top: &Path) -> Result<TreeState> {
    compare::scan(top).map_err(|error| anyhow::anyhow!("read {}: {}", top.display(), error.chain()))
}

fn files_below(top: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![top.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}

/// Every row in order, after SQLite itself found the file whole.
fn rows(database: &Path) -> Result<Vec<String>> {
    let db = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if verdict != "ok" {
        bail!("{}: {verdict}", database.display());
    }
    let mut statement = db.prepare("SELECT id || ':' || note || ':' || hex(photo) FROM item ORDER BY id")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    rows.collect::<Result<_, _>>().map_err(Into::into)
}
