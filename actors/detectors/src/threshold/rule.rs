//! What a user may say in a rule about one metric.

use std::collections::{BTreeMap, BTreeSet};

use opspilot_kernel::{
    config::{Problem, Span, closest},
    matcher::Matcher,
    signal::Severity,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{aggregation::Aggregation, comparison::Comparison};
use crate::rules;

/// A rule: a metric beyond a limit, or one that falls silent, raises an alert, one for each source and set of labels.
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
    /// Look only at series for which all these matchers hold, such as `env="prod"` or `path!~"/internal/.*"`; `source`
    /// is who sends it.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matchers: Vec<Matcher>,
    /// Look only at series of this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What of the window is compared. `last`, the default, is the newest value by itself; the others are taken over all
    /// values in the window whenever a new one comes: `avg`, `min`, `max`, `sum`, `count`; percentiles such as `p95` or
    /// `p99.9`, exact and interpolated as in Prometheus' `quantile_over_time`; for counters `rate` (per second) and
    /// `increase`, which see a counter begin anew, and for gauges `delta`, all three extrapolated to the window's edges
    /// as Prometheus does it.
    #[serde(default)]
    pub agg: Aggregation,
    /// How far back the values count, by their own time. A value that comes late counts where it belongs while that lies
    /// within the window; of two with the same time the later one counts. One whose time lies ahead counts as of its
    /// receipt.
    #[serde(default = "default_window")]
    pub window: Span,
    /// How it is compared. A rule that has only `absent_after` needs neither this nor `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<Comparison>,
    /// What it is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// How long the comparison must hold before the alert fires, by the clock or by the values' own
    /// times, so that values which arrive late, many at once, fire too. A series that is silent for
    /// longer than its window does not fire until it speaks again.
    #[serde(default = "no_time", rename = "for")]
    pub hold: Span,
    /// The alert is over when the comparison does not hold with this value any more; by default with
    /// `value`. For `gt` and `gte` it lies below `value`, for `lt` and `lte` above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear: Option<f64>,
    /// How long the alert still fires after it would be over, by the clock or by the values' own times; if the comparison
    /// holds again meanwhile, it goes on as if nothing had happened.
    #[serde(default = "no_time")]
    pub keep_firing_for: Span,
    /// With fewer values in the window nothing is compared. `rate`, `increase` and `delta` need two in any case.
    #[serde(default = "default_min_samples")]
    pub min_samples: u32,
    /// Also raise an alert when a series sends nothing for so long, by the clock; it is over when the series speaks again.
    /// While no series at all is followed, one alert for the whole rule says so, also if there never was any. Without it
    /// silence raises nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent_after: Option<Span>,
    /// With `absent_after`: a series that was silent for so long is not expected any more, and its alert is over.
    #[serde(default = "default_forget_after")]
    pub forget_after: Span,
    /// How bad it is.
    #[serde(default = "default_severity")]
    pub severity: Severity,
    /// One line for people. `$value`, `$metric`, `$source` and `${labels.name}` stand for what they
    /// say; `$$` is a dollar sign. By default what was compared, and where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// More for people, with the same names. By default what the window held.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How long without any value until the alert is over.
    #[serde(default = "default_resolve_after")]
    pub resolve_after: Span,
}

const fn default_window() -> Span {
    Span::seconds(60)
}

const fn no_time() -> Span {
    Span::seconds(0)
}

const fn default_min_samples() -> u32 {
    1
}

const fn default_forget_after() -> Span {
    Span::seconds(24 * 3600)
}

const fn default_severity() -> Severity {
    Severity::Warning
}

const fn default_resolve_after() -> Span {
    Span::seconds(15 * 60)
}

impl Rule {
    /// A rule with nothing but what a rule about a limit must have.
    pub fn new(id: impl Into<String>, metric: impl Into<String>, op: Comparison, value: f64) -> Rule {
        Rule { op: Some(op), value: Some(value), ..Rule::bare(id.into(), metric.into()) }
    }

    /// A rule about nothing but silence.
    pub fn absent(id: impl Into<String>, metric: impl Into<String>, after: Span) -> Rule {
        Rule { absent_after: Some(after), ..Rule::bare(id.into(), metric.into()) }
    }

    fn bare(id: String, metric: String) -> Rule {
        Rule {
            id,
            metric,
            labels: BTreeMap::new(),
            matchers: Vec::new(),
            source: None,
            agg: Aggregation::default(),
            window: default_window(),
            op: None,
            value: None,
            hold: no_time(),
            clear: None,
            keep_firing_for: no_time(),
            min_samples: default_min_samples(),
            absent_after: None,
            forget_after: default_forget_after(),
            severity: default_severity(),
            title: None,
            description: String::new(),
            resolve_after: default_resolve_after(),
        }
    }

    /// What is compared, if anything is.
    pub(crate) fn limit(&self) -> Option<(Comparison, f64)> {
        self.op.zip(self.value)
    }

    fn limit_problems(&self, at: &str, problems: &mut Vec<Problem>) {
        let mut problem = |key: &str, message: &str| problems.push(Problem::at(format!("{at}/{key}"), message));
        match (self.op, self.value) {
            (None, None) if self.absent_after.is_none() => {
                problem("op", "there is nothing to look for: give op and value, or absent_after");
            }
            (None, None) if self.clear.is_some() => problem("clear", "has no meaning without op and value"),
            (Some(_), None) => problem("value", "is missing: what is it compared with?"),
            (None, Some(_)) => problem("op", "is missing: one of gt, gte, lt, lte, eq, ne"),
            (_, Some(value)) if !value.is_finite() => problem("value", "must be a finite number"),
            _ => {}
        }
        let (Some((op, value)), Some(clear)) = (self.limit(), self.clear) else { return };
        match op {
            _ if !clear.is_finite() => problem("clear", "must be a finite number"),
            Comparison::Eq | Comparison::Ne => problem("clear", "has no meaning with eq and ne; leave it out"),
            Comparison::Gt | Comparison::Gte if clear > value => {
                problem("clear", "must not be above value, or the alert would be over while it fires");
            }
            Comparison::Lt | Comparison::Lte if clear < value => {
                problem("clear", "must not be below value, or the alert would be over while it fires");
            }
            _ => {}
        }
    }
}

impl rules::Rule for Rule {
    fn id(&self) -> &str {
        &self.id
    }

    fn problems(&self, at: &str, problems: &mut Vec<Problem>) {
        self.limit_problems(at, problems);
        let mut problem = |key: &str, message: &str| problems.push(Problem::at(format!("{at}/{key}"), message));
        if self.metric.is_empty() {
            problem("metric", "the metric's name is empty");
        }
        if self.window < Span::seconds(1) {
            problem("window", "must be at least 1s");
        }
        if self.min_samples == 0 {
            problem("min_samples", "must be at least 1");
        }
        if let Some(after) = self.absent_after {
            if after < Span::seconds(1) {
                problem("absent_after", "must be at least 1s");
            }
            if self.forget_after <= after {
                problem("forget_after", "must be longer than absent_after, or no series is ever missed");
            }
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

/// `rules` and, where none of them is about the same metric, the built-in ones.
pub(crate) fn with_builtin(mut rules: Vec<Rule>) -> Vec<Rule> {
    let yours: BTreeSet<String> = rules.iter().flat_map(|rule| [rule.metric.clone(), rule.id.clone()]).collect();
    rules.extend(builtin().into_iter().filter(|rule| !yours.contains(&rule.metric) && !yours.contains(&rule.id)));
    rules
}

#[cfg(test)]
pub(crate) fn builtin_rules() -> Vec<Rule> {
    builtin().to_vec()
}
