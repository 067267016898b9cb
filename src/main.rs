//! The `opspilot` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    opspilot::cli::run(std::env::args_os())
}
