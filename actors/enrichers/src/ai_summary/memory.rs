//! What is known from elsewhere: runbooks, earlier incidents, the catalogue of actions.

use std::collections::BTreeMap;

use opspilot_kernel::{
    alert::{Measure, Observation},
    explanation::{RunbookMatch, SimilarIncident, SuggestedAction},
    incident::Incident,
};
use serde_json::Value;

use super::{
    config::Runbook,
    stats::real,
    words::{clean, significant},
};

const RUNBOOKS: usize = 3;
const SIMILAR: usize = 5;
const ACTIONS: usize = 3;
/// Less than this is no resemblance.
const RESEMBLES: f64 = 0.35;

/// An action that may be suggested, as the catalogue offers it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offered {
    /// Its id.
    pub id: String,
    /// One line for people.
    pub title: String,
    /// What it is for.
    pub description: String,
    /// Its parameters, and whether each can be left out.
    pub params: BTreeMap<String, bool>,
}

/// Whether `keyword` stands in `text` as words of their own; both in lower case.
fn occurs(text: &str, keyword: &str) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(keyword).any(|(at, found)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let behind = text.get(at.saturating_add(found.len())..).and_then(|behind| behind.chars().next());
        !is_word(before) && !is_word(behind)
    })
}

/// Runbooks whose words occur, the best first. `texts` are the incident's and its evidence's, with where each is from.
pub(super) fn runbooks(all: &[Runbook], texts: &[(String, String)]) -> Vec<RunbookMatch> {
    let lower: Vec<(&str, String)> = texts.iter().map(|(place, text)| (place.as_str(), text.to_lowercase())).collect();
    let mut found: Vec<(usize, RunbookMatch)> = Vec::new();
    for runbook in all {
        let mut hits: Vec<String> = Vec::new();
        for keyword in &runbook.keywords {
            let wanted = keyword.trim().to_lowercase();
            if let Some((place, _)) = lower.iter().find(|(_, text)| occurs(text, &wanted)) {
                hits.push(format!("“{}” stands in {place}", clean(keyword, 64)));
            }
        }
        if !hits.is_empty() {
            let count = hits.len();
            hits.truncate(4);
            let fits =
                RunbookMatch { id: runbook.id.clone(), title: runbook.title.clone(), why: hits.join(", "), steps: runbook.steps.clone() };
            found.push((count, fits));
        }
    }
    found.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.id.cmp(&other.id)));
    found.truncate(RUNBOOKS);
    found.into_iter().map(|(_, fits)| fits).collect()
}

/// What two sets of words have in common, 0 to 1.
fn overlap<T: Ord>(a: &[T], b: &[T]) -> f64 {
    let common = a.iter().filter(|word| b.contains(word)).count();
    let all = a.len() + b.len() - common;
    let real = |count: usize| real(u64::try_from(count).unwrap_or(0));
    if all == 0 { 0.0 } else { real(common) / real(all) }
}

/// Earlier incidents that resemble this one, the most alike first. Each comes with whether it shares a fingerprint.
pub(super) fn similar(incident: &Incident, earlier: &[(Incident, bool)]) -> Vec<SimilarIncident> {
    let title = significant(&incident.title);
    let labels: Vec<(&String, &String)> = incident.labels.iter().collect();
    let mut found: Vec<SimilarIncident> = Vec::new();
    for (other, same) in earlier.iter().filter(|(other, _)| other.id != incident.id) {
        let mut why: Vec<&str> = Vec::new();
        let mut score = 0.0;
        let mut counts = |holds: bool, weight: f64, reason: &'static str| {
            if holds {
                score += weight;
                why.push(reason);
            }
        };
        counts(*same, 0.5, "the same alert");
        counts(other.rule == incident.rule && other.detected_by == incident.detected_by, 0.2, "the same rule");
        counts(other.source == incident.source, 0.1, "the same source");
        let (titles, marks) = (overlap(&title, &significant(&other.title)), overlap(&labels, &other.labels.iter().collect::<Vec<_>>()));
        counts(titles >= 0.5, 0.15 * titles, "a title alike");
        counts(marks > 0.0, 0.05 * marks, "labels in common");
        if score >= RESEMBLES {
            found.push(SimilarIncident {
                id: other.id.clone(),
                title: other.title.clone(),
                score: (100.0 * score).round() / 100.0,
                why: why.join(", "),
                opened_at: other.opened_at,
                resolved_at: other.resolved_at,
                took_secs: other.resolved_at.map(|at| at.since(other.opened_at).as_secs()),
                resolution: other.resolution.clone(),
            });
        }
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.opened_at.cmp(&a.opened_at)).then_with(|| a.id.cmp(&b.id)));
    found.truncate(SIMILAR);
    found
}

/// An earlier incident as a piece of evidence.
pub(super) fn as_evidence(earlier: &SimilarIncident, incident: &Incident) -> Observation {
    Observation::Change {
        at: earlier.opened_at,
        until: earlier.resolved_at.unwrap_or(earlier.opened_at),
        source: incident.source.clone(),
        name: earlier.id.to_string(),
        measure: Measure::Incident,
        usual: None,
        spread: None,
        value: earlier.took_secs.map_or(0.0, real),
        count: 1,
    }
}

/// Actions of the catalogue whose words fit the likeliest cause or a runbook. A parameter is filled with what was observed:
/// an incident's label of the same name, or the component where the parameter names one; an action whose
/// parameters cannot all be filled is only named, and a person fills them: the second of the pair says whether all are.
pub(super) fn actions(
    all: &[Offered],
    cause: Option<&str>,
    texts: &[(String, String)],
    incident: &Incident,
) -> Vec<(SuggestedAction, bool)> {
    let said: Vec<String> = texts.iter().flat_map(|(_, text)| significant(text)).collect();
    let mut found: Vec<(usize, SuggestedAction, bool)> = Vec::new();
    for action in all {
        let words = significant(&format!("{} {} {}", action.id.replace('-', " "), action.title, action.description));
        let generic = ["restart", "service", "run", "start", "stop", "host"];
        let fits = words.iter().filter(|word| !generic.contains(&word.as_str()) && said.contains(word)).count();
        let names_cause = cause.is_some_and(|cause| words.contains(&cause.to_lowercase()));
        let fill = |name: &str| -> Option<Value> {
            let component = ["service", "component", "unit", "app", "target", "source"].contains(&name).then_some(cause).flatten();
            incident.labels.get(name).map(String::as_str).or(component).map(Value::from)
        };
        let mut params = BTreeMap::new();
        let mut filled = true;
        for (name, optional) in &action.params {
            match fill(name) {
                Some(value) => drop(params.insert(name.clone(), value)),
                None => filled &= optional,
            }
        }
        let takes_cause = cause.is_some_and(|cause| params.values().any(|value| value == cause));
        let score = fits + 2 * usize::from(names_cause) + usize::from(takes_cause);
        if score > usize::from(!filled) {
            found.push((score, SuggestedAction { action: action.id.clone(), params }, filled));
        }
    }
    found.sort_by(|(a, one, _), (b, other, _)| b.cmp(a).then_with(|| one.action.cmp(&other.action)));
    found.truncate(ACTIONS);
    found.into_iter().map(|(_, action, filled)| (action, filled)).collect()
}
