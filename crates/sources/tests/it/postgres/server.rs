//! A real server in a folder of its own; it ends with its owner.

use lastgood_sources::postgres::conninfo::Conninfo;
use lastgood_sources::postgres::wire::Client;
use lastgood_testkit::postgres::{PgServer, Version};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(super) struct Server(PgServer);

impl Server {
    pub(super) fn start() -> Self {
        Self::start_version(Version::V15)
    }

    pub(super) fn start_version(version: Version) -> Self {
        // What autovacuum takes off the end of a table would change the number of its parts.
        Self(PgServer::start_with(version, &[("autovacuum", "off")]))
    }

    /// A standby that follows this one.
    pub(super) fn standby(&self) -> Self {
        let standby = self.0.standby();
        standby.catch_up_with(&self.0);
        Self(standby)
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.0.bin(name)
    }

    /// One of its client programs, told where it is.
    pub(super) fn client_program(&self, name: &str, database: &str) -> Command {
        self.0.client(name, database)
    }

    /// The folder of the programs that fit it.
    pub(super) fn bin(&self) -> PathBuf {
        self.program("pg_dump").parent().unwrap().to_owned()
    }

    pub(super) fn info(&self, database: &str) -> Conninfo {
        Conninfo::parse(&self.0.socket_url(database), &|_| None).unwrap()
    }

    pub(super) fn info_as(&self, role: &str, database: &str) -> Conninfo {
        let text = format!("{} user='{role}'", self.0.conninfo(database));
        Conninfo::parse(&text, &|_| None).unwrap()
    }

    pub(super) fn client(&self, database: &str) -> Client {
        Client::connect(&self.info(database)).unwrap()
    }

    /// What psql prints, fields divided by `|`. Fails with the first statement that does.
    #[track_caller]
    pub(super) fn psql(&self, database: &str, sql: &str) -> String {
        self.0.psql(database, &format!("SET client_encoding = 'UTF8';\n{sql}"))
    }

    /// What psql says of a script that must fail, when nobody tells psql to end at an error.
    #[track_caller]
    pub(super) fn psql_fails(&self, database: &str, sql: &str) -> String {
        let mut command = self.0.client("psql", database);
        command.args(["-X", "-q", "-f", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // It may end early, and then says why.
        let _ = child.stdin.take().unwrap().write_all(sql.as_bytes());
        let out = child.wait_with_output().unwrap();
        assert!(!out.status.success(), "{sql}");
        String::from_utf8(out.stderr).unwrap()
    }

    /// The same for a script that holds data, and prints some.
    #[track_caller]
    pub(super) fn psql_bytes(&self, database: &str, sql: &[u8]) -> Vec<u8> {
        let mut command = self.0.client("psql", database);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]).env("PGCLIENTENCODING", "UTF8");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let sql = sql.to_vec();
        // It may end early, and then says why.
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&sql)));
        let out = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }

    /// Waits until a condition holds.
    #[track_caller]
    pub(super) fn wait_until(&self, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut client = self.client("postgres");
        while !client.query(&format!("SELECT {what}")).unwrap().only().unwrap().is_true(0).unwrap() {
            assert!(Instant::now() < deadline, "never: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends every process of the server at once, without a goodbye.
    pub(super) fn kill(&mut self) {
        self.0.kill();
    }
}
