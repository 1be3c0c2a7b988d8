//! A network between lastgood and a server that can fail: every byte goes through here.

use anyhow::Result;
use rustix::net::sockopt::set_socket_linger;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a thread looks whether the weather has changed.
const TICK: Duration = Duration::from_millis(20);

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Weather {
    /// Bytes pass.
    Fair,
    /// Nothing passes any more, and nobody is told.
    Stalled,
    /// Both ends are told that the other has hung up.
    Cut,
    /// Both ends are told that the connection is broken.
    Reset,
}

impl Weather {
    fn of(number: u8) -> Self {
        match number {
            0 => Self::Fair,
            1 => Self::Stalled,
            2 => Self::Cut,
            _ => Self::Reset,
        }
    }
}

/// The network. It ends with the value.
pub(super) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

struct Shared {
    server: SocketAddr,
    links: Mutex<Vec<Arc<Link>>>,
    /// For connections to come.
    weather: AtomicU8,
    bytes: AtomicU64,
    /// A connection has met weather that is not fair since it was mended last.
    is_felt: AtomicBool,
    is_over: AtomicBool,
}

/// One connection.
struct Link {
    client: TcpStream,
    server: TcpStream,
    weather: AtomicU8,
    is_over: AtomicBool,
}

impl Proxy {
    /// Listens for connections to the server at this port.
    pub(super) fn before(server: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            server: (Ipv4Addr::LOCALHOST, server).into(),
            links: Mutex::default(),
            weather: AtomicU8::new(Weather::Fair as u8),
            bytes: AtomicU64::new(0),
            is_felt: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let ours = Arc::clone(&shared);
        let listener = std::thread::spawn(move || listen(&listener, &ours));
        Ok(Self { port, shared, listener: Some(listener) })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// How many bytes have passed.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Changes the weather for one of the connections, chosen by `draw`, or for all of them and those to come. False
    /// when there is none.
    pub(super) fn change(&self, weather: Weather, draw: Option<u64>) -> bool {
        let links = self.shared.links.lock().unwrap_or_else(PoisonError::into_inner);
        match draw {
            Some(_) if links.is_empty() => {}
            Some(draw) => links[draw as usize % links.len()].set(weather),
            None => {
                self.shared.weather.store(weather as u8, Ordering::Relaxed);
                links.iter().for_each(|link| link.set(weather));
            }
        }
        if !links.is_empty() && weather != Weather::Fair {
            self.shared.is_felt.store(true, Ordering::Relaxed);
        }
        !links.is_empty()
    }

    /// Whether anybody has met other than fair weather since the last mending; also who came after it had changed.
    pub(super) fn is_felt(&self) -> bool {
        self.shared.is_felt.load(Ordering::Relaxed)
    }

    /// Breaks what did not end by itself; from now on connections are as they should be.
    pub(super) fn mend(&self) {
        self.change(Weather::Reset, None);
        self.shared.weather.store(Weather::Fair as u8, Ordering::Relaxed);
        self.shared.is_felt.store(false, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.change(Weather::Reset, None);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn listen(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.is_over.load(Ordering::Relaxed) {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(TICK / 4);
            continue;
        };
        // Whoever calls a server that is not there is refused as the server would.
        let Ok(server) = TcpStream::connect(shared.server) else { continue };
        if begin(client, server, shared).is_err() {
            continue;
        }
    }
}

fn begin(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    for end in [&client, &server] {
        end.set_nonblocking(false)?;
        end.set_nodelay(true)?;
        end.set_read_timeout(Some(TICK))?;
        end.set_write_timeout(Some(TICK))?;
    }
    let weather = AtomicU8::new(shared.weather.load(Ordering::Relaxed));
    if weather.load(Ordering::Relaxed) != Weather::Fair as u8 {
        shared.is_felt.store(true, Ordering::Relaxed);
    }
    let link = Arc::new(Link { client, server, weather, is_over: AtomicBool::new(false) });
    shared.links.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&link));
    for to_server in [true, false] {
        let (link, shared) = (Arc::clone(&link), Arc::clone(shared));
        std::thread::spawn(move || {
            link.carry(to_server, &shared.bytes);
            link.end();
            // Its ends are closed with the last one who holds them.
            shared.links.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| !Arc::ptr_eq(one, &link));
        });
    }
    Ok(())
}

impl Link {
    fn set(&self, weather: Weather) {
        self.weather.store(weather as u8, Ordering::Relaxed);
    }

    fn weather(&self) -> Weather {
        Weather::of(self.weather.load(Ordering::Relaxed))
    }

    /// True while it is fair; waits while it is stalled.
    fn goes_on(&self) -> bool {
        while self.weather() == Weather::Stalled && !self.is_over.load(Ordering::Relaxed) {
            std::thread::sleep(TICK);
        }
        self.weather() == Weather::Fair && !self.is_over.load(Ordering::Relaxed)
    }

    /// Carries bytes in one direction until one end hangs up, or the weather ends it.
    fn carry(&self, to_server: bool, bytes: &AtomicU64) {
        let (mut from, mut to) = if to_server { (&self.client, &self.server) } else { (&self.server, &self.client) };
        let mut buffer = vec![0; 16 * 1024];
        while self.goes_on() {
            let length = match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => length,
                Err(error) if is_a_wait(&error) => continue,
                Err(_) => return,
            };
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                if !self.goes_on() {
                    return;
                }
                match to.write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if is_a_wait(&error) => {}
                    Err(_) => return,
                }
            }
            bytes.fetch_add(length as u64, Ordering::Relaxed);
        }
    }

    fn end(&self) {
        if self.is_over.swap(true, Ordering::Relaxed) {
            return;
        }
        for end in [&self.client, &self.server] {
            if self.weather() == Weather::Reset {
                // What is sent when the last handle is closed is then a reset.
                let _ = set_socket_linger(end, Some(Duration::ZERO));
            } else {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }
}

fn is_a_wait(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says what it hears, and one connection to it.
    fn echo() -> (Proxy, TcpStream) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy::before(server.local_addr().unwrap().port()).unwrap();
        std::thread::spawn(move || {
            let (mut end, _) = server.accept().unwrap();
            let mut buffer = [0; 16];
            while let Ok(length @ 1..) = end.read(&mut buffer) {
                if end.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
        });
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        (proxy, client)
    }

    fn hear(client: &mut TcpStream) -> std::io::Result<usize> {
        client.write_all(b"hello").and_then(|()| client.read(&mut [0; 16]))
    }

    #[test]
    fn each_weather_is_felt_by_the_client() {
        let (proxy, mut client) = echo();
        assert_eq!(hear(&mut client).unwrap(), 5);
        assert!(proxy.change(Weather::Stalled, Some(7)));
        assert!(is_a_wait(&hear(&mut client).unwrap_err()));
        assert!(proxy.change(Weather::Fair, None));
        assert_eq!(client.read(&mut [0; 16]).unwrap(), 5);
        assert!(proxy.change(Weather::Cut, None));
        assert_eq!(client.read(&mut [0; 16]).unwrap(), 0);

        let (proxy, mut client) = echo();
        assert_eq!(hear(&mut client).unwrap(), 5);
        proxy.mend();
        client.set_read_timeout(None).unwrap();
        let error = client.read(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}
