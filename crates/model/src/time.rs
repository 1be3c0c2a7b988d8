//! Instants as file systems keep them: seconds and nanoseconds since 1970 in UTC. No clock is read here.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// An instant; ordering is chronological. `nanos` is below 10^9 and counts forward from `secs`, also before 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub secs: i64,
    /// Nanoseconds after `secs`, 0..10^9.
    pub nanos: u32,
}

impl Time {
    /// An instant from its parts; `nanos` beyond a second are carried over.
    pub fn new(secs: i64, nanos: u32) -> Self {
        Self { secs: secs.saturating_add(i64::from(nanos / 1_000_000_000)), nanos: nanos % 1_000_000_000 }
    }

    /// Appends RFC 3339 in UTC with the shortest exact fraction, as Go's `RFC3339Nano` prints it. Years outside
    /// 0..=9999 are moved to the nearest of the two, since that format cannot write them.
    pub fn push_rfc3339(&self, out: &mut Vec<u8>) {
        let days = self.secs.div_euclid(86_400);
        let second = self.secs.rem_euclid(86_400);
        let (year, month, day) = civil(days);
        let (year, month, day) = match year.clamp(0, 9999) {
            // A leap day moved to a year that has none is the day after, as Go has it.
            9999 if (month, day) == (2, 29) => (9999, 3, 1),
            year => (year, month, day),
        };
        push_digits(out, year as u64, 4);
        out.push(b'-');
        push_digits(out, month, 2);
        out.push(b'-');
        push_digits(out, day, 2);
        out.push(b'T');
        push_digits(out, (second / 3600) as u64, 2);
        out.push(b':');
        push_digits(out, (second / 60 % 60) as u64, 2);
        out.push(b':');
        push_digits(out, (second % 60) as u64, 2);
        if self.nanos != 0 {
            out.push(b'.');
            push_digits(out, u64::from(self.nanos), 9);
            while out.last() == Some(&b'0') {
                out.pop();
            }
        }
        out.push(b'Z');
    }

    /// Parses RFC 3339 with any offset and up to nine fraction digits.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let number = |from: usize, to: usize| -> Option<i64> {
            bytes.get(from..to)?.iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
        };
        let at = |i: usize, b: u8| bytes.get(i) == Some(&b);
        if !(at(4, b'-') && at(7, b'-') && (at(10, b'T') || at(10, b't')) && at(13, b':') && at(16, b':')) {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let days = days_from_civil(year, month, day);
        // Both ways, so that no other day is meant by one that is not in the calendar.
        let is_date = (1..=12).contains(&month) && civil(days) == (year, month as u64, day as u64);
        if !is_date || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let mut i = 19;
        let mut nanos = 0u32;
        if at(i, b'.') {
            i += 1;
            let mut scale = 100_000_000;
            let start = i;
            while let Some(b) = bytes.get(i).filter(|b| b.is_ascii_digit()) {
                nanos += u32::from(b - b'0') * scale;
                scale /= 10;
                i += 1;
            }
            if i == start {
                return None;
            }
        }
        let offset = match bytes.get(i)? {
            b'Z' | b'z' if bytes.len() == i + 1 => 0,
            sign @ (b'+' | b'-') if bytes.len() == i + 6 && at(i + 3, b':') => {
                let (hours, minutes) = (number(i + 1, i + 3)?, number(i + 4, i + 6)?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
            }
            _ => return None,
        };
        let secs = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
        Some(Self { secs, nanos })
    }
}

fn push_digits(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    for slot in out[start..].iter_mut().rev() {
        *slot = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of a day count since 1970, in the proleptic Gregorian calendar (Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, u64, u64) {
    let z = days.saturating_add(719_468);
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month as u64, day as u64)
}

/// The inverse of [`civil`] (Hinnant's `days_from_civil`).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(35);
        self.push_rfc3339(&mut text);
        f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rfc3339;
        impl serde::de::Visitor<'_> for Rfc3339 {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
                Time::parse_rfc3339(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Rfc3339)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_go_prints_them() {
        let cases = [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_700_000_000, 120_000_000, "2023-11-14T22:13:20.12Z"),
            (-1, 999_999_999, "1969-12-31T23:59:59.999999999Z"),
            (951_827_696, 1, "2000-02-29T12:34:56.000000001Z"),
            (253_407_398_400, 0, "9999-03-01T00:00:00Z"),
            (400_000_000_000, 0, "9999-06-30T15:06:40Z"),
            (-62_167_219_201, 0, "0000-12-31T23:59:59Z"),
            (i64::MAX / 2, 0, "9999-"),
            (i64::MIN / 2, 0, "0000-"),
        ];
        for (secs, nanos, text) in cases {
            assert!(Time::new(secs, nanos).to_string().starts_with(text), "{text} {}", Time::new(secs, nanos));
        }
    }

    #[test]
    fn offsets_are_understood_and_nonsense_is_refused() {
        let want = Time::new(1_700_000_000, 500_000_000);
        for text in ["2023-11-14T22:13:20.5Z", "2023-11-14T23:13:20.500+01:00", "2023-11-14T16:43:20.5-05:30"] {
            assert_eq!(Time::parse_rfc3339(text), Some(want), "{text}");
        }
        for bad in [
            "",
            "2023",
            "2023-11-14 22:13:20Z",
            "2023-13-14T22:13:20Z",
            "2023-00-14T22:13:20Z",
            "2023-11-00T22:13:20Z",
            "2031-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2023-11-31T00:00:00Z",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20+1:00",
            "é023-11-14T22:13:20Z",
        ] {
            assert_eq!(Time::parse_rfc3339(bad), None, "{bad}");
        }
    }
}
