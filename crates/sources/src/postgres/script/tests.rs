//! Scripts, judged by `psql`, a server, and `pg_dump` of what came out.

use super::super::testing::{RICH, Server};
use super::super::toc::{Section, Text};
use super::super::tools::{DumpOptions, dump_schema};
use super::*;
use lastgood_model::ErrorKind;

fn dump(server: &Server, database: &str, options: &DumpOptions) -> Toc {
    dump_schema(&server.tools, &server.env(database), options, &|| false).unwrap()
}

fn pre(toc: &Toc) -> String {
    let mut out = Vec::new();
    assert_eq!(write_pre_data(toc, &mut out).unwrap(), [""; 0]);
    String::from_utf8(out).unwrap()
}

fn post(toc: &Toc, populated: Option<&BTreeSet<u32>>) -> String {
    let mut out = Vec::new();
    assert_eq!(write_post_data(toc, populated, &mut out).unwrap(), [""; 0]);
    String::from_utf8(out).unwrap()
}

/// OIDs of the views that hold rows.
fn populated(server: &Server, database: &str) -> BTreeSet<u32> {
    let oids = server.must(database, "SELECT oid FROM pg_class WHERE relkind = 'm' AND relispopulated;");
    oids.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn both_scripts_make_a_database_that_pg_dump_describes_alike() {
    let server = Server::start();
    server.create("rich");
    server.must("rich", RICH);
    let original = server.schema("rich");
    for (copy, quote_all) in [("quoted", true), ("plain", false)] {
        let toc = dump(&server, "rich", &DumpOptions { quote_all, ..DumpOptions::default() });
        server.create(copy);
        server.must(copy, &pre(&toc));
        server.must(copy, "INSERT INTO app.measures VALUES ('2024-05-01', 'eu', 1, 1), ('2025-05-01', 'us', 2, 2);");
        server.must(copy, &post(&toc, Some(&populated(&server, "rich"))));
        assert_eq!(server.schema(copy), original);
        let filled = "SELECT count(*), (SELECT n FROM app.a_second) FROM app.z_first;";
        assert_eq!(server.must(copy, filled), "2|2");
        assert!(server.load(copy, b"SELECT * FROM app.never;").unwrap_err().contains("has not been populated"));
        // There was one subscription of this name; each database has its own.
        server.must(copy, "DROP SUBSCRIPTION listening;");
    }
}

#[test]
fn a_restore_by_somebody_who_is_no_superuser_stops_at_nothing() {
    let server = Server::start();
    server.create("small");
    server.must(
        "small",
        "CREATE ROLE plain LOGIN; CREATE ROLE boss LOGIN;
        CREATE EXTENSION citext; CREATE TABLE public.t (a public.citext PRIMARY KEY); ALTER TABLE t OWNER TO plain;
        CREATE MATERIALIZED VIEW v AS SELECT 1 AS x; ALTER MATERIALIZED VIEW v OWNER TO plain;",
    );
    let toc = dump(&server, "small", &DumpOptions::default());
    server.create("copy");
    // The extension is there and belongs to somebody else; the schema too.
    server.must("copy", "CREATE EXTENSION citext; GRANT CREATE ON SCHEMA public TO plain;");
    for script in [pre(&toc), post(&toc, None)] {
        let script = format!("SET SESSION AUTHORIZATION plain;\n{script}");
        server.must("copy", &script);
    }
    assert_eq!(server.must("copy", "SELECT count(*) FROM v;"), "1");
}

#[test]
fn the_database_itself_can_be_made_again() {
    let server = Server::start();
    server.must(
        "postgres",
        "CREATE ROLE boss; CREATE DATABASE \"odd \"\"db\" OWNER boss;
        COMMENT ON DATABASE \"odd \"\"db\" IS 'mine'; ALTER DATABASE \"odd \"\"db\" SET work_mem = '7MB';
        REVOKE ALL ON DATABASE \"odd \"\"db\" FROM PUBLIC;",
    );
    let toc = dump(&server, "odd \"db", &DumpOptions::default());
    server.must("postgres", "DROP DATABASE \"odd \"\"db\";");
    let mut script = Vec::new();
    write_database(&toc, &mut script).unwrap();
    server.must("postgres", &String::from_utf8(script).unwrap());
    let facts = "SELECT pg_get_userbyid(datdba), datacl, shobj_description(d.oid, 'pg_database'), setconfig \
                 FROM pg_database d JOIN pg_db_role_setting s ON s.setdatabase = d.oid;";
    assert_eq!(server.must("postgres", facts), "boss|{boss=CTc/boss}|mine|{work_mem=7MB}");
    assert!(!pre(&toc).contains("work_mem") && !post(&toc, None).contains("mine"));
}

#[test]
fn text_that_no_encoding_explains_is_restored_byte_by_byte() {
    let server = Server::start();
    server.must(
        "postgres",
        "CREATE DATABASE ascii TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C';
        CREATE DATABASE copy TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C';",
    );
    let sql = b"CREATE TABLE \"t\xe4\" (a text DEFAULT 'caf\xe9'); COMMENT ON TABLE \"t\xe4\" IS 'na\xefve \xc3\xa9';";
    server.load("ascii", sql).unwrap();
    let toc = dump(&server, "ascii", &DumpOptions { utf8: false, ..DumpOptions::default() });
    assert_eq!(toc.text, Text::Bytes);
    let mut script = Vec::new();
    write_pre_data(&toc, &mut script).unwrap();
    server.load("copy", &script).unwrap();
    let facts = "SELECT encode(relname::bytea, 'hex'), encode(obj_description(oid)::bytea, 'hex') FROM pg_class \
                 WHERE relname LIKE 't_' AND relkind = 'r';";
    assert_eq!(server.must("copy", facts), "74e4|6e61ef766520c3a9");
}

fn toc(entries: Vec<Entry>) -> Toc {
    Toc {
        text: Text::Utf8,
        archive: 14,
        server_version: "15.1\n\\! echo".into(),
        dump_version: "15.1".into(),
        database: "d\r\n\\! echo".into(),
        entries,
    }
}

fn entry(dump_id: u32, desc: &str, tag: &str, defn: &str) -> Entry {
    Entry {
        dump_id,
        desc: desc.into(),
        tag: tag.into(),
        defn: Some(defn.into()),
        section: Section::PreData,
        ..Entry::default()
    }
}

#[test]
fn a_hostile_definition_is_refused_and_a_hostile_name_stays_a_comment() {
    let write = |defn: &str| {
        let mut out = Vec::new();
        write_pre_data(&toc(vec![entry(1, "TABLE", "x\n\\! touch /tmp/x", defn)]), &mut out).map(|_| out)
    };
    let out = String::from_utf8(write("CREATE TABLE x ()").unwrap()).unwrap();
    for line in out.lines() {
        assert!(!line.contains("\\!") || line.starts_with("-- "), "{line}");
    }
    assert!(out.ends_with("CREATE TABLE x ()\n;\n\n"), "{out}");
    for defn in ["SELECT 1;\n\\! touch /tmp/x\n", "SELECT 'a", "SELECT $a$ $b$;", "/* ", "SELECT \"", "x \\g |sh"] {
        assert_eq!(write(defn).unwrap_err().kind(), ErrorKind::Corrupt, "{defn}");
    }
    write("COMMENT ON x IS 'a\\! b'; -- \\! c").unwrap();
}

#[test]
fn archives_of_old_servers_get_what_they_expect() {
    let in_schema = |entry: Entry, schema: &str| Entry { namespace: Some(schema.into()), ..entry };
    let text = pre(&toc(vec![
        entry(1, "ENCODING", "ENCODING", "SET client_encoding = 'LATIN1';\n"),
        entry(2, "STDSTRINGS", "STDSTRINGS", "SET standard_conforming_strings = 'off';\n"),
        entry(3, "SCHEMA", "public", "CREATE SCHEMA public;"),
        in_schema(entry(4, "TABLE", "a", "CREATE TABLE a ();"), "Odd"),
        in_schema(entry(5, "TABLE", "b", "CREATE TABLE b (x text DEFAULT 'it\\'s; \\\\');"), "Odd"),
        in_schema(entry(6, "CAST", "c", "CREATE CAST c;"), "pg_catalog"),
        entry(7, "TABLE DATA", "a", "x"),
    ]));
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("--") && !line.is_empty()).collect();
    assert_eq!(
        kept[4..],
        [
            "SET client_encoding = 'LATIN1';",
            "SET standard_conforming_strings = off;",
            "SET check_function_bodies = false;",
            "SET xmloption = content;",
            "SET client_min_messages = warning;",
            "SET escape_string_warning = off;",
            "SET row_security = off;",
            "CREATE SCHEMA IF NOT EXISTS public;",
            "SET search_path = \"Odd\", pg_catalog;",
            "CREATE TABLE a ();",
            "CREATE TABLE b (x text DEFAULT 'it\\'s; \\\\');",
            "SET search_path = pg_catalog;",
            "CREATE CAST c;",
        ]
    );
}

#[test]
fn what_newer_servers_add_finds_its_place() {
    let mut entries = vec![
        Entry {
            table_am: Some("heap".into()),
            relkind: Some('p'),
            ..entry(1, "TABLE", "parts", "CREATE TABLE parts ();")
        },
        Entry {
            table_am: Some("heap".into()),
            relkind: Some('r'),
            ..entry(2, "TABLE", "rows", "CREATE TABLE rows ();")
        },
        entry(3, "BLOB METADATA", "BLOB METADATA 1..2", "1\n2\n"),
        entry(4, "STATISTICS DATA", "rows", "SELECT 'statistics';"),
        entry(5, "ACL", "LARGE OBJECTS 1..2", "GRANT"),
        entry(6, "INDEX", "i", "CREATE INDEX i;"),
        entry(7, "EVENT TRIGGER", "e", "CREATE EVENT TRIGGER e;"),
        entry(8, "ACL", "TABLE rows", "GRANT SELECT ON rows;"),
        Entry {
            owner: Some("me".into()),
            drop_stmt: Some("DROP".into()),
            ..entry(9, "NOVELTY", "n", "CREATE NOVELTY n;")
        },
    ];
    for (index, section) in [(2, Section::Data), (3, Section::Data), (5, Section::PostData), (6, Section::PostData)] {
        entries[index].section = section;
    }
    let mut toc = toc(entries);
    let mut out = Vec::new();
    let remarks = write_pre_data(&toc, &mut out).unwrap();
    assert_eq!(remarks, ["the owner of NOVELTY n was not kept: unknown kind"]);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("CREATE TABLE parts ();\nALTER TABLE \"parts\" SET ACCESS METHOD \"heap\";"), "{text}");
    assert!(text.contains("SET default_table_access_method = \"heap\";\n-- TABLE rows"), "{text}");
    toc.entries.pop();
    let text = post(&toc, None);
    let order = ["CREATE INDEX i;", "GRANT SELECT ON rows;", "SELECT 'statistics';", "CREATE EVENT TRIGGER e;"];
    let at: Vec<usize> = order.iter().map(|part| text.find(part).unwrap()).collect();
    assert!(at.is_sorted() && !text.contains("LARGE"), "{text}");
}

#[test]
fn materialized_views_are_filled_after_those_they_read_from_even_through_late_views() {
    let needs =
        |entry: Entry, dependencies: &[u32]| Entry { dependencies: dependencies.to_vec(), oid: entry.dump_id, ..entry };
    let view = |id: u32, name: &str, ids: &[u32]| needs(entry(id, "MATERIALIZED VIEW", name, "CREATE"), ids);
    let mut toc = toc(vec![
        entry(1, "VIEW", "late", "CREATE VIEW late;"),
        view(2, "reader", &[1]),
        view(3, "source", &[]),
        view(4, "top", &[2, 3]),
        view(5, "round", &[6]),
        view(6, "about", &[5]),
        needs(entry(7, "RULE", "late _RETURN", "CREATE OR REPLACE VIEW late;"), &[1, 3]),
    ]);
    let order = |toc: &Toc, populated: Option<&BTreeSet<u32>>| {
        refresh::refreshes(toc, populated).into_iter().map(|one| (one.index, one.after)).collect::<Vec<_>>()
    };
    assert_eq!(order(&toc, None), [(2, vec![]), (1, vec![2]), (3, vec![1, 2]), (5, vec![]), (4, vec![5])]);
    assert_eq!(order(&toc, Some(&BTreeSet::from([2, 4]))), [(1, vec![]), (3, vec![1])]);
    toc.entries.push(entry(8, "MATERIALIZED VIEW DATA", "source", "REFRESH MATERIALIZED VIEW source;"));
    assert_eq!(order(&toc, None), [(2, vec![])]);
}
