//! Detectors: what turns signals into alerts.
//!
//! Each follows the signal log by a cursor, batches and ticks, and says what it makes of them in
//! alert records, which are committed together with the cursor and the state. A detector is pure:
//! it knows no clock but the log's, so the same log gives the same records, wherever it was cut into
//! batches and however often the detector was restarted on the way.
//!
//! If one fails, it is restarted from its snapshots and reads on; the others do not notice. A signal
//! that kills it again and again is set aside.

#[cfg(test)]
mod contract;
mod counts;
mod deadlines;
mod detect;
mod episodes;
mod evidence;
mod keep;
mod metrics;
mod module;
mod offline;
mod relearn;
mod rules;
mod state;
mod template;
#[cfg(test)]
mod testing;
mod words;

pub mod alert;
pub mod anomaly;
pub mod heartbeat;
pub mod log_template;
pub mod regex;
pub mod threshold;

pub use self::{
    counts::Counts,
    detect::Detect,
    keep::Shelf,
    offline::{NoSuchDetector, offline},
    state::Change,
};

/// Every detector there is.
pub const MODULES: &[opspilot_runtime::Entry] =
    &[regex::ENTRY, log_template::ENTRY, threshold::ENTRY, anomaly::ENTRY, heartbeat::ENTRY, alert::ENTRY];
