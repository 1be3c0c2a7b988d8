//! An SSH connection of our own.

use super::auth;
use super::channel::Channel;
use super::known_hosts::Known;
use super::{SftpOptions, SftpPlace};
use crate::bridge::Pulse;
use crate::lock;
use lastgood_model::{Error, ErrorKind, Result};
use russh::client::{self, Handle};
use russh::keys::{Algorithm, EcdsaCurve, PublicKeyOrCertificate};
use russh::{Preferred, cipher};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes that the server may send before we have taken them, for each channel: a far one is to be kept busy.
const WINDOW_BYTES: u32 = 16 << 20;

/// Kinds of host key that we can check.
const HOST_KEYS: [Algorithm; 4] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];

/// The fastest first; all of them are sound.
const CIPHERS: [cipher::Name; 4] =
    [cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR];

/// Checks the server's key.
pub(super) struct Guard {
    known: Known,
    host: String,
    port: u16,
    /// Why it was refused; the library's own error would not say.
    verdict: Arc<Mutex<Option<Error>>>,
}

impl client::Handler for Guard {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let judged = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.known.judge(key, &self.host, self.port),
            _ => Err(Error::new(ErrorKind::Unsupported, "the server shows a certificate instead of a key")
                .with_hint("use transport = \"openssh\"")),
        };
        Ok(match judged {
            Ok(()) => true,
            Err(error) => {
                *lock(&self.verdict) = Some(error);
                false
            }
        })
    }
}

/// How long each step of reaching a server may take: servers look up names before they answer.
pub(super) fn patience(options: &SftpOptions) -> Duration {
    options.access.timeouts.connect.saturating_mul(2)
}

/// Where the keys of servers are written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostKeys {
    /// A file instead of the user's and the system's.
    pub(crate) file: Option<PathBuf>,
    /// A fingerprint or key that counts alone.
    pub(crate) pinned: Option<String>,
}

impl HostKeys {
    fn known(&self, host: &str, port: u16) -> Result<Known> {
        if let Some(pinned) = &self.pinned {
            return Known::pinned(pinned);
        }
        let files = match &self.file {
            Some(file) => vec![file.clone()],
            None => {
                let user = auth::home().map(|home| home.join(".ssh/known_hosts"));
                user.into_iter().chain([PathBuf::from("/etc/ssh/ssh_known_hosts")]).collect()
            }
        };
        Known::read(files, host, port)
    }
}

/// Reaches the server, checks who it is, and proves who we are.
pub(super) async fn connect(place: &SftpPlace, options: &SftpOptions, pulse: &Pulse) -> Result<Handle<Guard>> {
    let (host, port) = (place.host.as_str(), place.port());
    let known = options.host_keys.known(host, port)?;
    let patience = patience(options);
    let late = |what: &str| Error::new(ErrorKind::Retry, format!("{what} {place} took longer than {patience:?}"));
    let stream = timeout(patience, TcpStream::connect((host, port))).await.map_err(|_| late("reaching"))?;
    let stream = stream.map_err(|error| unreachable(place, error))?;
    // Requests are small and waited for.
    let _ = stream.set_nodelay(true);
    pulse.beat(0);
    let config = client::Config {
        window_size: WINDOW_BYTES,
        maximum_packet_size: 65535,
        channel_buffer_size: 256,
        keepalive_interval: Some(Duration::from_secs(15)),
        keepalive_max: 3,
        preferred: Preferred {
            key: Cow::Owned(known.algorithms(&HOST_KEYS)),
            cipher: Cow::Borrowed(&CIPHERS),
            ..Preferred::DEFAULT
        },
        ..client::Config::default()
    };
    let verdict = Arc::new(Mutex::new(None));
    let guard = Guard { known, host: host.to_owned(), port, verdict: verdict.clone() };
    let greeted = timeout(patience, client::connect_stream(Arc::new(config), stream, guard)).await;
    let mut ssh = greeted.map_err(|_| late("greeting"))?.map_err(|error| match lock(&verdict).take() {
        Some(verdict) => verdict,
        None => strange(place, error),
    })?;
    pulse.beat(0);
    let proven = timeout(patience, auth::authenticate(&mut ssh, place, &options.access)).await;
    proven.map_err(|_| late("proving who we are to"))??;
    pulse.beat(0);
    Ok(ssh)
}

/// Another conversation on the same connection.
pub(super) async fn open(ssh: &Handle<Guard>) -> Result<Channel> {
    let trouble = |error: russh::Error| match error {
        russh::Error::ChannelOpenFailure(reason) => {
            Error::new(ErrorKind::Denied, format!("the SSH server opens no session: {reason:?}"))
        }
        error => Error::new(ErrorKind::Retry, "open a session at the SSH server").with_source(error),
    };
    let mut channel = ssh.channel_open_session().await.map_err(trouble)?;
    channel.request_subsystem(true, "sftp").await.map_err(trouble)?;
    // The answer to that comes before anything else that counts.
    loop {
        match channel.wait().await {
            Some(russh::ChannelMsg::Success) => break,
            Some(russh::ChannelMsg::Failure) => {
                return Err(Error::new(ErrorKind::Unsupported, "the SSH server has no SFTP subsystem")
                    .with_hint("switch it on there: Subsystem sftp internal-sftp in sshd_config"));
            }
            Some(russh::ChannelMsg::WindowAdjusted { .. }) => {}
            _ => return Err(Error::new(ErrorKind::Retry, "the SSH server closed the session")),
        }
    }
    Channel::begin(channel.into_stream()).await
}

fn unreachable(place: &SftpPlace, error: std::io::Error) -> Error {
    let host = &place.host;
    let error = Error::new(ErrorKind::Retry, format!("reach {host} at port {}", place.port())).with_source(error);
    if host.contains('.') || host.contains(':') || host == "localhost" {
        error
    } else {
        error.with_hint(format!("is {host} a name from ~/.ssh/config? Those are for transport = \"openssh\""))
    }
}

/// What went wrong before anybody was known.
fn strange(place: &SftpPlace, error: russh::Error) -> Error {
    if let russh::Error::NoCommonAlgo { kind, theirs, .. } = &error {
        let message = format!("{place} and we have no {kind:?} in common; it offers {}", theirs.join(", "));
        return Error::new(ErrorKind::Unsupported, message)
            .with_hint("servers with RSA keys alone, and old ones, are reached by transport = \"openssh\"");
    }
    Error::new(ErrorKind::Retry, format!("greet the SSH server of {place}")).with_source(error)
}
