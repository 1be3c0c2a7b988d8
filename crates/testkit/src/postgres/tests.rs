use super::*;
use std::io::{BufRead, BufReader};

#[test]
fn a_server_of_each_version_is_reached_every_way() {
    for version in Version::ALL {
        let server = PgServer::start(version);
        let number: u32 = server.psql("postgres", "SHOW server_version_num").parse().unwrap();
        assert_eq!(number / 10_000, version.major());
        let name = "a d=b'\"\\ /%é";
        server.create_database(name);
        for url in [server.url(name), server.socket_url(name), server.conninfo(name)] {
            let mut psql = Command::new(server.bin("psql"));
            psql.args(["-XAtc", "SELECT current_database() || ' ' || coalesce(host(inet_client_addr()), '-')", &url]);
            let said = String::from_utf8(finish(&mut psql, None).stdout).unwrap();
            let from = if url.contains("127.0.0.1") { "127.0.0.1" } else { "-" };
            assert_eq!(said, format!("{name} {from}\n"), "{url}");
        }
        let mut psql = Command::new(server.bin("psql"));
        let url = server.url(name).replace("password", "passwort");
        let refused = psql.args(["-Xc", "", &url]).output().unwrap();
        assert!(String::from_utf8_lossy(&refused.stderr).contains("password authentication failed"), "{refused:?}");
        server.drop_database(name);
        for program in ["pg_dump", "pg_dumpall", "pg_restore", "pg_basebackup", "pgbench"] {
            finish(Command::new(server.bin(program)).arg("--version"), None);
        }
        for extension in ["pgcrypto", "citext", "hstore", "postgres_fdw"] {
            server.psql("postgres", &format!("CREATE EXTENSION {extension}"));
        }
    }
}

#[test]
fn settings_hold_and_data_survives_a_restart_and_a_crash() {
    for version in Version::ALL {
        let mut server = PgServer::start_with(version, &[("wal_level", "logical")]);
        assert_eq!(server.psql("postgres", "SHOW wal_level"), "logical");
        server.set("work_mem", "1234kB");
        assert_eq!(server.psql("postgres", "SHOW work_mem"), "1234kB");
        server.set("lastgood.quoted", "it's \\");
        assert_eq!(server.psql("postgres", "SHOW lastgood.quoted"), "it's \\");
        let port = server.port();
        server.psql("postgres", "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
        server.restart();
        server.psql("postgres", "INSERT INTO t VALUES (2)");
        let processes = server.processes();
        assert!(processes.len() > 3, "{processes:?}");
        server.kill();
        assert!(processes.iter().all(|pid| !is_there(*pid)), "{processes:?}");
        server.restart();
        assert_eq!(server.psql("postgres", "SELECT sum(a) FROM t"), "3");
        assert!(server.log().contains("automatic recovery in progress"), "{}", server.log());
        assert_eq!(server.port(), port);
        server.set_hba("host all all 127.0.0.1/32 reject");
        let mut psql = Command::new(server.bin("psql"));
        let refused = psql.args(["-Xc", "", &server.url("postgres")]).output().unwrap();
        assert!(String::from_utf8_lossy(&refused.stderr).contains("pg_hba.conf rejects"), "{refused:?}");
    }
}

#[test]
fn a_standby_follows() {
    for version in Version::ALL {
        let server = PgServer::start(version);
        let standby = server.standby();
        server.psql("postgres", "CREATE TABLE t AS SELECT 7 AS a");
        standby.catch_up_with(&server);
        assert_eq!(standby.psql("postgres", "SELECT a, pg_is_in_recovery() FROM t"), "7|t");
    }
}

#[test]
fn an_error_of_the_server_fails_the_test_with_its_words() {
    let server = PgServer::start(Version::V15);
    let failure =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.psql("postgres", "SELECT 1/0; SELECT 1")));
    let said = failure.unwrap_err().downcast::<String>().unwrap();
    assert!(said.contains("division by zero"), "{said}");
}

#[test]
fn nothing_is_left_of_a_server_that_is_dropped() {
    let server = PgServer::start(Version::V18);
    let (folder, processes) = (server.folder.clone(), server.processes());
    drop(server);
    assert!(!folder.exists() && processes.iter().all(|pid| !is_there(*pid)), "{processes:?}");
}

/// Runs itself as a process of its own, which starts a server and is killed.
#[test]
fn a_server_does_not_survive_a_killed_test() {
    const IN_CHILD: &str = "LASTGOOD_TEST_IN_CHILD";
    if std::env::var_os(IN_CHILD).is_some() {
        let server = PgServer::start(Version::V15);
        println!("\nserver {} {}", server.processes()[0], server.folder.display());
        std::thread::sleep(PATIENCE);
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "postgres::tests::a_server_does_not_survive_a_killed_test",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(IN_CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said =
        lines.map_while(Result::ok).find_map(|line| line.strip_prefix("server ").map(ToOwned::to_owned)).unwrap();
    let (pid, folder) = said.split_once(' ').unwrap();
    let pid = pid.parse().unwrap();
    assert!(is_there(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    let begun = Instant::now();
    while is_there(pid) || Path::new(folder).exists() {
        assert!(begun.elapsed() < PATIENCE, "{said} is still there");
        pause();
    }
}

#[test]
fn everything_comes_back_from_a_dump() {
    for version in Version::ALL {
        let server = PgServer::start(version);
        let name = "every \"thing\"";
        server.load_everything(name);
        server.copy_by_dump(name, "restored");
        let (original, restored) = (server.pg_dump_text(name), server.pg_dump_text("restored"));
        assert!(original.len() > 9_000_000 && original.contains("CREATE SUBSCRIPTION"), "{}", original.len());
        assert_eq!(differences(&original, &restored), "", "version {}", version.major());
    }
}

#[test]
fn everything_fills_several_databases_of_a_server() {
    let server = PgServer::start(Version::V18);
    server.load_everything("one");
    server.load_everything("two");
    assert!(server.globals_text().contains("CREATE ROLE \"%role\""));
    assert_eq!(
        server.psql("two", "SELECT count(*) FROM \"values\".texts"),
        server.psql("one", "SELECT count(*) FROM \"values\".texts")
    );
}

fn is_there(pid: i32) -> bool {
    let status = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
