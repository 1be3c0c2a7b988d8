//! A real server of each kind, and how it is reached through what stands between.

use super::super::sim::Base;
use anyhow::{Context, Result};
use lastgood_model::store::Store;
use lastgood_stores::planted::Planted;
use lastgood_stores::{Access, RetryPolicy, RetryStore, Secret, Secrets, Timeouts, parse_location};
use lastgood_testkit::azurite::Azurite;
use lastgood_testkit::rest_server::{RestOptions, RestServer};
use lastgood_testkit::s3::{self, S3Server};
use lastgood_testkit::sshd::Sshd;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The kinds of stores that are reached over a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    S3,
    Azure,
    Gcs,
    Sftp,
    Rest,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::S3 => "s3",
            Self::Azure => "azure",
            Self::Gcs => "gcs",
            Self::Sftp => "sftp",
            Self::Rest => "rest",
        })
    }
}

enum Server {
    S3(S3Server),
    Azure(Azurite),
    Gcs(S3Server),
    Sftp(Sshd),
    Rest(RestServer),
}

const REST_USER: &str = "shop";
const REST_PASSWORD: &str = "open-sesame-of-the-rest-server";

/// A server with room for many repositories.
pub(super) struct Ground {
    pub(super) kind: Kind,
    pub(super) base: Base,
    server: Server,
    folder: tempfile::TempDir,
    planted: Option<Planted>,
    /// What no message may hold.
    secrets: Vec<String>,
    next: AtomicU64,
}

/// Credentials by name.
struct Given(BTreeMap<&'static str, String>);

impl Secrets for Given {
    fn get(&self, name: &str) -> lastgood_model::Result<Option<Secret>> {
        Ok(self.0.get(name).map(|text| Secret::new(text.clone())))
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// What a user who wants to know soon may set: so that a campaign takes minutes and not days.
const HASTY: Timeouts = Timeouts {
    connect: Duration::from_millis(800),
    idle: Duration::from_millis(600),
    slowest_bytes_per_second: 1 << 20,
};
const HASTY_RETRIES: RetryPolicy = RetryPolicy {
    tries_max: 4,
    delay_first: Duration::from_millis(20),
    delay_max: Duration::from_millis(200),
    total_max: Duration::from_millis(2500),
    reserve: 40,
};

impl Ground {
    pub(super) fn new(kind: Kind, planted: Option<Planted>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let server = match kind {
            Kind::S3 => Server::S3(S3Server::start()),
            Kind::Azure => Server::Azure(Azurite::start()),
            Kind::Gcs => Server::Gcs(S3Server::start_like_google()),
            Kind::Sftp => Server::Sftp(Sshd::start()),
            Kind::Rest => {
                let login = Some((REST_USER, REST_PASSWORD));
                Server::Rest(RestServer::over(folder.path(), RestOptions { login, ..RestOptions::default() }))
            }
        };
        let base = Base::new()?;
        let mut ground = Self { kind, base, server, folder, planted, secrets: Vec::new(), next: AtomicU64::new(0) };
        ground.secrets = ground.forbidden()?;
        Ok(ground)
    }

    /// Where the server listens.
    pub(super) fn address(&self) -> SocketAddr {
        match &self.server {
            Server::S3(server) | Server::Gcs(server) => server.address(),
            Server::Azure(server) => server.address(),
            Server::Sftp(server) => SocketAddr::from(([127, 0, 0, 1], server.port())),
            Server::Rest(server) => SocketAddr::from(([127, 0, 0, 1], server.port())),
        }
    }

    /// The name of a place that nobody has used.
    pub(super) fn fresh(&self) -> String {
        format!("case-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn given(&self) -> Result<BTreeMap<&'static str, String>> {
        Ok(match &self.server {
            Server::S3(_) => BTreeMap::from([
                ("access_key_id", S3Server::KEY_ID.to_owned()),
                ("secret_access_key", S3Server::SECRET.to_owned()),
            ]),
            Server::Azure(_) => BTreeMap::from([("account_key", Azurite::KEY.to_owned())]),
            Server::Gcs(_) => BTreeMap::new(),
            Server::Sftp(server) => BTreeMap::from([("private_key", fs_err::read_to_string(server.client_key())?)]),
            Server::Rest(_) => BTreeMap::from([("password", REST_PASSWORD.to_owned())]),
        })
    }

    fn forbidden(&self) -> Result<Vec<String>> {
        let mut out = Vec::new();
        for (name, text) in self.given()? {
            // Of a key in PEM each line is one.
            out.extend(
                text.lines().filter(|line| name != "access_key_id" && !line.starts_with('-')).map(str::to_owned),
            );
        }
        if self.kind == Kind::Rest {
            out.push(lastgood_testkit::proxy::base64(&format!("{REST_USER}:{REST_PASSWORD}")));
        }
        out.extend(["Signature=", "sig=", "SharedKey "].map(str::to_owned));
        Ok(out)
    }

    /// The secret that a text holds.
    pub(super) fn secret_in(&self, text: &str) -> Option<&str> {
        self.secrets.iter().find(|secret| text.contains(secret.as_str())).map(String::as_str)
    }

    /// The place `name`, reached at `address` without patience, or directly with all patience.
    pub(super) fn store(&self, name: &str, address: Option<SocketAddr>) -> Result<Arc<dyn Store>> {
        let at = address.unwrap_or_else(|| self.address());
        let account = Azurite::ACCOUNT;
        let url = match &self.server {
            Server::S3(_) => s3::url_at(at, name),
            Server::Azure(_) => format!("az://container/{name}?account={account}&endpoint=http://{at}/{account}"),
            Server::Gcs(_) => format!("gs://bucket/{name}?endpoint=http://{at}&auth=none"),
            Server::Sftp(server) => server.url_at(at.port(), &self.folder.path().join(name)),
            Server::Rest(_) => format!("rest:http://{REST_USER}@{at}/{name}/"),
        };
        let settings = match &self.server {
            Server::Sftp(server) => BTreeMap::from([("host_key".to_owned(), server.fingerprint())]),
            _ => BTreeMap::new(),
        };
        let mut access = Access { secrets: Some(Arc::new(Given(self.given()?))), settings, ..Access::default() };
        let mut retries = RetryPolicy::default();
        if address.is_some() {
            (access.timeouts, access.planted, retries) = (HASTY, self.planted, HASTY_RETRIES);
        }
        let store =
            parse_location(&url).and_then(|place| place.open(&access)).with_context(|| format!("open {name}"))?;
        Ok(Arc::new(RetryStore::new(store, retries)))
    }
}
