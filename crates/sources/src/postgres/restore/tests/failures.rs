//! Restores that fail or are interrupted, and the next one after them.

use super::super::DatabaseFate;
use super::*;
use lastgood_testkit::postgres::Version;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[test]
fn a_statement_that_fails_is_named_the_database_says_so_and_the_next_restore_begins_anew() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    let broken = Saved::capture(&server, "shop").with(
        "shop/toc.json",
        "USING \\\"btree\\\" (\\\"note\\\")",
        "USING nosuch (note)",
    );
    let error = restore(&broken, &server, "copy", &options()).unwrap_err();
    assert!(error.chain().contains("make INDEX public.orders_note"), "{error:?}");
    assert!(error.chain().contains("nosuch"), "{error:?}");
    assert!(error.hint().unwrap().contains("incomplete"), "{:?}", error.hint());
    let told = comment(&server, "copy");
    assert!(told.starts_with("lastgood: restore of a1b2c3d4 failed") && told.contains("orders_note"), "{told}");

    let planned = plan(&saved, &info(&server, "copy"), &options()).unwrap();
    assert_eq!(planned.summary().fate, DatabaseFate::Replaced);
    assert!(planned.summary().replaces.as_ref().unwrap().contains("a1b2c3d4 that failed"));
    planned.execute(&saved, &Monitor::new()).unwrap();
    assert_eq!(mismatches(&saved, &server, "copy", VerifyOptions::default()), "");
    assert_eq!(comment(&server, "copy"), "our shop");
}

#[test]
fn a_killed_restore_leaves_its_mark_and_the_next_begins_anew() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    server.create_database("copy");
    server.psql("copy", "COMMENT ON DATABASE copy IS 'mine'");
    // What a killed process leaves: it dies between two reads, and says nothing more.
    let seen = Arc::new(Mutex::new(String::new()));
    let (text, url) = (Arc::clone(&seen), server.url("postgres"));
    saved.on_read(move |path| {
        if path.ends_with(".copy") {
            let mut client =
                super::super::super::wire::Client::connect(&Conninfo::parse(&url, &|_| None).unwrap()).unwrap();
            let sql = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'copy'";
            *text.lock().unwrap() = client.query(sql).unwrap().only().unwrap().text(0).unwrap().to_owned();
        }
        Ok(())
    });
    restore(&saved, &server, "copy", &options()).unwrap();
    saved.off_read();
    let mark = seen.lock().unwrap().clone();
    assert!(mark.contains("a1b2c3d4 is under way") && mark.ends_with("Comment before: mine"), "{mark}");
    assert_eq!(comment(&server, "copy"), "mine");
    server.psql("copy", &format!("COMMENT ON DATABASE copy IS '{mark}'; DROP TABLE orders CASCADE"));
    // It was there before the restore, so nobody drops it unasked.
    let planned = plan(&saved, &info(&server, "copy"), &options()).unwrap();
    assert!(planned.refusal().unwrap().message().contains("the restore did not make it"));
    let planned = plan(&saved, &info(&server, "copy"), &RestoreOptions { overwrite: true, ..options() }).unwrap();
    assert!(planned.summary().replaces.as_ref().unwrap().contains("did not end"));
    planned.execute(&saved, &Monitor::new()).unwrap();
    assert_eq!(mismatches(&saved, &server, "copy", VerifyOptions::default()), "");
    assert_eq!(comment(&server, "copy"), "mine");
    assert_eq!(server.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname ~ 'lastgood'"), "0");
}

/// What the server itself says of a database that a restore has made.
fn identity(server: &PgServer, name: &str) -> String {
    server.psql(
        "postgres",
        &format!(
            "SELECT oid || '.' || hashtext(datname::text COLLATE \"C\") FROM pg_database WHERE datname = '{name}'"
        ),
    )
}

#[test]
fn a_marked_database_is_only_taken_away_when_nobody_else_can_want_it() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    let broken = Saved { files: saved.files.clone(), ..Saved::default() };
    let broken = broken.with("shop/toc.json", "USING \\\"btree\\\" (\\\"note\\\")", "USING nosuch (note)");
    restore(&broken, &server, "half", &options()).unwrap_err();
    let mut client = super::super::super::wire::Client::connect(&info(&server, "half")).unwrap();
    let told = client.batch("CREATE TABLE mine (x int)").unwrap_err();
    assert!(told.chain().contains("read-only"), "{told:?}");
    drop(client);
    // Captured so, and restored whole: nothing of the mark comes back.
    let of_half = Saved::capture(&server, "half");
    restore(&of_half, &server, "whole", &options()).unwrap();
    assert_eq!(comment(&server, "whole"), "");
    server.psql("whole", "CREATE TABLE mine (x int)");
    assert_eq!(restore(&saved, &server, "whole", &options()).unwrap_err().kind(), ErrorKind::Conflict);
    // The mark of another database.
    server
        .psql("postgres", &format!("COMMENT ON DATABASE whole IS '{}'", comment(&server, "half").replace('\'', "''")));
    let refusal = plan(&saved, &info(&server, "whole"), &options()).unwrap().refusal().unwrap();
    assert!(refusal.message().contains("not the database that the restore made"), "{refusal:?}");
    // Somebody has added to it all the same.
    server.psql("half", "SET default_transaction_read_only = off; CREATE TABLE mine (x int)");
    let refusal = plan(&saved, &info(&server, "half"), &options()).unwrap().refusal().unwrap();
    assert!(
        refusal.message().contains("public.mine") && refusal.hint().unwrap().contains("--overwrite"),
        "{refusal:?}"
    );
    server.psql("half", "SET default_transaction_read_only = off; DROP TABLE mine");
    restore(&saved, &server, "half", &options()).unwrap();
    assert_eq!(mismatches(&saved, &server, "half", VerifyOptions::default()), "");
    assert_eq!(server.psql("half", "SHOW default_transaction_read_only"), "off");
}

#[test]
fn what_is_overwritten_stays_until_the_new_one_is_whole() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    server.create_database("old");
    server.psql("old", "CREATE TABLE precious AS SELECT 1 AS x");
    let overwrite = RestoreOptions { overwrite: true, ..options() };
    let broken = Saved { files: saved.files.clone(), ..Saved::default() };
    let broken = broken.with("shop/toc.json", "USING \\\"btree\\\" (\\\"note\\\")", "USING nosuch (note)");
    let error = restore(&broken, &server, "old", &overwrite).unwrap_err();
    assert!(error.hint().unwrap().contains("\"old\" is as it was"), "{:?}", error.hint());
    assert_eq!(server.psql("old", "SELECT x FROM precious"), "1");
    let databases = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate";
    assert_eq!(server.psql("postgres", databases), "old postgres shop");
    // While rows are loaded, too, and what two killed ones have left is in nobody's way.
    for left in ["old.lastgood-new", "old.lastgood-old"] {
        server.create_database(left);
        let id = identity(&server, left);
        let mark = match left.ends_with("new") {
            true => format!("lastgood: restore of x is under way; what is here is not complete\nMade for it: {id}"),
            false => format!("lastgood: replaced by a restore of x; it can be dropped\nMade for it: {id}"),
        };
        server.psql(left, &format!("CREATE TABLE half (x int); COMMENT ON DATABASE \"{left}\" IS '{mark}'"));
    }
    let url = server.url("old");
    saved.on_read(move |path| {
        if path.ends_with(".copy") {
            let info = Conninfo::parse(&url, &|_| None).unwrap();
            let mut client = super::super::super::wire::Client::connect(&info).unwrap();
            assert_eq!(client.query("SELECT x FROM precious").unwrap().only().unwrap().text(0).unwrap(), "1");
        }
        Ok(())
    });
    let planned = plan(&saved, &info(&server, "old"), &overwrite).unwrap();
    assert!(planned.summary().meanwhile.iter().any(|note| note.contains("room for both")), "{:?}", planned.summary());
    planned.execute(&saved, &Monitor::new()).unwrap();
    saved.off_read();
    assert_eq!(mismatches(&saved, &server, "old", VerifyOptions::default()), "");
    assert_eq!(comment(&server, "old"), "our shop");
    assert_eq!(server.psql("old", "SHOW default_transaction_read_only"), "off");
    assert_eq!(server.psql("postgres", databases), "old postgres shop");
}

#[test]
fn what_cannot_be_replaced_is_told_before_anything_is_loaded() {
    let server = PgServer::start_with(Version::V15, &[("wal_level", "logical")]);
    let saved = shop(&server);
    server.create_database("old");
    server.psql(
        "old",
        "CREATE TABLE t (x int);
         CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = 'far');",
    );
    let overwrite = RestoreOptions { overwrite: true, ..options() };
    let refusal = plan(&saved, &info(&server, "old"), &overwrite).unwrap().refusal().unwrap();
    assert_eq!(refusal.kind(), ErrorKind::Locked);
    let hint = refusal.hint().unwrap();
    assert!(hint.contains("DROP SUBSCRIPTION \"sub\"") && hint.contains("pg_drop_replication_slot('far')"), "{hint}");
    // One that the recovery point has is in the way neither of the restore nor of the next.
    let with = Saved::capture(&server, "old");
    restore(&with, &server, "copy", &options()).unwrap();
    assert_eq!(
        server.psql(
            "copy",
            "SELECT count(*) FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid \
        WHERE datname = 'copy'"
        ),
        "1"
    );
    server.psql("old", "ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub");
    server.psql("old", "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'it''s open'");
    let refusal = plan(&saved, &info(&server, "old"), &overwrite).unwrap().refusal().unwrap();
    assert!(refusal.hint().unwrap().contains("ROLLBACK PREPARED 'it''s open'"), "{refusal:?}");
    server.psql("old", "ROLLBACK PREPARED 'it''s open'");
    restore(&saved, &server, "old", &overwrite).unwrap();
    assert_eq!(mismatches(&saved, &server, "old", VerifyOptions::default()), "");
}

#[test]
fn two_restores_at_once_into_one_name_do_not_disturb_each_other() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    let overwrite = RestoreOptions { overwrite: true, ..options() };
    server.create_database("old");
    server.psql("old", "CREATE TABLE t (x int)");
    for name in ["new", "old"] {
        let again = plan(&saved, &info(&server, name), &overwrite).unwrap();
        let other = Saved { files: saved.files.clone(), ..Saved::default() };
        let again = Mutex::new(Some(again));
        let seen = Arc::new(Mutex::new(None));
        let told = Arc::clone(&seen);
        saved.on_read(move |path| {
            if path.ends_with(".copy")
                && let Some(again) = again.lock().unwrap().take()
            {
                *told.lock().unwrap() = again.execute(&other, &Monitor::new()).err();
            }
            Ok(())
        });
        restore(&saved, &server, name, &overwrite).unwrap();
        saved.off_read();
        let error = seen.lock().unwrap().take().unwrap();
        assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
        assert!(error.message().contains("another restore to database"), "{error:?}");
        assert_eq!(mismatches(&saved, &server, name, VerifyOptions::default()), "");
    }
}

#[test]
fn definitions_that_fail_can_be_left_out_and_are_named() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    let broken = Saved { files: saved.files.clone(), ..Saved::default() };
    let broken = broken.with("shop/toc.json", "USING \\\"btree\\\" (\\\"note\\\")", "USING nosuch (note)");
    let report =
        restore(&broken, &server, "copy", &RestoreOptions { continue_past_errors: true, ..options() }).unwrap();
    let failed: Vec<&str> = report.failed.iter().map(|one| one.what.as_str()).collect();
    assert_eq!(failed, ["INDEX public.orders_note"]);
    assert!(report.failed[0].sql.contains("USING nosuch") && report.failed[0].error.contains("nosuch"), "{report:?}");
    assert_eq!(server.psql("copy", "SELECT count(*) FROM orders"), "5000");
    assert_eq!(
        server.psql(
            "copy",
            "SELECT count(*) FROM pg_constraint WHERE contype IN ('p', 'f') AND convalidated AND oid >= 16384"
        ),
        "3"
    );
    assert_eq!(comment(&server, "copy"), "our shop");
    // Rows are another matter.
    let table = saved.files.keys().find(|path| path.ends_with(".copy") && saved.files[*path].len() > 100_000).unwrap();
    let damaged = Saved { files: saved.files.clone(), ..Saved::default() }.with(table, "\t1\t", "\t2\t");
    let going_on = RestoreOptions { continue_past_errors: true, ..options() };
    assert_eq!(restore(&damaged, &server, "other", &going_on).unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Until it bears the mark a new database has another name, so a restore that is killed early leaves one of that name.
#[test]
fn what_a_restore_left_that_was_killed_early_is_in_nobodys_way() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    let left = "copy.lastgood-new";
    let there = "SELECT datname FROM pg_database WHERE datname ~ 'lastgood'";
    // So it is made, and nobody else makes one so.
    let unmarked = format!("CREATE DATABASE \"{left}\" CONNECTION LIMIT {}", 0x1a57_600d);
    for wishes in [options(), RestoreOptions { overwrite: true, ..options() }] {
        server.psql("postgres", &unmarked);
        restore(&saved, &server, "copy", &wishes).unwrap();
        assert_eq!(mismatches(&saved, &server, "copy", VerifyOptions::default()), "");
        assert_eq!(server.psql("postgres", there), "");
    }
    server.drop_database("copy");
    // What somebody has made stays, empty or not, whatever it is called.
    server.create_database(left);
    restore(&saved, &server, "copy", &options()).unwrap();
    assert_eq!(server.psql("postgres", there), left);
    server.psql(left, "CREATE TABLE precious (x int)");
    restore(&saved, &server, "copy", &RestoreOptions { overwrite: true, ..options() }).unwrap();
    assert_eq!(server.psql("postgres", there), left);
    assert_eq!(server.psql(left, "SELECT count(*) FROM precious"), "0");
}

#[test]
fn a_server_that_dies_fails_the_restore_and_takes_the_next() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    let target = info(&server, "copy");
    let planned = plan(&saved, &target, &options()).unwrap();
    let server = Arc::new(Mutex::new(server));
    let dying = Arc::clone(&server);
    saved.on_read(move |path| {
        if path.ends_with(".copy") {
            dying.lock().unwrap().kill();
        }
        Ok(())
    });
    let begun = Instant::now();
    let error = planned.execute(&saved, &Monitor::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
    assert!(error.hint().unwrap().contains("run the same restore again"), "{:?}", error.hint());
    assert!(begun.elapsed() < Duration::from_secs(20));
    saved.off_read();
    let mut server = server.lock().unwrap();
    server.restart();
    assert!(comment(&server, "copy").contains("is under way"));
    restore(&saved, &server, "copy", &options()).unwrap();
    assert_eq!(mismatches(&saved, &server, "copy", VerifyOptions::default()), "");
}

#[test]
fn a_wish_to_stop_ends_it_soon_even_within_a_long_statement() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server).with(
        "shop/toc.json",
        "CREATE INDEX \\\"orders_note\\\"",
        "SELECT pg_catalog.pg_sleep(60); CREATE INDEX \\\"orders_note\\\"",
    );
    let planned = plan(&saved, &info(&server, "copy"), &options()).unwrap();
    let monitor = Monitor::new();
    let begun = Instant::now();
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            while server.psql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "0" {
                assert!(begun.elapsed() < Duration::from_secs(30));
            }
            monitor.cancel();
        });
        planned.execute(&saved, &monitor).unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(40));
    assert!(comment(&server, "copy").contains("failed"), "{}", comment(&server, "copy"));
    let deadline = Instant::now() + Duration::from_secs(5);
    while server.psql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE datname = 'copy'") != "0" {
        assert!(Instant::now() < deadline, "the server works on for nobody");
    }
}

#[test]
fn rows_that_are_not_what_was_saved_are_damage_of_a_named_table() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    let table =
        saved.files.keys().find(|path| path.ends_with(".copy") && saved.files[*path].len() > 100_000).unwrap().clone();
    for damage in [("\t1\t", "\t2\t"), ("\n", "\n5001\t1\tx\t1\n")] {
        let damaged = Saved { files: saved.files.clone(), ..Saved::default() };
        let damaged = damaged.with(&table, damage.0, damage.1);
        let error = restore(&damaged, &server, "copy", &options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert!(error.chain().contains("rows of public.orders"), "{error:?}");
        assert!(comment(&server, "copy").contains("failed"));
    }
    // A table that tells of other rows than its parts.
    let damaged = Saved { files: saved.files.clone(), ..Saved::default() };
    let damaged = damaged.with("shop/tables.json", "}],\"rows\":1000", "}],\"rows\":1001");
    assert_eq!(restore(&damaged, &server, "copy", &options()).unwrap_err().kind(), ErrorKind::Corrupt);
}
