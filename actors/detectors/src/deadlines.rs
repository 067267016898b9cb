//! Who is due when, kept so that an observation costs nothing most of the time.
//!
//! A deadline that moves further away is left where it is and looked at again when its old time
//! comes; only one that comes nearer is moved at once. So an entry is never later than the truth,
//! and the first entry whose owner agrees with it is the earliest of all.

use std::collections::BTreeSet;

use opspilot_kernel::time::Timestamp;

/// Times by owner; at most one entry each, which the owner remembers.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(BTreeSet<(Timestamp, u64)>);

impl Deadlines {
    /// Enters `owner` at `due`; `entered` is the owner's memory of its entry.
    pub(crate) fn set(&mut self, owner: u64, entered: &mut Option<Timestamp>, due: Timestamp) {
        match *entered {
            Some(known) if known <= due => return,
            Some(known) => {
                self.0.remove(&(known, owner));
            }
            None => {}
        }
        self.0.insert((due, owner));
        *entered = Some(due);
    }

    /// Takes the owner's entry out.
    pub(crate) fn clear(&mut self, owner: u64, entered: &mut Option<Timestamp>) {
        if let Some(known) = entered.take() {
            self.0.remove(&(known, owner));
        }
    }

    /// The first entry, true or stale.
    pub(crate) fn first(&self) -> Option<(Timestamp, u64)> {
        self.0.first().copied()
    }
}
