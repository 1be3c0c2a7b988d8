//! A server that a test starts, and that ends with the test, however that ends.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for the end of its input, which comes with the end of the test's process, and then ends the server.
const SCRIPT: &str = r#"
log=$1
shift
"$@" </dev/null >>"$log" 2>&1 &
server=$!
while read -r signal; do kill -s "$signal" "$server"; echo "$server"; done
kill -s KILL "$server"
wait "$server" 2>/dev/null
"#;

/// A program on a port of this machine.
#[derive(Debug)]
pub(crate) struct Server {
    shell: Child,
    stdin: Option<ChildStdin>,
    /// What the shell says when it has sent a signal.
    stdout: Option<BufReader<ChildStdout>>,
    /// Where it listens.
    pub(crate) port: u16,
}

impl Server {
    /// Starts `program` on a free port, with the arguments that `arguments` makes for it, and waits until it takes
    /// connections. What it says goes to `log`.
    #[track_caller]
    pub(crate) fn start<A: AsRef<OsStr>>(
        program: &Path,
        log: &Path,
        environment: &[(&str, &OsStr)],
        mut arguments: impl FnMut(u16) -> Vec<A>,
    ) -> Self {
        // Between being found free and being taken, a port may go to somebody else.
        for _ in 0..5 {
            let free = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
            let port = free.unwrap_or_else(|error| panic!("find a free port: {error}")).port();
            if let Some(server) = Self::try_start(program, log, environment, &arguments(port), port) {
                return server;
            }
        }
        let said = fs_err::read_to_string(log).unwrap_or_default();
        panic!("{} did not start:\n{said}", program.display());
    }

    /// Starts `program` again on a port that it had before.
    #[track_caller]
    pub(crate) fn start_at<A: AsRef<OsStr>>(
        program: &Path,
        log: &Path,
        environment: &[(&str, &OsStr)],
        arguments: &[A],
        port: u16,
    ) -> Self {
        Self::try_start(program, log, environment, arguments, port)
            .unwrap_or_else(|| panic!("{} does not start on port {port} again", program.display()))
    }

    fn try_start<A: AsRef<OsStr>>(
        program: &Path,
        log: &Path,
        environment: &[(&str, &OsStr)],
        arguments: &[A],
        port: u16,
    ) -> Option<Self> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "sh"]).arg(log).arg(program).args(arguments).process_group(0);
        command.envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = command.spawn().unwrap_or_else(|error| panic!("start {}: {error}", program.display()));
        let (stdin, stdout) = (shell.stdin.take(), shell.stdout.take().map(BufReader::new));
        let server = Self { shell, stdin, stdout, port };
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Sends the server a signal, such as `STOP` or `CONT`, and waits until it was sent and has stopped it.
    pub(crate) fn signal(&mut self, signal: &str) {
        if let (Some(stdin), Some(stdout)) = (&mut self.stdin, &mut self.stdout) {
            let _ = writeln!(stdin, "{signal}");
            let mut process = String::new();
            let _ = stdout.read_line(&mut process);
            // On a busy machine a thread may go on for a moment.
            let begun = Instant::now();
            while signal == "STOP" && !is_stopped(process.trim()) && begun.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// True when all threads of a process are.
fn is_stopped(process: &str) -> bool {
    let Ok(threads) = fs_err::read_dir(format!("/proc/{process}/task")) else { return true };
    threads.flatten().all(|thread| {
        let text = fs_err::read_to_string(thread.path().join("stat")).unwrap_or_default();
        text.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('T'))
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.shell.wait();
    }
}
