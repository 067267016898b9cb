//! Turns alerts into incidents.
//!
//! The alert log is read by one consumer, the [`pipeline`]. It hands every batch to the stages that are
//! switched on, in the order in which the wiring names them, and commits what they decide in one
//! transaction. The stages are pure deciders, each behind a supervised actor of its own:
//!
//! * `enricher.dedup` says which episode a record belongs to and what it means for it;
//! * `enricher.silence` says what holds its alert back from people: a silence, a maintenance window, another alert;
//! * `enricher.correlator` finds what it may share with others;
//! * `enricher.incidentStore` opens, joins, counts, resolves and reopens incidents.
//!
//! Beside the pipeline, and never in its way, [`ai_summary`] explains the incidents that it opened, and [`topology`] keeps
//! the dependency graph.
//!
//! A stage that is switched off passes alerts unchanged. A stage that fails is restarted and asked again;
//! nothing is lost, since nothing is committed before every stage has answered.

pub mod ai_summary;
mod correlator;
mod dedup;
mod incident_store;
mod keyring;
pub mod pipeline;
mod rehearsal;
mod silence;
mod stage;
mod stage_actor;
#[cfg(test)]
mod testkit;
pub mod topology;

use opspilot_runtime::Entry;

pub use self::{
    correlator::{Config as CorrelatorConfig, ID as CORRELATOR},
    dedup::{Config as DedupConfig, ID as DEDUP},
    incident_store::{Config as IncidentStoreConfig, ID as INCIDENT_STORE},
    rehearsal::{Rehearsal, Rehearsed},
    silence::{Config as SilenceConfig, ID as SILENCE, window},
    stage::{By, Item, Suppression, Swept, Verdict},
    stage_actor::{Answer, Decide, Decider, Poisoned, Stage, StageModule, Stages},
};

/// Every module of this category.
pub const MODULES: &[Entry] = &[topology::ENTRY, dedup::ENTRY, silence::ENTRY, correlator::ENTRY, incident_store::ENTRY, ai_summary::ENTRY];
