//! Forget: which recovery points go, by rule or by name, and their removal.
//!
//! Nothing goes that was not told before: the plan is a value that is shown, and carrying it out uses it up. What goes
//! is written down first, in a note beside the repository's objects; then the snapshot objects go one at a time; then
//! the note says that they are gone. Killed in between, what is left is whole: every point is there or it is not.

use crate::holds;
use crate::points::{self, KnownPoint, Points};
use crate::seen::Seen;
use lastgood_model::retention::{Group, Hold, Plan, Point, Policies, Request, Simulation, Span, Verdict, plan};
use lastgood_model::retention::{has_run_out, rhythm, simulate};
use lastgood_model::store::SidePut;
use lastgood_model::{Context, Error, ErrorKind, Monitor, Result, SnapshotId, Time, TreeId};
use lastgood_repo::lock::system_clock;
use lastgood_repo::sha256::sha256;
use lastgood_repo::{LockMode, Repository};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const FOLDER: &str = "removed";
/// How long a prune of somebody else is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(5 * 60);

/// What is to be forgotten.
pub struct ForgetRequest {
    /// Whose points.
    pub app: String,
    /// What to keep.
    pub policies: Policies,
    /// The zone whose calendar counts.
    pub zone: jiff::tz::TimeZone,
    /// These, whatever the rules say.
    pub named: Option<BTreeSet<SnapshotId>>,
    /// The name that a person typed, when it is the right one: then doubts and last good points are no obstacle.
    pub even_though: Option<String>,
}

/// What would go, and all that stays.
pub struct ForgetPlan {
    request: ForgetRequest,
    /// The decision.
    pub plan: Plan,
    /// The points it is about.
    pub points: Points,
    /// Holds that have run out.
    pub run_out: Vec<holds::HoldNote>,
    for_retention: Vec<Point>,
    holds: Vec<Hold>,
    now: Time,
}

/// A removal as it is written down, before it begins and again when it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Always `lastgood.removal`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Version of this layout.
    pub schema: u32,
    /// When it began.
    pub begun: Time,
    /// When the last object was gone; absent while it runs, and for good when it was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// Who, as `user@host`.
    pub by: String,
    /// Version of lastgood.
    pub program: String,
    /// The rules, in words; or `named`.
    pub rules: String,
    /// The zone whose calendar counted.
    pub time_zone: String,
    /// The name that was typed against doubts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub even_though: Option<String>,
    /// What went.
    pub points: Vec<RemovedPoint>,
}

/// A recovery point that went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedPoint {
    /// Its id.
    pub id: SnapshotId,
    /// Its moment.
    pub time: Time,
    /// Whose it was.
    pub app: String,
    /// Where it was taken.
    pub host: String,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Whether it was complete.
    pub complete: bool,
    /// Its root directory.
    pub tree: TreeId,
    /// Logical bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Files and other entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Its sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<RemovedSource>,
    /// SHA-256 of its manifest as this program writes it, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    /// Why it went.
    pub reasons: Vec<String>,
    /// When its object was gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Time>,
}

/// A source of a point that went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedSource {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Whether all of it was there.
    pub complete: bool,
    /// Logical bytes.
    pub bytes: u64,
    /// Files and other entries.
    pub files: u64,
}

/// What came of carrying a plan out.
#[derive(Debug)]
pub struct Forgotten {
    /// The points that are gone.
    pub gone: Vec<SnapshotId>,
    /// Points that the store itself keeps for now, and what it says.
    pub kept_by_store: Vec<(SnapshotId, Error)>,
    /// The name of the note; none where the store takes no notes.
    pub noted_as: Option<String>,
}

/// Looks into the repository and decides. `seen` is told what is there.
///
/// # Errors
/// [`ErrorKind::Absent`] for a named point that is not there or of another application; whatever keeps the repository
/// from being read.
pub fn prepare(repository: &Repository, request: ForgetRequest, seen: &mut Seen, now: Time) -> Result<ForgetPlan> {
    let points = points::of_app(repository, &request.app)?;
    seen.look(points.all.iter().copied(), now);
    let for_retention: Vec<Point> =
        points.points.iter().map(|point| point.for_retention(seen.absent_at(point.snapshot.id))).collect();
    let notes = holds::list(repository)?;
    if let Some(strange) = request.named.iter().flatten().find(|id| !for_retention.iter().any(|point| point.id == **id))
    {
        return Err(Error::new(
            ErrorKind::Absent,
            format!("{} is no readable recovery point of {:?}", strange.short(), request.app),
        )
        .with_hint("see `lastgood snapshots`; a point of another application is forgotten with --app NAME"));
    }
    let newest = for_retention.iter().map(|point| point.time).filter(|time| *time <= now).max();
    let holds: Vec<Hold> = notes.iter().map(holds::HoldNote::for_retention).collect();
    let known = |note: &holds::HoldNote| for_retention.iter().any(|point| point.id == note.snapshot);
    let run_out = notes.into_iter().filter(|note| known(note) && has_run_out(&note.for_retention(), now, newest));
    let mut prepared =
        ForgetPlan { run_out: run_out.collect(), plan: Plan::default(), request, points, for_retention, holds, now };
    prepared.plan = plan(&prepared.retention_request());
    Ok(prepared)
}

impl ForgetPlan {
    fn retention_request(&self) -> Request<'_> {
        Request {
            points: &self.for_retention,
            policies: &self.request.policies,
            holds: &self.holds,
            zone: &self.request.zone,
            now: self.now,
            named: self.request.named.as_ref(),
            even_last_good: self.request.even_though.is_some(),
        }
    }

    /// What was asked.
    pub fn request(&self) -> &ForgetRequest {
        &self.request
    }

    /// Why nothing may be removed, in words; empty when nothing stands in the way. Doubts are none where nothing would go.
    pub fn obstacles(&self) -> Vec<String> {
        if self.plan.removals().is_empty() || self.request.even_though.is_some() {
            return Vec::new();
        }
        self.plan.doubts().iter().map(ToString::to_string).collect()
    }

    /// The future, with a point every so many seconds; as often as until now when nothing is said.
    ///
    /// # Errors
    /// [`ErrorKind::Absent`] when there are too few points to tell a rhythm.
    pub fn simulate(&self, every_secs: Option<i64>, span: Span) -> Result<Simulation> {
        let request = self.retention_request();
        let every = every_secs.or_else(|| rhythm(&request)).ok_or_else(|| {
            Error::new(ErrorKind::Absent, "there are too few recovery points to tell how often they are taken")
                .with_hint("say --every SPAN, such as --every 6h")
        })?;
        Ok(simulate(&request, every, span))
    }

    /// Removes what the plan says.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] while anything looks wrong, or when the repository is no longer as it was when the plan was
    /// made; nothing was removed then. Whatever keeps a note or an object from being written or removed: what the note
    /// says is gone is gone, all else is there.
    pub fn execute(self, repository: &Repository, monitor: &Monitor) -> Result<Forgotten> {
        let obstacles = self.obstacles();
        if !obstacles.is_empty() {
            return Err(Error::new(ErrorKind::Conflict, format!("nothing was removed: {}", obstacles.join("; "))));
        }
        let lock = repository.lock_within(LockMode::Shared, LOCK_WAIT, monitor)?;
        self.look_again(repository)?;
        let removals = self.plan.removals();
        let mut removal = self.describe(&removals);
        let name = note(repository, &removal)?;
        let mut forgotten = Forgotten { gone: Vec::new(), kept_by_store: Vec::new(), noted_as: name.clone() };
        let mut failure = None;
        for id in &removals {
            if let Err(error) = monitor.check_cancelled() {
                failure = Some(error);
                break;
            }
            match repository.forget_snapshot(&lock, *id) {
                Ok(()) => {
                    forgotten.gone.push(*id);
                    let told = removal.points.iter_mut().find(|point| point.id == *id);
                    told.into_iter().for_each(|point| point.removed = Some(system_clock()()));
                }
                Err(error) if error.kind() == ErrorKind::Held => forgotten.kept_by_store.push((*id, error)),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        if failure.is_none() {
            removal.finished = Some(system_clock()());
        }
        if let Some(name) = &name {
            let noted = repository.put_note(FOLDER, name, &removal, SidePut::Replace);
            failure = failure.or(noted.err().map(|error| error.context("note what was removed")));
        }
        match failure {
            None => Ok(forgotten),
            Some(error) => {
                let (gone, all) = (forgotten.gone.len(), removals.len());
                Err(error.context(format!("{gone} of {all} recovery points were removed, the others are there")))
            }
        }
    }

    /// What made points stay must still be there, and nobody may have put a hold on one that is to go.
    fn look_again(&self, repository: &Repository) -> Result<()> {
        let changed = |what: String| {
            Err(Error::new(ErrorKind::Conflict, format!("nothing was removed: {what} since the plan was made"))
                .with_hint("run the same command again for a new plan"))
        };
        let there: BTreeSet<SnapshotId> = repository.snapshots(|_, _| {})?.into_iter().map(|s| s.id).collect();
        let missing = self.plan.verdicts().find(|verdict| verdict.keep && !there.contains(&verdict.id));
        if let Some(missing) = missing {
            return changed(format!("recovery point {}, which was to stay, has gone", missing.id.short()));
        }
        let held: BTreeSet<SnapshotId> = holds::list(repository)?.into_iter().map(|hold| hold.snapshot).collect();
        let known: BTreeSet<SnapshotId> = self.holds.iter().map(|hold| hold.snapshot).collect();
        match self.plan.removals().into_iter().find(|id| held.contains(id) && !known.contains(id)) {
            Some(id) => changed(format!("a hold was put on {}", id.short())),
            None => Ok(()),
        }
    }

    fn describe(&self, removals: &[SnapshotId]) -> Removal {
        let policies = &self.request.policies;
        let rules = match self.request.named {
            Some(_) => "named".to_owned(),
            None => {
                let own = policies.sources.iter().map(|(name, policy)| format!("; {name}: {}", policy.describe()));
                format!("{}{}", policies.repository.describe(), own.collect::<String>())
            }
        };
        let verdicts: BTreeMap<SnapshotId, &Verdict> = self.plan.verdicts().map(|v| (v.id, v)).collect();
        let going = self.points.points.iter().filter(|point| removals.contains(&point.snapshot.id));
        Removal {
            kind: "lastgood.removal".to_owned(),
            schema: 1,
            begun: system_clock()(),
            finished: None,
            by: holds::whoami(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            rules,
            time_zone: self.request.zone.iana_name().unwrap_or("of the machine").to_owned(),
            even_though: self.request.even_though.clone(),
            points: going.map(|point| removed(point, verdicts.get(&point.snapshot.id).copied())).collect(),
        }
    }
}

fn removed(point: &KnownPoint, verdict: Option<&Verdict>) -> RemovedPoint {
    let file = &point.snapshot.file;
    let of_retention = point.for_retention(None);
    let json = point.manifest.as_ref().and_then(|manifest| serde_json::to_vec(manifest).ok());
    let sources = point.manifest.iter().flat_map(|manifest| &manifest.sources);
    RemovedPoint {
        id: point.snapshot.id,
        time: file.time,
        app: of_retention.app,
        host: file.hostname.clone(),
        tags: file.tags.clone(),
        complete: of_retention.complete,
        tree: file.tree,
        bytes: of_retention.bytes,
        files: of_retention.files,
        sources: sources
            .zip(&of_retention.sources)
            .map(|(record, source)| RemovedSource {
                name: record.name.clone(),
                kind: record.kind.clone(),
                complete: source.complete,
                bytes: source.bytes,
                files: source.files,
            })
            .collect(),
        manifest_sha256: json.map(|json| lastgood_model::Id(sha256(&json)).to_string()),
        reasons: verdict.map(|v| v.reasons.iter().map(ToString::to_string).collect()).unwrap_or_default(),
        removed: None,
    }
}

/// Writes a removal down before it begins, under a name that nobody has.
fn note(repository: &Repository, removal: &Removal) -> Result<Option<String>> {
    if !repository.takes_notes() {
        return Ok(None);
    }
    let moment: String = Time::new(removal.begun.secs, 0).to_string().to_ascii_lowercase();
    let moment: String = moment.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    for number in 1..=1000 {
        let name = format!("{moment}-{number}");
        match repository.put_note(FOLDER, &name, removal, SidePut::Create) {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            outcome => {
                return outcome.context("write down what is to be removed; nothing was removed").map(|()| Some(name));
            }
        }
    }
    Err(Error::new(ErrorKind::Conflict, "a thousand removals began in this second; nothing was removed"))
}

/// All removals that were written down, oldest first. A note that cannot be read goes to `damaged`.
pub fn removals(repository: &Repository, damaged: impl FnMut(&str, Error)) -> Result<Vec<Removal>> {
    let mut removals: Vec<Removal> =
        repository.notes(FOLDER, damaged)?.into_iter().map(|(_, removal)| removal).collect();
    removals.sort_by_key(|removal| removal.begun);
    Ok(removals)
}

/// The groups of a plan with something to tell.
pub fn groups(plan: &Plan) -> impl Iterator<Item = &Group> {
    plan.groups.iter().filter(|group| !group.verdicts.is_empty())
}
