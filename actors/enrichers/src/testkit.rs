//! Records for tests, short to write.

use std::collections::{BTreeMap, BTreeSet};

use opspilot_kernel::{
    alert::{AlertRecord, AlertStatus, Observation, ResolvedBy, Transition},
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId},
    incident::{Incident, IncidentStatus, TimelineEntry},
    signal::Severity,
    time::Timestamp,
};
use opspilot_ledger::{
    AlertEntry,
    pipeline::{AlertState, Board, BoardRequest, FingerprintState, IncidentState, Inhibitor, Lifecycle, Merge},
};

use crate::{incident_store::desk::Effects, keyring::Keyring, stage_actor::Decider};

/// The time every test starts at, and `second` more.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + second * 1000)
}

/// The id of the episode called `name`.
pub(crate) fn alert(name: &str) -> AlertId {
    AlertId::derived(&[name])
}

/// A record of the episode `name` at `second`. What stands before a `.` in the name is the
/// fingerprint's, so that `disk.1` and `disk.2` are two episodes of one alert.
pub(crate) fn record(name: &str, transition: Transition, second: i64) -> AlertRecord {
    let condition = name.split('.').next().unwrap_or(name);
    let over = transition == Transition::Resolved;
    AlertRecord {
        alert: alert(name),
        detected_by: "detector.test".to_owned(),
        rule: condition.to_owned(),
        fingerprint: Fingerprint::of_pairs([("rule", condition)]),
        transition,
        resolved_by: over.then_some(ResolvedBy::Clear),
        at: at(second),
        logged_at: at(second),
        signal_seq: u64::try_from(second).unwrap_or(0) + 1,
        count: u64::from(!over),
        source: "shop".to_owned(),
        title: format!("{condition} is wrong"),
        description: String::new(),
        severity: Severity::Warning,
        labels: BTreeMap::from([("host".to_owned(), "h1".to_owned())]),
        supports: false,
        evidence: if over {
            Vec::new()
        } else {
            vec![Observation::Log { at: at(second), source: "shop".to_owned(), text: format!("{condition} at {second}") }]
        },
    }
}

/// The tables, in memory: what a commit of the pipeline leaves behind.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Memory {
    pub(crate) board: Board,
    pub(crate) rows: BTreeMap<AlertId, AlertState>,
    pub(crate) timeline: BTreeMap<IncidentId, Vec<TimelineEntry>>,
    pub(crate) evidence: BTreeMap<IncidentId, Vec<(AlertId, Observation)>>,
    pub(crate) audited: BTreeMap<IncidentId, Vec<Lifecycle>>,
    pub(crate) came_back: BTreeMap<IncidentId, IncidentId>,
    held: BTreeMap<IncidentId, Vec<Fingerprint>>,
    pub(crate) keyring: Keyring,
}

impl Memory {
    pub(crate) fn apply(&mut self, effects: Effects) {
        for state in effects.alerts {
            self.rows.insert(state.alert.id.clone(), state.clone());
            self.board.alerts.insert(state.claim.clone(), state);
        }
        for change in effects.incidents {
            let id = change.state.incident.id.clone();
            if let Some(before) = change.recurrence_of {
                self.came_back.insert(id.clone(), before);
            }
            for held in change.keys {
                self.keyring.hold(&id, change.state.incident.opened_at, held);
            }
            if change.founded.is_some() {
                assert!(!self.held.contains_key(&id), "an incident is founded once");
            }
            self.timeline.entry(id.clone()).or_default().extend(change.timeline);
            self.evidence.entry(id.clone()).or_default().extend(change.evidence);
            self.audited.entry(id.clone()).or_default().extend(change.lifecycle.into_iter().map(|(what, _)| what));
            self.held.entry(id.clone()).or_default().extend(&change.fingerprints);
            for fingerprint in change.fingerprints {
                let both = FingerprintState { open: Some(id.clone()), latest: Some(id.clone()) };
                self.board.fingerprints.insert(fingerprint, both);
            }
            let over = change.state.incident.status == IncidentStatus::Resolved && change.state.incident.merged_into.is_none();
            self.board.incidents.insert(id.clone(), change.state);
            if over {
                self.keyring.release(&id);
            }
        }
        for merge in effects.merges {
            self.move_to(&merge);
        }
        self.hold();
        self.inhibit();
    }

    /// What alerts that fire hold others back by.
    fn inhibit(&mut self) {
        self.board.inhibitors.clear();
        for state in self.board.alerts.values().filter(|state| state.alert.status == AlertStatus::Firing) {
            for shield in state.aside.iter().flat_map(|aside| &aside.shields) {
                let one = Inhibitor { both: shield.both, claim: state.claim.clone(), title: state.alert.title.clone() };
                self.board.inhibitors.entry(shield.key.clone()).or_default().insert(one);
            }
        }
    }

    fn move_to(&mut self, merge: &Merge) {
        let Merge { from, into, evidence } = merge;
        for state in self.rows.values_mut().chain(self.board.alerts.values_mut()) {
            if state.alert.incident_id.as_ref() == Some(from) {
                state.alert.incident_id = Some(into.clone());
            }
        }
        let fingerprints = self.held.insert(from.clone(), Vec::new()).unwrap_or_default();
        for fingerprint in fingerprints {
            self.held.entry(into.clone()).or_default().push(fingerprint);
            let latest = &mut self.board.fingerprints.get_mut(&fingerprint).unwrap().latest;
            if latest.as_ref() == Some(from) {
                *latest = Some(into.clone());
            }
        }
        let taken: Vec<_> = self.evidence[from].iter().take(usize::try_from(*evidence).unwrap()).cloned().collect();
        self.evidence.entry(into.clone()).or_default().extend(taken);
        let target = &self.board.incidents[into].incident;
        self.keyring.merge(merge, target.opened_at);
        if target.status == IncidentStatus::Resolved && target.merged_into.is_none() {
            self.keyring.release(into);
        }
    }

    /// The board as it is read for `entries`, with what `decider` wants to see.
    pub(crate) fn board_for(&self, decider: &impl Decider, entries: &[AlertEntry]) -> Board {
        let mut request = BoardRequest::default();
        decider.reads(entries, &mut request);
        let mut board = Board { under_way: self.board.under_way.clone(), ..Board::default() };
        for entry in entries {
            let AlertEntry::Record { record, .. } = entry else { continue };
            let known = self.board.alerts.get(&record.alert);
            board.alerts.extend(known.map(|state| (record.alert.clone(), state.clone())));
            let known = self.board.fingerprints.get(&record.fingerprint);
            board.fingerprints.extend(known.map(|state| (record.fingerprint, state.clone())));
        }
        let tick = entries.iter().find_map(|entry| match entry {
            AlertEntry::Tick { at, .. } => Some(*at),
            AlertEntry::Record { .. } => None,
        });
        let due = |state: &IncidentState| state.due_at().is_some_and(|due| tick.is_some_and(|at| due <= at));
        let due: BTreeSet<IncidentId> = self.board.incidents.iter().filter(|(_, state)| due(state)).map(|(id, _)| id.clone()).collect();
        request.add_held(board.alerts.values());
        board.keys = self.keyring.read(&request, &due);
        let of_alerts = board.alerts.values().filter_map(|state| state.alert.incident_id.clone());
        let of_fingerprints = board.fingerprints.values().flat_map(|state| state.open.iter().chain(&state.latest).cloned());
        let of_keys = board.keys.values().flatten().map(|holder| holder.incident.clone());
        let wanted: BTreeSet<IncidentId> = of_alerts.chain(of_fingerprints).chain(of_keys).chain(due).collect();
        board.incidents = wanted.into_iter().filter_map(|id| Some((id.clone(), self.board.incidents.get(&id)?.clone()))).collect();
        let young =
            |incident: &Incident| incident.merged_into.is_none() && request.opened_since.is_some_and(|since| incident.opened_at >= since);
        board.opened = count(self.board.incidents.values().filter(|state| young(&state.incident)).count());
        board
    }

    /// `open` names the one incident of a fingerprint that is not resolved, as the index in the database does.
    fn hold(&mut self) {
        for (fingerprint, state) in &mut self.board.fingerprints {
            let incidents = &self.board.incidents;
            let mut open = self
                .held
                .iter()
                .filter(|(id, held)| held.contains(fingerprint) && incidents[*id].incident.status != IncidentStatus::Resolved);
            state.open = open.next().map(|(id, _)| id.clone());
            assert_eq!(open.next(), None, "one open incident per fingerprint");
        }
    }

    pub(crate) fn person_resolves(&mut self, now: Timestamp) {
        for state in self.board.incidents.values_mut() {
            if state.incident.status != IncidentStatus::Resolved {
                state.incident.status = IncidentStatus::Resolved;
                state.incident.resolved_at = Some(now);
                state.firing = 0;
                state.quiet_at = None;
            }
        }
        for state in
            self.board.alerts.values_mut().filter(|state| state.alert.status == AlertStatus::Firing && state.alert.incident_id.is_some())
        {
            state.alert.status = AlertStatus::Resolved;
            state.alert.resolved_at = Some(now);
            state.resolved_by = Some(ResolvedBy::Person);
            state.resolved_logged_at = Some(now);
            self.rows.insert(state.alert.id.clone(), state.clone());
        }
        self.hold();
        self.inhibit();
        self.board.sweep.again = true;
    }

    /// What must hold whatever happened.
    pub(crate) fn check(&self) {
        let incidents = &self.board.incidents;
        for state in self.rows.values() {
            let Some(incident) = &state.alert.incident_id else {
                assert!(state.alert.suppressed_by.is_some(), "every alert belongs to an incident, or something holds it back");
                continue;
            };
            let open = incidents[incident].incident.status != IncidentStatus::Resolved;
            assert!(open || state.alert.status == AlertStatus::Resolved, "a firing alert's incident is open");
        }
        for (id, state) in incidents.iter().filter(|(_, state)| state.incident.merged_into.is_none()) {
            let own: Vec<_> = self.rows.values().filter(|row| row.alert.incident_id.as_ref() == Some(id)).collect();
            let firing = own.iter().filter(|row| row.alert.status == AlertStatus::Firing).count();
            assert_eq!((state.incident.alert_count, state.firing), (count(own.len()), count(firing)), "{id}");
            assert_eq!(state.incident.occurrences, own.iter().map(|row| row.alert.occurrences).sum::<u64>(), "{id}");
            let told = own.iter().filter(|row| row.alert.suppressed_by.is_none()).map(|row| row.alert.severity).max();
            assert!(Some(state.incident.severity) >= told, "{id}");
            assert!(Some(state.incident.severity) <= own.iter().map(|row| row.alert.severity).max(), "{id}");
            assert_eq!(state.timeline_count, count(self.timeline[id].len()));
            assert_eq!(state.incident.evidence_count, count(self.evidence[id].len()));
            assert_eq!(self.audited[id].first(), Some(&Lifecycle::Opened));
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap()
}
