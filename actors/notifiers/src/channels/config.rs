//! What a user can say about the channels.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use opspilot_kernel::{
    config::{ModuleConfig, Problem, Secret, Size, Span},
    signal::Severity,
};
use opspilot_ledger::Patience;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Configuration of `notifier.channels`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where notifications go. Each channel is on its own: one that takes nothing delays no other.
    pub channels: Vec<Channel>,
    /// How often and for how long a delivery is tried.
    pub retry: Retry,
}

/// What carries a channel's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Lines on the standard output of the service.
    Console,
    /// One JSON object a line, appended to a file.
    File,
    /// A signed POST for each message.
    Webhook,
}

/// What can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Occasion {
    /// An incident was opened.
    #[serde(rename = "incident.created")]
    Created,
    /// An incident became worse, or was opened again.
    #[serde(rename = "incident.updated")]
    Updated,
    /// Somebody is on it.
    #[serde(rename = "incident.acknowledged")]
    Acknowledged,
    /// It is over.
    #[serde(rename = "incident.resolved")]
    Resolved,
    /// It was explained.
    #[serde(rename = "enrichment.completed")]
    Explained,
    /// A plan waits for people.
    #[serde(rename = "action.proposed")]
    Proposed,
    /// Enough people agreed to a plan.
    #[serde(rename = "action.approved")]
    Approved,
    /// Nothing will come of a plan.
    #[serde(rename = "action.denied")]
    Denied,
    /// A plan was not decided, or not executed, in time.
    #[serde(rename = "action.expired")]
    Expired,
    /// The run of a plan ended.
    #[serde(rename = "action.executed")]
    Executed,
}

impl Occasion {
    /// The name in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Occasion::Created => "incident.created",
            Occasion::Updated => "incident.updated",
            Occasion::Acknowledged => "incident.acknowledged",
            Occasion::Resolved => "incident.resolved",
            Occasion::Explained => "enrichment.completed",
            Occasion::Proposed => "action.proposed",
            Occasion::Approved => "action.approved",
            Occasion::Denied => "action.denied",
            Occasion::Expired => "action.expired",
            Occasion::Executed => "action.executed",
        }
    }
}

/// One channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Its name in health, metrics and the audit log.
    pub id: String,
    /// What carries its messages.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What is told.
    #[serde(default = "Channel::usual")]
    pub events: Vec<Occasion>,
    /// Only of incidents that are at least so severe; of plans, only for such incidents.
    #[serde(default = "Channel::warning")]
    pub min_severity: Severity,
    /// So much may wait; then its events are read on only as it goes.
    #[serde(default = "Channel::backlog")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub backlog: u64,
    /// How long one attempt may take.
    #[serde(default = "Channel::timeout")]
    pub timeout: Span,
    /// Webhook: where to. Kept secret, since such addresses often are one.
    #[serde(default)]
    pub url: Option<Secret>,
    /// Webhook: signs each message. As it is, or `whsec_` and base64.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// Webhook: the secret before, which signs too, until every receiver has the new one.
    #[serde(default)]
    pub old_secret: Option<Secret>,
    /// Webhook: headers besides, such as Authorization.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// File: which. Made for its owner alone.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// File: above this size a new one is begun.
    #[serde(default = "Channel::max_size")]
    pub max_size: Size,
    /// File: how many old ones are kept.
    #[serde(default = "Channel::keep")]
    #[schemars(range(min = 1, max = 1000))]
    pub keep: usize,
}

impl Channel {
    fn usual() -> Vec<Occasion> {
        use Occasion::{Acknowledged, Created, Executed, Proposed, Resolved, Updated};
        vec![Created, Updated, Acknowledged, Resolved, Proposed, Executed]
    }

    const fn warning() -> Severity {
        Severity::Warning
    }

    const fn backlog() -> u64 {
        10_000
    }

    const fn timeout() -> Span {
        Span::seconds(10)
    }

    const fn max_size() -> Size {
        Size::mib(10)
    }

    const fn keep() -> usize {
        5
    }
}

/// How often and for how long a delivery is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// The wait before the second attempt.
    pub first: Span,
    /// By how much it grows with every further one.
    #[schemars(range(min = 1, max = 10))]
    pub factor: u32,
    /// It never grows beyond this.
    pub longest: Span,
    /// So many attempts, and it becomes a dead letter.
    #[schemars(range(min = 1, max = 100))]
    pub attempts: u32,
    /// After so long it becomes one too.
    pub give_up_after: Span,
}

impl Default for Retry {
    fn default() -> Retry {
        // spread over more than four hours: an outage of an hour loses nothing
        Retry {
            first: Span::seconds(15),
            factor: 3,
            longest: Span::seconds(3 * 3600),
            attempts: 8,
            give_up_after: Span::seconds(24 * 3600),
        }
    }
}

impl Retry {
    /// How long to wait after attempt number `attempt` (the first is 1), a fifth more or less at random.
    pub(crate) fn wait(&self, attempt: u32) -> Duration {
        let grown = self.factor.checked_pow(attempt.saturating_sub(1)).and_then(|factor| self.first.0.checked_mul(factor));
        grown.unwrap_or(self.longest.0).min(self.longest.0).mul_f64(rand::random_range(0.8..1.2))
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience { attempts: self.attempts, age: self.give_up_after.0 }
    }
}

/// Headers that are ours to set.
const OWN_HEADERS: [&str; 7] =
    ["content-type", "content-length", "host", "idempotency-key", "webhook-id", "webhook-timestamp", "webhook-signature"];

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, channel) in self.channels.iter().enumerate() {
            let place = format!("/channels/{index}");
            if self.channels.iter().take(index).any(|other| other.id == channel.id) {
                problems.push(Problem::at(format!("{place}/id"), format!("there is already a channel {:?}", channel.id)));
            }
            problems.extend(channel.problems().into_iter().map(|problem| problem.under(&place)));
        }
        let retry = &self.retry;
        if retry.first.0 < Duration::from_millis(10) || retry.longest < retry.first {
            problems.push(Problem::at("/retry/first", "must be at least 10ms and at most retry.longest").suggest("15s"));
        }
        if retry.give_up_after < retry.first || retry.give_up_after > Span::seconds(7 * 86_400) {
            problems.push(Problem::at("/retry/give_up_after", "must be between retry.first and 7d").suggest("24h"));
        }
        problems
    }
}

impl Channel {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |place: &str, what: &str, suggestion: &str| {
            let problem = Problem::at(place, what);
            problems.push(if suggestion.is_empty() { problem } else { problem.suggest(suggestion) });
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if self.id.is_empty() || self.id.len() > 32 || !self.id.chars().all(is_name) {
            wrong("/id", "an id has 1 to 32 letters, digits, - or _", "");
        }
        if self.events.is_empty() {
            wrong("/events", "nothing would ever be told", "leave events out for the usual ones, or leave the channel out");
        }
        if self.timeout < Span::millis(100) || self.timeout > Span::seconds(60) {
            wrong("/timeout", "must be between 100ms and 60s", "10s");
        }
        let is_webhook = self.kind == Kind::Webhook;
        match (&self.url, is_webhook) {
            (None, true) => wrong("", "a webhook needs a url", "url: 'https://hooks.example.org/opspilot'"),
            // what it is stays untold
            (Some(url), true) if !["https://", "http://"].iter().any(|scheme| url.expose().starts_with(scheme)) => {
                wrong("/url", "must begin with https:// or http://", "url: 'https://hooks.example.org/opspilot'");
            }
            (Some(_), false) => wrong("/url", "only a webhook has a url", "type: webhook"),
            _ => {}
        }
        if self.old_secret.is_some() && self.secret.is_none() {
            wrong("/old_secret", "an old secret goes with a new one", "name it secret");
        }
        for (name, secret) in [("/secret", &self.secret), ("/old_secret", &self.old_secret)] {
            match secret {
                Some(_) if !is_webhook => wrong(name, "only a webhook is signed", "type: webhook"),
                Some(secret) if secret.expose().len() < 16 => {
                    wrong(name, "a secret that can be guessed protects nothing; at least 16 characters", "openssl rand -base64 32");
                }
                Some(secret) if super::sign::key(secret).is_none() => {
                    wrong(name, "behind whsec_ there must be base64", "");
                }
                _ => {}
            }
        }
        for (name, value) in &self.headers {
            let place = format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
            if !is_webhook {
                wrong(&place, "only a webhook has headers", "type: webhook");
            } else if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                wrong(&place, "this header is set by the service", "");
            } else if super::webhook::header(name, value).is_none() {
                wrong(&place, "not a header that can be sent", "");
            }
        }
        match (&self.path, self.kind) {
            (None, Kind::File) => wrong("", "a file channel needs a path", "path: /var/log/opspilot/notifications.ndjson"),
            (Some(path), Kind::File) if !path.is_absolute() => wrong("/path", "must be named from the root", ""),
            (Some(_), Kind::Console | Kind::Webhook) => wrong("/path", "only a file channel has a path", "type: file"),
            _ => {}
        }
        if self.max_size < Size(64 << 10) {
            wrong("/max_size", "must be at least 64KiB", "10MiB");
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(config: serde_json::Value) -> Vec<String> {
        let config: Config = serde_json::from_value(config).unwrap();
        config.validate().into_iter().map(|problem| problem.pointer).collect()
    }

    #[test]
    fn every_problem_is_named_with_its_place() {
        let wrong = json!({ "channels": [
            { "id": "a b", "type": "console", "events": [], "timeout": "1ms", "url": "x" },
            { "id": "hook", "type": "webhook", "secret": "short", "headers": { "Host": "x", "a b": "c" } },
            { "id": "hook", "type": "webhook", "url": "hooks.example.org", "path": "/x", "old_secret": "0123456789abcdef" },
            { "id": "log", "type": "file", "path": "relative", "max_size": "1KiB" },
            { "id": "none", "type": "file" },
        ], "retry": { "first": "1ms", "give_up_after": "30d" } });
        let expected = [
            "/channels/0/id",
            "/channels/0/events",
            "/channels/0/timeout",
            "/channels/0/url",
            "/channels/1",
            "/channels/1/secret",
            "/channels/1/headers/Host",
            "/channels/1/headers/a b",
            "/channels/2/id",
            "/channels/2/url",
            "/channels/2/old_secret",
            "/channels/2/path",
            "/channels/3/path",
            "/channels/3/max_size",
            "/channels/4",
            "/retry/first",
            "/retry/give_up_after",
        ];
        assert_eq!(problems(wrong), expected);
        assert!(problems(json!({})).is_empty());
        let hook = json!({ "id": "hook", "type": "webhook", "url": "https://hooks.example.org/x", "secret": "0123456789abcdef" });
        assert!(problems(json!({ "channels": [hook] })).is_empty());
    }

    #[test]
    fn e12_no_problem_repeats_an_address_or_a_secret() {
        let config: Config = serde_json::from_value(json!({ "channels": [
            { "id": "hook", "type": "webhook", "url": "canary-url", "secret": "canary", "headers": { "x": "canary\n" } },
        ] }))
        .unwrap();
        let said = format!("{:?} {config:?} {}", config.validate(), serde_json::to_string(&config).unwrap());
        assert!(config.validate().len() == 3 && !said.contains("canary"), "{said}");
    }

    #[test]
    fn s13_the_waits_together_outlast_an_hour_by_far() {
        let retry = Retry::default();
        let least: Duration = (1..retry.attempts).map(|attempt| retry.wait(attempt)).sum();
        assert!(least > Duration::from_secs(3 * 3600), "{least:?}");
    }
}
