//! The connectors as supervised modules over a real ledger.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod backpressure;
mod contract;
mod kills;
mod modules;
mod support;
