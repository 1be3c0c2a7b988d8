//! Running a client program to its end.
//!
//! The program gets nothing on its standard input and never asks for a password. Its messages are English, and the end
//! of them is kept. Its output means something only after it has ended with exit status 0; on every other way out it is
//! killed with all its children and reaped.

use lastgood_model::node::display_path;
use lastgood_model::{Context, Error, ErrorKind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How much of the end of the messages is kept.
const STDERR_KEPT_BYTES_MAX: usize = 64 * 1024;
/// How often the wish to stop is looked at while nothing else happens.
const TICK: Duration = Duration::from_millis(100);
/// How long messages may come after the end; a grandchild may hold the pipe for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Runs `command` in the environment `env`, hands its output to `consume`, and gives what that made of it once the
/// program has ended with exit status 0.
///
/// `PG…` variables of our own environment are kept from the program: the connection is what `env` says, nothing else.
/// Values of `env` are never part of an error. Fails with [`ErrorKind::Cancelled`] soon after `is_cancelled` is true,
/// and with [`ErrorKind::Io`] and the program's own words when it fails.
pub(super) fn run<T>(
    mut command: Command,
    env: &[(&'static str, String)],
    is_cancelled: &dyn Fn() -> bool,
    consume: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    let program = display_path(std::path::Path::new(command.get_program()).as_os_str().as_encoded_bytes());
    for (key, _) in std::env::vars_os() {
        if key.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(key);
        }
    }
    command.env("LC_ALL", "C").env("PGAPPNAME", "lastgood").envs(env.iter().map(|(key, value)| (key, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("start {program}"))?;
    let mut run = Run {
        group: Pid::from_child(&child),
        stdout: child.stdout.take(),
        stderr: child.stderr.take(),
        child,
        is_cancelled,
        was_cancelled: false,
        complaints: Vec::new(),
        is_reaped: false,
    };
    let made = consume(&mut run);
    // Whatever is left is read before the verdict is asked for; a full pipe would keep the program from ending.
    let rest = if made.is_ok() { run.drain() } else { Ok(()) };
    if run.was_cancelled {
        return Err(Error::new(ErrorKind::Cancelled, "interrupted"));
    }
    // A program that failed leaves half an output; its own words say more than what is wrong with the half.
    let status = match &made {
        Ok(_) => run.wait()?,
        Err(_) => run.wait_shortly()?,
    };
    match status {
        Some(status) if !status.success() => Err(run.failure(&program, status)),
        _ => {
            let made = made?;
            rest?;
            Ok(made)
        }
    }
}

/// All of an output, which must not be longer than `bytes_max`.
pub(super) fn take_all(out: &mut dyn Read, bytes_max: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    out.take(bytes_max as u64 + 1).read_to_end(&mut bytes).context("read a program's output")?;
    if bytes.len() > bytes_max {
        return Err(Error::new(ErrorKind::Unsupported, format!("a program printed more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// What a program said when it failed, for a second try that depends on it.
#[derive(Debug)]
pub(super) struct Complaint(pub(super) String);

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Complaint {}

struct Run<'a> {
    child: Child,
    group: Pid,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    is_cancelled: &'a dyn Fn() -> bool,
    was_cancelled: bool,
    complaints: Vec<u8>,
    is_reaped: bool,
}

impl Read for Run<'_> {
    /// Reads output, takes in messages meanwhile, and fails once a stop is wanted.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if (self.is_cancelled)() {
                self.was_cancelled = true;
                return Err(io::Error::other("interrupted"));
            }
            let Some(stdout) = &self.stdout else { return Ok(0) };
            let mut fds = vec![PollFd::new(stdout, PollFlags::IN)];
            if let Some(stderr) = &self.stderr {
                fds.push(PollFd::new(stderr, PollFlags::IN));
            }
            wait_for(&mut fds, TICK)?;
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready.get(1) == Some(&true) {
                self.hear()?;
            }
            if ready[0]
                && let Some(stdout) = &mut self.stdout
            {
                let length = stdout.read(buffer)?;
                if length == 0 && !buffer.is_empty() {
                    self.stdout = None;
                }
                return Ok(length);
            }
        }
    }
}

impl Run<'_> {
    fn drain(&mut self) -> Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        while self.read(&mut buffer).context("read a program's output")? > 0 {}
        Ok(())
    }

    /// Reads messages once; they are known to be there.
    fn hear(&mut self) -> io::Result<()> {
        let Some(stderr) = &mut self.stderr else { return Ok(()) };
        let mut buffer = [0; 4096];
        let length = stderr.read(&mut buffer)?;
        if length == 0 {
            self.stderr = None;
        }
        self.complaints.extend_from_slice(&buffer[..length]);
        let surplus = self.complaints.len().saturating_sub(STDERR_KEPT_BYTES_MAX);
        self.complaints.drain(..surplus);
        Ok(())
    }

    /// Takes in messages for at most `limit`; whether any came or the pipe was closed.
    fn hear_within(&mut self, limit: Duration) -> Result<bool> {
        let Some(stderr) = &self.stderr else { return Ok(false) };
        let mut fds = [PollFd::new(stderr, PollFlags::IN)];
        wait_for(&mut fds, limit).context("wait for a program")?;
        let is_ready = !fds[0].revents().is_empty();
        if is_ready {
            self.hear().context("read a program's messages")?;
        }
        Ok(is_ready)
    }

    /// The exit status, once there is one.
    fn wait(&mut self) -> Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.child.try_wait().context("ask for a program's exit status")? {
                self.is_reaped = true;
                while self.hear_within(LAST_WORDS)? && self.stderr.is_some() {}
                return Ok(Some(status));
            }
            if (self.is_cancelled)() {
                return Err(Error::new(ErrorKind::Cancelled, "interrupted"));
            }
            let wait = TICK.min(Duration::from_millis(5));
            if !self.hear_within(wait)? {
                std::thread::sleep(wait);
            }
        }
    }

    /// The exit status if the program ends by itself right now.
    fn wait_shortly(&mut self) -> Result<Option<ExitStatus>> {
        self.stdout = None;
        for _ in 0..40 {
            if let Some(status) = self.child.try_wait().context("ask for a program's exit status")? {
                self.is_reaped = true;
                while self.hear_within(LAST_WORDS)? && self.stderr.is_some() {}
                // Killed by our closing of its output, which says nothing.
                return Ok(Some(status).filter(|status| status.signal() != Some(Signal::PIPE.as_raw())));
            }
            if !self.hear_within(Duration::from_millis(5))? {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(None)
    }

    fn failure(&self, program: &str, status: ExitStatus) -> Error {
        let ending = match (status.code(), status.signal()) {
            (Some(code), _) => format!("{program} ended with exit status {code}"),
            (None, Some(signal)) => format!("{program} was killed by signal {signal}"),
            (None, None) => format!("{program} ended as {status}"),
        };
        let lines: Vec<String> = self.complaints.split(|&byte| byte == b'\n').map(display_path).collect();
        let said = lines.join("\n").trim().to_owned();
        let error = Error::new(ErrorKind::Io, ending);
        if said.is_empty() { error } else { error.with_source(Complaint(said)) }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if !self.is_reaped {
            // Fails only when nobody is left in the group, which is what is wanted.
            let _ = kill_process_group(self.group, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn wait_for(fds: &mut [PollFd<'_>], limit: Duration) -> io::Result<()> {
    let limit = Timespec { tv_sec: limit.as_secs() as _, tv_nsec: limit.subsec_nanos() as _ };
    match poll(fds, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
