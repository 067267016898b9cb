//! Notifiers: what tells people, at least once, in order, however long the other side is away.
//!
//! What is to be told is written into the ledger's outbox together with the cursor over the events it comes from, and
//! leaves it only when it arrived or was given up, visibly. A channel that does not take anything delays no other.

mod failpoint;
mod meters;

pub mod channels;

/// Every notifier there is.
pub const MODULES: &[opspilot_runtime::Entry] = &[channels::ENTRY];
