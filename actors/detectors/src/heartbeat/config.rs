//! What a user may say about `detector.heartbeat`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use opspilot_kernel::{
    config::{ModuleConfig, Problem, Secret, Span},
    matcher::Matcher,
    signal::Severity,
    time::Timestamp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::{Schedule, Zone};
use crate::rules;

/// More would make every ping search longer than it need be.
const MOST: usize = 10_000;
/// A key that short could be guessed.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=128;
const YEAR: Duration = Duration::from_secs(366 * 86_400);
/// By default a ping may be late by half its period, but no more than this.
const GRACE: Duration = Duration::from_secs(3600);

/// Configuration of `detector.heartbeat`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is expected to give sign of life, at most 10,000; without any, the module does nothing.
    pub heartbeats: Vec<Heartbeat>,
}

/// A heartbeat: something that gives sign of life, and whose silence is the alarm.
///
/// It counts from the moment it is configured: one that is never heard of is an alarm, too, a period
/// and a grace later. No ping creates or arms anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Its name, which everybody may know; it stays the same when the heartbeat is edited.
    pub id: String,
    /// Whoever knows this may ping: `/ping/KEY`, in the dialect of Healthchecks. 16 to 128 letters, digits
    /// and `_ - . ~`, such as a UUID. Without one, only `on_alert` and `on_signal` feed the heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// How often it gives sign of life: so long after its last one the next is expected. This, or a `schedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Span>,
    /// When it gives sign of life, as in a crontab: `30 3 * * MON-FRI`. After each, one is expected at the next of these times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// By the clocks of which time zone the schedule goes, such as `Europe/Berlin`; by default UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<Zone>,
    /// How late it may be. By default half the period, or of a schedule half its shortest pause, at most an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
    /// How long a run may take that is announced by `/start`; by default the grace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_run: Option<Span>,
    /// How bad its silence is.
    #[serde(default = "default_severity")]
    pub severity: Severity,
    /// More for people: what to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whose heartbeat it is: the source of its pings and alerts. By default its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Labels for the alert.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// It is not watched just now; an alert of it is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// An inverted alert: an outside alert that matches all of these counts as a ping each time it is sent firing,
    /// and its resolve is the alarm. `alertname` is its name, as in `alertname="Watchdog"`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_alert: Vec<Matcher>,
    /// A metric point or a log line that matches all of these counts as a ping. `__name__` is a metric's name,
    /// `__message__` a log line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_signal: Vec<Matcher>,
}

const fn default_severity() -> Severity {
    Severity::Error
}

impl Heartbeat {
    /// A heartbeat with nothing but what one must have.
    pub fn new(id: impl Into<String>, period: Span) -> Heartbeat {
        Heartbeat {
            id: id.into(),
            key: None,
            period: Some(period),
            schedule: None,
            timezone: None,
            grace: None,
            max_run: None,
            severity: default_severity(),
            description: String::new(),
            source: None,
            labels: BTreeMap::new(),
            paused: false,
            on_alert: Vec::new(),
            on_signal: Vec::new(),
        }
    }

    /// Whose heartbeat it is.
    pub fn source(&self) -> &str {
        self.source.as_deref().unwrap_or(&self.id)
    }

    /// How late it may be.
    pub fn grace(&self) -> Duration {
        let usual = self.schedule.as_ref().map(Schedule::pause).or(self.period.map(|period| period.0));
        self.grace.map_or_else(|| usual.map_or(GRACE, |usual| (usual / 2).min(GRACE)), |grace| grace.0)
    }

    /// When the next sign of life is expected after one at `last`.
    pub fn expected(&self, last: Timestamp) -> Timestamp {
        let by_schedule =
            self.schedule.as_ref().and_then(|schedule| schedule.next(last, self.timezone.as_ref().unwrap_or(&Zone::default())));
        // one with neither is refused by the check
        by_schedule.unwrap_or_else(|| last.after(self.period.map_or(YEAR, |period| period.0)))
    }

    pub(crate) fn max_run(&self) -> Duration {
        self.max_run.map_or_else(|| self.grace(), |span| span.0)
    }

    fn problems(&self, at: &str, problems: &mut Vec<Problem>) {
        let year = Span(YEAR);
        let spans = [("period", self.period), ("grace", self.grace), ("max_run", self.max_run)];
        for (key, span) in spans.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            if span < Span::seconds(1) || span > year {
                problems.push(Problem::at(format!("{at}/{key}"), "must be from 1s to 366d").suggest("1h"));
            }
        }
        match (&self.period, &self.schedule) {
            (None, None) => {
                let problem = Problem::at(at, format!("it is not said when '{}' gives sign of life", self.id));
                problems.push(problem.suggest("period: 24h, or schedule: '30 3 * * *' with a timezone"));
            }
            (Some(_), Some(_)) => problems.push(Problem::at(format!("{at}/schedule"), "a heartbeat has a period or a schedule, not both")),
            (Some(_), None) if self.timezone.is_some() => {
                problems.push(Problem::at(format!("{at}/timezone"), "only a schedule goes by the clocks of a time zone"));
            }
            _ => {}
        }
        match &self.key {
            Some(key) if !is_key(key.expose()) => {
                let message = "the key must have 16 to 128 letters, digits and any of _ - . ~, as it is a part of an address";
                problems.push(Problem::at(format!("{at}/key"), message).suggest("make one with: uuidgen"));
            }
            None if self.on_alert.is_empty() && self.on_signal.is_empty() => {
                let message = format!("nothing feeds the heartbeat '{}'", self.id);
                problems.push(Problem::at(at, message).suggest("give it a key for /ping/KEY, or on_alert, or on_signal"));
            }
            _ => {}
        }
        if self.source.as_ref().is_some_and(|source| source.is_empty() || source.chars().count() > 256) {
            problems.push(Problem::at(format!("{at}/source"), "a source has 1 to 256 characters"));
        }
        rules::check_labels(&self.labels, at, problems);
    }
}

fn is_key(text: &str) -> bool {
    KEY_BYTES.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.~".contains(&byte))
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.heartbeats.len() > MOST {
            problems.push(Problem::at("/heartbeats", format!("there may be {MOST} heartbeats at most")));
        }
        let (mut ids, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for (index, heartbeat) in self.heartbeats.iter().enumerate() {
            let at = format!("/heartbeats/{index}");
            rules::check_id(&heartbeat.id, &mut ids, &at, &mut problems);
            heartbeat.problems(&at, &mut problems);
            if heartbeat.key.as_ref().is_some_and(|key| !keys.insert(key.expose())) {
                problems.push(Problem::at(format!("{at}/key"), "another heartbeat has the same key; a ping must mean one of them"));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_needs_its_id_its_period_and_what_feeds_it() {
        let config: Config = serde_json::from_value(serde_json::json!({ "heartbeats": [
            { "id": "backup", "key": "1f6dcb0e-30e7-47ab-a362-6f1b4b5c6f2c", "period": "24h" },
            { "id": "watchdog", "period": "1m", "on_alert": ["alertname=\"Watchdog\""] },
            { "id": "nightly", "key": "another-secret-key", "schedule": "30 3 * * *", "timezone": "Europe/Berlin" },
            { "id": "often", "key": "still-another-secret", "schedule": "*/10 * * * *" },
        ] }))
        .unwrap();
        assert_eq!(config.validate(), []);
        let [backup, watchdog, nightly, often] = &config.heartbeats[..] else { panic!() };
        assert_eq!((backup.grace(), backup.max_run(), backup.source()), (GRACE, GRACE, "backup"));
        assert_eq!((watchdog.grace(), watchdog.severity), (Duration::from_secs(30), Severity::Error));
        assert_eq!((nightly.grace(), often.grace()), (GRACE, Duration::from_secs(300)));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(nightly.expected(at("2026-11-22T12:00:00Z")), at("2026-11-23T02:30:00Z"));
        assert_eq!(backup.expected(at("2026-11-22T12:00:00Z")), at("2026-11-23T12:00:00Z"));
        let written = serde_json::to_string(&config).unwrap();
        assert!(!written.contains("1f6dcb0e") && !format!("{config:?}").contains("1f6dcb0e"), "{written}");
    }

    #[test]
    fn every_problem_is_named_with_its_place_and_no_key_is_shown() {
        let config: Config = serde_json::from_value(serde_json::json!({ "heartbeats": [
            { "id": "a", "key": "hunter2", "period": "500ms", "grace": "0s", "max_run": "400d" },
            { "id": "a", "key": "hunter2-hunter2/hunter2", "period": "1m", "source": "" },
            { "id": "b", "period": "1m", "labels": { "source": "x" } },
            { "id": "c", "period": "1m", "key": "hunter2-hunter2-a" },
            { "id": "d", "period": "1m", "key": "hunter2-hunter2-a" },
            { "id": "e", "key": "hunter2-hunter2-e" },
            { "id": "f", "key": "hunter2-hunter2-f", "period": "1m", "schedule": "0 3 * * *" },
            { "id": "g", "key": "hunter2-hunter2-g", "period": "1m", "timezone": "Europe/Berlin" },
        ] }))
        .unwrap();
        let problems = config.validate();
        let pointers: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        let expected = [
            "/heartbeats/0/period",
            "/heartbeats/0/grace",
            "/heartbeats/0/max_run",
            "/heartbeats/0/key",
            "/heartbeats/1/id",
            "/heartbeats/1/key",
            "/heartbeats/1/source",
            "/heartbeats/2",
            "/heartbeats/2/labels/source",
            "/heartbeats/4/key",
            "/heartbeats/5",
            "/heartbeats/6/schedule",
            "/heartbeats/7/timezone",
        ];
        assert_eq!(pointers, expected, "{problems:#?}");
        assert!(!format!("{problems:?}").contains("hunter2"));
    }
}
