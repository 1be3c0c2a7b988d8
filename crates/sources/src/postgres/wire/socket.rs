//! Sockets that never block by themselves: whoever uses them waits in one place, [`Socket::wait`], which knows
//! deadlines and the wish to stop.

use super::super::conninfo::{Conninfo, Host, Place, user_name};
use super::liveness::{Inquiry, Watch};
use lastgood_model::{Error, ErrorKind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the wish to stop is looked at while waiting.
const TICK: Duration = Duration::from_millis(200);
/// How long to leave a server's full queue alone before knocking again.
const KNOCK_AGAIN: Duration = Duration::from_millis(20);

/// A connected socket, in non-blocking mode.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Asked again and again while waiting; true ends the wait.
pub(crate) type Interrupt = Arc<dyn Fn() -> bool + Send + Sync>;

/// Until when to wait, and what may end the wait.
#[derive(Clone, Default)]
pub(super) struct Patience {
    /// A moment; for connecting.
    pub(super) deadline: Option<Instant>,
    /// Silence; for a server that stalls.
    pub(super) silence: Option<Duration>,
    pub(super) interrupt: Option<Interrupt>,
    /// Tells in a long silence whether the server is still at work.
    pub(super) watch: Option<Arc<Watch>>,
}

/// One place to connect to, once names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(std::path::PathBuf),
}

/// All addresses of a host. Looking up a name takes as long as the system's resolver allows itself.
pub(super) fn addresses(host: &Host) -> Result<Vec<Address>> {
    match &host.place {
        Place::Unix(folder) => Ok(vec![Address::Unix(Host::socket_path(folder, host.port))]),
        Place::Tcp { address: Some(address), .. } => Ok(vec![Address::Tcp(SocketAddr::new(*address, host.port))]),
        Place::Tcp { name, .. } => {
            if let Ok(address) = name.parse::<IpAddr>() {
                return Ok(vec![Address::Tcp(SocketAddr::new(address, host.port))]);
            }
            let found = (name.as_str(), host.port).to_socket_addrs();
            let found = found.map_err(|error| {
                Error::new(ErrorKind::Retry, format!("look up host {name:?}"))
                    .with_source(error)
                    .with_hint("is the host's name spelled right, and does name resolution work on this machine?")
            })?;
            Ok(found.map(Address::Tcp).collect())
        }
    }
}

impl Socket {
    /// Connects, and sets keepalives.
    pub(super) fn connect(address: &Address, info: &Conninfo, patience: &Patience) -> Result<Self> {
        let socket = match address {
            Address::Tcp(address) => Self::connect_tcp(address, patience),
            Address::Unix(path) => Self::connect_unix(path, patience),
        };
        let socket = socket.map_err(|error| refused(address, error))?;
        socket.tune(info).map_err(|error| Error::io("set up the socket", error))?;
        if let (Self::Unix(stream), Some(required)) = (&socket, &info.options.peer_required) {
            let peer = sockopt::socket_peercred(stream).map_err(|errno| Error::io("ask who listens", errno.into()))?;
            if user_name(peer.uid.as_raw()).as_deref() != Some(required) {
                let message = format!("the server at {} does not run as {required:?}", shown(address));
                return Err(Error::new(ErrorKind::Denied, message).with_hint("requirepeer asks for that user"));
            }
        }
        Ok(socket)
    }

    fn connect_tcp(address: &SocketAddr, patience: &Patience) -> io::Result<Self> {
        let stream = match patience.deadline {
            Some(deadline) => {
                // Zero is not taken for a time; a moment is as good as none.
                let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
                TcpStream::connect_timeout(address, left)?
            }
            None => TcpStream::connect(address)?,
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    fn connect_unix(path: &Path, patience: &Patience) -> io::Result<Self> {
        let address = match path.as_os_str().as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddrUnix::new_abstract_name(name)?,
            None => SocketAddrUnix::new(path)?,
        };
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            match connect(&fd, &address) {
                Ok(()) => return Ok(Self::Unix(UnixStream::from(fd))),
                Err(rustix::io::Errno::INTR) => {}
                // The queue of those who want in is full.
                Err(rustix::io::Errno::AGAIN) => {
                    patience.check(None)?;
                    std::thread::sleep(KNOCK_AGAIN);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn tune(&self, info: &Conninfo) -> io::Result<()> {
        let Self::Tcp(stream) = self else { return Ok(()) };
        let keepalives = &info.options.keepalives;
        sockopt::set_socket_keepalive(stream, keepalives.is_on)?;
        if keepalives.is_on {
            if let Some(idle) = keepalives.idle {
                sockopt::set_tcp_keepidle(stream, idle)?;
            }
            if let Some(interval) = keepalives.interval {
                sockopt::set_tcp_keepintvl(stream, interval)?;
            }
            if let Some(count) = keepalives.count {
                sockopt::set_tcp_keepcnt(stream, count)?;
            }
        }
        if let Some(timeout) = info.options.tcp_user_timeout {
            sockopt::set_tcp_user_timeout(stream, u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX))?;
        }
        Ok(())
    }

    /// Waits until the socket can be read or, with `to_write`, written.
    pub(super) fn wait(&self, to_write: bool, patience: &Patience) -> io::Result<()> {
        let began = Instant::now();
        let events = if to_write { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut inquiry = None;
        loop {
            let wait = patience.left(began).unwrap_or(Duration::MAX);
            let has_ticks = patience.interrupt.is_some() || patience.watch.is_some();
            let wait = if has_ticks { wait.min(TICK) } else { wait };
            let wait = (wait < Duration::from_secs(1 << 30))
                .then(|| Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos() as _ });
            match poll(&mut [PollFd::new(self, events)], wait.as_ref()) {
                Ok(1..) => return Ok(()),
                Ok(0) | Err(rustix::io::Errno::INTR) => {
                    patience.check(Some(began))?;
                    if let Some(watch) = &patience.watch {
                        inquiry.get_or_insert_with(|| Inquiry::new(Arc::clone(watch), began)).go_on()?;
                    }
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Ends both directions, for everyone who holds the socket.
    pub(super) fn shut(&self) {
        // Fails only when it has ended already.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// True if nobody can listen in on the way.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_))
    }
}

impl Patience {
    /// Time left since `began`.
    fn left(&self, began: Instant) -> Option<Duration> {
        let deadline = self.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let silence = self.silence.map(|silence| silence.saturating_sub(began.elapsed()));
        deadline.into_iter().chain(silence).min()
    }

    /// Fails when time is up, or a stop is wanted.
    fn check(&self, began: Option<Instant>) -> io::Result<()> {
        if self.interrupt.as_ref().is_some_and(|interrupt| interrupt()) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "asked to stop"));
        }
        if self.left(began.unwrap_or_else(Instant::now)).is_some_and(|left| left.is_zero()) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        }
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = match self {
                Socket::Tcp(stream) => (&mut &*stream).read(buffer),
                Socket::Unix(stream) => (&mut &*stream).read(buffer),
            };
            if !result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
                return result;
            }
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let result = match self {
                Socket::Tcp(stream) => (&mut &*stream).write(bytes),
                Socket::Unix(stream) => (&mut &*stream).write(bytes),
            };
            if !result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
                return result;
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An address for people.
pub(super) fn shown(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => path.display().to_string(),
    }
}

fn refused(address: &Address, error: io::Error) -> Error {
    use io::ErrorKind as K;
    let (kind, hint) = match (error.kind(), address) {
        (K::NotFound, _) => (ErrorKind::Retry, "is the server running, and is this the folder of its socket?"),
        (K::PermissionDenied, _) => (ErrorKind::Denied, "may this user reach the socket?"),
        (K::ConnectionRefused, _) => (ErrorKind::Retry, "is the server running, and does it listen there?"),
        (K::InvalidInput, _) => (ErrorKind::Invalid, "the path of a socket can have 107 bytes at most"),
        (K::Interrupted, _) => (ErrorKind::Cancelled, "asked to stop"),
        _ => (ErrorKind::Retry, "is the host up, and does no firewall stand between?"),
    };
    Error::new(kind, format!("connect to {}", shown(address))).with_source(error).with_hint(hint)
}
