//! Where a repository is, and the store there.

use super::access;
use crate::config::AccessConfig;
use lastgood_model::store::Store;
use lastgood_model::{Monitor, Result};
use lastgood_stores::{LimitStore, Location, Pace, Rates, RetryPolicy, RetryStore, SystemPace, parse_location};
use std::ffi::OsStr;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where a repository is, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    location: Location,
    access: AccessConfig,
}

impl Place {
    /// Understands a path or URL; relative paths are below `folder`. Touches nothing.
    pub(crate) fn parse(text: &OsStr, folder: &Path) -> Result<Self> {
        let location = match text.to_str() {
            Some(text) => parse_location(text)?,
            // A path that is not text can be no URL.
            None => Location::Local(PathBuf::from(text)),
        };
        let location = match location {
            Location::Local(path) => {
                let path = folder.join(path);
                Location::Local(path.components().filter(|c| *c != Component::CurDir).collect())
            }
            other => other,
        };
        Ok(Self { location, access: AccessConfig::default() })
    }

    /// How long objects are locked there after they are written.
    pub(crate) fn lock(&self) -> Option<Duration> {
        self.access.lock
    }

    /// The same place, reached as a config says.
    pub(crate) fn with_access(self, access: AccessConfig) -> Self {
        Self { access, ..self }
    }

    /// True when both are in one place, however it is reached.
    pub(crate) fn is_where(&self, other: &Self) -> bool {
        self.location == other.location
    }

    /// Names of secrets that lead to a place of this kind.
    pub(crate) fn secrets(&self) -> &'static [&'static str] {
        self.location.secrets()
    }

    /// Names of settings for a place of this kind.
    pub(crate) fn settings(&self) -> &'static [&'static str] {
        self.location.settings()
    }

    /// True when the URL itself holds a secret.
    pub(crate) fn holds_secret(&self) -> bool {
        self.location.holds_secret()
    }

    /// The store at this place, with passing trouble outlasted until somebody asks to stop.
    pub(crate) fn store(&self, monitor: &Arc<Monitor>) -> Result<Arc<dyn Store>> {
        let pace = Arc::new(StoppablePace { pace: SystemPace::default(), monitor: monitor.clone() });
        let usual = RetryPolicy::default();
        let policy = RetryPolicy { total_max: self.access.patience.unwrap_or(usual.total_max), ..usual };
        let store = self.location.open(&access::of(&self.access))?;
        if self.access.rates == Rates::default() {
            return Ok(Arc::new(RetryStore::with_pace(store, policy, pace)));
        }
        // What is tried again counts again.
        let store = LimitStore::with_pace(store, self.access.rates, pace.clone());
        Ok(Arc::new(RetryStore::with_pace(store, policy, pace)))
    }

    /// The folder, when it is one on this machine.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.location {
            Location::Local(path) => Some(path),
            _ => None,
        }
    }
}

impl Place {
    /// What to do when no repository is here, and better than making one where one is expected: `expected` is true when
    /// the config says so. Its key was found, so that most likely recovery points were made.
    pub(crate) fn hint_of_absence(&self, expected: bool) -> Option<String> {
        let folder = self.folder()?;
        let init = "Only where there never was one, make it with `lastgood init`";
        let is_empty = match fs_err::read_dir(folder) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let gone = "the config says that a repository is there, but the folder is gone: is its disk mounted, or was it moved?";
                return expected.then(|| format!("{gone} {init}"));
            }
            Err(_) => return None,
        };
        match (is_empty, expected) {
            (true, _) => Some(format!("the folder is there, but empty: is its disk mounted? {init}")),
            (false, true) => Some(
                "the folder holds something else: correct `url` in the config, or bring the repository back there"
                    .to_owned(),
            ),
            (false, false) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.location.fmt(f)
    }
}

/// Waits between tries, but not beyond the wish to stop.
struct StoppablePace {
    pace: SystemPace,
    monitor: Arc<Monitor>,
}

impl Pace for StoppablePace {
    fn now(&self) -> Duration {
        self.pace.now()
    }

    fn wait(&self, delay: Duration) -> Result<()> {
        const STEP: Duration = Duration::from_millis(100);
        let mut left = delay;
        while !left.is_zero() {
            self.monitor.check_cancelled()?;
            let step = left.min(STEP);
            self.pace.wait(step)?;
            left -= step;
        }
        Ok(())
    }

    fn random(&self) -> u64 {
        self.pace.random()
    }
}
