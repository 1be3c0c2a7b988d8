//! A database with everything, captured while some write and others want to change it.

use super::super::super::wire::Client;
use super::*;
use lastgood_testkit::postgres::{Version, differences};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Amounts that are moved between accounts, each time with a line in a log; their sum never changes.
const BUSY: &str = "
    ALTER EVENT TRIGGER z_no_more DISABLE;
    CREATE SCHEMA busy;
    CREATE TABLE busy.account (id int PRIMARY KEY, balance int NOT NULL);
    CREATE TABLE busy.log (generation bigserial PRIMARY KEY, giver int, taker int, amount int);
    CREATE TABLE busy.generation (n bigint NOT NULL);
    INSERT INTO busy.account SELECT g, 100 FROM pg_catalog.generate_series(1, 500) g;
    INSERT INTO busy.generation VALUES (0);
    CREATE PROCEDURE busy.move(times int) LANGUAGE plpgsql AS $$
    DECLARE a int; b int; x int;
    BEGIN
        FOR i IN 1..times LOOP
            UPDATE busy.generation SET n = n + 1;
            a := 1 + pg_catalog.floor(pg_catalog.random() * 500);
            b := 1 + pg_catalog.floor(pg_catalog.random() * 500);
            x := pg_catalog.floor(pg_catalog.random() * 100);
            UPDATE busy.account SET balance = balance - x WHERE id = a;
            UPDATE busy.account SET balance = balance + x WHERE id = b;
            INSERT INTO busy.log (giver, taker, amount) VALUES (a, b, x);
            COMMIT;
        END LOOP;
    END $$;
    ALTER EVENT TRIGGER z_no_more ENABLE;";

/// What does not fit together; nothing in any view of one moment.
const BROKEN: &str = "
    SELECT 'sum ' || pg_catalog.sum(balance) FROM busy.account HAVING pg_catalog.sum(balance) <> 50000
    UNION ALL SELECT 'generation ' || n FROM busy.generation WHERE n <> (SELECT pg_catalog.count(*) FROM busy.log)
    UNION ALL SELECT 'account ' || id FROM busy.account a WHERE balance <> 100
        + (SELECT COALESCE(pg_catalog.sum(amount), 0) FROM busy.log WHERE taker = a.id)
        - (SELECT COALESCE(pg_catalog.sum(amount), 0) FROM busy.log WHERE giver = a.id)";

/// Whether the capture has locked tables.
const LOCKED: &str = "SELECT pg_catalog.count(*) > 25 FROM pg_catalog.pg_locks l
    JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    WHERE a.application_name = 'lastgood' AND l.mode = 'AccessShareLock' AND l.relation >= 16384";

/// Tries to change every table in every way that excludes readers, and counts how often that had to wait in vain.
/// Nothing may go through: then it fails.
const CHANGES: &str = "
    SET lock_timeout = '10ms'; SET client_min_messages = warning;
    DO $$
    DECLARE t regclass; what text; n int := 0;
    BEGIN
        FOR t IN SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p') AND s.nspname !~ '^pg_' AND s.nspname <> 'information_schema'
        LOOP
            FOREACH what IN ARRAY ARRAY['DROP TABLE %s CASCADE', 'TRUNCATE %s CASCADE',
                'ALTER TABLE %s ADD COLUMN racing int', 'ALTER TABLE %s RENAME TO raced']
            LOOP
                BEGIN
                    EXECUTE pg_catalog.format(what, t);
                EXCEPTION WHEN lock_not_available THEN
                    n := n + 1;
                    CONTINUE;
                END;
                RAISE EXCEPTION 'it went through: %', pg_catalog.format(what, t);
            END LOOP;
        END LOOP;
        PERFORM pg_catalog.set_config('busy.refused', n::text, false);
    END $$;
    SELECT pg_catalog.current_setting('busy.refused');";

fn everything_in_use(version: Version) {
    let source = PgServer::start(version);
    source.load_everything("all of it");
    source.psql("all of it", BUSY);
    // What the writers change is not the same before and after; all else must be.
    let dump = |server: &PgServer| server.pg_dump_text_with("all of it", &["--exclude-table-data=busy.*"]);
    let before = dump(&source);

    let are_busy = AtomicBool::new(true);
    let (is_open, is_reached) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (opened, reached, looking) = (Arc::clone(&is_open), Arc::clone(&is_reached), info(&source, "postgres"));
    let sink = MemorySink::new().before_write(move |_| {
        // What the whole server has is written before any table is locked.
        let mut client = Client::connect(&looking)?;
        if !client.query(LOCKED)?.only()?.is_true(0)? {
            return Ok(());
        }
        reached.store(true, Ordering::SeqCst);
        while !opened.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    });
    let generation = || source.psql("all of it", "SELECT n FROM busy.generation").parse::<u64>().unwrap();
    let (saved, at_the_end) = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while are_busy.load(Ordering::SeqCst) {
                    source.psql("all of it", "CALL busy.move(50)");
                }
            });
        }
        let begun = Instant::now();
        while generation() < 100 {
            assert!(begun.elapsed() < Duration::from_secs(30), "nobody writes");
        }
        let capture = scope.spawn(|| Saved::capture_through(&source, "all of it", Options::default(), &sink));
        while !is_reached.load(Ordering::SeqCst) {
            assert!(begun.elapsed() < Duration::from_secs(60) && !capture.is_finished(), "nothing was captured");
            std::thread::sleep(Duration::from_millis(2));
        }
        // Each way that a test ends, the writers and the capture must, too.
        let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| source.psql("all of it", CHANGES)));
        is_open.store(true, Ordering::SeqCst);
        let saved = capture.join();
        are_busy.store(false, Ordering::SeqCst);
        let refused: u64 = changed.unwrap().trim().parse().unwrap();
        assert!(refused > 4 * 25, "only {refused} changes were tried");
        (saved.unwrap(), generation())
    });
    assert_eq!(differences(&before, &dump(&source)), "", "nobody changed the fixture");

    let server = PgServer::start(version);
    server.prepare_for_everything();
    server.psql("postgres", "CREATE TABLESPACE \"a \"\"tablespace\"\"\" LOCATION ''");
    restore(&saved, &server, "all of it", &RestoreOptions { roles: true, ..options() }).unwrap();
    assert_eq!(mismatches(&saved, &server, "all of it", VerifyOptions::default()), "");
    assert_eq!(differences(&before, &dump(&server)), "");
    assert_eq!(server.psql("all of it", BROKEN), "");
    let captured: u64 = server.psql("all of it", "SELECT n FROM busy.generation").parse().unwrap();
    assert!((100..at_the_end).contains(&captured), "{captured} of {at_the_end}: nobody wrote meanwhile");
}

#[test]
fn everything_of_15_is_captured_in_use_and_comes_back_as_it_was() {
    everything_in_use(Version::V15);
}

#[test]
fn everything_of_18_is_captured_in_use_and_comes_back_as_it_was() {
    everything_in_use(Version::V18);
}
