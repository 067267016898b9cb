//! What a user may say about `detector.threshold`.

use opspilot_kernel::config::{ModuleConfig, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    aggregation::Aggregation,
    rule::{self, Rule},
    slo::Slo,
};
use crate::rules;

/// The most series that may be asked for.
const MOST_SERIES: usize = 1_000_000;
/// Between so many values of a window one may choose to keep one by one.
const SAMPLES: std::ops::RangeInclusive<usize> = 16..=65_536;

/// Configuration of `detector.threshold`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Service level objectives: alerts when an error budget is spent too fast, over two windows at a time.
    pub slos: Vec<Slo>,
    /// Whether the rules for the host's own metrics apply: processor, memory and disk above 90 %.
    /// Each gives way to any rule of yours on the same metric.
    pub builtin_rules: bool,
    /// How many series may be followed at a time, over all rules, and as many again for all objectives. When one more
    /// comes, the one that was silent for longest is forgotten; if its alert fires, that is resolved and says so. The
    /// same happens when the names and labels of all series take more than 64 MiB.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_series: usize,
    /// How many values of a series' window are kept one by one, at 16 bytes each (24 for percentiles). When more fall into
    /// it, the oldest are joined to 64 parts of the window, and its far edge blurs by one part; of a percentile's window
    /// they leave early. Both are counted in `opspilot_detector_threshold_crowded_total`.
    #[schemars(range(min = 16, max = 65_536))]
    pub max_samples: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { rules: Vec::new(), slos: Vec::new(), builtin_rules: true, max_series: 10_000, max_samples: 1024 }
    }
}

impl Config {
    /// The rules that apply, built-in ones included.
    pub(crate) fn effective_rules(&self) -> Vec<Rule> {
        let rules = self.rules.clone();
        if self.builtin_rules { rule::with_builtin(rules) } else { rules }
    }

    fn sample_problems(&self, problems: &mut Vec<Problem>) {
        if !SAMPLES.contains(&self.max_samples) {
            problems.push(Problem::at("/max_samples", format!("must be between {} and {}", SAMPLES.start(), SAMPLES.end())));
        }
        for (index, rule) in self.rules.iter().enumerate() {
            let counts_all = !matches!(rule.agg, Aggregation::Last | Aggregation::Percentile(_));
            if !counts_all && usize::try_from(rule.min_samples).is_ok_and(|least| least > self.max_samples) {
                let message = format!("more than max_samples ({}), so that nothing would ever be compared", self.max_samples);
                problems.push(Problem::at(format!("/rules/{index}/min_samples"), message));
            }
        }
    }
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut seen = std::collections::BTreeSet::new();
        let mut problems = rules::check_list(&self.rules, "/rules", &mut seen);
        problems.extend(rules::check_list(&self.slos, "/slos", &mut seen));
        rules::check_bound(self.max_series, "/max_series", &mut problems);
        if self.max_series > MOST_SERIES {
            problems.push(Problem::at("/max_series", format!("must be at most {MOST_SERIES}")));
        }
        self.sample_problems(&mut problems);
        problems
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
