//! The configuration of `enricher.correlator`.

use std::collections::BTreeSet;

use opspilot_kernel::config::{ModuleConfig, Problem, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::stage::StormRule;

/// What alerts share that makes them one incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long after its newest alert an open incident takes in another of the same component, or of one that
    /// depends on it.
    pub window: Span,
    /// Labels that name what the alert's component depends on or calls.
    pub peer_labels: BTreeSet<String>,
    /// Labels that many alerts share whatever happens, so that they tell of no common cause.
    pub ignore_labels: BTreeSet<String>,
    /// What a storm is.
    pub storm: Storm,
}

/// Many incidents that begin at once and have one thing in common are one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Storm {
    /// Within what time they begin.
    pub window: Span,
    /// How many of them share a label, a word that names something, or a dependency; three times as many if all they share is
    /// their name.
    pub incidents: u32,
    /// What share of all that began within that time they are; half of them at least if all they share is their name
    /// or a word.
    pub percent: u32,
}

impl Default for Storm {
    fn default() -> Storm {
        Storm { window: Span::seconds(60), incidents: 30, percent: 20 }
    }
}

impl From<&Storm> for StormRule {
    fn from(storm: &Storm) -> StormRule {
        let number = |count| usize::try_from(count).unwrap_or(usize::MAX);
        StormRule { window: storm.window.0, incidents: number(storm.incidents), percent: number(storm.percent) }
    }
}

const PEERS: [&str; 14] = [
    "backend",
    "callee",
    "db",
    "depends_on",
    "dependency",
    "destination",
    "destination_service",
    "downstream",
    "peer",
    "peer.service",
    "peer_service",
    "server_address",
    "target_service",
    "upstream",
];

const TELLING_NOTHING: [&str; 33] = [
    "alert_type",
    "availability_zone",
    "cluster",
    "datacenter",
    "dc",
    "deployment_environment",
    "env",
    "environment",
    "instance_type",
    "job",
    "kind",
    "level",
    "metric",
    "monitor",
    "namespace",
    "owner",
    "priority",
    "prometheus",
    "receiver",
    "region",
    "replica",
    "rule",
    "runbook_url",
    "severity",
    "source",
    "stage",
    "team",
    "tenant",
    "tier",
    "type",
    "unit",
    "version",
    "zone",
];

impl Default for Config {
    fn default() -> Config {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Config { window: Span::seconds(600), peer_labels: set(&PEERS), ignore_labels: set(&TELLING_NOTHING), storm: Storm::default() }
    }
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(Span::seconds(1)..=Span::seconds(86_400)).contains(&self.window) {
            problems.push(Problem::at("/window", "must be between 1s and 1d").suggest("10m"));
        }
        if !(Span::seconds(1)..=Span::seconds(3600)).contains(&self.storm.window) {
            problems.push(Problem::at("/storm/window", "must be between 1s and 1h").suggest("60s"));
        }
        if !(2..=10_000).contains(&self.storm.incidents) {
            problems.push(Problem::at("/storm/incidents", "must be between 2 and 10000").suggest("30"));
        }
        if !(1..=100).contains(&self.storm.percent) {
            problems.push(Problem::at("/storm/percent", "must be between 1 and 100").suggest("20"));
        }
        problems
    }
}
