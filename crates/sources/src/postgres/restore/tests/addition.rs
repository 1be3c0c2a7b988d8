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
    let told_what = comment.split_once("\nrecord: ").unwrap().0;
    assert!(
        comment.contains("restore of a1b2c3d4") && told_what.ends_with("not complete: \"public\".\"orders\""),
        "{comment}"
    );
    assert_eq!(server.psql("shop", told), "", "it is gone with the end");
    // As a killed one leaves it.
    server.psql("shop", &format!("CREATE SCHEMA \"{name}\"; COMMENT ON SCHEMA \"{name}\" IS '{comment}'"));
    server.psql("shop", "DELETE FROM orders WHERE id > 7");
    let planned = plan(&saved, &info(&server, "shop"), &of(&["orders"])).unwrap();
    let notes = &planned.summary().notes;
    assert!(notes.iter().any(|one| one.contains("killed") && one.contains("orders")), "{notes:?}");
    assert_eq!(planned.summary().obstacles, []);
    planned.execute(&saved, &Monitor::new()).unwrap();
    assert_eq!(server.psql("shop", "SELECT count(*) FROM orders"), "5000");
    assert_eq!(server.psql("shop", told), "");
    // The same words of the mark about a table that somebody else made since: that stays.
    server.psql("shop", &format!("CREATE SCHEMA \"{name}\"; COMMENT ON SCHEMA \"{name}\" IS '{comment}'"));
    let planned = plan(&saved, &info(&server, "shop"), &of(&["orders"])).unwrap();
    assert!(planned.summary().warnings.iter().any(|one| one.contains(&name)), "{:?}", planned.summary());
    assert_eq!(planned.summary().obstacles.len(), 1, "{:?}", planned.summary());
}

/// What a killed restore leaves: everything, as it was when the first rows were read, and nobody takes it away.
fn killed(saved: &Saved, server: &PgServer, options: &RestoreOptions) {
    let url = server.url("shop");
    let read = std::sync::atomic::AtomicUsize::new(0);
    saved.on_read(move |path| {
        // The second time, and not once more while the restore finds out.
        if path.ends_with(".copy") && read.fetch_add(1, Ordering::SeqCst) == 1 {
            // From here on nothing of the restore reaches the server.
            let mut client =
                super::super::super::wire::Client::connect(&Conninfo::parse(&url, &|_| None).unwrap()).unwrap();
            client
                .batch(
                    "UPDATE pg_database SET datallowconn = false WHERE datname = 'shop'; \
                     SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE datname = 'shop' AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
                )
                .unwrap();
        }
        Ok(())
    });
    restore(saved, server, "shop", options).unwrap_err();
    saved.off_read();
    server.psql("postgres", "UPDATE pg_database SET datallowconn = true WHERE datname = 'shop'");
}

#[test]
fn what_killed_restores_leave_in_a_database_in_use_the_same_words_take_away() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    let left = "SELECT string_agg(nspname, ' ' ORDER BY nspname) FROM pg_namespace WHERE nspname ~ '^lastgood'";
    let beside = RestoreOptions { rename: Some(("orders".into(), "old.orders_then".into())), jobs: 1, ..options() };
    for _ in 0..2 {
        killed(&saved, &server, &beside);
        assert_eq!(server.psql("shop", left).matches("lastgood").count(), 2, "{}", server.psql("shop", left));
    }
    // A backup that was made meanwhile has it, and it is in nobody's way.
    let meanwhile = Saved::capture(&server, "shop");
    let named = RestoreOptions { rename: Some(("orders".into(), "orders_then".into())), ..options() };
    assert!(plan(&meanwhile, &info(&server, "shop"), &named).is_ok());
    let report = restore(&saved, &server, "shop", &beside).unwrap();
    assert!(report.notices.iter().any(|one| one.contains("was killed is taken away")), "{report:?}");
    assert_eq!(server.psql("shop", "SELECT count(*) FROM old.orders_then"), "5000");
    assert_eq!(server.psql("shop", left), "");

    server.psql("shop", "DROP VIEW rich; DROP TABLE orders");
    let table = RestoreOptions { jobs: 1, ..of(&["orders"]) };
    killed(&saved, &server, &table);
    assert_eq!(server.psql("shop", "SELECT to_regclass('orders') IS NULL"), "f");
    restore(&saved, &server, "shop", &table).unwrap();
    assert_eq!(server.psql("shop", "SELECT count(*) FROM orders"), "5000");
    assert_eq!(server.psql("shop", left), "");

    server.psql("shop", "TRUNCATE orders");
    let rows = RestoreOptions { data_only: true, jobs: 1, ..of(&["orders"]) };
    killed(&saved, &server, &rows);
    restore(&saved, &server, "shop", &RestoreOptions { overwrite: true, ..rows }).unwrap();
    assert_eq!(server.psql("shop", "SELECT count(*) FROM orders"), "5000");
    assert_eq!(server.psql("shop", left), "");
}

#[test]
fn a_child_and_a_partition_come_back_as_tables_by_themselves() {
    let server = PgServer::start(Version::V15);
    server.create_database("shop");
    server.psql(
        "shop",
        "CREATE TABLE parent (a int NOT NULL, b text DEFAULT 'x'); CREATE TABLE child (c int) INHERITS (parent);
         INSERT INTO child SELECT i, 'y', i FROM generate_series(1, 10) i;
         CREATE TABLE list (k int, v text, PRIMARY KEY (k)) PARTITION BY HASH (k);
         CREATE TABLE list_0 PARTITION OF list FOR VALUES WITH (modulus 2, remainder 0);
         CREATE TABLE list_1 PARTITION OF list FOR VALUES WITH (modulus 2, remainder 1);
         INSERT INTO list SELECT i, 'z' FROM generate_series(1, 100) i;",
    );
    let saved = Saved::capture(&server, "shop");
    let of_one = |from: &str, to: &str| RestoreOptions { rename: Some((from.into(), to.into())), ..options() };
    restore(&saved, &server, "shop", &of_one("child", "child_then")).unwrap();
    assert_eq!(
        server.psql("shop", "SELECT (SELECT count(*) FROM parent), count(*), sum(a + c) FROM child_then"),
        "10|10|110"
    );
    assert_eq!(server.psql("shop", "SELECT b FROM child_then LIMIT 1"), "y");
    let count = server.psql("shop", "SELECT count(*) FROM list_0");
    restore(&saved, &server, "shop", &of_one("list_0", "list_then")).unwrap();
    assert_eq!(server.psql("shop", "SELECT count(*) FROM list_then"), count);
    assert_eq!(server.psql("shop", "SELECT count(*) FROM list"), "100");
    restore(&saved, &server, "alone", &of_one("list_0", "list_then")).unwrap();
    assert_eq!(server.psql("alone", "SELECT count(*) FROM list_then"), count);
}

#[test]
fn what_would_spoil_rows_alone_is_found_before() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    let customers = RestoreOptions { data_only: true, overwrite: true, ..of(&["customers"]) };
    let error = restore(&saved, &server, "shop", &customers).unwrap_err();
    assert!(error.message().contains("orders refers to it (constraint \"orders_customer_fkey\")"), "{error:?}");
    assert_eq!(server.psql("shop", "SELECT count(*) FROM customers"), "1000");
    assert_eq!(server.psql("shop", "SELECT count(*) FROM pg_namespace WHERE nspname ~ 'unfinished'"), "0");

    server.psql(
        "shop",
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER no BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION no();
         ALTER TABLE orders ENABLE ALWAYS TRIGGER no; DELETE FROM orders",
    );
    let orders = RestoreOptions { data_only: true, ..of(&["orders"]) };
    let error = restore(&saved, &server, "shop", &orders).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("DISABLE TRIGGER no") && hint.contains("ENABLE ALWAYS TRIGGER no"), "{hint}");
    server.psql("shop", "ALTER TABLE orders DISABLE TRIGGER no");
    restore(&saved, &server, "shop", &orders).unwrap();
    assert_eq!(server.psql("shop", "SELECT count(*) FROM orders"), "5000");
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
    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
    assert!(error.chain().contains("orders_customer_fkey"), "{error:?}");
    assert_eq!(server.psql("copy", "SELECT count(*) FROM orders"), "0");
}

#[test]
fn settings_of_the_target_do_not_change_what_rows_mean() {
    let server = PgServer::start(Version::V15);
    server.create_database("shop");
    server.psql("shop", "CREATE TABLE lists (a int[], b text[]); INSERT INTO lists VALUES ('{1,NULL}', '{NULL,x}')");
    let saved = Saved::capture(&server, "shop");
    server.psql("shop", "TRUNCATE lists; ALTER DATABASE shop SET array_nulls = off");
    restore(&saved, &server, "shop", &RestoreOptions { data_only: true, ..options() }).unwrap();
    assert_eq!(server.psql("shop", "SELECT a[2] IS NULL, b[1] IS NULL FROM lists"), "t|t");
}
