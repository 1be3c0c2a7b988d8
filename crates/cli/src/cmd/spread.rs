//! `backup` with several repositories: captured once, copied into each.
//!
//! The first repository that can be used takes the capture, near ones before distant ones; the sources are read for it
//! alone. The others get the point from there, each published on its own, together with points that they missed while
//! they could not be reached. What is the matter with one repository never keeps the point from another, and is told with
//! what it means: the run then ends as one with problems.

use super::backup::{self, Taken};
use super::copy;
use crate::args::Backup;
use crate::config::Config;
use crate::errors::{Failure, Outcome};
use crate::exit_code::ExitCode;
use crate::output::{List, json, object};
use crate::protection::{last_good, now};
use crate::run::{Chosen, Run};
use crate::several::near_first;
use crate::{text, usage};
use lastgood_model::{Error, ErrorKind, Result, SnapshotId};
use lastgood_ops::backup::{BackupReport, is_of_sources};
use lastgood_ops::copy::{Behind, behind};
use lastgood_repo::copy::{CopyOptions, CopyReport, PointState};
use lastgood_repo::{Repository, Snapshot};
use serde_json::Map;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn run(run: &Run, config: &Config, all: Vec<Chosen>, args: &Backup) -> Outcome {
    let mut list = match run.out.is_human() {
        true => None,
        false => Some(run.out.list(
            "lastgood.backups",
            "lastgood.backup",
            "runs",
            object([("app", config.app.as_str().into())]),
        )?),
    };
    let all = near_first(all);
    let mut failed: Vec<(&Chosen, Error)> = Vec::new();
    let mut capture = None;
    for chosen in &all {
        match backup::take(run, config, chosen, args) {
            Ok(taken) => {
                capture = Some((chosen, taken));
                break;
            }
            // Nobody waits any longer, or another place would help nothing.
            Err(error) if run.stop.is_stopped() || is_of_sources(&error) => return Err(error.into()),
            Err(error) => failed.push((chosen, error)),
        }
    }
    let Some((place, taken)) = capture else { return nothing(run, failed, list) };
    let mut code = taken.exit_code();
    match &mut list {
        Some(list) => list.item(|| with_how(taken.fields(place), place, "captured"), || None)?,
        None => backup::tell(run, place, &taken)?,
    }
    usage::warn_if_near_full(run, &taken.repository, place, now());
    let tried = failed.len();
    if let Some(point) = taken.report.snapshot {
        let before = taken.repository.snapshots(|_, _| {})?.into_iter().filter(|s| s.id != point).collect();
        let options = CopyOptions { lock_wait: args.lock_wait, ..CopyOptions::default() };
        let spreading = Spreading { run, app: &config.app, place, taken: &taken, point, before, options };
        // First everything comes together in the one that took the capture, and then from there to each.
        let mut others = Vec::new();
        for chosen in all.iter().skip(tried + 1) {
            match spreading.open(chosen) {
                Ok(other) => others.push(other),
                Err(error) => failed.push((chosen, error)),
            }
        }
        for other in others {
            if run.stop.is_stopped() {
                code = code.or(ExitCode::Interrupted);
                break;
            }
            let (chosen, repository) = (other.chosen, other.repository.clone());
            match spreading.send_to(other) {
                Ok(sent) => {
                    code = code.or(sent.exit_code());
                    match &mut list {
                        Some(list) => list.item(|| sent.fields(place, chosen), || None)?,
                        None => spreading.tell(chosen, &sent)?,
                    }
                    usage::warn_if_near_full(run, &repository, chosen, now());
                }
                Err(error) => failed.push((chosen, error)),
            }
        }
    }
    for (chosen, error) in failed {
        code = code.or(match error.kind() {
            ErrorKind::Cancelled => ExitCode::Interrupted,
            _ => ExitCode::Problems,
        });
        let error = error.context(match taken.report.snapshot {
            Some(point) => format!("recovery point {} is NOT in {}", point.short(), chosen.describe()),
            None => format!("{} cannot be used", chosen.describe()),
        });
        let failure = Failure::Error(error);
        match &mut list {
            Some(list) => list.item(|| with_how(failure.object(None), chosen, "failed"), || None)?,
            None => {
                failure.tell(&run.out, None);
                unprotected(run, place, chosen, &taken)?;
            }
        }
    }
    if let Some(list) = list {
        list.end(object([("exit_code", code.number().into())]))?;
    }
    Ok(code)
}

/// A point that was just taken, in one more repository.
pub(super) struct Copied {
    pub(super) taken: Taken,
    pub(super) report: CopyReport,
    pub(super) took: Duration,
}

/// Copies a point that was just taken into `chosen`, which needs not have anything else.
pub(super) fn copy_of(run: &Run, app: &str, taken: &Taken, chosen: &Chosen, options: CopyOptions) -> Result<Copied> {
    let repository = run.open(chosen)?;
    let point = taken.report.snapshot.into_iter().collect::<Vec<_>>();
    let (report, took) = copy::send(run, &taken.repository, &repository, &point, options)?;
    let [sent] = report.points.as_slice() else {
        return Err(Error::new(ErrorKind::Bug, "one recovery point was to be copied"));
    };
    let Some(copy) = sent.copy else {
        let what = format!("recovery point {} could not be copied to {}", sent.snapshot.short(), chosen.describe());
        return Err(Error::corrupt(what).with_hint("`lastgood check` tells whether the repository is damaged"));
    };
    let last_good = last_good(&repository, Some(app))?;
    let taken = Taken {
        report: BackupReport { snapshot: Some(copy), ..taken.report.clone() },
        repository,
        last_good,
        dry_run: false,
    };
    Ok(Copied { taken, report, took })
}

/// No repository could take the point.
fn nothing(run: &Run, failed: Vec<(&Chosen, Error)>, mut list: Option<List<'_>>) -> Outcome {
    let mut code = ExitCode::Ok;
    for (chosen, error) in failed {
        let failure = Failure::Error(error.context(format!("back up into {}", chosen.describe())));
        code = code.or(failure.exit_code());
        let protection = if failure.is_slip() { None } else { run.protection(&failure) };
        match &mut list {
            Some(list) => list.item(|| with_how(failure.object(protection.as_ref()), chosen, "failed"), || None)?,
            None => failure.tell(&run.out, protection.as_ref()),
        }
    }
    if let Some(list) = list {
        list.end(object([("exit_code", code.number().into())]))?;
    }
    Ok(code)
}

/// What it means that one repository does not have the point.
fn unprotected(run: &Run, place: &Chosen, chosen: &Chosen, taken: &Taken) -> Result<()> {
    if taken.report.snapshot.is_none() {
        return Ok(());
    }
    let sources: Vec<&str> = taken.report.sources.iter().map(|source| source.name.as_str()).collect();
    run.out.line(format!(
        "Unprotected in {}: whatever changed in {} since its last recovery point. {} has it. The next `lastgood backup` \
         sends what is missing, or `lastgood copy {} {}` as soon as it can be used again",
        chosen.word(),
        sources.join(", "),
        place.word(),
        place.word(),
        chosen.word()
    ))
}

fn with_how(mut fields: Map<String, serde_json::Value>, chosen: &Chosen, how: &str) -> Map<String, serde_json::Value> {
    fields.insert("repository".into(), chosen.place.to_string().into());
    fields.insert("name".into(), json(&chosen.name));
    fields.insert("how".into(), how.into());
    fields
}

/// A point on its way into the other repositories.
struct Spreading<'a> {
    run: &'a Run,
    app: &'a str,
    /// The repository that has it.
    place: &'a Chosen,
    taken: &'a Taken,
    point: SnapshotId,
    /// What that repository had before.
    before: Vec<Snapshot>,
    options: CopyOptions,
}

/// Another repository, with what was fetched from it: points captured there while the first one could not be used.
struct Other<'a> {
    chosen: &'a Chosen,
    repository: Arc<Repository>,
    fetched: Option<CopyReport>,
}

/// What was sent into one repository, and fetched from it.
struct Sent {
    report: CopyReport,
    took: Duration,
    behind: Behind,
    fetched: Option<CopyReport>,
    point: SnapshotId,
}

impl Sent {
    fn exit_code(&self) -> ExitCode {
        let failed = |report: &CopyReport| report.count(PointState::Failed) > 0;
        match failed(&self.report) || self.fetched.as_ref().is_some_and(failed) {
            true => ExitCode::Damage,
            false => ExitCode::Ok,
        }
    }

    /// The id of the new point there.
    fn copy(&self) -> Option<SnapshotId> {
        self.report.points.iter().find(|point| point.snapshot == self.point)?.copy
    }

    fn fields(&self, place: &Chosen, chosen: &Chosen) -> Map<String, serde_json::Value> {
        let mut fields = with_how(copy::fields(place, chosen, &self.report), chosen, "copied");
        fields.insert("snapshot".into(), json(&self.copy()));
        fields.insert("points_older".into(), self.behind.older.into());
        fields.insert("points_fetched".into(), json(&self.fetched.as_ref().map(|f| f.count(PointState::Sent))));
        fields
    }
}

impl Spreading<'_> {
    fn open<'c>(&self, chosen: &'c Chosen) -> Result<Other<'c>> {
        let first = &self.taken.repository;
        let repository = self.run.open(chosen)?;
        // The run is about the repository that has the point.
        self.run.remember_repository(first);
        let fetched = self.fetch(chosen, &repository, first)?;
        Ok(Other { chosen, repository, fetched })
    }

    fn send_to(&self, other: Other<'_>) -> Result<Sent> {
        let from = &self.taken.repository;
        let Other { repository: to, fetched, .. } = other;
        let behind = behind(from, &to, self.app, &[self.point])?;
        let (report, took) = copy::send(self.run, from, &to, &behind.send, self.options)?;
        Ok(Sent { report, took, behind, fetched, point: self.point })
    }

    /// Points that were captured in `other` while the first repository could not be used.
    fn fetch(&self, chosen: &Chosen, other: &Arc<Repository>, first: &Arc<Repository>) -> Result<Option<CopyReport>> {
        let missed = lastgood_ops::copy::since(other, &self.before, self.app)?;
        if missed.is_empty() {
            return Ok(None);
        }
        match copy::send(self.run, other, first, &missed, self.options) {
            Ok((report, _)) => Ok(Some(report)),
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            // The new point is worth more than older ones.
            Err(error) => {
                self.run.out.note(format!(
                    "warning: {} that {} had missed could not be fetched from {}: {}. `lastgood copy {} {}` tries again",
                    text::counted(missed.len() as u64, "recovery point"),
                    self.place.word(),
                    chosen.word(),
                    error.chain(),
                    chosen.word(),
                    self.place.word()
                ));
                Ok(None)
            }
        }
    }

    fn tell(&self, chosen: &Chosen, sent: &Sent) -> Result<()> {
        let out = &self.run.out;
        let id = match sent.copy() {
            Some(id) if id != self.point => format!(" as {}", id.short()),
            _ => String::new(),
        };
        let more = match sent.report.count(PointState::Sent).saturating_sub(1) {
            0 => String::new(),
            more => format!(", and {} that it had missed", text::counted(more as u64, "recovery point")),
        };
        if sent.copy().is_some() {
            out.line(format!("Copied to {}{id}{more}. {}", chosen.word(), copy::traffic(&sent.report, sent.took)))?;
        }
        copy::tell_failed(self.run, self.place, &sent.report)?;
        if let Some(fetched) = sent.fetched.as_ref().map(|f| f.count(PointState::Sent)).filter(|count| *count > 0) {
            out.line(format!(
                "Fetched from {} what {} had missed: {}.",
                chosen.word(),
                self.place.word(),
                text::counted(fetched as u64, "recovery point")
            ))?;
        }
        if sent.behind.older > 0 {
            out.note(format!(
                "note: {} does not have {} of {}; `lastgood copy {} {}` sends them",
                chosen.word(),
                text::counted(sent.behind.older as u64, "older recovery point"),
                self.place.word(),
                self.place.word(),
                chosen.word()
            ));
        }
        Ok(())
    }
}
