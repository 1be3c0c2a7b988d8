//! A server that answers every HTTP request as a test says, also wrongly.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Answers until the test's process ends.
pub(crate) struct Scripted(u16);

impl Scripted {
    /// An answer that ends with this keeps the connection open without a word.
    pub(crate) const STALL: &[u8] = b"\0stall\0";

    /// `script` is given the head of each request. An empty answer closes the connection.
    pub(crate) fn new(script: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = script.clone();
                std::thread::spawn(move || serve(stream, &*script));
            }
        });
        Self(port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0
    }
}

/// A whole answer.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn serve(mut stream: TcpStream, script: &dyn Fn(&str) -> Vec<u8>) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(at) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut piece) {
            Ok(count @ 1..) => seen.extend_from_slice(&piece[..count]),
            _ => return,
        }
    };
    let head = String::from_utf8_lossy(&seen[..end]).into_owned();
    let reply = script(&head);
    let Some(begun) = reply.strip_suffix(Scripted::STALL) else {
        // A body that is left unread would reset the connection before the answer was seen.
        let length =
            head.to_lowercase().split("content-length:").nth(1).and_then(|t| t.lines().next()?.trim().parse().ok());
        let mut left: usize = length.unwrap_or(0) - (seen.len() - end).min(length.unwrap_or(0));
        while left > 0 && !reply.is_empty() {
            match stream.read(&mut piece) {
                Ok(count @ 1..) => left -= count.min(left),
                _ => return,
            }
        }
        let _ = stream.write_all(&reply);
        return;
    };
    let _ = stream.write_all(begun);
    std::thread::sleep(Duration::from_secs(15));
}
