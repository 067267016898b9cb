//! Takes over the alerts that outside systems raise and resolve.
//!
//! | Consumes   | batches and ticks of the signal log; of the signals, alerts |
//! | Emits      | `AlertRecord`s: firing, repeat, resolved |
//! | Keeps      | the open episodes by fingerprint (cache; snapshots and the log are the truth) |
//! | On restart | restores its snapshots and goes on at its cursor; the same records come out |
//!
//! A system resolves only what it raised itself: the source is part of the fingerprint. A resolve of
//! something that does not fire is left out and counted.

mod config;
mod detector;
#[cfg(test)]
mod tests;

pub use self::{config::Config, detector::Detector};

/// The module's name.
const ID: &str = "detector.alert";
/// The registry's entry.
pub(crate) const ENTRY: opspilot_runtime::Entry = crate::module::entry::<Detector>();
