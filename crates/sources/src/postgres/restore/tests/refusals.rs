//! What stands in the way is told before anything is changed.

use super::super::{DatabaseFate, ObstacleKind};
use super::*;
use lastgood_testkit::postgres::Version;

fn databases_of(server: &PgServer) -> String {
    server.psql("postgres", "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database")
}

#[test]
fn an_occupied_database_is_refused_and_replaced_only_when_told() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    server.create_database("other");
    server.psql("other", "CREATE TABLE mine AS SELECT 1 AS x");
    let error = restore(&saved, &server, "other", &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("table public.mine"), "{error:?}");
    assert!(error.hint().unwrap().contains("--overwrite"));
    assert_eq!(server.psql("other", "SELECT x FROM mine"), "1");

    let overwrite = RestoreOptions { overwrite: true, ..options() };
    let target = info(&server, "other");
    let user = super::super::super::wire::Client::connect(&target).unwrap();
    let error = plan(&saved, &target, &overwrite).unwrap().execute(&saved, &Monitor::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
    assert_eq!(server.psql("other", "SELECT x FROM mine"), "1");
    let force = RestoreOptions { force: true, ..overwrite.clone() };
    let planned = plan(&saved, &target, &force).unwrap();
    assert_eq!(planned.summary().fate, DatabaseFate::Replaced);
    assert!(planned.summary().replaces.as_ref().unwrap().contains("public.mine"));
    planned.execute(&saved, &Monitor::new()).unwrap();
    drop(user);
    assert_eq!(mismatches(&saved, &server, "other", VerifyOptions::default()), "");
    // Without anybody there, force is not needed.
    restore(&saved, &server, "other", &overwrite).unwrap();
    assert_eq!(databases_of(&server), "other postgres shop template0 template1");
}

#[test]
fn missing_roles_are_named_made_or_done_without() {
    let source = PgServer::start(Version::V15);
    source.psql(
        "postgres",
        "CREATE ROLE team; CREATE ROLE owner LOGIN PASSWORD 'x' IN ROLE team; CREATE ROLE reader; CREATE ROLE stranger",
    );
    source.create_database("shop");
    source.psql("shop", SHOP);
    source.psql("shop", "ALTER TABLE orders OWNER TO owner; GRANT SELECT ON customers TO reader");
    let saved = Saved::capture(&source, "shop");
    let server = PgServer::start(Version::V15);
    let error = restore(&saved, &server, "shop", &options()).unwrap_err();
    assert_eq!(error.message(), "the server lacks the roles \"owner\", \"reader\"");
    assert!(error.hint().unwrap().contains("--roles"));
    assert_eq!(databases_of(&server), "postgres template0 template1");
    assert_eq!(server.psql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname IN ('owner', 'reader')"), "0");

    restore(&saved, &server, "bare", &RestoreOptions { no_owner: true, no_acl: true, ..options() }).unwrap();
    assert_eq!(server.psql("bare", "SELECT relowner::regrole FROM pg_class WHERE relname = 'orders'"), "postgres");

    server.psql("postgres", "CREATE ROLE reader LOGIN CONNECTION LIMIT 3");
    let report = restore(&saved, &server, "shop", &RestoreOptions { roles: true, ..options() }).unwrap();
    assert_eq!(report.roles_made, ["owner", "team"]);
    let told = "SELECT string_agg(rolname || rolconnlimit || rolcanlogin, ' ' ORDER BY rolname) FROM pg_roles \
                WHERE rolname IN ('owner', 'reader', 'team', 'stranger')";
    assert_eq!(server.psql("postgres", told), "owner-1true reader3true team-1false");
    let member = "SELECT pg_has_role('owner', 'team', 'member')";
    assert_eq!(server.psql("postgres", member), "t");
    assert_eq!(mismatches(&saved, &server, "shop", VerifyOptions::default()), "");
}

#[test]
fn a_missing_extension_and_a_missing_locale_are_told_and_cost_nothing() {
    let server = PgServer::start(Version::V15);
    server.create_database("shop");
    server.psql("shop", "CREATE EXTENSION citext; CREATE TABLE t (a citext)");
    let lacking = Saved::capture(&server, "shop").with("shop/toc.json", "\"tag\":\"citext\"", "\"tag\":\"nosuch\"");
    let planned = plan(&lacking, &info(&server, "copy"), &options()).unwrap();
    assert_eq!(planned.summary().obstacles[0].kind, ObstacleKind::Extensions);
    assert!(planned.refusal().unwrap().message().contains("\"nosuch\""));
    let whole = Saved::capture(&server, "shop");
    let planned = plan(&whole, &info(&server, "copy"), &options()).unwrap();
    assert_eq!(planned.summary().extensions, [("citext".to_owned(), "1.6".to_owned())]);

    let elsewhere = Saved::capture(&server, "shop").with("shop/toc.json", "'C.UTF-8'", "'xx_XX.UTF-8'");
    let overwrite = RestoreOptions { overwrite: true, ..options() };
    let error = restore(&elsewhere, &server, "shop", &overwrite).unwrap_err();
    assert!(error.hint().unwrap().contains("xx_XX.UTF-8"), "{error:?} {:?}", error.hint());
    assert_eq!(server.psql("shop", "SELECT count(*) FROM t"), "0");
    assert_eq!(databases_of(&server), "postgres shop template0 template1");
}

#[test]
fn rows_alone_need_their_tables_and_want_them_empty() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    let rows = RestoreOptions { data_only: true, ..options() };
    let error = restore(&saved, &server, "nowhere", &rows).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Absent);
    server.create_database("empty");
    let error = restore(&saved, &server, "empty", &rows).unwrap_err();
    assert!(error.message().contains("\"public\".\"orders\""), "{error:?}");
    let error = restore(&saved, &server, "shop", &rows).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    server.psql("shop", "DELETE FROM orders WHERE id > 10; UPDATE customers SET name = 'x'");
    restore(&saved, &server, "shop", &RestoreOptions { overwrite: true, ..rows }).unwrap();
    assert_eq!(mismatches(&saved, &server, "shop", VerifyOptions::default()), "");
}

#[test]
fn what_is_not_in_the_recovery_point_is_told() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    let target = info(&server, "x");
    let kind = |options: RestoreOptions| plan(&saved, &target, &options).unwrap_err().kind();
    assert_eq!(kind(RestoreOptions { database: Some("nope".into()), ..options() }), ErrorKind::Absent);
    assert_eq!(kind(RestoreOptions { tables: vec!["nope".into()], ..options() }), ErrorKind::Absent);
    assert_eq!(kind(RestoreOptions { schemas: vec!["nope".into()], ..options() }), ErrorKind::Absent);
}

#[test]
fn an_older_server_is_warned_of_and_a_part_needs_no_roles_of_the_database_itself() {
    let source = PgServer::start(Version::V18);
    source.psql("postgres", "CREATE ROLE visitor");
    source.create_database("shop");
    source.psql("shop", SHOP);
    source.psql("shop", "GRANT CONNECT ON DATABASE shop TO visitor");
    let saved = Saved::capture(&source, "shop");
    let server = PgServer::start(Version::V15);
    let part = RestoreOptions { tables: vec!["customers".into()], ..options() };
    let planned = plan(&saved, &info(&server, "part"), &part).unwrap();
    assert!(planned.summary().warnings.iter().any(|one| one.contains("older than")), "{:?}", planned.summary());
    assert_eq!(planned.summary().obstacles, []);
    let report = planned.execute(&saved, &Monitor::new()).unwrap();
    assert!(report.notices.iter().any(|one| one.contains("\"visitor\"")), "{report:?}");
    assert_eq!(server.psql("part", "SELECT count(*) FROM customers"), "1000");
    let refusal = plan(&saved, &info(&server, "whole"), &options()).unwrap().refusal().unwrap();
    assert!(refusal.message().contains("visitor"), "{refusal:?}");
}
