//! `doctor`: whatever could stand in the way of the next backup or restore, and what to do about it.

use super::config::{examine, file};
use super::findings::Findings;
use super::leftovers;
use super::room::{self, Expected};
use crate::args::Doctor;
use crate::config::{Config, SourceConfig, SourceSpec};
use crate::errors::{Failure, Outcome};
use crate::exit_code::ExitCode;
use crate::local::{cache_folder, state_folder};
use crate::output::object;
use crate::protection::{last_good, now};
use crate::run::{Chosen, Run};
use crate::{text, wiring};
use lastgood_model::store::{ObjectKind, Store};
use lastgood_model::{Error, ErrorKind, Result};
use lastgood_repo::{LockMode, Repository};
use rustix::fs::{Access, access};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// 2026-01-01: a clock before the program was written is wrong.
const CLOCK_SECS_MIN: i64 = 1_767_225_600;

pub(super) fn run(run: &Run, args: &Doctor) -> Outcome {
    if let Some(name) = &args.grants {
        return grants(run, name, args.role.as_deref());
    }
    let mut findings = Findings::default();
    machine(&mut findings);
    let config = match run.config() {
        Ok(config) => config,
        Err(Failure::Config(problems)) => {
            for line in problems.lines {
                findings.failure("config", line, Some("`lastgood config check` shows it in place"));
            }
            None
        }
        Err(Failure::Error(error)) => {
            findings.error("config", &error);
            None
        }
    };
    if let Some(config) = &config {
        findings.ok("config", format!("{} can be used", file(config)));
        examine(config, None, &mut findings);
    }
    match run.repositories(config.as_ref()) {
        Ok(all) => {
            for chosen in &all {
                let about = format!("repository {}", chosen.name.clone().unwrap_or_else(|| chosen.place.to_string()));
                repository(run, config.as_ref(), chosen, &about, &mut findings);
            }
            leftovers::tell(config.as_ref(), &all, &mut findings);
        }
        Err(error) => findings.error("repositories", &error),
    }
    Ok(findings.tell(run, "lastgood.doctor", ExitCode::Failed)?)
}

/// Prints the statements that make a role for the captures of one source.
fn grants(run: &Run, name: &str, role: Option<&str>) -> Outcome {
    let config = run.need_config()?;
    let found = config.sources.iter().find(|source| source.name == *name);
    let script = match found.map(|source| &source.spec) {
        Some(SourceSpec::Postgres(settings)) => wiring::grants(name, settings, role)?,
        Some(_) => {
            return Err(
                Error::invalid(format!("source {name:?} is no PostgreSQL source: there is nothing to grant")).into()
            );
        }
        None => {
            drop(wiring::sources(&config, &[name.to_owned()], &[])?);
            return Err(Error::new(ErrorKind::Bug, format!("there is no source {name:?}")).into());
        }
    };
    if run.out.is_human() {
        run.out.bytes(script.as_bytes())?;
    } else {
        run.out.object(&object([
            ("type", "lastgood.grants".into()),
            ("schema", 1.into()),
            ("source", name.into()),
            ("sql", script.into()),
        ]))?;
    }
    Ok(ExitCode::Ok)
}

fn machine(findings: &mut Findings) {
    let about = "this machine";
    findings.ok(about, format!("lastgood {} on {}", env!("CARGO_PKG_VERSION"), lastgood_repo::lock::hostname()));
    let now = now();
    if now.secs < CLOCK_SECS_MIN {
        findings.failure(
            about,
            format!("the clock says {}, which is in the past", text::moment(now)),
            Some("set the clock, and keep it right by NTP"),
        );
    } else {
        findings.ok(about, format!("the clock says {}", text::moment(now)));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if limit.is_some_and(|limit| limit < 1024) {
        let hint = "raise the limit with `ulimit -n`, or LimitNOFILE= in the service";
        findings.warning(about, format!("only {} files may be open at once", limit.unwrap_or(0)), hint);
    }
    for (what, folder, without) in [
        ("cache", cache_folder(), "every run reads the whole index from the repository"),
        ("state", state_folder(), "`lastgood verify --within` cannot remember what was verified"),
    ] {
        match folder {
            None => findings.warning(about, format!("there is no {what} folder: {without}"), "set HOME"),
            Some(folder) => match nearest_existing(&folder).filter(|f| access(*f, Access::WRITE_OK).is_ok()) {
                Some(_) => findings.ok(about, format!("{what} folder {}", folder.display())),
                None => findings.warning(
                    about,
                    format!("the {what} folder {} cannot be written: {without}", folder.display()),
                    "give this user the permission, or set another HOME",
                ),
            },
        }
    }
}

fn nearest_existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|path| path.exists())
}

fn repository(run: &Run, config: Option<&Config>, chosen: &Chosen, about: &str, findings: &mut Findings) {
    if let Some(folder) = chosen.place.folder()
        && let Some(source) = config.and_then(|config| source_on_same_disk(config, folder))
    {
        findings.warning(
            about,
            format!("it is on the same file system as source {source}: one broken disk takes both"),
            "keep a repository on another disk or machine, too",
        );
    }
    let opened = match run.open(chosen) {
        Ok(repository) => repository,
        Err(error) => {
            findings.error(about, &error);
            return free_room(chosen, Expected::Unknown, about, findings);
        }
    };
    findings.ok(about, format!("{} opens with its key", chosen.place));
    if let Err(error) = contents(run, config, chosen, &opened, about, findings) {
        findings.error(about, &error);
    }
}

fn contents(
    run: &Run,
    config: Option<&Config>,
    chosen: &Chosen,
    repository: &Repository,
    about: &str,
    findings: &mut Findings,
) -> Result<()> {
    let mut damaged = Vec::new();
    let snapshots = repository.snapshots(|id, error| damaged.push((id, error)))?;
    for (id, error) in &damaged {
        let hint = Some("`lastgood check` tells all that is damaged");
        findings.failure(about, format!("recovery point {} cannot be read: {}", id.short(), error.chain()), hint);
    }
    let app = config.map(|config| config.app.as_str());
    match last_good(repository, app)? {
        None => findings.warning(about, "there is no complete recovery point yet", "run `lastgood backup`"),
        Some(last) if last.time > now() => findings.failure(
            about,
            format!(
                "the newest recovery point {} is of {}, which is in the future",
                last.snapshot.short(),
                text::moment(last.time)
            ),
            Some("set the clock right: `latest` and ages are wrong until then"),
        ),
        Some(last) => findings.ok(
            about,
            format!(
                "{}, the last good one {} of {} ({})",
                text::counted(snapshots.len() as u64, "recovery point"),
                last.snapshot.short(),
                text::moment(last.time),
                text::age(last.time, now())
            ),
        ),
    }
    free_room(chosen, Expected::of(&snapshots, config), about, findings);
    let store = chosen.place.store(&run.monitor())?;
    let backs_up = config.is_some_and(|config| !config.sources.is_empty());
    if !writable(&*store, backs_up, about, findings) {
        return Ok(());
    }
    abilities(&*store, about, findings);
    let locks = store.list(ObjectKind::Lock)?.len() as u64;
    // Locks of dead runs are left to the next backup: finding them tells it to look for what the dead run had stored.
    match repository.lock(LockMode::Reading) {
        Ok(_) if locks == 0 => findings.ok(about, "nobody else works on it"),
        Ok(_) => findings.ok(
            about,
            format!(
                "{} of other runs; none excludes a backup, and those of dead runs are cleared away by the next",
                text::counted(locks, "lock")
            ),
        ),
        Err(error) => findings.error(about, &error),
    }
    Ok(())
}

/// A clock that is further off than this shows when it matters: in locks, retention and signatures.
const CLOCK_OFF_SECONDS_MAX: i64 = 300;

/// What was found out about the server when the repository was made there.
fn abilities(store: &dyn Store, about: &str, findings: &mut Findings) {
    let Some(record) = wiring::abilities(store) else { return };
    let mut can = Vec::new();
    match record.exclusive_create {
        true => can.push("refuses names that are taken".to_owned()),
        false => findings.warning(
            about,
            "the server takes a condition on what may be written and ignores it".to_owned(),
            "two programs that begin at the same instant are not kept apart by it: let one machine at a time prune"
                .to_owned(),
        ),
    }
    match record.list_after_write {
        true => can.push("lists what was just written".to_owned()),
        false => findings.warning(
            about,
            "the server's lists lag behind what was written".to_owned(),
            "removing old data waits longer there".to_owned(),
        ),
    }
    match record.clock_ahead_seconds {
        Some(ahead) if ahead.abs() > CLOCK_OFF_SECONDS_MAX => findings.warning(
            about,
            format!(
                "the server's clock and this machine's differed by {}",
                text::counted(ahead.unsigned_abs(), "second")
            ),
            "set this machine's clock right; `timedatectl` tells whether it is kept so".to_owned(),
        ),
        Some(_) => can.push("agrees with this machine's clock".to_owned()),
        None => {}
    }
    if record.locks == Some(true) {
        can.push("locks objects when asked to".to_owned());
    }
    if record.keeps_versions {
        can.push("keeps old versions, so that removing frees nothing by itself".to_owned());
    }
    findings.ok(about, format!("the server {}", can.join(", ")));
}

fn free_room(chosen: &Chosen, expected: Expected, about: &str, findings: &mut Findings) {
    let Some(folder) = chosen.place.folder() else { return };
    match free_bytes(folder) {
        Ok(free) => room::tell(findings, about, free, expected),
        Err(error) => findings.error(about, &error),
    }
}

/// Whether a backup could write; restores only read. True when it could.
fn writable(store: &dyn Store, backs_up: bool, about: &str, findings: &mut Findings) -> bool {
    let Err(error) = store.probe() else {
        findings.ok(about, "it can be written to");
        return true;
    };
    let message = format!("it cannot be written to: restores work, backups do not: {}", error.chain());
    let hint = match error.kind() {
        ErrorKind::Denied => "give this user the permission, or mount the disk for writing".to_owned(),
        ErrorKind::NoSpace => "make room on that disk".to_owned(),
        _ => error.hint().unwrap_or("look at the system's log for a failing disk").to_owned(),
    };
    match backs_up {
        true => findings.failure(about, message, Some(hint)),
        false => findings.warning(about, message, hint),
    }
    false
}

/// Bytes that this user may still write at a place, or where it would be made.
pub(super) fn free_bytes(folder: &Path) -> Result<u64> {
    let there = nearest_existing(folder).unwrap_or(Path::new("."));
    let stat = rustix::fs::statvfs(there).map_err(|errno| {
        lastgood_model::Error::io(format!("look at the free space at {}", there.display()), errno.into())
    })?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A source on the file system of `folder`.
pub(super) fn source_on_same_disk<'c>(config: &'c Config, folder: &Path) -> Option<&'c str> {
    let device =
        |path: &Path| nearest_existing(path).and_then(|path| fs_err::metadata(path).ok()).map(|meta| meta.dev());
    let own = device(folder)?;
    let is_beside = |source: &&SourceConfig| match &source.spec {
        SourceSpec::Files { paths, .. } => paths.iter().any(|path| device(path) == Some(own)),
        SourceSpec::Sqlite { path, .. } => device(path) == Some(own),
        SourceSpec::Command { .. } | SourceSpec::Postgres(_) => false,
    };
    config.sources.iter().find(is_beside).map(|source| source.name.as_str())
}
