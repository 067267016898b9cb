//! Recurring maintenance windows: a pure function of the window and an instant.
//!
//! A window begins when the clocks of its zone first show `from` and is over when they have last shown what lies before
//! `to`. So a begin that the clocks jump over falls on the jump, and an hour that comes twice belongs to the window both
//! times and in between. What lies altogether in an hour that is jumped over does not take place that day.

mod terms;
#[cfg(test)]
mod tests;

use jiff::{
    Timestamp as Instant, ToSpan as _,
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone},
};
use opspilot_kernel::{config::Problem, matcher::Matcher, time::Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::terms::{Day, DaysOfMonth, Months, TimeOfDay, Weekdays, Zone};

/// So far ahead a window is looked for: eight years, since a 29th of February can be that far away.
const DAYS_AHEAD: usize = 8 * 366 + 40;
/// So far back its beginning is looked for: what has gone on for longer is told to have begun then.
const DAYS_BACK: i32 = 40;
/// So many parts in a row are joined: what goes on for longer is told to end then, and goes on.
const PARTS_IN_A_ROW: usize = 800;

/// What becomes of an alert that began to fire inside a window, and still does at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nobody is told of it, unless it fires again afterwards.
    Suppress,
    /// It is told of then, as if it began at the window's end.
    #[default]
    Recover,
}

/// A time of day from which until which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// When it begins, on the clocks of the zone.
    pub from: TimeOfDay,
    /// When it is over. A time before `from` is the next day's.
    pub to: TimeOfDay,
}

/// A window of time that comes again and again, in which alerts that match are kept and told to nobody.
///
/// The lists of days say which days it begins on; each that is not empty must have the day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Its name.
    pub id: String,
    /// Which alerts it is about: those for which all of them hold, such as `service=~"db-.*"`.
    pub matchers: Vec<Matcher>,
    /// Dates: `2026-12-24`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Day>,
    /// Days of the week: `saturday`, `monday:friday`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weekdays: Vec<Weekdays>,
    /// Days of the month: `1`, `1:7`, `-1` for the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days_of_month: Vec<DaysOfMonth>,
    /// Months: `march`, `june:august`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub months: Vec<Months>,
    /// Times of day; without any, the whole day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub times: Vec<Hours>,
    /// The zone whose clocks count.
    #[serde(default)]
    pub timezone: Zone,
    /// What becomes of an alert that began to fire inside, and still does at the end: `recover` tells of it then,
    /// `suppress` only if it fires again.
    #[serde(default)]
    pub mode: Mode,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// One time that a window takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Occurrence {
    /// When it begins.
    pub starts_at: Timestamp,
    /// When it is over.
    pub ends_at: Timestamp,
}

impl Occurrence {
    fn has(self, at: Timestamp) -> bool {
        self.starts_at <= at && at < self.ends_at
    }
}

impl Window {
    /// Whether it takes place at `at`: which time.
    pub fn at(&self, at: Timestamp) -> Option<Occurrence> {
        self.occurrences(at).take_while(|occurrence| occurrence.starts_at <= at).find(|occurrence| occurrence.has(at))
    }

    /// The next time that it begins, after `at`; none if that is more than eight years away.
    pub fn next(&self, at: Timestamp) -> Option<Occurrence> {
        self.occurrences(at).find(|occurrence| occurrence.starts_at > at)
    }

    /// When it next begins or ends, after `at`.
    pub fn next_change(&self, at: Timestamp) -> Option<Timestamp> {
        let next = self.occurrences(at).find(|occurrence| occurrence.ends_at > at)?;
        Some(if next.starts_at > at { next.starts_at } else { next.ends_at })
    }

    /// When it takes place, in order, from some weeks before `at` on; what follows without a pause is one.
    fn occurrences(&self, at: Timestamp) -> impl Iterator<Item = Occurrence> + '_ {
        let zone = self.timezone.zone();
        let today = Instant::from_millisecond(at.millis()).map(|instant| zone.to_datetime(instant).date());
        let first = today.ok().and_then(|today| today.checked_sub(DAYS_BACK.days()).ok());
        let days = std::iter::successors(first, |day| day.tomorrow().ok()).take(DAYS_AHEAD);
        let days = days.filter(|day| terms::is_among(*day, &self.days, &self.weekdays, &self.days_of_month, &self.months));
        let parts = days.flat_map(|day| {
            let mut parts: Vec<Occurrence> = self.hours().iter().filter_map(|hours| occurrence(zone, day, *hours)).collect();
            parts.sort();
            parts
        });
        let mut parts = parts.peekable();
        std::iter::from_fn(move || {
            let mut whole = parts.next()?;
            for _ in 0..PARTS_IN_A_ROW {
                let Some(part) = parts.next_if(|part| part.starts_at <= whole.ends_at) else { break };
                whole.ends_at = whole.ends_at.max(part.ends_at);
            }
            Some(whole)
        })
    }

    fn hours(&self) -> &[Hours] {
        const WHOLE_DAY: &[Hours] = &[Hours { from: TimeOfDay::MIDNIGHT, to: TimeOfDay::END }];
        if self.times.is_empty() { WHOLE_DAY } else { &self.times }
    }

    pub(crate) fn problems(&self, at: &str, problems: &mut Vec<Problem>) {
        if self.id.is_empty() || self.id.chars().count() > 128 || self.id.chars().any(|char| char.is_control() || char == ':') {
            problems.push(Problem::at(format!("{at}/id"), "an id has 1 to 128 characters and no colon").suggest("nightly-backup"));
        }
        if let Err(why) = opspilot_kernel::silence::acceptable(&self.matchers) {
            problems.push(Problem::at(format!("{at}/matchers"), why.to_string()).suggest("service=~\"db-.*\""));
        }
        for (number, hours) in self.times.iter().enumerate() {
            if hours.from == hours.to || hours.from == TimeOfDay::END {
                let message = format!("from {} to {} is no time at all; leave `times` out for the whole day", hours.from, hours.to);
                problems.push(Problem::at(format!("{at}/times/{number}"), message));
            }
        }
    }
}

/// When the clocks show these times that begin on `day`; nothing if they jump over all of it.
fn occurrence(zone: &TimeZone, day: Date, hours: Hours) -> Option<Occurrence> {
    let on = |time: TimeOfDay, later: bool| -> Option<DateTime> {
        let (clock, ends_the_day) = time.on_the_clock();
        let day = if later || ends_the_day { day.tomorrow().ok()? } else { day };
        Some(day.to_datetime(clock))
    };
    let starts_at = first_shown(zone, on(hours.from, false)?)?;
    let ends_at = last_shown_before(zone, on(hours.to, hours.to <= hours.from)?)?;
    let time = |instant: Instant| Timestamp::from_millis(instant.as_millisecond());
    (starts_at < ends_at).then(|| Occurrence { starts_at: time(starts_at), ends_at: time(ends_at) })
}

/// When the clocks first show `time` or what is behind it.
fn first_shown(zone: &TimeZone, time: DateTime) -> Option<Instant> {
    match zone.to_ambiguous_timestamp(time).offset() {
        AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => offset.to_timestamp(time).ok(),
        AmbiguousOffset::Gap { before, .. } => jump(zone, before.to_timestamp(time).ok()?),
    }
}

/// When the clocks have last shown what lies before `time`.
fn last_shown_before(zone: &TimeZone, time: DateTime) -> Option<Instant> {
    let just_before = time.checked_sub(1.millisecond()).ok()?;
    match zone.to_ambiguous_timestamp(just_before).offset() {
        AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { after: offset, .. } => {
            offset.to_timestamp(just_before).ok()?.checked_add(1.millisecond()).ok()
        }
        AmbiguousOffset::Gap { before, .. } => jump(zone, before.to_timestamp(just_before).ok()?),
    }
}

/// The jump of the clocks before `behind`, which they would show had they not jumped.
fn jump(zone: &TimeZone, behind: Instant) -> Option<Instant> {
    zone.preceding(behind.checked_add(1.millisecond()).ok()?).next().map(|transition| transition.timestamp())
}
