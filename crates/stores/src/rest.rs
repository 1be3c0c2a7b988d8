//! restic's REST protocol: objects behind HTTP, as `rest-server` and `rclone serve restic` speak it.
//!
//! Promises, and what they rest on:
//! - *Whole or not at all* is up to the server: restic's own writes aside and renames. What it acknowledged is taken to be
//!   durable, so that `sync` has nothing to do.
//! - *Nothing is written twice.* Before a write the object is looked for, since some servers would truncate it first and
//!   an interrupted repetition would take away what was there.
//! - *Of two configs one wins* only as far as the server refuses an existing one; within this process it always holds.
//! - *A server that only appends* refuses removals: that is [`ErrorKind::Denied`], and told as what it is. Such servers
//!   still remove locks.
//!
//! The protocol has names for objects only, so there is no place for anything beside them.

mod answer;
mod body;
mod list;

use crate::access::{Secret, Timeouts};
use crate::bridge::{self, Limits, Pulse};
use crate::{length_of, lock};
use answer::{Act, judge, troubled};
use body::Pieces;
use lastgood_model::store::{Capabilities, ObjectKind, Store, StoreKey};
use lastgood_model::{Context, Error, ErrorKind, Id, Result};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Certificate, Client, Method, RequestBuilder, Response, StatusCode};
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Mutex;

/// Asks for lists with sizes.
const LIST_V2: &str = "application/vnd.x.restic.rest.v2";
/// How many bytes of an error's text are read.
const REASON_BYTES_MAX: usize = 2000;

/// Where a REST server is and who we are there.
#[derive(Clone)]
pub struct RestPlace {
    /// `http://host/path/`, without user and password, with a slash at its end.
    pub(crate) base: String,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
}

/// The same place, whatever the password is.
impl PartialEq for RestPlace {
    fn eq(&self, other: &Self) -> bool {
        (&self.base, &self.user) == (&other.base, &other.user)
    }
}

impl Eq for RestPlace {}

impl fmt::Debug for RestPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for RestPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.user, self.base.split_once("://")) {
            (Some(user), Some((scheme, rest))) => write!(f, "rest:{scheme}://{user}@{rest}"),
            _ => write!(f, "rest:{}", self.base),
        }
    }
}

/// A repository's objects behind a REST server.
pub struct RestStore {
    place: RestPlace,
    client: Client,
    timeouts: Timeouts,
    /// Held while a config is written: look and write are two requests.
    config_turn: Mutex<()>,
}

impl RestStore {
    /// The store at `place`. Touches nothing there. `ca_file` names authorities, in PEM, to trust beside the system's.
    ///
    /// # Errors
    /// When certificates cannot be read.
    pub fn new(place: RestPlace, timeouts: Timeouts, ca_file: Option<&Path>) -> Result<Self> {
        let mut builder = Client::builder()
            .connect_timeout(timeouts.connect)
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            // Lengths of objects are taken from headers, which compression would change.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .user_agent(concat!("lastgood/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = ca_file {
            let act = || format!("read the authorities in {}", file.display());
            let text = fs_err::read(file).with_context(act)?;
            let authorities = Certificate::from_pem_bundle(&text)
                .map_err(|error| Error::invalid(act()).with_source(error.without_url()))?;
            builder = builder.tls_certs_merge(authorities);
        }
        let client = builder
            .build()
            .map_err(|error| Error::new(ErrorKind::Io, "set up HTTP").with_source(error.without_url()))?;
        Ok(Self { place, client, timeouts, config_turn: Mutex::default() })
    }

    fn path(key: &StoreKey) -> String {
        match key.kind {
            ObjectKind::Config => "config".to_owned(),
            kind => format!("{}/{}", kind.folder(), key.id),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.place.base));
        match &self.place.user {
            Some(user) => request.basic_auth(user, self.place.password.as_ref().map(|password| password.as_str())),
            None => request,
        }
    }

    /// Runs one call with bounds for so many bytes.
    fn call<T>(&self, act: Act<'_>, bytes: u64, pulse: &Pulse, future: impl Future<Output = Result<T>>) -> Result<T> {
        let limits = Limits { total: self.timeouts.total(bytes), idle: self.timeouts.idle };
        bridge::block_on_watched(limits, pulse, act, &self.place, future)
    }

    /// Sends, and gives back an answer of success.
    async fn send(&self, act: Act<'_>, request: RequestBuilder, pulse: &Pulse) -> Result<Response> {
        let mut response = request.send().await.map_err(|error| troubled(act, &self.place, error))?;
        pulse.beat(0);
        let status = response.status();
        if status.is_success() {
            // No server of repositories answers with a page for people; who stands in between and asks for a login does.
            let content =
                response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            if content.starts_with("text/html") {
                let message = format!("{act}: a web page came instead of an answer from {}", self.place);
                return Err(Error::new(ErrorKind::Retry, message)
                    .with_hint("does a proxy or a network that wants a login stand in between?"));
            }
            return Ok(response);
        }
        let wait = answer::retry_after(&response);
        let mut reason = Vec::new();
        while let Ok(Some(piece)) = response.chunk().await {
            reason.extend_from_slice(&piece);
            if reason.len() > REASON_BYTES_MAX {
                break;
            }
        }
        let error = judge(act, &self.place, status, &reason);
        Err(match wait {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        })
    }

    /// The length of an object; `None` when there is none.
    async fn look(&self, act: Act<'_>, key: &StoreKey, pulse: &Pulse) -> Result<Option<u64>> {
        match self.send(act, self.request(Method::HEAD, &Self::path(key)), pulse).await {
            Ok(response) => {
                let length = response.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
                let lacking = || Error::corrupt(format!("{act}: {} does not tell its length", self.place));
                length.ok_or_else(lacking).map(Some)
            }
            Err(error) if error.kind() == ErrorKind::Absent => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn post(&self, key: &StoreKey, parts: &[&[u8]], pulse: &Pulse) -> Result<()> {
        let act = Act("write", key);
        let (length, is_config) = (length_of(parts), key.kind == ObjectKind::Config);
        match self.look(act, key, pulse).await? {
            Some(_) if is_config => return Err(self.taken()),
            Some(found) if found == length => return Ok(()),
            _ => {}
        }
        // Waiting for the server to take the bytes shows as life, since they are handed over piece by piece.
        let (pieces, taken) = Pieces::new(parts);
        let request = self.request(Method::POST, &Self::path(key)).body(reqwest::Body::wrap(pieces));
        let sending = self.send(act, request, pulse);
        tokio::pin!(sending);
        let mut seen = 0;
        let sent = loop {
            match tokio::time::timeout(body::LOOK_EVERY, &mut sending).await {
                Ok(result) => break result,
                Err(_) => {
                    let now = taken.load(std::sync::atomic::Ordering::Relaxed);
                    if now > seen {
                        pulse.beat((now - seen) as usize);
                        seen = now;
                    }
                }
            }
        };
        match sent {
            Ok(_) => Ok(()),
            // A server that only appends refuses what is there already, and a racing writer may have put it there.
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Conflict) => {
                match self.look(act, key, pulse).await {
                    Ok(Some(_)) if is_config => Err(self.taken()),
                    Ok(Some(found)) if found == length => Ok(()),
                    Ok(Some(found)) => Err(error.context(format!(
                        "{key} at {} has {found} bytes instead of {length} and the server does not replace it",
                        self.place
                    ))),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn taken(&self) -> Error {
        Error::new(ErrorKind::Conflict, format!("there is a config at {} already", self.place))
            .with_hint("this place holds a repository; use it, or choose another place")
    }

    /// Reads a body to its end, or so many bytes of it after `skip`.
    async fn read(
        &self,
        act: Act<'_>,
        mut response: Response,
        (skip, length): (u64, Option<usize>),
        out: &mut Vec<u8>,
        pulse: &Pulse,
    ) -> Result<()> {
        let mut skip = skip;
        let wanted = length.unwrap_or(usize::MAX);
        while let Some(piece) = response.chunk().await.map_err(|error| troubled(act, &self.place, error))? {
            pulse.beat(piece.len());
            let passed = skip.min(piece.len() as u64) as usize;
            skip -= passed as u64;
            let take = (piece.len() - passed).min(wanted - out.len());
            out.extend_from_slice(&piece[passed..passed + take]);
            if out.len() == wanted {
                break;
            }
        }
        Ok(())
    }

    async fn read_range(
        &self,
        key: &StoreKey,
        offset: u64,
        out: &mut Vec<u8>,
        length: usize,
        pulse: &Pulse,
    ) -> Result<()> {
        let act = Act("read", key);
        let beyond = || Error::corrupt(format!("{key} at {} ends before byte {offset}+{length}", self.place));
        let end = offset.checked_add(length as u64).filter(|_| length > 0);
        let Some(end) = end else {
            let total = self.look(act, key, pulse).await?.ok_or_else(|| act.absent(&self.place))?;
            return if length == 0 && offset <= total { Ok(()) } else { Err(beyond()) };
        };
        let range = format!("bytes={offset}-{}", end - 1);
        let response =
            match self.send(act, self.request(Method::GET, &Self::path(key)).header(RANGE, range), pulse).await {
                // A range of nothing that is there.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    return Err(error.context(beyond().message().to_owned()));
                }
                other => other?,
            };
        let skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let told = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
                let start = told.strip_prefix("bytes ").and_then(|rest| rest.split('-').next()?.parse::<u64>().ok());
                if start.is_some_and(|start| start != offset) {
                    return Err(Error::corrupt(format!("{act}: {} sent another range: {told:?}", self.place)));
                }
                0
            }
            // It does not know ranges and sends all of it.
            _ => offset,
        };
        out.reserve_exact(length.min(16 << 20));
        self.read(act, response, (skip, Some(length)), out, pulse).await?;
        if out.len() == length { Ok(()) } else { Err(beyond()) }
    }
}

impl Store for RestStore {
    fn location(&self) -> String {
        self.place.to_string()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { connections: 8, coalesce_gap_bytes: 256 << 10, exclusive_create: false, list_after_write: true }
    }

    fn create(&self) -> Result<()> {
        let (act, pulse) = (Act("make the folders of", &"the repository"), Pulse::new());
        self.call(act, 0, &pulse, async {
            self.send(act, self.request(Method::POST, "?create=true"), &pulse).await.map(drop)
        })
    }

    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        let _turn = (key.kind == ObjectKind::Config).then(|| lock(&self.config_turn));
        let pulse = Pulse::new();
        self.call(Act("write", key), length_of(parts), &pulse, self.post(key, parts, &pulse))
    }

    /// The server answers a write when the bytes are kept.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        let (act, pulse) = (Act("read", key), Pulse::new());
        // How long it is shows in the answer only; what flows is bounded by silence.
        self.call(act, 1 << 30, &pulse, async {
            let response = self.send(act, self.request(Method::GET, &Self::path(key)), &pulse).await?;
            let mut out = Vec::with_capacity(response.content_length().unwrap_or(0).min(64 << 20) as usize);
            self.read(act, response, (0, None), &mut out, &pulse).await?;
            Ok(out)
        })
    }

    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let pulse = Pulse::new();
        // A server without ranges sends what is before it too.
        let bytes = offset.saturating_add(length as u64).min(1 << 30);
        let result = self.call(Act("read", key), bytes, &pulse, self.read_range(key, offset, out, length, &pulse));
        if result.is_err() {
            out.clear();
        }
        result
    }

    fn size(&self, key: &StoreKey) -> Result<u64> {
        let (act, pulse) = (Act("examine", key), Pulse::new());
        self.call(act, 0, &pulse, self.look(act, key, &pulse))?.ok_or_else(|| act.absent(&self.place))
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        let folder = kind.folder();
        let (act, pulse) = (Act("list", &folder), Pulse::new());
        self.call(act, 1 << 30, &pulse, async {
            if kind == ObjectKind::Config {
                let found = self.look(act, &StoreKey::CONFIG, &pulse).await?;
                return Ok(found.map(|length| (StoreKey::CONFIG.id, length)).into_iter().collect());
            }
            let request = self.request(Method::GET, &format!("{folder}/")).header(ACCEPT, LIST_V2);
            let response = self.send(act, request, &pulse).await.map_err(|error| match error.kind() {
                ErrorKind::Absent => {
                    let message = format!("there is no repository at {}", self.place);
                    Error::new(ErrorKind::NoRepository, message).with_source(error)
                }
                _ => error,
            })?;
            let has_sizes =
                response.headers().get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(LIST_V2.as_bytes()));
            let mut text = Vec::new();
            self.read(act, response, (0, None), &mut text, &pulse).await?;
            if has_sizes {
                return list::with_sizes(&text).with_context(|| format!("{act} at {}", self.place));
            }
            let names = list::names(&text).with_context(|| format!("{act} at {}", self.place))?;
            self.sizes(kind, names, &pulse).await
        })
    }

    fn remove(&self, key: &StoreKey) -> Result<()> {
        let (act, pulse) = (Act("remove", key), Pulse::new());
        let result = self.call(act, 0, &pulse, async {
            self.send(act, self.request(Method::DELETE, &Self::path(key)), &pulse).await.map(drop)
        });
        match result {
            Err(error) if error.kind() == ErrorKind::Absent => Ok(()),
            Err(error) if error.kind() == ErrorKind::Denied && error.hint().is_none() => Err(error.with_hint(
                "the server only appends, so nothing is removed from here; remove old recovery points where the server runs, or start it without --append-only while you do",
            )),
            other => other,
        }
    }

    /// There are no names for a trial: whatever is written is an object to others. So this looks only whether the server
    /// answers and knows us.
    fn probe(&self) -> Result<()> {
        match self.size(&StoreKey::CONFIG) {
            Err(error) if error.kind() != ErrorKind::Absent => Err(error),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for RestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestStore").field("place", &self.place).finish_non_exhaustive()
    }
}
