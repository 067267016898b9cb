//! What a user may say about `detector.threshold`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use opspilot_kernel::{
    config::{ModuleConfig, Problem, Span, closest},
    signal::Severity,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

/// The most series that may be asked for.
const MOST_SERIES: usize = 1_000_000;

/// Configuration of `detector.threshold`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Whether the rules for the host's own metrics apply: processor, memory and disk above 90 %.
    /// Each gives way to any rule of yours on the same metric.
    pub builtin_rules: bool,
    /// How many series may be followed at a time, over all rules. When one more comes, the one that
    /// was silent for longest is forgotten; if its alert fires, that is resolved and says so. The same happens when the
    /// names and labels of all series take more than 64 MiB.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_series: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { rules: Vec::new(), builtin_rules: true, max_series: 10_000 }
    }
}

/// A rule: a metric beyond a limit raises an alert, one for each source and set of labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The rule's name; it stays the same when the rule is edited.
    pub id: String,
    /// The metric's name, exactly.
    pub metric: String,
    /// Look only at series that have all these labels with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Look only at series of this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What of the window is compared. `last`, the default, is the newest value by itself; the others
    /// are taken over all values in the window whenever a new one comes.
    #[serde(default)]
    pub agg: Aggregation,
    /// How far back the values count, by their own time.
    #[serde(default = "default_window")]
    pub window: Span,
    /// How it is compared.
    pub op: Comparison,
    /// What it is compared with.
    pub value: f64,
    /// How long the comparison must hold before the alert fires, by the clock or by the values' own
    /// times, so that values which arrive late, many at once, fire too. A series that is silent for
    /// longer than its window does not fire until it speaks again.
    #[serde(default = "default_for", rename = "for")]
    pub hold: Span,
    /// The alert is over when the comparison does not hold with this value any more; by default with
    /// `value`. For `gt` and `gte` it lies below `value`, for `lt` and `lte` above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear: Option<f64>,
    /// With fewer values in the window nothing is compared.
    #[serde(default = "default_min_samples")]
    pub min_samples: u32,
    /// How bad it is.
    #[serde(default = "default_severity")]
    pub severity: Severity,
    /// One line for people. `$value`, `$metric`, `$source` and `${labels.name}` stand for what they
    /// say; `$$` is a dollar sign. By default what was compared, and where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// More for people, with the same names.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How long without any value until the alert is over.
    #[serde(default = "default_resolve_after")]
    pub resolve_after: Span,
}

/// One number for the values in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Aggregation {
    /// The newest value, by its own time.
    #[default]
    Last,
    /// Their mean.
    Avg,
    /// The least of them.
    Min,
    /// The greatest of them.
    Max,
    /// Their sum.
    Sum,
    /// How many there are.
    Count,
}

impl Aggregation {
    /// Every aggregation.
    pub const ALL: [Aggregation; 6] =
        [Aggregation::Last, Aggregation::Avg, Aggregation::Min, Aggregation::Max, Aggregation::Sum, Aggregation::Count];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Aggregation::Last => "last",
            Aggregation::Avg => "avg",
            Aggregation::Min => "min",
            Aggregation::Max => "max",
            Aggregation::Sum => "sum",
            Aggregation::Count => "count",
        }
    }
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Comparison {
    /// Greater than.
    Gt,
    /// Greater than or equal.
    Gte,
    /// Less than.
    Lt,
    /// Less than or equal.
    Lte,
    /// Equal, exactly.
    Eq,
}

impl Comparison {
    /// Whether `value` stands in this relation to `limit`.
    #[allow(clippy::float_cmp, reason = "the user asked for equality")]
    pub(crate) fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Comparison::Gt => value > limit,
            Comparison::Gte => value >= limit,
            Comparison::Lt => value < limit,
            Comparison::Lte => value <= limit,
            Comparison::Eq => value == limit,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Comparison::Gt => ">",
            Comparison::Gte => ">=",
            Comparison::Lt => "<",
            Comparison::Lte => "<=",
            Comparison::Eq => "==",
        })
    }
}

const fn default_window() -> Span {
    Span::seconds(60)
}

const fn default_for() -> Span {
    Span::seconds(0)
}

const fn default_min_samples() -> u32 {
    1
}

const fn default_severity() -> Severity {
    Severity::Warning
}

const fn default_resolve_after() -> Span {
    Span::seconds(15 * 60)
}

impl Rule {
    /// A rule with nothing but what a rule must have.
    pub fn new(id: impl Into<String>, metric: impl Into<String>, op: Comparison, value: f64) -> Rule {
        Rule {
            id: id.into(),
            metric: metric.into(),
            labels: BTreeMap::new(),
            source: None,
            agg: Aggregation::default(),
            window: default_window(),
            op,
            value,
            hold: default_for(),
            clear: None,
            min_samples: default_min_samples(),
            severity: default_severity(),
            title: None,
            description: String::new(),
            resolve_after: default_resolve_after(),
        }
    }
}

impl rules::Rule for Rule {
    fn id(&self) -> &str {
        &self.id
    }

    fn problems(&self, at: &str, problems: &mut Vec<Problem>) {
        let mut problem = |key: &str, message: &str| problems.push(Problem::at(format!("{at}/{key}"), message));
        if self.metric.is_empty() {
            problem("metric", "the metric's name is empty");
        }
        if !self.value.is_finite() {
            problem("value", "must be a finite number");
        }
        match (self.op, self.clear) {
            (_, None) => {}
            (_, Some(clear)) if !clear.is_finite() => problem("clear", "must be a finite number"),
            (Comparison::Eq, Some(_)) => problem("clear", "has no meaning with eq; leave it out"),
            (Comparison::Gt | Comparison::Gte, Some(clear)) if clear > self.value => {
                problem("clear", "must not be above value, or the alert would be over while it fires");
            }
            (Comparison::Lt | Comparison::Lte, Some(clear)) if clear < self.value => {
                problem("clear", "must not be below value, or the alert would be over while it fires");
            }
            _ => {}
        }
        if self.window < Span::seconds(1) {
            problem("window", "must be at least 1s");
        }
        if self.min_samples == 0 {
            problem("min_samples", "must be at least 1");
        }
        rules::check_texts(self.title.as_deref(), &self.description, unknown_name, at, problems);
        rules::check_resolve_after(self.resolve_after, at, problems);
    }
}

fn unknown_name(name: &str) -> Option<Problem> {
    const KNOWN: [&str; 3] = ["value", "metric", "source"];
    if KNOWN.contains(&name) || name.starts_with("labels.") {
        return None;
    }
    let problem = Problem::at("", format!("'${name}' is not known here; there are $value, $metric, $source and ${{labels.name}}"));
    let meant = closest(name, KNOWN).map_or_else(|| format!("${{labels.{name}}}"), |meant| format!("${meant}"));
    Some(problem.suggest(meant))
}

/// What watches the host without being told to.
fn builtin() -> [Rule; 3] {
    let rule = |id: &str, metric: &str, agg, hold, clear, what: &str| Rule {
        agg,
        hold,
        clear: Some(clear),
        title: Some(format!("{what} $value % on $source")),
        ..Rule::new(id, metric, Comparison::Gt, 90.0)
    };
    let five_minutes = Span::seconds(300);
    [
        rule("host-cpu-high", "cpu_percent", Aggregation::Avg, five_minutes, 80.0, "Processor busy:"),
        rule("host-memory-high", "memory_percent", Aggregation::Avg, five_minutes, 85.0, "Memory nearly full:"),
        rule("host-disk-full", "disk_percent", Aggregation::Last, Span::seconds(60), 88.0, "Disk ${labels.mount} nearly full:"),
    ]
}

impl Config {
    /// The rules that apply, built-in ones included.
    pub(crate) fn effective_rules(self) -> Vec<Rule> {
        let mut rules = self.rules;
        if self.builtin_rules {
            let yours: BTreeSet<String> = rules.iter().flat_map(|rule| [rule.metric.clone(), rule.id.clone()]).collect();
            rules.extend(builtin().into_iter().filter(|rule| !yours.contains(&rule.metric) && !yours.contains(&rule.id)));
        }
        rules
    }
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = rules::check_all(&self.rules);
        rules::check_bound(self.max_series, "/max_series", &mut problems);
        if self.max_series > MOST_SERIES {
            problems.push(Problem::at("/max_series", format!("must be at most {MOST_SERIES}")));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_needs_only_id_metric_op_and_value() {
        let json = serde_json::json!({ "rules": [{ "id": "cpu", "metric": "cpu_percent", "op": "gt", "value": 90 }] });
        let config: Config = serde_json::from_value(json).unwrap();
        assert_eq!(config.rules, [Rule::new("cpu", "cpu_percent", Comparison::Gt, 90.0)]);
        assert_eq!(config.validate(), []);
        assert_eq!((config.rules[0].agg, config.rules[0].window.to_string()), (Aggregation::Last, "1m".to_owned()));
    }

    #[test]
    fn built_in_rules_are_sound_and_give_way_to_the_users_own() {
        let builtin = Config { rules: builtin().to_vec(), ..Config::default() };
        assert_eq!(builtin.validate(), []);
        let own = Config { rules: vec![Rule::new("mine", "cpu_percent", Comparison::Gt, 50.0)], ..Config::default() };
        let ids: Vec<String> = own.clone().effective_rules().into_iter().map(|rule| rule.id).collect();
        assert_eq!(ids, ["mine", "host-memory-high", "host-disk-full"]);
        assert_eq!(Config { builtin_rules: false, ..own }.effective_rules().len(), 1);
    }

    #[test]
    fn the_number_of_series_has_an_upper_bound() {
        let config = |max_series| Config { max_series, ..Config::default() };
        assert_eq!(config(1_000_000).validate(), []);
        assert_eq!(config(1_000_001).validate()[0].pointer, "/max_series");
    }

    #[test]
    fn every_problem_is_named_with_its_place_and_a_way_out() {
        let json = serde_json::json!({ "max_series": 0, "rules": [
            { "id": "a", "metric": "", "op": "gt", "value": 90, "clear": 91, "window": "0s", "min_samples": 0, "resolve_after": "1ms" },
            { "id": "a", "metric": "m", "op": "lt", "value": 5, "clear": 4, "title": "$vlue in $mount" },
            { "id": "b", "metric": "m", "op": "eq", "value": 5, "clear": 5 },
        ] });
        let config: Config = serde_json::from_value(json).unwrap();
        let found: Vec<(String, Option<String>)> =
            config.validate().into_iter().map(|problem| (problem.pointer, problem.suggestion)).collect();
        let expected = [
            ("/rules/0/metric", None),
            ("/rules/0/clear", None),
            ("/rules/0/window", None),
            ("/rules/0/min_samples", None),
            ("/rules/0/resolve_after", Some("15m")),
            ("/rules/1/id", None),
            ("/rules/1/clear", None),
            ("/rules/1/title", Some("$value")),
            ("/rules/1/title", Some("${labels.mount}")),
            ("/rules/2/clear", None),
            ("/max_series", None),
        ];
        let expected: Vec<(String, Option<String>)> =
            expected.into_iter().map(|(at, hint)| (at.to_owned(), hint.map(str::to_owned))).collect();
        assert_eq!(found, expected);
        let infinite = Config { rules: vec![Rule::new("x", "m", Comparison::Gt, f64::INFINITY)], ..Config::default() };
        assert_eq!(infinite.validate().len(), 1);
    }
}
