//! Raises an alert when a metric is beyond a limit, when it falls silent, and when an error budget is spent too fast.
//!
//! | Consumes   | batches and ticks of the signal log; of the signals, metrics |
//! | Emits      | `AlertRecord`s: firing, repeat, resolved |
//! | Keeps      | a window and a state for each series under a rule; for each objective its events by minute and its counters (cache; snapshots and the log are the truth) |
//! | On restart | restores its snapshots and goes on at its cursor; the same records come out |

#[cfg(test)]
mod absence_tests;
mod aggregation;
mod comparison;
mod compiled;
mod config;
mod detector;
#[cfg(test)]
mod oracle_tests;
mod pack;
mod rate;
mod rule;
mod say;
mod series;
mod slo;
mod stored;
#[cfg(test)]
mod survival_tests;
#[cfg(test)]
mod tests;
mod watch;
mod window;

use self::detector::fingerprint;
pub use self::{
    aggregation::{Aggregation, NotAnAggregation, Percent},
    comparison::Comparison,
    config::Config,
    detector::Detector,
    rule::Rule,
    slo::{BurnWindow, Selector, Slo},
};

/// The module's name.
const ID: &str = "detector.threshold";
/// The registry's entry.
pub(crate) const ENTRY: opspilot_runtime::Entry = crate::module::entry::<Detector>();
