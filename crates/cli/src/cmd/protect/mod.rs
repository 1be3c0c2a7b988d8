//! `protect`: the two-minute start. From paths to a config, a key, a repository, a recovery point, and the proof that it
//! can be restored.
//!
//! Nothing is written before everything that can be judged beforehand was judged. Key, repository and config are then
//! made in this order, each durable before the next, so that a run that was killed is taken up by repeating it: a key
//! without a repository and a repository without a config are used as they are.

mod document;
mod proof;
mod tell;
mod wanted;

use super::{backup, init, spread};
use crate::args::{Backup, LOCK_WAIT_DEFAULT, Protect};
use crate::config::{Config, FILE_NAME, PostgresConfig, SecretRef, SourceConfig, SourceSpec, secret};
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::protection::last_good_but;
use crate::run::{Chosen, Run};
use crate::several::near_first;
use crate::text;
use crate::wiring::{self, Place};
use document::Document;
use lastgood_model::source::FindingLevel;
use lastgood_model::{Context, Error, ErrorKind, Result, SnapshotId, Time};
use lastgood_repo::copy::{CopyOptions, CopyReport};
use lastgood_repo::{Compression, Repository};
use proof::Proof;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wanted::{Server, Wanted};

/// Where the key is, unless somebody says otherwise.
const KEY_NAME: &str = "lastgood.key";
/// Where the repository is, unless somebody says otherwise.
const REPOSITORY_NAME: &str = "backups";

/// What came of it in one repository.
struct Protected {
    chosen: Chosen,
    taken: backup::Taken,
    /// What was sent, for a point that came here from the first repository.
    copied: Option<(CopyReport, Duration)>,
    proof: Proof,
    key_made: Option<PathBuf>,
    repository_made: bool,
}

pub(super) fn run(run: &Run, args: &Protect) -> Outcome {
    let path = config_path(run);
    let existing = if path.is_file() { Config::load_from(Some(path.clone()))? } else { None };
    let folder = std::path::absolute(&path).context("find the config's folder")?;
    let folder = folder.parent().unwrap_or(Path::new("/")).to_owned();

    let wanted = wanted::examine(&args.paths)?;
    if let Some(scratch) = &args.scratch {
        proof::require_usable(scratch)?;
    }
    let mut document = Document::open(&path, &folder)?;
    let mut added = Vec::new();
    for thing in &wanted {
        match existing.as_ref().and_then(|config| wanted::covered_by(thing, config)) {
            Some(source) => run.out.note(format!("note: {} is part of source {source} already", thing.shown())),
            None => {
                if let Some(source) = existing.as_ref().and_then(|config| wanted::emptied_database(thing, config)) {
                    return Err(emptied(run, existing.as_ref(), thing, source).into());
                }
                let name = document.add_source(thing, |name| url_file(&folder, name))?;
                added.push(Added { name, thing });
            }
        }
    }
    let targets = near_first(targets(run, existing.as_ref(), &folder, &mut document)?);
    for chosen in &targets {
        judge(run, chosen, &wanted)?;
    }
    probe(&document.config()?, &added)?;
    let url_files: Vec<(PathBuf, &Server)> = added.iter().filter_map(|added| added.url_file(&folder)).collect();
    if let Some((path, _)) = url_files.iter().find(|(path, server)| !is_kept(path, server)) {
        return Err(Error::new(ErrorKind::Conflict, format!("{} is in the way", path.display()))
            .with_hint("the URL with its password was to be kept there; move it away, or leave the password out of the URL and put it into ~/.pgpass").into());
    }

    let mut made = Vec::new();
    for chosen in &targets {
        made.push(prepare(run, chosen)?);
    }
    for (path, server) in &url_files {
        if !path.exists() {
            secret::keep(path, &server.url)?;
        }
    }
    let config_written = document.save()?;
    let config = Config::load_from(Some(path.clone()))?
        .ok_or_else(|| Error::new(ErrorKind::Bug, "the config that was just written is gone"))?;
    run.remember(Some(&config));

    let mut code = ExitCode::Ok;
    let mut all: Vec<Protected> = Vec::new();
    let request = Backup {
        sources: Vec::new(),
        force: false,
        reason: None,
        tags: Vec::new(),
        dry_run: false,
        compression: None,
        lock_wait: LOCK_WAIT_DEFAULT,
    };
    for (chosen, (repository_made, key_made)) in targets.into_iter().zip(made) {
        // The sources are read once; what is here already goes on to the other places.
        let (mut taken, copied) = match all.first() {
            None => (backup::take(run, &config, &chosen, &request)?, None),
            Some(first) => {
                let options = CopyOptions { lock_wait: LOCK_WAIT_DEFAULT, ..CopyOptions::default() };
                let copied = spread::copy_of(run, &config.app, &first.taken, &chosen, options)?;
                (copied.taken, Some((copied.report, copied.took)))
            }
        };
        code = code.or(taken.exit_code());
        let proof = proof::prove(run, &config, &chosen, &taken, args.scratch.as_deref())?;
        code = code.or(proof.exit_code());
        if let (Proof::Done(report), ExitCode::Damage) = (&proof, proof.exit_code()) {
            taken.last_good = last_good_but(&taken.repository, Some(&config.app), &[report.snapshot])?;
        }
        all.push(Protected { chosen, taken, copied, proof, key_made, repository_made });
    }
    let passwords: Vec<String> = added.iter().filter_map(|added| added.about_password(&folder)).collect();
    tell::tell(run, &config, &path, config_written, &passwords, &all, code)?;
    Ok(code)
}

/// A path that is configured as a database and is none now must not become a source of files beside it.
fn emptied(run: &Run, config: Option<&Config>, thing: &Wanted, source: &str) -> Error {
    let last = config.and_then(|config| last_with_tables(run, config, source));
    let what = match thing.path().map(fs_err::metadata) {
        Some(Ok(meta)) if meta.len() == 0 => "is empty",
        _ => "is no SQLite database",
    };
    let error = Error::new(
        ErrorKind::Conflict,
        format!("{} {what} now, and the config has it as the database of source {source:?}", thing.shown()),
    );
    match last {
        Some((id, time)) => error.with_hint(format!(
            "nothing was changed. The last recovery point with its tables is {} of {}: `lastgood restore {} --in-place \
             --source {source}`. If it is empty on purpose, `lastgood backup` takes it as it is",
            id.short(),
            text::moment(time),
            id.short()
        )),
        None => error.with_hint(
            "nothing was changed. No recovery point with its tables could be found; if it is empty on purpose, `lastgood \
             backup` takes it as it is, else correct the path in the config",
        ),
    }
}

/// The newest recovery point in any of the repositories in which the database of a source had tables.
fn last_with_tables(run: &Run, config: &Config, source: &str) -> Option<(SnapshotId, Time)> {
    let all = run.repositories(Some(config)).ok()?;
    let last = |chosen: &Chosen| {
        let repository = run.open(chosen).ok()?;
        lastgood_ops::emptied::last_with_tables(&repository, &config.app, source).ok().flatten()
    };
    all.iter().filter_map(last).max_by_key(|(_, time)| *time)
}

/// A source that is new in the config.
struct Added<'w> {
    name: String,
    thing: &'w Wanted,
}

impl<'w> Added<'w> {
    /// The file that its URL is kept in, when that holds a password.
    fn url_file(&self, folder: &Path) -> Option<(PathBuf, &'w Server)> {
        match self.thing {
            Wanted::Postgres(server) if server.has_password() => Some((url_file(folder, &self.name), server)),
            _ => None,
        }
    }

    /// Where its password is from now on, for people.
    fn about_password(&self, folder: &Path) -> Option<String> {
        let Wanted::Postgres(server) = self.thing else { return None };
        if let Some((path, _)) = self.url_file(folder) {
            return Some(format!(
                "{} (written now, for its owner alone): the URL of {} with its password. The config only names it",
                path.display(),
                self.name
            ));
        }
        server.database.password_of_variable.then(|| {
            format!(
                "source {} took it from PGPASSWORD; where that is not set, as in cron, put it into ~/.pgpass",
                self.name
            )
        })
    }
}

/// Where a URL with a password is kept.
fn url_file(folder: &Path, source: &str) -> PathBuf {
    folder.join(format!("{source}.url"))
}

/// True when nothing is at `path`, or this very URL, as a run that was killed leaves it.
fn is_kept(path: &Path, server: &Server) -> bool {
    !path.exists() || SecretRef::File(path.to_owned()).resolve_url().is_ok_and(|url| *url == *server.url)
}

/// The config to write: the one that was named, else that of the working directory.
fn config_path(run: &Run) -> PathBuf {
    let variable = std::env::var_os("LASTGOOD_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
    run.global.config.clone().or(variable).unwrap_or_else(|| PathBuf::from(FILE_NAME))
}

/// Where to protect to: what `--repo` says, what the config says, or `./backups`. What the config lacks is added to it.
fn targets(run: &Run, existing: Option<&Config>, folder: &Path, document: &mut Document) -> Result<Vec<Chosen>> {
    let configured = existing.map(|config| config.repositories.as_slice()).unwrap_or_default();
    if run.global.repo.is_none() && !configured.is_empty() {
        return run.repositories(existing);
    }
    if let Some(text) = &run.global.repo {
        let here = std::env::current_dir().context("find the working directory")?;
        let place = Place::parse(text, &here).map_err(|e| e.context("understand --repo"))?;
        let known =
            configured.iter().any(|r| r.place.is_where(&place) || std::ffi::OsStr::new(&r.name) == text.as_os_str());
        if known {
            return run.repositories(existing);
        }
    }
    let place = match &run.global.repo {
        Some(text) => Place::parse(text, &std::env::current_dir().context("find the working directory")?)?,
        None => Place::parse(REPOSITORY_NAME.as_ref(), folder)?,
    };
    let key = run.key_of_flag().or_else(SecretRef::of_environment);
    let key = key.unwrap_or_else(|| SecretRef::File(folder.join(KEY_NAME)));
    document.add_repository(&place, &key)?;
    Ok(vec![Chosen { name: None, place, key: Some(key), compression: Compression::default(), quota_bytes: None }])
}

/// What can be said against a repository before anything is written.
fn judge(run: &Run, chosen: &Chosen, wanted: &[Wanted]) -> Result<()> {
    let Some(folder) = chosen.place.folder() else { return Ok(()) };
    let real = fs_err::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let paths = || wanted.iter().filter_map(Wanted::path);
    for path in paths() {
        if path.starts_with(folder) || fs_err::canonicalize(path).is_ok_and(|path| path.starts_with(&real)) {
            return Err(Error::invalid(format!("{} is the repository itself, or part of it", path.display()))
                .with_hint("name what is to be protected; the repository protects it, not itself"));
        }
    }
    let has_repository = folder.join("config").exists();
    let key_file = chosen.key()?.file();
    if let Some(path) = paths().find(|path| key_file.as_deref() == Some(*path)) {
        return Err(Error::invalid(format!("{} is the key of the repository", path.display()))
            .with_hint("a key inside of what it locks helps nobody; copy it to another place instead"));
    }
    let has_key = key_file.as_ref().is_none_or(|path| path.exists());
    if has_repository && !has_key {
        let key = key_file.map(|path| path.display().to_string()).unwrap_or_default();
        return Err(Error::new(
            ErrorKind::WrongKey,
            format!("there is a repository at {}, but its key {key} is not there", chosen.place),
        )
        .with_hint("bring the key file back from where it was copied to, or choose another place with --repo PATH"));
    }
    if !has_repository {
        if chosen.name.is_some() && key_file.is_some() && has_key {
            // A new one in an empty mount point would hide the old one and all that is in it. Opening it says what is
            // amiss, in the words of every other command.
            drop(run.open(chosen)?);
        }
        Repository::exists(&*chosen.place.store(&run.monitor())?)?;
        wiring::refuse_foreign_folder(folder)?;
    }
    Ok(())
}

/// What is new must be capturable now: a first run that cannot work leaves nothing behind.
fn probe(config: &Config, added: &[Added<'_>]) -> Result<()> {
    for Added { name, thing } in added {
        let Some(source) = config.sources.iter().find(|source| source.name == *name) else { continue };
        let probed = match thing {
            // The file with its URL is not there yet.
            Wanted::Postgres(server) => {
                let spec = SourceSpec::Postgres(Box::new(PostgresConfig::of_url(&server.url)));
                wiring::source(&SourceConfig { name: name.clone(), spec, keep: None }, &[])?.probe()
            }
            _ => wiring::source(source, &[])?.probe(),
        };
        for finding in probed.with_context(|| format!("{:?} cannot be protected now", source.name))? {
            if finding.level == FindingLevel::Failure {
                let error = Error::invalid(format!("{:?} cannot be protected: {}", source.name, finding.message));
                return Err(match finding.hint {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                });
            }
        }
    }
    Ok(())
}

/// Makes what is missing; true when the repository was, and the key file when that was.
fn prepare(run: &Run, chosen: &Chosen) -> Result<(bool, Option<PathBuf>)> {
    let exists = match chosen.place.folder() {
        Some(folder) => folder.join("config").exists(),
        None => chosen.place.store(&run.monitor())?.size(&lastgood_model::store::StoreKey::CONFIG).is_ok(),
    };
    if exists {
        // A key that does not fit is found before the config is touched.
        drop(run.open(chosen)?);
        return Ok((false, None));
    }
    let made = init::make(run, chosen, None, false)?;
    Ok((true, made.key_made))
}
