//! Modules that can be driven with no service around them: no actor, no ledger, no clock.

use opspilot_kernel::{alert::AlertRecord, config::Problem, signal::LogEntry, time::Timestamp};

/// What turns signals into alerts, by itself. It is the same logic that the service runs, so that the same entries give
/// the same records.
pub trait Offline: Send {
    /// Takes in the next entry of a log and appends what is to be said about it.
    fn consume(&mut self, entry: &LogEntry, out: &mut Vec<AlertRecord>);

    /// When time alone will change something; never later than that, sometimes earlier. Whoever drives it owes it a tick
    /// then.
    fn next_due(&self) -> Option<Timestamp>;

    /// What it counted that a person should know of, by names for people: what it left out, and what had to go.
    fn counted(&self) -> Vec<(&'static str, u64)>;
}

/// Makes one of a section of the configuration, or says what is wrong with that.
pub type MakeOffline = fn(serde_json::Value) -> Result<Box<dyn Offline>, Vec<Problem>>;
