//! The calendar that rules count by: which hour, day, ISO week, month, quarter and year of a named time zone a moment
//! lies in.
//!
//! A moment is turned into a civil time and never the other way round, so that hours which a zone leaves out, or has
//! twice, and days without a midnight need no rule of their own. An hour that a clock strikes twice is two hours: its
//! offset is part of its name.

use crate::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned, civil::Date};

/// The periods that rules count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// From minute 0 to minute 59 of one offset.
    Hour,
    /// A civil date.
    Day,
    /// An ISO 8601 week: from Monday; the first of a year holds its first Thursday.
    Week,
    /// A month of one year.
    Month,
    /// Three months from January, April, July or October.
    Quarter,
    /// A civil year.
    Year,
}

impl Unit {
    /// All, the shortest first.
    pub const ALL: [Self; 6] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Quarter, Self::Year];

    /// The rule's name: `daily`.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Quarter => "quarterly",
            Self::Year => "yearly",
        }
    }
}

/// One hour, day, week, month, quarter or year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    unit: Unit,
    /// Year; of weeks the ISO year.
    year: i16,
    /// Month, week or quarter; 0 for years.
    part: i8,
    day: i8,
    hour: i8,
    /// Seconds east of UTC; of hours only.
    offset: i32,
}

impl std::fmt::Display for Period {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { unit, year, part, day, hour, offset } = self;
        match unit {
            Unit::Hour => {
                let (sign, minutes) = if *offset < 0 { ('-', -offset / 60) } else { ('+', offset / 60) };
                let (h, m) = (minutes / 60, minutes % 60);
                write!(f, "{year:04}-{part:02}-{day:02} {hour:02}h{sign}{h:02}:{m:02}")
            }
            Unit::Day => write!(f, "{year:04}-{part:02}-{day:02}"),
            Unit::Week => write!(f, "{year:04}-W{part:02}"),
            Unit::Month => write!(f, "{year:04}-{part:02}"),
            Unit::Quarter => write!(f, "{year:04}-Q{part}"),
            Unit::Year => write!(f, "{year:04}"),
        }
    }
}

/// A moment as a zone's clocks and calendars show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    date: Date,
    hour: i8,
    offset: i32,
}

impl Civil {
    /// The moment in a zone. One outside the years that calendars are known for is moved to the nearest of them.
    pub fn of(time: Time, zone: &TimeZone) -> Self {
        let zoned = zoned(time, zone);
        Self { date: zoned.date(), hour: zoned.hour(), offset: zoned.offset().seconds() }
    }

    /// The period of a kind that the moment lies in.
    pub fn period(&self, unit: Unit) -> Period {
        let (year, month) = (self.date.year(), self.date.month());
        let mut period = Period { unit, year, part: 0, day: 0, hour: 0, offset: 0 };
        match unit {
            Unit::Hour => {
                (period.part, period.day, period.hour, period.offset) =
                    (month, self.date.day(), self.hour, self.offset);
            }
            Unit::Day => (period.part, period.day) = (month, self.date.day()),
            Unit::Week => {
                let week = self.date.iso_week_date();
                (period.year, period.part) = (week.year(), week.week());
            }
            Unit::Month => period.part = month,
            Unit::Quarter => period.part = (month - 1) / 3 + 1,
            Unit::Year => {}
        }
        period
    }
}

/// The moment as jiff has it.
pub(super) fn zoned(time: Time, zone: &TimeZone) -> Zoned {
    let stamp = Timestamp::new(time.secs, time.nanos.min(999_999_999) as i32).unwrap_or(if time.secs < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    });
    stamp.to_zoned(zone.clone())
}

/// The moment in a zone, for people: `2026-05-01 14:30 +02:00`.
pub fn told(time: Time, zone: &TimeZone) -> String {
    zoned(time, zone).strftime("%Y-%m-%d %H:%M %:z").to_string()
}

/// The first moment of a civil date in a zone: midnight, or what comes first where there is none.
///
/// The text is `2026-05-01`; `None` for what is no date.
pub fn start_of_day(text: &str, zone: &TimeZone) -> Option<Time> {
    let date: Date = text.parse().ok().filter(|_| text.len() == 10)?;
    let start = zone.to_ambiguous_zoned(date.at(0, 0, 0, 0)).compatible().ok()?.timestamp();
    Some(Time::new(start.as_second(), 0))
}
