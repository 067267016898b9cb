//! Detection over recorded signals, at full speed and without a trace: what would have fired.
//!
//! Recorded signals ([`input`]) are put in one order and given a time of receipt ([`order`]); the detectors, as the service
//! runs them, are driven over that order and told of time by ticks ([`drive`]); what they say is summed up, and made into
//! incidents by the stages of the alert pipeline ([`story`]). Nothing here asks a clock, so the same input gives the same
//! bytes.

pub(crate) mod drive;
pub(crate) mod eval;
pub(crate) mod input;
pub(crate) mod order;
pub(crate) mod report;
mod run;
pub(crate) mod story;

pub(crate) use run::{Run, Runs};
