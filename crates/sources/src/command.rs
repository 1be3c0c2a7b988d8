//! A command's standard output as one stream.
//!
//! Promised: the stream is finished only after the command itself has ended with exit status 0, and that status is asked
//! for before the stream is closed. Whatever a command printed before it failed, was killed or ran out of time is
//! dropped with the stream. Bytes ending (end of file on the pipe) mean nothing by themselves.
//!
//! The command runs without a shell, in a process group of its own, with nothing on its standard input. One thread
//! watches its output, its complaints, its end, the clock and the wish to stop, all in one `poll`, so no pipe can fill
//! up unread while another is waited for. The leader of the group is not reaped before the very end: as long as it is
//! at least a zombie, its group id cannot be given to strangers, and a signal to the group hits only our own.

use lastgood_model::node::{display_path, is_safe_name};
use lastgood_model::source::{
    Captured, Chunking, Finding, FindingLevel, Sink, Source, StreamSpec, StreamWriter, Verdict,
};
use lastgood_model::{Context, Error, ErrorKind, Monitor, Result, Time};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, access};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Read at a time from the command's output; also the pipe size asked for.
const READ_BYTES: usize = 256 * 1024;
/// How much of the end of the command's complaints is kept.
const STDERR_KEPT_BYTES_MAX: usize = 64 * 1024;
/// How much of them goes into the facts of a command that succeeded.
const STDERR_FACT_BYTES_MAX: usize = 4 * 1024;
/// How often the wish to stop is looked at while nothing else happens.
const TICK: Duration = Duration::from_millis(100);
/// How long a command may take to end by itself after it was asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// Runs a command and keeps what it prints as one file.
#[derive(Clone, Debug)]
pub struct CommandSource {
    /// The source's name.
    pub name: String,
    /// Program and arguments; no shell reads them.
    pub argv: Vec<String>,
    /// Name of the file in the recovery point: one safe path component.
    pub file_name: String,
    /// Variables set for the command, beside those inherited.
    pub env: Vec<(String, String)>,
    /// Directory it runs in; ours when `None`.
    pub cwd: Option<PathBuf>,
    /// How to cut its output.
    pub chunking: Chunking,
    /// How long it may run in all; without a limit when `None`.
    pub timeout: Option<Duration>,
}

impl CommandSource {
    /// A command with nothing special: our environment and directory, [`Chunking::Rows`], no time limit.
    pub fn new(name: impl Into<String>, argv: Vec<String>, file_name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            argv,
            file_name: file_name.into(),
            env: Vec::new(),
            cwd: None,
            chunking: Chunking::Rows,
            timeout: None,
        }
    }

    /// The program's name as configured. Arguments are never shown: they may hold secrets.
    fn program(&self) -> Result<&str> {
        match self.argv.first() {
            Some(program) if !program.is_empty() => Ok(program),
            _ => Err(Error::invalid(format!("source {:?} names no command", self.name))
                .with_hint("set `command = [\"program\", \"argument\", …]`")),
        }
    }

    fn check_file_name(&self) -> Result<()> {
        if is_safe_name(self.file_name.as_bytes()) {
            return Ok(());
        }
        let message = format!("source {:?} cannot keep its output as {:?}", self.name, self.file_name);
        Err(Error::invalid(message).with_hint("give a plain file name, without `/`"))
    }

    /// Where the program is found, as the operating system will look for it.
    fn locate(&self) -> Result<PathBuf> {
        let program = self.program()?;
        if let Some(cwd) = &self.cwd
            && !cwd.is_dir()
        {
            return Err(Error::new(ErrorKind::Absent, format!("command directory {} does not exist", cwd.display())));
        }
        let path = self.env.iter().rev().find(|(key, _)| key == "PATH").map(|(_, value)| value.clone().into());
        let path = path.or_else(|| std::env::var_os("PATH"));
        let candidates: Vec<PathBuf> = if program.contains('/') {
            vec![self.cwd.as_deref().unwrap_or(Path::new("")).join(program)]
        } else {
            std::env::split_paths(path.as_deref().unwrap_or(OsStr::new(""))).map(|dir| dir.join(program)).collect()
        };
        let mut denied = None;
        for candidate in candidates {
            if candidate.is_file() {
                if access(&candidate, Access::EXEC_OK).is_ok() {
                    return Ok(candidate);
                }
                denied.get_or_insert(candidate);
            }
        }
        match denied {
            Some(path) => {
                let message = format!("command {} may not be executed", path.display());
                Err(Error::new(ErrorKind::Denied, message).with_hint("give it the permission, or run as its owner"))
            }
            None => Err(Error::new(ErrorKind::Absent, format!("command {program:?} was not found"))
                .with_hint("give its full path, or install it on this host")),
        }
    }

    fn spawn(&self) -> Result<Child> {
        let found = self.locate()?;
        let mut command = Command::new(self.program()?);
        command.args(&self.argv[1..]).envs(self.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        command.spawn().with_context(|| format!("start command {}", found.display()))
    }
}

impl Source for CommandSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "command"
    }

    fn origins(&self) -> Vec<String> {
        self.argv.first().cloned().into_iter().collect()
    }

    fn probe(&self) -> Result<Vec<Finding>> {
        let finding = match self.check_file_name().and_then(|()| self.locate()) {
            Ok(path) => Finding { level: FindingLevel::Ok, message: format!("command {}", path.display()), hint: None },
            Err(error) => Finding {
                level: FindingLevel::Failure,
                message: error.chain(),
                hint: error.hint().map(ToOwned::to_owned),
            },
        };
        Ok(vec![finding])
    }

    fn capture(&self, sink: &dyn Sink, monitor: &Monitor) -> Result<Captured> {
        monitor.check_cancelled()?;
        self.check_file_name()?;
        let started = Instant::now();
        let deadline = self.timeout.and_then(|limit| started.checked_add(limit));
        let mut writer = sink.stream(StreamSpec {
            path: self.file_name.as_bytes().to_vec(),
            chunking: self.chunking,
            mode: 0o600,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime: now(),
            time_follows_content: false,
        })?;
        let mut run = Run::begin(self.spawn()?)?;
        // From here every early return drops `run`, which ends the whole group, and `writer`, which drops the stream.
        while !run.is_over() {
            monitor.check_cancelled().map_err(|e| run.stop(e))?;
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let limit = self.timeout.unwrap_or_default();
                let message = format!("command {:?} ran longer than its limit of {limit:?}", self.program()?);
                let error = Error::new(ErrorKind::Io, message).with_hint("raise `timeout` if it needs more");
                return Err(run.stop(run.with_complaints(error)));
            }
            run.step(writer.as_mut(), deadline)?;
        }
        let (status, bytes, complaints) = run.finish()?;
        if !status.success() {
            let ending = ending(status);
            let error = Error::new(ErrorKind::Io, format!("command {:?} {ending}", self.program()?));
            return Err(with_complaints(error, &complaints));
        }
        let stored = writer.finish(Verdict { evidence: "exit status 0".to_owned() })?;
        if stored != bytes {
            return Err(Error::new(ErrorKind::Bug, format!("the command printed {bytes} bytes, {stored} were taken")));
        }
        let mut facts = serde_json::Map::new();
        facts.insert("program".into(), self.program()?.into());
        facts.insert("file".into(), self.file_name.as_str().into());
        facts.insert("bytes".into(), bytes.into());
        facts.insert("empty".into(), (bytes == 0).into());
        facts.insert("exit_status".into(), 0.into());
        if !complaints.is_empty() {
            let from = complaints.len().saturating_sub(STDERR_FACT_BYTES_MAX);
            facts.insert("stderr".into(), printable(&complaints[from..]).into());
        }
        Ok(Captured { facts, position: None })
    }
}

/// A running command and what was heard from it.
struct Run {
    child: Child,
    group: Pid,
    /// Readable once the command has ended; `None` where the kernel has no such thing, and then the tick finds out.
    ended: Option<OwnedFd>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    complaints: Vec<u8>,
    buffer: Vec<u8>,
    bytes: u64,
    is_dead: bool,
    is_reaped: bool,
}

impl Run {
    fn begin(mut child: Child) -> Result<Self> {
        let group = Pid::from_child(&child);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        if let Some(stdout) = &stdout {
            // Only a wish: without it the pipe is smaller and the copy somewhat slower.
            let _ = rustix::pipe::fcntl_setpipe_size(stdout, READ_BYTES);
        }
        Ok(Self {
            ended: pidfd_open(group, PidfdFlags::empty()).ok(),
            child,
            group,
            stdout,
            stderr,
            complaints: Vec::new(),
            buffer: vec![0; READ_BYTES],
            bytes: 0,
            is_dead: false,
            is_reaped: false,
        })
    }

    /// The output has ended and the command has, too. A command that left its output to a child in the background is
    /// not over before that child closes it, as in a shell's `$(…)`.
    fn is_over(&self) -> bool {
        self.stdout.is_none() && self.is_dead
    }

    /// Waits for one thing to happen, at most a tick, and takes it in.
    fn step(&mut self, writer: &mut dyn StreamWriter, deadline: Option<Instant>) -> Result<()> {
        enum What {
            Output,
            Complaint,
            End,
        }
        let wait = deadline.map_or(TICK, |at| at.saturating_duration_since(Instant::now()).min(TICK));
        let wait = Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos() as _ };
        let mut whats = Vec::with_capacity(3);
        let mut fds = Vec::with_capacity(3);
        if let Some(stdout) = &self.stdout {
            whats.push(What::Output);
            fds.push(PollFd::new(stdout, PollFlags::IN));
        }
        if let Some(stderr) = &self.stderr {
            whats.push(What::Complaint);
            fds.push(PollFd::new(stderr, PollFlags::IN));
        }
        if let Some(ended) = self.ended.as_ref().filter(|_| !self.is_dead) {
            whats.push(What::End);
            fds.push(PollFd::new(ended, PollFlags::IN));
        }
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::io("wait for the command", errno.into())),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (what, _) in whats.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            match what {
                What::Output => {
                    let Some(stdout) = &self.stdout else { continue };
                    let length = read(stdout, &mut self.buffer).context("read the command's output")?;
                    if length == 0 {
                        self.stdout = None;
                    } else {
                        self.bytes += length as u64;
                        writer.write(&self.buffer[..length])?;
                    }
                }
                What::Complaint => self.hear_complaints()?,
                What::End => {}
            }
        }
        // Asked without reaping, see the module's promise.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.is_dead = waitid(WaitId::Pid(self.group), options)
            .map_err(|errno| Error::io("ask for the command's exit status", errno.into()))?
            .is_some();
        Ok(())
    }

    /// Reads once from stderr, which is known to be readable, and keeps the end of all that was said.
    fn hear_complaints(&mut self) -> Result<()> {
        let Some(stderr) = &self.stderr else { return Ok(()) };
        let length = read(stderr, &mut self.buffer).context("read the command's messages")?;
        if length == 0 {
            self.stderr = None;
        }
        self.complaints.extend_from_slice(&self.buffer[..length]);
        let surplus = self.complaints.len().saturating_sub(STDERR_KEPT_BYTES_MAX);
        self.complaints.drain(..surplus);
        Ok(())
    }

    /// Takes the verdict: the exit status, the length of the output, and what was said on stderr up to now. Does not
    /// wait for stderr to be closed: a daemon that the command left behind may hold it for ever.
    fn finish(mut self) -> Result<(ExitStatus, u64, Vec<u8>)> {
        while self.stderr.as_ref().is_some_and(|stderr| {
            let mut fds = [PollFd::new(stderr, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
        }) {
            self.hear_complaints()?;
        }
        let status = self.child.wait().context("ask for the command's exit status")?;
        self.is_reaped = true;
        Ok((status, self.bytes, std::mem::take(&mut self.complaints)))
    }

    /// Asks the group to end, waits a little, and passes `why` through. What still runs is killed by the drop.
    fn stop(&self, why: Error) -> Error {
        if kill_process_group(self.group, Signal::TERM).is_ok()
            && let Some(ended) = &self.ended
        {
            let mut fds = [PollFd::new(ended, PollFlags::IN)];
            let grace = Timespec { tv_sec: GRACE.as_secs() as _, tv_nsec: GRACE.subsec_nanos() as _ };
            // Whether it ended in time or not, the drop kills what is left.
            let _ = poll(&mut fds, Some(&grace));
        }
        why
    }

    fn with_complaints(&self, error: Error) -> Error {
        with_complaints(error, &self.complaints)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.is_reaped {
            // Fails only when nobody is left in the group, which is what is wanted.
            let _ = kill_process_group(self.group, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn read(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(&fd, &mut *buffer) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map_err(Into::into),
        }
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => format!("ended as {status}"),
    }
}

fn with_complaints(error: Error, complaints: &[u8]) -> Error {
    let said = printable(complaints);
    if said.is_empty() { error } else { error.with_source(said) }
}

/// Text safe for a terminal, line breaks kept.
fn printable(bytes: &[u8]) -> String {
    let lines: Vec<String> = bytes.split(|&byte| byte == b'\n').map(display_path).collect();
    lines.join("\n").trim().to_owned()
}

fn now() -> Time {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Time::new(since.as_secs() as i64, since.subsec_nanos()),
        Err(_) => Time::default(),
    }
}

#[cfg(test)]
mod tests;
