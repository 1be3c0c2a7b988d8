//! A shell between a test and its server, which ends the server when the test is over, however it ends.
//!
//! The shell holds the reading end of a pipe and waits on it. Only the test process holds the writing end, so the pipe
//! closes when that process ends, also by `SIGKILL`; then the shell ends the server and removes its folder. The shell
//! is in a process group of its own, so what kills a test's group leaves it alive for that. A signal tied to the death
//! of the parent would not do: it comes when the thread ends that started the server.

use super::{pause, user};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};

/// `$1` is the folder, `$2` the log; the rest is the server's command line. A line on standard input names the signal
/// to end it with; an end without a line means that all is over and nothing is kept.
const SCRIPT: &str = r#"
folder=$1 log=$2
shift 2
"$@" </dev/null >>"$log" 2>&1 &
server=$!
echo "$server"
exec >/dev/null 2>&1
if read -r signal; then
    kill -s "$signal" "$server"
    wait "$server"
else
    kill -s QUIT "$server"
    wait "$server"
    rm -rf "$folder"
fi
"#;

/// How a server is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// In order: a checkpoint is written, the data folder is kept.
    Fast,
    /// At once, as if it had crashed; the data folder is kept.
    Immediate,
    /// At once, and everything it had is removed.
    Remove,
}

/// A server's guardian.
#[derive(Debug)]
pub(super) struct Guardian {
    shell: Child,
    stdin: Option<ChildStdin>,
    server: i32,
}

impl Guardian {
    /// Starts the server `program`, its log appended to `log`; `folder` is what is removed in the end.
    #[track_caller]
    pub(super) fn start(program: &Path, arguments: &[OsString], folder: &Path, log: &Path) -> Self {
        let mut command = user::command(Path::new("/bin/sh"));
        command.args(["-c", SCRIPT, "sh"]).arg(folder).arg(log).arg(program).args(arguments).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = command.spawn().unwrap_or_else(|error| panic!("start a server's guardian: {error}"));
        let stdin = shell.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = shell.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).unwrap_or_default();
        }
        let server = line.trim().parse().unwrap_or_else(|_| panic!("a server's guardian said {line:?}"));
        Self { shell, stdin, server }
    }

    /// Whether the server takes connections, as it notes in the last line of its pid file itself.
    pub(super) fn is_ready(&self, data: &Path) -> bool {
        let text = fs_err::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        let mut lines = text.lines();
        let is_ours = lines.next().is_some_and(|line| line.trim() == self.server.to_string());
        is_ours && lines.nth(6).is_some_and(|line| ["ready", "standby"].contains(&line.trim()))
    }

    /// Whether the server's first process has not ended.
    pub(super) fn is_alive(&self) -> bool {
        Process::read(self.server).is_some_and(|process| process.state != 'Z')
    }

    /// The server's processes, the first one first.
    pub(super) fn processes(&self) -> Vec<i32> {
        let children = fs_err::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Process::read(pid).is_some_and(|process| process.parent == self.server).then_some(pid)
        });
        std::iter::once(self.server).chain(children).collect()
    }

    /// Ends the server and waits until it has.
    pub(super) fn end(mut self, how: Stop) {
        let line: &[u8] = match how {
            Stop::Fast => b"INT\n",
            Stop::Immediate => b"QUIT\n",
            Stop::Remove => b"",
        };
        if let Some(mut stdin) = self.stdin.take() {
            let _ = stdin.write_all(line);
        }
        let _ = self.shell.wait();
    }

    /// Kills all processes of the server and waits until they have ended.
    pub(super) fn kill_all(self) {
        // Stopped first, it starts no more of them while they are listed; and it is not reaped before its guardian
        // ends, so its id is nobody else's.
        signal(self.server, Signal::STOP);
        let processes = self.processes();
        processes.iter().for_each(|&pid| signal(pid, Signal::KILL));
        self.end(Stop::Immediate);
        for pid in processes {
            while Process::read(pid).is_some_and(|process| process.state != 'Z') {
                pause();
            }
        }
    }
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// What the kernel tells of a process.
struct Process {
    state: char,
    parent: i32,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let text = fs_err::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))).ok()?;
        // The name in parentheses may hold anything.
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        Some(Self { state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
    }
}
