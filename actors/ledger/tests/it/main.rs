//! The ledger on real files in directories of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, reason = "tests may")]

mod disk_full;
#[cfg(feature = "failpoints")]
mod failpoints;
mod faults;
mod jobs;
mod search;
mod signals;
mod support;
mod upkeep;
