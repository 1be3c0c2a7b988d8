//! How much a repository holds, how it grows, and when it is full.

use crate::run::{Chosen, Run};
use crate::text;
use lastgood_model::status::Usage;
use lastgood_model::{Result, Time};
use lastgood_repo::{Repository, Snapshot};

/// Growth is told from the points of so many days.
const DAYS_ASKED: i64 = 30;
const DAY_SECS: i64 = 86_400;

/// Looks at a repository: lists all its objects.
pub(crate) fn of(repository: &Repository, chosen: &Chosen, now: Time) -> Result<Usage> {
    let bytes = repository.stored_bytes()?;
    let points = repository.snapshots(|_, _| ())?;
    Ok(Usage { bytes, limit_bytes: limit(chosen, bytes), daily_bytes: daily(&points, now) })
}

/// The quota of the config, or what a disk has room for.
fn limit(chosen: &Chosen, bytes: u64) -> Option<u64> {
    let of_disk = chosen.place.folder().and_then(|folder| {
        let stat = rustix::fs::statvfs(folder).ok()?;
        Some(bytes.saturating_add(stat.f_bavail.saturating_mul(stat.f_frsize)))
    });
    chosen.quota_bytes.into_iter().chain(of_disk).min()
}

/// What the points of the last weeks added in a day. The oldest of all held everything for the first time, and tells
/// nothing of growth.
fn daily(points: &[Snapshot], now: Time) -> Option<u64> {
    let first = points.iter().map(|point| point.file.time).min()?;
    let since = first.secs.max(now.secs.saturating_sub(DAYS_ASKED * DAY_SECS));
    let days = now.secs.saturating_sub(since) / DAY_SECS;
    let later = points.iter().filter(|point| point.file.time > first && point.file.time.secs >= since);
    let added =
        later.filter_map(|point| Some(point.file.summary.as_ref()?.data_added_packed)).fold(0, u64::saturating_add);
    (days > 0).then(|| added / days.unsigned_abs())
}

/// In a line.
pub(crate) fn told(usage: &Usage) -> String {
    let mut told = text::size(usage.bytes);
    if let Some(daily) = usage.daily_bytes {
        told.push_str(&format!(", growing by {} a day", text::size(daily)));
    }
    if let Some(limit) = usage.limit_bytes {
        told.push_str(&format!("; full at {}", text::size(limit)));
        match usage.days_left() {
            Some(0) => told.push_str(", which is today"),
            Some(days @ ..3650) => told.push_str(&format!(", in about {}", text::counted(days, "day"))),
            _ => {}
        }
    }
    told
}

/// After a backup: says so when there is cause to make room. What cannot be found out is no cause.
pub(crate) fn warn_if_near_full(run: &Run, repository: &Repository, chosen: &Chosen, now: Time) {
    // A list of a distant place costs requests: it is made where somebody has said how much there may be.
    if chosen.quota_bytes.is_none() && chosen.place.folder().is_none() {
        return;
    }
    if let Ok(usage) = of(repository, chosen, now)
        && usage.is_near_full()
    {
        run.out.note(format!(
            "warning: {} will soon be full: {}. `lastgood forget` and `lastgood prune` make room",
            chosen.word(),
            told(&usage)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_all_that_is_known() {
        let usage = |limit, daily| told(&Usage { bytes: 1 << 30, limit_bytes: limit, daily_bytes: daily });
        assert!(!usage(None, None).contains("full"));
        assert!(
            usage(Some(2 << 30), Some(1 << 20)).ends_with("in about 1,024 days"),
            "{}",
            usage(Some(2 << 30), Some(1 << 20))
        );
        assert!(usage(Some(1 << 30), Some(1 << 20)).ends_with("today"));
        assert!(usage(Some(1 << 50), Some(1)).contains("full at"));
    }
}
