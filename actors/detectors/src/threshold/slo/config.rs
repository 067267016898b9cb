//! What a user may say about a service level objective.

use std::{borrow::Cow, fmt};

use opspilot_kernel::{
    config::{Problem, Span},
    matcher::Matcher,
    signal::Severity,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::rules;

/// The windows' resolution.
pub(super) const BUCKET: Span = Span::seconds(60);
/// The longest window and the longest period that may be asked for.
const LONGEST: Span = Span::seconds(7 * 86_400);
const LONGEST_PERIOD: Span = Span::seconds(90 * 86_400);
const MOST_WINDOWS: usize = 16;

/// A service level objective: such a share of events is good. An alert says that the errors it admits are being spent too
/// fast: over a long window, so that it matters, and over a short one, so that it still goes on. (Google, "The Site
/// Reliability Workbook", chapter 5, "Multiwindow, Multi-Burn-Rate Alerts".)
///
/// It is told by counters, of which all series are added up: `errors` and `total`, or `good` and `total`; or by `ratio`, a
/// metric that is the share of errors, between 0 and 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// The objective's name; it stays the same when the objective is edited. Rules and objectives have different ones.
    pub id: String,
    /// The counter of good events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good: Option<Selector>,
    /// The counter of failed events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Selector>,
    /// The counter of all events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Selector>,
    /// The metric that is the share of errors, between 0 and 1; its values count alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Selector>,
    /// Look only at series for which all these matchers hold.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matchers: Vec<Matcher>,
    /// The share of events that is to be good, in percent, such as 99.9.
    pub objective: f64,
    /// Over how long the objective holds: the time for which the budget of errors is.
    #[serde(default = "default_period")]
    pub period: Span,
    /// When an alert fires. By default, after the workbook: `critical` at 14.4 times the rate that spends the budget in its
    /// period, over 1h and 5m, and at 6 times over 6h and 30m; `warning` at 1 time over 3d and 6h. Windows of the same
    /// severity raise one alert.
    #[serde(default = "default_windows")]
    pub windows: Vec<BurnWindow>,
    /// With fewer events within the long window nothing is compared; so a single failure at night pages nobody. By default
    /// 100 events, or 5 values of a `ratio`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_events: Option<u64>,
    /// More for people, before what is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How long without any value until the alert is over.
    #[serde(default = "default_resolve_after")]
    pub resolve_after: Span,
}

/// Series: a metric's name by itself, or `{metric: …, match: […]}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Selector {
    /// The metric's name, exactly.
    pub metric: String,
    /// Look only at series for which all these matchers hold.
    #[serde(rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matchers: Vec<Matcher>,
}

/// Two windows over which the budget is spent too fast.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BurnWindow {
    /// The window over which it matters, at most 7d.
    pub long: Span,
    /// The window over which it still goes on, at least 1m; the workbook takes a twelfth of the long one.
    pub short: Span,
    /// So many times as fast as the budget may be spent.
    pub burn: f64,
    /// How bad it is.
    pub severity: Severity,
}

const fn default_period() -> Span {
    Span::seconds(30 * 86_400)
}

const fn default_resolve_after() -> Span {
    Span::seconds(15 * 60)
}

/// Source: "The Site Reliability Workbook", table 5-8 (the recommended parameters for an objective of 99.9 %).
pub(super) fn default_windows() -> Vec<BurnWindow> {
    let window = |long, short, burn, severity| BurnWindow { long: Span::seconds(long), short: Span::seconds(short), burn, severity };
    vec![
        window(3600, 300, 14.4, Severity::Critical),
        window(6 * 3600, 1800, 6.0, Severity::Critical),
        window(3 * 86_400, 6 * 3600, 1.0, Severity::Warning),
    ]
}

impl Slo {
    /// The share of events that may fail.
    pub(super) fn budget(&self) -> f64 {
        (100.0 - self.objective) / 100.0
    }

    pub(super) fn least_events(&self) -> f64 {
        let least = self.min_events.unwrap_or(if self.ratio.is_some() { 5 } else { 100 });
        u32::try_from(least).map_or(f64::from(u32::MAX), f64::from)
    }

    /// Every selector, whether its events count as all events, and whether they say something about errors.
    pub(super) fn selectors(&self) -> impl Iterator<Item = (Role, &Selector)> {
        [(Role::Part, &self.good), (Role::Part, &self.errors), (Role::Total, &self.total), (Role::Ratio, &self.ratio)]
            .into_iter()
            .filter_map(|(role, selector)| Some((role, selector.as_ref()?)))
    }

    fn selector_problems(&self, at: &str, problems: &mut Vec<Problem>) {
        let mut problem = |key: &str, message: &str| problems.push(Problem::at(format!("{at}/{key}"), message));
        match (&self.ratio, &self.good, &self.errors, &self.total) {
            (Some(_), None, None, None) | (None, Some(_), None, Some(_)) | (None, None, Some(_), Some(_)) => {}
            (Some(_), ..) => problem("ratio", "says everything by itself; leave out good, errors and total"),
            (None, Some(_), Some(_), _) => problem("errors", "follows from good and total; leave one of them out"),
            (None, _, _, None) => problem("total", "is missing: how many events are there? Or give ratio"),
            (None, None, None, Some(_)) => problem("errors", "is missing: give errors or good, so that failures can be told"),
        }
        for (key, selector) in [("good", &self.good), ("errors", &self.errors), ("total", &self.total), ("ratio", &self.ratio)] {
            if selector.as_ref().is_some_and(|selector| selector.metric.is_empty()) {
                problem(&format!("{key}/metric"), "the metric's name is empty");
            }
        }
    }

    fn window_problems(&self, at: &str, problems: &mut Vec<Problem>) {
        let pointer = format!("{at}/windows");
        if self.windows.is_empty() || self.windows.len() > MOST_WINDOWS {
            problems.push(Problem::at(&pointer, format!("there must be between 1 and {MOST_WINDOWS}; leave it out for the usual ones")));
        }
        for (index, window) in self.windows.iter().enumerate() {
            let mut problem = |key: &str, message: &str, hint: Span| {
                problems.push(Problem::at(format!("{pointer}/{index}/{key}"), message).suggest(hint.to_string()));
            };
            if window.long > LONGEST {
                problem("long", "must be at most 7d", Span::seconds(3 * 86_400));
            }
            if window.short < BUCKET {
                problem("short", "must be at least 1m", BUCKET);
            } else if window.short >= window.long {
                problem("short", "must be shorter than long", Span(window.long.0 / 12).max(Span::seconds(30)));
            }
            if !(window.burn.is_finite() && window.burn > 0.0) {
                problems.push(Problem::at(format!("{pointer}/{index}/burn"), "must be a number above 0"));
            }
        }
    }
}

impl rules::Rule for Slo {
    fn id(&self) -> &str {
        &self.id
    }

    fn problems(&self, at: &str, problems: &mut Vec<Problem>) {
        self.selector_problems(at, problems);
        let sound = self.objective > 0.0 && self.objective < 100.0;
        if !sound || self.objective < 1.0 {
            let message = "is in percent, above 0 and below 100";
            let percent = self.objective * 100.0;
            let hint = if sound { format!("{}", (percent * 1e6).round() / 1e6) } else { "99.9".to_owned() };
            problems.push(Problem::at(format!("{at}/objective"), message).suggest(hint));
        } else if let Some(window) = self.windows.iter().find(|window| window.burn * self.budget() >= 1.0) {
            let most = crate::threshold::say::short(1.0 / self.budget());
            let message = format!(
                "a burn rate of {} is never exceeded: with an objective of {} % it is {most} when everything fails; give windows with lower ones",
                window.burn, self.objective
            );
            problems.push(Problem::at(format!("{at}/windows"), message));
        }
        self.window_problems(at, problems);
        let longest = self.windows.iter().map(|window| window.long).max().unwrap_or(Span::seconds(86_400));
        if self.period < longest || self.period > LONGEST_PERIOD {
            problems.push(Problem::at(format!("{at}/period"), "must be at least as long as every window, and at most 90d").suggest("30d"));
        }
        rules::check_resolve_after(self.resolve_after, at, problems);
    }
}

/// What a series of an objective tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Good events or failed ones.
    Part,
    /// All events.
    Total,
    /// The share of errors.
    Ratio,
}

/// The long form of a [`Selector`].
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a metric's name, or {metric: …, match: […]}")]
struct Long {
    /// The metric's name, exactly.
    metric: String,
    /// Look only at series for which all these matchers hold.
    #[serde(default, rename = "match")]
    matchers: Vec<Matcher>,
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Selector, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Selector;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a metric's name, or {metric: …, match: […]}")
            }

            fn visit_str<E>(self, metric: &str) -> Result<Selector, E> {
                Ok(Selector { metric: metric.to_owned(), matchers: Vec::new() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Selector, A::Error> {
                Long::deserialize(MapAccessDeserializer::new(map)).map(|Long { metric, matchers }| Selector { metric, matchers })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Selector {
    fn schema_name() -> Cow<'static, str> {
        "Selector".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = Long::json_schema(generator);
        json_schema!({ "anyOf": [{ "type": "string", "description": "The metric's name, exactly." }, long] })
    }
}
