//! The main job on a living application: a real SQLite database that is written to all the while, and a folder of uploads.
//!
//! `protect` is run as a user would run it, with its defaults, from the application's folder. Its own proof is not taken
//! on trust: the recovery point is restored once more, and here, by other code, the database must hold one moment of its
//! books and the folder must be the same to the last attribute. Run again, it adds a recovery point.

use crate::{program, shell};
use anyhow::{Context, Result, bail, ensure};
use lastgood_testkit::compare::{compare_trees, describe};
use lastgood_testkit::rng::Rng;
use rusqlite::{Connection, OpenFlags, params};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the application is made, and kept for the next time.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Use this program instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
}

const ACCOUNTS: i64 = 1000;
const BALANCE: i64 = 1000;
const TRANSFERS: i64 = 100_000;
const FILES: u64 = 240;
const FILE_BYTES_MAX: u64 = 100_000;
/// Between two transfers, so that the application is busy and the disk is not filled.
const PACE: Duration = Duration::from_millis(1);

pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = match &options.binary {
        Some(binary) => fs_err::canonicalize(binary)?,
        None => {
            eprintln!("building lastgood (the first time takes some minutes)");
            program::build()?
        }
    };
    let dir = options.dir.clone().unwrap_or_else(|| shell::target().join("demo"));
    fs_err::create_dir_all(&dir)?;
    let dir = fs_err::canonicalize(dir)?;
    let app = dir.join("shop");
    make(&dir, &app)?;

    let stop = AtomicBool::new(false);
    let (begun, has_begun) = mpsc::channel();
    let (protected, transfers) = std::thread::scope(|scope| {
        let application = scope.spawn(|| live(&app.join("shop.db"), &stop, &begun));
        // An application that could not begin has dropped its end, and says why when it is waited for.
        let protected = match has_begun.recv() {
            Ok(()) => lastgood(&binary, &dir, &app, &["protect", "./shop.db", "./uploads"]),
            Err(_) => Ok(()),
        };
        stop.store(true, Ordering::Relaxed);
        let transfers = application.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (protected, transfers)
    });
    let transfers = transfers.context("run the application")?;
    protected?;

    let restored = dir.join("restored");
    if restored.exists() {
        fs_err::remove_dir_all(&restored)?;
    }
    println!();
    lastgood(&binary, &dir, &app, &["restore", "latest", "--to", "../restored"])?;
    let rows = judge(&restored.join("shop/shop.db"))?;
    let uploads = app.join("uploads");
    let differences = compare_trees(&uploads, &program::Lastgood::restored_tree(&restored, "uploads", &uploads))?;
    ensure!(differences.is_empty(), "the restored folder differs:\n{}", describe(&differences));

    println!(
        "\nLooked at by other code: the restored database is sound and holds {rows} transfers that all add up, though the \
         application committed {transfers} of them while it was protected; the restored folder is identical, names, times \
         and attributes included.\n\nThe application, its config, key and repository are in {}.\nRun this again to add a \
         recovery point. For your own:\n\n    {} protect DATABASE FOLDER…",
        app.display(),
        binary.display()
    );
    Ok(())
}

/// Runs lastgood in the application's folder, with its words on our outputs, and with caches of its own.
fn lastgood(binary: &Path, dir: &Path, app: &Path, arguments: &[&str]) -> Result<()> {
    println!("$ lastgood {}", arguments.join(" "));
    let mut command = Command::new(binary);
    command.args(arguments).current_dir(app).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LASTGOOD") {
            command.env_remove(name);
        }
    }
    command.env("XDG_CACHE_HOME", dir.join("cache")).env("XDG_STATE_HOME", dir.join("state"));
    let status = command.status().with_context(|| format!("start {}", binary.display()))?;
    ensure!(status.success(), "lastgood {} ended with {status}", arguments.join(" "));
    Ok(())
}

/// Makes the application, unless it is there; whole or not at all.
fn make(dir: &Path, app: &Path) -> Result<()> {
    if app.exists() {
        return Ok(());
    }
    eprintln!("making an application in {}", app.display());
    let new = tempfile::Builder::new().prefix("new-").tempdir_in(dir)?;
    let folder = new.path().join("shop");
    fs_err::create_dir(&folder)?;
    make_database(&folder.join("shop.db"))?;
    make_uploads(&folder.join("uploads"))?;
    fs_err::rename(&folder, app)?;
    Ok(())
}

fn make_database(path: &Path) -> Result<()> {
    let mut db = Connection::open(path)?;
    db.execute_batch(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
         CREATE TABLE transfer (id INTEGER PRIMARY KEY, giver INTEGER NOT NULL, taker INTEGER NOT NULL,
             amount INTEGER NOT NULL, note TEXT NOT NULL);
         CREATE INDEX transfer_giver ON transfer (giver);",
    )?;
    let transaction = db.transaction()?;
    for id in 0..ACCOUNTS {
        transaction.execute("INSERT INTO account VALUES (?1, ?2)", [id, BALANCE])?;
    }
    let mut rng = Rng::new(1);
    for _ in 0..TRANSFERS {
        transfer(&transaction, &mut rng)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Moves money from one account to another. Half of it done would show in the books.
fn transfer(db: &Connection, rng: &mut Rng) -> Result<()> {
    let (giver, taker) = (rng.below(ACCOUNTS as u64) as i64, rng.below(ACCOUNTS as u64) as i64);
    let amount = rng.below(50) as i64;
    let note = String::from_utf8_lossy(&rng.text(40)).into_owned();
    let mut update = db.prepare_cached("UPDATE account SET balance = balance + ?2 WHERE id = ?1")?;
    update.execute([giver, -amount])?;
    update.execute([taker, amount])?;
    db.prepare_cached("INSERT INTO transfer (giver, taker, amount, note) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![giver, taker, amount, note])?;
    Ok(())
}

/// Text, pictures that do not compress, and what backups tend to lose.
fn make_uploads(folder: &Path) -> Result<()> {
    let mut rng = Rng::new(2);
    for number in 0..FILES {
        let month = folder.join(format!("2026-{:02}", number % 12 + 1));
        fs_err::create_dir_all(&month)?;
        let length = rng.below(FILE_BYTES_MAX) as usize;
        let (name, content) = match number % 3 {
            0 => (format!("letter-{number}.txt"), rng.text(length)),
            _ => (format!("picture-{number}.jpg"), rng.bytes(length)),
        };
        fs_err::write(month.join(name), content)?;
    }
    fs_err::write(folder.join("empty"), b"")?;
    fs_err::write(folder.join("two\nlines"), b"an odd name")?;
    fs_err::write(folder.join("letter.txt"), b"a file with two names")?;
    fs_err::hard_link(folder.join("letter.txt"), folder.join("same-letter.txt"))?;
    symlink("2026-01", folder.join("latest")).context("make link")?;
    let sparse = fs_err::File::create(folder.join("disk.img"))?;
    sparse.set_len(64 << 20)?;
    Ok(())
}

/// The application at work: transfers, until told to stop. Returns how many were committed.
fn live(database: &Path, stop: &AtomicBool, begun: &mpsc::Sender<()>) -> Result<u64> {
    let mut db = Connection::open(database)?;
    db.busy_timeout(Duration::from_secs(30))?;
    let mut rng = Rng::new(u64::from(std::process::id()));
    let mut committed = 0;
    while !stop.load(Ordering::Relaxed) {
        let transaction = db.transaction()?;
        transfer(&transaction, &mut rng)?;
        transaction.commit()?;
        committed += 1;
        if committed == 1 && begun.send(()).is_err() {
            break;
        }
        std::thread::sleep(PACE);
    }
    Ok(committed)
}

/// Whether the books of a restored database add up; returns the number of transfers in them.
fn judge(database: &Path) -> Result<u64> {
    let db = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| format!("open {}", database.display()))?;
    let integrity: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if integrity != "ok" {
        bail!("the restored database is not sound: {integrity}");
    }
    let wrong: i64 = db.query_row(
        "WITH moved (id, amount) AS (
             SELECT giver, -amount FROM transfer UNION ALL SELECT taker, amount FROM transfer),
         books (id, balance) AS (
             SELECT account.id, ?1 + coalesce(sum(amount), 0) FROM account LEFT JOIN moved USING (id) GROUP BY account.id)
         SELECT count(*) FROM account JOIN books USING (id) WHERE account.balance <> books.balance",
        [BALANCE],
        |row| row.get(0),
    )?;
    ensure!(wrong == 0, "the books of {wrong} accounts in the restored database do not add up");
    let transfers: i64 = db.query_row("SELECT count(*) FROM transfer", [], |row| row.get(0))?;
    ensure!(transfers >= TRANSFERS, "the restored database holds {transfers} transfers only");
    Ok(u64::try_from(transfers)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_with_half_a_transfer_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        make_database(&path).unwrap();
        assert_eq!(judge(&path).unwrap(), TRANSFERS as u64);
        Connection::open(&path).unwrap().execute("UPDATE account SET balance = balance - 1 WHERE id = 3", []).unwrap();
        assert!(judge(&path).unwrap_err().to_string().contains("1 accounts"));
    }
}
