//! The gate over a real ledger: every refusal, every crash, every race, and the one thing that is allowed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "tests"
)]

mod actions;
mod approvals;
mod clock;
mod closing;
mod consent_model;
mod faults;
mod journal;
mod layers;
mod race;
mod recovery;
mod rules;
mod support;
mod swapped;
mod types;
