//! What can be done about an incident: proposes from a reviewed catalogue, and runs what was permitted.
//!
//! * [`safe`] is the module `action.safe`: its catalogue, the rules that propose, and the offer of both to the gate.
//! * [`ProcessExecutor`] runs a permitted plan as a program on this machine; [`helper()`] is the part of it that is a
//!   process of its own.
//!
//! A run needs a permit, and only the gate makes one. If the module fails nothing is proposed by rules; what people
//! propose and approve is carried out all the same, as long as the catalogue was offered.

mod failpoint;
mod process;
pub mod safe;

pub use self::process::{ProcessExecutor, RunLimits, helper, trusted};

/// Every module of this category.
pub const MODULES: &[opspilot_runtime::Entry] = &[safe::ENTRY];
