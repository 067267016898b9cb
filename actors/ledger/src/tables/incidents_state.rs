//! What the alert pipeline reads before it decides, and what it hands back to be committed.
//!
//! The deciders work on a [`Board`]: the alerts, fingerprints and incidents that a batch can
//! touch, with the revision each incident had when it was read. What they decide comes back as a
//! [`Commit`], which is applied only if no revision has moved since.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use opspilot_kernel::{
    alert::{Alert, Observation, ResolvedBy},
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId, Seq},
    incident::{Incident, IncidentStatus, TimelineEntry, TimelineKind},
    time::Timestamp,
};
use serde::Serialize;

use super::suppression_state::{Aside, Inhibitor, SilenceSet, Sweep};

/// One episode of an alert, as the pipeline keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertState {
    /// The alert as the world sees it.
    pub alert: Alert,
    /// The id its detector speaks of it by. Differs from the alert's own id only when the detector's
    /// episode went on long after a person had closed it here, so that it had to count as a new one.
    pub claim: AlertId,
    /// By our clock, when it was last heard of.
    pub last_logged_at: Timestamp,
    /// Why it is over.
    pub resolved_by: Option<ResolvedBy>,
    /// By our clock, when it was over.
    pub resolved_logged_at: Option<Timestamp>,
    /// What holding alerts back needs to know of it.
    pub aside: Option<Box<Aside>>,
}

/// An incident, as the pipeline keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct IncidentState {
    /// The incident as the world sees it. Its `resolved_at` is by our clock.
    pub incident: Incident,
    /// Moves with every change; 0 for an incident that is not stored yet.
    pub rev: i64,
    /// How many of its alerts hold.
    pub firing: u64,
    /// When it counts as quiet long enough, if all its alerts are over and it is waiting for that.
    pub quiet_at: Option<Timestamp>,
    /// When to look whether it is part of a storm, if nobody has looked yet.
    pub look_at: Option<Timestamp>,
    /// How many keys it was given.
    pub key_count: u64,
    /// A person took it apart from others: it joins none, and takes in nothing but its own alerts.
    pub pinned: bool,
    /// How many timeline entries it has.
    pub timeline_count: u64,
    /// How many automatic entries its full timeline could not take.
    pub timeline_beyond: u64,
    /// How many observations are only counted: a record brings a sample, and its evidence may be full.
    pub evidence_beyond: u64,
}

impl IncidentState {
    /// When the next of its timers is due.
    pub fn due_at(&self) -> Option<Timestamp> {
        [self.incident.snoozed_until, self.quiet_at, self.look_at].into_iter().flatten().min()
    }

    /// Takes over what another incident counts, with its first `evidence` pieces of evidence.
    pub fn take_over(&mut self, other: &IncidentState, evidence: u64) {
        let (own, its) = (&mut self.incident, &other.incident);
        own.severity = own.severity.max(its.severity);
        own.last_seen_at = own.last_seen_at.max(its.last_seen_at);
        own.occurrences = own.occurrences.saturating_add(its.occurrences);
        own.alert_count = own.alert_count.saturating_add(its.alert_count);
        own.evidence_count = own.evidence_count.saturating_add(evidence);
        let left = its.evidence_count.saturating_sub(evidence);
        self.evidence_beyond = self.evidence_beyond.saturating_add(other.evidence_beyond).saturating_add(left);
        self.key_count = self.key_count.saturating_add(other.key_count);
        self.firing = self.firing.saturating_add(other.firing);
        if self.firing > 0 {
            self.quiet_at = None;
        }
    }

    /// Ends, since everything of it went to `into`. It keeps what it counted until then.
    pub fn merge_into(&mut self, into: &IncidentId, at: Timestamp) {
        let incident = &mut self.incident;
        incident.status = IncidentStatus::Resolved;
        incident.resolved_at = Some(at);
        incident.resolution = Some(format!("merged into {into}"));
        incident.snoozed_until = None;
        incident.merged_into = Some(into.clone());
        self.firing = 0;
        self.quiet_at = None;
        self.look_at = None;
    }
}

/// Which incidents a fingerprint belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FingerprintState {
    /// The one that is not resolved, if any; there is never more than one.
    pub open: Option<IncidentId>,
    /// The newest one, open or not.
    pub latest: Option<IncidentId>,
}

/// An incident that is not resolved, as one that has a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHolder {
    /// The incident.
    pub incident: IncidentId,
    /// By our clock, when an alert last brought the key to it.
    pub at: Timestamp,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Whether the key is what a storm has in common, and this the storm.
    pub storm: bool,
}

/// A key that an incident has from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldKey {
    /// The key, `kind:value`.
    pub key: String,
    /// By our clock, when an alert brought it.
    pub at: Timestamp,
    /// Whether enough incidents with it are a storm.
    pub counts: bool,
    /// Whether it is what a storm has in common, and this the storm.
    pub storm: bool,
}

/// One incident's alerts go to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// The incident that ends.
    pub from: IncidentId,
    /// The one that goes on.
    pub into: IncidentId,
    /// How many pieces of evidence it takes over, oldest first, behind those that it has by then.
    pub evidence: u64,
}

/// Everything a batch of alert records and ticks can touch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Board {
    /// The newest episode under each claim.
    pub alerts: BTreeMap<AlertId, AlertState>,
    /// By fingerprint.
    pub fingerprints: BTreeMap<Fingerprint, FingerprintState>,
    /// Every incident named above, and those whose timers are due.
    pub incidents: BTreeMap<IncidentId, IncidentState>,
    /// Those of them that wait, because one of their approvals is approved or executing.
    pub under_way: BTreeSet<IncidentId>,
    /// Every silence that is not over.
    pub silences: Arc<SilenceSet>,
    /// How far alerts that fire were looked at.
    pub sweep: Sweep,
    /// Alerts that fire and hold others back, by what those must share with them.
    pub inhibitors: BTreeMap<String, BTreeSet<Inhibitor>>,
    /// The incidents that have a key, oldest first, for every key asked for and every key that the incidents
    /// have whose time to be looked at has come.
    pub keys: BTreeMap<String, Vec<KeyHolder>>,
    /// How many incidents were opened since the time asked for, those that became part of another left out.
    pub opened: u64,
}

/// What a board has to hold.
#[derive(Debug, Clone, Default)]
pub struct BoardRequest {
    /// The alert ids the records speak of.
    pub claims: BTreeSet<AlertId>,
    /// Their fingerprints.
    pub fingerprints: BTreeSet<Fingerprint>,
    /// Keys, every incident with which is wanted.
    pub keys: BTreeSet<String>,
    /// Keys, only the storm around which is wanted.
    pub storms: BTreeSet<String>,
    /// Incidents with a timer due at this time, and at most how many of them, earliest first.
    pub due: Option<(Timestamp, u32)>,
    /// Alerts that fire, behind this one by their claim, and at most how many of them: they are looked at again.
    pub firing: Option<(Option<AlertId>, u32)>,
    /// The silences that are known already.
    pub silences: Arc<SilenceSet>,
    /// With those timers: other incidents that have a key in common with them count if they were opened since then.
    pub opened_since: Option<Timestamp>,
}

impl BoardRequest {
    /// Adds the keys of alerts that are held back: they may be told of, and then they share them.
    pub fn add_held<'a>(&mut self, alerts: impl Iterator<Item = &'a AlertState>) {
        for held in alerts.filter_map(|state| state.aside.as_ref()?.held.as_ref()) {
            self.keys.extend(held.keys.iter().cloned());
            self.storms.extend(held.storms.iter().cloned());
        }
    }
}

/// One stage's decision on one record or tick, kept for *explain why*.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The entry of the alert log it is about.
    pub seq: Seq,
    /// By our clock, when that entry was logged.
    pub at: Timestamp,
    /// The stage that decided.
    pub stage: &'static str,
    /// The alert it is about; none for a timer.
    pub alert: Option<AlertId>,
    /// The incident it is about, if it came to that.
    pub incident: Option<IncidentId>,
    /// What was decided, in one word.
    pub outcome: &'static str,
    /// Why, in words.
    pub text: String,
    /// What it was decided on.
    pub inputs: serde_json::Value,
    /// Further decisions like it on the same alert are counted, not kept one by one.
    pub repeats: bool,
}

/// A change in an incident's life, for the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// It was opened.
    Opened,
    /// It was resolved.
    Resolved,
    /// It was opened again.
    Reopened,
    /// It lost its acknowledgement because it got worse.
    Raised,
    /// Its alerts went to another incident.
    Merged,
}

impl Lifecycle {
    /// The code as the audit log has it.
    pub const fn code(self) -> &'static str {
        match self {
            Lifecycle::Opened => "INC01I",
            Lifecycle::Resolved => "INC03I",
            Lifecycle::Reopened => "INC04I",
            Lifecycle::Raised => "INC08I",
            Lifecycle::Merged => "INC09I",
        }
    }
}

/// Everything that one batch changes about one incident.
#[derive(Debug, Clone, PartialEq)]
pub struct IncidentChange {
    /// As it stands after the batch; `state.rev` is still the revision that was read.
    pub state: IncidentState,
    /// The incident as it was founded, if this batch founded it.
    pub founded: Option<Box<Incident>>,
    /// If this batch founded it: the incident of the same fingerprint before it, which is over.
    pub recurrence_of: Option<IncidentId>,
    /// Fingerprints it did not have before.
    pub fingerprints: Vec<Fingerprint>,
    /// Keys it has from here on.
    pub keys: Vec<HeldKey>,
    /// Evidence to add, with the alert it came with, in front of what comes with merged incidents.
    pub evidence: Vec<(AlertId, Observation)>,
    /// How many pieces come with merged incidents.
    pub evidence_taken_over: u64,
    /// Timeline entries to add.
    pub timeline: Vec<TimelineEntry>,
    /// What changed besides counts, in order and without repeats.
    pub changes: Vec<TimelineKind>,
    /// What has to be audited, in words.
    pub lifecycle: Vec<(Lifecycle, String)>,
}

impl IncidentChange {
    /// Leaves an incident that is stored as it is.
    pub fn none(state: IncidentState) -> IncidentChange {
        IncidentChange {
            state,
            founded: None,
            recurrence_of: None,
            fingerprints: Vec::new(),
            keys: Vec::new(),
            evidence: Vec::new(),
            evidence_taken_over: 0,
            timeline: Vec::new(),
            changes: Vec::new(),
            lifecycle: Vec::new(),
        }
    }

    /// Founds an incident, of which nothing is stored yet.
    pub fn founding(incident: Incident) -> IncidentChange {
        let founded = Some(Box::new(incident.clone()));
        let state = IncidentState {
            incident,
            rev: 0,
            firing: 0,
            quiet_at: None,
            look_at: None,
            key_count: 0,
            pinned: false,
            timeline_count: 0,
            timeline_beyond: 0,
            evidence_beyond: 0,
        };
        IncidentChange { founded, ..IncidentChange::none(state) }
    }
}

/// All that a batch changes, with the cursor that says it is done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Commit {
    /// Whose cursor it is.
    pub module: &'static str,
    /// Where the cursor must stand for this to apply: another run of the same pipeline loses.
    pub from: Seq,
    /// Where the cursor goes.
    pub to: Seq,
    /// The revisions everything was decided on; a person's change in between moves one of them.
    pub read: Vec<(IncidentId, i64)>,
    /// The revision of what holds alerts back; a person's change in between moves it.
    pub silences: i64,
    /// How far alerts that fire were looked at, if that changed.
    pub sweep: Option<Sweep>,
    /// The alerts that changed, in the order in which they were first touched.
    pub alerts: Vec<AlertState>,
    /// The incidents that changed, in the order in which they were first touched.
    pub incidents: Vec<IncidentChange>,
    /// Which of them became one, in this order.
    pub merges: Vec<Merge>,
    /// Every decision of every stage.
    pub decisions: Vec<Decision>,
}
