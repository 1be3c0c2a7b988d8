//! A server of restic's REST protocol: `rclone serve restic`, one for each test that asks.
#![expect(clippy::unwrap_used, reason = "used by tests alone")]

use crate::server::Server;
use crate::tools;
use std::path::Path;

/// A server, gone when this is dropped.
#[derive(Debug)]
pub struct RestServer {
    server: Server,
    _dir: tempfile::TempDir,
    login: Option<(String, String)>,
}

/// How a server is to behave.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestOptions<'a> {
    /// Refuse to change and remove anything but locks.
    pub append_only: bool,
    /// Ask for this user and password.
    pub login: Option<(&'a str, &'a str)>,
}

impl RestServer {
    /// A server that keeps everything in its memory: unlike with a folder, its writes are whole or not at all.
    #[track_caller]
    pub fn in_memory(options: RestOptions<'_>) -> Self {
        Self::serve(":memory:repositories", options)
    }

    /// A server over a folder.
    #[track_caller]
    pub fn over(folder: &Path, options: RestOptions<'_>) -> Self {
        Self::serve(folder.to_str().unwrap(), options)
    }

    fn serve(remote: &str, options: RestOptions<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("rclone.conf");
        fs_err::write(&config, "").unwrap();
        let environment = [("RCLONE_CONFIG", config.as_os_str())];
        let server = Server::start(&tools::rclone(), &dir.path().join("log"), &environment, |port| {
            let mut arguments: Vec<String> = ["serve", "restic", "--addr"].map(str::to_owned).to_vec();
            arguments.push(format!("127.0.0.1:{port}"));
            if options.append_only {
                arguments.push("--append-only".to_owned());
            }
            if let Some((user, password)) = options.login {
                arguments.extend(["--user", user, "--pass", password].map(str::to_owned));
            }
            arguments.push(remote.to_owned());
            arguments
        });
        let login = options.login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        Self { server, _dir: dir, login }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// The location of a repository, with user and without password.
    pub fn url(&self, path: &str) -> String {
        let user = self.login.as_ref().map(|(user, _)| format!("{user}@")).unwrap_or_default();
        format!("rest:http://{user}127.0.0.1:{}/{path}/", self.port())
    }

    /// The same, with the password.
    pub fn url_with_password(&self, path: &str) -> String {
        let login = self.login.as_ref().map(|(user, password)| format!("{user}:{password}@")).unwrap_or_default();
        format!("rest:http://{login}127.0.0.1:{}/{path}/", self.port())
    }

    /// Sends the server a signal, such as `STOP` or `CONT`.
    pub fn signal(&mut self, signal: &str) {
        self.server.signal(signal);
    }
}
