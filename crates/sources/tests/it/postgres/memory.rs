//! Memory does not depend on how long a row is.

use super::rows_of;
use super::server::Server;
use lastgood_model::source::{Entry, Sink, Source, StreamSpec, StreamWriter, TreeDir, Verdict};
use lastgood_model::{Error, ErrorKind, Monitor, Node, Result};
use std::sync::Arc;

/// Counts and forgets.
struct Abyss;

struct Falling(u64);

impl Sink for Abyss {
    fn stream(&self, _: StreamSpec) -> Result<Box<dyn StreamWriter>> {
        Ok(Box::new(Falling(0)))
    }

    fn tree(&self, _: &[u8], _: Node, _: Vec<Node>, _: Arc<dyn TreeDir>) -> Result<()> {
        Err(Error::new(ErrorKind::Bug, "no trees here"))
    }

    fn entry(&self, _: &[u8], _: Entry, _: Vec<Node>, _: Arc<dyn TreeDir>) -> Result<()> {
        Err(Error::new(ErrorKind::Bug, "no entries here"))
    }
}

impl StreamWriter for Falling {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.0 += data.len() as u64;
        Ok(())
    }

    fn zeros(&mut self, length: u64) -> Result<()> {
        self.0 += length;
        Ok(())
    }

    fn finish(self: Box<Self>, _: Verdict) -> Result<u64> {
        Ok(self.0)
    }
}

/// The most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_value_of_300_mb_passes_through_a_few_megabytes() {
    let server = Server::start();
    server.psql(
        "postgres",
        "CREATE TABLE big (a int, b text); ALTER TABLE big ALTER b SET STORAGE EXTERNAL;
         INSERT INTO big VALUES (1, repeat('0123456789', 30000000))",
    );
    let before = peak();
    let captured = rows_of(&server, "postgres").capture(&Abyss, &Monitor::new()).unwrap();
    let grown = peak() - before;
    assert_eq!(captured.facts["databases"][0]["bytes"], 300_000_003u64);
    assert!(grown < 32 << 20, "memory grew by {grown} bytes");
}
