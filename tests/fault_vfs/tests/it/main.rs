//! The ledger on a storage that fails, fills up, lies and loses power.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod errors;
mod power;
mod shim;
mod support;
