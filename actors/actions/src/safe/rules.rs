//! Rules: which incident they are for, and what they propose for it. Pure.

use std::collections::BTreeMap;

use opspilot_kernel::{
    config::closest,
    event::Event,
    ids::{ApprovalId, IncidentId},
    incident::{Incident, IncidentStatus, TimelineKind},
};
use serde_json::Value;

use super::config::{Either, Match, Rule, SafeConfig};

/// What a parameter is filled with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fill {
    /// A value as it stands.
    Literal(Value),
    /// A label of the incident.
    Label(String),
    /// The incident's source.
    Source,
}

impl Fill {
    /// Reads what the configuration says.
    pub(crate) fn read(value: &Value) -> Result<Fill, String> {
        let Some(name) = value.as_str().and_then(|text| text.strip_prefix('$')) else {
            return match value {
                Value::String(_) | Value::Number(_) => Ok(Fill::Literal(value.clone())),
                _ => Err("must be a text or a whole number".to_owned()),
            };
        };
        if name.starts_with('$') {
            return Ok(Fill::Literal(name.into()));
        }
        match name.strip_prefix("labels.") {
            Some("") => Err("name a label behind `$labels.`".to_owned()),
            Some(label) => Ok(Fill::Label(label.to_owned())),
            None if name == "source" => Ok(Fill::Source),
            None => {
                let meant = closest(name.split('.').next().unwrap_or(name), ["labels", "source"]).unwrap_or("labels");
                Err(format!("`${name}` stands for nothing; there are `$labels.name` and `$source` (did you mean `${meant}`?)"))
            }
        }
    }
}

/// The rules that are in force.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules(Vec<Ready>);

#[derive(Debug, Clone)]
struct Ready {
    name: String,
    rule: Rule,
    params: BTreeMap<String, Fill>,
}

/// What a rule wants to propose.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// The same for the same incident and rule, so that it is proposed once.
    pub(crate) id: ApprovalId,
    pub(crate) incident: IncidentId,
    pub(crate) rule: String,
    pub(crate) action: String,
    /// Or the labels that the incident lacks.
    pub(crate) params: Result<BTreeMap<String, Value>, Vec<String>>,
    pub(crate) reasoning: String,
}

impl Rules {
    /// The rules of a configuration that was checked.
    pub(crate) fn new(config: &SafeConfig) -> Rules {
        let fills = |rule: &Rule| rule.params.iter().filter_map(|(name, value)| Some((name.clone(), Fill::read(value).ok()?))).collect();
        Rules(config.rules.iter().map(|rule| Ready { name: rule.name().to_owned(), params: fills(rule), rule: rule.clone() }).collect())
    }

    /// What is wanted when this happened: an incident was opened, or became worse.
    pub(crate) fn wanted(&self, event: &Event) -> Vec<Wanted> {
        let incident = match event {
            Event::IncidentCreated(incident) => incident,
            Event::IncidentUpdated { incident, changes } if changes.contains(&TimelineKind::SeverityRaised) => incident,
            _ => return Vec::new(),
        };
        if incident.status == IncidentStatus::Resolved {
            return Vec::new();
        }
        self.0.iter().filter(|ready| is_for(&ready.rule.matches, incident)).map(|ready| ready.wants(incident)).collect()
    }
}

fn is_for(wanted: &Match, incident: &Incident) -> bool {
    fn holds<T: PartialEq>(wanted: Option<&Either<T>>, found: &T) -> bool {
        wanted.is_none_or(|wanted| wanted.values().contains(found))
    }
    let labelled =
        |(name, values): (&String, &Either<String>)| incident.labels.get(name).is_some_and(|found| values.values().contains(found));
    holds(wanted.severity.as_ref(), &incident.severity)
        && holds(wanted.source.as_ref(), &incident.source)
        && holds(wanted.rule.as_ref(), &incident.rule)
        && wanted.labels.iter().all(labelled)
}

impl Ready {
    fn wants(&self, incident: &Incident) -> Wanted {
        let mut params = BTreeMap::new();
        let mut missing = Vec::new();
        for (name, fill) in &self.params {
            let value = match fill {
                Fill::Literal(value) => Some(value.clone()),
                Fill::Source => Some(incident.source.clone().into()),
                Fill::Label(label) => incident.labels.get(label).map(|value| value.clone().into()),
            };
            match (value, fill) {
                (Some(value), _) => drop(params.insert(name.clone(), value)),
                (None, Fill::Label(label)) => missing.push(label.clone()),
                (None, _) => {}
            }
        }
        let because = format!("the rule {} is for this: a {} incident of {}", self.name, incident.severity.as_str(), incident.source);
        Wanted {
            id: ApprovalId::derived(&["rule", incident.id.as_str(), &self.name]),
            incident: incident.id.clone(),
            rule: self.name.clone(),
            action: self.rule.action.clone(),
            params: if missing.is_empty() { Ok(params) } else { Err(missing) },
            reasoning: self.rule.reasoning.as_ref().map_or_else(|| because.clone(), |text| format!("{text} ({because})")),
        }
    }
}
