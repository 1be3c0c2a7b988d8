//! Settings as values: parsed, checked against one another, with defaults.

use super::CONNECT_TIMEOUT_DEFAULT;
use super::settings::Settings;
use lastgood_model::{Error, ErrorKind, Result};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Folders in which packages put the server's socket: Debian's and Red Hat's, and PostgreSQL's own default.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];
/// The port when nothing is said.
const PORT_DEFAULT: u16 = 5432;

/// A limit in time; `None` waits without end.
pub type Timeout = Option<Duration>;

/// One server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where it listens.
    pub place: Place,
    /// TCP port, or the number in the socket's name.
    pub port: u16,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Over TCP. The name is looked up unless an address is given; with an address the name, if there is one, only
    /// serves to check certificates and find passwords.
    Tcp {
        /// Host name, or the address as text.
        name: String,
        /// `hostaddr`.
        address: Option<IpAddr>,
    },
    /// The folder of a Unix socket; one that begins with `@` is in the abstract namespace.
    Unix(PathBuf),
}

impl Host {
    /// What a password file calls it.
    pub(super) fn passfile_name(&self) -> String {
        match &self.place {
            Place::Tcp { name, .. } => name.clone(),
            Place::Unix(folder) if SOCKET_FOLDERS.iter().any(|known| Path::new(known) == folder) => {
                "localhost".to_owned()
            }
            Place::Unix(folder) => folder.to_string_lossy().into_owned(),
        }
    }

    /// The settings that say just this host.
    pub(super) fn settings(&self) -> [(&'static str, Option<String>); 3] {
        let (host, address) = match &self.place {
            Place::Tcp { name, address } => (name.clone(), address.map(|address| address.to_string())),
            Place::Unix(folder) => (folder.to_string_lossy().into_owned(), None),
        };
        [("host", Some(host)), ("hostaddr", address), ("port", Some(self.port.to_string()))]
    }

    /// The socket's path, or its abstract name behind an `@`.
    pub(crate) fn socket_path(folder: &Path, port: u16) -> PathBuf {
        folder.join(format!(".s.PGSQL.{port}"))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp { name, .. } if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Place::Tcp { name, .. } => write!(f, "{name}:{}", self.port),
            Place::Unix(folder) => write!(f, "{}", Self::socket_path(folder, self.port).display()),
        }
    }
}

/// The hosts of `host`, `hostaddr` and `port`, which go together by position.
pub(super) fn hosts(settings: &Settings) -> Result<Vec<Host>> {
    let list = |name| settings.get(name).map(|text| text.split(',').map(str::trim).collect::<Vec<_>>());
    let names = list("host").unwrap_or_default();
    let addresses = list("hostaddr").unwrap_or_default();
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        let message = format!("{} host names do not go with {} hostaddr values", names.len(), addresses.len());
        return Err(Error::invalid(message));
    }
    let count = names.len().max(addresses.len()).max(1);
    let ports = list("port").unwrap_or_default();
    if ports.len() > 1 && ports.len() != count {
        return Err(Error::invalid(format!("{} ports do not go with {count} hosts", ports.len())));
    }
    (0..count)
        .map(|at| {
            let text = ports.get(if ports.len() == 1 { 0 } else { at }).copied().unwrap_or_default();
            let port = match text {
                "" => PORT_DEFAULT,
                _ => text.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                    Error::invalid("the port is no number from 1 to 65535")
                        .with_hint("a \"/\", \"@\" or \":\" in a URL's password must be written as %2F, %40 or %3A")
                })?,
            };
            let name = names.get(at).copied().unwrap_or_default();
            let address = match addresses.get(at).copied().unwrap_or_default() {
                "" => None,
                text => {
                    let parsed = text.parse::<IpAddr>();
                    Some(parsed.map_err(|_| Error::invalid(format!("hostaddr {text:?} is no IP address")))?)
                }
            };
            let place = match (name, address) {
                ("", Some(address)) => Place::Tcp { name: address.to_string(), address: Some(address) },
                ("", None) => Place::Unix(default_folder(port)),
                (name, None) if name.starts_with(['/', '@']) => Place::Unix(PathBuf::from(name)),
                (name, address) => Place::Tcp { name: name.to_owned(), address },
            };
            Ok(Host { place, port })
        })
        .collect()
}

/// The folder in which a server with this port listens now, or would.
fn default_folder(port: u16) -> PathBuf {
    let folders = || SOCKET_FOLDERS.iter().map(PathBuf::from);
    let there = folders().find(|folder| rustix::fs::stat(Host::socket_path(folder, port)).is_ok());
    there.or_else(|| folders().find(|folder| folder.is_dir())).unwrap_or_else(|| PathBuf::from("/tmp"))
}

/// How hard to insist on TLS. The order is that of growing strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server refuses to go without.
    Allow,
    /// If the server can; without otherwise.
    Prefer,
    /// Always. The certificate is checked only if there is a root certificate file.
    Require,
    /// Always, and the certificate must come from a trusted authority.
    VerifyCa,
    /// As before, and it must be the host's.
    VerifyFull,
}

/// How TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslNegotiation {
    /// The server is asked first; all versions know this.
    Postgres,
    /// At once, from PostgreSQL 17 on.
    Direct,
}

/// Which authorities are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SslRoot {
    /// Those of a file that somebody named.
    File(PathBuf),
    /// Those of the person's own file, if it exists.
    Own(PathBuf),
    /// Those of the operating system.
    System,
    /// None.
    Missing,
}

/// Whether authentication must be bound to the TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If both sides can.
    Prefer,
    /// Else the connection is given up.
    Require,
}

/// TLS versions that can be asked for; older ones are never spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// How a connection is protected.
#[derive(Clone, Debug)]
pub struct Tls {
    /// How hard to insist.
    pub mode: SslMode,
    /// How it begins.
    pub negotiation: SslNegotiation,
    /// Whom to trust.
    pub root: SslRoot,
    /// Lists of revoked certificates: a file.
    pub revoked_file: Option<PathBuf>,
    /// Our certificate and its key; `true` if somebody named them, so that they must exist.
    pub own: Option<(PathBuf, PathBuf, bool)>,
    /// Whether the server is told the host's name before encryption begins.
    pub names_host: bool,
    /// Oldest version.
    pub version_min: TlsVersion,
    /// Newest version.
    pub version_max: TlsVersion,
    /// Binding of authentication to it.
    pub channel_binding: ChannelBinding,
}

/// What a server must be to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSession {
    /// Anything.
    Any,
    /// Sessions can write by default.
    ReadWrite,
    /// They cannot.
    ReadOnly,
    /// It is not in recovery.
    Primary,
    /// It is.
    Standby,
    /// A standby if any host is one, else anything.
    PreferStandby,
}

/// TCP keepalives; `None` leaves a value to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalives {
    /// Whether any are sent.
    pub is_on: bool,
    /// Silence before the first.
    pub idle: Timeout,
    /// Time between them.
    pub interval: Timeout,
    /// How many may be lost.
    pub count: Option<u32>,
}

/// All the rest.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) tls: Tls,
    pub(crate) connect_timeout: Timeout,
    pub(crate) keepalives: Keepalives,
    pub(crate) tcp_user_timeout: Timeout,
    pub(crate) target: TargetSession,
    pub(crate) shuffles_hosts: bool,
    pub(crate) peer_required: Option<String>,
    /// `require_auth`: the methods named, and whether they are the allowed or the forbidden ones.
    pub(crate) auth_methods: Option<(Vec<String>, bool)>,
}

impl Options {
    pub(super) fn read(settings: &Settings, home: Option<&str>) -> Result<Self> {
        refuse(settings)?;
        let flag = |name: &str, default: bool| match settings.get(name) {
            None => Ok(default),
            Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(_) => Err(Error::invalid(format!("{name} must be 0 or 1"))),
        };
        let keepalives = Keepalives {
            is_on: match number(settings, "keepalives")? {
                None => true,
                Some(value) => value != 0,
            },
            idle: duration(settings, "keepalives_idle", 1000, 60_000)?,
            interval: duration(settings, "keepalives_interval", 1000, 10_000)?,
            count: match number(settings, "keepalives_count")? {
                None => Some(6),
                Some(value) => u32::try_from(value).ok().filter(|count| *count > 0),
            },
        };
        let connect_timeout = match number(settings, "connect_timeout")? {
            None => Some(CONNECT_TIMEOUT_DEFAULT),
            Some(value) if value <= 0 => None,
            // One second is rounded up as in libpq: it can be over as soon as it began.
            Some(value) => Some(Duration::from_secs(value.max(2).unsigned_abs())),
        };
        let target = choice(
            settings,
            "target_session_attrs",
            TargetSession::Any,
            &[
                ("any", TargetSession::Any),
                ("read-write", TargetSession::ReadWrite),
                ("read-only", TargetSession::ReadOnly),
                ("primary", TargetSession::Primary),
                ("standby", TargetSession::Standby),
                ("prefer-standby", TargetSession::PreferStandby),
            ],
        )?;
        Ok(Self {
            tls: tls(settings, home, flag("sslsni", true)?)?,
            connect_timeout,
            keepalives,
            tcp_user_timeout: duration(settings, "tcp_user_timeout", 1, 0)?,
            target,
            shuffles_hosts: choice(settings, "load_balance_hosts", false, &[("disable", false), ("random", true)])?,
            peer_required: settings.get("requirepeer").map(str::to_owned),
            auth_methods: auth_methods(settings)?,
        })
    }
}

/// What is valid but cannot be honoured, and must not be passed over.
fn refuse(settings: &Settings) -> Result<()> {
    let no =
        |what: &str, hint: &str| Error::new(ErrorKind::Unsupported, format!("{what} is not supported")).with_hint(hint);
    match settings.get("gssencmode") {
        None | Some("disable" | "prefer") => {}
        Some("require") => {
            return Err(no("gssencmode=require", "protect the connection with TLS: sslmode=verify-full"));
        }
        Some(other) => return Err(unknown("gssencmode", other, ["disable", "prefer", "require"].as_slice())),
    }
    if settings.get("sslcrldir").is_some() {
        return Err(no("sslcrldir", "put the lists into one file and name it in sslcrl"));
    }
    if settings.get("scram_client_key").is_some() || settings.get("scram_server_key").is_some() {
        return Err(no("signing in with SCRAM keys", "give the password instead"));
    }
    if settings.get("sslcertmode") == Some("require") {
        return Err(no("sslcertmode=require", "leave it out: the certificate is sent whenever the server asks"));
    }
    if !matches!(settings.get("min_protocol_version"), None | Some("3.0")) {
        return Err(no("min_protocol_version above 3.0", "leave it out"));
    }
    Ok(())
}

fn tls(settings: &Settings, home: Option<&str>, names_host: bool) -> Result<Tls> {
    let own_file = |name: &str| home.map(|home| PathBuf::from(home).join(".postgresql").join(name));
    let root = match settings.get("sslrootcert") {
        Some("system") => SslRoot::System,
        Some(path) => SslRoot::File(PathBuf::from(path)),
        None => own_file("root.crt").filter(|path| path.exists()).map_or(SslRoot::Missing, SslRoot::Own),
    };
    let modes = [
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];
    let default = if root == SslRoot::System { SslMode::VerifyFull } else { SslMode::Prefer };
    let mode = choice(settings, "sslmode", default, &modes)?;
    if root == SslRoot::System && mode != SslMode::VerifyFull {
        return Err(Error::invalid("sslrootcert=system does not go with a weaker sslmode than verify-full")
            .with_hint("anyone can get a certificate from the system's authorities: only the host's name tells"));
    }
    let kinds = [("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)];
    let negotiation = choice(settings, "sslnegotiation", SslNegotiation::Postgres, &kinds)?;
    if negotiation == SslNegotiation::Direct && mode < SslMode::Require {
        return Err(Error::invalid("sslnegotiation=direct needs at least sslmode=require"));
    }
    let versions = [
        ("TLSv1", TlsVersion::V12),
        ("TLSv1.1", TlsVersion::V12),
        ("TLSv1.2", TlsVersion::V12),
        ("TLSv1.3", TlsVersion::V13),
    ];
    let version_min = choice(settings, "ssl_min_protocol_version", TlsVersion::V12, &versions)?;
    let version_max = choice(settings, "ssl_max_protocol_version", TlsVersion::V13, &versions[2..])?;
    if version_min > version_max {
        return Err(Error::invalid("ssl_min_protocol_version is above ssl_max_protocol_version"));
    }
    let bindings = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];
    let sends_certificate = choice(settings, "sslcertmode", true, &[("disable", false), ("allow", true)])?;
    let certificate = match settings.get("sslcert") {
        Some(path) => Some((PathBuf::from(path), true)),
        None => own_file("postgresql.crt").filter(|path| path.exists()).map(|path| (path, false)),
    };
    let key = settings.get("sslkey").map(PathBuf::from).or_else(|| own_file("postgresql.key"));
    let own = certificate.zip(key).map(|((certificate, must_exist), key)| (certificate, key, must_exist));
    let crl = settings.get("sslcrl").map(PathBuf::from);
    Ok(Tls {
        mode,
        negotiation,
        root,
        revoked_file: crl.or_else(|| own_file("root.crl").filter(|path| path.exists())),
        own: own.filter(|_| sends_certificate),
        names_host,
        version_min,
        version_max,
        channel_binding: choice(settings, "channel_binding", ChannelBinding::Prefer, &bindings)?,
    })
}

fn auth_methods(settings: &Settings) -> Result<Option<(Vec<String>, bool)>> {
    const KNOWN: &[&str] = &["password", "md5", "gss", "sspi", "scram-sha-256", "oauth", "none"];
    let Some(text) = settings.get("require_auth") else { return Ok(None) };
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    let forbids = words[0].starts_with('!');
    let mut methods = Vec::new();
    for word in words {
        if word.starts_with('!') != forbids {
            return Err(Error::invalid("require_auth mixes methods with and without \"!\""));
        }
        let method = word.trim_start_matches('!');
        if !KNOWN.contains(&method) {
            return Err(unknown("require_auth", method, KNOWN));
        }
        methods.push(method.to_owned());
    }
    Ok(Some((methods, forbids)))
}

fn choice<T: Copy>(settings: &Settings, name: &str, default: T, choices: &[(&str, T)]) -> Result<T> {
    let Some(value) = settings.get(name) else { return Ok(default) };
    choices.iter().find(|(word, _)| *word == value).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        unknown(name, value, &words)
    })
}

fn unknown(name: &str, value: &str, choices: &[&str]) -> Error {
    Error::invalid(format!("{name} cannot be {value:?}")).with_hint(format!("it can be {}", choices.join(", ")))
}

fn number(settings: &Settings, name: &str) -> Result<Option<i64>> {
    settings
        .get(name)
        .map(|text| text.trim().parse::<i32>().map(i64::from))
        .transpose()
        .map_err(|_| Error::invalid(format!("{name} is no whole number")))
}

/// A time in units of `unit_ms`; 0 and less mean the system's own. Not given means `default_ms`, 0 again the system's.
fn duration(settings: &Settings, name: &str, unit_ms: u64, default_ms: u64) -> Result<Timeout> {
    let ms = match number(settings, name)? {
        None => default_ms,
        Some(value) => u64::try_from(value).unwrap_or(0) * unit_ms,
    };
    Ok((ms > 0).then(|| Duration::from_millis(ms)))
}
