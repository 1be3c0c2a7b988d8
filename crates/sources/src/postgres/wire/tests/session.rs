//! Connecting, signing in, statements, cancelling.

use super::server::{Server, failure};
use crate::postgres::wire::{Client, Timeouts, Transaction, query::ROWS_BYTES_MAX, sqlstate};
use lastgood_model::{Error, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn statements_and_their_rows() {
    let server = Server::plain();
    for info in [server.local(""), server.tcp("")] {
        let mut client = Client::connect(&info).unwrap();
        assert!(client.server_version() >= 150_000, "{}", client.server_version());
        assert_eq!(client.parameter("server_encoding"), Some("UTF8"));
        assert_eq!(client.parameter("client_encoding"), Some("UTF8"));
        assert_eq!(client.encryption(), None);

        let rows =
            client.query("SELECT 1 AS a, NULL AS b, 'ü' AS c, true AS d UNION ALL SELECT 2, '', 'x', false").unwrap();
        assert_eq!((rows.len(), rows.command_tag(), rows.rows_affected()), (2, "SELECT 2", Some(2)));
        let names: Vec<&str> = rows.columns().iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        let first = rows.get(0).unwrap();
        assert_eq!(
            (first.parse::<u32>(0).unwrap(), first.optional(1).unwrap(), first.text(2).unwrap()),
            (1, None, "ü")
        );
        assert!(first.is_true(3).unwrap());
        let second = rows.get(1).unwrap();
        assert_eq!(
            (second.optional(1).unwrap(), second.bytes(2), second.is_true(3).unwrap()),
            (Some(""), Some(&b"x"[..]), false)
        );
        assert_eq!(second.column("c"), Some(2));
        assert!(rows.get(2).is_none() && rows.only().is_err());
        assert_eq!(failure(first.text(1)).0, ErrorKind::Corrupt);
        assert_eq!(failure(first.text(9)).0, ErrorKind::Bug);

        let pid = client.query("SELECT pg_backend_pid()").unwrap().only().unwrap().parse::<i32>(0).unwrap();
        assert_eq!(pid, client.backend_pid());
        let rows = client
            .query_with("SELECT $1::int + 1, $2::text IS NULL, $3::text", &[Some("41"), None, Some("a'b")])
            .unwrap();
        let row = rows.only().unwrap();
        assert_eq!((row.text(0).unwrap(), row.text(1).unwrap(), row.text(2).unwrap()), ("42", "t", "a'b"));
        let rows = client.query("SELECT 1; SELECT 2 AS last; SET application_name = 'x'").unwrap();
        assert_eq!((rows.only().unwrap().text(0).unwrap(), rows.command_tag()), ("2", "SET"));
        assert_eq!(client.parameter("application_name"), Some("x"));
        assert!(client.query("").unwrap().is_empty());
        assert!(client.query_with("", &[]).unwrap().is_empty());
    }
}

#[test]
fn an_error_leaves_the_connection_usable_and_the_transaction_known() {
    let server = Server::plain();
    let mut client = server.client();
    assert_eq!(client.transaction(), Transaction::Idle);
    let error = client.query("SELECT * FROM nowhere").unwrap_err();
    assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::Absent, Some("42P01")));
    assert!(error.message().starts_with("ERROR 42P01: relation \"nowhere\" does not exist"), "{error:?}");
    assert!(error.hint().unwrap().contains("at character 15"), "{error:?}");
    let error = client.query_with("SELECT $1::int", &[Some("x")]).unwrap_err();
    assert_eq!(sqlstate(&error), Some("22P02"));
    assert_eq!(failure(client.query("SELECT '\0'")).0, ErrorKind::Invalid);
    client.batch("BEGIN").unwrap();
    assert_eq!(client.transaction(), Transaction::Open);
    client.batch("SELEC").unwrap_err();
    assert_eq!(client.transaction(), Transaction::Failed);
    client.batch("ROLLBACK").unwrap();
    client.batch("DO $$ BEGIN RAISE NOTICE 'hello'; RAISE WARNING 'look' USING HINT = 'there'; END $$").unwrap();
    let notices = client.take_notices();
    let said: Vec<_> = notices.iter().map(|notice| (notice.severity.as_str(), notice.message.as_str())).collect();
    assert_eq!(said, [("NOTICE", "hello"), ("WARNING", "look")]);
    assert_eq!(notices[1].hint.as_deref(), Some("there"));
    for wrong in ["COPY (SELECT 1) TO STDOUT", "CREATE TABLE t0 (a int); COPY t0 FROM STDIN"] {
        client.query(wrong).unwrap_err();
        assert_eq!(client.query("SELECT 1").unwrap().len(), 1, "after {wrong}");
        if !wrong.contains(';') {
            client.query_with(wrong, &[]).unwrap_err();
            assert_eq!(client.query("SELECT 1").unwrap().len(), 1, "after {wrong}");
        }
    }
    client.batch("CREATE TABLE t (a int PRIMARY KEY)").unwrap();
    client.query_with("COPY t FROM STDIN", &[]).unwrap_err();
    assert_eq!(client.query("SELECT 1").unwrap().len(), 1);
    assert_eq!(failure(client.batch("CREATE TABLE t ()")).0, ErrorKind::Conflict);
    let long = format!("SELECT '{}'::int", "x".repeat(3 << 20));
    assert_eq!(sqlstate(&client.query(&long).unwrap_err()), Some("22P02"), "an error that quotes 3 MiB");
    assert_eq!(client.query("SELECT 1").unwrap().len(), 1);
}

#[test]
fn many_rows_are_handed_on_and_too_many_are_not_collected() {
    let server = Server::plain();
    let mut client = server.client();
    let (mut count, mut sum) = (0, 0);
    client
        .for_each_row("SELECT i, 'row ' || i FROM generate_series(1, 200000) i", |row| {
            count += 1;
            sum += row.parse::<u64>(0)?;
            Ok(())
        })
        .unwrap();
    assert_eq!((count, sum), (200_000, 200_000 * 200_001 / 2));
    let began = Instant::now();
    let mut seen = 0;
    let stopped = client.for_each_row("SELECT generate_series(1, 1000000000)", |_| {
        seen += 1;
        if seen == 10 { Err(Error::invalid("enough")) } else { Ok(()) }
    });
    assert_eq!((failure(stopped).1.as_str(), seen), ("enough", 10));
    assert!(began.elapsed() < Duration::from_secs(20), "the server was told to stop");
    let large = format!("SELECT repeat('x', 1000000) FROM generate_series(1, {})", ROWS_BYTES_MAX / 1_000_000 + 5);
    assert_eq!(failure(client.query(&large)).0, ErrorKind::Unsupported);
    assert_eq!(failure(client.query(&format!("SELECT repeat('x', {ROWS_BYTES_MAX})"))).0, ErrorKind::Unsupported);
    assert_eq!(client.query("SELECT 1").unwrap().len(), 1);
}

#[test]
fn every_way_to_sign_in() {
    let rules = "local all postgres trust\nhost all pw all password\nhost all m5 all md5\nhost all sc all scram-sha-256\n\
                 host all free all trust\nhost all phantom all trust\nhost all ident all ident\nhost all postgres all trust\n";
    let server = Server::start(&[], Some(rules), &[]);
    server
        .client()
        .batch(
            "SET password_encryption = 'md5'; CREATE ROLE m5 LOGIN PASSWORD 'pä ss';
             SET password_encryption = 'scram-sha-256'; CREATE ROLE pw LOGIN PASSWORD 'pä ss';
             CREATE ROLE sc LOGIN PASSWORD 'pä ss'; CREATE ROLE free LOGIN; CREATE ROLE nobody LOGIN",
        )
        .unwrap();
    let table = [
        ("user=free", None),
        ("user=free require_auth=none", None),
        ("user=pw password='pä ss'", None),
        ("user=m5 password='pä ss'", None),
        ("user=sc password='pä ss'", None),
        ("user=sc password='pä ss' require_auth=md5,scram-sha-256", None),
        ("user=pw password=wrong", Some((ErrorKind::Denied, "28P01"))),
        ("user=m5 password=wrong", Some((ErrorKind::Denied, "28P01"))),
        ("user=sc password=wrong", Some((ErrorKind::Denied, "28P01"))),
        ("user=sc", Some((ErrorKind::Denied, "none is given"))),
        ("user=nobody", Some((ErrorKind::Denied, "28000"))),
        ("user=ghost password=x", Some((ErrorKind::Denied, "28000"))),
        ("user=phantom", Some((ErrorKind::Denied, "28000"))),
        ("user=pw password='pä ss' require_auth=scram-sha-256", Some((ErrorKind::Denied, "\"password\""))),
        ("user=m5 password='pä ss' require_auth=!md5", Some((ErrorKind::Denied, "\"md5\""))),
        ("user=free require_auth=scram-sha-256", Some((ErrorKind::Denied, "\"none\""))),
        ("user=free channel_binding=require", Some((ErrorKind::Denied, "does not bind"))),
        ("user=sc password='pä ss' channel_binding=require", Some((ErrorKind::Denied, "does not bind"))),
        ("user=free dbname=nowhere", Some((ErrorKind::Absent, "3D000"))),
    ];
    for (text, expected) in table {
        match (Client::connect(&server.tcp(text)), expected) {
            (Ok(mut client), None) => assert_eq!(client.query("SELECT 1").unwrap().len(), 1),
            (Err(error), Some((kind, words))) => {
                assert_eq!(error.kind(), kind, "{text}: {error:?}");
                assert!(error.chain().contains(words), "{text}: {error:?}");
                assert!(!format!("{error:?}").contains("pä ss"));
                let hint = error.hint().unwrap_or_default();
                match words {
                    "28P01" => assert!(hint.contains("correct the password") && hint.contains("~/.pgpass"), "{hint}"),
                    "28000" if text.contains("phantom") => assert!(hint.contains("doctor --grants"), "{hint}"),
                    "28000" => assert!(hint.contains("pg_hba.conf"), "{hint}"),
                    _ => {}
                }
            }
            (result, expected) => panic!("{text}: {result:?} where {expected:?} was expected"),
        }
    }
}

#[test]
fn hosts_are_tried_in_turn_until_one_is_what_is_wanted() {
    let first = Server::start(&[("default_transaction_read_only", "on")], None, &[]);
    let second = Server::plain();
    let info = |more: &str| {
        let hosts = format!("/nowhere,127.0.0.1,127.0.0.1,{}", second.folder().display());
        // The second host's port belongs to nobody.
        first.info(&format!("host={hosts} port=1,1,{},{} {more}", first.port, second.port))
    };
    let port = |more: &str| Client::connect(&info(more)).map(|client| client.conninfo().hosts()[0].port);
    assert_eq!(port("").unwrap(), first.port);
    assert_eq!(port("target_session_attrs=read-only").unwrap(), first.port);
    assert_eq!(port("target_session_attrs=read-write").unwrap(), second.port);
    assert_eq!(port("target_session_attrs=primary").unwrap(), first.port);
    assert_eq!(port("target_session_attrs=prefer-standby").unwrap(), first.port);
    let (kind, chain) = failure(port("target_session_attrs=standby"));
    assert_eq!(kind, ErrorKind::Retry);
    assert!(chain.contains("/nowhere") && chain.contains("is no standby"), "{chain}");
    for _ in 0..5 {
        port("load_balance_hosts=random").unwrap();
    }
    // Who is refused for what he is, is refused everywhere.
    assert_eq!(failure(port("dbname=nowhere")).0, ErrorKind::Absent);
    let user = rustix::process::geteuid().as_raw();
    let wrong = first.local("requirepeer=nobody-of-that-name");
    assert_eq!(failure(Client::connect(&wrong)).0, ErrorKind::Denied);
    if user == 0 {
        Client::connect(&first.local("requirepeer=postgres")).unwrap();
    }
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = deaf.local_addr().unwrap().port();
    for mode in ["disable", "require"] {
        let text = format!("host=127.0.0.1 port={port} user=u connect_timeout=2 sslmode={mode}");
        let info = crate::postgres::conninfo::Conninfo::parse(&text, &|_| None).unwrap();
        let began = Instant::now();
        assert_eq!(failure(Client::connect(&info)).0, ErrorKind::Retry);
        assert!((1..6).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }
    let server = Server::plain();
    let mut client = server.client();
    client.set_timeouts(Timeouts { answer: Some(Duration::from_millis(300)), copy: None });
    client.batch("SELECT pg_sleep(0.1)").unwrap();
    let (kind, text) = failure(client.batch("SELECT pg_sleep(30)"));
    assert_eq!(kind, ErrorKind::Retry);
    assert!(text.contains("does not answer"), "{text}");
    assert!(client.is_broken());
    assert_eq!(failure(client.batch("SELECT 1")).0, ErrorKind::Retry);
    let mut client = server.client();
    client.set_timeouts(Timeouts { answer: Some(Duration::from_millis(300)), copy: None });
    let mut out = Vec::new();
    client.copy_out("COPY (SELECT pg_sleep(1)) TO STDOUT").unwrap().read(&mut out, 100).unwrap();
    assert_eq!(out, b"\n", "a COPY may take its time");
}

#[test]
fn a_running_statement_can_be_cancelled_from_elsewhere() {
    let server = Server::plain();
    for info in [server.local(""), server.tcp("")] {
        let mut client = Client::connect(&info).unwrap();
        let canceller = client.canceller();
        canceller.cancel().unwrap();
        assert_eq!(client.query("SELECT 1").unwrap().len(), 1, "nothing ran, so nothing was hit");
        let began = Instant::now();
        let waiting = std::thread::spawn(move || {
            let error = client.batch("SELECT pg_sleep(60)").unwrap_err();
            (client, error)
        });
        let mut other = server.client();
        while other.query("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").unwrap().is_empty() {}
        canceller.cancel().unwrap();
        let (mut client, error) = waiting.join().unwrap();
        assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::Cancelled, Some("57014")), "{error:?}");
        assert!(began.elapsed() < Duration::from_secs(30));
        assert_eq!(client.query("SELECT 1").unwrap().len(), 1);
    }
    let mut client = server.client();
    client.batch("SET statement_timeout = 50").unwrap();
    assert_eq!(failure(client.batch("SELECT pg_sleep(60)")).0, ErrorKind::Retry, "nobody of us cancelled it");
}

#[test]
fn an_interrupted_wait_stops_the_server_too() {
    let server = Server::plain();
    let mut client = server.client();
    let wanted = Arc::new(AtomicBool::new(false));
    let asked = wanted.clone();
    client.set_interrupt(Arc::new(move || asked.load(Ordering::Relaxed)));
    client.batch("SELECT pg_sleep(0.5)").unwrap();
    wanted.store(true, Ordering::Relaxed);
    let began = Instant::now();
    assert_eq!(failure(client.batch("SELECT pg_sleep(60)")).0, ErrorKind::Cancelled);
    assert!(began.elapsed() < Duration::from_secs(15));
    let mut other = server.client();
    let running = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while !other.query(running).unwrap().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "the server works on for nobody");
    }
}

#[test]
fn being_shut_out_says_why() {
    let server = Server::start(&[("max_connections", "4"), ("superuser_reserved_connections", "0")], None, &[]);
    let mut clients = Vec::new();
    let error = loop {
        match Client::connect(&server.local("")) {
            Ok(client) => clients.push(client),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::Retry, Some("53300")));
    let victim = clients.pop().unwrap();
    clients[0].batch(&format!("SELECT pg_terminate_backend({})", victim.backend_pid())).unwrap();
    let mut victim = victim;
    let error = victim.batch("SELECT 1").unwrap_err();
    assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::Retry, Some("57P01")), "{error:?}");
    assert!(victim.is_broken());
    server.kill();
    let (kind, text) = failure(clients[0].batch("SELECT pg_sleep(5)"));
    assert_eq!(kind, ErrorKind::Retry, "{text}");
}
