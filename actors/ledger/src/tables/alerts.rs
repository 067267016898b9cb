//! `alert`: one row for each episode.

use diesel::prelude::*;
use opspilot_kernel::{
    alert::{Alert, AlertStatus},
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId},
    signal::Severity,
    time::Timestamp,
};

use super::{
    incidents_list::{listed, number_cursor, one_more},
    incidents_rows::{AlertRow, word},
    incidents_state::AlertState,
};
use crate::{
    error::LedgerError,
    read::{Listed, Page, Reader},
    schema::alert::dsl as t,
};

/// Which alerts are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertFilter {
    /// Whether they hold.
    pub status: Option<AlertStatus>,
    /// How bad they are.
    pub severity: Option<Severity>,
    /// Who observed them.
    pub source: Option<String>,
    /// Every episode of one condition.
    pub fingerprint: Option<Fingerprint>,
    /// Those of one incident.
    pub incident: Option<IncidentId>,
}

/// Stores an alert as it now stands; says whether it is a new one.
pub(crate) fn put(conn: &mut SqliteConnection, state: &AlertState) -> Result<bool, LedgerError> {
    let row = AlertRow::of(state)?;
    let found = diesel::update(t::alert.filter(t::id.eq(&row.id)))
        .set((
            t::status.eq(&row.status),
            t::severity.eq(&row.severity),
            t::occurrences.eq(row.occurrences),
            t::last_seen_at.eq(row.last_seen_at),
            t::last_logged_at.eq(row.last_logged_at),
            t::resolved_at.eq(row.resolved_at),
            t::resolved_logged_at.eq(row.resolved_logged_at),
            t::resolved_by.eq(&row.resolved_by),
            t::suppressed_by.eq(&row.suppressed_by),
            t::incident.eq(&row.incident),
            t::aside.eq(&row.aside),
        ))
        .execute(conn)?;
    if found == 0 {
        diesel::insert_into(t::alert).values(&row).execute(conn)?;
    }
    super::suppression::keep_inhibitors(conn, state)?;
    Ok(found == 0)
}

/// Marks every alert of the incident that still holds as resolved by a person.
pub(crate) fn resolve_all_of(conn: &mut SqliteConnection, incident: &IncidentId, now: Timestamp) -> Result<usize, LedgerError> {
    let holding = t::alert.filter(t::incident.eq(incident.as_str())).filter(t::status.eq("firing"));
    let by = word(&opspilot_kernel::alert::ResolvedBy::Person)?;
    super::suppression::forget_inhibitors_of(conn, incident)?;
    Ok(diesel::update(holding)
        .set((t::status.eq("resolved"), t::resolved_at.eq(now.millis()), t::resolved_logged_at.eq(now.millis()), t::resolved_by.eq(by)))
        .execute(conn)?)
}

/// The first `most` alerts of an incident.
pub(crate) fn first_of(conn: &mut SqliteConnection, incident: &str, most: i64) -> Result<Vec<Alert>, LedgerError> {
    let query = t::alert.filter(t::incident.eq(incident)).order(t::num).limit(most);
    let rows: Vec<AlertRow> = query.select(AlertRow::as_select()).load(conn)?;
    rows.into_iter().map(AlertRow::alert).collect()
}

impl Reader<'_> {
    /// Alerts, newest first.
    pub fn alerts(&mut self, filter: &AlertFilter, page: &Page) -> Result<Listed<Alert>, LedgerError> {
        let mut query = t::alert.select(AlertRow::as_select()).into_boxed();
        if let Some(status) = filter.status {
            query = query.filter(t::status.eq(word(&status)?));
        }
        if let Some(severity) = filter.severity {
            query = query.filter(t::severity.eq(severity.as_str()));
        }
        if let Some(source) = &filter.source {
            query = query.filter(t::source.eq(source.clone()));
        }
        if let Some(fingerprint) = filter.fingerprint {
            query = query.filter(t::fingerprint.eq(fingerprint.as_u64().cast_signed()));
        }
        if let Some(incident) = &filter.incident {
            query = query.filter(t::incident.eq(incident.to_string()));
        }
        if let Some(before) = number_cursor(page)? {
            query = query.filter(t::num.lt(before));
        }
        let rows: Vec<AlertRow> = query.order(t::num.desc()).limit(one_more(page)).load(self.conn)?;
        listed(rows, page, |row| row.num.to_string(), AlertRow::alert)
    }

    /// One alert.
    pub fn alert(&mut self, id: &AlertId) -> Result<Alert, LedgerError> {
        let row: Option<AlertRow> = t::alert.filter(t::id.eq(id.as_str())).select(AlertRow::as_select()).first(self.conn).optional()?;
        row.ok_or_else(|| LedgerError::NotFound(format!("the alert {id}")))?.alert()
    }

    /// The alerts of an incident, in the order in which they joined it.
    pub fn incident_alerts(&mut self, id: &IncidentId, page: &Page) -> Result<Listed<Alert>, LedgerError> {
        super::incidents::load(self.conn, id)?;
        let query = t::alert.filter(t::incident.eq(id.as_str())).filter(t::num.gt(number_cursor(page)?.unwrap_or(0)));
        let rows: Vec<AlertRow> = query.order(t::num).limit(one_more(page)).select(AlertRow::as_select()).load(self.conn)?;
        listed(rows, page, |row| row.num.to_string(), AlertRow::alert)
    }
}
