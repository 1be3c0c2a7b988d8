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
    let bin = other.bin("psql").parent().unwrap().to_owned();
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&rest))).unwrap();
    let ran = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(rig.path("theirs"))
        .env("PATH", path)
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", other.port().to_string())
        .env("PGUSER", SUPERUSER)
        .env("PGPASSWORD", PASSWORD)
        .output()
        .unwrap();
    let said = String::from_utf8([ran.stdout, ran.stderr].concat()).unwrap();
    assert!(ran.status.success() && said.contains("All of it is loaded."), "{script}\n--- said\n{said}");
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
