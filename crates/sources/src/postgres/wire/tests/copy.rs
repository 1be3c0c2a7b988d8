//! Bulk data both ways.

use super::server::{Server, failure, peak_above_now};
use crate::postgres::wire::{CopyRead, sqlstate};
use aws_lc_rs::digest::{Context, SHA256};
use lastgood_model::ErrorKind;
use std::time::{Duration, Instant};

/// More than this beside the caller's own buffer is not bounded memory.
const MEMORY_MAX: u64 = 40 << 20;

#[test]
fn two_hundred_megabytes_come_out_and_go_in_unchanged() {
    let server = Server::plain();
    let mut client = server.client();
    client.batch("CREATE UNLOGGED TABLE t (a bigint, b text)").unwrap();
    client.batch("INSERT INTO t SELECT i, repeat(md5(i::text), 6) FROM generate_series(1, 1050000) i").unwrap();
    let mut hashes = Vec::new();
    for round in 0..2 {
        let mut reader = server.client();
        let mut loaded = server.client();
        if round == 0 {
            loaded.batch("CREATE UNLOGGED TABLE u (LIKE t)").unwrap();
        }
        let (mut bytes, mut hash) = (0, Context::new(&SHA256));
        let began = Instant::now();
        let peak = peak_above_now(|| {
            let mut out = reader.copy_out(&format!("COPY {} TO STDOUT", ["t", "u"][round])).unwrap();
            let mut into = (round == 0).then(|| loaded.copy_in("COPY u FROM STDIN").unwrap());
            let mut buffer = Vec::new();
            loop {
                buffer.clear();
                let read = out.read(&mut buffer, 1 << 20).unwrap();
                assert!(buffer.len() <= 1 << 20);
                bytes += buffer.len();
                hash.update(&buffer);
                if let Some(into) = &mut into {
                    // Odd pieces: whatever is written, the server must see one stream.
                    buffer.chunks(100_003).for_each(|piece| into.write(piece).unwrap());
                }
                if let CopyRead::End { rows } = read {
                    assert_eq!(rows, Some(1_050_000));
                    assert_eq!(out.read(&mut buffer, 1).unwrap(), read, "the end stays the end");
                    break;
                }
            }
            if let Some(into) = into {
                assert_eq!(into.finish().unwrap(), 1_050_000);
            }
        });
        println!("{bytes} bytes in {:?}, {} KiB more memory", began.elapsed(), peak >> 10);
        assert!(bytes > 200 << 20, "{bytes}");
        assert!(peak < MEMORY_MAX, "{peak}");
        hashes.push(hash.finish().as_ref().to_vec());
    }
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn one_value_of_three_hundred_megabytes_needs_no_memory_of_its_size() {
    let server = Server::plain();
    let mut client = server.client();
    client.batch("CREATE TABLE big (a bytea)").unwrap();
    let mut writer = server.client();
    let peak = peak_above_now(|| {
        let mut bytes = 0;
        let mut out = client.copy_out("COPY (SELECT repeat('x', 300000000)) TO STDOUT").unwrap();
        let mut buffer = Vec::new();
        while out.read(&mut buffer, 256 * 1024).unwrap() == CopyRead::More {
            bytes += buffer.len();
            buffer.clear();
        }
        assert_eq!(bytes + buffer.len(), 300_000_001);
        drop(out);
        let mut into = writer.copy_in("COPY big FROM STDIN").unwrap();
        into.write(br"\\x").unwrap();
        let piece = vec![b'a'; 1 << 20];
        (0..300).for_each(|_| into.write(&piece).unwrap());
        assert_eq!(into.finish().unwrap(), 1);
    });
    println!("{} KiB more memory", peak >> 10);
    assert!(peak < MEMORY_MAX, "{peak}");
    let length = writer.query("SELECT octet_length(a) FROM big").unwrap();
    assert_eq!(length.only().unwrap().parse::<u64>(0).unwrap(), 150 << 20);
}

#[test]
fn a_server_that_dies_in_the_middle_gives_an_error_and_never_an_end() {
    for dies_gently in [false, true] {
        let server = Server::plain();
        let mut client = server.client();
        let mut loader = server.client();
        loader.batch("CREATE TABLE t (a text)").unwrap();
        let mut other = server.client();
        let pids = [client.backend_pid(), loader.backend_pid()];
        let mut out =
            client.copy_out("COPY (SELECT generate_series(1, 100000000), repeat('x', 100)) TO STDOUT").unwrap();
        let mut buffer = Vec::new();
        assert_eq!(out.read(&mut buffer, 1 << 20).unwrap(), CopyRead::More);
        let mut into = loader.copy_in("COPY t FROM STDIN").unwrap();
        into.write(b"line\n").unwrap();
        if dies_gently {
            pids.iter().for_each(|pid| other.batch(&format!("SELECT pg_terminate_backend({pid})")).unwrap());
        } else {
            server.kill();
        }
        let error = loop {
            buffer.clear();
            match out.read(&mut buffer, 1 << 20) {
                Ok(CopyRead::More) => {}
                Ok(end) => panic!("{end:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
        assert!(out.read(&mut buffer, 1).is_err(), "and it stays one");
        let began = Instant::now();
        let error = loop {
            if let Err(error) = into.write(&[b'x'; 100_000]) {
                break error;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "nobody noticed");
        };
        assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
        if dies_gently {
            assert_eq!(sqlstate(&error), Some("57P01"), "{error:?}");
        }
        assert!(into.finish().is_err());
        drop(out);
        assert!(client.is_broken() && loader.is_broken());
    }
}

#[test]
fn a_copy_that_is_dropped_leaves_the_connection_usable() {
    let server = Server::plain();
    let mut client = server.client();
    client.batch("CREATE TABLE t (a text)").unwrap();
    for take in [0, 100, 1 << 20] {
        let began = Instant::now();
        let mut out =
            client.copy_out("COPY (SELECT generate_series(1, 1000000000), repeat('x', 1000)) TO STDOUT").unwrap();
        out.read(&mut Vec::new(), take).unwrap();
        drop(out);
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(client.query("SELECT 1").unwrap().len(), 1);
    }
    for bytes in [0, 10, 1_000_000] {
        let mut into = client.copy_in("COPY t FROM STDIN").unwrap();
        into.write(&vec![b'\n'; bytes]).unwrap();
        drop(into);
        let count = client.query("SELECT count(*) FROM t").unwrap();
        assert_eq!(count.only().unwrap().text(0).unwrap(), "0", "nothing was completed");
    }
    assert_eq!(client.copy_in("COPY t FROM STDIN").unwrap().finish().unwrap(), 0);
    let mut buffer = Vec::new();
    let end = client.copy_out("COPY t TO STDOUT").unwrap().read(&mut buffer, 10).unwrap();
    assert_eq!((end, buffer.len()), (CopyRead::End { rows: Some(0) }, 0));
}

#[test]
fn errors_of_a_copy_come_as_soon_as_the_server_has_them() {
    let server = Server::plain();
    let mut client = server.client();
    client.batch("CREATE TABLE t (a int)").unwrap();
    assert_eq!(failure(client.copy_out("COPY nowhere TO STDOUT").map(drop)).0, ErrorKind::Absent);
    assert_eq!(failure(client.copy_in("COPY nowhere FROM STDIN").map(drop)).0, ErrorKind::Absent);
    for wrong in ["SELECT 1", "SET work_mem = '1MB'", "COPY t FROM STDIN"] {
        assert_eq!(failure(client.copy_out(wrong).map(drop)).0, ErrorKind::Invalid, "{wrong}");
    }
    for wrong in
        ["SELECT 1", "COPY t TO STDOUT", "COPY (SELECT generate_series(1, 99999999), repeat('x', 1000)) TO STDOUT"]
    {
        assert_eq!(failure(client.copy_in(wrong).map(drop)).0, ErrorKind::Invalid, "{wrong}");
    }
    let mut out = client.copy_out("COPY (SELECT 1 / (i - 50000) FROM generate_series(1, 100000) i) TO STDOUT").unwrap();
    let error = out.read(&mut Vec::new(), usize::MAX).unwrap_err();
    assert_eq!(sqlstate(&error), Some("22012"), "{error:?}");
    drop(out);

    let mut into = client.copy_in("COPY t FROM STDIN").unwrap();
    into.write(b"1\nnonsense\n").unwrap();
    let mut written = 0_u64;
    let error = loop {
        match into.write(&b"2\n".repeat(50_000)) {
            Ok(()) => written += 100_000,
            Err(error) => break error,
        }
        assert!(written < 1 << 30, "the error came too late");
    };
    assert_eq!(sqlstate(&error), Some("22P02"), "{error:?}");
    assert!(error.hint().unwrap().contains("line 2"), "{error:?}");
    assert!(into.write(b"3\n").is_err());
    drop(into);
    let mut into = client.copy_in("COPY t FROM STDIN").unwrap();
    into.write(b"bad\n").unwrap();
    assert_eq!(sqlstate(&into.finish().unwrap_err()), Some("22P02"));
    assert_eq!(client.query("SELECT count(*) FROM t").unwrap().only().unwrap().text(0).unwrap(), "0");
}

#[test]
fn a_server_that_talks_while_we_write_does_not_stop_both() {
    let server = Server::plain();
    let mut client = server.client();
    client
        .batch(
            "CREATE TABLE t (a text);
             CREATE FUNCTION talk() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE NOTICE '%', repeat('talk', 2000); RETURN NEW; END $$;
             CREATE TRIGGER talk BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION talk()",
        )
        .unwrap();
    let mut into = client.copy_in("COPY t FROM STDIN").unwrap();
    for _ in 0..200 {
        into.write(&b"some line\n".repeat(100)).unwrap();
    }
    assert_eq!(into.finish().unwrap(), 20_000);
    assert_eq!(client.take_notices().len(), 100, "the last hundred are kept");
}

#[test]
fn a_copy_can_be_cancelled_both_ways() {
    let server = Server::plain();
    let mut client = server.client();
    client.batch("CREATE TABLE t (a text)").unwrap();
    let canceller = client.canceller();
    let mut out = client.copy_out("COPY (SELECT generate_series(1, 1000000000), repeat('x', 1000)) TO STDOUT").unwrap();
    let mut buffer = Vec::new();
    out.read(&mut buffer, 1000).unwrap();
    canceller.cancel().unwrap();
    let error = loop {
        buffer.clear();
        match out.read(&mut buffer, 1 << 20) {
            Ok(read) => assert_eq!(read, CopyRead::More),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error:?}");
    drop(out);
    let mut into = client.copy_in("COPY t FROM STDIN").unwrap();
    into.write(b"x\n").unwrap();
    canceller.cancel().unwrap();
    let error = loop {
        if let Err(error) = into.write(&[b'\n'; 100_000]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error:?}");
    drop(into);
    assert_eq!(client.query("SELECT count(*) FROM t").unwrap().only().unwrap().text(0).unwrap(), "0");
}
