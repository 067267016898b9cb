//! Times of log lines: of RFC 3339, or month, day and time of day without a year.

use std::str::FromStr;

use opspilot_kernel::time::Timestamp;

const DAY: i64 = 86_400_000;
/// Two lines that follow each other are less than half a year apart; if their months are not, a year began between them.
const HALF_A_YEAR: i64 = 183 * DAY;

/// How far a clock that names no zone is ahead of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offset {
    millis: i64,
}

/// The text is no offset from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an offset from UTC such as +02:00, -05:30 or Z")]
pub struct NotAnOffset;

impl Offset {
    /// UTC itself.
    pub const UTC: Offset = Offset { millis: 0 };

    /// The point in time at which a clock with this offset shows what UTC shows at `shown`.
    pub fn utc(self, shown: Timestamp) -> Timestamp {
        Timestamp::from_millis(shown.millis().saturating_sub(self.millis))
    }
}

impl FromStr for Offset {
    type Err = NotAnOffset;

    fn from_str(text: &str) -> Result<Offset, NotAnOffset> {
        if matches!(text, "Z" | "z" | "UTC") {
            return Ok(Offset::UTC);
        }
        let (sign, rest) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(rest), _) => (1, rest),
            (None, Some(rest)) => (-1, rest),
            (None, None) => return Err(NotAnOffset),
        };
        let (hours, minutes) = rest.split_once(':').ok_or(NotAnOffset)?;
        let number = |text: &str, most: i64| number(text.as_bytes()).filter(|number| text.len() == 2 && *number <= most).ok_or(NotAnOffset);
        Ok(Offset { millis: sign * (number(hours, 18)? * 60 + number(minutes, 59)?) * 60_000 })
    }
}

/// Which year a line without one is of.
///
/// The first line is of the year that [`Years::first`] or [`Years::until`] says; every other is of the year that brings it
/// within half a year of the line before, so that a file goes over New Year, and a straggler from before New Year goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Years {
    first: First,
    last: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Year(i64),
    /// The newest year that does not put it behind this time.
    Until(Timestamp),
}

impl Years {
    /// The first line is of this year.
    pub const fn first(year: u16) -> Years {
        #[allow(clippy::as_conversions, reason = "widening, in a const fn, where From cannot be called")]
        Years { first: First::Year(year as i64), last: None }
    }

    /// Nothing was written after `until`: when a file was changed last, or when a datagram came in. A day is allowed for
    /// clocks that are ahead and for zones.
    pub fn until(until: Timestamp) -> Years {
        Years { first: First::Until(Timestamp::from_millis(until.millis().saturating_add(DAY))), last: None }
    }

    /// The time of a line whose clock shows `clock`, if there is such a day in the year it is of.
    fn place(&mut self, clock: Clock, offset: Offset) -> Option<Timestamp> {
        let at = |year| clock.in_year(year).map(|shown| offset.utc(shown));
        let found = match (self.last, self.first) {
            (Some(last), _) => {
                let year = year_of(last);
                // a 29 February may be four or, around 2100, eight years away
                let near = [year, year + 1, year - 1].into_iter().filter_map(at);
                near.min_by_key(|time| distance(*time, last)).filter(|time| distance(*time, last) <= HALF_A_YEAR + DAY)?
            }
            (None, First::Year(year)) => at(year)?,
            (None, First::Until(until)) => {
                let year = year_of(until);
                (0..=8).filter_map(|back| at(year - back)).find(|time| *time <= until)?
            }
        };
        self.last = Some(found);
        Some(found)
    }
}

fn distance(one: Timestamp, other: Timestamp) -> i64 {
    one.millis().saturating_sub(other.millis()).saturating_abs()
}

/// What a clock shows, but for the year.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clock {
    month: i64,
    day: i64,
    /// Milliseconds of the day.
    time: i64,
}

impl Clock {
    /// In UTC, if the year has such a day.
    fn in_year(self, year: i64) -> Option<Timestamp> {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let last = match self.month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => return None,
        };
        if !(1970..=9999).contains(&year) || !(1..=last).contains(&self.day) {
            return None;
        }
        // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil
        let (y, m) = if self.month <= 2 { (year - 1, self.month + 9) } else { (year, self.month - 3) };
        let days = 365 * y + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + self.day - 1 - 719_468;
        Some(Timestamp::from_millis(days * DAY + self.time))
    }
}

/// The year of a time, by UTC (the same source, `civil_from_days`).
fn year_of(at: Timestamp) -> i64 {
    let days = at.millis() / DAY + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    // years of this algorithm begin in March
    year + era * 400 + i64::from((5 * of_year + 2) / 153 >= 10)
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The time at the start of a line, and what is behind it.
pub(super) fn begin<'a>(text: &'a str, years: &mut Years, offset: Offset) -> Option<(Timestamp, &'a str)> {
    match text.as_bytes().first()? {
        b'0'..=b'9' => rfc3339(text, offset),
        _ => bsd(text, years, offset),
    }
}

/// `2026-01-31T08:30:00.123456+01:00`, with a space for the `T` and without a zone too.
fn rfc3339(text: &str, offset: Offset) -> Option<(Timestamp, &str)> {
    let bytes = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| bytes.get(*at) != Some(mark)) || !matches!(bytes.get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let field = |from: usize, len: usize| number(bytes.get(from..from + len)?);
    let clock = Clock { month: field(5, 2)?, day: field(8, 2)?, time: day_time(field(11, 2)?, field(14, 2)?, field(17, 2)?)? };
    let shown = clock.in_year(field(0, 4)?)?;
    let (millis, behind) = fraction(text.get(19..)?);
    let shown = Timestamp::from_millis(shown.millis() + millis);
    let (zone, rest) = zone(behind);
    Some((zone.unwrap_or(offset).utc(shown), rest))
}

/// A zone at the start of the text, if there is one.
fn zone(text: &str) -> (Option<Offset>, &str) {
    if let Some(rest) = text.strip_prefix(['Z', 'z']) {
        return (Some(Offset::UTC), rest);
    }
    let long = text.split_at_checked(6).and_then(|(zone, rest)| Some((zone.parse().ok()?, rest)));
    let short = || {
        let (zone, rest) = text.split_at_checked(5)?;
        let (hours, minutes) = zone.split_at_checked(3)?;
        Some((format!("{hours}:{minutes}").parse().ok()?, rest))
    };
    match long.or_else(short) {
        Some((zone, rest)) => (Some(zone), rest),
        None => (None, text),
    }
}

/// `Oct 11 22:14:15`, `Oct  1 …`, `Oct 01 …`, `Oct 11 2026 …`, each with a fraction.
fn bsd<'a>(text: &'a str, years: &mut Years, offset: Offset) -> Option<(Timestamp, &'a str)> {
    let (name, rest) = text.split_at_checked(3)?;
    let month = (1..).zip(MONTHS).find(|(_, month)| *month == name)?.0;
    let rest = rest.strip_prefix(' ')?;
    let (day, rest) = digits(rest.strip_prefix(' ').unwrap_or(rest), 2)?;
    let rest = rest.strip_prefix(' ')?;
    let (year, rest) = match digits(rest, 4) {
        Some((year, behind)) if behind.starts_with(' ') && year >= 1970 => (Some(year), behind.strip_prefix(' ')?),
        _ => (None, rest),
    };
    let (hour, rest) = digits(rest, 2)?;
    let (minute, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let (millis, rest) = fraction(rest);
    let clock = Clock { month, day, time: day_time(hour, minute, second)? + millis };
    let at = match year {
        Some(year) => offset.utc(clock.in_year(year)?),
        None => years.place(clock, offset)?,
    };
    Some((at, rest))
}

fn day_time(hour: i64, minute: i64, second: i64) -> Option<i64> {
    // a leap second is the last of its minute
    (hour < 24 && minute < 60 && second <= 60).then(|| ((hour * 60 + minute) * 60 + second.min(59)) * 1000)
}

/// `.123456` in milliseconds, and what is behind it; nothing is nothing.
fn fraction(text: &str) -> (i64, &str) {
    let Some(behind) = text.strip_prefix(['.', ',']) else { return (0, text) };
    let count = behind.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = behind.split_at_checked(count).unwrap_or((behind, ""));
    if digits.is_empty() {
        return (0, text);
    }
    let padded: String = digits.chars().chain("00".chars()).take(3).collect();
    (number(padded.as_bytes()).unwrap_or(0), rest)
}

/// Up to `most` digits at the start of the text, at least one.
fn digits(text: &str, most: usize) -> Option<(i64, &str)> {
    let count = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at_checked(count).filter(|(digits, _)| !digits.is_empty())?;
    Some((number(digits.as_bytes())?, rest))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0_i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}
