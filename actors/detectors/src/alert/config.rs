//! What a user may say about `detector.alert`.

use opspilot_kernel::{
    config::{ModuleConfig, Problem, Span},
    matcher::Matcher,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

/// Configuration of `detector.alert`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long after an alert fires the same alert, sent again, is only counted. Sent again after
    /// that it fires again, so that an incident which a person resolved can reopen.
    pub cooldown: Span,
    /// How long without being sent again until an alert is taken to be over. Without it, only the
    /// system that raised the alert ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolve_after: Option<Span>,
    /// How many alerts may be firing at a time. When one more comes, the one that was sent longest
    /// ago is resolved early and says so.
    pub max_fingerprints: usize,
    /// Alerts for which any of these holds are left out: those that fire by design, such as a Watchdog that feeds a
    /// heartbeat (`alertname="Watchdog"`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<Matcher>,
}

impl Default for Config {
    fn default() -> Config {
        Config { cooldown: Span::seconds(30), resolve_after: None, max_fingerprints: 10_000, ignore: Vec::new() }
    }
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(span) = self.resolve_after {
            rules::check_resolve_after(span, "", &mut problems);
        }
        rules::check_bound(self.max_fingerprints, "/max_fingerprints", &mut problems);
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_need_be_said_and_what_is_wrong_is_named() {
        assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
        assert_eq!(Config::default().validate(), []);
        let config = Config { resolve_after: Some(Span::millis(10)), max_fingerprints: 0, ..Config::default() };
        let pointers: Vec<String> = config.validate().into_iter().map(|problem| problem.pointer).collect();
        assert_eq!(pointers, ["/resolve_after", "/max_fingerprints"]);
    }
}
