//! From events to messages. Pure: the same events give the same messages, and the same key at every attempt.

use opspilot_kernel::{
    approval::Approval,
    event::{Envelope, Event},
    execution::Execution,
    ids::IncidentId,
    incident::{Incident, TimelineKind},
};
use opspilot_ledger::NewDelivery;
use serde_json::{Value, json};

use super::config::{Channel, Occasion};

/// So many transitions in one message; a further one begins a message of its own.
const MOST_TRANSITIONS: usize = 100;
/// Labels that are shown.
const MOST_LABELS: usize = 32;

/// What of an event a channel tells.
pub(super) fn occasions(channel: &Channel, event: &Event) -> Vec<Occasion> {
    let all = match event {
        Event::IncidentCreated(_) => vec![Occasion::Created],
        Event::IncidentUpdated { incident, changes } => {
            let mut told = Vec::new();
            for change in changes {
                let occasion = match change {
                    TimelineKind::SeverityRaised | TimelineKind::Reopened => Occasion::Updated,
                    TimelineKind::Acknowledged => Occasion::Acknowledged,
                    TimelineKind::Resolved => Occasion::Resolved,
                    // whoever was told of it hears that there is nothing left to do here
                    TimelineKind::Merged if incident.merged_into.is_some() => Occasion::Resolved,
                    _ => continue,
                };
                if !told.contains(&occasion) {
                    told.push(occasion);
                }
            }
            told
        }
        Event::EnrichmentCompleted { .. } => vec![Occasion::Explained],
        Event::ActionProposed(_) => vec![Occasion::Proposed],
        Event::ActionApproved(_) => vec![Occasion::Approved],
        Event::ActionDenied(_) => vec![Occasion::Denied],
        Event::ActionExpired(_) => vec![Occasion::Expired],
        Event::ActionExecuted { .. } => vec![Occasion::Executed],
        // told of, these would lead to more of themselves
        Event::LogIngested { .. } | Event::NotificationFailed { .. } | Event::ModuleHealthChanged { .. } => Vec::new(),
    };
    all.into_iter().filter(|occasion| channel.events.contains(occasion)).collect()
}

/// The incident that an event is about, where the event does not bring it along.
pub(super) fn named_only(event: &Event) -> Option<&IncidentId> {
    match event {
        Event::EnrichmentCompleted { incident_id, .. } => Some(incident_id),
        event => event.approval().map(|approval| &approval.incident_id),
    }
}

/// The message for one event.
pub(super) fn delivery(channel: &Channel, envelope: &Envelope, occasions: &[Occasion], incident: &Incident) -> Option<NewDelivery> {
    let (first, last) = (occasions.first()?, occasions.last()?);
    let dedup = format!("{}:{}:{}", incident.id, first.as_str(), envelope.seq);
    let subject = subject(*last, &envelope.event, incident);
    let transitions: Vec<Value> = occasions
        .iter()
        .map(|occasion| json!({ "event": occasion.as_str(), "seq": envelope.seq, "at": envelope.at, "subject": subject }))
        .collect();
    let body = json!({
        "version": 1,
        "id": dedup,
        "event": last.as_str(),
        "subject": subject,
        "transitions": transitions,
        "incident": incident_shown(incident),
        "approval": envelope.event.approval().map(approval_shown),
        "execution": match &envelope.event {
            Event::ActionExecuted { execution, .. } => Some(execution_shown(execution)),
            _ => None,
        },
        "explanation": match &envelope.event {
            Event::EnrichmentCompleted { summary, .. } => Some(cut(summary, 2000)),
            _ => None,
        },
    });
    Some(NewDelivery { channel: channel.id.clone(), key: incident.id.as_str().to_owned(), dedup, event: envelope.seq, subject, body })
}

/// One message that says both: the newer state, every transition of either, and the key that the older one has. Only
/// what was never sent is taken together.
pub(super) fn merged(older: &Value, newer: &Value) -> Option<Value> {
    let list = |of: &Value| of.get("transitions").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut transitions = list(older);
    transitions.extend(list(newer));
    if transitions.len() > MOST_TRANSITIONS {
        return None;
    }
    let mut both = newer.clone();
    let fields = both.as_object_mut()?;
    fields.insert("transitions".to_owned(), transitions.into());
    fields.insert("id".to_owned(), older.get("id")?.clone());
    for kept in ["approval", "execution", "explanation"] {
        if fields.get(kept).is_none_or(Value::is_null) {
            fields.insert(kept.to_owned(), older.get(kept).cloned().unwrap_or_default());
        }
    }
    Some(both)
}

fn subject(occasion: Occasion, event: &Event, incident: &Incident) -> String {
    let about = match (occasion, event.approval(), event) {
        (Occasion::Created, ..) => "opened".to_owned(),
        (Occasion::Updated, ..) => "worse, or open again".to_owned(),
        (Occasion::Acknowledged, ..) => format!("taken by {}", incident.acknowledged_by.as_deref().unwrap_or("somebody")),
        (Occasion::Resolved, ..) => {
            incident.merged_into.as_ref().map_or_else(|| "resolved".to_owned(), |into| format!("part of {into} now"))
        }
        (Occasion::Explained, ..) => "explained".to_owned(),
        (_, _, Event::ActionExecuted { approval, execution }) => format!("{}: {}", approval.title, execution.status.as_str()),
        (Occasion::Proposed, Some(approval), _) => format!("waits for approval: {}", approval.title),
        (_, Some(approval), _) => format!("{}: {}", approval.status.as_str(), approval.title),
        _ => occasion.as_str().to_owned(),
    };
    format!("[{}] {}: {} ({})", incident.severity.as_str(), cut(&incident.title, 200), cut(&about, 300), incident.id)
}

fn incident_shown(incident: &Incident) -> Value {
    let labels: serde_json::Map<String, Value> =
        incident.labels.iter().take(MOST_LABELS).map(|(name, value)| (cut(name, 100), cut(value, 300).into())).collect();
    json!({
        "id": incident.id, "title": cut(&incident.title, 500), "description": cut(&incident.description, 2000),
        "severity": incident.severity, "status": incident.status, "source": cut(&incident.source, 300), "rule": cut(&incident.rule, 300),
        "labels": labels, "occurrences": incident.occurrences, "opened_at": incident.opened_at, "last_seen_at": incident.last_seen_at,
        "acknowledged_by": incident.acknowledged_by, "resolved_at": incident.resolved_at,
        "resolution": incident.resolution.as_deref().map(|text| cut(text, 1000)),
    })
}

/// What a person needs to know that there is something to decide. Not with what: there is no token in an approval, and
/// who wants to decide reads the plan where it is shown whole.
fn approval_shown(approval: &Approval) -> Value {
    json!({
        "id": approval.id, "action": approval.action, "title": cut(&approval.title, 500), "risk": approval.risk, "status": approval.status,
        "preview": cut(&approval.preview.text, 2000), "plan_digest": approval.plan_digest, "reasoning": cut(&approval.reasoning, 1000),
        "proposed_by": approval.proposed_by, "quorum": approval.quorum, "approve_by": approval.approve_by, "execute_by": approval.execute_by,
    })
}

/// How a run ended; what the program wrote stays where it is.
fn execution_shown(execution: &Execution) -> Value {
    json!({
        "id": execution.id, "status": execution.status, "reason": execution.reason, "exit_code": execution.exit_code,
        "started_at": execution.started_at, "finished_at": execution.finished_at,
    })
}

/// At most so many characters.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use opspilot_kernel::{incident::IncidentStatus, signal::Severity, time::Timestamp};

    use super::*;

    pub(crate) fn incident(name: &str) -> Incident {
        Incident {
            id: IncidentId::derived(&[name]),
            title: name.to_owned(),
            description: String::new(),
            severity: Severity::Critical,
            status: IncidentStatus::Open,
            detected_by: "detector.regex".to_owned(),
            rule: "errors".to_owned(),
            source: "shop".to_owned(),
            labels: BTreeMap::new(),
            occurrences: 1,
            opened_at: Timestamp::ZERO,
            last_seen_at: Timestamp::ZERO,
            acknowledged_at: None,
            acknowledged_by: None,
            assignee: None,
            snoozed_until: None,
            resolved_at: None,
            resolution: None,
            merged_into: None,
            alert_count: 1,
            evidence_count: 1,
        }
    }

    fn channel() -> Channel {
        serde_json::from_value(json!({ "id": "hook", "type": "console" })).unwrap()
    }

    fn updated(changes: &[TimelineKind]) -> Event {
        Event::IncidentUpdated { incident: Box::new(incident("a")), changes: changes.to_vec() }
    }

    #[test]
    fn only_what_a_person_wants_to_hear_of_is_told() {
        use TimelineKind::{Acknowledged, AlertJoined, Note, Reopened, Resolved, SeverityRaised};
        let told = |event: &Event| occasions(&channel(), event);
        assert_eq!(told(&updated(&[])), []);
        assert_eq!(told(&updated(&[AlertJoined, Note])), []);
        assert_eq!(told(&updated(&[SeverityRaised, AlertJoined, Reopened])), [Occasion::Updated]);
        assert_eq!(told(&updated(&[Acknowledged, Resolved])), [Occasion::Acknowledged, Occasion::Resolved]);
        let failed = Event::NotificationFailed { channel: "x".into(), subject: "x".into(), attempts: 8, error: "x".into() };
        assert_eq!(told(&failed), [], "a failure to tell is not told: it would never end");
    }

    #[test]
    fn taken_together_no_transition_is_lost_and_the_key_stays() {
        let channel = channel();
        let of = |seq, change| {
            let envelope = Envelope { seq, at: Timestamp::ZERO, event: updated(&[change]) };
            delivery(&channel, &envelope, &occasions(&channel, &envelope.event), &incident("a")).unwrap()
        };
        let (first, second) = (of(7, TimelineKind::SeverityRaised), of(9, TimelineKind::Resolved));
        let both = merged(&first.body, &second.body).unwrap();
        assert_eq!(both["id"], first.dedup);
        assert_eq!(both["event"], "incident.resolved");
        let seqs: Vec<u64> = both["transitions"].as_array().unwrap().iter().map(|one| one["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, [7, 9]);
        let many = (0..200).try_fold(first.body, |body, _| merged(&body, &second.body));
        assert_eq!(many, None, "a message does not grow without end");
    }

    #[test]
    fn the_longest_texts_make_a_message_that_fits() {
        let mut large = incident(&"t€".repeat(50_000));
        large.description = "d€".repeat(50_000);
        large.labels = (0..1000).map(|n| (format!("{n}{}", "l€".repeat(500)), "v€".repeat(500))).collect();
        let envelope = Envelope { seq: 1, at: Timestamp::ZERO, event: Event::IncidentCreated(Box::new(large.clone())) };
        let made = delivery(&channel(), &envelope, &[Occasion::Created], &large).unwrap();
        assert!(made.body.to_string().len() < opspilot_ledger::MAX_DELIVERY, "{}", made.body.to_string().len());
    }
}
