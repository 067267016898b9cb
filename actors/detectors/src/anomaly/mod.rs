//! Raises an alert when a value is unusual for its series.
//!
//! | Consumes   | batches and ticks of the signal log; of the signals, metrics and log lines |
//! | Emits      | `AlertRecord`s: firing, repeat, resolved |
//! | Keeps      | a judge for each series under a rule (cache; bases on the shelf and the log are the truth), open episodes |
//! | On restart | restores its snapshots, reads again what its bases lack, goes on at its cursor; the same records come out |

mod config;
mod detector;
mod extract;
pub mod method;
mod say;
mod select;
mod series;
#[cfg(test)]
mod tests;

pub use self::{
    config::{Config, Extract, Rule},
    detector::Detector,
};

/// The module's name.
const ID: &str = "detector.anomaly";
/// The registry's entry.
pub(crate) const ENTRY: opspilot_runtime::Entry = crate::module::entry::<Detector>();
