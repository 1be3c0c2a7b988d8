//! A real server for tests, of the newest version on this host, in a folder of its own. It ends with its owner.

use super::tools::{Installation, Program, Tools};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(super) struct Server {
    pub(super) tools: Installation,
    child: Child,
    folder: tempfile::TempDir,
}

impl Server {
    pub(super) fn start() -> Self {
        let tools = Tools::find(None).unwrap();
        let tools = tools.installations.iter().filter(|one| one.bin.join("initdb").is_file());
        let tools = tools.max_by_key(|one| one.version).expect("these tests need a PostgreSQL server").clone();
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let owner = servant();
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let program = |name: &str| {
            let mut command = Command::new(tools.bin.join(name));
            command.current_dir(folder.path()).stdin(Stdio::null());
            if let Some((uid, gid)) = owner {
                command.uid(uid).gid(gid);
            }
            command
        };
        let data = folder.path().join("data");
        let made = program("initdb")
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username=postgres", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = program("postgres");
        server.arg("-D").arg(&data).arg("-k").arg(folder.path());
        for setting in ["listen_addresses=", "fsync=off", "max_locks_per_transaction=256", "wal_level=logical"] {
            server.args(["-c", setting]);
        }
        let log = fs_err::File::create(folder.path().join("log")).unwrap().into_parts().0;
        let child = server.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let server = Self { tools, child, folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !server
            .command(Program::Psql, "postgres")
            .args(["-X", "-c", "SELECT 1"])
            .output()
            .unwrap()
            .status
            .success()
        {
            assert!(Instant::now() < deadline, "{}", fs_err::read_to_string(server.folder().join("log")).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn env(&self, database: &str) -> Vec<(&'static str, String)> {
        vec![
            ("PGHOST", self.folder().to_str().unwrap().to_owned()),
            ("PGUSER", "postgres".to_owned()),
            ("PGDATABASE", database.to_owned()),
        ]
    }

    pub(super) fn command(&self, program: Program, database: &str) -> Command {
        let mut command = Command::new(self.tools.program(program).unwrap());
        command.envs(self.env(database));
        command
    }

    /// Loads a script the way a person does, and gives what was printed.
    pub(super) fn load(&self, database: &str, script: &[u8]) -> Result<String, String> {
        let file = self.folder().join(format!("script {}", uniq()));
        fs_err::write(&file, script).unwrap();
        let mut command = self.command(Program::Psql, database);
        let out = command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        if out.status.success() { Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned()) } else { Err(said) }
    }

    pub(super) fn must(&self, database: &str, script: &str) -> String {
        match self.load(database, script.as_bytes()) {
            Ok(out) => out,
            Err(said) => panic!("{said}"),
        }
    }

    pub(super) fn create(&self, database: &str) {
        self.must("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0;"));
    }

    /// The whole schema as text, for comparison.
    pub(super) fn schema(&self, database: &str) -> String {
        let out = self.command(Program::PgDump, database).args(["--schema-only"]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        let lines = text.split_inclusive('\n');
        lines.filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict")).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // At once: nobody needs what is in it.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = self.child.wait();
    }
}

fn uniq() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// The server refuses to run as root; then it runs as the user that its package made.
fn servant() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs_err::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("a user `postgres` for the server");
    let fields: Vec<&str> = line.split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

/// Every kind of object.
pub(super) const RICH: &str = include_str!("testdata/rich.sql");
