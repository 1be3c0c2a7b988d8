//! Roles that may not read everything.

use super::server::Server;
use super::{capture, rows, rows_of, table, tables};
use lastgood_model::manifest::ProblemKind;
use lastgood_model::source::{FindingLevel, Source};
use lastgood_model::{ErrorKind, Monitor};
use lastgood_sources::postgres::{Globals, PostgresSource, least_privilege_script};
use lastgood_testkit::memory_sink::MemorySink;

fn server() -> Server {
    let server = Server::start();
    server.psql(
        "postgres",
        "CREATE SCHEMA hidden; CREATE TABLE open (a int); CREATE TABLE \"Secret\" (a int); CREATE TABLE hidden.t (a int);
         CREATE SEQUENCE s; INSERT INTO \"Secret\" VALUES (1); SELECT lo_from_bytea(70001, 'large');
         CREATE ROLE weak LOGIN; GRANT SELECT ON open, hidden.t TO weak",
    );
    server
}

#[test]
fn what_a_role_lacks_is_named_with_the_grant_that_mends_it() {
    let server = server();
    let mut source = rows_of(&server, "postgres");
    source.conninfo = server.info_as("weak", "postgres");
    let error = source.capture(&MemorySink::new(), &Monitor::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let (said, hint) = (error.chain(), error.hint().unwrap());
    for what in ["role \"weak\"", "table public.Secret", "schema hidden", "sequence public.s"] {
        assert!(said.contains(what), "{what}: {said}");
    }
    for grant in [
        "GRANT SELECT ON TABLE \"public\".\"Secret\" TO \"weak\"",
        "GRANT USAGE ON SCHEMA \"hidden\" TO \"weak\"",
        "GRANT SELECT ON SEQUENCE \"public\".\"s\" TO \"weak\"",
        "GRANT pg_read_all_data TO \"weak\"",
    ] {
        assert!(hint.contains(grant), "{grant}: {hint}");
    }
    assert!(!said.contains("public.open") && !hint.contains("\"open\""), "{said}: {hint}");

    // The same by a probe, each by itself, and nothing is a failure any more once the grants were made.
    let findings = source.probe().unwrap();
    let failures: Vec<_> = findings.iter().filter(|finding| finding.level == FindingLevel::Failure).collect();
    assert_eq!(failures.len(), 3, "{findings:?}");
    for failure in failures {
        server.psql("postgres", failure.hint.as_deref().unwrap());
    }
    server.psql("postgres", "GRANT SELECT ON LARGE OBJECT 70001 TO weak");
    let findings = source.probe().unwrap();
    assert!(findings.iter().all(|finding| finding.level != FindingLevel::Failure), "{findings:?}");
    let (sink, facts) = capture(&source);
    assert_eq!(rows(&sink, "postgres", &table(&sink, "postgres", "Secret")), b"1\n");
    // Read object by object.
    assert_eq!(sink.stream_at("postgres/large-objects.copy").unwrap().content, b"70001\t0\t\\\\x6c61726765\n");
    assert_eq!(facts.databases[0].large_objects.unwrap().objects, 1);

    server.psql("postgres", "REVOKE SELECT ON LARGE OBJECT 70001 FROM weak");
    let error = source.capture(&MemorySink::new(), &Monitor::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.chain().contains("70001") && error.hint().unwrap().contains("pg_largeobject"), "{error:?}");
}

#[test]
fn what_may_not_be_read_can_be_excluded() {
    let server = server();
    server.psql("postgres", "SELECT lo_unlink(70001)");
    let mut source = PostgresSource::new("db", server.info_as("weak", "postgres"));
    source.options.exclude_tables = vec!["\"Secret\"".into(), "s".into()];
    source.options.exclude_schemas = vec!["hidden".into()];
    let (sink, facts) = capture(&source);
    assert_eq!(facts.globals, Globals::WithoutPasswords);
    let names: Vec<String> = tables(&sink, "postgres").into_iter().map(|table| table.name).collect();
    assert_eq!(names, ["open"]);
    let schema = String::from_utf8(sink.stream_at("postgres/pre-data.sql").unwrap().content).unwrap();
    assert!(schema.contains("\"open\"") && !schema.contains("Secret"), "{schema}");
}

#[test]
fn large_objects_read_one_by_one_are_the_same_bytes() {
    let server = server();
    server.psql(
        "postgres",
        "SELECT lo_from_bytea(70002, decode(repeat('00ff0a', 200000), 'hex')), lo_from_bytea(70003, '');
         GRANT SELECT ON LARGE OBJECT 70001, 70002, 70003 TO weak; GRANT SELECT ON \"Secret\", s TO weak;
         GRANT USAGE ON SCHEMA hidden TO weak",
    );
    let mut source = rows_of(&server, "postgres");
    source.conninfo = server.info_as("weak", "postgres");
    let (sink, facts) = capture(&source);
    let mut script = b"CREATE TEMP TABLE o (oid oid, at int8, data bytea); COPY o FROM STDIN;\n".to_vec();
    script.extend(sink.stream_at("postgres/large-objects.copy").unwrap().content);
    script.extend(b"\\.\nSELECT oid, md5(string_agg(data, '' ORDER BY at)), max(at) FROM o GROUP BY 1 ORDER BY 1;\n");
    let read = String::from_utf8(server.psql_bytes("postgres", &script)).unwrap();
    let want = server.psql(
        "postgres",
        "SELECT oid, md5(lo_get(oid)), (length(lo_get(oid)) - 1) / 131072 * 131072 FROM pg_largeobject_metadata \
         WHERE oid <> 70003 ORDER BY 1",
    );
    assert_eq!(read.trim_end(), want);
    assert_eq!(facts.databases[0].large_objects.unwrap().objects, 3);
}

#[test]
fn rows_hidden_by_a_policy_are_an_error_and_not_missing() {
    let server = Server::start();
    server.psql(
        "postgres",
        "CREATE TABLE policed (a int); INSERT INTO policed VALUES (1), (2); ALTER TABLE policed ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON policed USING (a = 1); CREATE ROLE weak LOGIN; GRANT pg_read_all_data TO weak",
    );
    let mut source = rows_of(&server, "postgres");
    source.conninfo = server.info_as("weak", "postgres");
    let error = source.capture(&MemorySink::new(), &Monitor::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.chain().contains("public.policed") && error.hint().unwrap().contains("BYPASSRLS"), "{error:?}");
    let findings = source.probe().unwrap();
    assert!(findings.iter().any(|f| f.level == FindingLevel::Failure && f.message.contains("public.policed")));
    server.psql("postgres", "ALTER ROLE weak BYPASSRLS");
    assert_eq!(capture(&source).1.databases[0].rows, 2);
}

#[test]
fn the_role_of_the_script_captures_everything() {
    let server = server();
    server.psql("postgres", "ALTER TABLE open ENABLE ROW LEVEL SECURITY; CREATE DATABASE \"o'ther\"");
    let script = least_privilege_script("back\"up", &["postgres".into(), "o'ther".into()], "url's").unwrap();
    let said = server.psql("postgres", &script);
    assert!(said.contains("\\password \"back\"\"up\"") && said.contains("url = \"url's\""), "{said}");
    // Once more changes nothing, and mends what was taken from it.
    server.psql("postgres", "REVOKE pg_read_all_data FROM \"back\"\"up\"");
    server.psql("postgres", &script);
    server.psql("postgres", "CREATE TABLE later (a int); INSERT INTO later VALUES (1)");
    let mut source = PostgresSource::new("db", server.info_as("back\"up", "postgres"));
    source.databases = Some(vec!["postgres".into(), "o'ther".into()]);
    let findings = source.probe().unwrap();
    assert!(findings.iter().all(|finding| finding.level != FindingLevel::Failure), "{findings:?}");
    let (sink, facts) = capture(&source);
    // As pg_read_all_data reads all tables, it reads the one that has them.
    assert_eq!((facts.databases.len(), facts.globals), (2, Globals::WithPasswords));
    assert_eq!(facts.databases[0].large_objects.unwrap().total.rows, 1);
    assert_eq!(table(&sink, "postgres", "later").total.unwrap().rows, 1);
}

#[test]
fn the_script_touches_no_role_that_it_did_not_make() {
    let server = server();
    server.psql(
        "postgres",
        "CREATE ROLE app LOGIN; CREATE TABLE app_s (a int); ALTER TABLE app_s OWNER TO app; CREATE ROLE idle",
    );
    let told = |server: &Server| {
        server.psql(
            "postgres",
            "SELECT r.*, s.setconfig, ARRAY(SELECT roleid::regrole FROM pg_auth_members WHERE member = r.oid)
             FROM pg_roles r LEFT JOIN pg_db_role_setting s ON s.setrole = r.oid ORDER BY rolname",
        )
    };
    let before = told(&server);
    for (role, why) in [("postgres", "is a superuser"), ("app", "owns something"), ("idle", "was not made by")] {
        let script = least_privilege_script(role, &["postgres".into()], "").unwrap();
        let said = server.psql_fails("postgres", &script);
        assert!(said.contains(why) && said.contains("--role NAME"), "{said}");
        assert_eq!(told(&server), before, "{role}");
    }
    // One of its own that has become more than that.
    let script = least_privilege_script("own", &["postgres".into()], "").unwrap();
    server.psql("postgres", &script);
    server.psql("postgres", "ALTER ROLE own SUPERUSER");
    assert!(server.psql_fails("postgres", &script).contains("is a superuser"));
}

#[test]
fn what_only_superusers_are_shown_makes_the_capture_of_others_incomplete() {
    let server = server();
    let script = least_privilege_script("backup", &["postgres".into()], "").unwrap();
    server.psql("postgres", &script);
    server.psql(
        "postgres",
        "CREATE SUBSCRIPTION \"my sub\" CONNECTION 'host=nowhere password=hunter2' PUBLICATION p
           WITH (connect = false, slot_name = NONE);
         CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w; CREATE SERVER bare FOREIGN DATA WRAPPER w;
         CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (password 'hunter2');
         CREATE USER MAPPING FOR weak SERVER bare; CREATE DATABASE other",
    );
    let problems = |source: &PostgresSource| -> Vec<(String, ProblemKind)> {
        let monitor = Monitor::new();
        source.capture(&MemorySink::new(), &monitor).unwrap();
        let (problems, _) = monitor.problems();
        assert!(problems.iter().all(|problem| problem.message.contains("superusers only")), "{problems:?}");
        problems.into_iter().map(|problem| (problem.path, problem.what)).collect()
    };
    let expected = [
        ("postgres: subscriptions my sub".to_owned(), ProblemKind::Unreadable),
        ("postgres: options of user mappings: of PUBLIC for server far".to_owned(), ProblemKind::Unreadable),
    ];
    let mut source = PostgresSource::new("db", server.info_as("backup", "postgres"));
    source.options.bin = Some(server.bin());
    assert_eq!(problems(&source), expected);
    let findings = source.probe().unwrap();
    // The rest of the database is kept, so that it can be protected.
    let warnings: Vec<_> = findings.iter().filter(|finding| finding.message.contains("may not read")).collect();
    assert_eq!(warnings.len(), 2, "{findings:?}");
    assert!(warnings.iter().all(|warning| warning.level == FindingLevel::Warning), "{warnings:?}");
    assert!(warnings.iter().all(|warning| !warning.message.contains("hunter2")), "{warnings:?}");
    assert!(findings.iter().all(|finding| finding.level != FindingLevel::Failure), "{findings:?}");
    // A part of a database, rows alone, and other databases lack nothing.
    source.options.tables = vec!["open".into()];
    assert_eq!(problems(&source), []);
    source.options.tables.clear();
    source.options.data_only = true;
    assert_eq!(problems(&source), []);
    source.options.data_only = false;
    source.databases = Some(vec!["other".into()]);
    server.psql("postgres", "GRANT CONNECT ON DATABASE other TO backup");
    assert_eq!(problems(&source), []);
    // Who may not look at all cannot tell which have options; a superuser lacks nothing.
    source.databases = Some(vec!["postgres".into()]);
    server.psql(
        "postgres",
        "REVOKE pg_read_all_data FROM backup; GRANT USAGE ON SCHEMA hidden TO backup;
         GRANT SELECT ON ALL TABLES IN SCHEMA public, hidden TO backup;
         GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO backup; GRANT SELECT ON pg_largeobject TO backup",
    );
    assert_eq!(
        problems(&source)[1].0,
        "postgres: options of user mappings: of weak for server bare, of PUBLIC for server far"
    );
    source.conninfo = server.info("postgres");
    assert_eq!(problems(&source), []);
}

#[test]
fn who_acts_as_another_is_named_as_both() {
    let server = server();
    server.psql("postgres", "ALTER DATABASE postgres SET role = weak");
    let source = rows_of(&server, "postgres");
    let error = source.capture(&MemorySink::new(), &Monitor::new()).unwrap_err();
    let (said, hint) = (error.chain(), error.hint().unwrap());
    assert!(said.contains("role \"weak\" (which \"postgres\" acts as here"), "{said}");
    assert!(hint.contains("TO \"weak\"") && hint.contains("RESET role") && !hint.contains("TO \"postgres\""), "{hint}");
}

#[test]
fn a_probe_tells_what_there_is() {
    let server = server();
    let source = PostgresSource::new("db", server.info("postgres"));
    let findings = source.probe().unwrap();
    assert!(findings.iter().all(|finding| finding.level == FindingLevel::Ok), "{findings:?}");
    for part in ["PostgreSQL ", "pg_dump ", "3 tables, 1 sequences"] {
        assert!(findings.iter().any(|finding| finding.message.contains(part)), "{part}: {findings:?}");
    }
    let nowhere = lastgood_sources::postgres::conninfo::Conninfo::parse("host=/nonexistent", &|_| None).unwrap();
    let findings = PostgresSource::new("db", nowhere).probe().unwrap();
    assert_eq!((findings.len(), findings[0].level), (1, FindingLevel::Failure));
}
