//! The configuration of `enricher.dedup`.

use opspilot_kernel::config::{ModuleConfig, Problem, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How alerts are recognised again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long after an incident was resolved the same alert opens it again; later a new incident is opened.
    /// `0s` always opens a new one.
    pub reopen_window: Span,
}

impl Default for Config {
    fn default() -> Config {
        Config { reopen_window: Span::seconds(30 * 60) }
    }
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.reopen_window > Span::seconds(30 * 86_400) {
            let problem = Problem::at("/reopen_window", "longer than 30 days; what comes back after so long is a new incident");
            problems.push(problem.suggest("30d"));
        }
        problems
    }
}
