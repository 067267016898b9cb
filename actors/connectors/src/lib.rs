//! Connectors: what goes and fetches signals, where others send theirs.
//!
//! Each module is a supervised actor that reads from one kind of source and appends to the ledger. A connector
//! that cannot append waits; it drops nothing. One that cannot read says so in its health and goes on with the rest.

pub mod file_tail;
mod meters;

/// Every connector there is.
pub const MODULES: &[opspilot_runtime::Entry] = &[file_tail::ENTRY];
