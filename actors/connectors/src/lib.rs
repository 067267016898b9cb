//! Connectors: what goes and fetches signals, where others send theirs.
//!
//! Each module is a supervised actor that reads from one kind of source and appends to the ledger. While the ledger
//! takes nothing, reading stops; what waits, waits at the source. A connector that cannot read something says so in
//! its health and goes on with the rest.

mod meters;
mod running;

pub mod file_tail;
pub mod metrics;
pub mod syslog;

/// Every connector there is.
pub const MODULES: &[opspilot_runtime::Entry] = &[file_tail::ENTRY, metrics::ENTRY];
