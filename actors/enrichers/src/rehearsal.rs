//! The alert pipeline over memory instead of the ledger: what incidents these alerts would have made.
//!
//! The stages are the ones that the service asks; only who reads the board and who keeps what they decide is another. There
//! are no people here and no approvals, so nothing is acknowledged, snoozed or waited for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use opspilot_kernel::{
    alert::{AlertRecord, AlertStatus},
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId, Seq},
    incident::{Incident, IncidentStatus},
    time::Timestamp,
};
use opspilot_ledger::{
    AlertEntry,
    pipeline::{
        AlertState, Board, BoardRequest, FingerprintState, IncidentChange, IncidentState, Inhibitor, Merge, Shield, SilenceSet, Sweep,
    },
};
use opspilot_runtime::TopologyView;

use crate::{
    correlator::{self, Correlator},
    dedup::{self, Dedup},
    incident_store::{
        self, IncidentStore, Rules as StoreRules,
        decide::{TIMERS_PER_TICK, decide},
        desk::Effects,
    },
    keyring::Keyring,
    silence::{self, Silence, decide::SWEPT_PER_TICK, judge::Rules},
    stage::Item,
    stage_actor::Decider,
};

/// The stages of a rehearsal, each as it is configured; none is one that is switched off.
#[derive(Debug, Default)]
pub struct Rehearsed {
    /// `enricher.dedup`.
    pub dedup: Option<dedup::Config>,
    /// `enricher.silence`.
    pub silence: Option<silence::Config>,
    /// The silences that people set.
    pub silences: Vec<opspilot_kernel::silence::Silence>,
    /// `enricher.correlator`.
    pub correlator: Option<correlator::Config>,
    /// `enricher.incidentStore`.
    pub store: Option<incident_store::Config>,
    /// The dependency graph that they go by.
    pub topology: TopologyView,
}

/// Alerts go in, incidents come out.
pub struct Rehearsal {
    dedup: Option<Dedup>,
    silence: Option<Silence>,
    correlator: Option<Correlator>,
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
    keys: Keyring,
    silences: Arc<SilenceSet>,
    sweep: Sweep,
    inhibitors: BTreeMap<String, BTreeSet<Inhibitor>>,
    /// Alerts that fire, by claim.
    firing: BTreeSet<AlertId>,
}

impl Rehearsal {
    /// A pipeline with these stages.
    pub fn new(stages: Rehearsed) -> Rehearsal {
        let Rehearsed { dedup, silence, silences, correlator, store, topology } = stages;
        Rehearsal {
            dedup: dedup.map(Dedup::from),
            silence: silence.as_ref().map(Silence::from),
            correlator: correlator.map(|config| Correlator::new(config, topology)),
            store: store.as_ref().map(IncidentStore::from),
            seq: 0,
            alerts: BTreeMap::new(),
            fingerprints: BTreeMap::new(),
            held: BTreeMap::new(),
            incidents: BTreeMap::new(),
            opened: Vec::new(),
            timers: BTreeSet::new(),
            keys: Keyring::default(),
            silences: Arc::new(SilenceSet { rev: 1, silences }),
            sweep: Sweep::default(),
            inhibitors: BTreeMap::new(),
            firing: BTreeSet::new(),
        }
    }

    /// Takes in the next record of the alert log.
    pub fn record(&mut self, record: AlertRecord) {
        self.seq += 1;
        let mut board = self.board();
        let mut wanted = BTreeSet::new();
        if let Some(state) = self.alerts.get(&record.alert) {
            wanted.extend(state.alert.incident_id.clone());
            board.alerts.insert(record.alert.clone(), state.clone());
        }
        if let Some(state) = self.fingerprints.get(&record.fingerprint) {
            wanted.extend(state.open.iter().chain(&state.latest).cloned());
            board.fingerprints.insert(record.fingerprint, state.clone());
        }
        self.decide(AlertEntry::Record { seq: self.seq, record: record.into() }, board, wanted);
    }

    /// Lets time pass.
    pub fn tick(&mut self, at: Timestamp) {
        let due: BTreeSet<IncidentId> =
            self.timers.iter().take_while(|(due, _)| *due <= at).take(TIMERS_PER_TICK).map(|(_, id)| id.clone()).collect();
        let sweep = self.rules().and_then(|rules| rules.sweep_at(&self.silences, &self.sweep, at));
        if due.is_empty() && sweep.is_none() {
            return;
        }
        self.seq += 1;
        let (mut board, mut wanted) = (self.board(), due);
        if let Some(sweep) = sweep {
            let most = usize::try_from(SWEPT_PER_TICK).unwrap_or(usize::MAX);
            let behind = |claim: &&AlertId| sweep.place.as_ref().is_none_or(|place| *claim > place);
            for state in self.firing.iter().filter(behind).take(most).filter_map(|claim| self.alerts.get(claim)) {
                board.alerts.insert(state.claim.clone(), state.clone());
                wanted.extend(state.alert.incident_id.clone());
                if let Some(known) = self.fingerprints.get(&state.alert.fingerprint) {
                    wanted.extend(known.open.iter().chain(&known.latest).cloned());
                    board.fingerprints.insert(state.alert.fingerprint, known.clone());
                }
            }
        }
        self.decide(AlertEntry::Tick { seq: self.seq, at }, board, wanted);
    }

    /// When time alone will change an incident.
    pub fn next_due(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(due, _)| *due);
        // with nothing that fires there is nothing to look at
        let rules = self.rules().filter(|_| !self.firing.is_empty());
        timer.into_iter().chain(rules.and_then(|rules| rules.due(&self.silences, &self.sweep))).min()
    }

    fn rules(&self) -> Option<&Rules> {
        self.silence.as_ref().and_then(Decider::holds_back)
    }

    fn board(&self) -> Board {
        Board { silences: Arc::clone(&self.silences), sweep: self.sweep.clone(), inhibitors: self.inhibitors.clone(), ..Board::default() }
    }

    /// Every incident that did not become part of another, in the order in which they were opened.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        let all = self.opened.iter().filter_map(|id| self.incidents.get(id)).map(|state| &state.incident);
        all.filter(|incident| incident.merged_into.is_none())
    }

    /// Lays out what the stages want to see besides the incidents `wanted`.
    fn read(&self, entry: &AlertEntry, board: &mut Board, mut wanted: BTreeSet<IncidentId>) {
        let mut request = BoardRequest::default();
        if let Some(correlator) = &self.correlator {
            correlator.reads(std::slice::from_ref(entry), &mut request);
        }
        request.add_held(board.alerts.values());
        board.keys = self.keys.read(&request, &wanted);
        wanted.extend(board.keys.values().flatten().map(|holder| holder.incident.clone()));
        if let Some(since) = request.opened_since {
            let young = self.opened.iter().rev().filter_map(|id| self.incidents.get(id)).map(|state| &state.incident);
            let young = young.take_while(|incident| incident.opened_at >= since).filter(|incident| incident.merged_into.is_none());
            board.opened = u64::try_from(young.count()).unwrap_or(u64::MAX);
        }
        board.incidents = wanted.into_iter().filter_map(|id| Some((id.clone(), self.incidents.get(&id)?.clone()))).collect();
    }

    fn decide(&mut self, entry: AlertEntry, mut board: Board, wanted: BTreeSet<IncidentId>) {
        self.read(&entry, &mut board, wanted);
        let mut items = vec![Item::new(entry)];
        if let Some(dedup) = &self.dedup {
            items = dedup.decide(&board, items).items;
        }
        if let Some(silence) = &self.silence {
            let answer = silence.decide(&board, items);
            self.sweep = answer.sweep.unwrap_or_else(|| std::mem::take(&mut self.sweep));
            items = answer.items;
        }
        if let Some(correlator) = &self.correlator {
            items = correlator.decide(&board, items).items;
        }
        let effects = match &self.store {
            Some(store) => store.decide(&board, items).effects.unwrap_or_default(),
            None => decide(&StoreRules::OFF, &board, &items).0,
        };
        self.keep(effects);
    }

    /// What `Tx::apply_decisions` does to the tables.
    fn keep(&mut self, effects: Effects) {
        for alert in effects.alerts {
            self.keep_inhibitor(&alert);
            self.alerts.insert(alert.claim.clone(), alert);
        }
        for change in effects.incidents {
            self.keep_incident(change);
        }
        for merge in effects.merges {
            self.move_to(&merge);
        }
    }

    fn keep_inhibitor(&mut self, alert: &AlertState) {
        let shields = |state: &AlertState| state.aside.as_ref().map(|aside| aside.shields.clone()).unwrap_or_default();
        for Shield { key, .. } in self.alerts.get(&alert.claim).map(shields).unwrap_or_default() {
            if let Some(all) = self.inhibitors.get_mut(&key) {
                all.retain(|one| one.claim != alert.claim);
            }
        }
        if alert.alert.status == AlertStatus::Resolved {
            self.firing.remove(&alert.claim);
            return;
        }
        self.firing.insert(alert.claim.clone());
        for Shield { key, both } in shields(alert) {
            let one = Inhibitor { both, claim: alert.claim.clone(), title: alert.alert.title.clone() };
            self.inhibitors.entry(key).or_default().insert(one);
        }
    }

    fn move_to(&mut self, merge: &Merge) {
        let Merge { from, into, .. } = merge;
        for state in self.alerts.values_mut().filter(|state| state.alert.incident_id.as_ref() == Some(from)) {
            state.alert.incident_id = Some(into.clone());
        }
        for fingerprint in self.held.remove(from).into_iter().flatten() {
            let state = self.fingerprints.entry(fingerprint).or_default();
            for id in [&mut state.open, &mut state.latest].into_iter().flatten().filter(|id| *id == from) {
                id.clone_from(into);
            }
            self.held.entry(into.clone()).or_default().push(fingerprint);
        }
        if let Some(target) = self.incidents.get(into) {
            self.keys.merge(merge, target.incident.opened_at);
            if target.incident.status == IncidentStatus::Resolved && target.incident.merged_into.is_none() {
                self.keys.release(into);
            }
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
        for held in change.keys {
            self.keys.hold(&id, change.state.incident.opened_at, held);
        }
        if !open && change.state.incident.merged_into.is_none() {
            self.keys.release(&id);
        }
        for fingerprint in self.held.get(&id).into_iter().flatten() {
            let state = self.fingerprints.entry(*fingerprint).or_default();
            if open {
                state.open = Some(id.clone());
            } else if state.open.as_ref() == Some(&id) && change.state.incident.merged_into.is_none() {
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
        let mut rehearsal =
            Rehearsal::new(Rehearsed { dedup: Some(dedup::Config::default()), store: Some(store.clone()), ..Rehearsed::default() });
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
    fn what_depends_on_what_by_the_configured_graph_is_one_incident() {
        let config: crate::topology::Config =
            serde_json::from_value(serde_json::json!({ "edges": [{ "from": "web", "to": ["db"] }] })).unwrap();
        let topology = TopologyView::default();
        topology.publish(config.graph());
        let store = Some(incident_store::Config::default());
        let mut rehearsal =
            Rehearsal::new(Rehearsed { correlator: Some(correlator::Config::default()), store, topology, ..Rehearsed::default() });
        for (second, service) in [(0, "web"), (5, "mail"), (9, "db")] {
            let labels = [("service".to_owned(), service.to_owned())].into();
            rehearsal.record(AlertRecord { labels, ..record(service, Transition::Firing, second) });
        }
        let story: Vec<(&str, u64)> = rehearsal.incidents().map(|incident| (incident.title.as_str(), incident.alert_count)).collect();
        assert_eq!(story, [("db is wrong", 2), ("mail is wrong", 1)]);
    }

    #[test]
    fn without_its_stages_alerts_are_kept_and_no_incident_is_made() {
        let mut rehearsal = Rehearsal::new(Rehearsed::default());
        rehearsal.record(record("a", Transition::Firing, 0));
        assert_eq!(story(&rehearsal), []);
    }
}
