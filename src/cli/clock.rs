//! `opspilot clock accept`: the machine's clock was set back, and somebody looked at it.

use std::path::Path;

use clap::Subcommand;
use opspilot_kernel::{clock::SystemClock, principal::Actor};
use opspilot_ledger::{DATABASE, Ledger, Options, Priority};
use serde_json::json;

use super::{
    Api, Data, Failure, Outcome, Server,
    output::{say, say_json},
    waiting,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Clock {
    /// Take the machine's time as it is now, though a later one is on record; no approval from before holds
    Accept {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        server: Server,
    },
}

impl Clock {
    pub(crate) fn run(self) -> Outcome {
        let Clock::Accept { data, server } = self;
        match data.data {
            Some(dir) if server.given_url().is_none() => of_directory(&dir, server.json),
            _ => waiting(async move {
                let answer = Api::of(&server)?.post("/api/clock/accept", &json!({})).await?;
                said(server.json, answer.get("was_behind_secs").and_then(serde_json::Value::as_u64).unwrap_or(0));
                Ok(())
            }),
        }
    }
}

/// On a data directory that no service holds.
fn of_directory(dir: &Path, as_json: bool) -> Outcome {
    if !dir.join(DATABASE).exists() {
        return Err(Failure::from(format!("there is no ledger in {}", dir.display())));
    }
    let ledger = Ledger::open(Options { tool: true, ..Options::new(dir, SystemClock::shared()) })?;
    let Some(behind) = ledger.clock_regression() else {
        return Err(Failure::from("the clock is not behind a time that was already, so there is nothing to accept"));
    };
    let actor = Actor::User { id: format!("uid:{}", rustix::process::getuid().as_raw()), via: "cli".to_owned() };
    ledger.write_blocking(Priority::Control, move |tx| tx.clock_accept(&actor, behind))?;
    said(as_json, behind.as_secs());
    Ok(())
}

fn said(as_json: bool, behind: u64) {
    if as_json {
        say_json(&json!({ "was_behind_secs": behind }));
    } else {
        say(&format!("the time is accepted; it was {behind} s behind what is on record. approvals from before do not hold any more"));
    }
}
