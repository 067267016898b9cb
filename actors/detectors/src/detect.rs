//! What every detector is, before it becomes an actor.

use std::time::Duration;

use opspilot_kernel::{alert::AlertRecord, config::ModuleConfig, ids::Seq, signal::LogEntry, time::Timestamp};

use crate::{counts::Counts, state::Change};

/// A pure detector: fed with the log, asked for what it has to say and to store.
pub trait Detect: Sized + Send + Unpin + 'static {
    /// The module's name.
    const ID: &'static str;
    /// One line for people.
    const SUMMARY: &'static str;
    /// Its section of the configuration.
    type Config: ModuleConfig;

    /// A detector for a configuration that has been checked.
    fn build(config: &Self::Config) -> Self;

    /// Takes in one entry of the signal log and appends what is to be said about it.
    fn consume(&mut self, entry: &LogEntry, out: &mut Vec<AlertRecord>);

    /// When time alone will change something; never later than that, sometimes earlier.
    fn next_due(&self) -> Option<Timestamp> {
        None
    }

    /// The pieces of state that changed since the last call.
    fn changed(&mut self) -> Vec<Change> {
        Vec::new()
    }

    /// Takes a stored piece of state back; the error says why it cannot.
    fn restore(&mut self, key: &str, body: &[u8]) -> Result<(), String> {
        Err(format!("{} bytes under '{key}', but this detector stores nothing", body.len()))
    }

    /// Has every piece of state given by the next [`Detect::changed`].
    fn touch(&mut self) {}

    /// What of `new` means something else than in `old` and may count signals from before the change, and how far it
    /// looks back.
    fn changed_part(_old: &Self::Config, _new: &Self::Config) -> Option<(Self::Config, Duration)> {
        None
    }

    /// Takes over what `other`, a detector for the changed part, knows after the signals before `seq`.
    fn adopt(&mut self, _other: Self, _seq: Seq) {}

    /// What there is to count.
    fn counts(&self) -> Counts {
        Counts::default()
    }
}
