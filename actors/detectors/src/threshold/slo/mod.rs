//! Service level objectives: alerts when an error budget is spent too fast.

mod config;
mod counters;
mod objective;
mod ring;
#[cfg(test)]
mod tests;
mod words;

pub use self::config::{BurnWindow, Selector, Slo};
pub(super) use self::counters::{COUNTER, PREFIX, Slos};
#[cfg(test)]
pub(super) use self::objective::Objective;
