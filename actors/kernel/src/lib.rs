//! The vocabulary every other crate speaks: signals, alerts, incidents, events,
//! identifiers, time, and the few kinds of error.
//!
//! Nothing here does I/O, knows SQL or HTTP, or starts an actor. The words are
//! used with one meaning throughout the code, the API and the page:
//!
//! * a [signal](signal::SignalRef) is one observation;
//! * an [`alert::AlertRecord`] is what a detector claims about a condition;
//! * an [`incident::Incident`] is what a human works on;
//! * an [`explanation::Explanation`] says what happened and what shows it;
//! * an [`approval::Approval`] is one rendered [`plan::Plan`] on its way through people's hands;
//! * an [`execution::Execution`] is the run of an approved plan;
//! * a [`topology::Graph`] says which component depends on which;
//! * an [`event::Event`] is a committed fact, numbered, told to whoever listens.

pub mod alert;
pub mod approval;
pub mod canonical;
pub mod clock;
pub mod codec;
pub mod config;
pub mod consent;
pub mod error;
pub mod event;
pub mod execution;
pub mod explanation;
pub mod facets;
pub mod fingerprint;
pub mod ids;
pub mod incident;
pub mod lifecycle;
pub mod matcher;
pub mod module;
pub mod net;
pub mod plan;
pub mod principal;
pub mod signal;
pub mod silence;
pub mod time;
pub mod topology;
