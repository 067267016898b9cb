//! What a user may say about how a series is judged.

use std::fmt;

use opspilot_kernel::config::Problem;
use schemars::{JsonSchema, Schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Value, json};

/// The widest training window, in points.
pub const WIDEST: u32 = 100_000;
/// The longest rest, in points.
pub const LONGEST_REST: u32 = 1_000_000;

/// How a value is judged against the past of its series. Written as a name, `auto`, or as a name and
/// what differs from its defaults, `{ mad: { window: 500 } }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", remote = "Self")]
#[schemars(rename_all = "lowercase", transform = or_a_name)]
pub enum Method {
    /// Several views of the series, each judged by its own past. Needs no tuning.
    Auto(Auto),
    /// Distance from the mean of the window, in standard deviations.
    ZScore(Window),
    /// Distance from the median of the window, in median absolute deviations that are scaled to be
    /// standard deviations where values are normally distributed.
    Mad(Window),
    /// Distance beyond the quartiles of the window, in interquartile ranges (Tukey's fences).
    Iqr(Window),
    /// Distance of a weighted moving average from the mean of the window, in standard deviations of
    /// that average (a control chart, for small changes that stay).
    Ewma(Ewma),
}

/// A name alone will do.
fn or_a_name(schema: &mut Schema) {
    if let Some(Value::Array(choices)) = schema.get_mut("oneOf") {
        choices.insert(0, json!({ "type": "string", "enum": ["auto", "zscore", "mad", "iqr", "ewma"] }));
    }
}

impl Default for Method {
    fn default() -> Method {
        Method::Auto(Auto::default())
    }
}

/// Which values are of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Values that are too high and values that are too low.
    #[default]
    Both,
    /// Only values that are too high.
    High,
    /// Only values that are too low.
    Low,
}

impl Direction {
    /// Whether a value on this side is of interest.
    pub fn wants(self, side: Side) -> bool {
        match self {
            Direction::Both => true,
            Direction::High => side == Side::High,
            Direction::Low => side == Side::Low,
        }
    }
}

/// On which side of what was expected a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Above.
    High,
    /// Below.
    Low,
}

/// Settings of `auto`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auto {
    /// Which values are of interest.
    pub direction: Direction,
}

/// Settings of `zscore`, `mad` and `iqr`, which compare a value with a window of the values before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Window {
    /// Which values are of interest.
    pub direction: Direction,
    /// The training window: with how many of the newest values, before the one judged, it is compared.
    #[schemars(range(min = 2, max = 100_000))]
    pub window: u32,
    /// With fewer values before it nothing is judged. At most `window`.
    #[schemars(range(min = 2, max = 100_000))]
    pub min_samples: u32,
    /// From what distance on a value is an anomaly; less is more sensitive. By default 4.5 standard
    /// deviations for `zscore`, 6 for `mad`, and 3 interquartile ranges for `iqr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<f64>,
    /// The least scale that distances are measured in, as a share of how far the values of this series
    /// were from the middle of their window on average in the long run. Without it the smallest change
    /// after a flat stretch would be an anomaly.
    pub floor: f64,
    /// How many points after an anomaly raise none.
    #[schemars(range(max = 1_000_000))]
    pub rest: u32,
}

impl Default for Window {
    fn default() -> Window {
        Window { direction: Direction::Both, window: 1000, min_samples: 100, sensitivity: None, floor: 0.5, rest: 150 }
    }
}

/// Settings of `ewma`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ewma {
    /// Which values are of interest.
    pub direction: Direction,
    /// The training window: from how many of the newest values, before the one judged, the mean and
    /// the standard deviation are taken.
    #[schemars(range(min = 2, max = 100_000))]
    pub window: u32,
    /// With fewer values before it nothing is judged. At most `window`.
    #[schemars(range(min = 2, max = 100_000))]
    pub min_samples: u32,
    /// The weight of the newest value in the average, above 0 and at most 1. The smaller, the smaller
    /// and slower the changes that are found.
    pub weight: f64,
    /// From how many standard deviations of the average on it is an anomaly; less is more sensitive.
    pub sensitivity: f64,
    /// The least standard deviation, as a share of how far the values of this series were from the
    /// mean of their window on average in the long run.
    pub floor: f64,
    /// How many points after an anomaly raise none.
    #[schemars(range(max = 1_000_000))]
    pub rest: u32,
}

impl Default for Ewma {
    fn default() -> Ewma {
        Ewma { direction: Direction::Both, window: 1000, min_samples: 100, weight: 0.2, sensitivity: 4.5, floor: 0.5, rest: 150 }
    }
}

impl Method {
    /// The names, as they are written.
    pub const NAMES: [&str; 5] = ["auto", "zscore", "mad", "iqr", "ewma"];

    /// Its name, as it is written.
    pub const fn name(&self) -> &'static str {
        match self {
            Method::Auto(_) => "auto",
            Method::ZScore(_) => "zscore",
            Method::Mad(_) => "mad",
            Method::Iqr(_) => "iqr",
            Method::Ewma(_) => "ewma",
        }
    }

    /// The method of that name with its defaults.
    pub fn named(name: &str) -> Option<Method> {
        Some(match name {
            "auto" => Method::Auto(Auto::default()),
            "zscore" => Method::ZScore(Window::default()),
            "mad" => Method::Mad(Window::default()),
            "iqr" => Method::Iqr(Window::default()),
            "ewma" => Method::Ewma(Ewma::default()),
            _ => return None,
        })
    }

    /// From what score on a value is an anomaly.
    pub fn sensitivity(&self) -> f64 {
        match self {
            Method::Auto(_) => 1.0,
            Method::ZScore(window) => window.sensitivity.unwrap_or(4.5),
            Method::Mad(window) => window.sensitivity.unwrap_or(6.0),
            Method::Iqr(window) => window.sensitivity.unwrap_or(3.0),
            Method::Ewma(ewma) => ewma.sensitivity,
        }
    }

    /// What is wrong with it; `at` is where it stands, as a JSON pointer.
    pub fn problems(&self, at: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let (window, min_samples, floor, rest) = match self {
            Method::Auto(_) => return problems,
            Method::ZScore(window) | Method::Mad(window) | Method::Iqr(window) => {
                (window.window, window.min_samples, window.floor, window.rest)
            }
            Method::Ewma(ewma) => (ewma.window, ewma.min_samples, ewma.floor, ewma.rest),
        };
        let mut problem = |key: &str, message: String| {
            problems.push(Problem::at(format!("{at}/{}/{key}", self.name()), message));
        };
        if !(2..=WIDEST).contains(&window) {
            problem("window", format!("must be from 2 to {WIDEST}"));
        }
        if min_samples < 2 || min_samples > window {
            problem("min_samples", format!("must be from 2 to the window, {window}"));
        }
        let sensitivity = self.sensitivity();
        if !sensitivity.is_finite() || sensitivity <= 0.0 {
            problem("sensitivity", "must be a number above 0".to_owned());
        }
        if !floor.is_finite() || floor < 0.0 {
            problem("floor", "must be 0 or a number above".to_owned());
        }
        if rest > LONGEST_REST {
            problem("rest", format!("must be at most {LONGEST_REST}"));
        }
        if let Method::Ewma(ewma) = self
            && !(ewma.weight > 0.0 && ewma.weight <= 1.0)
        {
            problem("weight", "must be above 0 and at most 1".to_owned());
        }
        problems
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Method::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
        deserializer.deserialize_any(NameOrSettings)
    }
}

struct NameOrSettings;

impl<'de> Visitor<'de> for NameOrSettings {
    type Value = Method;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("the name of a method, or a name with its settings")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Method, E> {
        Method::named(name).ok_or_else(|| E::unknown_variant(name, &Method::NAMES))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Method, A::Error> {
        Method::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_written_as_a_name_or_as_a_name_with_its_settings() {
        let read = |text: &str| serde_json::from_str::<Method>(text);
        for name in Method::NAMES {
            let plain = read(&format!("{name:?}")).unwrap();
            assert_eq!(Some(plain.clone()), Method::named(name));
            assert_eq!(plain.name(), name);
            assert_eq!(read(&format!("{{{name:?}:{{}}}}")).unwrap(), plain);
            assert_eq!(read(&serde_json::to_string(&plain).unwrap()).unwrap(), plain);
            assert!(plain.problems("").is_empty());
        }
        let mad = read(r#"{"mad":{"window":500,"direction":"high"}}"#).unwrap();
        assert_eq!(mad, Method::Mad(Window { window: 500, direction: Direction::High, ..Window::default() }));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let read = |text: &str| serde_json::from_str::<Method>(text).unwrap_err().to_string();
        assert!(read(r#""median""#).contains("unknown variant"));
        assert!(read(r#"{"mad":{"windw":500}}"#).contains("unknown field"));
        assert!(read(r#"{"auto":{"window":500}}"#).contains("unknown field"));
        assert!(read("3").contains("the name of a method"));
    }

    #[test]
    fn settings_that_make_no_sense_are_named_by_their_place() {
        let wrong = Window { window: 1, min_samples: 5, sensitivity: Some(0.0), floor: -1.0, rest: u32::MAX, ..Window::default() };
        let found = Method::Iqr(wrong).problems("/rules/0/method");
        assert_eq!(found.len(), 5);
        assert!(found.iter().all(|problem| format!("{problem:?}").contains("/rules/0/method/iqr/")));
        let wrong = Method::Ewma(Ewma { weight: f64::NAN, ..Ewma::default() });
        assert_eq!(wrong.problems("").len(), 1);
    }
}
