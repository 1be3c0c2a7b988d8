//! Whole databases.

use super::*;
use lastgood_testkit::postgres::{Version, differences};

fn everything(from: Version, to: Version) {
    let source = PgServer::start(from);
    source.load_everything("all of it");
    let saved = Saved::capture(&source, "all of it");
    let server = PgServer::start(to);
    server.prepare_for_everything();
    server.psql("postgres", "CREATE TABLESPACE \"a \"\"tablespace\"\"\" LOCATION ''");
    let wishes = RestoreOptions { roles: true, ..options() };
    let plan = plan(&saved, &info(&server, "all of it"), &wishes).unwrap();
    assert_eq!(plan.summary().obstacles, [], "{:#?}", plan.summary());
    let report = plan.execute(&saved, &Monitor::new()).unwrap();
    assert!(report.tables > 20 && report.rows > 50, "{report:?}");
    assert_eq!(mismatches(&saved, &server, "all of it", VerifyOptions::default()), "");
    if from == to {
        assert_eq!(differences(&source.pg_dump_text("all of it"), &server.pg_dump_text("all of it")), "");
    }
}

#[test]
fn everything_comes_back_as_it_was_in_15() {
    everything(Version::V15, Version::V15);
}

#[test]
fn everything_comes_back_as_it_was_in_18() {
    everything(Version::V18, Version::V18);
}

#[test]
fn everything_of_15_comes_back_in_18() {
    everything(Version::V15, Version::V18);
}

#[test]
fn a_database_is_made_used_or_refused_and_its_own_properties_come_back() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    server.psql("postgres", "ALTER DATABASE shop SET work_mem = '7MB'; REVOKE CONNECT ON DATABASE shop FROM PUBLIC;");
    let saved_again = Saved::capture(&server, "shop");
    restore(&saved_again, &server, "made", &options()).unwrap();
    assert_eq!(mismatches(&saved, &server, "made", VerifyOptions::default()), "");
    assert_eq!(server.psql("made", "SHOW work_mem"), "7MB");
    assert_eq!(comment(&server, "made"), "our shop");
    let acl = "SELECT datacl::text FROM pg_database WHERE datname = 'made'";
    assert!(!server.psql("postgres", acl).contains("=Tc/"), "PUBLIC may not connect");

    server.create_database("used");
    server.psql("used", "COMMENT ON DATABASE used IS 'mine'");
    let report = restore(&saved, &server, "used", &options()).unwrap();
    assert_eq!((report.tables, report.rows), (2, 6000));
    assert_eq!(mismatches(&saved, &server, "used", VerifyOptions::default()), "");
    assert_eq!(comment(&server, "used"), "mine");
    // The next value is a new one.
    assert_eq!(server.psql("used", "INSERT INTO customers (name) VALUES ('new') RETURNING id"), "1001");
}

#[test]
fn a_giant_table_is_loaded_by_several_and_small_ones_are_frozen() {
    let server = PgServer::start(Version::V15);
    server.create_database("shop");
    server.psql(
        "shop",
        "CREATE TABLE giant (id int PRIMARY KEY, t text); ALTER TABLE giant ALTER t SET STORAGE plain;
         INSERT INTO giant SELECT i, repeat(md5(i::text), 60) FROM generate_series(1, 42000) i;
         CREATE TABLE small (id int); INSERT INTO small SELECT generate_series(1, 100);",
    );
    let saved = Saved::capture(&server, "shop");
    restore(&saved, &server, "copy", &options()).unwrap();
    assert_eq!(mismatches(&saved, &server, "copy", VerifyOptions::default()), "");
    server.psql("copy", "CREATE EXTENSION pg_visibility");
    let frozen =
        |table: &str| server.psql("copy", &format!("SELECT bool_and(all_frozen) FROM pg_visibility_map('{table}')"));
    assert_eq!((frozen("small").as_str(), frozen("giant").as_str()), ("t", "f"));
}

#[test]
fn only_definitions_come_back_when_only_they_are_wanted() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    restore(&saved, &server, "copy", &RestoreOptions { schema_only: true, ..options() }).unwrap();
    assert_eq!(server.psql("copy", "SELECT (SELECT count(*) FROM orders), nextval('customers_id_seq')"), "0|1");
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let schema = |database: &str| {
        let text = server.client("pg_dump", database).arg("--schema-only").output().unwrap().stdout;
        let text = String::from_utf8(text).unwrap();
        lines(text).into_iter().filter(|line| !line.contains("restrict ")).collect::<Vec<_>>()
    };
    assert_eq!(schema("copy"), schema("shop"));
    // Then the rows, into what is there.
    restore(&saved, &server, "copy", &RestoreOptions { data_only: true, ..options() }).unwrap();
    assert_eq!(mismatches(&saved, &server, "copy", VerifyOptions::default()), "");
}

#[test]
fn whatever_is_not_as_it_was_saved_is_found() {
    let server = PgServer::start(Version::V15);
    server.create_database("shop");
    server.psql("shop", SHOP);
    server.psql("shop", "SELECT lo_from_bytea(4711, repeat('x', 5000)::bytea), lo_create(4712)");
    let saved = Saved::capture(&server, "shop");
    assert_eq!(mismatches(&saved, &server, "shop", VerifyOptions::default()), "");
    let changes = [
        ("UPDATE orders SET note = 'y' WHERE id = 17", "table \"public\".\"orders\": 5000 rows"),
        ("SELECT setval('customers_id_seq', 999)", "sequence \"public\".\"customers_id_seq\": 1000 / 999"),
        ("SELECT lo_put(4711, 4999, 'y')", "large object 4711: 5000 bytes"),
        ("SELECT lo_unlink(4712)", "large object 4712: 0 bytes with digest"),
        ("SELECT lo_create(4713)", "large object 4713: not there"),
        ("DROP INDEX orders_note", "INDEX public.orders_note"),
        ("CREATE TABLE more ()", "TABLE public.more: not there"),
        ("DROP VIEW rich; DROP TABLE orders", "table \"public\".\"orders\": 5000 rows / not there"),
    ];
    for (change, told) in changes {
        server.psql("shop", change);
        let found = mismatches(&saved, &server, "shop", VerifyOptions::default());
        assert!(found.contains(told), "{change}: {found}");
    }
    let rows_only = VerifyOptions { rows_only: true, ..VerifyOptions::default() };
    assert!(!mismatches(&saved, &server, "shop", rows_only).contains("INDEX"));
}

#[test]
fn large_objects_come_back_with_holes_owners_and_comments() {
    for version in Version::ALL {
        let server = PgServer::start(version);
        server.create_database("shop");
        server.psql(
            "shop",
            "CREATE ROLE keeper; SELECT lo_from_bytea(7, 'abc'), lo_put(lo_create(9), 3000000, 'end'), lo_create(11);
             ALTER LARGE OBJECT 7 OWNER TO keeper; GRANT SELECT ON LARGE OBJECT 9 TO keeper;
             COMMENT ON LARGE OBJECT 7 IS 'it''s; one'",
        );
        let saved = Saved::capture(&server, "shop");
        restore(&saved, &server, "copy", &options()).unwrap();
        assert_eq!(mismatches(&saved, &server, "copy", VerifyOptions::default()), "");
        let told = "SELECT pg_get_userbyid(lomowner), obj_description(oid, 'pg_largeobject'), md5(lo_get(oid)), \
                    (SELECT count(*) FROM pg_largeobject WHERE loid = m.oid), \
                    ARRAY(SELECT a::text FROM unnest(lomacl) a ORDER BY 1) \
                    FROM pg_largeobject_metadata m ORDER BY oid";
        assert_eq!(server.psql("copy", told), server.psql("shop", told));
    }
}

#[test]
fn event_triggers_see_nothing_of_the_restore_itself() {
    for version in Version::ALL {
        let server = PgServer::start(version);
        server.create_database("shop");
        server.psql(
            "shop",
            "SELECT lo_from_bytea(7, 'abc'), lo_from_bytea(8, 'def');
             CREATE TABLE audit (tag text); CREATE TABLE orders (id int PRIMARY KEY);
             CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM orders;
             CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO audit VALUES (tg_event || ' ' || tg_tag); END $$;
             CREATE EVENT TRIGGER a ON ddl_command_start EXECUTE FUNCTION note();
             CREATE EVENT TRIGGER b ON ddl_command_end EXECUTE FUNCTION note();
             CREATE EVENT TRIGGER c ON sql_drop EXECUTE FUNCTION note(); ALTER EVENT TRIGGER c ENABLE ALWAYS;",
        );
        // One that cannot run at all without a search path, as the restore has none.
        server.psql(
            "shop",
            "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no ddl here: %', tg_tag; END $$;
             CREATE EVENT TRIGGER d ON ddl_command_end EXECUTE FUNCTION refuse()",
        );
        let saved = Saved::capture(&server, "shop");
        let before = server.psql("shop", "SELECT count(*) FROM audit");
        for jobs in [1, 4] {
            let name = format!("copy{jobs}");
            restore(&saved, &server, &name, &RestoreOptions { jobs, ..options() }).unwrap();
            assert_eq!(server.psql(&name, "SELECT count(*) FROM audit"), before);
            assert_eq!(mismatches(&saved, &server, &name, VerifyOptions::default()), "");
        }
    }
}

#[test]
fn rows_that_have_no_text_come_back_by_their_bytes() {
    let server = PgServer::start(Version::V18);
    server.create_database("shop");
    // 540 MB have 1080 million digits, and no server makes a text of more than 1 GiB. The one of 135 MB is suspected only.
    let value = |pieces: u32| format!("convert_to(repeat('0123456789abcdef', {pieces}), 'UTF8')");
    let (long, short) = (value(33_750_000), value(8_450_000));
    server.psql(
        "shop",
        &format!(
            "CREATE TABLE docs (id int, b bytea); ALTER TABLE docs ALTER b SET STORAGE external;
             INSERT INTO docs SELECT i, '\\x0a' FROM generate_series(1, 300) i;
             INSERT INTO docs VALUES (301, {short}), (302, {long}), (303, NULL), (304, '\\x0b0c');
             INSERT INTO docs SELECT i, '\\x0a' FROM generate_series(305, 900) i;
             DELETE FROM docs WHERE id = 7;"
        ),
    );
    let saved = Saved::capture(&server, "shop");
    let record = saved.table("docs");
    let lengths: Vec<u64> = record.parts.iter().flat_map(|part| &part.long_rows).map(|row| row.bytes).collect();
    assert_eq!((lengths.len(), record.total.unwrap().rows), (1, 899));
    assert!(lengths.iter().all(|bytes| (540_000_000..540_000_100).contains(bytes)), "{lengths:?}");
    restore(&saved, &server, "copy", &options()).unwrap();
    assert_eq!(mismatches(&saved, &server, "copy", VerifyOptions::default()), "");
    let look = "SELECT sum(id), sum(length(b)), string_agg(md5(b), '' ORDER BY id) FILTER (WHERE id > 300) FROM docs";
    assert_eq!(server.psql("copy", look), server.psql("shop", look));
}
