//! Incidents: what a human works on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ids::IncidentId, principal::Actor, signal::Severity, time::Timestamp};

/// Where an incident stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IncidentStatus {
    /// Nobody has taken it yet.
    Open,
    /// Somebody is on it.
    Acknowledged,
    /// It is over.
    Resolved,
}

impl IncidentStatus {
    /// The status as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            IncidentStatus::Open => "open",
            IncidentStatus::Acknowledged => "acknowledged",
            IncidentStatus::Resolved => "resolved",
        }
    }
}

impl std::str::FromStr for IncidentStatus {
    type Err = UnknownStatus;
    fn from_str(text: &str) -> Result<IncidentStatus, UnknownStatus> {
        [IncidentStatus::Open, IncidentStatus::Acknowledged, IncidentStatus::Resolved]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or(UnknownStatus)
    }
}

/// The text names no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown status; use open, acknowledged or resolved")]
pub struct UnknownStatus;

/// An incident's own row: everything but its alerts, evidence and timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Derives from the founding alert.
    pub id: IncidentId,
    /// One line for people.
    pub title: String,
    /// More for people.
    pub description: String,
    /// The worst severity among its alerts.
    pub severity: Severity,
    /// Where it stands.
    pub status: IncidentStatus,
    /// The module that claimed the founding alert.
    pub detected_by: String,
    /// The founding alert's rule.
    pub rule: String,
    /// Who observed the founding alert.
    pub source: String,
    /// The founding alert's labels.
    pub labels: BTreeMap<String, String>,
    /// Observations of all its alerts.
    pub occurrences: u64,
    /// Receipt time of the observation that opened it; what happened when, by the senders' own times,
    /// is told by its alerts.
    pub opened_at: Timestamp,
    /// Receipt time of the newest observation.
    pub last_seen_at: Timestamp,
    /// When somebody took it.
    pub acknowledged_at: Option<Timestamp>,
    /// Who took it.
    pub acknowledged_by: Option<String>,
    /// Whose it is.
    pub assignee: Option<String>,
    /// Until when nobody wants to hear of it.
    pub snoozed_until: Option<Timestamp>,
    /// When it was over.
    pub resolved_at: Option<Timestamp>,
    /// Why it was over, in words.
    pub resolution: Option<String>,
    /// The incident that took its alerts over, if one did: then this one is no more than a name for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_into: Option<IncidentId>,
    /// How many alerts belong to it.
    pub alert_count: u64,
    /// How many pieces of evidence it keeps.
    pub evidence_count: u64,
}

/// One line of an incident's timeline; append-only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// When, by our clock.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What.
    pub kind: TimelineKind,
    /// In words: why the decision was taken, or what the person wrote.
    pub text: String,
}

/// What happened to an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimelineKind {
    /// It was opened by its founding alert.
    Opened,
    /// A further alert joined.
    AlertJoined,
    /// One of its alerts is over.
    AlertResolved,
    /// One of its alerts fires again.
    AlertFiring,
    /// Its severity rose.
    SeverityRaised,
    /// Somebody took it.
    Acknowledged,
    /// It was given to somebody.
    Assigned,
    /// It was put aside until later.
    Snoozed,
    /// The time it was put aside for is over.
    SnoozeEnded,
    /// Somebody wrote something down.
    Note,
    /// It was explained.
    Explained,
    /// An action was proposed.
    ActionProposed,
    /// Enough people agreed to an action.
    ActionApproved,
    /// Nothing will come of an action: somebody said no, or took it back, or time ran out.
    ActionClosed,
    /// An action runs.
    ActionStarted,
    /// The run of an action ended.
    ActionFinished,
    /// It is over.
    Resolved,
    /// It is not over after all.
    Reopened,
    /// Its alerts went to another incident, or those of another came to it.
    Merged,
    /// Some of its alerts were taken out of it, or it was made of such.
    Split,
    /// Many incidents that began at once turned out to be one.
    Storm,
    /// It is named after another of its alerts, on which the others depend.
    Renamed,
}
