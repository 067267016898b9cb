//! What a user can say about the measurements of the host.

use opspilot_kernel::config::{ModuleConfig, Problem, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Configuration of `connector.metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How often the host is measured.
    pub interval: Span,
    /// The source of the signals. Default: the host's name.
    pub source: Option<String>,
    /// Network interfaces that are left out.
    pub ignore_interfaces: Vec<String>,
    /// Mount points that are left out; what is mounted below them too.
    pub ignore_mounts: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config { interval: Span::seconds(10), source: None, ignore_interfaces: vec!["lo".to_owned()], ignore_mounts: Vec::new() }
    }
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.interval < Span::seconds(1) || self.interval > Span::seconds(3600) {
            problems.push(Problem::at("/interval", format!("{} is out of range; 1s to 1h is possible", self.interval)));
        }
        if self.source.as_ref().is_some_and(|source| source.is_empty() || source.chars().count() > 256) {
            problems.push(Problem::at("/source", "a source has 1 to 256 characters"));
        }
        for (index, mount) in self.ignore_mounts.iter().enumerate() {
            if !mount.starts_with('/') {
                problems
                    .push(Problem::at(format!("/ignore_mounts/{index}"), "not a mount point; write it from the root, such as /mnt/backup"));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named_with_its_place() {
        let config: Config =
            serde_json::from_value(serde_json::json!({ "interval": "10ms", "source": "", "ignore_mounts": ["/a", "b"] })).unwrap();
        let places: Vec<String> = config.validate().into_iter().map(|problem| problem.pointer).collect();
        assert_eq!(places, ["/interval", "/source", "/ignore_mounts/1"]);
        assert_eq!(Config::default().validate(), []);
        assert!(serde_json::from_value::<Config>(serde_json::json!({ "intervall": "1s" })).is_err());
    }
}
