//! A PostgreSQL database as a user meets it: protected, proven, looked at, and brought back.

use crate::support::{Ran, Shop, run};
use lastgood_testkit::postgres::{PASSWORD, PgServer, SUPERUSER, Version};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server with the database `orders`, and an application beside it.
struct Trade {
    server: PgServer,
    shop: Shop,
}

impl Trade {
    fn new() -> Self {
        let server = PgServer::start(Version::V15);
        server.create_database("orders");
        server.psql(
            "orders",
            "CREATE TABLE item (id bigserial PRIMARY KEY, what text NOT NULL);
             CREATE TABLE sold (item bigint NOT NULL REFERENCES item, count int CHECK (count > 0));
             CREATE INDEX sold_item ON sold (item);
             CREATE VIEW best AS SELECT item, sum(count) FROM sold GROUP BY item;
             INSERT INTO item (what) SELECT 'lamp ' || n FROM generate_series(1, 500) n;
             INSERT INTO sold SELECT 1 + n % 500, 1 FROM generate_series(1, 900) n;",
        );
        Self { server, shop: Shop::new() }
    }

    /// The same, protected.
    fn protected() -> Self {
        let trade = Self::new();
        trade.run(["protect", &trade.server.socket_url("orders")]).ok();
        trade
    }

    fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        self.shop.command(arguments)
    }

    /// Runs the program; whatever it says, it never says the password.
    #[track_caller]
    fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Ran {
        let ran = run(&mut self.command(arguments));
        for text in [&ran.stdout, &ran.stderr] {
            assert!(!text.contains(PASSWORD) && !text.contains("a%20password"), "{text}");
        }
        ran
    }

    fn databases(&self) -> Vec<String> {
        let all = self.server.psql("postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1");
        all.lines().map(str::to_owned).collect()
    }

    fn count(&self, database: &str, table: &str) -> String {
        self.server.psql(database, &format!("SELECT count(*) FROM {table}"))
    }
}

#[test]
fn protect_takes_a_server_and_a_folder_together_and_proves_both() {
    let trade = Trade::new();
    let url = trade.server.url("orders");
    trade.run(["protect", &url, "./uploads", "./shop.db"]).ok().says(&[
        "database orders: 2 tables, 1,400 rows",
        "Proven: ",
        "database orders of orders in lastgood_proof_",
        "database shop opened",
        "orders.url (written now, for its owner alone)",
        "lastgood restore latest --source orders --to",
    ]);
    let config = fs_err::read_to_string(trade.shop.path("lastgood.toml")).unwrap();
    assert!(config.contains("[source.orders]\nkind = \"postgres\"\nurl = { file = \"./orders.url\" }\n"), "{config}");
    let kept = trade.shop.path("orders.url");
    assert_eq!(fs_err::read_to_string(&kept).unwrap(), format!("{url}\n"));
    assert_eq!(fs_err::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(trade.databases(), ["orders", "postgres"], "the scratch database is gone");
    trade.run(["protect", &url, "./uploads"]).ok().says(&["is part of source orders already", "Proven: "]);
    assert_eq!(fs_err::read_to_string(trade.shop.path("lastgood.toml")).unwrap(), config, "nothing to add");
    trade.run(["config", "show"]).ok().says(&["url.file = \"./orders.url\""]);
    trade.run(["snapshots"]).ok().says(&["orders ok at 0/"]);
    let (code, taken) = trade.shop.json(["backup"]);
    assert_eq!(code, Some(0), "{taken}");
    let source = taken["sources"].as_array().unwrap().iter().find(|s| s["name"] == "orders").unwrap().clone();
    assert_eq!(source["facts"]["databases"][0]["rows"], 1400);
    assert!(source["position"].as_str().unwrap().contains('/'));
}

#[test]
fn a_first_run_that_cannot_work_leaves_nothing_behind() {
    let trade = Trade::new();
    let port = trade.server.port();
    let host = "127.0.0.1";
    for (url, code) in [
        (format!("postgres://{SUPERUSER}:wrong@{host}:{port}/orders"), 15),
        (trade.server.url("nowhere"), 14),
        (format!("postgres://{SUPERUSER}@{host}:1/orders"), 13),
        (format!("postgres://{SUPERUSER}@{host}:{port}/orders?colour=red"), 2),
    ] {
        let ran = trade.run(["protect", &url]).ends_with(code);
        assert!(code != 15 || ran.stderr.contains("next: correct the password of \"postgres\""), "{}", ran.stderr);
        assert!(!trade.shop.path("lastgood.toml").exists() && !trade.shop.path("lastgood.key").exists());
    }
    trade.shop.config("[source.db]\nkind = 'postgres'\nurl = 'postgres://u:hunter2@h/db'\n");
    let refused = trade.run(["config", "check"]).ends_with(2).says(&["must not hold a password itself", "{ env ="]);
    assert!(!refused.stderr.contains("hunter2"));
}

#[test]
fn where_no_scratch_database_can_be_made_the_proof_is_made_elsewhere_or_told_to_be_missing() {
    let trade = Trade::new();
    trade.server.psql("orders", "CREATE ROLE reader LOGIN PASSWORD 'only to read'; GRANT pg_read_all_data TO reader;");
    let url = format!("postgres://reader:only%20to%20read@127.0.0.1:{}/orders", trade.server.port());
    trade.run(["protect", &url]).ok().says(&["in a server made for it in"]);
    // With PostgreSQL's clients alone there is no server to be made.
    let bin = trade.shop.beside("bin");
    fs_err::create_dir(&bin).unwrap();
    for program in ["pg_dump", "pg_dumpall"] {
        fs_err::copy(trade.server.bin(program), bin.join(program)).unwrap();
    }
    let config = fs_err::read_to_string(trade.shop.path("lastgood.toml")).unwrap();
    trade.shop.config(&config.replace("kind = \"postgres\"\n", &format!("kind = \"postgres\"\nbin = {bin:?}\n")));
    trade.run(["protect", &url]).ends_with(3).says(&[
        "NOT PROVEN: orders: database orders",
        "may not create databases",
        "only PostgreSQL's clients are installed",
    ]);
    assert_eq!(trade.databases(), ["orders", "postgres"]);
}

/// The proof begun, and waiting in a scratch database for as long as the role has `lastgood.slow`.
fn slow_proof(trade: &Trade) -> Child {
    trade.server.psql(
        "orders",
        "CREATE OR REPLACE FUNCTION slow(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
           IF current_database() LIKE 'lastgood_proof%' AND current_setting('lastgood.slow', true) = 'on' THEN
             PERFORM pg_sleep(60);
           END IF;
           RETURN $1; END $$;
         CREATE INDEX IF NOT EXISTS slowly ON item (slow(id));
         ALTER ROLE postgres SET lastgood.slow = 'on';",
    );
    let mut command = trade.command(["protect", &trade.server.socket_url("orders")]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    let waits =
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname LIKE 'lastgood_proof%' AND wait_event = 'PgSleep'";
    while trade.server.psql("postgres", waits) != "t" {
        assert!(begun.elapsed() < Duration::from_secs(60), "the proof never came to its index");
        std::thread::sleep(Duration::from_millis(50));
    }
    trade.server.psql("postgres", "ALTER ROLE postgres RESET lastgood.slow");
    child
}

#[test]
fn a_proof_that_is_stopped_drops_its_database_and_the_next_sweeps_what_a_killed_one_left() {
    let trade = Trade::new();
    let child = slow_proof(&trade);
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(trade.databases(), ["orders", "postgres"]);

    let mut child = slow_proof(&trade);
    child.kill().unwrap();
    child.wait().unwrap();
    let left: Vec<String> = trade.databases().into_iter().filter(|name| name.starts_with("lastgood_proof_")).collect();
    assert_eq!(left.len(), 1, "nobody could drop it");
    // The server notices only when it has something to say that nobody is there any more.
    trade.server.psql(
        "postgres",
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname LIKE 'lastgood_proof%' \
         OR application_name LIKE 'lastgood_proof%'",
    );
    trade.run(["protect", &trade.server.socket_url("orders")]).ok().says(&[&left[0], "was dropped", "Proven: "]);
    assert_eq!(trade.databases(), ["orders", "postgres"]);
}

#[test]
fn a_database_is_restored_whole_in_part_and_beside_itself() {
    let trade = Trade::protected();
    let to = |name: &str| trade.server.socket_url(name);
    let restore = |more: &[&str]| {
        let words = ["restore", "latest", "--source", "orders"];
        trade.run(words.into_iter().chain(more.iter().copied()))
    };
    restore(&["--to", &to("anew"), "--dry-run"]).ok().says(&["orders  ->  anew", "which is made", "1,400 rows"]);
    assert_eq!(trade.databases(), ["orders", "postgres"], "a plan changes nothing");
    restore(&["--to", &to("anew")]).ok().says(&["database anew: ", "2 tables, 1,400 rows"]);
    assert_eq!(trade.server.pg_dump_text("anew"), trade.server.pg_dump_text("orders"));

    restore(&["--to", &to("anew")]).ends_with(4);
    trade.server.psql("anew", "DELETE FROM sold");
    restore(&["--to", &to("anew"), "--overwrite"]).ends_with(4).says(&["taken away", "--yes"]);
    assert_eq!(trade.count("anew", "sold"), "0");
    restore(&["--to", &to("anew"), "--overwrite", "--yes"]).ok();
    assert_eq!(trade.count("anew", "sold"), "900");

    trade.server.psql("orders", "DELETE FROM sold WHERE item < 100");
    restore(&["--to", &to("orders"), "--table", "sold", "--as", "sold_before"]).ok();
    assert_eq!(trade.count("orders", "sold_before"), "900");
    assert_ne!(trade.count("orders", "sold"), "900", "the one that is there stays as it is");

    trade.server.psql("anew", "TRUNCATE sold");
    restore(&["--to", &to("anew"), "--table", "sold", "--data-only"]).ok();
    assert_eq!(trade.count("anew", "sold"), "900");

    // The URL names no database: it keeps its name.
    let other = PgServer::start(Version::V15);
    restore(&["--to", &other.socket_url("")]).ok();
    assert_eq!(other.psql("orders", "SELECT count(*) FROM item"), "500");
    let (code, done) = trade.shop.json([
        "restore",
        "latest",
        "--source",
        "orders",
        "--to",
        &to("third"),
        "--schema-only",
        "--no-owner",
        "--no-acl",
    ]);
    assert_eq!((code, &done["type"]), (Some(0), &"lastgood.database-restore".into()), "{done}");
    assert_eq!(trade.count("third", "item"), "0");
    let (code, plan) = trade.shop.json(["restore", "latest", "--source", "orders", "--to", &to("third"), "--dry-run"]);
    assert_eq!((code, &plan["type"]), (Some(4), &"lastgood.database-restore-plan".into()), "{plan}");
    assert!(!plan["databases"][0]["obstacles"].as_array().unwrap().is_empty(), "{plan}");
}

#[test]
fn a_database_with_a_subscription_is_proven_and_nothing_of_the_proof_stays() {
    let trade = Trade::new();
    trade.server.psql(
        "orders",
        "CREATE SUBSCRIPTION far CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = 'far')",
    );
    trade.run(["protect", &trade.server.socket_url("orders")]).ok().says(&["Proven: ", "in lastgood_proof_"]);
    assert_eq!(trade.databases(), ["orders", "postgres"]);
}

#[test]
fn a_role_that_may_make_databases_proves_and_restores_its_own() {
    let trade = Trade::new();
    trade.server.psql("orders", "CREATE ROLE app LOGIN CREATEDB PASSWORD 'my own'; ALTER DATABASE orders OWNER TO app");
    for table in ["item", "sold"] {
        trade.server.psql("orders", &format!("ALTER TABLE {table} OWNER TO app"));
    }
    trade.server.psql("orders", "ALTER VIEW best OWNER TO app");
    let url = |name: &str| format!("postgres://app:my%20own@127.0.0.1:{}/{name}", trade.server.port());
    trade.run(["protect", &url("orders")]).says(&["Proven: ", "in lastgood_proof_"]);
    trade.run(["restore", "latest", "--source", "orders", "--to", &url("anew")]).says(&["database anew: "]);
    assert_eq!(trade.count("anew", "sold"), "900");
    assert_eq!(trade.databases(), ["anew", "orders", "postgres"]);
}

#[test]
fn one_database_that_fails_does_not_keep_others_from_being_restored() {
    let trade = Trade::new();
    trade.server.psql("orders", "SET session_replication_role = replica; INSERT INTO sold VALUES (100000, 1)");
    trade.server.create_database("stock");
    trade.server.psql("stock", "CREATE TABLE shelf AS SELECT 1 AS x");
    trade.run(["protect", &trade.server.socket_url("orders")]).ends_with(3);
    let config = fs_err::read_to_string(trade.shop.path("lastgood.toml")).unwrap();
    let both = "kind = \"postgres\"\ndatabases = [\"orders\", \"stock\"]\n";
    trade.shop.config(&config.replace("kind = \"postgres\"\n", both));
    trade.run(["backup"]).ok();
    let other = PgServer::start(Version::V15);
    trade
        .run(["restore", "latest", "--source", "orders", "--to", &other.socket_url("")])
        .ends_with(1)
        .says(&["sold_item_fkey", "restored were stock"]);
    assert_eq!(other.psql("stock", "SELECT x FROM shelf"), "1");
}

#[test]
fn definitions_that_fail_are_left_out_when_asked_and_a_failed_restore_is_no_mistake_in_the_words() {
    let trade = Trade::new();
    // Rows that break a foreign key, as they are loaded without triggers.
    trade.server.psql("orders", "SET session_replication_role = replica; INSERT INTO sold VALUES (100000, 1)");
    trade.run(["protect", &trade.server.socket_url("orders")]).ends_with(3).says(&["NOT PROVEN", "sold_item_fkey"]);
    let to = trade.server.socket_url("anew");
    let words = ["restore", "latest", "--source", "orders", "--to", &to];
    let ran = trade.run(words).ends_with(1).says(&["sold_item_fkey", "--continue-past-errors", "is as it was"]);
    assert!(!ran.stderr.contains("unprotected now"), "{}", ran.stderr);
    let going_on = trade.run(words.into_iter().chain(["--continue-past-errors"])).ends_with(3);
    going_on.says(&["FAILED in database anew, and left out: 1 definition", "sold_item_fkey", "VALIDATE CONSTRAINT"]);
    assert_eq!(trade.count("anew", "sold"), "901");
}

#[test]
fn a_restore_that_was_killed_is_begun_anew_by_the_same_words() {
    let trade = Trade::protected();
    let words =
        ["restore", "latest", "--source", "orders", "--to", &trade.server.socket_url("anew")].map(str::to_owned);
    let words = || words.iter().map(String::as_str);
    trade.server.create_database("anew");
    // What the server itself says of the database that the restore has made.
    trade.server.psql(
        "anew",
        "CREATE TABLE sold (x int);
         DO $$ BEGIN EXECUTE format('COMMENT ON DATABASE anew IS %L',
             'lastgood: restore of a1b2c3d4 is under way; what is here is not complete' || E'\nMade for it: '
             || (SELECT oid || '.' || hashtext(datname::text COLLATE \"C\") FROM pg_database WHERE datname = 'anew'));
         END $$",
    );
    trade.run(["doctor"]).says(&["database \"anew\" is not complete: it holds a restore of a1b2c3d4"]);
    // Nobody is asked: nothing is lost that anybody made.
    trade.run(words()).ok().says(&["which is taken away: a restore of a1b2c3d4 that did not end", "database anew: "]);
    assert_eq!(trade.server.pg_dump_text("anew"), trade.server.pg_dump_text("orders"));
    trade.run(words()).ends_with(4);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_done() {
    let trade = Trade::protected();
    let server = trade.server.socket_url("anew");
    let cases: [(&[&str], &str); 10] = [
        (&["--to", "./restored", "--table", "item"], "--table is for a restore into a server"),
        (&["--to", "./restored", "--jobs", "2"], "--jobs is for a restore into a server"),
        (&["--in-place", "--no-owner"], "--no-owner is for a restore into a server"),
        (&["--to", &server, "--path", "/x"], "--path is for files"),
        (&["--to", &server, "--delete"], "--delete is for files"),
        (&["--to", &server, "--owners", "skip"], "--owners is for files"),
        (&["--to", &server, "--source", "a", "--source", "b"], "only one source at a time"),
        (&["--to", &server, "--schema-only", "--data-only"], "cannot be used with"),
        (&["--to", &server, "--table", "a", "--table", "b", "--as", "c"], "names several"),
        (&["--to", "postgres://h/db?colour=red"], "understand --to"),
    ];
    for (words, said) in cases {
        trade.run(["restore", "latest"].into_iter().chain(words.iter().copied())).ends_with(2).says(&[said]);
    }
    trade
        .run(["restore", "latest", "--in-place", "--yes"])
        .ends_with(4)
        .says(&["not restored in place", "orders_restored"]);
    trade.run(["restore", "latest", "--to", &server, "--source", "none"]).ends_with(14).says(&["it has: orders"]);
    trade.run(["restore", "latest", "--to", &server, "--table", "nothing"]).ends_with(14);
    assert_eq!(trade.databases(), ["orders", "postgres"]);
    // As files it goes into a folder like any other source.
    trade.run(["restore", "latest", "--to", "./restored"]).ok();
    assert!(trade.shop.path("restored/orders/orders/toc.json").is_file());
}

#[test]
fn several_databases_are_restored_under_their_own_names() {
    let trade = Trade::new();
    trade.server.create_database("Books & more");
    trade
        .server
        .psql("Books & more", "CREATE ROLE clerk; CREATE TABLE book (t text); ALTER TABLE book OWNER TO clerk;");
    trade.server.psql("orders", "ALTER TABLE sold OWNER TO clerk");
    trade.shop.config(&format!(
        "[source.all]\nkind = 'postgres'\nurl = {:?}\ndatabases = 'all'\n[repository.local]\nurl = './backups'\nkey = {{ file = 'k' }}\n",
        trade.server.socket_url("postgres")
    ));
    trade.run(["init"]).ok();
    trade.run(["backup"]).ok().says(&["3 databases: "]);
    let other = PgServer::start(Version::V15);
    let restore =
        |to: &str, more: &[&str]| trade.run(["restore", "latest", "--to", to].into_iter().chain(more.iter().copied()));
    restore(&other.socket_url("new"), &[]).ends_with(2).says(&["--database NAME", "Books & more"]);
    restore(&other.socket_url("new"), &["--database", "none"]).ends_with(14);
    restore(&other.socket_url("new"), &["--database", "orders", "--no-owner"]).ok();
    assert_eq!(other.psql("new", "SELECT count(*) FROM sold"), "900");
    other.drop_database("new");
    // Roles that several databases need are made once.
    restore(&other.socket_url(""), &["--roles"]).ok();
    assert_eq!(other.psql("Books & more", "SELECT tableowner FROM pg_tables WHERE tablename = 'book'"), "clerk");
    assert_eq!(other.psql("orders", "SELECT tableowner FROM pg_tables WHERE tablename = 'sold'"), "clerk");
}

#[test]
fn two_recovery_points_are_compared_by_tables() {
    let trade = Trade::protected();
    trade.server.psql(
        "orders",
        "DELETE FROM sold WHERE item = 1; DROP VIEW best; CREATE TABLE extra (x int); INSERT INTO extra VALUES (1);
         VACUUM FULL item; ALTER TABLE item RENAME TO thing; CREATE INDEX thing_what ON thing (what);",
    );
    trade.run(["backup"]).ok();
    trade.run(["diff", "latest~1", "latest", "--source", "orders"]).ok().says(&[
        "+  orders: table public.extra  (1 row)",
        "U  orders: table public.thing  (500 rows)  (was public.item)",
        "M  orders: table public.sold  (900 -> 899 rows)",
        "-  orders: VIEW public.best",
        "+  orders: INDEX public.thing_what",
        "1 table added, 0 removed, 2 changed",
    ]);
    let (code, diff) = trade.shop.json(["diff", "latest~1", "latest", "--source", "orders"]);
    assert_eq!(code, Some(0));
    let sold = diff["differences"].as_array().unwrap().iter().find(|d| d["name"] == "public.sold").unwrap();
    assert_eq!((&sold["rows_before"], &sold["rows"]), (&900.into(), &899.into()), "{sold}");
    trade.run(["backup"]).ok();
    trade
        .run(["diff", "latest~1", "latest", "--source", "orders"])
        .ok()
        .says(&["0 tables added, 0 removed, 0 changed"]);
    trade.run(["diff", "latest~1", "latest", "--source", "none"]).ends_with(14);
}

#[test]
fn doctor_names_what_a_role_lacks_and_prints_what_grants_it() {
    let trade = Trade::new();
    trade.server.psql("orders", "CREATE ROLE backup LOGIN PASSWORD 'x'");
    let url = format!("postgres://backup:x@127.0.0.1:{}/orders", trade.server.port());
    fs_err::write(trade.shop.path("url"), format!("{url}\n")).unwrap();
    trade.shop.config(
        "[source.db]\nkind = 'postgres'\nurl = { file = 'url' }\n[repository.local]\nurl = './backups'\nkey = { file = 'k' }\n",
    );
    trade.run(["init"]).ok();
    trade.run(["doctor"]).ends_with(1).says(&["may not read", "GRANT SELECT ON TABLE", "URL file", "chmod 600"]);
    trade.run(["backup"]).ends_with(15);
    let script = trade.run(["doctor", "--grants", "db"]).ok().stdout;
    assert!(!script.contains("\"backup\""), "the role of the URL stays as it is: {script}");
    let said = trade.server.psql("orders", &script);
    let new = said.lines().find_map(|line| line.strip_prefix("url = \"")?.strip_suffix('"')).expect(&said).to_owned();
    assert!(new.starts_with("postgresql://lastgood_backup@127.0.0.1:") && !new.contains(":x@"), "{new}");
    trade.server.psql("orders", "ALTER ROLE lastgood_backup PASSWORD 'y'");
    fs_err::write(trade.shop.path("url"), new.replace("lastgood_backup@", "lastgood_backup:y@")).unwrap();
    fs_err::set_permissions(trade.shop.path("url"), std::fs::Permissions::from_mode(0o600)).unwrap();
    trade.run(["doctor"]).ok();
    trade.run(["backup"]).ok().says(&["1,400 rows"]);
    let other = trade.run(["doctor", "--grants", "db", "--role", "Other one"]).ok().stdout;
    assert!(other.contains("ALTER ROLE \"Other one\""), "{other}");
    trade.run(["doctor", "--grants", "db", "--role", ""]).ends_with(2);
    trade.run(["doctor", "--role", "x"]).ends_with(2);
    trade.run(["doctor", "--grants", "nothing"]).ends_with(2).says(&["there is no source"]);
}

#[test]
fn an_empty_database_is_never_taken_for_the_one_that_was_meant() {
    let trade = Trade::new();
    let unnamed = trade.server.url("").trim_end_matches('/').to_owned();
    trade.run(["protect", &unnamed]).ends_with(2).says(&[
        "names no database, which means \"postgres\"",
        "others of the server have some: orders",
        "databases = \"all\"",
    ]);
    assert!(!trade.shop.path("lastgood.toml").exists());
    trade
        .run(["protect", &trade.server.socket_url("postgres"), &trade.server.socket_url("orders")])
        .ok()
        .says(&["note: [postgres] database postgres has no tables"]);
    trade.server.psql("orders", "DROP TABLE item, sold CASCADE");
    for _ in 0..2 {
        trade.run(["backup"]).ok().says(&[
            "WARNING: [orders] orders has no tables any more",
            "2 tables with 1,400 rows",
            "--source orders --database orders --to postgres://…/NEW_NAME",
        ]);
    }
    let (_, taken) = trade.shop.json(["backup"]);
    assert_eq!(taken["emptied"][0]["tables"], 2, "{taken}");
}

#[test]
fn a_source_without_rows_says_how_many_tables_it_has() {
    let trade = Trade::new();
    let url = trade.server.socket_url("orders");
    trade.shop.config(&format!(
        "[source.db]\nkind = 'postgres'\nurl = '{url}'\nschema_only = true\n[repository.local]\nurl = './backups'\nkey = {{ file = 'k' }}\n",
    ));
    trade.run(["init"]).ok();
    let ran = trade.run(["backup"]).ok().says(&["database orders: 2 tables without their rows"]);
    assert!(!ran.stdout.contains("no tables"), "{}", ran.stdout);
}

#[test]
fn a_server_that_is_gone_fails_its_source_and_not_the_others() {
    let mut trade = Trade::new();
    trade.run(["protect", &trade.server.socket_url("orders"), "./uploads"]).ok();
    trade.server.stop();
    trade.run(["backup"]).ends_with(3).says(&["Failed: source orders", "uploads"]);
    fs_err::write(
        trade.shop.path("lastgood.toml"),
        fs_err::read_to_string(trade.shop.path("lastgood.toml"))
            .unwrap()
            .lines()
            .map(|line| if line.starts_with("url = \"postgres") { "url = { env = \"NOT_SET\" }" } else { line })
            .collect::<Vec<_>>()
            .join("\n"),
    )
    .unwrap();
    trade.run(["backup"]).ends_with(3).says(&["environment variable NOT_SET is not set"]);
}
