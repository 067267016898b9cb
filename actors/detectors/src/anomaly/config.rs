//! What a user may say about `detector.anomaly`.

use std::collections::BTreeMap;

use opspilot_kernel::{
    config::{ModuleConfig, Problem, Size, Span, closest},
    matcher::Matcher,
    signal::Severity,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::method::Method;
use crate::{regex::Pattern, rules};

/// The most series that may be asked for, in memory and in all.
const MOST_SERIES: usize = 1_000_000;
const MOST_SHELVED: usize = 10_000_000;
/// The capture that is the number.
pub(super) const VALUE: &str = "value";
/// The rule that applies without any.
pub(super) const BUILTIN: &str = "unusual-metric";

/// Configuration of `detector.anomaly`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Whether every metric that no rule of yours is about is watched by `auto`. Its alerts are of
    /// severity `info` and open no incident: they support the alerts of others.
    pub builtin_rules: bool,
    /// How many series are held in memory, over all rules. When one more comes, the one that was
    /// silent for longest and has no open alert is put away: what is known of it is stored, and taken
    /// up again when it returns.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_series: usize,
    /// What the series in memory may take; beyond it they are put away in the same way.
    pub max_bytes: Size,
    /// How many series are known beside those in memory. When there are more, the one that was silent
    /// for longest and has no open alert is forgotten: should it return, it is learned anew.
    #[schemars(range(max = 10_000_000))]
    pub max_shelved: usize,
    /// A series that was not heard of for so long is forgotten.
    pub forget_after: Span,
    /// How many alerts may be open at a time. When one more begins, the one that would be resolved
    /// first is resolved early and says so.
    #[schemars(range(min = 1))]
    pub max_alerts: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            rules: Vec::new(),
            builtin_rules: true,
            max_series: 20_000,
            max_bytes: Size(256 << 20),
            max_shelved: 100_000,
            forget_after: Span::seconds(30 * 24 * 3600),
            max_alerts: 10_000,
        }
    }
}

/// A rule: unusual values of a series raise an alert, one for each series. It is over when no value
/// was outside of what is expected for `resolve_after`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The rule's name; it stays the same when the rule is edited.
    pub id: String,
    /// The metric's name, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// Look only at series, or with `extract` at log lines, for which all of these hold: matchers such
    /// as `service=~"web-.*"`. `source` is the source, `__name__` the metric's name.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matchers: Vec<Matcher>,
    /// Look only at these sources; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Take numbers from log lines, and not metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extract: Option<Extract>,
    /// How values are judged: `auto`, which needs no tuning, or `zscore`, `mad`, `iqr` or `ewma`, by
    /// name or with settings, as in `{ mad: { window: 500, direction: high } }`. When it is changed,
    /// its series are learned anew, from the signals of the last hour (a million at most) on.
    #[serde(default)]
    pub method: Method,
    /// An unusual value that is beyond what is expected by less than this is of no interest, in
    /// the metric's own unit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_change: f64,
    /// How bad it is.
    #[serde(default = "default_severity")]
    pub severity: Severity,
    /// Whether its alerts open incidents. Otherwise they are listed, and support the alerts of others.
    #[serde(default)]
    pub opens_incident: bool,
    /// One line for people. `$value`, `$expected`, `$unusual` (how unusual it is, in words), `$metric`,
    /// `$source` and `${labels.name}` stand for what they say; `$$` is a dollar sign. By default what
    /// is unusual, and where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// More for people, with the same names; by default how unusual it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Labels for the alert.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How long after an alert fires further unusual values are only counted. One after that fires
    /// again.
    #[serde(default = "default_cooldown")]
    pub cooldown: Span,
    /// How long without a value outside of what is expected until the alert is over.
    #[serde(default = "default_resolve_after")]
    pub resolve_after: Span,
}

/// How numbers are taken from log lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Extract {
    /// A regular expression whose capture `value` is the number: `took (?P<value>\d+) ms`. Other named
    /// captures become labels, and each set of them a series of its own.
    pub pattern: String,
    /// What the number is called; by default the rule's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its unit, such as `ms`, `s`, `bytes` or `%`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

const fn default_severity() -> Severity {
    Severity::Warning
}

const fn default_cooldown() -> Span {
    Span::seconds(3600)
}

const fn default_resolve_after() -> Span {
    Span::seconds(15 * 60)
}

impl Rule {
    /// A rule with nothing but a name: it is about every metric.
    pub fn new(id: impl Into<String>) -> Rule {
        Rule {
            id: id.into(),
            metric: None,
            matchers: Vec::new(),
            sources: Vec::new(),
            extract: None,
            method: Method::default(),
            min_change: 0.0,
            severity: default_severity(),
            opens_incident: false,
            title: None,
            description: String::new(),
            labels: BTreeMap::new(),
            cooldown: default_cooldown(),
            resolve_after: default_resolve_after(),
        }
    }

    /// The rule about every metric that no other is about.
    pub(super) fn builtin() -> Rule {
        Rule { severity: Severity::Info, ..Rule::new(BUILTIN) }
    }
}

impl rules::Rule for Rule {
    fn id(&self) -> &str {
        &self.id
    }

    fn problems(&self, at: &str, problems: &mut Vec<Problem>) {
        if self.id == BUILTIN {
            problems.push(Problem::at(format!("{at}/id"), format!("'{BUILTIN}' is the name of the built-in rule")));
        }
        match (&self.metric, &self.extract) {
            (Some(_), Some(_)) => {
                problems.push(Problem::at(format!("{at}/metric"), "a rule is about a metric or takes numbers from log lines, not both"));
            }
            (Some(name), None) if name.is_empty() => problems.push(Problem::at(format!("{at}/metric"), "the metric's name is empty")),
            (None, None) if self.matchers.is_empty() && self.sources.is_empty() => {
                let problem = Problem::at(at, "it does not say what it is about: name a metric, matchers, sources, or what to extract");
                problems.push(problem.suggest("match: ['__name__=~\".+\"']"));
            }
            _ => {}
        }
        if let Some(extract) = &self.extract {
            extract.problems(&format!("{at}/extract"), problems);
        }
        problems.extend(self.method.problems(&format!("{at}/method")));
        if !self.min_change.is_finite() || self.min_change < 0.0 {
            problems.push(Problem::at(format!("{at}/min_change"), "must be 0 or a number above"));
        }
        rules::check_labels(&self.labels, at, problems);
        rules::check_texts(self.title.as_deref(), &self.description, unknown_name, at, problems);
        rules::check_resolve_after(self.resolve_after, at, problems);
    }
}

impl Extract {
    fn problems(&self, at: &str, problems: &mut Vec<Problem>) {
        match Pattern::read(&self.pattern) {
            Err(why) => problems.push(Problem::at(format!("{at}/pattern"), format!("the pattern is refused: {why}"))),
            Ok(pattern) if !pattern.names.contains(VALUE) => {
                let problem = Problem::at(format!("{at}/pattern"), "no capture is named 'value': that is the number");
                problems.push(problem.suggest(r"(?P<value>\d+)"));
            }
            Ok(pattern) => {
                for name in ["alertname", "metric", "source"].into_iter().filter(|name| pattern.names.contains(*name)) {
                    problems.push(Problem::at(format!("{at}/pattern"), format!("the label '{name}' is set by the detector itself")));
                }
            }
        }
        if self.name.as_ref().is_some_and(String::is_empty) {
            problems.push(Problem::at(format!("{at}/name"), "the name is empty"));
        }
    }
}

fn unknown_name(name: &str) -> Option<Problem> {
    const KNOWN: [&str; 5] = ["value", "expected", "unusual", "metric", "source"];
    if KNOWN.contains(&name) || name.starts_with("labels.") {
        return None;
    }
    let text = format!("'${name}' is not known here; there are $value, $expected, $unusual, $metric, $source and ${{labels.name}}");
    let meant = closest(name, KNOWN).map_or_else(|| format!("${{labels.{name}}}"), |meant| format!("${meant}"));
    Some(Problem::at("", text).suggest(meant))
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = rules::check_all(&self.rules);
        rules::check_bound(self.max_series, "/max_series", &mut problems);
        rules::check_bound(self.max_alerts, "/max_alerts", &mut problems);
        if self.max_series > MOST_SERIES {
            problems.push(Problem::at("/max_series", format!("must be at most {MOST_SERIES}")));
        }
        if self.max_shelved > MOST_SHELVED {
            problems.push(Problem::at("/max_shelved", format!("must be at most {MOST_SHELVED}")));
        }
        if self.max_bytes.0 < 1 << 20 {
            problems.push(Problem::at("/max_bytes", "must be at least 1MiB").suggest("256MiB"));
        }
        if self.forget_after < Span::seconds(2 * 3600) {
            problems.push(Problem::at("/forget_after", "must be at least 2h").suggest("30d"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_needs_only_an_id_and_what_it_is_about() {
        let json = serde_json::json!({ "rules": [
            { "id": "latency", "metric": "latency_ms" },
            { "id": "web", "match": ["service=~\"web-.*\""], "method": { "mad": { "window": 500, "direction": "high" } } },
            { "id": "took", "extract": { "pattern": r"took (?P<value>\d+) ms for (?P<route>\S+)", "unit": "ms" } },
        ] });
        let config: Config = serde_json::from_value(json).unwrap();
        assert_eq!(config.validate(), []);
        assert_eq!(config.rules[0], Rule { metric: Some("latency_ms".to_owned()), ..Rule::new("latency") });
        assert_eq!(config.rules[1].method.name(), "mad");
    }

    #[test]
    fn every_problem_is_named_with_its_place_and_a_way_out() {
        let json = serde_json::json!({ "max_series": 0, "max_bytes": "1KiB", "forget_after": "1m", "max_alerts": 0, "max_shelved": 10_000_001, "rules": [
            { "id": "a" },
            { "id": "b", "metric": "m", "extract": { "pattern": "(" } },
            { "id": "c", "extract": { "pattern": r"took (\d+) ms", "name": "" }, "title": "$vlue $mount" },
            { "id": "d", "metric": "", "min_change": -1, "labels": { "source": "x" }, "resolve_after": "1ms", "method": { "mad": { "window": 1 } } },
            { "id": "unusual-metric", "extract": { "pattern": r"(?P<value>\d) (?P<source>x)" } },
        ] });
        let config: Config = serde_json::from_value(json).unwrap();
        let found: Vec<(String, Option<String>)> =
            config.validate().into_iter().map(|problem| (problem.pointer, problem.suggestion)).collect();
        let at =
            |pointer: &str| found.iter().find(|(found, _)| found == pointer).unwrap_or_else(|| panic!("{pointer}: {found:?}")).1.clone();
        assert_eq!(at("/rules/0"), Some("match: ['__name__=~\".+\"']".to_owned()));
        assert_eq!(at("/rules/2/extract/pattern"), Some(r"(?P<value>\d+)".to_owned()));
        assert_eq!(at("/rules/2/title"), Some("$value".to_owned()));
        for pointer in [
            "/rules/1/metric",
            "/rules/1/extract/pattern",
            "/rules/2/extract/name",
            "/rules/3/metric",
            "/rules/3/min_change",
            "/rules/3/labels/source",
            "/rules/3/resolve_after",
            "/rules/3/method/mad/window",
            "/rules/4/id",
            "/rules/4/extract/pattern",
            "/max_series",
            "/max_bytes",
            "/forget_after",
            "/max_alerts",
            "/max_shelved",
        ] {
            at(pointer);
        }
    }
}
