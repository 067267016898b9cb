//! What a follower feeds: a pure consumer of one of the ledger's logs.

use std::sync::Arc;

use opspilot_kernel::{
    alert::AlertRecord,
    codec,
    ids::Seq,
    signal::{KindSet, LogEntry, SignalBlock},
    time::Timestamp,
};
use opspilot_ledger::{AlertEntry, DeadLetter, Ledger, LedgerError, Snapshot, Tx};
use tokio::sync::watch;

/// What was stored cannot be understood.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the stored state cannot be restored: {0}")]
pub struct RestoreError(pub String);

/// Turns entries of a log into output. Pure: no I/O, no clock, no randomness, so that the same entries give the
/// same output however they were cut, and before and after any restart.
pub trait Consumer: Send + Unpin + 'static {
    /// What it is fed.
    type Entry: Entries;
    /// What it makes.
    type Output: Committed;

    /// Takes up what [`Consumer::changed`] gave before. Called once, on a fresh value.
    fn restore(&mut self, snapshots: Vec<Snapshot>) -> Result<(), RestoreError>;

    /// Takes in the next entry and appends what follows from it.
    fn consume(&mut self, entry: &Self::Entry, out: &mut Vec<Self::Output>);

    /// When its earliest timer is due, by log time. When that time has come a tick is committed to the log.
    /// A time that has passed asks for a tick at once.
    fn next_due(&self) -> Option<Timestamp> {
        None
    }

    /// What changed since the last call, in parts that each replace the part of the same key (empty bytes remove
    /// it), at most 1 MiB per call; called until nothing is left. Keys that begin with `@` are the follower's own.
    fn changed(&mut self) -> Vec<Snapshot> {
        Vec::new()
    }

    /// Large parts that each say for themselves how far in the log they go, at most to where the commit stands: they are
    /// put on the module's shelf after it, and are not among what [`Consumer::restore`] is given. Called after
    /// [`Consumer::changed`], until nothing is left.
    fn shelve(&mut self) -> Vec<Snapshot> {
        Vec::new()
    }

    /// Does a part of what is to be done after it was restored and before it is fed; whether there is more to do.
    fn catch_up(&mut self) -> Result<bool, LedgerError> {
        Ok(false)
    }

    /// Whether what it knows must be stored soon, before it can take in much more.
    fn is_urgent(&self) -> bool {
        false
    }

    /// What a person should know: shown as the module's trouble.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// Entries of a log: how they are read, and how they are taken apart.
pub trait Entries: Clone + Sized + Send + 'static {
    /// The log's name in the ledger.
    const LOG: &'static str;

    /// The last committed number.
    fn head(ledger: &Ledger) -> Seq;
    /// Tells of every commit.
    fn watch(ledger: &Ledger) -> watch::Receiver<Seq>;
    /// What is behind `after`, about `max_bytes` of it. Blocks.
    fn next(ledger: &Ledger, after: Seq, max_bytes: usize) -> Result<Vec<Self>, LedgerError>;
    /// The first number it covers.
    fn first_seq(&self) -> Seq;
    /// The last number it covers.
    fn last_seq(&self) -> Seq;
    /// Whether it is the passing of time.
    fn is_tick(&self) -> bool;
    /// The part of it within `first..=last`, if any.
    fn within(self, first: Seq, last: Seq) -> Option<Self>;
    /// Itself as a dead letter keeps it.
    fn payload(&self) -> Vec<u8>;
    /// An entry as a dead letter kept it, when the log no longer has it.
    fn revive(letter: &DeadLetter) -> Option<Self>;
}

/// Output that can be committed together with the cursor.
pub trait Committed: Clone + Send + 'static {
    /// Writes the output, how far `module` has read, and what it then knew.
    fn commit(tx: &mut Tx<'_>, module: &'static str, cursor: Seq, outputs: Vec<Self>, snapshots: Vec<Snapshot>) -> Result<(), LedgerError>;
}

impl Committed for AlertRecord {
    fn commit(tx: &mut Tx<'_>, module: &'static str, cursor: Seq, outputs: Vec<Self>, snapshots: Vec<Snapshot>) -> Result<(), LedgerError> {
        tx.commit_alerts(module, cursor, outputs, snapshots)
    }
}

impl Entries for LogEntry {
    const LOG: &'static str = "signals";

    fn head(ledger: &Ledger) -> Seq {
        ledger.signals().head()
    }

    fn watch(ledger: &Ledger) -> watch::Receiver<Seq> {
        ledger.signals().watch()
    }

    fn next(ledger: &Ledger, after: Seq, max_bytes: usize) -> Result<Vec<Self>, LedgerError> {
        ledger.signals().next(after, max_bytes)
    }

    fn first_seq(&self) -> Seq {
        LogEntry::first_seq(self)
    }

    fn last_seq(&self) -> Seq {
        LogEntry::last_seq(self)
    }

    fn is_tick(&self) -> bool {
        matches!(self, LogEntry::Tick { .. })
    }

    fn within(self, first: Seq, last: Seq) -> Option<Self> {
        if Entries::last_seq(&self) < first || self.first_seq() > last {
            return None;
        }
        let LogEntry::Batch(block) = &self else { return Some(self) };
        if block.first_seq >= first && block.last_seq <= last {
            return Some(self);
        }
        let mut kinds = KindSet::EMPTY;
        let mut piece = Vec::new();
        for (_, record) in block.iter().filter(|(seq, _)| (first..=last).contains(seq)) {
            if let Ok(kind) = record.kind() {
                kinds.insert(kind);
            }
            codec::push_record(&mut piece, record);
        }
        Some(LogEntry::Batch(Arc::new(SignalBlock {
            first_seq: block.first_seq.max(first),
            last_seq: block.last_seq.min(last),
            received_at: block.received_at,
            kinds,
            pieces: vec![piece],
        })))
    }

    fn payload(&self) -> Vec<u8> {
        match self {
            LogEntry::Batch(block) => block.pieces.concat(),
            LogEntry::Tick { .. } | LogEntry::Reload { .. } => Vec::new(),
        }
    }

    fn revive(letter: &DeadLetter) -> Option<Self> {
        if letter.payload.is_empty() {
            return Some(LogEntry::Tick { seq: letter.last_seq, at: letter.at });
        }
        let mut kinds = KindSet::EMPTY;
        codec::records(&letter.payload).filter_map(|record| record.kind().ok()).for_each(|kind| kinds.insert(kind));
        Some(LogEntry::Batch(Arc::new(SignalBlock {
            first_seq: letter.first_seq,
            last_seq: letter.last_seq,
            received_at: letter.at,
            kinds,
            pieces: vec![letter.payload.clone()],
        })))
    }
}

/// Alert entries are counted, not weighed: a record is at most a few KiB.
const BYTES_PER_ALERT: usize = 2048;

impl Entries for AlertEntry {
    const LOG: &'static str = "alerts";

    fn head(ledger: &Ledger) -> Seq {
        ledger.alerts().head()
    }

    fn watch(ledger: &Ledger) -> watch::Receiver<Seq> {
        ledger.alerts().watch()
    }

    fn next(ledger: &Ledger, after: Seq, max_bytes: usize) -> Result<Vec<Self>, LedgerError> {
        ledger.alerts().next(after, (max_bytes / BYTES_PER_ALERT).max(1))
    }

    fn first_seq(&self) -> Seq {
        self.seq()
    }

    fn last_seq(&self) -> Seq {
        self.seq()
    }

    fn is_tick(&self) -> bool {
        matches!(self, AlertEntry::Tick { .. })
    }

    fn within(self, first: Seq, last: Seq) -> Option<Self> {
        (first..=last).contains(&self.seq()).then_some(self)
    }

    fn payload(&self) -> Vec<u8> {
        match self {
            AlertEntry::Record { record, .. } => serde_json::to_vec(&**record).unwrap_or_default(),
            AlertEntry::Tick { .. } => Vec::new(),
        }
    }

    fn revive(letter: &DeadLetter) -> Option<Self> {
        if letter.payload.is_empty() {
            return Some(AlertEntry::Tick { seq: letter.last_seq, at: letter.at });
        }
        let record = serde_json::from_slice(&letter.payload).ok()?;
        Some(AlertEntry::Record { seq: letter.last_seq, record: Arc::new(record) })
    }
}
