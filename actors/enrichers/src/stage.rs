//! What passes from stage to stage of the alert pipeline.
//!
//! A stage is a pure decider: it is given entries of the alert log, in order, and the board, that is
//! the state they can touch as it stood before the first of them. It must not matter how the log
//! was cut into batches, so each stage lets every entry see what the earlier ones of its batch did.

use std::time::Duration;

use opspilot_kernel::{
    alert::{AlertRecord, ResolvedBy},
    ids::{AlertId, SilenceId},
};
use opspilot_ledger::{AlertEntry, pipeline::Shield};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An entry on its way through the stages, with what they found so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The entry.
    pub entry: AlertEntry,
    /// What `enricher.dedup` makes of it; none if that stage is disabled, and none for ticks.
    pub verdict: Option<Verdict>,
    /// Why `enricher.silence` holds it back from people; none if nothing does.
    pub suppression: Option<Suppression>,
    /// By what its alert holds others back from now on, if that changed.
    pub shields: Option<Vec<Shield>>,
    /// Of a tick: alerts that fire and were looked at again, because something began or ended that holds alerts back.
    pub swept: Vec<Swept>,
    /// What `enricher.correlator` finds that it may share with others; none if that stage is disabled.
    pub grouping: Option<Grouping>,
    /// For ticks, what `enricher.correlator` takes for a storm.
    pub storm: Option<StormRule>,
}

impl Item {
    /// An entry that no stage has seen yet.
    pub fn new(entry: AlertEntry) -> Item {
        Item { entry, verdict: None, suppression: None, shields: None, swept: Vec::new(), grouping: None, storm: None }
    }
}

/// What holds an alert back from people: it is kept and can be found, and opens no incident.
#[derive(Debug, Clone, PartialEq)]
pub struct Suppression {
    /// What does it.
    pub by: By,
    /// The same in words.
    pub text: String,
    /// What that was found on.
    pub inputs: Value,
}

/// What can hold an alert back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// A person's silence.
    Silence(SilenceId),
    /// A maintenance window.
    Maintenance(String),
    /// Another alert that fires.
    Inhibition {
        /// The rule by which it does.
        rule: String,
        /// The other one, by the id its detector speaks of it by.
        claim: AlertId,
    },
}

impl By {
    /// As it stands on an alert; `source` is the own id of the alert that holds it back, where that is known.
    pub fn written(&self, source: Option<&AlertId>) -> String {
        match self {
            By::Silence(id) => format!("silence:{id}"),
            By::Maintenance(window) => format!("maintenance:{window}"),
            By::Inhibition { rule, claim } => format!("inhibition:{rule}:{}", source.unwrap_or(claim)),
        }
    }
}

/// An alert that fires and was looked at again.
#[derive(Debug, Clone, PartialEq)]
pub struct Swept {
    /// The id its detector speaks of it by.
    pub claim: AlertId,
    /// What holds it back.
    pub suppression: Option<Suppression>,
    /// By what it holds others back from now on, if that changed.
    pub shields: Option<Vec<Shield>>,
}

/// What an alert that begins may share with others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grouping {
    /// Its keys, the strongest first.
    pub keys: Vec<Key>,
    /// How long after it last got an alert with a key an open incident takes in another.
    pub within: Duration,
    /// How many incidents make a storm, at least; while fewer began within its window there is none to look for.
    pub storm: usize,
}

/// One thing that alerts may share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// What it is, `kind:value`.
    pub name: String,
    /// The alert joins an incident that has it.
    pub seeks: bool,
    /// The incident of the alert has it from then on.
    pub holds: bool,
    /// Enough incidents that have it are a storm, which takes in whatever has it.
    pub counts: bool,
    /// How the alert's component stands to what it finds by the key.
    pub bond: Bond,
    /// In words, as in "joins an open incident, since *both are about checkout*".
    pub why: String,
}

/// How the component that an alert is about stands to those that it finds by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bond {
    /// They have something in common.
    Likeness,
    /// It depends on them.
    ThisDependsOn,
    /// They depend on it.
    DependsOnThis,
}

/// When incidents that began at once are one storm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StormRule {
    /// Within what time they were opened.
    pub window: Duration,
    /// How many of them share one thing, at least.
    pub incidents: usize,
    /// What share of all that were opened within that time they are, in percent, at least.
    pub percent: usize,
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
