//! The command line: what `opspilot` understands, one command per file.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 what was asked for is wrong or was
//! refused, 70 the service gave up (a part that cannot be restarted, or storage that cannot be trusted).

mod accounts;
mod approvals;
mod audit;
mod backup;
mod check;
mod client;
mod clock;
mod eval;
pub(crate) mod feed;
mod health;
mod ids;
mod incidents;
mod keys;
mod notify;
mod output;
mod replay;
mod serve;
mod terminal;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

pub(crate) use client::Api;
pub(crate) use output::{Table, moment, say, tell, text};

/// Watches systems: signals become incidents, live, and nothing that was accepted is lost.
#[derive(Debug, Parser)]
#[command(name = "opspilot", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(serve::Serve),
    /// Play a recorded outage of a small shop through a service of its own
    Demo(crate::demo::Demo),
    /// What the demo's one action runs
    #[command(name = "demo-repair", hide = true)]
    DemoRepair(crate::demo::Repair),
    /// Validate a configuration file; exit 1 if anything is wrong
    Check(check::Check),
    /// Print the JSON Schema of the configuration, for editors
    ConfigSchema,
    /// Print the OpenAPI document
    Openapi,
    /// Say how a service is; exit 1 if it is unhealthy or does not answer
    Health(health::Health),
    /// Say what would have fired on recorded signals, and what another configuration would change
    Replay(replay::Replay),
    /// Run the detectors as shipped over benchmark data, and write what its scorers read
    #[command(subcommand)]
    Eval(eval::Eval),
    /// Show what happens, live
    Feed(feed::Feed),
    /// Work on incidents
    #[command(subcommand)]
    Incidents(incidents::Incidents),
    /// Decide about what is proposed
    #[command(subcommand)]
    Approvals(approvals::Approvals),
    /// Try whether notifications arrive
    #[command(subcommand)]
    Notify(notify::Notify),
    /// Manage accounts
    #[command(subcommand)]
    User(accounts::User),
    /// Manage API keys
    #[command(subcommand)]
    Key(accounts::Key),
    /// Check, export and prove the audit log, with no service running
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Replace signing keys
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Copy the database while the service runs or is stopped
    Backup(backup::Backup),
    /// Put a copy back; refuses a directory that a service holds
    Restore(backup::Restore),
    /// The guard against a clock that was set back
    #[command(subcommand)]
    Clock(clock::Clock),
}

/// Where the service is, and who asks.
#[derive(Debug, Clone, Args)]
pub(crate) struct Server {
    /// Address of the service [default: http://127.0.0.1:3000]
    #[arg(long, env = "OPSPILOT_URL")]
    pub(crate) url: Option<String>,
    /// A token from a log-in, or an API key
    #[arg(long, env = "OPSPILOT_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Server {
    /// The address, if one was given.
    pub(crate) fn given_url(&self) -> Option<&str> {
        self.url.as_deref().filter(|url| !url.is_empty())
    }

    /// The credential, if one was given.
    pub(crate) fn given_token(&self) -> Option<&str> {
        self.token.as_deref().filter(|token| !token.is_empty())
    }
}

/// A data directory.
#[derive(Debug, Clone, Args)]
pub(crate) struct Data {
    /// The data directory [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

impl Data {
    /// Where it is.
    pub(crate) fn folder(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| PathBuf::from("./data"))
    }
}

/// What was asked for is wrong, or could not be done; the text is for the person who asked.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) text: String,
    pub(crate) code: u8,
}

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure { text: error.to_string(), code: 1 }
    }
}

pub(crate) type Outcome = Result<(), Failure>;

/// Runs the command that `args` name; the process ends with what it returns.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    // before anything else is done in this process
    if let Some(code) = opspilot_actions::helper(&args) {
        return code;
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // to stdout for --help and --version, to stderr for mistakes; there is nothing to do if that fails
            drop(error.print());
            return if error.use_stderr() { ExitCode::from(1) } else { ExitCode::SUCCESS };
        }
    };
    // reads FAILPOINTS; the points are there only in a build for the fault tests
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    // fails only if it is installed already
    drop(rustls::crypto::ring::default_provider().install_default());
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                output::complain(&failure.text);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Serve(serve) => serve.run(),
        Command::Demo(demo) => demo.run(),
        Command::DemoRepair(repair) => repair.run(),
        Command::Check(check) => check.run(),
        Command::ConfigSchema => check::config_schema(),
        Command::Openapi => check::openapi(),
        Command::Health(health) => waiting(health.run()),
        Command::Replay(replay) => replay.run(),
        Command::Eval(eval) => eval.run(),
        Command::Feed(feed) => waiting(feed.run()),
        Command::Incidents(incidents) => waiting(incidents.run()),
        Command::Approvals(approvals) => waiting(approvals.run()),
        Command::Notify(notify) => waiting(notify.run()),
        Command::User(user) => user.run(),
        Command::Key(key) => key.run(),
        Command::Audit(audit) => audit.run(),
        Command::Keys(keys) => keys.run(),
        Command::Backup(backup) => backup.run(),
        Command::Restore(restore) => restore.run(),
        Command::Clock(clock) => clock.run(),
    }
}

/// Runs a command that talks over the network.
pub(crate) fn waiting<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_mistake_ends_with_1_and_help_with_0() {
        let code = |args: &[&str]| format!("{:?}", run(args.iter().map(OsString::from)));
        assert_eq!(code(&["opspilot", "--version"]), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(&["opspilot", "no-such-command"]), format!("{:?}", ExitCode::from(1)));
    }
}
