//! The words a window is written in: days of the week and the month, months, times of day, time zones.

use std::{borrow::Cow, fmt, str::FromStr};

use jiff::{
    civil::{Date, Time},
    tz::TimeZone,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, Visitor},
};

/// A text, or a whole number as the text of it: YAML takes `1` for a number.
struct Text;

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a whole number")
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_i64<E>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_u64<E>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

macro_rules! written {
    ($name:ident, $description:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                deserializer.deserialize_any(Text)?.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": ["string", "integer"], "description": $description })
            }
        }
    };
}

/// Two ends, written `a:b`, or `a` for both.
fn ends(text: &str) -> (&str, &str) {
    let (from, to) = text.split_once(':').unwrap_or((text, text));
    (from.trim(), to.trim())
}

const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MONTHS: [&str; 12] =
    ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"];

/// The number of a name, or of its first three letters; the first is 1.
fn named(text: &str, names: &[&str]) -> Option<i8> {
    let text = text.to_ascii_lowercase();
    let place = names.iter().position(|name| *name == text || name.get(..3) == Some(&text))?;
    i8::try_from(place + 1).ok()
}

fn name(number: i8, names: &'static [&'static str]) -> &'static str {
    usize::try_from(number).ok().and_then(|number| names.get(number.checked_sub(1)?)).copied().unwrap_or_default()
}

/// `monday`, `fri`, `monday:friday`; a week may go over its end, as in `saturday:monday`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weekdays {
    from: i8,
    to: i8,
}

impl Weekdays {
    fn has(self, date: Date) -> bool {
        within(date.weekday().to_monday_one_offset(), self.from, self.to)
    }
}

impl FromStr for Weekdays {
    type Err = String;

    fn from_str(text: &str) -> Result<Weekdays, String> {
        let (from, to) = ends(text);
        let day =
            |text| named(text, &WEEKDAYS).ok_or_else(|| format!("'{text}' is no day of the week; write it like monday, or monday:friday"));
        Ok(Weekdays { from: day(from)?, to: day(to)? })
    }
}

impl fmt::Display for Weekdays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        range(f, name(self.from, &WEEKDAYS), name(self.to, &WEEKDAYS))
    }
}

written!(Weekdays, "A day of the week, or several in a row: monday, fri, monday:friday, saturday:monday.");

/// `march`, `3`, `january:march`; a year may go over its end, as in `november:february`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Months {
    from: i8,
    to: i8,
}

impl Months {
    fn has(self, date: Date) -> bool {
        within(date.month(), self.from, self.to)
    }
}

impl FromStr for Months {
    type Err = String;

    fn from_str(text: &str) -> Result<Months, String> {
        let (from, to) = ends(text);
        let month = |text: &str| {
            let number = named(text, &MONTHS).or_else(|| text.parse().ok()).filter(|number| (1..=12).contains(number));
            number.ok_or_else(|| format!("'{text}' is no month; write it like march, 3 or january:march"))
        };
        Ok(Months { from: month(from)?, to: month(to)? })
    }
}

impl fmt::Display for Months {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        range(f, name(self.from, &MONTHS), name(self.to, &MONTHS))
    }
}

written!(Months, "A month, or several in a row: march, 3, january:march, november:february.");

/// Whether `number` lies between the two, over the end of the cycle if need be.
const fn within(number: i8, from: i8, to: i8) -> bool {
    if from <= to { from <= number && number <= to } else { number >= from || number <= to }
}

fn range<T: fmt::Display + PartialEq>(f: &mut fmt::Formatter<'_>, from: T, to: T) -> fmt::Result {
    if from == to { write!(f, "{from}") } else { write!(f, "{from}:{to}") }
}

/// `1`, `1:7`, `-1` for the last day, `-3:-1` for the last three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaysOfMonth {
    from: i8,
    to: i8,
}

impl DaysOfMonth {
    fn has(self, date: Date) -> bool {
        let counted = |day: i8| if day < 0 { date.days_in_month() + 1 + day } else { day };
        counted(self.from) <= date.day() && date.day() <= counted(self.to)
    }
}

impl FromStr for DaysOfMonth {
    type Err = String;

    fn from_str(text: &str) -> Result<DaysOfMonth, String> {
        let (from, to) = ends(text);
        let day = |text: &str| {
            let number = text.parse().ok().filter(|day: &i8| (1..=31).contains(&day.abs()));
            number.ok_or_else(|| format!("'{text}' is no day of a month; write it like 1, 1:7, or -1 for the last"))
        };
        let days = DaysOfMonth { from: day(from)?, to: day(to)? };
        if days.from > days.to && days.from.signum() == days.to.signum() {
            return Err(format!("the days of the month '{text}' end before they begin"));
        }
        Ok(days)
    }
}

impl fmt::Display for DaysOfMonth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        range(f, self.from, self.to)
    }
}

written!(DaysOfMonth, "A day of the month, or several in a row: 1, 1:7, -1 for the last day, -3:-1.");

/// A date: `2026-12-24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day(Date);

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Day, String> {
        text.parse().map(Day).map_err(|_| format!("'{text}' is no date; write it like 2026-12-24"))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

written!(Day, "A date: 2026-12-24.");

/// A time of day, `00:00` to `24:00`: minutes since midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(i16);

impl TimeOfDay {
    /// When the day begins.
    pub const MIDNIGHT: TimeOfDay = TimeOfDay(0);
    /// When the day ends.
    pub const END: TimeOfDay = TimeOfDay(24 * 60);

    /// The time on the clock, and whether it is the next day's.
    pub(super) fn on_the_clock(self) -> (Time, bool) {
        let minutes = self.0 % (24 * 60);
        let part = |number: i16| i8::try_from(number).unwrap_or(0);
        let time = Time::new(part(minutes / 60), part(minutes % 60), 0, 0).unwrap_or_else(|_| Time::midnight());
        (time, self == TimeOfDay::END)
    }
}

impl FromStr for TimeOfDay {
    type Err = String;

    fn from_str(text: &str) -> Result<TimeOfDay, String> {
        let wrong = || format!("'{text}' is no time of day; write it like 08:30, from 00:00 to 24:00");
        let (hours, minutes) = text.split_once(':').filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2).ok_or_else(wrong)?;
        let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i16>().ok()).flatten();
        match (number(hours), number(minutes)) {
            (Some(hours @ 0..=23), Some(minutes @ 0..=59)) => Ok(TimeOfDay(hours * 60 + minutes)),
            (Some(24), Some(0)) => Ok(TimeOfDay::END),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

written!(TimeOfDay, "A time of day, written in quotes: '08:30'; '24:00' is the end of the day.");

/// A time zone by its IANA name, such as `Europe/Berlin`. The zones are built in.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone(TimeZone);

impl Zone {
    pub(super) const fn zone(&self) -> &TimeZone {
        &self.0
    }
}

impl Default for Zone {
    fn default() -> Zone {
        Zone(TimeZone::UTC)
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Zone, String> {
        let unknown = || format!("'{text}' is no time zone; write its IANA name, like Europe/Berlin, or UTC");
        let zone = TimeZone::get(text).map_err(|_| unknown())?;
        zone.iana_name().is_some().then_some(Zone(zone)).ok_or_else(unknown)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

written!(Zone, "A time zone by its IANA name: Europe/Berlin, America/New_York, UTC.");

/// Which days these are; each list that is not empty must have the day.
pub(super) fn is_among(date: Date, days: &[Day], weekdays: &[Weekdays], of_month: &[DaysOfMonth], months: &[Months]) -> bool {
    (days.is_empty() || days.iter().any(|day| day.0 == date))
        && (weekdays.is_empty() || weekdays.iter().any(|days| days.has(date)))
        && (of_month.is_empty() || of_month.iter().any(|days| days.has(date)))
        && (months.is_empty() || months.iter().any(|months| months.has(date)))
}
