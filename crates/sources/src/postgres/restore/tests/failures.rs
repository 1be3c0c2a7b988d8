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
    let planned = plan(&saved, &info(&server, "copy"), &options()).unwrap();
    assert!(planned.summary().replaces.as_ref().unwrap().contains("did not end"));
    planned.execute(&saved, &Monitor::new()).unwrap();
    assert_eq!(mismatches(&saved, &server, "copy", VerifyOptions::default()), "");
    assert_eq!(comment(&server, "copy"), "mine");
    assert_eq!(server.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname ~ 'lastgood'"), "0");
}

/// Until it bears the mark a new database has another name, so a restore that is killed early leaves one of that name.
#[test]
fn what_a_restore_left_that_was_killed_early_is_in_nobodys_way() {
    let server = PgServer::start(Version::V15);
    let saved = shop(&server);
    let left = "copy.lastgood-new";
    let mark = "lastgood: restore of a1b2c3d4 is under way; what is here is not complete";
    let marked = format!("COMMENT ON DATABASE \"{left}\" IS '{mark}'");
    let occupied = RestoreOptions { overwrite: true, ..options() };
    for (statement, wishes) in [("SELECT 1", options()), (&marked, options()), ("SELECT 1", occupied)] {
        server.create_database(left);
        server.psql("postgres", statement);
        restore(&saved, &server, "copy", &wishes).unwrap();
        assert_eq!(mismatches(&saved, &server, "copy", VerifyOptions::default()), "");
        assert_eq!(server.psql("postgres", "SELECT datname FROM pg_database WHERE datname ~ 'lastgood'"), "");
        if !wishes.overwrite && statement == marked {
            continue;
        }
        server.drop_database("copy");
    }
    // What somebody has made stays.
    server.create_database(left);
    server.psql(left, "CREATE TABLE precious (x int)");
    let error = restore(&saved, &server, "other", &options()).map(drop);
    assert!(error.is_ok(), "it is not in the way of others");
    let error = restore(&saved, &server, "copy", &RestoreOptions { overwrite: true, ..options() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
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
