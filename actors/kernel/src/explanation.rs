//! Explanations: what happened and why, with what shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ids::IncidentId, time::Timestamp};

/// How a claim is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClaimKind {
    /// It stands in the evidence.
    Observed,
    /// It follows from the evidence.
    Inferred,
}

/// One statement with what shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Claim {
    /// The statement.
    pub text: String,
    /// How it is known.
    pub kind: ClaimKind,
    /// Ids of the pieces of evidence; at least one.
    pub evidence: Vec<String>,
    /// The words of the evidence, byte for byte, where it is quoted.
    pub quote: Option<String>,
}

/// A component that may be the cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Cause {
    /// Which component.
    pub component: String,
    /// Its share of what speaks for any component, 0 to 1.
    pub share: f64,
    /// Why.
    pub text: String,
    /// Ids of the pieces of evidence.
    pub evidence: Vec<String>,
}

/// A runbook that fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RunbookMatch {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Why it fits.
    pub why: String,
    /// What it says to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
}

/// An earlier incident that resembles another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SimilarIncident {
    /// Its id.
    pub id: IncidentId,
    /// Its title.
    pub title: String,
    /// How much it resembles the other, 0 to 1.
    pub score: f64,
    /// What they have in common.
    pub why: String,
    /// When it was opened.
    #[schemars(with = "String")]
    pub opened_at: Timestamp,
    /// When it was over, if it is.
    #[schemars(with = "Option<String>")]
    pub resolved_at: Option<Timestamp>,
    /// How many seconds it took.
    pub took_secs: Option<u64>,
    /// How it ended, in words.
    pub resolution: Option<String>,
}

/// A pick from the catalogue of actions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SuggestedAction {
    /// The action of the catalogue.
    pub action: String,
    /// What its slots are filled with.
    pub params: BTreeMap<String, Value>,
}

/// Who wrote an explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Our own rules: the same evidence gives the same words.
    Deterministic,
    /// A model of `OpenAI`, or one that speaks its protocol.
    Openai,
    /// A model of Anthropic.
    Anthropic,
    /// A model run by Ollama.
    Ollama,
}

/// What happened, why, and what to do next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Explanation {
    /// In a few sentences.
    pub summary: String,
    /// Each statement with what shows it.
    pub claims: Vec<Claim>,
    /// Likely causes, the likeliest first.
    pub causes: Vec<Cause>,
    /// What to do next.
    pub next_steps: Vec<String>,
    /// Runbooks that fit.
    pub runbooks: Vec<RunbookMatch>,
    /// Actions that may help; proposing one is still somebody's decision.
    pub suggested_actions: Vec<SuggestedAction>,
    /// How sure it is, 0 to 1, computed from the evidence.
    pub confidence: f64,
    /// Who wrote it.
    pub provider: Provider,
    /// Whether it is less than it should be, since something was not to be had.
    pub degraded: bool,
    /// When it was written.
    #[schemars(with = "String")]
    pub generated_at: Timestamp,
}
