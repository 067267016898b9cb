//! Raises an alert when a log line matches a rule.
//!
//! | Consumes   | batches and ticks of the signal log; of the signals, logs |
//! | Emits      | `AlertRecord`s: firing, repeat, resolved; one a minute for what a cap held back |
//! | Keeps      | the open episodes by fingerprint, and each rule's cap (cache; snapshots and the log are the truth) |
//! | On restart | restores its snapshots and goes on at its cursor; the same records come out |

pub(crate) mod cap;
mod config;
mod detector;
mod engine;
mod gate;
#[cfg(test)]
mod gate_tests;
mod pattern;
#[cfg(test)]
mod tests;

pub(crate) use self::pattern::Pattern;
pub use self::{
    config::{Config, Rule},
    detector::Detector,
};

/// The module's name.
const ID: &str = "detector.regex";
/// The registry's entry.
pub(crate) const ENTRY: opspilot_runtime::Entry = crate::module::entry::<Detector>();
