//! What passes from stage to stage of the alert pipeline.
//!
//! A stage is a pure decider: it is given entries of the alert log, in order, and the board, that is
//! the state they can touch as it stood before the first of them. It must not matter how the log
//! was cut into batches, so each stage lets every entry see what the earlier ones of its batch did.

use std::time::Duration;

use opspilot_kernel::{
    alert::{AlertRecord, ResolvedBy},
    ids::AlertId,
};
use opspilot_ledger::AlertEntry;

/// An entry on its way through the stages, with what they found so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The entry.
    pub entry: AlertEntry,
    /// What `enricher.dedup` makes of it; none if that stage is disabled, and none for ticks.
    pub verdict: Option<Verdict>,
}

impl Item {
    /// An entry that no stage has seen yet.
    pub fn new(entry: AlertEntry) -> Item {
        Item { entry, verdict: None }
    }
}

/// What a record means for the episode it speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// An episode begins.
    Starts {
        /// How long after its resolution an incident of the same fingerprint is opened again instead of a
        /// new one being opened; none for never.
        reopen_within: Option<Duration>,
        /// The detector's own episode has been going on for longer, but was closed here.
        goes_on: bool,
    },
    /// An episode that was closed here goes on.
    Resumes,
    /// An episode that holds was seen again.
    Counts,
    /// An episode that holds is over.
    Ends,
    /// About an episode that is over: counts, and changes nothing else.
    Late,
    /// About an episode nobody knows: changes nothing.
    Unknown,
}

/// The id of the new episode that begins with `record` while its detector still speaks of the old one. It comes from the
/// signal: the number in the alert log depends on which detector was faster.
pub(crate) fn continuation(record: &AlertRecord) -> AlertId {
    AlertId::derived(&["continuation", record.alert.as_str(), &record.signal_seq.to_string()])
}

/// Why an episode is over, as it stands in sentences.
pub(crate) const fn reason(by: Option<ResolvedBy>) -> &'static str {
    match by {
        Some(ResolvedBy::Source) => "its source says so",
        Some(ResolvedBy::Clear) => "its clear condition held",
        Some(ResolvedBy::Quiet) => "nothing matched any more",
        Some(ResolvedBy::Person) => "a person resolved it",
        Some(ResolvedBy::RuleChanged) => "its rule was changed or removed",
        None => "no reason was given",
    }
}
