//! Inhibition: while one alert fires, others that share some labels with it are held back.
//!
//! As Alertmanager documents it ("inhibition"): a label that is missing equals one that is empty, and an alert that is on
//! both sides of a rule is held back only by alerts that are not, so neither by itself nor by one like it.

use opspilot_kernel::{config::Problem, facets::Facets, matcher::Matcher};
use opspilot_ledger::pipeline::Shield;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Which alerts hold which others back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inhibition {
    /// Its name.
    pub id: String,
    /// Alerts for which all of these hold, such as `severity="critical"`, hold others back while they fire.
    pub source: Vec<Matcher>,
    /// Alerts for which all of these hold are held back.
    pub target: Vec<Matcher>,
    /// What both must have in common; a label that is missing equals one that is empty. Without any, everything that
    /// matches is held back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub equal: Vec<String>,
}

impl Inhibition {
    pub(super) fn problems(&self, at: &str, problems: &mut Vec<Problem>) {
        if self.id.is_empty() || self.id.chars().count() > 128 || self.id.chars().any(|char| char.is_control() || char == ':') {
            problems.push(Problem::at(format!("{at}/id"), "an id has 1 to 128 characters and no colon").suggest("node-down"));
        }
        for (side, matchers) in [("source", &self.source), ("target", &self.target)] {
            if matchers.is_empty() {
                problems.push(
                    Problem::at(format!("{at}/{side}"), format!("without a matcher every alert is a {side}"))
                        .suggest("severity=\"critical\""),
                );
            }
        }
    }
}

/// A rule made ready.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    pub(super) inhibition: Inhibition,
    /// Begins its keys: another rule of the same name has other keys.
    name: String,
}

/// A short name for `parts`, each preceded by its length so that none can run into the next.
pub(super) fn digest<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize().get(..10).unwrap_or_default())
}

impl Rule {
    pub(super) fn new(inhibition: Inhibition) -> Rule {
        let sides =
            [&inhibition.source, &inhibition.target].map(|side| side.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        let parts = std::iter::once(inhibition.id.as_str())
            .chain(sides.iter().map(String::as_str))
            .chain(inhibition.equal.iter().map(String::as_str));
        Rule { name: digest(parts), inhibition }
    }

    fn key(&self, alert: Facets<'_>) -> String {
        let values: Vec<_> = self.inhibition.equal.iter().map(|label| alert.value(label)).collect();
        digest(std::iter::once(self.name.as_str()).chain(values.iter().map(|value| &**value)))
    }

    /// By what this alert holds others back.
    pub(super) fn shield(&self, alert: Facets<'_>) -> Option<Shield> {
        let shields = alert.match_all(&self.inhibition.source);
        shields.then(|| Shield { key: self.key(alert), both: alert.match_all(&self.inhibition.target) })
    }

    /// What holds this alert back has this key; and whether only alerts do that could not be held back themselves.
    pub(super) fn held_by(&self, alert: Facets<'_>) -> Option<(String, bool)> {
        let is_target = alert.match_all(&self.inhibition.target);
        is_target.then(|| (self.key(alert), alert.match_all(&self.inhibition.source)))
    }
}
