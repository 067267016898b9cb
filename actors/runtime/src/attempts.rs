//! How often each follower failed at what it is reading: kept outside of it, so that a failure cannot take it away.

use std::{collections::HashMap, sync::Arc};

use opspilot_kernel::ids::Seq;
use parking_lot::Mutex;

/// A range of a log that a follower began and did not finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The first number of the range.
    pub first: Seq,
    /// The last number of the range.
    pub last: Seq,
    /// How often it was begun.
    pub count: u32,
    /// Whether an earlier run of the process already failed at it: then it may be something that ends the process,
    /// and further attempts are counted in the ledger before they are made.
    pub deadly: bool,
}

/// The attempts of every follower. Cheap to clone; every clone is the same book.
#[derive(Debug, Clone, Default)]
pub struct AttemptBook {
    pages: Arc<Mutex<HashMap<String, Attempt>>>,
    first_heads: Arc<Mutex<HashMap<String, Seq>>>,
}

impl AttemptBook {
    /// So many failures at one range, and it is taken apart.
    pub const LIMIT: u32 = 3;

    /// What `module` began and did not finish.
    pub fn open(&self, module: &str) -> Option<Attempt> {
        self.pages.lock().get(module).copied()
    }

    /// `module` begins `first..=last`; says how often it now did.
    pub fn begin(&self, module: &str, first: Seq, last: Seq) -> u32 {
        let mut pages = self.pages.lock();
        let fresh = Attempt { first, last, count: 0, deadly: false };
        let attempt = pages.entry(module.to_owned()).or_insert(fresh);
        if (attempt.first, attempt.last) != (first, last) {
            *attempt = fresh;
        }
        attempt.count = attempt.count.saturating_add(1);
        attempt.count
    }

    /// `module` got past what it had begun.
    pub fn done(&self, module: &str) {
        self.pages.lock().remove(module);
    }

    /// `module` got past a part of what it had begun: the rest begins at `first`.
    pub fn narrow(&self, module: &str, first: Seq) {
        let mut pages = self.pages.lock();
        if let Some(attempt) = pages.get_mut(module) {
            attempt.first = attempt.first.max(first);
            if attempt.first > attempt.last {
                pages.remove(module);
            }
        }
    }

    /// The head of the log when `module` first looked at it in this run of the process.
    pub fn first_head(&self, module: &str, head: Seq) -> Seq {
        *self.first_heads.lock().entry(module.to_owned()).or_insert(head)
    }

    /// What an earlier run of the process began and did not finish.
    pub fn recall(&self, module: &str, first: Seq, last: Seq, count: u32) {
        self.pages.lock().entry(module.to_owned()).or_insert(Attempt { first, last, count, deadly: true });
    }
}
