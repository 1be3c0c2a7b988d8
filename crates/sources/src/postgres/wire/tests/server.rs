//! A PostgreSQL server of our own, in a temporary folder, stopped when dropped.

use crate::postgres::conninfo::Conninfo;
use crate::postgres::wire::Client;
use lastgood_model::{ErrorKind, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(super) struct Server {
    child: Child,
    folder: tempfile::TempDir,
    pub(super) port: u16,
}

/// Programs of PostgreSQL 15 or newer, wherever Debian or others put them.
fn program(name: &str) -> PathBuf {
    let folders = (15..30).map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")));
    let folders = folders.chain([PathBuf::from("/usr/pgsql/bin"), PathBuf::from("/usr/bin")]);
    folders.map(|folder| folder.join(name)).find(|path| path.exists()).expect("PostgreSQL is installed")
}

/// The server refuses to run as root, so as root it runs as `postgres`.
fn server_user() -> Option<(u32, u32)> {
    if rustix::process::geteuid().as_raw() != 0 {
        return None;
    }
    let passwd = fs_err::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("postgres:")).expect("there is a user postgres");
    let fields: Vec<&str> = line.split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    command.env_clear().env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    if let Some((uid, gid)) = server_user() {
        command.uid(uid).gid(gid);
    }
    command
}

impl Server {
    /// Starts a server with settings and, if given, rules for who may sign in how. `files` are put beside its data, for
    /// its eyes only.
    pub(super) fn start(settings: &[(&str, &str)], rules: Option<&str>, files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let give = |path: &Path| {
            if let Some((uid, gid)) = server_user() {
                let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
                rustix::fs::chown(path, Some(uid), Some(gid)).unwrap();
            }
        };
        give(folder.path());
        let data = folder.path().join("data");
        let made = command("initdb")
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        if let Some(rules) = rules {
            fs_err::write(data.join("pg_hba.conf"), rules).unwrap();
        }
        for (name, content) in files {
            let path = data.join(name);
            fs_err::write(&path, content).unwrap();
            fs_err::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            give(&path);
        }
        // Free now; whoever takes it in between makes the test fail loudly.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = fs_err::File::create(folder.path().join("log")).unwrap();
        let mut start = command("postgres");
        start.arg("-D").arg(&data).arg("-k").arg(folder.path()).args(["-p", &port.to_string()]);
        start.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_wal_size=4GB"]);
        for (name, value) in settings {
            start.args(["-c", &format!("{name}={value}")]);
        }
        let child = start.stdout(Stdio::null()).stderr(log.into_parts().0).spawn().unwrap();
        let server = Self { child, folder, port };
        let began = Instant::now();
        while !server.data().join("postmaster.pid").exists() || !server.is_ready() {
            assert!(began.elapsed() < Duration::from_secs(60), "no start: {}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// One with nothing special.
    pub(super) fn plain() -> Self {
        Self::start(&[], None, &[])
    }

    fn is_ready(&self) -> bool {
        fs_err::read_to_string(self.data().join("postmaster.pid")).is_ok_and(|text| text.contains("ready"))
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn log(&self) -> String {
        fs_err::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Settings for the Unix socket, as `postgres`, with more of them behind.
    pub(super) fn local(&self, more: &str) -> Conninfo {
        self.info(&format!("host={} {more}", self.folder.path().display()))
    }

    /// Settings for TCP.
    pub(super) fn tcp(&self, more: &str) -> Conninfo {
        self.info(&format!("host=127.0.0.1 {more}"))
    }

    pub(super) fn info(&self, text: &str) -> Conninfo {
        let text = format!("user=postgres dbname=postgres port={} {text}", self.port);
        let home = self.folder.path().join("home").to_str().unwrap().to_owned();
        Conninfo::parse(&text, &|name| (name == "HOME").then(|| home.clone())).unwrap()
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(&self.local("")).unwrap()
    }

    /// Ends the server as a power cut would.
    pub(super) fn kill(&self) {
        kill_process(Pid::from_child(&self.child), Signal::QUIT).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::QUIT);
        let _ = self.child.wait();
    }
}

/// The kind and text of an error, for comparison.
pub(super) fn failure<T>(result: Result<T>) -> (ErrorKind, String) {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(error) => (error.kind(), error.chain()),
    }
}

/// Most memory that this process had since the last call, in bytes, beside what it has now.
pub(super) fn peak_above_now(act: impl FnOnce()) -> u64 {
    let field = |name: &str| -> u64 {
        let status = fs_err::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    fs_err::write("/proc/self/clear_refs", "5").unwrap();
    let before = field("VmRSS:");
    act();
    field("VmHWM:").saturating_sub(before)
}
