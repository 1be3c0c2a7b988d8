//! A server of our own for a short while, made from the programs that are installed: for the proof that a recovery point
//! can be restored, where the real server takes no other database.
//!
//! It listens on a socket in a folder that only its user can enter, and on nothing else. What it holds need not survive
//! anything, so it waits for no disk. Its folder is the caller's to remove; a server whose folder is removed ends by
//! itself within a minute, so that none outlives a run that was killed.

use super::conninfo::Conninfo;
use super::tools::{Installation, Program};
use super::wire::Client;
use fs_err::File;
use lastgood_model::{Context, Error, ErrorKind, Result};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to come up or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether it is there.
const LOOK: Duration = Duration::from_millis(50);
/// So much of what the programs said goes into an error.
const SAID_BYTES_MAX: usize = 2000;
/// The superuser, and whoever owns what is restored.
const USER: &str = "lastgood";

/// Nothing here needs to survive, and everything should be quick.
const SETTINGS: [&str; 12] = [
    "listen_addresses=",
    "port=5432",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=4GB",
    "shared_buffers=64MB",
    "max_connections=50",
    "max_locks_per_transaction=1024",
    "logging_collector=off",
];

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Throwaway {
    child: Child,
    conninfo: Conninfo,
    /// Short, as the path of a socket must be.
    _socket: tempfile::TempDir,
}

impl Throwaway {
    /// Makes a server in `folder`, which is there and empty, and starts it.
    ///
    /// # Errors
    /// [`ErrorKind::Absent`] when the server's programs are not installed beside `pg_dump`,
    /// [`ErrorKind::Unsupported`] when a server cannot be run here, with what its programs said.
    pub fn start(tools: &Installation, folder: &Path, is_cancelled: &dyn Fn() -> bool) -> Result<Self> {
        let program = |name: &str| {
            let path = tools.bin.join(name);
            path.is_file().then_some(path).ok_or_else(|| {
                Error::new(
                    ErrorKind::Absent,
                    format!("{} has no {name}: only PostgreSQL's clients are installed", tools.bin.display()),
                )
            })
        };
        let (initdb, postgres) = (program("initdb")?, program("postgres")?);
        debug_assert!(tools.program(Program::PgDump).is_ok());
        let user = unprivileged()?;
        let socket = tempfile::Builder::new().prefix("lastgood-").tempdir().context("make a folder for a socket")?;
        let (data, log) = (folder.join("data"), folder.join("log"));
        for folder in [folder, socket.path()] {
            give(folder, user)?;
        }
        let mut make = command(&initdb, user);
        make.args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username", USER, "--pgdata"])
            .arg(&data);
        let made = make.output().with_context(|| format!("start {}", initdb.display()))?;
        if !made.status.success() {
            let said = said(&[made.stdout, made.stderr].concat());
            return Err(Error::new(ErrorKind::Unsupported, "initdb could make no server").with_source(said));
        }
        let mut start = command(&postgres, user);
        start.arg("-D").arg(&data).arg("-c").arg(format!("unix_socket_directories={}", socket.path().display()));
        for setting in SETTINGS {
            start.args(["-c", setting]);
        }
        start.stdout(Stdio::null()).stderr(File::create(&log).context("make the server's log")?.into_parts().0);
        let child = start.spawn().with_context(|| format!("start {}", postgres.display()))?;
        let text = format!("host='{}' port=5432 user={USER} dbname=postgres sslmode=disable", socket.path().display());
        // Nothing of this process's surroundings concerns it.
        let conninfo = Conninfo::parse(&text, &|name| (name == "HOME").then(|| "/nonexistent".to_owned()))?;
        let mut server = Self { child, conninfo, _socket: socket };
        server.wait_until_up(&log, is_cancelled)?;
        Ok(server)
    }

    fn wait_until_up(&mut self, log: &Path, is_cancelled: &dyn Fn() -> bool) -> Result<()> {
        let begun = Instant::now();
        loop {
            if is_cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "interrupted"));
            }
            let ended = self.child.try_wait().context("look after the server")?.is_some();
            match Client::connect(&self.conninfo) {
                Ok(_) => return Ok(()),
                Err(error) if ended || begun.elapsed() > PATIENCE => {
                    let said = said(&fs_err::read(log).unwrap_or_default());
                    let cause = if said.is_empty() { error.chain() } else { said };
                    return Err(Error::new(ErrorKind::Unsupported, "the server did not come up").with_source(cause));
                }
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    /// How to reach it, as its superuser.
    pub fn conninfo(&self) -> &Conninfo {
        &self.conninfo
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        let Some(pid) = Pid::from_raw(self.child.id() as i32) else { return };
        for signal in [Signal::INT, Signal::QUIT, Signal::KILL] {
            if kill_process(pid, signal).is_err() {
                break;
            }
            let begun = Instant::now();
            while begun.elapsed() < PATIENCE / 6 {
                match self.child.try_wait() {
                    Ok(None) => std::thread::sleep(LOOK),
                    Ok(Some(_)) | Err(_) => return,
                }
            }
        }
        // Killed: there is nothing left to wait for but the system's own bookkeeping.
        let _ = self.child.wait();
    }
}

/// Whom the server runs as: PostgreSQL refuses root. `None` for whoever we are.
fn unprivileged() -> Result<Option<(u32, u32)>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs_err::read_to_string("/etc/passwd").context("find a user to run a server as")?;
    let ids = |name: &str| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = ids("postgres").or_else(|| ids("nobody"));
    found.map(Some).ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            "PostgreSQL does not run as root, and there is neither a user postgres nor nobody",
        )
    })
}

/// Lets the server's user in, and nobody else.
fn give(folder: &Path, user: Option<(u32, u32)>) -> Result<()> {
    let act = || format!("prepare {}", folder.display());
    fs_err::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).with_context(act)?;
    if let Some((uid, gid)) = user {
        std::os::unix::fs::chown(folder, Some(uid), Some(gid)).with_context(act)?;
    }
    Ok(())
}

fn command(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).current_dir("/").env_clear().env("LC_ALL", "C").env("TZ", "UTC");
    let path = program.parent().map(PathBuf::from).unwrap_or_default();
    command.env("PATH", std::env::join_paths([path, "/usr/bin".into(), "/bin".into()]).unwrap_or_default());
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    // A Ctrl-C at the terminal is for us: we end the server when all is done.
    command.process_group(0);
    command
}

fn said(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(SAID_BYTES_MAX)..]).into_owned();
    text.trim().to_owned()
}
