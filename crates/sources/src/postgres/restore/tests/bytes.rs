//! Databases without an encoding, whose names and text are any bytes.

use super::*;
use lastgood_testkit::postgres::Version;

/// Makes a database without an encoding. In `sql`, `{ä}` stands for a byte that is no UTF-8.
fn make(server: &PgServer, name: &str, sql: &str) {
    server.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"));
    for statement in sql.split(";;").map(str::trim).filter(|statement| !statement.is_empty()) {
        server.psql(
            name,
            &format!(
                "DO $do$ BEGIN EXECUTE replace($sql${statement}$sql$, '{{ä}}', convert_from('\\xe4', 'SQL_ASCII')); END $do$"
            ),
        );
    }
}

const OBJECTS: &str = "
    CREATE TABLE \"t{ä}\" (id serial PRIMARY KEY, \"sp{ä}lte\" text DEFAULT 'caf{ä}') ;;
    INSERT INTO \"t{ä}\" (\"sp{ä}lte\") SELECT 'z{ä}hl ' || n FROM generate_series(1, 500) n ;;
    CREATE TABLE \"é\" (a int REFERENCES \"t{ä}\", b text) ;;
    INSERT INTO \"é\" VALUES (7, 'é {ä}'), (NULL, '') ;;
    CREATE INDEX \"i{ä}\" ON \"t{ä}\" (\"sp{ä}lte\") ;;
    CREATE SEQUENCE \"s{ä}\" ;; SELECT setval('\"s{ä}\"', 42) ;;
    CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT ''{ä} é''' ;;
    COMMENT ON FUNCTION f() IS 'na{ä}ve é' ;;
    CREATE VIEW \"v{ä}\" AS SELECT \"sp{ä}lte\" FROM \"t{ä}\" ;;
    SELECT lo_from_bytea(70001, 'large') ;; COMMENT ON LARGE OBJECT 70001 IS 'gro{ä}'";

const FACTS: &str = "SELECT encode(relname::bytea, 'hex'), relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1;
    SELECT encode(f()::bytea, 'hex'), encode(obj_description('f()'::regprocedure)::bytea, 'hex'),
      encode(obj_description(70001, 'pg_largeobject')::bytea, 'hex')";

#[test]
fn names_and_text_of_any_bytes_come_back() {
    let server = PgServer::start(Version::V15);
    make(&server, "ascii", OBJECTS);
    let saved = Saved::capture(&server, "ascii");
    let report = restore(&saved, &server, "anew", &options()).unwrap();
    assert_eq!((report.tables, report.rows), (2, 502));
    assert_eq!(server.psql("anew", FACTS), server.psql("ascii", FACTS));
    assert_eq!(mismatches(&saved, &server, "anew", VerifyOptions::default()), "");
    // Where there is an encoding such text has no place.
    server.create_database("other");
    let error = restore(&saved, &server, "other", &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.hint().unwrap().contains("new database"), "{error:?}");
    // Only the rows, into tables that are there.
    let rows = Saved::capture_with(&server, "ascii", Options { data_only: true, ..Options::default() });
    server.psql("anew", "DO $$ BEGIN EXECUTE (SELECT format('TRUNCATE %s', string_agg(oid::regclass::text, ',')) FROM pg_class
                         WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace); PERFORM lo_unlink(70001); END $$");
    restore(&rows, &server, "anew", &RestoreOptions { data_only: true, ..options() }).unwrap();
    assert_eq!(mismatches(&rows, &server, "anew", VerifyOptions::default()), "");
}

#[test]
fn names_in_utf8_beside_text_that_is_not_come_back() {
    let server = PgServer::start(Version::V15);
    make(
        &server,
        "ascii",
        "CREATE TABLE \"é\" (\"ü\" text) ;; INSERT INTO \"é\" VALUES ('ö') ;; CREATE SEQUENCE \"ß\" ;;
         COMMENT ON TABLE \"é\" IS 'na{ä}ve'",
    );
    make(&server, "plain", "CREATE TABLE \"é\" (\"ü\" text) ;; INSERT INTO \"é\" VALUES ('{ä}')");
    for (name, text) in [("ascii", "bytes"), ("plain", "utf8")] {
        let saved = Saved::capture(&server, name);
        let toc = String::from_utf8(saved.files[&format!("{name}/toc.json")].clone()).unwrap();
        assert_eq!(toc.contains("\"text\":\"bytes\""), text == "bytes");
        let anew = format!("{name}_anew");
        restore(&saved, &server, &anew, &options()).unwrap();
        assert_eq!(mismatches(&saved, &server, &anew, VerifyOptions::default()), "");
        let look =
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY relname COLLATE \"C\"";
        assert_eq!(server.psql(&anew, look), server.psql(name, look));
    }
}
