//! When a ping is expected that comes by a crontab.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::tz::TimeZone;
use opspilot_kernel::time::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Longer ones are none.
const LONGEST: usize = 256;
/// The shortest pause is looked for among so many times.
const LOOKED_AT: usize = 64;
/// From then on: 2026-01-01, a Thursday.
const FROM: i64 = 1_767_225_600_000;

/// The five fields of a crontab, as in `30 3 * * MON-FRI`, or one of `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
#[derive(Clone)]
pub struct Schedule {
    text: String,
    cron: Cron,
    pause: Duration,
}

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotASchedule {
    /// It cannot be read.
    #[error("'{0}' is no crontab schedule of five fields, such as '30 3 * * *': {1}")]
    Malformed(String, String),
    /// It says when, and that is never.
    #[error("'{0}' never comes: there is no such day")]
    Never(String),
}

impl Schedule {
    /// The first time it says after `after`, by the clocks of `zone`. A time that a clock change leaves out comes when the clocks
    /// were changed.
    pub fn next(&self, after: Timestamp, zone: &Zone) -> Option<Timestamp> {
        let after = jiff::Timestamp::from_millisecond(after.millis()).ok()?.to_zoned(zone.zone.clone());
        let next = self.cron.find_next_occurrence(&after, false).ok()?;
        Some(Timestamp::from_millis(next.timestamp().as_millisecond()))
    }

    /// The shortest time between two times it says, as far as was looked.
    pub fn pause(&self) -> Duration {
        self.pause
    }
}

impl FromStr for Schedule {
    type Err = NotASchedule;

    fn from_str(text: &str) -> Result<Schedule, NotASchedule> {
        let shown = || crate::evidence::cut(text, LONGEST).to_owned();
        if text.len() > LONGEST {
            return Err(NotASchedule::Malformed(shown(), format!("it is longer than {LONGEST} bytes")));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| NotASchedule::Malformed(shown(), error.to_string()))?;
        let mut schedule = Schedule { text: text.to_owned(), cron, pause: Duration::MAX };
        let utc = Zone::default();
        let mut last = schedule.next(Timestamp::from_millis(FROM), &utc).ok_or_else(|| NotASchedule::Never(shown()))?;
        for _ in 0..LOOKED_AT {
            let Some(next) = schedule.next(last, &utc) else { break };
            schedule.pause = schedule.pause.min(next.since(last));
            last = next;
        }
        Ok(schedule)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A time zone by its name in the IANA database, such as `Europe/Berlin`. The database is a part of the program, so that the
/// same log is read in the same way everywhere.
#[derive(Clone)]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

impl Default for Zone {
    fn default() -> Zone {
        Zone { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Zone, String> {
        let unknown = |_| format!("'{}' is no time zone of the IANA database, such as Europe/Berlin", crate::evidence::cut(text, 64));
        Ok(Zone { name: text.to_owned(), zone: TimeZone::get(text).map_err(unknown)? })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Both are written as their text, and are what it says.
macro_rules! written_as_text {
    ($type:ty, $field:ident, $name:literal, $description:literal) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple($name).field(&self.$field).finish()
            }
        }

        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.$field == other.$field
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.$field)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $description })
            }
        }
    };
}

written_as_text!(
    Schedule,
    text,
    "Schedule",
    "The five fields of a crontab, such as '30 3 * * MON-FRI', or @hourly, @daily, @weekly, @monthly or @yearly."
);
written_as_text!(Zone, name, "Zone", "A time zone by its name in the IANA database, such as Europe/Berlin.");

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, zone: &str, after: &str) -> String {
        let (schedule, zone): (Schedule, Zone) = (schedule.parse().unwrap(), zone.parse().unwrap());
        schedule.next(after.parse().unwrap(), &zone).unwrap().to_string()
    }

    #[test]
    fn the_next_time_is_that_of_the_zones_clocks_also_when_they_are_changed() {
        assert_eq!(next("0 3 * * *", "UTC", "2026-11-22T03:00:00Z"), "2026-11-23T03:00:00.000Z", "after, not at");
        assert_eq!(next("0 3 * * *", "UTC", "2026-11-22T02:59:59.999Z"), "2026-11-22T03:00:00.000Z");
        assert_eq!(next("0 3 * * *", "Europe/Berlin", "2026-07-01T00:00:00Z"), "2026-07-01T01:00:00.000Z");
        assert_eq!(next("0 3 * * *", "Europe/Berlin", "2026-12-01T00:00:00Z"), "2026-12-01T02:00:00.000Z");
        // at 2:00 the clocks go to 3:00, so there is no 2:30
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00.000Z");
        // 2:30 is there twice, and meant once
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z"), "2026-10-25T00:30:00.000Z");
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z"), "2026-10-26T01:30:00.000Z");
        assert_eq!(next("0 9 * * MON-FRI", "America/New_York", "2026-11-20T15:00:00Z"), "2026-11-23T14:00:00.000Z");
        assert_eq!(next("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z"), "2028-02-29T00:00:00.000Z");
        assert_eq!(next("@daily", "UTC", "2026-01-01T00:00:00Z"), "2026-01-02T00:00:00.000Z");
    }

    #[test]
    fn what_is_no_schedule_or_never_comes_is_refused() {
        for text in ["", "61 * * * *", "* * * *", "* * * * * *", "now and then", &"*,".repeat(400)] {
            assert!(matches!(text.parse::<Schedule>(), Err(NotASchedule::Malformed(..))), "{text}");
        }
        assert_eq!("0 0 30 2 *".parse::<Schedule>(), Err(NotASchedule::Never("0 0 30 2 *".to_owned())));
        assert!("Mars/Olympus".parse::<Zone>().is_err());
    }

    #[test]
    fn the_shortest_pause_is_known() {
        let pause = |text: &str| text.parse::<Schedule>().unwrap().pause().as_secs() / 60;
        assert_eq!(["*/5 * * * *", "0 3 * * *", "0 9,17 * * MON-FRI", "0 0 * * SUN"].map(pause), [5, 1440, 480, 10_080]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_and_no_time_does_harm(text in "[0-9*/,A-Z@ -]{0,24}", millis in 0..253_402_300_799_999_i64) {
            if let Ok(schedule) = text.parse::<Schedule>() {
                let after = Timestamp::from_millis(millis);
                proptest::prop_assert!(schedule.next(after, &Zone::default()).is_none_or(|next| next > after));
            }
        }
    }
}
