//! How a number is compared with a limit.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Not equal, exactly.
    Ne,
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
            Comparison::Ne => value != limit,
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
            Comparison::Ne => "!=",
        })
    }
}
