//! A line between a client and a server that passes every byte on: later, or until it breaks.
//!
//! Unlike [`crate::proxy`] it understands nothing of what passes, so that it serves every protocol, with many requests on
//! one connection. It delays without limiting how much flows.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Pieces on their way in one direction of one connection. With [`PIECE_BYTES`] far more than any protocol has in flight.
const PIECES_MAX: usize = 4096;
const PIECE_BYTES: usize = 64 << 10;

/// How a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Nothing passes any more, and nobody is told.
    Stall,
    /// Both ends are told that the other has hung up.
    Cut,
    /// The client is told that the connection is broken.
    Reset,
}

/// After so many bytes, both directions together, a connection breaks so.
pub type Trouble = (u64, Break);

type Plan = dyn Fn(usize) -> Option<Trouble> + Send + Sync;

/// A running line. It ends when this is dropped, with all its connections.
pub struct Line {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    delay: Duration,
    plan: Box<Plan>,
    seen: AtomicUsize,
    broken: AtomicUsize,
    bytes: AtomicU64,
    is_over: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

/// One connection.
struct Link {
    client: TcpStream,
    server: TcpStream,
    trouble: Option<Trouble>,
    passed: AtomicU64,
    is_broken: AtomicBool,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Line({})", self.address)
    }
}

impl Line {
    /// Listens on a free port and passes everything on to `upstream` and back, `delay` later each way.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn slow(upstream: SocketAddr, delay: Duration) -> Self {
        Self::start(upstream, delay, |_| None)
    }

    /// The same; connections, counted from 0, break as `plan` says.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(
        upstream: SocketAddr,
        delay: Duration,
        plan: impl Fn(usize) -> Option<Trouble> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("the address that is listened at");
        let shared = Arc::new(Shared {
            upstream,
            delay,
            plan: Box::new(plan),
            seen: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            streams: Mutex::default(),
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

    /// How many connections have come.
    pub fn seen(&self) -> usize {
        self.shared.seen.load(Ordering::SeqCst)
    }

    /// How many of them broke.
    pub fn broken(&self) -> usize {
        self.shared.broken.load(Ordering::SeqCst)
    }

    /// Bytes that passed, both ways together.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
        let mut streams = self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, client: TcpStream) -> std::io::Result<()> {
        let number = self.seen.fetch_add(1, Ordering::SeqCst);
        let trouble = (self.plan)(number);
        // What opening a connection costs where the server is far.
        std::thread::sleep(self.delay * 2);
        let server = TcpStream::connect(self.upstream)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            self.streams.lock().unwrap_or_else(PoisonError::into_inner).push(stream.try_clone()?);
        }
        let link = Arc::new(Link { client, server, trouble, passed: AtomicU64::new(0), is_broken: false.into() });
        let (there, back) = (link.clone(), link.clone());
        let (shared, of_back) = (self.clone(), self.clone());
        std::thread::spawn(move || shared.carry(&there, &there.client, &there.server));
        of_back.carry(&back, &back.server, &back.client);
        Ok(())
    }

    /// One direction, until either end is done.
    fn carry(&self, link: &Link, from: &TcpStream, to: &TcpStream) {
        if self.delay.is_zero() {
            let mut piece = vec![0; PIECE_BYTES];
            while let Some(read) = self.next(link, from, &mut piece) {
                if (&mut &*to).write_all(&piece[..read]).is_err() {
                    break;
                }
            }
        } else {
            let (sender, receiver) = sync_channel::<(Instant, Vec<u8>)>(PIECES_MAX);
            std::thread::scope(|scope| {
                scope.spawn(move || deliver(&receiver, to));
                let mut piece = vec![0; PIECE_BYTES];
                while let Some(read) = self.next(link, from, &mut piece) {
                    if sender.send((Instant::now() + self.delay, piece[..read].to_vec())).is_err() {
                        break;
                    }
                }
                drop(sender);
            });
        }
        if !link.is_broken.load(Ordering::SeqCst) {
            let _ = to.shutdown(Shutdown::Write);
        }
    }

    /// Reads what may pass; `None` when nothing does any more.
    fn next(&self, link: &Link, mut from: &TcpStream, piece: &mut [u8]) -> Option<usize> {
        let read = from.read(piece).ok().filter(|read| *read > 0)?;
        if link.is_broken.load(Ordering::SeqCst) {
            return None;
        }
        let passed = link.passed.fetch_add(read as u64, Ordering::SeqCst) + read as u64;
        let Some((_, how)) = link.trouble.filter(|(after, _)| passed > *after) else {
            self.bytes.fetch_add(read as u64, Ordering::SeqCst);
            return Some(read);
        };
        if !link.is_broken.swap(true, Ordering::SeqCst) {
            self.broken.fetch_add(1, Ordering::SeqCst);
            match how {
                Break::Stall => {}
                Break::Cut => [&link.client, &link.server].into_iter().for_each(|s| drop(s.shutdown(Shutdown::Both))),
                Break::Reset => {
                    let _ = rustix::net::sockopt::set_socket_linger(&link.client, Some(Duration::ZERO));
                    // Wakes the other direction, so that the last handle is closed; the kernel then resets.
                    let _ = link.client.shutdown(Shutdown::Read);
                    let _ = link.server.shutdown(Shutdown::Both);
                    let address = link.client.peer_addr().ok();
                    let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
                    streams.retain(|stream| stream.peer_addr().ok() != address);
                }
            }
        }
        None
    }
}

/// Hands pieces over when their time has come.
fn deliver(pieces: &Receiver<(Instant, Vec<u8>)>, mut to: &TcpStream) {
    while let Ok((due, piece)) = pieces.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte with the next one.
    fn successor() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&[byte[0] + 1]).is_ok() {}
                });
            }
        });
        address
    }

    fn ask(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_all(&[1])?;
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    #[test]
    fn a_slow_line_delays_each_way_and_breaks_nothing() {
        let line = Line::slow(successor(), Duration::from_millis(30));
        let mut stream = TcpStream::connect(line.address()).unwrap();
        ask(&mut stream).unwrap();
        let begun = Instant::now();
        assert_eq!(ask(&mut stream).unwrap(), 2);
        assert!(begun.elapsed() >= Duration::from_millis(60), "{:?}", begun.elapsed());
        assert_eq!((line.seen(), line.broken(), line.bytes()), (1, 0, 4));
    }

    #[test]
    fn a_line_breaks_as_planned() {
        for (how, expected) in [
            (Break::Stall, std::io::ErrorKind::WouldBlock),
            (Break::Cut, std::io::ErrorKind::UnexpectedEof),
            (Break::Reset, std::io::ErrorKind::ConnectionReset),
        ] {
            let line = Line::start(successor(), Duration::ZERO, move |n| (n == 0).then_some((4, how)));
            let mut stream = TcpStream::connect(line.address()).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            assert_eq!(ask(&mut stream).unwrap(), 2);
            assert_eq!(ask(&mut stream).unwrap(), 2);
            assert_eq!(ask(&mut stream).unwrap_err().kind(), expected, "{how:?}");
            assert_eq!(line.broken(), 1);
            let mut next = TcpStream::connect(line.address()).unwrap();
            assert_eq!(ask(&mut next).unwrap(), 2, "the next one is sound");
        }
    }
}
