//! The configuration of `enricher.silence`.

use std::{collections::BTreeSet, time::Duration};

use opspilot_kernel::{
    config::{ModuleConfig, Problem, Span},
    principal::Role,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{inhibit::Inhibition, window::Window};

/// More would make every alert wait longer than it need.
const MOST: usize = 256;
const YEAR: Duration = Duration::from_secs(366 * 86_400);

/// What holds alerts back from people, besides the silences they set themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many silences there may be that are not over; further ones are refused.
    pub max_silences: u32,
    /// How long a silence may last, by the role of whoever sets it.
    pub max_duration: Longest,
    /// So long before its end a silence that still hides something is shown as ending.
    pub remind_before: Span,
    /// Maintenance windows that come again and again, at most 256.
    pub windows: Vec<Window>,
    /// Which alerts hold which others back while they fire, at most 256 rules.
    pub inhibit: Vec<Inhibition>,
}

/// How long a silence may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Longest {
    /// When an operator sets it.
    pub operator: Span,
    /// When an admin sets it.
    pub admin: Span,
}

impl Default for Longest {
    fn default() -> Longest {
        Longest { operator: Span::seconds(7 * 86_400), admin: Span::seconds(90 * 86_400) }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_silences: 10_000,
            max_duration: Longest::default(),
            remind_before: Span::seconds(15 * 60),
            windows: Vec::new(),
            inhibit: Vec::new(),
        }
    }
}

impl Config {
    /// How long a silence may last that somebody of this role sets.
    pub fn longest(&self, role: Role) -> Duration {
        if role.includes(Role::Admin) { self.max_duration.admin.0 } else { self.max_duration.operator.0 }
    }
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(1..=100_000).contains(&self.max_silences) {
            problems.push(Problem::at("/max_silences", "must be from 1 to 100000").suggest("10000"));
        }
        for (key, span) in [("operator", self.max_duration.operator), ("admin", self.max_duration.admin)] {
            if span.0 < Duration::from_secs(60) || span.0 > YEAR {
                problems.push(Problem::at(format!("/max_duration/{key}"), "must be from 1m to 366d").suggest("7d"));
            }
        }
        if self.remind_before.0 > YEAR {
            problems.push(Problem::at("/remind_before", "must be at most 366d").suggest("15m"));
        }
        for (key, count) in [("windows", self.windows.len()), ("inhibit", self.inhibit.len())] {
            if count > MOST {
                problems.push(Problem::at(format!("/{key}"), format!("at most {MOST} are taken")));
            }
        }
        let mut seen = BTreeSet::new();
        for (number, window) in self.windows.iter().enumerate() {
            let at = format!("/windows/{number}");
            window.problems(&at, &mut problems);
            if !seen.insert(&window.id) {
                problems.push(Problem::at(format!("{at}/id"), format!("two windows are named '{}'", window.id)));
            }
        }
        let mut seen = BTreeSet::new();
        for (number, rule) in self.inhibit.iter().enumerate() {
            let at = format!("/inhibit/{number}");
            rule.problems(&at, &mut problems);
            if !seen.insert(&rule.id) {
                problems.push(Problem::at(format!("{at}/id"), format!("two rules are named '{}'", rule.id)));
            }
        }
        problems
    }
}
