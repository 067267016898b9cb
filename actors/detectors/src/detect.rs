//! What every detector is, before it becomes an actor.

use std::time::Duration;

use opspilot_kernel::{alert::AlertRecord, config::ModuleConfig, ids::Seq, signal::LogEntry, time::Timestamp};

use crate::{counts::Counts, keep::Shelf, state::Change};

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

    /// Pieces of state that are too large to be written whenever they change: each says for itself up to which signal it
    /// goes, its key begins with `~`, and it is put on the shelf after what [`Detect::changed`] gave is committed. Empty
    /// when called again before anything was consumed.
    fn shelve(&mut self) -> Vec<Change> {
        Vec::new()
    }

    /// Whether what it knows must be stored before it can take in much more.
    fn is_urgent(&self) -> bool {
        false
    }

    /// Everything was restored, and this is its shelf; changes nothing if it fails. Called before anything is consumed.
    fn begin(&mut self, _shelf: Box<dyn Shelf>) -> Result<(), String> {
        Ok(())
    }

    /// The last signal that all of what is stored contains; those behind it, up to where what is stored stands, are given to
    /// [`Detect::relearn`] after [`Detect::begin`].
    fn behind(&self) -> Option<Seq> {
        None
    }

    /// Takes in an entry of the log again for those parts of its state that do not contain it yet. Says nothing, opens and
    /// ends nothing.
    fn relearn(&mut self, _entry: &LogEntry) {}

    /// It has read again what it asked for, up to `seq`; from here on it consumes.
    fn relearned(&mut self, _seq: Seq) {}

    /// Takes what `former`, which went by another configuration, keeps on its shelf and in memory.
    fn take_over(&mut self, _former: &mut Self) {}

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
