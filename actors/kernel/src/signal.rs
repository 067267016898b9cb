//! Signals: what the outside world tells us, one observation each.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    codec::{Labels, Record},
    ids::Seq,
    time::Timestamp,
};

/// What an observation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignalKind {
    /// A line of a log.
    Log,
    /// One point of a metric.
    Metric,
    /// An alert that another system raised or resolved.
    Alert,
}

impl SignalKind {
    /// The kind as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            SignalKind::Log => "log",
            SignalKind::Metric => "metric",
            SignalKind::Alert => "alert",
        }
    }
}

/// A set of kinds: says what a block of signals holds, so that a reader can skip it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KindSet(u8);

impl KindSet {
    /// No kind.
    pub const EMPTY: KindSet = KindSet(0);

    /// The set written as the number `bits`; unknown bits are dropped.
    pub const fn from_bits(bits: u8) -> KindSet {
        KindSet(bits & 0b111)
    }

    /// The set as a number, for storage.
    pub const fn bits(self) -> u8 {
        self.0
    }

    const fn bit(kind: SignalKind) -> u8 {
        match kind {
            SignalKind::Log => 1,
            SignalKind::Metric => 2,
            SignalKind::Alert => 4,
        }
    }

    /// Adds a kind.
    pub const fn insert(&mut self, kind: SignalKind) {
        self.0 |= KindSet::bit(kind);
    }

    /// Adds every kind of `other`.
    pub const fn extend(&mut self, other: KindSet) {
        self.0 |= other.0;
    }

    /// Whether the kind is in the set.
    pub const fn contains(self, kind: SignalKind) -> bool {
        self.0 & KindSet::bit(kind) != 0
    }
}

/// How bad it is. Ordered: `Debug < Info < Warning < Error < Critical`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Only of interest when looking for something.
    Debug,
    /// Normal operation.
    #[default]
    Info,
    /// May become a problem.
    Warning,
    /// Something failed.
    Error,
    /// Users are affected now.
    Critical,
}

impl Severity {
    /// Every severity, mildest first.
    pub const ALL: [Severity; 5] = [Severity::Debug, Severity::Info, Severity::Warning, Severity::Error, Severity::Critical];

    /// The severity as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Debug => "debug",
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Severity {
    type Err = UnknownSeverity;
    fn from_str(text: &str) -> Result<Severity, UnknownSeverity> {
        Severity::ALL.into_iter().find(|severity| severity.as_str() == text).ok_or(UnknownSeverity)
    }
}

/// The text names no severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown severity; use debug, info, warning, error or critical")]
pub struct UnknownSeverity;

/// Whether an alert from outside holds or is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// The condition holds.
    #[default]
    Firing,
    /// The condition is over.
    Resolved,
}

/// One observation, borrowed from wherever it lies.
///
/// Which fields mean something depends on `kind`; the others are empty. An empty string is "not given".
#[derive(Debug, Clone, PartialEq)]
pub struct SignalRef<'a> {
    /// What it is.
    pub kind: SignalKind,
    /// How bad it is.
    pub severity: Severity,
    /// Alerts: whether it holds.
    pub state: AlertState,
    /// Event time: when it happened, by the sender's clock (receipt time if it gave none).
    pub at: Timestamp,
    /// Who observed it.
    pub source: &'a str,
    /// Logs: the line.
    pub message: &'a str,
    /// Metrics: the metric's name. Alerts: the alert's name.
    pub name: &'a str,
    /// Metrics: the value; finite.
    pub value: Option<f64>,
    /// Metrics: the unit.
    pub unit: &'a str,
    /// Alerts: the sender's own identity of the condition.
    pub fingerprint: &'a str,
    /// Alerts: one line for people.
    pub title: &'a str,
    /// Alerts: more for people.
    pub description: &'a str,
    /// The sender's identity of this observation, for deduplication.
    pub id: &'a str,
    /// Names and values.
    pub labels: Labels<'a>,
}

impl<'a> SignalRef<'a> {
    /// A log line with nothing but what a log line must have.
    pub fn log(at: Timestamp, source: &'a str, message: &'a str) -> SignalRef<'a> {
        SignalRef { message, ..SignalRef::bare(SignalKind::Log, at, source) }
    }

    /// A metric point with nothing but what a metric point must have.
    pub fn metric(at: Timestamp, source: &'a str, name: &'a str, value: f64) -> SignalRef<'a> {
        SignalRef { name, value: Some(value), ..SignalRef::bare(SignalKind::Metric, at, source) }
    }

    /// A signal in which only kind, time and source are set.
    pub fn bare(kind: SignalKind, at: Timestamp, source: &'a str) -> SignalRef<'a> {
        SignalRef {
            kind,
            severity: Severity::Info,
            state: AlertState::Firing,
            at,
            source,
            message: "",
            name: "",
            value: None,
            unit: "",
            fingerprint: "",
            title: "",
            description: "",
            id: "",
            labels: Labels::Pairs(&[]),
        }
    }
}

/// What a consumer of the signal log is handed: signals in committed order, or the passing of time.
#[derive(Debug, Clone)]
pub enum LogEntry {
    /// Signals.
    Batch(std::sync::Arc<SignalBlock>),
    /// Time passed: a timer of some consumer was due.
    Tick {
        /// Its place in the log.
        seq: Seq,
        /// What the clock showed.
        at: Timestamp,
    },
    /// From here on a module goes by another configuration.
    Reload {
        /// Its place in the log.
        seq: Seq,
        /// What the clock showed.
        at: Timestamp,
        /// Which module, and which configuration.
        reload: std::sync::Arc<Reload>,
    },
}

/// The configuration that a module goes by from its place in the log on, so that a replay knows which rules were in force.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Reload {
    /// Which module.
    pub module: String,
    /// `sha256:` and the digest of `config`, as it is written here.
    pub digest: String,
    /// Its section of the configuration.
    pub config: serde_json::Value,
}

impl LogEntry {
    /// The first sequence number it covers.
    pub fn first_seq(&self) -> Seq {
        match self {
            LogEntry::Batch(block) => block.first_seq,
            LogEntry::Tick { seq, .. } | LogEntry::Reload { seq, .. } => *seq,
        }
    }

    /// The last sequence number it covers.
    pub fn last_seq(&self) -> Seq {
        match self {
            LogEntry::Batch(block) => block.last_seq,
            LogEntry::Tick { seq, .. } | LogEntry::Reload { seq, .. } => *seq,
        }
    }
}

/// Signals that were committed together, numbered `first_seq..=last_seq` without a gap.
#[derive(Debug)]
pub struct SignalBlock {
    /// The number of the first signal.
    pub first_seq: Seq,
    /// The number of the last signal.
    pub last_seq: Seq,
    /// When the service took them in, by its own clock.
    pub received_at: Timestamp,
    /// What kinds are among them.
    pub kinds: KindSet,
    /// The records, in pieces that each hold whole records (see [`crate::codec`]).
    pub pieces: Vec<Vec<u8>>,
}

impl SignalBlock {
    /// The signals with their numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Seq, Record<'_>)> {
        (self.first_seq..).zip(self.pieces.iter().flat_map(|piece| crate::codec::records(piece)))
    }
}
