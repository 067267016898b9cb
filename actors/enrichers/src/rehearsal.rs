//! The alert pipeline over memory instead of the ledger: what incidents these alerts would have made.
//!
//! The stages are the ones that the service asks; only who reads the board and who keeps what they decide is another. There
//! are no people here and no approvals, so nothing is acknowledged, snoozed or waited for.

use std::collections::{BTreeMap, BTreeSet};

use opspilot_kernel::{
    alert::AlertRecord,
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId, Seq},
    incident::{Incident, IncidentStatus},
    time::Timestamp,
};
use opspilot_ledger::{
    AlertEntry,
    pipeline::{AlertState, Board, FingerprintState, IncidentChange, IncidentState},
};

use crate::{
    dedup::{self, Dedup},
    incident_store::{
        self, IncidentStore, Rules,
        decide::{TIMERS_PER_TICK, decide},
        desk::Effects,
    },
    stage::Item,
    stage_actor::Decider,
};

/// Alerts go in, incidents come out.
pub struct Rehearsal {
    dedup: Option<Dedup>,
    store: Option<IncidentStore>,
    seq: Seq,
    /// The newest episode under each claim.
    alerts: BTreeMap<AlertId, AlertState>,
    fingerprints: BTreeMap<Fingerprint, FingerprintState>,
    held: BTreeMap<IncidentId, Vec<Fingerprint>>,
    incidents: BTreeMap<IncidentId, IncidentState>,
    /// In the order in which they were opened.
    opened: Vec<IncidentId>,
    timers: BTreeSet<(Timestamp, IncidentId)>,
}

impl Rehearsal {
    /// A pipeline with these stages; none is one that is switched off.
    pub fn new(dedup: Option<dedup::Config>, store: Option<&incident_store::Config>) -> Rehearsal {
        Rehearsal {
            dedup: dedup.map(Dedup::from),
            store: store.map(IncidentStore::from),
            seq: 0,
            alerts: BTreeMap::new(),
            fingerprints: BTreeMap::new(),
            held: BTreeMap::new(),
            incidents: BTreeMap::new(),
            opened: Vec::new(),
            timers: BTreeSet::new(),
        }
    }

    /// Takes in the next record of the alert log.
    pub fn record(&mut self, record: AlertRecord) {
        self.seq += 1;
        let mut board = Board::default();
        let mut wanted = BTreeSet::new();
        if let Some(state) = self.alerts.get(&record.alert) {
            wanted.extend(state.alert.incident_id.clone());
            board.alerts.insert(record.alert.clone(), state.clone());
        }
        if let Some(state) = self.fingerprints.get(&record.fingerprint) {
            wanted.extend(state.open.iter().chain(&state.latest).cloned());
            board.fingerprints.insert(record.fingerprint, state.clone());
        }
        self.read(&mut board, wanted);
        self.decide(AlertEntry::Record { seq: self.seq, record: record.into() }, &board);
    }

    /// Lets time pass.
    pub fn tick(&mut self, at: Timestamp) {
        let due: BTreeSet<IncidentId> =
            self.timers.iter().take_while(|(due, _)| *due <= at).take(TIMERS_PER_TICK).map(|(_, id)| id.clone()).collect();
        if due.is_empty() {
            return;
        }
        self.seq += 1;
        let mut board = Board::default();
        self.read(&mut board, due);
        self.decide(AlertEntry::Tick { seq: self.seq, at }, &board);
    }

    /// When time alone will change an incident.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Every incident, in the order in which they were opened.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.opened.iter().filter_map(|id| self.incidents.get(id)).map(|state| &state.incident)
    }

    fn read(&self, board: &mut Board, wanted: BTreeSet<IncidentId>) {
        board.incidents = wanted.into_iter().filter_map(|id| Some((id.clone(), self.incidents.get(&id)?.clone()))).collect();
    }

    fn decide(&mut self, entry: AlertEntry, board: &Board) {
        let mut items = vec![Item::new(entry)];
        if let Some(dedup) = &self.dedup {
            items = dedup.decide(board, items).items;
        }
        let effects = match &self.store {
            Some(store) => store.decide(board, items).effects.unwrap_or_default(),
            None => decide(&Rules::OFF, board, &items).0,
        };
        self.keep(effects);
    }

    /// What `Tx::apply_decisions` does to the tables.
    fn keep(&mut self, effects: Effects) {
        for alert in effects.alerts {
            self.alerts.insert(alert.claim.clone(), alert);
        }
        for change in effects.incidents {
            self.keep_incident(change);
        }
    }

    fn keep_incident(&mut self, change: IncidentChange) {
        let id = change.state.incident.id.clone();
        if change.founded.is_some() {
            self.opened.push(id.clone());
        }
        for fingerprint in change.fingerprints {
            self.held.entry(id.clone()).or_default().push(fingerprint);
            self.fingerprints.insert(fingerprint, FingerprintState { open: Some(id.clone()), latest: Some(id.clone()) });
        }
        let open = change.state.incident.status != IncidentStatus::Resolved;
        for fingerprint in self.held.get(&id).into_iter().flatten() {
            let state = self.fingerprints.entry(*fingerprint).or_default();
            if open {
                state.open = Some(id.clone());
            } else if state.open.as_ref() == Some(&id) {
                state.open = None;
            }
        }
        if let Some(due) = self.incidents.get(&id).and_then(IncidentState::due_at) {
            self.timers.remove(&(due, id.clone()));
        }
        if let Some(due) = change.state.due_at() {
            self.timers.insert((due, id.clone()));
        }
        self.incidents.insert(id, change.state);
    }
}

#[cfg(test)]
mod tests {
    use opspilot_kernel::{alert::Transition, config::Span};

    use super::*;
    use crate::testkit::{at, record};

    fn rehearse(store: &incident_store::Config, steps: &[(&str, Transition, i64)]) -> Rehearsal {
        let mut rehearsal = Rehearsal::new(Some(dedup::Config::default()), Some(store));
        for (name, transition, second) in steps {
            while let Some(due) = rehearsal.next_due().filter(|due| *due < at(*second)) {
                rehearsal.tick(due);
            }
            rehearsal.record(record(name, *transition, *second));
        }
        rehearsal
    }

    fn story(rehearsal: &Rehearsal) -> Vec<(IncidentStatus, u64)> {
        rehearsal.incidents().map(|incident| (incident.status, incident.alert_count)).collect()
    }

    #[test]
    fn alerts_become_incidents_that_are_resolved_reopened_and_followed_by_new_ones() {
        use Transition::{Firing, Repeat, Resolved};
        let store = incident_store::Config::default();
        let steps = [("a", Firing, 0), ("a", Repeat, 1), ("b", Firing, 2), ("a", Resolved, 10), ("a", Firing, 20), ("a", Resolved, 30)];
        let rehearsal = rehearse(&store, &steps);
        assert_eq!(story(&rehearsal), [(IncidentStatus::Resolved, 1), (IncidentStatus::Open, 1)]);
        let later = rehearse(&store, &[&steps[..], &[("a", Firing, 30 + 1801)]].concat());
        assert_eq!(story(&later), [(IncidentStatus::Resolved, 1), (IncidentStatus::Open, 1), (IncidentStatus::Open, 1)]);
        assert!(later.incidents().next().unwrap().occurrences >= 3);
    }

    #[test]
    fn a_quiet_period_is_let_pass_by_ticks() {
        use Transition::{Firing, Resolved};
        let store = incident_store::Config { quiet_period: Span::seconds(60), ..incident_store::Config::default() };
        let mut rehearsal = rehearse(&store, &[("a", Firing, 0), ("a", Resolved, 10)]);
        assert_eq!((story(&rehearsal)[0].0, rehearsal.next_due()), (IncidentStatus::Open, Some(at(70))));
        rehearsal.tick(at(70));
        assert_eq!((story(&rehearsal)[0].0, rehearsal.next_due()), (IncidentStatus::Resolved, None));
    }

    #[test]
    fn without_its_stages_alerts_are_kept_and_no_incident_is_made() {
        let mut rehearsal = Rehearsal::new(None, None);
        rehearsal.record(record("a", Transition::Firing, 0));
        assert_eq!(story(&rehearsal), []);
    }
}
