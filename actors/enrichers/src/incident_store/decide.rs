//! What a record or a tick does to incidents.

use std::time::Duration;

use opspilot_kernel::{
    alert::{AlertRecord, AlertStatus, Transition},
    ids::{AlertId, IncidentId, Seq},
    incident::{IncidentStatus, TimelineKind},
    time::Timestamp,
};
use opspilot_ledger::{
    AlertEntry,
    pipeline::{Board, Decision},
};
use serde_json::{Value, json};

use super::{
    ID, Rules,
    desk::{Desk, Effects},
    held,
    together::Taker,
};
use crate::{
    dedup::decide::{Episode, judge},
    stage::{Grouping, Item, Suppression, Verdict, continuation, reason},
};

/// Timers that one tick lets go off; further ones wait for the next tick, which is due at once.
pub(crate) const TIMERS_PER_TICK: usize = 1000;

/// How long an incident waits for its approval before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
const UNDER_WAY: &str = "none of its alerts fires any more; the incident waits for what was approved for it";
const SWITCHED_OFF: &str = "incidents are switched off";

/// What was decided on one entry, before it is written down.
pub(super) struct Decided {
    pub(super) incident: Option<IncidentId>,
    pub(super) outcome: &'static str,
    pub(super) text: String,
    pub(super) inputs: Value,
}

/// Opens, joins, counts, resolves and reopens; returns what changed, and why.
pub(crate) fn decide(rules: &Rules, board: &Board, items: &[Item]) -> (Effects, Vec<Decision>) {
    let mut desk = Desk::new(rules, board);
    let mut decisions = Vec::new();
    for item in items {
        match &item.entry {
            AlertEntry::Record { seq, record } => {
                let known = desk.episode(&record.alert).map(Episode::of);
                // without the stage before, an episode that is over never goes on
                let verdict = item.verdict.unwrap_or_else(|| judge(record, known.as_ref(), None));
                // a tick may be read later than what came after it: whoever was quiet long enough by then is through
                for decided in desk.concerned(record).into_iter().flat_map(|id| quiet(&mut desk, &id, record.logged_at)).collect::<Vec<_>>()
                {
                    decisions.push(written(*seq, record.logged_at, None, decided, false));
                }
                let found = Found { grouping: item.grouping.as_ref(), suppression: item.suppression.as_ref() };
                let decided = apply(&mut desk, record, verdict, found);
                held::shield(&mut desk, &record.alert, item.shields.as_ref());
                let alert = desk.episode(&record.alert).map_or_else(|| record.alert.clone(), |state| state.alert.id.clone());
                let repeats = matches!(decided.outcome, "counted" | "none" | "held back");
                decisions.push(written(*seq, record.logged_at, Some(alert), decided, repeats));
            }
            AlertEntry::Tick { seq, at } => {
                for swept in &item.swept {
                    let alert = desk.episode(&swept.claim).map(|state| state.alert.id.clone());
                    if let Some(decided) = held::swept(&mut desk, swept, *at) {
                        decisions.push(written(*seq, *at, alert, decided, false));
                    }
                }
                if !rules.enabled {
                    continue;
                }
                let due = desk.due(*at, TIMERS_PER_TICK);
                let looked_at: Vec<IncidentId> = due
                    .iter()
                    .filter(|id| desk.incident(id).is_some_and(|state| state.look_at.is_some_and(|look| look <= *at)))
                    .cloned()
                    .collect();
                let mut decided = Vec::new();
                for id in &due {
                    decided.extend(timers(&mut desk, id, *at));
                }
                decided.extend(desk.storms(&looked_at, *at, item.storm));
                decisions.extend(decided.into_iter().map(|decided| written(*seq, *at, None, decided, false)));
            }
        }
    }
    (desk.finish(), if rules.enabled { decisions } else { Vec::new() })
}

fn written(seq: Seq, at: Timestamp, alert: Option<AlertId>, decided: Decided, repeats: bool) -> Decision {
    let Decided { incident, outcome, text, inputs } = decided;
    Decision { seq, at, stage: ID.as_str(), alert, incident, outcome, text, inputs, repeats }
}

/// What the stages before found of a record's alert.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) grouping: Option<&'a Grouping>,
    pub(super) suppression: Option<&'a Suppression>,
}

fn apply(desk: &mut Desk<'_>, record: &AlertRecord, verdict: Verdict, found: Found<'_>) -> Decided {
    match verdict {
        Verdict::Starts { reopen_within, goes_on } => {
            let alert = if goes_on { continuation(record) } else { record.alert.clone() };
            desk.begin_episode(alert.clone(), record);
            begin(desk, &alert, record, reopen_within, found)
        }
        Verdict::Resumes => resume(desk, record, found),
        Verdict::Counts => count(desk, record, found),
        Verdict::Ends => end(desk, record),
        Verdict::Late => late(desk, record),
        Verdict::Unknown => nothing("it is about an alert that was never seen firing"),
    }
}

fn nothing(why: &str) -> Decided {
    Decided { incident: None, outcome: "none", text: format!("no incident is touched: {why}"), inputs: Value::Null }
}

/// An episode that holds and has no incident gets one, unless something holds it back.
fn begin(desk: &mut Desk<'_>, alert: &AlertId, record: &AlertRecord, reopen_within: Option<Duration>, found: Found<'_>) -> Decided {
    match found.suppression {
        Some(suppression) => held::hold(desk, record, suppression, reopen_within, found.grouping),
        None => place(desk, alert, record, reopen_within, found.grouping),
    }
}

/// Finds the incident for an episode that holds and has none, or opens it.
pub(super) fn place(
    desk: &mut Desk<'_>,
    alert: &AlertId,
    record: &AlertRecord,
    reopen_within: Option<Duration>,
    grouping: Option<&Grouping>,
) -> Decided {
    if !desk.rules.enabled {
        return nothing(SWITCHED_OFF);
    }
    let at = record.logged_at;
    let last = desk.last_resolved(record.fingerprint).map(|state| (state.incident.id.clone(), state.incident.resolved_at));
    let own = desk.open_incident(record.fingerprint);
    let takers = grouping.map(|grouping| desk.takers(grouping, at)).unwrap_or_default();
    let inputs = json!({
        "fingerprint": record.fingerprint,
        "severity": record.severity,
        "open_incident": &own,
        "shared": takers.iter().map(|taker| json!({ "incident": taker.incident, "key": taker.key.name })).collect::<Vec<_>>(),
        "last_incident": last.as_ref().map(|(id, _)| id),
        "last_resolved_at": last.as_ref().and_then(|(_, at)| *at),
        "reopen_window_secs": reopen_within.map(|window| window.as_secs()),
    });
    // whoever opened the incident meanwhile made it more than what one supporter says
    if record.supports && own.is_none() && takers.is_empty() {
        return nothing("it supports what others say, and opens none alone");
    }
    let again = last.filter(|(_, resolved_at)| match (reopen_within, resolved_at) {
        (Some(window), Some(resolved_at)) => at.since(*resolved_at) <= window,
        _ => false,
    });
    let (incident, outcome, text) = match (&own, takers.first(), again) {
        (Some(open), _, _) => (open.clone(), "joined", "joins the open incident of the same fingerprint".to_owned()),
        (None, Some(taker), _) => {
            let since = taker.key.why.as_str();
            (taker.incident.clone(), "joined", format!("joins an open incident, since {since}"))
        }
        (None, None, Some((last, resolved_at))) => {
            let ago = resolved_at.map_or(0, |resolved_at| at.since(resolved_at).as_secs());
            let text = format!("opens the last incident of this fingerprint again: it was resolved {ago} s ago, within the window");
            (last, "reopened", text)
        }
        (None, None, None) => {
            let before = desk.last_resolved(record.fingerprint).map(|state| format!("; it came back after {}", state.incident.id));
            let id = desk.found_incident(alert, record);
            let text = match grouping {
                Some(_) => "opens an incident: none that is open shares anything with it, and none of its own was resolved recently enough",
                None => "opens an incident: none with this fingerprint is open or was resolved recently enough",
            };
            (id, "opened", text.to_owned() + &before.unwrap_or_default())
        }
    };
    let (incident, text) = bring_together(desk, incident, &takers, at, text);
    if let Some(episode) = desk.touch_episode(&record.alert) {
        episode.alert.incident_id = Some(incident.clone());
    }
    if own.is_none() && outcome == "joined" {
        desk.adopt(record.fingerprint, &incident);
    }
    if let Some(mut change) = desk.touch_incident(&incident) {
        change.take_in(true);
        match outcome {
            "opened" => {
                change.opened(at, format!("{} ({}): {}", record.rule, record.detected_by, record.title));
            }
            "joined" if own.is_some() => change.note(TimelineKind::AlertFiring, at, format!("{} fires in a new episode", record.rule)),
            "joined" => change.note(TimelineKind::AlertJoined, at, format!("{}: {}; it {text}", record.rule, record.title)),
            _ => change.reopen(at, format!("{} fires again", record.rule)),
        }
        change.raise(record.severity, at);
        change.count(alert, record);
    }
    if let Some(grouping) = grouping {
        desk.share(&incident, record, grouping, &takers);
    }
    Decided { incident: Some(incident), outcome, text, inputs }
}

/// An alert that shares something with several open incidents shows that they are one.
fn bring_together(desk: &mut Desk<'_>, incident: IncidentId, takers: &[Taker<'_>], at: Timestamp, text: String) -> (IncidentId, String) {
    let mut all = vec![incident.clone()];
    all.extend(takers.iter().map(|taker| taker.incident.clone()).filter(|id| *id != incident));
    let sociable = desk.incident(&incident).is_some_and(|state| !state.pinned);
    let (true, Some(taker)) = (sociable && all.len() > 1, takers.iter().find(|taker| taker.incident != incident)) else {
        return (incident, text);
    };
    let text = format!("{text}, which brings {} incidents together", all.len());
    let why = format!("an alert belongs to both, since {}", taker.key.why);
    desk.unite(&all, at, &why);
    (desk.home(&incident), text)
}

/// An episode that was closed here fires again.
fn resume(desk: &mut Desk<'_>, record: &AlertRecord, found: Found<'_>) -> Decided {
    let Found { grouping, suppression } = found;
    let Some(state) = desk.episode(&record.alert) else {
        desk.begin_episode(record.alert.clone(), record);
        return begin(desk, &record.alert, record, None, found);
    };
    let (alert, incident) = (state.alert.id.clone(), state.alert.incident_id.as_ref().map(|id| desk.home(id)));
    let closed = incident
        .as_ref()
        .and_then(|id| desk.incident(id))
        .map(|state| (state.incident.id.clone(), state.incident.status == IncidentStatus::Resolved));
    let elsewhere = desk.open_incident(record.fingerprint).filter(|open| Some(open) != incident.as_ref());
    let enabled = desk.rules.enabled;
    // its own incident cannot be opened beside the one that is open, or while the alert is held back
    let apart = matches!(closed, Some((_, true))) && (elsewhere.is_some() || suppression.is_some());
    // what was held back until its end stays so
    let untold = closed.is_none() && desk.episode(&record.alert).is_some_and(|state| state.alert.suppressed_by.is_some());
    if enabled && (apart || untold) {
        let alert = continuation(record);
        desk.begin_episode(alert.clone(), record);
        return begin(desk, &alert, record, None, found);
    }
    if let Some(episode) = desk.touch_episode(&record.alert) {
        episode.alert.status = AlertStatus::Firing;
        episode.alert.resolved_at = None;
        episode.resolved_by = None;
        episode.resolved_logged_at = None;
        episode.alert.severity = episode.alert.severity.max(record.severity);
        held::goes_on(episode, record, suppression);
        seen(episode, record);
    }
    let Some((incident, was_resolved)) = closed else {
        return begin(desk, &alert, record, None, found);
    };
    let at = record.logged_at;
    if !enabled {
        return keep_tally(desk, &incident, |firing| firing + 1);
    }
    if was_resolved {
        desk.hold(record.fingerprint, &incident);
    }
    if let Some(grouping) = grouping {
        desk.hold_keys(&incident, grouping, at);
    }
    if let Some(mut change) = desk.touch_incident(&incident) {
        change.take_in(false);
        if was_resolved {
            change.reopen(at, format!("{} still fires", record.rule));
        } else {
            change.note(TimelineKind::AlertFiring, at, format!("{} fires again", record.rule));
        }
        if suppression.is_none() {
            change.raise(record.severity, at);
        }
        change.count(&alert, record);
    }
    if let Some(settled) = held::settle(desk, &record.alert, suppression, Some((record, grouping)), at) {
        return settled;
    }
    let inputs = json!({ "fingerprint": record.fingerprint, "incident_was_resolved": was_resolved });
    let (outcome, text) = if was_resolved {
        ("reopened", "opens its incident again: the alert it was resolved with still fires")
    } else {
        ("joined", "goes on in its incident, which is still open")
    };
    Decided { incident: Some(incident), outcome, text: text.to_owned(), inputs }
}

/// An episode that holds was seen again.
fn count(desk: &mut Desk<'_>, record: &AlertRecord, found: Found<'_>) -> Decided {
    let Found { grouping, suppression } = found;
    let Some(episode) = desk.touch_episode(&record.alert) else {
        return nothing("it is about an alert that was never seen firing");
    };
    seen(episode, record);
    episode.alert.severity = episode.alert.severity.max(record.severity);
    let alert = episode.alert.id.clone();
    let own = episode.alert.incident_id.clone().map(|id| desk.home(&id));
    let settled = held::settle(desk, &record.alert, suppression, Some((record, grouping)), record.logged_at);
    let Some(incident) = own else {
        if let Some(settled) = settled {
            return settled;
        }
        // it began while incidents were switched off
        return match record.transition {
            Transition::Firing => place(desk, &alert, record, None, grouping),
            Transition::Repeat | Transition::Resolved => nothing("the alert has none, and a repeat opens nothing"),
        };
    };
    if !desk.rules.enabled {
        return nothing(SWITCHED_OFF);
    }
    let mut raised = false;
    if let Some(mut change) = desk.touch_incident(&incident) {
        raised = suppression.is_none() && record.severity > change.state().incident.severity;
        if raised {
            change.raise(record.severity, record.logged_at);
        }
        change.count(&alert, record);
    }
    if let Some(settled) = settled {
        return settled;
    }
    let inputs = json!({ "severity": record.severity });
    let (outcome, text) = if raised {
        ("raised", "its incident gets as severe as the alert has become")
    } else {
        ("counted", "counts to its incident, which is open")
    };
    Decided { incident: Some(incident), outcome, text: text.to_owned(), inputs }
}

/// An episode is over.
fn end(desk: &mut Desk<'_>, record: &AlertRecord) -> Decided {
    let why = reason(record.resolved_by);
    let Some(episode) = desk.touch_episode(&record.alert) else {
        return nothing("it is about an alert that was never seen firing");
    };
    episode.alert.status = AlertStatus::Resolved;
    episode.alert.resolved_at = Some(record.at);
    episode.resolved_by = record.resolved_by;
    episode.resolved_logged_at = Some(record.logged_at);
    seen(episode, record);
    let alert = episode.alert.id.clone();
    let Some(incident) = episode.alert.incident_id.clone() else {
        held::forget(episode);
        return nothing(match &episode.alert.suppressed_by {
            Some(_) => "the alert was held back until its end",
            None => "the alert has none",
        });
    };
    let incident = desk.home(&incident);
    if !desk.rules.enabled {
        return keep_tally(desk, &incident, |firing| firing.saturating_sub(1));
    }
    let (at, quiet) = (record.logged_at, desk.rules.quiet_period);
    let waits = desk.is_under_way(&incident);
    let mut left = 0;
    if let Some(mut change) = desk.touch_incident(&incident) {
        change.count(&alert, record);
        let state = change.state();
        state.firing = state.firing.saturating_sub(1);
        left = state.firing;
        if state.incident.status != IncidentStatus::Resolved {
            change.note(TimelineKind::AlertResolved, at, format!("{} is over: {why}", record.rule));
            if left == 0 && waits {
                change.state().quiet_at = Some(at.after(quiet.max(LOOK_AGAIN)));
            } else if left == 0 && quiet.is_zero() {
                change.resolve(at, format!("all its alerts are over; the last one, {}: {why}", record.rule));
            } else if left == 0 {
                change.state().quiet_at = Some(at.after(quiet));
            }
        }
    }
    let inputs = json!({ "resolved_by": record.resolved_by, "alerts_still_firing": left, "quiet_period_secs": quiet.as_secs() });
    let (outcome, text) = match (left, quiet.is_zero()) {
        (0, _) if waits => ("waits", UNDER_WAY.to_owned()),
        (0, true) => ("resolved", "resolves the incident: none of its alerts fires any more".to_owned()),
        (0, false) => {
            ("waits", format!("none of its alerts fires any more; the incident is resolved after {} s of quiet", quiet.as_secs()))
        }
        (left, _) => ("kept open", format!("the incident stays open: {left} of its alerts still fire")),
    };
    Decided { incident: Some(incident), outcome, text, inputs }
}

/// About an episode that is over.
fn late(desk: &mut Desk<'_>, record: &AlertRecord) -> Decided {
    let Some(episode) = desk.touch_episode(&record.alert) else {
        return nothing("it is about an alert that was never seen firing");
    };
    seen(episode, record);
    let alert = episode.alert.id.clone();
    let Some(incident) = episode.alert.incident_id.clone().map(|id| desk.home(&id)) else {
        return nothing("the alert has none");
    };
    if !desk.rules.enabled {
        return nothing(SWITCHED_OFF);
    }
    if let Some(mut change) = desk.touch_incident(&incident) {
        change.count(&alert, record);
    }
    let text = "counts to its incident; the alert is over, so nothing is opened".to_owned();
    Decided { incident: Some(incident), outcome: "counted", text, inputs: Value::Null }
}

/// While incidents are switched off they keep count of their alerts and nothing else happens to them.
fn keep_tally(desk: &mut Desk<'_>, incident: &IncidentId, count: impl FnOnce(u64) -> u64) -> Decided {
    if let Some(mut change) = desk.touch_incident(incident) {
        let state = change.state();
        state.firing = count(state.firing);
    }
    nothing(SWITCHED_OFF)
}

/// What every record tells about its episode.
fn seen(episode: &mut opspilot_ledger::pipeline::AlertState, record: &AlertRecord) {
    episode.alert.occurrences = episode.alert.occurrences.saturating_add(record.count);
    episode.alert.last_seen_at = episode.alert.last_seen_at.max(record.at);
    episode.last_logged_at = episode.last_logged_at.max(record.logged_at);
}

/// Lets the timers of one incident go off that are due.
fn timers(desk: &mut Desk<'_>, id: &IncidentId, at: Timestamp) -> Vec<Decided> {
    let mut decided = Vec::new();
    let Some(mut change) = desk.touch_incident(id) else { return decided };
    let mut write = |outcome, text: &str, due: Option<Timestamp>| {
        let inputs = json!({ "due_at": due, "tick_at": at });
        decided.push(Decided { incident: Some(id.clone()), outcome, text: text.to_owned(), inputs });
    };
    let snoozed = change.state().incident.snoozed_until.filter(|until| *until <= at);
    if snoozed.is_some() {
        change.state().incident.snoozed_until = None;
        change.note(TimelineKind::SnoozeEnded, at, "the time it was put aside for is over".to_owned());
        write("woken", "the time it was put aside for is over", snoozed);
    }
    decided.extend(quiet(desk, id, at));
    decided
}

/// Resolves an incident whose quiet period was over by `at`, as of its end.
fn quiet(desk: &mut Desk<'_>, id: &IncidentId, at: Timestamp) -> Option<Decided> {
    let due = desk.incident(id)?.quiet_at.filter(|due| desk.rules.enabled && *due <= at)?;
    if desk.is_under_way(id) {
        desk.touch_incident(id)?.state().quiet_at = Some(at.after(LOOK_AGAIN));
        return None;
    }
    desk.touch_incident(id)?.resolve(due, "all its alerts are over and stayed quiet".to_owned());
    let inputs = json!({ "due_at": due, "tick_at": at });
    let text = "resolves the incident: all its alerts are over and stayed quiet".to_owned();
    Some(Decided { incident: Some(id.clone()), outcome: "resolved", text, inputs })
}
