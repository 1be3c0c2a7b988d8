//! Parts of a database, into databases that are in use.

use super::super::DatabaseFate;
use super::*;
use lastgood_testkit::postgres::Version;
use std::sync::Arc;

fn of(tables: &[&str]) -> RestoreOptions {
    RestoreOptions { tables: tables.iter().map(|name| (*name).to_owned()).collect(), ..options() }
}

#[test]
fn a_table_comes_back_beside_itself_under_another_name() {
    for version in Version::ALL {
        let server = PgServer::start(version);
        let saved = shop(&server);
        server.psql("shop", "UPDATE orders SET note = 'spoilt'");
        let beside = RestoreOptions { rename: Some(("orders".into(), "orders_before".into())), ..options() };
        let planned = plan(&saved, &info(&server, "shop"), &beside).unwrap();
        assert_eq!(planned.summary().fate, DatabaseFate::AddedTo);
        planned.execute(&saved, &Monitor::new()).unwrap();
        let told = "SELECT count(*), count(*) FILTER (WHERE note = 'spoilt') FROM ";
        assert_eq!(server.psql("shop", &format!("{told} orders_before")), "5000|0");
        assert_eq!(server.psql("shop", &format!("{told} orders")), "5000|5000");
        let keys = "SELECT count(*) FROM pg_index WHERE indrelid = 'orders_before'::regclass AND indisvalid";
        assert_eq!(server.psql("shop", keys), "2");
        assert_eq!(server.psql("shop", "INSERT INTO orders_before (customer) VALUES (1) RETURNING id"), "5001");
        assert_eq!(comment(&server, "shop"), "our shop");

        let error = restore(&saved, &server, "shop", &beside).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
        let elsewhere = RestoreOptions { rename: Some(("orders".into(), "old.orders".into())), ..options() };
        restore(&saved, &server, "shop", &elsewhere).unwrap();
        assert_eq!(server.psql("shop", &format!("{told} old.orders")), "5000|0");
    }
}

#[test]
fn what_was_added_is_taken_away_again_when_the_restore_fails() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    let before = server.pg_dump_text("shop");
    let broken = Saved { files: saved.files.clone(), ..Saved::default() };
    let broken = broken.with("shop/toc.json", "USING \\\"btree\\\" (\\\"note\\\")", "USING nosuch (note)");
    let beside = RestoreOptions { rename: Some(("orders".into(), "old.orders".into())), ..options() };
    let error = restore(&broken, &server, "shop", &beside).unwrap_err();
    assert!(error.hint().unwrap().contains("taken away again"), "{error:?} {:?}", error.hint());
    assert_eq!(server.pg_dump_text("shop"), before);
    assert_eq!(comment(&server, "shop"), "our shop");

    server.psql("shop", "DROP VIEW rich; DROP TABLE orders");
    let before = server.pg_dump_text("shop");
    let error = restore(&broken, &server, "shop", &of(&["orders"])).unwrap_err();
    assert!(error.hint().unwrap().contains("taken away again"), "{error:?} {:?}", error.hint());
    assert_eq!(server.pg_dump_text("shop"), before);
    // And whole, it fits in where it was.
    restore(&saved, &server, "shop", &of(&["orders", "rich"])).unwrap();
    assert_eq!(mismatches(&saved, &server, "shop", VerifyOptions { rows_only: true, ..VerifyOptions::default() }), "");
}

#[test]
fn while_something_is_added_a_schema_says_so_and_the_next_restore_tells_of_it() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    server.psql("shop", "DROP VIEW rich; DROP TABLE orders");
    let told = "SELECT nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname ~ 'unfinished'";
    let seen = Arc::new(Mutex::new(String::new()));
    let (text, url) = (Arc::clone(&seen), server.url("shop"));
    saved.on_read(move |path| {
        if path.ends_with(".copy") {
            let mut client =
                super::super::super::wire::Client::connect(&Conninfo::parse(&url, &|_| None).unwrap()).unwrap();
            let rows = client.query(told).unwrap();
            let row = rows.only().unwrap();
            *text.lock().unwrap() = format!("{}|{}", row.text(0).unwrap(), row.text(1).unwrap());
        }
        Ok(())
    });
    restore(&saved, &server, "shop", &of(&["orders"])).unwrap();
    saved.off_read();
    let (name, comment) = seen.lock().unwrap().split_once('|').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(
        comment.contains("restore of a1b2c3d4") && comment.ends_with("not complete: \"public\".\"orders\""),
        "{comment}"
    );
    assert_eq!(server.psql("shop", told), "", "it is gone with the end");
    // As a killed one leaves it.
    server.psql("shop", &format!("CREATE SCHEMA \"{name}\"; COMMENT ON SCHEMA \"{name}\" IS '{comment}'"));
    let planned = plan(&saved, &info(&server, "shop"), &of(&["orders"])).unwrap();
    assert!(planned.summary().warnings.iter().any(|one| one.contains(&name) && one.contains("orders")));
    assert_eq!(planned.summary().obstacles.len(), 1, "{:?}", planned.summary());
}

#[test]
fn one_table_and_one_schema_come_back_into_a_database_of_their_own() {
    let server = PgServer::start(Version::V15);
    server.create_database("shop");
    server.psql("shop", SHOP);
    server.psql(
        "shop",
        "CREATE SCHEMA stock; CREATE TABLE stock.items (id serial PRIMARY KEY, name text);
        INSERT INTO stock.items (name) SELECT 'item ' || i FROM generate_series(1, 50) i;
        CREATE VIEW stock.named AS SELECT * FROM stock.items WHERE name <> ''",
    );
    let saved = Saved::capture(&server, "shop");
    let report = restore(&saved, &server, "one", &of(&["customers"])).unwrap();
    assert_eq!((report.tables, report.rows), (1, 1000));
    assert_eq!(server.psql("one", "SELECT count(*), nextval('customers_id_seq') FROM customers"), "1000|1001");
    assert_eq!(server.psql("one", "SELECT count(*) FROM pg_class WHERE relname ~ 'orders|items'"), "0");

    let schema = RestoreOptions { schemas: vec!["stock".into()], ..options() };
    restore(&saved, &server, "two", &schema).unwrap();
    assert_eq!(server.psql("two", "SELECT count(*) FROM stock.named"), "50");
    assert_eq!(server.psql("two", "SELECT to_regclass('public.orders') IS NULL"), "t");
    // Beside what is there already.
    let error = restore(&saved, &server, "two", &schema).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    restore(&saved, &server, "one", &schema).unwrap();
    assert_eq!(server.psql("one", "SELECT count(*) FROM stock.items"), "50");

    let without = RestoreOptions { exclude_tables: vec!["orders".into()], ..options() };
    restore(&saved, &server, "three", &without).unwrap();
    assert_eq!(server.psql("three", "SELECT to_regclass('public.orders') IS NULL, count(*) FROM customers"), "t|1000");
}

#[test]
fn rows_alone_go_in_without_firing_triggers() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    restore(&saved, &server, "copy", &RestoreOptions { schema_only: true, ..options() }).unwrap();
    server.psql(
        "copy",
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER no BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION no()",
    );
    restore(&saved, &server, "copy", &RestoreOptions { data_only: true, ..of(&["orders", "customers"]) }).unwrap();
    assert_eq!(
        server.psql("copy", "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM customers)"),
        "5000|1000"
    );
    // A foreign key that nobody has looked at must hold all the same.
    server.psql("copy", "TRUNCATE orders, customers");
    let error = restore(&saved, &server, "copy", &RestoreOptions { data_only: true, ..of(&["orders"]) }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert!(error.chain().contains("orders_customer_fkey"), "{error:?}");
    assert_eq!(server.psql("copy", "SELECT count(*) FROM orders"), "0");
}
