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
    let bin = server.bin("psql").parent().unwrap().to_owned();
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&rest))).unwrap();
    let ran = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(rig.path("theirs"))
        .env("PATH", path)
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", server.port().to_string())
        .env("PGUSER", SUPERUSER)
        .env("PGPASSWORD", PASSWORD)
        .output()
        .unwrap();
    let said = String::from_utf8([ran.stdout, ran.stderr].concat()).unwrap();
    assert!(ran.status.success() && said.contains("All of it is loaded."), "{script}\n--- said\n{said}");
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
