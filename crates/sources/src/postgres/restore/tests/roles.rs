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
