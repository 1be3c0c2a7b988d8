//! Retention against examples and properties. That the rules are those of restic is tested beside the engine.

mod examples;
mod properties;

use super::*;
use crate::{Id, SnapshotId, Time};
use jiff::tz::TimeZone;

pub(super) const NOW: i64 = 1_780_000_000;

pub(super) fn utc() -> TimeZone {
    TimeZone::UTC
}

pub(super) fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

pub(super) fn at(text: &str) -> Time {
    Time::parse_rfc3339(text).unwrap()
}

pub(super) fn id(number: u64) -> SnapshotId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    SnapshotId(Id(bytes))
}

/// A complete point of the sources `db` and `files`.
pub(super) fn point(number: u64, secs: i64) -> Point {
    let source = |name: &str| PointSource { name: name.into(), complete: true, bytes: 1000, files: 100 };
    Point {
        id: id(number),
        time: Time::new(secs, 0),
        app: "shop".into(),
        tags: Vec::new(),
        sources: vec![source("db"), source("files")],
        complete: true,
        damaged: false,
        bytes: Some(2000),
        files: Some(200),
        absent_at: None,
    }
}

pub(super) fn incomplete(mut point: Point, source: &str) -> Point {
    point.complete = false;
    point.sources.iter_mut().filter(|one| one.name == source).for_each(|one| one.complete = false);
    point
}

/// Points that many seconds apart, the newest first and of now.
pub(super) fn row(count: u64, gap: i64) -> Vec<Point> {
    (0..count).map(|n| point(n + 1, NOW - n as i64 * gap)).collect()
}

pub(super) struct Asked {
    pub(super) points: Vec<Point>,
    pub(super) policies: Policies,
    pub(super) holds: Vec<Hold>,
    pub(super) zone: TimeZone,
    pub(super) now: Time,
    pub(super) named: Option<std::collections::BTreeSet<SnapshotId>>,
    pub(super) even: bool,
}

impl Asked {
    pub(super) fn new(points: Vec<Point>, policy: Policy) -> Self {
        Self {
            points,
            policies: Policies::all(policy),
            holds: Vec::new(),
            zone: utc(),
            now: Time::new(NOW, 0),
            named: None,
            even: false,
        }
    }

    pub(super) fn request(&self) -> Request<'_> {
        Request {
            points: &self.points,
            policies: &self.policies,
            holds: &self.holds,
            zone: &self.zone,
            now: self.now,
            named: self.named.as_ref(),
            even_last_good: self.even,
        }
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&self.request())
    }

    /// Numbers of the points that stay.
    pub(super) fn kept(&self) -> Vec<u64> {
        let mut kept: Vec<u64> = self.plan().verdicts().filter(|v| v.keep).map(|v| number(v.id)).collect();
        kept.sort_unstable();
        kept
    }

    /// The reasons for one point, as told.
    pub(super) fn why(&self, number: u64) -> Vec<String> {
        self.plan().verdict(id(number)).unwrap().reasons.iter().map(ToString::to_string).collect()
    }
}

pub(super) fn number(id: SnapshotId) -> u64 {
    u64::from_be_bytes(id.0.0[..8].try_into().unwrap())
}

pub(super) fn last(count: u32) -> Policy {
    Policy { last: count, ..Policy::default() }
}
