//! A rule made ready.

use std::time::Duration;

use opspilot_kernel::{matcher::all_hold, signal::SignalRef};

use super::{aggregation::Aggregation, rule::Rule, window::Shape};
use crate::template::Template;

/// A rule made ready.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) rule: Rule,
    pub(crate) digest: u64,
    pub(crate) shape: Shape,
    pub(crate) title: Option<Template>,
    pub(crate) description: Template,
}

impl Compiled {
    pub(crate) fn new(rule: Rule, max_samples: usize) -> Compiled {
        let selected = (&rule.metric, &rule.labels, &rule.matchers, &rule.source);
        let compared = (rule.agg, rule.window, rule.op, rule.value, rule.hold, rule.clear, rule.keep_firing_for, rule.min_samples);
        let digest = crate::rules::digest(&(selected, compared, rule.absent_after));
        let least = usize::try_from(rule.min_samples).unwrap_or(usize::MAX);
        let keep = if rule.agg == Aggregation::Last { least.min(max_samples) } else { max_samples };
        let shape = Shape { aggregation: rule.agg, span: rule.window.0, keep };
        // checked with the configuration; a template that cannot be read is as good as none
        let title = rule.title.as_deref().and_then(|text| Template::parse(text).ok());
        let description = Template::parse(&rule.description).unwrap_or_default();
        Compiled { rule, digest, shape, title, description }
    }

    /// Whether the rule is about this series.
    pub(crate) fn selects(&self, signal: &SignalRef<'_>) -> bool {
        let rule = &self.rule;
        rule.source.as_deref().is_none_or(|source| source == signal.source)
            && rule.labels.iter().all(|(name, value)| signal.labels.get(name) == Some(value))
            && all_hold(&rule.matchers, |name| label(signal, name))
    }

    /// How long a series is remembered without a sample.
    pub(crate) fn memory(&self) -> Duration {
        let rule = &self.rule;
        let missed = rule.absent_after.map_or(Duration::ZERO, |_| rule.forget_after.0);
        [rule.resolve_after.0, rule.window.0, rule.hold.0, rule.keep_firing_for.0, missed].into_iter().max().unwrap_or_default()
    }
}

/// What a matcher looks at.
pub(crate) fn label<'a>(signal: &SignalRef<'a>, name: &str) -> Option<&'a str> {
    match name {
        "source" => Some(signal.source),
        "__name__" => Some(signal.name),
        label => signal.labels.get(label),
    }
}
