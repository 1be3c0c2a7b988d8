//! The future: which points will be there when backups go on as they do and the plan is carried out after each.

use super::plan::{Plan, Point, PointSource, Request, is_in_time, plan};
use super::span::Span;
use crate::{Id, SnapshotId, Time};
use std::collections::BTreeSet;

/// Rules are applied at most this often, which changes nothing of what is there in the end.
const APPLY_EVERY_SECS: i64 = 3600;
/// Gaps that are looked at to tell the rhythm.
const GAPS: usize = 20;

/// What will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulation {
    /// Seconds between two points.
    pub every_secs: i64,
    /// From now to the end.
    pub steps: Vec<Step>,
    /// When each of today's points goes, those that go at once first. Those that are not here are there at the end.
    pub gone: Vec<(SnapshotId, Time)>,
}

/// One moment to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The moment.
    pub at: Time,
    /// The moments of all points that will be there, newest first.
    pub points: Vec<Time>,
}

/// The usual seconds between two points of the group that is added to: the median of its last gaps. `None` for fewer
/// than two points.
pub fn rhythm(request: &Request<'_>) -> Option<i64> {
    let newest = newest(request)?;
    let names = names_of(newest);
    let mut times: Vec<i64> = request
        .points
        .iter()
        .filter(|point| point.app == newest.app && names_of(point) == names && is_in_time(point, request.now))
        .map(|point| point.time.secs)
        .collect();
    times.sort_unstable_by_key(|secs| std::cmp::Reverse(*secs));
    let mut gaps: Vec<i64> = times.windows(2).take(GAPS).map(|pair| pair[0] - pair[1]).collect();
    gaps.sort_unstable();
    gaps.get(gaps.len() / 2).map(|gap| (*gap).max(1))
}

fn names_of(point: &Point) -> BTreeSet<&str> {
    point.sources.iter().map(|source| source.name.as_str()).collect()
}

fn newest<'a>(request: &Request<'a>) -> Option<&'a Point> {
    let known = request.points.iter().filter(|point| is_in_time(point, request.now));
    known.max_by_key(|point| (point.time, point.id))
}

/// Lets time pass, with a complete point like the newest every so many seconds.
pub fn simulate(request: &Request<'_>, every_secs: i64, span: Span) -> Simulation {
    let every = every_secs.max(1);
    let end = span.after(request.now, request.zone);
    let mut points = request.points.to_vec();
    let mut gone = Vec::new();
    apply(&mut points, request, request.now, &mut gone);
    let mut steps = vec![step(&points, request.now)];
    let Some(like) = newest(request).cloned() else { return Simulation { every_secs: every, steps, gone } };

    let behind = request.now.secs.saturating_sub(like.time.secs).max(0);
    let mut next = like.time.secs.saturating_add((behind / every + 1).saturating_mul(every));
    let mut applied = request.now.secs;
    let mut number = 0u64;
    for at in stops(request, end) {
        while next <= at.secs {
            number += 1;
            points.push(virtual_point(&like, number, Time::new(next, 0)));
            if next.saturating_sub(applied) >= APPLY_EVERY_SECS {
                apply(&mut points, request, Time::new(next, 0), &mut gone);
                applied = next;
            }
            next = next.saturating_add(every);
        }
        apply(&mut points, request, at, &mut gone);
        steps.push(step(&points, at));
    }
    Simulation { every_secs: every, steps, gone }
}

/// The moments that are told: near ones closely, far ones rarely.
fn stops(request: &Request<'_>, end: Time) -> Vec<Time> {
    let days = [1, 2, 3, 7, 14, 30, 60, 90, 180, 270, 365, 730, 1095, 1825, 3650];
    let near = days.iter().map(|days| Span::days(*days).after(request.now, request.zone));
    near.filter(|at| *at < end).chain([end]).collect()
}

fn apply(points: &mut Vec<Point>, request: &Request<'_>, now: Time, gone: &mut Vec<(SnapshotId, Time)>) {
    let decided: Plan = plan(&Request { points, now, ..request.clone() });
    let removals: BTreeSet<SnapshotId> = decided.removals().into_iter().collect();
    let known = |id: &&SnapshotId| !is_virtual(**id);
    gone.extend(removals.iter().filter(known).map(|id| (*id, now)));
    points.retain(|point| !removals.contains(&point.id));
}

fn step(points: &[Point], at: Time) -> Step {
    let mut times: Vec<Time> = points.iter().map(|point| point.time).collect();
    times.sort_unstable_by_key(|time| std::cmp::Reverse(*time));
    Step { at, points: times }
}

/// Ids that no digest has: 24 bytes of ones.
fn is_virtual(id: SnapshotId) -> bool {
    id.0.0[..24] == [0xff; 24]
}

fn virtual_point(like: &Point, number: u64, time: Time) -> Point {
    let mut id = [0xff; 32];
    id[24..].copy_from_slice(&number.to_be_bytes());
    let sources = like.sources.iter().map(|source| PointSource { complete: true, ..source.clone() });
    Point {
        id: SnapshotId(Id(id)),
        time,
        tags: Vec::new(),
        sources: sources.collect(),
        complete: true,
        damaged: false,
        absent_at: None,
        ..like.clone()
    }
}
