//! A server with a database that is in use, and what must hold in every consistent view of it.
//!
//! The truth is kept by the database itself: triggers add up how many rows each table has and the sum of their digests,
//! in the transaction that changes them; and every transaction writes to several tables what only fits together as a
//! whole. So any view of one moment can be judged by itself, whatever that moment was.

use anyhow::{Context, Result, bail};
use lastgood_testkit::postgres::{PASSWORD, PgServer, SUPERUSER, Version};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The database.
pub(super) const DATABASE: &str = "shop";
/// How long a server may take to be itself again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Tables with a trigger that adds up their rows.
const ADDED_UP: [&str; 5] = ["account", "ledger", "item", "event", "generation"];
/// Accounts, and what each begins with.
const ACCOUNTS: u64 = 1000;

const SCHEMA: &str = include_str!("schema.sql");

/// A server, and a database in use on it.
pub(super) struct Shop {
    pub(super) server: PgServer,
    /// How `pg_dump` describes what never changes.
    described: String,
    /// Of the largest table, whose number never changes.
    rows: u64,
}

impl Shop {
    /// A new one, with so many rows in its largest table.
    pub(super) fn open(version: Version, rows: u64) -> Result<Self> {
        let server = PgServer::start(version);
        server.create_database(DATABASE);
        let shop = Self { server, described: String::new(), rows };
        shop.sql(DATABASE, &SCHEMA.replace(":rows", &rows.to_string()).replace(":accounts", &ACCOUNTS.to_string()))?;
        let described = shop.describe(DATABASE)?;
        Ok(Self { described, ..shop })
    }

    /// How lastgood reaches a database of it through the port of a proxy. Little patience, as tests have.
    pub(super) fn url(port: u16, database: &str) -> String {
        format!(
            "postgres://{SUPERUSER}@127.0.0.1:{port}/{database}?connect_timeout=5&keepalives_idle=1&keepalives_interval=1"
        )
    }

    /// Writes the password where lastgood looks for it, below its home folder.
    pub(super) fn give_password(home: &Path) -> Result<()> {
        fs_err::create_dir_all(home)?;
        let file = home.join(".pgpass");
        fs_err::write(&file, format!("127.0.0.1:*:*:{SUPERUSER}:{PASSWORD}\n"))?;
        fs_err::set_permissions(&file, PermissionsExt::from_mode(0o600))?;
        Ok(())
    }

    /// Where the programs are that fit it.
    pub(super) fn bin(&self) -> Result<PathBuf> {
        Ok(self.server.bin("pg_dump").parent().context("pg_dump is in no folder")?.to_owned())
    }

    /// Runs SQL as the superuser, past the proxy.
    pub(super) fn sql(&self, database: &str, sql: &str) -> Result<String> {
        Psql::of(&self.server, database).run(sql)
    }

    fn describe(&self, database: &str) -> Result<String> {
        let mut dump = self.server.client("pg_dump", database);
        let text = crate::shell::output(dump.args(["--schema-only", "--schema=public"]))?;
        Ok(text.lines().filter(|line| !line.contains("restrict ")).map(|line| format!("{line}\n")).collect())
    }

    /// Judges a view of the shop in another database.
    pub(super) fn judge(&self, database: &str) -> Result<()> {
        let mut sql = String::new();
        for table in ADDED_UP {
            sql.push_str(&format!(
                "SELECT '{table}: told ' || rows || ', counted ' || c FROM public.told, LATERAL (SELECT count(*) AS c, \
                 coalesce(sum(hashtextextended(the_row::text, 0)), 0) AS s FROM public.{table} the_row) f \
                 WHERE name = '{table}' AND (rows, sum) IS DISTINCT FROM (c, s);\n"
            ));
        }
        sql.push_str(include_str!("judge.sql"));
        let found = self.sql(database, &sql)?;
        if !found.is_empty() {
            bail!("{database} is no view of one moment:\n{found}");
        }
        let described = self.describe(database)?;
        if described != self.described {
            let missing: Vec<&str> = self.described.lines().filter(|line| !described.contains(line)).take(5).collect();
            bail!("{database} is described otherwise; it lacks {missing:?}");
        }
        Ok(())
    }

    /// Judges the largest table alone.
    pub(super) fn judge_item(&self, database: &str) -> Result<()> {
        let told = "SELECT count(*), count(DISTINCT id), (SELECT count(*) FROM pg_index WHERE indrelid = 'item'::regclass \
                    AND indisvalid) FROM item";
        let (told, expected) = (self.sql(database, told)?, format!("{0}|{0}|3", self.rows));
        if told != expected {
            bail!("table item has {told} rows, ids, and indexes, and not {expected}");
        }
        Ok(())
    }

    /// Waits until the server answers again.
    pub(super) fn wait_until_ready(&self) -> Result<()> {
        wait_until("the server to answer", || Ok(self.sql("postgres", "SELECT 1").is_ok()))
    }

    /// Waits until nothing of lastgood is left: no session, so no lock and no open transaction, and nothing that
    /// outlives a session. Databases may be these and no others.
    pub(super) fn wait_until_clean(&self, databases: &[&str]) -> Result<()> {
        let left = "SELECT pid, state, wait_event, left(query, 80) FROM pg_stat_activity \
                    WHERE application_name LIKE 'lastgood%' OR application_name LIKE 'pg_dump%' \
                    UNION ALL SELECT 0, 'prepared', gid, NULL FROM pg_prepared_xacts \
                    UNION ALL SELECT 0, 'slot', slot_name, NULL FROM pg_replication_slots";
        let mut found = String::new();
        wait_until("lastgood's sessions to end", || {
            found = self.sql("postgres", left)?;
            Ok(found.is_empty())
        })
        .with_context(|| format!("left on the server: {found}"))?;
        for name in self.databases()? {
            if !["postgres", DATABASE].contains(&name.as_str()) && !databases.contains(&name.as_str()) {
                bail!("the database {name:?} was left on the server");
            }
        }
        Ok(())
    }

    /// All databases but the templates.
    pub(super) fn databases(&self) -> Result<Vec<String>> {
        let all = self.sql("postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")?;
        Ok(all.lines().map(str::to_owned).collect())
    }

    /// Takes a database away, if it is there.
    pub(super) fn drop_database(&self, name: &str) -> Result<()> {
        self.sql("postgres", &format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)")).map(drop)
    }

    /// The comment on a database; empty if there is none.
    pub(super) fn comment(&self, name: &str) -> Result<String> {
        let sql = format!("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{name}'");
        self.sql("postgres", &sql)
    }

    /// Those who use the shop: they transfer amounts, change things and delete them, until the value is dropped.
    pub(super) fn users(&self) -> Users {
        Users::come(Psql::of(&self.server, DATABASE), || "CALL public.live_on(40)".to_owned())
    }

    /// Somebody who changes definitions, until the value is dropped: in the order that `draw` gives.
    pub(super) fn changers(&self, mut draw: impl FnMut(u64) -> u64 + Send + 'static) -> Users {
        Users::come(Psql::of(&self.server, DATABASE), move || {
            (0..12).map(|_| format!("{}\nSELECT pg_sleep(0.02);\n", change(&mut draw))).collect()
        })
    }
}

/// A change of definitions. What is told of the tables that are changed holds before and after each of them.
fn change(mut draw: impl FnMut(u64) -> u64) -> String {
    let (table, rows) = (draw(4), 100 + draw(900));
    let fill = format!(
        "INSERT INTO race.t{table} SELECT g, md5(g::text) FROM generate_series(1, {rows}) g; \
         INSERT INTO race.told VALUES ('t{table}', {rows}) ON CONFLICT (name) DO UPDATE SET rows = excluded.rows;"
    );
    let statements = match draw(8) {
        0 => format!("DROP TABLE IF EXISTS race.t{table}; CREATE TABLE race.t{table} (a int, b text); {fill}"),
        1 => format!("DROP TABLE IF EXISTS race.t{table}; DELETE FROM race.told WHERE name = 't{table}';"),
        2 => format!("CREATE TABLE IF NOT EXISTS race.t{table} (a int, b text); TRUNCATE race.t{table}; {fill}"),
        3 => format!("ALTER TABLE IF EXISTS race.t{table} ALTER a TYPE bigint;"),
        4 => format!(
            "ALTER TABLE race.t{table} RENAME TO away; CREATE TABLE race.t{table} (a int, b text); \
             DROP TABLE race.away; {fill}"
        ),
        5 => "ALTER TABLE public.item ALTER words SET STORAGE EXTENDED;".to_owned(),
        6 => "LOCK TABLE public.ledger, public.event; SELECT pg_sleep(0.05);".to_owned(),
        _ => return "SET lock_timeout = '400ms'; VACUUM FULL public.account; REINDEX TABLE public.ledger;".to_owned(),
    };
    format!("BEGIN; SET LOCAL lock_timeout = '400ms'; {statements} COMMIT;")
}

/// Runs one script after another until it is dropped; what fails is nobody's business, as the server may be gone.
pub(super) struct Users {
    are_leaving: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Users {
    fn come(psql: Psql, mut script: impl FnMut() -> String + Send + 'static) -> Self {
        let are_leaving = Arc::new(AtomicBool::new(false));
        let leaving = Arc::clone(&are_leaving);
        let thread = std::thread::spawn(move || {
            while !leaving.load(Ordering::Relaxed) {
                if psql.clone().going_on().run(&script()).is_err() {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        });
        Self { are_leaving, thread: Some(thread) }
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.are_leaving.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How to run psql, independent of the server's value.
#[derive(Clone)]
struct Psql {
    program: PathBuf,
    conninfo: String,
    stops: bool,
}

impl Psql {
    fn of(server: &PgServer, database: &str) -> Self {
        Self { program: server.bin("psql"), conninfo: server.conninfo(database), stops: true }
    }

    /// Errors do not end the script.
    fn going_on(self) -> Self {
        Self { stops: false, ..self }
    }

    fn run(&self, sql: &str) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--file=-"]);
        command.arg(format!("--set=ON_ERROR_STOP={}", u8::from(self.stops))).arg("--dbname").arg(&self.conninfo);
        command.env("PGAPPNAME", "users").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start psql")?;
        if let Some(mut stdin) = child.stdin.take() {
            // If it has ended it says why.
            let _ = stdin.write_all(sql.as_bytes());
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !is_so()? {
        if begun.elapsed() > PATIENCE {
            bail!("waited {} s in vain for {what}", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    Ok(())
}
