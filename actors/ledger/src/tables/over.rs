//! Retention of what is over: resolved incidents with all that hangs on them, alerts of no incident, decisions about
//! what is gone. The newest incident and the newest alert stay, so that their numbers are never given out again.

use diesel::{connection::SimpleConnection, prelude::*, sql_query, sql_types::BigInt};
use opspilot_kernel::time::Timestamp;

use super::{incidents_merge, incidents_rows::IncidentRow, incidents_split, incidents_words};
use crate::{
    error::LedgerError,
    schema::{alert, decision, evidence, explanation, incident, incident_course, incident_fingerprint, timeline},
};

/// Incidents in one step: each may bring thousands of rows.
pub(crate) const INCIDENTS: i64 = 20;

/// How many rows went.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    pub(crate) incidents: usize,
    pub(crate) timeline: usize,
    pub(crate) alerts: usize,
    pub(crate) decisions: usize,
}

/// Deletes what was over before `before`, at most `rows` alerts and decisions of their own.
pub(crate) fn delete_before(conn: &mut SqliteConnection, before: Timestamp, rows: i64) -> Result<Gone, LedgerError> {
    let before = before.millis();
    let newest: Option<i64> = incident::table.select(diesel::dsl::max(incident::num)).first(conn)?;
    let over: Vec<IncidentRow> = incident::table
        .filter(incident::status.eq("resolved"))
        .filter(incident::opened_at.lt(before))
        .filter(incident::resolved_at.lt(before))
        .filter(incident::last_seen_at.lt(before))
        .filter(incident::firing.eq(0))
        .filter(incident::num.ne(newest.unwrap_or(0)))
        .order((incident::opened_at, incident::num))
        .limit(INCIDENTS)
        .select(IncidentRow::as_select())
        .load(conn)?;
    let mut gone = Gone { incidents: over.len(), ..Gone::default() };
    if !over.is_empty() {
        // the incident goes first: as long as it is there nothing may be taken from its timeline
        conn.batch_execute("PRAGMA defer_foreign_keys=ON")?;
    }
    let last_alert: Option<i64> = alert::table.select(diesel::dsl::max(alert::num)).first(conn)?;
    for row in over {
        let own = || alert::table.filter(alert::incident.eq(&row.id));
        let alerts: Vec<String> = own().select(alert::id).load(conn)?;
        for id in &alerts {
            gone.decisions += diesel::delete(decision::table.filter(decision::alert.eq(id))).execute(conn)?;
        }
        gone.decisions += diesel::delete(decision::table.filter(decision::incident.eq(&row.id))).execute(conn)?;
        gone.alerts += diesel::delete(own().filter(alert::num.ne(last_alert.unwrap_or(0)))).execute(conn)?;
        diesel::update(own()).set(alert::incident.eq(None::<String>)).execute(conn)?;
        let num = row.num;
        incidents_words::forget(conn, num)?;
        incidents_split::forget(conn, num)?;
        diesel::delete(incident_course::table.find(num)).execute(conn)?;
        diesel::delete(incident::table.find(num)).execute(conn)?;
        diesel::delete(incident_fingerprint::table.filter(incident_fingerprint::num.eq(num))).execute(conn)?;
        diesel::delete(evidence::table.filter(evidence::incident.eq(num))).execute(conn)?;
        incidents_merge::drop_keys(conn, num)?;
        diesel::delete(explanation::table.find(num)).execute(conn)?;
        gone.timeline += diesel::delete(timeline::table.filter(timeline::incident.eq(num))).execute(conn)?;
    }
    gone.alerts += sql_query(
        "DELETE FROM alert WHERE num IN (SELECT num FROM alert WHERE incident IS NULL AND status = 'resolved' \
         AND coalesce(resolved_logged_at, last_logged_at) < ?1 AND last_logged_at < ?1 \
         AND num <> (SELECT max(num) FROM alert) LIMIT ?2)",
    )
    .bind::<BigInt, _>(before)
    .bind::<BigInt, _>(rows)
    .execute(conn)?;
    gone.decisions += sql_query(
        "DELETE FROM decision WHERE num IN (SELECT d.num FROM decision d WHERE d.last_at < ?1 \
         AND NOT EXISTS (SELECT 1 FROM incident WHERE id = d.incident) AND NOT EXISTS (SELECT 1 FROM alert WHERE id = d.alert) LIMIT ?2)",
    )
    .bind::<BigInt, _>(before)
    .bind::<BigInt, _>(rows)
    .execute(conn)?;
    Ok(gone)
}
