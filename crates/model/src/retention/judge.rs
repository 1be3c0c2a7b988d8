//! Whether the newest points of a group look so wrong that nothing should be removed before a person has looked.
//!
//! A backup that is broken, or of something that has been emptied, is noticed too late when meanwhile every older point
//! has gone by rule. So while one of these holds, old points stay:
//!
//! - a point is dated in the future, by more than [`super::FUTURE_SECS`];
//! - the newest point is incomplete;
//! - a source in the newest point has less than half the bytes, or less than half the files, of the median of up to
//!   [`FORERUNNERS`] complete points before it.
//!
//! Groups that nobody adds to any more are not judged by their newest point: it is [`CURRENT_SECS`] older than the
//! newest of the application.

use super::calendar::told;
use super::plan::{Point, is_future};
use crate::{SnapshotId, Time};
use jiff::tz::TimeZone;
use std::fmt;

/// So many points are looked at to tell what is usual.
pub const FORERUNNERS: usize = 20;
/// A group without a point for so long beside others of the application is not in use.
const CURRENT_SECS: i64 = 30 * 86_400;

/// Something that looks wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// A point's date has not come yet.
    Future {
        /// The point.
        id: SnapshotId,
        /// Its date, in the zone's words.
        dated: String,
    },
    /// The newest point lacks something.
    Incomplete {
        /// The point.
        id: SnapshotId,
    },
    /// The newest point has far less than those before it.
    Smaller {
        /// The point.
        id: SnapshotId,
        /// The source; none when only the whole is known.
        source: Option<String>,
        /// `bytes` or `files`.
        of: &'static str,
        /// How many it has.
        has: u64,
        /// The median of its forerunners.
        usual: u64,
        /// How many forerunners were looked at.
        forerunners: usize,
    },
}

impl Doubt {
    /// The point it is about.
    pub fn point(&self) -> SnapshotId {
        match self {
            Self::Future { id, .. } | Self::Incomplete { id } | Self::Smaller { id, .. } => *id,
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Future { id, dated } => write!(f, "{} is dated {dated}, in the future", id.short()),
            Self::Incomplete { id } => write!(f, "the newest point, {}, is incomplete", id.short()),
            Self::Smaller { id, source, of, has, usual, forerunners } => {
                let what = source.as_ref().map_or_else(String::new, |source| format!(" in source {source}"));
                let those = if *forerunners == 1 { "the one" } else { "the median of those" };
                write!(
                    f,
                    "the newest point, {}, has {has} {of}{what}, less than half of {usual} in {those} before it",
                    id.short()
                )
            }
        }
    }
}

/// Looks at a group's points, newest first. `newest` is the moment of the application's newest point.
pub(super) fn judge(points: &[&Point], newest: Option<Time>, now: Time, zone: &TimeZone) -> Vec<Doubt> {
    let future = points.iter().filter(|point| is_future(point, now));
    let mut doubts: Vec<Doubt> =
        future.map(|point| Doubt::Future { id: point.id, dated: told(point.time, zone) }).collect();
    let known: Vec<&Point> = points.iter().filter(|point| !is_future(point, now)).copied().collect();
    let Some((last, before)) = known.split_first() else { return doubts };
    if newest.is_some_and(|newest| newest.secs.saturating_sub(last.time.secs) > CURRENT_SECS) {
        return doubts;
    }
    if !last.complete || last.damaged {
        doubts.push(Doubt::Incomplete { id: last.id });
    }
    let good: Vec<&Point> =
        before.iter().filter(|point| point.complete && !point.damaged).take(FORERUNNERS).copied().collect();
    let mut compare = |source: Option<&str>, of: &'static str, has: Option<u64>, usual: Vec<u64>| {
        let forerunners = usual.len();
        if let (Some(has), Some(usual)) = (has, median(usual))
            && has < usual.div_ceil(2)
        {
            let source = source.map(str::to_owned);
            doubts.push(Doubt::Smaller { id: last.id, source, of, has, usual, forerunners });
        }
    };
    if last.sources.is_empty() {
        compare(None, "bytes", last.bytes, good.iter().filter_map(|point| point.bytes).collect());
        compare(None, "files", last.files, good.iter().filter_map(|point| point.files).collect());
    }
    // One that has failed is told already by the point being incomplete.
    for source in last.sources.iter().filter(|source| source.complete) {
        let of_it = || good.iter().filter_map(|point| point.sources.iter().find(|other| other.name == source.name));
        compare(Some(&source.name), "bytes", Some(source.bytes), of_it().map(|other| other.bytes).collect());
        compare(Some(&source.name), "files", Some(source.files), of_it().map(|other| other.files).collect());
    }
    doubts
}

/// The middle one; of an even number the smaller of the two.
fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    let middle = values.len().checked_sub(1)? / 2;
    values.get(middle).copied()
}
