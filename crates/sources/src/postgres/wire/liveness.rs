//! Whether a server that says nothing is still at work for us.
//!
//! Keepalives notice a machine that is gone. They notice nothing when something on the way, such as a proxy or a
//! firewall, keeps a connection open and carries nothing over it. A limit on silence would not do: an index may take
//! hours. So after a while of silence somebody knocks at the server anew, and asks it what our session does:
//!
//! - It works: then we wait on. But while it copies rows to us, it must come forward: a process that was stopped, or that
//!   hangs in the kernel, says that it works for ever.
//! - It waits for us, as we wait for it, or it is no more: what one of us said was lost, and nothing will ever come.
//! - Nobody answers the knocking: the network or the server is gone.
//!
//! Each of the last two must be found twice in a row, as an answer may have been on its way. Whatever else comes of
//! asking (no room for another session, another server behind the same name) proves nothing, and we wait on. Asking is
//! done by a thread of its own, so that a wish to stop is heard meanwhile.
//!
//! For a program that we have started, such as `pg_dump`, the same is asked by the name that its session bears.

use super::super::conninfo::Conninfo;
use super::super::sql::literal;
use super::connect::{Encryption, agrees};
use super::errors::sqlstate;
use super::rows::Row;
use super::socket::{Address, Patience, Socket};
use super::{Client, Timeouts, connect};
use lastgood_model::{Error, ErrorKind, Result};
use std::io;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Silence before the first question, when keepalives are sent after a time that the system chooses.
const SILENCE_DEFAULT: Duration = Duration::from_secs(60);
/// Time before the second question, at most.
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// How long the server may take to answer a question, when an attempt to connect may take for ever.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How often one thing must be found.
const FINDINGS: u32 = 2;
/// A server that copies rows to us reads the next of them in far less than this.
const STANDSTILL: Duration = Duration::from_secs(10 * 60);
/// A program may think for itself for so many times longer than a server that we wait for.
const THINKING: u32 = 5;
/// The server cuts names off at 63 bytes; so much of ours remains.
const NAME_MAX: usize = 40;

/// Our session as the server names it to others. Process ids come again; together with these moments they do not. In
/// microseconds, as the text of a fraction depends on settings.
const WHO: &str = "SELECT a.pid, (pg_catalog.date_part('epoch', a.backend_start) * 1000000)::pg_catalog.int8, \
                   (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8 \
                   FROM pg_catalog.pg_stat_activity a WHERE a.pid = pg_catalog.pg_backend_pid()";

/// Knows how to ask for a session.
#[derive(Debug)]
pub(super) struct Watch {
    info: Conninfo,
    address: Address,
    whose: Whose,
    silence: Duration,
}

/// Which session it is.
#[derive(Debug)]
enum Whose {
    /// Our own. The moments are in microseconds, as the server wrote them.
    Ours { pid: i32, backend_start: i64, server_start: i64 },
    /// That of a program, by its application name.
    Named(String),
}

/// What asking has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// The session works.
    AtWork,
    /// It copies rows to us, and has done so many bytes.
    Copies(i64),
    /// It waits for us, since that moment.
    Waits(String),
    /// There is no such session any more.
    Gone,
    /// Nobody answered at all.
    Silent,
    /// Nothing could be learnt.
    Unknown,
}

/// Looks after one wait.
#[derive(Debug)]
pub(super) struct Inquiry {
    watch: Arc<Watch>,
    next: Instant,
    asked: Option<Receiver<Finding>>,
    last: Finding,
    times: u32,
    /// Since when it is the same.
    since: Instant,
}

impl Watch {
    /// For the session of `client`, which must be in no transaction. `None` when keepalives, which this adds to, are not
    /// wanted, or when the server does not tell.
    pub(super) fn over(client: &mut Client) -> Result<Option<Self>> {
        if !is_wanted(client) {
            return Ok(None);
        }
        // Nobody watches over this one.
        let usual = client.timeouts;
        let patience = client.info.options.connect_timeout.unwrap_or(ANSWER_MAX);
        client.set_timeouts(Timeouts { answer: Some(patience), ..usual });
        let rows = client.query(WHO);
        client.set_timeouts(usual);
        let rows = rows?;
        let Some(row) = rows.get(0) else { return Ok(None) };
        if row.optional(1)?.is_none() {
            return Ok(None);
        }
        let (backend_start, server_start) = (row.parse(1)?, row.parse(2)?);
        let whose = Whose::Ours { pid: row.parse(0)?, backend_start, server_start };
        Ok(Some(Self::new(client, whose)))
    }

    fn new(client: &Client, whose: Whose) -> Self {
        Self {
            info: client.info.clone(),
            address: client.canceller.address().clone(),
            whose,
            silence: client.info.options.keepalives.idle.unwrap_or(SILENCE_DEFAULT),
        }
    }

    fn patience(&self) -> Duration {
        self.info.options.connect_timeout.unwrap_or(ANSWER_MAX)
    }

    /// Asks, and takes as long as [`Self::patience`] a few times over at most.
    fn ask(&self) -> Finding {
        if let Err(error) = self.knock()
            && sqlstate(&error).is_none()
        {
            return Finding::Silent;
        }
        self.ask_server().unwrap_or(Finding::Unknown)
    }

    /// Whether there is anybody. Every server, and whoever shares connections between several, answers at once whether
    /// it can encrypt.
    fn knock(&self) -> Result<()> {
        let patience = Patience { deadline: Some(Instant::now() + self.patience()), ..Patience::default() };
        let socket = Socket::connect(&self.address, &self.info, &patience)?;
        agrees(&socket, Encryption::Try, &patience).map(drop)
    }

    fn ask_server(&self) -> Result<Finding> {
        let mut client = connect::connect(&self.info)?;
        client.set_timeouts(Timeouts { answer: Some(self.patience()), copy: None });
        match &self.whose {
            Whose::Ours { pid, backend_start, server_start } => {
                let copied = match client.server_version() {
                    140_000.. => {
                        "(SELECT c.bytes_processed FROM pg_catalog.pg_stat_progress_copy c \
                          WHERE c.pid OPERATOR(pg_catalog.=) a.pid AND c.command OPERATOR(pg_catalog.=) 'COPY TO' \
                            AND a.wait_event_type IS DISTINCT FROM 'Lock')"
                    }
                    _ => "NULL",
                };
                let rows = client.query(&format!(
                    "SELECT a.state, a.wait_event_type, pg_catalog.date_part('epoch', a.state_change), a.pid, \
                       (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8 \
                         OPERATOR(pg_catalog.=) {server_start}, {copied} \
                     FROM (SELECT) one LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) {pid} \
                       AND (pg_catalog.date_part('epoch', a.backend_start) * 1000000)::pg_catalog.int8 \
                         OPERATOR(pg_catalog.=) {backend_start}"
                ))?;
                let row = rows.only()?;
                match (row.is_true(4)?, row.optional(3)?) {
                    (false, _) => Ok(Finding::Unknown),
                    (true, None) => Ok(Finding::Gone),
                    (true, Some(_)) => Ok(match (finding(row)?, row.optional(5)?) {
                        (Finding::AtWork, Some(_)) => Finding::Copies(row.parse(5)?),
                        (found, _) => found,
                    }),
                }
            }
            Whose::Named(name) => {
                let rows = client.query(&format!(
                    "SELECT a.state, a.wait_event_type, pg_catalog.date_part('epoch', a.state_change) \
                     FROM pg_catalog.pg_stat_activity a WHERE a.application_name OPERATOR(pg_catalog.=) {}",
                    literal(name)
                ))?;
                // With none it may not have begun, or be elsewhere; with several it is not known which is meant.
                if rows.len() == 1 { finding(rows.only()?) } else { Ok(Finding::Unknown) }
            }
        }
    }
}

/// Whether it is to be noticed when the server, or what comes between us and it, stands still.
fn is_wanted(client: &Client) -> bool {
    client.info.options.keepalives.is_on
}

/// From state, what is waited for, and since when.
fn finding(row: Row<'_>) -> Result<Finding> {
    Ok(match (row.optional(0)?, row.optional(1)?) {
        (None | Some("disabled"), _) => Finding::Unknown,
        (Some("active" | "fastpath function call"), waits_for) if waits_for != Some("Client") => Finding::AtWork,
        (Some(_), _) => Finding::Waits(row.optional(2)?.unwrap_or_default().to_owned()),
    })
}

/// Looks after a program that connects to the server of a [`Client`] by itself.
#[derive(Debug)]
pub struct Vigil {
    /// The application name that it must connect with.
    pub name: String,
    inquiry: Option<Mutex<Inquiry>>,
}

impl Vigil {
    pub(super) fn new(client: &Client, program: &str) -> Self {
        let own = client.info.application_name();
        let end = (0..=own.len().min(NAME_MAX)).rev().find(|&at| own.is_char_boundary(at)).unwrap_or(0);
        // Nobody else has this process id as long as our session lives.
        let name = format!("{} {program} {}", &own[..end], client.backend_pid);
        let inquiry = is_wanted(client).then(|| {
            let mut watch = Watch::new(client, Whose::Named(name.clone()));
            watch.silence *= THINKING;
            Mutex::new(Inquiry::new(Arc::new(watch), Instant::now()))
        });
        Self { name, inquiry }
    }

    /// To be called again and again while the program runs. Does not wait.
    ///
    /// # Errors
    /// [`ErrorKind::Retry`] once it is known that the program waits in vain.
    pub fn check(&self) -> Result<()> {
        let Some(inquiry) = &self.inquiry else { return Ok(()) };
        inquiry.lock().unwrap_or_else(PoisonError::into_inner).go_on().map_err(|error| {
            let message = "the server and a program that describes it wait for each other";
            Error::new(ErrorKind::Retry, message).with_source(error).with_hint("is the network broken?")
        })
    }
}

impl Inquiry {
    /// For a wait that began at this moment.
    pub(super) fn new(watch: Arc<Watch>, began: Instant) -> Self {
        let next = began + watch.silence;
        Self { watch, next, asked: None, last: Finding::Unknown, times: 0, since: began }
    }

    /// Asks when it is time, and fails once it is known that waiting is in vain.
    pub(super) fn go_on(&mut self) -> io::Result<()> {
        match &self.asked {
            Some(answer) => match answer.try_recv() {
                Ok(finding) => self.hear(finding),
                Err(TryRecvError::Empty) => Ok(()),
                Err(TryRecvError::Disconnected) => self.hear(Finding::Unknown),
            },
            None if Instant::now() >= self.next => {
                let (answer, asked) = channel();
                let watch = Arc::clone(&self.watch);
                let thread = std::thread::Builder::new().name("postgres-watch".to_owned());
                // Nobody may listen any more when the answer comes.
                let spawned = thread.spawn(move || drop(answer.send(watch.ask())));
                self.asked = spawned.is_ok().then_some(asked);
                self.next = Instant::now() + self.watch.silence;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn hear(&mut self, finding: Finding) -> io::Result<()> {
        self.asked = None;
        if finding != self.last {
            (self.times, self.since) = (0, Instant::now());
        }
        self.times += 1;
        let stands_still = matches!(finding, Finding::Copies(_)) && self.since.elapsed() >= STANDSTILL;
        let is_bad = matches!(finding, Finding::Waits(_) | Finding::Gone | Finding::Silent) || stands_still;
        let wait = if is_bad { self.watch.silence.min(AGAIN_MAX) } else { self.watch.silence };
        self.next = Instant::now() + wait;
        self.last = finding;
        if !is_bad || self.times < FINDINGS {
            return Ok(());
        }
        let found = match &self.last {
            Finding::Silent => "nobody answers at its address any more",
            Finding::Copies(_) => {
                "its process says that it works, and has not read a byte of the table for 10 minutes: it was stopped, or its disk \
                 does not answer"
            }
            Finding::Gone => "the server has ended our session, and we were not told",
            _ => "the server waits for us as we wait for it: what one of us said was lost on the way",
        };
        Err(io::Error::new(io::ErrorKind::TimedOut, found))
    }
}
