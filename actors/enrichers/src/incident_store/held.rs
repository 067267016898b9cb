//! Alerts that are held back from people: they are kept, open no incident, and are told of when nothing holds them back.

use std::time::Duration;

use opspilot_kernel::{
    alert::{AlertRecord, AlertStatus, Transition},
    ids::AlertId,
    incident::TimelineKind,
    time::Timestamp,
};
use opspilot_ledger::pipeline::{AlertState, Aside, Held, Shield};
use serde_json::json;

use super::{
    decide::{Decided, place},
    desk::Desk,
};
use crate::stage::{By, Grouping, Key, Suppression, Swept};

/// What holds the episode under `claim` back, as it stands on it.
fn written(desk: &Desk<'_>, suppression: &Suppression) -> String {
    let source = match &suppression.by {
        By::Inhibition { claim, .. } => desk.episode(claim).map(|state| state.alert.id.clone()),
        By::Silence(_) | By::Maintenance(_) => None,
    };
    suppression.by.written(source.as_ref())
}

fn change_aside(state: &mut AlertState, change: impl FnOnce(&mut Aside)) {
    let mut aside = state.aside.take().unwrap_or_default();
    change(&mut aside);
    state.aside = (*aside != Aside::default()).then_some(aside);
}

/// Keeps what is needed to tell of an alert later: the newest of what was observed, and what it may share with others.
fn keep(aside: &mut Aside, record: &AlertRecord, grouping: Option<&Grouping>, reopen_within: Option<Duration>) {
    let before = aside.held.take();
    let reopen_within = before.as_ref().map_or(reopen_within, |held| held.reopen_within);
    let mut held = Held { evidence: record.evidence.clone(), supports: record.supports, reopen_within, ..before.unwrap_or_default() };
    if let Some(grouping) = grouping {
        let named = |of: fn(&Key) -> bool| grouping.keys.iter().filter(|key| of(key)).map(|key| key.name.clone()).collect();
        held.keys = named(|key| key.seeks);
        held.storms = named(|key| !key.seeks && key.counts);
        held.grouping = serde_json::to_value(grouping).unwrap_or_default();
    }
    aside.held = Some(held);
}

/// Keeps by what the episode under `claim` holds others back.
pub(super) fn shield(desk: &mut Desk<'_>, claim: &AlertId, shields: Option<&Vec<Shield>>) {
    if let Some(shields) = shields
        && let Some(state) = desk.touch_episode(claim)
    {
        change_aside(state, |aside| aside.shields.clone_from(shields));
    }
}

/// An episode that holds and belongs to no incident is held back.
pub(super) fn hold(
    desk: &mut Desk<'_>,
    record: &AlertRecord,
    suppression: &Suppression,
    reopen_within: Option<Duration>,
    grouping: Option<&Grouping>,
) -> Decided {
    let by = written(desk, suppression);
    if let Some(state) = desk.touch_episode(&record.alert) {
        state.alert.suppressed_by = Some(by.clone());
        change_aside(state, |aside| {
            aside.began = Some(record.logged_at);
            keep(aside, record, grouping, reopen_within);
        });
    }
    held_back(by, suppression)
}

fn held_back(by: String, suppression: &Suppression) -> Decided {
    let text = format!("no incident is opened: {}", suppression.text);
    Decided { incident: None, outcome: "held back", text, inputs: with(&by, suppression) }
}

fn with(by: &str, suppression: &Suppression) -> serde_json::Value {
    json!({ "suppressed_by": by, "found_on": suppression.inputs })
}

/// An episode goes on: whether it is held back from there on is what counts for it.
pub(super) fn goes_on(state: &mut AlertState, record: &AlertRecord, suppression: Option<&Suppression>) {
    state.alert.suppressed_by = None;
    change_aside(state, |aside| aside.began = suppression.map(|_| record.logged_at));
}

/// Takes over what holds the episode under `claim` back now; says what came of it, if anything changed. `record` is what was
/// just told of it, none on a tick.
pub(super) fn settle(
    desk: &mut Desk<'_>,
    claim: &AlertId,
    suppression: Option<&Suppression>,
    record: Option<(&AlertRecord, Option<&Grouping>)>,
    at: Timestamp,
) -> Option<Decided> {
    let by = suppression.map(|suppression| written(desk, suppression));
    let state = desk.episode(claim)?;
    let (before, incident, name) =
        (state.alert.suppressed_by.clone(), state.alert.incident_id.as_ref().map(|id| desk.home(id)), state.alert.name.clone());
    if before.is_none() && by.is_none() {
        return None;
    }
    let changed = before != by;
    if let Some(state) = desk.touch_episode(claim) {
        state.alert.suppressed_by.clone_from(&by);
        if let (None, Some((record, grouping))) = (&incident, record) {
            change_aside(state, |aside| keep(aside, record, grouping, None));
        }
    }
    match (by, suppression, incident) {
        (Some(by), Some(suppression), None) => (changed || record.is_some()).then(|| held_back(by, suppression)),
        (Some(by), Some(suppression), Some(incident)) if changed => {
            if let Some(mut change) = desk.touch_incident(&incident).filter(|_| before.is_none()) {
                change.line(
                    TimelineKind::Note,
                    at,
                    format!("{name} is held back from now on, and the incident stays open: {}", suppression.text),
                );
            }
            let text = format!("the alert is held back, and its incident stays open: {}", suppression.text);
            Some(Decided { incident: Some(incident), outcome: "held back", text, inputs: with(&by, suppression) })
        }
        (Some(_), ..) => None,
        (None, _, None) => Some(release(desk, claim, before.as_deref(), at)),
        (None, _, Some(incident)) => {
            let severity = desk.episode(claim)?.alert.severity;
            if let Some(mut change) = desk.touch_incident(&incident) {
                change.raise(severity, at);
            }
            let text = format!(
                "nothing holds the alert back any more: {} is over; it counts to its incident as before",
                before.as_deref().unwrap_or_default()
            );
            Some(Decided { incident: Some(incident), outcome: "let go", text, inputs: json!({ "was_suppressed_by": before }) })
        }
    }
}

/// Tells of an episode that nothing holds back any more, as if it began now.
fn release(desk: &mut Desk<'_>, claim: &AlertId, before: Option<&str>, at: Timestamp) -> Decided {
    let over = before.unwrap_or_default().to_owned();
    let told = desk.touch_episode(claim).and_then(|state| {
        let mut held = None;
        change_aside(state, |aside| held = aside.held.take());
        let held = held?;
        let grouping: Option<Grouping> = serde_json::from_value(held.grouping.clone()).ok();
        Some((state.alert.id.clone(), held.reopen_within, grouping, as_if_it_began(state, held, at)))
    });
    let Some((alert, reopen_within, grouping, record)) = told else {
        let text = format!("nothing holds the alert back any more: {over} is over; it has no incident, as before");
        return Decided { incident: None, outcome: "let go", text, inputs: json!({ "was_suppressed_by": before }) };
    };
    let mut decided = place(desk, &alert, &record, reopen_within, grouping.as_ref());
    decided.text = format!("nothing holds the alert back any more ({over} is over), so it counts as if it began now: {}", decided.text);
    if let Some(inputs) = decided.inputs.as_object_mut() {
        inputs.insert("was_suppressed_by".to_owned(), json!(before));
    }
    decided
}

/// The record that would be if the episode began at `at`, with all that was counted meanwhile.
fn as_if_it_began(state: &AlertState, held: Held, at: Timestamp) -> AlertRecord {
    let alert = &state.alert;
    AlertRecord {
        alert: state.claim.clone(),
        detected_by: alert.detected_by.clone(),
        rule: alert.name.clone(),
        fingerprint: alert.fingerprint,
        transition: Transition::Firing,
        resolved_by: None,
        at: alert.last_seen_at,
        logged_at: at,
        signal_seq: 0,
        count: alert.occurrences,
        source: alert.source.clone(),
        title: alert.title.clone(),
        description: alert.description.clone(),
        severity: alert.severity,
        labels: alert.labels.clone(),
        supports: held.supports,
        evidence: held.evidence,
    }
}

/// It is over, and nobody is to be told of it any more.
pub(super) fn forget(state: &mut AlertState) {
    change_aside(state, |aside| aside.held = None);
}

/// Takes over what was found about an alert on a tick.
pub(super) fn swept(desk: &mut Desk<'_>, swept: &Swept, at: Timestamp) -> Option<Decided> {
    if desk.episode(&swept.claim)?.alert.status != AlertStatus::Firing {
        return None;
    }
    shield(desk, &swept.claim, swept.shields.as_ref());
    settle(desk, &swept.claim, swept.suppression.as_ref(), None, at)
}
