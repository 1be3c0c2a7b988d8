//! Restores by roles that may not do everything.

use super::*;
use lastgood_testkit::postgres::Version;

/// A role of an application: it may make databases, and owns its own.
fn of_app(server: &PgServer) -> Saved {
    server.psql("postgres", "CREATE ROLE app LOGIN CREATEDB PASSWORD 'secret'");
    server.create_database("shop");
    server.psql("postgres", "ALTER DATABASE shop OWNER TO app");
    server.psql("shop", &format!("SET SESSION AUTHORIZATION app; {SHOP}"));
    Saved::capture(server, "shop")
}

fn as_app(server: &PgServer, database: &str) -> Conninfo {
    let url = format!("postgres://app:secret@127.0.0.1:{}/{database}", server.port());
    Conninfo::parse(&url, &|_| None).unwrap()
}

#[test]
fn who_may_make_databases_restores_whole_ones_and_tables() {
    for version in Version::ALL {
        let server = PgServer::start(version);
        // In 15 and later, nobody but the owner of the database makes anything in public.
        let saved = of_app(&server);
        plan(&saved, &as_app(&server, "copy"), &options()).unwrap().execute(&saved, &Monitor::new()).unwrap();
        assert_eq!(mismatches(&saved, &server, "copy", VerifyOptions::default()), "");
        let beside = RestoreOptions { rename: Some(("orders".into(), "orders_old".into())), ..options() };
        plan(&saved, &as_app(&server, "shop"), &beside).unwrap().execute(&saved, &Monitor::new()).unwrap();
        assert_eq!(server.psql("shop", "SELECT count(*) FROM orders_old"), "5000");
        let overwrite = RestoreOptions { overwrite: true, ..options() };
        plan(&saved, &as_app(&server, "copy"), &overwrite).unwrap().execute(&saved, &Monitor::new()).unwrap();
        assert_eq!(mismatches(&saved, &server, "copy", VerifyOptions::default()), "");
    }
}

#[test]
fn owners_that_a_role_cannot_stand_for_are_told_before_anything_is_changed() {
    for version in Version::ALL {
        let server = PgServer::start(version);
        let saved = shop(&server);
        server.psql("postgres", "CREATE ROLE app LOGIN PASSWORD 'secret'");
        server.create_database("mine");
        server.psql("postgres", "ALTER DATABASE mine OWNER TO app");
        server.psql("mine", "ALTER SCHEMA public OWNER TO app");
        let error = plan(&saved, &as_app(&server, "mine"), &options()).unwrap().refusal().unwrap();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(error.chain().contains("postgres") && error.hint().unwrap().contains("--no-owner"), "{error:?}");
        let without = RestoreOptions { no_owner: true, no_acl: true, ..options() };
        plan(&saved, &as_app(&server, "mine"), &without).unwrap().execute(&saved, &Monitor::new()).unwrap();
        server.psql("postgres", "DROP DATABASE mine; CREATE DATABASE mine OWNER app; GRANT postgres TO app");
        plan(&saved, &as_app(&server, "mine"), &RestoreOptions { no_acl: true, ..options() }).unwrap();
    }
}

#[test]
fn a_role_that_the_database_gives_to_everybody_does_not_restore() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    server.psql("postgres", "CREATE ROLE limited; ALTER DATABASE shop SET role = 'limited'");
    let beside = RestoreOptions { rename: Some(("orders".into(), "orders_old".into())), ..options() };
    restore(&saved, &server, "shop", &beside).unwrap();
    let told = "SELECT count(*), pg_get_userbyid(c.relowner) FROM pg_class c, orders_old \
                WHERE c.oid = 'orders_old'::regclass GROUP BY 2";
    let info = info(&server, "shop");
    let mut client = super::super::session::connect(&info).unwrap();
    client.batch("SET search_path = public").unwrap();
    let rows = client.query(told).unwrap();
    let row = rows.only().unwrap();
    assert_eq!((row.text(0).unwrap(), row.text(1).unwrap()), ("5000", "postgres"));
    drop(client);
    restore(&saved, &server, "shop", &RestoreOptions { overwrite: true, ..options() }).unwrap();
    assert_eq!(mismatches(&saved, &server, "shop", VerifyOptions::default()), "");
}
