//! Events: committed facts, numbered in one sequence, told to whoever listens.

use serde::{Deserialize, Serialize};

use crate::{
    approval::Approval,
    execution::Execution,
    explanation::Provider,
    ids::{IncidentId, Seq},
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
    /// An incident was explained.
    #[serde(rename = "enrichment.completed")]
    EnrichmentCompleted {
        /// Which incident.
        incident_id: IncidentId,
        /// The explanation's summary.
        summary: String,
        /// Who wrote it.
        provider: Provider,
        /// Whether it is less than it should be.
        degraded: bool,
    },
    /// A plan waits for people.
    #[serde(rename = "action.proposed")]
    ActionProposed(Box<Approval>),
    /// Enough people agreed to a plan.
    #[serde(rename = "action.approved")]
    ActionApproved(Box<Approval>),
    /// Nothing will come of a plan: somebody said no, or took it back.
    #[serde(rename = "action.denied")]
    ActionDenied(Box<Approval>),
    /// A plan was not decided in time, or not executed in time.
    #[serde(rename = "action.expired")]
    ActionExpired(Box<Approval>),
    /// The run of a plan ended, however it did. The outputs are left out.
    #[serde(rename = "action.executed")]
    ActionExecuted {
        /// The approval as it now stands.
        approval: Box<Approval>,
        /// The run.
        execution: Box<Execution>,
    },
    /// Something did not reach its receiver and will not be tried again by itself.
    #[serde(rename = "notification.failed")]
    NotificationFailed {
        /// The channel.
        channel: String,
        /// What it was about.
        subject: String,
        /// How often it was tried.
        attempts: u32,
        /// What went wrong last.
        error: String,
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
    /// An incident was explained.
    #[serde(rename = "enrichment.completed")]
    EnrichmentCompleted,
    /// A plan waits for people.
    #[serde(rename = "action.proposed")]
    ActionProposed,
    /// Enough people agreed to a plan.
    #[serde(rename = "action.approved")]
    ActionApproved,
    /// Nothing will come of a plan.
    #[serde(rename = "action.denied")]
    ActionDenied,
    /// A plan was not decided, or not executed, in time.
    #[serde(rename = "action.expired")]
    ActionExpired,
    /// The run of a plan ended.
    #[serde(rename = "action.executed")]
    ActionExecuted,
    /// Something did not reach its receiver.
    #[serde(rename = "notification.failed")]
    NotificationFailed,
    /// A module's health changed.
    #[serde(rename = "module.health_changed")]
    ModuleHealthChanged,
}

impl EventKind {
    /// Every kind there is.
    pub const ALL: [EventKind; 11] = [
        EventKind::LogIngested,
        EventKind::IncidentCreated,
        EventKind::IncidentUpdated,
        EventKind::EnrichmentCompleted,
        EventKind::ActionProposed,
        EventKind::ActionApproved,
        EventKind::ActionDenied,
        EventKind::ActionExpired,
        EventKind::ActionExecuted,
        EventKind::NotificationFailed,
        EventKind::ModuleHealthChanged,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventKind::LogIngested => "log.ingested",
            EventKind::IncidentCreated => "incident.created",
            EventKind::IncidentUpdated => "incident.updated",
            EventKind::EnrichmentCompleted => "enrichment.completed",
            EventKind::ActionProposed => "action.proposed",
            EventKind::ActionApproved => "action.approved",
            EventKind::ActionDenied => "action.denied",
            EventKind::ActionExpired => "action.expired",
            EventKind::ActionExecuted => "action.executed",
            EventKind::NotificationFailed => "notification.failed",
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
            Event::EnrichmentCompleted { .. } => EventKind::EnrichmentCompleted,
            Event::ActionProposed(_) => EventKind::ActionProposed,
            Event::ActionApproved(_) => EventKind::ActionApproved,
            Event::ActionDenied(_) => EventKind::ActionDenied,
            Event::ActionExpired(_) => EventKind::ActionExpired,
            Event::ActionExecuted { .. } => EventKind::ActionExecuted,
            Event::NotificationFailed { .. } => EventKind::NotificationFailed,
            Event::ModuleHealthChanged { .. } => EventKind::ModuleHealthChanged,
        }
    }

    /// The incident it is about.
    pub fn incident(&self) -> Option<&Incident> {
        match self {
            Event::IncidentCreated(incident) | Event::IncidentUpdated { incident, .. } => Some(incident),
            _ => None,
        }
    }

    /// The plan it is about.
    pub fn approval(&self) -> Option<&Approval> {
        match self {
            Event::ActionProposed(approval)
            | Event::ActionApproved(approval)
            | Event::ActionDenied(approval)
            | Event::ActionExpired(approval)
            | Event::ActionExecuted { approval, .. } => Some(approval),
            _ => None,
        }
    }
}
