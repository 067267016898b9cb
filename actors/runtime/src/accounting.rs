//! What became of every message: `received = ok + error + retried + dead_lettered + in_flight`.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what became of messages or entries; shared by whoever takes them in and whoever answers.
#[derive(Debug, Default)]
pub struct Tally {
    received: AtomicU64,
    ok: AtomicU64,
    error: AtomicU64,
    retried: AtomicU64,
    dead_lettered: AtomicU64,
}

/// A tally at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TallyCounts {
    /// Taken in.
    pub received: u64,
    /// Handled.
    pub ok: u64,
    /// Answered with an error.
    pub error: u64,
    /// Given back to be taken in again.
    pub retried: u64,
    /// Set aside for a person.
    pub dead_lettered: u64,
    /// Not yet any of these.
    pub in_flight: u64,
}

impl Tally {
    /// `count` were taken in.
    pub fn received(&self, count: u64) {
        self.received.fetch_add(count, Ordering::SeqCst);
    }

    /// `count` were handled.
    pub fn ok(&self, count: u64) {
        self.ok.fetch_add(count, Ordering::SeqCst);
    }

    /// `count` were answered with an error.
    pub fn error(&self, count: u64) {
        self.error.fetch_add(count, Ordering::SeqCst);
    }

    /// `count` were given back.
    pub fn retried(&self, count: u64) {
        self.retried.fetch_add(count, Ordering::SeqCst);
    }

    /// `count` were set aside.
    pub fn dead_lettered(&self, count: u64) {
        self.dead_lettered.fetch_add(count, Ordering::SeqCst);
    }

    /// The counts now. Outcomes are read first, so that `in_flight` is never too small.
    pub fn counts(&self) -> TallyCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let (ok, error, retried, dead_lettered) = (load(&self.ok), load(&self.error), load(&self.retried), load(&self.dead_lettered));
        let received = load(&self.received);
        let in_flight = received.saturating_sub(ok + error + retried + dead_lettered);
        TallyCounts { received, ok, error, retried, dead_lettered, in_flight }
    }
}
