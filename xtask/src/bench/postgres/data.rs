//! The databases that are measured: a shop beside pgbench's tables, and one that is a single table. The same rows at the
//! same places each time they are made.

use super::server::Server;
use anyhow::{Context, Result, bail};
use lastgood_testkit::rng::Rng;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::process::Stdio;

/// The database of several tables, as it is made; measured are copies of it.
pub(super) const SHOP: &str = "shop";
/// The database of one table.
pub(super) const GIANT: &str = "giant";
/// The table of [`GIANT`].
pub(super) const EVENTS: &str = "events";

/// What a row takes as COPY writes it, with its line break.
const ACCOUNT_BYTES: u64 = 98;
const EVENT_BYTES: u64 = 297;
/// An order, its items, and its share of a customer.
const ORDER_BYTES: u64 = 778;
/// Orders for each customer, about.
const ORDERS_PER_CUSTOMER: u64 = 6;
/// Rows of pgbench_accounts for each unit of its scale.
const ACCOUNTS: u64 = 100_000;

const SCHEMA: &str = "
    CREATE TABLE customers (id bigint NOT NULL, name text NOT NULL, email text NOT NULL, city text NOT NULL,
        joined timestamptz NOT NULL, balance numeric(12,2) NOT NULL, about text, settings jsonb NOT NULL);
    CREATE TABLE orders (id bigint NOT NULL, customer bigint NOT NULL, at timestamptz NOT NULL, state text NOT NULL
            CHECK (state IN ('open', 'paid', 'sent', 'returned')),
        total numeric(12,2) NOT NULL, note text, details jsonb NOT NULL, updated timestamptz);
    CREATE TABLE items (\"order\" bigint NOT NULL, line integer NOT NULL, sku text NOT NULL, title text NOT NULL,
        count integer NOT NULL, price numeric(10,2) NOT NULL, attributes jsonb NOT NULL);";
const KEYS: [&str; 3] = [
    "ALTER TABLE orders ADD PRIMARY KEY (id); CREATE INDEX orders_customer ON orders (customer);
     CREATE INDEX orders_at ON orders (at); CREATE INDEX orders_open ON orders (at) WHERE state = 'open';",
    "ALTER TABLE items ADD PRIMARY KEY (\"order\", line); CREATE INDEX items_sku ON items (sku);",
    "ALTER TABLE customers ADD PRIMARY KEY (id); ALTER TABLE customers ADD UNIQUE (email);
     CREATE INDEX customers_joined ON customers (joined);",
];
const FOREIGN_KEYS: &str = "
    ALTER TABLE orders ADD FOREIGN KEY (customer) REFERENCES customers;
    ALTER TABLE items ADD FOREIGN KEY (\"order\") REFERENCES orders;";
const HISTORY: &str = "
    INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)
    SELECT 1 + n % 10, 1, 1 + (hashint8(n) & 65535), hashint8(-n) % 5000, timestamp '2026-01-01' + n * interval '97 ms'
    FROM generate_series(1, $1) n";
const GIANT_SCHEMA: &str = "
    CREATE TABLE events (id bigint NOT NULL, at timestamptz NOT NULL, session uuid NOT NULL, kind text NOT NULL,
        amount numeric(12,4), body text NOT NULL, payload jsonb NOT NULL);";

/// One table and how long its rows are.
pub(super) struct Table {
    /// Its name as SQL takes it.
    pub(super) name: &'static str,
    /// Bytes of its rows as COPY writes them.
    pub(super) bytes: f64,
}

/// Makes [`SHOP`] with about so many bytes of rows. Gives its tables, largest first.
pub(super) fn make_shop(server: &Server, bytes: u64) -> Result<Vec<Table>> {
    let scale = (bytes / 4 / (ACCOUNTS * ACCOUNT_BYTES)).max(1);
    let orders = bytes.saturating_sub(scale * ACCOUNTS * ACCOUNT_BYTES) / ORDER_BYTES;
    let customers = (orders / ORDERS_PER_CUSTOMER).max(1);
    eprintln!("making database {SHOP}: {orders} orders, pgbench with scale {scale}");
    server.create(SHOP)?;
    server.sql(SHOP, SCHEMA)?;
    side_by_side([
        &|| load(server, SHOP, "orders", orders, |id, rng, row| order(id, customers, rng, row)),
        &|| load(server, SHOP, "items", orders, items),
        &|| load(server, SHOP, "customers", customers, customer),
        &|| {
            server.pgbench(SHOP, scale)?;
            server.sql(SHOP, &HISTORY.replace("$1", &(scale * ACCOUNTS / 10).to_string())).map(drop)
        },
    ])?;
    side_by_side(KEYS.map(|sql| move || server.sql(SHOP, sql).map(drop)).each_ref().map(|go| go as _))?;
    server.sql(SHOP, FOREIGN_KEYS)?;
    finish(
        server,
        SHOP,
        &["orders", "items", "customers", "pgbench_accounts", "pgbench_history", "pgbench_tellers", "pgbench_branches"],
    )
}

/// Makes [`GIANT`] with about so many bytes of rows.
pub(super) fn make_giant(server: &Server, bytes: u64) -> Result<Vec<Table>> {
    let rows = (bytes / EVENT_BYTES).max(1);
    eprintln!("making database {GIANT}: {rows} events");
    server.create(GIANT)?;
    server.sql(GIANT, GIANT_SCHEMA)?;
    load(server, GIANT, EVENTS, rows, event)?;
    server.sql(GIANT, "ALTER TABLE events ADD PRIMARY KEY (id); CREATE INDEX events_at ON events (at)")?;
    finish(server, GIANT, &[EVENTS])
}

/// No row is left that the first reader would have to judge.
fn finish(server: &Server, database: &str, names: &[&'static str]) -> Result<Vec<Table>> {
    server.sql(database, "VACUUM (ANALYZE)")?;
    let measured = names.iter().map(|name| Ok(Table { name, bytes: server.copy_bytes(database, name)? }));
    let mut tables = measured.collect::<Result<Vec<_>>>()?;
    tables.sort_by(|a, b| b.bytes.total_cmp(&a.bytes));
    Ok(tables)
}

fn side_by_side<const N: usize>(tasks: [&(dyn Fn() -> Result<()> + Sync); N]) -> Result<()> {
    std::thread::scope(|scope| {
        let started = tasks.map(|task| scope.spawn(task));
        started.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })
}

/// Fills a table over one connection, so that rows lie in their order: `write` appends the lines of each number from 1.
fn load(
    server: &Server,
    database: &str,
    table: &str,
    count: u64,
    mut write: impl FnMut(u64, &mut Rng, &mut String),
) -> Result<()> {
    let mut command = server.pg().client("psql", database);
    command.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--command"]);
    command.arg(format!("COPY {table} FROM STDIN")).stdin(Stdio::piped());
    let mut child = command.spawn().context("start psql")?;
    let mut rng = Rng::new(table.bytes().fold(1, |seed, byte| seed * 31 + u64::from(byte)));
    let mut out = BufWriter::with_capacity(1 << 20, child.stdin.take().context("psql takes no input")?);
    let mut rows = String::new();
    let written = (1..=count).try_for_each(|id| {
        rows.clear();
        write(id, &mut rng, &mut rows);
        out.write_all(rows.as_bytes())
    });
    // What psql says is worth more than that it stopped reading.
    let written = written.and_then(|()| out.flush());
    drop(out);
    let status = child.wait()?;
    if !status.success() {
        bail!("psql ended with {status} while {table} was loaded");
    }
    written.with_context(|| format!("load {table}"))
}

/// Words and no line breaks, about so many bytes.
fn words(rng: &mut Rng, length: u64) -> String {
    let text = rng.text(length as usize).into_iter().map(|byte| if byte == b'\n' { ' ' } else { char::from(byte) });
    text.collect::<String>().trim().to_owned()
}

/// A name as people and places have it.
fn name(rng: &mut Rng, length: u64) -> String {
    let words = words(rng, length);
    let mut letters = words.chars();
    letters.next().map_or_else(|| "Ano".to_owned(), |first| first.to_uppercase().chain(letters).collect())
}

/// Prose of that length as COPY takes it, with paragraphs.
fn prose(rng: &mut Rng, length: u64) -> String {
    words(rng, length).replace(" con ", ".\\n")
}

/// A moment, so many seconds after the begin of 2019, with microseconds.
fn moment(seconds: u64, rng: &mut Rng) -> String {
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Years and months of one length are as good here as real ones.
    let (year, month, day) = (2019 + day / 336, 1 + day % 336 / 28, 1 + day % 28);
    let (hour, minute, second, micros) = (second / 3600, second / 60 % 60, second % 60, rng.below(1_000_000));
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}+00")
}

fn cents(rng: &mut Rng, below: u64) -> String {
    // Small amounts are more frequent than large ones.
    let amount = rng.below(below).min(rng.below(below));
    format!("{}.{:02}", amount / 100, amount % 100)
}

fn customer(id: u64, rng: &mut Rng, row: &mut String) {
    let (first, last) = (name(rng, 8), name(rng, 10));
    let email = format!("{}.{}{id}@example.org", first.to_lowercase(), last.to_lowercase()).replace(' ', ".");
    let city = name(&mut Rng::new(rng.below(30) * rng.below(30)), 9);
    let length = 40 + rng.below(200);
    let (joined, balance, about) = (moment(id * 40, rng), cents(rng, 100_000), prose(rng, length));
    let (language, theme) = (*rng.pick(&["en", "de", "fr", "es", "pt"]), *rng.pick(&["light", "dark", "system"]));
    let (visits, letters) = (rng.below(900), rng.below(3) == 0);
    let _ = writeln!(
        row,
        "{id}\t{first} {last}\t{email}\t{city}\t{joined}\t{balance}\t{about}\t{{\"language\": \"{language}\", \"theme\": \
         \"{theme}\", \"visits\": {visits}, \"newsletter\": {letters}, \"tags\": [\"{}\", \"{}\"]}}",
        words(rng, 8),
        words(rng, 6),
    );
}

fn order(id: u64, customers: u64, rng: &mut Rng, row: &mut String) {
    let customer = 1 + rng.below(customers);
    let seconds = id * 60 + rng.below(60);
    let state = *rng.pick(&["sent", "sent", "sent", "sent", "sent", "paid", "returned", "open"]);
    let (at, total) = (moment(seconds, rng), cents(rng, 50_000));
    let note = match rng.below(100) {
        // Long enough to be kept beside the table.
        0 => prose(rng, 3000 + id % 5000),
        1..=40 => "\\N".to_owned(),
        _ => {
            let length = 20 + rng.below(220);
            prose(rng, length)
        }
    };
    let updated = if state == "open" { "\\N".to_owned() } else { moment(seconds + 90_000, rng) };
    let browser = *rng.pick(&["Firefox/143.0", "Chrome/141.0.7390.54", "Safari/605.1.15", "Edg/141.0.3537.57"]);
    let _ = writeln!(
        row,
        "{id}\t{customer}\t{at}\t{state}\t{total}\t{note}\t{{\"ip\": \"{}.{}.{}.{}\", \"agent\": \"Mozilla/5.0 {browser}\", \
         \"address\": {{\"street\": \"{} {}\", \"zip\": \"{:05}\"}}, \"coupon\": {}}}\t{updated}",
        rng.below(220),
        rng.below(256),
        rng.below(256),
        rng.below(256),
        name(rng, 12),
        rng.below(200),
        rng.below(99_999),
        if rng.below(4) == 0 { format!("\"{:08X}\"", rng.below(1 << 32)) } else { "null".to_owned() },
    );
}

/// One to five of an order.
fn items(id: u64, rng: &mut Rng, rows: &mut String) {
    for line in 1..=1 + rng.below(5) {
        // What a shop sells is the same for everybody: few things are sold often.
        let product = rng.below(400) * rng.below(400);
        let mut of_product = Rng::new(product);
        let title = name(&mut of_product, 24);
        let (price, weight) = (cents(&mut of_product, 20_000), of_product.below(9000));
        let colour = *rng.pick(&["red", "green", "blue", "black", "white", "natural oak", "anthracite"]);
        let size = *rng.pick(&["S", "M", "L", "XL", "one size"]);
        let _ = writeln!(
            rows,
            "{id}\t{line}\tLG-{product:06}\t{title}\t{}\t{price}\t{{\"size\": \"{size}\", \"colour\": \"{colour}\", \
             \"weight_g\": {weight}, \"batch\": \"{:06x}\"}}",
            1 + rng.below(3) * rng.below(3),
            rng.below(1 << 24),
        );
    }
}

fn event(id: u64, rng: &mut Rng, row: &mut String) {
    let length = 60 + rng.below(120);
    let (high, low) = (rng.next_u64(), rng.next_u64());
    let session = format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        high & 0xffff,
        high >> 20 & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    );
    let kind = *rng.pick(&["view", "view", "view", "click", "click", "search", "login", "error"]);
    let amount = if rng.below(3) == 0 { cents(rng, 9_000_000) } else { "\\N".to_owned() };
    let _ = writeln!(
        row,
        "{id}\t{}\t{session}\t{kind}\t{amount}\t{}\t{{\"path\": \"/{}/{}\", \"status\": {}, \"took_ms\": {}, \"referrer\": \
         \"https://{}.example\"}}",
        moment(id * 20, rng),
        prose(rng, length),
        words(rng, 6),
        rng.below(100_000),
        rng.pick(&[200, 200, 200, 304, 404, 500]),
        rng.below(900),
        words(rng, 5).replace(' ', "-"),
    );
}

/// One row in a hundred of the database is changed, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Orders that follow one another. Their new versions go wherever there is room, which rows of many lengths leave in
    /// pages everywhere.
    Together,
    /// Accounts that follow one another. Rows of one length leave no room: all new versions go to the table's end.
    OfOneLength,
    /// Orders, items, customers and accounts, all over the tables.
    AllOver,
}

/// What a change was.
pub(super) struct Changed {
    /// How many rows.
    pub(super) rows: f64,
    /// In how many pages they were or are.
    pub(super) pages: f64,
}

/// Changes one row in a hundred of a database that has so many; `seed` decides which.
pub(super) fn change(server: &Server, database: &str, change: Change, rows: f64, seed: u64) -> Result<Changed> {
    let orders = "orders SET state = 'returned', updated = at + interval '9 days'";
    let accounts = "pgbench_accounts SET abalance = abalance + aid";
    let range = |table: &str, key: &str| -> Result<String> {
        let last = server.number(database, &format!("SELECT max({key}) FROM {table}"))? as u64;
        let count = ((rows / 100.0) as u64).clamp(1, last / 4);
        let from = 1 + Rng::new(seed).below(last - count);
        Ok(format!("{key} BETWEEN {from} AND {}", from + count - 1))
    };
    let one_in_a_hundred = |key: &str| format!("(hashint8({key}) & 2147483647) % 100 = {}", seed % 100);
    let statements = match change {
        Change::Together => vec![(orders, range("orders", "id")?)],
        Change::OfOneLength => vec![(accounts, range("pgbench_accounts", "aid")?)],
        Change::AllOver => vec![
            (orders, one_in_a_hundred("id")),
            ("items SET count = count + 1", one_in_a_hundred("\"order\" * 8 + line")),
            ("customers SET balance = balance + 1.25", one_in_a_hundred("id")),
            (accounts, one_in_a_hundred("aid")),
        ],
    };
    let mut changed = Changed { rows: 0.0, pages: 0.0 };
    for (update, condition) in statements {
        let said = server.sql(
            database,
            &format!(
                "WITH changed AS (UPDATE {update} WHERE {condition} RETURNING old.ctid AS was, new.ctid AS \"is\")
                 SELECT count(*) / 2, count(DISTINCT (page::text::point)[0])
                 FROM (SELECT was FROM changed UNION ALL SELECT \"is\" FROM changed) _ (page)"
            ),
        )?;
        let (rows, pages) = said.split_once('|').with_context(|| format!("{update} gave {said:?}"))?;
        changed.rows += rows.parse::<f64>()?;
        changed.pages += pages.parse::<f64>()?;
    }
    Ok(changed)
}

/// How many rows these tables have.
pub(super) fn rows(server: &Server, database: &str, tables: &[Table]) -> Result<f64> {
    tables.iter().map(|table| server.number(database, &format!("SELECT count(*) FROM {}", table.name))).sum()
}
