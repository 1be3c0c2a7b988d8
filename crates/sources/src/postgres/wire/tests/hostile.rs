//! Servers that send anything: random bytes, answers cut off, bytes changed, lengths that lie.

use super::server::{failure, peak_above_now};
use crate::postgres::conninfo::Conninfo;
use crate::postgres::wire::channel::Channel;
use crate::postgres::wire::connect::start;
use crate::postgres::wire::socket::{Address, Patience, Socket};
use crate::postgres::wire::{Client, CopyRead};
use lastgood_model::{ErrorKind, Result};
use proptest::prelude::*;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One message.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// What a server says to somebody whom it lets in.
fn welcome() -> Vec<u8> {
    [
        message(b'R', &[0; 4]),
        message(b'S', b"server_version\x0015.4\0"),
        message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]),
        message(b'Z', b"I"),
    ]
    .concat()
}

fn answer() -> Vec<u8> {
    [
        message(b'T', b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"),
        message(b'D', b"\0\x01\0\0\0\x02xy"),
        message(b'N', b"SNOTICE\0C00000\0Mhello\0\0"),
        message(b'D', b"\0\x01\xff\xff\xff\xff"),
        message(b'C', b"SELECT 2\0"),
        message(b'Z', b"I"),
    ]
    .concat()
}

fn copy() -> Vec<u8> {
    [
        message(b'H', b"\0\0\x01\0\0"),
        message(b'd', b"first\n"),
        message(b'd', b"second\n"),
        message(b'S', b"TimeZone\0UTC\0"),
        message(b'd', b"third\n"),
        message(b'c', b""),
        message(b'C', b"COPY 3\0"),
        message(b'Z', b"I"),
    ]
    .concat()
}

/// A client whose server says `says`, whatever it is told, and hangs up.
fn client(says: Vec<u8>) -> Result<Client> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        // Fails when the client has hung up first.
        let _ = theirs.write_all(&says);
        let _ = theirs.shutdown(std::net::Shutdown::Write);
        // What it is told is taken in, so that it can say all it has to.
        let _ = std::io::copy(&mut theirs, &mut std::io::sink());
    });
    let patience = Patience { deadline: Some(Instant::now() + Duration::from_secs(20)), ..Patience::default() };
    let channel = Channel::new(Arc::new(Socket::Unix(ours)), None, patience);
    let info = Conninfo::parse("user=u password=p host=/nowhere", &|_| None).unwrap();
    start(&info, &Address::Unix("/nowhere/at/all".into()), channel)
}

/// Does a bit of everything; the first error ends it.
fn use_it(mut client: Client, what: u8) -> Result<()> {
    match what % 4 {
        0 => drop(client.query("SELECT 1")?),
        1 => drop(client.query_with("SELECT $1", &[Some("1")])?),
        2 => {
            let mut out = client.copy_out("COPY t TO STDOUT")?;
            while out.read(&mut Vec::new(), 7)? == CopyRead::More {}
        }
        _ => {
            let mut into = client.copy_in("COPY t FROM STDIN")?;
            into.write(&[b'x'; 300_000])?;
            into.finish()?;
        }
    }
    client.batch("SELECT 2")
}

#[test]
fn the_lies_are_told_to_a_client_that_believes_the_truth() {
    let mut honest = client([welcome(), answer()].concat()).unwrap();
    assert_eq!((honest.server_version(), honest.backend_pid()), (150_004, 1));
    let rows = honest.query("SELECT").unwrap();
    assert_eq!((rows.get(0).unwrap().text(0).unwrap(), rows.get(1).unwrap().bytes(0)), ("xy", None));
    assert_eq!(honest.take_notices().len(), 1);
    let mut honest = client([welcome(), copy()].concat()).unwrap();
    let mut out = Vec::new();
    let end = honest.copy_out("COPY").unwrap().read(&mut out, 1000).unwrap();
    assert_eq!((end, out.as_slice()), (CopyRead::End { rows: Some(3) }, &b"first\nsecond\nthird\n"[..]));
}

#[test]
fn an_answer_cut_off_anywhere_is_an_error() {
    for (what, whole) in [(0, answer()), (2, copy())] {
        for length in 0..whole.len() {
            let mut connected = client([&welcome(), &whole[..length]].concat()).unwrap();
            let mut bytes = Vec::new();
            let result = match what {
                0 => connected.query("SELECT").map(drop),
                _ => connected.copy_out("COPY").and_then(|mut out| {
                    while out.read(&mut bytes, 3)? == CopyRead::More {}
                    Ok(())
                }),
            };
            let (kind, text) = failure(result);
            assert_eq!(kind, ErrorKind::Retry, "{length} bytes: {text}");
            assert!(connected.is_broken());
        }
    }
    let whole = welcome();
    for length in 0..whole.len() {
        assert_eq!(failure(client(whole[..length].to_vec()).map(drop)).0, ErrorKind::Retry, "{length} bytes");
    }
}

#[test]
fn a_copy_needs_every_part_of_its_end() {
    let parts = [message(b'c', b""), message(b'C', b"COPY 1\0"), message(b'Z', b"I")];
    for missing in 0..3 {
        let mut says = [welcome(), message(b'H', b"\0\0\0"), message(b'd', b"x\n")].concat();
        says.extend(parts.iter().enumerate().filter(|(at, _)| *at != missing).flat_map(|(_, part)| part.clone()));
        let mut connected = client(says).unwrap();
        let mut out = connected.copy_out("COPY").unwrap();
        out.read(&mut Vec::new(), 1000).unwrap_err();
    }
    let error = message(b'E', b"SERROR\0C53100\0Mno room\0\0");
    let says = [welcome(), message(b'H', b"\0\0\0"), message(b'd', b"x\n"), error, parts[2].clone()].concat();
    let mut connected = client(says).unwrap();
    let result = connected.copy_out("COPY").unwrap().read(&mut Vec::new(), 1000);
    assert_eq!(failure(result).0, ErrorKind::NoSpace);
    assert!(!connected.is_broken());
}

#[test]
fn claimed_lengths_cost_no_memory() {
    for (tag, length) in [(b'D', u32::MAX / 2), (b'd', u32::MAX / 2), (b'E', 1 << 30), (b'N', 1 << 30), (b'T', 1 << 30)]
    {
        for head in [vec![], message(b'H', b"\0\0\0"), message(b'T', b"\0\0")] {
            let peak = peak_above_now(|| {
                let mut says = [welcome(), head].concat();
                says.push(tag);
                says.extend_from_slice(&length.to_be_bytes());
                says.extend_from_slice(&[b'x'; 3_000_000]);
                for what in 0..4 {
                    use_it(client(says.clone()).unwrap(), what).unwrap_err();
                }
            });
            assert!(peak < 40 << 20, "{:?}: {peak}", char::from(tag));
        }
    }
    for length in [0_u32, 3, 0x8000_0000, u32::MAX] {
        for tag in *b"DdEZ" {
            let lie = [&[tag][..], &length.to_be_bytes()].concat();
            let says = [welcome(), message(b'H', b"\0\0\0"), lie].concat();
            assert_eq!(failure(use_it(client(says).unwrap(), 2)).0, ErrorKind::Corrupt, "{tag} {length}");
        }
    }
}

#[test]
fn a_server_that_never_stops_talking_does_not_fill_memory() {
    let notice = message(b'N', &[b"SNOTICE\0M".as_slice(), &[b'x'; 60_000], b"\0\0"].concat());
    let parameter = |number: u32| message(b'S', format!("p{number}\0{}\0", "v".repeat(100)).as_bytes());
    let notices = [welcome(), notice.repeat(2_000)].concat();
    let parameters = [welcome(), (0..100_000).flat_map(parameter).collect()].concat();
    for (says, kind) in [(notices, ErrorKind::Retry), (parameters, ErrorKind::Corrupt)] {
        let peak = peak_above_now(|| {
            let (found, text) = failure(use_it(client(says).unwrap(), 0));
            assert_eq!(found, kind, "{text}");
        });
        assert!(peak < 40 << 20, "{peak}");
    }
}

#[test]
fn signing_in_cannot_be_led_astray() {
    let sasl = |code: u8, body: &[u8]| message(b'R', &[&[0, 0, 0, code], body].concat());
    let ok = message(b'R', &[0; 4]);
    let table: [(&str, Vec<u8>); 8] = [
        ("let in before the server has proved itself", [sasl(10, b"SCRAM-SHA-256\0\0"), ok.clone()].concat()),
        ("another nonce", [sasl(10, b"SCRAM-SHA-256\0\0"), sasl(11, b"r=x,s=AAAA,i=4096"), ok.clone()].concat()),
        ("asked twice", [message(b'R', &[0, 0, 0, 3]), message(b'R', &[0, 0, 0, 3])].concat()),
        ("no mechanism", sasl(10, b"\0")),
        ("mechanisms without end", sasl(10, b"SCRAM-SHA-256")),
        ("a row", message(b'D', b"\0\0")),
        ("an unknown question", message(b'R', &[0, 0, 0, 99])),
        ("the end first", sasl(12, b"v=AAAA")),
    ];
    for (what, says) in table {
        let kind = failure(client(says).map(drop)).0;
        assert!(matches!(kind, ErrorKind::Corrupt | ErrorKind::Unsupported), "{what}: {kind:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_give_an_error_and_nothing_worse(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        is_let_in: bool,
        what: u8,
    ) {
        let says = if is_let_in { [welcome(), bytes].concat() } else { bytes };
        if let Ok(client) = client(says) {
            prop_assert!(use_it(client, what).is_err());
        }
    }

    #[test]
    fn messages_of_any_kind_and_content_give_an_error_and_nothing_worse(
        messages in prop::collection::vec(
            (prop::sample::select(b"123ACDEGHIKNRSTWZcdnstv".to_vec()), prop::collection::vec(any::<u8>(), 0..40)),
            0..12,
        ),
        is_let_in: bool,
        what: u8,
    ) {
        let lies = messages.iter().flat_map(|(tag, body)| message(*tag, body));
        let says: Vec<u8> = if is_let_in { welcome().into_iter().chain(lies).collect() } else { lies.collect() };
        if let Ok(client) = client(says) {
            let _ = use_it(client, what);
        }
    }

    #[test]
    fn changed_bytes_never_turn_a_copy_that_failed_into_one_that_ended(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut: prop::sample::Index,
        what: u8,
    ) {
        let mut says = if what.is_multiple_of(2) { copy() } else { answer() };
        for (at, byte) in changes {
            let at = at.index(says.len());
            says[at] = byte;
        }
        // Without its last message, which is where it would say that all is well.
        says.truncate(cut.index(says.len() - 6));
        let connected = client([welcome(), says].concat()).unwrap();
        let result = use_it(connected, if what.is_multiple_of(2) { 2 } else { 0 });
        prop_assert!(result.is_err());
    }
}
