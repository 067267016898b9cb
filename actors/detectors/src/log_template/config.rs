//! What a user may say about `detector.logTemplate`.

use std::collections::BTreeMap;

use opspilot_kernel::{
    config::{ModuleConfig, Problem, Size, Span},
    matcher::Matcher,
    signal::Severity,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::miner::Settings;
use crate::rules;

/// Configuration of `detector.logTemplate`: which statements write the log lines, and what is unusual about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The rules. A line concerns the first whose `sources` and `match` hold for it.
    pub rules: Vec<Rule>,
    /// Whether lines that concern none of the rules are looked at by a rule `log-template` with nothing but defaults: after
    /// a day of learning, templates that tell of an error and are new, and bursts. Its alerts open no incident: they are
    /// listed, and support the alerts of others.
    pub builtin_rule: bool,
    /// Templates kept, over all sources. When there are more, those not seen for longest are forgotten, a sixteenth at a
    /// time, and those seen less than three times before the others.
    pub max_templates: usize,
    /// What templates may take in memory; beyond it they are forgotten in the same way.
    pub max_template_bytes: Size,
    /// Templates followed, each source counted for itself. When there are more, those not seen for longest are forgotten, a
    /// sixteenth at a time; one that comes back is new again.
    pub max_series: usize,
    /// How many words of a line are looked at.
    pub max_words: usize,
    /// How many bytes of a line are looked at.
    pub max_line_bytes: Size,
    /// How many alerts may be firing at a time, over all rules. When one more begins, the one that would be resolved first
    /// is resolved early and says so.
    pub max_fingerprints: usize,
}

impl Default for Config {
    fn default() -> Config {
        let Settings { max_templates, line_words, .. } = Settings::default();
        Config {
            rules: Vec::new(),
            builtin_rule: true,
            max_templates,
            max_template_bytes: Size::mib(32),
            max_series: 50_000,
            max_words: line_words,
            max_line_bytes: Size(4096),
            max_fingerprints: 1000,
        }
    }
}

impl Config {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            max_templates: self.max_templates,
            max_bytes: self.max_template_bytes.bytes(),
            line_words: self.max_words,
            line_bytes: self.max_line_bytes.bytes(),
        }
    }
}

/// Which new templates are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Novelty {
    /// None.
    Off,
    /// Those whose line has the severity error or critical, or a word such as error, failed, exception or panic.
    Errors,
    /// All.
    All,
}

/// A rule: what is unusual about the lines it concerns raises an alert, one for each source, template and kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The rule's name; it stays the same when the rule is edited.
    pub id: String,
    /// Look only at lines of these sources; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Look only at lines for which all of these hold; `source` is the line's source, every other name a label.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matchers: Vec<Matcher>,
    /// Which templates that a source never wrote before raise an alert: `off`, `errors` or `all`.
    #[serde(default = "default_new")]
    pub new: Novelty,
    /// Whether a template that comes far more often than it used to in this source raises an alert.
    #[serde(default = "yes")]
    pub bursts: bool,
    /// Whether a template that came regularly and stays away, while its source goes on, raises an alert.
    #[serde(default)]
    pub stops: bool,
    /// Whether its alerts open incidents. Otherwise they are listed, and support the alerts of others.
    #[serde(default = "yes")]
    pub opens_incident: bool,
    /// How bad it is.
    #[serde(default = "default_severity")]
    pub severity: Severity,
    /// Nothing is new in a source before it was followed for so long,
    #[serde(default = "default_learning")]
    pub learning: Span,
    /// and before it wrote so many lines.
    #[serde(default = "default_learning_lines")]
    pub learning_lines: u64,
    /// How long a template must have been followed in a source before it can burst.
    #[serde(default = "default_baseline")]
    pub burst_baseline: Span,
    /// A burst has at least so many lines in a minute.
    #[serde(default = "default_burst_lines")]
    pub burst_lines: u32,
    /// A burst has at least so many times the usual number of lines in a minute.
    #[serde(default = "default_burst_factor")]
    pub burst_factor: u32,
    /// How long after an alert fires further lines are only counted; one after that fires again.
    #[serde(default = "default_cooldown")]
    pub cooldown: Span,
    /// How long without such a line (for a burst: without such a minute) until the alert is over.
    #[serde(default = "default_resolve_after")]
    pub resolve_after: Span,
    /// How many new alerts the rule may raise in a minute. What is held back is counted and told in one alert of its own a
    /// minute.
    #[serde(default = "default_cap")]
    pub max_alerts_per_minute: u32,
    /// Labels for the alert.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

const fn default_new() -> Novelty {
    Novelty::Errors
}

const fn yes() -> bool {
    true
}

const fn default_severity() -> Severity {
    Severity::Warning
}

const fn default_learning() -> Span {
    Span::seconds(86_400)
}

const fn default_learning_lines() -> u64 {
    1000
}

const fn default_baseline() -> Span {
    Span::seconds(3600)
}

const fn default_burst_lines() -> u32 {
    20
}

const fn default_burst_factor() -> u32 {
    4
}

const fn default_cooldown() -> Span {
    Span::seconds(5 * 60)
}

const fn default_resolve_after() -> Span {
    Span::seconds(15 * 60)
}

const fn default_cap() -> u32 {
    5
}

impl Rule {
    /// A rule with nothing but what a rule must have.
    pub fn new(id: impl Into<String>) -> Rule {
        Rule {
            id: id.into(),
            sources: Vec::new(),
            matchers: Vec::new(),
            new: default_new(),
            bursts: true,
            stops: false,
            opens_incident: true,
            severity: default_severity(),
            learning: default_learning(),
            learning_lines: default_learning_lines(),
            burst_baseline: default_baseline(),
            burst_lines: default_burst_lines(),
            burst_factor: default_burst_factor(),
            cooldown: default_cooldown(),
            resolve_after: default_resolve_after(),
            max_alerts_per_minute: default_cap(),
            labels: BTreeMap::new(),
        }
    }
}

impl rules::Rule for Rule {
    fn id(&self) -> &str {
        &self.id
    }

    fn problems(&self, at: &str, problems: &mut Vec<Problem>) {
        rules::check_labels(&self.labels, at, problems);
        rules::check_resolve_after(self.resolve_after, at, problems);
        for name in ["kind", "template"] {
            if self.labels.contains_key(name) {
                problems.push(Problem::at(format!("{at}/labels/{name}"), format!("the label '{name}' is set by the detector itself")));
            }
        }
        if self.max_alerts_per_minute == 0 {
            problems.push(Problem::at(format!("{at}/max_alerts_per_minute"), "would hold back every alert").suggest("5"));
        }
        if self.burst_lines == 0 {
            problems.push(Problem::at(format!("{at}/burst_lines"), "must be at least 1").suggest("20"));
        }
        if self.burst_baseline < Span::seconds(300) {
            let message = "must be at least 5m: what is usual takes time to know";
            problems.push(Problem::at(format!("{at}/burst_baseline"), message).suggest("1h"));
        }
        if self.burst_factor < 2 {
            problems.push(Problem::at(format!("{at}/burst_factor"), "must be at least 2: less is no burst").suggest("4"));
        }
        if self.new == Novelty::Off && !self.bursts && !self.stops {
            let problem = Problem::at(at, format!("rule '{}' looks for nothing: new, bursts and stops are all off", self.id));
            problems.push(problem.suggest("bursts: true"));
        }
    }
}

/// What the rule for everything else is called.
pub(super) const BUILTIN: &str = "log-template";

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = rules::check_all(&self.rules);
        for (bound, pointer) in [
            (self.max_templates, "/max_templates"),
            (self.max_template_bytes.bytes(), "/max_template_bytes"),
            (self.max_series, "/max_series"),
            (self.max_words, "/max_words"),
            (self.max_line_bytes.bytes(), "/max_line_bytes"),
            (self.max_fingerprints, "/max_fingerprints"),
        ] {
            rules::check_bound(bound, pointer, &mut problems);
        }
        if self.builtin_rule
            && let Some(index) = self.rules.iter().position(|rule| rule.id == BUILTIN)
        {
            let message = format!("'{BUILTIN}' is the rule for lines that concern no other; choose another id, or set builtin_rule: false");
            problems.push(Problem::at(format!("/rules/{index}/id"), message));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_needs_only_its_id() {
        let config: Config = serde_json::from_value(serde_json::json!({ "rules": [{ "id": "shop" }] })).unwrap();
        assert_eq!(config.rules, [Rule::new("shop")]);
        assert_eq!(config.validate(), []);
        let written = serde_json::json!({ "rules": [{ "id": "shop", "sources": ["shop"], "match": ["env=\"prod\""], "new": "all" }] });
        let config: Config = serde_json::from_value(written).unwrap();
        assert_eq!((config.validate(), config.rules[0].new, config.rules[0].matchers.len()), (vec![], Novelty::All, 1));
    }

    #[test]
    fn every_problem_is_named_with_its_place_and_a_way_out() {
        let config: Config = serde_json::from_value(serde_json::json!({ "max_templates": 0, "rules": [
            { "id": "log-template", "burst_lines": 0, "burst_factor": 1, "burst_baseline": "1m", "max_alerts_per_minute": 0, "labels": { "template": "x" } },
            { "id": "b", "new": "off", "bursts": false },
        ] }))
        .unwrap();
        let mut found: Vec<String> = config.validate().into_iter().map(|problem| problem.pointer).collect();
        found.sort();
        let expected = [
            "/max_templates",
            "/rules/0/burst_baseline",
            "/rules/0/burst_factor",
            "/rules/0/burst_lines",
            "/rules/0/id",
            "/rules/0/labels/template",
            "/rules/0/max_alerts_per_minute",
            "/rules/1",
        ];
        assert_eq!(found, expected);
    }
}
