//! Putting incidents together and taking them apart.

use std::{collections::BTreeSet, time::Duration};

use diesel::{prelude::*, sql_types::Text};
use opspilot_kernel::{
    alert::{Alert, AlertStatus, Observation},
    event::Event,
    fingerprint::Fingerprint,
    ids::{AlertId, Seq},
    incident::{Incident, IncidentStatus, TimelineKind},
    signal::Severity,
};
use proptest::prelude::*;

use super::{
    incidents_list::IncidentFilter,
    incidents_state::{AlertState, BoardRequest, HeldKey, IncidentState},
    incidents_tests::{World, at, founding, incident_id},
};
use crate::{AlertFilter, AuditFilter, EventEntry, LedgerError, Page};

/// What one more alert of an incident is like.
#[derive(Debug, Clone)]
struct Further {
    firing: bool,
    severity: Severity,
    occurrences: u64,
    pieces: usize,
}

fn further() -> impl Strategy<Value = Further> {
    (any::<bool>(), 0..5_usize, 1..9_u64, 0..3_usize).prop_map(|(firing, severity, occurrences, pieces)| Further {
        firing,
        severity: Severity::ALL[severity],
        occurrences,
        pieces,
    })
}

fn alert_id(name: &str, n: usize) -> AlertId {
    if n == 0 { AlertId::derived(&[name]) } else { AlertId::derived(&[name, &n.to_string()]) }
}

impl World {
    /// Founds the incident `name`, with further alerts beside the first.
    fn found_with(&self, name: &str, condition: u64, from: Seq, more: &[Further]) {
        let mut commit = founding(name, condition, from, 0);
        let first = commit.alerts[0].clone();
        let change = &mut commit.incidents[0];
        for (n, further) in (1..).zip(more) {
            let alert = Alert {
                id: alert_id(name, n),
                fingerprint: Fingerprint::from_u64(condition + u64::try_from(n).unwrap()),
                status: if further.firing { AlertStatus::Firing } else { AlertStatus::Resolved },
                severity: further.severity,
                title: format!("further {name}{n}"),
                occurrences: further.occurrences,
                ..first.alert.clone()
            };
            let (state, incident) = (&mut change.state, alert.id.clone());
            state.firing += u64::from(further.firing);
            state.incident.alert_count += 1;
            state.incident.occurrences += further.occurrences;
            state.incident.severity = state.incident.severity.max(further.severity);
            state.evidence_beyond += further.occurrences;
            state.incident.evidence_count += u64::try_from(further.pieces).unwrap();
            state.key_count += 1;
            change.fingerprints.push(alert.fingerprint);
            let held = HeldKey { key: format!("name:{name}{n}"), at: at(0), counts: true, storm: false };
            change.keys.extend([held, HeldKey { key: "component:shop".to_owned(), at: at(0), counts: true, storm: false }]);
            for piece in 0..further.pieces {
                let text = format!("piece {piece} of {name}{n}");
                change.evidence.push((incident.clone(), Observation::Log { at: at(0), source: "shop".to_owned(), text }));
            }
            let last_logged_at = at(i64::try_from(n).unwrap());
            state.incident.last_seen_at = state.incident.last_seen_at.max(last_logged_at);
            commit.alerts.push(AlertState { claim: alert.id.clone(), last_logged_at, alert, ..first.clone() });
        }
        change.founded = Some(Box::new(change.state.incident.clone()));
        self.commit(commit).unwrap();
    }

    fn state(&self, name: &str) -> IncidentState {
        let request =
            BoardRequest { fingerprints: [Fingerprint::from_u64(0)].into(), claims: [alert_id(name, 0)].into(), ..BoardRequest::default() };
        let board = self.read(|reader| reader.board(&request));
        let state = board.incidents.get(&incident_id(name)).cloned();
        state.map(|state| IncidentState { rev: 0, timeline_count: 0, pinned: false, ..state }).unwrap()
    }

    /// Everything of an incident but what only grows.
    fn whole(&self, name: &str) -> (IncidentState, Vec<Alert>, Vec<String>, Vec<String>) {
        let detail = self.read(|reader| reader.incident(&incident_id(name)));
        let pieces = detail.evidence.iter().map(|piece| format!("{piece:?}")).collect();
        let sql =
            format!("SELECT fingerprint || ' ' || open FROM incident_fingerprint WHERE incident = '{}' ORDER BY 1", incident_id(name));
        (self.state(name), detail.alerts, pieces, self.texts(&sql))
    }

    fn texts(&self, sql: &str) -> Vec<String> {
        self.read(|reader| Ok(diesel::dsl::sql::<Text>(sql).load(reader.conn)?))
    }

    fn merge(&self, from: &'static str, into: &'static str) -> Result<Incident, LedgerError> {
        self.person(move |tx, ada| tx.incident_merge(&incident_id(from), &incident_id(into), ada))
    }

    fn split(&self, of: &'static str, alerts: &[AlertId]) -> Result<Incident, LedgerError> {
        let alerts: BTreeSet<AlertId> = alerts.iter().cloned().collect();
        self.person(move |tx, ada| tx.incident_split(&incident_id(of), &alerts, ada))
    }
}

const ONE: Further = Further { firing: true, severity: Severity::Warning, occurrences: 3, pieces: 2 };

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_was_merged_and_is_split_again_stands_as_it_stood(
        kept in prop::collection::vec(further(), 0..4),
        gone in prop::collection::vec(further(), 0..4),
        taken in any::<bool>(),
        asleep in any::<bool>(),
    ) {
        let world = World::new();
        world.found_with("kept", 100, 0, &kept);
        world.found_with("gone", 200, 1, &gone);
        if taken {
            world.person(|tx, ada| tx.incident_acknowledge(&incident_id("gone"), ada, "mine")).unwrap();
        }
        if asleep {
            world.person(|tx, ada| tx.incident_snooze(&incident_id("gone"), ada, at(500))).unwrap();
        }
        let keys = "SELECT key FROM incident_key WHERE incident = (SELECT id FROM incident WHERE num = 1) ORDER BY key";
        let (before, held) = ((world.whole("kept"), world.whole("gone")), world.texts(keys));
        world.clock.advance(Duration::from_secs(60));
        world.merge("gone", "kept").unwrap();
        let alerts: Vec<AlertId> = (0..=gone.len()).map(|n| alert_id("gone", n)).collect();
        let again = world.split("kept", &alerts).unwrap();
        prop_assert_eq!(&again.id, &incident_id("gone"));
        prop_assert_eq!(&(world.whole("kept"), world.whole("gone")), &before);
        prop_assert_eq!(world.texts(keys), held);
        // and a second time
        world.merge("gone", "kept").unwrap();
        world.split("kept", &alerts).unwrap();
        prop_assert_eq!(&(world.whole("kept"), world.whole("gone")), &before);
        world.read(|reader| reader.audit_verify());
    }
}

#[test]
fn a_merger_is_told_in_both_and_leaves_one_incident() {
    let world = World::new();
    world.found_with("a", 100, 0, &[ONE]);
    world.found_with("b", 200, 1, &[]);
    let whole = world.merge("b", "a").unwrap();
    assert_eq!((whole.id.clone(), whole.alert_count, whole.occurrences), (incident_id("a"), 3, 5));
    let listed = world.read(|reader| reader.incidents(&IncidentFilter::default(), &Page::first(10))).items;
    assert_eq!(listed.iter().map(|item| item.incident.id.clone()).collect::<Vec<_>>(), [incident_id("a")]);
    let ended = world.read(|reader| reader.incident(&incident_id("b"))).incident;
    assert_eq!((ended.merged_into, ended.status), (Some(incident_id("a")), IncidentStatus::Resolved));
    // it is found by what the other was about
    let found = world.read(|reader| {
        reader.incidents(&IncidentFilter { q: Some(incident_id("b").to_string()), ..IncidentFilter::default() }, &Page::first(10))
    });
    assert_eq!(found.items.len(), 1);
    for name in ["a", "b"] {
        let lines = world.read(|reader| reader.timeline(&incident_id(name), &Page::first(10))).items;
        assert_eq!(lines.last().unwrap().kind, TimelineKind::Merged, "{name}");
    }
    for (from, into) in [("b", "a"), ("a", "b"), ("a", "a")] {
        world.merge(from, into).unwrap_err();
    }
    let missing = world.merge("a", "none").unwrap_err();
    assert!(matches!(missing, LedgerError::NotFound(_)), "{missing}");
}

#[test]
fn alerts_that_are_something_else_make_an_incident_that_keeps_to_itself() {
    let world = World::new();
    world.found_with("a", 100, 0, &[ONE, Further { severity: Severity::Critical, ..ONE }, Further { firing: false, ..ONE }]);
    let before = world.ledger.events().head();
    let made = world.split("a", &[alert_id("a", 1), alert_id("a", 3)]).unwrap();
    assert_eq!((made.title.as_str(), made.alert_count, made.occurrences, made.severity), ("further a1", 2, 6, Severity::Warning));
    assert_eq!((made.status, made.evidence_count), (IncidentStatus::Open, 4));
    let rest = world.read(|reader| reader.incident(&incident_id("a"))).incident;
    assert_eq!((rest.alert_count, rest.occurrences, rest.severity), (2, 4, Severity::Critical));
    assert_eq!(rest.evidence_count, 7, "what is numbered may be cited, so it stays");
    let own =
        world.read(|reader| reader.alerts(&AlertFilter { incident: Some(made.id.clone()), ..AlertFilter::default() }, &Page::first(10)));
    assert_eq!(own.items.len(), 2);
    assert_eq!(world.texts(&format!("SELECT key FROM incident_key WHERE incident = '{}'", made.id)), [""; 0]);
    assert_eq!(world.texts("SELECT id FROM incident WHERE pinned"), [made.id.to_string()]);
    assert_eq!(
        world.texts(&format!("SELECT fingerprint || '' FROM incident_fingerprint WHERE incident = '{}' ORDER BY 1", made.id)),
        ["101", "103"]
    );
    let found = world.read(|reader| {
        reader.incidents(&IncidentFilter { q: Some("piece further a3".to_owned()), ..IncidentFilter::default() }, &Page::first(10))
    });
    assert!(found.items.iter().any(|item| item.incident.id == made.id));
    let events = world.ledger.events().next(before, 10).unwrap();
    let kinds: Vec<&str> = events
        .iter()
        .filter_map(|entry| match entry {
            EventEntry::Event(envelope) => match &envelope.event {
                Event::IncidentCreated(incident) => (incident.id == made.id).then_some("created"),
                Event::IncidentUpdated { incident, .. } => (incident.id == incident_id("a")).then_some("updated"),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(kinds, ["created", "updated"]);
    let audited =
        world.read(|reader| reader.audit(&AuditFilter { action: Some("INC10".to_owned()), ..AuditFilter::default() }, &Page::first(10)));
    assert_eq!(audited.items.len(), 1);

    for alerts in [vec![], vec![alert_id("a", 1)], vec![alert_id("a", 0), alert_id("a", 2)], vec![alert_id("b", 0)]] {
        let refused = world.split("a", &alerts).unwrap_err();
        assert!(matches!(refused, LedgerError::Invalid(_)), "{alerts:?}: {refused}");
    }
    world.person(|tx, ada| tx.incident_resolve(&incident_id("a"), ada, "")).unwrap();
    let refused = world.split("a", &[alert_id("a", 0)]).unwrap_err();
    assert!(matches!(refused, LedgerError::Conflict(_)), "{refused}");
}

#[test]
fn what_came_after_a_merger_goes_with_its_alert_and_gaps_in_no_numbering() {
    let world = World::new();
    world.found_with("a", 100, 0, &[]);
    world.found_with("b", 200, 1, &[]);
    world.merge("b", "a").unwrap();
    // both go on, within one incident
    let mut commit = founding("b", 200, 2, 9);
    let mut state = world.state("a");
    state.rev = 2;
    state.timeline_count = 2;
    state.incident.evidence_count += 2;
    state.incident.occurrences += 1;
    commit.alerts[0].alert.occurrences += 1;
    commit.alerts[0].alert.incident_id = Some(incident_id("a"));
    let mut change = super::incidents_state::IncidentChange::none(state);
    let text = |text: &str| Observation::Log { at: at(9), source: "shop".to_owned(), text: text.to_owned() };
    change.evidence = vec![(alert_id("b", 0), text("late b")), (alert_id("a", 0), text("late a"))];
    (commit.incidents, commit.decisions) = (vec![change], Vec::new());
    world.commit(commit).unwrap();
    world.split("a", &[alert_id("b", 0)]).unwrap();
    let pieces = |name: &str| {
        let detail = world.read(|reader| reader.incident(&incident_id(name)));
        assert_eq!(detail.incident.evidence_count, u64::try_from(detail.evidence.len()).unwrap());
        detail.evidence.into_iter().map(|piece| piece.id).collect::<Vec<_>>()
    };
    assert_eq!(pieces("a"), ["e1", "e2", "e3", "e4"], "something came behind it: nothing is taken back");
    assert_eq!(pieces("b"), ["e1", "e2"], "its own, and what came late");
    assert_eq!(world.read(|reader| reader.incident(&incident_id("b"))).incident.occurrences, 2);
}
