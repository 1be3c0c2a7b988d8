//! A proxy before a real server that falls silent or cuts when a test says so.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Passes bytes on until the test's process ends.
pub(crate) struct Proxy {
    port: u16,
    is_silent: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// Before the server at `port` of this machine.
    pub(crate) fn new(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (is_silent, streams) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (silent, kept) = (is_silent.clone(), streams.clone());
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let far = TcpStream::connect(("127.0.0.1", server)).unwrap();
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to, silent) = (from.try_clone().unwrap(), to.try_clone().unwrap(), silent.clone());
                    std::thread::spawn(move || pass(from, to, &silent));
                }
                kept.lock().unwrap().extend([near, far]);
            }
        });
        Self { port, is_silent, streams }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Passes nothing on, or everything again.
    pub(crate) fn stall(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::SeqCst);
    }

    /// Closes all connections.
    pub(crate) fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, is_silent: &AtomicBool) {
    let mut piece = [0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        while is_silent.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
