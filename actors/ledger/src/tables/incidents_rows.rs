//! Rows of alerts and incidents, to and from what they mean.

use std::collections::BTreeMap;

use diesel::{Insertable, Queryable, QueryableByName, Selectable};
use opspilot_kernel::{
    alert::{Alert, AlertStatus, ResolvedBy},
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId},
    incident::Incident,
    time::Timestamp,
};
use serde::{Serialize, de::DeserializeOwned};

use super::incidents_state::{AlertState, IncidentState};
use crate::{error::LedgerError, schema};

/// A row of `alert`.
#[derive(Debug, Clone, Queryable, QueryableByName, Selectable, Insertable)]
#[diesel(table_name = schema::alert, check_for_backend(diesel::sqlite::Sqlite))]
pub(crate) struct AlertRow {
    #[diesel(skip_insertion)]
    pub(crate) num: i64,
    pub(crate) id: String,
    pub(crate) claim: String,
    pub(crate) fingerprint: i64,
    pub(crate) status: String,
    pub(crate) severity: String,
    pub(crate) source: String,
    pub(crate) name: String,
    pub(crate) detected_by: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) labels: String,
    pub(crate) occurrences: i64,
    pub(crate) first_seen_at: i64,
    pub(crate) last_seen_at: i64,
    pub(crate) last_logged_at: i64,
    pub(crate) resolved_at: Option<i64>,
    pub(crate) resolved_logged_at: Option<i64>,
    pub(crate) resolved_by: Option<String>,
    pub(crate) suppressed_by: Option<String>,
    pub(crate) incident: Option<String>,
    pub(crate) aside: Option<String>,
}

impl AlertRow {
    pub(crate) fn of(state: &AlertState) -> Result<AlertRow, LedgerError> {
        let alert = &state.alert;
        Ok(AlertRow {
            num: 0,
            id: alert.id.to_string(),
            claim: state.claim.to_string(),
            fingerprint: alert.fingerprint.as_u64().cast_signed(),
            status: word(&alert.status)?,
            severity: alert.severity.as_str().to_owned(),
            source: alert.source.clone(),
            name: alert.name.clone(),
            detected_by: alert.detected_by.clone(),
            title: alert.title.clone(),
            description: alert.description.clone(),
            labels: json(&alert.labels)?,
            occurrences: stored(alert.occurrences)?,
            first_seen_at: alert.first_seen_at.millis(),
            last_seen_at: alert.last_seen_at.millis(),
            last_logged_at: state.last_logged_at.millis(),
            resolved_at: alert.resolved_at.map(Timestamp::millis),
            resolved_logged_at: state.resolved_logged_at.map(Timestamp::millis),
            resolved_by: state.resolved_by.as_ref().map(word).transpose()?,
            suppressed_by: alert.suppressed_by.clone(),
            incident: alert.incident_id.as_ref().map(ToString::to_string),
            aside: state.aside.as_ref().map(json).transpose()?,
        })
    }

    pub(crate) fn alert(self) -> Result<Alert, LedgerError> {
        Ok(self.state()?.alert)
    }

    pub(crate) fn state(self) -> Result<AlertState, LedgerError> {
        Ok(AlertState {
            claim: AlertId::given(self.claim),
            last_logged_at: Timestamp::from_millis(self.last_logged_at),
            resolved_by: self.resolved_by.as_deref().map(meaning::<ResolvedBy>).transpose()?,
            resolved_logged_at: self.resolved_logged_at.map(Timestamp::from_millis),
            aside: self.aside.as_deref().map(parsed).transpose()?,
            alert: Alert {
                id: AlertId::given(self.id),
                fingerprint: Fingerprint::from_u64(self.fingerprint.cast_unsigned()),
                status: meaning::<AlertStatus>(&self.status)?,
                source: self.source,
                name: self.name,
                detected_by: self.detected_by,
                title: self.title,
                description: self.description,
                severity: meaning(&self.severity)?,
                labels: parsed::<BTreeMap<String, String>>(&self.labels)?,
                occurrences: counted(self.occurrences)?,
                first_seen_at: Timestamp::from_millis(self.first_seen_at),
                last_seen_at: Timestamp::from_millis(self.last_seen_at),
                resolved_at: self.resolved_at.map(Timestamp::from_millis),
                suppressed_by: self.suppressed_by,
                incident_id: self.incident.map(IncidentId::given),
            },
        })
    }
}

/// A row of `incident`.
#[derive(Debug, Clone, Queryable, QueryableByName, Selectable, Insertable, diesel::AsChangeset)]
#[diesel(table_name = schema::incident, check_for_backend(diesel::sqlite::Sqlite), treat_none_as_null = true)]
pub(crate) struct IncidentRow {
    #[diesel(skip_insertion, skip_update)]
    pub(crate) num: i64,
    pub(crate) id: String,
    pub(crate) rev: i64,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) severity: String,
    pub(crate) status: String,
    pub(crate) detected_by: String,
    pub(crate) rule: String,
    pub(crate) source: String,
    pub(crate) labels: String,
    pub(crate) occurrences: i64,
    pub(crate) opened_at: i64,
    pub(crate) last_seen_at: i64,
    pub(crate) acknowledged_at: Option<i64>,
    pub(crate) acknowledged_by: Option<String>,
    pub(crate) assignee: Option<String>,
    pub(crate) snoozed_until: Option<i64>,
    pub(crate) resolved_at: Option<i64>,
    pub(crate) resolution: Option<String>,
    pub(crate) quiet_at: Option<i64>,
    pub(crate) due_at: Option<i64>,
    pub(crate) alert_count: i64,
    pub(crate) firing: i64,
    pub(crate) evidence_count: i64,
    pub(crate) evidence_beyond: i64,
    pub(crate) timeline_count: i64,
    pub(crate) timeline_beyond: i64,
    pub(crate) merged_into: Option<String>,
    pub(crate) look_at: Option<i64>,
    pub(crate) key_count: i64,
    pub(crate) pinned: bool,
}

impl IncidentRow {
    pub(crate) fn of(num: i64, state: &IncidentState) -> Result<IncidentRow, LedgerError> {
        let incident = &state.incident;
        Ok(IncidentRow {
            num,
            id: incident.id.to_string(),
            rev: state.rev,
            title: incident.title.clone(),
            description: incident.description.clone(),
            severity: incident.severity.as_str().to_owned(),
            status: incident.status.as_str().to_owned(),
            detected_by: incident.detected_by.clone(),
            rule: incident.rule.clone(),
            source: incident.source.clone(),
            labels: json(&incident.labels)?,
            occurrences: stored(incident.occurrences)?,
            opened_at: incident.opened_at.millis(),
            last_seen_at: incident.last_seen_at.millis(),
            acknowledged_at: incident.acknowledged_at.map(Timestamp::millis),
            acknowledged_by: incident.acknowledged_by.clone(),
            assignee: incident.assignee.clone(),
            snoozed_until: incident.snoozed_until.map(Timestamp::millis),
            resolved_at: incident.resolved_at.map(Timestamp::millis),
            resolution: incident.resolution.clone(),
            quiet_at: state.quiet_at.map(Timestamp::millis),
            due_at: state.due_at().map(Timestamp::millis),
            alert_count: stored(incident.alert_count)?,
            firing: stored(state.firing)?,
            evidence_count: stored(incident.evidence_count)?,
            evidence_beyond: stored(state.evidence_beyond)?,
            timeline_count: stored(state.timeline_count)?,
            timeline_beyond: stored(state.timeline_beyond)?,
            merged_into: incident.merged_into.as_ref().map(ToString::to_string),
            look_at: state.look_at.map(Timestamp::millis),
            key_count: stored(state.key_count)?,
            pinned: state.pinned,
        })
    }

    pub(crate) fn state(self) -> Result<IncidentState, LedgerError> {
        Ok(IncidentState {
            rev: self.rev,
            firing: counted(self.firing)?,
            quiet_at: self.quiet_at.map(Timestamp::from_millis),
            look_at: self.look_at.map(Timestamp::from_millis),
            key_count: counted(self.key_count)?,
            pinned: self.pinned,
            timeline_count: counted(self.timeline_count)?,
            timeline_beyond: counted(self.timeline_beyond)?,
            evidence_beyond: counted(self.evidence_beyond)?,
            incident: Incident {
                id: IncidentId::given(self.id),
                title: self.title,
                description: self.description,
                severity: meaning(&self.severity)?,
                status: meaning(&self.status)?,
                detected_by: self.detected_by,
                rule: self.rule,
                source: self.source,
                labels: parsed(&self.labels)?,
                occurrences: counted(self.occurrences)?,
                opened_at: Timestamp::from_millis(self.opened_at),
                last_seen_at: Timestamp::from_millis(self.last_seen_at),
                acknowledged_at: self.acknowledged_at.map(Timestamp::from_millis),
                acknowledged_by: self.acknowledged_by,
                assignee: self.assignee,
                snoozed_until: self.snoozed_until.map(Timestamp::from_millis),
                resolved_at: self.resolved_at.map(Timestamp::from_millis),
                resolution: self.resolution,
                merged_into: self.merged_into.map(IncidentId::given),
                alert_count: counted(self.alert_count)?,
                evidence_count: counted(self.evidence_count)?,
            },
        })
    }
}

/// A count as SQLite stores it.
pub(crate) fn stored(count: u64) -> Result<i64, LedgerError> {
    i64::try_from(count).map_err(|_| LedgerError::Internal("a count is out of range".to_owned()))
}

/// A count as SQLite stored it.
pub(crate) fn counted(count: i64) -> Result<u64, LedgerError> {
    u64::try_from(count).map_err(|_| LedgerError::Damaged("a stored count is negative".to_owned()))
}

/// A value as JSON text.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, LedgerError> {
    serde_json::to_string(value).map_err(|error| LedgerError::Internal(error.to_string()))
}

/// JSON text that was written by [`json`].
pub(crate) fn parsed<T: DeserializeOwned>(text: &str) -> Result<T, LedgerError> {
    serde_json::from_str(text).map_err(|error| LedgerError::Damaged(error.to_string()))
}

/// The one word a value of a closed set is written as.
pub(crate) fn word<T: Serialize>(value: &T) -> Result<String, LedgerError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        _ => Err(LedgerError::Internal("a value is not written as one word".to_owned())),
    }
}

/// The value of a closed set behind the word it is written as.
pub(crate) fn meaning<T: DeserializeOwned>(word: &str) -> Result<T, LedgerError> {
    T::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(word))
        .map_err(|error| LedgerError::Damaged(error.to_string()))
}
