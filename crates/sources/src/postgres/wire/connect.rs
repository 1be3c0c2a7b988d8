//! Getting a session: hosts and their addresses in turn, encryption as it was asked for, signing in, and whether the
//! server is of the kind that was wanted. The order of things is libpq's.

use super::super::conninfo::{Conninfo, Host, SslMode, SslNegotiation, TargetSession, Tls};
use super::super::toc::Text;
use super::auth;
use super::cancel::Canceller;
use super::channel::Channel;
use super::errors::{nonsense, server_message, sqlstate};
use super::link::Link;
use super::socket::{Address, Patience, Socket, addresses, shown};
use super::tls::Session;
use super::{Client, Timeouts, Transaction};
use lastgood_model::{Error, ErrorKind, Result};
use postgres_protocol::message::backend::{self, Message};
use postgres_protocol::message::frontend;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Instant;

/// What to do about encryption in one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    /// None.
    No,
    /// If the server can.
    Try,
    /// Or not at all.
    Must,
}

/// Whether other hosts may still be tried after a failure.
struct Failure {
    error: Error,
    is_final: bool,
}

pub(super) fn connect(info: &Conninfo) -> Result<Client> {
    let mut order: Vec<usize> = (0..info.hosts().len()).collect();
    if info.options.shuffles_hosts {
        shuffle(&mut order)?;
    }
    // A standby if there is one: two rounds.
    let targets: &[TargetSession] = match info.options.target {
        TargetSession::PreferStandby => &[TargetSession::Standby, TargetSession::Any],
        _ => std::slice::from_ref(&info.options.target),
    };
    let mut failures = Vec::new();
    for target in targets {
        failures.clear();
        for &index in &order {
            match connect_host(&info.with_only_host(index), *target) {
                Ok(client) => return Ok(client),
                Err(Failure { error, is_final: true }) => return Err(error),
                Err(Failure { error, .. }) => failures.push((index, error)),
            }
        }
    }
    match failures.len() {
        0 => Err(Error::new(ErrorKind::Bug, "no host to connect to")),
        1 => Err(failures.remove(0).1),
        _ => {
            let kind = failures.last().map_or(ErrorKind::Retry, |(_, error)| error.kind());
            let hint = failures.iter().find_map(|(_, error)| error.hint().map(str::to_owned));
            let hosts = failures.iter().map(|(index, error)| format!("{}: {}", info.hosts()[*index], error.chain()));
            let reasons: Vec<String> = hosts.collect();
            let error = Error::new(kind, "no PostgreSQL server can be used").with_source(reasons.join("; "));
            Err(match hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            })
        }
    }
}

fn shuffle(order: &mut [usize]) -> Result<()> {
    for at in (1..order.len()).rev() {
        let mut random = [0; 4];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| Error::new(ErrorKind::Io, "get random numbers"))?;
        order.swap(at, u32::from_le_bytes(random) as usize % (at + 1));
    }
    Ok(())
}

/// Tries the addresses of the only host of `info`.
fn connect_host(info: &Conninfo, target: TargetSession) -> Result<Client, Failure> {
    let host = &info.hosts()[0];
    let found = addresses(host).map_err(|error| Failure { error, is_final: false })?;
    let mut last = None;
    for address in found {
        let patience = || Patience {
            deadline: info.options.connect_timeout.map(|timeout| Instant::now() + timeout),
            ..Patience::default()
        };
        let result = connect_address(info, host, &address, patience).and_then(|mut client| {
            let deadline = patience().deadline;
            client.link.channel.patience.deadline = deadline;
            check_target(&mut client, target)?;
            client.link.channel.patience = Patience::default();
            Ok(client)
        });
        match result {
            Ok(client) => return Ok(client),
            Err(error) => {
                // What a server says of us, another will say too; what it says of itself may differ.
                let code = sqlstate(&error);
                let is_final = code.is_some_and(|code| !matches!(code, "57P03" | "57P01" | "57P02" | "53300"));
                let error = explain(info, error).context(format!("connect to PostgreSQL at {host}"));
                if is_final {
                    return Err(Failure { error, is_final });
                }
                last = Some(Failure { error, is_final });
            }
        }
    }
    Err(last.unwrap_or_else(|| Failure {
        error: Error::new(ErrorKind::Retry, format!("host {host} has no address")),
        is_final: false,
    }))
}

/// What to do about being turned away. The server's own code is the same for several causes.
fn explain(info: &Conninfo, error: Error) -> Error {
    let Some(said) = server_message(&error) else { return error };
    let role = info.user();
    let hint = match said.sqlstate.as_str() {
        "28P01" => {
            let file = info.password_note().map(|note| format!("; {note}")).unwrap_or_default();
            format!(
                "correct the password of {role:?}: it is taken from the URL, else from PGPASSWORD, else from \
                 ~/.pgpass{file}. A server says the same of a role that does not exist; `lastgood doctor --grants \
                 SOURCE` prints what makes one"
            )
        }
        // Only where no password is asked for.
        "28000" if said.routine.as_deref() == Some("InitializeSessionUserId") => format!(
            "name another role than {role:?} in the URL, or make it: `lastgood doctor --grants SOURCE` prints what makes \
             one for captures"
        ),
        "28000" => "the server's pg_hba.conf says who may connect from where, and with or without TLS".to_owned(),
        _ => return error,
    };
    match error.hint() {
        Some(own) => {
            let hint = format!("{own} — {hint}");
            error.with_hint(hint)
        }
        None => error.with_hint(hint),
    }
}

/// Tries one address, with and without encryption as the mode says.
fn connect_address(info: &Conninfo, host: &Host, address: &Address, patience: impl Fn() -> Patience) -> Result<Client> {
    let tls = &info.options.tls;
    let attempt = |encryption| {
        let channel = open(info, host, address, tls, encryption, patience())?;
        start(info, address, channel)
    };
    if matches!(address, Address::Unix(_)) {
        return attempt(Encryption::No);
    }
    match tls.mode {
        SslMode::Disable => attempt(Encryption::No),
        // "Not without encryption" is 28000, as is every other refusal by host and user.
        SslMode::Allow => attempt(Encryption::No)
            .or_else(|error| if sqlstate(&error) == Some("28000") { attempt(Encryption::Must) } else { Err(error) }),
        SslMode::Prefer => attempt(Encryption::Try).or_else(|error| {
            let is_about_tls = match sqlstate(&error) {
                Some(code) => code == "28000",
                None => error.message().starts_with(TLS_FAILED),
            };
            // If this fails too, the first reason is the better one to tell.
            if is_about_tls { attempt(Encryption::No).map_err(|_| error) } else { Err(error) }
        }),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => attempt(Encryption::Must),
    }
}

/// How errors of [`Session::begin`] are told from others.
pub(super) const TLS_FAILED: &str = "agree on TLS";

/// A connection on which nothing was said yet but what concerns encryption.
pub(super) fn open(
    info: &Conninfo,
    host: &Host,
    address: &Address,
    tls: &Tls,
    encryption: Encryption,
    patience: Patience,
) -> Result<Channel> {
    let socket = Arc::new(Socket::connect(address, info, &patience)?);
    let wants = encryption != Encryption::No && !socket.is_local();
    let session = if wants && (tls.negotiation == SslNegotiation::Direct || agrees(&socket, encryption, &patience)?) {
        Some(Box::new(Session::begin(&socket, host, tls, &patience)?))
    } else {
        None
    };
    Ok(Channel::new(socket, session, patience))
}

/// Asks whether the server can encrypt. Reads one byte and no more: what follows belongs to the encrypted part.
pub(super) fn agrees(mut socket: &Socket, encryption: Encryption, patience: &Patience) -> Result<bool> {
    let mut request = bytes::BytesMut::new();
    frontend::ssl_request(&mut request);
    let asked = until_done(socket, true, patience, || match socket.write(&request) {
        Ok(count) if count < request.len() => Err(io::ErrorKind::WriteZero.into()),
        result => result,
    });
    let mut answer = [0];
    let answered = asked.and_then(|_| until_done(socket, false, patience, || (&mut &*socket).read(&mut answer)));
    let count = answered.map_err(|error| {
        let kind = if error.kind() == io::ErrorKind::Interrupted { ErrorKind::Cancelled } else { ErrorKind::Retry };
        Error::new(kind, "ask the server for encryption").with_source(error)
    })?;
    match (count, answer) {
        (1, [b'S']) => Ok(true),
        (1, [b'N']) if encryption == Encryption::Try => Ok(false),
        (1, [b'N']) => Err(Error::new(ErrorKind::Unsupported, "the server does not offer TLS")
            .with_hint("turn `ssl` on in the server, or ask for less with sslmode=prefer")),
        // Said in the open, so it may come from anyone: its text is not shown.
        (1, [b'E']) => Err(Error::new(ErrorKind::Retry, format!("{TLS_FAILED}: the server reports an error instead"))
            .with_hint("it may have no room for another connection; its log says")),
        (0, _) => Err(Error::new(ErrorKind::Retry, "the server closed the connection when asked for encryption")),
        _ => Err(nonsense("the answer to the wish for encryption is neither yes nor no")),
    }
}

fn until_done(
    socket: &Socket,
    to_write: bool,
    patience: &Patience,
    mut act: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match act() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.wait(to_write, patience)?,
            result => return result,
        }
    }
}

/// Signs in and waits until the server is ready.
pub(super) fn start(info: &Conninfo, address: &Address, channel: Channel) -> Result<Client> {
    let is_encrypted = channel.session().is_some();
    let mut link = Link::new(channel);
    link.put(|buffer| frontend::startup_message(info.startup(), buffer))?;
    link.send()?;
    auth::sign_in(&mut link, info)?;
    let mut key = (0, 0);
    loop {
        let frame = link.next()?;
        link.failure()?;
        match frame.tag {
            backend::READY_FOR_QUERY_TAG => {
                let cancelled = link.talk.cancelled.clone();
                let canceller = Canceller::new(info.clone(), address.clone(), is_encrypted, key, cancelled);
                let mut client = Client {
                    link,
                    info: info.clone(),
                    canceller,
                    backend_pid: key.0,
                    transaction: Transaction::Idle,
                    timeouts: Timeouts::default(),
                    text: Text::Utf8,
                };
                client.ready(frame)?;
                return Ok(client);
            }
            backend::BACKEND_KEY_DATA_TAG => match link.parse(frame)? {
                Message::BackendKeyData(body) => key = (body.process_id(), body.secret_key()),
                _ => return Err(nonsense("a key that is none")),
            },
            tag => return Err(nonsense(format_args!("a message {:?} while starting", char::from(tag)))),
        }
    }
}

/// Whether the server is what was asked for.
fn check_target(client: &mut Client, target: TargetSession) -> Result<()> {
    let (sql, wanted, what) = match target {
        TargetSession::Any | TargetSession::PreferStandby => return Ok(()),
        TargetSession::ReadWrite => ("SHOW transaction_read_only", "off", "takes no writes"),
        TargetSession::ReadOnly => ("SHOW transaction_read_only", "on", "takes writes"),
        TargetSession::Primary => ("SELECT pg_catalog.pg_is_in_recovery()", "f", "is a standby"),
        TargetSession::Standby => ("SELECT pg_catalog.pg_is_in_recovery()", "t", "is no standby"),
    };
    let rows = client.query(sql)?;
    if rows.only()?.text(0)? == wanted {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Retry, format!("the server {what}"))
        .with_hint("target_session_attrs asks for another kind of server"))
}

impl Client {
    /// The address that was taken, for people.
    pub fn address_shown(&self) -> String {
        shown(self.canceller.address())
    }
}
