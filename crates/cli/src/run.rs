//! One run of the program: flags, config and environment taken together, and the repository that was meant.

use crate::args::Global;
use crate::config::{Config, LoadError, RepositoryConfig, SecretRef, nearest, secret};
use crate::errors::Failure;
use crate::exit_code::ExitCode;
use crate::local::cache_folder;
use crate::output::Out;
use crate::progress::Progress;
use crate::protection::Protection;
use crate::stop::Stop;
use crate::wiring::Place;
use lastgood_model::selector::Selector;
use lastgood_model::{Context, Error, ErrorKind, Monitor, Result, SnapshotId};
use lastgood_repo::{Compression, OpenOptions, Repository, Snapshot};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Flags, outputs, and what is known so far for the case of a failure.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) global: Global,
    pub(crate) out: Out,
    pub(crate) stop: Arc<Stop>,
    stakes: Mutex<Stakes>,
}

/// What a failure would be about.
#[derive(Debug, Default)]
struct Stakes {
    sources: Vec<String>,
    app: Option<String>,
    repository: Option<Arc<Repository>>,
    /// Recovery points that were read from.
    picked: Vec<SnapshotId>,
}

/// A repository that was chosen, not opened yet.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    /// Its name in the config.
    pub(crate) name: Option<String>,
    pub(crate) place: Place,
    /// Where its key is, by flag, config or environment.
    pub(crate) key: Option<SecretRef>,
    pub(crate) compression: Compression,
    /// So many bytes it may hold, when the config says so.
    pub(crate) quota_bytes: Option<u64>,
}

impl Chosen {
    /// For people: its name and where it is.
    pub(crate) fn describe(&self) -> String {
        match &self.name {
            Some(name) => format!("repository {name:?} at {}", self.place),
            None => format!("the repository at {}", self.place),
        }
    }

    /// By which word people name it.
    pub(crate) fn word(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.place.to_string())
    }

    /// Where its key is.
    ///
    /// # Errors
    /// [`ErrorKind::WrongKey`] when nothing says so.
    pub(crate) fn key(&self) -> Result<&SecretRef> {
        self.key.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::WrongKey, format!("nothing says where the key of the repository at {} is", self.place))
                .with_hint("say --key-file FILE, set LASTGOOD_KEY_FILE or LASTGOOD_KEY, or add `key = { file = \"…\" }` to the config")
        })
    }
}

impl Run {
    pub(crate) fn new(global: Global, out: Out, stop: Arc<Stop>) -> Self {
        Self { global, out, stop, stakes: Mutex::default() }
    }

    /// A monitor for one operation.
    pub(crate) fn monitor(&self) -> Arc<Monitor> {
        self.stop.monitor()
    }

    /// Shows an operation until the answer is dropped.
    pub(crate) fn progress(&self, act: &str, monitor: &Arc<Monitor>) -> Progress {
        Progress::start(act, monitor, self.global.quiet)
    }

    /// The config, when there is one. For a repository that is given with its key a config is not needed, so that one
    /// that cannot be used does not stand in the way of a restore.
    pub(crate) fn config(&self) -> Result<Option<Config>, Failure> {
        match Config::load(self.global.config.as_deref()) {
            Ok(config) => {
                self.remember(config.as_ref());
                Ok(config)
            }
            Err(LoadError::Wrong(problems)) if self.needs_no_config() => {
                self.out.note(format!(
                    "warning: the config is passed over, since it cannot be used: {}",
                    problems.lines.join("; ")
                ));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn needs_no_config(&self) -> bool {
        let place = self.global.repo.as_deref().is_some_and(looks_like_place);
        place
            && (self.global.key_file.is_some() || SecretRef::of_environment().is_some())
            && self.global.config.is_none()
    }

    /// The config, which must be there.
    pub(crate) fn need_config(&self) -> Result<Config, Failure> {
        match Config::load(self.global.config.as_deref())? {
            Some(config) => {
                self.remember(Some(&config));
                Ok(config)
            }
            None => Err(Error::invalid("there is no config")
                .with_hint("`lastgood protect PATH…` makes one; or name one with --config FILE")
                .into()),
        }
    }

    /// Keeps in mind what a failure would be about.
    pub(crate) fn remember(&self, config: Option<&Config>) {
        let mut stakes = self.stakes.lock().unwrap_or_else(PoisonError::into_inner);
        stakes.app = config.map(|c| c.app.clone());
        stakes.sources = config.map(|c| c.sources.iter().map(|s| s.name.clone()).collect()).unwrap_or_default();
    }

    /// From here on a failure is one of a restore, which says nothing of what is protected.
    pub(crate) fn remember_restore(&self) {
        self.stakes.lock().unwrap_or_else(PoisonError::into_inner).sources.clear();
    }

    /// What a failure means for the data, as far as it can be found out now. When it tells of damage, no recovery point
    /// that was being read counts as good.
    pub(crate) fn protection(&self, failure: &Failure) -> Option<Protection> {
        let stakes = self.stakes.lock().unwrap_or_else(PoisonError::into_inner);
        let doubtful = if failure.exit_code() == ExitCode::Damage { stakes.picked.as_slice() } else { &[] };
        match &stakes.repository {
            Some(repository) => match Protection::of(repository, stakes.app.as_deref(), &stakes.sources, doubtful) {
                Ok(protection) => Some(protection),
                Err(error) => {
                    tracing::debug!(error = %error.chain(), "the last good recovery point could not be found out");
                    Protection::unknown(&stakes.sources)
                }
            },
            None => Protection::unknown(&stakes.sources),
        }
    }

    /// All repositories that are meant: the one of `--repo`, else all of the config.
    pub(crate) fn repositories(&self, config: Option<&Config>) -> Result<Vec<Chosen>> {
        let configured = config.map(|c| c.repositories.as_slice()).unwrap_or_default();
        let chosen = match &self.global.repo {
            Some(text) => vec![self.named(text, configured)?],
            None if configured.is_empty() => {
                return Err(match config {
                    Some(_) => Error::invalid("the config names no repository")
                        .with_hint("add a [repository.NAME] section with `url` and `key`"),
                    None => Error::invalid("there is neither a config nor a repository to work with").with_hint(
                        "start with `lastgood protect PATH…`, or name a repository: --repo PATH --key-file FILE",
                    ),
                });
            }
            None => configured.iter().map(|r| self.configured(r)).collect(),
        };
        Ok(chosen)
    }

    /// The one repository that is meant.
    pub(crate) fn repository(&self, config: Option<&Config>) -> Result<Chosen> {
        let mut all = self.repositories(config)?;
        match (all.pop(), all.is_empty()) {
            (Some(one), true) => Ok(one),
            (last, _) => {
                all.extend(last);
                let names: Vec<&str> = all.iter().filter_map(|c| c.name.as_deref()).collect();
                Err(Error::invalid(format!("the config names {} repositories, and this is about one", all.len()))
                    .with_hint(format!("choose one with --repo: {}", names.join(", "))))
            }
        }
    }

    fn configured(&self, config: &RepositoryConfig) -> Chosen {
        // The environment's key lies over the file's already.
        let key = self.key_of_flag().or_else(|| config.key.clone());
        Chosen {
            name: Some(config.name.clone()),
            place: config.place.clone(),
            key,
            compression: config.compression,
            quota_bytes: config.quota_bytes,
        }
    }

    /// The repository that a name of the config, a path or a URL means. A key file that is given goes before all else.
    pub(crate) fn other(&self, text: &OsStr, config: Option<&Config>, key_file: Option<&Path>) -> Result<Chosen> {
        let mut chosen = self.named(text, config.map(|c| c.repositories.as_slice()).unwrap_or_default())?;
        if let Some(file) = key_file {
            chosen.key = Some(SecretRef::File(file.to_owned()));
        }
        Ok(chosen)
    }

    fn named(&self, text: &OsStr, configured: &[RepositoryConfig]) -> Result<Chosen> {
        if let Some(config) = configured.iter().find(|r| OsStr::new(&r.name) == text) {
            return Ok(self.configured(config));
        }
        if !looks_like_place(text) && !std::path::Path::new(text).exists() {
            let shown = text.to_string_lossy();
            let names: Vec<&str> = configured.iter().map(|r| r.name.as_str()).collect();
            let hint = match nearest(&shown, names.iter().copied()) {
                Some(name) => format!("did you mean {name:?}?"),
                None if names.is_empty() => format!("for a folder write ./{shown}"),
                None => format!("the config has: {}; for a folder write ./{shown}", names.join(", ")),
            };
            return Err(Error::invalid(format!("there is no repository named {shown:?} in the config")).with_hint(hint));
        }
        let folder = std::env::current_dir().context("find the working directory")?;
        let place = Place::parse(text, &folder).map_err(|e| e.context("understand --repo"))?;
        if let Some(config) = configured.iter().find(|r| r.place.is_where(&place)) {
            return Ok(self.configured(config));
        }
        let key = self.key_of_flag().or_else(SecretRef::of_environment);
        Ok(Chosen { name: None, place, key, compression: Compression::default(), quota_bytes: None })
    }

    /// The key that `--key-file` names.
    pub(crate) fn key_of_flag(&self) -> Option<SecretRef> {
        self.global.key_file.clone().map(SecretRef::File)
    }

    /// How repositories are opened.
    pub(crate) fn open_options(&self) -> OpenOptions {
        let cache = if self.global.no_cache { None } else { cache_folder() };
        OpenOptions { cache, ..OpenOptions::default() }
    }

    /// Opens a repository.
    pub(crate) fn open(&self, chosen: &Chosen) -> Result<Arc<Repository>> {
        let key = chosen.key()?;
        let password = key.resolve()?;
        if let Some((warning, hint)) = key.exposure() {
            self.out.note(format!("warning: {warning}; {hint}"));
        }
        let store = chosen.place.store(&self.monitor())?;
        let repository =
            Repository::open(store, &password, self.open_options()).map_err(|error| match error.kind() {
                ErrorKind::WrongKey => {
                    let error =
                        error.context(format!("open the repository at {} with {}", chosen.place, key.describe()));
                    match secret::has_blanks_around(&password) {
                        true => error.with_hint(
                            "spaces before or after the key count as part of it: remove them there, if they are a slip",
                        ),
                        false => error,
                    }
                }
                ErrorKind::NoRepository => match chosen.place.hint_of_absence(chosen.name.is_some()) {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                },
                _ => error,
            })?;
        let repository = Arc::new(repository);
        self.stakes.lock().unwrap_or_else(PoisonError::into_inner).repository = Some(repository.clone());
        Ok(repository)
    }

    /// Opens the one repository that is meant, with the name of the config's application.
    pub(crate) fn open_one(&self) -> Result<(Arc<Repository>, Option<String>), Failure> {
        let config = self.config()?;
        let chosen = self.repository(config.as_ref())?;
        Ok((self.open(&chosen)?, config.map(|c| c.app)))
    }

    /// The recovery point of one repository that a person named.
    pub(crate) fn pick(&self, repository: &Repository, selector: &str, app: Option<&str>) -> Result<Snapshot> {
        let selector: Selector = selector.parse()?;
        let snapshot = lastgood_ops::snapshots::pick(repository, &selector, app)?;
        self.remember_picked(std::slice::from_ref(&snapshot));
        Ok(snapshot)
    }

    /// Opens a repository that is one of several things a command works with: trouble with it names it.
    pub(crate) fn open_named(&self, chosen: &Chosen) -> Result<Arc<Repository>> {
        self.open(chosen).map_err(|error| error.context(format!("use {}", chosen.describe())))
    }

    /// Remembers recovery points that are read from, for the case of damage.
    pub(crate) fn remember_picked(&self, snapshots: &[Snapshot]) {
        let mut stakes = self.stakes.lock().unwrap_or_else(PoisonError::into_inner);
        stakes.picked.extend(snapshots.iter().map(|snapshot| snapshot.id));
    }

    /// Says which repository a failure is about from now on.
    pub(crate) fn remember_repository(&self, repository: &Arc<Repository>) {
        self.stakes.lock().unwrap_or_else(PoisonError::into_inner).repository = Some(repository.clone());
    }
}

/// True for what cannot be the name of a repository in a config.
fn looks_like_place(text: &OsStr) -> bool {
    text == "." || text == ".." || text.as_bytes().iter().any(|b| matches!(b, b'/' | b':'))
}

/// A path given on the command line, as bytes of a path in a recovery point.
pub(crate) fn path_bytes(path: &OsStr) -> &[u8] {
    path.as_bytes()
}
