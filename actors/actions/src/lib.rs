//! What can be done about an incident: proposes from a reviewed catalogue, and runs what was permitted.
//!
//! * [`ProcessExecutor`] runs a permitted plan as a program on this machine; [`helper()`] is the part of it that is a
//!   process of its own.

mod failpoint;
mod process;

pub use self::process::{ProcessExecutor, RunLimits, helper};
