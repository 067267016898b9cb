//! `incident`, `incident_fingerprint`, `evidence`: writing single rows.

use diesel::{prelude::*, sql_query, sql_types};
use opspilot_kernel::{
    alert::Observation,
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId},
    incident::IncidentStatus,
};

use super::{
    incidents_course,
    incidents_rows::{IncidentRow, json, stored},
    incidents_state::IncidentState,
};
use crate::{
    error::LedgerError,
    schema::{evidence, incident, incident_fingerprint},
};

/// Stores a new incident, which may be one that came back; says its number.
pub(crate) fn insert(conn: &mut SqliteConnection, state: &IncidentState, before: Option<&IncidentId>) -> Result<i64, LedgerError> {
    let row = IncidentRow::of(0, state)?;
    let num = diesel::insert_into(incident::table).values(&row).returning(incident::num).get_result(conn)?;
    if let Some(before) = before {
        incidents_course::came_back(conn, num, before)?;
    }
    Ok(num)
}

/// Stores a change of an incident that was read at the revision before; says its number.
pub(crate) fn update(conn: &mut SqliteConnection, state: &IncidentState) -> Result<i64, LedgerError> {
    let row = IncidentRow::of(0, state)?;
    let before = incident::table.filter(incident::id.eq(&row.id)).filter(incident::rev.eq(row.rev - 1));
    let num = diesel::update(before).set(&row).returning(incident::num).get_result(conn).optional()?;
    num.ok_or_else(|| LedgerError::Conflict(format!("the incident {} changed meanwhile", row.id)))
}

/// The incident and its number.
pub(crate) fn load(conn: &mut SqliteConnection, id: &IncidentId) -> Result<(i64, IncidentState), LedgerError> {
    let row: Option<IncidentRow> =
        incident::table.filter(incident::id.eq(id.as_str())).select(IncidentRow::as_select()).first(conn).optional()?;
    let row = row.ok_or_else(|| LedgerError::NotFound(format!("the incident {id}")))?;
    Ok((row.num, row.state()?))
}

/// Gives the incident a fingerprint, which no other open incident may have.
pub(crate) fn add_fingerprint(
    conn: &mut SqliteConnection,
    num: i64,
    state: &IncidentState,
    fingerprint: Fingerprint,
) -> Result<(), LedgerError> {
    use incident_fingerprint::dsl as t;
    diesel::insert_into(t::incident_fingerprint)
        .values((
            t::fingerprint.eq(fingerprint.as_u64().cast_signed()),
            t::num.eq(num),
            t::incident.eq(state.incident.id.as_str()),
            t::open.eq(state.incident.status != IncidentStatus::Resolved),
        ))
        .execute(conn)?;
    Ok(())
}

/// Lets go of the fingerprints of an incident that is resolved, takes hold of those of one that is not.
pub(crate) fn hold_fingerprints(conn: &mut SqliteConnection, num: i64, status: IncidentStatus) -> Result<(), LedgerError> {
    use incident_fingerprint::dsl as t;
    if status == IncidentStatus::Resolved {
        diesel::update(t::incident_fingerprint.filter(t::num.eq(num)).filter(t::open)).set(t::open.eq(false)).execute(conn)?;
        return Ok(());
    }
    // what another incident holds by now stays there
    sql_query(
        "UPDATE incident_fingerprint AS f SET open = 1 WHERE num = ? AND NOT open AND NOT EXISTS \
         (SELECT 1 FROM incident_fingerprint o WHERE o.fingerprint = f.fingerprint AND o.open AND o.num <> f.num)",
    )
    .bind::<sql_types::BigInt, _>(num)
    .execute(conn)?;
    Ok(())
}

/// Another incident that is open and has a fingerprint of this one.
pub(crate) fn rival(conn: &mut SqliteConnection, num: i64) -> Result<Option<String>, LedgerError> {
    use incident_fingerprint::dsl as t;
    let own: Vec<i64> = t::incident_fingerprint.filter(t::num.eq(num)).select(t::fingerprint).load(conn)?;
    for fingerprint in own {
        let other = t::incident_fingerprint.filter(t::fingerprint.eq(fingerprint)).filter(t::open).filter(t::num.ne(num));
        if let Some(id) = other.select(t::incident).first(conn).optional()? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Adds evidence behind the first `already` pieces.
pub(crate) fn add_evidence(
    conn: &mut SqliteConnection,
    num: i64,
    already: u64,
    pieces: &[(AlertId, Observation)],
) -> Result<(), LedgerError> {
    use evidence::dsl as t;
    for (n, (alert, piece)) in (stored(already)? + 1..).zip(pieces) {
        diesel::insert_into(t::evidence)
            .values((t::incident.eq(num), t::n.eq(n), t::alert.eq(alert.as_str()), t::body.eq(json(piece)?)))
            .execute(conn)?;
    }
    Ok(())
}
