//! The only thing that can write.
//!
//! A `Tx` exists inside the writer thread, for the length of one job, in that job's savepoint. Its
//! operations are in `tables/`, one file for each table; every one that changes audited state takes the
//! [`Actor`](opspilot_kernel::principal::Actor) and writes the audit entry itself.

use std::sync::Arc;

use diesel::prelude::*;
use opspilot_kernel::{
    alert::AlertRecord,
    event::{Envelope, Event},
    ids::Seq,
    signal::{LogEntry, SignalBlock},
    time::Timestamp,
};

use crate::{
    error::LedgerError,
    logs::AlertEntry,
    schema,
    tables::{
        audit::{AuditEntry, AuditHead},
        ticks::HeldTick,
    },
};

/// Last numbers given out, and the end of the audit chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Heads {
    pub(crate) signal: Seq,
    pub(crate) alert: Seq,
    pub(crate) event: Seq,
    pub(crate) audit: AuditHead,
    /// A tick that waits for the detectors.
    pub(crate) tick: Option<HeldTick>,
    /// What the logs take that have a bound in bytes.
    pub(crate) sizes: Sizes,
}

/// Bytes that the rows of a log take, counted up and down with them, and anew when the database is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sizes {
    pub(crate) signals: u64,
    pub(crate) events: u64,
}

/// What a transaction did so far, to be told after the commit.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) now: Timestamp,
    pub(crate) heads: Heads,
    pub(crate) signals: Vec<(LogEntry, usize)>,
    pub(crate) alerts: Vec<(AlertEntry, usize)>,
    pub(crate) events: Vec<(Arc<Envelope>, usize)>,
    /// An action ended: a checkpoint is to be signed soon.
    pub(crate) ended: bool,
}

/// A place to come back to when a job is rolled back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    heads: Heads,
    signals: usize,
    alerts: usize,
    events: usize,
}

impl Work {
    pub(crate) fn new(now: Timestamp, heads: Heads) -> Work {
        Work { now, heads, signals: Vec::new(), alerts: Vec::new(), events: Vec::new(), ended: false }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { heads: self.heads, signals: self.signals.len(), alerts: self.alerts.len(), events: self.events.len() }
    }

    pub(crate) fn return_to(&mut self, mark: Mark) {
        self.heads = mark.heads;
        self.signals.truncate(mark.signals);
        self.alerts.truncate(mark.alerts);
        self.events.truncate(mark.events);
    }
}

/// What every job and every operation may need to know.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The node's name.
    pub(crate) node: Arc<str>,
    /// Names this run of the process.
    pub(crate) boot: Arc<str>,
}

/// One job's transaction.
pub struct Tx<'a> {
    pub(crate) conn: &'a mut SqliteConnection,
    pub(crate) work: &'a mut Work,
    pub(crate) identity: &'a Identity,
}

impl std::fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").field("now", &self.work.now).finish_non_exhaustive()
    }
}

impl Tx<'_> {
    /// The time of this transaction, read once from the clock.
    pub fn now(&self) -> Timestamp {
        self.work.now
    }

    /// Appends a fact: numbered now, stored in this savepoint, told after the commit.
    pub(crate) fn event(&mut self, event: Event) -> Result<Seq, LedgerError> {
        let seq = self.work.heads.event + 1;
        let kind = event.kind();
        let envelope = Envelope { seq, at: self.work.now, event };
        let body = serde_json::to_vec(&envelope).map_err(|error| LedgerError::Internal(error.to_string()))?;
        use schema::event::dsl as t;
        diesel::insert_into(t::event)
            .values((t::seq.eq(stored(seq)?), t::at.eq(self.work.now.millis()), t::kind.eq(kind.as_str()), t::body.eq(&body)))
            .execute(self.conn)?;
        self.work.heads.event = seq;
        self.work.heads.sizes.events += crate::tables::events::stored_len(body.len());
        self.work.events.push((Arc::new(envelope), body.len() * 2 + 256));
        Ok(seq)
    }

    /// Appends to the audit chain: who did what to what, in this savepoint.
    pub(crate) fn audit(&mut self, entry: AuditEntry) -> Result<Seq, LedgerError> {
        crate::tables::audit::append(self, entry)
    }

    /// Tells of a committed block of signals.
    pub(crate) fn committed_block(&mut self, block: SignalBlock, bytes: usize) {
        self.work.heads.signal = block.last_seq;
        self.work.signals.push((LogEntry::Batch(Arc::new(block)), bytes));
    }

    /// Tells of a committed alert record.
    pub(crate) fn committed_alert(&mut self, seq: Seq, record: AlertRecord, bytes: usize) {
        self.work.heads.alert = seq;
        self.work.alerts.push((AlertEntry::Record { seq, record: Arc::new(record) }, bytes));
    }
}

/// A sequence number or count as it is stored.
pub(crate) fn stored(number: u64) -> Result<i64, LedgerError> {
    i64::try_from(number).map_err(|_| LedgerError::out_of_range("a number to be stored"))
}

/// A stored number; negative only by damage.
pub(crate) fn loaded(number: i64) -> Result<u64, LedgerError> {
    u64::try_from(number).map_err(|_| LedgerError::Damaged("a negative number".to_owned()))
}
