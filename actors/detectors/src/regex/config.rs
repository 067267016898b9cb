//! What a user may say about `detector.regex`.

use std::collections::BTreeMap;

use opspilot_kernel::{
    config::{ModuleConfig, Problem, Span, closest},
    matcher::Matcher,
    signal::Severity,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pattern::Pattern;
use crate::rules;

/// Configuration of `detector.regex`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The rules; without any, the module does nothing.
    pub rules: Vec<Rule>,
    /// How many alerts may be firing at a time, over all rules. When one more begins, the one that
    /// would be resolved first is resolved early and says so.
    pub max_fingerprints: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { rules: Vec::new(), max_fingerprints: 10_000 }
    }
}

/// A rule: lines that match its pattern raise an alert, one for each source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The rule's name; it stays the same when the rule is edited.
    pub id: String,
    /// A regular expression (the syntax of the `regex` crate), looked for anywhere in a log line.
    pub pattern: String,
    /// How bad a match is.
    #[serde(default = "default_severity")]
    pub severity: Severity,
    /// One line for people. `$name`, `${name}` and `$1` stand for captures, `$source` for the source;
    /// `$$` is a dollar sign. By default the rule's id and the line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// More for people, with the same names; by default the line, unless it is in the title.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How long after an alert fires further matches are only counted. A match after that fires
    /// again, so that an incident which a person resolved can reopen.
    #[serde(default = "default_cooldown")]
    pub cooldown: Span,
    /// How long without a match until the alert is over.
    #[serde(default = "default_resolve_after")]
    pub resolve_after: Span,
    /// A line of the same source that matches this ends the alert. Such a line never raises it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve_pattern: Option<String>,
    /// How many new alerts the rule may raise in a minute. What is held back is counted and told in
    /// one alert of its own a minute.
    #[serde(default = "default_cap")]
    pub max_alerts_per_minute: u32,
    /// Labels for the alert, with the same names as in the title: `order: '$order'` is what was captured when it last
    /// fired. They do not tell alerts apart: a rule has one alert for each source, whatever it captures.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Look only at lines of these sources; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Look only at lines whose labels match all of these, as in `env="prod"`; `source` is the source.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matchers: Vec<Matcher>,
    /// A line that matches one of these patterns never raises the alert.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

const fn default_severity() -> Severity {
    Severity::Error
}

const fn default_cooldown() -> Span {
    Span::seconds(30)
}

const fn default_resolve_after() -> Span {
    Span::seconds(15 * 60)
}

const fn default_cap() -> u32 {
    1000
}

impl Rule {
    /// A rule with nothing but what a rule must have.
    pub fn new(id: impl Into<String>, pattern: impl Into<String>) -> Rule {
        Rule {
            id: id.into(),
            pattern: pattern.into(),
            severity: default_severity(),
            title: None,
            description: String::new(),
            cooldown: default_cooldown(),
            resolve_after: default_resolve_after(),
            resolve_pattern: None,
            max_alerts_per_minute: default_cap(),
            labels: BTreeMap::new(),
            sources: Vec::new(),
            matchers: Vec::new(),
            exclude: Vec::new(),
        }
    }
}

impl rules::Rule for Rule {
    fn id(&self) -> &str {
        &self.id
    }

    fn problems(&self, at: &str, problems: &mut Vec<Problem>) {
        let pattern = match Pattern::read(&self.pattern) {
            Ok(pattern) => Some(pattern),
            Err(why) => {
                problems.push(Problem::at(format!("{at}/pattern"), format!("the pattern of rule '{}' is refused: {why}", self.id)));
                None
            }
        };
        if let Some(why) = self.resolve_pattern.as_ref().and_then(|text| Pattern::read(text).err()) {
            let message = format!("the resolve_pattern of rule '{}' is refused: {why}", self.id);
            problems.push(Problem::at(format!("{at}/resolve_pattern"), message));
        }
        for (index, text) in self.exclude.iter().enumerate() {
            if let Err(why) = Pattern::read(text) {
                let message = format!("a pattern to exclude of rule '{}' is refused: {why}", self.id);
                problems.push(Problem::at(format!("{at}/exclude/{index}"), message));
            }
        }
        let unknown = |name: &str| pattern.as_ref().and_then(|pattern| unknown_capture(name, pattern));
        rules::check_texts(self.title.as_deref(), &self.description, unknown, at, problems);
        for (name, text) in &self.labels {
            rules::check_text(text, unknown, &format!("{at}/labels/{name}"), problems);
        }
        rules::check_labels(&self.labels, at, problems);
        rules::check_resolve_after(self.resolve_after, at, problems);
        if self.max_alerts_per_minute == 0 {
            problems.push(Problem::at(format!("{at}/max_alerts_per_minute"), "would hold back every alert").suggest("1000"));
        }
    }
}

/// The problem with a name in a title, if the pattern captures nothing of that name.
fn unknown_capture(name: &str, pattern: &Pattern) -> Option<Problem> {
    if name == "source" || pattern.names.contains(name) {
        return None;
    }
    if let Ok(number) = name.parse::<u32>() {
        let message = match pattern.groups {
            _ if number <= pattern.groups => return None,
            0 => format!("'${name}' names a capture, but the pattern has none; write $$ for a dollar sign"),
            groups => format!("'${name}' names a capture, but the pattern has only {groups}; write $$ for a dollar sign"),
        };
        return Some(Problem::at("", message));
    }
    let problem = Problem::at("", format!("'${name}' names no capture of the pattern"));
    Some(match closest(name, pattern.names.iter().map(String::as_str).chain(["source"])) {
        Some(meant) => problem.suggest(format!("${meant}")),
        None if name.len() > 1 => {
            match pattern.names.iter().filter(|known| name.starts_with(known.as_str())).max_by_key(|known| known.len()) {
                Some(meant) => problem.suggest(format!("${{{meant}}}")),
                None => problem,
            }
        }
        None => problem,
    })
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = rules::check_all(&self.rules);
        rules::check_bound(self.max_fingerprints, "/max_fingerprints", &mut problems);
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(json: serde_json::Value) -> Vec<(String, String, Option<String>)> {
        let config: Config = serde_json::from_value(json).unwrap();
        config.validate().into_iter().map(|problem| (problem.pointer, problem.message, problem.suggestion)).collect()
    }

    #[test]
    fn a_rule_needs_only_its_id_and_its_pattern() {
        let config: Config = serde_json::from_value(serde_json::json!({ "rules": [{ "id": "oom", "pattern": "OOM killed" }] })).unwrap();
        assert_eq!(config.rules, [Rule::new("oom", "OOM killed")]);
        assert_eq!(config.validate(), []);
        assert_eq!(config.rules[0].severity, Severity::Error);
        assert_eq!(config.rules[0].cooldown.to_string(), "30s");
        assert_eq!(config.rules[0].resolve_after.to_string(), "15m");
        assert_eq!(config.rules[0].max_alerts_per_minute, 1000);
    }

    #[test]
    fn every_problem_is_named_with_its_place_and_a_way_out() {
        let found = problems(serde_json::json!({ "max_fingerprints": 0, "rules": [
            { "id": "a", "pattern": "x(y" , "resolve_pattern": "z*", "resolve_after": "0s", "max_alerts_per_minute": 0 },
            { "id": "a", "pattern": r"order (?P<order>\d+)", "title": "order $ordr costs $2", "description": "${x" },
            { "id": "", "pattern": r"order (?P<order>\d+)", "title": "$orders_failed", "labels": { "": "x", "order": "$ordr" }, "exclude": ["fine", "x("] },
        ] }));
        let has = |pointer: &str, part: &str, suggestion: Option<&str>| {
            assert!(
                found.iter().any(|(at, message, hint)| at == pointer && message.contains(part) && hint.as_deref() == suggestion),
                "{pointer} {part} {suggestion:?} not in {found:#?}"
            );
        };
        has("/rules/0/pattern", "unclosed group, at column 2", None);
        has("/rules/0/resolve_pattern", "matches the empty text", None);
        has("/rules/0/resolve_after", "at least 1s", Some("15m"));
        has("/rules/0/max_alerts_per_minute", "every alert", Some("1000"));
        has("/rules/1/id", "'a'", None);
        has("/rules/1/title", "'$ordr'", Some("$order"));
        has("/rules/1/title", "only 1", None);
        has("/rules/1/description", "never closed", None);
        has("/rules/2/id", "empty", None);
        has("/rules/2/title", "'$orders_failed'", Some("${order}"));
        has("/rules/2/labels", "empty", None);
        has("/rules/2/labels/order", "'$ordr'", Some("$order"));
        has("/rules/2/exclude/1", "unclosed group", None);
        has("/max_fingerprints", "at least 1", None);
        assert_eq!(found.len(), 14, "{found:#?}");
    }
}
