//! Raises an alert when a statement that writes log lines is new, bursts, or falls silent.
//!
//! | Consumes   | batches and ticks of the signal log; of the signals, logs |
//! | Emits      | `AlertRecord`s: firing, repeat, resolved; one a minute for what a cap held back |
//! | Keeps      | templates, and for each source's templates how often they come; the open episodes (cache; snapshots and the log are the truth) |
//! | On restart | restores its snapshots and goes on at its cursor; the same records come out |

mod config;
mod detector;
pub mod miner;
mod rate;
mod say;
mod series;
#[cfg(test)]
mod tests;

pub use self::{
    config::{Config, Novelty, Rule},
    detector::Detector,
};

/// The module's name.
const ID: &str = "detector.logTemplate";
/// The registry's entry.
pub(crate) const ENTRY: opspilot_runtime::Entry = crate::module::entry::<Detector>();
