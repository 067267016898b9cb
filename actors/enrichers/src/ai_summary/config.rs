//! The configuration of `enricher.aiSummary`.

use opspilot_kernel::config::{ModuleConfig, Problem, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most runbooks, keywords and steps there may be, and the longest of their texts, in characters.
const RUNBOOKS: usize = 1000;
const KEYWORDS: usize = 64;
const STEPS: usize = 32;
const TEXT: usize = 500;

/// `enricher.aiSummary`: how incidents are explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who explains. `deterministic`: rules of our own, without a model and without a network.
    pub provider: ProviderName,
    /// What your people know to do; a runbook whose words occur around an incident is named with the reason.
    pub runbooks: Vec<Runbook>,
    /// How long before an incident to look for what is usual and what changed.
    pub lookback: Span,
    /// How long after its first sign to look.
    pub lookahead: Span,
    /// How long to wait for more before explaining; what comes meanwhile is explained together.
    pub settle: Span,
    /// The least time between two explanations of an incident by itself.
    pub refresh: Span,
    /// How often an incident is explained by itself; beyond that a person has to ask.
    pub most_times: u32,
    /// Signals looked at for one explanation, those nearest to the incident first. Beyond that the explanation says that
    /// it did not see everything.
    pub most_signals: u32,
    /// How long the look may take.
    pub budget: Span,
}

/// Who writes explanations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderName {
    /// Rules of our own.
    #[default]
    Deterministic,
}

/// Something your people know to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Runbook {
    /// Its name, unique.
    pub id: String,
    /// One line for people.
    pub title: String,
    /// Words and phrases; each that occurs in an incident's alerts, labels or evidence speaks for the runbook. Case does not matter.
    #[serde(default)]
    pub keywords: Vec<String>,
    /// What to do, in order.
    #[serde(default)]
    pub steps: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            provider: ProviderName::Deterministic,
            runbooks: Vec::new(),
            lookback: Span::seconds(3600),
            lookahead: Span::seconds(900),
            settle: Span::seconds(1),
            refresh: Span::seconds(30),
            most_times: 20,
            most_signals: 50_000,
            budget: Span::millis(500),
        }
    }
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut within = |field: &str, value: Span, least: Span, most: Span| {
            if !(least..=most).contains(&value) {
                problems.push(Problem::at(format!("/{field}"), format!("must be between {least} and {most}")));
            }
        };
        within("lookback", self.lookback, Span::seconds(60), Span::seconds(86_400));
        within("lookahead", self.lookahead, Span::seconds(10), Span::seconds(86_400));
        within("settle", self.settle, Span::millis(0), Span::seconds(60));
        within("refresh", self.refresh, Span::seconds(1), Span::seconds(86_400));
        within("budget", self.budget, Span::millis(10), Span::seconds(10));
        if !(1..=1000).contains(&self.most_times) {
            problems.push(Problem::at("/most_times", "must be between 1 and 1000").suggest("20"));
        }
        if !(100..=1_000_000).contains(&self.most_signals) {
            problems.push(Problem::at("/most_signals", "must be between 100 and 1000000").suggest("50000"));
        }
        if self.runbooks.len() > RUNBOOKS {
            problems.push(Problem::at("/runbooks", format!("at most {RUNBOOKS} runbooks")));
        }
        for (place, runbook) in self.runbooks.iter().enumerate().take(RUNBOOKS) {
            let at = |field: &str| format!("/runbooks/{place}/{field}");
            if runbook.id.trim().is_empty() || runbook.id.chars().count() > 128 {
                problems.push(Problem::at(at("id"), "must have 1 to 128 characters"));
            }
            if self.runbooks.iter().take(place).any(|other| other.id == runbook.id) {
                problems.push(Problem::at(at("id"), "another runbook has this id"));
            }
            if runbook.title.trim().is_empty() || runbook.title.chars().count() > TEXT {
                problems.push(Problem::at(at("title"), format!("must have 1 to {TEXT} characters")));
            }
            if runbook.keywords.len() > KEYWORDS || runbook.keywords.iter().any(|word| word.trim().is_empty() || word.chars().count() > 128)
            {
                problems.push(Problem::at(at("keywords"), format!("at most {KEYWORDS}, each of 1 to 128 characters")));
            }
            if runbook.steps.len() > STEPS || runbook.steps.iter().any(|step| step.trim().is_empty() || step.chars().count() > TEXT) {
                problems.push(Problem::at(at("steps"), format!("at most {STEPS}, each of 1 to {TEXT} characters")));
            }
        }
        problems
    }
}
