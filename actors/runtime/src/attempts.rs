//! How often each follower failed at what it is reading: kept outside of it, so that a failure cannot take it away.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

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
///
/// A follower that failed begins again at what was last stored, which may be far before what it failed at. So a page
/// stays open until its follower got past its range, not merely past something else.
#[derive(Debug, Clone, Default)]
pub struct AttemptBook {
    /// By follower and first number; the ranges of one follower do not overlap.
    pages: Arc<Mutex<HashMap<String, BTreeMap<Seq, Attempt>>>>,
    first_heads: Arc<Mutex<HashMap<String, Seq>>>,
}

impl AttemptBook {
    /// So many failures at one range, and it is taken apart.
    pub const LIMIT: u32 = 3;

    /// The next range behind `position` that `module` began and did not finish.
    pub fn open(&self, module: &str, position: Seq) -> Option<Attempt> {
        let pages = self.pages.lock();
        let (_, attempt) = pages.get(module)?.iter().find(|(_, attempt)| attempt.last > position)?;
        Some(Attempt { first: attempt.first.max(position.saturating_add(1)), ..*attempt })
    }

    /// `module` begins `first..=last`; says how often it now did.
    pub fn begin(&self, module: &str, first: Seq, last: Seq) -> u32 {
        let mut pages = self.pages.lock();
        let ranges = pages.entry(module.to_owned()).or_default();
        let attempt = ranges.entry(first).or_insert(Attempt { first, last, count: 0, deadly: false });
        attempt.count = attempt.count.saturating_add(1);
        attempt.count
    }

    /// `module` could not even try what it had begun at `first`.
    pub fn take_back(&self, module: &str, first: Seq) {
        let mut pages = self.pages.lock();
        let Some(ranges) = pages.get_mut(module) else { return };
        if let Some(attempt) = ranges.get_mut(&first) {
            attempt.count = attempt.count.saturating_sub(1);
            if attempt.count == 0 {
                ranges.remove(&first);
            }
        }
    }

    /// `module` got past everything up to `position`; what it had begun and reaches beyond begins behind it.
    pub fn done(&self, module: &str, position: Seq) {
        let mut pages = self.pages.lock();
        let Some(ranges) = pages.get_mut(module) else { return };
        let rest = position.saturating_add(1);
        let behind = ranges.split_off(&rest);
        let cut = std::mem::replace(ranges, behind).into_values().rfind(|attempt| attempt.last > position);
        if let Some(attempt) = cut {
            ranges.insert(rest, Attempt { first: rest, ..attempt });
        }
        if ranges.is_empty() {
            pages.remove(module);
        }
    }

    /// The head of the log when `module` first looked at it in this run of the process.
    pub fn first_head(&self, module: &str, head: Seq) -> Seq {
        *self.first_heads.lock().entry(module.to_owned()).or_insert(head)
    }

    /// What an earlier run of the process began and did not finish.
    pub fn recall(&self, module: &str, first: Seq, last: Seq, count: u32) {
        let mut pages = self.pages.lock();
        pages.entry(module.to_owned()).or_default().entry(first).or_insert(Attempt { first, last, count, deadly: true });
    }
}
