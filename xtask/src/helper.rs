//! Processes beside a measurement: what servers and lines need shall not be counted as ours.

use anyhow::{Context, Result};
use lastgood_testkit::line::Line;
use lastgood_testkit::s3::S3Server;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

#[derive(clap::Subcommand)]
pub(crate) enum Helper {
    /// A server of S3 over a temporary folder.
    S3,
    /// A line that delays.
    Line {
        /// Where it leads.
        to: SocketAddr,
        /// How much later each way, in milliseconds.
        delay_ms: u64,
    },
}

/// Says where it listens, and stays until its input ends.
pub(crate) fn run(helper: &Helper) -> Result<()> {
    match helper {
        Helper::S3 => {
            let server = S3Server::start();
            println!("{} {}", server.address(), server.bucket().display());
            wait()
        }
        Helper::Line { to, delay_ms } => {
            let line = Line::slow(*to, Duration::from_millis(*delay_ms));
            println!("{}", line.address());
            wait()
        }
    }
}

fn wait() -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// One of them, at work. It ends with this.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where the server's objects lie.
    pub(crate) bucket: PathBuf,
}

impl Running {
    /// A server of S3 whose folder is below `dir`.
    pub(crate) fn s3(dir: &Path) -> Result<Self> {
        Self::start(&["s3".to_owned()], dir)
    }

    /// A line to `to`.
    pub(crate) fn line(to: SocketAddr, delay: Duration, dir: &Path) -> Result<Self> {
        Self::start(&["line".to_owned(), to.to_string(), delay.as_millis().to_string()], dir)
    }

    fn start(words: &[String], dir: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("helper").args(words).env("TMPDIR", dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {words:?}"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().context("its output")?);
        let mut said = String::new();
        BufReader::new(stdout).read_line(&mut said)?;
        let mut fields = said.trim().splitn(2, ' ');
        let address = fields.next().unwrap_or_default().parse().with_context(|| format!("{words:?} said {said:?}"))?;
        Ok(Self { child, stdin, address, bucket: fields.next().unwrap_or_default().into() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}
