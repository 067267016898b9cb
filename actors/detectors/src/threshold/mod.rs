//! Raises an alert when a metric is beyond a limit.
//!
//! | Consumes   | batches and ticks of the signal log; of the signals, metrics |
//! | Emits      | `AlertRecord`s: firing, repeat, resolved |
//! | Keeps      | a window and a state for each series under a rule (cache; snapshots and the log are the truth) |
//! | On restart | restores its snapshots and goes on at its cursor; the same records come out |

mod config;
mod detector;
mod series;
#[cfg(test)]
mod tests;
mod window;

pub use self::{
    config::{Aggregation, Comparison, Config, Rule},
    detector::Detector,
};

/// The module's name.
const ID: &str = "detector.threshold";
/// The registry's entry.
pub(crate) const ENTRY: opspilot_runtime::Entry = crate::module::entry::<Detector>();
