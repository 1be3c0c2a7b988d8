//! What a location alone does not say: credentials, and how to deal with the place.

use lastgood_model::Result;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// A secret in clear, wiped when it is dropped.
pub type Secret = Zeroizing<String>;

/// Where secrets come from. Asked each time one is needed anew, so that a rotated one is taken up by a running backup.
pub trait Secrets: Send + Sync {
    /// The secret of that name, one of [`Access::NAMES`]; `None` when there is no reference to one.
    ///
    /// # Errors
    /// What keeps it from being fetched, in words without secrets.
    fn get(&self, name: &str) -> Result<Option<Secret>>;

    /// True when there is a reference to the secret of that name. Fetches nothing.
    fn has(&self, name: &str) -> bool;
}

/// What opening a store takes beside its location.
#[derive(Clone, Default)]
pub struct Access {
    /// Secrets by reference. Where there is none for a store, the provider's own chain counts: environment, profile,
    /// the machine's role.
    pub secrets: Option<Arc<dyn Secrets>>,
    /// Keeps objects from being changed or removed for so long after they are written.
    pub lock: Option<ObjectLock>,
    /// A file with certificates, in PEM, of authorities that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// How long calls may take.
    pub timeouts: Timeouts,
    /// What the config says of the way to the place, by name: see [`crate::Location::settings`].
    pub settings: BTreeMap<String, String>,
    /// A mistake to be made on purpose.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<crate::planted::Planted>,
}

impl Access {
    /// The names of all secrets that a store can ask for.
    pub const NAMES: [&'static str; 9] = [
        "access_key_id",
        "secret_access_key",
        "session_token",
        "account_key",
        "sas",
        "service_account",
        "password",
        "private_key",
        "passphrase",
    ];

    /// The setting of that name.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// The secret of that name, when there is a reference to it.
    pub(crate) fn secret(&self, name: &str) -> Result<Option<Secret>> {
        debug_assert!(Self::NAMES.contains(&name), "{name} is not among the names of secrets");
        self.secrets.as_ref().map_or(Ok(None), |secrets| secrets.get(name))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("secrets", &self.secrets.as_ref().map(|_| "…"))
            .field("lock", &self.lock)
            .field("ca_file", &self.ca_file)
            .field("timeouts", &self.timeouts)
            .field("settings", &self.settings)
            .finish()
    }
}

/// A promise of the server that an object stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectLock {
    /// Whether somebody with a special permission may lift it.
    pub mode: LockMode,
    /// How long from writing.
    pub keep: Duration,
}

/// Who may lift a lock before its date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Whoever has the permission to.
    Governance,
    /// Nobody, the account's owner included.
    Compliance,
}

/// How long calls may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection stands.
    pub connect: Duration,
    /// Without a byte in either direction, also while an answer is awaited.
    pub idle: Duration,
    /// What a connection must carry at least over a whole call, in bytes a second. With the length of what is moved it
    /// gives the call's deadline.
    pub slowest_bytes_per_second: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), idle: Duration::from_secs(60), slowest_bytes_per_second: 16 << 10 }
    }
}

impl Timeouts {
    /// The longest that a call may take which moves so many bytes.
    pub fn total(&self, bytes: u64) -> Duration {
        self.connect + self.idle * 2 + Duration::from_secs(bytes / self.slowest_bytes_per_second.max(1))
    }
}
