//! One number for the values in a window.

use std::{borrow::Cow, fmt, str::FromStr};

use opspilot_kernel::config::closest;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// One number for the values in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
    /// How much a counter grew, per second.
    Rate,
    /// How much a counter grew.
    Increase,
    /// By how much a gauge changed.
    Delta,
    /// The value below which such a share of them lies.
    Percentile(Percent),
}

/// A share in percent, exact to a thousandth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

/// What a hundred percent are.
const WHOLE: u32 = 100_000;

const NAMED: [(&str, Aggregation); 9] = [
    ("last", Aggregation::Last),
    ("avg", Aggregation::Avg),
    ("min", Aggregation::Min),
    ("max", Aggregation::Max),
    ("sum", Aggregation::Sum),
    ("count", Aggregation::Count),
    ("rate", Aggregation::Rate),
    ("increase", Aggregation::Increase),
    ("delta", Aggregation::Delta),
];

/// The text names no aggregation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAggregation {
    /// It is none of the names.
    #[error(
        "there is no aggregation '{0}'{1}; there are last, avg, min, max, sum, count, rate, increase, delta and percentiles such as p95 or p99.9"
    )]
    Unknown(String, String),
    /// It is a percentile that there cannot be.
    #[error("'{0}' is no percentile: between p0 and p100, with at most three decimals, as in p95 or p99.9")]
    Percentile(String),
}

impl Percent {
    /// Below which number such a share of `sorted` lies, by linear interpolation between the two next to it.
    ///
    /// Source: Prometheus, `promql/quantile.go` (`quantile`), which is R-7 of Hyndman and Fan, "Sample Quantiles in
    /// Statistical Packages".
    pub(crate) fn of(self, sorted: &[f64]) -> Option<f64> {
        let last = u64::try_from(sorted.len().checked_sub(1)?).ok()?;
        let rank = u64::from(self.0).checked_mul(last)?;
        let whole = u64::from(WHOLE);
        let below = usize::try_from(rank / whole).ok()?;
        let weight = f64::from(u32::try_from(rank % whole).ok()?) / f64::from(WHOLE);
        let lower = *sorted.get(below)?;
        let upper = *sorted.get(below.saturating_add(1)).unwrap_or(&lower);
        Some(lower * (1.0 - weight) + upper * weight)
    }
}

impl FromStr for Percent {
    type Err = NotAnAggregation;

    fn from_str(text: &str) -> Result<Percent, NotAnAggregation> {
        let wrong = || NotAnAggregation::Percentile(format!("p{text}"));
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str, most: usize| !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole, 3) || !digits(decimals, 3) {
            return Err(wrong());
        }
        let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
        let thousandths = number(whole)? * 1000 + number(&format!("{decimals:0<3}"))?;
        if thousandths > WHOLE { Err(wrong()) } else { Ok(Percent(thousandths)) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!(".{:03}", self.0 % 1000);
        write!(f, "{}{}", self.0 / 1000, decimals.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl FromStr for Aggregation {
    type Err = NotAnAggregation;

    fn from_str(text: &str) -> Result<Aggregation, NotAnAggregation> {
        if let Some((_, aggregation)) = NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(*aggregation);
        }
        match text.strip_prefix('p').filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit())) {
            Some(percent) => Ok(Aggregation::Percentile(percent.parse()?)),
            None => {
                let known = NAMED.iter().map(|(name, _)| *name).chain(["p50", "p90", "p95", "p99"]);
                let meant = closest(text, known).map_or_else(String::new, |meant| format!(", did you mean {meant}"));
                Err(NotAnAggregation::Unknown(text.to_owned(), meant))
            }
        }
    }
}

impl fmt::Display for Aggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Aggregation::Percentile(percent) => write!(f, "p{percent}"),
            named => f.write_str(NAMED.iter().find(|(_, aggregation)| aggregation == named).map_or("", |(name, _)| name)),
        }
    }
}

impl Serialize for Aggregation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Aggregation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Aggregation, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Aggregation {
    fn schema_name() -> Cow<'static, str> {
        "Aggregation".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(last|avg|min|max|sum|count|rate|increase|delta|p(100(\\.0{1,3})?|[0-9]{1,2}(\\.[0-9]{1,3})?))$",
            "description": "One number for the values in a window: last, avg, min, max, sum, count, rate, increase, delta, or a percentile such as p95 or p99.9."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_aggregation_is_written_as_it_is_read() {
        for text in
            ["last", "avg", "min", "max", "sum", "count", "rate", "increase", "delta", "p0", "p50", "p95", "p99.9", "p99.999", "p100"]
        {
            assert_eq!(text.parse::<Aggregation>().unwrap().to_string(), text);
        }
        assert_eq!("p99.90".parse::<Aggregation>(), "p99.9".parse());
        assert_eq!("p05.050".parse::<Aggregation>().unwrap().to_string(), "p5.05");
    }

    #[test]
    fn what_is_none_is_refused_with_what_there_is() {
        for (text, part) in [
            ("averge", "there is no aggregation 'averge'; "),
            ("maxx", "did you mean max"),
            ("", "there is no aggregation ''"),
            ("p", "there is no aggregation 'p'"),
            ("p101", "'p101' is no percentile"),
            ("p100.001", "'p100.001' is no percentile"),
            ("p99.9999", "at most three decimals"),
            ("p9.", "is no percentile"),
            ("p9e1", "is no percentile"),
        ] {
            let why = text.parse::<Aggregation>().unwrap_err().to_string();
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    #[test]
    fn percentiles_are_those_of_prometheus() {
        // by hand: rank = q × (n − 1), linear between the two values next to it
        let of = |text: &str, sorted: &[f64]| text.parse::<Percent>().unwrap().of(sorted);
        assert_eq!(of("50", &[1.0, 2.0, 3.0, 4.0]), Some(2.5));
        assert_eq!(of("95", &(1..=21).map(f64::from).collect::<Vec<_>>()), Some(20.0));
        assert_eq!(of("90", &[10.0, 20.0]), Some(19.0));
        assert_eq!((of("0", &[3.0, 9.0]), of("100", &[3.0, 9.0]), of("37", &[7.0])), (Some(3.0), Some(9.0), Some(7.0)));
        assert_eq!(of("50", &[]), None);
    }
}
