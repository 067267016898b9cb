//! What is said of a series, in records and in words.

use std::collections::BTreeMap;

use opspilot_kernel::{
    alert::{AlertRecord, Observation, ResolvedBy, Transition},
    config::Span,
    fingerprint::Fingerprint,
    ids::AlertId,
    signal::Severity,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{
    aggregation::Aggregation,
    compiled::Compiled,
    rule::Rule,
    series::{Phase, Series},
};
use crate::{
    episodes::Moment,
    template::{DESCRIPTION_BYTES, TITLE_BYTES, Template},
};

/// The label that tells an alert about silence from one about a limit.
const CONDITION: (&str, &str) = ("condition", "absent");

/// Who an alert is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Face {
    pub(super) rule: String,
    pub(super) source: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) fingerprint: Fingerprint,
}

/// An alert about what many values say together, or that there are none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Claim {
    alert: AlertId,
    title: String,
    severity: Severity,
}

impl Claim {
    /// It begins; `episode` is what tells it from others of the same fingerprint.
    pub(super) fn new(face: &Face, title: String, severity: Severity, episode: &str) -> Claim {
        Claim { alert: AlertId::derived(&[&face.rule, &face.fingerprint.to_string(), episode]), title, severity }
    }

    pub(super) fn begun(&self, face: &Face, at: Timestamp, description: String, moment: Moment) -> AlertRecord {
        AlertRecord { count: 1, description, ..self.record(face, Transition::Firing, at, moment) }
    }

    pub(super) fn over(&self, face: &Face, by: ResolvedBy, at: Timestamp, why: &str, moment: Moment) -> AlertRecord {
        let record = self.record(face, Transition::Resolved, at, moment);
        AlertRecord { resolved_by: Some(by), description: why.to_owned(), ..record }
    }

    /// It goes on; `count` times it was seen again since the record before.
    pub(super) fn again(
        &mut self,
        face: &Face,
        at: Timestamp,
        (title, description): (String, String),
        count: u64,
        moment: Moment,
    ) -> AlertRecord {
        self.title = title;
        AlertRecord { count, description, ..self.record(face, Transition::Repeat, at, moment) }
    }

    fn record(&self, face: &Face, transition: Transition, at: Timestamp, moment: Moment) -> AlertRecord {
        AlertRecord {
            alert: self.alert.clone(),
            detected_by: super::ID.to_owned(),
            rule: face.rule.clone(),
            fingerprint: face.fingerprint,
            transition,
            resolved_by: None,
            at,
            logged_at: moment.at,
            signal_seq: moment.seq,
            count: 0,
            source: face.source.clone(),
            title: self.title.clone(),
            description: String::new(),
            severity: self.severity,
            labels: face.labels.clone(),
            supports: false,
            evidence: Vec::new(),
        }
    }
}

/// Identifies silence under a rule. What the sender chose comes last, so that none of it can pass for anything else.
pub(super) fn absence_of<'a>(rule: &'a str, metric: &'a str, source: &'a str, labels: &'a BTreeMap<String, String>) -> Fingerprint {
    let scope = [("alertname", rule), CONDITION, ("metric", metric), ("source", source)];
    Fingerprint::of_pairs(scope.into_iter().chain(labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
}

impl Series {
    /// Who its alert about silence is about.
    pub(super) fn face(&self) -> Face {
        let mut labels = self.all_labels();
        labels.insert(CONDITION.0.to_owned(), CONDITION.1.to_owned());
        let fingerprint = absence_of(&self.rule, &self.metric, &self.source, &self.labels);
        Face { rule: self.rule.clone(), source: self.source.clone(), labels, fingerprint }
    }

    fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        for (name, value) in [("alertname", &self.rule), ("metric", &self.metric), ("source", &self.source)] {
            labels.insert(name.to_owned(), value.clone());
        }
        labels
    }

    /// It has been silent for too long.
    pub(super) fn is_gone(&mut self, compiled: &Compiled, after: Span, moment: Moment, out: &mut Vec<AlertRecord>) {
        let face = self.face();
        let title = cut(&format!("no {} from {} for {after}", self.name(), self.source));
        let gone = Claim::new(&face, title, compiled.rule.severity, &self.last_seq.to_string());
        let description = format!("its last value came at {}", self.last_logged);
        out.push(gone.begun(&face, self.last_at, description, moment));
        self.gone = Some(gone);
    }

    /// It speaks; if it was missed, that is over.
    pub(super) fn is_back(&mut self, at: Timestamp, moment: Moment, out: &mut Vec<AlertRecord>) {
        if let Some(gone) = self.gone.take() {
            let why = format!("values come again, after {} without any", words(moment.at.since(self.last_logged)));
            out.push(gone.over(&self.face(), ResolvedBy::Clear, at, &why, moment));
        }
    }

    pub(super) fn say(
        &mut self,
        fingerprint: Fingerprint,
        compiled: &Compiled,
        transition: Transition,
        moment: Moment,
        out: &mut Vec<AlertRecord>,
    ) {
        let mut record = self.record(fingerprint, compiled, transition, moment);
        if transition == Transition::Repeat {
            // whoever resolved the incident since then has seen all that this counts
            record.logged_at = self.counted_at.unwrap_or(moment.at);
        }
        record.count = std::mem::take(&mut self.count);
        let points = std::mem::take(&mut self.points);
        record.evidence = points
            .first
            .into_iter()
            .chain(points.last)
            .map(|(at, value)| Observation::Metric { at, source: self.source.clone(), name: self.metric.clone(), value, expected: None })
            .collect();
        out.push(record);
    }

    pub(super) fn record(&self, fingerprint: Fingerprint, compiled: &Compiled, transition: Transition, moment: Moment) -> AlertRecord {
        let (alert, title, severity) = match &self.phase {
            Phase::Firing { alert, title, severity, .. } => (alert.clone(), title.clone(), *severity),
            // never said of a series that does not fire
            Phase::Calm | Phase::Held { .. } => (AlertId::derived(&[]), String::new(), compiled.rule.severity),
        };
        AlertRecord {
            alert,
            detected_by: super::ID.to_owned(),
            rule: self.rule.clone(),
            fingerprint,
            transition,
            resolved_by: None,
            at: self.last_at,
            logged_at: moment.at,
            signal_seq: moment.seq,
            count: 0,
            source: self.source.clone(),
            title,
            description: self.description(compiled),
            severity,
            labels: self.all_labels(),
            supports: false,
            evidence: Vec::new(),
        }
    }

    /// The metric with the sender's labels.
    fn name(&self) -> String {
        if self.labels.is_empty() {
            return self.metric.clone();
        }
        let labels: Vec<String> = self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{}{{{}}}", self.metric, crate::evidence::cut(&labels.join(","), TITLE_BYTES / 4))
    }

    pub(super) fn title(&self, compiled: &Compiled) -> String {
        if let Some(template) = &compiled.title {
            return self.rendered(template, compiled, TITLE_BYTES);
        }
        let rule = &compiled.rule;
        let value = short(self.value.0);
        let mut title = match rule.agg {
            Aggregation::Last => format!("{} {value}", self.name()),
            Aggregation::Rate => format!("rate of {} over {} is {value}/s", self.name(), rule.window),
            agg => format!("{agg} of {} over {} is {value}", self.name(), rule.window),
        };
        if let Some((op, limit)) = rule.limit() {
            title.push_str(&format!(" {op} {}", short(limit)));
        }
        if !rule.hold.0.is_zero() {
            title.push_str(&format!(" for {}", rule.hold));
        }
        title.push_str(&format!(" on {}", self.source));
        cut(&title)
    }

    fn description(&self, compiled: &Compiled) -> String {
        let rule = &compiled.rule;
        if !rule.description.is_empty() {
            return self.rendered(&compiled.description, compiled, DESCRIPTION_BYTES);
        }
        let count = self.window.count();
        if rule.agg == Aggregation::Last || count == 0 {
            return String::new();
        }
        let (least, greatest) = self.window.extremes();
        let values = if count == 1 { "value" } else { "values" };
        format!("{count} {values} within {}, the least {}, the greatest {}", rule.window, short(least), short(greatest))
    }

    fn rendered(&self, template: &Template, compiled: &Compiled, limit: usize) -> String {
        template.render(limit, |name, out| match name {
            "value" => out.push_str(&short(self.value.0)),
            "metric" => out.push_str(&compiled.rule.metric),
            "source" => out.push_str(&self.source),
            other => {
                let label = other.strip_prefix("labels.").and_then(|label| self.labels.get(label));
                out.push_str(label.map_or("", String::as_str));
            }
        })
    }
}

/// Why an alert is over whose rule is gone.
pub(super) const ABANDONED: &str = "the rule was changed or removed";

/// A rule for the series of one that is gone: it is resolved with what is known of it.
pub(super) fn abandoned(series: &mut Series) -> Compiled {
    series.count = 0;
    Compiled::new(Rule::new(&series.rule, &series.metric, super::comparison::Comparison::Gt, 0.0), 1)
}

pub(super) fn cut(title: &str) -> String {
    crate::evidence::cut(title, TITLE_BYTES * 2).to_owned()
}

/// A length of time as people say it: its two largest units.
pub(super) fn words(span: std::time::Duration) -> String {
    let seconds = span.as_secs();
    let units = [("d", 86_400, u64::MAX), ("h", 3600, 24), ("m", 60, 60), ("s", 1, 60)];
    let of = |(unit, size, most): (&str, u64, u64)| (unit.to_owned(), (seconds / size) % most);
    let told: Vec<String> = units
        .into_iter()
        .map(of)
        .skip_while(|(_, count)| *count == 0)
        .take(2)
        .filter(|(_, count)| *count > 0)
        .map(|(unit, count)| format!("{count}{unit}"))
        .collect();
    if told.is_empty() { "less than a second".to_owned() } else { told.join(" ") }
}

/// A number as people write it: at most two decimals, more only for small ones.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    let text = if size >= 1e15 || (size > 0.0 && size < 1e-4) {
        return format!("{value:e}");
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lengths_of_time_are_told_by_their_two_largest_units() {
        for (seconds, text) in [
            (0, "less than a second"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (3600, "1h"),
            (3601, "1h"),
            (90_061, "1d 1h"),
            (8_640_000, "100d"),
        ] {
            assert_eq!(words(Duration::from_secs(seconds)), text);
        }
    }
}
