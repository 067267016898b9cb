//! Events: committed facts, numbered in one sequence, told to whoever listens.

use serde::{Deserialize, Serialize};

use crate::{
    ids::Seq,
    incident::{Incident, TimelineKind},
    module::ModuleStatus,
    time::Timestamp,
};

/// A fact with its number, as it is stored and told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Its place in the sequence of events.
    pub seq: Seq,
    /// When it was committed.
    pub at: Timestamp,
    /// The fact.
    #[serde(flatten)]
    pub event: Event,
}

/// Everything that can happen. A closed set: it is stored, streamed and matched exhaustively.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "eventType", content = "data")]
pub enum Event {
    /// Signals were committed: one event for each row of the signal log.
    #[serde(rename = "log.ingested")]
    LogIngested {
        /// The number of the first signal.
        first_seq: Seq,
        /// The number of the last signal.
        last_seq: Seq,
        /// How many there are.
        count: u64,
        /// Who sent them; at most 32 are named.
        sources: Vec<String>,
    },
    /// An incident was opened.
    #[serde(rename = "incident.created")]
    IncidentCreated(Box<Incident>),
    /// An incident changed.
    #[serde(rename = "incident.updated")]
    IncidentUpdated {
        /// The incident as it now stands.
        #[serde(flatten)]
        incident: Box<Incident>,
        /// What changed; empty when only the counts did.
        changes: Vec<TimelineKind>,
    },
    /// A module's health changed.
    #[serde(rename = "module.health_changed")]
    ModuleHealthChanged {
        /// Which module.
        module: String,
        /// How it was doing.
        from: ModuleStatus,
        /// How it is doing.
        to: ModuleStatus,
        /// What a person should know.
        detail: String,
    },
}

/// An event's name, to subscribe by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum EventKind {
    /// Signals were committed.
    #[serde(rename = "log.ingested")]
    LogIngested,
    /// An incident was opened.
    #[serde(rename = "incident.created")]
    IncidentCreated,
    /// An incident changed.
    #[serde(rename = "incident.updated")]
    IncidentUpdated,
    /// A module's health changed.
    #[serde(rename = "module.health_changed")]
    ModuleHealthChanged,
}

impl EventKind {
    /// Every kind there is.
    pub const ALL: [EventKind; 4] =
        [EventKind::LogIngested, EventKind::IncidentCreated, EventKind::IncidentUpdated, EventKind::ModuleHealthChanged];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventKind::LogIngested => "log.ingested",
            EventKind::IncidentCreated => "incident.created",
            EventKind::IncidentUpdated => "incident.updated",
            EventKind::ModuleHealthChanged => "module.health_changed",
        }
    }
}

impl Event {
    /// Its name.
    pub const fn kind(&self) -> EventKind {
        match self {
            Event::LogIngested { .. } => EventKind::LogIngested,
            Event::IncidentCreated(_) => EventKind::IncidentCreated,
            Event::IncidentUpdated { .. } => EventKind::IncidentUpdated,
            Event::ModuleHealthChanged { .. } => EventKind::ModuleHealthChanged,
        }
    }

    /// The incident it is about.
    pub fn incident(&self) -> Option<&Incident> {
        match self {
            Event::IncidentCreated(incident) | Event::IncidentUpdated { incident, .. } => Some(incident),
            Event::LogIngested { .. } | Event::ModuleHealthChanged { .. } => None,
        }
    }
}
