//! What the alert pipeline reads before it decides, and what it hands back to be committed.
//!
//! The deciders work on a [`Board`]: the alerts, fingerprints and incidents that a batch can
//! touch, with the revision each incident had when it was read. What they decide comes back as a
//! [`Commit`], which is applied only if no revision has moved since.

use std::collections::{BTreeMap, BTreeSet};

use opspilot_kernel::{
    alert::{Alert, Observation, ResolvedBy},
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId, Seq},
    incident::{Incident, TimelineEntry, TimelineKind},
    time::Timestamp,
};
use serde::Serialize;

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
        match (self.incident.snoozed_until, self.quiet_at) {
            (Some(snooze), Some(quiet)) => Some(snooze.min(quiet)),
            (snooze, quiet) => snooze.or(quiet),
        }
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
}

/// What a board has to hold.
#[derive(Debug, Clone, Default)]
pub struct BoardRequest {
    /// The alert ids the records speak of.
    pub claims: BTreeSet<AlertId>,
    /// Their fingerprints.
    pub fingerprints: BTreeSet<Fingerprint>,
    /// Incidents with a timer due at this time, and at most how many of them, earliest first.
    pub due: Option<(Timestamp, u32)>,
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
}

impl Lifecycle {
    /// The code as the audit log has it.
    pub const fn code(self) -> &'static str {
        match self {
            Lifecycle::Opened => "INC01I",
            Lifecycle::Resolved => "INC03I",
            Lifecycle::Reopened => "INC04I",
            Lifecycle::Raised => "INC08I",
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
    /// Fingerprints it did not have before.
    pub fingerprints: Vec<Fingerprint>,
    /// Evidence to add, with the alert it came with.
    pub evidence: Vec<(AlertId, Observation)>,
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
            fingerprints: Vec::new(),
            evidence: Vec::new(),
            timeline: Vec::new(),
            changes: Vec::new(),
            lifecycle: Vec::new(),
        }
    }

    /// Founds an incident, of which nothing is stored yet.
    pub fn founding(incident: Incident) -> IncidentChange {
        let founded = Some(Box::new(incident.clone()));
        let state =
            IncidentState { incident, rev: 0, firing: 0, quiet_at: None, timeline_count: 0, timeline_beyond: 0, evidence_beyond: 0 };
        IncidentChange { founded, ..IncidentChange::none(state) }
    }
}

/// All that a batch changes, with the cursor that says it is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// Whose cursor it is.
    pub module: &'static str,
    /// Where the cursor must stand for this to apply: another run of the same pipeline loses.
    pub from: Seq,
    /// Where the cursor goes.
    pub to: Seq,
    /// The revisions everything was decided on; a person's change in between moves one of them.
    pub read: Vec<(IncidentId, i64)>,
    /// The alerts that changed, in the order in which they were first touched.
    pub alerts: Vec<AlertState>,
    /// The incidents that changed, in the order in which they were first touched.
    pub incidents: Vec<IncidentChange>,
    /// Every decision of every stage.
    pub decisions: Vec<Decision>,
}
