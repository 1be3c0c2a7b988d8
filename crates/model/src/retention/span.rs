//! Spans by the calendar, as `within` takes them.

use super::calendar::zoned;
use crate::{Error, Result, Time};
use jiff::tz::TimeZone;
use std::fmt;
use std::str::FromStr;

/// So many years, months, days and hours. A month back from the 31st is the last day of a shorter month; a day is a
/// civil day, which may have 23 or 25 hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Civil years.
    pub years: u16,
    /// Civil months.
    pub months: u16,
    /// Civil days; a week is seven.
    pub days: u32,
    /// Hours of sixty minutes.
    pub hours: u32,
}

/// How spans are written, for messages.
pub const SPAN_FORM: &str = "a span such as \"30d\", \"6mo\", \"1y6mo\", \"2w\" or \"36h\"";

impl Span {
    /// So many days.
    pub fn days(days: u32) -> Self {
        Self { days, ..Self::default() }
    }

    /// True for no time at all.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// The moment this long before another, by a zone's calendar. One before all calendars is the earliest there is.
    pub fn before(&self, time: Time, zone: &TimeZone) -> Time {
        self.shifted(time, zone, -1)
    }

    /// The moment this long after another.
    pub fn after(&self, time: Time, zone: &TimeZone) -> Time {
        self.shifted(time, zone, 1)
    }

    fn shifted(&self, time: Time, zone: &TimeZone, sign: i64) -> Time {
        let beyond = if sign < 0 { Time::new(i64::MIN, 0) } else { Time::new(i64::MAX, 0) };
        let shift = || {
            let calendar = jiff::Span::new()
                .try_years(sign * i64::from(self.years))
                .and_then(|span| span.try_months(sign * i64::from(self.months)))
                .and_then(|span| span.try_days(sign * i64::from(self.days)))?;
            let hours = jiff::Span::new().try_hours(sign * i64::from(self.hours))?;
            zoned(time, zone).checked_add(calendar)?.checked_add(hours)
        };
        match shift() {
            Ok(moment) => {
                let stamp = moment.timestamp();
                // Before 1970 jiff counts its fraction backwards.
                let (secs, nanos) = (stamp.as_second(), stamp.subsec_nanosecond());
                if nanos < 0 {
                    Time::new(secs - 1, (nanos + 1_000_000_000) as u32)
                } else {
                    Time::new(secs, nanos as u32)
                }
            }
            Err(_) => beyond,
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(u32::from(self.years), "y"), (u32::from(self.months), "mo"), (self.days, "d"), (self.hours, "h")];
        if self.is_zero() {
            return f.write_str("0h");
        }
        parts.iter().filter(|(number, _)| *number > 0).try_for_each(|(number, unit)| write!(f, "{number}{unit}"))
    }
}

impl FromStr for Span {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let usage = || Error::invalid(format!("not a span: {text:?}")).with_hint(format!("write {SPAN_FORM}"));
        let mut span = Self::default();
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(usage());
        }
        while !rest.is_empty() {
            let split = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(usage)?;
            let number: u32 = rest[..split].parse().map_err(|_| usage())?;
            rest = rest[split..].trim_start();
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let small = u16::try_from(number);
            let added = match &rest[..end] {
                "y" => small.ok().and_then(|n| span.years.checked_add(n)).map(|n| span.years = n),
                "mo" => small.ok().and_then(|n| span.months.checked_add(n)).map(|n| span.months = n),
                "w" => number.checked_mul(7).and_then(|n| span.days.checked_add(n)).map(|n| span.days = n),
                "d" => span.days.checked_add(number).map(|n| span.days = n),
                "h" => span.hours.checked_add(number).map(|n| span.hours = n),
                // restic's month is elsewhere a minute.
                "m" => {
                    return Err(Error::invalid(format!("{text:?} could mean months or minutes"))
                        .with_hint("write `mo` for months; minutes are too short to be kept by"));
                }
                _ => None,
            };
            added.ok_or_else(usage)?;
            rest = rest[end..].trim_start();
        }
        Ok(span)
    }
}
