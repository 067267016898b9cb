//! What a replay found, for people and for programs.

mod diff;
mod table;

use std::time::Duration;

use opspilot_kernel::{incident::Incident, time::Timestamp};
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::{
    input::FileReport,
    order::Disorder,
    story::{Episode, RuleSum, Story},
};

pub(crate) use diff::{Difference, compared};
pub(crate) use table::{show, show_difference};

/// What was replayed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Facts {
    /// How many signals.
    pub(crate) signals: u64,
    /// When the first was received, by the recording.
    pub(crate) from: Option<Timestamp>,
    /// When the last was.
    pub(crate) to: Option<Timestamp>,
    /// What was out of order.
    pub(crate) disorder: Disorder,
    /// The files.
    pub(crate) files: Vec<FileReport>,
}

impl Facts {
    /// How long the recording is.
    pub(crate) fn length(&self) -> Duration {
        match (self.from, self.to) {
            (Some(from), Some(to)) => to.since(from),
            _ => Duration::ZERO,
        }
    }
}

/// What came of one configuration.
pub(crate) struct Side {
    pub(crate) story: Story,
    /// What each detector counted that a person should know of.
    pub(crate) counted: Vec<(&'static str, Vec<(&'static str, u64)>)>,
    /// Whether time was passed over.
    pub(crate) hurried: bool,
}

/// Everything, as `--json` writes it.
pub(crate) fn json(facts: &Facts, side: &Side) -> Json {
    json!({
        "recording": recording(facts),
        "detectors": detectors(side),
        "rules": side.story.rules.iter().map(|((module, rule), sum)| rule_json(module, rule, sum)).collect::<Vec<_>>(),
        "alerts": side.story.episodes.iter().map(episode_json).collect::<Vec<_>>(),
        "alerts_total": side.story.alerts,
        "incidents": side.story.incidents().map(incident_json).collect::<Vec<_>>(),
        "timers_passed_over": side.hurried,
    })
}

fn recording(facts: &Facts) -> Json {
    let mut recording = json!(facts);
    if let Some(recording) = recording.as_object_mut() {
        recording.insert("seconds".to_owned(), json!(facts.length().as_secs_f64()));
    }
    recording
}

fn detectors(side: &Side) -> Json {
    let one = |(id, counted): &(&'static str, Vec<(&'static str, u64)>)| {
        let of_it: u64 = side.story.rules.iter().filter(|((module, _), _)| module == id).map(|(_, sum)| sum.alerts).sum();
        json!({ "id": id, "alerts": of_it, "counted": counted.iter().map(|(name, count)| json!({ "what": name, "count": count })).collect::<Vec<_>>() })
    };
    side.counted.iter().map(one).collect()
}

fn rule_json(module: &str, rule: &str, sum: &RuleSum) -> Json {
    json!({
        "module": module, "rule": rule, "alerts": sum.alerts, "observations": sum.observations,
        "first": sum.first, "last": sum.last, "still_firing": sum.still_firing,
    })
}

fn episode_json(episode: &Episode) -> Json {
    json!({
        "fired_at": episode.fired_at,
        "over_at": episode.over_at,
        "seconds": episode.over_at.map(|over| over.since(episode.fired_at).as_secs_f64()),
        "resolved_by": episode.resolved_by,
        "severity": episode.severity,
        "module": episode.module,
        "rule": episode.rule,
        "source": episode.source,
        "title": episode.title,
        "labels": episode.labels,
        "fingerprint": episode.fingerprint,
        "count": episode.count,
    })
}

fn incident_json(incident: &Incident) -> Json {
    json!({
        "opened_at": incident.opened_at,
        "resolved_at": incident.resolved_at,
        "resolution": incident.resolution,
        "severity": incident.severity,
        "title": incident.title,
        "module": incident.detected_by,
        "rule": incident.rule,
        "source": incident.source,
        "alerts": incident.alert_count,
        "occurrences": incident.occurrences,
    })
}

/// A length of time in its two largest units.
pub(crate) fn span(span: Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let Some(first) = units.iter().position(|(_, unit)| millis >= *unit) else { return format!("{millis}ms") };
    let mut rest = millis;
    let mut text = Vec::new();
    for (name, unit) in units.iter().skip(first).take(2) {
        if rest / unit > 0 {
            text.push(format!("{}{name}", rest / unit));
        }
        rest %= unit;
    }
    text.join(" ")
}

/// So many of these.
pub(crate) fn many(count: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_are_written_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        let of = |millis| span(Duration::from_millis(millis));
        assert_eq!([0, 1500, 60_000, 561_000, 90_061_000].map(of), ["0ms", "1s", "1m", "9m 21s", "1d 1h"]);
    }
}
