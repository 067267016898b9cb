//! The configuration of `enricher.incidentStore`.

use opspilot_kernel::config::{ModuleConfig, Problem, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Rules;

/// When incidents are resolved, and how much they keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long all alerts of an incident must have been over before it is resolved.
    pub quiet_period: Span,
    /// How many observations an incident keeps as evidence; further ones are only counted.
    pub evidence_limit: u32,
    /// How many entries an incident's timeline gets from the service; further ones are only counted. What
    /// people write is always kept.
    pub timeline_limit: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config { quiet_period: Span::seconds(0), evidence_limit: 200, timeline_limit: 2000 }
    }
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.quiet_period > Span::seconds(86_400) {
            problems.push(Problem::at("/quiet_period", "longer than a day").suggest("1d"));
        }
        if !(1..=10_000).contains(&self.evidence_limit) {
            problems.push(Problem::at("/evidence_limit", "must be between 1 and 10000").suggest("200"));
        }
        if !(10..=100_000).contains(&self.timeline_limit) {
            problems.push(Problem::at("/timeline_limit", "must be between 10 and 100000").suggest("2000"));
        }
        problems
    }
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Rules {
        Rules {
            enabled: true,
            quiet_period: config.quiet_period.0,
            evidence_limit: u64::from(config.evidence_limit),
            timeline_limit: u64::from(config.timeline_limit),
        }
    }
}
