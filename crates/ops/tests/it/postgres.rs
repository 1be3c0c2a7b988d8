//! A recovery point of a PostgreSQL server without lastgood: restic, `psql`, and what `RESTORE.md` says.

use crate::rig::Rig;
use lastgood_model::source::Source;
use lastgood_sources::postgres::PostgresSource;
use lastgood_sources::postgres::conninfo::Conninfo;
use lastgood_testkit::postgres::{PASSWORD, PgServer, SUPERUSER, Version, differences};
use lastgood_testkit::restic::Restic;
use std::process::Command;

fn source(server: &PgServer, database: &str) -> Box<dyn Source> {
    let conninfo = Conninfo::parse(&server.socket_url(database), &|_| None).unwrap();
    let mut source = PostgresSource::new("db", conninfo);
    source.options.bin = Some(server.bin("pg_dump").parent().unwrap().to_owned());
    Box::new(source)
}

/// The commands of a section: what is indented.
fn commands(notes: &str, heading: &str) -> String {
    let section = notes.split(heading).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    section.lines().filter_map(|line| line.strip_prefix("    ")).collect::<Vec<_>>().join("\n")
}

/// Runs what the notes say in the folder that restic restored, with `server` as the one to load into.
#[track_caller]
fn run_notes(rig: &Rig, server: &PgServer, script: &str) {
    let (is_done, said) = try_notes(rig, server, &["-euo", "pipefail", "-c"], script);
    assert!(
        is_done && said.contains("All of it is loaded.") && !said.contains("STOPPED"),
        "{script}\n--- said\n{said}"
    );
}

/// The same for what may fail, with bash as told. Whether it ended well, and what it said.
fn try_notes(rig: &Rig, server: &PgServer, bash: &[&str], script: &str) -> (bool, String) {
    let bin = server.bin("psql").parent().unwrap().to_owned();
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&rest))).unwrap();
    let ran = Command::new("bash")
        .args(bash)
        .arg(script)
        .current_dir(rig.path("theirs"))
        .env("PATH", path)
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", server.port().to_string())
        .env("PGUSER", SUPERUSER)
        .env("PGPASSWORD", PASSWORD)
        .output()
        .unwrap();
    (ran.status.success(), String::from_utf8([ran.stdout, ran.stderr].concat()).unwrap())
}

#[track_caller]
fn follow_the_notes(version: Version) {
    let server = PgServer::start(version);
    server.load_everything("shop");
    let rig = Rig::on_disk();
    let report = rig.backup(&[source(&server, "shop")]).unwrap();
    assert!(report.complete, "{:?}", report.problems);
    let restic = Restic::newest(rig.path("repo"), rig.path("password"));
    restic.restore("latest", &rig.path("theirs")).unwrap();
    let notes = fs_err::read_to_string(rig.path("theirs/.lastgood/RESTORE.md")).unwrap();
    assert!(!notes.contains(PASSWORD), "{notes}");
    let script = commands(&notes, "## Loading `db` with psql");
    assert!(script.contains("createdb") && script.contains("post-data.sql"), "{notes}");

    let other = PgServer::start(version);
    other.prepare_for_everything();
    // It lies in the server's own folder, which no path can say.
    other.psql("postgres", "CREATE TABLESPACE \"a \"\"tablespace\"\"\" LOCATION ''");
    run_notes(&rig, &other, &script);
    // Blank lines would fill the list of differences when a single line is missing.
    let lines = |text: String, but: &str| -> String {
        let is_told =
            |line: &&str| !line.is_empty() && !line.starts_with("--") && (but.is_empty() || !line.starts_with(but));
        text.lines().filter(is_told).collect::<Vec<_>>().join("\n")
    };
    let dump = |server: &PgServer| lines(server.pg_dump_text("shop"), "");
    let different = differences(&dump(&server), &dump(&other));
    assert!(different.is_empty(), "{different}");
    let globals = |server: &PgServer| lines(server.globals_text(), "CREATE TABLESPACE");
    let different = differences(&globals(&server), &globals(&other));
    assert!(different.is_empty(), "{different}");
}

#[test]
fn what_restore_md_says_brings_everything_back_with_restic_and_psql_alone() {
    follow_the_notes(Version::V15);
}

#[test]
fn what_restore_md_says_holds_for_the_newest_version_too() {
    follow_the_notes(Version::V18);
}

#[test]
fn the_notes_hold_for_any_name_and_encoding_and_stop_at_the_first_failure() {
    let server = PgServer::start(Version::V15);
    let name = "we=ird host=x";
    for (database, encoding) in [(name, "LATIN1"), ("-jp", "EUC_JP")] {
        server.psql(
            "postgres",
            &format!("CREATE DATABASE \"{database}\" TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"),
        );
    }
    server.psql(
        name,
        "SET client_encoding = 'UTF8'; CREATE ROLE keeper;
         CREATE TABLE \"é\" (\"ü\" text); INSERT INTO \"é\" VALUES ('ä'), ('plain'); CREATE SEQUENCE \"ö\"; SELECT nextval('\"ö\"');
         ALTER DATABASE \"we=ird host=x\" SET work_mem TO '7MB'; ALTER DATABASE \"we=ird host=x\" OWNER TO keeper;
         ALTER ROLE keeper IN DATABASE \"we=ird host=x\" SET search_path TO nowhere;
         COMMENT ON DATABASE \"we=ird host=x\" IS 'with é'; REVOKE ALL ON DATABASE \"we=ird host=x\" FROM PUBLIC;",
    );
    server
        .psql("-jp", "SET client_encoding = 'UTF8'; CREATE TABLE \"表\" (a text); INSERT INTO \"表\" VALUES ('漢字')");
    let rig = Rig::on_disk();
    let mut both = PostgresSource::new("db", Conninfo::parse(&server.socket_url(name), &|_| None).unwrap());
    both.databases = Some(vec![name.to_owned(), "-jp".to_owned()]);
    both.options.bin = Some(server.bin("pg_dump").parent().unwrap().to_owned());
    let report = rig.backup(&[Box::new(both) as Box<dyn Source>]).unwrap();
    assert!(report.complete, "{:?}", report.problems);
    let restic = Restic::newest(rig.path("repo"), rig.path("password"));
    restic.restore("latest", &rig.path("theirs")).unwrap();
    let notes = fs_err::read_to_string(rig.path("theirs/.lastgood/RESTORE.md")).unwrap();
    let script = commands(&notes, "## Loading `db` with psql");
    let other = PgServer::start(Version::V15);
    run_notes(&rig, &other, &script);
    for (database, table) in [(name, "é"), ("-jp", "表")] {
        let look = format!("SET client_encoding = 'UTF8'; SELECT * FROM \"{table}\" ORDER BY 1");
        assert_eq!(other.psql(database, &look), server.psql(database, &look));
        assert_eq!(other.pg_dump_text(database), server.pg_dump_text(database));
    }
    let facts = "SELECT datname, datdba::regrole, datacl, shobj_description(d.oid, 'pg_database'), setrole, setconfig
                 FROM pg_database d LEFT JOIN pg_db_role_setting s ON s.setdatabase = d.oid WHERE datname ~ '=' ORDER BY setrole";
    let facts = facts.replace("setrole", "coalesce(setrole, 0)::regrole::text");
    assert_eq!(other.psql("postgres", &facts), server.psql("postgres", &facts));

    // A bad row, and a file that is gone: however it is run, it never says that all is there.
    let here = rig.path("theirs/db/-jp");
    let files = || -> Vec<std::path::PathBuf> {
        let tables = fs_err::read_dir(here.join("data")).unwrap();
        tables.map(|table| table.unwrap().path().join("00000000.copy")).collect()
    };
    for damage in ["bad", "gone"] {
        other.psql("postgres", "DROP DATABASE \"we=ird host=x\"; DROP DATABASE \"-jp\"; DROP ROLE keeper");
        for file in files() {
            match damage {
                "bad" => fs_err::write(file, "a\ttwo columns\n").unwrap(),
                _ => fs_err::remove_file(file).unwrap(),
            }
        }
        let (_, said) = try_notes(&rig, &other, &["-c"], &script);
        let told: Vec<&str> = said.lines().filter(|line| line.contains("of it is loaded")).collect();
        assert_eq!(told, ["All of it is loaded.", "STOPPED: NOT all of it is loaded."], "{damage}: {said}");
    }
}

#[test]
fn an_unchanged_database_is_stored_at_next_to_no_cost() {
    let server = PgServer::start(Version::V15);
    server.create_database("shop");
    server.psql(
        "shop",
        "DO $$ BEGIN FOR n IN 1..150 LOOP EXECUTE format('CREATE TABLE t%s AS SELECT %s AS n', n, n); END LOOP; END $$",
    );
    let rig = Rig::on_disk();
    let first = rig.backup(&[source(&server, "shop")]).unwrap();
    let again = rig.backup(&[source(&server, "shop")]).unwrap();
    assert!(first.complete && again.complete);
    // What is new are the notes and the manifest with its times and positions.
    assert!(again.bytes_new < 16 << 10, "{} of {}", again.bytes_new, first.bytes_new);
    server.psql("shop", "INSERT INTO t7 VALUES (8)");
    let changed = rig.backup(&[source(&server, "shop")]).unwrap();
    let restic = Restic::newest(rig.path("repo"), rig.path("password"));
    for (report, folder) in [(&first, "a"), (&again, "b"), (&changed, "c")] {
        restic.restore(&report.snapshot.unwrap().to_string(), &rig.path(folder)).unwrap();
    }
    let times = |folder: &str| -> Vec<(String, std::time::SystemTime)> {
        let tables = rig.path(folder).join("db/shop/data");
        let mut all: Vec<_> = fs_err::read_dir(tables)
            .unwrap()
            .map(|table| table.unwrap().path().join("00000000.copy"))
            .map(|file| (fs_err::read_to_string(&file).unwrap(), file.metadata().unwrap().modified().unwrap()))
            .collect();
        all.sort();
        all
    };
    let (a, b, c) = (times("a"), times("b"), times("c"));
    assert_eq!(a, b);
    let newer = |rows: &str| c.iter().find(|(text, _)| text == rows).unwrap().1 > a[0].1;
    assert!(newer("7\n8\n") && !newer("8\n"), "what changed has the time of its change");
}

#[test]
fn a_row_that_is_too_long_for_a_text_is_loaded_by_the_notes_too() {
    let server = PgServer::start(Version::V15);
    server.create_database("shop");
    // 540 MB have 1080 million digits, and no server makes a text of more than 1 GiB.
    server.psql(
        "shop",
        "CREATE TABLE \"a (ENCODING 'x')\" (id int, b bytea); ALTER TABLE \"a (ENCODING 'x')\" ALTER b SET STORAGE external;
         INSERT INTO \"a (ENCODING 'x')\" VALUES (1, '\\x00'), (2, convert_to(repeat('0123456789abcdef', 33750000), 'UTF8')), (3, NULL);",
    );
    let rig = Rig::on_disk();
    let report = rig.backup(&[source(&server, "shop")]).unwrap();
    assert!(report.complete, "{:?}", report.problems);
    let restic = Restic::newest(rig.path("repo"), rig.path("password"));
    restic.restore("latest", &rig.path("theirs")).unwrap();
    let notes = fs_err::read_to_string(rig.path("theirs/.lastgood/RESTORE.md")).unwrap();
    let other = PgServer::start(Version::V15);
    run_notes(&rig, &other, &commands(&notes, "## Loading `db` with psql"));
    let look = "SELECT id, length(b), md5(b) FROM \"a (ENCODING 'x')\" ORDER BY id";
    assert_eq!(other.psql("shop", look), server.psql("shop", look));
}
