//! Connections that something on the way keeps open and carries nothing over.

use super::server::Server;
use crate::postgres::conninfo::Conninfo;
use crate::postgres::wire::{Client, CopyRead};
use lastgood_model::{Error, ErrorKind};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Carries bytes between clients and a server until it does not.
struct Middle {
    port: u16,
    /// How many connections are let pass; none of those before, once it is set.
    is_stalled: Arc<AtomicBool>,
    /// Connections that are made while it stalls pass.
    lets_new_pass: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
}

impl Middle {
    fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let middle = Self {
            port: listener.local_addr().unwrap().port(),
            is_stalled: Arc::default(),
            lets_new_pass: Arc::default(),
            bytes: Arc::default(),
        };
        let (is_stalled, lets_new_pass) = (Arc::clone(&middle.is_stalled), Arc::clone(&middle.lets_new_pass));
        let bytes = Arc::clone(&middle.bytes);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let passes = is_stalled.load(Ordering::SeqCst) && lets_new_pass.load(Ordering::SeqCst);
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (is_stalled, bytes) = (Arc::clone(&is_stalled), Arc::clone(&bytes));
                    std::thread::spawn(move || {
                        let mut buffer = [0; 8192];
                        while let Ok(length @ 1..) = from.read(&mut buffer) {
                            while is_stalled.load(Ordering::SeqCst) && !passes {
                                std::thread::sleep(Duration::from_millis(5));
                            }
                            bytes.fetch_add(length as u64, Ordering::SeqCst);
                            if to.write_all(&buffer[..length]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        middle
    }

    fn client(&self, server: &Server, more: &str) -> Client {
        let text = format!("port={} connect_timeout=2 keepalives_idle=1 {more}", self.port);
        let info: Conninfo = server.tcp(&text);
        let mut client = Client::connect(&info).unwrap();
        client.watch().unwrap();
        client
    }

    fn stall(&self, lets_new_pass: bool) {
        self.lets_new_pass.store(lets_new_pass, Ordering::SeqCst);
        self.is_stalled.store(true, Ordering::SeqCst);
    }
}

#[track_caller]
fn assert_given_up(error: &Error, begun: Instant, why: &str) {
    assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
    assert!(error.chain().contains(why), "{}", error.chain());
    assert!(begun.elapsed() < Duration::from_secs(12), "it took {:?}", begun.elapsed());
}

#[test]
fn a_connection_that_stalls_before_it_is_watched_is_given_up_too() {
    let server = Server::plain();
    let middle = Middle::before(server.port);
    let text = format!("port={} connect_timeout=2 keepalives_idle=1", middle.port);
    let mut client = Client::connect(&server.tcp(&text)).unwrap();
    middle.stall(false);
    let begun = Instant::now();
    assert_given_up(&client.watch().unwrap_err(), begun, "no answer in time");
}

#[test]
fn an_answer_that_was_lost_is_not_waited_for() {
    let server = Server::plain();
    let middle = Middle::before(server.port);
    for (lets_new_pass, why) in [(true, "waits for us as we wait for it"), (false, "nobody answers")] {
        middle.is_stalled.store(false, Ordering::SeqCst);
        let mut client = middle.client(&server, "");
        middle.stall(lets_new_pass);
        let begun = Instant::now();
        assert_given_up(&client.query("SELECT 1").unwrap_err(), begun, why);
        assert!(client.is_broken());
    }
}

#[test]
fn rows_that_stop_coming_or_going_are_not_waited_for() {
    let server = Server::plain();
    server.client().batch("CREATE TABLE t (a text)").unwrap();
    let middle = Middle::before(server.port);
    let mut client = middle.client(&server, "");
    let mut copy =
        client.copy_out("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT").unwrap();
    let mut piece = Vec::new();
    while middle.bytes.load(Ordering::SeqCst) < 3_000_000 {
        assert_eq!(copy.read(&mut piece, 65_536).unwrap(), CopyRead::More);
        piece.clear();
    }
    middle.stall(true);
    let begun = Instant::now();
    let error = loop {
        if let Err(error) = copy.read(&mut piece, 65_536) {
            break error;
        }
        piece.clear();
    };
    assert_given_up(&error, begun, "waits for us as we wait for it");

    middle.is_stalled.store(false, Ordering::SeqCst);
    drop(copy);
    let mut client = middle.client(&server, "");
    let mut copy = client.copy_in("COPY t FROM STDIN").unwrap();
    middle.stall(true);
    let begun = Instant::now();
    let line = [vec![b'x'; 9999], vec![b'\n']].concat();
    let error = loop {
        if let Err(error) = copy.write(&line) {
            break error;
        }
    };
    assert_given_up(&error, begun, "waits for us as we wait for it");
}

#[test]
fn a_session_that_was_ended_without_our_hearing_of_it_is_noticed() {
    let server = Server::plain();
    let middle = Middle::before(server.port);
    let mut client = middle.client(&server, "");
    let pid = client.backend_pid();
    middle.stall(true);
    server.client().batch(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
    let begun = Instant::now();
    assert_given_up(&client.query("SELECT 1").unwrap_err(), begun, "has ended our session");
}

#[test]
fn a_server_that_takes_its_time_is_waited_for() {
    let server = Server::plain();
    let middle = Middle::before(server.port);
    for more in ["", "keepalives=0"] {
        let mut client = middle.client(&server, more);
        assert_eq!(client.query("SELECT pg_sleep(5), 7").unwrap().only().unwrap().text(1).unwrap(), "7");
    }
    // What a program does is seen by the name it bears.
    let mut client = server_client(&server);
    let vigil = client.vigil("pg_dump");
    let named = format!("SET application_name = '{}'", vigil.name);
    let mut program = server_client(&server);
    program.batch(&named).unwrap();
    let check = |seconds: u64| -> lastgood_model::Result<()> {
        let begun = Instant::now();
        loop {
            vigil.check()?;
            if begun.elapsed() > Duration::from_secs(seconds) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let canceller = program.canceller();
    let at_work = std::thread::spawn(move || {
        let _ = program.batch("SELECT pg_sleep(60)");
        program
    });
    check(12).unwrap();
    canceller.cancel().unwrap();
    let program = at_work.join().unwrap();
    let error = check(30).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
    drop(program);
    client.batch("SELECT 1").unwrap();
}

fn server_client(server: &Server) -> Client {
    Client::connect(&server.tcp("keepalives_idle=1 connect_timeout=2")).unwrap()
}
