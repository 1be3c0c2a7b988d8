//! Plans, run against a server: one step after another and several at once, and compared by `pg_dump`.

use super::super::testing::{RICH, Server};
use super::super::tools::{DumpOptions, Program, dump_schema};
use super::*;
use lastgood_model::ErrorKind;
use std::collections::{BTreeMap, HashSet};
use std::process::Command;
use std::sync::{Condvar, Mutex};

fn rich(server: &Server) -> (Toc, Options) {
    server.create("rich");
    server.must("rich", RICH);
    let toc = dump_schema(&server.tools, &server.env("rich"), &DumpOptions::default(), &|| false).unwrap();
    let oids = server.must("rich", "SELECT oid FROM pg_class WHERE relkind = 'm' AND relispopulated;");
    let populated = Some(oids.lines().map(|line| line.parse().unwrap()).collect());
    (toc, Options { populated, ..Options::default() })
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Sends a step as one simple query, after the settings of the session.
fn send(server: &Server, database: &str, plan: &Plan, step: &Step) -> Result<(), String> {
    if step.sql.is_empty() {
        return Ok(());
    }
    let mut command: Command = server.command(Program::Psql, database);
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", &plan.session.join("\n"), "-c", &step.sql]);
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    if out.status.success() { Ok(()) } else { Err(format!("{}: {}\n{said}", step.what, step.sql)) }
}

fn in_order(server: &Server, database: &str, plan: &Plan, steps: &[Step]) {
    // One file: thousands of programs would take minutes.
    let mut script = plan.session.join("\n");
    for step in steps {
        script.push_str(&format!("\n-- {}\n{}\n", step.what.replace(|char: char| char.is_control(), " "), step.sql));
    }
    server.must(database, &script);
}

/// What a pool of workers does: whatever is ready and takes no lock that something running has.
fn at_once(server: &Server, database: &str, plan: &Plan, workers: usize) {
    struct State {
        done: HashSet<u32>,
        begun: HashSet<u32>,
        running: Vec<Step>,
        failed: Option<String>,
        most: usize,
    }
    let begin = State { done: HashSet::new(), begun: HashSet::new(), running: Vec::new(), failed: None, most: 0 };
    let (state, changed) = (Mutex::new(begin), Condvar::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut locked = state.lock().unwrap();
                while locked.done.len() < plan.post.len() && locked.failed.is_none() {
                    let ready = plan.post.iter().find(|step| {
                        !locked.begun.contains(&step.id)
                            && step.depends_on.iter().all(|id| locked.done.contains(id))
                            && locked.running.iter().all(|other| !step.conflicts_with(other))
                    });
                    let Some(step) = ready else {
                        assert!(!locked.running.is_empty(), "nothing runs and nothing can");
                        locked = changed.wait(locked).unwrap();
                        continue;
                    };
                    locked.begun.insert(step.id);
                    locked.running.push(step.clone());
                    locked.most = locked.most.max(locked.running.len());
                    drop(locked);
                    let result = send(server, database, plan, step);
                    locked = state.lock().unwrap();
                    locked.running.retain(|other| other.id != step.id);
                    locked.done.insert(step.id);
                    if let Err(said) = result {
                        locked.failed.get_or_insert(said);
                    }
                    changed.notify_all();
                }
                changed.notify_all();
            });
        }
    });
    let state = state.into_inner().unwrap();
    assert_eq!(state.failed, None);
    assert!(state.most > 1 || workers < 4);
}

fn load_rows(server: &Server, from: &str, to: &str, plan: &Plan) {
    let name = |target: &DataTarget| super::super::sql::quote_in(&target.schema, &target.name);
    for target in plan.data.iter().filter(|target| !target.is_sequence) {
        let source = format!(
            "SELECT string_agg(quote_ident(attname), ',' ORDER BY attnum), {0}::regclass FROM pg_attribute \
             WHERE attrelid = {0} AND attnum > 0 AND NOT attisdropped AND attgenerated = '';",
            target.oid
        );
        let found = server.must(from, &source);
        let Some((columns, source)) = found.rsplit_once('|') else { continue };
        // Names with line ends are told in two lines; those tables are empty.
        if columns.contains('\n') || source.contains('\n') || columns.is_empty() {
            continue;
        }
        let rows = server.must(from, &format!("COPY (SELECT {columns} FROM ONLY {source}) TO STDOUT;"));
        if !rows.is_empty() {
            server.must(to, &format!("COPY {} ({columns}) FROM STDIN;\n{rows}\n\\.\n", name(target)));
        }
    }
}

fn check_order(plan: &Plan) {
    let mut known = HashSet::new();
    for step in &plan.post {
        for before in &step.depends_on {
            assert!(known.contains(before), "{step:?} depends on a later step");
        }
        assert!(known.insert(step.id));
    }
}

#[test]
fn a_whole_database_restored_by_plan_is_described_alike() {
    let server = Server::start();
    let (toc, options) = rich(&server);
    let original = server.schema("rich");
    let plan = plan(&toc, &options).unwrap();
    check_order(&plan);
    assert_eq!(plan.notes, [""; 0]);
    for copy in ["one", "many"] {
        server.create(copy);
        in_order(&server, copy, &plan, &plan.pre);
        load_rows(&server, "rich", copy, &plan);
        if copy == "one" {
            in_order(&server, copy, &plan, &plan.post);
        } else {
            at_once(&server, copy, &plan, 4);
        }
        assert_eq!(server.schema(copy), original);
        let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid OR NOT indisready;";
        assert_eq!(server.must(copy, invalid), "0");
        let keys = "SELECT string_agg(conname, ' ' ORDER BY 1) FROM pg_constraint WHERE NOT convalidated;";
        assert_eq!(server.must(copy, keys), server.must("rich", keys));
        let rows = "SELECT (SELECT count(*) FROM app.customers), (SELECT count(*) FROM app.measures), \
                    (SELECT count(*) FROM app.z_first), (SELECT n FROM app.a_second);";
        assert_eq!(server.must(copy, rows), "50|60|2|2");
    }
    // Constraints were taken over from indexes where that is the same.
    let first = |what: &str| plan.post.iter().find(|step| step.what == what).unwrap_or_else(|| panic!("{what}"));
    assert!(first("INDEX of CONSTRAINT app.customers customers_pkey").sql.contains("INCLUDE"));
    assert!(first("CONSTRAINT app.customers unique \"mail\"").sql.contains("DEFERRABLE INITIALLY DEFERRED"));
    assert!(first("CONSTRAINT app.measures measures_pkey").sql.contains("PRIMARY KEY (\"at\""));
    assert!(first("CONSTRAINT app.orders orders_customer_during_excl").sql.contains("EXCLUDE"));
    assert!(first("FK CONSTRAINT app.orders orders_parent_fkey").sql.contains("NOT VALID"));
    assert!(!first("FK CONSTRAINT app.measures measures_customer_fkey").sql.contains("NOT VALID"));
    assert_eq!(plan.post.last().map(|step| step.sql.as_str()), Some(""));
    let trigger = plan.post.iter().position(|step| step.what == "EVENT TRIGGER guard").unwrap();
    let refresh = plan.post.iter().rposition(|step| step.what.starts_with("REFRESH")).unwrap();
    let grant = plan.post.iter().rposition(|step| step.what.starts_with("ACL")).unwrap();
    assert!(grant < refresh && refresh < trigger);
    // Two indexes of one table at once, but nothing beside what locks it.
    let (one, two) = (first("INDEX app.customers_name_idx"), first("INDEX app.customers_tags_idx"));
    assert!(!one.conflicts_with(two) && one.weight.is_some() && !one.data.is_empty());
    assert!(one.conflicts_with(first("CONSTRAINT app.customers customers_pkey")));
}

#[test]
fn one_table_comes_with_all_that_is_part_of_it_and_notes_on_the_rest() {
    let server = Server::start();
    let (toc, options) = rich(&server);
    let options = Options {
        tables: patterns(&["app.orders"]),
        existing_schemas: BTreeSet::from(["public".to_owned()]),
        ..options
    };
    let plan = plan(&toc, &options).unwrap();
    let whats: Vec<&str> = plan.pre.iter().map(|step| step.what.as_str()).collect();
    assert_eq!(
        whats,
        [
            "SCHEMA app",
            "TABLE app.orders",
            "SEQUENCE app.orders_id_seq",
            "SEQUENCE OWNED BY app.orders_id_seq",
            "DEFAULT app.orders id",
        ]
    );
    let whats: Vec<&str> =
        plan.post.iter().map(|step| step.what.as_str()).filter(|what| *what != "everything before this").collect();
    assert_eq!(
        whats,
        [
            "CONSTRAINT app.orders orders_customer_during_excl",
            "INDEX of CONSTRAINT app.orders orders_pkey",
            "CONSTRAINT app.orders orders_pkey",
            "settings of CONSTRAINT app.orders orders_pkey",
            "RULE app.orders no_delete",
            "COMMENT app.RULE \"no_delete\" ON \"orders\"",
            "TRIGGER app.orders touch orders",
            "COMMENT app.TRIGGER \"touch orders\" ON \"orders\"",
            "FK CONSTRAINT app.orders orders_parent_fkey",
            "VALIDATE FK CONSTRAINT app.orders orders_parent_fkey",
            "ROW SECURITY app.orders",
            "POLICY app.orders own orders",
            "COMMENT app.POLICY \"own orders\" ON \"orders\"",
            "ACL app.TABLE \"orders\"",
        ]
    );
    let notes = plan.notes.join("\n");
    for note in [
        "FK CONSTRAINT app.orders orders_customer_fkey is left out: TABLE app.customers is not selected",
        "PUBLICATION TABLE app.chosen orders is left out: PUBLICATION chosen is not selected",
        "DOMAIN app.positive must be there: TABLE app.orders needs it and it is not selected",
        "SEQUENCE app.free_seq must be there",
        "FUNCTION app.touch \"it\"() must be there",
    ] {
        assert!(notes.contains(note), "{note}\n{notes}");
    }
    let data: Vec<_> = plan.data.iter().map(|target| (target.name.as_str(), target.is_sequence)).collect();
    assert_eq!(data, [("orders", false), ("orders_id_seq", true)]);
    // The target has what the notes ask for, and the table is gone.
    server.must("postgres", "CREATE DATABASE part TEMPLATE rich;");
    server.must("part", "DROP EVENT TRIGGER guard; DROP TABLE app.orders CASCADE;");
    let plan = super::plan(&toc, &Options { existing_schemas: BTreeSet::from(["app".to_owned()]), ..options }).unwrap();
    in_order(&server, "part", &plan, &plan.pre);
    load_rows(&server, "rich", "part", &plan);
    at_once(&server, "part", &plan, 2);
    assert_eq!(server.must("part", "SELECT count(*) FROM app.orders;"), "20");
}

#[test]
fn one_table_brings_what_it_needs_into_an_empty_database() {
    let server = Server::start();
    let (toc, options) = rich(&server);
    let extensions = toc.entries.iter().filter(|entry| entry.desc == "EXTENSION").map(|entry| entry.tag.clone());
    let options = Options {
        tables: patterns(&["app.orders"]),
        existing_schemas: BTreeSet::from(["public".to_owned()]),
        brings_needs: Some(extensions.collect()),
        ..options
    };
    let plan = super::plan(&toc, &options).unwrap();
    let notes = plan.notes.join("\n");
    for note in [
        "DOMAIN app.positive comes with it",
        "SEQUENCE app.free_seq comes with it",
        "FUNCTION app.touch \"it\"() comes with it",
        "FK CONSTRAINT app.orders orders_customer_fkey is left out: TABLE app.customers is not selected",
        "POLICY app.orders own orders is left out: TABLE app.customers is not selected",
        "EXTENSION btree_gist comes with it",
    ] {
        assert!(notes.contains(note), "{note}\n{notes}");
    }
    assert!(!notes.contains("must be there"), "{notes}");
    server.must("postgres", "CREATE DATABASE part TEMPLATE template0;");
    in_order(&server, "part", &plan, &plan.pre);
    load_rows(&server, "rich", "part", &plan);
    at_once(&server, "part", &plan, 2);
    assert_eq!(server.must("part", "SELECT count(*) FROM app.orders;"), "20");
    assert_eq!(server.must("part", "SELECT count(*) FROM pg_class WHERE relname = 'customers';"), "0");
}

#[test]
fn a_table_is_restored_beside_itself_under_another_name() {
    let server = Server::start();
    let (toc, options) = rich(&server);
    let existing_schemas = BTreeSet::from(["app".to_owned(), "public".to_owned()]);
    let options = Options { existing_schemas, ..options };
    let before = server.schema("rich");
    server.must("rich", "DROP EVENT TRIGGER guard;");
    let restore = |table: &str, schema: Option<&str>, name: &str| {
        let rename = Some(Rename { schema: schema.map(str::to_owned), name: name.into() });
        let plan = plan(&toc, &Options { tables: patterns(&[table]), rename, ..options.clone() }).unwrap();
        check_order(&plan);
        in_order(&server, "rich", &plan, &plan.pre);
        load_rows(&server, "rich", "rich", &plan);
        in_order(&server, "rich", &plan, &plan.post);
        plan
    };
    for (table, schema, name) in [
        ("app.orders", None, "orders \"old\""),
        ("app.customers", Some("saved"), "customers"),
        ("app.measures", None, "measures_then"),
    ] {
        restore(table, schema, name);
        let (old, new) =
            (table.strip_prefix("app.").unwrap(), super::super::sql::quote_in(schema.unwrap_or("app"), name));
        let count = |table: &str| server.must("rich", &format!("SELECT count(*) FROM {table};"));
        assert_eq!(count(table), count(&new));
        let facts = |table: &str| {
            server.must("rich", &format!("SELECT (SELECT count(*) FROM pg_index WHERE indrelid = c.oid AND indisvalid),
                (SELECT count(*) FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal),
                (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid), (SELECT count(*) FROM pg_statistic_ext WHERE stxrelid = c.oid),
                (SELECT count(*) FROM pg_inherits WHERE inhparent = c.oid), (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(relacl) a), obj_description(oid), relowner, relrowsecurity
                FROM pg_class c WHERE oid = '{}'::regclass;", table.replace('\'', "''")))
        };
        assert_eq!(facts(table), facts(&new), "{old}");
    }
    // Its sequence is its own.
    let default = "SELECT pg_get_serial_sequence('app.\"orders \"\"old\"\"\"', 'id');";
    assert_eq!(server.must("rich", default), "app.\"orders \"\"old\"\"_id_seq\"");
    assert_eq!(server.must("rich", "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'lastgood%';"), "0");
    // Nothing else has changed.
    server
        .must("rich", "DROP TABLE app.\"orders \"\"old\"\"\", saved.customers, app.measures_then; DROP SCHEMA saved;");
    server.must(
        "rich",
        "CREATE EVENT TRIGGER guard ON ddl_command_end EXECUTE FUNCTION app.no_ddl();
        COMMENT ON EVENT TRIGGER guard IS 'must come last';",
    );
    assert_eq!(server.schema("rich"), before);
}

#[test]
fn schemas_exclusions_and_halves_are_chosen() {
    let server = Server::start();
    let (toc, options) = rich(&server);
    let with = |change: &dyn Fn(&mut Options)| {
        let mut options = options.clone();
        change(&mut options);
        let plan = plan(&toc, &options).unwrap();
        check_order(&plan);
        plan
    };
    let restored = |name: &str, plan: &Plan| {
        server.create(name);
        in_order(&server, name, plan, &plan.pre);
        in_order(&server, name, plan, &plan.post);
        server.schema(name)
    };
    let all =
        |plan: &Plan| plan.pre.iter().chain(&plan.post).map(|step| step.what.clone()).collect::<Vec<_>>().join("\n");

    // What needs an excluded table goes with it: views, foreign keys, a view in two steps, partitions.
    let plan = with(&|options| {
        options.exclude = patterns(&["app.customers", "app.measures"]);
        options.what = What::Schema;
    });
    assert!(plan.data.is_empty());
    let text = restored("without", &plan);
    for gone in ["customers", "measures", "z_first", "app.rich", "app.between"] {
        assert!(!text.contains(&format!("TABLE {gone}")) && !text.contains(&format!("VIEW {gone}")), "{gone}");
    }
    assert!(text.contains("CREATE TABLE app.orders") && plan.notes.join("\n").contains("VIEW app.rich is left out"));
    server.must("without", "DROP SUBSCRIPTION listening;");

    let plan = with(&|options| {
        options.schemas = patterns(&["public"]);
        options.no_owner = true;
        options.no_acl = true;
    });
    let text = restored("public_only", &plan);
    assert!(text.contains("CREATE TABLE public.child") && !text.contains("app.") && !text.contains("GRANT"), "{text}");
    assert!(!all(&plan).contains("ACL"));

    let plan = with(&|options| options.what = What::Data);
    assert!(plan.pre.is_empty() && plan.post.is_empty() && plan.data.len() > 10);
    let oids: BTreeMap<&str, u32> = plan.data.iter().map(|target| (target.name.as_str(), target.oid)).collect();
    assert!(oids.contains_key("measures_2025") && !oids.contains_key("measures") && oids.contains_key("free_seq"));

    let plan = with(&|options| options.existing_schemas = BTreeSet::from(["app".to_owned(), "public".to_owned()]));
    assert!(!all(&plan).contains("\nSCHEMA app\n") && all(&plan).contains("ACL SCHEMA \"app\""));

    // A sequence alone does not know its table.
    let plan = with(&|options| options.tables = patterns(&["app.orders_id_seq"]));
    assert_eq!(all(&plan), "SCHEMA app\nSEQUENCE app.orders_id_seq");
    assert_eq!(plan.notes, ["SEQUENCE OWNED BY app.orders_id_seq is left out: TABLE app.orders is not selected"]);

    // A partitioned table brings its partitions; a partition alone is a table.
    let plan = with(&|options| options.tables = patterns(&["measures"]));
    let text = all(&plan);
    assert!(
        text.contains("TABLE app.measures_2024_eu") && text.contains("INDEX ATTACH app.measures_2025_pkey"),
        "{text}"
    );
    let plan = with(&|options| options.tables = patterns(&["measures_2025"]));
    let text = all(&plan);
    assert!(!text.contains("ATTACH") && !plan.notes.join("\n").contains("must be there"), "{text}\n{:?}", plan.notes);

    let fails = |change: &dyn Fn(&mut Options)| {
        let mut options = options.clone();
        change(&mut options);
        super::plan(&toc, &options).unwrap_err().kind()
    };
    let rename = Some(Rename { schema: None, name: "x".into() });
    assert_eq!(fails(&|options| options.tables = patterns(&["app.nothing"])), ErrorKind::Absent);
    assert_eq!(fails(&|options| options.exclude = patterns(&["nothing"])), ErrorKind::Absent);
    assert_eq!(fails(&|options| options.schemas = patterns(&["nothing"])), ErrorKind::Absent);
    assert_eq!(fails(&|options| options.rename = rename.clone()), ErrorKind::Invalid);
    assert_eq!(
        fails(&|options| {
            options.rename = rename.clone();
            options.tables = patterns(&["app.orders", "app.cache"]);
        }),
        ErrorKind::Invalid
    );
}

#[test]
fn locks_conflict_as_the_manual_says() {
    use LockMode::{AccessExclusive, AccessShare, RowShare, Share, ShareRowExclusive, ShareUpdateExclusive};
    let modes = [AccessShare, RowShare, ShareUpdateExclusive, Share, ShareRowExclusive, AccessExclusive];
    let table = [
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 1, 0, 1, 1],
        [0, 0, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1],
    ];
    for (row, mine) in modes.iter().enumerate() {
        for (column, theirs) in modes.iter().enumerate() {
            assert_eq!(mine.conflicts_with(*theirs), table[row][column] == 1, "{mine:?} {theirs:?}");
        }
    }
}

#[test]
fn a_table_of_contents_with_loops_still_becomes_a_plan() {
    use super::super::toc::{Entry, Section};
    let entry = |id: u32, desc: &str, needs: &[u32]| Entry {
        dump_id: id,
        oid: id,
        desc: desc.into(),
        tag: format!("t{id} x"),
        defn: Some("SELECT 1;".into()),
        section: Section::PostData,
        dependencies: needs.to_vec(),
        ..Entry::default()
    };
    let descs =
        ["TABLE", "INDEX", "CONSTRAINT", "FK CONSTRAINT", "COMMENT", "INDEX ATTACH", "TRIGGER", "MATERIALIZED VIEW"];
    let entries =
        (1..=40).map(|id| entry(id, descs[id as usize % descs.len()], &[41 - id, id, id % 7 + 1, 99])).collect();
    let toc = Toc {
        text: Text::Utf8,
        archive: 14,
        server_version: String::new(),
        dump_version: String::new(),
        database: String::new(),
        entries,
    };
    check_order(&plan(&toc, &Options::default()).unwrap());
    check_order(
        &plan(&toc, &Options { tables: patterns(&["t*"]), exclude: patterns(&["t8*"]), ..Options::default() }).unwrap(),
    );
}
