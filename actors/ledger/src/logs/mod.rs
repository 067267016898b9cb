//! The three logs as followers read them: the ring first, then the database.

mod ring;

use std::sync::Arc;

use opspilot_kernel::{
    alert::AlertRecord,
    codec,
    event::Envelope,
    ids::Seq,
    signal::{LogEntry, SignalBlock},
    time::Timestamp,
};
use tokio::sync::watch;

use self::ring::Ring;
use crate::{error::LedgerError, read::ReadPool};

/// What a follower of the alert log is handed.
#[derive(Debug, Clone, PartialEq)]
pub enum AlertEntry {
    /// A claim.
    Record {
        /// Its place in the log.
        seq: Seq,
        /// The claim.
        record: Arc<AlertRecord>,
    },
    /// Time passed.
    Tick {
        /// Its place in the log.
        seq: Seq,
        /// What the clock showed.
        at: Timestamp,
    },
}

impl AlertEntry {
    /// Its place in the log.
    pub fn seq(&self) -> Seq {
        match self {
            AlertEntry::Record { seq, .. } | AlertEntry::Tick { seq, .. } => *seq,
        }
    }
}

/// What a follower of the events is handed.
#[derive(Debug, Clone, PartialEq)]
pub enum EventEntry {
    /// A committed fact.
    Event(Arc<Envelope>),
    /// What was asked for is older than what is kept; `oldest` is the first that still is.
    Gap {
        /// The oldest event that is kept.
        oldest: Seq,
    },
}

/// What the three logs have in common.
#[derive(Debug)]
struct Log<T> {
    head: watch::Sender<Seq>,
    ring: Ring<T>,
    pool: ReadPool,
}

impl<T: Clone> Log<T> {
    fn new(head: Seq, ring_bytes: usize, pool: ReadPool) -> Log<T> {
        Log { head: watch::Sender::new(head), ring: Ring::new(ring_bytes), pool }
    }

    /// Entries behind `after` from memory, if memory has them. After the writer was built anew the head
    /// may be ahead of what was pushed.
    fn recent(&self, after: Seq, max_bytes: usize, max_entries: usize) -> Option<Vec<T>> {
        self.ring.after(after, max_bytes, max_entries).filter(|entries| !entries.is_empty())
    }

    fn tell(&self, head: Seq) {
        self.head.send_if_modified(|known| {
            let changed = *known < head;
            *known = head.max(*known);
            changed
        });
    }
}

macro_rules! log_handle {
    ($(#[$doc:meta])* $name:ident, $entry:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(Log<$entry>);

        impl $name {
            pub(crate) fn new(head: Seq, ring_bytes: usize, pool: ReadPool) -> $name {
                $name(Log::new(head, ring_bytes, pool))
            }

            /// The number of the last committed entry.
            pub fn head(&self) -> Seq {
                *self.0.head.borrow()
            }

            /// Tells of every commit.
            pub fn watch(&self) -> watch::Receiver<Seq> {
                self.0.head.subscribe()
            }

            /// How much memory the newest entries hold.
            pub fn ring_bytes(&self) -> usize {
                self.0.ring.bytes()
            }

            /// Makes followers see what was pushed.
            pub(crate) fn tell(&self, head: Seq) {
                self.0.tell(head);
            }
        }
    };
}

log_handle!(
    /// Signals and ticks in committed order.
    SignalLog, LogEntry
);
log_handle!(
    /// Claims of detectors and ticks in committed order.
    AlertLog, AlertEntry
);
log_handle!(
    /// Committed facts in order.
    EventLog, Arc<Envelope>
);

impl SignalLog {
    pub(crate) fn push(&self, entry: LogEntry, bytes: usize) {
        self.0.ring.push(entry.first_seq(), entry.last_seq(), bytes, entry);
    }

    /// The number before the first entry that was received at `since` or later, looking back from `before` over `most`
    /// numbers. Blocks on the database.
    pub fn before(&self, since: Timestamp, before: Seq, most: u64) -> Result<Seq, LedgerError> {
        self.0.pool.read_blocking(|reader| reader.signals_since(since, before, most))
    }

    /// What is behind `after`: at least one entry if there is one, then up to `max_bytes` of records.
    /// Nothing at or before `after` is among it. Blocks on the database if the follower is behind.
    pub fn next(&self, after: Seq, max_bytes: usize) -> Result<Vec<LogEntry>, LedgerError> {
        if after >= self.head() {
            return Ok(Vec::new());
        }
        let mut entries = match self.0.recent(after, max_bytes, usize::MAX) {
            Some(entries) => entries,
            None => self.0.pool.read_blocking(|reader| reader.signal_entries(after, max_bytes))?,
        };
        if let Some(LogEntry::Batch(block)) = entries.first()
            && block.first_seq <= after
        {
            let cut = LogEntry::Batch(Arc::new(behind(block, after)));
            if let Some(first) = entries.first_mut() {
                *first = cut;
            }
        }
        Ok(entries)
    }
}

/// The part of a block behind `after`. Only a cursor that was set in the middle of a block needs it.
fn behind(block: &SignalBlock, after: Seq) -> SignalBlock {
    let mut piece = Vec::new();
    for (_, record) in block.iter().filter(|(seq, _)| *seq > after) {
        codec::push_record(&mut piece, record);
    }
    SignalBlock { first_seq: after + 1, last_seq: block.last_seq, received_at: block.received_at, kinds: block.kinds, pieces: vec![piece] }
}

impl AlertLog {
    pub(crate) fn push(&self, entry: AlertEntry, bytes: usize) {
        self.0.ring.push(entry.seq(), entry.seq(), bytes, entry);
    }

    /// What is behind `after`, at most `max_entries`. Blocks on the database if the follower is behind.
    pub fn next(&self, after: Seq, max_entries: usize) -> Result<Vec<AlertEntry>, LedgerError> {
        if after >= self.head() {
            return Ok(Vec::new());
        }
        match self.0.recent(after, usize::MAX, max_entries) {
            Some(entries) => Ok(entries),
            None => self.0.pool.read_blocking(|reader| reader.alert_entries(after, max_entries)),
        }
    }
}

impl EventLog {
    pub(crate) fn push(&self, envelope: Arc<Envelope>, bytes: usize) {
        self.0.ring.push(envelope.seq, envelope.seq, bytes, envelope);
    }

    /// What is behind `after`, at most `max_entries`; a gap first if what follows `after` is no longer
    /// kept. Blocks on the database if the follower is behind.
    pub fn next(&self, after: Seq, max_entries: usize) -> Result<Vec<EventEntry>, LedgerError> {
        if after >= self.head() {
            return Ok(Vec::new());
        }
        if let Some(entries) = self.0.recent(after, usize::MAX, max_entries) {
            return Ok(entries.into_iter().map(EventEntry::Event).collect());
        }
        let entries = self.0.pool.read_blocking(|reader| reader.event_entries(after, max_entries))?;
        let gap = entries.first().filter(|first| first.seq > after + 1).map(|first| EventEntry::Gap { oldest: first.seq });
        Ok(gap.into_iter().chain(entries.into_iter().map(EventEntry::Event)).collect())
    }
}
