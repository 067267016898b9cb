//! The helper alone, as the tests of this crate start it; the service is its own helper.

use std::process::ExitCode;

fn main() -> ExitCode {
    opspilot_actions::helper(std::env::args_os()).unwrap_or(ExitCode::FAILURE)
}
