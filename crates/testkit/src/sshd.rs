//! OpenSSH's server, one for each test that asks, with a host key, a config and a client's key of its own.
//!
//! It lets in the user who runs the test, by that one key. Nothing of the system's own SSH is read or changed.
#![expect(clippy::unwrap_used, reason = "used by tests alone")]

use crate::server::Server;
use crate::{restic, tools};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server, gone when this is dropped.
#[derive(Debug)]
pub struct Sshd {
    server: Server,
    dir: tempfile::TempDir,
    user: String,
}

impl Sshd {
    /// The name that [`Self::ssh_config`] gives the server.
    pub const ALIAS: &'static str = "testbox";

    /// A server with the SFTP subsystem.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with(&["Subsystem sftp internal-sftp"])
    }

    /// A server with these lines in its config.
    #[track_caller]
    pub fn start_with(lines: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["host", "client"] {
            make_key(&dir.path().join(name), "");
        }
        let at = |name: &str| dir.path().join(name);
        fs_err::copy(at("client.pub"), at("authorized_keys")).unwrap();
        let mut config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nPidFile none\nListenAddress 127.0.0.1\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             MaxStartups 100\nLogLevel VERBOSE\n",
            at("host").display(),
            at("authorized_keys").display()
        );
        lines.iter().for_each(|line| config.extend([line, "\n"]));
        fs_err::write(at("sshd_config"), config).unwrap();
        if rustix::process::geteuid().is_root() {
            // Compiled in, and on machines without a running sshd not there.
            fs_err::create_dir_all("/run/sshd").unwrap();
        }
        let server = Server::start(&tools::sshd(), &at("log"), &[], |port| {
            let (port, config) = (port.to_string(), at("sshd_config").display().to_string());
            ["-D", "-e", "-f", &config, "-p", &port].map(str::to_owned).to_vec()
        });
        let user = restic::run(Command::new("id").arg("-un")).unwrap().stdout;
        let user = String::from_utf8(user).unwrap().trim().to_owned();
        let sshd = Self { server, dir, user };
        let host_key = fs_err::read_to_string(sshd.dir.path().join("host.pub")).unwrap();
        let known = format!("[127.0.0.1]:{} {host_key}", sshd.port());
        fs_err::write(sshd.known_hosts(), known).unwrap();
        let config = format!(
            "Host {}\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {}\n  StrictHostKeyChecking yes\n",
            Self::ALIAS,
            sshd.port(),
            sshd.user,
            sshd.client_key().display(),
            sshd.known_hosts().display()
        );
        fs_err::write(sshd.ssh_config(), config).unwrap();
        sshd
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Who is let in.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// A private key, without passphrase, that is let in.
    pub fn client_key(&self) -> PathBuf {
        self.dir.path().join("client")
    }

    /// A file that knows the server, and no other.
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.path().join("known_hosts")
    }

    /// A file for OpenSSH's client, in which the server is called [`Self::ALIAS`].
    pub fn ssh_config(&self) -> PathBuf {
        self.dir.path().join("ssh_config")
    }

    /// The fingerprint of the server's key, as `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        let said = restic::run(Command::new("ssh-keygen").arg("-lf").arg(self.dir.path().join("host.pub"))).unwrap();
        String::from_utf8(said.stdout).unwrap().split_whitespace().nth(1).unwrap().to_owned()
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs_err::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The location of an absolute folder on the server.
    pub fn url(&self, folder: &Path) -> String {
        self.url_at(self.port(), folder)
    }

    /// The same, through another port, as behind a proxy.
    pub fn url_at(&self, port: u16, folder: &Path) -> String {
        format!("sftp://{}@127.0.0.1:{port}/{}", self.user, folder.display())
    }

    /// Lets restic reach this server; to be followed by `sftp:testbox:/folder` as its repository.
    pub fn restic_option(&self) -> String {
        format!("sftp.command=ssh -F {} {} -s sftp", self.ssh_config().display(), Self::ALIAS)
    }

    /// Sends the listening process a signal.
    pub fn signal(&mut self, signal: &str) {
        self.server.signal(signal);
    }
}

/// Makes a key pair: `path` and `path.pub`.
#[track_caller]
pub fn make_key(path: &Path, passphrase: &str) {
    let mut command = Command::new("ssh-keygen");
    restic::run(command.args(["-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f"]).arg(path)).unwrap();
}
