//! Real PostgreSQL servers, one for each test that asks, gone when the test is over.
//!
//! [`PgServer::start`] copies a data folder made once per version (see `template`), starts a server on it as an
//! unprivileged user, and waits until it takes connections. A guardian process (see `guardian`) ends the server and
//! removes its folder when the test drops it, and also when the test process is killed.
//!
//! Everything panics instead of returning errors: a server that does not do what a test asks is a failed test, and the
//! message holds what the server or program said.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "used by tests alone, and speaks to whoever runs them")]

mod connect;
mod everything;
mod guardian;
mod template;
mod user;

pub use connect::{quote_identifier, quote_literal};
pub use everything::differences;

use guardian::{Guardian, Stop};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take for anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The superuser that every server is made with.
pub const SUPERUSER: &str = "postgres";
/// The superuser's password. Connections over TCP are asked for it, those over the socket are trusted.
pub const PASSWORD: &str = "a password for tests";

/// Settings that every server starts with: nothing needs to survive the machine, and everything must be quick.
const SETTINGS: [(&str, &str); 14] = [
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("listen_addresses", "127.0.0.1"),
    ("log_line_prefix", "%m [%p] %d "),
    ("log_min_messages", "notice"),
    ("max_connections", "60"),
    ("max_prepared_transactions", "10"),
    ("shared_buffers", "32MB"),
    ("superuser_reserved_connections", "1"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("lc_messages", "C"),
    ("unix_socket_permissions", "0777"),
    ("wal_receiver_status_interval", "1s"),
];

/// The versions that tests run against: the oldest and the newest that are supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// PostgreSQL 15.
    V15,
    /// PostgreSQL 18.
    V18,
}

impl Version {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::V15, Self::V18];

    /// The major version.
    pub fn major(self) -> u32 {
        match self {
            Self::V15 => 15,
            Self::V18 => 18,
        }
    }

    /// One of the version's programs, such as `pg_dump`.
    #[track_caller]
    pub fn bin(self, program: &str) -> PathBuf {
        crate::tools::postgres(self.major()).join(program)
    }
}

/// A running server with a data folder of its own.
#[derive(Debug)]
pub struct PgServer {
    version: Version,
    /// Holds the data folder, the socket's and the log. Owned by the server's user; the guardian removes it.
    folder: PathBuf,
    port: u16,
    /// None while the server is stopped.
    guardian: Option<Guardian>,
}

impl PgServer {
    /// Starts an empty server: databases `postgres`, `template0`, `template1`; encoding UTF-8, locale `C.UTF-8`.
    #[track_caller]
    pub fn start(version: Version) -> Self {
        Self::start_with(version, &[])
    }

    /// As [`start`](Self::start), with settings that take effect from the beginning, such as `wal_level`.
    #[track_caller]
    pub fn start_with(version: Version, settings: &[(&str, &str)]) -> Self {
        Self::start_in(&std::env::temp_dir(), version, settings)
    }

    /// The same with its folder made in `parent`, which the server's user must be able to enter and whose path must be
    /// short, at most some 70 bytes: for measurements, which care for the disk.
    #[track_caller]
    pub fn start_in(parent: &Path, version: Version, settings: &[(&str, &str)]) -> Self {
        let mut server = Self::unmade(version, parent);
        template::copy_to(version, &server.data());
        settings.iter().for_each(|(name, value)| server.write_setting(name, value));
        server.run_on_free_port();
        server
    }

    /// A standby that follows this server by streaming, made by `pg_basebackup`; it takes read-only connections.
    #[track_caller]
    pub fn standby(&self) -> Self {
        let mut standby = Self::unmade(self.version, &std::env::temp_dir());
        let mut command = user::command(&self.bin("pg_basebackup"));
        command.args(["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync", "--pgdata"]);
        command.arg(standby.data()).arg("--dbname").arg(self.conninfo("postgres"));
        finish(&mut command, None);
        standby.run_on_free_port();
        standby
    }

    /// With a folder, which is removed with the value, and nothing in it.
    #[track_caller]
    fn unmade(version: Version, parent: &Path) -> Self {
        Self { version, folder: user::temp_folder(parent), port: 0, guardian: None }
    }

    /// Waits until this standby has replayed all that `primary` has written by now.
    #[track_caller]
    pub fn catch_up_with(&self, primary: &Self) {
        let position = primary.psql("postgres", "SELECT pg_current_wal_insert_lsn()");
        // What was inserted and belongs to no commit need not have been written yet.
        primary.psql("postgres", "SELECT pg_switch_wal()");
        let reached = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{position}', false)");
        self.wait_for("replay", || self.psql("postgres", &reached) == "t");
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The port, on 127.0.0.1 and in the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// All that the server has logged.
    pub fn log(&self) -> String {
        fs_err::read(self.log_file()).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// One of the version's programs, such as `pg_dump`.
    #[track_caller]
    pub fn bin(&self, program: &str) -> PathBuf {
        self.version.bin(program)
    }

    /// Changes a setting for good and waits until new connections see it. Some settings need
    /// [`restart`](Self::restart).
    #[track_caller]
    pub fn set(&self, name: &str, value: &str) {
        let loaded = || self.psql("postgres", "SELECT pg_conf_load_time()");
        let before = loaded();
        self.write_setting(name, value);
        self.psql("postgres", "SELECT pg_reload_conf()");
        self.wait_for("reload", || loaded() != before);
    }

    /// Replaces the lines of `pg_hba.conf` and waits until they hold for new connections. The superuser is let in over
    /// the socket whatever they say.
    #[track_caller]
    pub fn set_hba(&self, lines: &str) {
        let text = format!("local all,replication {SUPERUSER} trust\n{lines}\n");
        fs_err::write(self.data().join("pg_hba.conf"), text).unwrap();
        self.set("lastgood.hba", &format!("{}", self.log().len()));
    }

    /// Stops in an orderly way (connections are ended), then starts anew on the same port.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.run();
    }

    /// Stops in an orderly way: open transactions are rolled back, their connections ended.
    pub fn stop(&mut self) {
        if let Some(guardian) = self.guardian.take() {
            guardian.end(Stop::Fast);
        }
    }

    /// Kills every process of the server at once, as a crash would. [`restart`](Self::restart) recovers it.
    pub fn kill(&mut self) {
        if let Some(guardian) = self.guardian.take() {
            guardian.kill_all();
        }
    }

    /// Processes of the server: first the one that started the others.
    pub fn processes(&self) -> Vec<i32> {
        self.guardian.as_ref().map(Guardian::processes).unwrap_or_default()
    }

    #[track_caller]
    fn run_on_free_port(&mut self) {
        // Between being found free and being taken, a port may go to somebody else.
        for _ in 0..10 {
            let free = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
            self.port = free.unwrap().port();
            match self.try_run() {
                Ok(()) => return,
                Err(log) if log.contains("could not bind") => continue,
                Err(log) => panic!("PostgreSQL {} did not start:\n{log}", self.version.major()),
            }
        }
        panic!("no free port was left for PostgreSQL");
    }

    #[track_caller]
    fn run(&mut self) {
        if let Err(log) = self.try_run() {
            panic!("PostgreSQL {} did not start:\n{log}", self.version.major());
        }
    }

    /// Starts the server and waits until it takes connections; the error is what this start has logged.
    fn try_run(&mut self) -> Result<(), String> {
        let logged = self.log().len();
        let socket = self.socket_folder();
        user::make_folder(&socket);
        let mut arguments = vec!["-D".into(), self.data().into_os_string()];
        let port = self.port.to_string();
        let own = [("port", port.as_str()), ("unix_socket_directories", socket.to_str().unwrap_or_default())];
        for (name, value) in own {
            arguments.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        let guardian = Guardian::start(&self.bin("postgres"), &arguments, &self.folder, &self.log_file());
        let begun = Instant::now();
        while !guardian.is_ready(&self.data()) {
            if !guardian.is_alive() || begun.elapsed() > PATIENCE {
                guardian.end(Stop::Immediate);
                return Err(self.log().get(logged..).unwrap_or_default().to_owned());
            }
            pause();
        }
        self.guardian = Some(guardian);
        Ok(())
    }

    #[track_caller]
    fn wait_for(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}; the server logged:\n{}", self.log());
            pause();
        }
    }

    fn write_setting(&self, name: &str, value: &str) {
        template::append_settings(&self.data(), &[(name, value)]);
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn socket_folder(&self) -> PathBuf {
        // Short: the path of a socket has at most 107 bytes.
        self.folder.join("s")
    }
}

impl Drop for PgServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(4000);
            eprintln!("PostgreSQL {} logged last:\n{}", self.version.major(), log.get(from..).unwrap_or(&log));
        }
        if let Some(guardian) = self.guardian.take() {
            guardian.end(Stop::Remove);
        }
        if self.folder.exists() {
            let _ = fs_err::remove_dir_all(&self.folder);
        }
    }
}

/// Runs a program to its end with `input`; panics with all it said unless it succeeds.
#[track_caller]
fn finish(command: &mut Command, input: Option<&str>) -> Output {
    use std::io::Write;
    let name = Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("?")).to_string_lossy().into_owned();
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap_or_else(|error| {
        panic!("start {name}: {error}");
    });
    let writer = input.zip(child.stdin.take()).map(|(input, mut stdin)| {
        let input = input.to_owned();
        // A program that ends early has said why.
        std::thread::spawn(move || stdin.write_all(input.as_bytes()).ok())
    });
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("run {name}: {error}"));
    if let Some(writer) = writer {
        let _ = writer.join();
    }
    assert!(
        output.status.success(),
        "{name} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

/// A moment between two looks at something that will be so.
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

#[cfg(test)]
mod tests;
