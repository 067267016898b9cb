//! What configuration is made of: durations, sizes, secrets, and problems with a place.

mod secret;

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

pub use secret::Secret;

/// Something wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, as an RFC 6901 JSON pointer from the top of what was checked.
    pub pointer: String,
    /// What is wrong, lower case, no full stop.
    pub message: String,
    /// What to write instead.
    pub suggestion: Option<String>,
}

impl Problem {
    /// A problem at `pointer`.
    pub fn at(pointer: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { pointer: pointer.into(), message: message.into(), suggestion: None }
    }

    /// The same problem, with what to write instead.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl Into<String>) -> Problem {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// The same problem, seen from further out: `prefix` goes before its pointer.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Problem {
        self.pointer.insert_str(0, prefix);
        self
    }
}

/// The one of `known` that `word` was most likely meant to be.
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What a module's configuration can do besides being read.
pub trait ModuleConfig: serde::de::DeserializeOwned + Serialize + Default + JsonSchema + Clone + Send + Sync + 'static {
    /// Every problem that the types alone cannot show; pointers start at the module's own section.
    fn validate(&self) -> Vec<Problem> {
        Vec::new()
    }
}

/// A length of time, written `500ms`, `30s`, `5m`, `2h` or `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

impl Span {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Span {
        Span(Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    pub const fn millis(millis: u64) -> Span {
        Span(Duration::from_millis(millis))
    }
}

/// The text is no duration or no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadQuantity {
    /// Not a duration.
    #[error("not a duration; write a number and a unit, such as 500ms, 30s, 5m, 2h or 7d")]
    Duration,
    /// Not a size.
    #[error("not a size; write a number and a unit, such as 512B, 64KiB, 10MiB or 2GiB")]
    Size,
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at_checked(digits).unwrap_or((text, ""))
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = split_unit(text.trim());
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// Largest unit first, so that writing finds the shortest form.
const SPANS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZES: &[(&str, u64)] = &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn written(value: u64, units: &[(&str, u64)]) -> String {
    let best = units.iter().find(|(_, scale)| value != 0 && value.is_multiple_of(*scale)).or(units.last());
    best.map_or_else(|| value.to_string(), |(unit, scale)| format!("{}{unit}", value / scale))
}

impl FromStr for Span {
    type Err = BadQuantity;
    fn from_str(text: &str) -> Result<Span, BadQuantity> {
        scaled(text, SPANS).map(Span::millis).ok_or(BadQuantity::Duration)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), SPANS))
    }
}

/// A number of bytes, written `64KiB`, `10MiB`, `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl Size {
    /// So many mebibytes.
    pub const fn mib(count: u64) -> Size {
        Size(count << 20)
    }

    /// The number of bytes, for what is held in memory.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Size {
    type Err = BadQuantity;
    fn from_str(text: &str) -> Result<Size, BadQuantity> {
        scaled(text, SIZES).map(Size).ok_or(BadQuantity::Size)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written(self.0, SIZES))
    }
}

macro_rules! quantity {
    ($name:ident, $schema:literal, $pattern:literal, $example:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $schema.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example] })
            }
        }
    };
}

quantity!(Span, "Duration", r"^\s*[0-9]+\s*(ms|s|m|h|d)\s*$", "30s");
quantity!(Size, "Size", r"^\s*[0-9]+\s*(B|KiB|MiB|GiB|TiB)\s*$", "10MiB");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_and_written_back() {
        for (text, millis) in [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000), ("7d", 604_800_000), ("90s", 90_000)] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span, Span::millis(millis));
            assert_eq!(span.to_string(), text);
        }
        assert_eq!("64KiB".parse(), Ok(Size(65_536)));
        assert_eq!("10GiB".parse::<Size>().unwrap().to_string(), "10GiB");
        for wrong in ["", "5", "5 parsecs", "-1s", "1.5h", "99999999999999999999s"] {
            assert_eq!(wrong.parse::<Span>(), Err(BadQuantity::Duration), "{wrong}");
        }
    }

    #[test]
    fn a_misspelt_word_finds_the_one_that_was_meant() {
        assert_eq!(closest("patern", ["pattern", "severity"]), Some("pattern"));
        assert_eq!(closest("zebra", ["pattern", "severity"]), None);
    }
}
