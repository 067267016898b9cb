//! Alerts: what detectors and outside systems claim.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId, Seq},
    signal::Severity,
    time::Timestamp,
};

/// What a record says about its alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transition {
    /// The condition began to hold, or was seen again after its cooldown. May open or reopen an incident.
    Firing,
    /// The condition was seen again: only counts, unless a person resolved the alert and something it
    /// counts was received after that; then the alert goes on and opens or reopens an incident.
    Repeat,
    /// The condition is over.
    Resolved,
}

/// Why an alert is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolvedBy {
    /// The outside system that raised it said so.
    Source,
    /// The detector's clear condition held.
    Clear,
    /// Nothing matched for `resolve_after`.
    Quiet,
    /// A person resolved the incident.
    Person,
    /// The rule was changed or removed.
    RuleChanged,
}

/// One entry of the alert log: a claim about a condition, made once, never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertRecord {
    /// The episode this belongs to: from one `Firing` to its `Resolved`.
    pub alert: AlertId,
    /// The module that claims it.
    pub detected_by: String,
    /// The rule, as configured; for outside systems the alert's name.
    pub rule: String,
    /// Identity of the condition across episodes.
    pub fingerprint: Fingerprint,
    /// What is claimed.
    pub transition: Transition,
    /// Why it is over; only with `Resolved`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<ResolvedBy>,
    /// Event time of the newest observation behind the claim.
    pub at: Timestamp,
    /// Receipt time of that observation, however late it is told; where it is time itself that makes
    /// an alert fire or end, the tick's.
    pub logged_at: Timestamp,
    /// The newest signal (or tick) behind the claim.
    pub signal_seq: Seq,
    /// Observations since the episode's previous record, this one's included. 0 for `Resolved`.
    pub count: u64,
    /// Who observed it.
    pub source: String,
    /// One line for people.
    pub title: String,
    /// More for people; may be empty.
    pub description: String,
    /// How bad it is.
    pub severity: Severity,
    /// Names and values.
    pub labels: BTreeMap<String, String>,
    /// It supports what others claim: alone it opens no incident.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub supports: bool,
    /// A bounded sample of what was observed.
    pub evidence: Vec<Observation>,
}

/// One observation kept as evidence, copied so that retention of signals cannot take it away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Observation {
    /// A log line.
    Log {
        /// Event time.
        at: Timestamp,
        /// Who logged it.
        source: String,
        /// The line, cut at 4 KiB.
        text: String,
    },
    /// A metric point.
    Metric {
        /// Event time.
        at: Timestamp,
        /// Who measured it.
        source: String,
        /// The metric's name.
        name: String,
        /// The value.
        value: f64,
        /// What was expected there before it was seen, if anything was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected: Option<Band>,
    },
    /// What many observations come to when they are looked at together.
    Change {
        /// When it began.
        at: Timestamp,
        /// When it was last seen so.
        until: Timestamp,
        /// Whose observations they are; empty for everybody's.
        source: String,
        /// The metric, the shape of the lines, the alert's rule, or the incident.
        name: String,
        /// What was measured.
        measure: Measure,
        /// What it usually was: the median of the time before.
        usual: Option<f64>,
        /// How far it usually strayed from that: the median absolute deviation, scaled to a standard deviation.
        spread: Option<f64>,
        /// What it came to.
        value: f64,
        /// How many observations that follows from.
        count: u64,
    },
}

/// A range of values, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
}

/// What a [`Observation::Change`] measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The value of a metric.
    Value,
    /// Lines of one shape, a minute.
    Lines,
    /// All lines of a source, a minute.
    AllLines,
    /// The share of lines that tell of an error, in percent.
    Errors,
    /// Observations behind an alert.
    Alert,
    /// An earlier incident: how many seconds it took.
    Incident,
    /// Everything that was looked at: how many things changed.
    Looked,
}

impl Measure {
    /// The measure as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Measure::Value => "value",
            Measure::Lines => "lines",
            Measure::AllLines => "all_lines",
            Measure::Errors => "errors",
            Measure::Alert => "alert",
            Measure::Incident => "incident",
            Measure::Looked => "looked",
        }
    }
}

impl Observation {
    /// Who observed it.
    pub fn source(&self) -> &str {
        match self {
            Observation::Log { source, .. } | Observation::Metric { source, .. } | Observation::Change { source, .. } => source,
        }
    }

    /// When it happened, or began.
    pub const fn at(&self) -> Timestamp {
        match self {
            Observation::Log { at, .. } | Observation::Metric { at, .. } | Observation::Change { at, .. } => *at,
        }
    }
}

/// Whether an alert holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    /// The condition holds.
    Firing,
    /// The condition is over.
    Resolved,
}

/// An alert as it stands: its episode's records summed up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// The episode.
    pub id: AlertId,
    /// Identity of the condition across episodes.
    pub fingerprint: Fingerprint,
    /// Whether it holds.
    pub status: AlertStatus,
    /// Who observed it.
    pub source: String,
    /// The rule, or the outside alert's name.
    pub name: String,
    /// The module that claims it.
    pub detected_by: String,
    /// One line for people.
    pub title: String,
    /// More for people.
    pub description: String,
    /// How bad it is.
    pub severity: Severity,
    /// Names and values.
    pub labels: BTreeMap<String, String>,
    /// Observations so far.
    pub occurrences: u64,
    /// When it was first and last seen (event time), and when it was over.
    pub first_seen_at: Timestamp,
    /// Event time of the newest observation.
    pub last_seen_at: Timestamp,
    /// When it was over.
    pub resolved_at: Option<Timestamp>,
    /// What holds it back from people; always empty without a stage that suppresses.
    pub suppressed_by: Option<String>,
    /// The incident it belongs to.
    pub incident_id: Option<IncidentId>,
}
