//! `keep`: which recovery points stay when `lastgood forget` runs.

use super::read::{Section, Show};
use jiff::tz::TimeZone;
use lastgood_model::retention::{Policy, SPAN_FORM, Span, Unit};
use lastgood_model::{Error, Result};

/// The largest count that can be written; more is a slip.
const COUNT_MAX: u32 = 100_000;

/// The keys of `keep`, but for `time_zone`, which only a repository has.
#[cfg(test)]
pub(super) const KEYS: [&str; 15] = [
    "daily",
    "hourly",
    "last",
    "monthly",
    "quarterly",
    "tags",
    "weekly",
    "within",
    "within_daily",
    "within_hourly",
    "within_monthly",
    "within_quarterly",
    "within_weekly",
    "within_yearly",
    "yearly",
];

const UNITS: [(Unit, &str, &str); 6] = [
    (Unit::Hour, "hourly", "within_hourly"),
    (Unit::Day, "daily", "within_daily"),
    (Unit::Week, "weekly", "within_weekly"),
    (Unit::Month, "monthly", "within_monthly"),
    (Unit::Quarter, "quarterly", "within_quarterly"),
    (Unit::Year, "yearly", "within_yearly"),
];

/// What a repository keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keep {
    /// The rules.
    pub(crate) policy: Policy,
    /// The zone whose calendar counts, when one is named. It is one that is known.
    pub(crate) time_zone: Option<String>,
}

/// The zone by its name, such as `Europe/Berlin`.
///
/// # Errors
/// Invalid for one that nobody knows.
pub(crate) fn time_zone(name: &str) -> Result<TimeZone> {
    TimeZone::get(name).map_err(|error| {
        Error::invalid(format!("there is no time zone {name:?}"))
            .with_source(error)
            .with_hint("write a name of the IANA database, such as \"Europe/Berlin\" or \"UTC\"")
    })
}

/// Reads `keep` of a repository.
pub(super) fn of_repository(section: &mut Section<'_>) -> Option<Keep> {
    let mut table = section.table("keep", None)?;
    let time_zone = table.parsed("time_zone", "a time zone such as \"Europe/Berlin\" or \"UTC\"", |name| {
        time_zone(name).is_ok().then(|| name.to_owned())
    });
    let policy = rules(&mut table);
    table.close(|_| None);
    Some(Keep { policy, time_zone: time_zone.map(|found| found.value) })
}

/// Reads `keep` of a source.
pub(super) fn of_source(section: &mut Section<'_>) -> Option<Policy> {
    let mut table = section.table("keep", None)?;
    let policy = rules(&mut table);
    table.close(|key| {
        let hint = "write it into `keep` of the repository: one calendar counts for all in it".to_owned();
        (key == "time_zone").then(|| ("`time_zone` belongs to a repository".to_owned(), hint))
    });
    Some(policy)
}

fn rules(table: &mut Section<'_>) -> Policy {
    let mut policy = Policy { last: table.number("last", COUNT_MAX).map_or(0, |f| f.value), ..Policy::default() };
    let mut wrong = false;
    for (unit, count, within) in UNITS {
        if let Some(found) = table.number(count, COUNT_MAX) {
            policy.counts.insert(unit, found.value);
        }
        if let Some(found) = table.parsed(within, SPAN_FORM, span) {
            policy.within_each.insert(unit, found.value);
        }
        wrong |= table.is_present(count) || table.is_present(within);
    }
    policy.within = table.parsed("within", SPAN_FORM, span).map(|found| found.value);
    if let Some(tags) = table.list("tags", Show::All) {
        if tags.value.iter().any(|tag| tag.split(',').any(|tag| tag.trim().is_empty())) {
            table.wrong(&tags.place, format!("`{}` holds an empty tag", table.path_of("tags")), None);
        }
        policy.tags = tags.value;
    }
    wrong |= ["last", "within", "tags"].iter().any(|key| table.is_present(key));
    // What is there and unusable was told before.
    if policy.is_empty() && !wrong {
        let place = table.place.clone();
        let hint =
            Some("write rules such as { daily = 14, monthly = 12 }, or leave it out to keep everything".to_owned());
        table.wrong(&place, format!("`{}` has no rule", table.path), hint);
    }
    policy
}

fn span(text: &str) -> Option<Span> {
    text.parse().ok().filter(|span: &Span| !span.is_zero())
}
