//! The working copy of a board: what a batch has changed so far.

use std::collections::{BTreeMap, BTreeSet};

use opspilot_kernel::{
    alert::{Alert, AlertRecord, AlertStatus, Observation},
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId},
    incident::{Incident, IncidentStatus, TimelineEntry, TimelineKind},
    principal::Actor,
    signal::Severity,
    time::Timestamp,
};
use opspilot_ledger::pipeline::{AlertState, Board, FingerprintState, IncidentChange, IncidentState, KeyHolder, Lifecycle, Merge};

use super::{ID, Rules};

/// Everything a batch changes.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    /// The alerts that changed, in the order in which they were first touched.
    pub alerts: Vec<AlertState>,
    /// The incidents that changed, in the order in which they were first touched.
    pub incidents: Vec<IncidentChange>,
    /// Which of them became one, in this order.
    pub merges: Vec<Merge>,
}

/// The board with the changes of this batch laid over it.
pub(super) struct Desk<'a> {
    pub(super) rules: &'a Rules,
    board: &'a Board,
    /// Touched alerts by their own id.
    alerts: BTreeMap<AlertId, AlertState>,
    alert_order: Vec<AlertId>,
    /// The newest episode under a claim, where this batch made it.
    newest: BTreeMap<AlertId, AlertId>,
    fingerprints: BTreeMap<Fingerprint, FingerprintState>,
    incidents: BTreeMap<IncidentId, IncidentChange>,
    incident_order: Vec<IncidentId>,
    /// Who has a key, where this batch changed that.
    pub(super) keys: BTreeMap<String, Vec<KeyHolder>>,
    pub(super) merges: Vec<Merge>,
    founded: usize,
}

impl<'a> Desk<'a> {
    pub(super) fn new(rules: &'a Rules, board: &'a Board) -> Desk<'a> {
        Desk {
            rules,
            board,
            alerts: BTreeMap::new(),
            alert_order: Vec::new(),
            newest: BTreeMap::new(),
            fingerprints: BTreeMap::new(),
            incidents: BTreeMap::new(),
            incident_order: Vec::new(),
            keys: BTreeMap::new(),
            merges: Vec::new(),
            founded: 0,
        }
    }

    /// How many incidents this batch opened.
    pub(super) fn founded(&self) -> usize {
        self.founded
    }

    pub(super) fn board(&self) -> &'a Board {
        self.board
    }

    pub(super) fn finish(mut self) -> Effects {
        Effects {
            alerts: self.alert_order.iter().filter_map(|id| self.alerts.remove(id)).collect(),
            incidents: self.incident_order.iter().filter_map(|id| self.incidents.remove(id)).collect(),
            merges: self.merges,
        }
    }

    /// The newest episode under `claim`.
    pub(super) fn episode(&self, claim: &AlertId) -> Option<&AlertState> {
        match self.newest.get(claim) {
            Some(id) => self.alerts.get(id),
            None => {
                let stored = self.board.alerts.get(claim)?;
                Some(self.alerts.get(&stored.alert.id).unwrap_or(stored))
            }
        }
    }

    /// The newest episode under `claim`, to be changed.
    pub(super) fn touch_episode(&mut self, claim: &AlertId) -> Option<&mut AlertState> {
        let id = self.episode(claim)?.alert.id.clone();
        if !self.alerts.contains_key(&id) {
            let state = self.board.alerts.get(claim)?.clone();
            self.alert_order.push(id.clone());
            self.alerts.insert(id.clone(), state);
        }
        self.alerts.get_mut(&id)
    }

    /// A new episode that begins with `record`.
    pub(super) fn begin_episode(&mut self, id: AlertId, record: &AlertRecord) {
        let state = AlertState {
            claim: record.alert.clone(),
            last_logged_at: record.logged_at,
            resolved_by: None,
            resolved_logged_at: None,
            aside: None,
            alert: Alert {
                id: id.clone(),
                fingerprint: record.fingerprint,
                status: AlertStatus::Firing,
                source: record.source.clone(),
                name: record.rule.clone(),
                detected_by: record.detected_by.clone(),
                title: record.title.clone(),
                description: record.description.clone(),
                severity: record.severity,
                labels: record.labels.clone(),
                occurrences: record.count,
                first_seen_at: record.at,
                last_seen_at: record.at,
                resolved_at: None,
                suppressed_by: None,
                incident_id: None,
            },
        };
        self.newest.insert(record.alert.clone(), id.clone());
        self.alert_order.push(id.clone());
        self.alerts.insert(id, state);
    }

    /// The incident as it stands now.
    pub(super) fn incident(&self, id: &IncidentId) -> Option<&IncidentState> {
        match self.incidents.get(id) {
            Some(change) => Some(&change.state),
            None => self.board.incidents.get(id),
        }
    }

    /// The incident, to be changed.
    pub(super) fn touch_incident(&mut self, id: &IncidentId) -> Option<Change<'_>> {
        if !self.incidents.contains_key(id) {
            let state = self.board.incidents.get(id)?.clone();
            self.incident_order.push(id.clone());
            self.incidents.insert(id.clone(), IncidentChange::none(state));
        }
        let rules = self.rules;
        self.incidents.get_mut(id).map(|change| Change { change, rules })
    }

    /// The incident of this fingerprint that is not resolved.
    pub(super) fn open_incident(&self, fingerprint: Fingerprint) -> Option<IncidentId> {
        let known = self.fingerprint(fingerprint)?;
        [&known.open, &known.latest]
            .into_iter()
            .flatten()
            .map(|id| self.home(id))
            .find(|id| self.incident(id).is_some_and(|state| state.incident.status != IncidentStatus::Resolved))
    }

    /// The incidents that a record may touch: its episode's, and the open one of its fingerprint.
    pub(super) fn concerned(&self, record: &AlertRecord) -> BTreeSet<IncidentId> {
        let own = self.episode(&record.alert).and_then(|state| state.alert.incident_id.as_ref()).map(|id| self.home(id));
        own.into_iter().chain(self.open_incident(record.fingerprint)).collect()
    }

    /// The newest incident of this fingerprint, if it is resolved.
    pub(super) fn last_resolved(&self, fingerprint: Fingerprint) -> Option<&IncidentState> {
        let latest = self.home(self.fingerprint(fingerprint)?.latest.as_ref()?);
        self.incident(&latest).filter(|state| state.incident.status == IncidentStatus::Resolved)
    }

    /// Says that an incident of this fingerprint is open again.
    pub(super) fn hold(&mut self, fingerprint: Fingerprint, incident: &IncidentId) {
        let mut state = self.fingerprint(fingerprint).cloned().unwrap_or_default();
        state.open = Some(incident.clone());
        self.fingerprints.insert(fingerprint, state);
    }

    /// Gives an open incident a fingerprint that none holds.
    pub(super) fn adopt(&mut self, fingerprint: Fingerprint, incident: &IncidentId) {
        if let Some(change) = self.touch_incident(incident) {
            change.change.fingerprints.push(fingerprint);
        }
        let both = FingerprintState { open: Some(incident.clone()), latest: Some(incident.clone()) };
        self.fingerprints.insert(fingerprint, both);
    }

    fn fingerprint(&self, fingerprint: Fingerprint) -> Option<&FingerprintState> {
        self.fingerprints.get(&fingerprint).or_else(|| self.board.fingerprints.get(&fingerprint))
    }

    /// Opens an incident founded by `record`, whose episode is `alert`.
    pub(super) fn found_incident(&mut self, alert: &AlertId, record: &AlertRecord) -> IncidentId {
        let id = IncidentId::derived(&["incident", alert.as_str()]);
        let incident = Incident {
            id: id.clone(),
            title: record.title.clone(),
            description: record.description.clone(),
            severity: record.severity,
            status: IncidentStatus::Open,
            detected_by: record.detected_by.clone(),
            rule: record.rule.clone(),
            source: record.source.clone(),
            labels: record.labels.clone(),
            occurrences: 0,
            // receipt time: an old stamp must not hide a new incident behind all others
            opened_at: record.logged_at,
            last_seen_at: record.logged_at,
            acknowledged_at: None,
            acknowledged_by: None,
            assignee: None,
            snoozed_until: None,
            resolved_at: None,
            resolution: None,
            merged_into: None,
            alert_count: 0,
            evidence_count: 0,
        };
        let mut change = IncidentChange::founding(incident);
        change.recurrence_of = self.last_resolved(record.fingerprint).map(|state| state.incident.id.clone());
        change.fingerprints.push(record.fingerprint);
        self.founded += 1;
        self.incident_order.push(id.clone());
        self.incidents.insert(id.clone(), change);
        let both = FingerprintState { open: Some(id.clone()), latest: Some(id.clone()) };
        self.fingerprints.insert(record.fingerprint, both);
        id
    }

    /// Whether something that was approved for it may still help it, as the board was read.
    pub(super) fn is_under_way(&self, id: &IncidentId) -> bool {
        self.board.under_way.contains(id)
    }

    /// Incidents with a timer due at `at`, earliest first, at most `most`.
    pub(super) fn due(&self, at: Timestamp, most: usize) -> Vec<IncidentId> {
        let ids: BTreeSet<&IncidentId> = self.board.incidents.keys().chain(self.incidents.keys()).collect();
        let mut due: Vec<(Timestamp, IncidentId)> =
            ids.into_iter().filter_map(|id| self.incident(id)?.due_at().filter(|due| *due <= at).map(|due| (due, id.clone()))).collect();
        due.sort();
        due.truncate(most);
        due.into_iter().map(|(_, id)| id).collect()
    }
}

/// One incident being changed.
pub(super) struct Change<'a> {
    pub(super) change: &'a mut IncidentChange,
    rules: &'a Rules,
}

impl Change<'_> {
    pub(super) fn state(&mut self) -> &mut IncidentState {
        &mut self.change.state
    }

    /// Counts the observations of `record`, which came with the episode `alert`.
    pub(super) fn count(&mut self, alert: &AlertId, record: &AlertRecord) {
        let state = &mut self.change.state;
        state.incident.occurrences = state.incident.occurrences.saturating_add(record.count);
        state.incident.last_seen_at = state.incident.last_seen_at.max(record.logged_at);
        let brought = u64::try_from(record.evidence.len()).unwrap_or(u64::MAX);
        state.evidence_beyond = state.evidence_beyond.saturating_add(record.count.saturating_sub(brought));
        for observation in &record.evidence {
            self.keep(alert, observation);
        }
        if let Some(founded) = self.change.founded.as_mut().filter(|_| self.change.changes.is_empty()) {
            **founded = self.change.state.incident.clone();
        }
    }

    fn keep(&mut self, alert: &AlertId, observation: &Observation) {
        let state = &mut self.change.state;
        if state.incident.evidence_count < self.rules.evidence_limit {
            state.incident.evidence_count += 1;
            self.change.evidence.push((alert.clone(), observation.clone()));
        } else {
            state.evidence_beyond = state.evidence_beyond.saturating_add(1);
        }
    }

    /// Takes in an alert that holds.
    pub(super) fn take_in(&mut self, new: bool) {
        let state = &mut self.change.state;
        state.firing += 1;
        state.incident.alert_count += u64::from(new);
        state.quiet_at = None;
    }

    /// Raises the severity to `severity` if that is worse. Whoever took the incident took something
    /// milder, and whoever put it aside too: both are asked again.
    pub(super) fn raise(&mut self, severity: Severity, at: Timestamp) {
        let incident = &mut self.change.state.incident;
        if severity <= incident.severity {
            return;
        }
        let before = incident.severity;
        incident.severity = severity;
        let taken = incident.status == IncidentStatus::Acknowledged;
        let snoozed = incident.snoozed_until.take().is_some();
        if taken {
            incident.status = IncidentStatus::Open;
            incident.acknowledged_at = None;
            incident.acknowledged_by = None;
        }
        let mut text = format!("from {before} to {severity}");
        if taken {
            text.push_str("; it was acknowledged as something milder, so it is open again");
            self.change.lifecycle.push((Lifecycle::Raised, text.clone()));
        }
        self.note(TimelineKind::SeverityRaised, at, text);
        if snoozed {
            self.note(TimelineKind::SnoozeEnded, at, "its severity rose".to_owned());
        }
    }

    /// It is over.
    pub(super) fn resolve(&mut self, at: Timestamp, why: String) {
        let state = &mut self.change.state;
        state.quiet_at = None;
        state.look_at = None;
        state.incident.status = IncidentStatus::Resolved;
        state.incident.resolved_at = Some(at);
        state.incident.snoozed_until = None;
        state.incident.resolution = Some(why.clone());
        self.change.lifecycle.push((Lifecycle::Resolved, why.clone()));
        self.note(TimelineKind::Resolved, at, why);
    }

    /// It is not over after all.
    pub(super) fn reopen(&mut self, at: Timestamp, why: String) {
        let incident = &mut self.change.state.incident;
        incident.status = IncidentStatus::Open;
        incident.acknowledged_at = None;
        incident.acknowledged_by = None;
        incident.resolved_at = None;
        incident.resolution = None;
        self.change.lifecycle.push((Lifecycle::Reopened, why.clone()));
        self.note(TimelineKind::Reopened, at, why);
    }

    /// It was opened.
    pub(super) fn opened(&mut self, at: Timestamp, why: String) {
        self.change.lifecycle.push((Lifecycle::Opened, why.clone()));
        self.line(TimelineKind::Opened, at, why);
    }

    /// Writes a line into the timeline and says in the events that this changed.
    pub(super) fn note(&mut self, kind: TimelineKind, at: Timestamp, text: String) {
        if !self.change.changes.contains(&kind) {
            self.change.changes.push(kind);
        }
        self.line(kind, at, text);
    }

    /// Writes a line into the timeline.
    pub(super) fn line(&mut self, kind: TimelineKind, at: Timestamp, text: String) {
        let state = &mut self.change.state;
        if state.timeline_count >= self.rules.timeline_limit {
            state.timeline_beyond = state.timeline_beyond.saturating_add(1);
            return;
        }
        state.timeline_count += 1;
        let actor = Actor::Module { id: ID.as_str().to_owned() };
        self.change.timeline.push(TimelineEntry { at, actor, kind, text });
    }
}
