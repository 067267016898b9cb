//! Label matchers, in the form Prometheus and Alertmanager made common: `severity="critical"`, `service=~"web-.*"`.
//!
//! `=` and `!=` compare exactly; `=~` and `!~` take a regular expression that must match the whole value. A label that is
//! not there has the empty value. (Alertmanager, "matchers"; Prometheus, "instant vector selectors".)

use std::{borrow::Cow, fmt, str::FromStr};

use regex::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What one compiled expression may take.
const PATTERN_BYTES: usize = 1 << 20;

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Like,
    /// `!~`
    Unlike,
}

impl Operator {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Operator::Equal => "=",
            Operator::NotEqual => "!=",
            Operator::Like => "=~",
            Operator::Unlike => "!~",
        }
    }
}

/// One matcher, made ready.
#[derive(Debug, Clone)]
pub struct Matcher {
    name: String,
    operator: Operator,
    value: String,
    test: Test,
    text: String,
}

#[derive(Debug, Clone)]
enum Test {
    Equal,
    NotEqual,
    Like(Regex),
    Unlike(Regex),
}

/// Why a text is no matcher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// There is no operator in it.
    #[error("'{0}' has none of the operators =, !=, =~ and !~; write it like severity=\"critical\"")]
    NoOperator(String),
    /// The name is none.
    #[error("'{0}' is no label's name: letters, digits and any of _ . : / - may stand there")]
    Name(String),
    /// A quote is opened and not closed, or something stands behind it.
    #[error("the value {0} is not quoted right: it begins and ends with \", and a \" in it is written \\\"")]
    Quotes(String),
    /// The expression is none.
    #[error("the expression of {name} is refused: {why}")]
    Pattern {
        /// The label.
        name: String,
        /// What the compiler says.
        why: String,
    },
}

impl Matcher {
    /// The matcher of these parts; `value` is taken as it is, without quotes.
    pub fn new(name: &str, operator: Operator, value: &str) -> Result<Matcher, MatcherError> {
        let name = name.trim();
        if name.is_empty() || !name.chars().all(|char| char.is_alphanumeric() || "_.:/-".contains(char)) {
            return Err(MatcherError::Name(name.to_owned()));
        }
        let pattern = || {
            regex::RegexBuilder::new(&format!("^(?s:{value})$"))
                .size_limit(PATTERN_BYTES)
                .build()
                .map_err(|error| MatcherError::Pattern { name: name.to_owned(), why: last_line(&error.to_string()) })
        };
        let test = match operator {
            Operator::Equal => Test::Equal,
            Operator::NotEqual => Test::NotEqual,
            Operator::Like => Test::Like(pattern()?),
            Operator::Unlike => Test::Unlike(pattern()?),
        };
        let text = format!("{name}{}\"{}\"", operator.as_str(), escaped(value));
        Ok(Matcher { name: name.to_owned(), operator, value: value.to_owned(), test, text })
    }

    /// How it compares.
    pub const fn operator(&self) -> Operator {
        self.operator
    }

    /// What it compares with: a text, or an expression.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The label it looks at.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it holds for a label's value; a label that is not there has the empty one.
    pub fn holds(&self, value: &str) -> bool {
        match &self.test {
            Test::Equal => value == self.value,
            Test::NotEqual => value != self.value,
            Test::Like(pattern) => pattern.is_match(value),
            Test::Unlike(pattern) => !pattern.is_match(value),
        }
    }
}

/// Whether all of `matchers` hold, where `value` tells what a label is.
pub fn all_hold<'a>(matchers: &[Matcher], value: impl Fn(&str) -> Option<&'a str>) -> bool {
    matchers.iter().all(|matcher| matcher.holds(value(matcher.name()).unwrap_or_default()))
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Matcher) -> bool {
        self.text == other.text
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Matcher {
    type Err = MatcherError;

    fn from_str(text: &str) -> Result<Matcher, MatcherError> {
        let at = text.find(['=', '!']).ok_or_else(|| MatcherError::NoOperator(text.to_owned()))?;
        let (name, rest) = text.split_at_checked(at).unwrap_or((text, ""));
        let (operator, value) = [Operator::Like, Operator::Unlike, Operator::NotEqual, Operator::Equal]
            .into_iter()
            .find_map(|operator| Some((operator, rest.strip_prefix(operator.as_str())?)))
            .ok_or_else(|| MatcherError::NoOperator(text.to_owned()))?;
        Matcher::new(name, operator, &unquoted(value.trim())?)
    }
}

/// A compiler's complaint without the picture above it.
fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// The value as [`unquoted`] reads it back.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

fn unquoted(value: &str) -> Result<Cow<'_, str>, MatcherError> {
    let Some(inner) = value.strip_prefix('"') else {
        return match value.contains('"') {
            true => Err(MatcherError::Quotes(value.to_owned())),
            false => Ok(Cow::Borrowed(value)),
        };
    };
    let wrong = || MatcherError::Quotes(value.to_owned());
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    loop {
        match chars.next().ok_or_else(wrong)? {
            '"' if chars.as_str().is_empty() => return Ok(Cow::Owned(out)),
            '"' => return Err(wrong()),
            '\\' => match chars.next().ok_or_else(wrong)? {
                '"' => out.push('"'),
                '\\' => out.push('\\'),
                'n' => out.push('\n'),
                // as in an expression: \d, \. and so on
                other => out.extend(['\\', other]),
            },
            char => out.push(char),
        }
    }
}

impl Serialize for Matcher {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Matcher, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Matcher {
    fn schema_name() -> Cow<'static, str> {
        "Matcher".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A label matcher: name, one of = != =~ !~, and a value, as in service=~\"web-.*\". Expressions match the whole value; a label that is not there has the empty one."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, value: &str) -> bool {
        text.parse::<Matcher>().unwrap().holds(value)
    }

    #[test]
    fn the_four_operators_do_as_in_alertmanager() {
        for (text, value, expected) in [
            (r#"a="x""#, "x", true),
            (r#"a="x""#, "xx", false),
            ("a=x", "x", true),
            (r#"a="""#, "", true),
            (r#"a!="x""#, "", true),
            (r#"a!="x""#, "x", false),
            (r#"a=~"x|y""#, "y", true),
            (r#"a=~"x|y""#, "xy", false),
            (r#"a=~"x.*""#, "x\ny", true),
            (r#"a!~"x.*""#, "yx", true),
            (r#"a!~"x.*""#, "xy", false),
            (r#" a.b/c =~ "\d+\.\d" "#, "12.5", true),
            (r#"a="say \"hi\" \\ there""#, r#"say "hi" \ there"#, true),
        ] {
            assert_eq!(holds(text, value), expected, "{text} on {value:?}");
        }
    }

    #[test]
    fn what_is_no_matcher_is_refused_with_the_reason() {
        for (text, reason) in [
            ("severity", "none of the operators"),
            ("=x", "no label's name"),
            ("a b=x", "no label's name"),
            (r#"a="x"#, "not quoted right"),
            (r#"a="x"y"#, "not quoted right"),
            (r#"a=x"y""#, "not quoted right"),
            (r#"a=~"(""#, "the expression of a is refused: unclosed group"),
            (r#"a=~"(\\w{1000}){1000}""#, "the expression of a is refused"),
            ("a!x", "none of the operators"),
        ] {
            let error = text.parse::<Matcher>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn it_is_written_as_it_can_be_read_again() {
        for text in ["a=x", r#"a=~"x\d+""#, r#"a!="say \"hi\" \\""#, "a!~''", "a=\"tab\there ü\""] {
            let matcher: Matcher = text.parse().unwrap();
            let json = serde_json::to_string(&matcher).unwrap();
            let again: Matcher = serde_json::from_str(&json).unwrap();
            assert_eq!(again, matcher, "{json}");
            for value in ["x", "x1", "say \"hi\" \\", "tab\there ü", ""] {
                assert_eq!(again.holds(value), matcher.holds(value), "{json} on {value:?}");
            }
        }
    }

    #[test]
    fn a_list_holds_when_all_do_and_what_is_missing_is_empty() {
        let list: Vec<Matcher> = ["a=x", "b=\"\"", "c!=z"].iter().map(|text| text.parse().unwrap()).collect();
        assert!(all_hold(&list, |name| (name == "a").then_some("x")));
        assert!(!all_hold(&list, |name| Some(if name == "a" { "x" } else { "z" })));
        assert!(all_hold(&[], |_| None));
    }
}
