//! `opspilot notify test`: whether a channel really reaches somebody.

use clap::Subcommand;
use serde_json::{Value as Json, json};

use super::{
    Api, Failure, Outcome, Server,
    client::encoded,
    output::{say, say_json, text},
};
use crate::plain;

#[derive(Debug, Subcommand)]
pub(crate) enum Notify {
    /// Send a test message through a channel of notifier.channels; exit 1 if it does not arrive
    Test {
        /// The channel's id
        id: String,
        #[command(flatten)]
        server: Server,
    },
}

impl Notify {
    pub(crate) async fn run(self) -> Outcome {
        let Notify::Test { id, server } = self;
        let answer = Api::of(&server)?.post(&format!("/api/notifiers/{}/test", encoded(&id)), &json!({})).await?;
        let arrived = answer.get("delivered").and_then(Json::as_bool).unwrap_or(false);
        if server.json {
            say_json(&answer);
        } else if arrived {
            say(&format!("{}: the test message arrived", plain::stripped(&id)));
        }
        if arrived {
            return Ok(());
        }
        let why = if server.json { String::new() } else { format!("{id}: the test message did not arrive: {}", text(&answer, "error")) };
        Err(Failure { text: why, code: 1 })
    }
}
