//! A proxy that breaks what passes through it, as networks and busy servers do.
//!
//! It speaks just enough HTTP/1.1 to let one request through per connection and to know where a body begins, so that a
//! plan can decide about each request alone.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Pass,
    /// It is let through after a while.
    Delay(Duration),
    /// It is read and never answered.
    Stall,
    /// Its body is not read, and nothing is answered.
    StallUpload,
    /// So many bytes of the answer's body arrive, and then nothing more; the connection stays open.
    StallAfter(usize),
    /// So many bytes of the answer's body arrive, one at a time with this pause between them.
    Drip(Duration),
    /// The connection is reset before anything is read.
    Reset,
    /// So many bytes of the answer's body arrive, and the connection is closed.
    CutAfter(usize),
    /// It reaches the server and is carried out, and the answer is lost.
    LoseAnswer,
    /// The answer announces so many bytes more than come.
    PromiseMore(usize),
    /// The answer announces so many bytes less than come.
    PromiseLess(usize),
    /// It is answered as broken, with all that was asked in the answer's body, as debugging pages do.
    Echo,
    /// Its answer has this header too.
    AddHeader(&'static str, String),
    /// It is answered by this status with these headers and this body, and does not reach the server.
    Answer(u16, Vec<(&'static str, String)>, String),
}

impl Action {
    /// The answer of a server of S3 with an error code.
    pub fn error(status: u16, code: &str) -> Self {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>planted</Message></Error>");
        Self::Answer(status, vec![("content-type", "application/xml".to_owned())], body)
    }

    /// A server that is too busy, with the time after which to come back, in seconds.
    pub fn slow_down(retry_after_seconds: u64) -> Self {
        match Self::error(503, "SlowDown") {
            Self::Answer(status, mut headers, body) => {
                headers.push(("retry-after", retry_after_seconds.to_string()));
                Self::Answer(status, headers, body)
            }
            other => other,
        }
    }
}

/// The head of one request.
#[derive(Clone, Debug)]
pub struct Head {
    /// Its number among all, from 0.
    pub number: usize,
    /// Such as `PUT`.
    pub method: String,
    /// The path with its query.
    pub target: String,
    /// All of it.
    pub text: String,
}

type Plan = dyn Fn(&Head) -> Action + Send + Sync;

/// A running proxy. It ends when this is dropped, and so do the requests it holds.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    plan: Box<Plan>,
    seen: AtomicUsize,
    is_over: AtomicBool,
    /// Kept open until the end.
    held: Mutex<Vec<TcpStream>>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({})", self.address)
    }
}

impl Proxy {
    /// Listens on a free port and passes requests on to `upstream` as `plan` says.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(upstream: SocketAddr, plan: impl Fn(&Head) -> Action + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("the address that is listened at");
        let shared = Arc::new(Shared {
            upstream,
            plan: Box::new(plan),
            seen: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            held: Mutex::default(),
        });
        let of_listener = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if of_listener.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                let shared = of_listener.clone();
                std::thread::spawn(move || drop(shared.serve(client)));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have come.
    pub fn seen(&self) -> usize {
        self.shared.seen.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
        let mut held = self.shared.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        held.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

impl Shared {
    fn hold(&self, stream: TcpStream) {
        self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(stream);
    }

    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        client.set_nodelay(true)?;
        // A connection that is opened ahead and never used.
        if client.peek(&mut [0])? == 0 {
            return Ok(());
        }
        let (head, mut body) = peek_head(&mut client)?;
        let number = self.seen.fetch_add(1, Ordering::SeqCst);
        let mut words = head.split_whitespace();
        let mut word = || words.next().unwrap_or_default().to_owned();
        let head = Head { number, method: word(), target: word(), text: head };
        let length = header(&head.text, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let action = (self.plan)(&head);
        match &action {
            // What was sent is not read to its end: closing now makes the system reset the connection.
            Action::Reset => return reset(&client),
            Action::StallUpload => {
                self.hold(client);
                return Ok(());
            }
            Action::Delay(pause) => std::thread::sleep(*pause),
            _ => {}
        }
        read_to(&mut client, &mut body, length)?;
        match &action {
            Action::Stall => {
                self.hold(client);
                return Ok(());
            }
            Action::Answer(status, headers, text) => {
                let mut answer =
                    format!("HTTP/1.1 {status} Planted\r\nconnection: close\r\ncontent-length: {}\r\n", text.len());
                headers.iter().for_each(|(name, value)| answer.push_str(&format!("{name}: {value}\r\n")));
                let text = if head.method == "HEAD" { "" } else { text };
                return client.write_all(format!("{answer}\r\n{text}").as_bytes());
            }
            _ => {}
        }
        if action == Action::Echo {
            let text = format!("<Error><Code>InternalError</Code><Message>{}</Message></Error>", one_line(&head.text));
            let answer = format!("HTTP/1.1 500 Planted\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", text.len());
            let text = if head.method == "HEAD" { "" } else { &text };
            return client.write_all(format!("{answer}{text}").as_bytes());
        }
        let mut server = TcpStream::connect(self.upstream)?;
        // One request a connection, so that each can be decided about.
        let (line, rest) = head.text.split_once("\r\n").unwrap_or((&head.text, ""));
        server.write_all(format!("{line}\r\nconnection: close\r\n{rest}").as_bytes())?;
        // A server that answers before it has read all may close at once; its answer is what counts.
        let _ = server.write_all(&body);
        let (mut answer, mut start) = peek_head(&mut server)?;
        if action == Action::LoseAnswer {
            server.read_to_end(&mut start)?;
            return Ok(());
        }
        let announced = header(&answer, "content-length").and_then(|value| value.parse::<usize>().ok());
        let lie = match action {
            Action::PromiseMore(more) => Some(announced.unwrap_or(0) + more),
            Action::PromiseLess(less) => announced.map(|announced| announced.saturating_sub(less)),
            _ => None,
        };
        if let Some(lie) = lie {
            answer = with_header(&answer, "content-length", &lie.to_string());
        }
        if let Action::AddHeader(name, value) = &action {
            answer = with_header(&answer, name, value);
        }
        client.write_all(answer.as_bytes())?;
        self.pass_body(&action, client, server, start)
    }

    fn pass_body(
        &self,
        action: &Action,
        mut client: TcpStream,
        mut server: TcpStream,
        start: Vec<u8>,
    ) -> std::io::Result<()> {
        let mut left = match action {
            Action::StallAfter(bytes) | Action::CutAfter(bytes) => *bytes,
            _ => usize::MAX,
        };
        let mut piece = start;
        loop {
            let take = piece.len().min(left);
            if let Action::Drip(pause) = action {
                for byte in &piece[..take] {
                    client.write_all(&[*byte])?;
                    std::thread::sleep(*pause);
                }
            } else {
                client.write_all(&piece[..take])?;
            }
            left -= take;
            if left == 0 {
                if matches!(action, Action::StallAfter(_)) {
                    self.hold(client);
                }
                return Ok(());
            }
            piece.resize(64 << 10, 0);
            let read = server.read(&mut piece)?;
            if read == 0 {
                return Ok(());
            }
            piece.truncate(read);
        }
    }
}

/// As HTTP's basic authentication writes user and password.
pub fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(text)
}

/// Closes so that the peer learns of it by a reset.
fn reset(client: &TcpStream) -> std::io::Result<()> {
    rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))?;
    Ok(())
}

/// A head with the blank line after it, and what was read beyond.
fn peek_head(stream: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = read.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&read).into_owned(), rest));
        }
        match stream.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => read.extend_from_slice(&piece[..length]),
        }
    }
}

fn read_to(stream: &mut TcpStream, body: &mut Vec<u8>, length: usize) -> std::io::Result<()> {
    let from = body.len();
    if from < length {
        body.resize(length, 0);
        stream.read_exact(&mut body[from..])?;
    }
    Ok(())
}

fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join("; ")
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Signed by nobody: answers are not.
fn with_header(head: &str, name: &str, value: &str) -> String {
    let is_it = |line: &str| line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name));
    let lines = head.trim_end().split("\r\n").filter(|line| !is_it(line));
    lines.map(|line| format!("{line}\r\n")).chain([format!("{name}: {value}\r\n\r\n")]).collect()
}
