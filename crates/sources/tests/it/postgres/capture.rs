//! What is captured, held against what psql says.

use super::server::Server;
use super::{SETTINGS, capture, rows, rows_of, table, tables};
use lastgood_model::ErrorKind;
use lastgood_model::Monitor;
use lastgood_model::source::Source;
use lastgood_sources::postgres::layout::{TableKind, TableRecord};
use lastgood_sources::postgres::rows::RowDigest;
use lastgood_sources::postgres::{Globals, PostgresSource};
use lastgood_testkit::memory_sink::MemorySink;
use lastgood_testkit::postgres::Version;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

const EDGES: &str = r#"
CREATE TABLE empty (a int);
CREATE TABLE one_page (a int, b text);
INSERT INTO one_page VALUES (1, NULL), (2, ''), (3, E'a\tb\nc\\d\\N\r'), (4, '\.'), (5, 'é💾');
CREATE TABLE one_slab (a int, b text);
INSERT INTO one_slab SELECT g, repeat('x', 1900) FROM generate_series(1, 8) g;
CREATE TABLE three_slabs (a int, b text);
INSERT INTO three_slabs SELECT g, repeat('y', 1900) FROM generate_series(1, 21) g;
CREATE TABLE deleted (a int, b text);
INSERT INTO deleted SELECT g, repeat('z', 1500) FROM generate_series(1, 60) g;
DELETE FROM deleted WHERE a BETWEEN 10 AND 30 OR a > 50;
UPDATE deleted SET b = 'short' WHERE a % 7 = 0;
CREATE TABLE all_deleted AS SELECT g FROM generate_series(1, 5000) g;
DELETE FROM all_deleted;
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES; INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE generated (a int, b int GENERATED ALWAYS AS (a * 2) STORED, c int GENERATED ALWAYS AS IDENTITY);
INSERT INTO generated (a) SELECT g FROM generate_series(1, 3000) g;
CREATE TABLE only_generated (a int GENERATED ALWAYS AS (7) STORED);
INSERT INTO only_generated DEFAULT VALUES;
CREATE TABLE dropped (a int, gone text, b int);
INSERT INTO dropped SELECT g, 'secret', -g FROM generate_series(1, 100) g;
ALTER TABLE dropped DROP COLUMN gone;
ALTER TABLE dropped ADD COLUMN late text DEFAULT 'later';
CREATE SCHEMA "we""ird.s p;--%";
CREATE TABLE "we""ird.s p;--%"."t'\ $1 né
w" ("Select" int, "a""b" text, "c,d" float8);
INSERT INTO "we""ird.s p;--%"."t'\ $1 né
w" VALUES (1, 'x', 'NaN'), (2, 'y', 0.1::float8 + 0.2);
CREATE TABLE parent (a int); CREATE TABLE child (b int) INHERITS (parent);
INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 3);
CREATE TABLE parted (k int, v text) PARTITION BY RANGE (k);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (10) TO (20);
INSERT INTO parted SELECT g, g::text FROM generate_series(0, 19) g;
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE TABLE moods (m mood) PARTITION BY HASH (m);
CREATE TABLE moods_all PARTITION OF moods FOR VALUES WITH (MODULUS 1, REMAINDER 0);
INSERT INTO moods VALUES ('sad'), ('glad');
CREATE TABLE long_values (a int, b text, c bytea); ALTER TABLE long_values ALTER b SET STORAGE EXTERNAL;
INSERT INTO long_values SELECT g, repeat(md5(g::text), 50000), decode(repeat('00ff5c0a', 1000), 'hex')
FROM generate_series(1, 5) g;
CREATE TABLE times (t timestamptz, d date, i interval, n numeric, j jsonb, x int[]);
INSERT INTO times VALUES ('2026-03-29 02:30:00 Europe/Berlin', 'infinity', '1 mon -3 days', 'NaN', '{"a":[1,null]}', '{1,NULL}');
CREATE UNLOGGED TABLE unlogged (a int); INSERT INTO unlogged VALUES (1);
CREATE MATERIALIZED VIEW filled AS SELECT a FROM one_page; CREATE MATERIALIZED VIEW bare AS SELECT 1 AS a WITH NO DATA;
CREATE VIEW seen AS SELECT a FROM one_page;
CREATE SEQUENCE untouched; SELECT setval('untouched', 42, false);
CREATE SEQUENCE "Down ""x" INCREMENT -5; SELECT nextval('"Down ""x"'), nextval('"Down ""x"');
SELECT lo_from_bytea(90001, decode(repeat('0102ff', 3000), 'hex')), lo_from_bytea(90002, ''), lo_create(90003);
SELECT lo_put(90003, 1000000, 'far away');
CREATE ROLE reader; GRANT SELECT ON LARGE OBJECT 90001 TO reader; COMMENT ON LARGE OBJECT 90002 IS 'it''s \ empty';
ALTER DATABASE edges SET DateStyle = 'German'; ALTER DATABASE edges SET IntervalStyle = 'iso_8601';
ALTER DATABASE edges SET extra_float_digits = -5; ALTER DATABASE edges SET bytea_output = 'escape';
ALTER DATABASE edges SET TimeZone = 'Asia/Kathmandu'; ALTER DATABASE edges SET statement_timeout = '50ms';
"#;

/// As the settings of the database above would not have it.
const PLAIN: &str =
    "SET DateStyle = ISO; SET IntervalStyle = postgres; SET bytea_output = hex; SET statement_timeout = 0;\n";

fn edges(version: Version) -> Server {
    let server = Server::start_version(version);
    server.psql("postgres", "CREATE DATABASE edges");
    server.psql("edges", EDGES);
    server
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What psql says a table's rows are.
fn rows_by_psql(server: &Server, database: &str, table: &TableRecord) -> Vec<u8> {
    let columns: Vec<String> = table.columns.iter().map(|column| quote(&column.name)).collect();
    let sql =
        format!("{SETTINGS}{PLAIN}COPY (SELECT {} FROM ONLY {}) TO STDOUT;", columns.join(", "), table.sql_name());
    server.psql_bytes(database, sql.as_bytes())
}

/// A straightforward twin of the digest.
fn twin(rows: &[u8]) -> RowDigest {
    let mut lines: Vec<&[u8]> = rows.split(|b| *b == b'\n').collect();
    assert_eq!(lines.pop(), Some(&b""[..]));
    let sum = lines.iter().fold(0u128, |sum, line| sum.wrapping_add(twox_hash::XxHash3_128::oneshot(line)));
    RowDigest { rows: lines.len() as u64, digest: sum }
}

#[test]
fn every_kind_of_table_is_captured_as_psql_reads_it() {
    Version::ALL.into_iter().for_each(check_every_kind);
}

fn check_every_kind(version: Version) {
    let server = edges(version);
    let (sink, facts) = capture(&rows_of(&server, "edges"));
    let mut parts = BTreeMap::new();
    let all = tables(&sink, "edges");
    for table in all.iter().filter(|table| table.kind == TableKind::Table) {
        let captured = rows(&sink, "edges", table);
        assert!(captured == rows_by_psql(&server, "edges", table), "rows of {}", table.name);
        assert_eq!(table.total.unwrap(), twin(&captured), "digest of {}", table.name);
        assert_eq!(table.bytes(), captured.len() as u64);
        parts.insert(table.name.as_str(), table.parts.len());
    }
    for (name, count) in [("empty", 1), ("one_slab", 1), ("three_slabs", 3), ("no_columns", 1), ("child", 1)] {
        assert_eq!(parts[name], count, "parts of {name}");
    }
    assert!(parts["deleted"] > 3 && parts["all_deleted"] > 3 && parts["generated"] > 3);
    let of = |name: &str| all.iter().find(|table| table.name == name).unwrap();
    let columns = |name: &str| of(name).columns.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
    assert_eq!(columns("generated"), ["a", "c"]);
    assert_eq!(columns("dropped"), ["a", "b", "late"]);
    assert_eq!(of("no_columns").total.unwrap().rows, 2);
    assert_eq!(of("only_generated").total.unwrap().rows, 1);
    assert_eq!(of("parent").total.unwrap().rows, 1);
    assert_eq!((of("parted").kind, of("parted").total), (TableKind::Partitioned, None));
    assert_eq!(of("parted_low").root, Some(("public".into(), "parted".into())));
    assert!(of("moods_all").load_through_root && !of("parted_low").load_through_root && of("unlogged").unlogged);
    assert!(of("filled").populated && !of("bare").populated);
    assert!(all.iter().all(|table| table.name != "seen"));

    let database = &facts.databases[0];
    assert_eq!((database.encoding.as_str(), facts.globals), ("UTF8", Globals::LeftOut));
    let kept = all.iter().filter_map(|table| table.total);
    assert_eq!(database.rows, kept.map(|total| total.rows).sum::<u64>());
    assert_eq!(database.extensions["plpgsql"], "1.0");
    assert_eq!(server.psql("edges", &format!("SELECT '{}'::pg_lsn <= pg_current_wal_lsn()", database.lsn)), "t");
    for path in sink.stream_paths() {
        let stream = sink.stream_at(&path).unwrap();
        assert_eq!((stream.spec.mode, stream.verdict.evidence.is_empty()), (0o600, false), "{path}");
    }
}

#[test]
fn a_capture_repeated_without_changes_gives_the_same_bytes() {
    let server = edges(Version::V15);
    let mut source = rows_of(&server, "edges");
    source.options.data_only = false;
    let (first, _) = capture(&source);
    source.options.jobs = std::num::NonZeroUsize::new(1);
    let (second, _) = capture(&source);
    assert_eq!(first.stream_paths(), second.stream_paths());
    for path in first.stream_paths() {
        assert!(first.stream_at(&path).unwrap().content == second.stream_at(&path).unwrap().content, "{path} differs");
    }
}

#[test]
fn psql_alone_loads_what_was_captured() {
    Version::ALL.into_iter().for_each(check_psql);
}

fn check_psql(version: Version) {
    let server = edges(version);
    server.psql("edges", "ALTER DATABASE edges RESET ALL");
    let mut source = rows_of(&server, "edges");
    source.options.data_only = false;
    let (sink, facts) = capture(&source);
    assert_eq!(facts.globals, Globals::WithPasswords);
    assert!(String::from_utf8(sink.stream_at("globals.sql").unwrap().content).unwrap().contains("CREATE ROLE reader"));
    let content = |path: &str| sink.stream_at(&format!("edges/{path}")).unwrap_or_else(|| panic!("no {path}")).content;

    server.psql("postgres", "CREATE DATABASE again TEMPLATE template0");
    server.psql_bytes("again", &content("pre-data.sql"));
    for table in tables(&sink, "edges").iter().filter(|table| table.kind == TableKind::Table) {
        let mut script = content(&format!("data/{}/copy.sql", table.oid));
        script.extend(rows(&sink, "edges", table));
        script.extend(b"\\.\n");
        server.psql_bytes("again", &script);
    }
    for file in ["post-data.sql", "sequences.sql", "large-objects.sql"] {
        server.psql_bytes("again", &content(file));
    }
    let mut objects = b"CREATE TEMP TABLE o (oid oid, at int8, data bytea);\nCOPY o FROM STDIN;\n".to_vec();
    objects.extend(content("large-objects.copy"));
    objects.extend(b"\\.\nSELECT count(lo_put(oid, at, data)) FROM o;\n");
    server.psql_bytes("again", &objects);

    for table in tables(&sink, "edges").iter().filter(|table| table.kind == TableKind::Table) {
        let (was, is) = (rows_by_psql(&server, "edges", table), rows_by_psql(&server, "again", table));
        assert!(was == is, "rows of {}", table.name);
    }
    for sql in [
        "SELECT last_value, is_called FROM untouched",
        "SELECT last_value, is_called FROM \"Down \"\"x\"",
        "SELECT last_value, is_called FROM generated_c_seq",
        "SELECT a FROM filled ORDER BY a",
        "SELECT relispopulated FROM pg_class WHERE relname = 'bare'",
        "SELECT oid, md5(lo_get(oid)), lomacl, obj_description(oid, 'pg_largeobject') FROM pg_largeobject_metadata ORDER BY 1",
        "SELECT loid, count(*) FROM pg_largeobject GROUP BY 1 ORDER BY 1",
    ] {
        assert_eq!(server.psql("again", sql), server.psql("edges", sql), "{sql}");
    }
    assert_eq!(facts.databases[0].large_objects.unwrap().objects, 3);
}

#[test]
fn what_an_extension_marks_as_data_is_captured_with_its_condition() {
    let server = Server::start();
    // As pg_extension_config_dump() would do from within a script.
    server.psql(
        "postgres",
        "CREATE TABLE config (a int, is_own bool); INSERT INTO config SELECT g, g % 2 = 0 FROM generate_series(1, 10) g;
         CREATE TABLE inner_thing (a int); INSERT INTO inner_thing VALUES (1); CREATE SEQUENCE inner_sequence;
         ALTER EXTENSION plpgsql ADD TABLE config; ALTER EXTENSION plpgsql ADD TABLE inner_thing;
         ALTER EXTENSION plpgsql ADD SEQUENCE inner_sequence;
         UPDATE pg_extension SET extconfig = ARRAY['config'::regclass]::oid[], extcondition = ARRAY['WHERE is_own']",
    );
    let (sink, facts) = capture(&rows_of(&server, "postgres"));
    let record = table(&sink, "postgres", "config");
    assert_eq!(rows(&sink, "postgres", &record), b"2\tt\n4\tt\n6\tt\n8\tt\n10\tt\n");
    assert_eq!((record.extension.as_deref(), record.condition.as_deref()), (Some("plpgsql"), Some("WHERE is_own")));
    assert_eq!((tables(&sink, "postgres").len(), facts.databases[0].sequences), (1, 0));
}

#[test]
fn databases_of_other_encodings_and_hostile_names_are_kept_in_their_own_bytes() {
    let server = Server::start();
    for name in ["a/b .é", "latin"] {
        let encoding = if name == "latin" { "LATIN1" } else { "UTF8" };
        server.psql(
            "postgres",
            &format!(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'",
                quote(name)
            ),
        );
        server.psql(
            name,
            "CREATE TABLE \"caf\u{e9}\" (\"\u{e9}\" text); INSERT INTO \"caf\u{e9}\" VALUES ('\u{e9}\u{e8}')",
        );
    }
    let mut source = rows_of(&server, "postgres");
    source.databases = None;
    source.options.data_only = false;
    let (sink, facts) = capture(&source);
    let names: Vec<&str> = facts.databases.iter().map(|database| database.name.as_str()).collect();
    assert_eq!(names, ["a/b .é", "latin", "postgres"]);
    assert_eq!(facts.databases[0].folder, "a%2Fb%20.%C3%A9");
    assert_eq!(rows(&sink, "latin", &table(&sink, "latin", "café")), b"\xe9\xe8\n");
    assert_eq!(rows(&sink, "a/b .é", &table(&sink, "a/b .é", "café")), "éè\n".as_bytes());
    let statement = table(&sink, "latin", "café").copy_from();
    assert!(statement.contains("ENCODING 'LATIN1'"), "{statement}");
    assert_eq!(facts.position().unwrap(), facts.databases[0].lsn);
    // Twice the same name is once; a name that is not there is an error that tells which are.
    source.databases = Some(vec!["latin".into(), "latin".into()]);
    assert_eq!(capture(&source).1.databases.len(), 1);
    source.databases = Some(vec!["lost".into()]);
    let error = source.capture(&MemorySink::new(), &Monitor::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Absent);
    assert!(error.hint().unwrap().contains("latin"));
}

#[test]
fn money_only_moves_while_it_is_captured() {
    let server = Server::start();
    server.psql(
        "postgres",
        "CREATE TABLE accounts (id int PRIMARY KEY, amount int8, filler text);
         INSERT INTO accounts SELECT g, 1000, repeat('f', 500) FROM generate_series(1, 2000) g;
         CREATE TABLE savings (id int PRIMARY KEY, amount int8); INSERT INTO savings SELECT g, 0 FROM generate_series(1, 500) g",
    );
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 1..=2u64 {
            let (server, is_over) = (&server, &is_over);
            scope.spawn(move || {
                let mut client = server.client("postgres");
                let mut random = lastgood_testkit::rng::Rng::new(seed);
                while !is_over.load(Ordering::SeqCst) {
                    let (from, to, sum) = (random.below(2000) + 1, random.below(500) + 1, random.below(100));
                    client
                        .batch(&format!(
                            "BEGIN; UPDATE accounts SET amount = amount - {sum} WHERE id = {from}; \
                             UPDATE savings SET amount = amount + {sum} WHERE id = {to}; COMMIT"
                        ))
                        .unwrap();
                }
            });
        }
        let mut source = rows_of(&server, "postgres");
        source.options.slab_pages = 1;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..10 {
            let (sink, _) = capture(&source);
            let sum = |name: &str| -> i64 {
                let content = String::from_utf8(rows(&sink, "postgres", &table(&sink, "postgres", name))).unwrap();
                content.lines().map(|line| line.split('\t').nth(1).unwrap().parse::<i64>().unwrap()).sum()
            };
            let (accounts, savings) = (sum("accounts"), sum("savings"));
            assert_eq!(accounts + savings, 2_000_000);
            seen.insert(savings);
        }
        is_over.store(true, Ordering::SeqCst);
        assert!(seen.len() > 1, "nobody wrote meanwhile");
    });
}

#[test]
fn patterns_choose_what_pg_dump_chooses() {
    let server = Server::start();
    server.psql(
        "postgres",
        "CREATE SCHEMA s; CREATE SCHEMA \"S 2\"; CREATE SCHEMA other;
         CREATE TABLE orders (a serial); CREATE TABLE orders_old (a int); CREATE TABLE \"Orders\" (a int);
         CREATE TABLE s.orders (a int); CREATE TABLE \"S 2\".\"a.b\" (a int); CREATE TABLE other.x$y (a int);
         CREATE TABLE other.parted (a int) PARTITION BY LIST (a); CREATE TABLE s.part PARTITION OF other.parted DEFAULT;
         ALTER ROLE postgres SET search_path = s, public",
    );
    type List = &'static [&'static str];
    let cases: &[(List, List, List, List)] = &[
        (&[], &[], &[], &[]),
        (&["orders"], &[], &[], &[]),
        (&["Orders*"], &[], &[], &[]),
        (&["\"Orders\""], &[], &[], &[]),
        (&["*.orders"], &[], &[], &[]),
        (&["public.orders*"], &["*_old"], &[], &[]),
        (&["\"S 2\".\"a.b\"", "other.x$y"], &[], &[], &[]),
        (&["other.parted", "s.part"], &[], &["s"], &[]),
        (&[], &["orders"], &[], &[]),
        (&[], &[], &["s*"], &[]),
        (&[], &[], &["\"S 2\"", "other"], &[]),
        (&[], &["s.ord*"], &[], &["public"]),
        (&["o????s"], &[], &[], &[]),
        (&["(orders|part)"], &[], &[], &[]),
    ];
    for (tables_in, tables_out, schemas_in, schemas_out) in cases {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let mut source = rows_of(&server, "postgres");
        source.options.tables = strings(tables_in);
        source.options.exclude_tables = strings(tables_out);
        source.options.schemas = strings(schemas_in);
        source.options.exclude_schemas = strings(schemas_out);
        let (sink, _) = capture(&source);
        let mut ours: Vec<String> =
            tables(&sink, "postgres").iter().map(|table| format!("{} {}", table.schema, table.name)).collect();
        let sequences = String::from_utf8(sink.stream_at("postgres/sequences.sql").unwrap().content).unwrap();
        ours.extend(sequences.contains("orders_a_seq").then(|| "public orders_a_seq".to_owned()));
        ours.sort();

        let mut dump = server.client_program("pg_dump", "postgres");
        dump.args(["-Fc", "-s"]);
        for (flag, patterns) in [("-t", tables_in), ("-T", tables_out), ("-n", schemas_in), ("-N", schemas_out)] {
            for pattern in *patterns {
                dump.args([flag, pattern]);
            }
        }
        let archive = tempfile::NamedTempFile::new().unwrap();
        assert!(dump.arg("-f").arg(archive.path()).status().unwrap().success());
        let list = Command::new(server.program("pg_restore")).arg("-l").arg(archive.path()).output().unwrap().stdout;
        let mut theirs: Vec<String> = String::from_utf8(list)
            .unwrap()
            .lines()
            .filter_map(|line| {
                let rest = line.split_once("TABLE ").or_else(|| line.split_once("SEQUENCE "))?.1;
                let is_whole = [" TABLE ", " SEQUENCE "].iter().any(|kind| line.contains(&format!("{kind}{rest}")));
                let skip = ["ATTACH", "OWNED BY", "DATA "].iter().any(|word| line.contains(word));
                (is_whole && !skip && !line.starts_with(';'))
                    .then(|| rest.strip_suffix(" postgres").unwrap().to_owned())
            })
            .collect();
        theirs.sort();
        assert_eq!(ours, theirs, "-t {tables_in:?} -T {tables_out:?} -n {schemas_in:?} -N {schemas_out:?}");
    }
    let mut source = rows_of(&server, "postgres");
    source.options.tables = vec!["orders".into(), "misspelt".into()];
    let error = source.capture(&MemorySink::new(), &Monitor::new()).unwrap_err();
    assert!(error.chain().contains("no table is like \"misspelt\""), "{error:?}");
    server.psql(
        "postgres",
        "CREATE TABLE visits (id int) PARTITION BY RANGE (id); CREATE TABLE visits_low PARTITION OF visits FOR VALUES FROM (0) TO (9);
         INSERT INTO visits VALUES (1)",
    );
    source.options.tables = vec!["visits".into()];
    let error = source.capture(&MemorySink::new(), &Monitor::new()).unwrap_err();
    assert!(
        error.chain().contains("visits is partitioned") && error.hint().unwrap().contains("partitions"),
        "{error:?}"
    );
    assert!(source.probe().unwrap().iter().any(|finding| finding.message.contains("visits is partitioned")));
    source.options.tables = vec!["visits*".into()];
    let sink = MemorySink::new();
    source.capture(&sink, &Monitor::new()).unwrap();
    assert_eq!(rows(&sink, "postgres", &table(&sink, "postgres", "visits_low")), b"1\n");
}

#[test]
fn only_the_schema_or_only_the_data() {
    let server = edges(Version::V15);
    let mut source = PostgresSource::new("db", server.info("edges"));
    source.options.schema_only = true;
    source.options.bin = Some(server.bin());
    let (sink, facts) = capture(&source);
    let paths = sink.stream_paths();
    assert_eq!(
        paths,
        [
            "edges/database.sql",
            "edges/post-data.sql",
            "edges/pre-data.sql",
            "edges/tables.json",
            "edges/toc.json",
            "globals.sql"
        ]
    );
    assert!(tables(&sink, "edges").iter().all(|table| table.total.is_none() && table.parts.is_empty()));
    assert_eq!(facts.databases[0].rows, 0);
    let (sink, _) = capture(&rows_of(&server, "edges"));
    assert!(sink.stream_paths().iter().all(|path| !path.ends_with("toc.json") && path != "globals.sql"));
    source.options.data_only = true;
    assert_eq!(source.capture(&sink, &Monitor::new()).unwrap_err().kind(), ErrorKind::Invalid);
}
