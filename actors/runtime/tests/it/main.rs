//! What the runtime promises, one file for each subject.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "these are tests")]
#![allow(unreachable_pub, clippy::let_underscore_must_use, reason = "one crate of tests; some answers do not matter")]

mod blocked;
mod events;
#[cfg(feature = "failpoints")]
mod failpoints;
mod followers;
mod followers_blocked;
mod groups;
mod groups_model;
mod handles;
mod kit;
mod model;
mod modules;
mod poison;
mod supervision;
mod timers;
mod world;
