//! The whole decision: every point with whether it stays, and all the reasons.

use super::calendar::{Civil, Period, told};
use super::judge::{Doubt, judge};
use super::policy::Policies;
use super::rules::{Item, Opinion, ask};
use super::{FUTURE_SECS, LATE_SECS};
use crate::{SnapshotId, Time};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One recovery point, as far as retention needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its id.
    pub id: SnapshotId,
    /// The moment it stands for.
    pub time: Time,
    /// Whose it is: the application's name.
    pub app: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its sources, those that failed too, in any order.
    pub sources: Vec<PointSource>,
    /// False when something that should be in it is not.
    pub complete: bool,
    /// True when it is known not to be readable as it was saved. It counts for no rule, and no rule removes it.
    pub damaged: bool,
    /// Logical bytes, when known.
    pub bytes: Option<u64>,
    /// Files and other entries, when known.
    pub files: Option<u64>,
    /// The latest moment at which somebody looked into the repository and it was not there.
    pub absent_at: Option<Time>,
}

/// One source of a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointSource {
    /// Its name.
    pub name: String,
    /// True when all of it is in the point.
    pub complete: bool,
    /// Logical bytes of it.
    pub bytes: u64,
    /// Files and other entries of it.
    pub files: u64,
}

/// A hold: a point that nothing removes until somebody lifts it, or its moment has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The point.
    pub snapshot: SnapshotId,
    /// Why.
    pub reason: String,
    /// Until when; for good when nothing is said.
    pub until: Option<Time>,
}

/// What retention is asked.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// All points, in any order.
    pub points: &'a [Point],
    /// What to keep.
    pub policies: &'a Policies,
    /// What is held.
    pub holds: &'a [Hold],
    /// The zone whose calendar counts.
    pub zone: &'a TimeZone,
    /// This moment.
    pub now: Time,
    /// Points to be removed, whatever the rules say. Then the rules are not asked, and all others stay.
    pub named: Option<&'a BTreeSet<SnapshotId>>,
    /// True when somebody has typed the name: then also a named last good point is removed.
    pub even_last_good: bool,
}

/// What becomes of each point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The groups, by application and names of sources.
    pub groups: Vec<Group>,
}

/// Points of one application with the same set of sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The application.
    pub app: String,
    /// Its sources, sorted.
    pub sources: Vec<String>,
    /// The points, newest first.
    pub verdicts: Vec<Verdict>,
    /// What looks wrong. While anything does, nothing should be removed.
    pub doubts: Vec<Doubt>,
}

/// What becomes of one point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The point.
    pub id: SnapshotId,
    /// Its moment.
    pub time: Time,
    /// True when it stays.
    pub keep: bool,
    /// Why; never empty.
    pub reasons: Vec<Reason>,
    /// True when it is named to be removed and must stay all the same, for the last of the reasons.
    pub refused: bool,
}

/// Why a point stays or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing says what to keep.
    NoRules,
    /// Of the newest.
    Last {
        /// Its place, from 1.
        n: u32,
        /// How many are kept.
        of: u32,
    },
    /// The best of its period.
    Period {
        /// Such as `daily`.
        rule: String,
        /// The period's place, the newest being 1.
        n: u32,
        /// How many periods are kept.
        of: u32,
        /// The period.
        period: Period,
    },
    /// The oldest there is, while a rule has counts left.
    Oldest {
        /// Such as `daily`.
        rule: String,
        /// How many periods are kept.
        of: u32,
        /// Its period.
        period: Period,
    },
    /// Not older than the newest by more than a span.
    Within {
        /// The span.
        span: String,
    },
    /// The best of its period within a span.
    PeriodWithin {
        /// Such as `daily within 30d`.
        rule: String,
        /// The period.
        period: Period,
    },
    /// It has a tag.
    Tag(String),
    /// It is held.
    Held {
        /// Why.
        reason: String,
        /// Until when, in the zone's words.
        until: Option<String>,
    },
    /// It is the last good one of its group.
    LastGood,
    /// It is the last that has a source whole.
    LastWhole {
        /// The source.
        source: String,
    },
    /// It cannot be read, so that nobody can say what it is.
    Unreadable,
    /// It was not named.
    NotNamed,
    /// It was named.
    Named,
    /// Another of its period stays for this rule.
    Another {
        /// The rule.
        rule: String,
        /// The period.
        period: Period,
        /// The other.
        by: SnapshotId,
    },
    /// The rule has as many as it keeps, and they are newer.
    Beyond {
        /// The rule.
        rule: String,
        /// How many it keeps.
        of: u32,
    },
    /// It is older than the rule reaches.
    Older {
        /// The rule.
        rule: String,
        /// How far it reaches.
        span: String,
    },
    /// Only tags are kept by, and it has none of them.
    Untagged,
    /// The same for one source with rules of its own.
    For {
        /// The sources.
        sources: Vec<String>,
        /// The reason.
        reason: Box<Reason>,
    },
}

impl Reason {
    /// The rule that gives it; empty when none does.
    pub fn rule(&self) -> &str {
        match self {
            Self::Last { .. } => "last",
            Self::Period { rule, .. }
            | Self::Oldest { rule, .. }
            | Self::PeriodWithin { rule, .. }
            | Self::Another { rule, .. }
            | Self::Beyond { rule, .. }
            | Self::Older { rule, .. } => rule,
            Self::Within { .. } => "within",
            Self::For { reason, .. } => reason.rule(),
            _ => "",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRules => f.write_str("no rule says what to keep"),
            Self::Last { n, of } => write!(f, "last {n} of {of}"),
            Self::Period { rule, n, of, period } => write!(f, "{rule} {n} of {of}: {period}"),
            Self::Oldest { rule, of, period } => write!(f, "{rule}, the oldest while fewer than {of}: {period}"),
            Self::Within { span } => write!(f, "within {span}"),
            Self::PeriodWithin { rule, period } => write!(f, "{rule}: {period}"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::Held { reason, until: None } => write!(f, "held: {reason}"),
            Self::Held { reason, until: Some(until) } => write!(f, "held until {until}: {reason}"),
            Self::LastGood => f.write_str("last good"),
            Self::LastWhole { source } => write!(f, "last with all of {source}"),
            Self::Unreadable => f.write_str("cannot be read, so no rule removes it"),
            Self::NotNamed => f.write_str("not named"),
            Self::Named => f.write_str("named"),
            Self::Another { rule, period, by } => write!(f, "{rule}: {period} has {}", by.short()),
            Self::Beyond { rule, of } => write!(f, "{rule}: older than its {of}"),
            Self::Older { rule, .. } if rule != "within" => write!(f, "older than {rule}"),
            Self::Older { span, .. } => write!(f, "older than within {span}"),
            Self::Untagged => f.write_str("has none of the tags"),
            Self::For { sources, reason } => write!(f, "{}: {reason}", sources.join(", ")),
        }
    }
}

impl Plan {
    /// Every verdict, group by group, newest first in each.
    pub fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.groups.iter().flat_map(|group| &group.verdicts)
    }

    /// What would go.
    pub fn removals(&self) -> Vec<SnapshotId> {
        self.verdicts().filter(|verdict| !verdict.keep).map(|verdict| verdict.id).collect()
    }

    /// All that looks wrong.
    pub fn doubts(&self) -> Vec<&Doubt> {
        self.groups.iter().flat_map(|group| &group.doubts).collect()
    }

    /// The verdict on one point.
    pub fn verdict(&self, id: SnapshotId) -> Option<&Verdict> {
        self.verdicts().find(|verdict| verdict.id == id)
    }
}

/// True for a date that cannot be: later than this moment by more than clocks may differ.
pub(super) fn is_future(point: &Point, now: Time) -> bool {
    point.time.secs > now.secs.saturating_add(FUTURE_SECS)
}

/// False when the point came much later than its date says: it was brought from elsewhere, or its date is forged.
pub(super) fn is_in_time(point: &Point, now: Time) -> bool {
    let late = point.absent_at.is_some_and(|absent| absent.secs.saturating_sub(point.time.secs) > LATE_SECS);
    !late && !is_future(point, now)
}

/// Decides.
pub fn plan(request: &Request<'_>) -> Plan {
    let mut groups: BTreeMap<(&str, Vec<&str>), Vec<&Point>> = BTreeMap::new();
    for point in request.points {
        let mut sources: Vec<&str> = point.sources.iter().map(|source| source.name.as_str()).collect();
        sources.sort_unstable();
        sources.dedup();
        groups.entry((&point.app, sources)).or_default().push(point);
    }
    let newest = newest_of_apps(request);
    let running = running_holds(request);
    let groups = groups.into_iter().map(|((app, sources), mut points)| {
        points.sort_by_key(|point| std::cmp::Reverse((point.time, point.id)));
        let verdicts = group(request, &running, &sources, &points);
        // A named point that is to go is no reason not to let it go.
        let stays = |point: &&&Point| {
            request.named.is_none() || verdicts.iter().any(|verdict| verdict.id == point.id && verdict.keep)
        };
        let judged: Vec<&Point> = points.iter().filter(stays).copied().collect();
        let doubts = judge(&judged, newest.get(app).copied(), request.now, request.zone);
        Group { app: app.to_owned(), sources: sources.into_iter().map(str::to_owned).collect(), verdicts, doubts }
    });
    Plan { groups: groups.collect() }
}

/// For each application the moment of its newest point that is not dated in the future.
fn newest_of_apps<'a>(request: &Request<'a>) -> BTreeMap<&'a str, Time> {
    let mut newest = BTreeMap::new();
    for point in request.points.iter().filter(|point| !is_future(point, request.now)) {
        let known = newest.entry(point.app.as_str()).or_insert(point.time);
        *known = point.time.max(*known);
    }
    newest
}

/// The holds that still count. One has run out when its moment lies before this one and before the newest point: a
/// clock that has jumped ahead lifts none.
fn running_holds<'a>(request: &Request<'a>) -> BTreeMap<SnapshotId, Vec<&'a Hold>> {
    let newest = request.points.iter().filter(|point| !is_future(point, request.now)).map(|point| point.time).max();
    let mut running: BTreeMap<SnapshotId, Vec<&Hold>> = BTreeMap::new();
    for hold in request.holds.iter().filter(|hold| !has_run_out(hold, request.now, newest)) {
        running.entry(hold.snapshot).or_default().push(hold);
    }
    running
}

/// Whether a hold counts no more. `newest` is the moment of the newest point that is not dated in the future.
pub fn has_run_out(hold: &Hold, now: Time, newest: Option<Time>) -> bool {
    hold.until.is_some_and(|until| until < now && newest.is_some_and(|newest| until < newest))
}

fn group(
    request: &Request<'_>,
    holds: &BTreeMap<SnapshotId, Vec<&Hold>>,
    sources: &[&str],
    points: &[&Point],
) -> Vec<Verdict> {
    let mut verdicts = match request.named {
        None => by_rules(request, sources, points),
        Some(named) => points.iter().map(|point| by_name(point, named)).collect(),
    };
    for (verdict, point) in verdicts.iter_mut().zip(points) {
        for hold in holds.get(&point.id).into_iter().flatten() {
            let until = hold.until.map(|until| told(until, request.zone));
            protect(verdict, Reason::Held { reason: hold.reason.clone(), until });
        }
    }
    let goes = |verdict: &Verdict| request.named.is_some_and(|named| named.contains(&verdict.id));
    let last = last_good(points, request.now);
    let has_good = last.iter().any(|(_, reason)| *reason == Reason::LastGood);
    for (index, reason) in last {
        // Who names an incomplete point means it, as long as there is a complete one.
        let is_meant = request.even_last_good || has_good && reason != Reason::LastGood;
        if !(is_meant && goes(&verdicts[index])) {
            protect(&mut verdicts[index], reason);
        }
    }
    verdicts
}

/// The point stays, whatever was said so far.
fn protect(verdict: &mut Verdict, reason: Reason) {
    if !verdict.keep {
        verdict.refused = verdict.reasons == [Reason::Named];
        verdict.reasons.clear();
        verdict.keep = true;
    }
    verdict.reasons.push(reason);
}

fn by_name(point: &Point, named: &BTreeSet<SnapshotId>) -> Verdict {
    let keep = !named.contains(&point.id);
    let reason = if keep { Reason::NotNamed } else { Reason::Named };
    Verdict { id: point.id, time: point.time, keep, reasons: vec![reason], refused: false }
}

fn by_rules(request: &Request<'_>, sources: &[&str], points: &[&Point]) -> Vec<Verdict> {
    let distinct = request.policies.distinct(sources.iter().copied());
    let mut opinions = vec![Opinion::default(); points.len()];
    let readable: Vec<usize> = (0..points.len()).filter(|index| !points[*index].damaged).collect();
    for (policy, own) in &distinct {
        if policy.is_empty() {
            readable.iter().for_each(|index| opinions[*index].wanted.push(Reason::NoRules));
            continue;
        }
        let items: Vec<Item<'_>> = readable.iter().map(|index| item(request, points[*index], own)).collect();
        // Where all sources go by the same rules there is nothing to tell apart.
        let told = |reason: Reason| match distinct.len() {
            1 => reason,
            _ => Reason::For { sources: own.iter().map(|s| (*s).to_owned()).collect(), reason: Box::new(reason) },
        };
        for (index, opinion) in readable.iter().zip(ask(policy, &items, request.zone)) {
            opinions[*index].wanted.extend(opinion.wanted.into_iter().map(told));
            opinions[*index].unwanted.extend(opinion.unwanted.into_iter().map(told));
        }
    }
    let verdicts = points.iter().zip(opinions).map(|(point, mut opinion)| {
        if point.damaged {
            opinion.wanted.push(Reason::Unreadable);
        }
        let keep = !opinion.wanted.is_empty();
        let mut reasons = if keep { opinion.wanted } else { opinion.unwanted };
        if reasons.is_empty() {
            reasons.push(Reason::Untagged);
        }
        Verdict { id: point.id, time: point.time, keep, reasons, refused: false }
    });
    verdicts.collect()
}

fn item<'a>(request: &Request<'_>, point: &'a Point, sources: &[&str]) -> Item<'a> {
    let of_sources = |point: &Point| {
        let mut own = point.sources.iter().filter(|source| sources.contains(&source.name.as_str()));
        !sources.is_empty() && sources.len() < point.sources.len() && own.all(|source| source.complete)
    };
    Item {
        id: point.id,
        time: point.time,
        civil: Civil::of(point.time, request.zone),
        tags: &point.tags,
        whole: point.complete || of_sources(point),
        in_time: is_in_time(point, request.now),
        future: is_future(point, request.now),
    }
}

/// The points of a group that no rule may remove: the newest that is complete, and where that lacks nothing, also for
/// each source the newest that has all of it. `points` are newest first. A date that cannot be believed is none to go by:
/// the newest of all others stays, too, and one from the future only where there is no other.
fn last_good(points: &[&Point], now: Time) -> Vec<(usize, Reason)> {
    fn add(found: &mut Vec<(usize, Reason)>, index: Option<usize>, reason: Reason) {
        if let Some(index) = index.filter(|index| !found.iter().any(|(known, _)| known == index)) {
            found.push((index, reason));
        }
    }
    let mut found: Vec<(usize, Reason)> = Vec::new();
    let newest = |fits: &dyn Fn(&Point) -> bool| points.iter().position(|point| !point.damaged && fits(point));
    add(&mut found, newest(&|point| point.complete && is_in_time(point, now)), Reason::LastGood);
    add(&mut found, newest(&|point| point.complete && !is_future(point, now)), Reason::LastGood);
    if found.is_empty() {
        add(&mut found, newest(&|point| point.complete), Reason::LastGood);
    }
    let names: BTreeSet<&str> = points.iter().flat_map(|p| &p.sources).map(|source| source.name.as_str()).collect();
    for name in names {
        let has = |point: &Point| point.sources.iter().any(|source| source.name == name && source.complete);
        let reason = Reason::LastWhole { source: name.to_owned() };
        add(&mut found, newest(&|point| has(point) && is_in_time(point, now)), reason.clone());
        add(&mut found, newest(&|point| has(point) && !is_future(point, now)), reason);
    }
    found
}
